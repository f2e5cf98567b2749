"""Every window of the plugin on a small screen: no text is cut, no window takes more than a third of the width."""

from __future__ import annotations

from contextlib import suppress

import pytest
from cut import cuts, scrolled
from npe2 import PluginManifest
from qtpy.QtWidgets import QLabel, QPushButton, QScrollArea, QVBoxLayout, QWidget

from napari_dinobloom.ui.session import session_of

pytestmark = pytest.mark.gui
SCREEN = (1366, 728)
"""A small laptop, less the title bar of the window."""
TITLES = [widget.display_name for widget in PluginManifest.from_distribution("napari-dinobloom").contributions.widgets]


def test_what_does_not_fit_is_found(qtbot) -> None:
    window = QWidget()
    qtbot.addWidget(window)
    label, button, tall = QLabel("as long as can be"), QPushButton("as long as can be"), QLabel("one two " * 9)
    tall.setWordWrap(True)
    for part in (label, button, tall):
        part.setFixedWidth(60)
        part.setFixedHeight(20)
    inner = QWidget()
    inner.setFixedHeight(300)
    area = QScrollArea()
    area.setFixedHeight(100)
    area.setWidget(inner)
    column = QVBoxLayout(window)
    for part in (label, button, tall, area):
        column.addWidget(part)
    window.show()
    found = "\n".join(cuts(window))
    assert found.count("is 60 px wide, needs") == 2
    assert found.count("is 20 px high, needs") == 1
    assert 190 < scrolled(window)["down"] < 210
    label.setText("as")
    button.setText("as")
    tall.setText("one")
    assert cuts(window) == []


def problems(window: QWidget, dock: QWidget, widget: QWidget) -> list[str]:
    """What is wrong with a window of the plugin on a small screen."""
    found = cuts(widget)
    if (window.width(), window.height()) != SCREEN:
        found.append(f"the main window takes {window.width()} x {window.height()}")
    if 3 * dock.width() > SCREEN[0]:
        found.append(f"takes {dock.width()} of {SCREEN[0]} px")
    if "across" in scrolled(widget):
        found.append("has to be scrolled sideways")
    return found


def test_all_can_be_read_on_a_small_screen(make_napari_viewer_proxy, make_study, qtbot) -> None:
    viewer = make_napari_viewer_proxy(strict_qt="raise", show=True)
    window, session, found = viewer.window._qt_window, session_of(viewer), {}
    window.resize(*SCREEN)
    for state, study in {"empty": None, "done": make_study()}.items():
        session.show(study)
        for title in TITLES:
            dock, widget = viewer.window.add_plugin_dock_widget("napari-dinobloom", title)
            qtbot.wait(50)
            with suppress(qtbot.TimeoutError):  # the layout takes a few turns to settle
                qtbot.waitUntil(lambda dock=dock, widget=widget: not problems(window, dock, widget), timeout=2000)
            if wrong := problems(window, dock, widget):
                found[f"{title}, {state}"] = wrong
            viewer.window.remove_dock_widget(widget)
            widget.deleteLater()
            qtbot.wait(1)
    session.close_study()
    assert found == {}
