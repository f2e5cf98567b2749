"""How fast gates, their statistics, maps, and the window that shows them are, and how well cells are placed.

    OMP_NUM_THREADS=1 python benchmarks/explore.py --only gates [--note "..."] [--cells 1000000]
    OMP_NUM_THREADS=1 python benchmarks/explore.py --only window [--clusters-plotter FOLDER] [--runs 12]
    python benchmarks/explore.py --only fit [--cells 80000]
    python benchmarks/explore.py --only map [--cells 80000]
    python benchmarks/explore.py --only place
    python benchmarks/explore.py --only restandardise [--figure docs/images/mixing.png]
    python benchmarks/explore.py --only million [--cells 1000000]

``polygon``: a lasso of 200 vertices over 80,000 and over a million cells. ``tree``: statistics of 30 gates (lassos,
rectangles, ellipses, ranges and Boolean ones, up to four deep) over a million cells of 100 slides and 50 patients, with
composition and means of six measurements: all anew (reading the table included), one gate changed (statistics and
masks of the others cached), and the same on 80,000 cells. Each is given as seconds on the clock and of this thread's
processor time, the best and the median of some runs, as other work on the machine lengthens the first. ``window``: see
`explore_window.py`; where there is no screen it starts itself anew under xvfb-run.

``map``: embeddings (synthetic, clustered, 768 numbers) to map, against seeded umap-learn in the same process, both
after they were compiled. ``place``: held-out real cells on the map of the others, against umap-learn's transform and a
joint fit. ``restandardise``: separability of diagnoses and mixing before and after, on real cells of one stain and of
two. ``million``: a subset is fitted and the others placed. See `explore_maps`.

Writes ``benchmarks/results/explore.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import explore_maps
import numpy as np
import pandas as pd
from machine import RESULTS, command, machine

from napari_dinobloom.explore.gate_statistics import GateStatistics
from napari_dinobloom.explore.gate_tree import GateTree
from napari_dinobloom.explore.gates import BooleanGate, EllipseGate, Gate, PolygonGate, RangeGate, RectangleGate

XY = ("umap_1", "umap_2")
MAPS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "map": lambda options: explore_maps.fit(options.cells),
    "place": lambda _: explore_maps.place(),
    "restandardise": lambda options: explore_maps.standards(options.figure),
    "million": lambda options: explore_maps.million(options.cells),
}


def cells(count: int) -> pd.DataFrame:
    """Ten clouds on a map, five measurements and a confidence."""
    random = np.random.default_rng(0)
    centres = random.uniform(-8, 8, (10, 2))
    kind = random.integers(0, 10, count)
    at = (centres[kind] + random.normal(size=(count, 2))).astype(np.float32)
    table = pd.DataFrame(at, columns=list(XY))
    slide = np.sort(random.integers(0, 100, count))
    table["slide"] = np.array([f"s{i:03d}" for i in range(100)], dtype=object)[slide]
    table["patient"] = np.array([f"p{i // 2:02d}" for i in range(100)], dtype=object)[slide]
    table["predicted"] = np.array([f"class {i}" for i in range(10)], dtype=object)[kind]
    for name in ("nc_ratio", "solidity", "circularity", "confidence"):
        table[name] = random.random(count, dtype=np.float32)
    table["area_px"] = random.integers(500, 9000, count).astype(np.int32)
    table["lobes"] = random.integers(1, 6, count).astype(np.int32)
    return table


def lasso(name: str, centre: tuple[float, float], radius: float, seed: int) -> PolygonGate:
    """A freehand outline of 200 vertices."""
    random = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    reach = radius * (1 + 0.3 * np.sin(5 * angle) + 0.03 * random.normal(size=200))
    return PolygonGate(
        name=name, axes=XY, vertices=np.column_stack([reach * np.cos(angle), reach * np.sin(angle)]) + centre
    )


def tree_of_thirty() -> GateTree:
    """Ten lassos with a range or rectangle below each, ellipses below some, and Boolean gates."""
    random = np.random.default_rng(1)
    tree = GateTree()

    def add(gate: Gate, parent: str = "") -> str:
        return next(iter(tree.add(gate, parent=parent)["new"]))

    tops = [add(lasso(f"lasso {i}", tuple(random.uniform(-6, 6, 2)), 4, i)) for i in range(10)]
    for i, top in enumerate(tops):
        if i % 2:
            child = add(RangeGate(name="large", axes=("area_px",), range_min=4000), top)
        else:
            axes = ("nc_ratio", "confidence")
            child = add(RectangleGate(name="sure", axes=axes, range_min=(0.2, 0.3), range_max=(0.9, None)), top)
        if i < 6:
            low = add(EllipseGate(name="core", axes=XY, center=(0, 0), half_axes=(7, 4), angle=30), child)
            if i < 2:
                add(RangeGate(name="lobed", axes=("lobes",), range_min=3), low)
    add(BooleanGate(name="not the first", bool_type="not", gate_refs=[tops[0]]))
    add(BooleanGate(name="either", bool_type="or", gate_refs=tops[1:4]))
    return tree


def timed(task: Callable[[], Any], runs: int) -> dict[str, float]:
    """Best and median of `runs`, on the clock and of the processor."""
    clock, processor = [], []
    for _ in range(runs):
        start, used = time.perf_counter(), time.thread_time()
        task()
        clock.append(time.perf_counter() - start)
        processor.append(time.thread_time() - used)
    found = {"clock best": min(clock), "clock median": np.median(clock)}
    found |= {"processor best": min(processor), "processor median": np.median(processor), "runs": runs}
    return {name: round(float(value), 5) for name, value in found.items()}


def changes(count: int, runs: int) -> dict[str, Any]:
    """A tree over `count` cells: all anew, then its second lasso changed."""
    table, step = cells(count), iter(range(10_000))
    tree = tree_of_thirty()
    statistics = GateStatistics(table)
    statistics.tables(tree)
    child = tree.children("g2")[0]

    def anew() -> None:
        GateStatistics(table).tables(GateTree.from_dict(tree.to_dict()))

    def change_lasso() -> None:
        tree.change("g2", lasso("lasso 1", (0, 0), 4 + next(step) / 1000, 1))
        statistics.tables(tree)

    def change_range() -> None:
        tree.change(child, RangeGate(name="large", axes=("area_px",), range_min=4000 + next(step)))
        statistics.tables(tree)

    below = len(tree.descendants("g2"))
    return {
        "cells": count,
        "gates": len(tree),
        "all anew": timed(anew, max(2, runs // 3)),
        f"a lasso changed, with {below} gates below it and one that names it": timed(change_lasso, runs),
        "a range changed": timed(change_range, runs),
    }


def gates(most: int) -> dict[str, Any]:
    """Everything about gates."""
    found: dict[str, Any] = {"polygon": {}, "tree": []}
    for count in (80_000, most):
        table, gate = cells(count), lasso("lasso", (0, 0), 6, 0)
        inside = float(gate.apply(table).mean())
        found["polygon"][str(count)] = {**timed(lambda t=table, g=gate: g.apply(t), 15), "inside": round(inside, 3)}
    found["tree"] = [changes(80_000, 12), changes(most, 6)]
    return found


def window(options: argparse.Namespace) -> dict[str, Any]:
    """Everything about the window, on a screen of its own where there is none."""
    if not os.environ.get("DISPLAY"):
        xvfb = shutil.which("xvfb-run")
        if xvfb is None:
            raise SystemExit("explore.py --only window needs a screen: set DISPLAY or install xvfb.")
        os.execv(xvfb, [xvfb, "-a", "-s", "-screen 0 1600x1000x24", sys.executable, *sys.argv])
    import napari
    import vispy
    from explore_window import fit, measure

    if options.only == "fit":
        found = fit(options.cells)
    else:
        found = measure(options.cells, options.runs, options.clusters_plotter)
    return {"milliseconds": found, "napari": napari.__version__, "vispy": vispy.__version__}


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """The part that was asked for."""
    if options.only in MAPS:
        return MAPS[options.only](options)
    return gates(options.cells) if options.only == "gates" else window(options)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("gates", "window", "fit", *MAPS), default="gates", help="part to measure")
    parser.add_argument("--cells", type=int, help="80,000 for a map, else a million")
    parser.add_argument("--figure", type=Path, help="where to draw the map before and after re-standardising")
    parser.add_argument("--runs", type=int, default=12, help="of each operation in the window")
    parser.add_argument("--clusters-plotter", default="", help="folder with napari-clusters-plotter, to compare with")
    parser.add_argument("--note", default="", help="what else ran on the machine; kept with the figures")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    options = parser.parse_args()
    options.cells = options.cells or (80_000 if options.only in ("map", "fit") else 1_000_000)
    part = {
        "command": command(),
        "note": options.note,
        **measured(options),
        "machine": machine(),
    }
    print(json.dumps(part, indent=1))
    if not options.dry:
        path = RESULTS / "explore.json"
        whole = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.write_text(json.dumps({**whole, options.only: part}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
