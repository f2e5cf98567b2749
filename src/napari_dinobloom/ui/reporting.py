"""The jobs of the Report window: write the report and the pages of patients, and export what programs read."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from napari.utils.notifications import show_info

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.atomic import disk_errors
from napari_dinobloom.io.study import Study
from napari_dinobloom.progress import Steps
from napari_dinobloom.report.counting import Specimen
from napari_dinobloom.ui import jobs, study_job, workers
from napari_dinobloom.ui.images import STUDY_SUFFIX
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text

if TYPE_CHECKING:
    from napari_dinobloom.pipeline.exports import Kind

REPORT = "report.html"
PLACES = (REPORT, "reports/*.html", "reports-pseudonymous/*.html", "tables/*.csv")
"""What a study holds for people to read, in the order in which it is listed."""


@dataclass(frozen=True, slots=True)
class Written:
    """A file for people in a study.

    Attributes
    ----------
    path : Path
        Where it is.
    name : str
        Its path below the study.
    when : str
        When it was written, local time, to the minute.
    """

    path: Path
    name: str
    when: str


@dataclass(frozen=True, slots=True)
class Pages:
    """Which pages are written beside the report.

    Attributes
    ----------
    per_patient, cohort : bool
        One for each patient, one over all.
    pseudonyms : bool
        The pages, or without them the report, under pseudonyms, in a folder of their own.
    """

    per_patient: bool = False
    cohort: bool = False
    pseudonyms: bool = False


def written(study: Study) -> list[Written]:
    """List the reports and tables of a study; may be called in a second thread."""
    paths = [path for place in PLACES for path in sorted(study.path.glob(place))]
    found = []
    for path in paths:
        when = datetime.fromtimestamp(path.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
        found.append(Written(path, path.relative_to(study.path).as_posix(), when))
    return found


def why_not_write(session: Session) -> str:
    """Why no report can be written now, in words; empty when one can."""
    if why := study_job.why_not(session):
        return why
    study = session.study
    return "" if study is not None and study.cells.n_obs else text("report.why.no_cells")


def why_not_export(session: Session, wanted: Sequence[str]) -> str:
    """Why nothing can be exported now, in words; empty when it can, also from a study that is only read."""
    study = session.study
    if session.job is not None:
        return text("run.why.busy", job=session.job.title)
    if study is None:
        return text("study.why.none")
    if not study.cells.n_obs:
        return text("report.why.no_cells")
    return "" if wanted else text("report.why.nothing")


def start_write(session: Session, specimen: Specimen, pages: Pages) -> workers.StepsWorker | None:
    """Do all steps up to the report, and write the pages.

    Parameters
    ----------
    session : Session
        Its revision grows when the job ends, whatever came of it.
    specimen : {"blood", "marrow"}
        What was smeared.
    pages : Pages
        What is written beside the report.

    Returns
    -------
    StepsWorker or None
        None when another job is under way, which is said, or no study is open.
    """

    def done(problems: Sequence[tuple[str, str]]) -> None:
        lines = [f"{name}: {problem}" for name, problem in problems[:3]]
        session.message = "\n".join([text("report.done"), *lines])

    return study_job.start_until(
        session, text("job.report"), lambda study: _iter_write(study, specimen, pages), then=done
    )


def start_export(session: Session, folder: Path, wanted: Sequence[Kind]) -> workers.StepsWorker | None:
    """Write tables, outlines or label images of the open study, as it is now, into a new folder in `folder`."""

    def done(written: tuple[Path, list[Path]]) -> None:
        session.message = text("report.exported", count=len(written[1]), folder=written[0])
        show_info(session.message)  # a window of a read-only study says there only that it is

    return jobs.start_job(session, text("job.export"), lambda study: _iter_export(study, folder, tuple(wanted)), done)


def _iter_write(study: Study, specimen: Specimen, pages: Pages) -> Steps[tuple[tuple[str, str], ...]]:
    """Write report and pages; what could not be used is returned."""
    from napari_dinobloom.pipeline.driver import iter_outcome
    from napari_dinobloom.pipeline.patient_reports import iter_patient_reports

    outcome = yield from iter_outcome([], study, until="report", specimen=specimen)
    problems = tuple(outcome.problems)
    if not (pages.per_patient or pages.cohort or pages.pseudonyms):
        return problems
    made = yield from iter_patient_reports(
        study, per_patient=pages.per_patient, cohort=pages.cohort, pseudonyms=pages.pseudonyms, problems=problems
    )
    return problems + made.problems


def _iter_export(study: Study, parent: Path, wanted: tuple[Kind, ...]) -> Steps[tuple[Path, list[Path]]]:
    """Write what is wanted into a new folder, one kind after the other."""
    from napari_dinobloom.pipeline.exports import iter_export
    from napari_dinobloom.pipeline.settings import resolve

    if not wanted:
        raise InputError(text("report.why.nothing"))
    folder = _new_folder(parent, f"{study.path.name.removesuffix(STUDY_SUFFIX)}-export")
    return folder, (yield from iter_export(study, resolve(study.settings, {}), folder, wanted))


def _new_folder(parent: Path, name: str) -> Path:
    """Make a folder of this name, or with a number behind it where there is one already: nothing is overwritten."""
    with disk_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            folder = parent / (name if number == 1 else f"{name}-{number}")
            with suppress(FileExistsError):
                folder.mkdir()
                break
    return folder
