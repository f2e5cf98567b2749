"""The layers that we add: cells outlined in the colour of their class, and the outline of the selected cell.

Pixels of the cell layer hold the number of the cell, the colour map is a lookup table from number to colour. So a cell
under the pointer has an identity, napari's features table and status bar show its row, and new colours mean a new
table of at most 65,536 entries and no new pixels (`recolour`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from napari.layers import Labels, Layer
from napari.utils.colormaps import CyclicLabelColormap, DirectLabelColormap

from napari_dinobloom.cells.segment import IN_MEMORY
from napari_dinobloom.cells.taxonomy import describe
from napari_dinobloom.io.lazylabels import lazy_labels
from napari_dinobloom.io.study import Study
from napari_dinobloom.report.counting import Specimen
from napari_dinobloom.ui import contours
from napari_dinobloom.ui.cell_rows import LOOKUP_LIMIT, CellRows, cell_rows
from napari_dinobloom.ui.images import TAG, tag
from napari_dinobloom.ui.preferences import preferences
from napari_dinobloom.ui.texts import text

LayerData = tuple[Any, dict[str, Any], str]

UNSEEN = "#00b8d4"
"""Colour of cells that have no class yet: far from the tints of stains and from the classes' colours."""

FADED = 0.35
"""Opacity of the outline of a cell that a person excluded."""


@dataclass(frozen=True, slots=True)
class CellInfo:
    """One cell as the features table of its layer has it.

    Attributes
    ----------
    cell_id : str
        Its id in the study.
    name : str
        Key of its class.
    confidence : float
        Share of the votes, 0 to 1; NaN where there is none.
    distance : float
        Distance to the nearest reference cell; NaN where there is none.
    author : str
        Who named it, empty when the classifier did.
    not_counted : str
        Why it does not count in the differential (``napari_dinobloom.report.counting.REASONS``);
        empty when it counts.
    """

    cell_id: str
    name: str
    confidence: float
    distance: float
    author: str
    not_counted: str

    def line(self) -> str:
        """One line for people."""
        parts = [text("cell.line", cell_id=self.cell_id, title=describe(self.name).title)]
        if self.author:
            parts.append(text("cell.by_hand", author=self.author))
        elif np.isfinite(self.confidence):
            parts.append(text("cell.confidence", confidence=self.confidence))
        if np.isfinite(self.distance):
            parts.append(text("cell.distance", distance=self.distance))
        if self.not_counted:
            parts.append(text("cell.not_counted", reason=self.not_counted))
        return " · ".join(parts)


def placement(layer: Layer, ndim: int) -> dict[str, Any]:
    """Scale, position and units of `layer` as keyword arguments for a layer over its last `ndim` axes."""
    affine = np.eye(ndim + 1)
    matrix = np.asarray(layer.affine.affine_matrix)
    affine[:ndim, :ndim] = matrix[-ndim - 1 : -1, -ndim - 1 : -1]
    affine[:ndim, -1] = matrix[-ndim - 1 : -1, -1]
    found: dict[str, Any] = {
        "scale": np.asarray(layer.scale)[-ndim:],
        "translate": np.asarray(layer.translate)[-ndim:],
        "units": tuple(layer.units[-ndim:]),
        "axis_labels": tuple(layer.axis_labels[-ndim:]),
        "affine": affine,
    }
    if layer.ndim == ndim:
        found |= {"rotate": np.asarray(layer.rotate), "shear": np.asarray(layer.shear)}
    return found


def lay_over(layer: Layer, other: Layer) -> None:
    """Put one of our layers where `other` lies, over the last axes that both have."""
    present = placement(layer, layer.ndim)
    for name, value in placement(other, layer.ndim).items():
        same = present[name] == value if isinstance(value, tuple) else np.array_equal(present[name], value)
        if not same:  # each change makes napari slice all layers again
            setattr(layer, name, value)


def cell_layer(
    study: Study, fields: Sequence[str], *, name: str, stack: bool, specimen: Specimen = "blood"
) -> LayerData:
    """Build the cell layer of some fields.

    Parameters
    ----------
    study : Study
        Where the cells are.
    fields : sequence of str
        Field ids; one plane each when `stack`, else a single one. An empty id is a plane without cells.
    name : str
        Name of the image, for the layer's name.
    stack : bool
        Whether to build (N, Y, X) labels for a stack; all fields must have the size of the first then.
    specimen : {"blood", "marrow"}
        Which cells count.

    Returns
    -------
    LayerData
        uint16 labels whose value is the cell's number, plus an offset per plane that makes it unique in a stack; int32
        beyond 65,535.
    """
    return layer_of(study, fields, cell_rows(study, fields, specimen), name=name, stack=stack)


def layer_of(study: Study, fields: Sequence[str], table: CellRows, *, name: str, stack: bool) -> LayerData:
    """Build the cell layer of some fields of which the cells are collected already, as `cell_layer`."""
    values = table.features["index"].to_numpy(dtype=np.int64)
    mark: dict[str, Any] = {"role": "cells", "study": str(study.path), "fields": tuple(fields)}
    mark |= {"boxes": table.boxes, "width": width_of(table.boxes)}
    meta = {
        "name": text("layer.cells", name=name),
        "features": table.features,
        "colormap": lookup(values, table.names, study.palette, faded(table.features)),
        "opacity": preferences().outline_opacity,
        "metadata": {TAG: mark},
    }
    return _pixels(study, fields, table.offsets, table.dtype, stack=stack), meta, "labels"


def _pixels(
    study: Study, fields: Sequence[str], offsets: Mapping[str, int], dtype: np.dtype[Any], *, stack: bool
) -> Any:
    """Label images of `fields`: one array, a lazy stack that draws what is looked at, or the levels of a slide."""
    sizes = {record.id: (record.height, record.width) for record in study.fields}
    shape = next(sizes[field] for field in fields if field)
    if not stack and shape[0] * shape[1] > IN_MEMORY:
        return lazy_labels(study.masks(fields[0]), shape, dtype)

    def plane(field: str) -> npt.NDArray[Any]:
        if not field:
            return np.zeros(shape, dtype)
        labels = study.labels(field)
        return np.where(labels > 0, labels + offsets[field], 0).astype(dtype)

    if not stack:
        return plane(fields[0])
    import dask.array as da
    from dask.delayed import delayed

    lazy = delayed(plane, pure=False)
    return da.stack([da.from_delayed(lazy(field), shape, dtype) for field in fields])


def lookup(
    values: npt.NDArray[np.int64],
    names: npt.ArrayLike,
    palette: Mapping[str, str],
    faded: npt.NDArray[np.bool_] | None = None,
) -> CyclicLabelColormap | DirectLabelColormap:
    """Colour map that gives each cell the colour of its class.

    Parameters
    ----------
    values : (n,) int array
        Label values, 1 or more.
    names : (n,) array-like of str
        Class of each; empty where it has none yet.
    palette : mapping of str to str
        ``#rrggbb`` by class; classes without an entry take that of the taxonomy.
    faded : (n,) bool array, optional
        Cells to be shown with little of their colour, as those that a person excluded.

    Returns
    -------
    CyclicLabelColormap
        One entry per value; values that are not named are transparent. Beyond 65,535 a `DirectLabelColormap`, which
        napari maps on the CPU (4.7 s for 80,000 cells).
    """
    codes, distinct = pd.factorize(np.asarray(names, dtype=object))
    named = [palette.get(name) or describe(name).colour if name else UNSEEN for name in distinct]
    each = np.array([_rgba(colour) for colour in named], dtype=np.float32)
    rgba = each.reshape(-1, 4)[codes]
    if faded is not None:
        rgba[faded, 3] = FADED
    top = int(values.max(initial=1))
    if top >= LOOKUP_LIMIT:
        colours: dict[int | None, npt.NDArray[np.float32]] = {None: np.zeros(4, np.float32)}
        colours |= {int(value): colour for value, colour in zip(values, rgba, strict=True)}
        return DirectLabelColormap(color_dict=colours)
    table = np.zeros((top + 1, 4), dtype=np.float32)
    table[values] = rgba
    return CyclicLabelColormap(colors=table)


def _rgba(colour: str) -> npt.NDArray[np.float32]:
    """``#rrggbb`` as four floats from 0 to 1."""
    return np.array([*(int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)), 1.0], dtype=np.float32)


def recolour(layer: Labels, names: npt.ArrayLike, palette: Mapping[str, str]) -> None:
    """Give the cells of one of our layers the colours of `names`, as for `lookup`, in the order of its features.

    With up to 16 bits a pixel the graphics card looks colours up by itself, so that a new table is enough (3 ms at
    4096 x 4096); a new colour map makes napari go through all pixels (320 ms).
    """
    features = layer.features
    _put_on(layer, lookup(features["index"].to_numpy(dtype=np.int64), names, palette, faded(features)))


def _put_on(layer: Labels, found: CyclicLabelColormap | DirectLabelColormap) -> None:
    """Give one of our layers another colour map, by its table alone where that is enough."""
    present = layer.colormap
    cyclic = isinstance(present, CyclicLabelColormap) and isinstance(found, CyclicLabelColormap)
    forget = getattr(present, "_clear_cache", None)  # napari keeps what it looked up and has no public way to drop it
    if not (cyclic and forget is not None and layer.dtype.itemsize < 4):
        layer.colormap = found
    elif not np.array_equal(present.colors, found.colors):
        present.colors = found.colors
        forget()
        layer.events.colormap()


def faded(features: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Which cells of a cell layer's features a person excluded."""
    if "not_counted" not in features:
        return np.zeros(len(features), dtype=bool)
    excluded: npt.NDArray[np.bool_] = (features["not_counted"] == "excluded").to_numpy(bool)
    return excluded


def outline_width(layer: Labels) -> int:
    """Width of the outlines of one of our cell layers, in pixels."""
    width: int = tag(layer)["width"]
    return width


def width_of(boxes: npt.NDArray[np.int32]) -> int:
    """Width of outlines in pixels: a thirtieth of a cell, so that it stays in sight, or as the preferences say."""
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
    if not sides.any():
        return 1
    side = float(np.median(sides[sides > 0]))
    return max(1, round(preferences().outline_width * side / 30))


def find(layers: Sequence[Layer], role: str, study: str, fields: Sequence[str] | None = None) -> Layer | None:
    """Our layer with this role for this study, and these fields if given; None when there is none."""
    for layer in layers:
        mark = tag(layer)
        same_fields = fields is None or tuple(mark.get("fields", ())) == tuple(fields)
        if mark.get("role") == role and mark.get("study") == study and same_fields:
            return layer
    return None


def show(viewer: Any, image: Layer, built: LayerData) -> Labels:
    """Put a built cell layer over `image`; an earlier one of ours for the same fields takes the new cells.

    The image stays the active layer. What the user set on our earlier layer (opacity, visibility) stays.
    """
    data, meta, _ = built
    mark = meta["metadata"][TAG]
    earlier = find(viewer.layers, "cells", mark["study"], mark["fields"])
    finest = data[0] if isinstance(data, list) else data
    if isinstance(earlier, Labels) and earlier.data.shape == finest.shape:
        layer = earlier
        take(layer, built)
    else:
        active = viewer.layers.selection.active
        layer = viewer.add_labels(data, **meta, **placement(image, finest.ndim))
        viewer.layers.selection.active = active
    outlined(layer)
    return layer


def outlined(layer: Labels) -> None:
    """Show the cells of one of our layers as outlines that napari's own tools leave alone."""
    contours.draw_by(layer)
    layer.contour = tag(layer).get("contour", outline_width(layer))  # as a person left it
    layer.editable = False


def take(layer: Labels, built: LayerData) -> None:
    """Give one of our cell layers the cells of a newly built one."""
    data, meta, _ = built
    layer.data = data
    layer.features = meta["features"]
    _put_on(layer, meta["colormap"])
    layer.metadata = {**layer.metadata, TAG: meta["metadata"][TAG]}
    layer.editable = False


def cell_under(layer: Labels, event: Any) -> int:
    """Label value of the cell of `layer` under a mouse event; 0 for none."""
    value = layer.get_value(
        event.position, view_direction=event.view_direction, dims_displayed=event.dims_displayed, world=True
    )
    if isinstance(value, tuple):  # multiscale: (level, value)
        value = value[1]
    return int(value) if value else 0


def info(layer: Labels, value: int) -> CellInfo | None:
    """The row of cell `value` in the features of one of our layers; None when it has none."""
    features = layer.features
    rows = np.flatnonzero(features["index"].to_numpy() == value)
    if not len(rows):
        return None
    row = features.iloc[rows[0]]
    return CellInfo(
        cell_id=str(row["cell_id"]),
        name=str(row["class"]),
        confidence=float(row["confidence"]),
        distance=float(row["distance"]),
        author=str(row["label_by"]),
        not_counted=str(row["not_counted"]),
    )


def value_of(layer: Labels, cell_id: str) -> int:
    """Label value of the cell `cell_id` in one of our layers; 0 when it is not there."""
    features = layer.features
    rows = np.flatnonzero(features["cell_id"].to_numpy() == cell_id)
    return int(features["index"].iloc[rows[0]]) if len(rows) else 0


def values_of(layer: Labels, cell_ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """Label values of some cells in one of our layers, (n,); 0 for those that are not there."""
    features = layer.features
    rows = pd.Index(features["cell_id"].to_numpy()).get_indexer(pd.Index(list(cell_ids), dtype=object))
    values = features["index"].to_numpy(dtype=np.int64)
    return np.where(rows >= 0, values[rows], 0) if len(values) else np.zeros(len(rows), np.int64)


def shown(present: Any, cell_id: str) -> tuple[Labels, int] | None:
    """The topmost cell layer that shows a cell, and its label value there; None when none does."""
    if cell_id:
        for layer in reversed(present):
            if tag(layer).get("role") == "cells":
                value = value_of(layer, cell_id)
                if value:
                    return getattr(layer, "__wrapped__", layer), value
    return None
