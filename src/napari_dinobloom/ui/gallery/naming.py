"""What a person says of the selected cells by keys: class, confirmation, review, exclusion, and taking it back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
from napari.utils.notifications import show_warning

from napari_dinobloom.ui.correction import Correction
from napari_dinobloom.ui.gallery.content import Content
from napari_dinobloom.ui.gallery.link import SelectionLink
from napari_dinobloom.ui.gallery.view import GalleryView
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text

ACTS = ("confirm", "review", "exclude", "clear", "undo", "redo")


class Naming:
    """Acts on the cells that are selected in a view; after a class was given the next unreviewed cell is selected.

    Parameters
    ----------
    session : Session
        Its study is changed.
    correction : Correction
        Does the acts and brings the layers up to date.
    view : GalleryView
        Its keys are followed.
    link : SelectionLink
        Its selection is that of the session when an act begins.
    content : Content
        What is shown.
    classes : callable
        Returns the classes of the keys 1, 2, ...
    """

    def __init__(
        self,
        session: Session,
        correction: Correction,
        view: GalleryView,
        link: SelectionLink,
        content: Content,
        classes: Callable[[], Sequence[str]],
    ) -> None:
        self._session, self._correction = session, correction
        self._view, self._link, self._content, self._classes = view, link, content, classes
        view.pressed_key.connect(self.do)

    def why_not(self, act: str) -> str:
        """Why an act of `ACTS` cannot be done now, in words; empty when it can."""
        key = {"confirm": "label", "clear": "label"}.get(act, act)
        if (why := self._correction.why_not(key)) and why != text("edit.why.select"):
            return why
        if act in ("undo", "redo"):
            return ""
        return "" if self._view.any_chosen else text("gallery.why.select")

    def do(self, act: str) -> None:
        """Do what a key stands for: a digit, or one of `ACTS`."""
        if act.isdigit() and act != "0":
            names = self._classes()
            if int(act) <= len(names):
                self.assign(names[int(act) - 1])
            return
        act = "clear" if act == "0" else act
        if why := self.why_not(act):
            show_warning(why)
            return
        with self._content.own():
            if act not in ("undo", "redo"):
                self._link.tell()
            getattr(self, f"_{act}")()

    def assign(self, name: str) -> bool:
        """Give the selected cells a class and select the next cell that is not reviewed; return whether it was done."""
        if why := self.why_not("clear"):
            show_warning(why)
            return False
        with self._content.own():
            self._link.tell()
            return self._correction.label(name, then=self._next())

    def _confirm(self) -> None:
        """Give each selected cell the class that the classifier gave it."""
        sheet, cells = self._content.sheet, self._session.selected
        if sheet is None:
            return
        said = sheet.predicted[sheet.ids.get_indexer(pd.Index(cells, dtype=object))]
        named = said != ""
        if not named.all():
            show_warning(text("gallery.why.unnamed", count=int((~named).sum())))
        chosen = [cell for cell, known in zip(cells, named.tolist(), strict=True) if known]
        if chosen:
            self._correction.label(said[named].tolist(), chosen, then=self._next())

    def _clear(self) -> None:
        """Take the hand label of the selected cells away."""
        self._correction.label("")

    def _review(self) -> None:
        """Mark the selected cells as looked at, or take the mark off where all have it."""
        sheet = self._content.sheet
        if sheet is not None:
            places = self._view.chosen_places()
            self._correction.review(not sheet.reviewed[self._view.cells.rows[places]].all())

    def _exclude(self) -> None:
        """Leave the selected cells out of the counts, or take them back where all are out."""
        self._correction.exclude()

    def _undo(self) -> None:
        """Take the last act back."""
        self._correction.undo()

    def _redo(self) -> None:
        """Do again what was taken back."""
        self._correction.redo()

    def _next(self) -> tuple[str, ...]:
        """The next cell that is not reviewed; none where all will be."""
        place = self._view.cells.next_unreviewed(self._view.chosen_places())
        return (self._view.cells.cell(place),) if place >= 0 else ()
