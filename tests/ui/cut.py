"""What of a window cannot be read: cut texts, controls beyond an edge; also for `benchmarks/screenshots.py`."""

from __future__ import annotations

from collections.abc import Iterator

from qtpy.QtCore import QRect, Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractScrollArea,
    QCheckBox,
    QComboBox,
    QHeaderView,
    QLabel,
    QLineEdit,
    QRadioButton,
    QScrollArea,
    QTabBar,
    QWidget,
)

SLACK = 2
"""Pixels by which a measure may differ from what a style draws."""


def cuts(widget: QWidget) -> list[str]:
    """Return a line for each visible control of `widget` whose text does not fit or which reaches over an edge."""
    found = []
    for child in [widget, *widget.findChildren(QWidget)]:
        if child.isVisible():
            found += [f"{type(child).__name__} {_name(child)!r}: {what}" for what in _wrong(child)]
    return found


def scrolled(widget: QWidget) -> dict[str, int]:
    """Pixels that lie out of sight in the columns of `widget`, in each direction; nothing where all is in sight."""
    away: dict[str, int] = {}
    for area in widget.findChildren(QScrollArea):
        for name, bar in (("across", area.horizontalScrollBar()), ("down", area.verticalScrollBar())):
            if bar is not None and area.isVisible() and bar.maximum():
                away[name] = away.get(name, 0) + bar.maximum()
    return away


def _name(widget: QWidget) -> str:
    """Begin of what a widget shows."""
    for attribute in ("text", "currentText", "placeholderText"):
        call = getattr(widget, attribute, None)
        if callable(call) and (shown := call()):
            return str(shown)[:50]
    return widget.objectName()


def _wrong(widget: QWidget) -> Iterator[str]:
    """What is wrong with one widget."""
    wanted = _wanted(widget)
    if wanted > widget.width() + SLACK:
        yield f"is {widget.width()} px wide, needs {wanted}"
    if isinstance(widget, QLabel) and widget.wordWrap() and widget.text():
        high = widget.heightForWidth(widget.width())
        if high > widget.height() + SLACK:
            yield f"is {widget.height()} px high, needs {high}"
    if isinstance(widget, QHeaderView) and widget.orientation() == Qt.Orientation.Horizontal:
        for at in range(widget.count()):
            title = str(widget.model().headerData(at, Qt.Orientation.Horizontal) or "")
            wide = widget.fontMetrics().horizontalAdvance(title)
            if not widget.isSectionHidden(at) and wide > widget.sectionSize(at):
                yield f"the title {title!r} is {widget.sectionSize(at)} px wide, needs {wide}"
    if isinstance(widget, QTabBar):
        for at in range(widget.count()):
            if not widget.rect().contains(widget.tabRect(at).adjusted(SLACK, 0, -SLACK, 0)):
                yield f"the tab {widget.tabText(at)!r} is out of sight"
    if isinstance(widget, QAbstractButton | QComboBox | QLineEdit) and (over := _over(widget)):
        yield over


def _wanted(widget: QWidget) -> int:
    """Pixels that the text of a widget needs; 0 where it has none, or wraps."""
    metrics = widget.fontMetrics()
    if isinstance(widget, QLabel):
        plain = widget.text() and not widget.wordWrap() and widget.textFormat() != Qt.TextFormat.RichText
        return widget.sizeHint().width() if plain else 0
    if isinstance(widget, QCheckBox | QRadioButton):
        return widget.sizeHint().width() if widget.text() else 0
    if isinstance(widget, QAbstractButton):
        lines = widget.text().replace("&", "").splitlines()
        icon = 0 if widget.icon().isNull() else widget.iconSize().width()
        return max(map(metrics.horizontalAdvance, lines), default=0) + icon + 4 if lines else 0
    if isinstance(widget, QComboBox):
        if widget.sizeAdjustPolicy() == QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon:
            return 0  # for names of any length, which its list shows whole
        return metrics.horizontalAdvance(widget.currentText()) + 20 if widget.currentText() else 0
    if isinstance(widget, QLineEdit) and not widget.text() and not isinstance(widget.parent(), QComboBox):
        return metrics.horizontalAdvance(widget.placeholderText()) + 4 if widget.placeholderText() else 0
    return 0


def _over(widget: QWidget) -> str:
    """By how much a control reaches over an edge that no scroll bar can bring it away from."""
    frame, parent = widget.rect(), widget.parentWidget()
    inner = widget
    while parent is not None and not inner.isWindow():
        if isinstance(parent.parentWidget(), QAbstractScrollArea):
            return ""
        frame = QRect(inner.mapToParent(frame.topLeft()), frame.size())
        over = frame.united(parent.rect()).size() - parent.size()
        if over.width() > SLACK or over.height() > SLACK:
            return (
                f"reaches {over.width()} px across and {over.height()} px down over the edge of {type(parent).__name__}"
            )
        inner, parent = parent, parent.parentWidget()
    return ""
