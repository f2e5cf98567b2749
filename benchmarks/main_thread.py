"""What the window does itself, not in a second thread: how long it stands still for each, with many cells.

    xvfb-run -a python benchmarks/main_thread.py [--cells 20000] [--dry]

A study of twenty fields of 2400 x 3200 pixels is made, with outlines, embeddings, a map and three gates, all windows
are docked, and then each act is done on the main thread, as a click does it, until it returns; drawing comes on top.
``first`` has what a window loads when it is opened or its button is pressed for the first time. Milliseconds on the
clock and of the processor, which other work on the machine does not lengthen. Writes
``benchmarks/results/main_thread.json``. All that takes over 100 ms belongs into a second thread.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
import pandas as pd
from anndata import AnnData
from machine import RESULTS, command, machine
from timing import figures, spent, turn

from napari_dinobloom.io.celltable import complete
from napari_dinobloom.io.fields import FieldRecord
from napari_dinobloom.io.masks import FieldMasks
from napari_dinobloom.io.study import Study

FIELDS, HEIGHT, WIDTH, RADIUS, DIM = 20, 2400, 3200, 20, 384
CLASSES = ("neutrophil_segmented", "lymphocyte", "monocyte", "eosinophil")


def make_study(path: Path, count: int) -> Study:
    """A study of `count` cells in rows and columns, of ten patients."""
    random = np.random.default_rng(0)
    each = count // FIELDS
    study = Study.create(path)
    records = [
        FieldRecord(f"f{at}", f"f{at}.png", "study", f"{at:064x}", HEIGHT, WIDTH, slide=f"s{at}", patient=f"p{at // 2}")
        for at in range(FIELDS)
    ]
    study.update(fields=records, settings={"encoder": "starter"})
    yy, xx = np.mgrid[-RADIUS:RADIUS, -RADIUS:RADIUS]
    disc = yy**2 + xx**2 < RADIUS**2
    numbers = np.arange(each)
    columns = WIDTH // (2 * RADIUS + 4)
    corner = np.column_stack([numbers // columns, numbers % columns]) * (2 * RADIUS + 4)
    boxes = np.concatenate([corner, corner + 2 * RADIUS], axis=1)
    for record in records:
        masks = FieldMasks.numbered(boxes.tolist(), [disc] * each, [disc] * each)
        study.save_masks(record.id, masks, "{}", "key")
    at = np.arange(each * FIELDS)
    field = at // each
    kind = at % len(CLASSES)
    box = boxes[at % each]
    obs = pd.DataFrame(
        {
            "cell_id": [f"f{one}:{number % each + 1:05d}" for one, number in zip(field, at, strict=True)],
            "field": [f"f{one}" for one in field],
            "slide": [f"s{one}" for one in field],
            "patient": [f"p{one // 2}" for one in field],
            **{name: box[:, place] for place, name in enumerate(("y0", "x0", "y1", "x1"))},
            "area_px": random.integers(400, 1200, len(at)),
            "pixel_size_um": 0.2,
            "quality": "ok",
            "predicted": np.array(CLASSES)[kind],
            "confidence": random.beta(6, 1.5, len(at)).astype(np.float32),
            "distance": random.gamma(4, 0.2, len(at)).astype(np.float32),
        }
    )
    adata = AnnData(random.normal(size=(len(at), DIM)).astype(np.float32), obs=complete(obs))
    adata.obsm["X_umap"] = (random.normal(size=(len(at), 2)) + 5 * np.c_[kind % 2, kind // 2]).astype(np.float32)
    adata.uns["dinobloom"] = {"projection": {"kind": "umap", "hash": "ab" * 32}}
    study.save_cells(adata)
    return study


def docked(viewer: Any) -> dict[str, Any]:
    """All windows, and what opening each took."""
    from napari_dinobloom.ui.widgets.classify_widget import ClassifyWidget
    from napari_dinobloom.ui.widgets.embed_widget import EmbedWidget
    from napari_dinobloom.ui.widgets.gallery_widget import GalleryWidget
    from napari_dinobloom.ui.widgets.map_widget import MapWidget
    from napari_dinobloom.ui.widgets.patches_widget import PatchesWidget
    from napari_dinobloom.ui.widgets.patients_widget import PatientsWidget
    from napari_dinobloom.ui.widgets.report_widget import ReportWidget
    from napari_dinobloom.ui.widgets.segment_widget import SegmentWidget
    from napari_dinobloom.ui.widgets.study_widget import StudyWidget

    kinds = (
        *(StudyWidget, SegmentWidget, EmbedWidget, MapWidget, GalleryWidget, ClassifyWidget, PatientsWidget),
        *(ReportWidget, PatchesWidget),
    )
    found = {}
    for kind in kinds:
        found[f"open {kind.__name__}"] = [spent(lambda kind=kind: viewer.window.add_dock_widget(kind(viewer)))]
    return found


def loads() -> dict[str, Callable[[], Any]]:
    """What the first press of a button loads."""

    def load(module: str) -> Callable[[], Any]:
        return lambda: __import__(f"napari_dinobloom.{module}")

    modules = ("pipeline.driver", "pipeline.map_changes", "pipeline.own_reference", "encoders.fetch")
    modules += ("encoders.library", "pipeline.patients", "pipeline.cell_patches")
    return {f"load {module}": load(module) for module in modules}


def acts(viewer: Any, session: Any, study: Study) -> dict[str, Callable[[int], Any]]:
    """Everything that is done at once; each gets the number of the run."""
    from napari_dinobloom.explore.gates import RectangleGate
    from napari_dinobloom.ui import jobs, reader
    from napari_dinobloom.ui.correction import Correction
    from napari_dinobloom.ui.following import Follower
    from napari_dinobloom.ui.gating import gating_of
    from napari_dinobloom.ui.patients import cohort_of

    ids, gating, correction = list(study.cells.obs.index), gating_of(session), Correction(viewer, session)
    follower = Follower.of(viewer, session)

    def chosen(run: int, count: int) -> None:
        session.select(*ids[run * 50 : run * 50 + count])

    def gate(run: int) -> None:
        low, high = (run - 4.0, -9), (run + 4.0, 9)
        gating.add(RectangleGate(name=f"r{run}", axes=("umap_1", "umap_2"), range_min=low, range_max=high))

    def colour(run: int) -> None:
        session.colour_by = ("gate", "confidence", "class")[run % 3]

    def label(run: int) -> None:
        chosen(run, 1)
        correction.label("monocyte")

    def label_many(run: int) -> None:
        session.selected = tuple(ids[: len(ids) // 2])
        correction.label(CLASSES[run % 4])

    def delete(run: int) -> None:
        chosen(run + 10, 1)
        correction.delete()

    return {
        "select one": lambda run: chosen(run, 1),
        "select half": lambda run: session.select(*ids[run : len(ids) // 2]),
        "label one": label,
        "label half": label_many,
        "exclude one": lambda run: (chosen(run + 20, 1), correction.exclude()),
        "delete one": delete,
        "undo": lambda run: correction.undo(),
        "gate": gate,
        "colour": colour,
        "group": lambda run: cohort_of(session).put({"p0": f"g{run}"}),
        "open a cell's field": lambda run: follower.open_cell(ids[len(ids) * (run + 1) // FIELDS]),
        "layers of one field": lambda run: reader.field_layers(study, f"f{run}"),
        "layers of all fields": lambda run: reader.layers_of(study, study.fields),
        "after a job": lambda run: jobs.refresh_cells(session),
        "after a job: gates": lambda run: setattr(session, "gates_revision", session.gates_revision + 1),
        "differential": lambda run: jobs._count(study, "blood"),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="write nothing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        from napari_dinobloom.ui import study_job
        from napari_dinobloom.ui.session import session_of

        make_study(Path(folder) / "many.dinobloom", options.cells).close()
        viewer = napari.Viewer()
        found = docked(viewer)
        found |= {name: [spent(task)] for name, task in loads().items()}
        session = session_of(viewer)
        study_job.start_open(viewer, session, Path(folder) / "many.dinobloom")
        while session.job is not None:
            turn()
        study = session.study
        assert study is not None
        for name, act in acts(viewer, session, study).items():
            found[name] = []
            for run in range(options.runs):
                found[name].append(spent(lambda act=act, run=run: act(run)))
                turn()
        found["close"] = [spent(session.close_study)]
        viewer.close()
    table = {name: figures(times) for name, times in found.items()}
    said = {"machine": machine(), "command": command(), "cells": options.cells, "milliseconds": table}
    lines = [
        f"{one['processor']:9.1f} ms processor {one['median']:9.1f} ms clock  {name}"
        for name, one in sorted(table.items(), key=lambda item: -item[1]["processor"])
    ]
    print("\n".join(lines))
    if not options.dry:
        (RESULTS / "main_thread.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
