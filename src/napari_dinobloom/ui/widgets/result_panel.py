"""What a run found: summary, differential table, the cell under the last click, the way to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from napari.utils.notifications import show_warning
from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_dinobloom.ui.picking import Picker
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.differential_table import DifferentialTable

REASONS = ("border", "duplicate", "unreadable", "excluded", "unreviewed", "platelet", "artefact", "left out", "per 100")
"""Why cells are not counted, as the line says it; what a person deleted is not spoken of."""


class ResultPanel(QWidget):
    """Shows `Session.result`, empty until there is one.

    Parameters
    ----------
    session : Session
        Its result, study and focus are followed.
    picker : Picker
        Knows the row of the cell in focus.
    """

    def __init__(self, session: Session, picker: Picker, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._picker = picker
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        self.slide = QLabel()
        self.slide.setWordWrap(True)
        self.table = DifferentialTable()
        self.footnote = QLabel(text("result.footnote"))
        self.footnote.setWordWrap(True)
        self.footnote.setStyleSheet("font-style: italic")
        self.cell = QLabel()
        self.cell.setWordWrap(True)
        self.cell.setMinimumHeight(3 * self.cell.fontMetrics().lineSpacing())
        self.report = _button("result.report", self.open_report)
        self.folder = _button("result.open_folder", self.open_folder)
        buttons = QHBoxLayout()
        buttons.addWidget(self.report)
        buttons.addWidget(self.folder)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.summary, self.slide, self.table, self.footnote, self.cell):
            layout.addWidget(widget)
        layout.addLayout(buttons)
        session.events.result.connect(self.refresh)
        session.events.focus.connect(self.refresh_cell)
        session.events.job.connect(self.refresh_buttons)
        self.refresh()

    def detach(self) -> None:
        """Stop listening to the session."""
        self._session.events.result.disconnect(self.refresh, missing_ok=True)
        self._session.events.focus.disconnect(self.refresh_cell, missing_ok=True)
        self._session.events.job.disconnect(self.refresh_buttons, missing_ok=True)

    def refresh(self) -> None:
        """Show the result of the session, or nothing."""
        result = self._session.result
        self.setVisible(result is not None)
        if result is None:
            return
        self.summary.setText(summary_line(result.summary, result.specimen))
        counts = result.differential
        slides = sorted(set(counts["slide"]))
        self.slide.setText(text("result.slide", slide=slides[0]) if slides else "")
        self.table.fill(counts[counts["slide"] == slides[0]] if slides else counts, result.study.palette)
        for widget in (self.slide, self.table, self.footnote):
            widget.setVisible(self.table.rowCount() > 0)
        self.refresh_cell()
        self.refresh_buttons()

    def refresh_cell(self) -> None:
        """Show the line of the cell in focus."""
        self.cell.setText(self._picker.line() or text("cell.none"))

    def refresh_buttons(self) -> None:
        """Let the report be opened when it is there, and say why not otherwise."""
        report = self._report()
        ready = report is not None and report.is_file() and self._session.job is None
        self.report.setEnabled(ready)
        self.report.setToolTip(tip("result.report") if ready else text("run.why.no_report"))

    def open_report(self) -> None:
        """Open the report in the browser."""
        self._open(self._report())

    def open_folder(self) -> None:
        """Open the study folder in the file manager."""
        result = self._session.result
        self._open(None if result is None else Path(result.study.path))

    def _report(self) -> Path | None:
        """Where the report of the study stands."""
        result: Any = self._session.result
        return None if result is None else Path(result.study.path) / "report.html"

    def _open(self, path: Path | None) -> None:
        """Open `path` with the program that the desktop has for it, or say where it is."""
        if path is not None and not QDesktopServices.openUrl(QUrl.fromLocalFile(str(path))):
            show_warning(text("error.no_browser", path=path))


def summary_line(totals: pd.DataFrame, specimen: str) -> str:
    """Say how many cells were found and counted, and why the others were not."""
    cells = int(totals["cells"].sum()) if len(totals) else 0
    if not cells:
        return text("result.none")
    key = "result.summary" if specimen == "blood" else "result.summary_marrow"
    line = text(key, cells=cells - int(totals["deleted"].sum()), counted=int(totals["counted"].sum()))
    numbers = {why: int(totals[why].sum()) for why in REASONS}
    left = [f"{n} {text(f'reason.{why}')}" for why, n in numbers.items() if n]
    return f"{line} ({', '.join(left)})." if left else f"{line}."


def _button(key: str, act: Any) -> QPushButton:
    """A button with its text and tooltip."""
    button = QPushButton(text(key))
    button.setToolTip(tip(key))
    button.clicked.connect(act)
    return button
