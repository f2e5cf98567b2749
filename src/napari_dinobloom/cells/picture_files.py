"""Files of single-cell pictures as one array that is read where it is sliced."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells.crop import CropPolicy, resize_picture
from napari_dinobloom.errors import ImageError
from napari_dinobloom.io.smear import read_pixels


class PictureFiles:
    """Pictures of one cell each, resized whole to one size, as an array (n, size, size, 3) uint8.

    It can be given to `Encoder.embed`, which reads it ahead of the computation; nothing is kept in memory.

    Parameters
    ----------
    paths : sequence of str or Path
        PNG, JPEG, TIFF or BMP files.
    policy : CropPolicy, optional
        Kind ``published``; by default 224 px, bilinear with antialiasing, as the reference evaluation does it.

    Raises
    ------
    ValueError
        Where the policy is of another kind, or one name is given in place of a list.
    ImageError
        Where a file is missing.
    """

    dtype = np.dtype(np.uint8)
    shared_reading = True

    def __init__(self, paths: Sequence[str | Path], policy: CropPolicy | None = None) -> None:
        self.policy = policy or CropPolicy(kind="published")
        if self.policy.kind != "published":
            raise ValueError("Whole pictures have the crop policy 'published'; nd.crop cuts cells out of fields.")
        if isinstance(paths, (str, Path)):
            raise ValueError(f"PictureFiles takes a list of files; got the one name {str(paths)!r}.")
        self.paths = [Path(path) for path in paths]
        missing = [str(path) for path in self.paths if not path.is_file()]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise ImageError(f"{', '.join(missing[:5])}{more}: no such file. Check the names.")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, size, size, 3)."""
        return (len(self.paths), self.policy.size, self.policy.size, 3)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: slice) -> NDArray[np.uint8]:
        """Read a slice of the pictures, (k, size, size, 3) uint8.

        Raises
        ------
        ImageError
            Where a file cannot be read; the message names it.
        """
        paths = self.paths[rows]
        out = np.empty((len(paths), *self.shape[1:]), np.uint8)
        for place, path in enumerate(paths):
            out[place] = resize_picture(read_pixels(path), self.policy)
        return out
