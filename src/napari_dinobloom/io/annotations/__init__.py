"""Cells that somebody has marked already, read from the files of other programs.

Owns the formats, one module each: label pictures (`pictures`), tables of boxes (`table`), GeoJSON of QuPath
(`geojson`), Pascal VOC (`voc`) and YOLO (`yolo`); `marks` is what all of them give, `polygons` the geometry, `matching`
which file belongs to which image. Files may come from strangers: sizes are limited, and a bad entry is named and left
out.

Coordinates are pixels of the full image; 0, 0 is the upper left corner of the first pixel, whose centre is 0.5, 0.5.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.annotations import geojson, pictures, table, voc, yolo
from napari_dinobloom.io.annotations.marks import Marks
from napari_dinobloom.io.fingerprint import sha256_of

_READERS = {
    **dict.fromkeys(table.ENDINGS, table.read_boxes),
    **dict.fromkeys(pictures.ENDINGS, pictures.read_picture),
    **dict.fromkeys(geojson.ENDINGS, geojson.read_geojson),
    **dict.fromkeys(voc.ENDINGS, voc.read_voc),
    **dict.fromkeys(yolo.ENDINGS, yolo.read_yolo),
}

ENDINGS = tuple(_READERS)
"""Endings of files with the marks of one image."""


def hash_of(path: Path) -> str:
    """Hash of all that decides what `read_annotations` gives: the file, and the class names of YOLO beside it."""
    names = yolo.class_names(path) if path.suffix.lower() in yolo.ENDINGS else []
    return hashlib.sha256(repr((sha256_of(path), names)).encode()).hexdigest()


def read_annotations(path: Path, size: tuple[int, int]) -> Marks:
    """Read what is marked in one image.

    Parameters
    ----------
    path : Path
        File with one of the `ENDINGS`.
    size : (int, int)
        Height and width of the image in pixels.

    Returns
    -------
    Marks
        Marked cells or a label picture, and the entries that were left out.

    Raises
    ------
    InputError
        If the file as a whole cannot be used: missing, damaged, too large, made for an image of another size.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: is no file of marked cells. Known endings are {', '.join(ENDINGS)}.")
    return reader(path, size)
