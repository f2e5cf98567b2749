"""Geometry of correction by hand, on bitmaps in their boxes; needs no image.

Merges cells, splits one along a drawn line, keeps an outline off its neighbours, and tells what changed between two
label images. Pixels that touch by a corner are connected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.masks import Bitmap, FieldMasks, draw

Labels = NDArray[np.integer[Any]]

LENGTHENED = 0.1
"""Share of its length by which a splitting line grows at each end, at least 2 pixels: hands stop short of the edge."""

FAR = 1e6
"""Coordinates from here on, NaN included, are no place in a field that a person can draw on."""

CRUMB_SHARE = 0.02
"""A part smaller than this share of the cell goes to the part beside it: a stroke along the edge is no split."""


@dataclass(frozen=True, slots=True)
class Repainted:
    """What changed between two label images: values, ascending.

    Attributes
    ----------
    changed, new, vanished : tuple of int
        In both but with other pixels; only in the second; only in the first.
    """

    changed: tuple[int, ...]
    new: tuple[int, ...]
    vanished: tuple[int, ...]


def merge(masks: FieldMasks, *, number: int, gap: int, others: FieldMasks | None = None) -> FieldMasks:
    """Make one cell of several.

    Parameters
    ----------
    masks : FieldMasks
        At least one cell.
    number : int
        Of the new cell.
    gap : int
        Pieces up to this many pixels apart are joined by closing the gap between them.
    others : FieldMasks, optional
        Cells whose pixels the closed gap leaves alone.

    Returns
    -------
    FieldMasks
        One cell: all pixels of the old ones, and those between two pieces. Its nucleus is all of their nuclei.
    """
    top, left = masks.boxes[:, :2].min(axis=0) - gap - 1
    bottom, right = masks.boxes[:, 2:].max(axis=0) + gap + 1
    window = (int(top), int(left), int(bottom), int(right))
    cell = within(masks, window) > 0
    nucleus = within(masks, window, "nuclei") > 0
    taken = np.zeros_like(cell) if others is None else within(others, window) > 0
    cell |= _bridges(cell, gap, taken)
    return _one(window, number, cell, nucleus)


def split(masks: FieldMasks, line: ArrayLike, *, numbers: tuple[int, int]) -> FieldMasks:
    """Part one cell along a line.

    Parameters
    ----------
    masks : FieldMasks
        One cell.
    line : array-like
        (k, 2) float, k >= 2: y and x in pixels of the field, a pixel's centre at whole numbers.
    numbers : (int, int)
        Of the larger and the smaller part.

    Returns
    -------
    FieldMasks
        Two cells that together have the pixels of the one, each with its part of the nucleus. Pixels on the line go
        to the nearer part.

    Raises
    ------
    InputError
        If the line is none, or does not part the cell into two.
    """
    points = np.asarray(line, np.float64)
    if (
        points.ndim != 2
        or points.shape[1] != 2
        or not (np.abs(points) < FAR).all()
        or len(np.unique(points, axis=0)) < 2
    ):
        raise InputError("The line has no length. Draw it across the cell, from outside to outside.")
    cell, nucleus = masks.cells[0], masks.nuclei[0]
    stroke = _stroke(points - masks.boxes[0, :2], cell.shape)
    parts = _parts(cell, stroke)
    nearer = _nearest(parts)
    first = cell & (nearer == 1)
    second = cell & (nearer == 2)
    if second.sum() > first.sum():
        first, second, nearer = second, first, 3 - nearer
    box = tuple(masks.boxes[0].tolist())
    pieces = [
        _one(box, number, part, nucleus & (nearer == i))
        for i, (number, part) in enumerate(zip(numbers, (first, second), strict=True), start=1)
    ]
    return FieldMasks(
        np.concatenate([piece.boxes for piece in pieces]),
        np.concatenate([piece.numbers for piece in pieces]),
        [piece.cells[0] for piece in pieces],
        [piece.nuclei[0] for piece in pieces],
    )


def clear_of(masks: FieldMasks, others: FieldMasks) -> FieldMasks | None:
    """Keep one cell off others: its largest piece outside of them, or None if nothing is left."""
    from scipy import ndimage as ndi

    box = tuple(masks.boxes[0].tolist())
    free = masks.cells[0] & (within(others, box) == 0)
    pieces, n = ndi.label(free, np.ones((3, 3)))
    if not n:
        return None
    piece = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    return _one(box, int(masks.numbers[0]), piece, masks.nuclei[0] & piece)


def repainted(before: Labels, after: Labels) -> Repainted:
    """Tell what changed between two label images (Y, X), 0 = background; exact, pixel by pixel."""
    touched = before != after
    old, new = before[touched], after[touched]
    values = np.unique(np.concatenate([old, new]))
    values = values[values != 0]
    was, now = np.isin(values, before), np.isin(values, after)
    return Repainted(*(tuple(values[which].tolist()) for which in (was & now, ~was, ~now)))


def cut_out(labels: Labels, nuclei: Labels, values: Sequence[int]) -> FieldMasks:
    """Cut cells out of label images (Y, X) by their values, however large; they get the numbers 1, 2, ... in order."""
    wanted = np.asarray(values, np.int64)
    order = np.argsort(wanted)

    def renumbered(image: Labels) -> NDArray[np.int32]:
        at = np.searchsorted(wanted, image, sorter=order).clip(max=max(len(wanted) - 1, 0))
        return np.where(wanted[order][at] == image, order[at] + 1, 0).astype(np.int32)

    if not len(wanted):
        return FieldMasks.empty()
    return FieldMasks.from_labels(renumbered(labels), renumbered(nuclei), numbers=np.arange(1, len(wanted) + 1))


def within(masks: FieldMasks, box: tuple[int, ...], what: Any = "cells") -> NDArray[np.int32]:
    """Draw the cells or nuclei of a field as they look in one box (y0, x0, y1, x1): (y1 - y0, x1 - x0) int32."""
    y0, x0, y1, x1 = box
    near = (masks.boxes[:, :2] < (y1, x1)).all(axis=1) & (masks.boxes[:, 2:] > (y0, x0)).all(axis=1)
    found = masks.take(np.flatnonzero(near).tolist())
    return draw(
        FieldMasks(found.boxes - np.asarray([y0, x0, y0, x0], np.int32), found.numbers, found.cells, found.nuclei),
        (y1 - y0, x1 - x0),
        what,
    )


def _one(box: tuple[int, ...], number: int, cell: Bitmap, nucleus: Bitmap) -> FieldMasks:
    """One cell in the smallest box that holds it; its nucleus is cut to that."""
    rows, columns = np.flatnonzero(cell.any(axis=1)), np.flatnonzero(cell.any(axis=0))
    inner = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    y0, x0 = box[0] + inner[0].start, box[1] + inner[1].start
    boxes = np.asarray([[y0, x0, box[0] + inner[0].stop, box[1] + inner[1].stop]], np.int32)
    return FieldMasks(boxes, np.asarray([number], np.int32), [cell[inner]], [nucleus[inner]])


def _bridges(cell: Bitmap, gap: int, taken: Bitmap) -> Bitmap:
    """Free pixels that a closing adds and that join pieces; none where these lie farther apart than `gap`."""
    from scipy import ndimage as ndi

    eight = np.ones((3, 3))
    pieces, n = ndi.label(cell, eight)
    bridges = np.zeros_like(cell)
    radius = 0
    while n > 1 and radius < (gap + 1) // 2:
        radius += 1
        rows, columns = np.ogrid[-radius : radius + 1, -radius : radius + 1]
        disc = rows**2 + columns**2 <= radius**2
        added, count = ndi.label(ndi.binary_closing(cell | bridges, disc) & ~(cell | taken), eight)
        for i, place in enumerate(ndi.find_objects(added, count), start=1):
            wide = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in place)
            beside = ndi.binary_dilation(added[wide] == i, eight)
            if len(np.unique(pieces[wide][beside & cell[wide]])) > 1:
                bridges[wide] |= added[wide] == i
        n = ndi.label(cell | bridges, eight)[1]
    return bridges


def _stroke(points: NDArray[np.float64], shape: tuple[int, ...]) -> Bitmap:
    """Pixels of a polyline, lengthened at both ends, in a window; they touch at least by their corners."""
    ends = points[[0, -1]]
    steps = np.hypot(*np.diff(points, axis=0).T)
    points = points[np.concatenate([[True], steps > 0])]  # a click twice in one place has no direction
    grow = max(2.0, LENGTHENED * steps.sum())
    inward = points[[1, -2]] - ends
    ends = ends - grow * inward / np.hypot(*inward.T)[:, None]
    corners = np.concatenate([ends[:1], points, ends[1:]])
    dense = [
        one + (other - one) * np.linspace(0, 1, 2 + int(4 * np.abs(other - one).max()))[:, None]
        for one, other in pairwise(corners)
    ]
    pixels = np.round(np.concatenate(dense)).astype(np.int64)
    pixels = pixels[((pixels >= 0) & (pixels < shape)).all(axis=1)]
    stroke = np.zeros(shape, bool)
    stroke[tuple(pixels.T)] = True
    return stroke


def _parts(cell: Bitmap, stroke: Bitmap) -> NDArray[np.int32]:
    """The two parts of a cell beside a stroke, 1 and 2; the stroke is 0.

    Crumbs, and pieces that the stroke does not cross, go to the nearer part as a whole.

    Raises
    ------
    InputError
        If there are not two of them.
    """
    from scipy import ndimage as ndi

    # An 8-connected stroke separates what is 4-connected.
    parts, n = ndi.label(cell & ~stroke)
    sizes = np.bincount(parts.ravel(), minlength=n + 1)[1:]
    big = np.flatnonzero(sizes >= max(1.0, CRUMB_SHARE * cell.sum())) + 1
    if len(big) > 2:  # a cell in several pieces: those beside the stroke count
        beside = np.unique(parts[ndi.binary_dilation(stroke & cell, np.ones((3, 3)))])
        big = np.intersect1d(big, beside)
    if len(big) != 2:
        does = "does not part the cell" if len(big) < 2 else f"parts the cell into {len(big)} pieces"
        raise InputError(f"The line {does}. Draw it across the cell once, from outside to outside.")
    numbers = np.zeros(n + 1, np.int32)
    numbers[big] = (1, 2)
    rest = np.flatnonzero(numbers[1:] == 0) + 1
    distance, nearest = ndi.distance_transform_edt(~np.isin(parts, big), return_indices=True)
    for part, at in zip(rest, ndi.minimum_position(distance, parts, rest), strict=True):
        numbers[part] = numbers[parts[tuple(nearest[:, *at])]]
    found: NDArray[np.int32] = numbers[parts]
    return found


def _nearest(parts: NDArray[np.int32]) -> NDArray[np.int32]:
    """Give every pixel the number of the part nearest to it."""
    from scipy import ndimage as ndi

    where = ndi.distance_transform_edt(parts == 0, return_distances=False, return_indices=True)
    nearest: NDArray[np.int32] = parts[tuple(where)]
    return nearest
