"""The polygon gate; a freehand lasso is a polygon with many vertices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.explore.gates.base import (
    LARGEST,
    Columns,
    Float64,
    GateError,
    Mask,
    Populations,
    Region,
    check_common,
    registered,
)
from napari_dinobloom.explore.gates.winding import inside_polygon, is_flat

MOST = 100_000
"""Vertices of a polygon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolygonGate(Region):
    """Cells within a polygon, its border included.

    A part that the outline runs around at least once is inside (non-zero winding), so that a lasso which crosses
    itself has no holes.

    Attributes
    ----------
    axes : (str, str)
        Columns of the cell table.
    vertices : sequence of pairs of float, or array (n, 2)
        Corners in order, kept as a tuple of pairs; the last is joined to the first. Three or more that lie on no
        common line.
    """

    axes: tuple[str, str]
    vertices: Sequence[Sequence[float]] | NDArray[Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", check_common(self, self.axes, 2))
        points = _points(self.name, self.vertices)
        object.__setattr__(self, "vertices", tuple((x, y) for x, y in points.tolist()))

    @property
    def points(self) -> Float64:
        """The vertices as (n, 2) float64."""
        return np.array(self.vertices, dtype=np.float64)

    def evaluate(self, columns: Columns, populations: Populations | None = None) -> Mask:
        """Test each cell against the outline."""
        return inside_polygon(columns(self.axes[0]), columns(self.axes[1]), self.points)


def _points(gate: str, vertices: object) -> Float64:
    """Return vertices as (n, 2) float64 if they enclose something."""
    try:
        points = np.array(vertices, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise GateError(f"Gate {gate!r}: 'vertices' must be pairs of numbers ({error}).") from error
    if points.ndim != 2 or points.shape[1] != 2:
        raise GateError(f"Gate {gate!r}: 'vertices' must be pairs of numbers, not an array {points.shape}.")
    wrong = np.flatnonzero(~(np.abs(points) <= LARGEST).all(axis=1))
    if len(wrong):
        raise GateError(
            f"Gate {gate!r}: vertex {wrong[0]} is {points[wrong[0]]}; give finite numbers up to {LARGEST:g}."
        )
    if len(points) > MOST:
        raise GateError(f"Gate {gate!r}: {len(points)} vertices are more than {MOST}. Simplify the outline.")
    if is_flat(points):
        raise GateError(f"Gate {gate!r}: its vertices lie on one line or point and enclose nothing. Draw it anew.")
    return points


registered(PolygonGate)
