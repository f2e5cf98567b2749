"""Gates: regions of a map or of any columns of the cell table, as in flow cytometry.

One rule holds at every border: **the border belongs to the gate**, and a cell with an undefined coordinate (NaN) is
outside. Only the four quadrants of a `QuadrantGate` must not share cells: a cell on a divider belongs to the upper
side. What is inside a polygon that crosses itself is said in `napari_dinobloom.explore.gates.winding`.
"""

from napari_dinobloom.explore.gates.base import Gate, GateError
from napari_dinobloom.explore.gates.boolean import BooleanGate
from napari_dinobloom.explore.gates.ellipse import EllipseGate
from napari_dinobloom.explore.gates.polygon import PolygonGate
from napari_dinobloom.explore.gates.straight import QuadrantGate, RangeGate, RectangleGate

__all__ = [
    "BooleanGate",
    "EllipseGate",
    "Gate",
    "GateError",
    "PolygonGate",
    "QuadrantGate",
    "RangeGate",
    "RectangleGate",
]
