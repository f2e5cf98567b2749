"""What was found in the fields on show: how many cells, at what scale, with which flags, and what to know of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.fields import FieldRecord
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline.table import load_cells
from napari_dinobloom.report.counting import flag
from napari_dinobloom.ui.images import tag
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import TEXTS, text

MOST_NOTES = 4
"""Notes that are shown one by one; the rest is counted."""


SAID = ["touches_border", "quality", "excluded", "pixel_size_um", "scale_from"]
"""Columns of the cell table that the lines are about."""


class CellsPanel(QWidget):
    """A few lines about the cells of the session's study that the viewer shows; they follow every act.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Its cell layers say which fields are meant.
    session : Session
        Its study, revision and notes are followed.
    """

    def __init__(self, viewer: Any, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer, self._session = viewer, session
        self.count, self.flags, self.scale, self.notes = QLabel(), QLabel(), QLabel(), QLabel()
        self.count.setStyleSheet("font-weight: bold")
        self.notes.setStyleSheet("font-style: italic")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        for label in (self.count, self.flags, self.scale, self.notes):
            label.setWordWrap(True)
            label.setTextFormat(Qt.TextFormat.PlainText)  # names of files stand in notes
            column.addWidget(label)
        for signal in (session.events.study, session.events.revision, session.events.notes):
            signal.connect(self.refresh)
        viewer.layers.events.removed.connect(self.refresh)
        self.refresh()

    def detach(self) -> None:
        """Stop listening to session and viewer, which live on."""
        for signal in (self._session.events.study, self._session.events.revision, self._session.events.notes):
            signal.disconnect(self.refresh, missing_ok=True)
        self._viewer.layers.events.removed.disconnect(self.refresh)

    def refresh(self, _event: object = None) -> None:
        """Show the lines, or nothing while no study is open."""
        study = self._session.study
        shown = set() if study is None else fields_on_show(self._viewer.layers, str(study.path))
        self.setVisible(bool(shown))
        if study is None or not shown:
            return
        obs, fields = study.cells.obs, [record for record in study.fields if record.id in shown]
        present = obs["field"].isin(shown).to_numpy() & ~obs["deleted"].to_numpy(bool)
        here = obs[SAID].take(np.flatnonzero(present))
        scales = here if len(here) else _own_scales(study, fields)
        notes = [*self._session.notes, *(f"{record.id}: {record.problem}" for record in fields if record.problem)]
        lines = (count_line(here), flags_line(here), scale_line(scales), notes_text(notes))
        for label, line in zip((self.count, self.flags, self.scale, self.notes), lines, strict=True):
            label.setText(line)
            label.setVisible(bool(line))


def fields_on_show(layers: Any, study: str) -> set[str]:
    """Ids of the fields of a study that have a cell layer."""
    marks = [tag(layer) for layer in layers]
    shown = [mark["fields"] for mark in marks if mark.get("role") == "cells" and mark.get("study") == study]
    return {field for fields in shown for field in fields if field}


def count_line(cells: pd.DataFrame) -> str:
    """Say how many cells there are."""
    if not len(cells):
        return text("cells.none")
    return text("cells.count", count=len(cells))


def flags_line(cells: pd.DataFrame) -> str:
    """Say how many cells lie at the border, have a flag of quality or were excluded; empty for none."""
    parts = {"cells.border": int(flag(cells, "touches_border").sum())}
    for name, number in cells["quality"].value_counts().items():
        if name not in ("", "ok"):
            parts[f"cells.quality.{name}"] = int(number)
    parts["cells.excluded"] = int(flag(cells, "excluded").sum())
    titles = {key: TEXTS.get(key, key.rpartition(".")[2].replace("_", " ")) for key in parts}
    return " · ".join(f"{number} {titles[key]}" for key, number in parts.items() if number)


def scale_line(cells: pd.DataFrame) -> str:
    """Say what a pixel measures and how that is known; empty where no cell tells."""
    size_of, source_of = cells["pixel_size_um"].to_numpy(float), cells["scale_from"].to_numpy(object)
    lines = []
    for source in sorted(one for one in pd.unique(source_of) if isinstance(one, str)):
        sizes = size_of[(source_of == source) & np.isfinite(size_of)]
        if not len(sizes):
            continue
        low, high = float(sizes.min()), float(sizes.max())
        size = f"{low:.3g}" if np.isclose(low, high, rtol=1e-3) else f"{low:.3g} – {high:.3g}"
        lines.append(text("cells.scale", size=size, source=TEXTS.get(f"cells.scale.{source}", source)))
    return " ".join(lines)


def _own_scales(study: Study, fields: Sequence[FieldRecord]) -> pd.DataFrame:
    """The scale that the segmentation found in each field, for fields without a cell that would tell."""
    found = []
    for record in fields:
        with suppress(StudyError):  # not segmented yet, or its masks are damaged
            found.append(load_cells(study, record).scale)
    columns = {"pixel_size_um": [s.pixel_size_um for s in found], "scale_from": [str(s.source) for s in found]}
    return pd.DataFrame(columns)


def notes_text(notes: Sequence[str]) -> str:
    """Notes one below the other, the first few of them."""
    shown = list(notes[:MOST_NOTES])
    if len(notes) > MOST_NOTES:
        shown.append(text("cells.more_notes", count=len(notes) - MOST_NOTES))
    return "\n".join(shown)
