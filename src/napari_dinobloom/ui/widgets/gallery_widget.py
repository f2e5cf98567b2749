"""The Gallery window: look through cells, name and review them by keys, compare two readers."""

from __future__ import annotations

from typing import Any

import napari
from qtpy.QtCore import Qt
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QLabel, QSplitter, QTabWidget, QVBoxLayout, QWidget

from napari_dinobloom.ui.correction import Correction
from napari_dinobloom.ui.following import Follower
from napari_dinobloom.ui.gallery.acts_bar import ActsBar
from napari_dinobloom.ui.gallery.bars import SIDES, ChoiceBar, ReaderBar
from napari_dinobloom.ui.gallery.choice import choice_of, sort_keys
from napari_dinobloom.ui.gallery.class_keys import class_keys, keep_class_keys
from napari_dinobloom.ui.gallery.class_list import ClassList
from napari_dinobloom.ui.gallery.content import Content
from napari_dinobloom.ui.gallery.link import SelectionLink
from napari_dinobloom.ui.gallery.model import GalleryModel
from napari_dinobloom.ui.gallery.naming import Naming
from napari_dinobloom.ui.gallery.readers_panel import ReadersPanel
from napari_dinobloom.ui.gallery.thumbnails import Thumbnails
from napari_dinobloom.ui.gallery.view import GalleryView
from napari_dinobloom.ui.gating import gating_of
from napari_dinobloom.ui.map.colouring import CLASS, DENSITY, GATE, coloured
from napari_dinobloom.ui.picking import Picker
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.texts import text
from napari_dinobloom.ui.widgets.column import Column

SHARES = [7000, 3000]
"""Of thumbnails and classes, at first; a person may move the line between them."""

LONG = 120
"""Characters of a problem that are shown; the rest is in the tooltip."""

WIDE = 620
"""Pixels from which on classes stand beside the thumbnails, not below them."""


class GalleryWidget(Column):
    """Thumbnails of cells with their classes, and what two readers said of them.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Given by napari (a proxy); all state lies in its session.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session_of(napari_viewer)
        self._taking = True  # until what is kept has been chosen
        picker = Picker.of(napari_viewer, self._session)
        follower = Follower.of(napari_viewer, self._session)
        self.at_the_end(picker.detach, follower.detach)
        self.thumbnails = Thumbnails(self)
        self.model = GalleryModel(self)
        self.content = Content(self._session, self.model, self.thumbnails, self)
        self.view = GalleryView(self.model, self.thumbnails)
        self.view.setAccessibleName(text("gallery.title"))
        self.link = SelectionLink(self._session, self.view, self.content)
        self.reader, self.choice, self.classes = ReaderBar(self._session), ChoiceBar(), ClassList()
        correction = Correction(napari_viewer, self._session)
        self.naming = Naming(self._session, correction, self.view, self.link, self.content, self.classes.names)
        self.acts = ActsBar(self.naming)
        self.readers = ReadersPanel(self._session, self.content, self.thumbnails)
        self.second_naming = Naming(
            self._session, correction, self.readers.view, self.readers.link, self.content, self.classes.names
        )
        self.note = QLabel()
        self._lay_out()
        self._connect()
        self.content.side = round(self.view.tiles.side * self.devicePixelRatioF())
        self.content.open()
        self._taking = False
        self.take_over()

    def _lay_out(self) -> None:
        """Reader above; tabs with thumbnails and classes, and with two readers."""
        self.note.setWordWrap(True)
        self.note.setTextFormat(Qt.TextFormat.PlainText)  # paths stand in it
        self.note.setVisible(False)
        self.side = QWidget()
        beside = QVBoxLayout(self.side)
        beside.setContentsMargins(0, 0, 0, 0)
        beside.addWidget(self.acts)
        beside.addWidget(self.classes, 1)
        self.split = QSplitter(Qt.Orientation.Vertical)
        self.split.setChildrenCollapsible(False)
        for part, stretch in ((self.view, 3), (self.side, 1)):
            self.split.addWidget(part)
            self.split.setStretchFactor(self.split.count() - 1, stretch)
        self.split.setSizes(SHARES)
        first = QWidget()
        page = QVBoxLayout(first)
        page.setContentsMargins(4, 6, 4, 4)
        for part in (self.choice, self.note, self.split):
            page.addWidget(part, 1 if part is self.split else 0)
        self.tabs = QTabWidget()
        self.tabs.addTab(first, text("gallery.title"))
        self.tabs.addTab(self.readers, text("readers.title"))
        self.add(self.reader, self.tabs)
        self._parts.setStretchFactor(self.tabs, 1000)
        self._parts.setContentsMargins(4, 6, 4, 4)
        self.setMinimumWidth(350)

    def _connect(self) -> None:
        """Tie the parts to each other and to the session."""
        content = self.content
        self.choice.chosen.connect(content.choose)
        self.choice.sorted_by.connect(lambda key, turned: content.sort(key, turned=turned))
        self.choice.resized.connect(self._on_size)
        self.choice.updated.connect(content.update)
        for view in (self.view, self.readers.view):
            view.zoomed.connect(self.choice.zoom)
        self.classes.assigned.connect(self._on_assign)
        self.classes.edited.connect(self._on_edited)
        content.changed.connect(self._on_changed)
        content.renewed.connect(self._on_renewed)
        self.thumbnails.failed.connect(self._on_problem)
        self._links = [
            (self._session.events.study, self._on_study),
            (self._session.events.selected, self._on_selected),
            (self._session.events.job, self._on_job),
            (self._session.events.colour_by, self._on_colours),
            (self._session.events.choices, self.take_over),
        ]
        for signal, follow in self._links:
            signal.connect(follow)
        self.at_the_end(
            *(lambda s=signal, f=follow: s.disconnect(f, missing_ok=True) for signal, follow in self._links),
            content.detach,
            self.link.detach,
            self.readers.detach,
            self.reader.detach,
        )

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Put the classes beside the thumbnails where there is room, else below."""
        super().resizeEvent(event)
        wide = self.width() >= WIDE
        orientation = Qt.Orientation.Horizontal if wide else Qt.Orientation.Vertical
        if self.split.orientation() != orientation:
            self.split.setOrientation(orientation)
            self.split.setSizes(SHARES)

    def _on_study(self, _event: object = None) -> None:
        """Another study was opened: the content is there already; fill the list of classes."""
        study, sheet = self._session.study, self.content.sheet
        names = [] if study is None or sheet is None else class_keys(study, sheet)
        self.classes.fill(names, {} if study is None else study.palette)
        self.classes.count({} if sheet is None else sheet.tally(self.model.rows))
        self._on_problem("")

    def _on_changed(self) -> None:
        """Other cells are shown: offer what there is, and show what is selected."""
        study = self._session.study
        self.view.empty = self._why_empty()
        self.side.setVisible(study is not None)
        if study is not None and not self.classes.names():
            self._on_study()
        self.view.scrollToTop()
        self.link.show()
        self._on_renewed()
        self._keep()

    def _keep(self) -> None:
        """Keep what is chosen with the study."""
        shown, sorting = self.content.choice, self.content.sorting
        side = SIDES[self.choice.side.value()]
        if self._session.study is not None and not self._taking:
            self._session.keep(
                "gallery", show=[shown.kind, shown.name], sort=sorting.key, turned=sorting.turned, side=side
            )

    def take_over(self, _event: object = None) -> None:
        """Choose what is kept with the study, as far as there is such a thing."""
        kept, session = self._session.choices.get("gallery", {}), self._session
        if self._taking or session.study is None:
            return
        self._taking = True
        try:
            self.choice.take(kept.get("sort"), kept.get("turned"), kept.get("side"))
            choice = choice_of(kept.get("show"))
            if choice is not None and choice != self.content.choice:
                self.content.choose(choice)
        finally:
            self._taking = False
        self._keep()

    def _on_renewed(self) -> None:
        """The same cells have other classes or marks: count again."""
        sheet, rows = self.content.sheet, self.model.rows
        self.view.tiles.palette = self.classes.colours = self._palette()
        self._on_colours()
        everywhere = {} if sheet is None else sheet.tally(sheet.living.nonzero()[0])
        self.choice.fill(everywhere, self.content.gate_name(), sort_keys(sheet), self.content.choice)
        self.classes.count({} if sheet is None else sheet.tally(rows))
        self.acts.count(0 if sheet is None else int(sheet.reviewed[rows].sum()), len(rows))
        stale = self.content.stale()
        self.choice.update_.setVisible(stale > 0)
        self.choice.update_.setText(text("gallery.update_count", count=stale) if stale else text("gallery.update"))
        self.acts.refresh()

    def _on_selected(self, _event: object = None) -> None:
        """Other cells are selected."""
        self.acts.refresh()

    def _on_job(self, _event: object = None) -> None:
        """A job began or ended."""
        self.view.empty = self._why_empty()
        self.view.redraw()
        self.acts.refresh()

    def _on_colours(self, _event: object = None) -> None:
        """Cells are coloured by something else: by a column of the table here, too; else by class."""
        by, gating = self._session.colour_by, gating_of(self._session)
        plain = by in (CLASS, GATE, DENSITY) or by not in gating.table
        self.view.tiles.shades = None if plain else coloured(by, gating.table, self._palette(), None, {})
        self.view.redraw()

    def _on_assign(self, name: str) -> None:
        """Give the selected cells a class; one that is not on the list comes onto it."""
        if self.naming.assign(name):
            self.classes.put(name)
        self.view.setFocus()

    def _on_edited(self) -> None:
        """Keep the list of classes, and count them again."""
        if self._session.study is not None:
            keep_class_keys(self._session.study, self.classes.names())
        self._on_renewed()

    def _on_size(self, side: int) -> None:
        """Show thumbnails of another size."""
        self.content.side = round(side * self.devicePixelRatioF())
        self.thumbnails.show(self._session.study, self.content.side)
        for view in (self.view, self.readers.view):
            view.set_side(side)
        self._keep()

    def _on_problem(self, problem: str) -> None:
        """Say why pictures are missing."""
        said = problem if len(problem) <= LONG else f"{problem[:LONG]}…"
        self.note.setText(text("gallery.no_pictures", problem=said) if problem else "")
        self.note.setToolTip(problem)
        self.note.setVisible(bool(problem))

    def _palette(self) -> Any:
        """Colours of the open study."""
        return {} if self._session.study is None else self._session.study.palette

    def _why_empty(self) -> str:
        """Why there is nothing to see, if there is nothing."""
        session, sheet = self._session, self.content.sheet
        if session.job is not None and session.study is None:
            return text("gallery.empty.busy", job=session.job.title)
        if session.study is None:
            return text("gallery.empty.no_study")
        if sheet is None or not sheet.living.any():
            return text("gallery.empty.no_cells")
        kind = self.content.choice.kind
        if kind == "gate" and not session.gate:
            return text("gallery.empty.no_gate")
        return text("gallery.empty.selection") if kind == "selection" else text("gallery.empty.none")
