"""Polygons and bitmaps: fill the one, trace the other, exactly; and tell whether a line crosses itself.

A pixel belongs to a polygon if its centre lies inside (even-odd rule). The trace of a bitmap follows the edges of its
pixels, so that filling it gives the bitmap again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Bitmap = NDArray[np.bool_]
Ring = NDArray[np.float64]
"""(k, 2) float64 of y, x in pixels, not closed."""
Polygon = tuple[Ring, ...]
"""Outer ring, then its holes."""

MAX_WORK = 20_000_000
"""Most pairs of edges, or rows crossed by edges, that one outline may cost."""

OVERDRAWN = 16
"""Times that the parts of one outline may cover its window."""


def fill(polygons: Sequence[Polygon], box: tuple[int, int, int, int]) -> Bitmap:
    """Draw polygons into a window.

    Parameters
    ----------
    polygons : sequence of Polygon
        Rings in pixels of the image; what lies outside the window is cut off.
    box : (int, int, int, int)
        y0, x0, y1, x1 of the window.

    Returns
    -------
    numpy.ndarray
        (y1 - y0, x1 - x0) bool.

    Raises
    ------
    ValueError
        If a polygon crosses more rows than `MAX_WORK` in all, or its parts cover one another too often.
    """
    y0, x0, y1, x1 = box
    drawn = np.zeros((y1 - y0, x1 - x0), bool)
    spare = max(MAX_WORK, OVERDRAWN * drawn.size)
    for rings in polygons:
        low, high = rings[0].min(axis=0), rings[0].max(axis=0)
        top, left = (int(v) for v in np.clip(np.floor(low), (y0, x0), (y1, x1)))
        bottom, right = (int(v) for v in np.clip(np.ceil(high), (y0, x0), (y1, x1)))
        spare -= (bottom - top) * (right - left)
        if spare < 0:
            raise ValueError(f"its {len(polygons):,} parts lie over each other")
        part = drawn[top - y0 : bottom - y0, left - x0 : right - x0]
        part |= _fill_rings(rings, (top, left), part.shape)
    return drawn


def _fill_rings(rings: Polygon, corner: tuple[int, int], shape: tuple[int, ...]) -> Bitmap:
    """Fill rings by the even-odd rule: every edge flips the pixels to its right in the rows that it crosses."""
    starts = np.concatenate(rings) - np.asarray(corner) - 0.5  # centres of pixels have whole numbers now
    ends = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings]) - np.asarray(corner) - 0.5
    upper, lower = np.minimum(starts[:, 0], ends[:, 0]), np.maximum(starts[:, 0], ends[:, 0])
    first = np.clip(np.ceil(upper), 0, shape[0]).astype(np.int64)
    count = np.clip(np.ceil(lower), 0, shape[0]).astype(np.int64) - first
    if int(count.sum()) > MAX_WORK:
        raise ValueError(f"its {len(starts):,} edges cross {int(count.sum()):,} rows")
    edge = np.repeat(np.arange(len(starts)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    (ya, xa), (yb, xb) = starts[edge].T, ends[edge].T
    column = np.clip(np.ceil(xa + (row - ya) / (yb - ya) * (xb - xa)), 0, shape[1]).astype(np.int64)
    flips = np.zeros((shape[0], shape[1] + 1), np.uint8)
    np.add.at(flips, (row, column), np.uint8(1))
    odd: Bitmap = np.bitwise_xor.accumulate(flips[:, :-1] & 1, axis=1).astype(bool)
    return odd


def trace(bitmap: Bitmap, corner: tuple[int, int] = (0, 0)) -> tuple[Polygon, ...]:
    """Outline the pieces of a bitmap along the edges of its pixels.

    Parameters
    ----------
    bitmap : numpy.ndarray
        (h, w) bool.
    corner : (int, int)
        y, x of its first pixel in the image.

    Returns
    -------
    tuple of Polygon
        One for each piece (pixels that share an edge), largest first, with whole coordinates.
    """
    from scipy import ndimage as ndi

    labels, count = ndi.label(bitmap)
    pieces = []
    for number, place in enumerate(ndi.find_objects(labels), start=1):
        rings = _trace_piece(labels[place] == number)
        shift = np.asarray([place[0].start + corner[0], place[1].start + corner[1]])
        pieces.append(tuple(ring + shift for ring in rings))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return tuple(pieces[i] for i in np.argsort(-sizes, kind="stable"))


def _trace_piece(piece: Bitmap) -> list[Ring]:
    """Rings of one piece, the outer first: walk along pixel edges with the inside to the right.

    Where two of its pixels meet at a corner only, the walk turns left, so that no ring touches itself.
    """
    left = _boundary(piece)
    rings = []
    while left:
        start = next(iter(left))
        first = step = left[start].pop()
        corners, here = [start], (start[0] + step[0], start[1] + step[1])
        while True:
            options, turn = left[here], (-step[1], step[0])
            if here == start and (not options or turn == first):
                break
            ahead = options.pop(options.index(turn) if turn in options else 0)
            if ahead != step:
                corners.append(here)
                step = ahead
            if not options:
                del left[here]
            here = (here[0] + step[0], here[1] + step[1])
        if not left[start]:
            del left[start]
        rings.append(np.asarray(corners if step != first else corners[1:], np.float64))
    return sorted(rings, key=lambda ring: -float(np.ptp(ring[:, 0]) * np.ptp(ring[:, 1])))


def _boundary(piece: Bitmap) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Steps along pixel edges that leave each corner, clockwise around every pixel."""
    padded = np.pad(piece, 1)
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for (dy, dx), (ay, ax), step in (
        ((-1, 0), (0, 0), (0, 1)),
        ((0, 1), (0, 1), (1, 0)),
        ((1, 0), (1, 1), (0, -1)),
        ((0, -1), (1, 0), (-1, 0)),
    ):
        beside = padded[1 + dy : 1 + dy + piece.shape[0], 1 + dx : 1 + dx + piece.shape[1]]
        for y, x in np.argwhere(piece & ~beside).tolist():
            steps.setdefault((y + ay, x + ax), []).append(step)
    return steps


def crosses_itself(ring: Ring) -> tuple[float, float] | None:
    """Find a place where two edges of a ring cross; touching and running along one another is not crossing.

    Returns
    -------
    (float, float) or None
        y, x of the start of one such edge.

    Raises
    ------
    ValueError
        If more than `MAX_WORK` pairs of edges lie beside each other.
    """
    ends = np.roll(ring, -1, axis=0)
    low, high = np.minimum(ring, ends), np.maximum(ring, ends)
    order = np.argsort(low[:, 0], kind="stable")
    ring, ends, low, high = ring[order], ends[order], low[order], high[order]
    count = np.searchsorted(low[:, 0], high[:, 0], side="right") - np.arange(len(ring)) - 1
    if int(count.sum()) > MAX_WORK:
        raise ValueError(f"{len(ring):,} edges beside each other")
    one = np.repeat(np.arange(len(ring)), count)
    two = np.arange(len(one)) - np.repeat(np.cumsum(count) - count, count) + one + 1
    near = (low[one, 1] <= high[two, 1]) & (low[two, 1] <= high[one, 1])
    one, two = one[near], two[near]
    sides = _side(ring[one], ends[one], ring[two]) * _side(ring[one], ends[one], ends[two]) < 0
    sides &= _side(ring[two], ends[two], ring[one]) * _side(ring[two], ends[two], ends[one]) < 0
    if not sides.any():
        return None
    y, x = ring[one[np.argmax(sides)]].tolist()
    return y, x


def _side(start: Ring, end: Ring, point: Ring) -> NDArray[np.float64]:
    """On which side of the line from `start` to `end` each point lies: -1, 0 on it, 1."""
    along, to = end - start, point - start
    side: NDArray[np.float64] = np.sign(along[:, 0] * to[:, 1] - along[:, 1] * to[:, 0])
    return side
