"""Small atlases of drawn numbers, shared by tests."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from napari_dinobloom.cells.crop import CropPolicy
from napari_dinobloom.predict.atlas import Atlas

POLICY = CropPolicy()


def source(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def make(n: int = 240, noise: float = 0.8, *, seed: int = 1, per_picture: int = 1, **more: Any) -> Atlas:
    """Three classes of 8 numbers; `per_picture` cells come from each picture."""
    rng = np.random.default_rng(seed)
    centres = 2 * np.random.default_rng(1).normal(size=(3, 8))
    y = np.arange(n) % 3
    about: dict[str, Any] = {
        "name": "test",
        "encoder": "starter",
        "encoder_sha256": "ab" * 32,
        "policy": POLICY.to_dict(),
        "policy_hash": POLICY.hash,
        "info": {"licence": "CC BY 4.0"},
    }
    return Atlas.from_embeddings(
        centres[y] + noise * rng.normal(size=(n, 8)),
        np.array(["monocyte", "eosinophil", "lymphocyte"])[y].tolist(),
        [source(f"{seed} {i // per_picture}") for i in range(n)],
        rng.random(n) < 0.2,
        **about | more,
    )
