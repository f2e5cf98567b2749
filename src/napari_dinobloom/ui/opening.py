"""The study whose layers a viewer shows becomes the one of its session, open for writing where nobody else writes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_info

from napari_dinobloom.io.study import Study
from napari_dinobloom.progress import Progress, Steps
from napari_dinobloom.ui import workers
from napari_dinobloom.ui.images import tag
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text


def open_shown(viewer: Any, session: Session, refused: Callable[[str], None]) -> workers.StepsWorker | None:
    """Open the study of the first layer of ours, in a second thread, unless a study is open or being opened.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Its layers are looked through.
    session : Session
        Shows the study when it is read.
    refused : callable
        Called with the folder when it cannot be opened, which is said.
    """
    if session.study is not None or session.job is not None:
        return None
    folder = next((mark["study"] for mark in map(tag, viewer.layers) if "study" in mark), "")
    if not folder:
        return None

    gone = weakref.ref(getattr(viewer, "__wrapped__", viewer))

    def end(outcome: workers.Outcome[Study]) -> None:
        study = outcome.result
        if study is None:
            if outcome.error is not None:
                refused(folder)
            return
        if session.study is not None or gone() is None:
            study.close()
            return
        session.show(study)
        if study.held_by is not None:
            show_info(text("edit.why.held", name=study.name, holder=study.held_by))

    return workers.start(session, text("job.open"), iter_open, Path(folder), on_end=end)


def iter_open(folder: Path) -> Steps[Study]:
    """Open a study and read its cell table."""
    yield Progress(0, 1, folder.name)
    study = Study.open(folder)
    try:
        _ = study.cells
        yield Progress(1, 1, folder.name)
    except BaseException:
        study.close()  # also when it is cancelled while the table is read, or the lock would stay
        raise
    return study
