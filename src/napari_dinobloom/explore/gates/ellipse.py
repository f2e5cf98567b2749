"""The ellipse gate, turned by any angle and exact at its border.

The gate is the set of points with (u / a)^2 + (v / b)^2 <= 1, where u and v are the distances from the centre along the
half axes: u = c dx + s dy, v = c dy - s dx. c and s are cosine and sine of the angle as float64, exactly 0 and 1 at
right angles, so that the set is defined by rational numbers. Cells that float64 cannot tell from the border are
computed with fractions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.explore.gates.base import (
    Columns,
    Float64,
    GateError,
    Mask,
    Populations,
    Region,
    check_common,
    check_numbers,
    registered,
)

ERROR = 16 * 2.0**-53
"""Bound of the rounding error of the left side, relative to its sum of absolute values; counted: 10 roundings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EllipseGate(Region):
    """Cells within an ellipse, its border included.

    Attributes
    ----------
    axes : (str, str)
        Columns of the cell table.
    center : (float, float)
        Middle.
    half_axes : (float, float)
        Lengths of the half axes, above 0.
    angle : float
        Degrees from the first axis of the table to the first half axis, counter-clockwise.
    """

    axes: tuple[str, str]
    center: tuple[float, float]
    half_axes: tuple[float, float]
    angle: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", check_common(self, self.axes, 2))
        object.__setattr__(self, "center", check_numbers(self.name, "center", self.center, 2))
        object.__setattr__(self, "half_axes", check_numbers(self.name, "half_axes", self.half_axes, 2))
        object.__setattr__(self, "angle", check_numbers(self.name, "angle", (self.angle,), 1)[0])
        if min(self.half_axes) < 1 / 1e150:
            raise GateError(f"Gate {self.name!r}: the half axes {self.half_axes} must be above 0. Draw it larger.")

    @classmethod
    def from_covariance(
        cls,
        *,
        name: str,
        axes: tuple[str, str],
        center: tuple[float, float],
        covariance_matrix: NDArray[np.float64],
        distance_square: float = 1.0,
        projection: str = "",
    ) -> EllipseGate:
        """Return the ellipse of points with (p - center)^T C^-1 (p - center) <= distance_square (Gating-ML 2.0).

        Raises
        ------
        GateError
            The matrix is not symmetric and positive, or the distance is not above 0.
        """
        matrix = np.asarray(covariance_matrix, dtype=np.float64)
        if matrix.shape != (2, 2) or not np.isfinite(matrix).all() or not np.allclose(matrix, matrix.T):
            raise GateError(f"Gate {name!r}: 'covariance_matrix' must be a symmetric 2 x 2 matrix.")
        variances, directions = np.linalg.eigh(matrix)
        if variances[0] <= 0 or not distance_square > 0:
            raise GateError(f"Gate {name!r}: 'covariance_matrix' and 'distance_square' must be positive.")
        long, short = np.sqrt(variances[::-1] * distance_square)
        angle = math.degrees(math.atan2(directions[1, 1], directions[0, 1])) % 180
        half_axes = (float(long), float(short))
        return cls(name=name, axes=axes, center=center, half_axes=half_axes, angle=angle, projection=projection)

    def evaluate(self, columns: Columns, populations: Populations | None = None) -> Mask:
        """Test the cells in the bounding box, those at the border with fractions."""
        x, y = (columns(axis) for axis in self.axes)
        c, s = direction(self.angle)
        (a, b), (cx, cy) = self.half_axes, self.center
        # Twice rounded, so a little larger than needed.
        wide, high = (math.hypot(a * p, b * q) * (1 + 1e-9) for p, q in ((c, s), (s, c)))
        inside = (x >= cx - wide) & (x <= cx + wide) & (y >= cy - high) & (y <= cy + high)
        rows = np.flatnonzero(inside)
        dx, dy = x[rows] - cx, y[rows] - cy
        with np.errstate(over="ignore"):
            left = ((c * dx + s * dy) / a) ** 2 + ((c * dy - s * dx) / b) ** 2
            most = ((abs(c) * abs(dx) + abs(s) * abs(dy)) / a) ** 2 + ((abs(c) * abs(dy) + abs(s) * abs(dx)) / b) ** 2
            unsure = np.flatnonzero(~(abs(left - 1) > ERROR * (most + 1)))
        found = left <= 1
        if len(unsure):
            found[unsure] = _exactly(x[rows[unsure]], y[rows[unsure]], self.center, self.half_axes, (c, s))
        inside[rows] = found
        return np.asarray(inside)


def direction(degrees: float) -> tuple[float, float]:
    """Cosine and sine of an angle, exact at right angles."""
    turn = math.remainder(degrees, 360.0)
    right = {0.0: (1.0, 0.0), 90.0: (0.0, 1.0), -90.0: (0.0, -1.0), 180.0: (-1.0, 0.0), -180.0: (-1.0, 0.0)}
    return right.get(turn) or (math.cos(math.radians(turn)), math.sin(math.radians(turn)))


def _exactly(
    x: Float64,
    y: Float64,
    center: tuple[float, float],
    half_axes: tuple[float, float],
    unit: tuple[float, float],
) -> Mask:
    """Compute the rule of the module with fractions."""
    (cx, cy), (a, b), (c, s) = (tuple(map(Fraction, pair)) for pair in (center, half_axes, unit))
    found = np.zeros(len(x), dtype=bool)
    for i, (px, py) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
        dx, dy = Fraction(px) - cx, Fraction(py) - cy
        found[i] = ((c * dx + s * dy) / a) ** 2 + ((c * dy - s * dx) / b) ** 2 <= 1
    return found


registered(EllipseGate)
