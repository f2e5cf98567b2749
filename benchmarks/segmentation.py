"""Figures of the segmentation: cells found, outlines against masks, time per field.

Run it with ``python benchmarks/segmentation.py [--data ../shared/data] [--jobs 2]``; writes
``benchmarks/results/segmentation.json``. What is judged was not used for tuning: the odd-numbered BCCD fields, split
``test`` of PBC, SSLSeg (for judging only, by its licence); generated smears use seeds of their own.

A BCCD cell is found where the middle of a found box lies in a white cell's box, one to one. Its masks are coarse
polygons (median IoU with the boxes 0.83). A PBC cell is found where a cell covers the picture's middle, or its box does
(a horseshoe may leave the middle itself free). Times are processor time of one thread.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, machine
from numpy.typing import NDArray
from PIL import Image

from napari_dinobloom.cells.segment import VERSION, Cells, segment
from napari_dinobloom.io.generate import generate_smear
from napari_dinobloom.io.canvas import STAINS

Labels = NDArray[np.integer[Any]]
Bool = NDArray[np.bool_]
Record = dict[str, Any]

SMALLEST_MASK_PX = 500
"""Smaller pieces of a BCCD mask are slips of the pen."""


def read(path: Path) -> NDArray[np.uint8]:
    """Picture as RGB."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def read_mask(path: Path) -> Labels:
    """Mask with 0 background, 1 cytoplasm, 2 nucleus."""
    with Image.open(path) as picture:
        values = np.asarray(picture)
    return values[..., 0] if values.ndim == 3 else values


def timed(image: NDArray[np.uint8]) -> tuple[Cells, Record]:
    """Segment, and what every set records."""
    start = time.process_time()
    cells = segment(image)
    return cells, {
        "ms": 1000 * (time.process_time() - start),
        "found": len(cells.table),
        "scale_from": cells.scale.source,
        "pixel_size_um": cells.scale.pixel_size_um,
    }


def dice(first: Bool, second: Bool) -> float:
    """Dice coefficient; 1 where both are empty."""
    total = int(first.sum() + second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0


def best_overlap(truth: Bool, labels: Labels) -> int:
    """Number of the found cell that covers most of a true one; 0 where none does."""
    counts = np.bincount(labels[truth], minlength=1)
    counts[0] = 0
    return int(counts.argmax())


def white_boxes(path: Path) -> list[tuple[int, ...]]:
    """(y0, x0, y1, x1) of the white cells of a VOC file; degenerate boxes left out."""
    found = []
    for item in ET.parse(path).getroot().iter("object"):
        box = item.find("bndbox")
        if item.findtext("name") == "WBC" and box is not None:
            y0, x0, y1, x1 = (int(box.findtext(k) or 0) for k in ("ymin", "xmin", "ymax", "xmax"))
            if y1 - y0 > 5 and x1 - x0 > 5:
                found.append((y0, x0, y1, x1))
    return found


def bccd(path: Path, data: Path) -> Record:
    """One BCCD field against its boxes and masks."""
    from scipy import ndimage as ndi

    cells, record = timed(read(path))
    boxes = white_boxes(data / "bccd" / "boxes" / f"{path.stem}.xml")
    table = cells.table
    free = {(y, x) for y, x in zip((table.y0 + table.y1) / 2, (table.x0 + table.x1) / 2, strict=True)}
    hits = 0
    for y0, x0, y1, x1 in boxes:
        inside = [p for p in free if y0 <= p[0] <= y1 and x0 <= p[1] <= x1]
        if inside:
            free.remove(inside[0])
            hits += 1
    record.update(file=path.name, hits=hits, missed=len(boxes) - hits, extra=len(table) - hits)
    record.update(iou=[], cell_dice=[], nucleus_dice=[])
    mask = read_mask(data / "bccd" / "masks" / f"{path.stem}.png")
    pieces, count = ndi.label(mask > 0)
    for number in range(1, count + 1):
        piece = pieces == number
        if piece.sum() >= SMALLEST_MASK_PX:
            score_piece(record, cells, piece, mask == 2)
    return record


def score_piece(record: Record, cells: Cells, piece: Bool, nuclei: Bool) -> None:
    """Add overlap and Dice of one true cell to a record."""
    number = best_overlap(piece, cells.labels)
    mine = (cells.labels == number) & (number > 0)
    record["iou"].append(float((piece & mine).sum() / (piece | mine).sum()))
    if record["iou"][-1] >= 0.5:
        record["cell_dice"].append(dice(piece, mine))
        record["nucleus_dice"].append(dice(piece & nuclei, cells.nuclei == number))


def pbc(row: dict[str, str], data: Path) -> Record:
    """One PBC picture: is a cell found in its middle."""
    image = read(data / row["file"])
    cells, record = timed(image)
    y, x = image.shape[0] / 2, image.shape[1] / 2
    table = cells.table
    at = bool(cells.labels[int(y), int(x)]) or bool(
        ((table.y0 <= y) & (table.y1 > y) & (table.x0 <= x) & (table.x1 > x)).any()
    )
    return {**record, "file": row["file"], "cell_type": row["cell_type"], "hit": at, "extra": len(table) - at}


def sslseg(row: dict[str, str], data: Path) -> Record:
    """One SSLSeg picture: the found cell that overlaps most against the mask."""
    cells, record = timed(read(data / row["file"]))
    mask = read_mask(data / row["mask"])
    number = best_overlap(mask > 0, cells.labels)
    found = number > 0
    return {
        **record,
        "file": row["file"],
        "cell_dice": dice(mask > 0, (cells.labels == number) & found),
        "nucleus_dice": dice(mask == 2, (cells.nuclei == number) & found),
    }


def generated(job: tuple[str, int]) -> Record:
    """One generated field with many touching cells, against its truth."""
    stain, seed = job
    smear = generate_smear(seed, height=900, width=1200, n_white=10 + 5 * (seed % 10), touching=0.6, stain=stain)
    cells, record = timed(smear.image)
    hits = 0
    for number in range(1, len(smear.classes) + 1):
        truth = smear.labels == number
        other = best_overlap(truth, cells.labels)
        mine = (cells.labels == other) & (other > 0)
        hits += int((truth & mine).sum() / (truth | mine).sum() >= 0.5)
    return {
        **record,
        "stain": stain,
        "hits": hits,
        "missed": len(smear.classes) - hits,
        "extra": len(cells.table) - hits,
    }


def counts(records: list[Record]) -> Record:
    """Precision, recall and F1 of records with hits, missed and extra."""
    hits, missed, extra = (sum(r[k] for r in records) for k in ("hits", "missed", "extra"))
    precision, recall = hits / max(hits + extra, 1), hits / max(hits + missed, 1)
    f1 = 2 * hits / max(2 * hits + missed + extra, 1)
    return {"precision": precision, "recall": recall, "f1": f1, "hits": hits, "missed": missed, "extra": extra}


def summary(records: list[Record]) -> Record:
    """What all sets report."""
    sizes = [r["pixel_size_um"] for r in records]
    return {
        "pictures": len(records),
        "ms_per_picture": float(np.mean([r["ms"] for r in records])),
        "pixel_size_um_5_50_95": [float(v) for v in np.quantile(sizes, [0.05, 0.5, 0.95])],
        "scale_from_red_cells": float(np.mean([r["scale_from"] == "red cells" for r in records])),
    }


def masks_of(records: list[Record]) -> Record:
    """Overlap figures of records with lists of them."""
    iou = np.concatenate([r["iou"] for r in records])
    return {
        "masks_found_at_iou_0.5": float((iou >= 0.5).mean()),
        "cell_dice": float(np.mean(np.concatenate([r["cell_dice"] for r in records]))),
        "nucleus_dice": float(np.mean(np.concatenate([r["nucleus_dice"] for r in records]))),
    }


def rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def every_set(data: Path, jobs: int, part: int) -> Iterator[tuple[str, Record]]:
    """Figures of each set; of PBC every `part`-th picture."""
    with Pool(jobs) as pool:
        fields = [p for p in sorted((data / "bccd" / "images").glob("*.jpg")) if int(p.stem[-5:]) % 2]
        found = pool.map(partial(bccd, data=data), fields, 4)
        yield "BCCD, odd fields", {**counts(found), **masks_of(found), **summary(found)}
        chosen = [r for r in rows(data / "pbc.csv") if r["split"] == "test" and r["cell_type"] != "platelet"][::part]
        found = pool.map(partial(pbc, data=data), chosen, 8)
        kinds = sorted({r["cell_type"] for r in found})
        by_type = {k: float(np.mean([r["hit"] for r in found if r["cell_type"] == k])) for k in kinds}
        rate = {"found_in_the_middle": float(np.mean([r["hit"] for r in found])), "by_type": by_type}
        yield "PBC, test, no platelets", {**rate, "extra": sum(r["extra"] for r in found), **summary(found)}
        for name in ("d1", "d2"):
            chosen = [r for r in rows(data / "sslseg.csv") if f"/{name}/" in r["file"]]
            found = pool.map(partial(sslseg, data=data), chosen, 8)
            mean = {k: float(np.mean([r[k] for r in found])) for k in ("cell_dice", "nucleus_dice")}
            tenth = {"cell_dice_10_percent_worst": float(np.quantile([r["cell_dice"] for r in found], 0.1))}
            yield f"SSLSeg {name}", {**mean, **tenth, **summary(found)}
        for stain in sorted(STAINS):
            found = pool.map(generated, [(stain, seed) for seed in range(1000, 1005)], 1)
            yield f"generated, {stain}", {**counts(found), **summary(found)}


def main() -> None:
    """Measure, print and write all figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    default = os.environ.get("NAPARI_DINOBLOOM_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default), help="folder of real images")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--pbc-part", type=int, default=1, help="take every n-th PBC picture only")
    chosen = parser.parse_args()
    figures = {}
    for name, values in every_set(chosen.data, chosen.jobs, chosen.pbc_part):
        figures[name] = values
        shown = {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items() if not isinstance(v, list)}
        print(f"{name}: {shown}", flush=True)
    RESULTS.mkdir(exist_ok=True)
    record = {"machine": machine(), "pbc_part": chosen.pbc_part, "segment_version": VERSION, "figures": figures}
    (RESULTS / "segmentation.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
