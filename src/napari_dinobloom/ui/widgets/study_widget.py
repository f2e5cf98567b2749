"""The Study window, where one starts: a study, the pictures that go into it, and the steps that are next."""

from __future__ import annotations

import napari
from qtpy.QtWidgets import QWidget

from napari_dinobloom.ui import study_job
from napari_dinobloom.ui.following import Follower
from napari_dinobloom.ui.picking import Picker
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.texts import text
from napari_dinobloom.ui.widgets.column import Column, while_there
from napari_dinobloom.ui.widgets.job_controls import JobControls
from napari_dinobloom.ui.widgets.study_acts import StudyActs
from napari_dinobloom.ui.widgets.study_header import StudyHeader
from napari_dinobloom.ui.widgets.study_inputs import StudyInputs
from napari_dinobloom.ui.widgets.study_steps import StudySteps
from napari_dinobloom.ui.widgets.study_tree import StudyTree


class StudyWidget(Column):
    """The open study, its patients, pictures to come, and the steps of its run.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Given by napari (a proxy); all state lies in its session.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = napari_viewer
        self._session = session_of(napari_viewer)
        picker = Picker.of(napari_viewer, self._session)
        follower = Follower.of(napari_viewer, self._session)
        self.inputs = StudyInputs(self._session)
        self.header = StudyHeader(napari_viewer, self._session, lambda: self.inputs.folder)
        self.acts = StudyActs(napari_viewer, self._session)
        self.tree = StudyTree(self._session)
        self.steps = StudySteps(napari_viewer, self._session)
        self.job = JobControls(self._session, "study.start", self.why_not, self._on_start)
        self.add(self.header, self.acts, self.inputs, self.steps, self.tree)
        self.pin(self.job)
        self.inputs.dropped_study.connect(self.header.open_path)
        self.inputs.changed.connect(self.job.refresh_buttons)
        self.steps.changed.connect(self.job.refresh_buttons)
        self._session.events.study.connect(self.job.refresh_buttons)
        parts = (self.header, self.acts, self.tree, self.inputs, self.steps, self.job, picker, follower)
        events, refresh = self._session.events, self.job.refresh_buttons
        self.at_the_end(*(part.detach for part in parts), lambda: events.study.disconnect(refresh, missing_ok=True))
        self.job.refresh_job()

    def why_not(self) -> str:
        """Why no step can be done now, in words; empty when one can."""
        if self._session.study is None:
            return text("study.why.none_yet") if self.inputs.inputs else text("study.why.begin")
        if why := study_job.why_not(self._session):
            return why
        if why := self.inputs.why_not():
            return why
        if not self.inputs.inputs and not self._session.study.fields:
            return text("study.why.no_pictures")
        if not self.inputs.inputs and self.steps.all_done and not self._other_settings():
            return text("study.why.all_done")
        return ""

    def _other_settings(self) -> bool:
        """Whether another specimen is chosen than the study was run with."""
        study = self._session.study
        return study is not None and self.steps.specimen.currentData() != study.specimen

    def _on_start(self) -> None:
        """Take the pictures in, and do the steps up to the chosen one."""
        asked = {**self.inputs.settings, "specimen": self.steps.specimen.currentData()}
        until = self.steps.until.currentData()
        taken = while_there(self, self.inputs.take_off)
        study_job.start_steps(self._viewer, self._session, self.inputs.inputs, until, taken=taken, **asked)
