"""Figures of the segmentation: cells found, outlines against masks, other stains, speed and memory.

Run it with ``python benchmarks/segmentation.py [--data ../shared/data] [--only bccd,sslseg,...] [--worst FOLDER]``;
writes ``benchmarks/results/segmentation.json``. What is judged was not used for fitting or choosing: the odd-numbered
BCCD fields, SSLSeg (for judging only, by its licence), generated smears with seeds of their own.

Masks of BCCD are coarse polygons; connected pieces are its cells. A true cell is found where a cell overlaps it with an
IoU of at least one half, one to one; every other cell counts as false, those without a mask of their own included. With
``--worst`` the twenty worst pictures of each set are drawn: true outlines in green, ours in red. They show real
images and are not for the repository.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, machine
from numpy.typing import NDArray
from PIL import Image

from napari_dinobloom.cells.segment import Cells, segment
from napari_dinobloom.io.canvas import STAINS
from napari_dinobloom.io.generate import generate_smear

Labels = NDArray[np.integer[Any]]
Bool = NDArray[np.bool_]
Pixels = NDArray[np.uint8]
Record = dict[str, Any]

SMALLEST_MASK_PX = 500
"""Smaller pieces of a BCCD mask are slips of the pen."""

WORST = 20


def read(path: Path) -> Pixels:
    """Picture as RGB."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def read_mask(path: Path) -> Labels:
    """Mask with 0 background, 1 cytoplasm, 2 nucleus."""
    with Image.open(path) as picture:
        values = np.asarray(picture)
    return values[..., 0] if values.ndim == 3 else values


def pieces_of(mask: Labels) -> Labels:
    """Number the connected pieces of a BCCD mask."""
    from scipy import ndimage as ndi

    pieces, count = ndi.label(mask > 0)
    small = np.bincount(pieces.ravel(), minlength=count + 1) < SMALLEST_MASK_PX
    return np.where(small[pieces], 0, pieces)


def recoloured(image: Pixels, hue: float, saturation: float, white: tuple[float, ...], gamma: float) -> Pixels:
    """Change hue (degrees), saturation (factor, in HSV), white balance (factors of red, green, blue) and gamma."""
    from skimage.color import hsv2rgb, rgb2hsv

    hsv = rgb2hsv(image)
    hsv[..., 0] = (hsv[..., 0] + hue / 360) % 1
    hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 1)
    rgb = np.clip(hsv2rgb(hsv) * np.asarray(white), 0, 1) ** gamma
    return np.rint(rgb * 255).astype(np.uint8)


RECOLOURED: dict[str, tuple[float, float, tuple[float, ...], float]] = {
    "hue -30": (-30, 1.0, (1, 1, 1), 1.0),
    "hue -15": (-15, 1.0, (1, 1, 1), 1.0),
    "hue +15": (15, 1.0, (1, 1, 1), 1.0),
    "hue +30": (30, 1.0, (1, 1, 1), 1.0),
    "saturation x 0.5": (0, 0.5, (1, 1, 1), 1.0),
    "saturation x 1.8": (0, 1.8, (1, 1, 1), 1.0),
    "warm light": (0, 1.0, (1.0, 0.88, 0.62), 1.0),
    "cold light": (0, 1.0, (0.70, 0.85, 1.0), 1.0),
    "green light": (0, 1.0, (0.8, 1.0, 0.8), 1.0),
    "dark": (0, 1.0, (0.55, 0.55, 0.55), 1.0),
    "gamma 0.6": (0, 1.0, (1, 1, 1), 0.6),
    "gamma 1.7": (0, 1.0, (1, 1, 1), 1.7),
    "hue +20, saturation x 1.4, warm, gamma 1.4": (20, 1.4, (1.0, 0.9, 0.7), 1.4),
    "hue -20, saturation x 0.6, cold, gamma 0.8": (-20, 0.6, (0.75, 0.88, 1.0), 0.8),
}
"""Hue by 30 degrees, saturation half to 1.8 fold, light down to 0.62 of blue, exposure 0.55, gamma 0.6 to 1.7."""


def timed(image: Pixels, **options: Any) -> tuple[Cells, Record]:
    """Segment, and what every set records."""
    start = time.process_time()
    cells = segment(image, **options)
    return cells, {
        "ms": 1000 * (time.process_time() - start),
        "scale_from": cells.scale.source,
        "pixel_size_um": cells.scale.pixel_size_um,
    }


def dice(first: Bool, second: Bool) -> float:
    """Dice coefficient; 1 where both are empty."""
    total = int(first.sum() + second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0


def overlap(truth: Labels, found: Labels) -> NDArray[np.float64]:
    """IoU of every true with every found cell; row and column 0 are background."""
    shape = (int(truth.max(initial=0)) + 1, int(found.max(initial=0)) + 1)
    both = np.bincount(truth.ravel().astype(np.int64) * shape[1] + found.ravel(), minlength=shape[0] * shape[1])
    both = both.reshape(shape).astype(np.float64)
    union = both.sum(axis=1, keepdims=True) + both.sum(axis=0, keepdims=True) - both
    return both / np.maximum(union, 1)


def compare(truth: Labels, nuclei: Bool, cells: Cells) -> Record:
    """Matches, Dice of the matched, and the cause of each error."""
    iou = overlap(truth, cells.labels)
    present = np.unique(truth[truth > 0])
    matched = {int(n): int(iou[n, 1:].argmax() + 1) for n in present if iou.shape[1] > 1 and iou[n, 1:].max() >= 0.5}
    taken = set(matched.values())
    missed = [int(n) for n in present if int(n) not in matched]
    extra = [n for n in range(1, iou.shape[1]) if n not in taken]
    causes = Counter(_why_missed(truth, cells.labels, n, taken) for n in missed)
    causes += Counter(_why_extra(truth, cells, n) for n in extra)
    pairs = [(truth == n, cells.labels == m, cells.nuclei == m) for n, m in matched.items()]
    return {
        "hits": len(matched),
        "missed": len(missed),
        "extra": len(extra),
        "causes": dict(causes),
        "cell_dice": [dice(mask, mine) for mask, mine, _ in pairs],
        "nucleus_dice": [dice(mask & nuclei, core) for mask, _, core in pairs],
    }


def _why_missed(truth: Labels, found: Labels, number: int, taken: set[int]) -> str:
    """Cause of a true cell without a match."""
    inside = np.bincount(found[truth == number], minlength=1)
    inside[0] = 0
    if not inside.sum():
        return "missed: nothing found there"
    if int(inside.argmax()) in taken:
        return "missed: joined with a neighbour"
    return "missed: in pieces" if (inside > 0.1 * inside.sum()).sum() > 1 else "missed: outline too different"


def _why_extra(truth: Labels, cells: Cells, number: int) -> str:
    """Cause of a found cell without a match."""
    mask = cells.labels == number
    if (truth[mask] > 0).mean() > 0.3:
        return "false: piece or poor outline of a true cell"
    if cells.table["touches_border"].iloc[number - 1]:
        return "false: at the border, without a mask"
    return "false: elsewhere, without a mask"


def bccd(path: Path, data: Path, colours: tuple[Any, ...] | None = None) -> Record:
    """One BCCD field against its masks, recoloured or as it is."""
    image = read(path)
    cells, record = timed(image if colours is None else recoloured(image, *colours))
    mask = read_mask(data / "bccd" / "masks" / f"{path.stem}.png")
    record.update(compare(pieces_of(mask), mask == 2, cells), file=f"bccd/images/{path.name}")
    worst = min(record["cell_dice"], default=1.0)
    return {**record, "score": worst - record["missed"] - record["extra"]}


def sslseg(row: dict[str, str], data: Path) -> Record:
    """One SSLSeg picture: the found cell that overlaps most against the mask."""
    cells, record = timed(read(data / row["file"]))
    mask = read_mask(data / row["mask"])
    counts = np.bincount(cells.labels[mask > 0], minlength=1)
    counts[0] = 0
    number = int(counts.argmax())
    found = number > 0
    whole = dice(mask > 0, (cells.labels == number) & found)
    core = dice(mask == 2, (cells.nuclei == number) & found)
    return {**record, "file": row["file"], "cell_dice": whole, "nucleus_dice": core, "score": min(whole, core),
            "found": len(cells.table)}  # fmt: skip


def generated(job: tuple[str, int]) -> Record:
    """One generated field of 10 to 60 touching cells, against its truth."""
    stain, seed = job
    smear = generate_smear(seed, height=1100, width=1500, n_white=10 + 10 * (seed % 6), touching=0.8, stain=stain)
    cells, record = timed(smear.image)
    return {**record, **compare(smear.labels, smear.nuclei > 0, cells), "cells": len(smear.classes)}


def pbc(row: dict[str, str], data: Path) -> Record:
    """One PBC picture: does a cell cover its middle, or its box."""
    image = read(data / row["file"])
    cells, record = timed(image)
    y, x = image.shape[0] / 2, image.shape[1] / 2
    t = cells.table
    boxed = ((t.y0 <= y) & (t.y1 > y) & (t.x0 <= x) & (t.x1 > x)).any()
    at = bool(cells.labels[int(y), int(x)]) or bool(boxed)
    return {**record, "file": row["file"], "hit": at, "found": len(t), "cell_type": row["cell_type"]}


def counts(records: list[Record]) -> Record:
    """Precision, recall, F1 and causes of records with hits, missed and extra."""
    hits, missed, extra = (sum(r[k] for r in records) for k in ("hits", "missed", "extra"))
    causes: Counter[str] = sum((Counter(r["causes"]) for r in records), Counter())
    return {
        "f1": 2 * hits / max(2 * hits + missed + extra, 1),
        "precision": hits / max(hits + extra, 1),
        "recall": hits / max(hits + missed, 1),
        "hits": hits,
        "missed": missed,
        "extra": extra,
        "causes": dict(causes.most_common()),
        "cell_dice": float(np.mean(np.concatenate([r["cell_dice"] for r in records]))),
        "nucleus_dice": float(np.mean(np.concatenate([r["nucleus_dice"] for r in records]))),
    }


def summary(records: list[Record]) -> Record:
    """What all sets report."""
    sizes = [r["pixel_size_um"] for r in records]
    return {
        "pictures": len(records),
        "ms_per_picture": float(np.mean([r["ms"] for r in records])),
        "pixel_size_um_5_50_95": [float(v) for v in np.quantile(sizes, [0.05, 0.5, 0.95])],
        "scale_from": dict(Counter(r["scale_from"] for r in records)),
    }


def rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def bccd_fields(data: Path, rest: int) -> list[Path]:
    """BCCD pictures whose number leaves `rest` when divided by two."""
    return [p for p in sorted((data / "bccd" / "images").glob("*.jpg")) if int(p.stem[-5:]) % 2 == rest]


Map = Callable[[Callable[[Any], Record], list[Any]], list[Record]]


def set_bccd(data: Path, over: Map) -> Iterator[tuple[str, Record, list[Record]]]:
    """BCCD odd fields."""
    found = over(partial(bccd, data=data), bccd_fields(data, 1))
    yield "BCCD, odd fields", {**counts(found), **summary(found)}, found


def set_recoloured(data: Path, over: Map) -> Iterator[tuple[str, Record, list[Record]]]:
    """BCCD odd fields recoloured."""
    for name, colours in RECOLOURED.items():
        found = over(partial(bccd, data=data, colours=colours), bccd_fields(data, 1))
        yield f"BCCD, odd fields, {name}", {**counts(found), **summary(found)}, []


def set_sslseg(data: Path, over: Map) -> Iterator[tuple[str, Record, list[Record]]]:
    """Both SSLSeg sets."""
    for name in ("d1", "d2"):
        chosen = [r for r in rows(data / "sslseg.csv") if f"/{name}/" in r["file"]]
        found = over(partial(sslseg, data=data), chosen)
        figures = {k: float(np.mean([r[k] for r in found])) for k in ("cell_dice", "nucleus_dice")}
        for k in ("cell_dice", "nucleus_dice"):
            figures[f"{k}_5_50"] = [float(v) for v in np.quantile([r[k] for r in found], [0.05, 0.5])]
        figures["not_found"] = sum(r["cell_dice"] == 0 for r in found)
        yield f"SSLSeg {name}", {**figures, **summary(found)}, found


def set_generated(data: Path, over: Map) -> Iterator[tuple[str, Record, list[Record]]]:
    """Generated smears, six stains."""
    del data
    for stain in sorted(STAINS):
        found = over(generated, [(stain, seed) for seed in range(1000, 1012)])
        yield f"generated, {stain}", {**counts(found), **summary(found)}, []


def set_pbc(data: Path, over: Map) -> Iterator[tuple[str, Record, list[Record]]]:
    """PBC test pictures, every eighth."""
    chosen = [r for r in rows(data / "pbc.csv") if r["split"] == "test" and r["cell_type"] != "platelet"][::8]
    found = over(partial(pbc, data=data), chosen)
    by_type = {
        k: float(np.mean([r["hit"] for r in found if r["cell_type"] == k]))
        for k in sorted({r["cell_type"] for r in found})
    }
    more = sum(r["found"] - r["hit"] for r in found)
    figures = {
        "found_in_the_middle": float(np.mean([r["hit"] for r in found])),
        "by_type": by_type,
        "other_cells": more,
    }
    yield "PBC, test, every eighth, no platelets", {**figures, **summary(found)}, []


def speed(data: Path) -> Iterator[tuple[str, Record, list[Record]]]:
    """Megapixels per second in this one process, scale known and estimated, over a smear and over BCCD fields."""
    smear = generate_smear(77, height=4096, width=4096, n_white=150, crowding=0.42)
    fields = [read(p) for p in bccd_fields(data, 1)[:40]]
    segment(fields[0], 0.083)  # loads the network
    for name, images, size in (
        ("a generated smear of 4096 x 4096 with 150 white cells, scale known", [smear.image], 0.1),
        ("the same, scale estimated", [smear.image], None),
        ("BCCD fields of 640 x 480, scale known", fields, 0.083),
        ("BCCD fields, scale estimated", fields, None),
    ):
        rates = []
        for _ in range(3):
            start = time.perf_counter()
            found = sum(len(segment(image, size).table) for image in images)
            seconds = time.perf_counter() - start
            pixels = sum(image.shape[0] * image.shape[1] for image in images)
            rates.append(pixels / 1e6 / seconds)
        yield (
            f"speed: {name}",
            {"megapixels_per_second": float(np.median(rates)), "best": max(rates), "cells": found},
            [],
        )


def memory(data: Path) -> Iterator[tuple[str, Record, list[Record]]]:
    """Peak memory of a process that segments 20,000 x 20,000 pixels from a tiled TIFF, labels included."""
    del data
    import tifffile

    part = generate_smear(78, height=2000, width=2000, n_white=40).image
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.tif"

        def strips() -> Iterator[Pixels]:
            row = np.concatenate([part] * 10, axis=1)
            for top in range(0, 20_000, 512):
                lines = np.arange(top, top + 512) % 2000
                band = row[lines]
                band = np.concatenate([band, np.zeros((512, 480, 3), np.uint8)], axis=1)
                for left in range(0, 20_480, 512):
                    yield band[:, left : left + 512]

        tifffile.imwrite(path, strips(), shape=(20_000, 20_000, 3), dtype="uint8", tile=(512, 512), photometric="rgb")
        run = subprocess.run(
            [sys.executable, __file__, "--child", str(path)], capture_output=True, text=True, check=True
        )
    yield "20,000 x 20,000 from disk", json.loads(run.stdout.splitlines()[-1]), []


def child(path: Path) -> None:
    """Segment one file and print its figures."""
    from napari_dinobloom.io.smear import read_smear

    start = time.perf_counter()
    cells = segment(read_smear(path).image, 0.1)
    seconds = time.perf_counter() - start
    labelled = bool(cells.labels[:3000, :3000].any() and cells.nuclei[-3000:, -3000:].any())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"peak_gib": peak, "seconds": seconds, "cells": len(cells.table), "labels_on_disk": labelled}))


def draw_worst(name: str, records: list[Record], data: Path, folder: Path) -> None:
    """Draw the worst pictures of a set: truth green, found red, its nuclei orange."""
    chosen = sorted(records, key=lambda r: r["score"])[:WORST]
    tiles = []
    for record in chosen:
        tiles.append(draw_one(record, data))
        print(f"  {record['file']}: score {record['score']:.3f}")
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 5)
    sheet = np.concatenate([np.concatenate(tiles[i : i + 5], axis=1) for i in range(0, len(tiles), 5)])
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(folder / f"worst {name}.png")


def draw_one(record: Record, data: Path) -> Pixels:
    """Draw one picture with its outlines."""
    image = read(data / record["file"])
    path = Path(record["file"])
    mask = read_mask(data / (record.get("mask") or f"bccd/masks/{path.stem}.png"))
    cells = segment(image)
    size = (480, 360) if "bccd" in record["file"] else (360, 360)
    factor = max(1, round(size[0] / image.shape[1]))
    block = np.ones((factor, factor), np.int32)
    large = np.stack([np.kron(image[..., i], block) for i in range(3)], axis=-1).astype(np.uint8)
    for layer, colour in ((mask, (0, 220, 0)), (cells.labels, (255, 0, 0)), (cells.nuclei, (255, 160, 0))):
        layer = np.kron(layer, block)
        large[(layer != np.roll(layer, 1, 0)) | (layer != np.roll(layer, 1, 1))] = colour
    return np.asarray(Image.fromarray(large).resize(size))


SETS: dict[str, Callable[[Path, Map], Iterator[tuple[str, Record, list[Record]]]]] = {
    "bccd": set_bccd,
    "sslseg": set_sslseg,
    "generated": set_generated,
    "recoloured": set_recoloured,
    "pbc": set_pbc,
}


def single_thread() -> None:
    """Leave one core to each process."""
    import torch

    torch.set_num_threads(1)


def main() -> None:
    """Measure, print and write all figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    default = os.environ.get("NAPARI_DINOBLOOM_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default), help="folder of real images")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--only", default=",".join([*SETS, "speed", "memory"]), help="sets, separated by commas")
    parser.add_argument("--worst", type=Path, help="folder for pictures of the worst cases")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child(chosen.child)
        return
    path = RESULTS / "segmentation.json"
    figures = json.loads(path.read_text(encoding="utf-8")).get("figures", {}) if path.exists() else {}
    names = chosen.only.split(",")
    with get_context("spawn").Pool(chosen.jobs, single_thread) as pool:
        over: Map = lambda work, items: pool.map(work, items, 2)  # noqa: E731
        for key in (n for n in names if n in SETS):
            for name, values, records in SETS[key](chosen.data, over):
                tell(figures, name, values)
                if chosen.worst and records:
                    draw_worst(name, [with_mask(r, chosen.data) for r in records], chosen.data, chosen.worst)
    for key, work in (("speed", speed), ("memory", memory)):
        if key in names:
            for name, values, _ in work(chosen.data):
                tell(figures, name, values)


def with_mask(record: Record, data: Path) -> Record:
    """Add the mask's path to a record of SSLSeg."""
    if "sslseg" not in record["file"]:
        return record
    masks = {r["file"]: r["mask"] for r in rows(data / "sslseg.csv")}
    return {**record, "mask": masks[record["file"]]}


def tell(figures: Record, name: str, values: Record) -> None:
    """Keep, print and write the figures of one set."""
    from napari_dinobloom.cells.learned import LearnedSegmenter

    figures[name] = values
    RESULTS.mkdir(exist_ok=True)
    record = {"machine": machine(), "segmenter": LearnedSegmenter().key, "figures": figures}
    (RESULTS / "segmentation.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    shown = {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}
    print(f"{name}: {shown}", flush=True)


if __name__ == "__main__":
    main()
