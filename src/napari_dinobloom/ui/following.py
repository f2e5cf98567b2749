"""Viewer and session together: the camera follows the focus, cells have the colours of the map, studies open."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Labels
from napari.utils.notifications import show_warning
from qtpy.QtCore import QTimer

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.io.celltable import split_cell_id
from napari_dinobloom.ui import layers
from napari_dinobloom.ui.cell_rows import cell_rows
from napari_dinobloom.ui.gating import gating_of
from napari_dinobloom.ui.images import tag
from napari_dinobloom.ui.map import colouring
from napari_dinobloom.ui.opening import open_shown
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text
from napari_dinobloom.ui.view_state import ViewKeeper

MIDDLE = 0.8
"""Share of the view within which a cell is in sight enough for the camera to stay where it is."""
FLASHES = (0.1, 1.0, 0.1, 1.0, 0.1)
"""Opacities of the outline of a cell that came into focus, before the usual one."""
FLASH = 110
"""Milliseconds of each."""

_FOLLOWERS: WeakKeyDictionary[Any, Follower] = WeakKeyDictionary()


class Follower:
    """Keeps the viewer's image with the session; one for each viewer, see `of`.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Its camera moves, its cell layers get other colours; the zoom stays.
    session : Session
        Its focus, colours and gates are followed.
    """

    def __init__(self, viewer: Any, session: Session) -> None:
        self._viewer, self._session = viewer, session
        self._gating = gating_of(session)
        self._users = 1
        self._plain = True
        self._left: list[float] = []
        self._timer = QTimer()
        self._timer.setInterval(FLASH)
        self._timer.timeout.connect(self._flash)
        events = session.events
        self._slots = {
            "study": self._on_study,
            "focus": self._on_focus,
            "colour_by": self.recolour,
            "gates_revision": self._on_gates,
            "revision": self._on_revision,
        }
        for name, slot in self._slots.items():
            getattr(events, name).connect(slot)
        viewer.layers.events.inserted.connect(self._on_layer)
        self._unreadable = ""
        self._keeper = ViewKeeper(viewer, session)
        for layer in viewer.layers:
            self._take_in(layer)
        self._on_study()

    @classmethod
    def of(cls, viewer: Any, session: Session) -> Follower:
        """Return the one follower of `viewer`, made on first use; every user detaches it once."""
        key = getattr(viewer, "__wrapped__", viewer)
        found = _FOLLOWERS.get(key)
        if found is None:
            found = _FOLLOWERS[key] = cls(viewer, session)
        else:
            found._users += 1
        return found

    def detach(self) -> None:
        """Stop following, when the last user does so."""
        self._users -= 1
        if self._users > 0:
            return
        _FOLLOWERS.pop(getattr(self._viewer, "__wrapped__", self._viewer), None)
        self._keeper.detach()
        with suppress(RuntimeError):  # at the end of the program Qt may have taken the timer away already
            self._timer.stop()
        for name, slot in self._slots.items():
            getattr(self._session.events, name).disconnect(slot, missing_ok=True)
        self._viewer.layers.events.inserted.disconnect(self._on_layer)

    def open_cell(self, cell_id: str) -> None:
        """Select a cell and go to it; its field is opened where no layer shows it."""
        study = self._session.study
        if study is None:
            return
        if self._shown(cell_id) is None:
            from napari_dinobloom.ui.reader import field_layers

            try:
                built = field_layers(study, split_cell_id(cell_id)[0])
            except DinoBloomError as error:
                show_warning(str(error))
                return
            for data, meta, kind in built:
                getattr(self._viewer, f"add_{kind}")(data, **meta)
        if self._session.selected == (cell_id,):
            self._session.select()  # so that it is outlined in a layer that has just come
        self._session.select(cell_id)
        self._go_to(cell_id, always=True)

    def _shown(self, cell_id: str) -> tuple[Labels, int] | None:
        return layers.shown(self._viewer.layers, cell_id)

    def _on_focus(self, cell_id: str) -> None:
        if cell_id:
            self._go_to(cell_id)

    def _go_to(self, cell_id: str, *, always: bool = False) -> None:
        """Move the camera to a cell, unless it is well in sight, and let its outline flash."""
        found = self._shown(cell_id)
        if found is None:
            return
        layer, value = found
        y0, x0, y1, x1 = tag(layer)["boxes"][value]
        place = [(y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2]
        if layer.ndim == 3:
            place.insert(0, tag(layer)["fields"].index(split_cell_id(cell_id)[0]))
        world = np.asarray(layer.data_to_world(place))
        dims, camera = self._viewer.dims, self._viewer.scene.camera
        first = dims.ndim - layer.ndim
        for axis in dims.not_displayed:
            if axis >= first:
                dims.set_point(axis, world[axis - first])
        centre = np.array(camera.center, dtype=float)
        shown = list(dims.displayed)[-2:]
        to = np.array([world[axis - first] for axis in shown])
        half = np.array(self._viewer.canvas.size, dtype=float) / 2 / camera.zoom
        if always or (np.abs(to - centre[-2:]) > MIDDLE * half).any():
            camera.center = (*centre[:-2], *to)
        self._left = list(FLASHES)
        self._timer.start()

    def _flash(self) -> None:
        """Show the outlines of the selected cells with the next opacity."""
        opacity = self._left.pop(0) if self._left else 0.9
        for layer in self._viewer.layers:
            if tag(layer).get("role") == "selected":
                layer.opacity = opacity
        if opacity == 0.9:
            self._timer.stop()

    def _on_gates(self, _event: object = None) -> None:
        if self._session.colour_by == colouring.GATE:
            self.recolour()

    def _on_layer(self, event: Any) -> None:
        """A layer came: one of ours is made ready, and its study opened."""
        layer = event.value
        if "study" not in tag(layer):
            return
        self._take_in(layer)
        if tag(layer)["study"] != self._unreadable:
            self._open(tag(layer)["study"], say=tag(layer).get("role") == "cells")
        if self._session.colour_by != colouring.CLASS:
            self.recolour()

    def _open(self, folder: str, *, say: bool) -> None:
        """Open the study of a layer that came, or say that something else is under way."""
        session = self._session
        job, there = session.job, session.study is not None and folder == str(session.study.path)
        if job is None:
            open_shown(self._viewer, session, self._on_refused, folder)
        elif say and not there and job.title != text("job.open"):
            show_warning(text("job.refused", job=job.title, title=text("job.open")))

    def _on_refused(self, folder: str) -> None:
        """A study could not be opened, which was said: it is not tried again with its next layer."""
        self._unreadable = folder

    @staticmethod
    def _take_in(layer: Any) -> None:
        """Show the cells of a layer that a reader opened as outlines."""
        if tag(layer).get("role") == "cells" and layer.contour == 0:
            layers.outlined(layer)

    def _on_study(self, _event: object = None) -> None:
        """Another study is open; one is opened where there is none."""
        if self._session.study is None:
            open_shown(self._viewer, self._session, self._on_refused)
        self._on_revision()

    def _on_revision(self, _event: object = None) -> None:
        """Cells are new; they have the colours of their classes."""
        if self._session.colour_by != colouring.CLASS:
            self.recolour()

    def recolour(self, _event: object = None) -> None:
        """Give the cells of all cell layers of the study the colours that they have on the map."""
        study, by = self._session.study, self._session.colour_by
        plain = by in (colouring.CLASS, colouring.DENSITY)
        if study is None or (plain and self._plain):
            return
        self._plain = plain
        table = self._gating.table
        found = None
        if not plain:
            found = colouring.coloured(by, table, study.palette, self._gating.tree, self._gating.masks())
        for layer in self._viewer.layers:
            mark = tag(layer)
            if mark.get("role") != "cells" or mark.get("study") != str(study.path):
                continue
            if found is None:
                rows = cell_rows(study, mark["fields"], study.specimen)
                layers.recolour(layer, rows.names, study.palette)
                continue
            at = table.index.get_indexer(layer.features["cell_id"].to_numpy(dtype=object))
            codes = found.codes[np.maximum(at, 0)]
            palette = {f"#{code}": colouring.hexed(rgba) for code, rgba in enumerate(found.table)}
            layers.recolour(layer, np.array([f"#{code}" for code in codes.tolist()]), palette)
