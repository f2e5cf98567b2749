"""Pictures that are read region by region when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import dask.array as da

CHUNK = 2048
"""Side of the regions that are read at once, in pixels; rounded up to whole tiles or strips of the file."""

SCREEN = 4096
"""A side that a graphics card takes in one piece, in pixels."""

ReadRegion = Callable[[int, int, int, int], NDArray[np.uint8]]
"""Reads pixels ``[y0:y1, x0:x1]`` of a picture, given y0, y1, x0, x1, as (y1 - y0, x1 - x0, 3) uint8."""


def lazy_picture(read: ReadRegion, size: tuple[int, int], tile: tuple[int, int] = (1, 1)) -> da.Array:
    """Give a lazy (Y, X, 3) uint8 array whose regions are whole tiles, about 2048 pixels a side.

    Parameters
    ----------
    read : callable
        Reads a region. It is pickled where the regions are read in other processes.
    size : (int, int)
        Height and width of the picture in pixels.
    tile : (int, int)
        Height and width of what the file can give at least.
    """
    import dask.array as da

    rows, columns = (_split(n, max(1, math.ceil(CHUNK / side)) * side) for n, side in zip(size, tile, strict=True))
    block = partial(_read_block, read=read)
    image: da.Array = da.map_blocks(
        block, chunks=(rows, columns, (3,)), dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)
    )
    return image


def pyramid(levels: Sequence[Any]) -> list[Any]:
    """Give levels of a picture of which the coarsest fits a screen: those that there are, then every fourth pixel.

    Parameters
    ----------
    levels : sequence of array
        (Y, X, ...) each, the finest first.
    """
    found = list(levels)
    while max(found[-1].shape[:2]) > SCREEN:
        found.append(found[-1][::4, ::4])
    return found


def _read_block(read: ReadRegion, block_info: Any = None) -> NDArray[np.uint8]:
    """Read the region that dask asks for."""
    (y0, y1), (x0, x1), _ = block_info[None]["array-location"]
    return read(y0, y1, x0, x1)


def _split(length: int, step: int) -> tuple[int, ...]:
    """Cut `length` into pieces of `step` and a rest."""
    whole, rest = divmod(length, step)
    return (step,) * whole + ((rest,) if rest else ())
