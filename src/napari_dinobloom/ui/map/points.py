"""Up to some hundred thousand discs on the graphics card: a place, a code and a table of colours.

vispy's own `Markers` build and send a record of 60 bytes for each disc whenever one thing changes; here new colours are
a new table, and new codes two bytes more than nothing: 4 bytes a disc.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from vispy.gloo import Texture2D, VertexBuffer
from vispy.scene.visuals import create_visual_node
from vispy.visuals import Visual

_VERTEX = """
attribute vec2 a_position;
attribute float a_code;
uniform sampler2D u_table;
uniform float u_entries;
uniform float u_size;
uniform float u_opacity;
varying vec4 v_colour;
void main() {
    gl_Position = $transform(vec4(a_position, 0.0, 1.0));
    v_colour = texture2D(u_table, vec2((a_code + 0.5) / u_entries, 0.5));
    v_colour.a = v_colour.a * u_opacity;
    gl_PointSize = u_size;
    if (v_colour.a <= 0.0) { gl_Position = vec4(2.0, 2.0, 2.0, 1.0); }
}
"""

_FRAGMENT = """
uniform float u_size;
varying vec4 v_colour;
void main() {
    vec2 from_middle = (gl_PointCoord - vec2(0.5)) * u_size;
    float radius = length(from_middle);
    float edge = clamp(u_size * 0.5 - radius + 0.5, 0.0, 1.0);
    if (edge <= 0.0) { discard; }
    gl_FragColor = vec4(v_colour.rgb, v_colour.a * edge);
}
"""


class PointsVisual(Visual):
    """Discs of one size, each in the colour of its code."""

    def __init__(self) -> None:
        super().__init__(vcode=_VERTEX, fcode=_FRAGMENT)
        self._scale = 1.0
        self.set_look(4.0, 1.0)
        self._count = 0
        self._bounds: npt.NDArray[np.float32] | None = None
        self._place, self._code = VertexBuffer(), VertexBuffer()
        self._table = Texture2D(np.zeros((1, 1, 4), np.float32), interpolation="nearest", internalformat="rgba8")
        self._draw_mode = "points"
        self.set_gl_state("translucent", depth_test=False, cull_face=False)

    def set_look(self, size: float, opacity: float) -> None:
        """Set diameter in device-independent pixels and opacity of all discs."""
        self._size = float(size)
        self.shared_program["u_size"] = self._size * self._scale
        self.shared_program["u_opacity"] = float(opacity)
        self.update()

    def set_places(self, places: npt.NDArray[np.float32]) -> None:
        """Set where the discs lie, (n, 2) float32; codes must be set anew when their number changes."""
        self._count = len(places)
        self._bounds = np.vstack([places.min(axis=0), places.max(axis=0)]) if len(places) else None
        self._place.set_data(np.ascontiguousarray(places, np.float32))
        self.shared_program["a_position"] = self._place
        self.update()

    def set_codes(self, codes: npt.NDArray[np.integer[Any]]) -> None:
        """Set the entry of the table of each disc, (n,) integers."""
        self._code.set_data(np.ascontiguousarray(codes, np.float32))
        self.shared_program["a_code"] = self._code
        self.update()

    def set_table(self, table: npt.NDArray[np.float32]) -> None:
        """Set the colours, (k, 4) RGBA from 0 to 1; those without opacity are not drawn."""
        self._table.set_data(np.ascontiguousarray(table, np.float32)[None])
        self.shared_program["u_table"] = self._table
        self.shared_program["u_entries"] = float(len(table))
        self.update()

    def _prepare_transforms(self, view: Any) -> None:
        view.view_program.vert["transform"] = view.transforms.get_transform()

    def _prepare_draw(self, view: Any) -> bool | None:
        scale = float(view.transforms.pixel_scale)
        if scale != self._scale:
            self._scale = scale
            self.shared_program["u_size"] = self._size * scale
        return None if self._count else False

    def _compute_bounds(self, axis: int, view: Any) -> tuple[float, float] | None:
        if self._bounds is None or axis > 1:
            return None
        return float(self._bounds[0, axis]), float(self._bounds[1, axis])


Points = create_visual_node(PointsVisual)
