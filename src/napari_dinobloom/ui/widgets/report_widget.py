"""The Report window: what is written for people, and what is exported for programs."""

from __future__ import annotations

from pathlib import Path

import napari
import pandas as pd
from napari.utils.notifications import show_warning
from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QCheckBox, QFileDialog, QFormLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_dinobloom.pipeline.exports import KINDS, Kind
from napari_dinobloom.ui import reporting
from napari_dinobloom.ui.lookup import Lookup
from napari_dinobloom.ui.reporting import Pages, Written
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.column import Column
from napari_dinobloom.ui.widgets.frame_table import FrameTable, Shown
from napari_dinobloom.ui.widgets.job_controls import JobControls
from napari_dinobloom.ui.widgets.smear_form import narrow_box

PAGES = ("per_patient", "cohort", "pseudonyms")
COLUMNS = (
    Shown("report.column.name", lambda row: str(row["name"]), "name", right=False),
    Shown("report.column.when", lambda row: str(row["when"])[5:], "when"),
)


class ReportWidget(Column):
    """What is to be written, the files that there are, and exports.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Given by napari (a proxy); all state lies in its session.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session_of(napari_viewer)
        self._files: list[Written] = []
        self.specimen = narrow_box()
        for value in ("blood", "marrow"):
            self.specimen.addItem(text(f"run.specimen.{value}"), value)
        self.pages = {name: QCheckBox(text(f"report.{name}")) for name in PAGES}
        self.job = JobControls(self._session, "report.start", self._why_not, self._on_start)
        self.note = QLabel()
        self.note.setWordWrap(True)
        self.table = FrameTable(COLUMNS)
        self.open = QPushButton(text("report.open"))
        self.exports = {name: QCheckBox(text(f"report.{name}")) for name in KINDS}
        self.exports["tables"].setChecked(True)
        self.export = QPushButton(text("report.export"))
        self.add(self._form(), self.job, _title("report.files"), self.note, self.table, self.open)
        self.add(_title("report.exports"), self._boxes(), self.export)
        self.lookup = Lookup(lambda asked: reporting.written(*asked), self)
        self.lookup.found.connect(self._show)
        self.open.clicked.connect(self.open_chosen)
        self.table.itemDoubleClicked.connect(lambda _item: self.open_chosen())
        self.table.itemSelectionChanged.connect(self._refresh_buttons)
        self.export.clicked.connect(self._on_export)
        for box in self.exports.values():
            box.toggled.connect(self._refresh_buttons)
        slots = {"study": self.take_over, "revision": self.refresh, "job": self._refresh_buttons}
        events = self._session.events
        for name, slot in slots.items():
            getattr(events, name).connect(slot)
        self.at_the_end(
            self.job.detach,
            *(
                lambda name=name, slot=slot: getattr(events, name).disconnect(slot, missing_ok=True)
                for name, slot in slots.items()
            ),
        )
        self.take_over()
        self.job.refresh_job()

    def _form(self) -> QWidget:
        """What is to be written."""
        place = QWidget()
        form = QFormLayout(place)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        label = QLabel(text("run.specimen"))
        for part in (label, self.specimen):
            part.setToolTip(tip("run.specimen"))
        form.addRow(label, self.specimen)
        for name, box in self.pages.items():
            box.setToolTip(tip(f"report.{name}"))
            form.addRow(box)
        return place

    def _boxes(self) -> QWidget:
        """What can be exported."""
        place = QWidget()
        column = QVBoxLayout(place)
        column.setContentsMargins(0, 0, 0, 0)
        for name, box in self.exports.items():
            box.setToolTip(tip(f"report.{name}"))
            row = QHBoxLayout()
            row.addWidget(box)
            column.addLayout(row)
        return place

    def take_over(self) -> None:
        """Show what was smeared as the study that was opened has it, and its files."""
        study = self._session.study
        if study is not None:
            self.specimen.setCurrentIndex(max(self.specimen.findData(study.specimen), 0))
        self.refresh()

    def refresh(self) -> None:
        """Look up which files there are, in a second thread."""
        study = self._session.study
        self.lookup.ask(None if study is None else (study,))
        if study is None:
            self._show([])
        self.job.refresh_buttons()

    def _why_not(self) -> str:
        return reporting.why_not_write(self._session)

    def _show(self, files: list[Written]) -> None:
        """Show the files."""
        self._files = files
        rows = [{"name": file.name, "when": file.when} for file in files]
        self.table.fill(pd.DataFrame(rows, columns=["name", "when"]))
        self.table.setVisible(bool(files))
        self.note.setVisible(not files)
        self.note.setText(text("report.none"))
        self._refresh_buttons()

    @property
    def chosen(self) -> Path | None:
        """The file that is chosen in the table, else the report."""
        rows = {index.row() for index in self.table.selectedIndexes()}
        item = self.table.item(min(rows), 0) if rows else None
        name = reporting.REPORT if item is None else item.text()
        return next((file.path for file in self._files if file.name == name), None)

    def open_chosen(self) -> None:
        """Open the chosen file with the program that the desktop has for it."""
        path = self.chosen
        if path is not None and not QDesktopServices.openUrl(QUrl.fromLocalFile(str(path))):
            show_warning(text("error.no_browser", path=path))

    def _on_start(self) -> None:
        """Write the report and the pages."""
        pages = Pages(**{name: box.isChecked() for name, box in self.pages.items()})
        reporting.start_write(self._session, self.specimen.currentData(), pages)

    def _wanted(self) -> list[Kind]:
        return [name for name, box in self.exports.items() if box.isChecked()]

    def _on_export(self) -> None:
        """Ask for a folder, and export into it."""
        study = self._session.study
        if study is None:
            return
        folder = QFileDialog.getExistingDirectory(self, text("report.export"), str(study.path.parent))
        if folder:
            reporting.start_export(self._session, Path(folder), self._wanted())

    def _refresh_buttons(self) -> None:
        """Say why a button cannot be pressed."""
        why = reporting.why_not_export(self._session, self._wanted())
        self.export.setEnabled(not why)
        self.export.setToolTip(why or tip("report.export"))
        self.open.setEnabled(self.chosen is not None)
        self.open.setToolTip(tip("report.open") if self.chosen is not None else text("run.why.no_report"))


def _title(key: str) -> QLabel:
    """A heading with its tooltip."""
    label = QLabel(text(key))
    label.setStyleSheet("font-weight: bold")
    label.setToolTip(tip(key))
    label.setTextFormat(Qt.TextFormat.PlainText)
    return label
