"""The study whose layers a viewer shows becomes the one of its session, open for writing where nobody else writes.

The layers of another study that are dropped in make that the open one, as the Study window's Open does.
"""

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


def open_shown(
    viewer: Any, session: Session, refused: Callable[[str], None], folder: str = "", *, as_left: bool = True
) -> workers.StepsWorker | None:
    """Open the study of a layer of ours in a second thread, unless it is open or something else is under way.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Its layers are looked through.
    session : Session
        Shows the study when it is read.
    refused : callable
        Called with the folder when it cannot be opened, which is said.
    folder : str
        The study, if its layers have just come: the one that is open before is closed, and its layers go. By default
        that of the first layer of ours, where none is open.
    as_left : bool
        Whether it comes back as it was left.
    """
    if session.job is not None or (session.study is not None and folder in ("", str(session.study.path))):
        return None
    folder = folder or next((mark["study"] for mark in map(tag, viewer.layers) if "study" in mark), "")
    if not folder:
        return None
    before = session.study

    gone = weakref.ref(getattr(viewer, "__wrapped__", viewer))

    def end(outcome: workers.Outcome[Study]) -> None:
        study = outcome.result
        if study is None:
            if outcome.error is not None:
                refused(folder)
            return
        live = gone()
        if session.study is not before or live is None:
            study.close()
            return
        if before is not None:
            remove_layers(live, before.path)
        session.show(study, as_left=as_left)
        if study.held_by is not None:
            show_info(text("edit.why.held", name=study.name, holder=study.held_by))

    return workers.start(session, text("job.open"), iter_open, Path(folder), on_end=end)


def remove_layers(viewer: Any, folder: Path) -> None:
    """Take our layers of a study out of the viewer."""
    for layer in [layer for layer in viewer.layers if tag(layer).get("study") == str(folder)]:
        viewer.layers.remove(layer)


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
