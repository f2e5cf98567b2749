"""Our windows in napari: one of each, whether it was opened from napari's menu or by us."""

from __future__ import annotations

from typing import Any

from napari.plugins import menu_item_template
from npe2 import PluginManager
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

PLUGIN = "napari-dinobloom"


def show_window(viewer: Any, title: str) -> None:
    """Show a window of ours, as a tab of those that are docked already where it is not open yet.

    ``add_plugin_dock_widget`` names a window after the plugin, napari's menu after the plugin's title: each would open
    the window of the other a second time.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Gets the window.
    title : str
        Its name in the manifest.

    Raises
    ------
    KeyError
        The manifest has no such window.
    """
    manager = PluginManager.instance()
    name = menu_item_template.format(manager.get_manifest(PLUGIN).display_name, title)
    dock: QWidget | None = viewer.window.dock_widgets.get(name)
    fresh = dock is None
    if fresh:
        made = {one.display_name: one for one in manager.iter_widgets() if one.plugin_name == PLUGIN}
        dock = viewer.window.add_dock_widget(made[title].get_callable()(viewer), name=name, tabify=True)
    while dock is not None and not isinstance(dock, QDockWidget):
        dock = dock.parentWidget()
    if dock is not None:
        dock.show()
        dock.raise_()
        if fresh:
            _widen(getattr(dock, "__wrapped__", dock))


def _widen(dock: QDockWidget) -> None:
    """Make a new tab as wide as its window asks for; of itself it gets the width of the tabs beside it."""
    window, inner = dock.window(), dock.widget()
    if isinstance(window, QMainWindow) and inner is not None:
        asked = inner.sizeHint().width()
        if asked > max((one.width() for one in window.tabifiedDockWidgets(dock)), default=asked):
            window.resizeDocks([dock], [asked], Qt.Orientation.Horizontal)
