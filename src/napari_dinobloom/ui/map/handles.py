"""The outline of a gate on its axes, and the points by which it can be dragged."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from napari_dinobloom.explore.gates import EllipseGate, PolygonGate, QuadrantGate, RangeGate, RectangleGate
from napari_dinobloom.explore.gates.base import Gate
from napari_dinobloom.explore.gates.ellipse import direction

Points = npt.NDArray[np.float64]
Axes = tuple[str, str]
Rect = tuple[float, float, float, float]
"""x0, y0, x1, y1 of what is in view: open sides of a gate are drawn to beyond it."""

CURVE = 96
"""Corners of a drawn ellipse."""
BEYOND = 1e3
"""How many times the view open sides reach."""


def fits(gate: Gate, axes: Axes) -> bool:
    """Whether a gate can be drawn on these axes, in either order; Boolean gates never can."""
    own = getattr(gate, "axes", ())
    return bool(own) and set(own) <= set(axes)


def outline(gate: Gate, axes: Axes, view: Rect) -> list[Points]:
    """Lines of a gate in the plane of `axes`, each (k, 2); closed ones end where they begin."""
    if not fits(gate, axes):
        return []
    if isinstance(gate, RangeGate):
        return _range_lines(gate, axes, view)
    turn = gate.needs != axes
    return [line[:, ::-1] if turn else line for line in _lines(gate, _turned(view, turn))]


def handles(gate: Gate, axes: Axes, view: Rect) -> Points:
    """Points (k, 2) by which a gate can be dragged; the last one moves it as a whole, where there is such a one."""
    if not fits(gate, axes):
        return np.zeros((0, 2))
    if isinstance(gate, RangeGate):
        at = axes.index(gate.axes[0])
        middle = (view[1 - at] + view[3 - at]) / 2
        found = np.full((2, 2), middle)
        found[:, at] = [np.nan if one is None else one for one in (gate.range_min, gate.range_max)]
        return found
    turn = gate.needs != axes
    points = _handles(gate, _turned(view, turn))
    return points[:, ::-1] if turn else points


def dragged(gate: Gate, axes: Axes, handle: int, to: tuple[float, float]) -> Gate:
    """Return the gate with one handle moved to a point of the plane of `axes`.

    Raises
    ------
    GateError
        The gate would enclose nothing.
    """
    if isinstance(gate, RangeGate):
        return _drag_range(gate, handle, to[axes.index(gate.axes[0])])
    x, y = to if getattr(gate, "axes", axes) == axes else (to[1], to[0])
    if isinstance(gate, PolygonGate):
        points = gate.points
        if handle < len(points):
            points[handle] = (x, y)
        else:
            points += np.array([x, y]) - points.mean(axis=0)
        return replace(gate, vertices=points)
    if isinstance(gate, RectangleGate):
        return _drag_rectangle(gate, handle, x, y)
    if isinstance(gate, EllipseGate):
        return _drag_ellipse(gate, handle, x, y)
    if isinstance(gate, QuadrantGate):
        return replace(gate, dividers=(x, y))
    return gate


def moved(gate: Gate, axes: Axes, by: tuple[float, float]) -> Gate:
    """Return the gate shifted by a vector of the plane of `axes`; open sides stay open."""
    if isinstance(gate, RangeGate):
        step = by[axes.index(gate.axes[0])]
        return replace(gate, range_min=_plus(gate.range_min, step), range_max=_plus(gate.range_max, step))
    dx, dy = by if getattr(gate, "axes", axes) == axes else (by[1], by[0])
    if isinstance(gate, PolygonGate):
        return replace(gate, vertices=gate.points + np.array([dx, dy]))
    if isinstance(gate, RectangleGate):
        low, high = ([_plus(v, d) for v, d in zip(side, (dx, dy), strict=True)] for side in _sides(gate))
        return replace(gate, range_min=low, range_max=high)
    if isinstance(gate, EllipseGate):
        return replace(gate, center=(gate.center[0] + dx, gate.center[1] + dy))
    if isinstance(gate, QuadrantGate):
        return replace(gate, dividers=(gate.dividers[0] + dx, gate.dividers[1] + dy))
    return gate


def label_place(gate: Gate, axes: Axes, view: Rect, half: float = 0.0) -> tuple[float, float]:
    """Where the name of a gate stands: at the middle of its top edge, or of its corner of the view.

    `half` is half of the width that a name needs: no name of an edge stands nearer to the sides of the view.
    """
    if isinstance(gate, QuadrantGate):
        turned = gate.axes != axes
        signs = gate.quadrant[::-1] if turned else gate.quadrant
        x, y = gate.dividers[::-1] if turned else gate.dividers
        x = (x + (view[2] if signs[0] == "+" else view[0])) / 2
        y = 0.1 * y + 0.9 * (view[3] if signs[1] == "+" else view[1])
        return x, y
    points = np.vstack(outline(gate, axes, view))
    points = np.clip(points, (view[0] + half, view[1]), (view[2] - half, view[3]))
    return float((points[:, 0].min() + points[:, 0].max()) / 2), float(points[:, 1].max())


def _lines(gate: Gate, view: Rect) -> list[Points]:
    """Outline on the gate's own axes."""
    if isinstance(gate, PolygonGate):
        return [np.vstack([gate.points, gate.points[:1]])]
    if isinstance(gate, RectangleGate):
        corners = _corners(gate, view)
        return [np.vstack([corners, corners[:1]])]
    if isinstance(gate, EllipseGate):
        turn = np.linspace(0, 2 * math.pi, CURVE + 1)
        c, s = direction(gate.angle)
        u, v = gate.half_axes[0] * np.cos(turn), gate.half_axes[1] * np.sin(turn)
        return [np.column_stack([gate.center[0] + c * u - s * v, gate.center[1] + s * u + c * v])]
    if isinstance(gate, QuadrantGate):
        x, y = gate.dividers
        low, high = _far(view)
        ends = (high[0] if gate.quadrant[0] == "+" else low[0], high[1] if gate.quadrant[1] == "+" else low[1])
        return [np.array([(x, ends[1]), (x, y), (ends[0], y)])]
    return []


def _range_lines(gate: RangeGate, axes: Axes, view: Rect) -> list[Points]:
    """One line across the plane for each end."""
    at = axes.index(gate.axes[0])
    low, high = _far(view)
    lines = []
    for value in (gate.range_min, gate.range_max):
        if value is not None:
            line = np.array([low, high])
            line[:, at] = value
            lines.append(line)
    return lines


def _handles(gate: Gate, view: Rect) -> Points:
    if isinstance(gate, PolygonGate):
        return np.vstack([gate.points, gate.points.mean(axis=0)])
    if isinstance(gate, RectangleGate):
        corners = np.clip(_corners(gate, view), view[:2], view[2:])
        return np.vstack([corners, corners.mean(axis=0)])
    if isinstance(gate, EllipseGate):
        c, s = direction(gate.angle)
        (x, y), (a, b) = gate.center, gate.half_axes
        return np.array([(x + a * c, y + a * s), (x - b * s, y + b * c), (x, y)])
    if isinstance(gate, QuadrantGate):
        return np.array([gate.dividers])
    return np.zeros((0, 2))


def _corners(gate: RectangleGate, view: Rect) -> Points:
    """Corners from the lower left on, counter-clockwise; open sides lie far out."""
    low, high = _far(view)
    (x0, y0), (x1, y1) = (
        [bound if given is None else given for given, bound in zip(side, far, strict=True)]
        for side, far in zip(_sides(gate), (low, high), strict=True)
    )
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=np.float64)


def _sides(gate: RectangleGate) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
    return tuple(gate.range_min), tuple(gate.range_max)


def _drag_rectangle(gate: RectangleGate, handle: int, x: float, y: float) -> Gate:
    """Move a corner, of which only sides that are not open give way, or all."""
    low, high = (list(side) for side in _sides(gate))
    if handle == 4:
        known = [None not in (low[i], high[i]) for i in (0, 1)]
        by = [to - (low[i] + high[i]) / 2 if known[i] else 0.0 for i, to in enumerate((x, y))]  # type: ignore[operator]
        return moved(gate, gate.axes, (by[0], by[1]))
    for i, (to, upper) in enumerate(((x, handle in (1, 2)), (y, handle in (2, 3)))):
        side = high if upper else low
        if side[i] is not None:
            side[i] = to
        if low[i] is not None and high[i] is not None and low[i] > high[i]:  # type: ignore[operator]
            low[i], high[i] = high[i], low[i]
    return replace(gate, range_min=low, range_max=high)


def _drag_ellipse(gate: EllipseGate, handle: int, x: float, y: float) -> Gate:
    """Move the end of a half axis, which turns and stretches the ellipse, or its middle."""
    if handle == 2:
        return replace(gate, center=(x, y))
    dx, dy = x - gate.center[0], y - gate.center[1]
    length, turn = math.hypot(dx, dy), math.degrees(math.atan2(dy, dx)) - 90.0 * handle
    half_axes = (length, gate.half_axes[1]) if handle == 0 else (gate.half_axes[0], length)
    return replace(gate, half_axes=half_axes, angle=turn % 360)


def _drag_range(gate: RangeGate, handle: int, to: float) -> Gate:
    low, high = (to, gate.range_max) if handle == 0 else (gate.range_min, to)
    if low is not None and high is not None and low > high:
        low, high = high, low
    return replace(gate, range_min=low, range_max=high)


def _turned(view: Rect, turn: bool) -> Rect:
    return (view[1], view[0], view[3], view[2]) if turn else view


def _far(view: Rect) -> tuple[tuple[float, float], tuple[float, float]]:
    """Two corners far outside of the view."""
    wide, tall = view[2] - view[0], view[3] - view[1]
    return (view[0] - BEYOND * wide, view[1] - BEYOND * tall), (view[2] + BEYOND * wide, view[3] + BEYOND * tall)


def _plus(value: float | None, step: float) -> float | None:
    return None if value is None else value + step
