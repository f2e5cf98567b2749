"""Pictures of the plugin's windows in their states, for the docs and for looking at.

Run it with ``xvfb-run -a -s "-screen 0 3840x2160x24" python benchmarks/screenshots.py FOLDER [IMAGE]
[--window count] [--theme dark light] [--size 1366x768 3840x2160] [--scale 2]``; without an image it takes the generated
smear. Writes ``1-empty.png`` and so on into FOLDER, with theme, size and scale in the name where more than one is asked
for. ``--cuts`` also writes ``cuts.txt``: texts that do not fit, parts out of sight, the share of width of each dock.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import napari
from napari.settings import get_settings
from qtpy.QtWidgets import QApplication
from screenshots_map import map_window
from screenshots_plugin import WINDOWS
from screenshots_predict import classify_window, gallery_window, patients_window
from screenshots_tutorial import TUTORIAL

from napari_dinobloom.ui.images import tag
from napari_dinobloom.ui.session import session_of

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "ui"))
PREDICTING = {"classify": classify_window, "patients": patients_window, "gallery": gallery_window}
OTHERS = {**PREDICTING, **WINDOWS, **TUTORIAL}


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
    """A viewer, and how to take its picture in each of some themes and sizes (in pixels of the screen).

    Parameters
    ----------
    folder : Path
        Where pictures go.
    themes, sizes : sequence of str
        Each picture is taken in all of them, the first ones first.
    cuts : bool
        Also write what cannot be read.
    """

    def __init__(self, folder: Path, themes: Sequence[str], sizes: Sequence[str], *, cuts: bool = False) -> None:
        self.folder, self.looks, self.cuts = folder, list(product(themes, sizes)), cuts
        get_settings().appearance.theme = themes[0]
        self.viewer = napari.Viewer(show=True)
        self.window = self.viewer.window._qt_window
        self.session = session_of(self.viewer)
        self._take(*self.looks[0])
        rest(0.5)  # a window that was never drawn lays its first dock out with other sizes

    def shoot(self, name: str) -> None:
        """Write the whole window as ``NAME.png``, once for each theme and size."""
        for theme, size in self.looks:
            self._take(theme, size)
            rest(0.7)
            words = [name, *([theme, size] if len(self.looks) > 1 else [])]
            self.viewer.screenshot(str(self.folder / f"{'-'.join(words)}.png"), canvas_only=False, flash=False)
            if self.cuts:
                self._note(" ".join([name, theme, size]))
        self._take(*self.looks[0])

    def _take(self, theme: str, size: str) -> None:
        """Give the window a theme and a size."""
        if self.viewer.theme != theme:
            get_settings().appearance.theme = theme
        scale = self.window.devicePixelRatioF()
        self.window.resize(*(round(int(side) / scale) for side in size.split("x")))

    def _note(self, title: str) -> None:
        """Add to ``cuts.txt`` what cannot be read in our docks now."""
        from cut import cuts, scrolled
        from qtpy.QtWidgets import QDockWidget

        window = self.window
        lines = [f"{title}: window {window.width()} x {window.height()}"]
        for dock in window.findChildren(QDockWidget):
            if dock.isVisible() and "napari-dinobloom" in dock.windowTitle() and not dock.visibleRegion().isEmpty():
                share = f"{100 * dock.width() / window.width():.0f} % of the width"
                lines += [f"  {dock.windowTitle()}: {share}, out of sight {scrolled(dock) or 'nothing'}"]
                lines += [f"    {line}" for line in cuts(dock)]
        with (self.folder / "cuts.txt").open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")

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
    parser.add_argument("--window", default="count", choices=["count", "segment", "map", *OTHERS])
    parser.add_argument("--theme", default=["dark"], nargs="+", choices=["dark", "light"])
    parser.add_argument("--size", default=["1366x768"], nargs="+", help="of the window, in pixels of the screen")
    parser.add_argument("--scale", default="1", help="as set for the whole screen, such as 1.5")
    parser.add_argument("--cuts", action="store_true", help="also write what cannot be read")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    os.environ["QT_SCALE_FACTOR"] = given.scale  # before the first window
    studio = Studio(given.folder, given.theme, given.size, cuts=given.cuts)
    with tempfile.TemporaryDirectory() as place:
        windows = {"count": count_window, "segment": segment_window, "map": map_window, **OTHERS}
        windows[given.window](studio, given.image, Path(place))
        studio.session.close_study()
        studio.viewer.close()


if __name__ == "__main__":
    main()
