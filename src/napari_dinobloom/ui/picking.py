"""Clicks in the viewer: which cell was meant, and the outline around the selected one."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Labels

from napari_dinobloom.io.celltable import split_cell_id
from napari_dinobloom.ui import layers
from napari_dinobloom.ui.images import TAG, tag
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text

CLICK_RADIUS = 4
"""Canvas pixels that the pointer may move between press and release of what is still a click."""

OUTLINE = "#111111"


class Picker:
    """Select in `session` the cell that is clicked in `viewer`, and draw a line around the selected cell.

    Works for every cell layer of ours, whichever layer is active, and only while the active layer is in its pan and
    zoom mode, so that painting and shape tools of the user keep their clicks.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Its mouse callbacks get one more until `detach`.
    session : Session
        Its `selected` and `focus` are set by clicks and followed by the outline.
    """

    def __init__(self, viewer: Any, session: Session) -> None:
        self._viewer = viewer
        self._session = session
        viewer.mouse_drag_callbacks.append(self._on_press)
        session.events.focus.connect(self._outline_focus)

    def detach(self) -> None:
        """Take the callbacks off and remove the outline."""
        if self._on_press in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._on_press)
        self._session.events.focus.disconnect(self._outline_focus, missing_ok=True)
        self._remove_outline()

    def _on_press(self, _viewer: Any, event: Any) -> Generator[None]:
        """Mouse callback: wait for the release, and select when the pointer stayed where it was."""
        active = self._viewer.layers.selection.active
        if event.button not in (None, 1) or (active is not None and str(active.mode) != "pan_zoom"):
            return
        start = np.array(event.pos, dtype=float)
        yield
        while event.type == "mouse_move":
            if np.abs(np.array(event.pos, dtype=float) - start).max() > CLICK_RADIUS:
                return
            yield
        self.select_under(event)

    def select_under(self, event: Any) -> None:
        """Select the cell under the event; a click beside all cells of ours clears the selection."""
        cells = [layer for layer in self._viewer.layers if tag(layer).get("role") == "cells"]
        if not cells:
            return
        for layer in reversed(cells):
            value = layers.cell_under(layer, event)
            found = layers.info(layer, value) if value else None
            if found is not None:
                self._session.select(found.cell_id)
                return
        self._session.select()

    def focused(self) -> tuple[Labels, int] | None:
        """The cell layer and label value of the cell in focus; None when no layer shows it."""
        cell_id = self._session.focus
        if cell_id:
            for layer in reversed(self._viewer.layers):
                if tag(layer).get("role") == "cells":
                    value = layers.value_of(layer, cell_id)
                    if value:
                        return layer, value
        return None

    def line(self) -> str:
        """One line about the cell in focus; empty when there is none."""
        found = self.focused()
        cell = layers.info(*found) if found is not None else None
        return cell.line() if cell is not None else ""

    def _outline_focus(self) -> None:
        """Draw the outline of the cell in focus, or take it away."""
        found = self.focused()
        if found is None:
            self._remove_outline()
            return
        layer, value = found
        path = outline(layer, value)
        self._remove_outline()
        active = self._viewer.layers.selection.active
        self._viewer.add_shapes(
            [path],
            shape_type="polygon",
            name=text("layer.selected"),
            edge_color=OUTLINE,
            edge_width=float(layers.outline_width(layer)),
            face_color="transparent",
            opacity=0.9,
            metadata={TAG: {"role": "selected"}},
            **layers.placement(layer, layer.ndim),
        )
        self._viewer.layers.selection.active = active

    def _remove_outline(self) -> None:
        """Remove our outline layer, if there is one."""
        for layer in [layer for layer in self._viewer.layers if tag(layer).get("role") == "selected"]:
            self._viewer.layers.remove(getattr(layer, "__wrapped__", layer))


def outline(layer: Labels, value: int) -> npt.NDArray[np.float64]:
    """Outline of one cell, drawn a little outside of it.

    Parameters
    ----------
    layer : Labels
        One of our cell layers.
    value : int
        Label value of the cell.

    Returns
    -------
    (k, ndim) float64 array
        Corners in data coordinates, pixel centres at whole numbers, as napari has it.
    """
    from scipy.ndimage import binary_dilation
    from skimage.measure import approximate_polygon, find_contours

    mark, cell = tag(layer), layers.info(layer, value)
    y0, x0, y1, x1 = mark["boxes"][value]
    plane: tuple[int, ...] = ()
    if layer.ndim == 3 and cell is not None:
        plane = (mark["fields"].index(split_cell_id(cell.cell_id)[0]),)
    mask = np.asarray(layer.data[(*plane, slice(y0, y1), slice(x0, x1))]) == value
    margin = 1 + layers.outline_width(layer)
    grown = binary_dilation(np.pad(mask, margin + 1), iterations=margin)
    lines = find_contours(grown.astype(np.float32), 0.5)
    path = approximate_polygon(max(lines, key=len), 0.5) + np.array([y0 - margin - 1, x0 - margin - 1])
    if plane:
        path = np.column_stack([np.full(len(path), plane[0], dtype=np.float64), path])
    return np.asarray(path, dtype=np.float64)
