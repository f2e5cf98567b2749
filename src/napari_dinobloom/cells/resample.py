"""Windows of a picture resized to squares: Pillow's resampling, bit for bit, and faster where there are many.

Owns the three kernels, all antialiased. Pillow defines the result (``ImagingResample``, libImaging/Resample.c); the
same integer arithmetic, compiled for whole rows at a time, takes a third of its time. Only for square windows: in tall
ones some versions of Pillow sum columns before rows, which rounds otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

MANY = 256
"""Windows from which on it pays to load the compiler (half a second; a few seconds the first time)."""

REACH = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}
"""Interpolations, and how far their kernels reach in pixels of the result."""

BITS = 22
"""Binary places of Pillow's weights for 8-bit pixels."""

Image = NDArray[np.uint8]
Ints = NDArray[np.int32]
Floats = NDArray[np.float64]
Box = tuple[float, float, float, float]
_ROUND = np.int32(1 << (BITS - 1))


class Resampler:
    """Resizes windows to squares of one size.

    Parameters
    ----------
    size : int
        Side of the result in pixels.
    interpolation : str
        A key of `REACH`.
    many : bool
        Whether many windows will come, so that the compiled twin of Pillow's code is worth its loading.
    """

    def __init__(self, size: int, interpolation: str, *, many: bool) -> None:
        self._size, self._interpolation = size, interpolation
        self._compiled = _compiled() if many else None
        self._buffers: dict[int, tuple[Image, Image, Image, Ints]] = {}

    def resize(self, window: Image, box: Box, out: Image) -> None:
        """Resize a part of a window.

        Parameters
        ----------
        window : numpy.ndarray
            (h, w, 3) uint8.
        box : tuple of float
            Left, top, right, bottom of the part, pixels within the window.
        out : numpy.ndarray
            (size, size, 3) uint8, contiguous; is overwritten.
        """
        size = self._size
        if self._compiled is None or window.shape[0] != window.shape[1]:
            way = Pillow.Resampling[self._interpolation.upper()]
            out[...] = np.asarray(Pillow.fromarray(np.ascontiguousarray(window)).resize((size, size), way, box=box))
            return
        turn, weigh = self._compiled
        window = np.require(window, requirements=["C", "W"])
        side = len(window)
        turned, narrow, back, total = self._scratch(side)
        turn(window.reshape(side, -1), turned)
        weigh(turned, *_weights(box[0], box[2], side, size, self._interpolation), total, narrow)
        turn(narrow, back)
        weigh(back, *_weights(box[1], box[3], side, size, self._interpolation), total, out.reshape(size, -1))

    def _scratch(self, side: int) -> tuple[Image, Image, Image, Ints]:
        """Buffers for windows of one size; those of the last few sizes are kept."""
        if side not in self._buffers:
            if len(self._buffers) > 4:
                self._buffers.clear()
            turned, narrow, back = (
                np.empty(shape, np.uint8)
                for shape in ((side, 3 * side), (self._size, 3 * side), (side, 3 * self._size))
            )
            self._buffers[side] = (turned, narrow, back, np.empty(3 * max(side, self._size), np.int32))
        return self._buffers[side]


@lru_cache(maxsize=512)
def _weights(start: float, stop: float, length: int, size: int, interpolation: str) -> tuple[Ints, Ints]:
    """First pixel (size,) and weights (size, taps) of each result pixel along one axis of `length` pixels.

    As Pillow's ``precompute_coeffs`` and ``normalize_coeffs_8bpc``: the ends of the part are 32-bit floating point.
    """
    left, right = np.float32(start), np.float32(stop)
    scale = float(np.float32(right - left)) / size
    stretch = max(scale, 1.0)
    reach = REACH[interpolation] * stretch
    centre = float(left) + (np.arange(size) + 0.5) * scale
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + reach + 0.5).astype(np.int64), length)
    taps = int((end - first).max())
    start_at = np.minimum(first, length - taps)
    pixel = start_at[:, None] + np.arange(taps)
    weight = _kernel((pixel - centre[:, None] + 0.5) / stretch, interpolation)
    weight[(pixel < first[:, None]) | (pixel >= end[:, None])] = 0.0
    weight /= weight.sum(axis=1, keepdims=True)
    whole = np.trunc(weight * (1 << BITS) + np.copysign(0.5, weight)).astype(np.int32)
    return start_at.astype(np.int32), whole


def _kernel(x: Floats, interpolation: str) -> Floats:
    """Value of a kernel at distance `x`, in pixels of the result."""
    x = np.abs(x)
    if interpolation == "bilinear":
        return np.maximum(1.0 - x, 0.0)
    if interpolation == "bicubic":  # a = -0.5
        inner, outer = (1.5 * x - 2.5) * x * x + 1.0, (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
        return np.where(x < 1.0, inner, np.where(x < 2.0, outer, 0.0))
    return np.where(x < 3.0, np.sinc(x) * np.sinc(x / 3.0), 0.0)


@cache
def _compiled() -> tuple[Callable[..., None], Callable[..., None]]:
    """`_turn` and `_weigh` as machine code, kept on the disk where that is possible."""
    from numba import njit

    pixels = "uint8[:,::1]"
    types = (f"void({pixels},{pixels})", f"void({pixels},int32[::1],int32[:,::1],int32[::1],{pixels})")

    def build(keep: bool) -> Any:
        pairs = zip((_turn, _weigh), types, strict=True)
        return tuple(njit(kind, nogil=True, cache=keep)(function) for function, kind in pairs)

    try:
        turn, weigh = build(keep=True)
    except (OSError, RuntimeError):  # neither the package's folder nor the user's can be written, or the disk is full
        turn, weigh = build(keep=False)
    return turn, weigh


def _turn(rows: Image, columns: Image) -> None:
    """Turn a picture (Y, 3 X) into (X, 3 Y), so that a pixel's neighbours along the other axis are rows, too."""
    height, width = rows.shape[0], rows.shape[1] // 3
    for y in range(height):
        for x in range(width):
            columns[x, 3 * y] = rows[y, 3 * x]
            columns[x, 3 * y + 1] = rows[y, 3 * x + 1]
            columns[x, 3 * y + 2] = rows[y, 3 * x + 2]


def _weigh(rows: Image, first: Ints, weights: Ints, total: Ints, out: Image) -> None:
    """Each row of `out` is a weighted sum of rows; all casts say that 32 bits suffice, else no two are done at once."""
    width = rows.shape[1]
    for i in range(len(first)):
        for j in range(width):
            total[j] = _ROUND
        for k in range(weights.shape[1]):
            weight = weights[i, k]
            if weight != 0:
                y = first[i] + k
                for j in range(width):
                    total[j] = np.int32(total[j] + np.int32(np.int32(rows[y, j]) * weight))
        for j in range(width):
            out[i, j] = np.uint8(min(max(np.int32(total[j] >> BITS), np.int32(0)), np.int32(255)))
