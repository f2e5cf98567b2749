"""Why the cell in focus has its name: confidence, shares of the classes, nearest reference cells; a name by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QPushButton, QScrollArea, QVBoxLayout, QWidget

from napari_dinobloom.cells.taxonomy import CLASSES, UNCLASSIFIED, describe
from napari_dinobloom.io.journal import user
from napari_dinobloom.pipeline.evidence import Evidence
from napari_dinobloom.ui.correction import Correction
from napari_dinobloom.ui.explaining import Answer, Asked, explainer_of
from napari_dinobloom.ui.gallery.bars import narrow_combo
from napari_dinobloom.ui.lookup import Lookup
from napari_dinobloom.ui.previews import pixmap
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.class_bars import ClassBars
from napari_dinobloom.ui.widgets.frame_table import FrameTable, Shown

SIDE = 64
"""Pixels of the picture of a reference cell."""

NEAR = (
    Shown("classify.near.class", lambda row: describe(row["class"]).title, "class", right=False),
    Shown("classify.near.rank", lambda row: str(row["rank"]), "rank"),
    Shown("classify.near.distance", lambda row: f"{row['distance']:#.3g}", "distance"),
    Shown("classify.near.source", lambda row: row["source"], "source", right=False),
)


class CellEvidence(QWidget):
    """Follows the focus of a session.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Its cell layers are kept up to date.
    session : Session
        Its focus, study, job and revision are followed; the cell gets its hand label there.
    """

    def __init__(self, viewer: Any, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session, self._correction = session, Correction(viewer, session)
        self.lookup = Lookup(explainer_of(session).answer, self)
        self.lookup.found.connect(self._show)
        self.lookup.failed.connect(self._show_nothing)
        self._asked = self._seen = ""  # the cell that is looked up, and the one that is shown
        self.title = QLabel(text("classify.cell"))
        self.title.setStyleSheet("font-weight: bold")
        self.lines = _plain()
        self.lines.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.bars = ClassBars()
        self.bars.chosen.connect(self.name_it)
        self.bars_title = QLabel(text("classify.bars"))
        self.bars_title.setToolTip(tip("classify.bars"))
        self.other = narrow_combo("classify.label")
        self.other.setEditable(True)
        self.other.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.assign = QPushButton(text("classify.assign"))
        self.assign.clicked.connect(lambda _on=False: self.name_it(self._typed()))
        line = self.other.lineEdit()
        if line is not None:
            line.setPlaceholderText(text("classify.label"))
            line.returnPressed.connect(lambda: self.name_it(self._typed()))
        self.near_title = QLabel(text("classify.near"))
        self.near_title.setToolTip(tip("classify.near"))
        self.near_title.setStyleSheet("font-weight: bold")
        self.pictures = QScrollArea()
        self.near = FrameTable(NEAR)
        self.near.setAccessibleName(text("classify.near"))
        self.near.setMinimumHeight(7 * self.near.fontMetrics().height() + 12)
        self._lay_out()
        self._slots = {"focus": self.ask, "study": self.ask, "revision": self.ask, "job": self.ask}
        for name, slot in self._slots.items():
            getattr(session.events, name).connect(slot)
        self.ask()

    def detach(self) -> None:
        """Stop listening to the session, which lives on."""
        for name, slot in self._slots.items():
            getattr(self._session.events, name).disconnect(slot, missing_ok=True)

    def _lay_out(self) -> None:
        """Lines, bars, another class, pictures and table of the reference cells."""
        self.pictures.setWidgetResizable(True)
        self.pictures.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        bar = self.pictures.horizontalScrollBar()
        self.pictures.setFixedHeight(SIDE + 8 + (bar.sizeHint().height() if bar is not None else 0))
        self._details = QWidget()
        inner = QVBoxLayout(self._details)
        inner.setContentsMargins(0, 0, 0, 0)
        other = QHBoxLayout()
        other.addWidget(self.other, 1)
        other.addWidget(self.assign)
        inner.addWidget(self.bars_title)
        inner.addWidget(self.bars)
        inner.addLayout(other)
        for part in (self.near_title, self.pictures, self.near):
            inner.addWidget(part)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for shown in (self.title, self.lines, self._details):
            column.addWidget(shown)
        self._details.hide()

    @property
    def cell(self) -> str:
        """Id of the living cell in focus; empty for none."""
        study, cell = self._session.study, self._session.focus
        if study is None or cell not in study.cells.obs.index or study.cells.obs.at[cell, "deleted"]:
            return ""
        return cell

    def ask(self, _event: object = None) -> None:
        """Look the cell in focus up; while a job may be changing the table nothing is read."""
        study, cell = self._session.study, self.cell
        if study is None or not cell:
            self.lookup.ask(None)
            self._seen = ""
            self.lines.setText(text("classify.cell.none"))
            self._details.hide()
        elif cell != self._seen:
            self._seen = ""  # a label by hand is for what people see
            self.lines.setText(text("classify.cell.busy"))
        if study is not None and cell and self._session.job is None:
            self._asked = cell
            self.lookup.ask(Asked(study, {}, cell))
        self._refresh_buttons()

    def _show_nothing(self) -> None:
        """The look-up broke off, which napari says: no cell is shown."""
        self._seen = ""
        self.lines.setText(text("classify.cell.failed"))
        self._details.hide()
        self._refresh_buttons()

    def _show(self, answer: Answer) -> None:
        """Show what was found, if it still belongs to the cell in focus."""
        found, study = answer.evidence, self._session.study
        if study is None or not self.cell or self._asked != self.cell:
            return
        self._seen = self.cell
        self._details.setVisible(True)
        self.lines.setText(answer.problem if found is None else "\n".join(self._say(found)))
        palette = study.palette
        self._fill_others(palette)
        near = pd.DataFrame(columns=["rank", "class", "source", "distance"]) if found is None else found.near
        shares = {} if found is None else {str(name): float(share) for name, share in found.shares.items()}
        self.bars.show_shares(shares, palette, self._why_not())
        self.bars_title.setVisible(found is not None)
        self.near.fill(near, [palette.get(name) or describe(name).colour for name in near["class"]])
        self.near_title.setVisible(found is not None)
        self.near.setVisible(bool(len(near)))
        self._show_pictures(found)
        self._refresh_buttons()

    def _say(self, found: Evidence) -> list[str]:
        """Lines about the cell."""
        lines = [found.cell]
        reader = self._session.reader or user()
        if found.label and not (self._session.blind and found.label_by != reader):
            lines.append(text("classify.cell.by_hand", title=describe(found.label).title, author=found.label_by))
        if not found.predicted:
            return [*lines, text("classify.cell.not_yet")]
        key = "classify.cell.unnamed" if found.abstained else "classify.cell.named"
        lines.append(text(key, title=describe(found.predicted).title, confidence=found.confidence))
        if found.abstained and found.unlike:
            lines.append(text("classify.cell.unlike", distance=found.distance, limit=found.distance_limit))
        elif found.abstained:
            lines.append(text("classify.cell.unsure", confidence=found.confidence, threshold=found.threshold))
        lines.append(text("classify.cell.by", name=found.named_by))
        return lines if found.named_by == found.reference else [*lines, text("classify.cell.other")]

    def _show_pictures(self, found: Evidence | None) -> None:
        """Show the pictures of the reference cells side by side, where the atlas has some."""
        strip = QWidget()
        row = QHBoxLayout(strip)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        records = [] if found is None else found.near.to_dict("records")
        for one, picture in zip(records, () if found is None else found.pictures, strict=False):
            if picture is not None:
                label = QLabel()
                label.setPixmap(pixmap(np.asarray(picture), SIDE, self.devicePixelRatioF()))
                title = describe(one["class"]).title
                label.setToolTip(text("classify.near.picture", rank=one["rank"], title=title, distance=one["distance"]))
                row.addWidget(label)
        self.pictures.setVisible(row.count() > 0)
        row.addStretch(1)
        self.pictures.setWidget(strip)

    def _fill_others(self, palette: Any) -> None:
        """Offer all known classes in the field."""
        names = sorted({*palette, *(one.name for one in CLASSES)} - {UNCLASSIFIED}, key=lambda n: describe(n).title)
        if [self.other.itemData(at) for at in range(self.other.count())] != names:
            self.other.clear()
            for name in names:
                self.other.addItem(describe(name).title, name)
            self.other.setCurrentIndex(-1)

    def _typed(self) -> str:
        """Class in the field: a known one by its title, or a new name; empty for none."""
        typed = " ".join(self.other.currentText().split())
        at = self.other.findText(typed, Qt.MatchFlag.MatchFixedString)
        return str(self.other.itemData(at)) if at >= 0 else typed

    def _why_not(self) -> str:
        """Why the cell in focus cannot be named by hand now, in words; empty when it can."""
        why = self._correction.why_not("label")
        if why and why != text("edit.why.select"):
            return why
        if not self.cell:
            return text("classify.why.no_focus")
        return "" if self.cell == self._seen else text("classify.cell.busy")

    def _refresh_buttons(self) -> None:
        why = self._why_not()
        self.assign.setEnabled(not why)
        self.assign.setToolTip(why or tip("classify.assign"))
        for button in self.bars.buttons if why else ():
            button.setEnabled(False)
            button.setToolTip(why)

    def name_it(self, name: str) -> None:
        """Give the cell in focus a class by hand; of several selected ones the next comes into focus."""
        if not name or not self.cell or self._why_not():
            return
        cell, chosen = self.cell, self._session.selected
        at = chosen.index(cell) if cell in chosen else -1
        rest = (*chosen[at + 1 :], *chosen[:at]) if at >= 0 else ()
        if self._correction.label(name, [cell], then=(*rest[1:], *rest[:1])):  # the last one gets the focus
            self.other.setEditText("")


def _plain(line: str = "") -> QLabel:
    """A label for text from files."""
    label = QLabel(line)
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    return label
