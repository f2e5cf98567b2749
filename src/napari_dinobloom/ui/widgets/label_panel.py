"""Learn from hand labels: how many there are, what to label next, a probe or a larger atlas made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QLabel, QLineEdit, QPushButton, QSpinBox, QVBoxLayout, QWidget

from napari_dinobloom.cells.taxonomy import describe
from napari_dinobloom.io.trust import is_id
from napari_dinobloom.ui import classifying
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.column import while_there
from napari_dinobloom.ui.widgets.frame_table import FrameTable, Shown
from napari_dinobloom.ui.widgets.reference_form import ReferenceForm

COLUMNS = (
    Shown("classify.learn.class", lambda row: describe(row["class"]).title, "class", right=False),
    Shown("classify.learn.count", lambda row: f"{row['n']:,}", "n"),
)


class LabelPanel(QWidget):
    """Counts of the labels, and what can be done with them.

    Parameters
    ----------
    session : Session
        Its study, revision and job are followed.
    form : ReferenceForm
        Its reference is extended; a new one is put on its list and chosen.
    """

    def __init__(self, session: Session, form: ReferenceForm, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session, self._form = session, form
        self.title = QLabel(text("classify.learn"))
        self.title.setStyleSheet("font-weight: bold")
        self.title.setToolTip(tip("classify.learn"))
        self.counts = FrameTable(COLUMNS)
        self.counts.setAccessibleName(text("classify.learn"))
        self.why = QLabel()
        self.why.setWordWrap(True)
        self.name = QLineEdit()
        self.name.setMaxLength(60)
        self.count = QSpinBox()
        self.count.setRange(1, 200)
        self.count.setValue(20)
        self.next = _button("classify.next", self._on_next)
        self.probe = _button("classify.probe", self._on_probe)
        self.extend = _button("classify.extend", self._on_extend)
        rows = QFormLayout()
        for key, control, beside in (
            ("classify.next_count", self.count, self.next),
            ("classify.learn.name", self.name, None),
        ):
            label = QLabel(text(key))
            label.setBuddy(control)
            for part in (label, control):
                part.setToolTip(tip(key))
            control.setAccessibleName(text(key))
            row = QHBoxLayout()
            row.addWidget(control, 1)
            if beside is not None:
                row.addWidget(beside, 2)
            rows.addRow(label, row)
        buttons = QHBoxLayout()
        for button in (self.probe, self.extend):
            buttons.addWidget(button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for shown in (self.title, self.counts, self.why):
            column.addWidget(shown)
        column.addLayout(rows)
        column.addLayout(buttons)
        self.name.textChanged.connect(self._refresh_buttons)
        form.changed.connect(self._refresh_buttons)
        self._slots = {"study": self.refresh, "revision": self.refresh, "job": self._refresh_buttons}
        for name, slot in self._slots.items():
            getattr(session.events, name).connect(slot)
        self.refresh()

    def detach(self) -> None:
        """Stop listening to the session, which lives on."""
        for name, slot in self._slots.items():
            getattr(self._session.events, name).disconnect(slot, missing_ok=True)

    def refresh(self, _event: object = None) -> None:
        """Count the labels."""
        study = self._session.study
        counts = {} if study is None else classifying.label_counts(study)
        palette = {} if study is None else study.palette
        frame = pd.DataFrame({"class": list(counts), "n": list(counts.values())})
        self.counts.fill(frame, [palette.get(name) or describe(name).colour for name in counts])
        self.counts.setVisible(bool(counts))
        self._refresh_buttons()

    def why_not(self, act: str) -> str:
        """Why "next", "probe" or "extend" cannot be done now, in words; empty when it can."""
        session, name = self._session, self.name.text().strip()
        if why := classifying.why_not(session):
            return why
        if act == "next":
            return "" if self._form.encoder_known else text("classify.why.no_embeddings")
        if act == "probe" and (why := classifying.why_not_learn(session)):
            return why
        if act == "extend":
            chosen = self._form.chosen
            if chosen is None or chosen.kind != "atlas":
                return text("classify.why.no_atlas")
            if session.study is None or not classifying.label_counts(session.study):
                return text("classify.why.no_labels")
        if not is_id(name):
            return text("classify.why.name")
        return text("classify.why.taken", name=name) if name in self._form.names() else ""

    def _refresh_buttons(self, _event: object = None) -> None:
        """Let be pressed what can be, and say why not otherwise."""
        for act, button in (("next", self.next), ("probe", self.probe), ("extend", self.extend)):
            why = self.why_not(act)
            button.setEnabled(not why)
            button.setToolTip(why or tip(f"classify.{act}"))
        closed = classifying.why_not(self._session)  # which stands beside the start button already
        why = "" if closed else self.why_not("probe")
        self.why.setText(why)
        self.why.setVisible(bool(why))

    def _on_next(self) -> None:
        """Offer the next cells."""
        classifying.start_next(self._session, self.count.value())

    def _on_probe(self) -> None:
        """Train a probe."""
        name = self.name.text().strip()
        classifying.start_probe(self._session, name, self._made(name))

    def _on_extend(self) -> None:
        """Make a larger atlas."""
        name, chosen = self.name.text().strip(), self._form.chosen
        if chosen is not None:
            classifying.start_extend(self._session, chosen.asked, name, self._made(name))

    def _made(self, name: str) -> Callable[[Path], None]:
        """What to do with the file of a new reference: put it on the list, choose it, say so."""
        session = self._session

        def take(path: Path) -> None:
            self._form.refresh(choose=path)
            self.name.clear()
            session.message = text("classify.learned", name=name)

        shown = while_there(self, take)

        def made(path: Path) -> None:
            session.message = text("classify.learned_only", name=name)
            shown(path)

        return made


def _button(key: str, act: Callable[[], None]) -> QPushButton:
    """A button with its text."""
    button = QPushButton(text(key))
    button.clicked.connect(lambda _on=False: act())
    return button
