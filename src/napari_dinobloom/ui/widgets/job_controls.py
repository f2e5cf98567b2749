"""Start and cancel a job, and see how far it is: the same in every widget that runs one."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import step_title, text, tip

FAILED = text("status.failed", message="")
"""Beginning of the message of a job that failed, which no other sentence hides."""


class JobControls(QWidget):
    """Two buttons, a line of text and a bar for the one job of a session.

    Parameters
    ----------
    session : Session
        Its job, progress and message are shown.
    key : str
        Text of the start button; its tooltip says what is done.
    why_not : callable
        Says why the job cannot be started as things are, empty when it can.
    on_start : callable
        Starts it.
    """

    def __init__(
        self,
        session: Session,
        key: str,
        why_not: Callable[[], str],
        on_start: Callable[[], object],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._session, self._key, self._form_why_not, self._begin = session, key, why_not, on_start
        self.start = QPushButton(text(key))
        self.cancel = QPushButton(text("run.cancel"))
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.status.setTextFormat(Qt.TextFormat.PlainText)  # names of files and layers stand in it
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(6)
        buttons = QHBoxLayout()
        buttons.addWidget(self.start, 2)
        buttons.addWidget(self.cancel, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(buttons)
        column.addWidget(self.status)
        column.addWidget(self.bar)
        self.start.clicked.connect(self._on_start)
        self.cancel.clicked.connect(self._on_cancel)
        session.events.job.connect(self.refresh_job)
        session.events.progress.connect(self.refresh_status)
        session.events.message.connect(self.refresh_status)

    def detach(self) -> None:
        """Stop listening to the session, which lives on."""
        self._session.events.job.disconnect(self.refresh_job, missing_ok=True)
        self._session.events.progress.disconnect(self.refresh_status, missing_ok=True)
        self._session.events.message.disconnect(self.refresh_status, missing_ok=True)

    def why_not(self) -> str:
        """Why a job cannot start now, in words; empty when it can."""
        job = self._session.job
        return text("run.why.busy", job=job.title) if job is not None else self._form_why_not()

    def refresh_job(self) -> None:
        """Show whether something is under way."""
        self.refresh_buttons()
        if self._session.job is not None:
            self.refresh_status()

    def refresh_buttons(self) -> None:
        """Let the buttons be pressed when that makes sense, and say why not otherwise."""
        why, busy = self.why_not(), self._session.job is not None
        self.start.setEnabled(not why)
        self.start.setToolTip(why or tip(self._key))
        self.cancel.setEnabled(busy)
        self.cancel.setToolTip(tip("run.cancel") if busy else text("run.why.idle"))
        if not busy:
            self._show_idle(why)

    def _show_idle(self, why: str) -> None:
        """Show how the last job failed and why none can be started, else how the last one ended."""
        self.bar.setVisible(False)
        message = self._session.message
        failed = message if message.startswith(FAILED) else ""
        said = "\n".join(filter(None, (failed, why)))
        self.status.setText(said or message or text("status.ready"))

    def refresh_status(self) -> None:
        """Show the last report of the job; when idle what `_show_idle` says."""
        job, progress = self._session.job, self._session.progress
        if job is None:
            self._show_idle(self.why_not())
            return
        self.bar.setVisible(True)
        if progress is None:
            self.bar.setRange(0, 0)
            self.status.setText(job.title)
            return
        self.bar.setRange(0, progress.total)
        self.bar.setValue(progress.done)
        what = ": ".join(part for part in (step_title(progress.step), progress.message) if part) or job.title
        counted = text("status.step", what=what, done=progress.done, total=progress.total)
        self.status.setText(counted if progress.total else what)

    def _on_start(self) -> None:
        """Start the job; once more the reasons are asked, since a folder may have come up meanwhile."""
        if self.why_not():
            self.refresh_buttons()
        else:
            self._begin()

    def _on_cancel(self) -> None:
        """Ask the job to stop."""
        if self._session.job is not None:
            self._session.job.cancel()
            self.cancel.setEnabled(False)
            self.status.setText(text("status.cancelling"))
