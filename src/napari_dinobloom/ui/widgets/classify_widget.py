"""The Classify window: name all cells by a reference, see why a cell has its name, learn from hand labels."""

from __future__ import annotations

import napari
from qtpy.QtWidgets import QWidget

from napari_dinobloom.ui import classifying
from napari_dinobloom.ui.following import Follower
from napari_dinobloom.ui.picking import Picker
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.widgets.cell_evidence import CellEvidence
from napari_dinobloom.ui.widgets.column import Column
from napari_dinobloom.ui.widgets.job_controls import JobControls
from napari_dinobloom.ui.widgets.label_panel import LabelPanel
from napari_dinobloom.ui.widgets.reference_form import ReferenceForm


class ClassifyWidget(Column):
    """Form, run and cancel, the cell in focus, and what can be learned from labels.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Given by napari (a proxy); all state lies in its session.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session = session_of(napari_viewer)
        picker, follower = Picker.of(napari_viewer, session), Follower.of(napari_viewer, session)
        self.form = ReferenceForm(session)
        self.job = JobControls(session, "classify.start", self._why_not, self._on_start)
        self.cell = CellEvidence(napari_viewer, session)
        self.labels = LabelPanel(session, self.form)
        self.add(self.form, self.job, self.cell, self.labels)
        self.form.changed.connect(self.job.refresh_buttons)
        self.at_the_end(*(part.detach for part in (self.form, self.job, self.cell, self.labels, picker, follower)))
        self.job.refresh_job()

    def _why_not(self) -> str:
        """Why the cells cannot be named now."""
        return classifying.why_not(self._session) or self.form.why_not()

    def _on_start(self) -> None:
        """Name the cells."""
        classifying.start_classify(self._session, **self.form.settings())
