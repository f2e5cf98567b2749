"""Give patients their known groups, train on them, or apply a model that is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.utils.notifications import show_warning
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QMessageBox,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.io.groups import read_groups
from napari_dinobloom.predict.mil.bags import FEW
from napari_dinobloom.ui.gallery.bars import narrow_combo
from napari_dinobloom.ui.patients import Cohort
from napari_dinobloom.ui.texts import text, tip

FOLDS, REPEATS = 5, 5
PRESETS = ("gated", "paper")


class PatientsForm(QWidget):
    """Groups, model, folds and repeats, and the buttons beside them.

    Parameters
    ----------
    cohort : Cohort
        Its groups are changed, and its models trained.

    Attributes
    ----------
    grouped : Signal
        Patients have other groups: str, what is to be said about it.
    put_into : Signal
        The selected patients are to get a group: str.
    """

    grouped = Signal(str)
    put_into = Signal(str)

    def __init__(self, cohort: Cohort, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._cohort = cohort
        self.group = narrow_combo("patients.put_name")
        self.group.setEditable(True)
        self.group.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        line = self.group.lineEdit()
        if line is not None:
            line.setPlaceholderText(text("patients.put_name"))
            line.returnPressed.connect(self._on_put)
        self.put, self.load = QPushButton(text("patients.put")), QPushButton(text("patients.load"))
        self.put.clicked.connect(lambda _on=False: self._on_put())
        self.load.clicked.connect(lambda _on=False: self._ask_groups())
        self.preset = narrow_combo("patients.preset")
        for name in PRESETS:
            self.preset.addItem(text(f"patients.preset.{name}"), name)
        self.folds, self.repeats = _number(2, 20, FOLDS), _number(1, 50, REPEATS)
        self.apply = QPushButton(text("patients.apply"))
        self.apply.clicked.connect(lambda _on=False: self._ask_model())
        self.few = QLabel()
        self.few.setWordWrap(True)
        self.few.setTextFormat(Qt.TextFormat.PlainText)
        self._lay_out()

    def _lay_out(self) -> None:
        """Groups above, what trains on them below."""
        line, column, rows = QHBoxLayout(), QVBoxLayout(self), QFormLayout()
        column.setContentsMargins(0, 0, 0, 0)
        rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        line.addWidget(self.group, 1)
        line.addWidget(self.put)
        column.addLayout(line)
        column.addWidget(self.load)
        numbers = QHBoxLayout()
        repeats = QLabel(text("patients.repeats"))
        for key, control, label in (
            ("patients.preset", self.preset, QLabel(text("patients.preset"))),
            ("patients.folds", self.folds, QLabel(text("patients.folds"))),
            ("patients.repeats", self.repeats, repeats),
        ):
            label.setBuddy(control)
            label.setToolTip(tip(key))
            control.setToolTip(tip(key))
            control.setAccessibleName(text(key))
            if control is self.preset:
                rows.addRow(label, control)
            elif control is self.folds:
                rows.addRow(label, numbers)
        for part in (self.folds, repeats, self.repeats):
            numbers.addWidget(part, 0 if part is repeats else 1)
        column.addLayout(rows)
        column.addWidget(self.few)
        column.addWidget(self.apply)

    def options(self) -> dict[str, Any]:
        """Options of the training."""
        return {"preset": self.preset.currentData(), "folds": self.folds.value(), "repeats": self.repeats.value()}

    def refresh(self, selected: int) -> None:
        """Let be pressed what can be, with `selected` patients in the table, and say why not otherwise."""
        cohort = self._cohort
        closed = cohort.why_closed()
        nobody = "" if selected else text("patients.why.no_selection")
        for button, key, why in (
            (self.put, "patients.put", closed or nobody),
            (self.load, "patients.load", closed),
            (self.apply, "patients.apply", closed),
        ):
            button.setEnabled(not why)
            button.setToolTip(why or tip(key))
        typed, names = self.group.currentText(), sorted(set(cohort.groups.values()))
        if [self.group.itemText(at) for at in range(self.group.count())] != names:
            self.group.clear()
            self.group.addItems(names)
            self.group.setEditText(typed)
        few = cohort.few()
        self.few.setText(text("patients.few.note", least=FEW, counts=counts_in_words(few)) if few else "")
        self.few.setVisible(bool(few))

    def _on_put(self) -> None:
        """The selected patients get the group in the field."""
        if self.put.isEnabled():
            self.put_into.emit(" ".join(self.group.currentText().split()))

    def _ask_groups(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, text("patients.load"), "", "CSV (*.csv)")
        if path:
            self.read_groups(Path(path))

    def read_groups(self, path: Path) -> None:
        """Take over the groups of a CSV; those of other patients stay."""
        try:
            groups = read_groups(path)
        except DinoBloomError as error:
            show_warning(str(error))
            return
        if self._cohort.put(groups):
            here = len(set(groups) & set(self._cohort.cells().index.astype(str)))
            others = len(groups) - here
            key = "patients.loaded_others" if others else "patients.loaded"
            self.grouped.emit(text(key, count=here, others=others, file=path.name))

    def _ask_model(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, text("patients.apply"), "", "safetensors (*.safetensors)")
        if path:
            self._cohort.apply(Path(path))

    def train(self) -> None:
        """Train; where there are few patients in a group only if the user says so."""
        few = self._cohort.few()
        if few:
            question = text("patients.few.ask", counts=counts_in_words(few), least=FEW)
            yes, no = QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.No
            if QMessageBox.warning(self, text("patients.few"), question, yes | no, no) != yes:
                return
        self._cohort.train(**self.options())


def counts_in_words(counts: dict[str, int]) -> str:
    """How many patients each group has."""
    return ", ".join(text("patients.few.count", n=n, group=group) for group, n in counts.items())


def _number(low: int, high: int, value: int) -> QSpinBox:
    """A field for a whole number."""
    box = QSpinBox()
    box.setRange(low, high)
    box.setValue(value)
    return box
