"""A gate while it is being drawn: from presses, moves and releases in the plane of two axes to a region.

Knows neither Qt nor pixels. A tool is used by a drag (rectangle, ellipse, lasso, range), by one click (quadrant) or by
a click for each corner (polygon: a double click, a click on the first corner, or Enter closes it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from napari_dinobloom.explore.gates import EllipseGate, PolygonGate, QuadrantGate, RangeGate, RectangleGate
from napari_dinobloom.explore.gates.base import Gate, GateError

Tool = Literal["rectangle", "polygon", "lasso", "ellipse", "quadrant", "range_x", "range_y", "select"]
TOOLS: tuple[Tool, ...] = get_args(Tool)
DRAGGED = ("rectangle", "lasso", "ellipse", "range_x", "range_y", "select")
"""Tools that are used by a drag."""

Point = tuple[float, float]
Axes = tuple[str, str]


@dataclass(slots=True)
class Drawing:
    """What is in the making.

    Attributes
    ----------
    tool : str
        The tool in use.
    axes : (str, str)
        Columns of x and y.
    reach : (float, float)
        Lengths along x and y that are as good as none: a few pixels of the canvas. The outline of a lasso is
        simplified within a quarter of it, and a corner this near to the first closes a polygon.
    points : list of (float, float)
        Corners, or the path of the pointer.
    """

    tool: Tool
    axes: Axes
    reach: Point
    points: list[Point] = field(default_factory=list)

    def press(self, point: Point) -> bool:
        """Take a press of the button; return whether the region is finished."""
        if self.tool == "polygon" and len(self.points) > 3 and self._near(point, self.points[0]):
            self.points[-1:] = []
            return True
        if self.tool == "polygon":
            self.points[-1:] = [point, point] if self.points else [point]
            if len(self.points) == 1:
                self.points.append(point)
            return False
        self.points = [point]
        return self.tool == "quadrant"

    def move(self, point: Point) -> None:
        """Take a movement: with the button pressed, or between the corners of a polygon."""
        if not self.points:
            return
        if self.tool in ("lasso", "select"):
            self.points.append(point)
        elif self.tool == "polygon":
            self.points[-1] = point
        else:
            self.points[1:] = [point]

    def release(self, point: Point) -> bool:
        """Take a release of the button; return whether the region is finished."""
        if self.tool not in DRAGGED or not self.points:
            return False
        self.move(point)
        return True

    def close(self) -> bool:
        """End a polygon with the corners that it has; return whether it has enough."""
        if self.tool != "polygon":
            return False
        while len(self.points) > 1 and self._near(self.points[-1], self.points[-2]):
            self.points.pop()
        return len(self.points) > 2

    def gate(self, name: str) -> Gate | None:
        """Return the region as a gate, or None as long as it encloses nothing."""
        try:
            return self._gate(name)
        except GateError:
            return None

    def four(self, name: str) -> tuple[QuadrantGate, ...]:
        """Return the four quadrants of the click."""
        return QuadrantGate.four(name=name, axes=self.axes, dividers=self.points[0]) if self.points else ()

    def line(self) -> npt.NDArray[np.float64]:
        """The line to be shown, (k, 2); closed where the region will be."""
        from napari_dinobloom.ui.map.handles import outline

        if self.tool in ("lasso", "select", "polygon"):
            points = np.array(self.points, dtype=np.float64).reshape(-1, 2)
            return np.vstack([points, points[:1]])
        gate = self.gate("-")
        if gate is None:
            return np.zeros((0, 2))
        xs, ys = zip(*self.points, strict=True)
        view = (min(xs) - 1e-9, min(ys) - 1e-9, max(xs) + 1e-9, max(ys) + 1e-9)
        lines = outline(gate, self.axes, view)
        return np.vstack([np.vstack([line, np.full((1, 2), np.nan)]) for line in lines])[:-1]

    def _gate(self, name: str) -> Gate | None:
        if not self.points or (len(self.points) == 1 and self.tool != "quadrant"):
            return None
        one, other = self.points[0], self.points[-1]
        low, high = np.minimum(one, other), np.maximum(one, other)
        if self.tool == "quadrant":
            return self.four(name)[0]
        if self.tool in ("polygon", "lasso", "select"):
            points = np.array(self.points)
            return PolygonGate(name=name, axes=self.axes, vertices=points if self.tool == "polygon" else self._simple())
        if self.tool in ("range_x", "range_y"):
            at = int(self.tool == "range_y")
            if high[at] - low[at] < self.reach[at]:
                return None
            axis = (self.axes[at],)
            return RangeGate(name=name, axes=axis, range_min=float(low[at]), range_max=float(high[at]))
        if (high - low < self.reach).any():
            return None
        if self.tool == "rectangle":
            return RectangleGate(name=name, axes=self.axes, range_min=low.tolist(), range_max=high.tolist())
        half = (high - low) / 2
        middle = (float(low[0] + half[0]), float(low[1] + half[1]))
        return EllipseGate(name=name, axes=self.axes, center=middle, half_axes=(float(half[0]), float(half[1])))

    def _simple(self) -> npt.NDArray[np.float64]:
        """The path of the pointer without points that change the outline by less than a quarter of `reach`."""
        from skimage.measure import approximate_polygon

        unit = np.array(self.reach) / 4
        path = np.array([*self.points, self.points[0]]) / unit
        return np.asarray(approximate_polygon(path, 1.0)[:-1] * unit)

    def _near(self, one: Point, other: Point) -> bool:
        return all(math.fabs(a - b) <= r for a, b, r in zip(one, other, self.reach, strict=True))
