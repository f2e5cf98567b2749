"""Cells seen twice because two fields of a slide overlap, so that each is counted once.

A look-alike in another field suggests by how much the two fields are shifted against each other; the
fields' small pictures then have to agree over their whole overlap at that shift. Only after that are
cells at the same place taken for one cell. Two cells that merely look alike never are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_dinobloom.explore.neighbours import exact_neighbours
from napari_dinobloom.io.vectors import Vectors

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

VERSION = 1
"""Raised when the same input would flag other cells."""

CANDIDATES = 5
"""Nearest cells of other fields that suggest a shift."""

AGREEMENT = 0.9
"""Least normalised cross-correlation over the overlap."""

COARSE_AGREEMENT = 0.5
"""Least correlation of the pictures at a quarter of the size, which spares most fine comparisons."""

SEARCH = 3
"""Pixels of the small pictures by which a suggested shift may be off, in each direction."""

LEAST_SIDE = 1.0
"""Least height and width of an overlap, in cell diameters: a narrower one shows no whole cell in both fields."""

LEAST_AREA = 3.0
"""Least area of an overlap, in squared cell diameters: two cells alike are not enough to go by."""

SAME_PLACE = 0.5
"""Largest distance of two outlines' centres, in cell diameters, to be one cell."""


Thumbnails = Callable[[str], tuple[npt.NDArray[np.uint8], float]]
"""Gives the small picture (h, w, 3) of a field and how many pixels of the field make one of its pixels."""


def find_duplicates(table: pd.DataFrame, X: npt.ArrayLike, thumbnails: Thumbnails) -> pd.Series[str]:
    """Find cells that lie in the overlap of two fields of a slide and are there twice.

    Parameters
    ----------
    table : DataFrame
        One row a cell; index = cell_id. Read: ``field``, ``slide``, ``y``, ``x`` (centre), ``y0 x0 y1 x1``
        (box), all in pixels of the field; where present also ``touches_border``, ``deleted``, ``excluded``.
    X : array (n, D), or Vectors
        Embeddings, row by row; rows with undefined numbers suggest nothing.
    thumbnails : callable
        Given a field, returns its small picture (h, w, 3) uint8, each pixel the mean of a block of the
        field, and the block's side in pixels of the field (at least 1). Asked once per field, and only for
        fields with a look-alike in another one. Fields of different block sides are not compared; a cell
        should be at least 12 pixels wide in the small picture.

    Returns
    -------
    Series of str
        ``duplicate_of`` by cell_id: the cell that counts, "" where the cell itself counts. Of the
        copies of a cell, the first in the table that does not touch the border of its field counts,
        so that no cell is lost by being cut in the one and a duplicate in the other.

    Notes
    -----
    Two fields overlap where the normalised cross-correlation of their pictures, the local mean taken
    out, is at least 0.9 over the whole overlap at a shift that two look-alike cells suggest (+- 3 pixels
    of the small pictures), and the overlap is at least a cell high and wide and as large as three
    squared cells. Fields that are copies of each other overlap entirely.
    """
    result = pd.Series("", index=table.index, dtype=object, name="duplicate_of")
    x = X if isinstance(X, Vectors) else Vectors(np.asarray(X, np.float32))
    if len(x) != len(table):
        raise ValueError(f"X has {len(x)} rows, the table {len(table)}; both need one row a cell.")
    usable = x.finite()
    if "deleted" in table:
        usable &= ~table["deleted"].to_numpy(bool)
    pictures = lru_cache(maxsize=1024)(lambda field: _Picture(*thumbnails(field)))
    rows = np.flatnonzero(usable)
    codes, slides = pd.factorize(table["slide"].to_numpy()[rows])
    parts = np.split(rows[np.argsort(codes, kind="stable")], np.cumsum(np.bincount(codes)))
    for part in parts[: len(slides)]:
        for keep, copies in _slide_duplicates(table, x, part, pictures):
            result.iloc[copies] = str(table.index[keep])
    return result


class _Picture:
    """A small picture prepared for comparison: grey, and with the local mean taken out at two sizes."""

    def __init__(self, image: npt.NDArray[np.uint8], factor: float) -> None:
        self.factor = factor
        self.grey: Float32 = image.mean(2, dtype=np.float32)
        self.fine = _flattened(self.grey, min(self.grey.shape) // 4)
        self.coarse = _quarter(self.fine)


def _flattened(grey: Float32, size: int) -> Float32:
    """Take the slow changes of illumination out, which all fields of a slide share."""
    from scipy.ndimage import uniform_filter

    flat: Float32 = grey - uniform_filter(grey, max(3, size), mode="reflect")
    return flat


def _quarter(grey: Float32) -> Float32:
    height, width = (length // 4 for length in grey.shape)
    if not height or not width:
        return grey[:0, :0]
    quarter: Float32 = grey[: height * 4, : width * 4].reshape(height, 4, width, 4).mean((1, 3))
    return quarter


def _slide_duplicates(
    table: pd.DataFrame, x: Vectors, rows: Int64, pictures: Callable[[str], _Picture]
) -> Iterator[tuple[int, list[int]]]:
    """Yield (row that counts, rows that are copies of it) for the cells of one slide."""
    fields = table["field"].to_numpy()[rows]
    if len(rows) < 2 or len(set(fields)) < 2:
        return
    centres, boxes = (
        np.column_stack([table[name].to_numpy()[rows] for name in names]).astype(np.float64)
        for names in (("y", "x"), ("y0", "x0", "y1", "x1"))
    )
    sizes = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    diameter = float(np.median(sizes))
    overlaps: list[tuple[str, str, Float64]] = []
    for one, other, shifts in _suggested(fields, centres, x[rows]):
        shift = _verified(pictures(one), pictures(other), shifts, diameter)
        if shift is not None:
            overlaps.append((one, other, shift))
    pairs = [pair for overlap in overlaps for pair in _same_places(fields, centres, overlap, diameter)]
    cut = table["touches_border"].to_numpy(bool)[rows] if "touches_border" in table else np.zeros(len(rows), bool)
    if "excluded" in table:
        cut = cut | table["excluded"].to_numpy(bool)[rows]
    for group in _groups(pairs, fields):
        keep = min(group, key=lambda i: (cut[i], rows[i]))
        yield int(rows[keep]), [int(rows[i]) for i in group if i != keep]


def _suggested(fields: npt.NDArray[np.object_], centres: Float64, x: Float32) -> list[tuple[str, str, Float64]]:
    """Give pairs of fields with the shifts (s, 2) that look-alike cells suggest, each pair once.

    A shift is what has to be added to a place in the second field to find it in the first.
    """
    found, _ = exact_neighbours(x, x, min(CANDIDATES, len(x)), groups=(fields.astype(str), fields.astype(str)))
    pairs: dict[tuple[str, str], list[Float64]] = {}
    for cell, neighbour in zip(*np.nonzero(found >= 0), strict=True):
        a, b = int(cell), int(found[cell, neighbour])
        if fields[a] > fields[b]:
            a, b = b, a
        pairs.setdefault((fields[a], fields[b]), []).append(centres[a] - centres[b])
    return [(one, other, np.array(shifts)) for (one, other), shifts in sorted(pairs.items())]


def _verified(one: _Picture, other: _Picture, shifts: Float64, diameter: float) -> Float64 | None:
    """Give the shift, in pixels of the field, at which two fields agree over their overlap; None without."""
    if one.factor != other.factor:
        return None
    small = diameter / one.factor
    best = AGREEMENT
    best_shift: Float64 | None = None
    tried: set[tuple[int, ...]] = set()
    for shift in np.unique(np.rint(shifts / one.factor).astype(int), axis=0):
        coarse = np.rint(shift / 4).astype(int)
        if _best(one.coarse, other.coarse, coarse, 1, small / 4)[0] < COARSE_AGREEMENT:
            continue
        near, moved = _best(one.fine, other.fine, shift, SEARCH, small)
        if near < COARSE_AGREEMENT or tuple(moved) in tried:
            continue
        tried.add(tuple(moved))
        agreement, precise = _agreement(one, other, moved, small)
        if agreement >= best:
            best, best_shift = agreement, precise
    return None if best_shift is None else best_shift * one.factor


def _agreement(one: _Picture, other: _Picture, shift: Int64, diameter: float) -> tuple[float, Float64]:
    """Correlation over the overlap after a shift by part of a pixel, and the whole shift.

    The local mean is taken out of both sides of the overlap alone, since beyond a field's border it is unknown.
    """
    from scipy.ndimage import shift as shifted

    part = np.zeros(2)
    centre = _correlation(one.fine, other.fine, shift, diameter)
    for axis, step in enumerate(np.eye(2, dtype=int)):
        before, after = (_correlation(one.fine, other.fine, shift + sign * step, diameter) for sign in (-1, 1))
        bend = before - 2 * centre + after
        part[axis] = np.clip((before - after) / (2 * bend), -0.5, 0.5) if bend < 0 and min(before, after) > -1 else 0
    ours, theirs = _overlap(one.grey, other.grey, shift)
    size = int(min(diameter, min(ours.shape)))
    a, b = _flattened(ours, size), _flattened(shifted(theirs, part, order=1, mode="nearest"), size)
    return _normalised(a, b), shift + part


def _best(one: Float32, other: Float32, shift: Int64, reach: int, diameter: float) -> tuple[float, Int64]:
    """Find the shift within `reach` of the given one at which the overlap agrees best."""
    best, best_shift = -1.0, shift
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            moved = shift + np.array((dy, dx))
            agreement = _correlation(one, other, moved, diameter)
            if agreement > best:
                best, best_shift = agreement, moved
    return best, best_shift


def _correlation(one: Float32, other: Float32, shift: Int64, diameter: float) -> float:
    """Normalised cross-correlation where `one` and the shifted `other` overlap; -1 where that is too small."""
    a, b = _overlap(one, other, shift)
    enough = min(a.shape) >= max(LEAST_SIDE * diameter, 2) and a.size >= LEAST_AREA * diameter**2
    return _normalised(a, b) if enough else -1.0


def _overlap(one: Float32, other: Float32, shift: Int64) -> tuple[Float32, Float32]:
    """Cut from both pictures what they share when `other` is moved by `shift` into the frame of `one`."""
    top, left = np.maximum(shift, 0)
    bottom, right = np.maximum(np.minimum(one.shape, np.array(other.shape) + shift), (top, left))
    dy, dx = shift
    return one[top:bottom, left:right], other[top - dy : bottom - dy, left - dx : right - dx]


def _normalised(a: Float32, b: Float32) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt(np.vdot(a, a) * np.vdot(b, b)))
    return float(np.vdot(a, b)) / scale if scale > 0 else -1.0


def _same_places(
    fields: npt.NDArray[np.object_], centres: Float64, overlap: tuple[str, str, Float64], diameter: float
) -> list[tuple[int, int]]:
    """Pair the cells of two overlapping fields that lie at the same place, nearest ones of each other only."""
    one, other = np.flatnonzero(fields == overlap[0]), np.flatnonzero(fields == overlap[1])
    apart = centres[one][:, None] - (centres[other] + overlap[2])[None]
    distance = np.sqrt(np.square(apart).sum(2))
    nearest, back = distance.argmin(1), distance.argmin(0)
    return [
        (int(one[i]), int(other[j]))
        for i, j in enumerate(nearest)
        if back[j] == i and distance[i, j] <= SAME_PLACE * diameter
    ]


def _groups(pairs: list[tuple[int, int]], fields: npt.NDArray[np.object_]) -> list[list[int]]:
    """Join pairs into groups of one cell each, never two cells of one field in a group."""
    member: dict[int, list[int]] = {}
    for a, b in sorted(pairs):
        first, second = member.get(a, [a]), member.get(b, [b])
        if first is second or {fields[i] for i in first} & {fields[i] for i in second}:
            continue
        joined = first + second
        member |= dict.fromkeys(joined, joined)
    return list({id(group): group for group in member.values()}.values())
