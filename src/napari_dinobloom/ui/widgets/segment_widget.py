"""The Segment and crop window: find the white cells of a smear, correct them by hand, see how they are cut out."""

from __future__ import annotations

import napari
from qtpy.QtWidgets import QWidget

from napari_dinobloom.ui.picking import Picker
from napari_dinobloom.ui.segment_job import start_segment
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.widgets.cells_panel import CellsPanel
from napari_dinobloom.ui.widgets.column import Column, follow_layers
from napari_dinobloom.ui.widgets.correction_panel import CorrectionPanel
from napari_dinobloom.ui.widgets.crop_strip import CropStrip
from napari_dinobloom.ui.widgets.job_controls import JobControls
from napari_dinobloom.ui.widgets.segment_form import SegmentForm


class SegmentWidget(Column):
    """Form, run and cancel, what was found, tools to correct it, and the crops of the selected cells.

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
        self.form = SegmentForm(napari_viewer)
        self.job = JobControls(self._session, "segment.start", self.form.why_not, self._on_start)
        self.cells = CellsPanel(napari_viewer, self._session)
        self.correction = CorrectionPanel(napari_viewer, self._session)
        self.crops = CropStrip(self._session)
        parts = (self.form, self.job, self.cells, self.correction, self.crops)
        self.add(*parts)
        self.form.changed.connect(self.job.refresh_buttons)
        self.at_the_end(follow_layers(napari_viewer, self.form), *(part.detach for part in parts[1:]), picker.detach)
        self.form.refresh_images()
        self.job.refresh_job()

    def _on_start(self) -> None:
        """Find and cut out the cells."""
        layer = self.form.layer
        if layer is not None:
            start_segment(self._viewer, self._session, layer, self.form.settings())
