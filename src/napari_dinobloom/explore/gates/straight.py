"""Gates whose borders are parallel to the axes: rectangle, range and quadrant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

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

Bound = float | None
Quadrant = Literal["++", "-+", "--", "+-"]
QUADRANTS: tuple[Quadrant, ...] = get_args(Quadrant)


@dataclass(frozen=True, slots=True, kw_only=True)
class RectangleGate(Region):
    """Cells within a rectangle, its border included.

    Attributes
    ----------
    axes : (str, str)
        Columns of the cell table.
    range_min, range_max : pair of float or None
        Lower and upper bound on each axis, in its unit; None for none.
    """

    axes: tuple[str, str]
    range_min: Sequence[Bound]
    range_max: Sequence[Bound]

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", check_common(self, self.axes, 2))
        low, high = _bounds(self.name, self.range_min, self.range_max, 2)
        object.__setattr__(self, "range_min", low)
        object.__setattr__(self, "range_max", high)

    def evaluate(self, columns: Columns, populations: Populations | None = None) -> Mask:
        """Compare both columns with their bounds."""
        x, y = (columns(axis) for axis in self.axes)
        inside = _within(x, self.range_min[0], self.range_max[0])
        inside &= _within(y, self.range_min[1], self.range_max[1])
        return inside


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeGate(Region):
    """Cells whose value of one column is within a range, its ends included.

    Attributes
    ----------
    axes : (str,)
        The column.
    range_min, range_max : float or None
        Ends, in the column's unit; None for none, but not both.
    """

    axes: tuple[str]
    range_min: Bound = None
    range_max: Bound = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", check_common(self, self.axes, 1))
        low, high = _bounds(self.name, (self.range_min,), (self.range_max,), 1)
        object.__setattr__(self, "range_min", low[0])
        object.__setattr__(self, "range_max", high[0])

    def evaluate(self, columns: Columns, populations: Populations | None = None) -> Mask:
        """Compare the column with its bounds."""
        return _within(columns(self.axes[0]), self.range_min, self.range_max)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuadrantGate(Region):
    """One of the four parts into which two dividers cut a plane; the four share no cell and leave none out.

    Attributes
    ----------
    axes : (str, str)
        Columns of the cell table.
    dividers : (float, float)
        Where each axis is divided. A cell on a divider belongs to the upper side.
    quadrant : {"++", "-+", "--", "+-"}
        Side of the first and of the second axis: ``+`` is at the divider or above.
    """

    axes: tuple[str, str]
    dividers: tuple[float, float]
    quadrant: Quadrant

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", check_common(self, self.axes, 2))
        object.__setattr__(self, "dividers", check_numbers(self.name, "dividers", self.dividers, 2))
        if self.quadrant not in QUADRANTS:
            raise GateError(f"Gate {self.name!r}: 'quadrant' is one of {QUADRANTS}, not {str(self.quadrant)[:20]!r}.")

    @classmethod
    def four(
        cls, *, name: str, axes: tuple[str, str], dividers: tuple[float, float], projection: str = ""
    ) -> tuple[QuadrantGate, ...]:
        """Return all four quadrants, called `name` with ``++``, ``-+``, ``--`` and ``+-`` behind it."""
        return tuple(
            cls(name=f"{name} {one}", axes=axes, dividers=dividers, quadrant=one, projection=projection)
            for one in QUADRANTS
        )

    def evaluate(self, columns: Columns, populations: Populations | None = None) -> Mask:
        """Compare both columns with the dividers."""
        sides = [
            columns(axis) >= divider if sign == "+" else columns(axis) < divider
            for axis, divider, sign in zip(self.axes, self.dividers, self.quadrant, strict=True)
        ]
        return np.asarray(sides[0] & sides[1])


def _within(values: Float64, low: Bound, high: Bound) -> Mask:
    """Closed range; NaN is outside, also where there is no bound."""
    if low is None:
        return ~np.isnan(values) if high is None else np.asarray(values <= high)
    inside = np.asarray(values >= low)
    if high is not None:
        inside &= values <= high
    return inside


def _bounds(gate: str, low: object, high: object, count: int) -> tuple[tuple[Bound, ...], tuple[Bound, ...]]:
    """Return lower and upper bounds in order, infinite ones as None."""
    sides: list[tuple[Bound, ...]] = []
    for key, given, endless in (("range_min", low, -math.inf), ("range_max", high, math.inf)):
        listed = tuple(given) if isinstance(given, (Sequence, np.ndarray)) and not isinstance(given, str) else ()
        open_ = [value is None or value == endless for value in listed]
        numbers = check_numbers(gate, key, [0 if none else v for v, none in zip(listed, open_, strict=True)], count)
        sides.append(tuple(None if none else value for value, none in zip(numbers, open_, strict=True)))
    for smallest, largest in zip(*sides, strict=True):
        if smallest is not None and largest is not None and smallest > largest:
            raise GateError(f"Gate {gate!r}: 'range_min' {smallest} lies above 'range_max' {largest}. Swap them.")
    if all(value is None for side in sides for value in side):
        raise GateError(f"Gate {gate!r}: it has no bound. Give 'range_min' or 'range_max'.")
    return sides[0], sides[1]


for _kind in (RectangleGate, RangeGate, QuadrantGate):
    registered(_kind)
