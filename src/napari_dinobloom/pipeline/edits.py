"""Correction by hand: cells added, merged, split and repainted by a person, each act one line of the journal.

What the window calls; deleting, excluding, labelling, undo and redo are methods of the study. A cell's new outline is
measured in the part of the picture around it; crops, embeddings and counts follow with the next run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import numpy as np

    from napari_dinobloom.io.study import Study


def add_at(study: Study, field_id: str, y: float, x: float) -> str:
    """Add the cell around a point; its outline is proposed from the picture.

    Parameters
    ----------
    study : Study
        Open for writing.
    field_id : str
        The field.
    y, x : float
        Where the person clicked, in pixels of the field.

    Returns
    -------
    str
        Id of the new cell; its line is on the disk.

    Raises
    ------
    StudyError
        If the point lies outside the field or in a cell, no room is left there, the field was not segmented yet, or
        nothing may be written.
    """
    raise NotImplementedError


def add_box(study: Study, field_id: str, box: tuple[float, float, float, float]) -> str:
    """Add the cell in a box (y0, x0, y1, x1, in pixels of the field); its outline is proposed from the picture.

    Returns
    -------
    str
        Id of the new cell; its line is on the disk.

    Raises
    ------
    StudyError
        As `add_at`; also if the box is empty.
    """
    raise NotImplementedError


def merge(study: Study, cell_ids: Sequence[str]) -> str:
    """Make one cell of several cells of one field.

    The old ones are deleted, the new one is their union; a narrow gap between them is closed. It takes their hand
    label if all that have one agree.

    Returns
    -------
    str
        Id of the new cell; its line is on the disk.

    Raises
    ------
    StudyError
        If fewer than two cells are named, they lie in several fields, one is unknown or deleted, or nothing may be
        written.
    """
    raise NotImplementedError


def split(study: Study, cell_id: str, line: ArrayLike) -> tuple[str, str]:
    """Make two cells of one along a line.

    Parameters
    ----------
    study : Study
        Open for writing.
    cell_id : str
        The cell; it is deleted, and both parts take its hand label.
    line : array-like
        (k, 2) float, y and x in pixels of the field: a line drawn across the cell, lengthened a little at both ends.

    Returns
    -------
    (str, str)
        Ids of the two parts, the larger first; their line is on the disk.

    Raises
    ------
    StudyError
        If the line does not part the cell into two, the cell is unknown or deleted, or nothing may be written.
    """
    raise NotImplementedError


def repaint(
    study: Study, field_id: str, labels: NDArray[np.integer[Any]], nuclei: NDArray[np.integer[Any]] | None = None
) -> list[str]:
    """Take over a label image that a person has painted in; one act for all its changes.

    Parameters
    ----------
    study : Study
        Open for writing.
    field_id : str
        The field.
    labels : ndarray
        (Y, X) integers: `study.labels` as the person changed it. A value that is no living cell's number is a new
        cell, which gets the next free number; a cell without a pixel left is deleted.
    nuclei : ndarray, optional
        (Y, X) integers, `study.nuclei` likewise, with the values of `labels`. Without it, what was nucleus stays
        nucleus, of the cell that now has the pixel.

    Returns
    -------
    list of str
        Ids of the changed cells, then of the new ones; empty, and nothing written, if no cell changed.

    Raises
    ------
    StudyError
        If an image has another size than the field or negative values, or nothing may be written.
    """
    raise NotImplementedError
