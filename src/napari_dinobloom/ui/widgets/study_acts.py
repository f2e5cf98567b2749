"""Undo and redo of all that people did in the study, with what it would be said before it is done."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QSizePolicy, QWidget

from napari_dinobloom.ui.act_words import describe_act
from napari_dinobloom.ui.correction import Correction
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text, tip

ACTS = ("undo", "redo")
FRAME = 24
"""Pixels of a button beside its words."""
WIDER = 3
"""Of a button that names an act, against one that has nothing to do."""


class ActButton(QPushButton):
    """A button that shows as much of its words as there is room for."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.words = ""
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def put(self, words: str) -> None:
        """Show other words."""
        self.words = words
        self._fit()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Cut the words anew."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        room = max(self.width() - FRAME, 40)
        words = self.fontMetrics().elidedText(self.words, Qt.TextElideMode.ElideRight, room)
        self.setText(words.replace("&", "&&"))


class StudyActs(QWidget):
    """Two buttons: "Undo: label of 12 cells" and its counterpart.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Its cell layers show what comes of it.
    session : Session
        Its study and revisions are followed.
    """

    def __init__(self, viewer: Any, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session, self._correction = session, Correction(viewer, session)
        self.buttons = {act: ActButton() for act in ACTS}
        self._row = row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for act, button in self.buttons.items():
            button.clicked.connect(getattr(self._correction, act))
            row.addWidget(button)
        events = session.events
        revisions = (events.revision, events.gates_revision, events.groups_revision)
        self._signals = (events.study, events.job, *revisions, events.reader, events.blind)
        for signal in self._signals:
            signal.connect(self.refresh)
        self.refresh()

    def detach(self) -> None:
        """Stop listening to the session, which lives on."""
        for signal in self._signals:
            signal.disconnect(self.refresh, missing_ok=True)

    def refresh(self, _event: object = None) -> None:
        """Say what undo and redo would do, or why they cannot."""
        study = self._session.study
        self.setVisible(study is not None)
        for act, button in self.buttons.items():
            entry = None if study is None else (study.to_undo if act == "undo" else study.to_redo)
            why = self._correction.why_not(act)
            words = "" if entry is None else describe_act(entry)
            button.put(text(f"study.{act}_act", act=words) if words else text(f"study.{act}"))
            self._row.setStretchFactor(button, WIDER if words else 1)
            button.setEnabled(not why)
            by = "study.act_at" if self._session.blind else "study.act_by"
            said = "" if entry is None else text(by, act=words, who=entry.who, when=entry.when[:16])
            button.setToolTip(why or "\n".join(filter(None, (tip(f"study.{act}"), said))))
