"""A generated whole slide of 40,000 x 40,000 pixels, mostly blank: quality map, cells of its monolayer, crops.

python benchmarks/slides.py              writes benchmarks/results/slides.json
python benchmarks/slides.py --only-run   one run in this process; its figures as the last line
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, command, machine

from napari_dinobloom.cells.monolayer import RIGHT, quality_map
from napari_dinobloom.cells.scale import estimate_scale
from napari_dinobloom.io import slides
from napari_dinobloom.io.canvas import STAINS
from napari_dinobloom.io.generate_slide import TILE, generate_slide, wedge, write_slide
from napari_dinobloom.io.lazy import lazy_picture
from napari_dinobloom.io.smear import read_pixels, read_smear
from napari_dinobloom.pipeline.driver import iter_outcome
from napari_dinobloom.progress import drain

SQUARES = 79
"""Squares of 512 pixels a side of the slide: 40,448 pixels."""

PLACE = (30, 20)
"""First row and column of squares with blood."""


def peak_gib() -> float:
    """Most memory that this process ever held, GiB."""
    import psutil

    about = psutil.Process().memory_info()
    if hasattr(about, "peak_wset"):  # Windows
        return about.peak_wset / 2**30
    if sys.platform == "linux":  # what getrusage says begins with the memory of the process that started this one
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def one_run(folder: Path, blood: tuple[int, int]) -> dict[str, Any]:
    """Write the slide, then run all steps up to the crops; the writing is part of the peak, not of the times."""
    layout = wedge(SQUARES, SQUARES, (*PLACE, PLACE[0] + blood[0], PLACE[1] + blood[1]))
    path = write_slide(folder / "slide.svs", generate_slide(layout))
    read: set[tuple[int, int]] = set()
    plain = slides._read

    def counting(part: Any, y0: int, y1: int, x0: int, x1: int) -> Any:
        if part.level == 0:
            read.update((y, x) for y in range(y0 // TILE, -(-y1 // TILE)) for x in range(x0 // TILE, -(-x1 // TILE)))
        return plain(part, y0, y1, x0, x1)

    slides._read = counting
    begun = time.perf_counter()
    smear = read_smear(path)
    opened = time.perf_counter()
    found = quality_map(smear.levels, 0.25)
    mapped = time.perf_counter()
    read.clear()
    worked = time.process_time()
    outcome = drain(iter_outcome(path, folder / "slide.dinobloom", until="crop"))
    done = time.perf_counter()
    with outcome.study as study:
        side = study.fields[0].width
        return {
            "side_px": side,
            "file_mib": round(path.stat().st_size / 2**20, 1),
            "open_s": round(opened - begun, 2),
            "quality_map_s": round(mapped - opened, 2),
            "squares_looked_at": int((layout > 0).sum()),
            "squares_graded_right": float((found.grades == layout).mean()),
            "read_to_crops_s": round(done - mapped, 2),
            "cells": int(study.cells.n_obs),
            "searched": study.fields[0].problem,
            "read_to_crops_cpu_s": round(time.process_time() - worked, 2),
            "full_resolution_read": round(len(read) / SQUARES**2, 4),
            "peak_gib": round(peak_gib(), 2),
        }


def by_stain() -> dict[str, float]:
    """Share of the squares of a small generated slide that get the grade of their patch, by stain; another seed."""
    shares = {}
    for stain in STAINS:
        slide = generate_slide(wedge(6, 11, (1, 1, 5, 10)), 100, stain=stain)
        pixels = np.block(
            [[[slide.tile(row, column)] for column in range(11)] for row in range(6)]
        )  # fmt: skip
        level = lazy_picture(lambda y0, y1, x0, x1, p=pixels: p[y0:y1, x0:x1], slide.size, (TILE, TILE))
        shares[stain] = round(float((quality_map([level], 0.25).grades == slide.layout).mean()), 3)
    return shares


def of_bccd(data: Path) -> dict[str, dict[str, Any]]:
    """How many fields of BCCD, which a person took in the right place, are graded right."""
    halves = {}
    for name, rest in (("even, on which limits were set", 0), ("odd", 1)):
        fields = [
            field
            for field in sorted((data / "bccd" / "images").glob("*"))
            if int("".join(c for c in field.stem if c.isdigit())) % 2 == rest
        ]
        right = 0
        for field in fields:
            pixels = read_pixels(field)
            grades = quality_map([pixels], estimate_scale(pixels).pixel_size_um).grades
            right += int((grades == RIGHT).all())
        halves[name] = {"fields": len(fields), "right": right}
    return halves


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only-run", action="store_true")
    parser.add_argument("--blood", type=int, nargs=2, default=(4, 20), help="squares with blood: rows, columns")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    options = parser.parse_args()
    if options.only_run:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(one_run(Path(folder), tuple(options.blood))))
        return
    run = subprocess.run([sys.executable, __file__, "--only-run"], capture_output=True, text=True, check=True)
    result = {
        "machine": machine(),
        "command": command(),
        "slide": json.loads(run.stdout.splitlines()[-1]),
        "generated": by_stain(),
        "bccd": of_bccd(options.data),
    }
    (RESULTS / "slides.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
