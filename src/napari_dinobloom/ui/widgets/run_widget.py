"""The first widget: find, name and count the white cells of the smear that is open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import napari
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QProgressBar, QPushButton, QScrollArea, QVBoxLayout, QWidget

from napari_dinobloom.ui import jobs
from napari_dinobloom.ui.picking import Picker
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.texts import step_title, text, tip
from napari_dinobloom.ui.widgets.result_panel import ResultPanel
from napari_dinobloom.ui.widgets.run_form import RunForm

Connections = list[tuple[Any, Callable[..., None]]]


class RunWidget(QWidget):
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
        self._picker = Picker(napari_viewer, self._session)
        self.form = RunForm(napari_viewer)
        self.start = QPushButton(text("run.start"))
        self.cancel = QPushButton(text("run.cancel"))
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(6)
        self.results = ResultPanel(self._session, self._picker)
        self.disclaimer = QLabel(text("disclaimer"))
        self.disclaimer.setStyleSheet("font-weight: bold")
        self._lay_out()
        self.form.changed.connect(self.refresh_buttons)
        self.start.clicked.connect(self._on_start)
        self.cancel.clicked.connect(self._on_cancel)
        self.destroyed.connect(_Detach(self._listen(), self._picker, self.results))
        self.form.refresh_images()
        self.refresh_job()

    def _lay_out(self) -> None:
        """All in one column that scrolls, but for the disclaimer, which is always in sight."""
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.addWidget(self.form)
        buttons = QHBoxLayout()
        buttons.addWidget(self.start, 2)
        buttons.addWidget(self.cancel, 1)
        column.addLayout(buttons)
        for part in (self.status, self.bar, self.results):
            column.addWidget(part)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setWidget(inner)
        self.disclaimer.setContentsMargins(*column.getContentsMargins())
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scroll, 1)
        layout.addWidget(self.disclaimer)
        self.setMinimumWidth(330)

    def _listen(self) -> Connections:
        """Connect to viewer and session; return these connections, since viewer and session outlive the widget."""
        here, there = self._session.events, self._viewer.layers.events
        connections: Connections = [
            (there.inserted, self.form.refresh_images),
            (there.removed, self.form.refresh_images),
            (there.renamed, self.form.refresh_images),
            (self._viewer.layers.selection.events.active, self.form.choose_active),
            (here.job, self.refresh_job),
            (here.progress, self.refresh_status),
            (here.message, self.refresh_status),
        ]
        for emitter, slot in connections:
            emitter.connect(slot)
        return connections

    def why_not(self) -> str:
        """Why a run cannot start now, in words; empty when it can."""
        job = self._session.job
        return text("run.why.busy", job=job.title) if job is not None else self.form.why_not()

    def refresh_job(self) -> None:
        """Show whether something is under way."""
        self.refresh_buttons()
        self.refresh_status()

    def refresh_buttons(self) -> None:
        """Let Run and Cancel be pressed when that makes sense, and say why not otherwise."""
        why, busy = self.why_not(), self._session.job is not None
        self.start.setEnabled(not why)
        self.start.setToolTip(why or tip("run.start"))
        self.cancel.setEnabled(busy)
        self.cancel.setToolTip(tip("run.cancel") if busy else text("run.why.idle"))
        if not busy:
            self.refresh_status()

    def refresh_status(self) -> None:
        """Show the last report of the job; when idle why Run cannot be pressed, else how the last job ended."""
        job, progress = self._session.job, self._session.progress
        self.bar.setVisible(job is not None)
        if job is None:
            self.status.setText(self.why_not() or self._session.message or text("status.ready"))
            return
        if progress is None:
            self.bar.setRange(0, 0)
            self.status.setText(job.title)
            return
        self.bar.setRange(0, progress.total)
        self.bar.setValue(progress.done)
        what = ": ".join(part for part in (step_title(progress.step), progress.message) if part)
        counted = text("status.step", what=what, done=progress.done, total=progress.total)
        self.status.setText(counted if progress.total else what)

    def _on_start(self) -> None:
        """Start the run; once more the reasons are asked, since a folder may have come up meanwhile."""
        layer = self.form.layer
        if layer is None or self.why_not():
            self.refresh_buttons()
            return
        jobs.start_run(self._viewer, self._session, layer, self.form.settings())

    def _on_cancel(self) -> None:
        """Ask the job to stop."""
        if self._session.job is not None:
            self._session.job.cancel()
            self.cancel.setEnabled(False)
            self.status.setText(text("status.cancelling"))


class _Detach:
    """Takes a widget that is gone off the viewer and the session, which live on."""

    def __init__(self, connections: Connections, picker: Picker, results: ResultPanel) -> None:
        self._connections, self._picker, self._results = connections, picker, results

    def __call__(self, _gone: object = None) -> None:
        for emitter, slot in self._connections:
            emitter.disconnect(slot)
        self._results.detach()
        self._picker.detach()
        self._connections.clear()
