"""Tools of the canvas: add a cell by a click, add one by a box, split one with a line.

While a tool is in the hand, a layer of ours is the active one: it takes the clicks and keys, shows the box or line that
is being drawn, and goes with the tool. So nothing acts on the canvas or the keyboard unless the tool is in use.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from napari.layers import Labels, Shapes

from napari_dinobloom.ui import layers
from napari_dinobloom.ui.correction import Correction
from napari_dinobloom.ui.images import TAG, tag
from napari_dinobloom.ui.picking import CLICK_RADIUS
from napari_dinobloom.ui.texts import text
from napari_dinobloom.ui.tool_layer import ToolLayer

Tool = Literal["", "add", "box", "split"]

COLOUR = "#ffd400"
SHAPES = {"box": "rectangle", "split": "line"}

Point = npt.NDArray[np.float64]


class CanvasTool:
    """The tool that is in the hand, if any.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Gets a layer while a tool is in the hand.
    correction : Correction
        Does what the tool is used for.
    changed : callable
        Called when another tool, or none, is in the hand.
    """

    def __init__(self, viewer: Any, correction: Correction, changed: Callable[[], None]) -> None:
        self._viewer = viewer
        self._correction = correction
        self._changed = changed
        self._held: ToolLayer[Shapes] = ToolLayer(viewer, self.leave)
        self.tool: Tool = ""
        viewer.layers.selection.events.active.connect(self._on_active)

    def detach(self) -> None:
        """Put the tool down and stop listening to the viewer."""
        self._viewer.layers.selection.events.active.disconnect(self._on_active)
        self._changed = lambda: None
        self.leave()
        self._held.detach()

    def take(self, tool: Tool) -> None:
        """Take a tool into the hand, in place of another; when there is no cell layer there is nothing to use it on."""
        self.leave()
        over = self._correction.cell_layers()
        if not tool or not over:
            return
        layer = Shapes(
            ndim=2,
            name=text(f"layer.tool.{tool}"),
            metadata={TAG: {"role": "tool"}},
            **layers.placement(over[0], 2),
        )
        layer.mouse_drag_callbacks.append(self._on_press)
        for key, act in (
            ("Escape", self.leave),
            ("Control-Z", self._correction.undo),
            ("Control-Shift-Z", self._correction.redo),
        ):
            layer.bind_key(key, _called(act), overwrite=True)
        layer.mouse_pan = tool == "add"
        layer.cursor = "cross"
        layer.help = text(f"edit.help.{tool}")
        self._held.put(layer)
        self.tool = tool
        self._changed()

    def leave(self) -> None:
        """Put the tool down."""
        if self.tool:
            self.tool = ""
            self._held.take_away()
            self._changed()

    def _on_active(self, _event: object = None) -> None:
        """The user went to another layer: that puts the tool down.

        When outlines of selected cells come, first no layer and then theirs is the active one for a moment.
        """
        active = self._viewer.layers.selection.active
        passing = active is None or tag(active).get("role") == "selected"
        if not passing and not self._held.active:
            self.leave()

    def _on_press(self, layer: Shapes, event: Any) -> Generator[None]:
        """Mouse callback of our layer: follow the pointer to where it is released, then use the tool."""
        if event.button not in (None, 1):
            return
        tool, start, begun = self.tool, np.array(event.pos, dtype=float), self._correction.place(event.position)
        if begun is not None:
            layers.lay_over(layer, begun[0])  # cell layers of several images lie in several places
        moved = False
        yield
        while event.type == "mouse_move":
            moved = moved or _far(event.pos, start)
            if moved and begun is not None and tool in SHAPES:
                self._draw(layer, tool, begun[0], begun[2], _in_pixels(begun[0], event.position))
            yield
        moved = moved or _far(event.pos, start)
        if len(layer.data):
            layer.data = []
        if begun is None:
            return
        over, field, one = begun
        if tool == "add" and not moved:
            self._correction.add_at(field, one)
        elif tool == "box" and moved:
            self._correction.add_box(field, one, _in_pixels(over, event.position))
        elif tool == "split" and moved:
            self.leave()
            self._correction.split(np.array([one, _in_pixels(over, event.position)]))

    def _draw(self, layer: Shapes, tool: str, over: Labels, one: Point, other: Point) -> None:
        """Show the box or line from `one` to `other`, in pixels of the cell layer `over`."""
        corners = np.array([one, other])
        if tool == "box":
            (y0, x0), (y1, x1) = corners
            corners = np.array([(y0, x0), (y0, x1), (y1, x1), (y1, x0)])
        layer.data = []
        layer.add(
            corners,
            shape_type=SHAPES[tool],
            edge_color=COLOUR,
            edge_width=float(layers.outline_width(over)),
            face_color="transparent",
        )


def _far(pos: Any, start: Point) -> bool:
    """Whether the pointer has left the place where it was pressed, in pixels of the canvas."""
    return bool(np.abs(np.array(pos, dtype=float) - start).max() > CLICK_RADIUS)


def _in_pixels(layer: Labels, position: Any) -> Point:
    """A point of the world as (y, x) in pixels of a layer."""
    return np.asarray(layer.world_to_data(position), dtype=np.float64)[-2:]


def _called(act: Callable[[], None]) -> Callable[[Any], None]:
    """A key binding of a layer that does `act`."""

    def pressed(_layer: Any) -> None:
        act()

    return pressed
