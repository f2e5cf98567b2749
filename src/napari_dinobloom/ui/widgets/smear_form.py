"""What every run on a smear asks for: which image, where the study goes, how large a pixel is."""

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

from napari_dinobloom.ui import images
from napari_dinobloom.ui.texts import text, tip

PIXEL_SIZES_UM = (0.01, 5.0)
"""Pixel sizes that the pipeline takes; anything else is a slip of the pen."""


class SmearForm(QWidget):
    """Image, study folder and pixel size; forms of one kind of run put their own rows below.

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
        self.image = narrow_box()
        self.folder = QLineEdit()
        self.browse = QPushButton(text("run.browse"))
        self.browse.setToolTip(tip("run.browse"))
        self.pixel = QLineEdit()
        self.rows = QFormLayout(self)
        self.rows.setContentsMargins(0, 0, 0, 0)
        self.rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.add_row("run.image", self.image)
        self.add_row("run.folder", self.folder, self.browse)
        self.add_row("run.pixel", self.pixel, QLabel(text("run.pixel.unit")))
        self.image.currentIndexChanged.connect(self.refresh_choice)
        self.folder.textEdited.connect(self._on_folder_edited)
        self.folder.textChanged.connect(self.changed)
        self.pixel.textChanged.connect(self.changed)
        self.browse.clicked.connect(self._on_browse)

    def add_row(self, key: str, control: QWidget, beside: QWidget | None = None) -> None:
        """Put a control, and perhaps a second one beside it, below the others; `key` is that of its label."""
        label = QLabel(text(key))
        label.setToolTip(tip(key))
        control.setToolTip(tip(key))
        row = QHBoxLayout()
        row.addWidget(control, 1)
        if beside is not None:
            row.addWidget(beside)
        self.rows.addRow(label, row)

    @property
    def layer(self) -> Image | None:
        """The image layer that is chosen, if it is still there."""
        held = self.image.currentData()
        layer = held() if held is not None else None
        return layer if layer is not None and layer in self._viewer.layers else None

    @property
    def study_folder(self) -> Path:
        """The study folder that is named; call it only when `why_not` has nothing to say."""
        return Path(self.folder.text().strip()).expanduser().absolute()

    @property
    def pixel_size_um(self) -> float | None:
        """Micrometres per pixel as typed, else as the layer says; None leaves it to the file or the red cells."""
        layer, size = self.layer, self.pixel.text().strip()
        if size:
            return number(size, PIXEL_SIZES_UM)
        return images.pixel_size_um(layer) if layer is not None else None

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
        if size and number(size, PIXEL_SIZES_UM) is None:
            return text("run.why.pixel")
        return ""

    def refresh_images(self, _event: object = None) -> None:
        """List the image layers; the choice stays on its layer."""
        fill_with_layers(self.image, [layer for layer in self._viewer.layers if isinstance(layer, Image)])
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


def narrow_box() -> QComboBox:
    """A box for layer names: a long one must not widen the dock."""
    box = QComboBox()
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    return box


def fill_with_layers(box: QComboBox, layers: list[Any]) -> None:
    """Offer `layers` by name in `box`, held weakly; the choice stays on its layer, and no signal is sent."""
    held = box.currentData()
    chosen = held() if held is not None else None
    box.blockSignals(True)
    box.clear()
    for layer in layers:
        layer = getattr(layer, "__wrapped__", layer)
        box.addItem(layer.name, weakref.ref(layer))
        if layer is chosen:
            box.setCurrentIndex(box.count() - 1)
    box.blockSignals(False)


def number(typed: str, ends: tuple[float, float]) -> float | None:
    """A typed number, with point or comma; None when it is none or lies outside `ends`."""
    try:
        value = float(typed.replace(",", "."))
    except ValueError:
        return None
    return value if ends[0] <= value <= ends[1] else None


def _empty_folder(path: Path) -> bool:
    """Whether `path` is a folder without anything in it."""
    return path.is_dir() and not any(path.iterdir())
