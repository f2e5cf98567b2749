"""Parts of a field by their place, also of a field that lies on the disk; beyond its border the picture is mirrored.

A lazy picture (dask, zarr) is read in blocks along its own chunks. Cells are taken block by block and the blocks of the
neighbourhood are kept for a while, so that each is decoded about once, and the whole picture is never in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 1024
"""Smallest side of a block in pixels; smaller chunks are read together."""

KEPT_BYTES = 256 * 2**20
"""Memory for blocks: two rows of ten blocks of 2048 x 2048 pixels."""

KEPT_LEAST = 4
"""Blocks that are kept however large they are: as many as meet at a corner."""

Image = NDArray[np.uint8]
Places = NDArray[np.intp]


class Parts:
    """The parts of a field, read when they are asked for.

    Parameters
    ----------
    image : array
        (Y, X, 3) uint8: NumPy, dask, zarr or anything else that is sliced as they are.
    """

    def __init__(self, image: Any) -> None:
        self._image = image
        self.height, self.width = int(image.shape[0]), int(image.shape[1])
        self._lazy = not isinstance(image, np.ndarray)
        if self._lazy:
            self._rows, self._columns = (_edges(image, axis) for axis in (0, 1))
            largest = int(np.diff(self._rows).max() * np.diff(self._columns).max()) * 3
            read = partial(_read, image, self._rows, self._columns)  # not a method: no cycle, so that blocks go with us
            self._block = lru_cache(maxsize=max(KEPT_LEAST, KEPT_BYTES // largest))(read)

    def order(self, y: NDArray[np.float64], x: NDArray[np.float64]) -> Places:
        """Order in which windows around these centres are best cut: as given; of a lazy picture block after block."""
        if not self._lazy:
            return np.arange(len(y))
        column = np.searchsorted(self._columns, x, side="right")
        return np.lexsort((column, np.searchsorted(self._rows, y, side="right")))

    def part(self, top: int, left: int, height: int, width: int) -> Image:
        """Pixels of a rectangle within the picture, (height, width, 3) uint8; not to be written to."""
        bottom, right = top + height, left + width
        if not self._lazy:
            inside: Image = self._image[top:bottom, left:right]
            return inside
        rows = _span(self._rows, top, bottom)
        columns = _span(self._columns, left, right)
        if len(rows) == len(columns) == 1:
            y, x = int(self._rows[rows[0]]), int(self._columns[columns[0]])
            return self._block(rows[0], columns[0])[top - y : bottom - y, left - x : right - x]
        part = np.empty((height, width, 3), np.uint8)
        for i in rows:
            for j in columns:
                block, y, x = self._block(i, j), int(self._rows[i]), int(self._columns[j])
                y0, x0 = max(top, y), max(left, x)
                y1, x1 = min(bottom, y + block.shape[0]), min(right, x + block.shape[1])
                part[y0 - top : y1 - top, x0 - left : x1 - left] = block[y0 - y : y1 - y, x0 - x : x1 - x]
        return part


def iter_blocks(image: Any) -> Iterator[tuple[int, int, Image]]:
    """Each block of a field with the row and column of its upper left pixel, row by row; each is read once."""
    rows, columns = (_edges(image, axis) for axis in (0, 1))
    for row, column in product(range(len(rows) - 1), range(len(columns) - 1)):
        yield int(rows[row]), int(columns[column]), _read(image, rows, columns, row, column)


def _read(image: Any, rows: NDArray[np.int64], columns: NDArray[np.int64], row: int, column: int) -> Image:
    """Read one block."""
    y0, y1 = rows[row : row + 2]
    x0, x1 = columns[column : column + 2]
    return np.asarray(image[int(y0) : int(y1), int(x0) : int(x1)])


def mirror(start: int, length: int, size: int) -> NDArray[np.int64]:
    """Indices start .. start + length - 1 folded into 0 .. size - 1, however far outside (numpy's ``symmetric``)."""
    index = np.arange(start, start + length) % (2 * size)
    return np.where(index < size, index, 2 * size - 1 - index)


def _edges(image: Any, axis: int) -> NDArray[np.int64]:
    """Edges of the blocks along an axis: every edge of a chunk that is at least `BLOCK` behind the last."""
    size = int(image.shape[axis])
    chunks = getattr(image, "chunks", None)
    kind = chunks[axis] if chunks else 2 * BLOCK  # dask gives the length of each chunk, zarr that of all
    ends = np.cumsum(kind) if isinstance(kind, tuple) else np.arange(1, size // int(kind) + 1) * int(kind)
    edges = [0]
    for end in ends.tolist():
        if end - edges[-1] >= BLOCK and end < size:
            edges.append(int(end))
    return np.asarray([*edges, size], np.int64)


def _span(edges: NDArray[np.int64], start: int, stop: int) -> range:
    """Blocks that a stretch of pixels lies in."""
    first = int(np.searchsorted(edges, start, side="right")) - 1
    return range(first, int(np.searchsorted(edges, stop, side="left")))
