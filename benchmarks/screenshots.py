"""Pictures of the plugin's windows in their states, for the docs and for looking at.

Run it with ``xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/screenshots.py FOLDER [IMAGE]
[--window count|segment|map] [--theme light] [--size 1366x768]``; without an image it takes the generated smear. Writes
``1-empty.png`` and so on into FOLDER.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
from napari.settings import get_settings
from qtpy.QtWidgets import QApplication
from screenshots_map import map_window
from screenshots_plugin import WINDOWS
from screenshots_predict import classify_window, patients_window

from napari_dinobloom.ui.images import tag
from napari_dinobloom.ui.session import session_of

PREDICTING = {"classify": classify_window, "patients": patients_window}


def pump(until: Callable[[], bool], seconds: float = 120.0) -> None:
    """Let the window live until a condition holds; it is an error when it never does."""
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            raise TimeoutError("the window never came into the state that was waited for")
        QApplication.processEvents()
        time.sleep(0.01)


def rest(seconds: float) -> None:
    """Let the window live for a while."""
    begun = time.monotonic()
    pump(lambda: time.monotonic() - begun > seconds)


class Studio:
    """A viewer of a given size and theme, and how to take its picture."""

    def __init__(self, folder: Path, theme: str, size: str) -> None:
        get_settings().appearance.theme = theme
        self.folder = folder
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(*map(int, size.split("x")))
        self.session = session_of(self.viewer)

    def shoot(self, name: str) -> None:
        """Write the whole window as ``NAME.png``."""
        rest(0.7)
        self.viewer.screenshot(str(self.folder / f"{name}.png"), canvas_only=False, flash=False)

    def open(self, image: Path | None) -> None:
        """Open the image, or the generated smear."""
        if image is None:
            self.viewer.open_sample("napari-dinobloom", "generated")
        else:
            self.viewer.open(image, plugin="napari")

    def dock(self, title: str) -> Any:
        """Open one of our windows."""
        return self.viewer.window.add_plugin_dock_widget("napari-dinobloom", title)[1]

    def cells(self) -> Any:
        """Our cell layer."""
        (cells,) = [layer for layer in self.viewer.layers if tag(layer).get("role") == "cells"]
        return cells


def put_folder(widget: Any, folder: Path) -> None:
    """Type a study folder into the form of a widget."""
    widget.form.folder.setText(str(folder))
    widget.form.folder.textEdited.emit(widget.form.folder.text())


def count_window(studio: Studio, image: Path | None, place: Path) -> None:
    """Count white cells: empty, image, working, done, selected, refused."""
    widget = studio.dock("Count white cells")
    studio.shoot("1-empty")
    studio.open(image)
    put_folder(widget, place / "smear.dinobloom")
    studio.shoot("2-image")
    widget.job.start.click()
    pump(lambda: studio.session.progress is not None)
    studio.shoot("3-working")
    pump(lambda: studio.session.job is None)
    studio.shoot("4-done")
    ids = studio.cells().features["cell_id"]
    studio.session.select(str(ids.iloc[len(ids) // 2]))
    studio.shoot("5-selected")
    (place / "other").mkdir()
    (place / "other" / "thesis.txt").write_text("dear reader", encoding="utf-8")
    put_folder(widget, place / "other")
    studio.shoot("6-refused")


def segment_window(studio: Studio, image: Path | None, place: Path) -> None:
    """Segment and crop: empty, image, found, selected, a box being drawn, a cell under the brush, acts done."""
    widget = studio.dock("Segment and crop")
    studio.shoot("1-empty")
    studio.open(image)
    put_folder(widget, place / "smear.dinobloom")
    studio.shoot("2-image")
    widget.job.start.click()
    pump(lambda: studio.session.job is None, 600)
    studio.shoot("3-found")
    ids = list(studio.cells().features["cell_id"])
    studio.session.select(*ids[:3])
    pump(lambda: len(widget.crops.pictures) == len(ids[:3]))
    studio.shoot("4-selected")
    buttons = widget.correction.buttons
    buttons["box"].click()
    studio.shoot("5-box")
    widget.correction.tool.leave()
    studio.session.select(ids[0])
    buttons["repaint"].click()
    studio.shoot("6-repaint")
    widget.correction.discard.click()
    buttons["exclude"].click()
    studio.session.select(ids[1])
    buttons["delete"].click()
    studio.shoot("7-acts")


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("image", type=Path, nargs="?")
    parser.add_argument("--window", default="count", choices=["count", "segment", "map", *PREDICTING, *WINDOWS])
    parser.add_argument("--theme", default="dark", choices=["dark", "light"])
    parser.add_argument("--size", default="1366x768")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    studio = Studio(given.folder, given.theme, given.size)
    with tempfile.TemporaryDirectory() as place:
        windows = {"count": count_window, "segment": segment_window, "map": map_window, **PREDICTING, **WINDOWS}
        windows[given.window](studio, given.image, Path(place))
        studio.session.close_study()
        studio.viewer.close()


if __name__ == "__main__":
    main()
