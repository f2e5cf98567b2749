"""Gates from presses, moves and releases; their outlines and handles."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_dinobloom.explore.gates import EllipseGate, PolygonGate, QuadrantGate, RangeGate, RectangleGate
from napari_dinobloom.ui.map import handles
from napari_dinobloom.ui.map.drawing import Drawing

pytestmark = pytest.mark.gui

AXES = ("x", "y")
VIEW = (-10.0, -10.0, 10.0, 10.0)


def _dragged(tool, *points):
    drawing = Drawing(tool, AXES, (0.1, 0.1))
    drawing.press(points[0])
    for point in points[1:]:
        drawing.move(point)
    assert drawing.release(points[-1])
    return drawing.gate("g")


def test_a_rectangle_is_drawn_from_any_corner() -> None:
    gate = _dragged("rectangle", (3.0, 1.0), (1.0, 2.0))
    assert isinstance(gate, RectangleGate)
    assert (gate.range_min, gate.range_max) == ((1.0, 1.0), (3.0, 2.0))


def test_an_ellipse_fills_its_box() -> None:
    gate = _dragged("ellipse", (0.0, 0.0), (4.0, 2.0))
    assert isinstance(gate, EllipseGate)
    assert (gate.center, gate.half_axes) == ((2.0, 1.0), (2.0, 1.0))


def test_ranges_lie_on_their_axis() -> None:
    across, up = _dragged("range_x", (3.0, 0.0), (1.0, 5.0)), _dragged("range_y", (3.0, 0.0), (1.0, 5.0))
    assert isinstance(across, RangeGate)
    assert (across.axes, across.range_min, across.range_max) == (("x",), 1.0, 3.0)
    assert isinstance(up, RangeGate)
    assert (up.axes, up.range_min, up.range_max) == (("y",), 0.0, 5.0)


def test_a_lasso_is_simplified_by_less_than_a_pixel() -> None:
    turn = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    circle = [(float(5 * np.cos(t)), float(5 * np.sin(t))) for t in turn]
    gate = _dragged("lasso", *circle)
    assert isinstance(gate, PolygonGate)
    assert 20 < len(gate.vertices) < 200
    table = pd.DataFrame({"x": [4.95, 5.05, 0.0], "y": [0.0, 0.0, -4.95]})
    assert gate.apply(table).tolist() == [True, False, True]


def test_a_polygon_is_clicked_and_closed_at_its_first_corner() -> None:
    drawing = Drawing("polygon", AXES, (0.1, 0.1))
    for point in ((0.0, 0.0), (4.0, 0.0), (4.0, 4.0)):
        drawing.move(point)
        assert not drawing.press(point)
        assert not drawing.release(point)
    drawing.move((0.05, 0.0))
    assert drawing.press((0.05, 0.0))
    gate = drawing.gate("g")
    assert isinstance(gate, PolygonGate)
    assert gate.vertices == ((0.0, 0.0), (4.0, 0.0), (4.0, 4.0))


def test_a_polygon_is_closed_by_a_double_click() -> None:
    drawing = Drawing("polygon", AXES, (0.1, 0.1))
    for point in ((0.0, 0.0), (4.0, 0.0), (4.0, 4.0), (4.0, 4.0)):
        drawing.move(point)
        drawing.press(point)
    assert drawing.close()
    gate = drawing.gate("g")
    assert isinstance(gate, PolygonGate)
    assert gate.vertices == ((0.0, 0.0), (4.0, 0.0), (4.0, 4.0))


def test_two_corners_are_no_polygon() -> None:
    drawing = Drawing("polygon", AXES, (0.1, 0.1))
    for point in ((0.0, 0.0), (4.0, 0.0)):
        drawing.press(point)
    assert not drawing.close()


@pytest.mark.parametrize("tool", ["rectangle", "ellipse", "range_x", "lasso"])
def test_a_shaky_click_is_no_gate(tool) -> None:
    assert _dragged(tool, (1.0, 1.0), (1.01, 1.01)) is None


def test_a_click_makes_four_quadrants() -> None:
    drawing = Drawing("quadrant", AXES, (0.1, 0.1))
    assert drawing.press((1.0, 2.0))
    four = drawing.four("Q")
    table = pd.DataFrame({"x": [0.0, 2.0], "y": [3.0, 2.0]})
    assert sum(gate.apply(table).astype(int) for gate in four).tolist() == [1, 1]


GATES = [
    RectangleGate(name="r", axes=AXES, range_min=(-1, -2), range_max=(3, 4)),
    RectangleGate(name="open", axes=AXES, range_min=(-1, None), range_max=(None, 4)),
    EllipseGate(name="e", axes=AXES, center=(1, 2), half_axes=(3, 1), angle=25),
    PolygonGate(name="p", axes=AXES, vertices=[(0, 0), (4, 0), (1, 3)]),
    QuadrantGate(name="q", axes=AXES, dividers=(1, 2), quadrant="-+"),
    RangeGate(name="a", axes=("y",), range_min=-3, range_max=1),
]


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.name)
@pytest.mark.parametrize("axes", [AXES, AXES[::-1]], ids=["as drawn", "axes exchanged"])
def test_a_handle_that_is_dragged_is_where_it_was_dragged_to(gate, axes) -> None:
    points = handles.handles(gate, axes, VIEW)
    for at, point in enumerate(points):
        to = (float(point[0]) + 0.5, float(point[1]) + 0.25)
        moved = handles.dragged(gate, axes, at, to)
        after = handles.handles(moved, axes, VIEW)[at]
        own = [axis in getattr(gate, "axes", ()) for axis in axes]
        if gate.name == "open":
            continue  # an open side stays open
        assert np.allclose(np.array(after)[own], np.array(to)[own], atol=1e-9)


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.name)
def test_a_handle_that_is_put_back_leaves_the_gate_as_it_was(gate) -> None:
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.uniform(-6, 6, (3000, 2)), columns=[*AXES])
    inside = gate.apply(table)
    for at, point in enumerate(handles.handles(gate, AXES, VIEW)):
        again = handles.dragged(gate, AXES, at, tuple(map(float, point)))
        assert np.array_equal(again.apply(table), inside)


@given(dx=st.floats(-3, 3), dy=st.floats(-3, 3), which=st.integers(0, len(GATES) - 1))
def test_a_gate_that_is_moved_holds_the_moved_cells(dx: float, dy: float, which: int) -> None:
    gate = GATES[which]
    random = np.random.default_rng(1)
    table = pd.DataFrame(random.uniform(-6, 6, (200, 2)), columns=[*AXES])
    moved = handles.moved(gate, AXES, (dx, dy)).apply(table + np.array([dx, dy]))
    assert (moved != gate.apply(table)).mean() < 0.02  # but for rounding at the border


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.name)
def test_the_outline_divides_inside_from_outside(gate) -> None:
    for line in handles.outline(gate, AXES, VIEW):
        middle = (line[:-1] + line[1:]) / 2
        step = np.diff(line, axis=0)
        aside = np.column_stack([-step[:, 1], step[:, 0]]) / np.linalg.norm(step, axis=1)[:, None] * 1e-2
        near = np.abs(middle).max(axis=1) < 10
        sides = [gate.apply(pd.DataFrame(middle[near] + sign * aside[near], columns=[*AXES])) for sign in (1, -1)]
        assert (sides[0] != sides[1]).all()


def test_a_gate_on_other_axes_has_no_outline() -> None:
    assert handles.outline(GATES[0], ("x", "z"), VIEW) == []
    assert len(handles.handles(GATES[0], ("x", "z"), VIEW)) == 0
