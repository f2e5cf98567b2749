"""Every window of the manifest, without a study, with an empty one, and with one that somebody else writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager
from npe2 import PluginManifest
from qtpy.QtWidgets import QAbstractButton, QComboBox, QLabel, QTabBar, QWidget

from napari_dinobloom.io.study import Study
from napari_dinobloom.ui import reader
from napari_dinobloom.ui.session import session_of

pytestmark = pytest.mark.gui

MANIFEST = PluginManifest.from_file(Path(str(files("napari_dinobloom"))) / "napari.yaml")

READERS = {"Patches"}  # it changes nothing, so that it is as usable as ever


def _kinds() -> dict[str, Any]:
    """Class of each window, by its name in the menu."""
    places = {command.id: command.python_name for command in MANIFEST.contributions.commands or ()}
    found = {}
    for window in MANIFEST.contributions.widgets or ():
        module, _, name = str(places[window.command]).partition(":")
        found[window.display_name] = getattr(import_module(module), name)
    return found


@pytest.fixture
def windows(qtbot: Any) -> Iterator[SimpleNamespace]:
    """All windows on one viewer."""
    viewer = ViewerModel()
    session = session_of(viewer)
    made = {name: kind(viewer) for name, kind in _kinds().items()}
    for widget in made.values():
        qtbot.addWidget(widget)

    def busy(widget: QWidget) -> bool:
        parts = [widget, *widget.findChildren(QWidget)]
        return any(
            getattr(getattr(part, name, None), "busy", False) for part in parts for name in ("lookup", "thumbnails")
        )

    def rest() -> None:
        quiet = lambda: session.job is None and not any(map(busy, made.values()))  # noqa: E731
        qtbot.waitUntil(quiet, timeout=30_000)
        qtbot.wait(50)
        qtbot.waitUntil(quiet, timeout=30_000)

    yield SimpleNamespace(viewer=viewer, session=session, made=made, rest=rest)
    session.close_study()
    qtbot.waitUntil(lambda: session.job is None, timeout=30_000)


def said(widget: QWidget) -> str:
    """All texts and tooltips that a window has now."""
    lines = [part.text() for part in widget.findChildren(QLabel) if not part.isHidden()]
    lines += [part.toolTip() for part in widget.findChildren(QWidget)]
    return "\n".join(lines)


def unexplained(widget: QWidget) -> list[str]:
    """Buttons and boxes that cannot be used and do not say why."""
    found = []
    for part in widget.findChildren(QWidget):
        if isinstance(part.parent(), QTabBar):
            continue  # its arrows, which are Qt's own
        if isinstance(part, (QAbstractButton, QComboBox)) and not part.isEnabled() and not part.toolTip():
            text = part.text() if isinstance(part, QAbstractButton) else part.currentText()
            found.append(f"{type(part).__name__} {text!r} {part.objectName()}")
    return found


def test_every_window_lives_through_all_studies(windows, make_study: Callable[..., Study], tmp_path) -> None:
    before = len(notification_manager.records)
    windows.rest()
    unexplained_parts = {name: unexplained(widget) for name, widget in windows.made.items()}
    assert not any(unexplained_parts.values()), unexplained_parts
    windows.session.show(Study.create(tmp_path / "empty.dinobloom"))
    windows.rest()
    unexplained_parts = {name: unexplained(widget) for name, widget in windows.made.items()}
    assert not any(unexplained_parts.values()), unexplained_parts
    held = make_study(0, 5)  # `make_study` writes it
    windows.session.show(Study.open(held.path))
    for data, meta, kind in reader.layers_of(held, held.fields):
        getattr(windows.viewer, f"add_{kind}")(data, **meta)
    windows.rest()
    holder = str(windows.session.study.held_by)
    silent = [name for name, widget in windows.made.items() if name not in READERS and holder not in said(widget)]
    assert not silent, f"they do not say who writes the study: {silent}"
    unexplained_parts = {name: unexplained(widget) for name, widget in windows.made.items()}
    assert not any(unexplained_parts.values()), unexplained_parts
    windows.viewer.layers.clear()
    windows.session.close_study()
    windows.rest()
    assert [one.message for one in notification_manager.records[before:]] == []
