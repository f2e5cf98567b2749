"""Pictures of the plugin in its states, for the docs and for looking at: empty, image, working, done, selected, error.

Run it with ``xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/screenshots.py FOLDER [IMAGE]
[--theme light] [--size 1366x768]``; without an image it takes the generated smear. Writes ``1-empty.png`` and so on
into FOLDER.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import napari
from napari.settings import get_settings
from qtpy.QtWidgets import QApplication

from napari_dinobloom.ui.images import tag
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.widgets.run_widget import RunWidget


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


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("image", type=Path, nargs="?")
    parser.add_argument("--theme", default="dark", choices=["dark", "light"])
    parser.add_argument("--size", default="1366x768")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    get_settings().appearance.theme = given.theme
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*map(int, given.size.split("x")))
    _, widget = viewer.window.add_plugin_dock_widget("napari-dinobloom", "Count white cells")
    if not isinstance(widget, RunWidget):
        raise TypeError(f"napari opened a {type(widget).__name__}")

    def shoot(name: str) -> None:
        rest(0.7)
        viewer.screenshot(str(given.folder / f"{name}.png"), canvas_only=False, flash=False)

    shoot("1-empty")
    if given.image is None:
        viewer.open_sample("napari-dinobloom", "generated")
    else:
        viewer.open(given.image, plugin="napari")
    with tempfile.TemporaryDirectory() as place:
        widget.form.folder.setText(str(Path(place) / "smear.dinobloom"))
        widget.form.folder.textEdited.emit(widget.form.folder.text())
        shoot("2-image")
        session = session_of(viewer)
        widget.job.start.click()
        pump(lambda: session.progress is not None)
        shoot("3-working")
        pump(lambda: session.job is None)
        shoot("4-done")
        (cells,) = [layer for layer in viewer.layers if tag(layer).get("role") == "cells"]
        session.select(str(cells.features["cell_id"].iloc[len(cells.features) // 2]))
        shoot("5-selected")
        (Path(place) / "other").mkdir()
        (Path(place) / "other" / "thesis.txt").write_text("dear reader", encoding="utf-8")
        widget.form.folder.setText(str(Path(place) / "other"))
        shoot("6-refused")
        session.close_study()
        viewer.close()


if __name__ == "__main__":
    main()
