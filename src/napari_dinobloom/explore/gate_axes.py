"""The table that gates are applied to: the columns of the cell table and the coordinates of its map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_dinobloom.explore.cell_attention import ATTENTION, attention_of
from napari_dinobloom.explore.gates.base import GateError

if TYPE_CHECKING:
    from anndata import AnnData


def axes_table(adata: AnnData) -> pd.DataFrame:
    """Return the cells with all columns that a gate can be drawn on.

    Parameters
    ----------
    adata : AnnData
        The cell table.

    Returns
    -------
    DataFrame
        Columns of ``obs`` and, for each two-dimensional ``obsm["X_NAME"]``, ``NAME_1``, ``NAME_2``, ... (not those of
        kept maps, ``X_umap:HASH``), and ``attention_GROUP`` for each predicted group (`cell_attention`);
        ``attrs["projection"]`` is the hash of the active map, if there is one. It shares memory with ``obs``, whose
        columns are replaced and never written into.
    """
    columns: dict[str, object] = {name: adata.obs[name] for name in adata.obs.columns}
    for key, values in adata.obsm.items():
        if key.startswith("X_") and ":" not in key and np.ndim(values) == 2:
            columns.update({f"{key[2:]}_{i + 1}": np.asarray(values)[:, i] for i in range(values.shape[1])})
    attention = attention_of(adata)
    if attention is not None:
        columns.update({f"{ATTENTION}_{name}": attention[name].to_numpy() for name in attention.columns})
    table = pd.DataFrame(columns, index=adata.obs.index, copy=False)  # seconds for millions of cells
    if active := active_projection(adata):
        table.attrs["projection"] = active
    return table


def active_projection(adata: AnnData) -> str:
    """Hash of the map whose coordinates stand in ``obsm["X_umap"]``; "" where there is none."""
    notes = adata.uns.get("dinobloom", {})
    return str(notes["projection"]["hash"]) if "X_umap" in adata.obsm and "projection" in notes else ""


def kept_table(adata: AnnData, projection: str) -> pd.DataFrame:
    """Return the cells as `axes_table`, with the coordinates of a map that is kept beside the active one.

    Raises
    ------
    GateError
        The table does not hold that map.
    """
    if projection == active_projection(adata):
        return axes_table(adata)
    kept = f"X_umap:{projection[:8]}"
    if kept not in adata.obsm:
        raise GateError(
            f"The cell table has no coordinates of the map {projection[:8] or '(none)'}. Use that map first."
        )
    table = axes_table(adata)
    for i, values in enumerate(np.asarray(adata.obsm[kept]).T):
        table[f"umap_{i + 1}"] = values
    table.attrs["projection"] = projection
    return table
