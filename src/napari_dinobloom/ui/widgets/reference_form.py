"""The form of the Classify window: which reference names the cells, and how its cells vote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.utils.notifications import show_warning
from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QFileDialog, QFormLayout, QHBoxLayout, QLabel, QPushButton, QSpinBox, QWidget

from napari_dinobloom.predict.shelf import is_file
from napari_dinobloom.ui.explaining import Answer, Asked, explainer_of
from napari_dinobloom.ui.gallery.bars import narrow_combo
from napari_dinobloom.ui.lookup import Lookup
from napari_dinobloom.ui.references import Reference, described, last_used, offered
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text, tip

MOST_NEIGHBOURS = 1000


class ReferenceForm(QWidget):
    """Encoder of the study, reference, neighbours, distance and votes.

    Parameters
    ----------
    session : Session
        Its study says which references fit; they are listed anew when a job ends.

    Attributes
    ----------
    changed : Signal
        Something was chosen.
    """

    changed = Signal()

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._files: list[Path] = []
        self.lookup = Lookup(explainer_of(session).answer, self)
        self.lookup.found.connect(self._show_limits)
        self.encoder = QLabel()
        self.encoder.setTextFormat(Qt.TextFormat.PlainText)
        self.encoder.setWordWrap(True)
        self.reference = narrow_combo("classify.reference")
        self.browse = QPushButton(text("classify.browse"))
        self.browse.setToolTip(tip("classify.browse"))
        self.k = QSpinBox()
        self.k.setRange(0, MOST_NEIGHBOURS)
        self.k.setSpecialValueText(text("classify.own"))
        self.distance, self.weights = narrow_combo("classify.metric"), narrow_combo("classify.weights")
        for box, values in ((self.distance, ("euclidean", "cosine")), (self.weights, ("uniform", "distance"))):
            key = "classify.metric" if box is self.distance else "classify.weights"
            box.addItem(text("classify.own"), "own")
            for value in values:
                box.addItem(text(f"{key}.{value}"), value)
        self.note = QLabel()
        self.note.setWordWrap(True)
        self.note.setTextFormat(Qt.TextFormat.PlainText)
        rows = QFormLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self._add(rows, "classify.encoder", self.encoder)
        self._add(rows, "classify.reference", self.reference, self.browse)
        self._add(rows, "classify.k", self.k)
        self._add(rows, "classify.metric", self.distance)
        self._add(rows, "classify.weights", self.weights)
        rows.addRow(self.note)
        self.reference.currentIndexChanged.connect(self._on_reference)
        self.browse.clicked.connect(self._ask_file)
        for signal in (self.k.valueChanged, self.distance.currentIndexChanged, self.weights.currentIndexChanged):
            signal.connect(self._on_changed)
        session.events.study.connect(self.take_over)
        session.events.job.connect(self._on_job)
        self.take_over()

    def detach(self) -> None:
        """Stop listening to the session, which lives on."""
        self._session.events.study.disconnect(self.take_over, missing_ok=True)
        self._session.events.job.disconnect(self._on_job, missing_ok=True)

    @staticmethod
    def _add(rows: QFormLayout, key: str, control: QWidget, beside: QWidget | None = None) -> None:
        label = QLabel(text(key))
        label.setToolTip(tip(key))
        label.setBuddy(control)
        control.setToolTip(tip(key))
        control.setAccessibleName(text(key))
        row = QHBoxLayout()
        row.addWidget(control, 1)
        if beside is not None:
            row.addWidget(beside)
        rows.addRow(label, row)

    @property
    def encoder_known(self) -> bool:
        """Whether the cells of the study have embeddings."""
        return bool(described(self._session.study))

    @property
    def chosen(self) -> Reference | None:
        """The reference that is chosen; None where none fits."""
        found = self.reference.currentData()
        return found if isinstance(found, Reference) and not found.why else None

    def settings(self) -> dict[str, Any]:
        """Settings of a run as the form says, see `RunSettings`; nothing where no reference fits."""
        if self.chosen is None:
            return {}
        probe = self.chosen.kind == "probe"
        return {
            "atlas": self.chosen.asked,
            "knn_k": 0 if probe else self.k.value(),
            "knn_metric": "own" if probe else self.distance.currentData(),
            "knn_weights": "own" if probe else self.weights.currentData(),
        }

    def why_not(self) -> str:
        """Why nothing can be named by this choice, in words; empty when it can."""
        return "" if self.chosen is not None else text("classify.why.no_reference")

    def names(self) -> set[str]:
        """Names of all references on the list."""
        return {self.reference.itemData(at).name for at in range(self.reference.count())}

    def take_over(self, _event: object = None) -> None:
        """Show how the cells of the study were named last."""
        study = self._session.study
        used = {} if study is None else study.settings
        for box, name in ((self.distance, "knn_metric"), (self.weights, "knn_weights")):
            with QSignalBlocker(box):
                box.setCurrentIndex(max(box.findData(used.get(name)), 0))
        with QSignalBlocker(self.k):
            self.k.setValue(int(used.get("knn_k") or 0))
        last = "" if study is None else last_used(study)
        if isinstance(last, str) and is_file(last):
            self._files = [*dict.fromkeys((*self._files, Path(last)))]
        with QSignalBlocker(self.reference):
            self.reference.setCurrentIndex(-1)  # the choice was for the study before
        self.refresh()

    def refresh(self, _event: object = None, *, choose: Path | None = None) -> None:
        """List the references for the study that is open; the choice stays, unless `choose` is the file of another."""
        study, before = self._session.study, self.chosen
        self.encoder.setText(described(study) or text("classify.encoder.none"))
        found = offered(study, self._files)
        with QSignalBlocker(self.reference):
            self.reference.clear()
            for at, one in enumerate(found):
                self.reference.addItem(one.title, one)
                self.reference.setItemData(at, one.why or one.title, Qt.ItemDataRole.ToolTipRole)
                item = self.reference.model().item(at)  # type: ignore[union-attr]
                item.setEnabled(not one.why)
            self.reference.setCurrentIndex(self._place(found, before.path if before is not None else None, choose))
        self._on_reference()

    def _place(self, found: list[Reference], before: Path | None, choose: Path | None) -> int:
        """Line to be chosen: what is asked for, that of before, that of the study's last run, else the first."""
        study = self._session.study
        last = last_used(study) if study is not None else ""
        fits = [at for at, one in enumerate(found) if not one.why]
        for wanted in (choose, before, last):
            for at in fits:
                if wanted and wanted in (found[at].path, found[at].asked):
                    return at
        return fits[0] if fits else -1

    def _on_reference(self, _event: object = None) -> None:
        """Another reference is chosen: a probe has no neighbours."""
        probe = self.chosen is not None and self.chosen.kind == "probe"
        keys: dict[str, QWidget] = {
            "classify.k": self.k,
            "classify.metric": self.distance,
            "classify.weights": self.weights,
        }
        for key, control in keys.items():
            control.setEnabled(self.chosen is not None and not probe)
            control.setToolTip(text("classify.why.probe") if probe else tip(key))
        self._on_changed()

    def _on_job(self, job: object) -> None:
        """A job has ended: it may have made references, or embedded the cells."""
        if job is None:
            self.refresh()

    def _on_changed(self, _event: object = None) -> None:
        """Something was chosen: its limits are read in a second thread."""
        study, settings = self._session.study, self.settings()
        self.note.setText("")
        self.lookup.ask(Asked(study, settings) if study is not None and settings else None)
        self.changed.emit()

    def _show_limits(self, found: Answer) -> None:
        """Say when a cell stays without a name."""
        if found.problem:
            self.note.setText(text("classify.threshold_unread", problem=found.problem))
        elif self.chosen is not None:
            key = "classify.threshold_probe" if self.chosen.kind == "probe" else "classify.threshold"
            self.note.setText(text(key, threshold=found.threshold, limit=found.distance_limit))

    def _ask_file(self) -> None:
        """Put the file of a reference on the list."""
        path, _ = QFileDialog.getOpenFileName(self, text("classify.reference"), "", "safetensors (*.safetensors)")
        if path:
            self.add_file(Path(path))

    def add_file(self, path: Path) -> None:
        """Put a file on the list and choose it; what is no reference, or does not fit, is said and not chosen."""
        self._files = [*dict.fromkeys((*self._files, path))]
        self.refresh(choose=path)
        lines = [self.reference.itemData(at) for at in range(self.reference.count())]
        for one in lines:
            if one.path == path and one.why:
                show_warning(one.title)
