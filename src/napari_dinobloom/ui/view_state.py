"""A study comes back as it was left: layers, camera, map, selection, and what the windows were set to.

Every few seconds the viewer is looked at, and what has changed is kept (`napari_dinobloom.io.view`) by a second thread,
so that a process that is killed loses no more than that and a slow disk holds nobody up. Nothing here changes the
study, and none of it can fail it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pandas as pd
from qtpy.QtCore import QTimer

from napari_dinobloom.io.study import Study
from napari_dinobloom.io.view import View, recall_view
from napari_dinobloom.ui.gating import gating_of
from napari_dinobloom.ui.layer_looks import layer_views
from napari_dinobloom.ui.map.colouring import CLASS, DENSITY, GATE
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.view_writer import ViewWriter

EVERY = 3000
"""Milliseconds between two looks."""


class ViewKeeper:
    """Looks at one viewer and keeps the view of its session's study, while it is started.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Its layers, camera and dims are kept.
    session : Session
        Its study, selection and choices are kept.
    """

    def __init__(self, viewer: Any, session: Session) -> None:
        self._viewer, self._session = viewer, session
        self._study: Study | None = None  # that of which the view was restored
        self._kept: View | None = None
        self._seen = View()
        self._ever: set[str] = set()
        self._writer = ViewWriter()
        self._timer = QTimer()
        self._timer.setInterval(EVERY)
        self._timer.timeout.connect(self.keep)
        self._soon = QTimer()  # the layers of a study come just before or just after it
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self.restore)
        self._going = QTimer()  # runs while layers are taken away in one go, as when the viewer closes
        self._going.setSingleShot(True)
        session.events.study.connect(self._on_study)
        session.events.leaving.connect(self.leave)
        viewer.layers.events.removing.connect(self._on_removing)
        self._timer.start()
        if session.study is not None:  # windows of ours come and go while a study is open: it stays as it is
            self._adopt(session.study, recall_view(session.study))

    def detach(self) -> None:
        """Keep the view a last time, and stop."""
        self.leave()
        with suppress(RuntimeError):  # at the end of the program Qt may have taken the timers away already
            self._timer.stop()
            self._soon.stop()
            self._going.stop()
        self._session.events.study.disconnect(self._on_study, missing_ok=True)
        self._session.events.leaving.disconnect(self.leave, missing_ok=True)
        self._viewer.layers.events.removing.disconnect(self._on_removing)

    def keep(self, _event: object = None) -> None:
        """Keep the view of the open study where it has changed; it is written in a second thread."""
        study = self._session.study
        if study is None or study is not self._study:
            return
        self._look()
        if self._seen != self._kept:
            self._writer.put(study, self._seen)  # where it cannot be written, it is tried again with the next change
            self._kept = self._seen

    def leave(self, _event: object = None) -> None:
        """Keep the view of a study that is about to be closed, and wait until it is written."""
        self.keep()
        self._writer.flush()

    def restore(self) -> None:
        """Bring back what can be: cells, gates and columns that are there no more are passed over."""
        study = self._session.study
        if study is None or study is self._study:
            return
        view = recall_view(study)
        if view != View():  # else nobody left it yet, and all stays as it is
            wanted = view if self._session.as_left else as_now(self._viewer, self._session, view)
            restore_session(self._session, wanted)
            restore_camera(self._viewer, self._session, wanted)
        self._adopt(study, view)

    def _adopt(self, study: Study, view: View) -> None:
        """Keep the view of a study from now on, beginning with one that is kept already."""
        self._study, self._kept, self._seen, self._ever = study, view, view, set(view.closed)

    def _look(self) -> None:
        """See the view as it is; where our layers are gone, they and the camera are as they were."""
        session, layers = self._session, layer_views(self._viewer.layers, self._session.study)
        said = View(
            selected=tuple(session.selected),
            shown=tuple(session.shown),
            focus=session.focus,
            colour_by=session.colour_by,
            population=session.population,
            gate=session.gate,
            reader=session.reader,
            blind=session.blind,
            axes=tuple(session.axes),
            choices=session.choices,
        )
        parts = ("layers", "closed", "centre", "angles", "point", "zoom", "ndisplay")
        if not layers:
            self._seen = replace(said, **{name: getattr(self._seen, name) for name in parts})
            return
        shown = {field for one in layers for field in one.fields if field}
        self._ever |= shown
        self._seen = replace(said, layers=layers, closed=tuple(sorted(self._ever - shown)), **camera_of(self._viewer))

    def _on_study(self, _event: object = None) -> None:
        self._study = None
        if self._session.study is not None:
            self._soon.start()

    def _on_removing(self, _event: object = None) -> None:
        """Layers go: when the viewer or the study is closed all in one go, and then they are to come back."""
        if not self._going.isActive() and self._session.study is self._study is not None:
            self._look()
            self._going.start()


def camera_of(viewer: Any) -> dict[str, Any]:
    """Camera and place on the axes of a viewer, as `View` has them."""
    camera, dims = viewer.scene.camera, viewer.dims
    return {
        "centre": tuple(map(float, camera.center)),
        "angles": tuple(map(float, camera.angles)),
        "zoom": float(camera.zoom),
        "point": tuple(map(float, dims.point)),
        "ndisplay": int(dims.ndisplay),
    }


def as_now(viewer: Any, session: Session, view: View) -> View:
    """The view of a study that a job opened: its selection and gates, and all else as it is on show now."""
    return replace(
        view,
        colour_by=session.colour_by,
        axes=tuple(session.axes),
        reader=session.reader or view.reader,
        blind=session.blind or view.blind,
        choices={**view.choices, **session.choices},
        **camera_of(viewer),
    )


def restore_session(session: Session, view: View) -> None:
    """Give a session the choices of a view that its study still has."""
    study = session.study
    if study is None:
        return
    gating = gating_of(session)
    columns, tree = set(gating.table.columns), gating.tree
    if set(view.axes) <= columns:
        session.axes = (view.axes[0], view.axes[1])
    if view.colour_by in {CLASS, GATE, DENSITY, *columns}:
        session.colour_by = view.colour_by
    for name in ("population", "gate"):
        key = getattr(view, name)
        setattr(session, name, key if tree is not None and key in tree else "")
    if view.reader or view.blind:
        session.reader, session.blind = view.reader, view.blind
    living = _living(study.cells.obs, (*view.selected, *view.shown, view.focus))
    session.selected = tuple(cell for cell in view.selected if cell in living)
    session.focus = view.focus if view.focus in living else ""
    session.shown = tuple(cell for cell in view.shown if cell in living)
    if view.choices:
        session.choices = {**session.choices, **view.choices}


def restore_camera(viewer: Any, session: Session, view: View) -> None:
    """Put camera and axes where they were, if a layer of the study is shown."""
    if not layer_views(viewer.layers, session.study) or view.zoom <= 0 or len(view.centre) != 3:
        return
    dims, camera = viewer.dims, viewer.scene.camera
    dims.ndisplay = view.ndisplay
    if len(view.point) == dims.ndim:
        for axis, place in enumerate(view.point):
            dims.set_point(axis, place)
    if len(view.angles) == 3:
        camera.angles = view.angles
    camera.center, camera.zoom = view.centre, view.zoom


def _living(obs: pd.DataFrame, cells: Sequence[str]) -> set[str]:
    """Those of some cells that the table has and nobody deleted."""
    rows = obs.index.get_indexer(pd.Index(list(cells), dtype=object))
    there = rows >= 0
    there[there] = ~obs["deleted"].to_numpy(bool)[rows[there]]
    return {cell for cell, alive in zip(cells, there.tolist(), strict=True) if alive}
