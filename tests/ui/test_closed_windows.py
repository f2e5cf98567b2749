"""Windows whose docks are closed: they hear nothing more, go away, and can be opened again."""

from __future__ import annotations

from typing import Any

import pytest
from napari.utils.notifications import notification_manager
from npe2 import PluginManifest
from qtpy.compat import isalive

from napari_dinobloom.io.study import Study
from napari_dinobloom.ui.correction import Correction
from napari_dinobloom.ui.session import Session, session_of

pytestmark = pytest.mark.gui
PLUGIN = "napari-dinobloom"
TITLES = [widget.display_name for widget in PluginManifest.from_distribution(PLUGIN).contributions.widgets]


def listeners(viewer: Any, session: Session) -> dict[str, int]:
    """How many listen to each signal of a session and of its viewer."""
    found = {name: len(getattr(session.events, name)) for name in type(session).model_fields}
    layers = viewer.layers.events
    emitters = {
        "inserted": layers.inserted,
        "removing": layers.removing,
        "removed": layers.removed,
        "renamed": layers.renamed,
        "active": viewer.layers.selection.events.active,
        "step": viewer.dims.events.current_step,
        "theme": viewer.events.theme,
    }
    found |= {name: len(getattr(emitter, "callbacks", emitter)) for name, emitter in emitters.items()}
    return found | {"mouse": len(viewer.mouse_drag_callbacks)}


def test_a_closed_window_hears_nothing_and_opens_again(make_napari_viewer_proxy, make_study, qtbot) -> None:
    viewer = make_napari_viewer_proxy(strict_qt="raise", show=False)
    session = session_of(viewer)
    correction, said = Correction(viewer, session), len(notification_manager.records)

    def work(study: Study, name: str) -> None:
        """Open a study, look at two cells, and name one."""
        session.show(study)
        session.select(*map(str, study.cells.obs.index[:2]))
        qtbot.wait(50)
        assert correction.label(name)
        qtbot.wait(50)

    def opened() -> tuple[list[tuple[Any, Any]], dict[str, int]]:
        made = [viewer.window.add_plugin_dock_widget(PLUGIN, title) for title in TITLES]
        return made, listeners(viewer, session)

    def closed(widgets: list[Any]) -> dict[str, int]:
        heard = listeners(viewer, session)
        qtbot.waitUntil(lambda: not any(map(isalive, widgets)), timeout=5000)
        return heard

    windows, heard = opened()
    for _dock, widget in windows:
        viewer.window.remove_dock_widget(widget)  # as a script does
    left = closed([widget for _dock, widget in windows])
    work(make_study(0, name="one"), "monocyte")
    session.close_study()
    windows, heard_again = opened()
    assert heard_again == heard
    work(make_study(0, name="two"), "blast")
    for dock, _widget in windows:
        dock.title.close_button.click()  # as people do
    assert closed([widget for _dock, widget in windows]) == left
    work(make_study(0, name="three"), "monocyte")
    session.close_study()
    assert [one.message for one in notification_manager.records[said:]] == []
