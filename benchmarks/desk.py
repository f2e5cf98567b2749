"""A napari that is used by hand: its menus, its docked windows, its canvas."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import napari
import numpy as np
from hand import Hand, processor, pump, settle
from qtpy.QtCore import QPoint


class Desk:
    """A viewer and a hand.

    Parameters
    ----------
    begun : float
        When the process was started, in seconds since 1970.
    *files : str
        As in ``napari FILE``.
    """

    def __init__(self, begun: float, *files: str) -> None:
        self.hand = Hand()
        with self.hand.task("napari has started") as task:
            self.viewer = napari.Viewer(show=True)
            self.viewer.window.resize(1600, 1000)
            settle()
            if files:
                self.viewer.open(list(files), plugin="napari")
        task.seconds, task.processor = round(time.time() - begun, 2), round(processor(), 2)
        window = self.viewer.window._qt_window
        self.bar, self.canvas = window.menuBar(), window._qt_viewer.canvas

    def window(self, plugin: str, title: str) -> Any:
        """Open a window of a plugin from the menu."""
        self.hand.menu(self.bar, "Plugins", plugin, title)
        return self.docked(title)

    def docked(self, title: str) -> Any:
        """A window of a plugin that is open."""
        docks = self.viewer.window.dock_widgets
        pump(lambda: any(title in name for name in docks), 60)
        return docks[next(name for name in docks if title in name)]

    def pixel(self, y: float, x: float) -> QPoint:
        """A place in the image, in units of the world, as a pixel of napari's canvas."""
        camera, native = self.viewer.scene.camera, self.canvas.native
        middle = np.array([native.height(), native.width()]) / 2
        row, column = middle + (np.array([y, x]) - np.array(camera.center)[-2:]) * camera.zoom
        return QPoint(round(column), round(row))


def say(found: dict[str, Any]) -> None:
    """Tell the program that started this one."""
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
