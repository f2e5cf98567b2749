"""Acts of a person on the cells of a viewer: done in the study, and seen at once in the cell layers.

An act that reads the picture of a large field runs in a second thread, so that the window never waits for a disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from napari.layers import Labels
from napari.utils.notifications import show_warning

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.io.celltable import split_cell_id
from napari_dinobloom.io.journal import Entry, user
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline import edits
from napari_dinobloom.pipeline.hand_labels import name_cells
from napari_dinobloom.progress import Progress, Steps
from napari_dinobloom.ui import jobs, redraw, workers
from napari_dinobloom.ui.images import tag
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text

LARGE_FIELD = 4_000_000
"""Pixels of a field from which on its picture is read in a second thread: decoding them takes about 0.1 s."""

NEEDS_ONE = ("split", "repaint")
NEEDS_SOME = ("delete", "exclude", "label", "review")
NEEDS_NO_LAYER = ("undo", "redo", "label", "review", "exclude")
"""Acts that do not ask where a cell lies, so that they can also be done where no image is open."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What an act leaves behind: cells to select, cells whose outline may have changed, or what else it was on."""

    select: Sequence[str] = ()
    touched: Sequence[str] = ()
    gates: bool = False
    groups: bool = False


class Correction:
    """Everything that a person can do to the cells of the session's study.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy, or None
        Its cell layers of the study are kept up to date.
    session : Session
        Its study is changed, its selection says which cells are meant; its revision grows with every act. Undo and redo
        are those of the whole journal: where the act is one on gates or groups of patients, the session's
        `gates_revision` or `groups_revision` grows instead.
    """

    def __init__(self, viewer: Any, session: Session) -> None:
        self._viewer = viewer
        self._session = session

    def cell_layers(self) -> list[Labels]:
        """The cell layers of the session's study, the topmost first."""
        return redraw.cell_layers(self._viewer, self._session.study)

    def place(self, position: Sequence[float]) -> tuple[Labels, str, npt.NDArray[np.float64]] | None:
        """The cell layer under a point of the world, the field there, and (y, x) in its pixels; None beside all."""
        for layer in self.cell_layers():
            point = np.asarray(layer.world_to_data(position), dtype=np.float64)
            inside = all(-0.5 <= at < size - 0.5 for at, size in zip(point, layer.data.shape, strict=True))
            if layer.visible and inside:
                field = tag(layer)["fields"][round(point[0]) if layer.ndim == 3 else 0]
                if field:
                    return layer, field, point[-2:]
        return None

    def why_not(self, act: str) -> str:
        """Why `act` cannot be done now, in words; empty when it can."""
        session, chosen = self._session, self._session.selected
        if why := why_closed(session):
            return why
        if act not in NEEDS_NO_LAYER and not self.cell_layers():
            return text("edit.why.no_layer")
        if act == "merge" and len(chosen) < 2:
            return text("edit.why.select_two")
        if act == "merge" and any(cell.rpartition(":")[0] != _field_of(*chosen[:1]) for cell in chosen):
            return text("edit.why.one_field")
        if act in NEEDS_SOME and not chosen:
            return text("edit.why.select")
        if act in NEEDS_ONE and len(chosen) != 1:
            return text("edit.why.select_one")
        return self._why_not_back(act) if act in ("undo", "redo") else ""

    def _why_not_back(self, act: str) -> str:
        """Why undo or redo cannot be done; to a blind reader it would show what another one said of cells."""
        study, session = self._study, self._session
        if not (study.can_undo if act == "undo" else study.can_redo):
            return text(f"edit.why.no_{act}")
        entry = study.to_undo if act == "undo" else study.to_redo
        hidden = entry is None or (bool(entry.cells) and entry.who != (session.reader or user()))
        return text("gallery.why.others") if session.blind and hidden else ""

    @property
    def _study(self) -> Study:
        """The open study; acts ask `why_not` first."""
        study = self._session.study
        if study is None:
            raise DinoBloomError(text("edit.why.no_study"))
        return study

    @property
    def all_excluded(self) -> bool:
        """Whether every selected cell is excluded already, so that the next such act takes them back."""
        study, chosen = self._session.study, list(self._session.selected)
        if study is None or not chosen:
            return False
        return bool(study.cells.obs["excluded"].reindex(chosen, fill_value=False).all())

    def add_at(self, field: str, point: npt.NDArray[np.float64]) -> None:
        """Add the cell around (y, x)."""
        y, x = map(float, point)
        self._do("add", lambda study: Changed([edits.add_at(study, field, y, x)]), field)

    def add_box(self, field: str, one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> None:
        """Add the cell in the box between two corners (y, x) in data coordinates, where pixels have whole numbers."""
        record = self._study.field(field)
        ends = np.clip(np.sort([one, other], axis=0) + 0.5, 0, (record.height, record.width))
        y0, x0, y1, x1 = map(float, ends.ravel())
        self._do("box", lambda study: Changed([edits.add_box(study, field, (y0, x0, y1, x1))]), field)

    def split(self, line: npt.NDArray[np.float64]) -> None:
        """Split the selected cell along a line, (k, 2) of y and x."""
        cell = self._session.selected[0] if self._session.selected else ""
        self._do("split", lambda study: Changed(edits.split(study, cell, line)), _field_of(cell))

    def merge(self) -> None:
        """Make one cell of the selected ones."""
        chosen = list(self._session.selected)
        self._do("merge", lambda study: Changed([edits.merge(study, chosen)]), _field_of(*chosen))

    def repaint(self, field: str, window: tuple[int, int, int, int], painted: npt.NDArray[np.integer[Any]]) -> None:
        """Take over the cells that a person painted in a window of a field; values are numbers of cells."""

        def act(study: Study) -> Changed:
            changed = edits.repaint(study, field, painted, box=window)
            return Changed(changed, changed)

        self._do("repaint", act, field)

    def delete(self) -> None:
        """Delete the selected cells."""
        chosen = self._session.selected
        self._do("delete", lambda study: self._entry(study.delete(chosen)))

    def label(
        self, value: str | Sequence[str], cells: Sequence[str] | None = None, *, then: Sequence[str] = ()
    ) -> bool:
        """Give cells a class by hand, or take it away with an empty one; this is a review of them too.

        Returns whether it was done; why not is said.

        Parameters
        ----------
        value : str or sequence of str
            One class for all, or one for each cell.
        cells : sequence of str, optional
            By default the selected ones.
        then : sequence of str
            Cells to be selected afterwards; by default those that got the class.
        """
        chosen = self._session.selected if cells is None else cells
        who = self._session.reader or None

        def act(study: Study) -> Changed:
            name_cells(study, chosen, value, who=who)
            return Changed(then or chosen)

        return self._do("label", act)

    def review(self, value: bool = True) -> None:
        """Mark the selected cells as looked at, or take the mark off."""
        chosen, who = self._session.selected, self._session.reader or None

        def act(study: Study) -> Changed:
            study.set_review(chosen, value, who=who)
            return Changed(chosen)

        self._do("review", act)

    def exclude(self) -> None:
        """Leave the selected cells out of every count, or take them back when all of them are out."""
        chosen, back = self._session.selected, self.all_excluded
        who = self._session.reader or None

        def act(study: Study) -> Changed:
            study.exclude(chosen, not back, who=who)
            return Changed(chosen)

        self._do("exclude", act)

    def undo(self) -> None:
        """Take the last act back."""
        self._do("undo", lambda study: self._entry(study.undo()))

    def redo(self) -> None:
        """Do again what was taken back last."""
        self._do("redo", lambda study: self._entry(study.redo()))

    def _entry(self, entry: Entry | None) -> Changed:
        """What a line of the journal touches; nothing new is selected, unless cells got or lost a mark or a class."""
        if entry is not None and entry.projection is not None:
            return Changed(gates=True)
        if entry is not None and entry.patients:
            return Changed(groups=True)
        if entry is not None and "deleted" not in entry.new:
            return Changed(entry.cells)  # only what people say of these cells changed
        cells = {} if entry is None else dict.fromkeys((*entry.cells, *entry.old_shapes, *entry.new_shapes))
        return Changed([cell for cell in self._session.selected if cell not in cells], [*cells])

    def _do(self, key: str, act: Callable[[Study], Changed], reads: str = "") -> bool:
        """Do one act, at once or, when it reads a large field, in a second thread; return whether it is done now."""
        if why := self.why_not(key):
            show_warning(why)
            return False
        study = self._study
        record = study.field(reads) if reads else None
        if record is not None and record.height * record.width > LARGE_FIELD:
            end = partial(self._end, study)
            workers.start(self._session, text(f"edit.{key}"), _steps, act, study, on_end=end, notify=False)
            return False
        try:
            changed = act(study)
        except DinoBloomError as error:
            show_warning(str(error))
            return False
        self._show(changed)
        return True

    def _end(self, study: Study, outcome: workers.Outcome[Changed]) -> None:
        """Show what an act in the second thread did."""
        if outcome.error is not None:
            show_warning(str(outcome.error))
        elif outcome.result is not None and self._session.study is study:
            self._show(outcome.result)

    def _show(self, changed: Changed) -> None:
        """Bring layers, counts and selection up to date."""
        if changed.gates:
            self._session.gates_revision += 1
            return
        if changed.groups:
            self._session.groups_revision += 1
            return
        study = self._study
        for layer in self.cell_layers():
            redraw.update(layer, study, changed.touched)
        self._session.select(*_living(study, changed.select))
        self._session.revision += 1
        jobs.recount(self._session)


def why_closed(session: Session) -> str:
    """Why the cells of a session cannot be changed at all now, in words; empty when they can."""
    study = session.study
    if session.job is not None:
        return text("run.why.busy", job=session.job.title)
    if study is None:
        return text("edit.why.no_study")
    if study.read_only and study.held_by is not None:
        return text("edit.why.held", name=study.name, holder=study.held_by)
    if study.read_only:
        return text("edit.why.read_only", name=study.name)
    return ""


def _living(study: Study, cells: Sequence[str]) -> list[str]:
    """Those of some cells that the table has and nobody deleted."""
    obs = study.cells.obs
    rows = obs.index.get_indexer(pd.Index(list(cells), dtype=object))
    living = (rows >= 0) & ~obs["deleted"].to_numpy(bool)[rows]
    return [cell for cell, alive in zip(cells, living.tolist(), strict=True) if alive]


def _field_of(*cells: str) -> str:
    """Field of the first of some cells; empty for none."""
    return split_cell_id(cells[0])[0] if cells and cells[0] else ""


def _steps(act: Callable[[Study], Changed], study: Study) -> Steps[Changed]:
    """One act as a task for the second thread; it cannot be stopped half way."""
    yield Progress(0, 1, "")
    return act(study)
