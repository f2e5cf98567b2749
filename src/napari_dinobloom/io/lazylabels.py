"""Label images of large pictures that are drawn where they are looked at, at every level; nothing is stored."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_dinobloom.io.lazy import SCREEN
from napari_dinobloom.io.masks import FieldMasks

CHUNK = 1024
"""Side of what is drawn in one go, in pixels."""


def lazy_labels(masks: FieldMasks, shape: tuple[int, int], dtype: npt.DTypeLike = np.int32) -> list[Any]:
    """Give the levels of the label image of a picture.

    Parameters
    ----------
    masks : FieldMasks
        Bitmaps; where two overlap the later one is seen, as in `napari_dinobloom.io.masks.draw`.
    shape : (int, int)
        Height and width of the picture in pixels.
    dtype : dtype
        Of the labels, integer.

    Returns
    -------
    list of dask.array.Array
        (Y, X) each, the finest first; a level holds every fourth pixel of the one before, down to `lazy.SCREEN`.
    """
    import dask.array as da

    levels, step = [], 1
    while True:
        size = tuple(-(-n // step) for n in shape)
        chunks = tuple((CHUNK,) * (n // CHUNK) + ((n % CHUNK,) if n % CHUNK else ()) for n in size)
        block = partial(_draw, masks=masks, step=step, dtype=dtype)
        levels.append(da.map_blocks(block, chunks=chunks, dtype=dtype, meta=np.empty((0, 0), dtype)))
        if max(size) <= SCREEN:
            return levels
        step *= 4


def _draw(masks: FieldMasks, step: int, dtype: npt.DTypeLike, block_info: Any = None) -> npt.NDArray[Any]:
    """Draw a block of a level, whose pixels are those of the picture at multiples of `step`."""
    (y0, y1), (x0, x1) = block_info[None]["array-location"]
    block = np.zeros((y1 - y0, x1 - x0), dtype)
    boxes = -(-masks.boxes // step)  # first and one behind the last row and column of the level in a box
    near = (boxes[:, :2] < (y1, x1)).all(axis=1) & (boxes[:, 2:] > (y0, x0)).all(axis=1)
    for row in np.flatnonzero(near).tolist():
        top, left, bottom, right = boxes[row].tolist()
        first, start = max(top, y0), max(left, x0)
        corner = masks.boxes[row]
        inner = masks.cells[row][first * step - int(corner[0]) :: step, start * step - int(corner[1]) :: step]
        window = block[first - y0 : bottom - y0, start - x0 : right - x0]
        window[inner[: window.shape[0], : window.shape[1]]] = masks.numbers[row]
    return block
