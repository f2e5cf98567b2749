"""Clicks in the viewer: which cell was meant, and the outlines around the selected ones."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from napari.layers import Labels, Shapes

from napari_dinobloom.ui import beside, layers, redraw
from napari_dinobloom.ui.images import TAG, tag
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text

CLICK_RADIUS = 4
"""Canvas pixels that the pointer may move between press and release of what is still a click."""

OUTLINE = "#111111"

MOST_OUTLINES = 100
"""Selected cells that get an outline; more would keep the window busy and be no help to the eye."""

CORNERS = 48
"""Of an outline, at most: a line around a cell looks smooth with them, and napari draws it soon."""

_PICKERS: WeakKeyDictionary[Any, Picker] = WeakKeyDictionary()


class Picker:
    """Select in `session` the cell that is clicked in `viewer`, and draw a line around each selected cell.

    With Shift held down a click adds a cell to the selection, or takes it out. Works for every cell layer of ours,
    whichever layer is active, and only while the active layer is in its pan and zoom mode and is no tool of ours, so
    that painting, shape and correction tools keep their clicks.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Its mouse callbacks get one more until `detach`.
    session : Session
        Its `selected` and `focus` are set by clicks and followed by the outlines.
    """

    def __init__(self, viewer: Any, session: Session) -> None:
        self._viewer = viewer
        self._session = session
        self._users = 1
        self._drawn: list[redraw.Boxes] = []
        beside.get_ready()
        viewer.mouse_drag_callbacks.append(self._on_press)
        session.events.selected.connect(self._draw_outlines)
        session.events.revision.connect(self._on_revision)
        viewer.dims.events.current_step.connect(self._on_step)

    @classmethod
    def of(cls, viewer: Any, session: Session) -> Picker:
        """Return the one picker of `viewer`, made on first use; every user detaches it once."""
        key = getattr(viewer, "__wrapped__", viewer)
        picker = _PICKERS.get(key)
        if picker is None:
            picker = _PICKERS[key] = cls(viewer, session)
        else:
            picker._users += 1
        return picker

    def detach(self) -> None:
        """Take the callbacks off and remove the outlines, when the last user does so."""
        self._users -= 1
        if self._users > 0:
            return
        _PICKERS.pop(getattr(self._viewer, "__wrapped__", self._viewer), None)
        if self._on_press in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._on_press)
        self._session.events.selected.disconnect(self._draw_outlines, missing_ok=True)
        self._session.events.revision.disconnect(self._on_revision, missing_ok=True)
        self._viewer.dims.events.current_step.disconnect(self._on_step)
        self._remove_outlines()

    def _on_revision(self) -> None:
        """Cells have changed: the outlines are drawn again if that may concern where they lie."""
        if not redraw.same_shapes(self._drawn, redraw.shapes_of(self._viewer)):
            self._draw_outlines()

    def _on_step(self, _event: Any = None) -> None:
        """Another plane of a stack is on show, with other selected cells."""
        if self._session.selected and any(
            layer.ndim == 3 and tag(layer).get("role") == "cells" for layer in self._viewer.layers
        ):
            self._draw_outlines()

    def _on_press(self, _viewer: Any, event: Any) -> Generator[None]:
        """Mouse callback: wait for the release, and select when the pointer stayed where it was."""
        active = self._viewer.layers.selection.active
        busy = active is not None and (str(active.mode) != "pan_zoom" or tag(active).get("role") == "tool")
        if busy or event.button not in (None, 1):
            return
        start = np.array(event.pos, dtype=float)
        yield
        while event.type == "mouse_move":
            if np.abs(np.array(event.pos, dtype=float) - start).max() > CLICK_RADIUS:
                return
            yield
        self.select_under(event)

    def select_under(self, event: Any) -> None:
        """Select the cell under the event; a click beside all cells of ours clears the selection.

        With Shift the selection stays, and only this one cell joins or leaves it.
        """
        adding, selected = "Shift" in event.modifiers, self._session.selected
        cells = [layer for layer in self._viewer.layers if tag(layer).get("role") == "cells"]
        if not cells:
            return
        for layer in reversed(cells):
            value = layers.cell_under(layer, event)
            found = layers.info(layer, value) if value else None
            if found is not None:
                others = tuple(cell for cell in selected if adding and cell != found.cell_id)
                leaves = adding and found.cell_id in selected
                self._session.select(*others, *(() if leaves else (found.cell_id,)))
                return
        if not adding:
            self._session.select()

    def shown(self, cell_id: str) -> tuple[Labels, int] | None:
        """The topmost cell layer that shows a cell, and its label value there; None when none does."""
        return layers.shown(self._viewer.layers, cell_id)

    def line(self) -> str:
        """One line about the cell in focus; empty when there is none."""
        found = self.shown(self._session.focus)
        cell = layers.info(*found) if found is not None else None
        return cell.line() if cell is not None else ""

    def _draw_outlines(self) -> None:
        """Draw the outlines of the cells on show that were selected last, and take others away."""
        paths: dict[Labels, list[npt.NDArray[np.float64]]] = {}
        self._drawn = redraw.shapes_of(self._viewer)
        left = list(self._session.selected)
        for layer in reversed(self._viewer.layers):
            if left and tag(layer).get("role") == "cells":
                over = getattr(layer, "__wrapped__", layer)
                values = layers.values_of(over, left)
                field = self._field_on_show(over)
                here = ((left[at], int(values[at])) for at in reversed(np.flatnonzero(values).tolist()))
                seen = list(islice((value for cell, value in here if _lies_in(cell, field)), MOST_OUTLINES))
                if seen:
                    paths[over] = outlines(over, seen[::-1], field)
                left = [left[at] for at in np.flatnonzero(values == 0).tolist()]
        there = {id(getattr(layer, "__wrapped__", layer)) for layer in self._viewer.layers}
        known = {tag(layer).get("over"): layer for layer in self._outlines()}
        for over, shapes in known.items():
            if over not in there:
                self._viewer.layers.remove(shapes)
            elif len(shapes.data):
                with shapes.events.data.blocker():  # the viewer would measure all layers and slice them again
                    shapes.data = []
        for layer, polygons in paths.items():
            shapes = known.get(id(layer)) or self._add_outlines(layer)
            layers.lay_over(shapes, layer)
            with shapes.events.data.blocker():
                shapes.add_polygons(
                    polygons,
                    edge_color=OUTLINE,
                    edge_width=float(layers.outline_width(layer)),
                    face_color="transparent",
                )

    def _field_on_show(self, layer: Labels) -> str | None:
        """The field of a stack that is on show, "" for a plane without cells; None for a layer of one field."""
        if layer.ndim != 3:
            return None
        fields = tag(layer)["fields"]
        plane = round(float(layer.world_to_data(self._viewer.dims.point[-3:])[0]))
        return str(fields[min(max(plane, 0), len(fields) - 1)])

    def _add_outlines(self, layer: Labels) -> Shapes:
        """Add a layer for the outlines of selected cells of the cell layer `layer`.

        It stays, empty if need be, until the picker goes: napari collects garbage whenever a layer is removed, which
        takes longer than all the rest of a click.
        """
        active = self._viewer.layers.selection.active
        mark = {"role": "selected", "over": id(layer)}
        shapes = Shapes(ndim=layer.ndim, name=text("layer.selected"), opacity=0.9, metadata={TAG: mark})
        layers.lay_over(shapes, layer)
        self._viewer.add_layer(shapes)
        self._viewer.layers.selection.active = active
        return shapes

    def _outlines(self) -> list[Shapes]:
        """Our outline layers."""
        found = [layer for layer in self._viewer.layers if tag(layer).get("role") == "selected"]
        return [getattr(layer, "__wrapped__", layer) for layer in found]

    def _remove_outlines(self) -> None:
        """Remove our outline layers, if there are any."""
        for layer in self._outlines():
            self._viewer.layers.remove(layer)


def _lies_in(cell: str, field: str | None) -> bool:
    """Whether a cell belongs to a field; all do where there is but one."""
    return field is None or cell.rpartition(":")[0] == field


def outlines(layer: Labels, values: Sequence[int], field: str | None = None) -> list[npt.NDArray[np.float64]]:
    """Outlines of cells of one plane, drawn a little outside of them.

    Parameters
    ----------
    layer : Labels
        One of our cell layers.
    values : sequence of int
        Label values of the cells.
    field : str, optional
        Where the cells lie, for a stack, whose plane is then drawn once for all of them.

    Returns
    -------
    list of (k, ndim) float64 array
        Corners in data coordinates, pixel centres at whole numbers, as napari has it.
    """
    pixels = layer.data[0] if layer.multiscale else layer.data
    plane = tag(layer)["fields"].index(field) if field is not None else None
    if plane is not None:
        pixels = np.asarray(pixels[plane])
    paths = [_outline(layer, pixels, value) for value in values]
    if plane is None:
        return paths
    return [np.column_stack([np.full(len(path), plane, dtype=np.float64), path]) for path in paths]


def _outline(layer: Labels, pixels: Any, value: int) -> npt.NDArray[np.float64]:
    """Outline of one cell in the (Y, X) pixels of a layer, (k, 2)."""
    from scipy.ndimage import binary_dilation
    from skimage.measure import find_contours

    y0, x0, y1, x1 = tag(layer)["boxes"][value]
    mask = np.asarray(pixels[y0:y1, x0:x1]) == value
    margin = 1 + layers.outline_width(layer)
    grown = binary_dilation(np.pad(mask, margin + 1), iterations=margin)
    path = max(find_contours(grown.astype(np.float32), 0.5), key=len)
    corner = np.array([y0, x0]) - margin - 1
    return np.asarray(path[:: -(-len(path) // CORNERS)] + corner, dtype=np.float64)
