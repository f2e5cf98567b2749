"""A user's hand: real mouse and key events on widgets, menus and dialogs, each of which is counted.

One click is a press of a button, a menu entry that is clicked (an entry that only opens a submenu, too), a drag, or a
row that is chosen in a list. One key is a key that is pressed, one text whatever is typed or pasted into a field. A
control that is hidden or disabled cannot be used: that is an error here, as it would be for a person.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qtpy.QtCore import QEvent, QPoint, QPointF, Qt, QTimer
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QLineEdit,
    QMenu,
    QMenuBar,
    QPushButton,
    QWidget,
)

LEFT, RIGHT = Qt.MouseButton.LeftButton, Qt.MouseButton.RightButton
NONE = Qt.KeyboardModifier.NoModifier


class NotUsableError(RuntimeError):
    """A control that a person could not use."""


def pump(until: Callable[[], bool], seconds: float = 600.0) -> None:
    """Let the window live until a condition holds; it is an error when it never does."""
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            raise TimeoutError("the window never came into the state that was waited for")
        QApplication.processEvents()
        time.sleep(0.005)


def settle() -> None:
    """Let the window do what it has to do now, draws included."""
    for _ in range(3):
        QApplication.processEvents()
        time.sleep(0.01)


@dataclass(slots=True)
class Task:
    """What one task cost.

    Attributes
    ----------
    clicks, keys, texts : int
        What the hand did.
    seconds : float
        From the first act until the result was in sight; a person's own time is not in it.
    processor : float
        Seconds of all processor cores, of the program and of processes of its own that have ended: what is left of
        `seconds` on a machine that does other things beside.
    found : dict
        What came of it.
    """

    clicks: int = 0
    keys: int = 0
    texts: int = 0
    seconds: float = 0.0
    processor: float = 0.0
    found: dict[str, Any] = field(default_factory=dict)


class Hand:
    """Clicks, types and drags, and counts.

    Attributes
    ----------
    tasks : dict of str to Task
        What was done so far, by its name.
    """

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self._now = Task()
        self._waited = 0.0

    @contextmanager
    def task(self, name: str) -> Iterator[Task]:
        """Count what is done within under a name; the window is drawn when it ends."""
        self._now, self._waited = Task(), 0.0
        self.tasks[name] = self._now
        begun, before = time.perf_counter(), processor()
        yield self._now
        settle()
        self._now.processor = round(processor() - before, 2)
        self._now.seconds = round(time.perf_counter() - begun - self._waited, 2)

    def counted(self) -> dict[str, dict[str, Any]]:
        """What was done so far, as JSON has it."""
        return {name: asdict(task) for name, task in self.tasks.items()}

    def click(
        self,
        widget: QWidget,
        place: QPoint | None = None,
        *,
        button: Qt.MouseButton = LEFT,
        modifier: Qt.KeyboardModifier = NONE,
    ) -> None:
        """Click the middle of a widget, or a place in it."""
        _usable(widget)
        QTest.mouseClick(widget, button, modifier, widget.rect().center() if place is None else place)
        self._now.clicks += 1
        settle()

    def tick(self, box: QCheckBox) -> None:
        """Click a box, which gets a tick or loses it."""
        before = box.isChecked()
        self.click(box, QPoint(8, box.height() // 2))
        if box.isChecked() == before:
            raise NotUsableError(f"{box.text()} did not change")

    def drag(self, widget: QWidget, path: Sequence[QPoint]) -> None:
        """Press at the first place, move along the path, release at the last."""
        _usable(widget)
        QTest.mousePress(widget, LEFT, NONE, path[0])
        for place in path[1:]:
            time.sleep(0.012)  # vispy passes over movements within 10 ms of each other
            self.move(widget, place, LEFT)
        QTest.mouseRelease(widget, LEFT, NONE, path[-1])
        self._now.clicks += 1
        settle()

    def wait(self, seconds: float) -> None:
        """Wait as a person would; this is not timed."""
        begun = time.perf_counter()
        pump(lambda: time.perf_counter() - begun > seconds)
        self._waited += time.perf_counter() - begun

    def move(self, widget: QWidget, place: QPoint, held: Qt.MouseButton = Qt.MouseButton.NoButton) -> None:
        """Move the pointer within a widget; this is not counted."""
        at, far = QPointF(place), QPointF(widget.mapToGlobal(place))
        button = Qt.MouseButton.NoButton
        QApplication.sendEvent(widget, QMouseEvent(QEvent.Type.MouseMove, at, far, button, held, NONE))
        QApplication.processEvents()

    def key(self, widget: QWidget, key: Qt.Key, modifier: Qt.KeyboardModifier = NONE) -> None:
        """Press a key while a widget has the focus."""
        _usable(widget)
        QTest.keyClick(widget, key, modifier)
        self._now.keys += 1
        settle()

    def type(self, line: QLineEdit, words: str) -> None:
        """Put words into a field."""
        _usable(line)
        line.selectAll()
        line.insert(words)
        line.textEdited.emit(words)
        self._now.texts += 1
        settle()

    def choose(self, box: QComboBox, entry: str) -> None:
        """Open a box and click one of its entries; that Qt takes no click in a list just opened is not timed."""
        self.click(box)
        self.wait(QApplication.doubleClickInterval() / 1000 + 0.1)
        if not box.view().isVisible():  # type: ignore[union-attr]
            box.showPopup()  # a box that lies in a folded or scrolled place
            self.wait(0.3)
        rows = [row for row in range(box.count()) if box.itemText(row) == entry]
        view = box.view()
        if not rows or view is None:
            raise NotUsableError(f"no entry {entry!r} in {[box.itemText(row) for row in range(box.count())]}")
        index = view.model().index(rows[0], box.modelColumn(), view.rootIndex())  # type: ignore[union-attr]
        view.scrollTo(index)
        self.click(view.viewport(), view.visualRect(index).center())  # type: ignore[arg-type]
        if box.currentText() != entry:
            raise NotUsableError(f"{entry!r} was clicked, but {box.currentText()!r} is chosen")

    def menu(self, bar: QMenuBar, *entries: str) -> None:
        """Click through a menu bar; each entry is one click."""
        menu: QMenuBar | QMenu = bar
        for entry in entries:
            menu = self._entry(menu, entry) or menu

    def pops_up(self, button: QPushButton, entry: str) -> None:
        """Click a button that has a menu, and an entry that begins so; the menu has the program's attention."""
        menu = button.menu()
        if menu is None:
            raise NotUsableError(f"{button.text()} has no menu")
        QTimer.singleShot(300, lambda: self._entry(menu, entry))
        self.click(button)

    def _entry(self, menu: QMenuBar | QMenu, entry: str) -> QMenu | None:
        for action in menu.actions():
            if action.text().replace("&&", "\0").replace("&", "").replace("\0", "&").startswith(entry):
                if not action.isEnabled():
                    raise NotUsableError(f"{entry} is greyed")
                self.click(menu, menu.actionGeometry(action).center())
                return action.menu()
        raise NotUsableError(f"no {entry!r} among {[action.text() for action in menu.actions()]}")

    def answer(self, path: Path) -> None:
        """Give the file dialog that opens next a path, and confirm it."""

        def give() -> None:
            dialog = QApplication.activeModalWidget()
            if not isinstance(dialog, QFileDialog):
                QTimer.singleShot(50, give)
                return
            line = dialog.findChild(QLineEdit, "fileNameEdit")
            if line is None:
                raise NotUsableError("a dialog of the system is open, which no script can use")
            line.setText(str(path))
            self._now.texts += 1
            QTest.keyClick(line, Qt.Key.Key_Return)
            self._now.keys += 1
            if dialog.isVisible():
                QTest.keyClick(line, Qt.Key.Key_Return)

        QTimer.singleShot(50, give)

    def confirm(self) -> None:
        """Press Return in the file dialog that opens next: what it proposes is right."""

        def give() -> None:
            dialog = QApplication.activeModalWidget()
            if not isinstance(dialog, QFileDialog):
                QTimer.singleShot(50, give)
                return
            QTest.keyClick(dialog.findChild(QLineEdit, "fileNameEdit"), Qt.Key.Key_Return)
            self._now.keys += 1

        QTimer.singleShot(50, give)


def processor() -> float:
    """Seconds of all processor cores that this program has taken, with processes of its own that have ended."""
    return sum(os.times()[:4])


def _usable(widget: QWidget) -> None:
    if not widget.isVisible() or not widget.isEnabled():
        state = "hidden" if not widget.isVisible() else "greyed"
        name = widget.text() if hasattr(widget, "text") else type(widget).__name__
        raise NotUsableError(f"{name} is {state}: {widget.toolTip()}")
