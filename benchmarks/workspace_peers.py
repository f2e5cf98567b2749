"""The tasks of `workspace.py` in other programs, as far as they run here.

Not run by itself: ``python benchmarks/workspace_peers.py SCENE BEGUN FOLDER``. The weights of cellpose and micro-sam
cannot be fetched on the machine of these figures, so networks of the same architecture with random weights stand in
for them: what they find means nothing, and the time of the network is the same. The last layer of cellpose's is zero,
so that no cell is found and its following of flows, which depends on the cells, is not counted.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from desk import Desk, say
from hand import RIGHT, Hand, processor, pump, settle
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtWidgets import QApplication, QMainWindow

WIDTH, HEIGHT = 640, 480


def clusters_plotter(begun: float, folder: Path) -> None:
    """A map of the embeddings that our command line wrote, and a gate on it."""
    import pandas as pd

    embeddings = np.load(folder / "embeddings.npy")
    desk = Desk(begun)
    hand, viewer = desk.hand, desk.viewer
    features = pd.DataFrame(embeddings, columns=[f"e{at}" for at in range(embeddings.shape[1])])
    layer = viewer.add_points(np.load(folder / "places.npy"), features=features, size=8)
    settle()
    with hand.task("the map") as task:
        reduce = desk.window("napari clusters plotter", "Dimensionality reduction (features)")
        names = reduce.feature_selection_widget
        hand.click(names.viewport(), names.visualItemRect(names.item(0)).center())
        hand.key(names, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)
        hand.choose(reduce.algorithm_selection, "UMAP")
        hand.click(reduce.selected_algorithm_widget.call_button.native)
        pump(lambda: "UMAP1" in layer.features, 1800)
        plotter = desk.window("napari clusters plotter", "Plot & select features")
        for box, name in (("x_axis_box", "UMAP0"), ("y_axis_box", "UMAP1")):
            hand.choose(getattr(plotter.control_widget, box), name)
        task.found = {"cells": len(layer.features), "features": int(embeddings.shape[1])}
    with hand.task("a gate") as task:
        plot = plotter.plotting_widget
        lasso = next(button for name, button in plot.selection_toolbar.buttons.items() if "lasso" in name.lower())
        hand.click(lasso)
        places = layer.features[["UMAP0", "UMAP1"]].to_numpy(float)
        hand.drag(plot.canvas, _ring(plot, places))
        pump(lambda: layer.features["MANUAL_CLUSTER_ID"].astype(int).any(), 30)
        task.found = {"cells in it": int((layer.features["MANUAL_CLUSTER_ID"].astype(int) > 0).sum())}
    say({"tasks": hand.counted()})


def _ring(plot: Any, places: np.ndarray) -> list[QPoint]:
    """A loop around the cells that lie nearest to one of them, within the axes, as pixels of a canvas of matplotlib."""
    near = places[np.argsort(np.hypot(*(places - places[0]).T))[: len(places) // 4]]
    angles = np.linspace(0, 2 * np.pi, 24)
    corners = near.mean(axis=0) + 3 * near.std(axis=0) * np.column_stack([np.cos(angles), np.sin(angles)])
    ends = np.array([plot.axes.get_xlim(), plot.axes.get_ylim()])
    inner = ends.mean(axis=1) + 0.49 * np.array([[-1], [1]]) * np.diff(ends).T
    corners = np.clip(corners, *inner)
    pixels = plot.axes.transData.transform(corners) / plot.canvas.device_pixel_ratio
    return [QPoint(round(x), round(plot.canvas.height() - y)) for x, y in pixels]


def cellpose_gui(begun: float, folder: Path) -> None:
    """Open a field, run the network, draw a cell, delete it."""
    weights = folder / "models"
    weights.mkdir(exist_ok=True)
    os.environ["CELLPOSE_LOCAL_MODELS_PATH"] = str(weights)
    import logging

    import torch
    from cellpose import models
    from cellpose.gui import gui, guiparts
    from cellpose.vit import CPSAM

    hand = Hand()
    with hand.task("it has started") as task:
        app = QApplication.instance() or QApplication(sys.argv[:1])
        app.setStyle("Fusion")
        app.setPalette(guiparts.DarkPalette())
        window = gui.MainW(image=None, logger=logging.getLogger("cellpose"))
        QMainWindow.resize(window, 1600, 1000)  # its own `resize` is a flag
        settle()
    task.seconds, task.processor = round(time.time() - begun, 2), round(processor(), 2)
    with hand.task("open a field"):
        hand.answer(folder / "field.jpg")
        hand.menu(window.menuBar(), "File", "Load image")
        pump(lambda: bool(window.loaded), 60)
    network = CPSAM()
    torch.nn.init.zeros_(network.out.weight)
    torch.nn.init.constant_(network.out.bias, -1.0)
    for name in models.MODEL_NAMES[:1]:
        torch.save(network.state_dict(), weights / name)
    del network
    for name in ("find cells, first time", "find cells again"):
        with hand.task(name):
            hand.click(window.ModelButtonB)
            pump(lambda: window.progress.value() == 100, 3600)
    with hand.task("one cell drawn") as task:
        hand.click(window.win.viewport(), _at(window, 200, 200), button=RIGHT)
        angles = np.linspace(0, 2 * np.pi, 48)
        for angle in angles[1:]:
            hand.move(window.win.viewport(), _at(window, 160 + 40 * np.cos(angle), 200 + 40 * np.sin(angle)))
            time.sleep(0.015)  # more than a hundred movements a second are passed over
        pump(lambda: int(window.ncells.get()) == 1, 20)
        task.found = {"cells": int(window.ncells.get())}
    with hand.task("one cell deleted") as task:
        middle, control = _at(window, 160, 200), Qt.KeyboardModifier.ControlModifier
        hand.click(window.win.viewport(), middle, modifier=control)
        pump(lambda: int(window.ncells.get()) == 0, 20)
        task.found = {"cells": int(window.ncells.get())}
    say({"tasks": hand.counted()})


def _at(window: Any, x: float, y: float) -> QPoint:
    """A pixel of the image as a place in the window of cellpose."""
    at: QPoint = window.win.mapFromScene(window.p0.mapViewToScene(QPointF(x, y)))
    return at


def micro_sam(begun: float, folder: Path) -> None:
    """Open a field, compute its embedding, find one cell by a box."""
    import torch
    from micro_sam.util import get_sam_model  # its imports are not part of a click
    from segment_anything import sam_model_registry

    weights = folder / "vit_b.pth"
    torch.save(sam_model_registry["vit_b"]().state_dict(), weights)
    del get_sam_model
    desk = Desk(begun, str(folder / "field.jpg"))
    hand, viewer = desk.hand, desk.viewer
    with hand.task("the window"):
        annotator = desk.window("Segment Anything for Microscopy", "Annotator 2d")
    embed = annotator._embedding_widget
    embed.model_type, embed.custom_weights = "vit_b", str(weights)
    with hand.task("the embedding of a field"):
        hand.click(embed.run_button)
        pump(lambda: "prompts" in viewer.layers)
    layer = viewer.layers["prompts"]
    with hand.task("one cell found by a box"):
        rows, controls = viewer.window._qt_viewer.layers, viewer.window._qt_viewer.controls
        at = rows.model().index(len(viewer.layers) - 1 - viewer.layers.index(layer), 0)
        hand.click(rows.viewport(), rows.visualRect(at).center())
        hand.click(controls.widgets[layer].rectangle_button)
        hand.drag(desk.canvas.native, [desk.pixel(100 + 8 * t, 100 + 8 * t) for t in range(9)])
        hand.key(desk.canvas.native, Qt.Key.Key_S)
        pump(lambda: len(layer.data) > 0, 10)
        hand.key(desk.canvas.native, Qt.Key.Key_C)
    say({"tasks": hand.counted()})


SCENES = {"clusters_plotter": clusters_plotter, "cellpose_gui": cellpose_gui, "micro_sam": micro_sam}

if __name__ == "__main__":
    SCENES[sys.argv[1]](float(sys.argv[2]), Path(sys.argv[3]))
    sys.stdout.flush()
    os._exit(0)  # threads of the other programs do not end by themselves
