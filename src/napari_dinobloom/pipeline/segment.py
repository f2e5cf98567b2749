"""Second step: the cells of every field.

A field's masks are one file, written when the field is done and keyed by its content and the settings, so that a run
that was stopped goes on with the next field. Cell ids last: a cell that overlaps one of an earlier segmentation with
an intersection over union of at least 0.5 keeps its number, and numbers are never given twice.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_dinobloom.cells import background, measures, picture, stain
from napari_dinobloom.cells import crop as crops
from napari_dinobloom.cells import scale as scales
from napari_dinobloom.cells import segment as segmentation
from napari_dinobloom.cells.scale import Scale
from napari_dinobloom.cells.segmenter import NAMES, Segmenter, get_segmenter, segmenters_of
from napari_dinobloom.errors import ImageError, StudyError
from napari_dinobloom.io.celltable import MEASURES
from napari_dinobloom.io.masks import FieldMasks, key_of
from napari_dinobloom.pipeline.read import failed
from napari_dinobloom.pipeline.settings import RunSettings, digest
from napari_dinobloom.pipeline.table import rebuilt, settled
from napari_dinobloom.progress import Progress, Steps, drain

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
    return digest(record.sha256, settings.pixel_size_um, method)


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


def iter_segment_study(study: Study, settings: RunSettings) -> Steps[list[tuple[str, str]]]:
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
    for left in {_tiles_of(study, r) for r in fields} - {_tiles_of(study, r) for r in todo}:
        shutil.rmtree(left, ignore_errors=True)  # a run was killed between the last tile and the sweeping
    problems: list[tuple[str, str]] = []
    records = {record.id: record for record in study.fields}
    yield Progress(0, len(todo), "")
    done = 0
    for record, result in _segmented(study, todo, settings, chosen):
        if isinstance(result, Exception):
            records[record.id] = failed(record, result, study.locate(record.id))
            problems.append((record.file, records[record.id].problem))
        elif isinstance(result, Progress):
            yield Progress(done, len(todo), f"{record.id}: {result.message} {result.done} of {result.total}")
            continue
        else:
            records[record.id] = replace(record, problem=_in_short(result.notes))
            if records[record.id] != record:  # before the masks, with which the field is done
                study.update(fields=list(records.values()))
            _store(study, record, result, keys[record.id])
        done += 1
        yield Progress(done, len(todo), record.id)
    if records != {record.id: record for record in study.fields}:
        study.update(fields=list(records.values()))
    if fields := usable(study):
        study.save_cells(rebuilt(study, fields))
    return problems


Result = segmentation.Cells | Exception


def _segmented(
    study: Study, todo: Sequence[FieldRecord], settings: RunSettings, chosen: Mapping[str, Segmenter | None]
) -> Iterator[tuple[FieldRecord, Result | Progress]]:
    """Cells of each field in order, small fields a few ahead in threads, large ones tile by tile."""
    workers = max(1, min(4, os.cpu_count() or 1))
    waiting: deque[tuple[FieldRecord, Future[Result] | None]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for record in [*todo, None]:
                if record is not None:
                    large = record.height * record.width > segmentation.IN_MEMORY
                    work = None if large else pool.submit(_cells_of, study, record, settings, chosen[record.id])
                    waiting.append((record, work))
                while waiting and (record is None or len(waiting) > 2 * workers):
                    first, future = waiting.popleft()
                    if future is None:
                        yield from _by_tiles(study, first, settings, chosen[first.id])
                    else:
                        yield first, future.result()
        finally:
            for _, future in waiting:
                if future is not None:
                    future.cancel()


def _cells_of(study: Study, record: FieldRecord, settings: RunSettings, segmenter: Segmenter | None) -> Result:
    """Segment one field; a picture that cannot be used gives its error."""
    try:
        image = study.read_field(record.id).load()
        if segmenter is None:
            return _whole_picture(image)
        return _from_file(drain(_iter_cells(image, record, settings, segmenter)), record, settings)
    except ImageError as error:
        return error


def _tiles_of(study: Study, record: FieldRecord) -> Path:
    """Folder of the finished tiles of a large field."""
    return study.path / "masks" / f"{record.id}.tiles"


def _by_tiles(
    study: Study, record: FieldRecord, settings: RunSettings, segmenter: Segmenter | None
) -> Iterator[tuple[FieldRecord, Result | Progress]]:
    """Segment a large field without ever holding it; finished tiles outlast a kill and go when the field is done."""
    if segmenter is None:
        yield record, _cells_of(study, record, settings, None)
        return
    scratch = _tiles_of(study, record)
    finished = scratch / field_key(record, settings, segmenter)
    try:
        steps = _iter_cells(study.read_field(record.id).image, record, settings, segmenter, finished)
        while True:
            try:
                yield record, next(steps)
            except StopIteration as end:
                yield record, _from_file(end.value, record, settings)
                break
    except ImageError as error:
        yield record, error
    shutil.rmtree(scratch, ignore_errors=True)


def _iter_cells(
    image: Any, record: FieldRecord, settings: RunSettings, segmenter: Segmenter, scratch: Path | None = None
) -> Steps[segmentation.Cells]:
    """Segment a picture with the scale that is known of it."""
    size = settings.pixel_size_um or record.pixel_size_um
    return segmentation.iter_segment(image, size, segmenter=segmenter, scratch=scratch)


def _from_file(cells: segmentation.Cells, record: FieldRecord, settings: RunSettings) -> segmentation.Cells:
    """Say that the scale came from the file, where it did."""
    if settings.pixel_size_um is None and record.pixel_size_um is not None:
        return replace(cells, scale=replace(cells.scale, source="file"))
    return cells


def _in_short(notes: Sequence[str]) -> str:
    """Notes as one line of the length that a field's record may have."""
    plain = "".join(char if char.isprintable() else " " for char in " ".join(notes))
    text = " ".join(plain.split())
    return text if len(text) <= LONGEST_NOTE else f"{text[:LONGEST_NOTE]} ... ({len(notes)} notes in all)"


def _whole_picture(image: np.ndarray[Any, Any]) -> segmentation.Cells:
    """One cell that fills the picture, with nothing measured."""
    height, width = image.shape[:2]
    whole = np.ones((height, width), bool)
    box = np.array([[0, 0, height, width]], np.int32)
    masks = FieldMasks(box, np.array([1], np.int32), [whole], [np.zeros_like(whole)])
    table = pd.DataFrame({"label": [1], "y0": [0], "x0": [0], "y1": [height], "x1": [width], "quality": ["ok"]})
    table = table.assign(area_px=height * width, nucleus_area_px=0, lobes=0, touches_border=False)
    unknown = [name for name in MEASURES if name not in table]
    table = table.assign(**dict.fromkeys(unknown, np.nan))
    return segmentation.Cells(masks, table, Scale(scales.ASSUMED_UM, "assumed"), (height, width))


def _store(study: Study, record: FieldRecord, cells: segmentation.Cells, key: str) -> None:
    """Number the cells of a field and write its masks."""
    masks = cells.masks
    masks, table = settled(study, record, masks, cells.table)
    scale = {"pixel_size_um": cells.scale.pixel_size_um, "source": cells.scale.source, "red": cells.scale.red_cells}
    text = table.assign(**{f"scale_{k}": v for k, v in scale.items()}).to_json(orient="table", index=False)
    if not len(table):  # an empty table has no row to carry the scale
        text = pd.DataFrame([scale]).add_prefix("scale_").to_json(orient="table", index=False)
    study.save_masks(record.id, masks, text, key)
