"""The state that all widgets of one viewer share: study, selection, focus, colours, the running job.

One `Session` per viewer, kept in a dictionary with weak keys: it lives as long as its viewer and no longer. Widgets
listen to its signals (``session.events.selected`` ...) and none listens to another widget. It knows neither Qt nor
layers. Set its fields on the main thread only.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from psygnal import EventedModel
from pydantic import ConfigDict, Field, PrivateAttr

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.io.study import Study
from napari_dinobloom.progress import Progress
from napari_dinobloom.ui import recent

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A long task that is under way in a viewer.

    Attributes
    ----------
    title : str
        What it does, for people.
    cancel : callable
        Ask it to stop after the present step.
    """

    title: str
    cancel: Callable[[], None]


class Session(EventedModel):
    """What the widgets of one viewer share; every field has a signal of its name in ``events``.

    Attributes
    ----------
    study : Study or None
        The open study. `Session.show` and `Session.close_study` open and close it.
    selected : tuple of str
        Ids of the selected cells, in the order of selection.
    focus : str
        Id of the one cell that is looked at; empty for none.
    shown : tuple of str
        Cells that a window wants to have looked through: the gallery shows them alone. Set by `Session.look_through`.
    hover : str
        Id of the cell under the pointer; empty for none.
    colour_by : str
        What gives cells their colour on the map and in the image: "class", "gate", "density" (in the image as "class"),
        or a column of the cell table.
    axes : (str, str)
        Columns of the cell table that the map has as x and y.
    population : str
        Key of the gate whose cells the map shows, and below which new gates are put; empty for all cells.
    gate : str
        Key of the chosen gate; empty for none.
    gates_revision : int
        Grows when the tree of gates has changed, by an act or its undoing; `ui.gating` has the tree.
    groups_revision : int
        Grows when the known groups of patients have changed, by an act or its undoing; `ui.patients` has them.
    reader : str
        Who names cells here, as the journal has it; empty for the user of this machine.
    blind : bool
        Whether the gallery hides what other readers said.
    job : Job or None
        What is under way; only one thing at a time.
    progress : Progress or None
        Last report of the job.
    message : str
        How the last job ended, for people.
    result : SmearResult or None
        What the last run found in the image it was started on.
    revision : int
        Grows when the cells have changed, by a run or an act of a person, and the layers show them.
    choices : dict
        What windows were set to, by window: how the gallery is sorted, say. Set by `Session.keep`, and set anew when a
        study comes back as it was left (`ui.view_state`).
    leaving : int
        Grows when the open study is about to be closed, while all is as it was.
    as_left : bool
        Whether the open study is to come back as it was left, as one that a person opens; set before `study`.
    notes : tuple of str
        What the last segmentation wants people to know, beside what the study keeps of each field.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)
    _parts: dict[str, Any] = PrivateAttr(default_factory=dict)

    study: Study | None = None
    selected: tuple[str, ...] = ()
    focus: str = ""
    shown: tuple[str, ...] = ()
    hover: str = ""
    colour_by: str = "class"
    axes: tuple[str, str] = ("umap_1", "umap_2")
    population: str = ""
    gate: str = ""
    gates_revision: int = 0
    groups_revision: int = 0
    reader: str = ""
    blind: bool = False
    job: Job | None = None
    progress: Progress | None = None
    message: str = ""
    result: Any = None
    revision: int = 0
    choices: dict[str, dict[str, Any]] = Field(default_factory=dict)
    leaving: int = 0
    as_left: bool = True
    notes: tuple[str, ...] = ()

    def part(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what the session has one of, such as its gating; made on first use, and gone with the session."""
        if name not in self._parts:
            self._parts[name] = make()
        return self._parts[name]

    def keep(self, window: str, **chosen: Any) -> None:
        """Keep what a window is set to, plain values, so that it comes back with the study."""
        self.choices = {**self.choices, window: {**self.choices.get(window, {}), **chosen}}

    def select(self, *cell_ids: str) -> None:
        """Select these cells and look at the last of them; nothing is selected when there are none."""
        self.selected = cell_ids
        self.focus = cell_ids[-1] if cell_ids else ""

    def look_through(self, *cell_ids: str) -> None:
        """Select these cells, look at the first of them, and have the gallery show them alone."""
        self.shown = ()  # so that the same cells can be asked for again
        self.selected = cell_ids
        self.focus = cell_ids[0] if cell_ids else ""
        self.shown = cell_ids

    def show(self, study: Study, *, as_left: bool = True) -> None:
        """Make `study` the open one and close the one before; a selection that it does not hold goes.

        A job that opens a study to bring what it found into the present view asks for it not `as_left`.
        """
        if study is self.study:
            return
        self.close_study()
        self.as_left = as_left
        self.study = study
        recent.remember(study.path)

    def close_study(self) -> None:
        """Close the open study, which gives its lock back, and clear the selection."""
        study = self.study
        if study is None:
            return
        try:
            self.leaving += 1
            self.select()
            self.shown = ()
            self.hover = ""
            self.gate = self.population = ""
            self.notes = ()
        finally:  # whatever a listener does, the lock is given back
            _close(study)  # first: who hears that it is closed may open it again
            self.study = None


def _close(study: Study) -> None:
    """Close `study`; a folder that went away in the meantime is no reason to fail."""
    try:
        study.close()
    except (OSError, DinoBloomError) as error:
        _log.warning("study %s did not close: %s", study.path, error)


_SESSIONS: WeakKeyDictionary[Any, Session] = WeakKeyDictionary()


def session_of(viewer: Any) -> Session:
    """Return the one session of `viewer`, made on first use.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        A plugin receives a proxy; all proxies of one viewer share a session.

    Returns
    -------
    Session
        It is closed, and its job asked to stop, when the viewer goes.
    """
    viewer = getattr(viewer, "__wrapped__", viewer)
    session = _SESSIONS.get(viewer)
    if session is None:
        session = _SESSIONS[viewer] = Session()
        weakref.finalize(viewer, _end, session)
    return session


def viewer_of(session: Session) -> Any:
    """Return the viewer of a session, None for a session without one."""
    return next((viewer for viewer, one in _SESSIONS.items() if one is session), None)


def _end(session: Session) -> None:
    """Stop the job and give the lock back when a viewer is gone."""
    if session.job is not None:
        session.job.cancel()
    with suppress(RuntimeError):  # a listener's Qt object may be gone already
        session.close_study()
