"""Second step: the cells of every field.

A field's masks are one file, written when the field is done and keyed by its content and the settings, so that a run
that was stopped goes on with the next field. Cell ids last: a cell that overlaps one of an earlier segmentation with
an intersection over union of at least 0.5 keeps its number, and numbers are never given twice.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_dinobloom.cells import background, cytoplasm, drawing, material, measures, nuclei, stain
from napari_dinobloom.cells import crop as crops
from napari_dinobloom.cells import scale as scales
from napari_dinobloom.cells import segment as segmentation
from napari_dinobloom.cells.scale import Scale
from napari_dinobloom.errors import ImageError
from napari_dinobloom.io.masks import FieldMasks, key_of
from napari_dinobloom.pipeline.read import failed
from napari_dinobloom.pipeline.settings import RunSettings, digest
from napari_dinobloom.pipeline.table import rebuilt, settled
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.io.fields import FieldRecord
    from napari_dinobloom.io.study import Study

METHOD = [m.VERSION for m in (segmentation, background, cytoplasm, drawing, material, measures, nuclei, scales, stain)]
"""Version of every part of the segmentation, so that a change of any of them segments anew."""


def usable(study: Study) -> list[FieldRecord]:
    """Fields that take part: readable, and not the same picture as another."""
    return [record for record in study.fields if record.status == "ok"]


def field_key(record: FieldRecord, settings: RunSettings) -> str:
    """Key of a field's masks: its bytes, its scale, the method and its version."""
    method: object = "whole picture"
    if not settings.cells:
        method = (METHOD, segmentation.SegmentSettings().to_dict())
    return digest(record.sha256, settings.pixel_size_um, method)


def step_key(study: Study, settings: RunSettings) -> str:
    """Key of the whole step: every field's key, with the slide and patient that it counts for."""
    fields = usable(study)
    return digest([(r.id, field_key(r, settings), r.slide, r.patient) for r in fields], crops.VERSION)


def iter_segment_study(study: Study, settings: RunSettings) -> Steps[list[tuple[str, str]]]:
    """Segment what is new or changed, then rebuild the rows of the cell table.

    Returns
    -------
    list of (str, str)
        Fields whose pixels turned out to be unusable, with the reason; they are marked as failed in the study.
    """
    fields = usable(study)
    todo = [r for r in fields if key_of(study.masks_path(r.id)) != field_key(r, settings)]
    problems: list[tuple[str, str]] = []
    records = {record.id: record for record in study.fields}
    yield Progress(0, len(todo), "")
    for done, (record, result) in enumerate(_segmented(study, todo, settings), start=1):
        if isinstance(result, Exception):
            records[record.id] = failed(record, result, study.locate(record.id))
            problems.append((record.file, records[record.id].problem))
        else:
            _store(study, record, result, field_key(record, settings))
        yield Progress(done, len(todo), record.id)
    if problems:
        study.update(fields=list(records.values()))
    if fields := usable(study):
        study.save_cells(rebuilt(study, fields))
    return problems


def _segmented(
    study: Study, todo: Sequence[FieldRecord], settings: RunSettings
) -> Iterator[tuple[FieldRecord, segmentation.Cells | Exception]]:
    """Cells of each field in order, computed a few fields ahead in threads."""
    workers = max(1, min(4, os.cpu_count() or 1))
    waiting: deque[tuple[FieldRecord, Future[segmentation.Cells | Exception]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for record in todo:
                waiting.append((record, pool.submit(_cells_of, study, record, settings)))
                if len(waiting) > 2 * workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def _cells_of(study: Study, record: FieldRecord, settings: RunSettings) -> segmentation.Cells | Exception:
    """Segment one field; a picture that cannot be used gives its error."""
    try:
        image = study.read_field(record.id).load()
    except ImageError as error:
        return error
    if settings.cells:
        return _whole_picture(image)
    size = settings.pixel_size_um or record.pixel_size_um
    cells = segmentation.segment(image, size)
    if settings.pixel_size_um is None and record.pixel_size_um is not None:
        return replace(cells, scale=replace(cells.scale, source="file"))
    return cells


def _whole_picture(image: np.ndarray[Any, Any]) -> segmentation.Cells:
    """One cell that fills the picture, with nothing measured."""
    height, width = image.shape[:2]
    labels = np.ones((height, width), np.int32)
    table = pd.DataFrame({"label": [1], "y0": [0], "x0": [0], "y1": [height], "x1": [width], "quality": ["ok"]})
    unknown = {"nc_ratio", "solidity", "circularity", "focus"}
    table = table.assign(area_px=height * width, nucleus_area_px=0, lobes=0, touches_border=False)
    table = table.assign(**dict.fromkeys(unknown, np.nan))
    return segmentation.Cells(labels, np.zeros_like(labels), table, Scale(scales.ASSUMED_UM, "assumed"))


def _store(study: Study, record: FieldRecord, cells: segmentation.Cells, key: str) -> None:
    """Number the cells of a field and write its masks."""
    masks = FieldMasks.from_labels(cells.labels, cells.nuclei, numbers=cells.table["label"].to_numpy())
    masks, table = settled(study, record, masks, cells.table)
    scale = {"pixel_size_um": cells.scale.pixel_size_um, "source": cells.scale.source, "red": cells.scale.red_cells}
    text = table.assign(**{f"scale_{k}": v for k, v in scale.items()}).to_json(orient="table", index=False)
    if not len(table):  # an empty table has no row to carry the scale
        text = pd.DataFrame([scale]).add_prefix("scale_").to_json(orient="table", index=False)
    study.save_masks(record.id, masks, text, key)
