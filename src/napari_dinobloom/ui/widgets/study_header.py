"""The open study in one line, and how to get another one: new, open, recent, a copy, close."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_warning
from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QAction, QDesktopServices
from qtpy.QtWidgets import QFileDialog, QGridLayout, QLabel, QMenu, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_dinobloom.io.study import Study
from napari_dinobloom.ui import recent, study_job
from napari_dinobloom.ui.images import STUDY_SUFFIX
from napari_dinobloom.ui.lookup import Lookup
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text, tip

ACTS = ("new", "open", "recent", "copy", "folder", "close")


class StudyHeader(QWidget):
    """Name, place and state of the session's study, and six buttons.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Shows the fields of a study that is opened.
    session : Session
        Its study and job are followed.
    propose : callable
        Gives a folder beside which a new study would lie, None for the home folder.
    """

    def __init__(
        self,
        viewer: Any,
        session: Session,
        propose: Callable[[], Path | None],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer, self._session, self._propose = viewer, session, propose
        self.title = QLabel()
        self.title.setStyleSheet("font-weight: bold; font-size: 12pt")
        self.about = QLabel()
        for label in (self.title, self.about):
            label.setTextFormat(Qt.TextFormat.PlainText)
            label.setWordWrap(True)
        self.buttons = {name: QPushButton(text(f"study.{name}")) for name in ACTS}
        self.menu = QMenu(self)
        self.menu.setToolTipsVisible(True)
        self.menu.aboutToShow.connect(self.offer_recent)
        self.lookup = Lookup(lambda _asked: recent.recent(), self)
        self.lookup.found.connect(self._mark)
        self.buttons["recent"].setMenu(self.menu)
        acts = {"new": self.new, "open": self.open, "copy": self.copy, "folder": self.folder, "close": self.close_study}
        for name, act in acts.items():
            self.buttons[name].clicked.connect(act)
        grid = QGridLayout()
        for at, button in enumerate(self.buttons.values()):
            button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            grid.addWidget(button, at // 3, at % 3)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.title)
        column.addWidget(self.about)
        column.addLayout(grid)
        for signal in (session.events.study, session.events.job, session.events.revision):
            signal.connect(self.refresh)
        self.refresh()

    def detach(self) -> None:
        """Stop listening to the session, which lives on."""
        events = self._session.events
        for signal in (events.study, events.job, events.revision):
            signal.disconnect(self.refresh, missing_ok=True)

    def refresh(self) -> None:
        """Show which study is open and who writes it, and which buttons make sense."""
        study = self._session.study
        self.title.setText(text("study.none") if study is None else study.name)
        self.about.setText(text("study.begin") if study is None else about(study))
        for name, button in self.buttons.items():
            why = self.why_not(name)
            button.setEnabled(not why)
            button.setToolTip(why or tip(f"study.{name}"))

    def why_not(self, act: str) -> str:
        """Why a button cannot be pressed now, in words; empty when it can."""
        job = self._session.job
        if act in ("copy", "folder", "close") and self._session.study is None:
            return text("study.why.none")
        if job is not None and act != "folder":
            return text("run.why.busy", job=job.title)
        if act == "recent" and not recent.remembered():
            return text("study.why.no_recent")
        return ""

    def new(self) -> None:
        """Ask where a new study goes, and make it."""
        beside = self._propose()
        name = study_job.named(Path.home() / "study" if beside is None else beside / beside.name)
        chosen, _ = QFileDialog.getSaveFileName(self, text("study.new_title"), str(name), text("study.filter"))
        if chosen:
            study_job.start_create(self._viewer, self._session, study_job.named(Path(chosen)), "blood")

    def open(self) -> None:
        """Ask for a study, and open it."""
        chosen = QFileDialog.getExistingDirectory(self, text("study.open_title"), str(Path.home()))
        if chosen:
            self.open_path(Path(chosen))

    def open_path(self, path: Path) -> None:
        """Open a study, or say that there is none at this place."""
        study_job.start_open(self._viewer, self._session, path)

    def copy(self) -> None:
        """Ask where a copy goes, and make it."""
        study = self._session.study
        if study is None:
            return
        proposed = study.path.with_name(f"{study.path.stem}-copy{STUDY_SUFFIX}")
        chosen, _ = QFileDialog.getSaveFileName(self, text("study.copy_title"), str(proposed), text("study.filter"))
        if chosen:
            study_job.start_copy(self._session, study_job.named(Path(chosen)))

    def folder(self) -> None:
        """Open the study folder in the file manager."""
        study = self._session.study
        if study is not None and not QDesktopServices.openUrl(QUrl.fromLocalFile(str(study.path))):
            show_warning(text("error.no_browser", path=study.path))

    def close_study(self) -> None:
        """Close the open study; nothing has to be saved."""
        study_job.close(self._viewer, self._session)

    def offer_recent(self) -> None:
        """List the studies that were open last, and look in a second thread which of them are there."""
        self.menu.clear()
        for path in recent.remembered():
            action = QAction(_line("study.recent_item", path), self.menu)
            action.setData(path)
            action.setToolTip(str(path))
            action.triggered.connect(lambda _checked=False, path=path: self.open_path(path))
            self.menu.addAction(action)
        self.menu.addSeparator()
        tidy = QAction(text("study.tidy"), self.menu)
        tidy.setToolTip(tip("study.tidy"))
        tidy.setEnabled(False)
        self.menu.addAction(tidy)
        self.lookup.ask(object())

    def _mark(self, found: list[recent.Recent]) -> None:
        """Mark studies on the list that are not there any more; they lead nowhere, and can be forgotten."""
        gone = [one.path for one in found if one.missing]
        *lines, tidy = self.menu.actions()
        for action in lines:
            if (path := action.data()) in gone:
                action.setText(_line("study.recent_missing", path))
                action.setToolTip(text("study.why.missing", path=path))
                action.setEnabled(False)
        tidy.setEnabled(bool(gone))
        tidy.triggered.connect(lambda: recent.forget(*gone))


def _line(key: str, path: Path) -> str:
    """Line of a study on the list of recent ones."""
    return text(key, name=path.stem, folder=path.parent).replace("&", "&&")


def about(study: Study) -> str:
    """Where a study lies, how much is in it, and who holds it where it cannot be written."""
    obs = study.cells.obs
    counts = {
        "patients": len({record.patient for record in study.fields}),
        "slides": len({(record.patient, record.slide) for record in study.fields}),
        "fields": len(study.fields),
        "cells": int((~obs["deleted"].astype(bool)).sum()) if len(obs) else 0,
    }
    lines = [str(study.path), text("study.counts", **counts)]
    if study.read_only and study.held_by is not None:
        lines.append(text("study.held", holder=study.held_by))
    elif study.read_only:
        lines.append(text("study.read_only"))
    return "\n".join(lines)
