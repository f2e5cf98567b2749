"""The jobs that widgets start: any on the open study, and the whole way for the smear in one image layer.

A job belongs to the viewer and its session, not to the widget that started it: close the widget and the cells still
appear.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from napari.layers import Image
from napari.utils.notifications import show_warning

from napari_dinobloom.errors import InputError, StudyError
from napari_dinobloom.io.fields import FieldRecord
from napari_dinobloom.io.study import Study
from napari_dinobloom.progress import Steps
from napari_dinobloom.report.counting import Specimen
from napari_dinobloom.ui import layers, redraw, slides, workers
from napari_dinobloom.ui.images import TAG, SmearImage, iter_inputs, smear_image
from napari_dinobloom.ui.opening import open_shown
from napari_dinobloom.ui.session import Session, viewer_of
from napari_dinobloom.ui.texts import text

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SmearSettings:
    """What the user chose for a run.

    Attributes
    ----------
    folder : Path
        The study folder.
    specimen : {"blood", "marrow"}
        What was smeared.
    pixel_size_um : float or None
        Micrometres per pixel; None leaves it to the file or the red cells.
    encoder : str
        Name in the registry of encoders.
    """

    folder: Path
    specimen: Specimen = "blood"
    pixel_size_um: float | None = None
    encoder: str = "starter"


@dataclass(frozen=True, slots=True, eq=False)
class SmearResult:
    """What a run found in one image layer.

    Attributes
    ----------
    study : Study
        Open for writing.
    cells : LayerData or None
        The cell layer to show; None when no plane could be used.
    differential : DataFrame
        Rows of `napari_dinobloom.report.differential` of the slide that the image belongs to.
    summary : DataFrame
        One row of its `summary`, or none.
    specimen : {"blood", "marrow"}
        What was counted.
    problems : list of str
        One line for each plane that was left out.
    """

    study: Study
    cells: layers.LayerData | None
    differential: pd.DataFrame
    summary: pd.DataFrame
    specimen: Specimen
    problems: list[str]


def start_job(
    session: Session,
    title: str,
    steps: Callable[[Study], Steps[T]],
    then: Callable[[T], object],
    *,
    done: str = "",
    ended: Callable[[], object] | None = None,
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
    ended : callable, optional
        Called before `then`, and also of a job that failed or was cancelled, which may have changed the study.

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
        if ended is not None:
            ended()
        if outcome.status == "done":
            then(outcome.result)  # type: ignore[arg-type]

    return workers.start(session, title, steps, study, on_end=end)


def refresh_cells(session: Session) -> None:
    """Show in layers, counts and all windows what a job has written of the cells."""
    study = session.study
    if study is None:
        return
    for layer in redraw.cell_layers(viewer_of(session), study):
        redraw.update(layer, study)
    session.revision += 1
    recount(session)


def start_run(viewer: Any, session: Session, layer: Image, settings: SmearSettings) -> workers.StepsWorker | None:
    """Find, name and count the white cells of an image layer, in a second thread.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Gets the cell layer.
    session : Session
        Its job, progress, message, study and result are set.
    layer : Image
        A layer that `napari_dinobloom.ui.images.why_unusable` has nothing against.
    settings : SmearSettings
        What the user chose.

    Returns
    -------
    StepsWorker or None
        None when another job is under way, which is said.
    """

    def keep(result: SmearResult) -> None:
        session.result = result

    steps = partial(iter_smear, smear_image(layer), settings)
    return start(viewer, session, layer, settings.folder, title=text("job.run"), steps=steps, keep=keep)


def start(
    viewer: Any,
    session: Session,
    layer: Image,
    folder: Path,
    *,
    title: str,
    steps: Callable[[], Steps[Any]],
    keep: Callable[[Any], None],
) -> workers.StepsWorker | None:
    """Run a job on a study in a second thread; what it found is delivered, and kept if its study is then the open one.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Gets the cell layer.
    session : Session
        Its job, progress, message and study are set.
    layer : Image
        What the job works on.
    folder : Path
        The study folder.
    title : str
        What the job does, for people.
    steps : callable
        Makes the generator; its result has `study`, `cells` and `problems`.
    keep : callable
        Gets the result.

    Returns
    -------
    StepsWorker or None
        None when another job is under way, which is said.
    """
    ours = session.study is not None and Path(session.study.path) == folder.resolve()
    viewer_ref, layer_ref = weakref.ref(getattr(viewer, "__wrapped__", viewer)), weakref.ref(layer)

    def end(outcome: workers.Outcome[Any]) -> None:
        live = viewer_ref()
        deliver(live, session, layer_ref(), folder, outcome)
        if outcome.result is not None and session.study is outcome.result.study:
            keep(outcome.result)
        elif ours and live is not None and session.study is None:  # it was open before, and what is finished is kept
            open_shown(live, session, lambda _folder: None, str(folder.resolve()), as_left=False)

    # Else the run would find the study held by this very process.
    before = session.close_study if ours else lambda: None
    return workers.start(session, title, steps, on_end=end, before=before)


def iter_smear(image: SmearImage, settings: SmearSettings) -> Steps[SmearResult]:
    """Run the pipeline on one image layer and prepare what the window shows; twin for the second thread."""
    from napari_dinobloom import pipeline

    files = yield from iter_inputs(image, settings.folder, settings.specimen)
    done = yield from pipeline.iter_run(
        files,
        settings.folder,
        encoder=settings.encoder,
        specimen=settings.specimen,
        pixel_size_um=settings.pixel_size_um,
    )
    study = Study.open(done.path) if done.read_only else done
    return gather(study, files, image, settings.specimen)


def gather(study: Study, files: Sequence[Path], image: SmearImage, specimen: Specimen) -> SmearResult:
    """Collect from a finished study what belongs to the pictures `files` of one image layer."""
    fields, slides, problems = fields_of(study, files)
    counts, totals = _count(study, specimen)
    cells = None
    if any(fields):
        cells = layers.cell_layer(study, fields, name=image.name, stack=image.stack, specimen=specimen)
    return SmearResult(
        study=study,
        cells=cells,
        differential=counts[counts["slide"].isin(slides)],
        summary=totals[totals["slide"].isin(slides)],
        specimen=specimen,
        problems=problems,
    )


def fields_of(study: Study, files: Sequence[Path]) -> tuple[list[str], set[str], list[str]]:
    """Field id of each file (empty where it cannot be used), the slides they belong to, and what was wrong."""
    by_path: dict[Path, FieldRecord] = {}
    for known in study.fields:
        with suppress(StudyError):  # a field of an earlier run whose disk is not connected now
            by_path[study.locate(known).resolve()] = known
    fields: list[str] = []
    slides: set[str] = set()
    problems: list[str] = []
    for file in files:
        record = by_path.get(file.resolve())
        if record is not None and record.status == "same_as":
            record = study.field(record.problem)
        if record is None or record.status == "failed":
            fields.append("")
            problem = record.problem if record is not None else file.name
            problems.append(text("error.not_in_study", name=file.name, problem=problem))
        else:
            fields.append(record.id)
            slides.add(record.slide)
    return fields, slides, problems


def _count(study: Study, specimen: Specimen) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Differential and summary of each slide, by the scheme of the study."""
    from napari_dinobloom.pipeline.results import count_cells
    from napari_dinobloom.pipeline.settings import resolve

    return count_cells(study.cells, resolve(study.settings, {"specimen": specimen}), study.path, by=("slide",))


def recount(session: Session) -> None:
    """Count again what the last run counted, after an act of a person on its study; say it if that cannot be."""
    result: SmearResult | None = session.result
    if result is None or result.study is not session.study:
        return
    slides = set(result.summary["slide"]) | set(result.differential["slide"])
    try:
        counts, totals = _count(result.study, result.specimen)
    except InputError as error:  # the scheme's file went away after the run
        session.message = str(error)
        return
    session.result = replace(
        result, differential=counts[counts["slide"].isin(slides)], summary=totals[totals["slide"].isin(slides)]
    )


def deliver(viewer: Any, session: Session, layer: Image | None, folder: Path, outcome: workers.Outcome[Any]) -> None:
    """Show the cells that a job found, and say how it ended; its result has `study`, `cells` and `problems`."""
    if outcome.error is not None:
        session.message = text("status.failed", message=outcome.error)
        return
    if outcome.result is None:
        session.message = text("status.cancelled")
        return
    result = outcome.result
    if viewer is None:
        result.study.close()
        return
    session.show(result.study, as_left=False)
    if layer is None or layer not in viewer.layers:
        show_warning(text("error.layer_gone", folder=folder))
    elif result.cells is not None:
        layers.show(viewer, layer, result.cells)
        fields = result.cells[1]["metadata"][TAG]["fields"]
        if len(fields) == 1:
            slides.show_quality(viewer, layer, result.study, fields[0])
    for problem in result.problems:
        show_warning(problem)
    session.revision += 1
    session.message = text("status.done", seconds=outcome.seconds)
