"""Gates of a viewer's study to files and back, and to other studies; long work runs in a second thread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from napari.utils.notifications import show_info, show_warning

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.explore import gate_export
from napari_dinobloom.explore.study_gates import StudyGates
from napari_dinobloom.io.study import Study
from napari_dinobloom.progress import Progress, Steps
from napari_dinobloom.ui import workers
from napari_dinobloom.ui.gating import gating_of
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text

Kind = Literal["csv", "json", "fcs"]


def export(session: Session, kind: Kind, path: Path) -> workers.StepsWorker | None:
    """Write statistics (a folder of CSV, or JSON with the tree) or cells (FCS) of the session's study.

    Parameters
    ----------
    session : Session
        With a study that has gates; else that is said.
    kind : {"csv", "json", "fcs"}
        What is written.
    path : Path
        Folder for "csv", else the file.

    Returns
    -------
    StepsWorker or None
        None where there is nothing to write, or another job is under way.
    """
    gates, tables = gating_of(session).gates, gating_of(session).tables()
    if gates is None or tables is None:
        show_warning(text("gates.why.none"))
        return None
    tree, table = gates.tree, gates.table

    def write() -> list[Path]:
        if kind == "csv":
            return gate_export.write_gate_csv(path, tables)
        if kind == "json":
            gate_export.write_gate_json(path, tables, tree)
        else:
            gate_export.write_fcs(path, table, gates=tree)
        return [path]

    def end(outcome: workers.Outcome[list[Path]]) -> None:
        if outcome.error is not None:
            show_warning(str(outcome.error))
        elif outcome.result is not None:
            show_info(text("gates.written", paths=", ".join(map(str, outcome.result))))

    return workers.start(session, text("job.export_gates"), _once, write, on_end=end, notify=False)


def copy(session: Session, folder: Path) -> workers.StepsWorker | None:
    """Copy all gates into another study on the same map, in a second thread; how it ended is said.

    Returns
    -------
    StepsWorker or None
        None where there is nothing to copy, or another job is under way.
    """
    gates = gating_of(session).gates
    if gates is None:
        show_warning(text("gates.why.no_study"))
        return None
    if folder.resolve() == gates.study.path.resolve():
        show_warning(text("gates.why.same_study"))
        return None
    tree = gates.tree

    def write() -> tuple[int, str]:
        with Study.open(folder) as other:
            return len(StudyGates(other).take(tree)["new"]), other.name

    def end(outcome: workers.Outcome[tuple[int, str]]) -> None:
        if outcome.error is not None:
            show_warning(str(outcome.error))
        elif outcome.result is not None:
            count, name = outcome.result
            show_info(text("gates.copied", count=count, name=name))

    return workers.start(session, text("job.copy_gates"), _once, write, on_end=end, notify=False)


def read(session: Session, path: Path) -> bool:
    """Take over the gates of a JSON file that `export` wrote; return whether it was done."""
    gating = gating_of(session)
    try:
        tree = gate_export.read_gate_json(path)
    except DinoBloomError as error:
        show_warning(str(error))
        return False
    return gating.do(lambda own: tree.copy_to(own, tree.children(""))) is not None


def _once(act: Callable[[], Any]) -> Steps[Any]:
    """One act as a task for the second thread; it cannot be stopped half way."""
    yield Progress(0, 1, "")
    return act()
