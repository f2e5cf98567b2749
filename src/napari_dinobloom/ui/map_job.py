"""The jobs of the map: fit it anew, or use another one that the study keeps, in the background."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari_dinobloom.io.study import Study
from napari_dinobloom.progress import Steps
from napari_dinobloom.ui import workers
from napari_dinobloom.ui.correction import why_closed
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text


def why_not(session: Session) -> str:
    """Why no map can be fitted now, in words; empty when it can."""
    return text("gates.why.no_study") if session.study is None else why_closed(session)


def start_refit(session: Session, **asked: Any) -> workers.StepsWorker | None:
    """Fit a new map to all cells of the session's study; the one of now and its gates are kept.

    Parameters
    ----------
    session : Session
        Its revisions grow when the map is there.
    **asked
        Settings of the map, see `napari_dinobloom.pipeline.map_changes.iter_refit`.

    Returns
    -------
    StepsWorker or None
        None when another job is under way, which is said.
    """
    from napari_dinobloom.pipeline.map_changes import iter_refit

    return _start(session, text("job.map"), lambda study: iter_refit(study, **asked))


def start_use(session: Session, which: str) -> workers.StepsWorker | None:
    """Use another map of the study, by its hash."""
    from napari_dinobloom.pipeline.map_changes import iter_use

    return _start(session, text("job.use_map"), lambda study: iter_use(study, which))


def _start(session: Session, title: str, steps: Callable[[Study], Steps[Any]]) -> workers.StepsWorker | None:
    study = session.study
    if study is None:
        return None

    def end(outcome: workers.Outcome[Any]) -> None:
        if outcome.status == "done" and session.study is study:
            session.gate = session.population = ""
            session.revision += 1
            session.gates_revision += 1

    return workers.start(session, title, steps, study, on_end=end)
