"""A cell layer after an act of a person: only the window around the cells that changed is drawn anew.

napari needs 0.3 s to take a whole new label image of 4096 x 4096; a window of a few cells takes 1 ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Labels

from napari_dinobloom.cells.correct import within
from napari_dinobloom.io.masks import FieldMasks
from napari_dinobloom.io.study import Study
from napari_dinobloom.ui import layers
from napari_dinobloom.ui.cell_rows import cell_rows
from napari_dinobloom.ui.images import TAG, tag

Box = tuple[int, ...]
Boxes = npt.NDArray[np.int32]

UNDO_KEYS = ("Control-Z", "Control-Shift-Z")
"""Keys with which napari takes back what was painted in a layer."""


def cell_layers(viewer: Any, study: Study | None) -> list[Labels]:
    """The cell layers of a study in a viewer, the topmost first; none without study or viewer."""
    if study is None or viewer is None:
        return []
    marks = {"role": "cells", "study": str(study.path)}
    found = [layer for layer in reversed(viewer.layers) if marks.items() <= tag(layer).items()]
    return [getattr(layer, "__wrapped__", layer) for layer in found]


def update(layer: Labels, study: Study, touched: Iterable[str] = ()) -> None:
    """Show in one of our cell layers what its study holds now.

    Parameters
    ----------
    layer : Labels
        A cell layer of `study`.
    study : Study
        Open; may have been changed by one act or many.
    touched : iterable of str
        Cells whose outline may have changed within the same box. Cells that came, went or have another box are found
        by themselves. Where there is none of all these, the layer keeps its very array of boxes, see `same_shapes`.
    """
    mark = tag(layer)
    fields, specimen = mark["fields"], study.specimen
    now = cell_rows(study, fields, specimen)
    windows = _changed(mark["boxes"], now.boxes, layers.values_of(layer, [*touched]))
    lazy = layer.ndim == 3 or layer.multiscale
    if (lazy and windows) or now.dtype.itemsize > layer.dtype.itemsize:
        # In a stack a new number moves those of later planes; pixels of stacks and slides are lazy and cheap to build.
        layers.take(layer, layers.layer_of(study, fields, now, name="", stack=layer.ndim == 3))
        return
    layer.features = now.features
    layers.recolour(layer, now.names, study.palette)
    if windows:
        layer.metadata = {**layer.metadata, TAG: {**mark, "boxes": now.boxes, "width": layers.width_of(now.boxes)}}
        _repaint(layer, study.masks(fields[0]), windows)


def shapes_of(viewer: Any) -> list[Boxes]:
    """What tells whether the cell layers of a viewer show other outlines than before; compare by `same_shapes`."""
    return [tag(layer)["boxes"] for layer in viewer.layers if tag(layer).get("role") == "cells"]


def same_shapes(before: Sequence[Boxes], now: Sequence[Boxes]) -> bool:
    """Whether no cell layer came, went or was drawn anew between two calls of `shapes_of`."""
    return len(before) == len(now) and all(one is other for one, other in zip(before, now, strict=True))


def _changed(before: Boxes, now: Boxes, touched: npt.NDArray[np.int64]) -> list[Box]:
    """Boxes around all that came, went, moved or was touched, as it was and as it is."""
    both = np.zeros((2, max(len(before), len(now)), 4), dtype=np.int32)
    both[0, : len(before)], both[1, : len(now)] = before, now
    other = (both[0] != both[1]).any(axis=1)
    other[touched] = True
    found = both[:, other].reshape(-1, 4)
    return [(y0, x0, y1, x1) for y0, x0, y1, x1 in np.unique(found, axis=0).tolist() if y0 < y1]


def _repaint(layer: Labels, masks: FieldMasks, windows: Sequence[Box]) -> None:
    """Draw the cells in some windows of a (Y, X) layer; nothing outside of them changes."""
    height, width = layer.data.shape
    rows, columns, values = [], [], []
    for y0, x0, y1, x1 in windows:
        y0, x0, y1, x1 = max(y0, 0), max(x0, 0), min(y1, height), min(x1, width)
        if y0 < y1 and x0 < x1:
            yy, xx = np.mgrid[y0:y1, x0:x1]
            rows.append(yy.ravel())
            columns.append(xx.ravel())
            values.append(within(masks, (y0, x0, y1, x1)).ravel())
    if rows:
        where = (np.concatenate(rows), np.concatenate(columns))
        layer.data_setitem(where, np.concatenate(values).astype(layer.dtype))
        for key in UNDO_KEYS:  # napari remembers what was set; but acts are taken back in the study, not in the pixels
            layer.bind_key(key, _nothing, overwrite=True)


def _nothing(_layer: Labels) -> None:
    """A key binding that does nothing."""
