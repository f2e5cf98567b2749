"""The form of the Embed window: which encoder describes the cells, on what, and how."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.ui import embedding
from napari_dinobloom.ui.embedding import Choice
from napari_dinobloom.ui.preferences import apply
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.column import while_there
from napari_dinobloom.ui.widgets.smear_form import narrow_box

VALUES = {
    "device": ("auto", "cpu", "cuda", "mps"),
    "precision": ("auto", "float32", "bf16"),
    "pooling": ("own", "class", "class+mean"),
}
GIGA = 1e9


class EmbedForm(QWidget):
    """Encoder with its terms and state, device, number format, pooling and memory.

    Parameters
    ----------
    session : Session
        Its study says with what it was embedded; the encoders are listed anew when a job ends.

    Attributes
    ----------
    changed : Signal
        Something was chosen.
    """

    changed = Signal()

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._files: tuple[str, ...] = ()
        self._choices: list[Choice] = []
        self._problem = ""
        self.encoder = narrow_box()
        self.about = QLabel()
        self.about.setWordWrap(True)
        self.about.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.about.setTextFormat(Qt.TextFormat.PlainText)
        self.terms = QCheckBox(text("embed.terms"))
        self.fetch = QPushButton(text("embed.fetch"))
        self.browse = QPushButton(text("embed.browse"))
        self.browse.setToolTip(tip("embed.browse"))
        self.boxes: dict[str, QComboBox] = {}
        for name, values in VALUES.items():
            self.boxes[name] = narrow_box()
            for value in values:
                self.boxes[name].addItem(text(f"embed.{name}.{value}"), value)
        self.boxes["device"].setEditable(True)
        self.memory = QDoubleSpinBox()
        self.memory.setRange(0, 4096)
        self.memory.setSuffix(" GiB")
        self.memory.setSpecialValueText(text("embed.memory.none"))
        self._lay_out()
        self.encoder.currentIndexChanged.connect(self.refresh)
        self.terms.toggled.connect(self.refresh)
        for box in self.boxes.values():
            box.currentTextChanged.connect(self.changed)
        self.fetch.clicked.connect(self._on_fetch)
        self.browse.clicked.connect(self._on_browse)
        session.events.study.connect(self.take_over)
        session.events.job.connect(self.list_encoders)
        self.list_encoders()
        self.take_over()

    def detach(self) -> None:
        """Stop listening to the session, which lives on."""
        self._session.events.study.disconnect(self.take_over, missing_ok=True)
        self._session.events.job.disconnect(self.list_encoders, missing_ok=True)

    def _lay_out(self) -> None:
        below = QHBoxLayout()
        below.addWidget(self.fetch)
        below.addWidget(self.browse)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(_form({"encoder": self.encoder}))
        column.addWidget(self.about)  # outside of the form, which would cut lines off
        column.addWidget(self.terms)
        column.addLayout(below)
        column.addLayout(_form({**self.boxes, "memory": self.memory}))

    @property
    def choice(self) -> Choice | None:
        """The encoder that is chosen."""
        at = self.encoder.currentIndex()
        return self._choices[at] if 0 <= at < len(self._choices) else None

    def settings(self) -> dict[str, Any]:
        """What the form says beside the encoder; call it only when `why_not` has nothing to say."""
        device = self.boxes["device"]
        found = device.findText(device.currentText())
        chosen = {name: box.currentData() for name, box in self.boxes.items() if name != "device"}
        chosen["device"] = device.itemData(found) if found >= 0 else device.currentText().strip()
        return {**chosen, "max_memory_gib": self.memory.value()}

    def why_not(self) -> str:
        """Why these choices cannot be used now, in words; empty when they can."""
        if self._problem:
            return self._problem
        if why := embedding.why_not(self._session, self.choice, self.terms.isChecked()):
            return why
        from napari_dinobloom.pipeline.settings import RunSettings

        try:
            RunSettings(**self.settings())
        except DinoBloomError as error:
            return str(error)
        return ""

    def list_encoders(self) -> None:
        """List the encoders anew; the choice stays."""
        if self._session.job is not None:
            self.refresh()
            return
        apply()  # the cache folder may be another one
        chosen = self.choice
        try:
            self._choices, self._problem = embedding.choices(self._files), ""
        except DinoBloomError as error:
            self._choices, self._problem = [], str(error)
        with QSignalBlocker(self.encoder):
            self.encoder.clear()
            for one in self._choices:
                state = text(f"embed.state.{one.state}")
                self.encoder.addItem(text("embed.item", name=Path(one.name).name, state=state), one.name)
        self._choose(chosen.name if chosen is not None else "starter")
        self.refresh()

    def take_over(self) -> None:
        """Show with what the study was embedded last; for one that was not yet, what the preferences propose."""
        proposed, study = apply(), self._session.study
        used = study.settings if study is not None else {}
        self._choose(str(used.get("encoder") or proposed.encoder))
        for name, box in self.boxes.items():
            value = str(used.get(name) or (proposed.device if name == "device" else VALUES[name][0]))
            at = box.findData(value)
            box.setCurrentIndex(at)
            if at < 0:
                box.setCurrentText(value)
        self.memory.setValue(float(used.get("max_memory_gib") or 0))
        self.refresh()

    def _choose(self, name: str) -> None:
        """Choose an encoder; a file that is not on the list is put there, and so is one that is listed no more."""
        if self._problem:
            return
        is_file = Path(name).is_absolute()
        known = [one.name if is_file else one.name.lower() for one in self._choices]
        wanted = name if is_file else name.lower()
        if wanted not in known:
            self._files = (*self._files, name) if is_file else self._files
            self._choices.append(Choice(name, "file" if is_file and Path(name).is_file() else "absent"))
            state = text(f"embed.state.{self._choices[-1].state}")
            self.encoder.addItem(text("embed.item", name=Path(name).name, state=state), name)
            known.append(wanted)
        self.encoder.setCurrentIndex(known.index(wanted))

    def refresh(self) -> None:
        """Show what is to be known of the encoder, and whether it can be fetched."""
        choice = self.choice
        self.about.setText(self._problem or ("" if choice is None else about(choice)))
        open_terms = choice is not None and not choice.accepted
        self.terms.setVisible(open_terms)
        self.terms.setToolTip(choice.spec.terms if open_terms and choice and choice.spec else "")
        why = embedding.why_not_fetch(self._session, choice, self.terms.isChecked())
        self.fetch.setEnabled(not why)
        self.fetch.setToolTip(why or tip("embed.fetch"))
        self.changed.emit()

    def _on_fetch(self) -> None:
        """Download the weights of the chosen encoder."""
        if self.choice is not None:
            listed = while_there(self, lambda _: self.list_encoders())
            embedding.start_fetch(self._session, self.choice, lambda: listed(None))

    def _on_browse(self) -> None:
        """Ask for a file of weights, and choose it."""
        chosen, _ = QFileDialog.getOpenFileName(self, text("embed.browse"), str(Path.home()), text("embed.filter"))
        if chosen:
            self._choose(str(Path(chosen).absolute()))
            self.refresh()


def _form(rows: Mapping[str, QWidget]) -> QFormLayout:
    """Controls below each other, each with its label and tooltip."""
    form = QFormLayout()
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    for name, control in rows.items():
        label = QLabel(text(f"embed.{name}"))
        for part in (label, control):
            part.setToolTip(tip(f"embed.{name}"))
        form.addRow(label, control)
    return form


def about(choice: Choice) -> str:
    """Size, licence and state of an encoder, and what else there is to know."""
    spec = choice.spec
    if spec is None:
        return text("embed.about_file", path=choice.name) if choice.here else text("embed.why.gone", name=choice.name)
    size = text("embed.size", size=choice.has_size / GIGA) if choice.has_size else text("embed.size_unknown")
    if choice.state == "bundled":
        size = text("embed.size_none")
    lines = [
        text("embed.about", dim=spec.dim, parameters=spec.parameters / 1e6, size=size),
        text("embed.licence", licence=spec.licence),
    ]
    tokens = "" if spec.patch_size else text("embed.no_patches")
    gated = text("embed.gated") if spec.gated else ""
    terms = spec.terms if not choice.accepted else ""
    return "\n".join([*lines, *filter(None, (tokens, gated, terms, choice.problem or spec.note))])
