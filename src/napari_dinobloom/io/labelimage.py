"""Label images of large pictures, on disk: drawn from bitmaps, one row of chunks in memory at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_dinobloom.io.atomic import disk_errors, replacing
from napari_dinobloom.io.masks import FieldMasks

CHUNK = 1024
"""Side of a chunk in pixels."""


def draw_on_disk(
    masks: FieldMasks, shape: tuple[int, int], path: Path, what: Literal["cells", "nuclei"] = "cells"
) -> Any:
    """Draw a label image into a zarr store.

    Parameters
    ----------
    masks : FieldMasks
        Bitmaps; where two overlap the later one is seen, as in `napari_dinobloom.io.masks.draw`.
    shape : (int, int)
        Height and width of the picture in pixels.
    path : Path
        Folder ``NAME.zarr`` to make.
    what : {"cells", "nuclei"}
        Which bitmaps.

    Returns
    -------
    zarr.Array
        (Y, X) int32, opened for reading, compressed chunks of 1024 x 1024.
    """
    import zarr

    array = zarr.create_array(path, shape=shape, chunks=(CHUNK, CHUNK), dtype="int32")
    bitmaps = masks.cells if what == "cells" else masks.nuclei
    for top in range(0, shape[0], CHUNK):
        rows = np.flatnonzero((masks.boxes[:, 0] < top + CHUNK) & (masks.boxes[:, 2] > top))
        if not len(rows):
            continue  # a chunk that was never written reads as zeros
        band = np.zeros((min(CHUNK, shape[0] - top), shape[1]), np.int32)
        for row in rows.tolist():
            y0, x0, y1, x1 = masks.boxes[row].tolist()
            first, last = max(y0, top), min(y1, top + len(band))
            band[first - top : last - top, x0:x1][bitmaps[row][first - y0 : last - y0]] = masks.numbers[row]
        array[top : top + len(band)] = band
    return zarr.open_array(path, mode="r")


def write_label_tiff(masks: FieldMasks, shape: tuple[int, int], path: Path, pixel_size_um: float | None = None) -> Path:
    """Write the cells of a field as a label image for other programs.

    Parameters
    ----------
    masks : FieldMasks
        Bitmaps and numbers of the cells.
    shape : (int, int)
        Height and width of the picture in pixels.
    path : Path
        File ``NAME.tif``: int32, 0 or the number of the cell, in compressed tiles; replaced whole or not at all.
    pixel_size_um : float, optional
        Micrometres per pixel, kept as the resolution of the file.

    Returns
    -------
    Path

    Raises
    ------
    StudyError
        If it cannot be written.
    """
    with disk_errors(path), tempfile.TemporaryDirectory() as place:
        labels = draw_on_disk(masks, shape, Path(place) / "labels.zarr")
        return write_labels_tiff([labels], shape, path, pixel_size_um)


def write_labels_tiff(
    planes: Iterable[Any], shape: tuple[int, ...], path: Path, pixel_size_um: float | None = None
) -> Path:
    """Write label images as one TIFF, a plane at a time in memory.

    Parameters
    ----------
    planes : iterable of array
        (Y, X) int32 each, one page of the file.
    shape : tuple of int
        (Y, X), or (N, Y, X) for N planes.
    path : Path
        As for `write_label_tiff`.
    pixel_size_um : float, optional
        As for `write_label_tiff`.

    Returns
    -------
    Path

    Raises
    ------
    StudyError
        If it cannot be written.
    """
    from tifffile import imwrite

    about: dict[str, Any] = {"tile": (CHUNK, CHUNK), "compression": "zlib", "photometric": "minisblack"}
    if pixel_size_um is not None:
        about |= {"resolution": (1e4 / pixel_size_um,) * 2, "resolutionunit": "CENTIMETER"}
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            imwrite(part, _tiles(planes), shape=shape, dtype="int32", **about)
    return path


def _tiles(planes: Iterable[Any]) -> Iterator[npt.NDArray[np.int32]]:
    """Tiles of label images (Y, X) in the order of TIFF, filled up with 0 at the border."""
    for labels in planes:
        for y in range(0, labels.shape[0], CHUNK):
            for x in range(0, labels.shape[1], CHUNK):
                tile = np.zeros((CHUNK, CHUNK), np.int32)
                part = labels[y : y + CHUNK, x : x + CHUNK]
                tile[: part.shape[0], : part.shape[1]] = part
                yield tile
