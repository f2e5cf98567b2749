"""Small pictures in every file format, made here and now; the oracle is the array they were made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image


def stained(height: int = 48, width: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """A (Y, X, 3) uint8 picture with colour, detail and no symmetry."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    picture = np.stack([200 + 40 * np.sin(x / 9), 150 + y, 220 - x], axis=-1) + rng.normal(0, 6, (height, width, 3))
    return np.clip(picture, 0, 255).astype(np.uint8)


def save(path: Path, pixels: NDArray[np.uint8], mode: str = "RGB", **options: object) -> Path:
    """Write with Pillow."""
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


def save_tiff(path: Path, pixels: NDArray[np.generic], **options: object) -> Path:
    """Write with tifffile, as RGB unless told otherwise."""
    tifffile.imwrite(path, pixels, **{"photometric": "rgb", **options})
    return path
