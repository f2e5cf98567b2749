"""First step: from inputs to the fields of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_dinobloom.errors import ImageError, InputError, StudyError
from napari_dinobloom.io.fields import INSIDE, FieldRecord, make_id, stem_of
from napari_dinobloom.io.fingerprint import fingerprint_of
from napari_dinobloom.io.inputs import Grouping, Inputs, Problem, Source, find_images
from napari_dinobloom.pipeline.settings import RunSettings
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study

Given = str | Path
KEPT = "fields"


@dataclass(frozen=True, slots=True)
class Found:
    """What the inputs of a run are, before any study is touched.

    Attributes
    ----------
    sources : tuple of Source
        Pictures, sorted.
    slides, patients : tuple of str
        Slide and patient of each.
    problems : tuple of Problem
        Inputs that gave no picture.
    """

    sources: tuple[Source, ...]
    slides: tuple[str, ...]
    patients: tuple[str, ...]
    problems: tuple[Problem, ...]


def find(inputs: Sequence[Given], settings: RunSettings) -> Found:
    """Find the pictures of a run and what slide and patient they belong to; touches no file but reads names.

    Raises
    ------
    InputError
        If there is no picture at all, or a grouping does not fit.
    """
    found: Inputs = find_images(inputs)
    if inputs and not found.files:
        raise InputError("Nothing to do. " + " ".join(f"{p.name}: {p.message}" for p in found.problems))
    slides = Grouping.parse(settings.slide_from, "slide").groups(found.files)
    patients = slides
    if settings.patient_from != "slide":
        patients = Grouping.parse(settings.patient_from, "patient").groups(found.files)
    return Found(tuple(found.files), tuple(slides), tuple(patients), tuple(found.problems))


def set_aside(study: Study, found: Found) -> Found:
    """Add to the inputs of a run the pictures of its study that were set aside, each for the slide that it was of."""
    given = {source.path.resolve() for source in found.sources}
    sources, slides, patients = list(found.sources), list(found.slides), list(found.patients)
    problems = list(found.problems)
    for record in study.fields:
        if record.status != "failed":
            continue
        try:
            path = study.locate(record)
        except StudyError as error:
            problems.append(Problem(record.file, str(error)))
            continue
        if path.resolve() not in given:
            sources.append(Source(path, path.parents[record.file.count("/")], record.file))
            slides.append(record.slide)
            patients.append(record.patient)
    return Found(tuple(sources), tuple(slides), tuple(patients), tuple(problems))


def iter_read(study: Study, found: Found, *, retry: bool = False) -> Steps[list[Problem]]:
    """Take the pictures into the study: hash them, read their headers, give them ids; known ones stay as they are.

    A picture whose content changed keeps its field. A picture with the bytes of another field is noted and left out.
    One that was set aside stays so while its bytes are the same, unless it is to be tried again (`retry`).

    Returns
    -------
    list of Problem
        Pictures that cannot be used; they stay in the study as failed fields.
    """
    records = {record.id: record for record in study.fields}
    places = {(record.root, record.file): record.id for record in study.fields}
    first = {r.sha256: r.id for r in study.fields if r.status == "ok" and r.sha256}
    problems: list[Problem] = []
    for i, source in enumerate(found.sources):
        yield Progress(i, len(found.sources), source.path.name)
        root, file = _root(study, source)
        known = records.get(places.get((root, file), ""))
        if retry and known and known.status == "failed":
            known = replace(known, sha256="")
        record, problem = _look(source, known, root, file, set(records))
        groups = (found.slides[i], found.patients[i])
        if root == INSIDE:  # pictures that the study keeps itself lie in a folder whose name says nothing
            groups = (study.name if groups[0] == KEPT else groups[0], study.name if groups[1] == KEPT else groups[1])
        record = replace(record, slide=groups[0], patient=groups[1])
        twin = first.get(record.sha256, record.id) if record.status == "ok" else record.id
        if twin != record.id:
            record = replace(record, status="same_as", problem=twin)
        elif record.status == "ok":
            first[record.sha256] = record.id
        if problem:
            problems.append(Problem(str(source.path), problem))
        records[record.id] = record
        places[root, file] = record.id
    if list(records.values()) != study.fields:
        study.update(fields=list(records.values()))
    yield Progress(len(found.sources), len(found.sources), f"{len(found.sources)} pictures")
    return problems


def _root(study: Study, source: Source) -> tuple[str, str]:
    """Root id and path below it by which the study knows a source."""
    if source.path.resolve().is_relative_to(study.path.resolve()):
        return INSIDE, source.path.resolve().relative_to(study.path.resolve()).as_posix()
    return study.add_root(source.root), source.file


def _look(source: Source, known: FieldRecord | None, root: str, file: str, taken: set[str]) -> tuple[FieldRecord, str]:
    """Field record of one picture and what is wrong with it: the known record if the bytes are, else a fresh look."""
    from napari_dinobloom.io.smear import read_smear

    field_id = known.id if known else make_id(stem_of(source.path.name), taken)
    try:
        sha256 = fingerprint_of(source.path)
    except OSError as error:
        reason = f"cannot be read ({error.strerror or error}). Check that it exists and who may read it."
        if known and known.status == "ok":
            return known, reason  # what was found in it before is not lost
        return FieldRecord(id=field_id, file=file, root=root, status="failed", problem=reason), reason
    if known and known.sha256 == sha256 and known.status != "same_as":
        return known, known.problem if known.status == "failed" else ""
    blank = FieldRecord(id=field_id, file=file, root=root, sha256=sha256)
    try:
        smear = read_smear(source.path)
    except ImageError as error:
        reason = _reason(error, source.path)
        return replace(blank, status="failed", problem=reason), reason
    height, width = (int(n) for n in smear.image.shape[:2])
    return replace(blank, height=height, width=width, pixel_size_um=smear.pixel_size_um), ""


def _reason(error: Exception, path: Path) -> str:
    """Say what is wrong without the folder names of this machine, which a study does not carry."""
    return " ".join(str(error).replace(f"{path}: ", "").replace(str(path), path.name).split())[:900]


def failed(record: FieldRecord, error: Exception, path: Path) -> FieldRecord:
    """Return the record of a field whose pixels turned out to be unusable."""
    return replace(record, status="failed", problem=_reason(error, path))
