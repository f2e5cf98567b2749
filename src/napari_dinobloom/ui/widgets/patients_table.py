"""The table of patients: known group, which can be typed, and what a model predicts."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from qtpy.QtCore import QItemSelectionModel, Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QTableWidgetItem, QWidget

from napari_dinobloom.ui.texts import text
from napari_dinobloom.ui.widgets.frame_table import FrameTable, Shown, figure

COLUMNS = (
    Shown("patients.patient", lambda row: row["patient"], "patient", right=False),
    Shown("patients.cells", lambda row: f"{row['cells']:,}", "cells"),
    Shown("patients.group", lambda row: row["group"], "group", right=False),
    Shown("patients.predicted", lambda row: row["predicted"], "predicted", right=False),
    Shown(
        "patients.probability",
        lambda row: figure(100 * row["probability"], 0) if row["predicted"] else "",
        "probability",
    ),
    Shown("patients.how", lambda row: text(f"patients.how.{row['how']}") if row["how"] else "", "how", right=False),
)
PATIENT, GROUP = 0, 2


class PatientsTable(FrameTable):
    """One row a patient.

    Attributes
    ----------
    typed : Signal
        A person gave a patient another group: patient and group, str.
    picked : Signal
        Another patient is the current one: str, empty for none.
    """

    typed = Signal(str, str)
    picked = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(COLUMNS, parent)
        trigger = QAbstractItemView.EditTrigger
        self.setEditTriggers(trigger.DoubleClicked | trigger.EditKeyPressed | trigger.AnyKeyPressed)
        self.setAccessibleName(text("patients.table"))
        self._filling = False
        self.itemChanged.connect(self._on_changed)
        self.itemSelectionChanged.connect(self._on_picked)

    def show_patients(self, frame: pd.DataFrame, *, editable: bool) -> None:
        """Show these patients; those that were selected stay so."""
        before = self.chosen()
        self._filling = True
        try:
            self.fill(frame)
            for row in range(self.rowCount()):
                for place in range(self.columnCount()):
                    item = self.item(row, place)
                    if item is not None and not (place == GROUP and editable):
                        item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
            self._select(before)
        finally:
            self._filling = False

    def chosen(self) -> list[str]:
        """The selected patients, from top to bottom."""
        rows = sorted({index.row() for index in self.selectedIndexes()})
        return [item.text() for row in rows if (item := self.item(row, PATIENT)) is not None]

    def choose(self, *patients: str) -> None:
        """Select these patients, and no others."""
        self.clearSelection()
        self._select(patients)

    def _select(self, patients: Sequence[str]) -> None:
        model = self.selectionModel()
        for row in range(self.rowCount()):
            item = self.item(row, PATIENT)
            if item is not None and item.text() in patients and model is not None:
                flags = QItemSelectionModel.SelectionFlag.Select | QItemSelectionModel.SelectionFlag.Rows
                model.select(self.indexFromItem(item), flags)

    def _on_changed(self, item: QTableWidgetItem) -> None:
        """A group was typed."""
        patient = self.item(item.row(), PATIENT)
        if not self._filling and item.column() == GROUP and patient is not None:
            self.typed.emit(patient.text(), item.text())

    def _on_picked(self) -> None:
        """Other patients are selected."""
        if not self._filling:
            chosen = self.chosen()
            self.picked.emit(chosen[0] if len(chosen) == 1 else "")
