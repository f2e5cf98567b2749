"""Masks of cells and nuclei: one bitmap a cell in its box, packed into one ``.npz`` without pickle.

Label images are drawn on demand; the value of a pixel is the number in the cell's id.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.atomic import disk_errors, replacing

Bitmap = NDArray[np.bool_]

_KEYS = ("boxes", "numbers", "cells", "nuclei", "table", "key")
_MAX_BYTES = 1 << 31


@dataclass(frozen=True, slots=True)
class FieldMasks:
    """Bitmaps of the cells of one field.

    Attributes
    ----------
    boxes : ndarray
        (n, 4) int32: y0, x0, y1, x1 in pixels, half-open.
    numbers : ndarray
        (n,) int32: the number in each cell's id.
    cells, nuclei : list of ndarray
        n arrays of bool, each (y1 - y0, x1 - x0); a cell whose nucleus was not found has an empty nucleus.
    """

    boxes: NDArray[np.int32]
    numbers: NDArray[np.int32]
    cells: list[Bitmap]
    nuclei: list[Bitmap]

    def __post_init__(self) -> None:
        n = len(self.numbers)
        if self.boxes.shape != (n, 4) or len(self.cells) != n or len(self.nuclei) != n:
            raise ValueError(f"{n} numbers, but boxes {self.boxes.shape}, {len(self.cells)} cell bitmaps and "
                             f"{len(self.nuclei)} nucleus bitmaps.")  # fmt: skip
        for box, cell, nucleus in zip(self.boxes, self.cells, self.nuclei, strict=True):
            size = (int(box[2] - box[0]), int(box[3] - box[1]))
            if cell.shape != size or nucleus.shape != size:
                raise ValueError(f"Box {box.tolist()} is {size}, its bitmaps are {cell.shape} and {nucleus.shape}.")

    def __len__(self) -> int:
        return len(self.numbers)

    @classmethod
    def empty(cls) -> FieldMasks:
        """Return the masks of a field without cells."""
        return cls(np.zeros((0, 4), np.int32), np.zeros(0, np.int32), [], [])

    def take(self, rows: Sequence[int]) -> FieldMasks:
        """Return the cells in these rows, in this order."""
        index = np.asarray(rows, np.int64)
        return FieldMasks(
            self.boxes[index], self.numbers[index], [self.cells[i] for i in rows], [self.nuclei[i] for i in rows]
        )

    @classmethod
    def numbered(cls, boxes: Sequence[Sequence[int]], cells: list[Bitmap], nuclei: list[Bitmap]) -> FieldMasks:
        """Masks numbered 1, 2, ... in this order."""
        numbers = np.arange(1, len(boxes) + 1, dtype=np.int32)
        return cls(np.asarray(boxes, np.int32).reshape(-1, 4), numbers, cells, nuclei)

    @classmethod
    def from_labels(
        cls, labels: NDArray[np.integer[Any]], nuclei: NDArray[np.integer[Any]], *, numbers: object = None
    ) -> FieldMasks:
        """Cut the bitmaps out of label images.

        Parameters
        ----------
        labels, nuclei : ndarray
            (Y, X) integers, 0 = background; a nucleus has the value of its cell.
        numbers : array-like of int, optional
            Label values to take, in this order; by default all, ascending.

        Returns
        -------
        FieldMasks
            Drawing it gives `labels` again.
        """
        from scipy import ndimage

        both = np.maximum(labels, nuclei)  # a nucleus may reach out of its cell by a pixel
        found = ndimage.find_objects(both)
        wanted = [i + 1 for i, place in enumerate(found) if place] if numbers is None else np.asarray(numbers).tolist()
        boxes, cells, cores = [], [], []
        for number in wanted:
            place = found[number - 1] if 0 < number <= len(found) else None
            if place is None:
                raise ValueError(f"Label {number} is not in the image.")
            rows, columns = place
            boxes.append((rows.start, columns.start, rows.stop, columns.stop))
            cells.append(labels[place] == number)
            cores.append(nuclei[place] == number)
        return cls(np.asarray(boxes, np.int32).reshape(-1, 4), np.asarray(wanted, np.int32).reshape(-1), cells, cores)


def joined(first: FieldMasks, second: FieldMasks) -> FieldMasks:
    """Return the cells of both, `second` behind; no number may stand in both."""
    boxes, numbers = np.concatenate([first.boxes, second.boxes]), np.concatenate([first.numbers, second.numbers])
    return FieldMasks(boxes, numbers, [*first.cells, *second.cells], [*first.nuclei, *second.nuclei])


def draw(masks: FieldMasks, shape: tuple[int, int], what: Literal["cells", "nuclei"] = "cells") -> NDArray[np.int32]:
    """Draw a label image.

    Parameters
    ----------
    masks : FieldMasks
        Bitmaps; where two overlap the later one is seen.
    shape : (int, int)
        Height and width of the field in pixels; parts of boxes outside are cut off.
    what : {"cells", "nuclei"}
        Which bitmaps.

    Returns
    -------
    ndarray
        (Y, X) int32; 0 = background, else the number in the cell's id.
    """
    if what not in ("cells", "nuclei"):
        raise ValueError(f"what is {what!r}; expected 'cells' or 'nuclei'.")
    image = np.zeros(shape, np.int32)
    bitmaps = masks.cells if what == "cells" else masks.nuclei
    for (y0, x0, y1, x1), number, bitmap in zip(masks.boxes.tolist(), masks.numbers.tolist(), bitmaps, strict=True):
        top, left = max(y0, 0), max(x0, 0)
        window = image[top : max(y1, 0), left : max(x1, 0)]
        inner = bitmap[top - y0 :, left - x0 :][: window.shape[0], : window.shape[1]]
        window[inner] = number
    return image


def outline(mask: Bitmap, box: NDArray[np.integer[Any]] | tuple[int, int, int, int]) -> NDArray[np.float32]:
    """Return the outer contour of one bitmap as a polygon in the pixels of the field.

    Parameters
    ----------
    mask : ndarray
        (h, w) bool.
    box : 4 integers
        y0, x0, y1, x1 of the bitmap.

    Returns
    -------
    ndarray
        (k, 2) float32, y and x, closed (first = last), simplified to half a pixel (Douglas-Peucker); the centre of a
        pixel has whole coordinates. Of several parts the longest contour; (0, 2) for an empty bitmap.
    """
    from skimage.measure import approximate_polygon, find_contours

    contours = find_contours(np.pad(mask, 1).astype(np.float32), 0.5)
    if not contours:
        return np.zeros((0, 2), np.float32)
    polygon = max(contours, key=len)
    if len(polygon) > 8:  # smaller ones would collapse to a line
        polygon = approximate_polygon(polygon, tolerance=0.5)
    shift = np.asarray([int(box[0]) - 1, int(box[1]) - 1])
    placed: NDArray[np.float32] = (polygon + shift).astype(np.float32)
    return placed


def save_masks(path: Path, masks: FieldMasks, table_json: str, key: str) -> None:
    """Write the masks of a field, its table and the key of the step that made them; whole or not at all.

    Parameters
    ----------
    path : Path
        File ending in ``.npz``.
    masks : FieldMasks
        Bitmaps.
    table_json : str
        Measurements of the cells, as JSON.
    key : str
        Hash of what the masks were computed from.

    Raises
    ------
    StudyError
        If the disk is full or may not be written.
    """
    content: dict[str, Any] = {
        "boxes": masks.boxes.astype("<i4"),
        "numbers": masks.numbers.astype("<i4"),
        "cells": _pack(masks.cells),
        "nuclei": _pack(masks.nuclei),
        "table": np.frombuffer(table_json.encode(), np.uint8),
        "key": np.frombuffer(key.encode(), np.uint8),
    }
    with disk_errors(path), replacing(path) as part, part.open("wb") as handle:
        np.savez_compressed(handle, **content)


def load_masks(path: Path) -> tuple[FieldMasks, str, str]:
    """Read what `save_masks` wrote; the file may come from a stranger.

    Returns
    -------
    masks : FieldMasks
    table_json : str
    key : str

    Raises
    ------
    StudyError
        If the file is missing or damaged; it can be computed again.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        if set(sizes) != {f"{name}.npy" for name in _KEYS} or sum(sizes.values()) > _MAX_BYTES:
            raise ValueError("it does not hold the arrays of a mask file")
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
            content = {name: stored[name] for name in _KEYS}
        masks = _unpack(content)
        return masks, content["table"].tobytes().decode(), content["key"].tobytes().decode()
    except FileNotFoundError as error:
        raise StudyError(f"{path}: there are no masks of this field yet. Run the segmentation.") from error
    except Exception as error:  # a damaged archive makes zipfile, zlib and numpy raise nearly anything
        raise StudyError(f"{path}: is damaged ({error}). Delete it and run again: masks are computed anew.") from error


def key_of(path: Path) -> str:
    """Return only the key in a mask file; empty if the file is missing or damaged, so that it is computed again."""
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
            key: str = stored["key"].tobytes().decode()
    except Exception:  # as in load_masks
        return ""
    return key


def _pack(bitmaps: list[Bitmap]) -> NDArray[np.uint8]:
    """All bitmaps one after the other, eight pixels a byte, without gaps."""
    flat = [bitmap.ravel() for bitmap in bitmaps]
    return np.packbits(np.concatenate(flat)) if flat else np.zeros(0, np.uint8)


def _unpack(content: dict[str, NDArray[Any]]) -> FieldMasks:
    """Check the arrays of a file against each other and cut the bitmaps apart."""
    boxes, numbers = content["boxes"], content["numbers"]
    if boxes.dtype != np.int32 or numbers.dtype != np.int32 or boxes.shape != (len(numbers), 4):
        raise ValueError(f"boxes are {boxes.dtype} {boxes.shape}, numbers {numbers.dtype} {numbers.shape}")
    sizes = boxes[:, 2:].astype(np.int64) - boxes[:, :2]
    if (sizes <= 0).any() or (numbers < 1).any() or len(np.unique(numbers)) != len(numbers):
        raise ValueError("a box is empty, or a number is below 1 or used twice")
    areas = sizes.prod(axis=1)
    ends = np.cumsum(areas)
    total = int(ends[-1]) if len(ends) else 0
    parts = []
    for name in ("cells", "nuclei"):
        packed = content[name]
        if packed.dtype != np.uint8 or packed.ndim != 1 or len(packed) != (total + 7) // 8:
            raise ValueError(f"the bitmaps of {name} do not fit the boxes")
        bits = np.unpackbits(packed, count=total).astype(bool)
        cut = np.split(bits, ends[:-1]) if len(ends) else []
        parts.append([bitmap.reshape(size) for bitmap, size in zip(cut, sizes.tolist(), strict=True)])
    return FieldMasks(boxes.astype(np.int32), numbers.astype(np.int32), parts[0], parts[1])
