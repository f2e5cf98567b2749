"""The jobs of the Classify window: name all cells, train on hand labels, choose what to label next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED
from napari_dinobloom.io.study import Study
from napari_dinobloom.progress import Progress, Steps
from napari_dinobloom.ui import study_job, workers
from napari_dinobloom.ui.correction import why_closed
from napari_dinobloom.ui.jobs import start_job
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text


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
        Its revision grows when the job ends, whatever came of it.
    **asked
        Settings of the run, such as ``atlas``; see `napari_dinobloom.pipeline.settings.RunSettings`.

    Returns
    -------
    StepsWorker or None
        None when another job is under way, which is said.
    """
    from napari_dinobloom.pipeline.driver import iter_outcome

    return study_job.start_until(
        session,
        text("job.classify"),
        lambda study: iter_outcome([], study, until="classify", **asked),
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


def label_counts(study: Study) -> dict[str, int]:
    """Cells with a hand label that may be learned from, by class, the most frequent first."""
    obs = study.cells.obs
    usable = ~(obs["deleted"].to_numpy(bool) | obs["excluded"].to_numpy(bool))
    counts = obs["label"].iloc[np.flatnonzero(usable)].value_counts()
    return {str(name): int(count) for name, count in counts.items() if name not in ("", UNCLASSIFIED)}


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
