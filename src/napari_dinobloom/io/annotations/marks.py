"""What somebody marked in an image, whatever the file: boxes and outlines, and entries that had to be left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.errors import InputError, StudyError
from napari_dinobloom.io.annotations.polygons import Polygon, Ring, crosses_itself
from napari_dinobloom.io.trust import check_text

MAX_BYTES = 1 << 28
"""Largest text file that is read (256 MiB: a million outlines of QuPath)."""

MAX_ENTRIES = 200_000
"""Most entries of one file."""

MIN_SIDE_PX = 2.0
"""A box narrower than this holds no cell."""

FARTHEST_PX = 1e7
"""Coordinates beyond this are no pixels of any image."""

Box = tuple[float, float, float, float]
Entry = TypeVar("Entry")


class Flaw(Exception):
    """What is wrong with one entry of a file, and what to do; the entry is left out, the others go on."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One marked cell.

    Attributes
    ----------
    where : str
        Place in its file, for messages: ``line 3``, ``feature 2``.
    name : str
        Class that came along, or ``""``.
    box : tuple of float
        y0, x0, y1, x1 in pixels, inside the image.
    cell, nucleus : tuple of Polygon
        Outlines; empty where only the box is known, or no nucleus.
    """

    where: str
    name: str
    box: Box
    cell: tuple[Polygon, ...] = ()
    nucleus: tuple[Polygon, ...] = ()


@dataclass(frozen=True, slots=True)
class Marks:
    """All that is marked in one image.

    Attributes
    ----------
    cells : tuple of Mark
        Marked cells, in the order of the file.
    labels, nuclei : numpy.ndarray or None
        Instead: (Y, X) int32 label pictures, 0 is none, a nucleus has the number of its cell; `nuclei` is
        None where nobody marked them.
    problems : tuple of str
        Entries that were left out, with file, place, reason and remedy.
    """

    cells: tuple[Mark, ...] = ()
    labels: NDArray[np.int32] | None = None
    nuclei: NDArray[np.int32] | None = None
    problems: tuple[str, ...] = ()


def sift(
    path: Path, size: tuple[int, int], entries: Iterable[tuple[str, Entry]], parse: Callable[[str, Entry], Mark | None]
) -> Marks:
    """Turn the entries of a file into marks; those with a flaw are named and left out.

    Parameters
    ----------
    path : Path
        File, for messages.
    size : (int, int)
        Height and width of the image in pixels.
    entries : iterable of (str, entry)
        Place in the file, and what stands there.
    parse : callable
        Makes a mark of place and entry, or None for what is no cell; raises `Flaw`.

    Raises
    ------
    InputError
        If there are more than `MAX_ENTRIES`.
    """
    cells: list[Mark] = []
    problems: list[str] = []
    for count, (where, entry) in enumerate(entries):
        if count >= MAX_ENTRIES:
            raise InputError(f"{path}: holds more than {MAX_ENTRIES:,} entries. Split it into smaller images.")
        try:
            mark = parse(where, entry)
            if mark is not None:
                cells.append(_inside(mark, size))
        except Flaw as flaw:
            problems.append(f"{path.name}, {where}: {flaw}")
    return Marks(cells=tuple(cells), problems=tuple(problems))


def mark_of_box(where: str, name: object, y0: float, x0: float, y1: float, x1: float) -> Mark:
    """Check and return a cell that is known by its box only.

    Raises
    ------
    Flaw
        If a number is not finite or the box has no area.
    """
    values = np.array([y0, x0, y1, x1], np.float64)
    if not (np.isfinite(values).all() and (np.abs(values) < FARTHEST_PX).all()):
        raise Flaw("a coordinate is no pixel position. Correct or delete the entry.")
    if min(y1 - y0, x1 - x0) < MIN_SIDE_PX:
        raise Flaw(
            f"the box is {x1 - x0:g} x {y1 - y0:g} pixels (width x height): no cell. Draw it again or delete it."
        )
    return Mark(where, text_of(name), (float(y0), float(x0), float(y1), float(x1)))


def mark_of_outline(where: str, name: object, cell: tuple[Polygon, ...], nucleus: tuple[Polygon, ...] = ()) -> Mark:
    """Check and return a cell that is known by its outline; its rings come from `ring_of`.

    Raises
    ------
    Flaw
        If there is no outline, or its box has no area.
    """
    if not cell:
        raise Flaw("has no outline. Draw it again or delete it.")
    points = np.concatenate([polygon[0] for polygon in cell])
    (y0, x0), (y1, x1) = points.min(axis=0), points.max(axis=0)
    return replace(mark_of_box(where, name, y0, x0, y1, x1), cell=cell, nucleus=nucleus)


def ring_of(points: NDArray[np.float64]) -> Ring:
    """Check and return a closed line.

    Parameters
    ----------
    points : numpy.ndarray
        (k, 2) float64 of y, x in pixels; the last point may repeat the first.

    Returns
    -------
    numpy.ndarray
        (k, 2) float64, the last point not repeated.

    Raises
    ------
    Flaw
        If it has fewer than three different points or no area, is no pixel position, or crosses itself.
    """
    if not (np.isfinite(points).all() and (np.abs(points) < FARTHEST_PX).all()):
        raise Flaw("a coordinate is no pixel position. Correct or delete the entry.")
    if len(points) > 1 and (points[0] == points[-1]).all():
        points = points[:-1]
    try:
        crossing = crosses_itself(points)
    except ValueError as error:
        raise Flaw(f"the outline is too intricate ({error}). Simplify it.") from error
    if crossing is not None:
        at = f"near x {crossing[1]:.0f}, y {crossing[0]:.0f}"
        raise Flaw(f"the outline crosses itself {at}, so its inside is not clear. Draw it again.")
    y, x = points[:, 0], points[:, 1]
    area = 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))
    if len(points) < 3 or area < 1.0:
        raise Flaw(f"the outline has {len(points)} points and an area of {area:g} pixels. Draw it again or delete it.")
    return points


def text_of(name: object) -> str:
    """Class name as plain text.

    Raises
    ------
    Flaw
        If it is no printable text.
    """
    try:
        return check_text("" if name is None else name, "class").strip()
    except StudyError as error:
        raise Flaw(f"its class is no printable text ({str(name)[:40]!r}). Rename the class.") from error


def read_text(path: Path) -> str:
    """Read a UTF-8 file of at most `MAX_BYTES`.

    Raises
    ------
    InputError
        If it is missing, larger, or not UTF-8.
    """
    try:
        length = path.stat().st_size
        if length > MAX_BYTES:
            raise InputError(
                f"{path}: is {length:,} bytes long, more than {MAX_BYTES:,}. Export fewer cells to a file."
            )
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read as UTF-8 text ({error}). Check the file, or export it again."
        ) from error


def _inside(mark: Mark, size: tuple[int, int]) -> Mark:
    """Cut the box at the image's border; less than half of it inside is another image's."""
    y0, x0, y1, x1 = mark.box
    cut = (max(y0, 0.0), max(x0, 0.0), min(y1, float(size[0])), min(x1, float(size[1])))
    height, width = max(cut[2] - cut[0], 0.0), max(cut[3] - cut[1], 0.0)
    if height * width < 0.5 * (y1 - y0) * (x1 - x0) or min(height, width) < MIN_SIDE_PX:
        raise Flaw(
            f"x {x0:g} to {x1:g}, y {y0:g} to {y1:g} lies outside the image of {size[1]} x {size[0]} pixels. "
            "Check that it belongs to this image, at full resolution."
        )
    return replace(mark, box=cut)
