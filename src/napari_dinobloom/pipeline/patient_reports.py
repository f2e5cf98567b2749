"""The pages that are made on request: one for each patient, one for the cohort, and all of it under pseudonyms.

Pages with names lie in ``reports/`` of the study, those under pseudonyms in ``reports-pseudonymous/``, so that nobody
sends a folder with both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.atomic import disk_errors
from napari_dinobloom.io.fields import make_id
from napari_dinobloom.io.pseudonyms import PseudonymousStudy, Pseudonyms
from napari_dinobloom.io.trust import inside
from napari_dinobloom.pipeline import classify, results
from napari_dinobloom.pipeline.settings import RunSettings, digest, resolve
from napari_dinobloom.progress import Progress, Steps, drain

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.pipeline.patients import PatientResult
    from napari_dinobloom.report.cohort import Cohort, PatientModel, Prediction

FOLDER, PSEUDONYMOUS = "reports", "reports-pseudonymous"
COHORT = "cohort.html"
_TAKEN = ("cohort", "report")


@dataclass(frozen=True, slots=True)
class PatientReports:
    """What was written, and what could not be.

    Attributes
    ----------
    paths : tuple of Path
        The pages, that of the cohort last.
    problems : tuple of (str, str)
        Patient (or its pseudonym), and why it has no page.
    """

    paths: tuple[Path, ...]
    problems: tuple[tuple[str, str], ...]


def patient_reports(
    study: Study,
    *,
    per_patient: bool = True,
    cohort: bool = True,
    pseudonyms: bool = False,
    problems: Sequence[tuple[str, str]] = (),
) -> PatientReports:
    """Write the pages of a study; parameters as for `iter_patient_reports`."""
    return drain(
        iter_patient_reports(study, per_patient=per_patient, cohort=cohort, pseudonyms=pseudonyms, problems=problems)
    )


def iter_patient_reports(
    study: Study,
    *,
    per_patient: bool = True,
    cohort: bool = True,
    pseudonyms: bool = False,
    problems: Sequence[tuple[str, str]] = (),
) -> Steps[PatientReports]:
    """Write a page for each patient, and one for all of them, each whole or not at all.

    What goes wrong with one patient costs no other theirs: it is named in the result.

    Parameters
    ----------
    study : Study
        A study that was classified. It may be open for reading only, unless names are to get pseudonyms, but its
        folder must be writable.
    per_patient, cohort : bool
        Which pages. With neither, and `pseudonyms`, the report of the study itself is written under pseudonyms.
    pseudonyms : bool
        Whether patients, slides, fields, files and people get pseudonyms (`io.pseudonyms`).
    problems : sequence of (str, str)
        Inputs that never became a field and why, for the page of the cohort.

    Yields
    ------
    Progress
        After each patient.

    Returns
    -------
    PatientReports

    Raises
    ------
    InputError
        If nothing was asked for.
    DinoBloomError
        If the study was not classified, or the folder or the pseudonyms cannot be written.
    """
    if not (per_patient or cohort or pseudonyms):
        raise InputError(f"{study.path}: no page was asked for. Ask for patients, the cohort, or both.")
    settings = resolve(study.settings, {})
    told = PseudonymousStudy(study) if pseudonyms else study
    folder = inside(study.path, PSEUDONYMOUS if pseudonyms else FOLDER)
    if not (per_patient or cohort):
        return (yield from _iter_whole(study, told, settings, problems, folder))
    yield Progress(0, 0, "counting")
    gathered = gather(study, told, settings, problems)
    _make(folder)
    return (yield from _iter_pages(gathered, folder, per_patient, cohort))


def _make(folder: Path) -> None:
    """Make the folder of the pages, once it is known what they say."""
    with disk_errors(folder):
        folder.mkdir(exist_ok=True)


def _iter_whole(
    study: Study,
    told: Study | PseudonymousStudy,
    settings: RunSettings,
    problems: Sequence[tuple[str, str]],
    folder: Path,
) -> Steps[PatientReports]:
    """Write the report of the whole study into `folder`."""
    from napari_dinobloom.report.html import iter_write_report

    said = results.what_is_said(told, settings, classify.find_atlas(settings), problems)
    _make(folder)
    path = yield from iter_write_report(told, folder / results.REPORT, crops=results.crops_of(study), **said)
    return PatientReports((path,), ())


def _iter_pages(cohort: Cohort, folder: Path, per_patient: bool, whole: bool) -> Steps[PatientReports]:
    """Write the pages of all patients, then that of the cohort with links to those that are there."""
    from napari_dinobloom.report.cohort_page import write_cohort_page
    from napari_dinobloom.report.patient_page import write_patient_page

    files = file_names(cohort.patients) if per_patient else {}
    paths: dict[str, Path] = {}
    failed: list[tuple[str, str]] = []
    total = len(files) + whole
    for done, (patient, file) in enumerate(files.items()):
        yield Progress(done, total, f"patient {patient}")
        try:
            paths[patient] = write_patient_page(cohort, patient, folder / file)
        except Exception as error:  # whatever it is, it is this patient's: the others' pages are made, and it is named
            failed.append((patient, str(error) or type(error).__name__))
    written = list(paths.values())
    if whole:
        yield Progress(len(files), total, "cohort")
        there = paths if per_patient else existing(cohort.patients, folder)
        pages = {patient: path.name for patient, path in there.items()}
        written.append(write_cohort_page(cohort, folder / COHORT, pages=pages))
    yield Progress(total, total, "")
    return PatientReports(tuple(written), tuple(failed))


def existing(patients: Sequence[str], folder: Path) -> dict[str, Path]:
    """Pages of patients that an earlier call wrote, by patient."""
    places = {patient: folder / file for patient, file in file_names(patients).items()}
    return {patient: path for patient, path in places.items() if path.is_file()}


def file_names(patients: Sequence[str]) -> dict[str, str]:
    """File name of each patient's page: the name made portable, with a hash of it where that is not the name alone.

    The file of a patient does not depend on who else is there, unless names differ in nothing but case: no page of one
    patient can come to stand under the name of another.
    """
    folded = [patient.casefold() for patient in patients]
    found = {}
    for patient in patients:
        stem = make_id(patient, ())
        if stem == "field" != patient:
            stem = "patient"
        alone = stem == patient and folded.count(patient.casefold()) == 1 and patient.casefold() not in _TAKEN
        mark = "" if alone else f"-{hashlib.sha256(patient.encode('utf-8', 'backslashreplace')).hexdigest()[:10]}"
        found[patient] = f"{stem}{mark}.html"
    return found


def gather(
    study: Study, told: Study | PseudonymousStudy, settings: RunSettings, problems: Sequence[tuple[str, str]] = ()
) -> Cohort:
    """Gather what the pages of a study say; `told` is the study itself, or the same under pseudonyms."""
    from napari_dinobloom.report.cohort import Cohort
    from napari_dinobloom.report.reported import ReportInput

    said = results.what_is_said(told, settings, classify.find_atlas(settings), problems)
    names = told.pseudonyms if isinstance(told, PseudonymousStudy) else None
    model, outdated = _model(study, names)
    return Cohort.of(
        ReportInput.of(told, **said),
        crops=results.crops_of(study),
        hashes=hashes(study, settings),
        model=model,
        outdated=outdated,
        given=_given(study, names),
        warnings=_warnings(told.cells.obs, said["atlas_info"]),
    )


def _warnings(obs: pd.DataFrame, atlas: Mapping[str, object]) -> dict[str, list[str]]:
    """Which slides of each patient are unlike the reference, in words."""
    from napari_dinobloom.predict.novelty import slide_warning
    from napari_dinobloom.report.flagged import limit_of

    limit = limit_of(atlas)
    if limit != limit:
        return {}
    living = obs[~obs["deleted"].to_numpy(bool)]
    return {
        str(patient): slide_warning(own["distance"].to_numpy(float), own["slide"].astype(str).to_list(), limit)
        for patient, own in living.groupby("patient")
    }


def hashes(study: Study, settings: RunSettings) -> dict[str, str]:
    """SHA-256 of the files that hold the numbers and the acts of people, and a digest of the settings."""
    found = {}
    for title, name in (("Cell table, cells.h5ad", "cells.h5ad"), ("Acts of people, edits.jsonl", "edits.jsonl")):
        path = study.path / name
        if path.is_file():
            with path.open("rb") as file:
                found[title] = hashlib.file_digest(file, "sha256").hexdigest()
    notes = dict(study.cells.uns.get("dinobloom", {}))
    found["Encoder weights"] = str(notes.get("encoder_sha256", ""))
    named_by = sorted({str(name) for name in study.cells.obs["predicted_by"]} - {""})
    found["Named by"] = ", ".join(named_by)
    found["Settings"] = digest(settings.to_dict())
    return {title: value for title, value in found.items() if value}


def _given(study: Study, names: Pseudonyms | None) -> dict[str, str]:
    """Group of each patient, as people gave it."""
    from napari_dinobloom.pipeline.patient_groups import groups_of

    known = groups_of(study)
    return {alias: known[patient] for patient, alias in _told(known, names).items()}


def _told(patients: Iterable[str], names: Pseudonyms | None) -> dict[str, str]:
    """What each patient is called in pages; under pseudonyms those who are not in the study are left out."""
    if names is None:
        return {patient: patient for patient in patients}
    known = {"": "", **names.names["patients"]}
    return {patient: known[patient] for patient in patients if patient in known}


def _model(study: Study, names: Pseudonyms | None) -> tuple[PatientModel | None, str]:
    """What a model of patients says, if the study has one; where it does not hold any more nothing, and why."""
    from napari_dinobloom.explore.cell_attention import attention_of
    from napari_dinobloom.pipeline.patients import OUTDATED, fits, patient_result
    from napari_dinobloom.report.cohort import PatientModel

    result = patient_result(study)
    if result is None or not fits(study, result):
        return None, "" if result is None else OUTDATED
    notes: Sequence[str] = result.notes
    if names is not None:
        notes = [told for note in notes if (told := names.in_text(note, result.classes))]
    model = PatientModel(
        predictions=predictions(result, names),
        scores=result.scores,
        attention=attention_of(study.cells, result.model.name),
        notes=notes,
        recommended=result.recommended,
    )
    return model, ""


def predictions(result: PatientResult, names: Pseudonyms | None = None) -> dict[str, Prediction]:
    """The predicted group of each patient, under pseudonyms where there are `names`."""
    from napari_dinobloom.report.cohort import Prediction, Share

    told = _told(result.table["patient"].astype(str), names)
    found = {}
    for row in result.table.to_dict("records"):
        if (patient := str(row["patient"])) not in told or not row["predicted_group"]:
            continue
        shares = [Share(name, _number(row, f"p:{name}"), _number(row, f"mean:{name}")) for name in result.classes]
        found[told[patient]] = Prediction(
            predicted=str(row["predicted_group"]), shares=tuple(shares), out_of_fold=bool(row["out_of_fold"])
        )
    return found


def _number(row: Mapping[object, object], name: str) -> float | None:
    """A number of a table, None where it is missing."""
    value = row.get(name)
    return None if not isinstance(value, float) or value != value else value
