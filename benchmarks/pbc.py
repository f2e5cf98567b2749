"""Embeddings of the pictures of PBC by the starter, made once for all benchmarks that need them.

The pictures are those of ``pbc.csv`` and ``bags.csv`` (``NAPARI_DINOBLOOM_DATA``, else ``../shared/data``), as whole
pictures (``published`` crops). Embeddings are kept under the system's folder for temporary files, by the hash of the
weights: they are not part of the project.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("NAPARI_DINOBLOOM_DATA", ROOT.parent / "shared" / "data"))
CACHE = Path(tempfile.gettempdir()) / "napari-dinobloom-benchmarks"


def pictures(table: str, change: str = "") -> tuple[pd.DataFrame, Float32]:
    """Rows of a table of pictures, and the embedding of each, from the cache where it is there."""
    from napari_dinobloom.encoders.encoder import load_encoder

    rows = pd.read_csv(DATA / table, dtype=str)
    with load_encoder("starter") as encoder:
        path = CACHE / f"pbc{change}-{encoder.sha256[:12]}.npz"
        known = dict(np.load(path)) if path.exists() else {}
        missing = [file for file in dict.fromkeys(rows["file"]) if file not in known]
        if missing:
            known |= dict(zip(missing, _embed(missing, encoder, change), strict=True))
            CACHE.mkdir(exist_ok=True)
            np.savez(path, **known)
    return rows, np.stack([known[file] for file in rows["file"]])


def _embed(files: list[str], encoder: Any, change: str) -> Float32:
    from napari_dinobloom.cells.crop import CropPolicy, resize_picture
    from napari_dinobloom.io.smear import read_smear

    parts = []
    for start in range(0, len(files), 64):
        crops = [resize_picture(read_smear(DATA / f).load(), CropPolicy(kind="published")) for f in files[start:][:64]]
        parts.append(encoder.embed(_stained(np.stack(crops)) if change else np.stack(crops)))
    return np.concatenate(parts)


def _stained(crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same cells by another stain: absorbance of red, green, blue times 1.25, 1.1, 0.85 (Beer and Lambert)."""
    absorbance = -np.log((crops.astype(np.float32) + 1) / 256) * np.array([1.25, 1.1, 0.85], np.float32)
    return np.clip(np.exp(-absorbance) * 256 - 1, 0, 255).round().astype(np.uint8)
