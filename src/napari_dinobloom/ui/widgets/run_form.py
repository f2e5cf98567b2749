"""The form of the run widget: the smear, what specimen it is, which encoder."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QComboBox, QWidget

from napari_dinobloom.ui import jobs
from napari_dinobloom.ui.texts import text
from napari_dinobloom.ui.widgets.smear_form import SmearForm

ENCODERS = ("starter",)
"""Encoders for which an atlas comes along; the first is the one to take."""


class RunForm(SmearForm):
    """What the user chooses before a run.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Its image layers are offered.
    """

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(viewer, parent)
        self.specimen = QComboBox()
        for value in ("blood", "marrow"):
            self.specimen.addItem(text(f"run.specimen.{value}"), value)
        self.encoder = QComboBox()
        self.encoder.addItems(ENCODERS)
        self.add_row("run.specimen", self.specimen)
        self.add_row("run.encoder", self.encoder)

    def settings(self) -> jobs.SmearSettings:
        """What the form says; call it only when `why_not` has nothing to say."""
        return jobs.SmearSettings(
            folder=self.study_folder,
            specimen=self.specimen.currentData(),
            pixel_size_um=self.pixel_size_um,
            encoder=self.encoder.currentText(),
        )
