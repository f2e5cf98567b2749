"""One cell under the brush: its window as a Labels layer of ours, until the user takes it over or drops it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Labels

from napari_dinobloom.cells.correct import within
from napari_dinobloom.io.celltable import split_cell_id
from napari_dinobloom.io.study import Study
from napari_dinobloom.ui import layers
from napari_dinobloom.ui.correction import Correction
from napari_dinobloom.ui.images import TAG, tag
from napari_dinobloom.ui.texts import text
from napari_dinobloom.ui.tool_layer import ToolLayer


class Repainting:
    """The cell that is being repainted, if any.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Gets a layer while a cell is being repainted.
    correction : Correction
        Takes over what was painted.
    changed : callable
        Called when repainting begins or ends.
    """

    def __init__(self, viewer: Any, correction: Correction, changed: Callable[[], None]) -> None:
        self._correction = correction
        self._changed = changed
        self._held: ToolLayer[Labels] = ToolLayer(viewer, self._on_gone)
        self._field = ""
        self._window = (0, 0, 0, 0)

    @property
    def active(self) -> bool:
        """Whether a cell is being repainted."""
        return self._held.layer is not None

    def detach(self) -> None:
        """Drop what was painted and stop listening to the viewer."""
        self._changed = lambda: None
        self._held.detach()

    def begin(self, study: Study, cell_id: str) -> None:
        """Open a cell, with its surroundings, for the brush of napari; its neighbours are safe from it."""
        self.discard()
        over = next((layer for layer in self._correction.cell_layers() if layers.value_of(layer, cell_id)), None)
        if over is None:
            return
        field, number = split_cell_id(cell_id)
        y0, x0, y1, x1 = tag(over)["boxes"][layers.value_of(over, cell_id)]
        height, width = over.data.shape[-2:]
        more = max(y1 - y0, x1 - x0) // 2 + 4
        window = (max(y0 - more, 0), max(x0 - more, 0), min(y1 + more, height), min(x1 + more, width))
        corner = [float(at) for at in window[:2]]
        painted = within(study.masks(field), window)
        if over.ndim == 3:
            corner = [float(tag(over)["fields"].index(field)), *corner]
            painted = painted[np.newaxis]
        where = layers.placement(over, over.ndim)
        layer = Labels(
            painted,
            name=text("layer.repaint", cell_id=cell_id),
            opacity=0.5,
            metadata={TAG: {"role": "tool"}},
            **where | {"translate": where["translate"] + moved(over, corner)},
        )
        self._field, self._window = field, window
        self._held.put(layer)
        layer.selected_label = number
        layer.preserve_labels = True
        layer.brush_size = max(2, round(max(y1 - y0, x1 - x0) / 6))
        layer.mode = "paint"
        self._changed()

    def apply(self) -> None:
        """Make what was painted the cells of the study."""
        layer = self._held.layer
        if layer is not None:
            painted = np.array(layer.data).reshape(layer.data.shape[-2:])
            self.discard()
            self._correction.repaint(self._field, self._window, painted)

    def discard(self) -> None:
        """Drop what was painted."""
        if self.active:
            self._held.take_away()
            self._changed()

    def _on_gone(self) -> None:
        """The user removed our layer: that drops what was painted."""
        self._changed()


def moved(layer: Any, corner: list[float]) -> npt.NDArray[np.float64]:
    """What to add to the ``translate`` of a layer placed like `layer` so that it begins at the pixel `corner`."""
    origin = np.asarray(layer.data_to_world([0.0] * layer.ndim))
    step = np.asarray(layer.data_to_world(corner)) - origin
    linear = np.asarray(layer.affine.affine_matrix)[:-1, :-1]
    found: npt.NDArray[np.float64] = np.linalg.solve(linear, step)
    return found
