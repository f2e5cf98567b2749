"""From a stained field to its white cells: whole cells, nuclei and one row of measures each.

Owns the order of the steps; each is a module of its own: `background` (white balance), `scale` (micrometres), a
`segmenter` (which finds the cells; the bundled one is `learned`), `measures` (the table).
"""

from __future__ import annotations

import logging
import tempfile
import weakref
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.cells import measures
from napari_dinobloom.cells.picture import as_picture, look_over
from napari_dinobloom.cells.region import Region
from napari_dinobloom.cells.scale import Scale
from napari_dinobloom.cells.segmenter import Found, Segmenter, get_segmenter
from napari_dinobloom.io.labelimage import draw_on_disk
from napari_dinobloom.io.masks import FieldMasks, draw
from napari_dinobloom.progress import Progress, Steps, drain

_log = logging.getLogger(__name__)

VERSION = 7

IN_MEMORY = 64_000_000
"""Pixels from which label images lie on disk."""


@dataclass(frozen=True)
class Cells:
    """White cells of one field.

    Attributes
    ----------
    masks : FieldMasks
        Bitmaps of cells and nuclei, numbered 1, 2, ... in the order of the table.
    table : pandas.DataFrame
        One row a cell with the columns `measures.COLUMNS`, in the order of ``label`` (1, 2, ... sorted by y0, x0).
    scale : Scale
        Scale that was used.
    shape : tuple of int
        Height and width of the picture.
    notes : tuple of str
        What was odd about the picture, and which setting helps; empty when nothing was.
    segmenter : str
        Name of what found the cells.
    licence : str
        Licence of what found them, where it binds the user.
    """

    masks: FieldMasks
    table: pd.DataFrame
    scale: Scale
    shape: tuple[int, int]
    notes: tuple[str, ...] = ()
    segmenter: str = "learned"
    licence: str = ""

    @cached_property
    def labels(self) -> Any:
        """(Y, X) int32 whole cells, 0 is none; a zarr array on disk where the picture exceeds 64 megapixels."""
        return self._drawn("cells")

    @cached_property
    def nuclei(self) -> Any:
        """(Y, X) int32 nuclei with the numbers of their cells; as `labels`."""
        return self._drawn("nuclei")

    def _drawn(self, what: Literal["cells", "nuclei"]) -> Any:
        if self.shape[0] * self.shape[1] <= IN_MEMORY:
            return draw(self.masks, self.shape, what)
        folder = tempfile.TemporaryDirectory(prefix="napari-dinobloom-")
        array = draw_on_disk(self.masks, self.shape, Path(folder.name) / f"{what}.zarr", what)
        weakref.finalize(array, folder.cleanup)
        return array


def segment(
    image: Any,
    pixel_size_um: float | None = None,
    *,
    segmenter: str | Path | NDArray[np.integer] | Segmenter = "learned",
    tile: int | None = None,
    scratch: Path | None = None,
    region: Region | None = None,
) -> Cells:
    """Find the white blood cells of a stained smear field.

    Parameters
    ----------
    image : array
        (Y, X, 3) uint8, NumPy or lazy (dask, zarr); RGBA, 16-bit and floating-point pictures are converted by the
        rules of `napari_dinobloom.io.pixels`.
    pixel_size_um : float, optional
        Scale where it is known; else it is estimated from the cells.
    segmenter : str, Path, array or Segmenter
        ``learned`` (bundled) or another by name, a file of marks, (Y, X) labels of int, or an object that finds cells.
    tile : int, optional
        Side in pixels of what is read and finished in one go, default 4096; decides memory, never the cells.
    scratch : Path, optional
        Folder that keeps finished tiles, so that a run that was stopped goes on after the last of them.
    region : Region, optional
        Part of a whole slide in which cells are sought (`napari_dinobloom.cells.monolayer`); default: all of it.

    Returns
    -------
    Cells
        Labels, nuclei, table, scale and notes.

    Raises
    ------
    ImageError
        If the picture is greyscale, or of a type or range that has no rule for colours.
    ValueError
        If it is no picture at all, smaller than 8 pixels, or `pixel_size_um` or `tile` is no positive number.
    """
    return drain(iter_segment(image, pixel_size_um, segmenter=segmenter, tile=tile, scratch=scratch, region=region))


def iter_segment(
    image: Any,
    pixel_size_um: float | None = None,
    *,
    segmenter: str | Path | NDArray[np.integer] | Segmenter = "learned",
    tile: int | None = None,
    scratch: Path | None = None,
    region: Region | None = None,
) -> Steps[Cells]:
    """Twin of `segment` that yields `Progress` and returns its result."""
    _check_numbers(pixel_size_um, tile)
    picture = as_picture(image)
    finder = _finder(segmenter)
    if tile or scratch:
        finder = finder.tiled(tile, scratch)
    if region is not None:
        finder = finder.within(region)
    yield Progress(0, 1, "scale")
    seen = look_over(picture, pixel_size_um, region)
    found = Found.none()
    marked = finder.name.startswith("labels:")  # marks need no stain
    if seen.usable or marked:
        found = yield from finder.iter_find(picture, seen.scale, light=seen.light)
    found = found.sorted()
    table = measures.measure_masks(picture, found.masks, seen.scale, light=seen.light, hints=found.hints)
    if found.classes:
        table["brought_class"] = np.asarray(found.classes, dtype=object)
    notes = (() if marked and not seen.usable else seen.notes) + found.notes
    for note in notes:
        _log.info("%s", note)
    yield Progress(1, 1, f"{len(table)} cells")
    shape = (int(picture.shape[0]), int(picture.shape[1]))
    return Cells(found.masks, table, seen.scale, shape, notes, finder.name, finder.licence)


def _finder(asked: str | Path | NDArray[np.integer] | Segmenter) -> Segmenter:
    """What finds the cells: named, read from a file of marks, or labels that are there."""
    if isinstance(asked, str | Path):
        return get_segmenter(asked)
    if isinstance(asked, np.ndarray):
        from napari_dinobloom.cells.brought import Brought

        return Brought.from_labels(asked)
    return asked


def _check_numbers(pixel_size_um: float | None, tile: int | None) -> None:
    """Refuse what is not a scale or not a tile, by name."""
    if pixel_size_um is not None and not (np.isfinite(pixel_size_um) and pixel_size_um > 0):
        raise ValueError(f"pixel_size_um is {pixel_size_um}: give micrometres per pixel, a positive number, or None")
    if tile is not None and tile < 64:
        raise ValueError(f"tile is {tile}: give 64 pixels or more, or None")
