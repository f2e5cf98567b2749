"""The form of the run widget: which image, where the study goes, what specimen, how large a pixel is, which encoder."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

from napari.layers import Image
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QWidget,
)

from napari_dinobloom.ui import images, jobs
from napari_dinobloom.ui.texts import text, tip

PIXEL_SIZES_UM = (0.01, 5.0)
"""Pixel sizes that the pipeline takes; anything else is a slip of the pen."""

ENCODERS = ("starter",)
"""Encoders for which an atlas comes along; the first is the one to take."""


class RunForm(QWidget):
    """What the user chooses before a run.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Its image layers are offered.

    Attributes
    ----------
    changed : Signal
        Something was chosen or typed.
    """

    changed = Signal()

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._folder_is_ours = True
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
        self.encoder.addItems(ENCODERS)
        self._lay_out()
        self.image.currentIndexChanged.connect(self.refresh_choice)
        self.folder.textEdited.connect(self._on_folder_edited)
        self.folder.textChanged.connect(self.changed)
        self.pixel.textChanged.connect(self.changed)
        self.browse.clicked.connect(self._on_browse)

    def _lay_out(self) -> None:
        """One row for each choice."""
        rows = QFormLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for key, control, beside in (
            ("run.image", self.image, None),
            ("run.folder", self.folder, self.browse),
            ("run.specimen", self.specimen, None),
            ("run.pixel", self.pixel, QLabel(text("run.pixel.unit"))),
            ("run.encoder", self.encoder, None),
        ):
            label = QLabel(text(key))
            label.setToolTip(tip(key))
            control.setToolTip(tip(key))
            row = QHBoxLayout()
            row.addWidget(control, 1)
            if beside is not None:
                row.addWidget(beside)
            rows.addRow(label, row)

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
        """Why these choices cannot be run, in words; empty when they can."""
        layer, folder, size = self.layer, self.folder.text().strip(), self.pixel.text().strip()
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

    def choose_active(self, _event: object = None) -> None:
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
        self.changed.emit()

    def _on_folder_edited(self) -> None:
        """Keep a folder that the user typed, until it is cleared."""
        self._folder_is_ours = not self.folder.text().strip()

    def _on_browse(self) -> None:
        """Choose the study folder; a new one is named after the image."""
        proposed = self.folder.text() or str(Path.home())
        option = QFileDialog.Option.DontConfirmOverwrite
        pattern = f"*{images.STUDY_SUFFIX}"
        chosen, _ = QFileDialog.getSaveFileName(self, text("run.folder"), proposed, pattern, options=option)
        if chosen:
            self._folder_is_ours = False
            self.folder.setText(chosen)


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
