"""The jobs of the Classify window: name all cells, train on hand labels, choose what to label next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED
from napari_dinobloom.io.study import Study
from napari_dinobloom.progress import Progress, Steps
from napari_dinobloom.ui import jobs, redraw, workers
from napari_dinobloom.ui.correction import Correction, why_closed
from napari_dinobloom.ui.session import Session, viewer_of
from napari_dinobloom.ui.texts import text

T = TypeVar("T")


def why_not(session: Session) -> str:
    """Why the cells of a session cannot be named now, in words; empty when they can."""
    study = session.study
    if study is None:
        return text("classify.why.no_study")
    if why := why_closed(session):
        return why
    return "" if study.cells.n_obs else text("classify.why.no_cells")


def start_classify(session: Session, **asked: Any) -> workers.StepsWorker | None:
    """Name every cell of the session's study, as ``napari-dinobloom classify`` does.

    Parameters
    ----------
    session : Session
        Its revision grows when the cells have their names.
    **asked
        Settings of the run, such as ``atlas``; see `napari_dinobloom.pipeline.settings.RunSettings`.

    Returns
    -------
    StepsWorker or None
        None when another job is under way, which is said.
    """
    from napari_dinobloom.pipeline.driver import iter_outcome

    def named(_outcome: Any) -> None:
        refresh_cells(session)

    return start_job(
        session,
        text("job.classify"),
        lambda study: iter_outcome([], study, until="classify", **asked),
        named,
        done=text("classify.done"),
    )


def start_probe(session: Session, name: str, then: Callable[[Path], object]) -> workers.StepsWorker | None:
    """Train a linear probe on the hand labels of the session's study; `then` gets its file."""
    from napari_dinobloom.pipeline.own_reference import iter_train_probe

    return start_job(session, text("job.probe"), lambda study: iter_train_probe(study, name), then)


def start_extend(session: Session, atlas: str, name: str, then: Callable[[Path], object]) -> workers.StepsWorker | None:
    """Add the hand labels of the session's study to an atlas, under a new name; `then` gets the file."""
    from napari_dinobloom.pipeline.own_reference import iter_extend

    return start_job(session, text("job.extend"), lambda study: iter_extend(study, atlas, name), then)


def start_next(session: Session, count: int) -> workers.StepsWorker | None:
    """Choose the cells whose labels would teach most, and have them looked through."""

    def chosen(cells: list[str]) -> None:
        session.look_through(*cells)
        session.message = text("classify.next_done", count=len(cells)) if cells else text("classify.next_none")

    return start_job(session, text("job.next"), lambda study: _iter_next(study, count), chosen)


def start_job(
    session: Session,
    title: str,
    steps: Callable[[Study], Steps[T]],
    then: Callable[[T], object],
    *,
    done: str = "",
) -> workers.StepsWorker | None:
    """Run a job on the open study in a second thread.

    Parameters
    ----------
    session : Session
        Its job, progress and message are set.
    title : str
        What the job does, for people.
    steps : callable
        Makes the generator of the study.
    then : callable
        Gets the result on the main thread, if the study is still the open one.
    done : str
        Message when it is done; else `then` says what is to be said.

    Returns
    -------
    StepsWorker or None
        None when another job is under way, which is said, or no study is open.
    """
    study = session.study
    if study is None:
        return None

    def end(outcome: workers.Outcome[T]) -> None:
        if session.study is not study:
            return
        if outcome.error is not None:
            session.message = text("status.failed", message=outcome.error)
        elif outcome.status == "cancelled":
            session.message = text("status.stopped")
        else:
            session.message = done
            then(outcome.result)  # type: ignore[arg-type]

    return workers.start(session, title, steps, study, on_end=end)


def refresh_cells(session: Session) -> None:
    """Show in layers, counts and all windows what a job has written of the cells."""
    study = session.study
    if study is None:
        return
    for layer in Correction(viewer_of(session), session).cell_layers():
        redraw.update(layer, study)
    session.revision += 1
    jobs.recount(session)


def label_counts(study: Study) -> dict[str, int]:
    """Cells with a hand label that may be learned from, by class, the most frequent first."""
    obs = study.cells.obs
    usable = (obs["label"] != "") & (obs["label"] != UNCLASSIFIED) & ~obs["deleted"] & ~obs["excluded"]
    return {str(name): int(count) for name, count in obs.loc[usable, "label"].value_counts().items()}


def why_not_learn(session: Session) -> str:
    """Why no probe can be trained on the hand labels now, in words; empty when it can."""
    if why := why_not(session):
        return why
    counts = label_counts(session.study) if session.study is not None else {}
    if len(counts) >= 2:
        return ""
    if not counts:
        return text("classify.why.no_labels")
    return text("classify.why.one_class", count=sum(counts.values()))


def _iter_next(study: Study, count: int) -> Steps[list[str]]:
    """Choose cells to label; it cannot be stopped half way."""
    from napari_dinobloom.pipeline.own_reference import next_to_label

    yield Progress(0, 1, "")
    return next_to_label(study, count)
