"""The cell table from the masks of all fields: known rows keep their place and what people said of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_dinobloom.cells import scale as scales
from napari_dinobloom.cells.scale import Scale
from napari_dinobloom.io.celltable import cell_id
from napari_dinobloom.io.masks import FieldMasks, load_masks

if TYPE_CHECKING:
    from napari_dinobloom.io.fields import FieldRecord
    from napari_dinobloom.io.study import Study

MEASURED = (
    "area_px",
    "nucleus_area_px",
    "nc_ratio",
    "solidity",
    "circularity",
    "lobes",
    "focus",
    "touches_border",
    "quality",
)
"""Measures that a mask file and the cell table share."""


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
    return FieldCells(masks, table if "number" in table else pd.DataFrame(columns=[*MEASURED, "number"]), scale)


def rebuilt(study: Study, fields: Sequence[FieldRecord]) -> Any:
    """Cell table from all masks: known rows keep their place and what people said of them, new rows go to the end."""
    from anndata import AnnData

    loaded = {record.id: load_cells(study, record) for record in fields}
    pooled = {
        slide: scales.pool_scale([loaded[r.id].scale for r in fields if r.slide == slide])
        for slide in {r.slide for r in fields}
    }
    rows = [_rows(record, loaded[record.id], pooled[record.slide]) for record in fields]
    fresh = pd.concat([part for part in rows if len(part)] or [rows[0]], ignore_index=True)
    fresh.index = pd.Index(fresh["cell_id"].to_numpy(dtype=object), dtype=object)
    old = study.cells.obs if (study.path / "cells.h5ad").exists() else fresh.iloc[:0]
    table = old.reindex(old.index.append(fresh.index.difference(old.index, sort=False)))
    gone = ~table.index.isin(fresh.index)
    for name in fresh.columns:
        column = table[name].astype(object) if name in table else pd.Series(np.nan, index=table.index, dtype=object)
        column.loc[fresh.index] = fresh[name].astype(object)
        table[name] = column
    table["deleted"] = gone
    adata = AnnData(obs=table)
    adata.obsm["spatial"] = table[["x", "y"]].to_numpy(np.float32)
    return adata


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
        **{name: cells.table[name].to_numpy() for name in MEASURED},
        "pixel_size_um": scale.pixel_size_um,
        "scale_from": scale.source,
    }
    return pd.DataFrame(place, index=range(len(ids)))
