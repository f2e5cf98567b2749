"""The first widget: find, name and count the white cells of the smear that is open."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
from napari.layers import Image
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_dinobloom.ui import images, jobs
from napari_dinobloom.ui.picking import Picker
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.texts import step_title, text, tip
from napari_dinobloom.ui.widgets.result_panel import ResultPanel

Connections = list[tuple[Any, Callable[..., None]]]

PIXEL_SIZES_UM = (0.01, 5.0)
"""Pixel sizes that a microscope can have; anything else is a slip of the pen."""


class RunWidget(QWidget):
    """Form, run and cancel, status, and what was found.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Given by napari (a proxy); all state lies in its session.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = napari_viewer
        self._session = session_of(napari_viewer)
        self._picker = Picker(napari_viewer, self._session)
        self._folder_is_ours = True
        self._build()
        self._connections = self._listen()
        self.destroyed.connect(_Detach(self._connections, self._picker, self.results))
        self.refresh_images()
        self.refresh_job()

    # The form.

    def _build(self) -> None:
        """Make all parts and lay them out."""
        self.image = QComboBox()
        # A long layer name must not widen the dock.
        self.image.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.folder = QLineEdit()
        self.browse = QPushButton(text("run.browse"))
        self.browse.setToolTip(tip("run.browse"))
        self.specimen = QComboBox()
        for value in ("blood", "marrow"):
            self.specimen.addItem(text(f"run.specimen.{value}"), value)
        self.pixel = QLineEdit()
        self.encoder = QComboBox()
        self.encoder.addItems(encoder_names())
        self.start = QPushButton(text("run.start"))
        self.cancel = QPushButton(text("run.cancel"))
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(6)
        self.disclaimer = QLabel(text("disclaimer"))
        self.disclaimer.setStyleSheet("font-weight: bold")
        self.results = ResultPanel(self._session, self._picker)

        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        place = QHBoxLayout()
        place.addWidget(self.folder)
        place.addWidget(self.browse)
        pixel = QHBoxLayout()
        pixel.addWidget(self.pixel)
        pixel.addWidget(QLabel(text("run.pixel.unit")))
        for key, field in (
            ("run.image", self.image),
            ("run.folder", place),
            ("run.specimen", self.specimen),
            ("run.pixel", pixel),
            ("run.encoder", self.encoder),
        ):
            label = QLabel(text(key))
            label.setToolTip(tip(key))
            form.addRow(label, field)
        for key, control in (
            ("run.image", self.image),
            ("run.folder", self.folder),
            ("run.specimen", self.specimen),
            ("run.pixel", self.pixel),
            ("run.encoder", self.encoder),
        ):
            control.setToolTip(tip(key))
        buttons = QHBoxLayout()
        buttons.addWidget(self.start, 2)
        buttons.addWidget(self.cancel, 1)

        inner = QWidget()
        column = QVBoxLayout(inner)
        column.addLayout(form)
        column.addLayout(buttons)
        column.addWidget(self.status)
        column.addWidget(self.bar)
        column.addWidget(self.results)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setWidget(inner)
        self.disclaimer.setContentsMargins(*column.getContentsMargins())
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scroll, 1)
        layout.addWidget(self.disclaimer)
        self.setMinimumWidth(330)

    def _listen(self) -> Connections:
        """Connect controls, viewer and session; return the connections that outlive the widget."""
        self.image.currentIndexChanged.connect(self.refresh_choice)
        self.folder.textEdited.connect(self._on_folder_edited)
        self.folder.textChanged.connect(self.refresh_buttons)
        self.pixel.textChanged.connect(self.refresh_buttons)
        self.browse.clicked.connect(self._on_browse)
        self.start.clicked.connect(self._on_start)
        self.cancel.clicked.connect(self._on_cancel)
        here, there = self._session.events, self._viewer.layers.events
        connections: Connections = [
            (there.inserted, self.refresh_images),
            (there.removed, self.refresh_images),
            (there.renamed, self.refresh_images),
            (self._viewer.layers.selection.events.active, self._on_active),
            (here.job, self.refresh_job),
            (here.progress, self.refresh_status),
            (here.message, self.refresh_status),
        ]
        for emitter, slot in connections:
            emitter.connect(slot)
        return connections

    # What is chosen.

    @property
    def layer(self) -> Image | None:
        """The image layer that is chosen, if it is still there."""
        held = self.image.currentData()
        layer = held() if held is not None else None
        return layer if layer is not None and layer in self._viewer.layers else None

    def settings(self) -> jobs.SmearSettings:
        """What the form says; call it only when `why_not` has nothing to say."""
        layer, size = self.layer, self.pixel.text().strip()
        from_layer = images.pixel_size_um(layer) if layer is not None else None
        return jobs.SmearSettings(
            folder=Path(self.folder.text().strip()).expanduser().absolute(),
            specimen=self.specimen.currentData(),
            pixel_size_um=_number(size) if size else from_layer,
            encoder=self.encoder.currentText(),
        )

    def why_not(self) -> str:
        """Why a run cannot start now, in words; empty when it can."""
        layer, folder = self.layer, self.folder.text().strip()
        size = self.pixel.text().strip()
        if self._session.job is not None:
            return text("run.why.busy", job=self._session.job.title)
        if layer is None:
            return text("run.why.no_image")
        if why := images.why_unusable(layer):
            return why
        if not folder:
            return text("run.why.no_folder")
        path = Path(folder).expanduser()
        if path.exists() and not (path / "study.json").is_file() and not _empty_folder(path):
            return text("run.why.not_a_study", folder=path.name)
        if size and _number(size) is None:
            return text("run.why.pixel")
        return ""

    # Keeping up with viewer and session.

    def refresh_images(self, _event: object = None) -> None:
        """List the image layers; the choice stays on its layer."""
        chosen = self.layer
        self.image.blockSignals(True)
        self.image.clear()
        for layer in self._viewer.layers:
            if isinstance(layer, Image):
                layer = getattr(layer, "__wrapped__", layer)
                self.image.addItem(layer.name, weakref.ref(layer))
                if layer is chosen:
                    self.image.setCurrentIndex(self.image.count() - 1)
        self.image.blockSignals(False)
        self.refresh_choice()

    def _on_active(self, _event: object = None) -> None:
        """Choose the image that the user made active in the layer list."""
        active = self._viewer.layers.selection.active
        for at in range(self.image.count()):
            if active is not None and self.image.itemData(at)() is getattr(active, "__wrapped__", active):
                self.image.setCurrentIndex(at)

    def refresh_choice(self) -> None:
        """Propose folder and pixel size for the chosen image."""
        layer = self.layer
        usable = layer is not None and not images.why_unusable(layer)
        size = images.pixel_size_um(layer) if layer is not None and usable else None
        self.pixel.setPlaceholderText(
            text("run.pixel.automatic") if size is None else text("run.pixel.from_layer", size=size)
        )
        if self._folder_is_ours:
            proposed = str(images.smear_image(layer).default_folder()) if layer is not None and usable else ""
            self.folder.setText(proposed)
            self.folder.setCursorPosition(len(proposed))
        self.refresh_buttons()

    def refresh_job(self) -> None:
        """Show whether something is under way."""
        self.refresh_buttons()
        self.refresh_status()

    def refresh_buttons(self) -> None:
        """Let Run and Cancel be pressed when that makes sense, and say why not otherwise."""
        why, busy = self.why_not(), self._session.job is not None
        self.start.setEnabled(not why)
        self.start.setToolTip(why or tip("run.start"))
        self.cancel.setEnabled(busy)
        self.cancel.setToolTip(tip("run.cancel") if busy else text("run.why.idle"))
        if not busy:
            self.refresh_status()

    def refresh_status(self) -> None:
        """Show the last report of the job; when idle why Run cannot be pressed, else how the last job ended."""
        progress = self._session.progress
        self.bar.setVisible(self._session.job is not None)
        if self._session.job is None:
            self.status.setText(self.why_not() or self._session.message or text("status.ready"))
            return
        if progress is None:
            self.bar.setRange(0, 0)
            self.status.setText(self._session.job.title)
            return
        self.bar.setRange(0, progress.total)
        self.bar.setValue(progress.done)
        key = "status.step" if progress.total else "status.step_bare"
        values = {
            "step": step_title(progress.step),
            "message": progress.message,
            "done": progress.done,
            "total": progress.total,
        }
        self.status.setText(text(key, **values))

    # What the user does.

    def _on_folder_edited(self) -> None:
        """Keep a folder that the user typed, until it is cleared."""
        self._folder_is_ours = not self.folder.text().strip()

    def _on_browse(self) -> None:
        """Choose the study folder; a new one is named after the image."""
        proposed = self.folder.text() or str(Path.home())
        chosen, _ = QFileDialog.getSaveFileName(
            self,
            text("run.folder"),
            proposed,
            f"*{images.STUDY_SUFFIX}",
            options=QFileDialog.Option.DontConfirmOverwrite,
        )
        if chosen:
            self._folder_is_ours = False
            self.folder.setText(chosen)

    def _on_start(self) -> None:
        """Start the run; once more the reasons are asked, since a folder may have come up meanwhile."""
        layer = self.layer
        if layer is None or self.why_not():
            self.refresh_buttons()
            return
        jobs.start_run(self._viewer, self._session, layer, self.settings())

    def _on_cancel(self) -> None:
        """Ask the job to stop."""
        if self._session.job is not None:
            self._session.job.cancel()
            self.cancel.setEnabled(False)
            self.status.setText(text("status.cancelling"))


def encoder_names() -> list[str]:
    """Encoders for which an atlas comes along; the first is the one to take."""
    return ["starter"]


def _number(typed: str) -> float | None:
    """A typed pixel size, with point or comma; None when it is none."""
    try:
        size = float(typed.replace(",", "."))
    except ValueError:
        return None
    return size if PIXEL_SIZES_UM[0] <= size <= PIXEL_SIZES_UM[1] else None


def _empty_folder(path: Path) -> bool:
    """Whether `path` is a folder without anything in it."""
    return path.is_dir() and not any(path.iterdir())


class _Detach:
    """Takes a widget that is gone off the viewer and the session, which live on."""

    def __init__(self, connections: Connections, picker: Picker, results: ResultPanel) -> None:
        self._connections, self._picker, self._results = connections, picker, results

    def __call__(self, _gone: object = None) -> None:
        for emitter, slot in self._connections:
            emitter.disconnect(slot)
        self._results.detach()
        self._picker.detach()
        self._connections.clear()
