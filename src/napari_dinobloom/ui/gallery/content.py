"""What the gallery shows now: it follows the session, and keeps cells in their place while a person names them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_dinobloom.ui.gallery.choice import Choice, Sorting
from napari_dinobloom.ui.gallery.model import NONE, GalleryModel
from napari_dinobloom.ui.gallery.sheet import Bools, Rows, Sheet, read_sheet
from napari_dinobloom.ui.gallery.thumbnails import SIDE, Thumbnails
from napari_dinobloom.ui.session import Session

BOX = ["y0", "x0", "y1", "x1"]


class Content(QObject):
    """The cells on show.

    A cell that no longer belongs to the choice (its class was changed, say) stays until `update` or another choice, so
    that nothing jumps away under the eyes. Signals: `changed` when other cells or another order are shown, `renewed`
    when the same cells have other classes or marks.

    Parameters
    ----------
    session : Session
        Followed until `detach`.
    model : GalleryModel
        Filled.
    thumbnails : Thumbnails
        Told which study is meant and which cells have another picture.
    """

    changed = Signal()
    renewed = Signal()

    def __init__(
        self, session: Session, model: GalleryModel, thumbnails: Thumbnails, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._session, self._model, self._thumbnails = session, model, thumbnails
        self.choice, self.sorting = Choice(), Sorting()
        self.side = SIDE  # device pixels of a thumbnail
        self._boxes: Any = None
        self._own = False
        self._picked: tuple[str, ...] = session.selected
        events = session.events
        self._links: list[tuple[Any, Callable[..., None]]] = [
            (events.study, self._on_study),
            (events.revision, self._on_revision),
            (events.selected, self._on_selected),
            (events.shown, self._on_shown),
            (events.gate, self._on_gate),
            (events.gates_revision, self._on_gate),
            (events.reader, self._on_revision),
            (events.blind, self._on_revision),
        ]
        for signal, follow in self._links:
            signal.connect(follow)

    def detach(self) -> None:
        """Stop listening to the session, which lives on."""
        for signal, follow in self._links:
            signal.disconnect(follow, missing_ok=True)
        self._thumbnails.detach()

    @property
    def sheet(self) -> Sheet | None:
        """All cells of the open study."""
        return self._model.sheet

    @contextmanager
    def own(self) -> Iterator[None]:
        """Within it, a new selection of the session comes from the gallery itself, which does not change its choice."""
        before, self._own = self._own, True
        try:
            yield
        finally:
            self._own = before

    def choose(self, choice: Choice) -> None:
        """Show other cells."""
        if choice.kind == "selection":
            self._picked = self._session.selected
        self.choice = choice
        self.update()

    def sort(self, key: str | None = None, *, turned: bool | None = None) -> None:
        """Show the same cells in another order."""
        self.sorting = replace(
            self.sorting,
            key=self.sorting.key if key is None else key,
            turned=self.sorting.turned if turned is None else turned,
        )
        if self.sheet is not None:
            self._put(self._model.rows)

    def update(self) -> None:
        """Show what belongs to the choice now."""
        self._put(NONE if self.sheet is None else self._members(self.sheet))

    def stale(self) -> int:
        """How many cells came or went since the choice was made: those that `update` would show or take away."""
        if self.sheet is None:
            return 0
        wanted, shown = np.zeros((2, len(self.sheet)), dtype=bool)
        wanted[self._members(self.sheet)] = shown[self._model.rows] = True
        return int(np.count_nonzero(wanted ^ shown))

    def _members(self, sheet: Sheet) -> Rows:
        """Rows that belong to the choice."""
        gate = self._gate() if self.choice.kind == "gate" else None
        return self.choice.rows(sheet, selected=self._picked, gate=gate)

    def _gate(self) -> Bools | None:
        """Cells in the chosen gate; None where none is chosen."""
        from napari_dinobloom.ui.gating import gating_of

        mask = gating_of(self._session).masks().get(self._session.gate)
        return None if mask is None else np.asarray(mask, dtype=bool)

    def gate_name(self) -> str:
        """Name of the chosen gate; empty where none is chosen."""
        from napari_dinobloom.ui.gating import gating_of

        if self._session.study is None or not self._session.gate:
            return ""
        tree, key = gating_of(self._session).tree, self._session.gate
        return "" if tree is None or key not in tree else str(tree[key].gate.name)

    def _put(self, rows: Rows) -> None:
        """Show rows in the order that was chosen."""
        sheet = self.sheet
        self._model.put(sheet, NONE if sheet is None else self.sorting.order(sheet, np.sort(rows)))
        self.changed.emit()

    def open(self) -> None:
        """Show all cells of the session's study, or none."""
        self._on_study()

    def _on_study(self, _event: object = None) -> None:
        """Another study was opened, or it was closed."""
        study = self._session.study
        self._thumbnails.show(study, self.side)
        self.choice, self._picked = Choice(), self._session.selected
        self._read()
        self.update()

    def _read(self) -> None:
        """Read all cells anew."""
        session, study = self._session, self._session.study
        self._model.sheet = None if study is None else read_sheet(study, session.reader, blind=session.blind)
        self._boxes = None if study is None else study.cells.obs[BOX].to_numpy()

    def _on_revision(self, _event: object = None) -> None:
        """Cells have changed, or are seen by another reader."""
        session, study, before = self._session, self._session.study, self.sheet
        if study is None or before is None:
            return
        sheet = read_sheet(study, session.reader, blind=session.blind)
        self._forget_pictures(sheet)
        same = len(sheet) == len(before) and bool((sheet.living[self._model.rows]).all())
        if same and bool((sheet.living == before.living).all()):
            self._model.renew(sheet)
            self.renewed.emit()
            return
        self._model.sheet = sheet
        self.update()

    def _forget_pictures(self, sheet: Sheet) -> None:
        """Have the pictures of cells made anew whose outline has changed."""
        study, before = self._session.study, self._boxes
        if study is None:
            return
        self._boxes = study.cells.obs[BOX].to_numpy()
        last = study.acts[-1] if study.acts else None
        drawn = last is not None and bool(last.new_shapes or last.old_shapes)
        if drawn and study.settings.get("mask_neighbours"):
            self._thumbnails.forget()  # each cell's picture shows where the others are
        elif len(before) != len(self._boxes) or not np.array_equal(before, self._boxes):
            known = len(before)
            moved = np.flatnonzero((self._boxes[:known] != before).any(axis=1))
            self._thumbnails.forget(sheet.ids.to_numpy()[moved].tolist())

    def _on_selected(self, selected: tuple[str, ...]) -> None:
        """Other cells were selected: elsewhere, or here."""
        if self.choice.kind == "selection" and not self._own:
            self._picked = selected
            self.update()

    def _on_shown(self, shown: tuple[str, ...]) -> None:
        """Another window wants these cells to be looked through."""
        if shown:
            self._picked, self.choice = shown, Choice("selection")
            self.update()

    def _on_gate(self, _event: object = None) -> None:
        """Another gate was chosen, or one has changed."""
        if self.choice.kind == "gate":
            self.update()
