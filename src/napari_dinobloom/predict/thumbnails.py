"""Small pictures of reference cells, each a JPEG in one run of bytes; decoded only when somebody looks."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.errors import AtlasError

SIDE = 96
"""Pixels of a side."""

QUALITY = 90
"""Of the JPEG: about 3 KB a picture."""

LARGEST = 1 << 16
"""Bytes of one picture at most."""

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnails:
    """Encoded pictures, one place a cell.

    Attributes
    ----------
    data : (bytes,) array of uint8
        JPEG or PNG files, one after the other.
    ends : (n,) array of int64
        Where each one ends; a cell without a picture ends where it begins.
    """

    data: NDArray[np.uint8]
    ends: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Refuse parts that do not fit: they may come from a stranger's file."""
        sizes = np.diff(self.ends, prepend=0)
        last = int(self.ends[-1]) if len(self.ends) else 0
        if self.data.ndim != 1 or self.ends.ndim != 1 or last != len(self.data) or np.any(sizes < 0):
            raise AtlasError("the thumbnails and where they end do not fit; get or build the file again")
        if np.any(sizes > LARGEST):
            raise AtlasError(f"the thumbnail of cell {int(np.argmax(sizes))} is larger than {LARGEST} bytes")

    def __len__(self) -> int:
        return len(self.ends)

    @classmethod
    def pack(cls, files: Sequence[bytes]) -> Thumbnails:
        """Keep encoded pictures; ``b""`` for a cell that has none."""
        ends = np.cumsum([len(one) for one in files], dtype=np.int64)
        return cls(np.frombuffer(b"".join(files), np.uint8), ends)

    def files(self) -> list[bytes]:
        """The encoded pictures, one a cell."""
        whole, starts = self.data.tobytes(), [0, *self.ends[:-1].tolist()]
        return [whole[start:end] for start, end in zip(starts, self.ends.tolist(), strict=len(self) > 0)]

    def take(self, rows: NDArray[np.integer]) -> Thumbnails:
        """Those of some cells."""
        files = self.files()
        return Thumbnails.pack([files[row] for row in rows.tolist()])

    def picture(self, row: int) -> Image | None:
        """Decode one picture.

        Returns
        -------
        (96, 96, 3) array of uint8, or None
            None where the cell has none.

        Raises
        ------
        AtlasError
            If the bytes are no RGB picture of that size.
        IndexError
            If there is no such row.
        """
        from PIL import Image as Pictures

        end = int(self.ends[row])
        start = int(self.ends[row - 1]) if row % len(self) else 0
        if start == end:
            return None
        try:
            with warnings.catch_warnings():  # what is too large is refused here
                warnings.simplefilter("ignore")
                opened = Pictures.open(io.BytesIO(self.data[start:end].tobytes()), formats=("JPEG", "PNG"))
            if opened.size != (SIDE, SIDE) or opened.mode != "RGB":
                raise AtlasError(f"is {opened.size} {opened.mode}")
            return np.asarray(opened, np.uint8)
        except Exception as error:  # hostile bytes make decoders raise nearly anything
            raise AtlasError(
                f"The thumbnail of cell {row} is no RGB picture of {SIDE} x {SIDE} pixels ({error}): "
                "get or build the atlas again"
            ) from error


def encoded(crops: Iterable[Image]) -> list[bytes]:
    """JPEG files of crops, (size, size, 3) uint8 each, made small."""
    from PIL import Image as Pictures

    files = []
    for crop in crops:
        small = Pictures.fromarray(crop).resize((SIDE, SIDE), Pictures.Resampling.BILINEAR)
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=QUALITY)
        files.append(buffer.getvalue())
    return files


def joined(parts: Sequence[tuple[int, Thumbnails | None]]) -> Thumbnails | None:
    """Thumbnails of several references, given with their numbers of cells, as one; None where none has any."""
    if all(thumbnails is None for _, thumbnails in parts):
        return None
    return Thumbnails.pack([file for n, some in parts for file in (some.files() if some is not None else [b""] * n)])
