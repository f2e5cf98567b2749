"""A lasso in napari-clusters-plotter, beside that of `explore_window.py` and in its process.

``until done``: what the lasso of its plotter does when the mouse is released (``on_select`` with the corners, which
applies the selection as well), until its column, the colours of its plot and those of the layer are set; the draws
that it asks Qt for come after that. ``matrix product``: of two 2000 x 2000 float64, for comparison with other machines.
Get it with ``pip install --no-deps --target FOLDER napari-clusters-plotter biaplotter nap-plot-tools napari-matplotlib
imagecodecs deprecated wrapt cmap tinycss2 webencodings``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import napari
import numpy as np
import pandas as pd
from timing import Times, figures, rest, spent, turn

PACKAGES = ("napari-clusters-plotter", "biaplotter", "nap-plot-tools", "napari-matplotlib")
COLUMN = "MANUAL_CLUSTER_ID"


def load(folder: Path) -> Any:
    """Import its plotter from a folder that is no part of the environment; return the class."""
    sys.path.append(str(folder))
    from napari_clusters_plotter._new_plotter_widget import PlotterWidget

    return PlotterWidget


def peer(
    plotter: Any,
    coordinates: np.ndarray,
    corners: Sequence[Sequence[tuple[float, float]]],
    ours: dict[str, dict[str, float]],
) -> dict[str, Any]:
    """Draw a lasso for each run, the first of which is not counted; `ours` are the figures to compare with."""
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1366, 768)
    features = pd.DataFrame(coordinates, columns=["umap_1", "umap_2"])
    layer = viewer.add_points(coordinates[:, ::-1], features=features, size=0.05)
    widget = plotter(viewer)
    viewer.window.add_dock_widget(widget, area="right")
    rest(1)
    widget.x_axis, widget.y_axis = "umap_1", "umap_2"
    rest(1)
    plot = widget.plotting_widget
    plot._set_active_selector("LASSO")
    times: Times = []
    draws: Times = []
    for run, path in enumerate(corners):
        plot.class_spinbox.value = 1 + run % 2
        vertices = np.array(path)
        took = spent(lambda at=vertices: plot.active_selector.on_select(at))
        n = int((layer.features[COLUMN].astype(int) == 1 + run % 2).sum())
        if not n or not np.ptp(np.asarray(layer.face_color), axis=0).any():
            raise RuntimeError("napari-clusters-plotter selected nothing")
        draw = spent(turn)
        rest(0.3)
        if run:
            times.append(took)
            draws.append(draw)
    viewer.close()
    rest(0.2)
    matrix = np.random.default_rng(0).random((2000, 2000))
    products = [spent(lambda: matrix @ matrix) for _ in range(5)]
    theirs = {"until done": figures(times), "draw": figures(draws)}
    done, with_draw = (
        sum(theirs[name]["median"] for name in ("until done", "draw")[:count])
        / sum(ours[name]["median"] for name in ("release until done", "draw")[:count])
        for count in (1, 2)
    )
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {
        **theirs,
        "cells in it": n,
        "matrix product": figures(products),
        "times ours": round(done, 1),
        "times ours, both with the draw": round(with_draw, 1),
        "versions": versions,
    }
