"""From a field and its cells to the square pictures that an encoder sees.

Owns the two crop policies. ``context``: a square of fixed field of view around the cell, as single-cell data sets have
it; aspect kept, the picture reflected at its border. ``published``: input that already is one cell per picture, the
whole picture resized to the square as the reference evaluation of DinoBloom does.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image as Pillow

VERSION = 1

Image = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class CropPolicy:
    """How a crop is cut and resized; part of every atlas, model and cache key.

    Attributes
    ----------
    kind : str
        ``context`` or ``published``.
    fov_um : float
        Side of the square in micrometres (``context`` only).
    size : int
        Side of the crop in pixels.
    interpolation : str
        ``bilinear`` or ``bicubic``, both antialiased (Pillow's convolution filters).
    """

    kind: Literal["context", "published"] = "context"
    fov_um: float = 25.0
    size: int = 224
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        if self.kind not in ("context", "published"):
            raise ValueError(f"crop policy {self.kind!r} is not known: use 'context' or 'published'")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"interpolation {self.interpolation!r} is not known: use 'bilinear' or 'bicubic'")
        if not 1.0 <= self.fov_um <= 1000.0:
            raise ValueError(f"field of view is {self.fov_um} um: it must lie between 1 and 1000 um")
        if not 8 <= self.size <= 4096:
            raise ValueError(f"crop size is {self.size} px: it must lie between 8 and 4096 px")

    def to_dict(self) -> dict[str, Any]:
        """Give the policy as plain JSON types; the field of view only where it matters."""
        values = asdict(self)
        if self.kind == "published":
            del values["fov_um"]
        return values

    @property
    def hash(self) -> str:
        """First 8 hexadecimal digits of the SHA-256 of the policy's canonical JSON."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:8]


class HasTable(Protocol):
    """Anything with a cell table, such as `napari_dinobloom.cells.segment.Cells`."""

    @property
    def table(self) -> pd.DataFrame:
        """One row a cell, with columns y0, x0, y1, x1."""


def crop(
    image: Any,
    cells_or_table: HasTable | pd.DataFrame,
    *,
    policy: CropPolicy | None = None,
    pixel_size_um: float | None = None,
) -> Image:
    """Cut one square picture per cell out of a field.

    Parameters
    ----------
    image : array
        (Y, X, 3) uint8, NumPy or lazy (dask, zarr): only the windows around cells are read.
    cells_or_table : Cells or pandas.DataFrame
        Cells in rows; columns ``y0 x0 y1 x1`` in pixels, and ``pixel_size_um`` unless given here.
    policy : CropPolicy, optional
        Default: ``context``, 25 um, 224 px, bilinear. With ``published`` the cell's box is resized as it is.
    pixel_size_um : float, optional
        Scale of the field, the slide's pooled one in a study; default: the table's.

    Returns
    -------
    numpy.ndarray
        (n, size, size, 3) uint8, in the order of the table.

    Raises
    ------
    ValueError
        If a column is missing, the picture is not (Y, X, 3) uint8, or the scale is not a positive number.
    """
    policy = CropPolicy() if policy is None else policy
    table = cells_or_table if isinstance(cells_or_table, pd.DataFrame) else cells_or_table.table
    _check(image, table)
    crops = np.empty((len(table), policy.size, policy.size, 3), np.uint8)
    boxes = table[["y0", "x0", "y1", "x1"]].to_numpy(np.float64).reshape(-1, 4)
    if policy.kind == "published":
        for row, (y0, x0, y1, x1) in enumerate(boxes.astype(np.int64)):
            crops[row] = resize_picture(np.asarray(image[y0:y1, x0:x1]), policy)
        return crops
    sides = policy.fov_um / _pixel_sizes(table, pixel_size_um)
    for row, (y0, x0, y1, x1) in enumerate(boxes):
        crops[row] = _window(image, (y0 + y1) / 2, (x0 + x1) / 2, float(sides[row]), policy)
    return crops


def resize_picture(image: Image, policy: CropPolicy) -> Image:
    """Resize a whole one-cell picture to the policy's square, as Pillow and torchvision do (antialiased).

    Parameters
    ----------
    image : numpy.ndarray
        (Y, X, 3) uint8.
    policy : CropPolicy
        Gives size and interpolation.

    Returns
    -------
    numpy.ndarray
        (size, size, 3) uint8.
    """
    picture = Pillow.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((policy.size, policy.size), _filter(policy)))


def _check(image: Any, table: pd.DataFrame) -> None:
    """Refuse what cannot be cropped, by name."""
    if getattr(image, "ndim", 0) != 3 or image.shape[2] != 3 or np.dtype(image.dtype) != np.uint8:
        shape, kind = getattr(image, "shape", None), getattr(image, "dtype", type(image).__name__)
        raise ValueError(f"crop needs a (Y, X, 3) uint8 picture, not {shape} {kind}; read_smear gives one")
    missing = [name for name in ("y0", "x0", "y1", "x1") if name not in table.columns]
    if missing:
        raise ValueError(f"the cell table lacks the column(s) {', '.join(missing)}: give boxes in pixels")


def _pixel_sizes(table: pd.DataFrame, given: float | None) -> NDArray[np.float64]:
    """Pixel size of each row in micrometres."""
    if given is None and "pixel_size_um" not in table.columns:
        raise ValueError("context crops need a scale: give pixel_size_um, or a table with the column pixel_size_um")
    sizes = table["pixel_size_um"].to_numpy(np.float64) if given is None else np.full(len(table), float(given))
    bad = np.flatnonzero(~(np.isfinite(sizes) & (sizes > 0)))
    if len(bad):
        raise ValueError(f"pixel_size_um of row {bad[0]} is {sizes[bad[0]]}: it must be a positive number")
    return sizes


def _filter(policy: CropPolicy) -> Pillow.Resampling:
    """Pillow's name of the policy's interpolation."""
    return Pillow.Resampling.BICUBIC if policy.interpolation == "bicubic" else Pillow.Resampling.BILINEAR


def _window(image: Any, y: float, x: float, side: float, policy: CropPolicy) -> Image:
    """Resize the square of `side` pixels around (y, x), reflecting the picture where the square leaves it."""
    margin = max(2, int(np.ceil(2.0 * side / policy.size)) + 1)
    top, left = int(np.floor(y - side / 2)) - margin, int(np.floor(x - side / 2)) - margin
    length = int(np.ceil(side)) + 2 * margin + 1
    part = _reflected(image, top, left, length)
    box = (x - side / 2 - left, y - side / 2 - top, x + side / 2 - left, y + side / 2 - top)
    return np.asarray(Pillow.fromarray(part).resize((policy.size, policy.size), _filter(policy), box=box))


def _reflected(image: Any, top: int, left: int, length: int) -> Image:
    """Read a square window; outside the picture it continues as its mirror image (numpy's ``symmetric``)."""
    height, width = int(image.shape[0]), int(image.shape[1])
    if top >= 0 and left >= 0 and top + length <= height and left + length <= width:
        return np.ascontiguousarray(image[top : top + length, left : left + length])
    rows, columns = _mirror(top, length, height), _mirror(left, length, width)
    y0, x0 = int(rows.min()), int(columns.min())
    part = np.asarray(image[y0 : int(rows.max()) + 1, x0 : int(columns.max()) + 1])
    return np.ascontiguousarray(part[np.ix_(rows - y0, columns - x0)])


def _mirror(start: int, length: int, size: int) -> NDArray[np.int64]:
    """Indices start .. start + length - 1 folded into 0 .. size - 1, however far outside they lie."""
    index = np.arange(start, start + length) % (2 * size)
    return np.where(index < size, index, 2 * size - 1 - index)
