"""Second step: the cells of every field.

A field's masks are one file, written when the field is done and keyed by its content and the settings, so that a run
that was stopped goes on with the next field. Cell ids last: a cell that overlaps one of an earlier segmentation with
an intersection over union of at least 0.5 keeps its number, and numbers are never given twice.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from napari_dinobloom.cells import background, measures, monolayer, picture, stain
from napari_dinobloom.cells import crop as crops
from napari_dinobloom.cells import scale as scales
from napari_dinobloom.cells import segment as segmentation
from napari_dinobloom.cells.segmenter import NAMES, Segmenter, get_segmenter, segmenters_of
from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.masks import key_of
from napari_dinobloom.pipeline.field_cells import FieldJob, collect_cells, find_cells, iter_find_cells, leave_cells
from napari_dinobloom.pipeline.quality import is_slide, leave_map
from napari_dinobloom.pipeline.read import failed
from napari_dinobloom.pipeline.settings import RunSettings, digest
from napari_dinobloom.pipeline.table import rebuilt, settled
from napari_dinobloom.pipeline.workers import Threads, Workers
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.io.fields import FieldRecord
    from napari_dinobloom.io.study import Study

LONGEST_NOTE = 900
"""Characters of notes that a field's record keeps."""

METHOD = [m.VERSION for m in (segmentation, background, measures, picture, scales, stain)]
"""Version of every part of the segmentation but the segmenter, so that a change of any of them segments anew."""


def usable(study: Study) -> list[FieldRecord]:
    """Fields that take part: readable, and not the same picture as another."""
    return [record for record in study.fields if record.status == "ok"]


def field_key(record: FieldRecord, settings: RunSettings, segmenter: Segmenter | None) -> str:
    """Key of a field's masks: its bytes, its scale, the method and its version."""
    method: object = "whole picture" if segmenter is None else (METHOD, segmenter.key)
    sought = [settings.search, monolayer.VERSION] if is_slide(record, segmenter) else []
    return digest(record.sha256, settings.pixel_size_um, method, *sought)


def step_key(study: Study, settings: RunSettings) -> str:
    """Key of the whole step: every field's key, with the slide and patient that it counts for."""
    fields = usable(study)
    chosen = _segmenters(study, fields, settings)
    return digest([(r.id, field_key(r, settings, chosen[r.id]), r.slide, r.patient) for r in fields], crops.VERSION)


def _segmenters(study: Study, fields: Sequence[FieldRecord], settings: RunSettings) -> dict[str, Segmenter | None]:
    """What finds the cells of each field; None where the whole picture is the cell."""
    if settings.cells:
        return dict.fromkeys((r.id for r in fields), None)
    if settings.segmenter in NAMES:
        return dict.fromkeys((r.id for r in fields), get_segmenter(settings.segmenter, accept_licence=True))
    places = {}
    for record in fields:
        places[record.id] = Path(record.file)  # where the picture's disk is gone, what was found in it stays
        with suppress(StudyError):
            places[record.id] = study.locate(record)
    marks = study.path / settings.segmenter  # what the study keeps itself is named by its place in it
    return dict(segmenters_of(marks, places, accept_licence=True))  # `resolve` has asked


def iter_segment_study(
    study: Study, settings: RunSettings, workers: Workers | None = None
) -> Steps[list[tuple[str, str]]]:
    """Segment what is new or changed, then rebuild the rows of the cell table.

    What was odd about a field that is used stands in its record's ``problem``.

    Returns
    -------
    list of (str, str)
        Fields whose pixels turned out to be unusable, with the reason; they are marked as failed in the study.
    """
    fields = usable(study)
    chosen = _segmenters(study, fields, settings)
    keys = {r.id: field_key(r, settings, chosen[r.id]) for r in fields}
    todo = [r for r in fields if key_of(study.masks_path(r.id)) != keys[r.id]]
    for left in {_scratch(study, r) for r in fields} - {_scratch(study, r) for r in todo}:
        shutil.rmtree(left, ignore_errors=True)  # a run was killed between the last tile and the sweeping
    jobs = [
        FieldJob(
            r,
            study.locate(r),
            settings,
            chosen[r.id],
            keys[r.id],
            _scratch(study, r) / keys[r.id],
        )
        for r in todo
    ]
    problems: dict[str, str] = {}
    records = {record.id: record for record in study.fields}
    yield Progress(0, len(jobs), "")
    done = 0
    for job, result in _segmented(jobs, workers or Threads()):
        record = job.record
        if isinstance(result, Progress):
            yield Progress(done, len(jobs), f"{record.id}: {result.message} {result.done} of {result.total}")
            continue
        if isinstance(result, Exception):
            records[record.id] = failed(record, result, job.picture)
            problems[record.id] = records[record.id].problem
        else:
            records[record.id] = replace(record, problem=_in_short(result.notes))
        if records[record.id] != record:  # before the masks, with which the field is done
            study.update(fields=list(records.values()))
        if not isinstance(result, Exception):
            _store(study, record, result, job.key)
        shutil.rmtree(_scratch(study, record), ignore_errors=True)
        done += 1
        yield Progress(done, len(jobs), record.id)
    for job in jobs:  # a field may have been done twice, where a worker was lost
        shutil.rmtree(_scratch(study, job.record), ignore_errors=True)
    if fields := usable(study):
        study.save_cells(rebuilt(study, fields))
    return [(job.record.file, problems[job.record.id]) for job in jobs if job.record.id in problems]


Result = segmentation.Cells | Exception


Answers = Iterator[tuple[FieldJob, Result | Progress]]


def _segmented(jobs: Sequence[FieldJob], workers: Workers) -> Answers:
    """Cells of each field as they come: of those held whole several at once, large ones tile by tile."""
    if workers.apart:
        yield from _segmented_apart(jobs, workers)
        return
    small = [job for job in jobs if not job.large]
    for place, result in workers.map(find_cells, small):
        yield small[place], result
    for job in jobs:
        if job.large:
            yield from _drained(job)


def _drained(job: FieldJob) -> Answers:
    """The tiles of a large field, and at the end its cells."""
    steps = iter_find_cells(job)
    while True:
        try:
            yield job, next(steps)
        except StopIteration as end:
            yield job, end.value
            return


def _segmented_apart(jobs: Sequence[FieldJob], workers: Workers) -> Answers:
    """Cells of each field as other processes leave them; of large ones first the tiles, which are then put together."""
    lost: set[str] = set()
    for _ in workers.map(leave_map, [job for job in jobs if is_slide(job.record, job.segmenter)]):
        pass  # one that could not be made is made by the parts, which say what is wrong
    first = [part for job in jobs for part in (job.parts() or [job])]
    for job, answer in _left(first, workers):
        if isinstance(answer, Exception) and job.record.id not in lost:
            lost.add(job.record.id)
            yield job, answer
        elif job.part is None:
            yield job, answer
        else:
            yield job, Progress(job.part[0] + 1, job.part[1], "part")
    yield from _left([job for job in jobs if job.parts() and job.record.id not in lost], workers)


def _left(jobs: Sequence[FieldJob], workers: Workers) -> Iterator[tuple[FieldJob, Any]]:
    """What other processes leave for each job: its cells, None for a part, or what went wrong.

    What was left before the last run was stopped is taken as it is.
    """
    waiting = []
    for job in jobs:
        cells = None if job.part else collect_cells(job)
        if cells is None:
            waiting.append(job)
        else:
            yield job, cells
    for place, answer in workers.map(leave_cells, waiting):
        job = waiting[place]
        if answer is None and job.part is None:
            answer = collect_cells(job) or StudyError(f"{job.scratch}: the cells that a worker left are not there.")
        yield job, answer


def _scratch(study: Study, record: FieldRecord) -> Path:
    """Folder of what outlasts a kill while a field is segmented."""
    return study.path / "masks" / f"{record.id}.tiles"


def _in_short(notes: Sequence[str]) -> str:
    """Notes as one line of the length that a field's record may have."""
    plain = "".join(char if char.isprintable() else " " for char in " ".join(notes))
    text = " ".join(plain.split())
    return text if len(text) <= LONGEST_NOTE else f"{text[:LONGEST_NOTE]} ... ({len(notes)} notes in all)"


def _store(study: Study, record: FieldRecord, cells: segmentation.Cells, key: str) -> None:
    """Number the cells of a field and write its masks."""
    masks = cells.masks
    masks, table = settled(study, record, masks, cells.table)
    scale = {"pixel_size_um": cells.scale.pixel_size_um, "source": cells.scale.source, "red": cells.scale.red_cells}
    text = table.assign(**{f"scale_{k}": v for k, v in scale.items()}).to_json(orient="table", index=False)
    if not len(table):  # an empty table has no row to carry the scale
        text = pd.DataFrame([scale]).add_prefix("scale_").to_json(orient="table", index=False)
    study.save_masks(record.id, masks, text, key)
