"""How a study grows: seconds and memory of what is done with all its cells, at 10^4, 10^5 and 10^6 of them.

    OMP_NUM_THREADS=1 python benchmarks/scale_cells.py [--cells 10000 100000 1000000] [--dims 384 768] [--note "..."]

Cells are made up: embeddings of 13 clouds in D dimensions, a map of 13 clouds, 500 cells a field, 5,000 a slide; no
pictures. Each size is written by one process; a second one opens it and names all cells by an atlas of 1,000, counts
30 gates with their statistics, places all cells among 1,000 fitted ones, counts classes per slide, and saves; a third
opens it in a window, on software GL under Xvfb, until the map is drawn. Seconds on the clock and of the processor,
with anndata's import in the opening; ``peak MiB`` is the largest resident set during the step, what the process held
before included.
``growth``: slope of the processor's seconds in the logarithm, 1 is in proportion; ``at 10^7``: from the last two sizes,
along a straight line (that of ``write`` holds what the benchmark made up in memory). Studies lie in a temporary folder
and are deleted. ``--bf16`` instead measures what keeping embeddings in bf16 costs, on those of the bundled atlas
(training part of PBC, which it holds in float16: three more bits).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import RESULTS, command, machine

CLASSES = ("basophil", "blast", "eosinophil", "erythroblast", "lymphocyte", "metamyelocyte", "monocyte", "myelocyte",
           "neutrophil_band", "neutrophil_segmented", "platelet", "promyelocyte", "smudge")  # fmt: skip
FIELD, SLIDE = 500, 5000
FITTED = 1000
SHA = "0" * 64
GATES = 30


def timed(step: Callable[[], Any]) -> dict[str, float]:
    """Seconds and largest resident set of a step."""
    status, marks = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if marks.exists():
        marks.write_text("5")  # the peak begins anew
    clock, processor = time.perf_counter(), time.process_time()
    step()
    took = time.perf_counter() - clock, time.process_time() - processor
    lines = status.read_text().splitlines() if status.exists() else []
    peak = next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), float("nan"))
    return {"seconds": round(took[0], 2), "processor": round(took[1], 2), "peak MiB": round(peak)}


def clouds(n: int, dim: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n, D) of 13 clouds that overlap a little, and the cloud of each."""
    centres = np.random.default_rng(7).standard_normal((len(CLASSES), dim), np.float32)
    kinds = random.integers(0, len(CLASSES), n)
    x = random.standard_normal((n, dim), np.float32)
    x += centres[kinds]
    return x, kinds


def made_up(n: int, dim: int) -> Any:
    """Cell table of `n` cells."""
    from anndata import AnnData

    from napari_dinobloom.io.celltable import complete

    random = np.random.default_rng(0)
    x, kinds = clouds(n, dim, random)
    field, number = np.divmod(np.arange(n), FIELD)
    fields = np.array([f"f{i:05d}" for i in range(field[-1] + 1)], object)[field]
    slides = np.array([f"s{i:04d}" for i in range(n // SLIDE + 1)], object)[np.arange(n) // SLIDE]
    place = random.integers(0, 2000, (2, n))
    obs = {"cell_id": [f"{f}:{i + 1:05d}" for f, i in zip(fields, number.tolist(), strict=True)], "field": fields}
    obs |= {"slide": slides, "patient": slides, "predicted": np.array(CLASSES, object)[kinds], "quality": "ok"}
    obs |= {"y0": place[0], "x0": place[1], "y1": place[0] + 70, "x1": place[1] + 70}
    obs |= {"y": place[0] + 35.0, "x": place[1] + 35.0, "area_px": random.integers(800, 4000, n)}
    obs |= {"confidence": random.random(n, np.float32), "pixel_size_um": 0.1, "scale_from": "said", "predicted_by": "a"}
    adata = AnnData(x, obs=complete(pd.DataFrame(obs)))
    adata.obsm["spatial"] = adata.obs[["x", "y"]].to_numpy(np.float32)
    spots = np.random.default_rng(8).uniform(-8, 8, (len(CLASSES), 2))[kinds] + random.standard_normal((n, 2))
    adata.obsm["X_umap"] = spots.astype(np.float32)
    adata.uns["dinobloom"] = {"encoder": "made up", "encoder_sha256": SHA, "pooling": "class",
                              "projection": {"kind": "umap", "hash": "ab" * 32}}  # fmt: skip
    return adata


def write(path: Path, n: int, dim: int) -> dict[str, Any]:
    """Make the study; the saving is timed."""
    from napari_dinobloom.io.fields import FieldRecord
    from napari_dinobloom.io.study import CELLS, Study

    adata = made_up(n, dim)
    with Study.create(path) as study:
        table = adata.obs.groupby("field")["slide"].first()
        study.update(
            fields=[
                FieldRecord(f, f"{f}.png", "study", SHA, 2100, 2100, 0.1, slide=s, patient=s) for f, s in table.items()
            ]
        )
        found = {"write": timed(lambda: study.save_cells(adata))}
        study.finish_step("embed", "made up", (CELLS,))
        found["write"]["MiB on the disk"] = round((path / CELLS).stat().st_size / 2**20)
    return found


def work(path: Path, dim: int) -> dict[str, Any]:
    """What is done with all cells."""
    import torch  # noqa: F401  imports are not timed

    import napari_dinobloom as nd
    from napari_dinobloom.explore.gates import EllipseGate
    from napari_dinobloom.explore.layout import place
    from napari_dinobloom.explore.projection import Projection
    from napari_dinobloom.explore.study_gates import StudyGates
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.io.vectors import Vectors
    from napari_dinobloom.pipeline.classify import iter_classify_study
    from napari_dinobloom.pipeline.crops import policy_of
    from napari_dinobloom.pipeline.settings import resolve
    from napari_dinobloom.predict.atlas import Atlas
    from napari_dinobloom.progress import drain

    settings = resolve({}, {})
    policy = policy_of(settings)
    x, kinds = clouds(FITTED, dim, np.random.default_rng(1))
    sources = [f"{i % 50:016x}" for i in range(FITTED)]
    made = {"encoder": "made up", "encoder_sha256": SHA, "policy": policy.to_dict(), "policy_hash": policy.hash}
    held = np.arange(FITTED) % 5 == 0
    atlas = Atlas.from_embeddings(x, np.array(CLASSES)[kinds].tolist(), sources, held, name="made up", **made)
    opened: list[Study] = []

    def opening() -> None:
        opened.append(Study.open(path))
        _ = opened[0].cells

    found = {"open the table": timed(opening)}
    study = opened[0]
    rows = np.sort(
        np.random.default_rng(2).choice(study.cells.n_obs, min(FITTED, study.cells.n_obs // 2), replace=False)
    )
    names, spots = study.cells.obs_names[rows], study.cells.obsm["X_umap"][rows]
    about = {"encoder": "made up", "encoder_sha256": SHA, "pooling": "class"}
    fitted = Projection.of("umap", {"n_neighbors": 15, "metric": "euclidean"}, names, Vectors.of(study.cells)[rows],
                           spots, about=about)  # fmt: skip
    gates = StudyGates(study)

    def gating() -> None:
        axes = ("umap_1", "umap_2")
        centres = np.random.default_rng(3).uniform(-8, 8, (GATES, 2)).tolist()
        for i, at in enumerate(centres):
            gates.add(EllipseGate(name=f"g{i}", axes=axes, center=at, half_axes=(2.0, 1.5), angle=0.3 * i))
        gates.statistics()

    found["30 gates and their statistics"] = timed(gating)
    found["classify by k-NN and save"] = timed(lambda: drain(iter_classify_study(study, settings, atlas)))
    found["place on a map"] = timed(lambda: place(study.cells, fitted))
    found["differential"] = timed(lambda: nd.differential(study.cells))
    found["save"] = timed(lambda: study.save_cells(study.cells))
    study.close()
    return found


def window(path: Path) -> dict[str, Any]:
    """Open a study until its map is drawn, with napari and the map's window there already."""
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_dinobloom.io.study import Study
    from napari_dinobloom.ui.session import session_of
    from napari_dinobloom.ui.widgets.map_widget import MapWidget

    viewer = napari.Viewer(show=True)
    widget = MapWidget(viewer)
    viewer.window.add_dock_widget(widget, area="right")
    QApplication.processEvents()
    session, parts, draws = session_of(viewer), {}, []
    widget.view.canvas._scene.events.draw.connect(lambda _: draws.append(time.perf_counter()), position="last")

    def opening() -> None:
        start = time.perf_counter()
        study = Study.open(path, read_only=True)
        _ = study.cells
        parts["table"] = round(time.perf_counter() - start, 2)
        session.show(study)
        parts["map filled"] = round(time.perf_counter() - start, 2)
        draws.clear()
        while not draws:
            QApplication.processEvents()

    found = {"open to a drawn map": timed(opening) | parts}
    viewer.close()
    return found


PARTS = ("write", "work", "window")
"""A study is written, worked on, and opened in a window."""


def measured(folder: Path, n: int, dim: int, parts: Sequence[str]) -> dict[str, Any]:
    """All steps of one size, each part in a process of its own."""
    path, found = folder / f"{n}-{dim}.dinobloom", {}
    for part in parts:
        line = [sys.executable, __file__, "--part", part, str(path), str(n), str(dim)]
        screen = ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24"] if part == "window" else []
        run = subprocess.run([*screen, *line], capture_output=True, text=True, check=False, env=dict(os.environ))
        if run.returncode:
            raise SystemExit(f"{part} of {n} cells: {run.stderr[-2000:]}")
        found |= json.loads(run.stdout.splitlines()[-1])
    return found


def bf16() -> dict[str, Any]:
    """Nearest neighbours of held-out cells among the others, with all embeddings rounded and without."""
    from napari_dinobloom.explore.neighbours import exact_neighbours
    from napari_dinobloom.io.embeddings import halved, widened
    from napari_dinobloom.pipeline.crops import policy_of
    from napari_dinobloom.pipeline.settings import resolve
    from napari_dinobloom.predict.atlas import Atlas
    from napari_dinobloom.predict.shelf import bundled_file

    atlas = Atlas.load(bundled_file("starter", policy_of(resolve({}, {"cells": True}))))
    query, reference = atlas.X[atlas.held_out], atlas.X[~atlas.held_out]
    near, far = exact_neighbours(query, reference, 1)
    again, rounded = exact_neighbours(widened(halved(query)), widened(halved(reference)), 1)
    name, truth = atlas.y[~atlas.held_out], atlas.y[atlas.held_out]
    error = np.abs(rounded - far)[:, 0] / far[:, 0]
    return {
        "atlas": atlas.name, "cells asked": len(query), "among": len(reference), "dim": int(query.shape[1]),
        "same nearest cell": round(float((near == again).mean()), 5),
        "same class by 1-NN": round(float((name[near] == name[again]).mean()), 5),
        "1-NN accuracy, float32": round(float((name[near[:, 0]] == truth).mean()), 5),
        "1-NN accuracy, bf16": round(float((name[again[:, 0]] == truth).mean()), 5),
        "relative error of the distance": {"median": float(np.median(error)), "largest": float(error.max())},
    }  # fmt: skip


def growth(rows: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Slope of each step from the last two sizes, and what 10^7 cells would take along a straight line."""
    (few, less), (many, more) = sorted(rows.items())[-2:]
    found = {}
    for step in more:
        one, other = (max(row[step]["processor"], 0.01) for row in (less, more))
        each = {name: (more[step][name] - less[step][name]) / (many - few) for name in ("processor", "peak MiB")}
        found[step] = {
            "growth": round(float(np.log(other / one) / np.log(many / few)), 2),
            "processor at 10^7": round(other + each["processor"] * (10**7 - many)),
            "peak MiB at 10^7": round(more[step]["peak MiB"] + each["peak MiB"] * (10**7 - many)),
        }
    return found


def keep(target: Path, results: dict[str, Any]) -> None:
    """Write results beside those that are there, of a run that may still go on."""
    known = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    target.write_text(json.dumps(known | results, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--dims", type=int, nargs="+", default=[384, 768])
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="to measure; a study has to be written"
    )
    parser.add_argument("--note", default="")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--part", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        part, path, n, dim = asked.part
        done = {"write": lambda: write(Path(path), int(n), int(dim)), "work": lambda: work(Path(path), int(dim)),
                "window": lambda: window(Path(path))}[part]()  # fmt: skip
        sys.stdout.write("\n" + json.dumps(done) + "\n")
        return
    target = RESULTS / "scale_cells.json"
    results = {}
    if asked.bf16:
        results["bf16"] = {"command": command(), **bf16(), "machine": machine()}
        keep(target, results)
    for dim in [] if asked.bf16 else asked.dims:
        rows = {}
        for n in asked.cells:
            with tempfile.TemporaryDirectory() as folder:
                rows[n] = measured(Path(folder), n, dim, asked.parts)
            sys.stderr.write(f"{dim} {n} {json.dumps(rows[n])}\n")
        about = {"command": command(), "note": asked.note, "cells": {str(n): row for n, row in rows.items()}}
        name = f"{dim} numbers" + ("" if len(asked.parts) == len(PARTS) else f", {' and '.join(asked.parts)} only")
        results[name] = {**about, "growth": growth(rows) if len(rows) > 1 else {}, "machine": machine()}
        keep(target, results)


if __name__ == "__main__":
    main()
