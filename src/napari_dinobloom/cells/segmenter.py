"""What finds the cells of a field: the protocol, and the choice by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.masks import FieldMasks
from napari_dinobloom.progress import Steps

if TYPE_CHECKING:
    from napari_dinobloom.cells.background import Background
    from napari_dinobloom.cells.region import Region
    from napari_dinobloom.cells.scale import Scale

NAMES = ("learned", "cellpose")
"""Segmenters by name; anything else is a file or folder of cells that the user brings."""


@dataclass(frozen=True, slots=True)
class Found:
    """Cells that a segmenter found in one field.

    Attributes
    ----------
    masks : FieldMasks
        Cells with their nuclei, numbered 1, 2, ...
    hints : tuple of str
        Per cell a quality flag that the segmenter is sure of, else ``""``; empty if it gives none.
    classes : tuple of str
        Per cell the class that came along with brought marks, else ``""``; empty if there are none.
    notes : tuple of str
        What a person should know: entries that were left out, with file, place, reason and remedy.
    """

    masks: FieldMasks
    hints: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def none(cls) -> Found:
        """No cell at all."""
        return cls(FieldMasks.empty())

    def sorted(self) -> Found:
        """Give the same by y0, then x0, then the larger first, numbered 1, 2, ..."""
        boxes = self.masks.boxes
        areas = np.asarray([cell.sum() for cell in self.masks.cells], np.int64)
        order = np.lexsort((-areas, boxes[:, 1], boxes[:, 0])).tolist()
        masks = replace(self.masks.take(order), numbers=np.arange(1, len(order) + 1, dtype=np.int32))
        hints, classes = (tuple(texts[i] for i in order) if texts else () for texts in (self.hints, self.classes))
        return Found(masks, hints, classes, self.notes)


class Segmenter(Protocol):
    """Finds the cells of a field.

    Attributes
    ----------
    name : str
        ``learned``, ``cellpose`` or ``labels:NAME``.
    key : str
        Changes whenever the result may; part of the key of the step.
    licence : str
        Terms that the result stands under and that a user has to accept, or ``""``.
    """

    @property
    def name(self) -> str:
        """Name for people."""

    @property
    def key(self) -> str:
        """Hash or version of everything that decides the result."""

    @property
    def licence(self) -> str:
        """Terms to accept."""

    def iter_find(self, image: Any, scale: Scale, *, light: Background) -> Steps[Found]:
        """Find the cells.

        Parameters
        ----------
        image : array
            (Y, X, 3) uint8, numpy or lazy.
        scale : Scale
            Of the image.
        light : Background
            Of the image.

        Returns
        -------
        Found
            Cells with their nuclei.
        """

    def tiled(self, tile: int | None, scratch: Path | None) -> Segmenter:
        """Give the same with another tile size and a folder for finished tiles; itself where it has no tiles."""

    def within(self, region: Region) -> Segmenter:
        """Give the same that looks for cells in a region only; itself where cells are known without looking."""


@dataclass(frozen=True, slots=True)
class _Noted:
    """A segmenter that stands in for another, and says so."""

    segmenter: Segmenter
    note: str

    @property
    def name(self) -> str:
        return self.segmenter.name

    @property
    def key(self) -> str:
        return f"{self.segmenter.key}-unmarked"  # so that the note comes and goes with the marks

    @property
    def licence(self) -> str:
        return self.segmenter.licence

    def tiled(self, tile: int | None, scratch: Path | None) -> Segmenter:
        return replace(self, segmenter=self.segmenter.tiled(tile, scratch))

    def within(self, region: Region) -> Segmenter:
        return replace(self, segmenter=self.segmenter.within(region))

    def iter_find(self, image: Any, scale: Scale, *, light: Background) -> Steps[Found]:
        found = yield from self.segmenter.iter_find(image, scale, light=light)
        return replace(found, notes=(*found.notes, self.note))


def licence_of(name: str) -> str:
    """Terms that a segmenter's result stands under, without loading it; ``""`` if there is nothing to accept."""
    if name != "cellpose":
        return ""
    from napari_dinobloom.cells.cellpose import LICENCE

    return LICENCE


def check_licence(name: str, *, accepted: bool) -> None:
    """Raise LicenceError if a segmenter has terms and they are not accepted."""
    if name == "cellpose":
        from napari_dinobloom.cells.cellpose import check_accepted

        check_accepted(accepted)


def get_segmenter(name: str | Path, *, accept_licence: bool = False) -> Segmenter:
    """Choose a segmenter for one image.

    Parameters
    ----------
    name : str or Path
        ``learned``, ``cellpose``, or a file of cells that are marked already (`io.annotations`).
    accept_licence : bool
        Says that the terms of `licence_of` are known and kept.

    Returns
    -------
    Segmenter
        Ready to find cells.

    Raises
    ------
    LicenceError
        If it has terms that are not accepted.
    InputError
        If it is not installed, or `name` is neither a segmenter nor a file.
    """
    if name == "learned":
        from napari_dinobloom.cells.learned import LearnedSegmenter

        return LearnedSegmenter()
    if name == "cellpose":
        from napari_dinobloom.cells.cellpose import CellposeSegmenter

        return CellposeSegmenter(get_segmenter("learned"), accept_licence=accept_licence)
    from napari_dinobloom.cells.brought import Brought

    return Brought.from_file(_existing(name))


def segmenters_of(
    name: str | Path, images: Mapping[str, Path], *, accept_licence: bool = False
) -> dict[str, Segmenter]:
    """Choose the segmenter of each field of a study: the same for all, or the field's own marks.

    Where marks are brought, the fields that have none are segmented by the bundled network, and a note says so.

    Parameters
    ----------
    name : str or Path
        As for `get_segmenter`; also a folder of marks or a table of boxes of many images.
    images : mapping of str to Path
        Absolute path of each image by its field's id.
    accept_licence : bool
        Says that the terms of `licence_of` are known and kept.

    Returns
    -------
    dict of str to Segmenter
        By field id.

    Raises
    ------
    LicenceError, InputError
        As `get_segmenter`; also if marks fit no image, or it is not clear which.
    """
    if name in NAMES:
        return dict.fromkeys(images, get_segmenter(name, accept_licence=accept_licence))
    from napari_dinobloom.cells.brought import brought_fields

    path = _existing(name)
    segmenters: dict[str, Segmenter] = {}
    for field, brought in brought_fields(path, images).items():
        note = f"{path.name}: holds no marks for {images[field].name}; its cells were found by the bundled network."
        segmenters[field] = brought or _Noted(get_segmenter("learned"), note)
    return segmenters


def check_segmenter(name: str | Path) -> None:
    """Refuse a segmenter that cannot run here, before any work is done.

    Raises
    ------
    InputError
        If it is not installed, or `name` is neither a segmenter nor a file or folder.
    """
    if name == "cellpose":
        from napari_dinobloom.cells.cellpose import check_installed

        check_installed()
    elif name not in NAMES:
        _existing(name)


def _existing(name: str | Path) -> Path:
    """Path of marks that are there."""
    path = Path(name).expanduser()
    if path.exists():
        return path
    near = difflib.get_close_matches(str(name), NAMES, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if path.suffix or path.name != str(name):
        raise InputError(f"{path}: there is no such file or folder of marked cells. Check the name given as segmenter.")
    raise InputError(
        f"segmenter {str(name)!r} is neither {' nor '.join(NAMES)} nor a file or folder of marked cells{hint}"
        f"{'' if hint else '. Name its place with --labels, or choose the segmenter learned.'}"
    )
