"""Real mouse and key events on a map, at places given in the units of its axes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_dinobloom.ui.map.view import MapView

NO_KEY, LEFT = Qt.KeyboardModifier.NoModifier, Qt.MouseButton.LeftButton
Place = Sequence[float]


class Mouse:
    """A mouse on the canvas of `view`."""

    def __init__(self, view: MapView) -> None:
        self.view, self.native = view, view.canvas.native

    def at(self, place: Place) -> QPoint:
        """A place on the axes in pixels of the canvas."""
        return QPoint(*(round(value) for value in self.view.canvas.to_pixel(place)))

    def press(self, place: Place) -> None:
        """Press the left button."""
        QTest.mousePress(self.native, LEFT, NO_KEY, self.at(place))

    def move(self, place: Place) -> None:
        """Move there; vispy passes over movements within 10 ms of each other."""
        time.sleep(0.012)
        QTest.mouseMove(self.native, self.at(place))
        QApplication.processEvents()

    def release(self, place: Place) -> None:
        """Release the left button."""
        QTest.mouseRelease(self.native, LEFT, NO_KEY, self.at(place))

    def drag(self, path: Sequence[Place], *, release: bool = True) -> None:
        """Press, move along a path, and release at its end."""
        self.press(path[0])
        for place in path[1:]:
            self.move(place)
        if release:
            self.release(path[-1])

    def click(self, place: Place) -> None:
        """Press and release."""
        self.press(place)
        self.release(place)

    def double(self, place: Place) -> None:
        """Press twice."""
        QTest.mouseDClick(self.native, LEFT, NO_KEY, self.at(place))

    def key(self, key: Qt.Key) -> None:
        """Press a key."""
        QTest.keyClick(self.native, key)
        QApplication.processEvents()
