"""Pictures of the tutorial (`docs/tutorial.md`); `screenshots.py` has the program.

``xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/screenshots.py docs/images --window tutorial
--size 1280x800`` goes through the tutorial on generated smears, from an empty napari to the report, with the buttons
and the mouse that it tells of. Only file dialogs are passed over: their answer is given.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mouse import Mouse
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QWidget
from screenshots_docs import small

from napari_dinobloom.io.generate import iter_write_smears
from napari_dinobloom.progress import drain
from napari_dinobloom.ui import study_job

if TYPE_CHECKING:
    from screenshots import Studio

FIELDS = 24
"""As the tutorial says."""


def tutorial_window(studio: Studio, _image: Path | None, place: Path) -> None:
    """Go through the tutorial."""
    lesson = Lesson(studio, place)
    for part in (lesson.begin, lesson.find, lesson.correct, lesson.embed, lesson.map, lesson.gate):
        part()
    for part in (lesson.classify, lesson.review, lesson.report):
        part()


class Lesson:
    """A viewer, the windows as they are opened, and a part for each section of the tutorial."""

    def __init__(self, studio: Studio, place: Path) -> None:
        self.studio, self.session, self.place = studio, studio.session, place
        self.study_window = studio.dock("Study (start here)")
        self.docks: dict[str, Any] = {}

    def shoot(self, name: str) -> None:
        """Take a picture of the whole window, small enough for a page."""
        self.studio.shoot(f"tutorial-{name}")
        file = self.studio.folder / f"tutorial-{name}.png"
        small(file, file)

    def window(self, name: str) -> Any:
        """Open a window from the menu, as a tab beside those that are open, or bring it to the front."""
        dock, widget = self.studio.viewer.window.add_plugin_dock_widget("napari-dinobloom", name, tabify=True)
        dock.show()
        dock.raise_()
        self.docks[name] = dock
        return widget

    def wait(self, seconds: float = 900) -> None:
        """Let the job that was started come to its end, and the windows come to rest."""
        from screenshots import pump, rest

        pump(lambda: self.session.job is None, seconds)
        pump(lambda: not self.study_window.steps.busy, 60)
        rest(1)

    def press(self, button: QWidget) -> None:
        """Press a button with the mouse."""
        if not button.isEnabled():
            raise RuntimeError(f"a button of the tutorial cannot be pressed: {button.toolTip()}")
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)

    def until(self, step: str) -> None:
        """Do the steps up to one, from the Study window."""
        box = self.study_window.steps.until
        box.setCurrentIndex(box.findData(step))
        self.press(self.study_window.job.start)
        self.wait()

    def begin(self) -> None:
        """A new study, and a folder of images that is dropped."""
        from screenshots import pump

        drain(iter_write_smears(self.place / "smears", FIELDS, 0))
        self.shoot("1-start")
        study_job.start_create(self.studio.viewer, self.session, self.place / "tutorial.dinobloom", "blood")
        self.wait()
        self.study_window.inputs.add([str(self.place / "smears" / "images")])
        pump(lambda: not self.study_window.inputs.lookup.busy)
        self.shoot("2-images")

    def find(self) -> None:
        """Find and cut out the cells."""
        self.until("crop")
        self.shoot("3-found")

    def correct(self) -> None:
        """Select a cell, and take it out of the counts."""
        from screenshots import pump, rest

        widget = self.window("Segment and crop")
        rest(0.5)
        cells = self.session.study.cells.obs
        first = self.session.study.fields[0].id
        cell = str(cells.index[(cells["field"] == first) & ~cells["touches_border"].astype(bool)][0])
        self.session.select(cell)
        pump(lambda: len(widget.crops.pictures) == 1)
        self.press(widget.correction.buttons["repaint"])
        rest(0.5)
        self.shoot("4-repaint")
        self.press(widget.correction.discard)
        self.press(widget.correction.buttons["exclude"])
        rest(0.5)
        self.shoot("5-excluded")
        self.press(widget.correction.buttons["undo"])
        rest(0.5)

    def embed(self) -> None:
        """Describe the cells."""
        widget = self.window("Embed")
        self.press(widget.job.start)
        self.wait()
        self.shoot("6-embed")

    def map(self) -> None:
        """Lay out the map."""
        self.until("map")
        self.map_window = self.window("Map and gates")
        window = self.docks["Map and gates"].window()
        window.resizeDocks([self.docks["Map and gates"]], [int(0.42 * window.width())], Qt.Orientation.Horizontal)
        self.docks["Map and gates"].raise_()
        self.map_window.view.canvas.fit()

    def gate(self) -> None:
        """Draw a gate around a population."""
        mouse, view = Mouse(self.map_window.view), self.map_window.view
        places = np.asarray(view.places, dtype=float)
        places = places[np.isfinite(places).all(axis=1)]
        chosen = _population(places)
        mouse.key(Qt.Key.Key_L)
        mouse.drag(_ring(chosen))
        mouse.key(Qt.Key.Key_V)
        self.shoot("7-gate")

    def classify(self) -> None:
        """Name the cells, and look why one has its name."""
        from screenshots import pump, rest

        widget = self.window("Classify")
        rest(0.5)
        self.press(widget.job.start)
        self.wait()
        obs = self.session.study.cells.obs
        named = obs.index[~obs["abstained"].to_numpy(bool)]
        self.session.select(str(named[0]))
        pump(lambda: not widget.cell.lookup.busy)
        self.shoot("8-classify")

    def review(self) -> None:
        """Look the cells through in the gallery, and confirm some."""
        from screenshots import rest

        widget = self.window("Gallery")
        rest(1)
        self.session.select()
        obs = self.session.study.cells.obs
        named = [str(cell) for cell in obs.index[~obs["abstained"].to_numpy(bool)]]
        shown = [cell for cell in widget.model.cells(np.arange(widget.model.rowCount())) if cell in named]
        self.session.select(*shown[:3])
        rest(0.3)
        self.press(widget.acts.buttons["confirm"])
        rest(0.5)
        self.shoot("9-gallery")

    def report(self) -> None:
        """Write the report."""
        widget = self.window("Report")
        self.press(widget.job.start)
        self.wait()
        self.shoot("10-report")


def _population(places: np.ndarray) -> np.ndarray:
    """The cells, an eighth to a third of all, that lie farthest apart from all others."""
    far = np.linalg.norm(places[:, None] - places[None], axis=2)
    near = np.sort(far, axis=1)
    low, high = len(places) // 8, len(places) // 3
    heart, gap = np.unravel_index((near[:, low + 1 : high + 1] / near[:, low:high]).argmax(), (len(places), high - low))
    return places[np.argsort(far[heart])[: low + gap + 1]]


def _ring(places: np.ndarray) -> list[tuple[float, float]]:
    """The path of a hand around some places."""
    middle = places.mean(axis=0)
    reach = 1.3 * np.linalg.norm(places - middle, axis=1).max()
    angle = np.linspace(0, 2 * np.pi, 40)
    far = reach * (1 + 0.06 * np.sin(3 * angle))
    return [(float(x), float(y)) for x, y in middle + np.column_stack([far * np.cos(angle), far * np.sin(angle)])]


TUTORIAL: dict[str, Callable[..., None]] = {"tutorial": tutorial_window}
"""The window by the name that the program takes."""
