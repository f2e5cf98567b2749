"""How good a model of patients is: its figures beside those of mean pooling and of a control, and what to know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.frame_table import FrameTable, Shown, figure, span

if TYPE_CHECKING:
    from napari_dinobloom.pipeline.patients import PatientResult


def _score(name: str) -> Any:
    """Shows a score with its interval."""

    def show(row: Mapping[str, Any]) -> str:
        ends = span(row[f"{name}_low"], row[f"{name}_high"], 2)
        return f"{figure(row[name], 2)} ({ends.replace(' – ', '–')})" if ends else figure(row[name], 2)

    return show


COLUMNS = (
    Shown("patients.model", lambda row: row["model"], "model", right=False),
    Shown("patients.f1", _score("weighted_f1"), "weighted_f1"),
    Shown("patients.balanced", _score("balanced_accuracy"), "balanced_accuracy"),
    Shown("patients.auc", _score("auc"), "auc"),
)


class PatientsScores(QWidget):
    """Empty until there is a result; what a result says in words is always in sight then."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.title = QLabel(text("patients.scores"))
        self.title.setStyleSheet("font-weight: bold")
        self.title.setToolTip(tip("patients.scores"))
        self.table = FrameTable(COLUMNS)
        self.table.setAccessibleName(text("patients.scores"))
        self.notes = QLabel()
        self.notes.setWordWrap(True)
        self.notes.setTextFormat(Qt.TextFormat.PlainText)
        self.notes.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self.title, self.table, self.notes):
            column.addWidget(part)

    def show_result(self, result: PatientResult | None, *, outdated: bool = False) -> None:
        """Show what was trained or applied last."""
        self.setVisible(result is not None)
        if result is None:
            return
        key = "patients.scores" if result.table["out_of_fold"].any() else "patients.scores_applied"
        self.title.setText(text(key))
        self.title.setToolTip(tip(key))
        self.table.setAccessibleName(text(key))
        self.table.fill(result.scores)
        self.table.setVisible(bool(len(result.scores)))
        notes = [*([text("patients.outdated")] if outdated else []), *result.notes]
        self.notes.setText("\n".join(notes))
        self.notes.setVisible(bool(notes))
