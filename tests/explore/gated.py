"""A small study with a map and cells of several patients, made without images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from napari_dinobloom.explore.gates import RectangleGate
from napari_dinobloom.io.celltable import complete
from napari_dinobloom.io.study import Study

MAP, OTHER = "ab" * 32, "cd" * 32
XY = ("umap_1", "umap_2")


def box(name: str, x0: float | None, x1: float | None) -> RectangleGate:
    return RectangleGate(name=name, axes=XY, range_min=(x0, None), range_max=(x1, None))


def gated_study(path: Path, *, n: int = 400, patients: int = 8, projection: str = MAP) -> Study:
    """Half of the cells lie around (-3, 0) and are lymphocytes, half around (3, 0), neutrophils; one map is kept."""
    random = np.random.default_rng(0)
    number = np.arange(n)
    right = number % 2 == 1
    obs = {
        "cell_id": [f"f:{i + 1:05d}" for i in number],
        "field": "f",
        "patient": [f"p{i}" for i in number // 2 % patients],
        "slide": [f"p{i}-1" for i in number // 2 % patients],
        "area_px": random.integers(200, 600, n),
        "predicted": np.where(right, "neutrophil", "lymphocyte"),
        "confidence": random.random(n),
    }
    study = Study.create(path)
    adata = AnnData(X=np.zeros((n, 2), np.float32), obs=complete(pd.DataFrame(obs)))
    adata.obsm["X_umap"] = (random.normal(size=(n, 2)) + np.c_[np.where(right, 3, -3), np.zeros(n)]).astype("f4")
    adata.obsm[f"X_umap:{OTHER[:8]}"] = -adata.obsm["X_umap"]
    adata.uns["dinobloom"] = {"projection": {"kind": "umap", "hash": projection}}
    study.save_cells(adata)
    return study
