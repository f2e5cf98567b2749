"""The other white cells in a crop, painted over with the field's background so that only one cell is seen.

Owns what counts as another cell (its mask; red cells have none and stay) and how it goes: background colour inside the
mask, fading over a narrow edge outside, and never over the crop's own cell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.io.celltable import split_cell_id
from napari_dinobloom.io.masks import FieldMasks

EDGE = 1 / 150
"""Width of the soft edge as a share of the window's side: 0.17 um of 25."""

Image = NDArray[np.uint8]
Bool = NDArray[np.bool_]


class Neighbours:
    """Other cells around the cells of one field.

    Parameters
    ----------
    table : pandas.DataFrame
        The cells to be cropped; ``cell_id`` or whole-numbered ``label`` says which mask is whose, else their order.
    masks : FieldMasks
        All cells of the field.

    Raises
    ------
    ValueError
        If the table does not tell whose mask is whose.
    """

    def __init__(self, table: pd.DataFrame, masks: FieldMasks) -> None:
        self._masks, self._own = masks, _own_masks(table, masks)

    def paint(self, row: int, part: Image, top: int, left: int, colour: Callable[[], NDArray[np.float32]]) -> Image:
        """Give a part of the picture without the other cells.

        Parameters
        ----------
        row : int
            Row of the table whose cell is to stay.
        part : numpy.ndarray
            (h, w, 3) uint8; is not changed.
        top, left : int
            Where it lies in the picture.
        colour : callable
            Gives the field's background colour, (3,) in 0..255; called only where there is another cell.

        Returns
        -------
        numpy.ndarray
            (h, w, 3) uint8; `part` itself where no other cell is in it.
        """
        from scipy import ndimage as ndi

        own = int(self._own[row])
        size = (part.shape[0], part.shape[1])
        others = [mask for mask in self._near(top, left, *size) if mask != own]
        if not others:
            return part
        cover = np.zeros(size, bool)
        for mask in others:
            self._draw(mask, cover, top, left)
        faded = 2 * ndi.gaussian_filter(cover.astype(np.float32), max(1.0, EDGE * max(size)))
        faded = np.where(cover, 1.0, np.minimum(faded, 1.0))
        if own >= 0:
            stays = np.zeros(size, bool)
            self._draw(own, stays, top, left)
            faded[stays] = 0.0
        mixed = part + faded[..., None] * (colour() - part.astype(np.float32))
        return np.round(mixed).astype(np.uint8)

    def signature(self, row: int, window: NDArray[np.float64]) -> str:
        """Hash of all masks that are seen in a window (centre y and x, height and width), or nearly."""
        y, x, side, _ = (int(v) for v in window)
        reach = int(np.ceil(side * 0.6)) + 8
        digest, own = hashlib.sha256(), int(self._own[row])
        near = self._near(y - reach, x - reach, 2 * reach, 2 * reach)
        for mask in sorted(near, key=lambda m: self._masks.boxes[m].tolist()):  # wherever they stand in the list
            digest.update(b"own" if mask == own else b"other")
            digest.update(self._masks.boxes[mask].astype("<i4").tobytes())
            digest.update(np.packbits(self._masks.cells[mask]).tobytes())
        return digest.hexdigest()[:16]

    def _near(self, top: int, left: int, height: int, width: int) -> list[int]:
        """Masks whose box meets a rectangle."""
        boxes = self._masks.boxes
        meets = (boxes[:, 0] < top + height) & (boxes[:, 2] > top) & (boxes[:, 1] < left + width) & (boxes[:, 3] > left)
        return [int(mask) for mask in np.flatnonzero(meets)]

    def _draw(self, mask: int, on: Bool, top: int, left: int) -> None:
        """Set the pixels of a mask in a part of the picture."""
        y0, x0, y1, x1 = (int(v) for v in self._masks.boxes[mask])
        a, b = max(y0, top), min(y1, top + on.shape[0])
        c, d = max(x0, left), min(x1, left + on.shape[1])
        if a < b and c < d:
            on[a - top : b - top, c - left : d - left] |= self._masks.cells[mask][a - y0 : b - y0, c - x0 : d - x0]


def signatures(table: pd.DataFrame, masks: FieldMasks, windows: NDArray[np.float64]) -> list[str]:
    """Hash of what each row's crop shows of the masks; equal hashes mean equal crops of an equal picture.

    Parameters
    ----------
    table, masks
        As in `Neighbours`.
    windows : numpy.ndarray
        (n, 4): y and x of the centre, height and width of each crop, in pixels.
    """
    cells = Neighbours(table, masks)
    return [cells.signature(row, window) for row, window in enumerate(windows)]


def _own_masks(table: pd.DataFrame, masks: FieldMasks) -> NDArray[np.intp]:
    """Index of each row's mask, -1 for a cell that has none (any more)."""
    if "cell_id" in table.columns:
        numbers = [split_cell_id(str(text))[1] for text in table["cell_id"]]
    elif "label" in table.columns and pd.api.types.is_integer_dtype(table["label"]):
        numbers = table["label"].tolist()
    elif len(table) == len(masks):
        return np.arange(len(masks))
    else:
        raise ValueError(
            f"{len(table)} cells but {len(masks)} masks, and the table has neither cell_id nor label: give the masks "
            "of these cells in their order, or a table with the column label"
        )
    place = {int(number): index for index, number in enumerate(masks.numbers)}
    return np.asarray([place.get(int(number), -1) for number in numbers], np.intp)
