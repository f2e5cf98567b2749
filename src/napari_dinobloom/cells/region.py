"""Where in a picture cells are sought: a coarse grid of yes and no, and what light and stain look like there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bool = NDArray[np.bool_]
Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Part of a picture in which cells are sought.

    Attributes
    ----------
    wanted : numpy.ndarray
        (h, w) bool, one a square of the picture.
    side : float
        Side of a square in pixels of the picture.
    sample : numpy.ndarray
        (Y, X, 3) uint8: enough of the region to see its light and its stain.
    """

    wanted: Bool
    side: float
    sample: Image

    @property
    def key(self) -> str:
        """Changes whenever the region does."""
        return hashlib.sha256(repr((self.wanted.shape, self.side)).encode() + self.wanted.tobytes()).hexdigest()[:16]

    def holds(self, y: float, x: float) -> bool:
        """Whether a point of the picture, in pixels, lies in the region."""
        row, column = int(y / self.side), int(x / self.side)
        return bool(self.wanted[min(row, self.wanted.shape[0] - 1), min(column, self.wanted.shape[1] - 1)])

    def touches(self, y0: float, x0: float, y1: float, x1: float) -> bool:
        """Whether a rectangle of the picture, in pixels, has any part in the region."""
        rows = slice(max(int(y0 / self.side), 0), max(int(np.ceil(y1 / self.side)), 0))
        columns = slice(max(int(x0 / self.side), 0), max(int(np.ceil(x1 / self.side)), 0))
        return bool(self.wanted[rows, columns].any())
