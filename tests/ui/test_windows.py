"""Windows that open from a step and from napari's menu are the same ones."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QSize
from qtpy.QtWidgets import QDockWidget

from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.widgets.embed_widget import EmbedWidget
from napari_dinobloom.ui.widgets.report_widget import ReportWidget
from napari_dinobloom.ui.windows import show_window

pytestmark = pytest.mark.gui


@pytest.fixture
def viewer(make_napari_viewer_proxy):
    viewer = make_napari_viewer_proxy(strict_qt="raise", show=False)
    yield viewer
    session_of(viewer).close_study()


def docks(viewer, title):
    window = viewer.__wrapped__.window._qt_window
    return [dock for dock in window.findChildren(QDockWidget) if dock.windowTitle().startswith(title)]


def test_a_window_that_the_menu_opened_is_not_opened_again(viewer):
    viewer.window.add_dock_widget(ReportWidget(viewer), name="Report (DinoBloom)")  # as napari's menu names it
    show_window(viewer, "Report")
    assert len(docks(viewer, "Report")) == 1


def test_a_new_tab_is_as_wide_as_its_window_asks_for(viewer, qtbot, monkeypatch):
    window = viewer.__wrapped__.window._qt_window
    window.resize(1400, 700)
    window.show()
    show_window(viewer, "Report")
    (report,) = docks(viewer, "Report")
    qtbot.waitUntil(lambda: 0 < report.width() < 500)
    monkeypatch.setattr(EmbedWidget, "sizeHint", lambda _self: QSize(560, 400))
    show_window(viewer, "Embed")
    (embed,) = docks(viewer, "Embed")
    qtbot.waitUntil(lambda: embed.width() == 560)
    show_window(viewer, "Patches")
    qtbot.wait(100)
    assert embed.width() == 560, "which a narrower one does not change"


def test_windows_are_tabs_under_the_names_of_the_menu(viewer):
    for title in ("Report", "Embed", "Report"):
        show_window(viewer, title)
    assert set(viewer.window.dock_widgets) == {"Report (DinoBloom)", "Embed (DinoBloom)"}
    window = viewer.__wrapped__.window._qt_window
    assert docks(viewer, "Report")[0] in window.tabifiedDockWidgets(docks(viewer, "Embed")[0])
    with pytest.raises(KeyError, match="Nonsense"):
        show_window(viewer, "Nonsense")
