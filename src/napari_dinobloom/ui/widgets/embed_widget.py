"""The Embed window: the encoder that describes the cells, where it computes, and what a study holds already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import napari
import pandas as pd
from qtpy.QtWidgets import QLabel, QWidget

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.io.study import Study
from napari_dinobloom.ui import embedding
from napari_dinobloom.ui.lookup import Lookup
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.column import Column
from napari_dinobloom.ui.widgets.embed_form import EmbedForm
from napari_dinobloom.ui.widgets.frame_table import FrameTable, Shown
from napari_dinobloom.ui.widgets.job_controls import JobControls

if TYPE_CHECKING:
    from napari_dinobloom.pipeline.embedded import StoredEncoder

COLUMNS = (
    Shown("embed.column.name", lambda row: f"{'● ' if row['active'] else ''}{row['name']}", "name", right=False),
    Shown("embed.column.n", lambda row: f"{row['n']:,}", "n"),
    Shown("embed.column.dim", lambda row: f"{row['dim']}", "dim"),
    Shown(
        "embed.column.how",
        lambda row: f"{row['pooling']}, {row['precision']}, {row['device']}",
        "precision",
        right=False,
    ),
)


class EmbedWidget(Column):
    """Form, run and cancel, and the embeddings that the study keeps.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Given by napari (a proxy); all state lies in its session.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session_of(napari_viewer)
        self.form = EmbedForm(self._session)
        self.job = JobControls(self._session, "embed.start", self.form.why_not, self._on_start)
        self.title = QLabel(text("embed.stored"))
        self.title.setStyleSheet("font-weight: bold")
        self.title.setToolTip(tip("embed.stored"))
        self.note = QLabel()
        self.note.setWordWrap(True)
        self.table = FrameTable(COLUMNS, shorten=True)
        self.add(self.form, self.job, self.title, self.note, self.table)
        self.lookup = Lookup(_stored, self)
        self.lookup.found.connect(self._show)
        self.form.changed.connect(self.job.refresh_buttons)
        events = self._session.events
        signals = (events.study, events.revision)
        for signal in signals:
            signal.connect(self.refresh)
        self.at_the_end(
            self.form.detach,
            self.job.detach,
            *(lambda signal=signal: signal.disconnect(self.refresh, missing_ok=True) for signal in signals),
        )
        self.refresh()
        self.job.refresh_job()

    def refresh(self) -> None:
        """Look up which embeddings the study holds, in a second thread."""
        study = self._session.study
        self.lookup.ask(None if study is None else (study,))
        self.job.refresh_buttons()
        if study is None:
            self._show([])

    def _show(self, found: list[StoredEncoder] | DinoBloomError) -> None:
        """Show the embeddings that are kept; the ones in use are marked."""
        stored = [] if isinstance(found, DinoBloomError) else found
        names = ("name", "n", "dim", "precision", "device", "pooling", "active")
        self.table.fill(pd.DataFrame([{name: getattr(one, name) for name in names} for one in stored], columns=names))
        self.table.setVisible(bool(stored))
        self.note.setText(str(found) if isinstance(found, DinoBloomError) else text("embed.stored_none"))
        self.note.setVisible(not stored)

    def _on_start(self) -> None:
        """Embed the cells."""
        if self.form.choice is not None:
            embedding.start_embed(self._session, self.form.choice, **self.form.settings())


def _stored(asked: tuple[Study]) -> list[StoredEncoder] | DinoBloomError:
    """What a study holds; in a second thread."""
    from napari_dinobloom.pipeline.embedded import stored_encoders

    try:
        return stored_encoders(*asked)
    except DinoBloomError as error:
        return error
