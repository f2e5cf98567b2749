"""Patients, their slides and fields, with what was found in each; a field that cannot be used says why."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from qtpy.QtCore import Qt
from qtpy.QtGui import QBrush, QColor
from qtpy.QtWidgets import QTreeWidget, QTreeWidgetItem, QWidget

from napari_dinobloom.io.fields import FieldRecord
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.frame_table import HEADER_LOOK, fit_first

COLUMNS = ("place", "fields", "cells")
FAILED = "#d1495b"
FIELD = Qt.ItemDataRole.UserRole
RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
OPEN_UP_TO = 12
"""Slides of which the fields are shown at once; of more, patients stay closed."""


class StudyTree(QTreeWidget):
    """Tree of the session's study; a click on a field selects nothing, a double click goes to its first cell.

    Parameters
    ----------
    session : Session
        Its study and revision are followed.
    """

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._state: object = None
        self.setColumnCount(len(COLUMNS))
        self.setHeaderLabels([text(f"study.{name}") for name in COLUMNS])
        header = self.headerItem()
        if header is not None:
            for at, name in enumerate(COLUMNS):
                header.setToolTip(at, tip(f"study.{name}"))
                if at:
                    header.setTextAlignment(at, RIGHT)
        self.header().setStretchLastSection(False)  # type: ignore[union-attr]
        self.header().setStyleSheet(HEADER_LOOK)  # type: ignore[union-attr]
        self.setUniformRowHeights(True)
        self.setMinimumHeight(120)
        self.itemDoubleClicked.connect(self._go)
        session.events.study.connect(self.refresh)
        session.events.revision.connect(self.refresh)
        self.refresh()

    def detach(self) -> None:
        """Stop listening to the session, which lives on."""
        self._session.events.study.disconnect(self.refresh, missing_ok=True)
        self._session.events.revision.disconnect(self.refresh, missing_ok=True)

    def refresh(self) -> None:
        """Show the fields of the study by patient and slide."""
        study = self._session.study
        if study is None:
            self._state = None
            self.clear()
            self.hide()
            return
        obs = study.cells.obs
        living = obs.loc[~obs["deleted"].astype(bool), "field"] if len(obs) else pd.Series(dtype=object)
        cells = living.value_counts()
        state = (study.path, study.fields, cells.to_dict())
        if state == self._state:  # most acts of people change no count; what was opened stays open
            return
        self._state = state
        self.clear()
        self.setVisible(bool(study.fields))
        patients: dict[str, dict[str, list[FieldRecord]]] = {}
        for record in study.fields:
            patients.setdefault(record.patient, {}).setdefault(record.slide, []).append(record)
        few = sum(len(slides) for slides in patients.values()) <= OPEN_UP_TO
        for patient, slides in patients.items():
            everything = [record for records in slides.values() for record in records]
            top = _item(patient or text("study.unknown"), everything, cells)
            self.addTopLevelItem(top)
            for slide, records in slides.items():
                one = _item(slide or text("study.unknown"), records, cells)
                top.addChild(one)
                for record in records:
                    one.addChild(_field(record, int(cells.get(record.id, 0))))
                one.setExpanded(few and any(record.status == "failed" for record in records))
            top.setExpanded(few)
        for at in range(1, len(COLUMNS)):
            self.resizeColumnToContents(at)
        fit_first(self, 150)

    def _go(self, item: QTreeWidgetItem) -> None:
        """Look at the first cell of a field, where there is one."""
        study, field = self._session.study, item.data(0, FIELD)
        if study is None or not field:
            return
        obs = study.cells.obs
        found = obs.index[(obs["field"] == field) & ~obs["deleted"].astype(bool)]
        if len(found):
            self._session.select(str(found[0]))


def _row(name: str, *figures: str) -> QTreeWidgetItem:
    """A line of the tree, its figures below each other."""
    item = QTreeWidgetItem([name, *figures])
    for at in range(1, len(COLUMNS)):
        item.setTextAlignment(at, RIGHT)
    return item


def _item(name: str, records: Sequence[FieldRecord], cells: pd.Series) -> QTreeWidgetItem:
    """A patient or a slide with its fields and cells; failed fields are counted beside the others."""
    failed = sum(record.status == "failed" for record in records)
    fields = text("study.some_failed", count=len(records), failed=failed) if failed else f"{len(records):,}"
    total = sum(int(cells.get(record.id, 0)) for record in records)
    item = _row(name, fields, f"{total:,}")
    item.setToolTip(0, name)
    if failed:
        item.setForeground(1, QBrush(QColor(FAILED)))
    return item


def _field(record: FieldRecord, cells: int) -> QTreeWidgetItem:
    """A field; one that cannot be used, or about which something is odd, says so."""
    name = record.file.rpartition("/")[2]
    state = {"failed": text("study.failed"), "same_as": text("study.same_as")}.get(record.status, "")
    item = _row(name, state, f"{cells:,}" if record.status == "ok" else "")
    item.setData(0, FIELD, record.id)
    why = text("study.twin", field=record.problem) if record.status == "same_as" else record.problem
    for at in range(len(COLUMNS)):
        item.setToolTip(at, why or record.file)
    if record.status == "failed":
        item.setText(0, f"{name}: {record.problem}")
        item.setForeground(0, QBrush(QColor(FAILED)))
        item.setForeground(1, QBrush(QColor(FAILED)))
    return item
