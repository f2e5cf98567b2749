"""The frame of our dock widgets: how they end, and one column that scrolls, above what is always in sight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.compat import isalive
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QFrame, QLabel, QScrollArea, QVBoxLayout, QWidget

from napari_dinobloom.ui.texts import text
from napari_dinobloom.ui.widgets.smear_form import SmearForm


class DockedWidget(QWidget):
    """A window of ours, which stops listening and goes when its dock is closed.

    napari only takes a widget out of the dock that is closed, and leaves it to the garbage collector: it would hear of
    the session until then, and in part beyond, as Python forgets what was to be called at its end.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._end = _Calls()
        self.destroyed.connect(self._end)  # the viewer was closed, dock and all

    def at_the_end(self, *calls: Callable[[], object]) -> None:
        """Make these calls, each once, when the window is closed; they must not need it."""
        self._end.calls.extend(calls)

    def changeEvent(self, event: QEvent | None) -> None:
        """Out of its dock: the end."""
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._end()
            self.deleteLater()


class Column(DockedWidget):
    """Parts one below the other, and the disclaimer below them all."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        inner = QWidget()
        self._parts = QVBoxLayout(inner)
        self._parts.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setWidget(inner)
        self.disclaimer = QLabel(text("disclaimer"))
        self.disclaimer.setStyleSheet("font-weight: bold")
        self.disclaimer.setContentsMargins(*self._parts.getContentsMargins())
        self._pinned = QVBoxLayout()
        margins = self._parts.contentsMargins()
        self._pinned.setContentsMargins(margins.left(), 0, margins.right(), 0)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scroll, 1)
        layout.addLayout(self._pinned)
        layout.addWidget(self.disclaimer)
        self.setMinimumWidth(340)

    def add(self, *parts: QWidget) -> None:
        """Put `parts` below those that are there."""
        for part in parts:
            self._parts.insertWidget(self._parts.count() - 1, part)

    def pin(self, part: QWidget) -> None:
        """Put `part` below the column, where it stays in sight."""
        self._pinned.addWidget(part)


def while_there(widget: QWidget, act: Callable[[Any], object]) -> Callable[[Any], None]:
    """What a job does to a widget at its end: `act`, but nothing where the widget was closed meanwhile."""

    def do(found: Any) -> None:
        if isalive(widget):  # type: ignore[no-untyped-call]
            act(found)

    return do


class _Calls:
    """Calls to be made once."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []

    def __call__(self, _gone: object = None) -> None:
        while self.calls:
            self.calls.pop(0)()


def follow_layers(viewer: Any, form: SmearForm) -> Callable[[], None]:
    """Keep the images that a form offers those of the viewer; return how to stop, since the viewer outlives it."""
    events = viewer.layers.events
    active = viewer.layers.selection.events.active
    for emitter in (events.inserted, events.removed, events.renamed):
        emitter.connect(form.refresh_images)
    active.connect(form.choose_active)

    def stop() -> None:
        for emitter in (events.inserted, events.removed, events.renamed):
            emitter.disconnect(form.refresh_images)
        active.disconnect(form.choose_active)

    return stop
