"""A study of cells with drawn embeddings, an atlas that fits it and one that does not; no picture, no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from napari_dinobloom.cells.crop import CropPolicy
from napari_dinobloom.io.celltable import complete
from napari_dinobloom.io.fields import FieldRecord
from napari_dinobloom.io.study import Study
from napari_dinobloom.predict.atlas import Atlas

NAMES = ("eosinophil", "lymphocyte", "monocyte")
SHA = "ab" * 32
POLICY = CropPolicy()


def draw(codes: np.ndarray, seed: int) -> np.ndarray:
    """(n, 6) float32 around one point for each class; rather wide, so that some cells are doubtful."""
    random = np.random.default_rng(seed)
    centres = 3.0 * np.eye(6)[:3]
    return (centres[codes] + random.normal(size=(len(codes), 6))).astype(np.float32)


def make_atlas(name: str, *, sha256: str = SHA, per_class: int = 30) -> Atlas:
    """An atlas of three classes, each cell from a picture of its own, a third of them held out."""
    codes = np.repeat(np.arange(3), per_class)
    return Atlas.from_embeddings(
        draw(codes, 1),
        np.array(NAMES)[codes].tolist(),
        [f"{at:016x}" for at in range(len(codes))],
        np.arange(len(codes)) % 3 == 0,
        name=name,
        encoder="drawn",
        encoder_sha256=sha256,
        policy=POLICY.to_dict(),
        policy_hash=POLICY.hash,
        k=5,
    )


def drawn_study(path: Path, *, n: int = 48, patients: int = 8, atlas: Atlas | None = None) -> Study:
    """A study of `n` cells of `patients` patients, named by `atlas` where one is given."""
    study = Study.create(path)
    codes = np.arange(n) % 3
    patient = [f"p{at * patients // n + 1}" for at in range(n)]
    field = [f"f{one}" for one in patient]
    study.update(
        fields=[
            FieldRecord(f"fp{at + 1}", f"{at}.png", "study", f"{at + 1:064x}", 50, 50, patient=f"p{at + 1}", slide="s")
            for at in range(patients)
        ]
    )
    numbers = [field[:at].count(one) + 1 for at, one in enumerate(field)]
    obs = pd.DataFrame(
        {
            "cell_id": [f"{one}:{number:05d}" for one, number in zip(field, numbers, strict=True)],
            "field": field,
            "patient": patient,
            "slide": "s",
            "area_px": 100.0,
            "pixel_size_um": 1.0,
        }
    )
    x = draw(codes, 2)
    x[-1, 5] += 12  # the last cell is unlike all others
    if atlas is not None:
        named = atlas.classify(x, [f"{int(one[2:]):064x}"[:16] for one in field])
        for column in ("predicted", "confidence", "abstained", "distance"):
            obs[column] = named[column].to_numpy()
        obs["abstained"] |= named["unlike"].to_numpy()
        obs["predicted_by"] = f"{atlas.name}-{atlas.hash[:8]}"
    adata = AnnData(X=x, obs=complete(obs))
    adata.obsm["X_umap"] = x[:, :2].copy()
    adata.uns["dinobloom"] = {
        "encoder": "drawn",
        "encoder_sha256": SHA,
        "pooling": "class",
        "projection": {"kind": "umap", "hash": "cd" * 32},
    }
    study.save_cells(adata)
    study.finish_step("embed", "drawn", ("cells.h5ad",))
    return study
