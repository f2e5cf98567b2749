"""The form of the Segment and crop window: the smear, what finds its cells, and how their pictures are cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.layers import Labels
from qtpy.QtWidgets import QCheckBox, QComboBox, QLineEdit, QWidget

from napari_dinobloom.cells.segmenter import licence_of
from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.io.study import Study
from napari_dinobloom.ui.images import tag
from napari_dinobloom.ui.segment_job import SegmentSettings, why_not_brought
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.smear_form import SmearForm, fill_with_layers, narrow_box, number

SEGMENTERS = ("learned", "cellpose", "labels")
INTERPOLATIONS = ("bilinear", "bicubic", "lanczos")

SEARCHES = ("monolayer", "all")

VIEWS = {"um": ("25", (5.0, 200.0)), "diameters": ("2", (0.5, 20.0))}
"""Units of the field of view: what is proposed in it, and the range that the pipeline takes."""

LABELS_ROW = 4
"""Row of the form that asks for a labels layer; the next one asks for consent to a licence."""


class SegmentForm(SmearForm):
    """What the user chooses before cells are found and cut out.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Its image layers are offered, and its labels layers as cells that are there already.
    """

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(viewer, parent)
        self.segmenter = _choice({value: text(f"segment.segmenter.{value}") for value in SEGMENTERS})
        self.labels = narrow_box()
        self.licence = QCheckBox(text("segment.licence.box"))
        self._accepted = ""
        self.view = QLineEdit(VIEWS["um"][0])
        self.unit = _choice({value: text(f"segment.unit.{value}") for value in VIEWS})
        self.interpolation = _choice({value: text(f"segment.interpolation.{value}") for value in INTERPOLATIONS})
        self.blank = QCheckBox(text("segment.mask.box"))
        self.search = _choice({value: text(f"segment.search.{value}") for value in SEARCHES})
        self.add_row("segment.segmenter", self.segmenter)
        self.add_row("segment.labels", self.labels)
        self.add_row("segment.licence", self.licence)
        self.add_row("segment.view", self.view, self.unit)
        self.add_row("segment.interpolation", self.interpolation)
        self.add_row("segment.mask", self.blank)
        self.add_row("segment.search", self.search)
        self.unit.setToolTip(tip("segment.view"))
        self.segmenter.currentIndexChanged.connect(self._on_segmenter)
        self.unit.currentIndexChanged.connect(self._on_unit)
        self.labels.currentIndexChanged.connect(self.changed)
        self.licence.toggled.connect(self.changed)
        self.view.textChanged.connect(self.changed)
        self.folder.textChanged.connect(self.remember)
        self._on_segmenter()

    @property
    def labels_layer(self) -> Labels | None:
        """The labels layer that is chosen, if it is still there."""
        held = self.labels.currentData()
        layer = held() if held is not None else None
        return layer if layer is not None and layer in self._viewer.layers else None

    def settings(self) -> SegmentSettings:
        """What the form says; call it only when `why_not` has nothing to say."""
        unit = self.unit.currentData()
        view = number(self.view.text().strip(), VIEWS[unit][1])
        labels = self.labels_layer if self.segmenter.currentData() == "labels" else None
        data = None if labels is None else labels.data[0] if labels.multiscale else labels.data
        return SegmentSettings(
            folder=self.study_folder,
            pixel_size_um=self.pixel_size_um,
            segmenter=self.segmenter.currentData(),
            labels=data,
            accept_licence=self._asks_licence() and self.licence.isChecked(),
            crops={f"fov_{unit}": view}
            | {"interpolation": self.interpolation.currentData()}
            | {"mask_neighbours": self.blank.isChecked()},
            search=self.search.currentData(),
        )

    def why_not(self) -> str:
        """Why these choices cannot be run, in words; empty when they can."""
        if why := super().why_not():
            return why
        unit, layer = self.unit.currentData(), self.layer
        ends = VIEWS[unit][1]
        if number(self.view.text().strip(), ends) is None:
            return text("segment.why.view", low=ends[0], high=ends[1], unit=text(f"segment.unit.{unit}"))
        if self.segmenter.currentData() == "labels" and layer is not None:
            return why_not_brought(self.labels_layer, layer)
        if self._asks_licence() and not self.licence.isChecked():
            return text("segment.why.licence")
        return ""

    def _asks_licence(self) -> bool:
        """Whether the segmenter has a licence that was not accepted for this study yet."""
        licence = licence_of(self.segmenter.currentData())
        return bool(licence) and not self._accepted.startswith(licence)

    def refresh_images(self, _event: object = None) -> None:
        """List the layers; each choice stays on its layer."""
        theirs = [layer for layer in self._viewer.layers if isinstance(layer, Labels) and not tag(layer)]
        fill_with_layers(self.labels, theirs)
        super().refresh_images()

    def remember(self) -> None:
        """Show what the study in the chosen folder was made with, so that going on with it changes nothing."""
        self._accepted = ""
        self._offer("")
        self._on_segmenter()
        if not self.folder.text().strip() or not (self.study_folder / "study.json").is_file():
            return
        try:
            known = Study.open(self.study_folder, read_only=True).settings
        except DinoBloomError:
            return  # the run will say what is wrong with it
        self._accepted = str(known.get("accepted_licence", ""))
        self._offer(str(known.get("segmenter", "")))
        for box, key in ((self.segmenter, "segmenter"), (self.interpolation, "interpolation"), (self.search, "search")):
            at = box.findData(known.get(key))
            if at >= 0:
                box.setCurrentIndex(at)
        self._on_segmenter()
        unit = "diameters" if known.get("fov_diameters") else "um"
        if known.get(f"fov_{unit}"):
            self.unit.setCurrentIndex(self.unit.findData(unit))
            self.view.setText(f"{float(known[f'fov_{unit}']):g}")
        self.blank.setChecked(bool(known.get("mask_neighbours", False)))

    def _offer(self, segmenter: str) -> None:
        """Offer the place of marked cells that a study was made with, too; that of another study goes."""
        if self.segmenter.currentIndex() >= len(SEGMENTERS):
            self.segmenter.setCurrentIndex(0)
        while self.segmenter.count() > len(SEGMENTERS):
            self.segmenter.removeItem(len(SEGMENTERS))
        if segmenter and segmenter not in SEGMENTERS and (self.study_folder / segmenter).exists():
            self.segmenter.addItem(text("segment.segmenter.kept", name=Path(segmenter).name), segmenter)

    def _on_segmenter(self) -> None:
        """Ask for a labels layer only when cells come from one, and for consent only when there is a licence."""
        self.rows.setRowVisible(LABELS_ROW, self.segmenter.currentData() == "labels")
        self.rows.setRowVisible(LABELS_ROW + 1, self._asks_licence())
        self.changed.emit()

    def _on_unit(self) -> None:
        """Propose the usual field of view in the unit that was chosen."""
        self.view.setText(VIEWS[self.unit.currentData()][0])
        self.changed.emit()


def _choice(titles: dict[str, str]) -> QComboBox:
    """A box that offers values under their titles."""
    box = QComboBox()
    for value, title in titles.items():
        box.addItem(title, value)
    return box
