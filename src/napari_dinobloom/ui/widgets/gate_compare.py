"""The window that compares two groups of patients by their gates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from qtpy.compat import isalive
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSplitter,
    QVBoxLayout,
    QWidget,
)

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.explore.gate_comparison import compare_groups, write_comparison
from napari_dinobloom.io.groups import read_groups
from napari_dinobloom.progress import Progress, Steps
from napari_dinobloom.ui import workers
from napari_dinobloom.ui.gating import gating_of
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.frame_table import FrameTable, Shown, figure, p_value, span

PATIENTS = (
    Shown("gates.patient", lambda row: row["patient"], "patient", right=False),
    Shown("gates.cells", lambda row: f"{row['all_n']:,}", "all_n"),
    Shown("gates.group", lambda row: row["group"], "group", right=False),
)
RESULT = (
    Shown("gates.gate", lambda row: row["gate"], "gate", right=False),
    Shown("gates.exploratory", lambda row: text("gates.is_exploratory") if row["exploratory"] else "", "exploratory",
          right=False),
    Shown("gates.means", lambda row: f"{figure(row['mean_a'])} / {figure(row['mean_b'])}", "mean_a"),
    Shown("gates.difference", lambda row: figure(row["difference"]), "difference"),
    Shown("gates.delta", lambda row: figure(row["delta"], 2), "delta"),
    Shown("gates.delta_interval", lambda row: span(row["delta_low"], row["delta_high"], 2), "delta_low"),
    Shown("gates.p", lambda row: p_value(row["p"]), "p"),
    Shown("gates.q", lambda row: p_value(row["p_bh"]), "p_bh"),
    Shown("gates.note", lambda row: row["note"], "note", right=False),
)  # fmt: skip


class GateCompare(QDialog):
    """Put patients into two groups, compare, keep the table.

    Parameters
    ----------
    session : Session
        Its study's gates are compared.
    """

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(text("gates.compare.title"))
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._session, self._open = session, True
        self._result: pd.DataFrame | None = None
        self._groups: dict[str, str] = {}
        self.patients, self.figures = FrameTable(PATIENTS), FrameTable(RESULT, shorten=True)
        self.names = [QLineEdit(name) for name in ("A", "B")]
        self.put = [self._button("gates.put", lambda _=False, at=at: self.assign(at)) for at in (0, 1)]
        self.put.append(self._button("gates.put_nowhere", lambda _=False: self.assign(-1)))
        self.load = self._button("gates.load", lambda _=False: self._ask_groups())
        self.of = QComboBox()
        for name in ("parent", "all"):
            self.of.addItem(text(f"gates.compare.of.{name}"), name)
        self.of.setToolTip(tip("gates.compare.of"))
        self.start = self._button("gates.compare.start", lambda _=False: self.compare())
        self.save = self._button("gates.compare.save", lambda _=False: self._ask_file())
        self.note = QLabel()
        self.note.setWordWrap(True)
        self.note.setTextFormat(Qt.TextFormat.PlainText)
        self._lay_out()
        self.resize(1320, 600)
        session.events.study.connect(self._leave)
        self._show()

    def _button(self, key: str, slot: Any) -> QPushButton:
        button = QPushButton(text(key))
        button.setToolTip(tip(key))
        button.setAutoDefault(False)
        button.clicked.connect(slot)
        return button

    def _lay_out(self) -> None:
        """Groups on the left, results on the right, what to know below."""
        left, row = QVBoxLayout(), QHBoxLayout()
        for edit in self.names:
            edit.setToolTip(tip("gates.group_name"))
            edit.setAccessibleName(text("gates.group_name"))
            edit.textEdited.connect(self._rename)
            row.addWidget(edit)
        left.addWidget(QLabel(text("gates.compare.help")))
        left.addLayout(row)
        left.addWidget(self.patients, 1)
        row = QHBoxLayout()
        for button in (*self.put, self.load):
            row.addWidget(button)
        left.addLayout(row)
        right, row = QVBoxLayout(), QHBoxLayout()
        for control in (self.of, self.start, self.save):
            row.addWidget(control)
        right.addLayout(row)
        right.addWidget(self.figures, 1)
        split = QSplitter(Qt.Orientation.Horizontal)
        for part in (left, right):
            side = QWidget()
            side.setLayout(part)
            split.addWidget(side)
        split.setSizes([310, 990])
        split.setStretchFactor(1, 1)
        column = QVBoxLayout(self)
        column.addWidget(split, 1)
        column.addWidget(self.note)
        disclaimer = QLabel(text("disclaimer"))
        disclaimer.setStyleSheet("font-weight: bold")
        column.addWidget(disclaimer)

    def assign(self, group: int) -> None:
        """Put the selected patients into the first (0) or second (1) group, or into none (-1)."""
        rows = {index.row() for index in self.patients.selectedIndexes()}
        chosen = [item.text() for row in rows if (item := self.patients.item(row, 0)) is not None]
        for patient in chosen:
            if group < 0:
                self._groups.pop(patient, None)
            else:
                self._groups[patient] = self.names[group].text().strip()
        self._show()

    def take(self, groups: Mapping[str, str]) -> None:
        """Take over groups that were made elsewhere."""
        self._groups = dict(groups)
        for edit, name in zip(self.names, sorted(set(groups.values())), strict=False):
            edit.setText(name)
        self._show()

    def compare(self) -> workers.StepsWorker | None:
        """Compare in a second thread."""
        gating = gating_of(self._session)
        tables, tree = gating.tables(), gating.tree
        if tables is None or tree is None:
            self.note.setText(text("gates.why.none"))
            return None
        of, groups, counts = str(self.of.currentData()), dict(self._groups), tables.counts

        def steps() -> Steps[pd.DataFrame]:
            yield Progress(0, 1, "")
            return compare_groups(counts, tree, groups, of=of)  # type: ignore[arg-type]

        return workers.start(self._session, text("job.compare"), steps, on_end=self._end, notify=False)

    def _leave(self, _event: object = None) -> None:
        """Another study is open: its patients are others."""
        if isalive(self):  # type: ignore[no-untyped-call]  # it is not where napari was closed above it
            self.done(0)

    def done(self, code: int) -> None:
        """Close; what is still computed then goes nowhere."""
        self._open = False
        self._session.events.study.disconnect(self._leave, missing_ok=True)
        super().done(code)

    def _end(self, outcome: workers.Outcome[pd.DataFrame]) -> None:
        if not self._open:
            return
        if outcome.error is not None or outcome.result is None:
            self.note.setText(str(outcome.error or ""))
            return
        self._result = outcome.result
        self.figures.fill(self._result)
        self.save.setEnabled(True)
        exploratory = bool(self._result["exploratory"].any())
        first = self._result.iloc[0]
        said = text("gates.compare.done", a=first["group_a"], b=first["group_b"])
        self.note.setText(f"{said} {text('gates.compare.exploratory')}" if exploratory else said)

    def _rename(self, _text: str) -> None:
        """A group gets another name: so do its patients."""
        known = list(dict.fromkeys(self._groups.values()))
        names = [edit.text().strip() for edit in self.names]
        gone = [name for name in known if name not in names]
        fresh = [name for name in names if name not in known]
        if len(gone) == 1 and len(fresh) == 1:
            self._groups = {one: fresh[0] if name in gone else name for one, name in self._groups.items()}
        self._show()

    def _show(self) -> None:
        """Show who is in which group, and what can be pressed."""
        tables = gating_of(self._session).tables()
        names = [edit.text().strip() for edit in self.names]
        for button, name in zip(self.put[:2], names, strict=True):
            button.setText(text("gates.put_into", name=name))
            button.setEnabled(bool(name))
        if tables is not None:
            first = tables.counts["key"].iloc[0]
            counts = tables.counts[(tables.counts["level"] == "patient") & (tables.counts["key"] == first)]
            self.patients.fill(counts.assign(group=[self._groups.get(one, "") for one in counts["patient"]]))
        found = len(set(self._groups.values()))
        self.start.setEnabled(found == 2)
        self.start.setToolTip(tip("gates.compare.start") if found == 2 else text("gates.why.two_groups"))
        self.save.setEnabled(self._result is not None)

    def _ask_groups(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, text("gates.load"), "", "CSV (*.csv)")
        if path:
            try:
                self.take(read_groups(Path(path)))
            except DinoBloomError as error:
                self.note.setText(str(error))

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, text("gates.compare.save"), "comparison.csv", "CSV (*.csv)")
        if path and self._result is not None:
            try:
                write_comparison(Path(path), self._result)
            except DinoBloomError as error:
                self.note.setText(str(error))
