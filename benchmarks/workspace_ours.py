"""The tasks of `workspace.py` in this plugin, each by real clicks in a process that it starts for them.

Not run by itself: ``python benchmarks/workspace_ours.py SCENE BEGUN FOLDER``, with BEGUN the time at which the process
was started, in seconds since 1970. It prints what was counted as one line of JSON.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from desk import Desk, say
from hand import Hand, pump, settle
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QMessageBox

from napari_dinobloom.ui.gating import gating_of
from napari_dinobloom.ui.images import tag
from napari_dinobloom.ui.session import session_of

READY = "ready to be killed"
LOOP = 24
"""Places that a lasso is drawn through."""


class OurDesk(Desk):
    """One with our windows, and their session."""

    def __init__(self, begun: float, *files: str) -> None:
        super().__init__(begun, *files)
        self.session = session_of(self.viewer)

    def ours(self, title: str) -> Any:
        """Open one of our windows from the menu."""
        return self.window("DinoBloom", title)

    def idle(self) -> None:
        """Wait until no job is under way, nor one that follows it."""
        pump(lambda: self.session.job is None, 3600)
        settle()
        pump(lambda: self.session.job is None, 3600)

    def cell(self, at: int) -> tuple[str, list[float]]:
        """Id and box, in the world, of one of the cells of the field that is in sight."""
        layer = next(one for one in self.viewer.layers if tag(one).get("role") == "cells")
        mark = tag(layer)
        field = mark["fields"][int(self.viewer.dims.current_step[0]) if layer.ndim == 3 else 0]
        names = layer.features["cell_id"].to_numpy(dtype=object)
        rows = [row for row, name in enumerate(names) if str(name).startswith(field)]
        value = int(layer.features["index"].to_numpy()[rows[at]])
        y0, x0, y1, x1 = (float(v) for v in mark["boxes"][value])
        scale = [float(v) for v in layer.scale[-2:]]
        return str(names[rows[at]]), [y0 * scale[0], x0 * scale[1], y1 * scale[0], x1 * scale[1]]


def ring(view: Any, rows: np.ndarray, reach: float = 1.3) -> list[QPoint]:
    """A loop on the map around the middle of some cells, as pixels of its canvas."""
    places = np.asarray(view.places, dtype=float)[rows]
    centre = np.median(places, axis=0)
    far = reach * np.median(np.abs(places - centre), axis=0) * 2
    angles = np.linspace(0, 2 * np.pi, LOOP)
    corners = centre + far * np.column_stack([np.cos(angles), np.sin(angles)])
    return [QPoint(*(round(v) for v in view.canvas.to_pixel(tuple(corner)))) for corner in corners]


def gated_map(begun: float, folder: Path) -> None:
    """From nothing to a gated map of all fields; then the gate in the image, corrections, names, a page per patient."""
    desk = OurDesk(begun)
    hand, session = desk.hand, desk.session
    with hand.task("a study with the fields"):
        study = desk.ours("Study (start here)")
        hand.answer(folder / "images")
        hand.click(study.inputs.buttons["add_folder"])
        hand.answer(folder / "bccd.dinobloom")
        hand.click(study.header.buttons["new"])
        desk.idle()
        pump(lambda: study.job.start.isEnabled(), 60)
    with hand.task("find, embed, map, classify, count, report") as task:
        moments: dict[str, float] = {}

        def note(progress: Any) -> None:
            if progress is not None and progress.step not in moments:
                moments[progress.step] = time.perf_counter()

        session.events.progress.connect(note)
        started = time.perf_counter()
        hand.click(study.job.start)
        pump(lambda: session.job is not None, 10)
        desk.idle()
        pump(lambda: not study.steps.busy and study.steps.all_done, 60)
        task.found = {
            "fields": len(session.study.fields),
            "cells": int(session.study.cells.n_obs),
            "seconds to each step": {step: round(at - started, 1) for step, at in moments.items()},
        }
    with hand.task("the map"):
        hand.click(study.steps.buttons["map"])
        chart = desk.docked("Map and gates")
        pump(lambda: len(chart.view.places) == session.study.cells.n_obs, 60)
    classes = session.study.cells.obs["predicted"].astype(str).to_numpy()
    names, counts = np.unique(classes, return_counts=True)
    most = names[np.argmax(counts)]
    with hand.task("a gate") as task:
        hand.click(chart.tools.buttons["lasso"])
        hand.drag(chart.view.canvas.native, ring(chart.view, np.flatnonzero(classes == most)))
        pump(lambda: bool(session.gate), 30)
        task.found = {"cells in it": gating_of(session).totals()[session.gate][0]}
    since = round(time.time() - begun, 1)
    with hand.task("the gate in the image"):
        hand.choose(chart.boxes["colour"], "Gate")
    _correct(desk, study)
    with hand.task("one cell named by hand") as task:
        gallery = desk.ours("Gallery")
        pump(lambda: gallery.model.rowCount() > 0, 60)
        settle()
        hand.click(gallery.view.viewport(), gallery.view.visualRect(gallery.model.index(0, 0)).center())
        hand.key(gallery.view, Qt.Key.Key_1)
        labels = session.study.cells.obs["label"].astype(str)
        task.found = {"cells with a label": int((labels != "").sum())}
    with hand.task("a page for each patient") as task:
        hand.click(study.steps.buttons["report"])
        report = desk.docked("Report")
        hand.tick(report.pages["per_patient"])
        hand.click(report.job.start)
        pump(lambda: session.job is not None, 10)
        desk.idle()
        pages = sorted(path.name for path in session.study.path.rglob("*.html"))
        task.found = {"files": len(pages)}
    say({"seconds to a gated map": since, "tasks": hand.counted(), READY: True})
    pump(lambda: False, 600)


def _correct(desk: OurDesk, study: Any) -> None:
    """Delete a cell of the field in sight, and put it back by a box."""
    hand, session = desk.hand, desk.session
    with hand.task("the window for corrections"):
        hand.click(study.steps.buttons["segment"])
        panel = desk.docked("Segment and crop").correction
    name, (y0, x0, y1, x1) = desk.cell(0)
    native, before = desk.canvas.native, int((~session.study.cells.obs["deleted"]).sum())
    with hand.task("one cell deleted") as task:
        hand.click(native, desk.pixel((y0 + y1) / 2, (x0 + x1) / 2))
        if session.focus != name:
            raise RuntimeError(f"a click on {name} selected {session.focus or 'nothing'}")
        hand.click(panel.buttons["delete"])
        pump(lambda: int((~session.study.cells.obs["deleted"]).sum()) == before - 1, 60)
        task.found = {"cells": before - 1}
    with hand.task("one cell added by a box") as task:
        hand.click(panel.buttons["box"])
        corners = [desk.pixel(y0 + (y1 - y0) * t, x0 + (x1 - x0) * t) for t in np.linspace(-0.05, 1.05, 8)]
        hand.drag(native, corners)
        pump(lambda: int((~session.study.cells.obs["deleted"]).sum()) == before, 60)
        task.found = {"cells": before}


def one_field(begun: float, folder: Path) -> None:
    """``napari FIELD``, then find its cells."""
    desk = OurDesk(begun, str(folder / "field.jpg"))
    hand, session = desk.hand, desk.session
    with hand.task("the window"):
        widget = desk.ours("Segment and crop")
    for name in ("find cells, first time", "find cells again"):
        with hand.task(name) as task:
            if session.study is not None:
                hand.type(widget.form.folder, str(folder / "again.dinobloom"))
            hand.click(widget.job.start)
            pump(lambda: session.job is not None, 10)
            desk.idle()
            task.found = {"cells": int(session.study.cells.n_obs)}
    say({"tasks": hand.counted()})
    session.close_study()


def after_a_crash(begun: float, folder: Path) -> None:
    """Open the study of a window that was killed."""
    desk = OurDesk(begun)
    hand, session = desk.hand, desk.session
    with hand.task("open the study again") as task:
        study = desk.ours("Study (start here)")
        hand.pops_up(study.header.buttons["recent"], "bccd")
        pump(lambda: session.study is not None, 60)
        desk.idle()
        obs = session.study.cells.obs
        task.found = {
            "cells deleted": int(obs["deleted"].sum()),
            "cells with a label": int((obs["label"].astype(str) != "").sum()),
            "gates": len(gating_of(session).tree.keys),
            "may be written": not session.study.read_only,
        }
    with hand.task("the map with its gate") as task:
        hand.click(study.steps.buttons["map"])
        chart = desk.docked("Map and gates")
        pump(lambda: len(chart.view.places) == session.study.cells.n_obs, 60)
        task.found = {"cells in it": gating_of(session).totals()[gating_of(session).tree.keys[0]][0]}
    say({"seconds to all as it was": round(time.time() - begun, 1), "tasks": hand.counted()})
    session.close_study()


def groups(begun: float, folder: Path) -> None:
    """Predict the group of each patient of a study, by a model that is trained on the others."""
    desk = OurDesk(begun)
    hand, session = desk.hand, desk.session
    with hand.task("open the study"):
        study = desk.ours("Study (start here)")
        hand.answer(folder / "patients.dinobloom")
        hand.click(study.header.buttons["open"])
        pump(lambda: session.study is not None, 60)
        desk.idle()
    with hand.task("predicted groups, cross-validated") as task:
        widget = desk.ours("Patients")
        hand.answer(folder / "groups.csv")
        hand.click(widget.form.load)
        QTimerYes(hand)
        hand.click(widget.job.start)
        desk.idle()
        table = widget.cohort.table()
        right = (table["predicted"] == table["group"]).mean()
        task.found = {"patients": len(table), "right": round(float(right), 3)}
    say({"tasks": hand.counted()})
    session.close_study()


class QTimerYes:
    """Says yes to the question that opens next, if one does within a second."""

    def __init__(self, hand: Hand, tries: int = 20) -> None:
        from qtpy.QtCore import QTimer
        from qtpy.QtWidgets import QApplication

        box = QApplication.activeModalWidget()
        if isinstance(box, QMessageBox):
            hand.click(box.button(QMessageBox.StandardButton.Yes))
        elif tries:
            QTimer.singleShot(50, lambda: QTimerYes(hand, tries - 1))


SCENES = {"gated_map": gated_map, "one_field": one_field, "after_a_crash": after_a_crash, "groups": groups}

if __name__ == "__main__":
    SCENES[sys.argv[1]](float(sys.argv[2]), Path(sys.argv[3]))
    sys.stdout.flush()
    os._exit(0)  # the window is not closed by hand, and a worker may be about to look something up
