"""A picture of how densely cells lie, for maps with more of them than can be drawn one by one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Rect = tuple[float, float, float, float]
"""x0, y0, x1, y1 in the units of the axes."""

FAINTEST = 0.25
"""Opacity of a pixel with one cell; the densest one is opaque."""


def density(
    positions: Float32, codes: npt.NDArray[np.uint16], table: Float32, rect: Rect, shape: tuple[int, int]
) -> Float32:
    """Draw cells as densities in the mean colour of those in each pixel.

    Parameters
    ----------
    positions : ndarray (n, 2) float32
        x and y; cells outside of `rect` or without a place are left out.
    codes : ndarray (n,) uint16
        Entry of `table` for each cell; cells whose entry has no opacity are left out.
    table : ndarray (k, 4) float32
        RGBA, 0 to 1.
    rect : tuple
        x0, y0, x1, y1 of the picture.
    shape : (int, int)
        Rows and columns; row 0 is at y0.

    Returns
    -------
    ndarray (rows, columns, 4) float32
        RGBA; the opacity grows with the logarithm of the number of cells.
    """
    rows, columns = shape
    x0, y0, x1, y1 = rect
    seen = table[:, 3] > 0
    with np.errstate(invalid="ignore"):
        column = (positions[:, 0] - np.float32(x0)) * np.float32(columns / (x1 - x0))
        row = (positions[:, 1] - np.float32(y0)) * np.float32(rows / (y1 - y0))
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    if not seen.all():
        inside &= seen[codes]
    place = row[inside].astype(np.int32) * columns + column[inside].astype(np.int32)
    # Cells of each colour in each pixel, then their colours: one pass over the cells, whatever the number of channels.
    entries = len(table)
    joint = np.bincount(place.astype(np.int64) * entries + codes[inside]) if entries <= 64 else None
    size = rows * columns
    if joint is not None:
        by_code = np.pad(joint, (0, size * entries - len(joint))).reshape(size, entries)
        counts = by_code.sum(axis=1)
        sums = by_code.astype(np.float32) @ table[:, :3]
    else:
        counts = np.bincount(place, minlength=size)
        picked = table[codes[inside], :3]
        sums = np.column_stack([np.bincount(place, weights=picked[:, i], minlength=size) for i in range(3)])
    picture = np.zeros((size, 4), dtype=np.float32)
    there = counts > 0
    if there.any():
        picture[there, :3] = sums[there] / counts[there, None]
        most = np.log1p(counts.max())
        picture[there, 3] = FAINTEST + (1 - FAINTEST) * np.log1p(counts[there]) / most
    return picture.reshape(rows, columns, 4)
