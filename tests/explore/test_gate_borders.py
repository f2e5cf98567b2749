"""Gates against the plain definition in exact fractions: borders, corners, self-intersections, rotation."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dinobloom.explore.gates import EllipseGate, GateError, PolygonGate, QuadrantGate, RangeGate, RectangleGate
from napari_dinobloom.explore.gates.ellipse import direction
from napari_dinobloom.explore.gates.winding import inside_polygon, orientation

XY = ("x", "y")
Point = tuple[float, float]


def side_of(a: Point, b: Point, p: Point) -> int:
    (ax, ay), (bx, by), (px, py) = (tuple(map(Fraction, q)) for q in (a, b, p))
    det = (bx - ax) * (py - ay) - (px - ax) * (by - ay)
    return (det > 0) - (det < 0)


def oracle(p: Point, vertices: list[Point]) -> bool:
    """Non-zero winding by the crossings of a ray to the right; the outline is inside."""
    winding = 0
    for a, b in zip(vertices, vertices[1:] + vertices[:1], strict=True):
        side = side_of(a, b, p)
        if side == 0 and min(a[0], b[0]) <= p[0] <= max(a[0], b[0]) and min(a[1], b[1]) <= p[1] <= max(a[1], b[1]):
            return True
        if a[1] <= p[1] < b[1] and side > 0:
            winding += 1
        elif b[1] <= p[1] < a[1] and side < 0:
            winding -= 1
    return winding != 0


def table(points: list[Point]) -> pd.DataFrame:
    return pd.DataFrame(np.array(points, dtype=float).reshape(-1, 2), columns=list(XY))


whole = st.integers(-4, 4).map(float)
tenth = st.integers(-40, 40).map(lambda i: i / 10)  # not exact in binary: points near edges, not on them
wild = st.floats(-1e3, 1e3, allow_nan=False, allow_subnormal=False)
number = st.one_of(whole, tenth, wild)
corners = st.lists(st.tuples(number, number), min_size=3, max_size=9)


@settings(max_examples=80, deadline=None)
@given(
    vertices=corners, others=st.lists(st.tuples(number, number), max_size=10), side=st.sampled_from([0, 1, 2, 7, 40])
)
def test_a_polygon_holds_what_the_definition_says(vertices: list[Point], others: list[Point], side: int) -> None:
    """Random points, all corners, points on or beside the middle of every edge, and their next floats."""
    ends = list(zip(vertices, vertices[1:] + vertices[:1], strict=True))
    middles = [((a[0] + b[0]) / 2, (a[1] + b[1]) / 2) for a, b in ends]
    beside = [(math.nextafter(x, math.inf), y) for x, y in middles] + [
        (x, math.nextafter(y, -math.inf)) for x, y in vertices
    ]
    points = [*others, *vertices, *middles, *beside]
    xy = np.array(points)
    found = inside_polygon(xy[:, 0], xy[:, 1], np.array(vertices), side=side)
    assert found.tolist() == [oracle(p, vertices) for p in points]


@settings(max_examples=80, deadline=None)
@given(a=st.tuples(number, number), b=st.tuples(number, number), share=st.integers(0, 8))
def test_the_side_of_a_line_is_exact_where_floats_are_not(a: Point, b: Point, share: int) -> None:
    p = (a[0] + (b[0] - a[0]) * share / 8, a[1] + (b[1] - a[1]) * share / 8)
    near = [(math.nextafter(p[0], e), math.nextafter(p[1], f)) for e in (-1e9, p[0], 1e9) for f in (-1e9, p[1], 1e9)]
    xy = np.array(near)
    columns = [np.full(len(near), value) for value in (*a, *b)]
    assert orientation(*columns, xy[:, 0], xy[:, 1]).tolist() == [side_of(a, b, q) for q in near]


@pytest.mark.parametrize("scale", [2.0**-465, 2.0**-530, 2.0**465])
def test_products_that_underflow_or_are_huge_are_exact_too(scale: float) -> None:
    vertices = [(0.0, 0.0), (3 * scale, scale), (scale, 3 * scale)]
    points = [
        (scale, scale),
        (1.5 * scale, 0.5 * scale),
        (1.5 * scale, 0.4999 * scale),
        (2 * scale, 2 * scale),
        (0.0, scale),
    ]
    xy = np.array(points)
    found = inside_polygon(xy[:, 0], xy[:, 1], np.array(vertices))
    assert found.tolist() == [True, True, False, True, False] == [oracle(p, vertices) for p in points]


def lasso(seed: int, k: int = 200) -> np.ndarray:
    """A freehand line that crosses itself now and then."""
    random = np.random.default_rng(seed)
    t = np.linspace(0, 4 * np.pi, k, endpoint=False)
    radius = 2 + 0.7 * np.sin(2.5 * t) + 0.05 * random.normal(size=k)
    return np.column_stack([radius * np.cos(t), radius * np.sin(t)])


def test_the_grid_changes_nothing_for_many_points() -> None:
    random = np.random.default_rng(1)
    for seed in range(3):
        vertices = np.round(lasso(seed), 1)
        x, y = np.round(random.normal(size=(2, 8_000)) * 1.6, 1)  # a tenth of them on edges or corners
        plain = inside_polygon(x, y, vertices, side=0)
        np.testing.assert_array_equal(inside_polygon(x, y, vertices), plain)
        some = random.choice(len(x), 30, replace=False)
        pairs = [tuple(v) for v in vertices.tolist()]
        assert plain[some].tolist() == [oracle((x[i], y[i]), pairs) for i in some.tolist()]


def test_overlaps_of_a_lasso_are_no_holes_and_both_halves_of_an_eight_are_inside() -> None:
    twice = [(0, 0), (4, 0), (4, 4), (0, 4), (0, 0), (3, 0), (3, 3), (0, 3)]
    eight = [(0, 0), (2, 2), (2, 0), (0, 2)]
    points = table([(1, 1), (3.5, 3.5), (5, 1)])
    assert PolygonGate(name="twice", axes=XY, vertices=twice).apply(points).tolist() == [True, True, False]
    halves = table([(0.2, 1), (1.8, 1), (1, 1), (1, 0.5), (1, 1.5)])
    assert PolygonGate(name="eight", axes=XY, vertices=eight).apply(halves).tolist() == [True, True, True, False, False]


def test_closed_and_repeated_corners_change_nothing() -> None:
    random = np.random.default_rng(0)
    cells = table([tuple(p) for p in random.integers(-5, 6, (400, 2)).tolist()])
    corners_ = [(-4, -4), (4, -3), (0, 4)]
    open_ = PolygonGate(name="a", axes=XY, vertices=corners_).apply(cells)
    closed = PolygonGate(name="a", axes=XY, vertices=[corners_[0], *corners_, corners_[0]]).apply(cells)
    turned = PolygonGate(name="a", axes=XY, vertices=corners_[::-1]).apply(cells)
    assert 0 < open_.sum() < 400
    np.testing.assert_array_equal(open_, closed)
    np.testing.assert_array_equal(open_, turned)


@pytest.mark.parametrize(
    "vertices",
    [
        [(0, 0), (1, 1)],
        [(0, 0), (0, 0), (0, 0)],
        [(0, 0), (1, 1), (2, 2), (7, 7)],
        [(0.1, 0.1), (0.3, 0.3), (0.2, 0.2)],
        [],
    ],
)
def test_a_polygon_that_encloses_nothing_is_refused(vertices: list[Point]) -> None:
    with pytest.raises(GateError, match="'blasts'"):
        PolygonGate(name="blasts", axes=XY, vertices=vertices)


def test_a_polygon_that_is_flat_but_for_one_rounding_is_no_line() -> None:
    PolygonGate(name="thin", axes=XY, vertices=[(0, 0), (0.1, 0.1), (1, math.nextafter(1, 2))])


@settings(max_examples=60, deadline=None)
@given(
    center=st.tuples(tenth, tenth),
    half=st.tuples(st.integers(1, 50).map(lambda i: i / 10), st.integers(1, 50).map(lambda i: i / 10)),
    angle=st.one_of(st.sampled_from([0.0, 90.0, 180.0, -90.0, 450.0, 45.0]), st.floats(-400, 400)),
)
def test_an_ellipse_holds_what_the_definition_says(center: Point, half: Point, angle: float) -> None:
    c, s = direction(angle)
    rim = [
        (
            center[0] + half[0] * math.cos(t) * c - half[1] * math.sin(t) * s,
            center[1] + half[0] * math.cos(t) * s + half[1] * math.sin(t) * c,
        )
        for t in np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ]
    points = [*rim, center, (center[0] + half[0], center[1]), (0.0, 0.0), (3.0, -1.0)]
    gate = EllipseGate(name="e", axes=XY, center=center, half_axes=half, angle=angle)
    (fx, fy), (fa, fb), (fc, fs) = (tuple(map(Fraction, pair)) for pair in (center, half, (c, s)))
    truth = []
    for px, py in points:
        dx, dy = Fraction(px) - fx, Fraction(py) - fy
        truth.append(((fc * dx + fs * dy) / fa) ** 2 + ((fc * dy - fs * dx) / fb) ** 2 <= 1)
    assert gate.apply(table(points)).tolist() == truth


def test_right_angles_swap_the_half_axes_exactly() -> None:
    cells = table([(3, 0), (0, 1), (0, 3), (1, 0), (math.nextafter(3, 4), 0)])
    for angle, inside in ((0, [1, 1, 0, 1, 0]), (90, [0, 1, 1, 1, 0]), (180, [1, 1, 0, 1, 0])):
        gate = EllipseGate(name="e", axes=XY, center=(0, 0), half_axes=(3, 1), angle=angle)
        assert gate.apply(cells).tolist() == [bool(i) for i in inside]


def test_an_ellipse_from_a_covariance_is_the_mahalanobis_rule() -> None:
    random = np.random.default_rng(3)
    points = random.normal(size=(500, 2)) * 4
    matrix, middle = np.array([[4.0, 1.5], [1.5, 1.0]]), (0.5, -0.25)
    gate = EllipseGate.from_covariance(name="m", axes=XY, center=middle, covariance_matrix=matrix, distance_square=3.0)
    offset = points - middle
    distance = np.einsum("ni,ij,nj->n", offset, np.linalg.inv(matrix), offset)
    np.testing.assert_array_equal(gate.apply(table([tuple(p) for p in points.tolist()])), distance <= 3)


def test_rectangles_and_ranges_have_their_border() -> None:
    cells = table([(0, 0), (1, 2), (1, math.nextafter(2, 3)), (-0.1, 1), (np.nan, 1), (1, np.nan)])
    box = RectangleGate(name="b", axes=XY, range_min=(0, 0), range_max=(1, 2))
    assert box.apply(cells).tolist() == [True, True, False, False, False, False]
    open_ = RectangleGate(name="b", axes=XY, range_min=(None, 0), range_max=(np.inf, None))
    assert open_.apply(cells).tolist() == [True, True, True, True, False, False]
    assert open_.range_max == (None, None)
    span = RangeGate(name="r", axes=("y",), range_max=2)
    assert span.apply(cells).tolist() == [True, True, False, True, True, False]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.one_of(whole, st.just(math.nan)), whole), min_size=1), st.tuples(whole, whole))
def test_every_known_cell_is_in_one_quadrant(points: list[Point], dividers: Point) -> None:
    masks = np.array([gate.apply(table(points)) for gate in QuadrantGate.four(name="q", axes=XY, dividers=dividers)])
    assert masks.sum(axis=0).tolist() == [int(not math.isnan(x)) for x, _ in points]


def test_a_quadrant_has_its_lower_divider() -> None:
    gate = QuadrantGate(name="q", axes=XY, dividers=(1, 2), quadrant="+-")
    assert gate.apply(table([(1, 1), (1, 2), (0.9, 1), (5, 0)])).tolist() == [True, False, False, True]


def test_undefined_and_infinite_coordinates_are_outside_of_an_outline() -> None:
    cells = table([(np.nan, 0), (0, np.nan), (np.inf, 0), (0, -np.inf), (0, 0)])
    polygon = PolygonGate(name="p", axes=XY, vertices=[(-1, -1), (1, -1), (0, 1)])
    ellipse = EllipseGate(name="e", axes=XY, center=(0, 0), half_axes=(1, 2), angle=30)
    for gate in (polygon, ellipse):
        assert gate.apply(cells).tolist() == [False] * 4 + [True]
