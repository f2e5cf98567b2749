"""What the two rules for the foreground find in real cells, and how fast patch colours, overlays and similarity are.

    python benchmarks/patches.py [--encoder starter]        # about two minutes

``foreground``: intersection over union of the patches that a rule calls foreground and those that are mostly cell, with
the masks by hand of SSLSeg, and with our segmentation of PBC test pictures, whole and cut 25 um around the cell.
``similarity``: cosine of one patch of a nucleus with nuclei and with background, the median over pictures, and how well
it tells them apart. ``seconds``: best of five on random tokens of 200 cells x 256 patches x 768. Writes
``benchmarks/results/patches.json``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, command, machine
from PIL import Image
from sklearn.metrics import roc_auc_score

from napari_dinobloom.cells.crop import CropPolicy, crop, resize_picture
from napari_dinobloom.cells.segment import segment
from napari_dinobloom.encoders.encoder import Encoder, load_encoder
from napari_dinobloom.encoders.overlay import iter_tiles
from napari_dinobloom.encoders.patches import PatchBasis
from napari_dinobloom.encoders.similarity import patch_similarity
from napari_dinobloom.predict.pictures import central_cell

DATA = Path(os.environ.get("NAPARI_DINOBLOOM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
EACH = 6
PBC_UM = 0.1038
WHOLE = CropPolicy(kind="published")


def chosen(table: Path, key: Callable[[dict[str, str]], object]) -> list[dict[str, str]]:
    """`EACH` rows of each group of a CSV, spread evenly."""
    groups: dict[object, list[dict[str, str]]] = {}
    with table.open(newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            groups.setdefault(key(row), []).append(row)
    groups.pop(None, None)
    return [rows[i] for rows in groups.values() for i in np.linspace(0, len(rows) - 1, EACH).round().astype(int)]


def shares(mask: np.ndarray) -> np.ndarray:
    """Share of each of 16 x 16 patches that a mask of the crop covers."""
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(image.resize((16, 16), Image.Resampling.BOX)) / 255


def sslseg(data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crops, and the shares of cell and of nucleus in their patches, by hand."""
    rows = chosen(data / "sslseg.csv", lambda row: (row["file"].split("/")[1], row["cell_type"]))
    crops = [resize_picture(np.asarray(Image.open(data / row["file"]).convert("RGB")), WHOLE) for row in rows]
    masks = [np.asarray(Image.open(data / row["mask"])) for row in rows]
    return np.stack(crops), np.stack([shares(m > 0) for m in masks]), np.stack([shares(m == 2) for m in masks])


def pbc(data: Path, policy: CropPolicy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same of PBC test pictures by our segmentation; pictures without a cell in the middle are left out."""
    crops, cell, nucleus = [], [], []
    for row in chosen(data / "pbc.csv", lambda row: row["cell_type"] if row["split"] == "test" else None):
        image = np.asarray(Image.open(data / row["file"]).convert("RGB"))
        cells = segment(image, PBC_UM)
        middle = central_cell(cells.table, *image.shape[:2])
        if middle is None:
            continue
        kinds = np.stack([cells.labels > 0, cells.nuclei > 0, cells.labels > 0], axis=2).astype(np.uint8) * 255
        for picture, out in ((image, crops), (kinds, cell)):
            whole = policy.kind == "published"
            table = cells.table.iloc[[middle]]
            out.append(resize_picture(picture, policy) if whole else crop(picture, table, policy=policy)[0])
        nucleus.append(shares(cell[-1][..., 1] > 127))
        cell[-1] = shares(cell[-1][..., 0] > 127)
    return np.stack(crops), np.stack(cell), np.stack(nucleus)


def foreground(tokens: np.ndarray, cell: np.ndarray) -> dict[str, float]:
    """Overlap of what each rule finds with the patches that are mostly cell."""
    found: dict[str, float] = {"pictures": len(tokens)}
    for rule in ("otsu", "centre"):
        basis = PatchBasis.fit(tokens, foreground=rule)
        inside, truth = tokens @ basis.foreground_axis > basis.foreground_threshold, cell > 0.5
        found[rule] = round(float((inside & truth).sum() / (inside | truth).sum()), 3)
    return found


def similarity(tokens: np.ndarray, cell: np.ndarray, nucleus: np.ndarray) -> dict[str, float]:
    """How alike nuclei and background are to one patch of a nucleus."""
    rows = []
    inside, outside = nucleus > 0.8, cell < 0.05
    for number in range(len(tokens)):
        places = np.argwhere(inside[number])
        if len(places):
            alike = patch_similarity(tokens, number, *map(int, places[len(places) // 2]))
            both = inside | outside
            rows.append((roc_auc_score(inside[both], alike[both]), np.median(alike[inside]), np.median(alike[outside])))
    return dict(zip(("auc", "nucleus", "background"), np.median(rows, axis=0).round(3).tolist(), strict=True))


def seconds() -> dict[str, float]:
    """Best of five runs of each function."""
    random = np.random.default_rng(0)
    tokens = random.standard_normal((200, 16, 16, 768), dtype=np.float32)
    windows = np.column_stack([random.uniform(0, 4096, (900, 2)), np.full((900, 2), 240.0)])
    basis = PatchBasis.fit(tokens)
    colours = np.resize(basis.apply(tokens), (900, 16, 16, 3))
    tasks: dict[str, Callable[[], Any]] = {
        "similarity": lambda: patch_similarity(tokens, 3, 4, 5),
        "apply": lambda: basis.apply(tokens),
        "fit": lambda: PatchBasis.fit(tokens),
        "fit centre": lambda: PatchBasis.fit(tokens, foreground="centre"),
        "900 tiles nearest": lambda: list(iter_tiles(colours, windows, (4096, 4096))),
        "900 tiles bilinear": lambda: list(iter_tiles(colours, windows, (4096, 4096), interpolation="bilinear")),
    }
    return {name: round(min(timed(task) for _ in range(5)), 4) for name, task in tasks.items()}


def timed(task: Callable[[], Any]) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--encoder", default="starter", help="registry name or file of weights")
    options = parser.parse_args()
    encoder: Encoder = load_encoder(options.encoder, device="cpu")
    sets = {
        "sslseg": sslseg(options.data),
        "pbc published": pbc(options.data, WHOLE),
        "pbc context": pbc(options.data, CropPolicy()),
    }
    tokens = {name: encoder.patch_tokens(crops) for name, (crops, _, _) in sets.items()}
    results = {
        "command": command(),
        "encoder": [encoder.name, encoder.sha256],
        "foreground": {name: foreground(tokens[name], sets[name][1]) for name in sets},
        "similarity": {name: similarity(tokens[name], *sets[name][1:]) for name in sets},
        "seconds": seconds(),
        "machine": machine(),
    }
    print(json.dumps(results, indent=1))
    (RESULTS / "patches.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
