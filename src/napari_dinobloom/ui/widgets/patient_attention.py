"""What the prediction of one patient rests on: probabilities, its top and bottom cells, colours by attention."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QLabel, QPushButton, QSpinBox, QVBoxLayout, QWidget

from napari_dinobloom.explore.cell_attention import ATTENTION
from napari_dinobloom.ui.gallery.bars import narrow_combo
from napari_dinobloom.ui.map.colouring import CLASS
from napari_dinobloom.ui.patients import Cohort
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text, tip

CELLS = 20


class PatientAttention(QWidget):
    """The chosen patient, and the cells that a model looked at.

    Parameters
    ----------
    session : Session
        Its selection and colours are set, its colours followed.
    cohort : Cohort
        Has the predictions.
    """

    def __init__(self, session: Session, cohort: Cohort, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session, self._cohort = session, cohort
        self.patient = ""
        self.title = QLabel(text("patients.attention"))
        self.title.setStyleSheet("font-weight: bold")
        self.title.setToolTip(tip("patients.attention"))
        self.lines = QLabel()
        self.lines.setWordWrap(True)
        self.lines.setTextFormat(Qt.TextFormat.PlainText)
        self.group = narrow_combo("patients.class")
        self.count = QSpinBox()
        self.count.setRange(1, 500)
        self.count.setValue(CELLS)
        self.top, self.bottom = QPushButton(text("patients.top")), QPushButton(text("patients.bottom"))
        self.colour = QPushButton(text("patients.colour"))
        self.colour.setCheckable(True)
        self._lay_out()
        self.top.clicked.connect(lambda _on=False: self.select(top=True))
        self.bottom.clicked.connect(lambda _on=False: self.select(top=False))
        self.colour.clicked.connect(self._on_colour)
        self.group.activated.connect(self._on_group)
        session.events.colour_by.connect(self._show_colour)

    def detach(self) -> None:
        """Stop listening to the session, which lives on."""
        self._session.events.colour_by.disconnect(self._show_colour, missing_ok=True)

    def _lay_out(self) -> None:
        """Lines, group and number, then the buttons."""
        rows, buttons, column = QFormLayout(), QHBoxLayout(), QVBoxLayout(self)
        rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for key, control in (("patients.class", self.group), ("patients.count", self.count)):
            label = QLabel(text(key))
            label.setBuddy(control)
            label.setToolTip(tip(key))
            control.setToolTip(tip(key))
            control.setAccessibleName(text(key))
            rows.addRow(label, control)
        for button in (self.top, self.bottom):
            buttons.addWidget(button)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.title)
        column.addWidget(self.lines)
        column.addLayout(rows)
        column.addLayout(buttons)
        column.addWidget(self.colour)

    def show_patient(self, patient: str) -> None:
        """Show what is predicted for a patient, "" for none."""
        result = self._cohort.result
        names = [] if result is None else list(result.classes)
        other = [self.group.itemData(at) for at in range(self.group.count())] != names
        fresh, self.patient = other or patient != self.patient, patient
        if other:
            self.group.clear()
            for name in names:
                self.group.addItem(name, name)
        figures = self._cohort.probabilities(patient)
        lines = [text("patients.one.help")] if not patient else [text("patients.one.none", patient=patient)]
        if patient and len(figures):
            predicted = str(figures["model"].idxmax())
            if fresh:  # else the group that was chosen stays
                self.group.setCurrentIndex(max(0, self.group.findData(predicted)))
            lines = [text("patients.one", patient=patient, predicted=predicted)]
            for group, row in figures.iterrows():
                both = text("patients.of_model", probability=row["model"], mean=row["mean"])
                alone = text("patients.of_model_only", probability=row["model"])
                lines.append(f"{group}: {both if row['mean'] == row['mean'] else alone}")
        self.lines.setText("\n".join(lines))
        self.refresh()

    def refresh(self) -> None:
        """Let be pressed what can be, and say why not otherwise."""
        study, group = self._session.study, str(self.group.currentData() or "")
        why = ""
        if study is None or self._cohort.result is None or not group:
            why = text("patients.why.no_result")
        for button, key in ((self.top, "patients.top"), (self.bottom, "patients.bottom")):
            reason = why or self._why_no_cells(group)
            button.setEnabled(not reason)
            button.setToolTip(reason or tip(key))
        self.colour.setEnabled(not why)
        self.colour.setToolTip(why or tip("patients.colour"))
        self._show_colour()

    def _why_no_cells(self, group: str) -> str:
        """Why no cells can be selected; empty when they can."""
        if not self.patient:
            return text("patients.why.no_patient")
        return "" if self._cohort.attended(self.patient, group, 1) else text("patients.why.no_attention")

    def select(self, *, top: bool = True) -> None:
        """Select the cells of the patient that the model looked at most, or least, and have them looked through."""
        group = str(self.group.currentData() or "")
        cells = self._cohort.attended(self.patient, group, self.count.value(), top=top)
        if cells:
            self._session.look_through(*cells)

    def _on_group(self, _at: int) -> None:
        """Another group was chosen: its colours and cells."""
        if self._session.colour_by.startswith(f"{ATTENTION}_"):
            self._session.colour_by = self._column()
        self.refresh()

    def _on_colour(self, on: bool) -> None:
        """Colour by attention, or by class again."""
        self._session.colour_by = self._column() if on else CLASS

    def _column(self) -> str:
        return f"{ATTENTION}_{self.group.currentData()}"

    def _show_colour(self, _event: object = None) -> None:
        """Show whether cells are coloured by the attention for the group that is chosen."""
        self.colour.setChecked(self._session.colour_by == self._column())
