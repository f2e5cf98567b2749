"""The cells of one field: what a thread of this process, or a process elsewhere, does for the second step.

A process elsewhere leaves them in the field's scratch folder, from where the one that asked takes them into the study;
so they outlast the end of either. The folder goes when the field is done.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_dinobloom.cells import learned
from napari_dinobloom.cells import scale as scales
from napari_dinobloom.cells import segment as segmentation
from napari_dinobloom.cells.picture import as_picture, look_over
from napari_dinobloom.cells.scale import Scale
from napari_dinobloom.cells.segmenter import Segmenter
from napari_dinobloom.errors import ImageError, StudyError
from napari_dinobloom.io.atomic import disk_errors
from napari_dinobloom.io.celltable import MEASURES
from napari_dinobloom.io.fields import FieldRecord
from napari_dinobloom.io.masks import FieldMasks, key_of, load_masks, save_masks
from napari_dinobloom.io.smear import read_smear
from napari_dinobloom.pipeline.quality import iter_region
from napari_dinobloom.pipeline.settings import RunSettings
from napari_dinobloom.progress import Steps, drain

FOUND = "cells.npz"
"""File in the scratch folder of a field with the cells that a process elsewhere found."""

TILES = 4
"""Tiles of a large field, about, that a process elsewhere does in one go."""


@dataclass(frozen=True, slots=True)
class FieldJob:
    """One field to segment.

    Attributes
    ----------
    record : FieldRecord
        The field.
    picture : Path
        Its image.
    settings : RunSettings
        Of the run.
    segmenter : Segmenter or None
        What finds the cells; None where the whole picture is one.
    key : str
        Of the masks.
    scratch : Path
        Folder for what outlasts a kill, ``masks/FIELD.tiles/KEY``: finished tiles of a large field, and `FOUND`.
    part : (int, int) or None
        Only finish the tiles of part i of n of a large field.
    """

    record: FieldRecord
    picture: Path
    settings: RunSettings
    segmenter: Segmenter | None
    key: str
    scratch: Path
    part: tuple[int, int] | None = None

    @property
    def large(self) -> bool:
        """Whether the field is segmented tile by tile, never held whole."""
        return self.segmenter is not None and self.record.height * self.record.width > segmentation.IN_MEMORY

    def parts(self) -> list[FieldJob]:
        """Cut a large field into the parts that several can do at once; none where it has no tiles to share."""
        if not (self.large and isinstance(self.segmenter, learned.LearnedSegmenter)):
            return []
        rows, columns = (-(-n // self.segmenter.tile) for n in (self.record.height, self.record.width))
        count = -(-rows * columns // TILES)
        return [replace(self, part=(i, count)) for i in range(count)] if count > 1 else []


def find_cells(job: FieldJob) -> segmentation.Cells | ImageError:
    """Segment a field that is held whole; a picture that cannot be used gives its error."""
    try:
        image = read_smear(job.picture).load()
        return _whole_picture(image) if job.segmenter is None else drain(_iter_cells(image, job, job.segmenter))
    except ImageError as error:
        return error


def iter_find_cells(job: FieldJob) -> Steps[segmentation.Cells | ImageError]:
    """Segment a large field without ever holding it; finished tiles outlast a kill."""
    if job.segmenter is None:
        return find_cells(job)
    try:
        return (yield from _iter_cells(read_smear(job.picture).image, job, job.segmenter))
    except ImageError as error:
        return error


def leave_cells(job: FieldJob) -> ImageError | None:
    """Segment a field, or a part of a large one, and leave the cells in its scratch folder."""
    if _is_stored(job) or (job.part is None and collect_cells(job) is not None):  # by one whose answer was lost
        return None
    if job.part is not None:
        return _leave_tiles(job)
    cells = drain(iter_find_cells(job)) if job.large else find_cells(job)
    if isinstance(cells, ImageError):
        return cells
    about = {
        "scale": asdict(cells.scale),
        "shape": cells.shape,
        "notes": cells.notes,
        "segmenter": cells.segmenter,
        "licence": cells.licence,
        "table": cells.table.to_dict("list"),
        "types": {name: str(kind) for name, kind in cells.table.dtypes.items()},
    }
    path = job.scratch / FOUND
    if _is_stored(job):  # another was faster, and the scratch folder is gone for good
        return None
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    save_masks(path, cells.masks, json.dumps(about), job.key)
    return None


def _is_stored(job: FieldJob) -> bool:
    """Whether the one that asked has taken these cells into the study."""
    return key_of(job.scratch.parents[1] / f"{job.record.id}.npz") == job.key


def collect_cells(job: FieldJob) -> segmentation.Cells | None:
    """Read the cells that `leave_cells` left; None where it did not."""
    try:
        masks, text, key = load_masks(job.scratch / FOUND)
    except StudyError:  # not there, or damaged
        return None
    if key != job.key:
        return None
    about = json.loads(text)
    table = pd.DataFrame(about["table"]).astype(about["types"])
    scale, shape = Scale(**about["scale"]), (int(about["shape"][0]), int(about["shape"][1]))
    return segmentation.Cells(masks, table, scale, shape, tuple(about["notes"]), about["segmenter"], about["licence"])


def _leave_tiles(job: FieldJob) -> ImageError | None:
    """Finish the tiles of a part of a large field; nothing is measured."""
    if not isinstance(job.segmenter, learned.LearnedSegmenter):
        return None  # it has none
    finder = replace(job.segmenter.tiled(None, job.scratch), part=job.part)
    try:
        image = as_picture(read_smear(job.picture).image)
        region, _ = drain(iter_region(job))
        seen = look_over(image, _size(job), region)
        if region is not None:
            finder = finder.within(region)
        if seen.usable:
            drain(finder.iter_find(image, seen.scale, light=seen.light))
    except ImageError as error:
        return error
    return None


def _iter_cells(image: Any, job: FieldJob, segmenter: Segmenter) -> Steps[segmentation.Cells]:
    """Segment a picture with the scale that is known of it."""
    scratch = job.scratch if job.large else None
    region, notes = yield from iter_region(job)
    cells = yield from segmentation.iter_segment(image, _size(job), segmenter=segmenter, scratch=scratch, region=region)
    cells = replace(cells, notes=notes + cells.notes)
    if job.settings.pixel_size_um is None and job.record.pixel_size_um is not None:
        return replace(cells, scale=replace(cells.scale, source="file"))
    return cells


def _size(job: FieldJob) -> float | None:
    """Micrometres per pixel, where they are known."""
    return job.settings.pixel_size_um or job.record.pixel_size_um


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
