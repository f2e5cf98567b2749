"""Tiny data sets laid out as the published archives, and an encoder that takes mean colours."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from napari_dinobloom.progress import Progress


def paint(path: Path, seed: int, tint: int = 0) -> Path:
    """A picture of 24 px, coarse spots of a random colour that differs by `tint`; PNG bytes whatever the name."""
    random = np.random.default_rng(seed)
    spots = random.integers(40, 200, (6, 6, 3)).repeat(4, axis=0).repeat(4, axis=1)
    picture = np.clip(spots + np.array([tint, 0, -tint]), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, format="PNG")
    return path


class MeanColour:
    """Stands in for an encoder: the mean of 4 x 4 parts of each colour; counts what it is given."""

    name, sha256, key = "mean colour", "ab" * 32, "mean-colour-0001"
    precision, device, pooling, dim = "float32", "cpu", "class", 48
    spec = SimpleNamespace(input_size=16)

    def __init__(self) -> None:
        self.seen = 0

    def __enter__(self) -> MeanColour:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def embed(self, crops: np.ndarray) -> np.ndarray:
        self.seen += len(crops)
        parts = np.asarray(crops, np.float32).reshape(len(crops), 4, 4, 4, 4, 3)
        return parts.mean(axis=(2, 4)).reshape(len(crops), -1) / 100

    def iter_embed_to(self, crops: np.ndarray, store: np.ndarray) -> Iterable[Progress]:
        for start in range(0, crops.shape[0], 64):
            rows = slice(start, min(start + 64, crops.shape[0]))
            store[rows] = self.embed(crops[rows])
            yield Progress(rows.stop, crops.shape[0], "cells", "embed")
