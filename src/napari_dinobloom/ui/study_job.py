"""The jobs of the Study window: open, make and copy a study, and do the next steps of its run.

A study that is opened shows its fields; those that the viewer shows already stay as they are.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from napari.layers import Layer
from napari.utils.notifications import show_info, show_warning

from napari_dinobloom.errors import DinoBloomError, StudyError
from napari_dinobloom.io.study import Study
from napari_dinobloom.io.study_copy import iter_copy_study
from napari_dinobloom.io.view import recall_view
from napari_dinobloom.progress import Progress, Steps
from napari_dinobloom.ui import jobs, layers, preferences, reader, workers
from napari_dinobloom.ui.images import STUDY_SUFFIX, tag
from napari_dinobloom.ui.opening import iter_open, remove_layers
from napari_dinobloom.ui.session import Session, viewer_of
from napari_dinobloom.ui.texts import text

if TYPE_CHECKING:
    from napari_dinobloom.io.fields import FieldRecord
    from napari_dinobloom.ui.layers import LayerData

T = TypeVar("T")

Opened = tuple[Study, list["LayerData"]]
Done = tuple[list["LayerData"], list[tuple[str, str]]]
"""Layers to be added, and the inputs that could not be used, each with the reason."""


def named(path: Path) -> Path:
    """A study folder as the user named it, with the ending of studies."""
    return path if path.name.endswith(STUDY_SUFFIX) else path.with_name(path.name + STUDY_SUFFIX)


def start_open(viewer: Any, session: Session, folder: Path) -> workers.StepsWorker | None:
    """Open a study in a second thread, and show its fields.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Gets the fields with their cells.
    session : Session
        Its study becomes this one; the one before is closed, and its layers go.
    folder : Path
        The study folder.

    Returns
    -------
    StepsWorker or None
        None when another job is under way, or the study is open already, which is said; one that could only be
        looked at is opened anew.
    """
    shown = _shown(viewer, folder)
    if session.study is not None and session.study.path == folder.resolve():
        if not session.study.read_only:
            show_info(text("study.already_open", name=session.study.name))
            return None
        shown = set()  # its layers go with it
    return _start(viewer, session, text("job.open"), _iter_open(folder, shown))


def start_create(
    viewer: Any, session: Session, folder: Path, specimen: Literal["blood", "marrow"]
) -> workers.StepsWorker | None:
    """Make a new, empty study and open it."""
    return _start(viewer, session, text("job.create"), _iter_create(folder, specimen))


def start_copy(session: Session, folder: Path) -> workers.StepsWorker | None:
    """Copy the open study to another folder; the one that is open stays open."""
    return jobs.start_job(
        session,
        text("job.copy"),
        lambda study: iter_copy_study(study, folder),
        lambda path: setattr(session, "message", text("study.copied", folder=path)),
    )


def start_until(
    session: Session,
    title: str,
    steps: Callable[[Study], Steps[T]],
    *,
    then: Callable[[T], object] = lambda _result: None,
    done: str = "",
) -> workers.StepsWorker | None:
    """Run a job that does steps of the open study, as `jobs.start_job` does.

    However it ends, all windows show what the study holds then, since the steps that were finished are kept; so are
    fields in which it was the first to look for cells.
    """
    study, viewer = session.study, viewer_of(session)
    if study is None:
        return None
    before = set() if viewer is None else _shown(viewer, study.path)
    before |= {record.id for record in _left(study, before)}  # a layer that the user took away stays away
    return jobs.start_job(session, title, steps, then, done=done, ended=lambda: _bring_up_to_date(session, before))


def _bring_up_to_date(session: Session, before: set[str]) -> None:
    """Show what a run has made of the open study: cells, gates, and fields that are not among those of `before`."""
    study, viewer = session.study, viewer_of(session)
    jobs.refresh_cells(session)
    session.gates_revision += 1
    if study is None or viewer is None or not _left(study, before):
        return
    gone = weakref.ref(viewer)

    def end(outcome: workers.Outcome[list[LayerData]]) -> None:
        if session.study is study:
            _add(gone(), outcome.result or [])

    workers.start(session, text("job.show"), _iter_layers, study, before, on_end=end)


def start_steps(
    viewer: Any,
    session: Session,
    inputs: Sequence[str],
    until: str,
    *,
    taken: Callable[[list[str]], object] = lambda _inputs: None,
    **asked: Any,
) -> workers.StepsWorker | None:
    """Take pictures into the open study and do the steps that are missing or out of date.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Shows the fields that come.
    session : Session
        Its revisions grow when the job ends, whatever came of it.
    inputs : sequence of str
        Files and folders of pictures; may be empty.
    until : str
        The last step to do, of `napari_dinobloom.pipeline.STEPS`.
    taken : callable
        Gets those of `inputs` that the study holds when the job has ended.
    **asked
        Settings of the run.

    Returns
    -------
    StepsWorker or None
        None when another job is under way, which is said, or no study is open.
    """
    study, gone = session.study, weakref.ref(getattr(viewer, "__wrapped__", viewer))
    if study is None:
        return None

    def end(outcome: workers.Outcome[Done]) -> None:
        if session.study is not study:
            return
        live = gone()
        if outcome.result is None:
            failed = outcome.error is not None
            session.message = text("status.failed", message=outcome.error) if failed else text("status.cancelled")
            taken(_held(study, inputs))
            _bring_up_to_date(session, set() if live is None else _shown(live, study.path))
            return
        built, problems = outcome.result
        session.message = text("study.done_but", count=len(problems)) if problems else text("study.done")
        taken(list(inputs))
        if lost and live is not None:  # they may have been found again
            remove_layers(live, study.path)
        else:
            _add(live, built)
        for name, problem in problems[:3]:
            show_warning(problem if name in problem else f"{name}: {problem}")
        _bring_up_to_date(session, set() if lost else {record.id for record in study.fields})

    lost = bool(inputs) and _lost(viewer, study)
    if not study.settings:  # it was never run: what the user's preferences propose
        proposed = preferences.preferences()
        asked = {"encoder": proposed.encoder, "device": proposed.device, **asked}
    steps = partial(_iter_steps, study, list(inputs), until, asked, _shown(viewer, study.path))
    return workers.start(session, text("job.steps"), steps, on_end=end)


def _held(study: Study, inputs: Sequence[str]) -> list[str]:
    """Those of some files and folders of which a study holds a picture."""
    places: set[Path] = set()
    for record in study.fields if inputs else ():
        with suppress(StudyError):  # the disk of an earlier picture is not connected now
            path = study.locate(record).resolve()
            places |= {path, *path.parents}
    return [one for one in inputs if Path(one).resolve() in places]


def why_not(session: Session) -> str:
    """Why no job can change the open study now, in words; empty when one can."""
    study = session.study
    if session.job is not None:
        return text("run.why.busy", job=session.job.title)
    if study is None:
        return text("study.why.none")
    if study.read_only:
        return text("study.held", holder=study.held_by) if study.held_by is not None else text("study.read_only")
    return ""


def close(viewer: Any, session: Session) -> None:
    """Close the open study; the layers that show it go, those of the user stay."""
    study = session.study
    if study is None or session.job is not None:
        return
    remove_layers(viewer, study.path)  # first: its layers would have the study opened again
    session.close_study()


def _start(viewer: Any, session: Session, title: str, steps: Steps[Opened]) -> workers.StepsWorker | None:
    """Run a job whose result is an open study with the layers to show; a refused one is closed again."""
    gone = weakref.ref(getattr(viewer, "__wrapped__", viewer))

    def end(outcome: workers.Outcome[Opened]) -> None:
        if outcome.result is None:
            failed = outcome.error is not None
            session.message = text("status.failed", message=outcome.error) if failed else text("status.stopped")
            return
        study, built = outcome.result
        live = gone()
        if live is None:
            study.close()
            return
        if session.study is not None:
            remove_layers(live, session.study.path)
        session.show(study)
        _add(live, built)
        session.revision += 1
        session.message = text("study.opened", name=study.name, cells=study.cells.n_obs)
        if study.held_by is not None:
            show_info(text("study.held", holder=study.held_by))

    return workers.start(session, title, lambda: steps, on_end=end)


def _iter_open(folder: Path, shown: set[str]) -> Steps[Opened]:
    """Open a study and build the layers of the fields that are not shown yet."""
    study = yield from iter_open(folder)
    try:
        return study, _layers(study, shown | set(recall_view(study).closed))
    except BaseException:
        study.close()
        raise


def _iter_create(folder: Path, specimen: Literal["blood", "marrow"]) -> Steps[Opened]:
    """Make a study without fields."""
    yield Progress(0, 1, folder.name)
    return Study.create(folder, specimen=specimen), []


def _iter_steps(study: Study, inputs: list[str], until: str, asked: dict[str, Any], shown: set[str]) -> Steps[Done]:
    """Do the steps, and build the layers of fields that are not shown yet."""
    from napari_dinobloom.pipeline.driver import iter_outcome

    outcome = yield from iter_outcome(inputs, study, until=until, **asked)
    return _layers(study, shown), outcome.problems


def _iter_layers(study: Study, shown: set[str]) -> Steps[list[LayerData]]:
    """Layers of the fields that are not shown yet; twin for the second thread."""
    yield Progress(0, 1, study.name)
    return _layers(study, shown)


def _layers(study: Study, shown: set[str]) -> list[LayerData]:
    """Layers of the fields that can be used and are not shown; none where there are none."""
    left = _left(study, shown)
    return reader.layers_of(study, left) if left else []


def _left(study: Study, shown: set[str]) -> list[FieldRecord]:
    """Fields in which cells were looked for and which are not shown."""
    usable = [record for record in study.fields if record.status == "ok" and record.id not in shown]
    return [record for record in usable if study.masks_path(record.id).is_file()]


def _shown(viewer: Any, folder: Path) -> set[str]:
    """Fields of a study of which the viewer shows the cells."""
    marks = (tag(layer) for layer in viewer.layers)
    ours = [mark for mark in marks if mark.get("role") == "cells" and mark.get("study") == str(folder.resolve())]
    return {field for mark in ours for field in mark["fields"]}


def _lost(viewer: Any, study: Study) -> bool:
    """Whether fields of a study are shown without their pictures, which are not where they were."""
    marks = [mark for mark in map(tag, viewer.layers) if mark.get("study") == str(study.path)]
    pictured = {field for mark in marks if mark.get("role") == "image" for field in mark["fields"]}
    try:
        for field in sorted(_shown(viewer, study.path) - pictured)[:1]:
            study.locate(field)
    except StudyError:
        return True
    return False


def _add(viewer: Any, built: Sequence[LayerData]) -> None:
    """Add layers to the viewer, if it is still there."""
    for data, meta, kind in built if viewer is not None else ():
        try:
            layer = viewer.add_layer(Layer.create(data, meta, kind))
            if kind == "labels":
                layers.outlined(layer)
        except (DinoBloomError, ValueError, OSError) as error:  # a picture went away meanwhile
            show_warning(str(error))
