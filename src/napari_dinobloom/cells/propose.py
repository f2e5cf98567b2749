"""Proposed outlines of a single cell that a person points at.

For now plain figures: a disc around a click, the ellipse in a box; neither looks at the picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_dinobloom.io.masks import FieldMasks

RADIUS_UM = 6.0
"""Radius of the disc: that of a small white cell."""


def cell_at(image: Any, point: tuple[float, float], pixel_size_um: float) -> FieldMasks:
    """Propose the cell around a point.

    Parameters
    ----------
    image : array
        (Y, X, 3) uint8, NumPy or lazy.
    point : (float, float)
        y and x in pixels, inside the picture.
    pixel_size_um : float
        Micrometres a pixel.

    Returns
    -------
    FieldMasks
        One cell with number 1, without a nucleus.
    """
    radius = RADIUS_UM / pixel_size_um
    y, x = point
    return _ellipse(image, (y - radius, x - radius, y + radius + 1, x + radius + 1))


def cell_in_box(image: Any, box: tuple[float, float, float, float], pixel_size_um: float) -> FieldMasks:
    """Propose the cell in a box.

    Parameters
    ----------
    image : array
        (Y, X, 3) uint8, NumPy or lazy.
    box : 4 floats
        y0, x0, y1, x1 in pixels, half-open, inside the picture.
    pixel_size_um : float
        Micrometres a pixel.

    Returns
    -------
    FieldMasks
        One cell with number 1, without a nucleus.
    """
    return _ellipse(image, box)


def _ellipse(image: Any, box: tuple[float, float, float, float]) -> FieldMasks:
    """Return the ellipse that touches the sides of a box, cut off at the picture's border."""
    y0, x0, y1, x1 = box
    top, left = max(0, int(np.floor(y0))), max(0, int(np.floor(x0)))
    bottom, right = min(int(image.shape[0]), int(np.ceil(y1))), min(int(image.shape[1]), int(np.ceil(x1)))
    rows, columns = np.mgrid[top:bottom, left:right]
    high, wide = max(y1 - y0, 1.0) / 2, max(x1 - x0, 1.0) / 2
    disc = ((rows + 0.5 - y0 - high) / high) ** 2 + ((columns + 0.5 - x0 - wide) / wide) ** 2 <= 1
    boxes = np.asarray([[top, left, bottom, right]], np.int32)
    return FieldMasks(boxes, np.asarray([1], np.int32), [disc], [np.zeros_like(disc)])
