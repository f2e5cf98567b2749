"""The cell table with the acts of the journal in it: cells made, outlines changed and columns set by people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_dinobloom.io import celltable, journal
from napari_dinobloom.io.celltable import split_cell_id
from napari_dinobloom.io.fields import FieldRecord
from napari_dinobloom.io.journal import Entry
from napari_dinobloom.io.shapes import MEASURED, Shape

if TYPE_CHECKING:
    from anndata import AnnData


def replay(entries: Sequence[Entry], adata: AnnData, fields: Mapping[str, FieldRecord]) -> tuple[AnnData, list[str]]:
    """Put acts into a cell table.

    Parameters
    ----------
    entries : sequence of Entry
        Acts in their order; the table may hold some of them already.
    adata : AnnData
        The table, its ``obs`` as `celltable.complete` returns it; changed.
    fields : mapping
        Field id to its record.

    Returns
    -------
    adata : AnnData
        The same object, or another one where cells that the acts made had to be appended.
    orphans : list of str
        Sorted ids of cells that the acts name and the table does not have, and of cells with a hand label that the
        segmentation no longer finds.
    """
    shapes: dict[str, Shape] = {}
    for entry in entries:
        shapes.update(entry.new_shapes)
    known = {cell: shape for cell, shape in shapes.items() if split_cell_id(cell)[0] in fields}
    missing = {cell: shape for cell, shape in known.items() if cell not in adata.obs.index}
    if missing:
        adata = celltable.grown(adata, rows_of(missing, fields, adata.obs))
    if known:
        _set_shapes(adata, known)
    unknown = journal.apply(entries, adata.obs)
    gone = adata.obs["gone"].to_numpy(bool)
    if gone.any():
        adata.obs["deleted"] = adata.obs["deleted"].to_numpy(bool) | gone
    lost = adata.obs.index[gone & (adata.obs["label"] != "").to_numpy(bool)]
    return adata, sorted({*unknown, *lost})


def rows_of(
    shapes: Mapping[str, Shape], fields: Mapping[str, FieldRecord], obs: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Rows of the cell table for cells that people made.

    Parameters
    ----------
    shapes : mapping
        Cell id to its outline; all of known fields.
    fields : mapping
        Field id to its record.
    obs : DataFrame, optional
        The cell table: a cell has the scale of its slide there, else the one at which it was measured.

    Returns
    -------
    DataFrame
        One row a cell, in order, with the identity, box, centre, measures and scale.
    """
    scales: dict[str, dict[str, Any]] = {}
    unmeasured = {name: celltable.EMPTY[celltable.COLUMNS[name]] for name in MEASURED}
    rows = []
    for cell, shape in shapes.items():
        record = fields[split_cell_id(cell)[0]]
        if record.slide not in scales:
            scales[record.slide] = {} if obs is None else scale_of(record.slide, obs)
        row = {"cell_id": cell, "field": record.id, "slide": record.slide, "patient": record.patient}
        rows.append({**row, **unmeasured, **_values(shape), **scales[record.slide]})
    return pd.DataFrame(rows)


def scale_of(slide: str, obs: pd.DataFrame) -> dict[str, Any]:
    """``pixel_size_um`` and ``scale_from`` of a slide as its cells in the table have them; empty if it has none."""
    rows = np.flatnonzero((obs["slide"] == slide).to_numpy(bool) & ~obs["gone"].to_numpy(bool))
    return {} if not len(rows) else {name: obs[name].iloc[rows[0]] for name in ("pixel_size_um", "scale_from")}


def _values(shape: Shape) -> dict[str, Any]:
    """Columns of the table that follow from a shape; NaN where a measure is unknown."""
    y0, x0, y1, x1 = shape.box
    place = {"y0": y0, "x0": x0, "y1": y1, "x1": x1, "y": (y0 + y1) / 2, "x": (x0 + x1) / 2}
    return {**place, **{name: np.nan if value is None else value for name, value in shape.measures.items()}}


def _set_shapes(adata: AnnData, shapes: Mapping[str, Shape]) -> None:
    """Set box, centre and measures of cells; their scale stays their slide's."""
    rows = adata.obs.index.get_indexer(pd.Index(list(shapes), dtype=object))
    values = [_values(shape) for shape in shapes.values()]
    for name in ("y0", "x0", "y1", "x1", "y", "x", *celltable.MEASURES):
        given = [i for i, columns in enumerate(values) if name in columns]
        column = adata.obs[name].to_numpy(copy=True)
        column[rows[given]] = [values[i][name] for i in given]
        adata.obs[name] = celltable.as_column(column, adata.obs.index)
    if "spatial" in adata.obsm:
        adata.obsm["spatial"][rows] = adata.obs[["x", "y"]].to_numpy()[rows]
