from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from napari_dinobloom.io.annotations import polygons
from napari_dinobloom.io.annotations.polygons import crosses_itself, fill, trace

BITMAPS = arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))
POINTS = arrays.arrays(np.float64, st.tuples(st.integers(3, 9), st.just(2)), elements=st.integers(-3, 12))


def _crossings(y: Fraction, ring: np.ndarray) -> list[Fraction]:
    """Where the edges of a ring with whole coordinates cross a row, exactly."""
    found = []
    for (ya, xa), (yb, xb) in zip(
        ring.astype(int).tolist(), np.roll(ring, -1, axis=0).astype(int).tolist(), strict=True
    ):
        if (ya <= y) != (yb <= y):
            found.append(xa + (y - ya) / (yb - ya) * (xb - xa))
    return found


@given(POINTS)
@settings(deadline=None)
def test_filling_asks_for_every_centre(points):
    half, window = Fraction(1, 2), (2, 1, 9, 8)
    rows = [_crossings(y + half, points) for y in range(2, 9)]
    drawn = fill([(points,)], window)
    for y, row in enumerate(rows):
        for x in range(1, 8):
            if x + half not in row:  # on an edge, rounding decides
                assert drawn[y, x - 1] == (sum(at < x + half for at in row) % 2 == 1)


@given(BITMAPS)
@settings(max_examples=300, deadline=None)
def test_filling_a_trace_gives_the_bitmap_again(bitmap):
    height, width = bitmap.shape
    assert np.array_equal(fill(trace(bitmap, (5, 7)), (5, 7, 5 + height, 7 + width)), bitmap)


@given(BITMAPS)
@settings(deadline=None)
def test_a_trace_is_made_of_simple_rings_with_as_many_corners_as_needed(bitmap):
    for rings in trace(bitmap):
        for ring in rings:
            assert len({tuple(corner) for corner in ring.tolist()}) == len(ring)  # touches itself nowhere
            steps = np.sign(np.roll(ring, -1, axis=0) - ring)
            assert (np.abs(steps).sum(axis=1) == 1).all()
            assert (steps != np.roll(steps, 1, axis=0)).any(axis=1).all()
            assert crosses_itself(ring) is None


def test_a_ring_of_pixels_has_one_hole():
    bitmap = np.ones((4, 5), bool)
    bitmap[1:3, 1:4] = False
    ((outer, hole),) = trace(bitmap)
    assert {tuple(corner) for corner in outer} == {(0, 0), (0, 5), (4, 5), (4, 0)}
    assert {tuple(corner) for corner in hole} == {(1, 1), (1, 4), (3, 4), (3, 1)}


def test_pieces_that_meet_at_a_corner_are_two_largest_first():
    bitmap = np.array([[1, 0, 0], [0, 1, 1]], bool)
    first, second = trace(bitmap)
    assert first[0].tolist() == [[1, 1], [1, 3], [2, 3], [2, 1]]
    assert second[0].tolist() == [[0, 0], [0, 1], [1, 1], [1, 0]]


def _brute(points: np.ndarray) -> bool:
    """Whether any two edges cross, pair by pair, in whole numbers."""
    edges = list(zip(points.tolist(), np.roll(points, -1, axis=0).tolist(), strict=True))

    def side(a, b, p):
        return np.sign((b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0]))

    return any(
        side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0
        for i, (a, b) in enumerate(edges)
        for c, d in edges[i + 1 :]
    )


@given(POINTS)
@settings(deadline=None)
def test_crossing_edges_are_found(points):
    assert (crosses_itself(points) is not None) == _brute(points)


def test_a_bow_tie_crosses_and_a_square_does_not():
    assert crosses_itself(np.array([[0, 0], [0, 10], [10, 0], [10, 10.0]])) is not None
    assert crosses_itself(np.array([[0, 0], [0, 10], [10, 10], [10, 0.0]])) is None


def test_what_would_take_for_ever_is_refused(monkeypatch):
    monkeypatch.setattr(polygons, "MAX_WORK", 1000)
    zigzag = np.array([[100.0 * (i % 2), i] for i in range(60)])
    with pytest.raises(ValueError, match="60 edges"):
        crosses_itself(zigzag)
    with pytest.raises(ValueError, match="60 edges cross"):
        fill([(zigzag,)], (0, 0, 100, 100))
    square = np.array([[0.0, 0], [0, 10], [10, 10], [10, 0]])
    assert fill([(square,)] * 16, (0, 0, 10, 10)).all()
    with pytest.raises(ValueError, match="17 parts"):
        fill([(square,)] * 17, (0, 0, 10, 10))
