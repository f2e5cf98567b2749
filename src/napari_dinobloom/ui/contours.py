"""The outlines of cells in a label image, as napari draws them and some times faster.

napari looks through all pixels of a plane with two filters of SciPy whenever another plane comes into sight or a cell
is deleted: 0.1 s for 2400 x 3200 pixels, in which no window is drawn. Comparing the image with itself, moved by a
pixel, gives the same outlines in a sixth of that time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Labels

Pixels = npt.NDArray[np.integer[Any]]
Slices = tuple[slice, ...]

_STEPS = (
    ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
    ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
)
"""Pixels and their neighbours above, then to the left."""


def contours(labels: Pixels, thickness: int, background: int = 0) -> Pixels:
    """Keep of a label image the outlines alone.

    Parameters
    ----------
    labels : (Y, X) integer array
        Label of each pixel.
    thickness : int
        How far outlines reach inwards, 1 or more.
    background : int
        Value of all other pixels.

    Returns
    -------
    (Y, X) integer array
        As ``napari.layers.labels._labels_utils.get_contours`` has it: pixels that touch a greater label by a side, and
        those with a smaller one within `thickness` steps.
    """
    edge = np.zeros(labels.shape, dtype=bool)
    for here, there in _STEPS:
        unlike = labels[here] != labels[there]
        edge[here] |= unlike
        edge[there] |= unlike
    if thickness > 1:
        least = labels
        for _ in range(thickness):
            least = _least_around(least)
        edge |= least < labels
    return np.where(edge, labels, labels.dtype.type(background))


def _least_around(labels: Pixels) -> Pixels:
    """The least label of each pixel and those that touch it by a side."""
    least = labels.copy()
    for here, there in _STEPS:
        np.minimum(least[here], labels[there], out=least[here])
        np.minimum(least[there], labels[here], out=least[there])
    return least


def draw_by(layer: Labels) -> None:
    """Have a layer drawn by `contours`; a napari that works otherwise inside draws it by itself, as ever."""
    layer = getattr(layer, "__wrapped__", layer)  # what a plugin gets is a proxy
    usual = getattr(layer, "_calculate_contour", None)
    if usual is None or "_calculate_contour" in vars(layer):
        return

    def quick(labels: Pixels, within: Slices) -> Pixels | None:
        width = int(layer.contour)
        if labels.ndim != 2 or width < 1:
            return usual(labels, within)  # type: ignore[no-any-return]
        around = tuple(
            slice(max(0, one.start - width), min(size, one.stop + width))
            for one, size in zip(within, labels.shape, strict=True)
        )
        inner = tuple(slice(w.start - a.start, w.stop - a.start) for w, a in zip(within, around, strict=True))
        return contours(labels[around], width, layer.colormap.background_value)[inner]

    layer._calculate_contour = quick
