"""A cell's shape as an act of the journal carries it: bitmaps in a box, packed, and what was measured in them.

Replay needs no image. A shape read from a file is checked whole, as the file may come from a stranger.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.celltable import COLUMNS, MEASURES, split_cell_id
from napari_dinobloom.io.masks import Bitmap, FieldMasks
from napari_dinobloom.io.trust import check_text

Measure = int | float | bool | str | None

MEASURED = (*MEASURES, "pixel_size_um", "scale_from")
"""Columns of the cell table that a shape carries: its measures, and the scale they were taken at."""

LARGEST = 1 << 26
"""Largest box in pixels: a picture of 8,192 x 8,192 that is one cell."""

_PLACES = 1 << 30  # coordinates beyond are in no picture
_TYPES = {"str": str, "bool": bool, "int32": int, "float32": float}


@dataclass(frozen=True, slots=True)
class Shape:
    """Outline of one cell.

    Attributes
    ----------
    box : tuple of 4 int
        y0, x0, y1, x1 in pixels of the field, half-open.
    bits : bytes
        The bitmaps of cell and nucleus, each (y1 - y0, x1 - x0), eight pixels a byte, one behind the other, zlib.
    measures : mapping
        Columns of `MEASURED`, None where unknown.
    """

    box: tuple[int, int, int, int]
    bits: bytes
    measures: Mapping[str, Measure]

    @classmethod
    def of(cls, box: Any, cell: Bitmap, nucleus: Bitmap, measures: Mapping[str, Any]) -> Shape:
        """Pack a cell.

        Parameters
        ----------
        box : 4 integers
            y0, x0, y1, x1.
        cell, nucleus : ndarray
            (y1 - y0, x1 - x0) bool.
        measures : mapping
            Holds the columns of `MEASURED`; others are left out.

        Returns
        -------
        Shape
            Equal to what is read back from its JSON.

        Raises
        ------
        ValueError
            If a value could not be read back.
        """
        y0, x0, y1, x1 = (int(side) for side in box)
        bits = zlib.compress(np.packbits(cell).tobytes() + np.packbits(nucleus).tobytes(), 9)
        plain = {name: _plain(measures[name], COLUMNS[name]) for name in MEASURED if name in measures}
        shape = cls((y0, x0, y1, x1), bits, plain)
        return parse_shape(shape.to_json())

    def bitmaps(self) -> tuple[Bitmap, Bitmap]:
        """Unpack cell and nucleus: two arrays (y1 - y0, x1 - x0) of bool."""
        return _unpacked(self.box, self.bits)

    @property
    def key(self) -> str:
        """Hash of box and bitmaps."""
        return hashlib.sha256(str(self.box).encode() + self.bits).hexdigest()[:16]

    def fits(self, height: int, width: int) -> bool:
        """Whether the box lies inside a field of this size in pixels."""
        return self.box[2] <= height and self.box[3] <= width

    def to_json(self) -> dict[str, Any]:
        """Plain values for one line of the journal."""
        return {
            "box": list(self.box),
            "bits": base64.b64encode(self.bits).decode("ascii"),
            "measures": dict(self.measures),
        }


def parse_shape(raw: object) -> Shape:
    """Check and return the shape that `Shape.to_json` made.

    Raises
    ------
    ValueError
        With a sentence that says what is wrong.
    """
    if not isinstance(raw, dict) or set(raw) != {"box", "bits", "measures"}:
        raise ValueError("holds a shape that is none.")
    box = raw["box"]
    if not (isinstance(box, list) and len(box) == 4 and all(type(side) is int for side in box)):
        raise ValueError("holds a shape whose box is not four whole numbers.")
    y0, x0, y1, x1 = box
    if not (0 <= y0 < y1 < _PLACES and 0 <= x0 < x1 < _PLACES and (y1 - y0) * (x1 - x0) <= LARGEST):
        raise ValueError(f"holds a shape whose box {box} is empty, outside of any picture or too large.")
    try:
        bits = base64.b64decode(raw["bits"], validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ValueError(f"holds a shape whose bits are damaged ({error}).") from error
    if not _unpacked((y0, x0, y1, x1), bits)[0].any():
        raise ValueError("holds a shape without a pixel.")
    return Shape((y0, x0, y1, x1), bits, _check_measures(raw["measures"]))


def masks_of(shapes: Mapping[str, Shape]) -> FieldMasks:
    """Bitmaps of shapes by cell id; all of one field."""
    unpacked = [shape.bitmaps() for shape in shapes.values()]
    return FieldMasks(
        np.asarray([shape.box for shape in shapes.values()], np.int32).reshape(-1, 4),
        np.asarray([split_cell_id(cell)[1] for cell in shapes], np.int32).reshape(-1),
        [cell for cell, _ in unpacked],
        [nucleus for _, nucleus in unpacked],
    )


def _unpacked(box: tuple[int, int, int, int], bits: bytes) -> tuple[Bitmap, Bitmap]:
    """Unpack never more than the box can hold; raise ValueError if that is not what the bits hold."""
    size = (box[2] - box[0], box[3] - box[1])
    area = size[0] * size[1]
    each = (area + 7) // 8
    stream = zlib.decompressobj()
    try:
        packed = stream.decompress(bits, 2 * each + 1)
    except zlib.error as error:
        raise ValueError(f"holds a shape whose bits are damaged ({error}).") from error
    if len(packed) != 2 * each or not stream.eof or stream.unused_data:
        raise ValueError(f"holds a shape whose bits do not fill its box of {size[0]} x {size[1]} pixels.")
    both = [np.frombuffer(part, np.uint8) for part in (packed[:each], packed[each:])]
    cell, nucleus = (np.unpackbits(part, count=area).astype(bool).reshape(size) for part in both)
    return cell, nucleus


def _plain(value: Any, kind: str) -> Measure:
    """One measure as a plain value; floats to seven digits, as float32 holds them."""
    if kind == "float32":
        return float(f"{float(value):.7g}") if np.isfinite(value) else None
    if kind == "str":
        return str(value)
    return bool(value) if kind == "bool" else int(value)


def _check_measures(raw: object) -> dict[str, Measure]:
    """Return the measures if they are of known columns and the right types."""
    if not isinstance(raw, dict):
        raise ValueError("holds a shape without measures.")
    checked: dict[str, Measure] = {}
    for name, value in raw.items():
        if name not in MEASURED:
            raise ValueError(f"holds a shape with the measure {str(name)[:40]!r}, which this version does not know.")
        kind = _TYPES[COLUMNS[name]]
        if kind is float and type(value) is int:
            value = float(value)
        bad = type(value) is not kind and not (kind is float and value is None)
        if bad or (isinstance(value, (int, float)) and not abs(value) < 2**31):
            raise ValueError(f"holds a shape whose {name} is {str(value)[:40]!r}.")
        if isinstance(value, str):
            try:
                check_text(value, name)
            except StudyError as error:
                raise ValueError(str(error)) from error
        checked[name] = value
    size = checked.get("pixel_size_um")
    if isinstance(size, float) and not size > 0:
        raise ValueError(f"holds a shape whose pixel_size_um is {size}.")
    return checked
