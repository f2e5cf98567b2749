"""The Patches window: what the encoder sees inside cells, in their pictures and on the field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import napari
import numpy as np
import numpy.typing as npt
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QFormLayout, QHBoxLayout, QLabel, QPushButton, QSlider, QWidget

from napari_dinobloom.encoders.similarity import patch_similarity
from napari_dinobloom.ui import overlays
from napari_dinobloom.ui.following import Follower
from napari_dinobloom.ui.picking import Picker
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.column import Column, while_there
from napari_dinobloom.ui.widgets.job_controls import JobControls
from napari_dinobloom.ui.widgets.patches_sheet import PatchesSheet
from napari_dinobloom.ui.widgets.smear_form import narrow_box

if TYPE_CHECKING:
    from napari_dinobloom.pipeline.cell_patches import CellPatches

RULES = ("", "centre", "otsu")


class PatchesWidget(Column):
    """Which cells, which patches count, their pictures, and an overlay on the field.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Given by napari (a proxy); its field gets the overlay, which goes with this window.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer, self._session = napari_viewer, session_of(napari_viewer)
        picker = Picker.of(napari_viewer, self._session)
        follower = Follower.of(napari_viewer, self._session)
        self.found: CellPatches | None = None
        self._study: object = None
        self._taking = False  # what is kept is being chosen
        self.scope, self.rule = narrow_box(), narrow_box()
        for value in ("view", "selected"):
            self.scope.addItem(text(f"patches.scope.{value}"), value)
        for value in RULES:
            self.rule.addItem(text(f"patches.rule.{value or 'all'}"), value)
        self.rule.setCurrentIndex(1)
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.opacity.setValue(60)
        self.on_field = QCheckBox(text("patches.on_field.box"))
        self.on_field.setChecked(True)
        self.job = JobControls(self._session, "patches.start", self.why_not, self._on_start)
        self.buttons = {name: QPushButton(text(f"patches.{name}")) for name in ("colours", "anew")}
        self.note = QLabel()
        self.note.setWordWrap(True)
        self.sheet = PatchesSheet()
        self.add(self._form(), self.job, self._row(), self.note, self.sheet)
        self._connect()
        slots = {
            "choices": self.take_over,
            "study": self._on_study,
            "selected": self.job.refresh_buttons,
            "focus": self._on_focus,
        }
        for name, slot in slots.items():
            getattr(self._session.events, name).connect(slot)
        events = self._session.events
        self.at_the_end(
            self.job.detach,
            picker.detach,
            follower.detach,
            lambda: overlays.remove(napari_viewer),
            *(
                lambda name=name, slot=slot: getattr(events, name).disconnect(slot, missing_ok=True)
                for name, slot in slots.items()
            ),
        )
        self.take_over()
        self._on_study()
        self.job.refresh_job()

    def _form(self) -> QWidget:
        """The choices."""
        place = QWidget()
        form = QFormLayout(place)
        form.setContentsMargins(0, 0, 0, 0)
        rows = {"scope": self.scope, "rule": self.rule, "opacity": self.opacity, "on_field": self.on_field}
        for name, control in rows.items():
            label = QLabel(text(f"patches.{name}"))
            for part in (label, control):
                part.setToolTip(tip(f"patches.{name}"))
            form.addRow(label, control)
        return place

    def _row(self) -> QWidget:
        """The buttons that change what is shown."""
        place = QWidget()
        row = QHBoxLayout(place)
        row.setContentsMargins(0, 0, 0, 0)
        for button in self.buttons.values():
            row.addWidget(button)
        return place

    def _connect(self) -> None:
        self.scope.currentIndexChanged.connect(self.job.refresh_buttons)
        for changed in (self.scope.currentIndexChanged, self.rule.currentIndexChanged, self.on_field.toggled):
            changed.connect(self._keep)
        self.opacity.valueChanged.connect(self._keep)
        self.rule.currentIndexChanged.connect(self._on_rule)
        self.opacity.valueChanged.connect(self._on_opacity)
        self.on_field.toggled.connect(self._show_field)
        self.sheet.picked.connect(self._on_patch)
        self.buttons["colours"].clicked.connect(self._on_colours)
        self.buttons["anew"].clicked.connect(lambda: self._start(self._shown(), anew=True))
        self._session.events.job.connect(self._refresh_buttons)
        self.at_the_end(lambda: self._session.events.job.disconnect(self._refresh_buttons, missing_ok=True))

    def _keep(self) -> None:
        """Keep what is chosen with the study."""
        boxes = {"scope": self.scope.currentData(), "rule": self.rule.currentData()}
        if not self._taking:
            self._session.keep("patches", **boxes, opacity=self.opacity.value(), on_field=self.on_field.isChecked())

    def take_over(self, _event: object = None) -> None:
        """Choose what is kept with the study, as far as there is such a thing."""
        kept = self._session.choices.get("patches", {})
        self._taking = True
        try:
            for name, box in (("scope", self.scope), ("rule", self.rule)):
                at = box.findData(kept.get(name)) if isinstance(kept.get(name), str) else -1
                box.setCurrentIndex(at if at >= 0 else box.currentIndex())
            if isinstance(opacity := kept.get("opacity"), int):
                self.opacity.setValue(opacity)
            if isinstance(on_field := kept.get("on_field"), bool):
                self.on_field.setChecked(on_field)
        finally:
            self._taking = False

    def why_not(self) -> str:
        """Why no patches can be shown now, in words; empty when they can."""
        study = self._session.study
        if study is None:
            return text("study.why.none")
        if not study.cells.n_obs:
            return text("patches.why.no_cells")
        if self.scope.currentData() == "selected" and not self._session.selected:
            return text("patches.why.select")
        return ""

    def _on_start(self) -> None:
        """Compute the patches of the cells that are asked for."""
        chosen = list(self._session.selected)
        if self.scope.currentData() == "view":
            chosen = overlays.cells_in_view(self._viewer, self._session)
        if not chosen:
            self.note.setText(text("patches.why.none_in_view"))
            self.note.show()
            return
        self._start(chosen)

    def _start(self, cells: list[str], *, anew: bool = False) -> None:
        if cells:
            self._study = self._session.study
            rule = self.rule.currentData() or None
            asked = {"foreground": rule, "known": self.found, "anew": anew}
            overlays.start_patches(self._session, cells, while_there(self, self._take), **asked)

    def _take(self, found: CellPatches) -> None:
        """Show new patches."""
        self.found = found
        self.sheet.patch = None
        focus = self._session.focus
        self.sheet.current = found.cells.index(focus) if focus in found.cells else 0
        self._show()

    def _shown(self) -> list[str]:
        return [] if self.found is None else list(self.found.cells)

    def values(self, *, field: bool = False) -> npt.NDArray[np.float32]:
        """Colours of the patches as they are shown now, (n, h, w, 3): similarity to a clicked one, else the PCA."""
        if self.found is None:
            return np.zeros((0, 1, 1, 3), np.float32)
        if self.sheet.patch is not None:
            return overlays.heat(patch_similarity(self.found.tokens, *self.sheet.patch))
        return self.found.everywhere if field else self.found.colours

    def _show(self) -> None:
        """Show pictures, overlay and what they are."""
        self.sheet.show_patches(self.found, self.values(), self.opacity.value() / 100)
        self._refresh_buttons()
        self._show_field()

    def _show_field(self) -> None:
        """Lay the colours over the field, or take them away."""
        why = ""
        if self.found is not None and self.on_field.isChecked():
            values, opacity = self.values(field=True), self.opacity.value() / 100
            why = overlays.show_on_fields(self._viewer, self._session, self.found.cells, values, opacity)
        else:
            overlays.remove(self._viewer)
        self._say(why)

    def _say(self, why: str) -> None:
        """Say what the colours are, and what is not shown."""
        if self.found is None:
            self.note.setText(text("patches.help"))
            return
        if self.sheet.patch is not None:
            what = text("patches.similar", cell=self.found.cells[self.sheet.patch[0]])
        else:
            basis = self.found.basis
            shares = ", ".join(f"{100 * share:.0f}\u00a0%" for share in basis.explained)
            what = text("patches.pca", encoder=basis.encoder, cells=basis.cells, shares=shares)
        self.note.setText("\n".join(filter(None, (what, why))))

    def _on_patch(self, cell: int, row: int, column: int) -> None:
        """Show what is like the patch that was clicked; a second click on it goes back to the colours."""
        self.sheet.patch = None if self.sheet.patch == (cell, row, column) else (cell, row, column)
        self._show()

    def _on_colours(self) -> None:
        """Leave the similarity."""
        self.sheet.patch = None
        self._show()

    def _on_rule(self) -> None:
        """Other patches count: the cells that are shown get other colours."""
        self._start(self._shown())

    def _on_opacity(self) -> None:
        """Let more or less of the picture shine through."""
        opacity = self.opacity.value() / 100
        overlays.set_opacity(self._viewer, opacity)
        self.sheet.show_patches(self.found, self.values(), opacity)

    def _on_study(self) -> None:
        """Another study: nothing of the one before is shown."""
        if self._session.study is not self._study:
            self.found, self.sheet.patch = None, None
        self._show()
        self.job.refresh_buttons()

    def _on_focus(self, cell: str) -> None:
        """The cell that is looked at is shown large, if it is among those shown."""
        if self.found is not None and cell in self.found.cells:
            self.sheet.show_current(self.found.cells.index(cell))

    def _refresh_buttons(self) -> None:
        """Say why a button cannot be pressed."""
        job = self._session.job
        busy = text("run.why.busy", job=job.title) if job is not None else ""
        nothing = text("patches.why.nothing") if self.found is None else ""
        read_only = self._session.study is not None and self._session.study.read_only
        whys = {
            "colours": nothing or (text("patches.why.colours") if self.sheet.patch is None else ""),
            "anew": nothing or busy or (text("study.read_only") if read_only else ""),
        }
        for name, button in self.buttons.items():
            button.setEnabled(not whys[name])
            button.setToolTip(whys[name] or tip(f"patches.{name}"))
