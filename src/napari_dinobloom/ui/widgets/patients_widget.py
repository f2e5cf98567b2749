"""The Patients window: known and predicted groups of patients, and the cells that a prediction rests on."""

from __future__ import annotations

import napari
import pandas as pd
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QWidget

from napari_dinobloom.ui.following import Follower
from napari_dinobloom.ui.patients import cohort_of
from napari_dinobloom.ui.picking import Picker
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.column import Column
from napari_dinobloom.ui.widgets.job_controls import JobControls
from napari_dinobloom.ui.widgets.patient_attention import PatientAttention
from napari_dinobloom.ui.widgets.patients_form import PatientsForm
from napari_dinobloom.ui.widgets.patients_scores import PatientsScores
from napari_dinobloom.ui.widgets.patients_table import PatientsTable


class PatientsWidget(Column):
    """Table of patients, groups, training, figures and attention.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Given by napari (a proxy); all state lies in its session.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session = session_of(napari_viewer)
        self.cohort = cohort_of(session)
        picker, follower = Picker.of(napari_viewer, session), Follower.of(napari_viewer, session)
        self._shown: tuple[pd.DataFrame, bool] | None = None
        self.title = QLabel(text("patients.table"))
        self.title.setStyleSheet("font-weight: bold")
        self.title.setToolTip(tip("patients.table"))
        self.table = PatientsTable()
        self.table.setMinimumHeight(9 * self.table.fontMetrics().height())
        self.form = PatientsForm(self.cohort)
        self.job = JobControls(session, "patients.train", self.cohort.why_not_train, self.form.train)
        self.scores = PatientsScores()
        self.attention = PatientAttention(session, self.cohort)
        self.add(self.title, self.table, self.form, self.job, self.scores, self.attention)
        queued = Qt.ConnectionType.QueuedConnection  # the editor must be closed before the table is filled anew
        self.table.typed.connect(self._on_typed, queued)  # type: ignore[call-arg]
        self.table.picked.connect(self._on_picked)
        self.form.put_into.connect(self._on_put)
        self.form.grouped.connect(self._on_grouped)
        self._slots = dict.fromkeys(("study", "revision", "groups_revision"), self.refresh) | {"job": self._on_job}
        for name, slot in self._slots.items():
            getattr(session.events, name).connect(slot)
        events, slots = session.events, self._slots
        self.cohort.looked_up.found.connect(self._show_scores)
        self.at_the_end(
            *(lambda n=name, s=slot: getattr(events, n).disconnect(s, missing_ok=True) for name, slot in slots.items()),
            *(part.detach for part in (self.job, self.attention, picker, follower)),
        )
        self.refresh()

    def refresh(self, _event: object = None) -> None:
        """Show the patients of the study that is open."""
        frame, editable = self.cohort.table(), not self.cohort.why_closed()
        if self._shown is None or self._shown[1] != editable or not self._shown[0].equals(frame):
            self.table.show_patients(frame, editable=editable)
            self._shown = frame, editable
        self._show_scores()
        self.cohort.look()
        patients = self.table.chosen()
        self.attention.show_patient(patients[0] if len(patients) == 1 else "")
        self._refresh_buttons()

    def _show_scores(self, _found: object = None) -> None:
        """Show how good the result is, and whether it is outdated, as far as that is known."""
        self.scores.show_result(self.cohort.result, outdated=self.cohort.outdated)

    def _refresh_buttons(self) -> None:
        """Let be pressed what can be."""
        self.form.refresh(len(self.table.chosen()))
        self.job.refresh_buttons()

    def _on_job(self, job: object) -> None:
        """A job began or ended, which may have left a result."""
        if job is None:
            self.refresh()
        else:
            self._refresh_buttons()

    def _on_typed(self, patient: str, group: str) -> None:
        """A group was typed into the table; what could not be kept goes from it again."""
        self._shown = None  # the table shows what was typed
        if not self.cohort.put({patient: group}):
            self.refresh()

    def _on_put(self, group: str) -> None:
        """The selected patients get a group."""
        self.cohort.put(dict.fromkeys(self.table.chosen(), group))

    def _on_grouped(self, said: str) -> None:
        """Groups came from a file."""
        self._session.message = said

    def _on_picked(self, patient: str) -> None:
        """Another patient is chosen: its top cells are selected."""
        self.attention.show_patient(patient)
        if patient:
            self.attention.select()
        self.form.refresh(len(self.table.chosen()))
