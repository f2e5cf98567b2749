"""How fast the gallery answers with 100,000 cells whose pictures lie in the study's store.

    xvfb-run -a python benchmarks/gallery.py [--cells 100000] [--note "..."] [--dry]

``open``: a study is shown: reading its table, filling the model, first draw. ``reset``: other cells are shown (model,
layout and counts; then the draw). ``sort``: another order. ``scroll``: fifty pages down, each drawn before the next,
with pictures kept and with none, which are then made in the second thread: until the page is drawn, and until all its
pictures are there. ``key``: the key 3 on one cell, until journal (on the disk), table, counts and selection are done;
then the draw. ``select all``: Ctrl+A, until the session has the selection. ``select elsewhere``: cells scattered over
the gallery, selected on the map, say. Milliseconds on the clock, median and worst of some runs, and ``processor``, the
median of what the window's thread computed, as other work on the machine lengthens the clock. Pictures are crops of
generated smears, the same ones again and again on the disk (hard links), so that reading them is as fast as from a
disk's cache. Writes ``benchmarks/results/gallery.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from machine import RESULTS, command, machine
from napari.components import ViewerModel
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

import napari_dinobloom as nd
from napari_dinobloom.cells.crop import CropPolicy, find_windows
from napari_dinobloom.cells.taxonomy import palette
from napari_dinobloom.io.crops import ROWS, CropFiles
from napari_dinobloom.io.embeddings import keys_of
from napari_dinobloom.io.fields import FieldRecord
from napari_dinobloom.io.generate import generate_smear
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline.crops import FILE, row_keys
from napari_dinobloom.ui.gallery.choice import Choice
from napari_dinobloom.ui.widgets.gallery_widget import GalleryWidget

SIDE = 40_000
"""Pixels of each field's sides; the field itself is not there, as no picture is cut."""


def pictures(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Crops of generated smears, (count, 224, 224, 3) uint8, and their classes."""
    crops, names, seed = [], [], 0
    while sum(map(len, crops)) < count:
        smear = generate_smear(seed, n_white=8)
        crops.append(nd.crop(smear.image, smear.table, pixel_size_um=0.1))
        names.append(smear.table["class"].to_numpy(dtype=object))
        seed += 1
    return np.concatenate(crops)[:count], np.concatenate(names)[:count]


def make_study(path: Path, count: int, crops: np.ndarray, names: np.ndarray) -> Study:
    """A study of `count` cells, ten slides, whose crops are those given, over and over."""
    random = np.random.default_rng(0)
    study = Study.create(path)
    study.update(
        palette=palette(dict.fromkeys(map(str, names))),
        fields=[
            FieldRecord(f"f{i}", f"f{i}.png", "study", "0" * 64, SIDE, SIDE, slide=f"slide {i}", patient=f"p{i // 2}")
            for i in range(10)
        ],
    )
    at = np.arange(count)
    field, number = at // -(-count // 10), at % -(-count // 10) + 1
    corner = np.column_stack([number // 300 * 120, number % 300 * 120])
    name = names[at % ROWS % len(names)]
    wrong = random.random(count) < 0.1
    obs = pd.DataFrame(
        {
            "cell_id": [f"f{i}:{j:05d}" for i, j in zip(field, number, strict=True)],
            "field": [f"f{i}" for i in field],
            "slide": [f"slide {i}" for i in field],
            "patient": [f"p{i // 2}" for i in field],
            "y0": corner[:, 0],
            "x0": corner[:, 1],
            "y1": corner[:, 0] + 100,
            "x1": corner[:, 1] + 100,
            "area_px": random.integers(4000, 12000, count),
            "pixel_size_um": 0.1,
            "quality": "ok",
            "predicted": np.where(wrong, random.permutation(name), name),
            "confidence": random.beta(6, 1.5, count).astype(np.float32),
            "distance": random.gamma(4, 0.2, count).astype(np.float32),
            "abstained": random.random(count) < 0.05,
        }
    )
    study.save_cells(AnnData(np.zeros((count, 2), np.float32), obs=obs.set_index("cell_id", drop=False)))
    write_crops(study, crops)
    return study


def write_crops(study: Study, crops: np.ndarray) -> None:
    """Fill the study's store with pictures; all its whole files are one on the disk."""
    obs, policy = study.cells.obs, CropPolicy()
    files = CropFiles.create(study.path / FILE, study.cells.n_obs)
    for number in files.numbers():
        rows = np.arange(files.count)[number * files.per_file :][: files.per_file]
        if number and len(rows) == files.per_file:
            os.link(files.path(0), files.path(number))
        else:
            files.write(rows, np.resize(crops, (len(rows), *crops.shape[1:])))
    files.finish(keys_of(row_keys(study, obs, find_windows(obs, policy), policy)))


Spent = tuple[float, float]
"""Milliseconds on the clock, and of this thread's processor time."""


def spent(task: Callable[[], Any]) -> Spent:
    """What a task takes."""
    clock, processor = time.perf_counter(), time.thread_time()
    task()
    return 1000 * (time.perf_counter() - clock), 1000 * (time.thread_time() - processor)


def figures(values: list[Spent]) -> dict[str, float]:
    """Median and worst on the clock, and the median of the processor."""
    clock, processor = np.array(values).T
    return {
        "median": round(float(np.median(clock)), 2),
        "worst": round(float(clock.max()), 2),
        "processor": round(float(np.median(processor)), 2),
        "runs": len(values),
    }


def wait(until: Callable[[], bool], seconds: float = 60) -> None:
    """Let the window live until a condition holds."""
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            raise TimeoutError("the gallery never came into the state that was waited for")
        QApplication.processEvents()


def measure(widget: GalleryWidget, study: Study) -> dict[str, Any]:
    """Everything, with a widget on the screen."""
    view, session = widget.view, widget._session
    draw = view.viewport().repaint

    def settled() -> bool:
        return not widget.thumbnails.busy and not widget.thumbnails._wanted

    found: dict[str, Any] = {"open": {"until filled": figures([spent(lambda: session.show(study))])}}
    found["open"]["draw"] = figures([spent(draw)])
    wait(settled)
    kinds = [Choice("unreviewed"), Choice("all")] * 4
    resets, draws = [], []
    for choice in kinds:
        resets.append(spent(lambda one=choice: widget.content.choose(one)))
        draws.append(spent(draw))
        wait(settled)
    model_only = [spent(lambda: widget.model.put(widget.content.sheet, widget.model.rows)) for _ in range(8)]
    found["reset"] = {
        "all": figures(resets),
        "of it model": figures(model_only),
        "draw": figures(draws),
    }
    keys = ["confidence", "outlier", "size", "slide", "class"]
    found["sort"] = figures([spent(lambda key=key: widget.content.sort(key)) for key in keys])
    found["scroll"] = {"draw of a page, pictures kept": figures(scroll(view, draw, settled, warm=True))}
    bare = scroll(view, draw, settled, warm=False)
    found["scroll"]["draw of a page, none kept"] = figures(bare[0::2])
    found["scroll"]["until its pictures are there"] = figures(bare[1::2])
    found["cells on a page"] = int(np.diff(view.in_sight())[0])
    view.scrollToTop()
    view.setFocus()
    keys_ms, draws = [], []
    for place in range(20):
        view.show_chosen(np.array([place]), place)
        keys_ms.append(spent(lambda: QTest.keyClick(view, Qt.Key.Key_3)))
        draws.append(spent(draw))
    found["key"] = {"until done": figures(keys_ms), "draw": figures(draws)}
    named = study.cells.obs["label_by"] != ""
    if int(named.sum()) < 20:
        raise RuntimeError(f"only {int(named.sum())} of 20 cells were named")

    def select_all() -> None:
        QTest.keyClick(view, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)
        view.settle()

    found["select all"] = figures([spent(select_all)])
    if len(session.selected) != len(widget.model.rows):
        raise RuntimeError("not all cells were selected")
    some = np.random.default_rng(0).choice(study.cells.obs_names.to_numpy(), len(widget.model.rows) // 5, replace=False)
    found["select elsewhere"] = {"cells": len(some), **figures([spent(lambda: session.select(*some))])}
    return found


def scroll(view: Any, draw: Callable[[], None], settled: Callable[[], bool], *, warm: bool) -> list[Spent]:
    """Fifty pages down; with `warm` the time to draw each once its pictures are there, else also until they are."""
    bar, times = view.verticalScrollBar(), []
    if not warm:
        view._thumbnails.forget()
    for page in range(50):
        place = (page + (0 if warm else 100)) * bar.pageStep()
        if warm:
            bar.setValue(place)
            wait(settled)
            QApplication.processEvents()
            times.append(spent(draw))
            continue
        clock, processor = time.perf_counter(), time.thread_time()
        bar.setValue(place)
        draw()
        times.append((1000 * (time.perf_counter() - clock), 1000 * (time.thread_time() - processor)))
        cells = view.cells.cells(np.arange(*view.in_sight()))
        wait(lambda cells=cells: all(view._thumbnails.get(cell) is not None for cell in cells))
        times.append((1000 * (time.perf_counter() - clock), 1000 * (time.thread_time() - processor)))
    return times


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--note", default="", help="what else ran on the machine; kept with the figures")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    options = parser.parse_args()
    app = QApplication.instance() or QApplication([])
    with tempfile.TemporaryDirectory() as place:
        os.environ["NAPARI_DINOBLOOM_HOME"] = place
        study = make_study(Path(place) / "many.dinobloom", options.cells, *pictures(ROWS))
        widget = GalleryWidget(ViewerModel())
        widget.resize(900, 800)
        widget.show()
        for _ in range(50):  # until everything is laid out and drawn
            app.processEvents()
        found = measure(widget, study)
        widget._session.close_study()
        wait(lambda: not widget.thumbnails.busy)
        widget.close()
        widget.deleteLater()
        app.processEvents()
    result = {
        "command": command(),
        "note": options.note,
        "cells": options.cells,
        "milliseconds": found,
        "machine": machine(),
    }
    print(json.dumps(result, indent=1))
    if not options.dry:
        (RESULTS / "gallery.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
