"""Which points a polygon holds, exactly and fast.

**The rule.** A point on the outline is inside; any other is inside where the outline runs around it at least once in
sum, to the left or to the right (non-zero winding). With the other usual rule, even-odd, a lasso that crosses
itself would leave holes that nobody drew. A figure of eight holds both its halves.

**How.** The plane is cut into a grid over the bounding box. Boxes of the grid that the outline does not come near are
wholly inside or outside; that is found for one point of each. Only points in the other boxes are tested against the
edges, which are found by their y. A test is the sign of a determinant (Shewchuk 1997,
doi:10.1007/PL00009321): float64 where its error bound says that the sign is sure, then error-free products where the
differences are exact, else fractions. So the answer is that of exact arithmetic for the float64 numbers given.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.explore.gates.base import Float64, Mask

Int64 = NDArray[np.int64]

EPSILON = 2.0**-53
ORIENT_ERROR = (3 + 16 * EPSILON) * EPSILON
"""Shewchuk's bound ccwerrboundA, relative to the sum of the two products."""
TINY = 1e-290
"""Products below it may have lost bits to underflow."""
SPLITTER = 2.0**27 + 1
PAIRS = 1 << 19
"""Pairs of a point and an edge at a time."""
FEW = 4000
"""With fewer points a grid does not pay."""
SLACK = 1e-6
"""Of a box of the grid: far more than rounding can move a point."""
LEVEL = 1e-3
"""Edges that rise by less than this share of a box count as level: dividing by their rise would enlarge errors."""


def inside_polygon(x: Float64, y: Float64, vertices: Float64, *, side: int | None = None) -> Mask:
    """Say which points a polygon holds.

    Parameters
    ----------
    x, y : ndarray (n,) float64
        Points; NaN is outside.
    vertices : ndarray (k, 2) float64
        Corners in order, finite and at most 1e150; the last is joined to the first.
    side : int, optional
        Boxes along a side of the grid, 0 for no grid. By default it follows the number of points.

    Returns
    -------
    ndarray (n,) bool
        See the rule above.
    """
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    inside = np.asarray((x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1]))
    rows = np.flatnonzero(inside)
    px, py = x[rows], y[rows]
    if side is None:
        side = 0 if len(rows) < FEW else int(np.clip(np.sqrt(len(rows)) / 1.5, 32, 384))
    grid = _Grid.of(vertices, side) if side else None
    if grid is None:
        inside[rows] = _test(px, py, vertices)
        return inside
    kind = grid.look_up(px, py)
    found = kind == _Grid.IN
    ask = np.flatnonzero(kind == _Grid.ASK)
    found[ask] = _test(px[ask], py[ask], vertices)
    inside[rows] = found
    return inside


def is_flat(vertices: Float64) -> bool:
    """Say whether all vertices lie on one line, exactly."""
    if len(vertices) < 3:
        return True
    first = vertices[0]
    far = vertices[np.argmax(np.abs(vertices - first).max(axis=1))]
    n = len(vertices)
    ax, ay, bx, by = (np.full(n, value) for value in (*first, *far))
    return not orientation(ax, ay, bx, by, vertices[:, 0], vertices[:, 1]).any()


def orientation(ax: Float64, ay: Float64, bx: Float64, by: Float64, px: Float64, py: Float64) -> NDArray[np.int8]:
    """Give the side of the line from a to b on which p lies: 1 left, -1 right, 0 on it, exactly.

    Parameters
    ----------
    ax, ay, bx, by, px, py : ndarray (n,) float64
        Coordinates, finite and at most 1e150.

    Returns
    -------
    ndarray (n,) int8
        Sign of (bx - ax)(py - ay) - (px - ax)(by - ay).
    """
    left, right = (bx - ax) * (py - ay), (px - ax) * (by - ay)
    det = left - right
    sign = np.sign(det).astype(np.int8)
    unsure = np.flatnonzero(~(np.abs(det) > ORIENT_ERROR * (np.abs(left) + np.abs(right)) + TINY))
    if len(unsure):
        sign[unsure] = _sure(*(values[unsure] for values in (ax, ay, bx, by, px, py)))
    return sign


def _sure(ax: Float64, ay: Float64, bx: Float64, by: Float64, px: Float64, py: Float64) -> NDArray[np.int8]:
    """Do what `orientation` does where plain float64 is not sure."""
    pairs = ((bx, ax), (py, ay), (px, ax), (by, ay))
    factors = [p - q for p, q in pairs]
    exact = np.ones(len(ax), dtype=bool)
    for (p, q), difference in zip(pairs, factors, strict=True):
        exact &= _tail(p, q, difference) == 0
    left, left_tail = _product(factors[0], factors[1])
    right, right_tail = _product(factors[2], factors[3])
    # Rounding keeps the order, so that rounded products that differ decide; else what was rounded away does.
    sign = np.where(left != right, np.sign(left - right), np.sign(left_tail - right_tail)).astype(np.int8)
    for value, parts in ((left, factors[:2]), (right, factors[2:])):
        exact &= (np.abs(value) > TINY) | (parts[0] == 0) | (parts[1] == 0)
    for i in np.flatnonzero(~exact):
        fax, fay, fbx, fby, fpx, fpy = (Fraction(float(v[i])) for v in (ax, ay, bx, by, px, py))
        det = (fbx - fax) * (fpy - fay) - (fpx - fax) * (fby - fay)
        sign[i] = (det > 0) - (det < 0)
    return sign


def _tail(p: Float64, q: Float64, difference: Float64) -> Float64:
    """Give what rounding took from p - q (Knuth's two-sum)."""
    virtual = p - difference
    return np.asarray((p - (difference + virtual)) + (virtual - q))


def _product(p: Float64, q: Float64) -> tuple[Float64, Float64]:
    """Give the rounded product and what rounding took from it (Dekker)."""
    (p_high, p_low), (q_high, q_low) = _split(p), _split(q)
    rounded = p * q
    return rounded, p_low * q_low - (((rounded - p_high * q_high) - p_low * q_high) - p_high * q_low)


def _split(p: Float64) -> tuple[Float64, Float64]:
    big = SPLITTER * p
    high = big - (big - p)
    return high, p - high


def _test(px: Float64, py: Float64, vertices: Float64) -> Mask:
    """Test points against the edges whose range of y holds theirs."""
    inside = np.zeros(len(px), dtype=bool)
    if not len(px):
        return inside
    order = np.argsort(py)
    x, y = px[order], py[order]
    a, b = vertices, np.roll(vertices, -1, axis=0)
    first = np.searchsorted(y, np.minimum(a[:, 1], b[:, 1]), "left")
    counts = np.searchsorted(y, np.maximum(a[:, 1], b[:, 1]), "right") - first
    winding, border = np.zeros(len(x), dtype=np.int64), np.zeros(len(x), dtype=bool)
    ends = np.cumsum(counts)
    start = 0
    while start < len(a):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + PAIRS, "right")), start + 1)
        edge = np.repeat(np.arange(start, stop), counts[start:stop])
        point = np.arange(len(edge)) - (ends[edge] - counts[edge] - done) + first[edge]
        _wind(x, y, a, b, edge, point, winding, border)
        start = stop
    inside[order] = (winding != 0) | border
    return inside


def _wind(
    x: Float64, y: Float64, a: Float64, b: Float64, edge: Int64, point: Int64, winding: Int64, border: Mask
) -> None:
    """Count for pairs of edge and point how the edge turns around the point; `winding` and `border` are changed."""
    ax, ay, bx, by = a[edge, 0], a[edge, 1], b[edge, 0], b[edge, 1]
    px, py = x[point], y[point]
    side = orientation(ax, ay, bx, by, px, py)
    on = (side == 0) & (px >= np.minimum(ax, bx)) & (px <= np.maximum(ax, bx))
    border[point[on]] = True
    # An edge has its lower end and not its upper one, so that a vertex between two edges counts once.
    up = (ay <= py) & (py < by) & (side > 0)
    down = (by <= py) & (py < ay) & (side < 0)
    n = len(winding)
    winding += np.bincount(point[up], minlength=n) - np.bincount(point[down], minlength=n)


class _Grid:
    """Boxes over the bounding box of a polygon: wholly in, wholly out, or near the outline.

    The place of a point in the grid, counted in boxes, has an error below 1e-12 for up to 384 boxes. Boxes within
    `SLACK` of an edge count as near, so that no point in another one has the outline between itself and the middle of
    its box.
    """

    OUT, IN, ASK = 0, 1, 2

    def __init__(self, low: Float64, scale: Float64, kinds: NDArray[np.uint8]) -> None:
        self.low, self.scale, self.kinds = low, scale, kinds

    @classmethod
    def of(cls, vertices: Float64, side: int) -> _Grid | None:
        """Return the grid, or None where float64 cannot divide the box as finely."""
        low = vertices.min(axis=0)
        extent = vertices.max(axis=0) - low
        if not (extent > TINY).all():
            return None
        scale = side / extent
        near = _near((vertices - low) * scale, side)
        # Each run of boxes of a row without an edge between them is in or out as a whole; its first box is tested.
        starts = ~near
        starts[:, 1:] &= near[:, :-1]
        row, col = np.nonzero(starts)
        middle = [low[0] + (col + 0.5) / scale[0], low[1] + (row + 0.5) / scale[1]]
        for axis, place in ((0, col), (1, row)):
            if (np.clip((middle[axis] - low[axis]) * scale[axis], 0, side - 1).astype(np.int64) != place).any():
                return None
        kinds = np.zeros((side, side), dtype=np.int64)
        kinds[row, col] = np.where(_test(middle[0], middle[1], vertices), cls.IN, cls.OUT)
        last = np.maximum.accumulate(np.where(starts, np.arange(side), 0), axis=1)
        kinds = np.take_along_axis(kinds, last, axis=1)
        kinds[near] = cls.ASK
        return cls(low, scale, kinds.astype(np.uint8).ravel())

    def look_up(self, x: Float64, y: Float64) -> NDArray[np.uint8]:
        """Give the kind of the box of each point of the bounding box."""
        side = round(len(self.kinds) ** 0.5)
        col, row = (
            np.minimum(((values - self.low[axis]) * self.scale[axis]).astype(np.int32), side - 1)
            for axis, values in ((0, x), (1, y))
        )
        return np.asarray(self.kinds[row * side + col])


def _near(corners: Float64, side: int) -> Mask:
    """Say which boxes an edge comes to within `SLACK`; `corners` (k, 2) in boxes."""
    ends = np.roll(corners, -1, axis=0)
    x0, y0, x1, y1 = corners[:, 0], corners[:, 1], ends[:, 0], ends[:, 1]
    top, bottom = _boxes(np.minimum(y0, y1), np.maximum(y0, y1), side)
    counts = bottom - top + 1
    edge = np.repeat(np.arange(len(corners)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + top[edge]
    x0, y0, x1, y1 = x0[edge], y0[edge], x1[edge], y1[edge]
    level = np.abs(y1 - y0) < LEVEL
    rise = np.where(level, 1.0, y1 - y0)
    # The part of the edge between the lower and the upper side of the row; a level edge as a whole.
    parts = ((row - SLACK, 0), (row + 1 + SLACK, 1))
    xs = [x0 + (x1 - x0) * np.where(level, whole, np.clip((at - y0) / rise, 0, 1)) for at, whole in parts]
    left, right = _boxes(np.minimum(*xs), np.maximum(*xs), side)
    steps = np.zeros((side, side + 1), dtype=np.int32)
    np.add.at(steps, (row, left), 1)
    np.add.at(steps, (row, right + 1), -1)
    return np.asarray(np.cumsum(steps, axis=1)[:, :side] > 0)


def _boxes(low: Float64, high: Float64, side: int) -> tuple[Int64, Int64]:
    """Give the first and the last box that a range comes to within `SLACK`."""
    first, last = np.floor(low - SLACK).astype(np.int64), np.floor(high + SLACK).astype(np.int64)
    return np.clip(first, 0, side - 1), np.clip(last, 0, side - 1)
