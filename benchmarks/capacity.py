"""What a thousand slides take: cells a second, hours and storage, for S, B, L and G, from what was measured.

Run it with ``python benchmarks/capacity.py [--slides 1000] [--cells 1000] [--gigapixels 1]``; it measures nothing that
takes time but the bytes of a small study, reads ``segmentation.json`` and ``embedding.json``, writes ``capacity.json``
and prints the tables of ``docs/capacity.md``.

Embedding on a CPU is measured for S; the others follow by their arithmetic, multiplications and additions a picture.
On graphics cards nothing was measured here: those rates are `SHARE` of the bf16 rate in `PEAK` over the arithmetic.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from machine import RESULTS, command, machine
from PIL import Image

from napari_dinobloom.encoders.architecture import ARCHITECTURES, Architecture
from napari_dinobloom.io.generate import generate_smear
from napari_dinobloom.pipeline import run
from napari_dinobloom.pipeline.crops import BYTES_EACH

SIZES = ("S", "B", "L", "G")
CARDS = (1, 8, 64)

PEAK = 989e12
"""Floating-point operations a second in bf16, dense, of an NVIDIA H100 SXM by its data sheet."""

SHARE = 0.3
"""Assumed share of `PEAK` that embedding reaches; not measured."""

CORES = 2
"""Of the machine on which the rates were measured."""


def operations(arch: Architecture, side: int = 224) -> float:
    """Floating-point operations of one picture: products of the layers and of attention, two for each multiply-add."""
    tokens, d = (side // arch.patch_size) ** 2 + 1, arch.dim
    feed = (3 if arch.swiglu else 2) * d * arch.hidden
    layer = 2 * tokens * (4 * d * d + feed) + 4 * tokens * tokens * d
    return arch.depth * layer + 2 * (tokens - 1) * 3 * arch.patch_size**2 * d


def stored() -> dict[str, float]:
    """Bytes a cell of masks and table, of a small generated study."""
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        for i in range(8):
            smear = generate_smear(i, height=1000, width=1200, n_white=20, pixel_size_um=0.12)
            Image.fromarray(np.asarray(smear.image)).save(images / f"{i}.png")
        study = run(images, Path(folder) / "s.dinobloom", until="segment")
        cells = study.cells.n_obs
        masks = sum(path.stat().st_size for path in (study.path / "masks").glob("*.npz"))
    return {"masks": masks / cells, "cells_measured": cells}


def main() -> None:
    """Compute, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=1000)
    parser.add_argument("--cells", type=int, default=1000, help="White cells a slide.")
    parser.add_argument("--gigapixels", type=float, default=1.0, help="Monolayer that is searched, a slide.")
    options = parser.parse_args()
    read = {name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
            for name in ("segmentation", "embedding")}  # fmt: skip
    speed = "speed: a generated smear of 4096 x 4096 with 150 white cells, scale known"
    searched = read["segmentation"]["figures"][speed]["megapixels_per_second"] / CORES
    cpu = {kind: read["embedding"]["cpu S"][f"ours_{kind}_per_s"] / CORES for kind in ("float32", "bf16")}
    cells = options.slides * options.cells
    masks = stored()
    rows = {}
    for size in SIZES:
        arch = ARCHITECTURES[size]
        work = operations(arch)
        ratio = operations(ARCHITECTURES["S"]) / work
        per_cell = {"crop": BYTES_EACH, "embedding": 4 * arch.dim, "masks": masks["masks"]}
        card = SHARE * PEAK / work
        rows[size] = {
            "gflop_a_picture": round(work / 1e9, 1),
            "cells_per_s_a_core_float32": round(cpu["float32"] * ratio, 3),
            "cells_per_s_a_core_bf16": round(cpu["bf16"] * ratio, 3),
            "core_hours_float32": round(cells / (cpu["float32"] * ratio) / 3600, 1),
            "cards": {
                str(n): {"cells_per_s": round(card * n), "hours": round(cells / (card * n) / 3600, 3)} for n in CARDS
            },
            "crops_GB_per_s_a_card_reads": round(card * BYTES_EACH / 1e9, 2),
            "storage_GB": round(cells * sum(per_cell.values()) / 1e9, 1),
            "storage_GB_without_crops": round(cells * (4 * arch.dim + masks["masks"]) / 1e9, 1),
        }  # fmt: skip
    search_hours = options.slides * options.gigapixels * 1000 / searched / 3600
    result = {
        "machine": machine(),
        "command": command(),
        "slides": options.slides,
        "cells": cells,
        "gigapixels_a_slide": options.gigapixels,
        "assumed": {"peak_flop_per_s": PEAK, "share_of_it": SHARE, "measured": False},
        "searched_megapixels_per_s_a_core": round(searched, 2),
        "searching_core_hours": round(search_hours, 1),
        "bytes_a_cell": {"crop": BYTES_EACH, "masks": round(masks["masks"])},
        "sizes": rows,
    }
    (RESULTS / "capacity.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
