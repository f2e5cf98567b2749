"""Pictures that are to be taken into the study: dropped or chosen, with the slide and patient that their names give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.io.inputs import ENDINGS
from napari_dinobloom.io.manifest import NAME
from napari_dinobloom.ui.lookup import Lookup
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.smear_form import narrow_box

if TYPE_CHECKING:
    from napari_dinobloom.pipeline.read import Found

MOST = 200
"""Pictures that are listed; the others are counted."""
RULES = {"slide": ("folder", "folder:2", "file"), "patient": ("slide", "folder", "folder:2")}


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What a second thread looks up: which pictures there are, and where they belong."""

    inputs: tuple[str, ...]
    rules: dict[str, Any]


class StudyInputs(QFrame):
    """An area that takes files and folders, the rule that groups them, and what comes of it.

    Parameters
    ----------
    session : Session
        Its study tells the rule of before.

    Attributes
    ----------
    changed : Signal
        Other pictures or another rule.
    dropped_study : Signal
        The folder of a study was dropped.
    """

    changed = Signal()
    dropped_study = Signal(Path)

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.inputs: tuple[str, ...] = ()
        self.problem = ""
        self._count = 0
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.setAcceptDrops(True)
        self.setToolTip(tip("study.drop"))
        self.hint = QLabel(text("study.drop"))
        self.hint.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.hint.setWordWrap(True)
        self.hint.setMinimumHeight(40)
        self.hint.setStyleSheet("border: 1px dashed #8a8a8a; border-radius: 4px")
        self.buttons = {name: QPushButton(text(f"study.{name}")) for name in ("add_files", "add_folder", "clear")}
        acts = {"add_files": self._add_files, "add_folder": self._add_folder, "clear": self.clear}
        for name, button in self.buttons.items():
            button.setToolTip(tip(f"study.{name}"))
            button.clicked.connect(acts[name])
        self.boxes = {what: self._rule_box(what) for what in RULES}
        self.single = QCheckBox(text("study.single"))
        self.single.setToolTip(tip("study.single"))
        self.single.toggled.connect(self.look)
        self.rules = QWidget()
        self.found = QTreeWidget()
        self.found.setHeaderLabels([text(f"study.{name}") for name in ("picture", "slide", "patient")])
        self.found.setRootIsDecorated(False)
        self.found.setMaximumHeight(140)
        if (header := self.found.header()) is not None:
            header.setStretchLastSection(False)
            header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for at in (1, 2):
            self.found.setColumnWidth(at, 75)
        self.note = QLabel()
        self.note.setTextFormat(Qt.TextFormat.PlainText)
        self.note.setWordWrap(True)
        self._lay_out()
        self.lookup = Lookup(_look, self)
        self.lookup.found.connect(self._show)
        session.events.study.connect(self.take_over)
        self.take_over()
        self._show_none()

    def detach(self) -> None:
        """Stop listening to the session, which lives on."""
        self._session.events.study.disconnect(self.take_over, missing_ok=True)

    def _rule_box(self, what: str) -> QComboBox:
        """A box that offers the usual rules, and takes any other."""
        box = narrow_box()
        box.setEditable(True)
        box.addItems(RULES[what])
        box.currentTextChanged.connect(self.look)
        return box

    def _lay_out(self) -> None:
        row = QHBoxLayout()
        for button in self.buttons.values():
            row.addWidget(button)
        form = QFormLayout(self.rules)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for what, box in self.boxes.items():
            label = QLabel(text(f"study.{what}_from"))
            label.setToolTip(tip(f"study.{what}_from"))
            box.setToolTip(tip(f"study.{what}_from"))
            form.addRow(label, box)
        form.addRow(self.single)
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 6, 6, 6)
        column.addWidget(self.hint)
        column.addLayout(row)
        column.addWidget(self.rules)
        column.addWidget(self.found)
        column.addWidget(self.note)

    def take_over(self) -> None:
        """Show the rule with which the study was run last."""
        study = self._session.study
        if study is None:
            return
        for what, box in self.boxes.items():
            box.setCurrentText(str(study.settings.get(f"{what}_from") or RULES[what][0]))
        self.single.setChecked(self._one_cell_each)

    @property
    def _one_cell_each(self) -> bool:
        """Whether the study was made of pictures of single cells."""
        study = self._session.study
        return study is not None and bool(study.settings.get("cells"))

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of a run that are chosen here; none where there are no pictures to group."""
        if not self.inputs:
            return {}
        single = self.single.isChecked()
        rules = {f"{what}_from": box.currentText().strip() for what, box in self.boxes.items()}
        return rules | ({"cells": single} if single != self._one_cell_each else {})

    @property
    def folder(self) -> Path | None:
        """Folder of the first picture, beside which a new study may lie."""
        if not self.inputs:
            return None
        first = Path(self.inputs[0])
        return first if first.is_dir() else first.parent

    def add(self, paths: Sequence[str]) -> None:
        """Put files and folders on the list."""
        self.inputs = tuple(dict.fromkeys((*self.inputs, *paths)))
        self.look()

    def clear(self) -> None:
        """Empty the list; nothing of a study changes."""
        self.take_off(self.inputs)

    def take_off(self, paths: Sequence[str]) -> None:
        """Take some files and folders off the list, such as those that a study holds now."""
        self.inputs = tuple(path for path in self.inputs if path not in paths)
        self.look()

    def why_not(self) -> str:
        """Why these pictures cannot be taken in, in words; empty when they can."""
        return text("study.why.looking") if self.lookup.busy and self.inputs else self.problem

    def look(self) -> None:
        """Find the pictures, and what slide and patient each belongs to, in a second thread."""
        if not self.inputs:
            self.lookup.ask(None)
            self._show_none()
            return
        self.lookup.ask(Question(self.inputs, self.settings))
        self.changed.emit()

    def _show_none(self) -> None:
        self.problem, self._count = "", 0
        self.found.clear()
        for part in (self.found, self.note, self.rules):
            part.hide()
        self.buttons["clear"].setEnabled(False)
        self.buttons["clear"].setToolTip(text("study.why.nothing"))
        self.changed.emit()

    def _show(self, found: Found | DinoBloomError) -> None:
        """Show the pictures, or why they cannot be taken."""
        self.found.clear()
        self.buttons["clear"].setEnabled(True)
        self.buttons["clear"].setToolTip(tip("study.clear"))
        if isinstance(found, DinoBloomError):
            self.problem, self._count = str(found), 0
            self.note.setText(self.problem)
        else:
            self.problem, self._count = "", len(found.sources)
            rows = zip(found.sources[:MOST], found.slides, found.patients, strict=False)
            items = [QTreeWidgetItem([source.path.name, slide, patient]) for source, slide, patient in rows]
            for item, source in zip(items, found.sources, strict=False):
                item.setToolTip(0, str(source.path))
            self.found.addTopLevelItems(items)
            counts = {"slides": len(set(zip(found.slides, found.patients, strict=True)))}
            counts |= {"count": self._count, "patients": len(set(found.patients))}
            lines = [text("study.pending", **counts)]
            lines += [f"{problem.name}: {problem.message}" for problem in found.problems[:3]]
            self.note.setText("\n".join(lines))
        self.found.setVisible(self._count > 0)
        self.note.show()
        self.rules.show()
        self.changed.emit()

    def _add_files(self) -> None:
        """Ask for pictures."""
        kinds = text("study.images_filter", endings=" ".join(f"*{ending}" for ending in ENDINGS))
        chosen, _ = QFileDialog.getOpenFileNames(self, text("study.add_files"), str(Path.home()), kinds)
        if chosen:
            self.add(chosen)

    def _add_folder(self) -> None:
        """Ask for a folder of pictures."""
        chosen = QFileDialog.getExistingDirectory(self, text("study.add_folder"), str(Path.home()))
        if chosen:
            self.add([chosen])

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        """Take files, whatever they are; those that are no pictures are said to be none."""
        data = event.mimeData() if event is not None else None
        if event is not None and data is not None and data.hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:
        """Take what was dropped: studies are opened, all else goes on the list."""
        data = event.mimeData() if event is not None else None
        if event is None or data is None:
            return
        paths = [url.toLocalFile() for url in data.urls() if url.isLocalFile()]
        studies = [path for path in paths if (Path(path) / NAME).is_file()]
        if studies:
            self.dropped_study.emit(Path(studies[0]))
        if pictures := [path for path in paths if path not in studies]:
            self.add(pictures)
        event.acceptProposedAction()


def _look(asked: Question) -> Found | DinoBloomError:
    """Find pictures and their groups; in a second thread."""
    from napari_dinobloom.pipeline.read import find
    from napari_dinobloom.pipeline.settings import resolve

    try:
        return find(asked.inputs, resolve({}, asked.rules))
    except DinoBloomError as error:
        return error
