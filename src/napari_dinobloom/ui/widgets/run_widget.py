"""The first widget: find, name and count the white cells of the smear that is open."""

from __future__ import annotations

import napari
from qtpy.QtWidgets import QWidget

from napari_dinobloom.ui import jobs, study_job
from napari_dinobloom.ui.picking import Picker
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.widgets.column import Column, follow_layers
from napari_dinobloom.ui.widgets.job_controls import JobControls
from napari_dinobloom.ui.widgets.result_panel import ResultPanel
from napari_dinobloom.ui.widgets.run_form import RunForm


class RunWidget(Column):
    """Form, run and cancel, status, and what was found.

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
        self.form = RunForm(napari_viewer)
        self.job = JobControls(self._session, "run.start", self.why_not, self._on_start)
        self.results = ResultPanel(self._session, picker)
        self.add(self.form, self.job, self.results)
        self.form.changed.connect(self.job.refresh_buttons)
        opened, refresh = self._session.events.study, self.job.refresh_buttons
        opened.connect(refresh)
        self.at_the_end(follow_layers(napari_viewer, self.form), self.job.detach, self.results.detach, picker.detach)
        self.at_the_end(lambda: opened.disconnect(refresh, missing_ok=True))
        self.form.refresh_images()
        self.job.refresh_job()

    def why_not(self) -> str:
        """Why the image cannot be run as things are, in words; empty when it can."""
        study, why = self._session.study, self.form.why_not()
        if why or study is None or self.form.study_folder.resolve() != study.path:
            return why
        return study_job.why_not(self._session)

    def _on_start(self) -> None:
        """Start the run."""
        layer = self.form.layer
        if layer is not None:
            jobs.start_run(self._viewer, self._session, layer, self.form.settings())
