"""The table that gates are applied to: the columns of the cell table and the coordinates of its map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

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
        kept maps, ``X_umap:HASH``); ``attrs["projection"]`` is the hash of the active map, if there is one.
    """
    columns: dict[str, object] = {name: adata.obs[name] for name in adata.obs.columns}
    for key, values in adata.obsm.items():
        if key.startswith("X_") and ":" not in key and np.ndim(values) == 2:
            columns.update({f"{key[2:]}_{i + 1}": np.asarray(values)[:, i] for i in range(values.shape[1])})
    table = pd.DataFrame(columns, index=adata.obs.index)
    notes = adata.uns.get("dinobloom", {})
    if "X_umap" in adata.obsm and "projection" in notes:
        table.attrs["projection"] = str(notes["projection"]["hash"])
    return table
