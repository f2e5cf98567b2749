"""A layer of ours that is the active one while a tool is in use, and goes with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from napari.layers import Layer

L = TypeVar("L", bound=Layer)


class ToolLayer(Generic[L]):
    """The place in a viewer for the layer of one tool.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Gets the layer.
    gone : callable
        Called when the user removed the layer.
    """

    def __init__(self, viewer: Any, gone: Callable[[], None]) -> None:
        self._viewer = viewer
        self._gone = gone
        self._before: Any = None
        self.layer: L | None = None
        viewer.layers.events.removed.connect(self._on_removed)

    def detach(self) -> None:
        """Take the layer away and stop listening to the viewer, which lives on."""
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self.take_away()

    @property
    def active(self) -> bool:
        """Whether the layer is there and the active one."""
        active = self._viewer.layers.selection.active
        return self.layer is not None and getattr(active, "__wrapped__", active) is self.layer

    def put(self, layer: L) -> None:
        """Add a layer, which becomes the active one."""
        self.take_away()
        self._before = self._viewer.layers.selection.active
        self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = layer
        self.layer = layer

    def take_away(self) -> None:
        """Remove the layer; what was the active one before is so again, unless the user went to another."""
        was_active, layer, before = self.active, self.layer, self._before
        self.layer = self._before = None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)
        if was_active and before is not None and before in self._viewer.layers:
            self._viewer.layers.selection.active = before

    def _on_removed(self, _event: object = None) -> None:
        """Notice that the user removed the layer."""
        if self.layer is not None and self.layer not in self._viewer.layers:
            self.layer = self._before = None
            self._gone()
