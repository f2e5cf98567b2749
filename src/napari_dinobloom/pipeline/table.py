"""The cell table from the masks of all fields, and the numbers of cells that are found again.

Known rows keep their place and what people said of them. A cell that overlaps an earlier one, as people left it, with
an intersection over union of at least 0.5 keeps its number, and numbers are never given twice. What people did wins:
their outlines are not replaced, and what they deleted does not come back.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_dinobloom.cells import scale as scales
from napari_dinobloom.cells.correct import within
from napari_dinobloom.cells.scale import Scale
from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.celltable import MEASURES, cell_id, split_cell_id
from napari_dinobloom.io.masks import FieldMasks, joined, load_masks
from napari_dinobloom.io.replay import rows_of
from napari_dinobloom.io.shapes import masks_of

if TYPE_CHECKING:
    from napari_dinobloom.io.fields import FieldRecord
    from napari_dinobloom.io.study import Study

SAME_CELL_IOU = 0.5
BROUGHT = "brought_class"
"""Column of the class that came along with marks of other programs; no hand label."""

COVERED = 0.5
"""Share of a newly found cell under outlines drawn by hand from which on it is the same stuff found again."""


@dataclass(frozen=True, slots=True)
class FieldCells:
    """Cells of one field: masks with their numbers, measures in the same order, and the field's own scale."""

    masks: FieldMasks
    table: pd.DataFrame
    scale: Scale


def load_cells(study: Study, record: FieldRecord) -> FieldCells:
    """Read the cells of one field back."""
    masks, text, _ = load_masks(study.masks_path(record.id))
    table = pd.read_json(io.StringIO(text), orient="table")
    first = table.iloc[0]
    scale = Scale(float(first["scale_pixel_size_um"]), first["scale_source"], int(first["scale_red"]))
    if "number" not in table:
        table = table.iloc[:0]
    brought = table.get(BROUGHT, "")
    return FieldCells(masks, table.reindex(columns=[*MEASURES, "number"]).assign(**{BROUGHT: brought}), scale)


def rebuilt(study: Study, fields: Sequence[FieldRecord]) -> Any:
    """Cell table from all masks and what people drew: known rows keep their place, new rows go to the end.

    Cells that are no longer found are marked as gone.
    """
    from anndata import AnnData

    loaded = {record.id: load_cells(study, record) for record in fields}
    pooled = {
        slide: scales.pool_scale([loaded[r.id].scale for r in fields if r.slide == slide])
        for slide in {r.slide for r in fields}
    }
    rows = [_rows(record, loaded[record.id], pooled[record.slide]) for record in fields]
    rows.append(_rows_by_hand(study, fields, loaded, pooled))
    fresh = pd.concat([part for part in rows if len(part)] or [rows[0]], ignore_index=True)
    fresh.index = pd.Index(fresh["cell_id"].to_numpy(dtype=object), dtype=object)
    old = study.cells.obs if (study.path / "cells.h5ad").exists() else fresh.iloc[:0]
    table = old.reindex(old.index.append(fresh.index.difference(old.index, sort=False)))
    gone = ~table.index.isin(fresh.index)
    for name in fresh.columns:
        column = table[name].astype(object) if name in table else pd.Series(np.nan, index=table.index, dtype=object)
        column.loc[fresh.index] = fresh[name].astype(object)
        table[name] = column
    table["gone"] = table["deleted"] = gone
    adata = AnnData(obs=table)
    adata.obsm["spatial"] = table[["x", "y"]].to_numpy(np.float32, copy=True)  # a view of a table may be read-only
    return adata


def _rows_by_hand(
    study: Study, fields: Sequence[FieldRecord], loaded: Mapping[str, FieldCells], pooled: Mapping[str, Scale]
) -> pd.DataFrame:
    """Rows of cells that only the journal knows; not of those that a picture which has shrunk no longer holds."""
    known = {record.id: record for record in fields}
    found = {field_id: set(cells.masks.numbers.tolist()) for field_id, cells in loaded.items()}
    mine = {}
    for cell, shape in study.hand_shapes().items():
        field_id, number = split_cell_id(cell)
        record = known.get(field_id)
        if record is not None and number not in found[field_id] and shape.fits(record.height, record.width):
            mine[cell] = shape
    rows = rows_of(mine, known)
    if len(rows):
        scale = [pooled[slide] for slide in rows["slide"]]
        rows = rows.assign(pixel_size_um=[s.pixel_size_um for s in scale], scale_from=[s.source for s in scale])
    return rows


def _rows(record: FieldRecord, cells: FieldCells, scale: Scale) -> pd.DataFrame:
    """Rows of the cell table for one field; the scale is its slide's."""
    boxes = cells.masks.boxes
    ids = [cell_id(record.id, int(number)) for number in cells.masks.numbers]
    place = {
        "cell_id": ids,
        "field": record.id,
        "slide": record.slide,
        "patient": record.patient,
        **{name: boxes[:, i] for i, name in enumerate(("y0", "x0", "y1", "x1"))},
        "y": (boxes[:, 0] + boxes[:, 2]) / 2,
        "x": (boxes[:, 1] + boxes[:, 3]) / 2,
        **{name: cells.table[name].to_numpy() for name in MEASURES},
        "pixel_size_um": scale.pixel_size_um,
        "scale_from": scale.source,
        BROUGHT: cells.table[BROUGHT].to_numpy(),
    }
    return pd.DataFrame(place, index=range(len(ids)))


@dataclass(frozen=True, slots=True)
class _Earlier:
    """Cells of a field before it was segmented again, with their outlines as people left them.

    `living`: not deleted; `by_hand`: drawn or changed by a person; both (n,) bool. `table`: measures of those that came
    from the segmentation, indexed by number.
    """

    masks: FieldMasks
    living: np.ndarray[Any, np.dtype[np.bool_]]
    by_hand: np.ndarray[Any, np.dtype[np.bool_]]
    table: pd.DataFrame


def settled(
    study: Study, record: FieldRecord, found: FieldMasks, measures: pd.DataFrame
) -> tuple[FieldMasks, pd.DataFrame]:
    """Give the cells that were found in a field their numbers, and keep what people decided.

    Parameters
    ----------
    study : Study
        Holds the earlier cells of the field.
    record : FieldRecord
        The field.
    found : FieldMasks
        What was found now; its numbers are not used.
    measures : DataFrame
        Columns `celltable.MEASURES`, in the order of `found`; `BROUGHT` where classes came along.

    Returns
    -------
    masks : FieldMasks
        What to store: without found cells that lie under those drawn by hand, and with deleted ones that were not
        found again, so that they are known if they are the next time.
    table : DataFrame
        Their measures, `BROUGHT`, and the column ``number``.
    """
    earlier = _earlier(study, record)
    numbers = _kept_numbers(found, earlier)
    drawn = earlier.masks.take(np.flatnonzero(earlier.living & earlier.by_hand).tolist())
    keep = np.array([bool(n) or not _covered(found, i, drawn) for i, n in enumerate(numbers)], bool)
    found, numbers = found.take(np.flatnonzero(keep).tolist()), numbers[keep]
    new = numbers == 0
    first = max(study.next_number(record.id), int(earlier.masks.numbers.max(initial=0)) + 1)
    numbers[new] = np.arange(first, first + int(new.sum()), dtype=np.int32)
    brought = measures[BROUGHT][keep] if BROUGHT in measures else ""
    table = measures[list(MEASURES)][keep].assign(**{BROUGHT: brought, "number": numbers})
    at = earlier.masks
    fits = (at.boxes[:, 2:] <= (record.height, record.width)).all(axis=1)
    lost = ~earlier.living & fits & ~np.isin(at.numbers, numbers) & np.isin(at.numbers, earlier.table.index)
    kept = at.take(np.flatnonzero(lost).tolist())
    rows = earlier.table.loc[kept.numbers.tolist(), [*MEASURES, BROUGHT]].assign(number=kept.numbers)
    parts = [part for part in (table, rows) if len(part)]
    return joined(replace(found, numbers=numbers), kept), pd.concat(parts or [table], ignore_index=True)


def _earlier(study: Study, record: FieldRecord) -> _Earlier:
    """Cells of a field as they are known: stored ones, with the outlines that people changed, and those they made.

    Where the stored masks are lost, cells are taken for the ellipses in their boxes.
    """
    deleted, unmade = study.hand_deleted(), study.hand_unmade()
    shapes = {cell: shape for cell, shape in study.hand_shapes(record.id).items() if cell not in unmade}
    try:
        stored = load_cells(study, record)
        masks, table = stored.masks, stored.table.set_index("number")
    except StudyError:  # none yet, or damaged
        masks, table = _ellipses(study.cells.obs, record), pd.DataFrame(columns=[*MEASURES, BROUGHT])
    ids = [cell_id(record.id, number) for number in masks.numbers.tolist()]
    plain = masks.take([i for i, cell in enumerate(ids) if cell not in shapes and cell not in unmade])
    ids = [*(cell_id(record.id, number) for number in plain.numbers.tolist()), *shapes]
    living = np.array([cell not in deleted for cell in ids], bool)
    by_hand = np.arange(len(ids)) >= len(plain)
    return _Earlier(joined(plain, masks_of(shapes)), living, by_hand, table)


def _ellipses(obs: pd.DataFrame, record: FieldRecord) -> FieldMasks:
    """The ellipse in the box of each cell of a field in the cell table."""
    rows = obs[(obs["field"] == record.id) & ~obs["gone"]]
    boxes = rows[["y0", "x0", "y1", "x1"]].to_numpy(np.int32)
    discs = []
    for height, width in (boxes[:, 2:] - boxes[:, :2]).tolist():
        y, x = np.ogrid[:height, :width]
        discs.append(((2 * y + 1) / height - 1) ** 2 + ((2 * x + 1) / width - 1) ** 2 <= 1)
    numbers = [split_cell_id(cell)[1] for cell in rows.index]
    return FieldMasks(boxes, np.asarray(numbers, np.int32), discs, [np.zeros_like(disc) for disc in discs])


def _kept_numbers(new: FieldMasks, earlier: _Earlier) -> np.ndarray[Any, np.dtype[np.int32]]:
    """For each new cell the number of the earlier one that it overlaps most, with IoU >= 0.5, or 0.

    Drawn cells can overlap others, deleted ones above all; of equal ones a living goes before a deleted one.
    """
    numbers = np.zeros(len(new), np.int32)
    old = earlier.masks
    for i, (box, mask) in enumerate(zip(new.boxes, new.cells, strict=True)):
        near = (old.boxes[:, :2] < box[2:]).all(axis=1) & (old.boxes[:, 2:] > box[:2]).all(axis=1)
        best = (0.0, False)
        for j in np.flatnonzero(near):
            iou = _iou(box, mask, old.boxes[j], old.cells[j])
            rank = (iou, bool(earlier.living[j]))
            if iou >= SAME_CELL_IOU and rank > best and old.numbers[j] not in numbers[:i]:
                best, numbers[i] = rank, old.numbers[j]
    return numbers


def _covered(found: FieldMasks, row: int, drawn: FieldMasks) -> bool:
    """Whether a found cell lies under outlines drawn by hand."""
    mask = found.cells[row]
    under = mask & (within(drawn, tuple(found.boxes[row].tolist())) > 0)
    return int(under.sum()) >= COVERED * max(1, int(mask.sum()))


def _iou(
    box: np.ndarray[Any, Any], mask: np.ndarray[Any, Any], other: np.ndarray[Any, Any], bitmap: np.ndarray[Any, Any]
) -> float:
    """Intersection over union of two bitmaps in their boxes."""
    y0, x0 = np.maximum(box[:2], other[:2])
    y1, x1 = np.minimum(box[2:], other[2:])
    one = mask[y0 - box[0] : y1 - box[0], x0 - box[1] : x1 - box[1]]
    two = bitmap[y0 - other[0] : y1 - other[0], x0 - other[1] : x1 - other[1]]
    common = int(np.count_nonzero(one & two))
    return common / max(1, int(mask.sum()) + int(bitmap.sum()) - common)
