"""How fast the Map and gates window answers: the part ``window`` of `explore.py`, on software GL under Xvfb.

    OMP_NUM_THREADS=1 python benchmarks/explore.py --only window [--clusters-plotter FOLDER] [--note "..."]

``lasso``: from the release of the mouse until gate, journal (on the disk), mask, counts of the tree, panel and new
colours (colour by gate) are done; then one draw of the window; then the tables below the tree, which follow after 120
ms; and what the release is made of, one part within the other in part. Into a tree without gates, and into one with
ten. ``clusters plotter``: see `explore_peer.py`. ``frame``: pan and zoom: event and draw; and once more under
`sys.setprofile`, how long our own Python took with all that it called, and in which functions. ``hover``: from the
movement of the mouse until the card of the cell is on the map. ``outlines``: a gate has changed, and 5,000 cells in a
4096 x 4096 image get other outlines. ``click``: on a cell of the map, until it is selected, outlined and the camera
there. ``stall``: longest time between two turns of the event loop during a job in the background, also without the
draws of the map.

Milliseconds on the clock, median and worst of some runs, and ``processor``, the median of this thread's time there, as
other work on the machine lengthens the first. The cells are generated.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import napari
import numpy as np
import pandas as pd
from anndata import AnnData
from mouse import LEFT, NO_KEY, Mouse
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QCursor, QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication
from timing import Ours, Stopwatch, Times, figures, rest, spent, stall, turn

from napari_dinobloom.cells.crop import CropPolicy, find_windows
from napari_dinobloom.explore.gate_masks import MaskCache
from napari_dinobloom.explore.gates import EllipseGate
from napari_dinobloom.explore.study_gates import StudyGates
from napari_dinobloom.io.celltable import complete
from napari_dinobloom.io.crops import ROWS, CropFiles
from napari_dinobloom.io.embeddings import keys_of
from napari_dinobloom.io.fields import FieldRecord
from napari_dinobloom.io.generate import generate_smear
from napari_dinobloom.io.study import CELLS, Study
from napari_dinobloom.pipeline.crops import FILE, row_keys
from napari_dinobloom.ui import layers
from napari_dinobloom.ui.cell_rows import cell_rows
from napari_dinobloom.ui.following import Follower
from napari_dinobloom.ui.gating import gating_of
from napari_dinobloom.ui.images import TAG
from napari_dinobloom.ui.map.canvas import MapCanvas
from napari_dinobloom.ui.map.card import Card
from napari_dinobloom.ui.map.legend import Legend
from napari_dinobloom.ui.map.view import MapView
from napari_dinobloom.ui.map_job import start_refit
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.widgets.gate_panel import GatePanel
from napari_dinobloom.ui.widgets.map_widget import MapWidget

XY = ("umap_1", "umap_2")
STEP = 57
"""Pixels from cell to cell in a field."""
PICTURES = 4 * ROWS
"""Cells at the beginning of the table that have a picture."""
PARTS: dict[str, tuple[type, str]] = {
    "journal": (Study, "record_gate"),
    "masks": (MaskCache, "masks"),
    "counts": (StudyGates, "totals"),
    "legend": (Legend, "fill"),
    "cells to the card": (MapCanvas, "_fill"),
    "colours of the map, both in it": (MapView, "refresh_colours"),
    "lines of the gates": (MapView, "refresh_gates"),
    "boxes above the map": (MapWidget, "refresh"),
    "panel": (GatePanel, "refresh"),
    "tables below the tree": (GatePanel, "refresh_details"),
    "image": (Follower, "recolour"),
    "card": (Card, "show_cell"),
}
"""Methods whose time is taken."""


def make_study(path: Path, count: int, side: int, fields: int, dim: int = 1) -> Study:
    """A study of `count` cells on a map of ten clouds, in fields of `side` pixels; their pictures are not there.

    With more than one dimension their embeddings are drawn from ten clouds too, so that a map can be fitted to them.
    """
    random, study = np.random.default_rng(0), Study.create(path)
    study.update(
        fields=[
            FieldRecord(f"f{i}", f"f{i}.png", "study", "0" * 64, side, side, slide=f"s{i}", patient=f"p{i // 2}")
            for i in range(fields)
        ]
    )
    field = np.arange(count) * fields // count
    number = np.arange(count) - np.searchsorted(field, np.arange(fields))[field] + 1
    y, x = np.divmod(number - 1, side // STEP)
    kind = random.integers(0, 10, count)
    obs = {
        "cell_id": [f"f{i}:{j:05d}" for i, j in zip(field.tolist(), number.tolist(), strict=True)],
        "field": np.array([f"f{i}" for i in range(fields)], dtype=object)[field],
        "slide": np.array([f"s{i}" for i in range(fields)], dtype=object)[field],
        "patient": np.array([f"p{i // 2}" for i in range(fields)], dtype=object)[field],
        **{"y0": y * STEP, "x0": x * STEP, "y1": y * STEP + 40, "x1": x * STEP + 40},
        "area_px": random.integers(400, 1600, count),
        "pixel_size_um": 0.1,
        "quality": "ok",
        "predicted": np.array(["neutrophil_segmented", "lymphocyte", "monocyte", "eosinophil", "blast"])[kind % 5],
        "confidence": random.random(count, dtype=np.float32),
    }
    clouds = random.normal(size=(10, dim)).astype(np.float32) if dim > 1 else np.zeros((10, 1), np.float32)
    noise = 0.5 * random.standard_normal((count, dim), np.float32) if dim > 1 else 0
    adata = AnnData(X=clouds[kind] + noise, obs=complete(pd.DataFrame(obs)))
    adata.obsm["X_umap"] = (random.uniform(-8, 8, (10, 2))[kind] + random.normal(size=(count, 2))).astype(np.float32)
    adata.uns["dinobloom"] = {
        "encoder": "made up", "encoder_sha256": "0" * 64, "projection": {"kind": "umap", "hash": "ab" * 32},
    }  # fmt: skip
    study.save_cells(adata)
    study.finish_step("embed", "made up", (CELLS,))
    return study


def write_crops(study: Study) -> None:
    """Give the first `PICTURES` cells a picture each; the keys of the store are those of all cells."""
    import napari_dinobloom as nd

    smear = generate_smear(0, n_white=8)
    crops = nd.crop(smear.image, smear.table, pixel_size_um=0.1)
    obs, policy = study.cells.obs, CropPolicy()
    files = CropFiles.create(study.path / FILE, study.cells.n_obs)
    files.write(np.arange(PICTURES), np.resize(crops, (PICTURES, *crops.shape[1:])))
    files.finish(keys_of(row_keys(study, obs, find_windows(obs, policy), policy)))


class Found(dict[str, Any]):
    """Figures, printed as they come."""

    def __setitem__(self, name: str, value: Any) -> None:
        print(f"{name}: {json.dumps(value)}", flush=True)
        super().__setitem__(name, value)


class Window:
    """napari with the map beside it, and the mouse."""

    def __init__(self, study: Study) -> None:
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1366, 768)
        self.session, self.study = session_of(self.viewer), study
        self.session.show(study)
        self.widget = MapWidget(self.viewer)
        self.viewer.window.add_dock_widget(self.widget, area="right", name="Map and gates")
        self.view, self.canvas, self.native = self.widget.view, self.widget.view.canvas, self.widget.view.canvas.native
        self.gating, self.mouse = gating_of(self.session), Mouse(self.view)
        self.drawn: Times = []
        self._since = 0.0
        self.canvas._scene.events.draw.connect(self._begin, position="first")
        self.canvas._scene.events.draw.connect(self._end, position="last")
        rest(1)
        self.canvas.fit()
        rest(0.5)

    def _begin(self, _event: object) -> None:
        self._since = time.perf_counter()

    def _end(self, _event: object) -> None:
        self.drawn.append((self._since, time.perf_counter()))

    def draw(self) -> tuple[float, float]:
        """Milliseconds of one draw of the window, in which the map is drawn."""
        self.drawn.clear()
        took = spent(turn)
        if not self.drawn:
            raise RuntimeError("nothing was drawn: is the window on the screen?")
        return took

    def close(self) -> None:
        """Close it and the study."""
        self.session.close_study()
        self.viewer.close()
        rest(0.2)


def path_of_lasso(run: int, corners: int = 40) -> list[tuple[float, float]]:
    """A freehand outline, each run another."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    reach = 4.5 * (1 + 0.2 * np.sin(5 * angle)) + 0.05 * run
    return list(zip((reach * np.cos(angle)).tolist(), (reach * np.sin(angle)).tolist(), strict=True))


def lasso(window: Window, watch: Stopwatch, runs: int) -> dict[str, Any]:
    """Draw lassos, each taken back before the next; the first is not counted."""
    session, gating, panel = window.session, window.gating, window.widget.gates
    session.colour_by = "gate"
    releases, draws, parts = [], [], defaultdict(list)
    for run in range(runs + 1):
        before = 0 if gating.tree is None else len(gating.tree)
        QTest.keyClick(window.native, Qt.Key.Key_L)
        turn()
        watch.sums()
        path = path_of_lasso(run)
        window.mouse.drag(path, release=False)
        took = spent(partial(window.mouse.release, path[-1]))
        made = watch.sums()
        key, tree = session.gate, gating.tree
        n = int(gating.masks()[key].sum())
        coloured = window.view.colours[0] == 1 + tree.keys.index(key)
        if len(tree) != before + 1 or n == 0 or panel.model.index_of(key).row() < 0 or coloured.sum() != n:
            raise RuntimeError("the lasso made no gate, or it has not its colour")
        draw = window.draw()
        rest(0.2)
        made |= watch.sums()
        if run:
            releases.append(took)
            draws.append(draw)
            for name, times in made.items():
                parts[name].append(times)
        gating.undo()
        rest(0.2)
    later = parts.pop("tables below the tree")
    return {
        "release until done": figures(releases),
        "draw": figures(draws),
        "tables below the tree, later": figures(later),
        "of it": {name: figures(times) for name, times in parts.items()},
        "cells in it": n,
    }


def lassos(window: Window, watch: Stopwatch, runs: int) -> dict[str, Any]:
    """Into a tree without gates, then into one of ten."""
    found = {"tree without gates": lasso(window, watch, runs)}
    places = [(x, y) for x in (-6, -3, 0, 3, 6) for y in (-3, 3)]
    ten = [EllipseGate(name=f"gate {i}", axes=XY, center=at, half_axes=(2, 1)) for i, at in enumerate(places)]
    window.gating.add_all(ten)
    rest(0.3)
    found["tree with ten gates"] = lasso(window, watch, runs)
    return found


def frame(window: Window) -> dict[str, Any]:
    """Pan and zoom by the mouse, without and with the profile."""
    window.session.gate = ""
    QTest.keyClick(window.native, Qt.Key.Key_V)
    rest(0.2)
    pans, zooms = pan(window), zoom(window)
    found: dict[str, Any] = {"pan: event and draw": figures(pans), "zoom: event and draw": figures(zooms)}
    for name, moves in (("pan", pan), ("zoom", zoom)):
        with Ours() as ours:
            frames = len(moves(window))
        found[f"{name}: our Python in a frame"] = {
            "milliseconds": round(1000 * ours.seconds / frames, 3),
            "calls": {name: round(n / frames, 1) for name, n in ours.calls.most_common() if 2 * n > frames},
        }
    window.canvas.fit()
    return found


def pan(window: Window) -> Times:
    """Drag the map."""
    times = []
    QTest.mousePress(window.native, LEFT, NO_KEY, QPoint(150, 150))
    for step in range(30):
        time.sleep(0.012)
        place = QPoint(150 + 3 * step, 150 + 2 * step)
        times.append(spent(lambda at=place: (QTest.mouseMove(window.native, at), turn())))
    QTest.mouseRelease(window.native, LEFT, NO_KEY, place)
    turn()
    return times


def zoom(window: Window) -> Times:
    """Turn the wheel."""
    times = []
    place = QPointF(200, 150)
    for step in range(20):
        time.sleep(0.012)
        turned = QPoint(0, 120 if step % 2 else -120)
        kind = (Qt.MouseButton.NoButton, NO_KEY, Qt.ScrollPhase.NoScrollPhase, False)
        event = QWheelEvent(place, QPointF(window.native.mapToGlobal(place.toPoint())), QPoint(), turned, *kind)
        times.append(spent(lambda one=event: (QApplication.sendEvent(window.native, one), turn())))
    return times


def hover(window: Window, watch: Stopwatch, runs: int) -> dict[str, Any]:
    """Over cells that have a picture; the first time the table and the keys of the store are read."""
    view, card, times, draws = window.view, window.view.card, [], []
    QTest.keyClick(window.native, Qt.Key.Key_V)
    window.canvas.fit()
    rest(0.2)
    rows = np.random.default_rng(0).permutation(PICTURES)[: 2 * runs]
    places = [view.places[row].astype(float).tolist() for row in rows]
    for place in places:
        window.mouse.move((place[0] + 1000, place[1]))
        time.sleep(0.012)
        QCursor.setPos(window.native.mapToGlobal(window.mouse.at(place)))
        watch.times.clear()
        begun, used = time.perf_counter(), time.thread_time()
        while not watch.times["card"] and time.perf_counter() - begun < 1:
            QApplication.processEvents()
        took = 1000 * (watch.ended - begun), 1000 * (time.thread_time() - used)
        picture = card.picture.pixmap()
        if card.isVisible() and picture is not None and not picture.isNull():
            times.append(took)
            draws.append(spent(turn))
    if len(times) < runs:
        raise RuntimeError(f"only {len(times)} of {len(places)} movements showed a picture")
    return {"first": round(times[0][0], 2), "until the card is there": figures(times[1:]), "draw": figures(draws[1:])}


def cells_in_image(window: Window) -> Any:
    """A 4096 x 4096 image with the cells of the study's only field, as the plugin would open it."""
    side = window.study.fields[0].width
    rows = cell_rows(window.study, ["f0"])
    labels = np.zeros((side, side), rows.dtype)
    for value, (y0, x0, y1, x1) in enumerate(rows.boxes):
        labels[y0:y1, x0:x1] = value
    mark = {"role": "cells", "study": str(window.study.path), "fields": ("f0",), "boxes": rows.boxes}
    colours = layers.lookup(rows.features["index"].to_numpy(), rows.names, {})
    meta = {TAG: mark | {"width": layers.width_of(rows.boxes)}}
    window.viewer.add_image(np.full((side, side, 3), 230, np.uint8), rgb=True)
    layer = window.viewer.add_labels(labels, features=rows.features, colormap=colours, metadata=meta)
    rest(1)
    return layer


def outlines(window: Window, runs: int) -> dict[str, Any]:
    """A gate changes; its listeners are told only after the time of the image alone was taken."""
    session, follower = window.session, Follower.of(window.viewer, window.session)
    layer = cells_in_image(window)
    session.colour_by = "gate"
    session.population = ""
    key = window.gating.add(EllipseGate(name="moving", axes=XY, center=(0, 0), half_axes=(3, 3)))
    rest(0.5)
    alone, whole, draws = [], [], []
    for run in range(2 * runs + 1):
        gate = EllipseGate(name="moving", axes=XY, center=(run % 5 - 2, 0), half_axes=(3 + 0.01 * run, 3))
        before = np.array(layer.colormap.colors)
        if run % 2:
            with session.events.gates_revision.blocked():
                window.gating.change(key, gate)
            took = spent(follower.recolour)
        else:
            took = spent(lambda one=gate: window.gating.change(key, one))
        if np.array_equal(before, layer.colormap.colors):
            raise RuntimeError("the outlines kept their colours")
        draw = spent(turn)
        rest(0.2)
        if run:
            (alone if run % 2 else whole).append(took)
            draws.append(draw)
    follower.detach()
    return {
        "outlines": figures(alone),
        "act with journal, map, panel and outlines": figures(whole),
        "draw": figures(draws),
        "cells": len(layer.features),
    }


def click(window: Window, runs: int) -> dict[str, Any]:
    """On cells of the map whose image is open, zoomed so far in that the camera has to go to each."""
    session, camera, times, draws = window.session, window.viewer.scene.camera, [], []
    QTest.keyClick(window.native, Qt.Key.Key_V)
    session.gate = ""
    camera.zoom = 2
    rest(0.5)
    for row in np.random.default_rng(1).permutation(len(window.study.cells))[: runs + 1]:
        place = window.view.places[row]
        before = tuple(camera.center)
        took = spent(lambda at=place: window.mouse.click(at))
        if not session.selected or tuple(camera.center) == before:
            raise RuntimeError("the click selected no cell, or the camera stayed")
        times.append(took)
        draws.append(spent(turn))
        rest(0.75)
    return {"until the camera is there": figures(times[1:]), "draw": figures(draws[1:])}


def renderer(window: Window) -> str:
    """What draws."""
    from vispy.gloo import gl

    window.canvas._scene.set_current()
    return str(gl.glGetParameter(gl.GL_RENDERER))


def fit(cells: int, dim: int = 384) -> dict[str, Any]:
    """Longest stall while a map is fitted anew to embeddings of so many cells, which the window shows meanwhile."""
    found = Found()
    with tempfile.TemporaryDirectory() as place:
        os.environ["NAPARI_DINOBLOOM_HOME"] = place
        window = Window(make_study(Path(place) / "many.dinobloom", cells, 40_000, 10, dim))
        before = np.array(window.study.cells.obsm["X_umap"])
        found[f"stall, fit of {cells:,} x {dim}"] = stall(
            window.session, lambda: start_refit(window.session), window.drawn
        )
        if np.array_equal(before, window.study.cells.obsm["X_umap"]):
            raise RuntimeError(f"no new map came: {window.session.message}")
        window.close()
    return dict(found)


def measure(cells: int, runs: int, clusters_plotter: str) -> dict[str, Any]:
    """Everything, in milliseconds; each part is printed when it is done."""
    if clusters_plotter:
        import explore_peer

        plotter = explore_peer.load(Path(clusters_plotter))
    watch, found = Stopwatch(PARTS), Found()
    with tempfile.TemporaryDirectory() as place:
        os.environ["NAPARI_DINOBLOOM_HOME"] = place
        study = make_study(Path(place) / "many.dinobloom", 80_000, 40_000, 10)
        write_crops(study)
        coordinates = np.array(study.cells.obsm["X_umap"])
        window = Window(study)
        found["renderer"] = renderer(window)
        found["lasso, 80,000 cells"] = lassos(window, watch, runs)
        window.session.colour_by = "class"
        found["frame, 80,000 cells"] = frame(window)
        found["hover, 80,000 cells"] = hover(window, watch, runs)
        suggest = window.gating.suggest
        found["stall, clusters of 80,000 cells"] = stall(window.session, suggest, window.drawn)
        window.close()
        if clusters_plotter:
            release = found["lasso, 80,000 cells"]["tree without gates"]
            corners = [path_of_lasso(run) for run in range(min(runs, 4) + 1)]
            found["clusters plotter"] = explore_peer.peer(plotter, coordinates, corners, release)
        window = Window(make_study(Path(place) / "few.dinobloom", 5_000, 4_096, 1))
        found["outlines, 5,000 cells, 4096 x 4096"] = outlines(window, runs)
        found["click, 5,000 cells"] = click(window, runs)
        window.close()
        window = Window(make_study(Path(place) / "most.dinobloom", cells, 80_000, 10))
        found[f"lasso, {cells:,} cells"] = {"tree without gates": lasso(window, watch, max(3, runs // 3))}
        window.close()
    return dict(found)
