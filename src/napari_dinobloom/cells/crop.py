"""From a field and its cells to the square pictures that an encoder sees.

Owns the two crop policies. ``context``: a square of fixed field of view around the cell, as single-cell data sets have
it; aspect kept, the picture reflected at its border. ``published``: input that already is one cell per picture, the
whole picture resized to the square as the reference evaluation of DinoBloom does.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.cells import fov
from napari_dinobloom.cells.neighbours import Neighbours
from napari_dinobloom.cells.picture import as_picture
from napari_dinobloom.cells.resample import MANY, REACH, Resampler
from napari_dinobloom.cells.windows import Parts, mirror
from napari_dinobloom.io.masks import FieldMasks

VERSION = 1

Image = NDArray[np.uint8]
Windows = NDArray[np.float64]
"""(n, 4): y and x of the centre, height and width, in pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CropPolicy:
    """How a crop is cut and resized; part of every atlas, model and cache key.

    Attributes
    ----------
    kind : str
        ``context`` or ``published``.
    fov_um : float
        Side of the square in micrometres (``context`` only).
    fov_diameters : float or None
        Side of the square in diameters of the slide's typical white cell instead, for slides whose pixel size nobody
        knows (``context`` only; `napari_dinobloom.cells.fov.typical_diameters`). One policy is one rule: it holds for
        every slide, also for those with a known scale.
    size : int
        Side of the crop in pixels.
    interpolation : str
        ``bilinear``, ``bicubic`` or ``lanczos``, all antialiased (Pillow's convolution filters).
    neighbours : str
        ``keep`` or ``mask``: other white cells are painted over with the field's background (``context`` only).
    """

    kind: Literal["context", "published"] = "context"
    fov_um: float = 25.0
    fov_diameters: float | None = None
    size: int = 224
    interpolation: Literal["bilinear", "bicubic", "lanczos"] = "bilinear"
    neighbours: Literal["keep", "mask"] = "keep"

    def __post_init__(self) -> None:
        if self.kind not in ("context", "published"):
            raise ValueError(f"crop policy {self.kind!r} is not known: use 'context' or 'published'")
        if self.interpolation not in REACH:
            raise ValueError(f"interpolation {self.interpolation!r} is not known: use {', '.join(REACH)}")
        if not 1.0 <= self.fov_um <= 1000.0:
            raise ValueError(f"field of view is {self.fov_um} um: it must lie between 1 and 1000 um")
        if self.fov_diameters is not None and not 0.5 <= self.fov_diameters <= 20.0:
            raise ValueError(f"field of view is {self.fov_diameters} cell diameters: it must lie between 0.5 and 20")
        if not 8 <= self.size <= 4096:
            raise ValueError(f"crop size is {self.size} px: it must lie between 8 and 4096 px")
        if self.neighbours not in ("keep", "mask"):
            raise ValueError(f"neighbours {self.neighbours!r} is not known: use 'keep' or 'mask'")
        if self.neighbours == "mask" and self.kind == "published":
            raise ValueError("neighbours can be masked in context crops only: published ones are whole pictures")

    def to_dict(self) -> dict[str, Any]:
        """Give the policy as plain JSON types; only what matters, and later additions only where they are used."""
        values = asdict(self)
        if self.kind == "published" or self.fov_diameters is not None:
            del values["fov_um"]
        if self.kind == "published" or self.fov_diameters is None:
            del values["fov_diameters"]
        if self.neighbours == "keep":
            del values["neighbours"]
        return values

    @property
    def hash(self) -> str:
        """First 8 hexadecimal digits of the SHA-256 of the policy's canonical JSON."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:8]


class HasTable(Protocol):
    """Anything with a cell table, such as `napari_dinobloom.cells.segment.Cells`; its ``masks`` count if it has any."""

    @property
    def table(self) -> pd.DataFrame:
        """One row a cell, with columns y0, x0, y1, x1."""


def crop(
    image: Any,
    cells_or_table: HasTable | pd.DataFrame,
    *,
    policy: CropPolicy | None = None,
    pixel_size_um: float | None = None,
    masks: FieldMasks | None = None,
) -> Image:
    """Cut one square picture per cell out of a field.

    Parameters
    ----------
    image : array
        (Y, X, 3) uint8, NumPy or lazy (dask, zarr): only the parts around cells are read. Other pixels are converted
        as by `segment`.
    cells_or_table : Cells or pandas.DataFrame
        Cells in rows; columns ``y0 x0 y1 x1`` in pixels, and ``pixel_size_um`` unless given here.
    policy : CropPolicy, optional
        Default: ``context``, 25 um, 224 px, bilinear. With ``published`` the cell's box is resized as it is.
    pixel_size_um : float, optional
        Scale of the field, the slide's pooled one in a study; default: the table's.
    masks : FieldMasks, optional
        All cells of the field, for a policy that masks neighbours; default: those of the `Cells`.

    Returns
    -------
    numpy.ndarray
        (n, size, size, 3) uint8, in the order of the table.

    Raises
    ------
    ImageError
        If the picture is greyscale, or of a type or range that has no rule for colours.
    ValueError
        If a column is missing, a box is empty or lies outside the picture, the scale is not a positive number, or
        neighbours are to be masked and there are no masks.
    """
    policy = CropPolicy() if policy is None else policy
    image = as_picture(image)
    table = _checked_table(cells_or_table, int(image.shape[0]), int(image.shape[1]))
    masks = getattr(cells_or_table, "masks", None) if masks is None else masks
    windows = find_windows(table, policy, pixel_size_um)
    cutter = Cutter(image, table, windows, policy, masks=masks, many=len(table) >= MANY)
    crops = np.empty((len(table), policy.size, policy.size, 3), np.uint8)
    for row in cutter.order:
        cutter.cut(int(row), crops[row])
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
    out = np.empty((policy.size, policy.size, 3), np.uint8)
    box = (0.0, 0.0, float(image.shape[1]), float(image.shape[0]))
    Resampler(policy.size, policy.interpolation, many=False).resize(image, box, out)
    return out


def find_windows(table: pd.DataFrame, policy: CropPolicy, pixel_size_um: float | None = None) -> Windows:
    """Part of the field that each crop shows.

    Parameters
    ----------
    table : pandas.DataFrame
        As in `crop`; with a field of view in cell diameters all cells of a slide must be in it.
    policy : CropPolicy
        Gives kind and field of view.
    pixel_size_um : float, optional
        As in `crop`.

    Returns
    -------
    numpy.ndarray
        (n, 4) float64: y and x of the centre, height and width, in pixels.

    Raises
    ------
    ValueError
        If the table does not give a scale, or one that makes no sense.
    """
    boxes = table[["y0", "x0", "y1", "x1"]].to_numpy(np.float64).reshape(-1, 4)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    if policy.kind == "published":
        boxes = np.trunc(boxes)
        shape = boxes[:, 2:] - boxes[:, :2]
        empty = np.flatnonzero((shape < 1).any(axis=1))
        if len(empty):
            raise ValueError(f"the box of row {empty[0]}, {boxes[empty[0]].tolist()}, is empty: leave the row out")
        return np.hstack([(boxes[:, :2] + boxes[:, 2:]) / 2, shape])
    if policy.fov_diameters is not None:
        sides = policy.fov_diameters * fov.typical_diameters(table, pixel_size_um)
    else:
        sides = policy.fov_um / fov.pixel_sizes(table, pixel_size_um)
    return np.column_stack([centre, fov.check_sides(sides), sides])


class Cutter:
    """Cuts the crops of one field one after the other.

    Parameters
    ----------
    image : array
        (Y, X, 3) uint8, NumPy or lazy.
    table : pandas.DataFrame
        Cells in rows.
    windows : numpy.ndarray
        Of the same cells, from `find_windows`.
    policy : CropPolicy
        How to cut.
    masks : FieldMasks, optional
        All cells of the field, for a policy that masks neighbours.
    many : bool
        Whether hundreds of crops will be cut, here and elsewhere: the fast code takes half a second to load.

    Attributes
    ----------
    order : numpy.ndarray
        (n,) rows in the order in which they are cut fastest: of a lazy picture each block is then read about once.

    Raises
    ------
    ValueError
        If neighbours are to be masked and there are no masks.
    """

    def __init__(
        self,
        image: Any,
        table: pd.DataFrame,
        windows: Windows,
        policy: CropPolicy,
        *,
        masks: FieldMasks | None = None,
        many: bool = False,
    ) -> None:
        self._parts = Parts(image)
        self._windows, self._policy = windows, policy
        self._resampler = Resampler(policy.size, policy.interpolation, many=many)
        self._others = None
        if policy.neighbours == "mask":
            if masks is None:
                raise ValueError("the crop policy masks neighbours: give the field's masks, or the Cells of segment")
            self._others = Neighbours(table, masks)
        self._colour = cache(partial(_background, image))
        self.order = self._parts.order(windows[:, 0], windows[:, 1])

    def cut(self, row: int, out: Image) -> None:
        """Write the crop of a row into `out`, (size, size, 3) uint8."""
        y, x, height, width = self._windows[row].tolist()
        top, left = y - height / 2, x - width / 2
        if self._policy.kind == "published":
            whole = self._window(row, int(top), int(left), int(height), int(width))
            self._resampler.resize(whole, (0.0, 0.0, width, height), out)
            return
        margin = self._margin(height)
        first, start = int(np.floor(top)) - margin, int(np.floor(left)) - margin
        length = int(np.ceil(height)) + 2 * margin + 1
        box = (left - start, top - first, x + width / 2 - start, y + height / 2 - first)
        self._resampler.resize(self._window(row, first, start, length, length), box, out)

    def _margin(self, side: float) -> int:
        """Pixels beyond the square that the interpolation's kernel reaches."""
        reach = max(2.0, REACH[self._policy.interpolation])
        return max(2, int(np.ceil(reach * side / self._policy.size)) + 1)

    def _window(self, row: int, top: int, left: int, height: int, width: int) -> Image:
        """Read a window; outside the picture it continues as its mirror image."""
        parts = self._parts
        if top >= 0 and left >= 0 and top + height <= parts.height and left + width <= parts.width:
            return self._painted(row, parts.part(top, left, height, width), top, left)
        rows, columns = mirror(top, height, parts.height), mirror(left, width, parts.width)
        y0, x0 = int(rows.min()), int(columns.min())
        part = parts.part(y0, x0, int(rows.max()) + 1 - y0, int(columns.max()) + 1 - x0)
        return self._painted(row, part, y0, x0)[np.ix_(rows - y0, columns - x0)]

    def _painted(self, row: int, part: Image, top: int, left: int) -> Image:
        """Give a part without the other cells, if the policy wants that."""
        return part if self._others is None else self._others.paint(row, part, top, left, self._colour)


def _background(image: Any) -> NDArray[np.float32]:
    """Colour of the field's background, from tiles spread over it if it is large."""
    from napari_dinobloom.cells.background import find_background
    from napari_dinobloom.cells.scale import sample_tiles

    return find_background(np.concatenate(sample_tiles(image))).colour


def _checked_table(cells_or_table: object, height: int, width: int) -> pd.DataFrame:
    """Give the table of cells if it can be used with a picture of this size."""
    table = cells_or_table if isinstance(cells_or_table, pd.DataFrame) else getattr(cells_or_table, "table", None)
    if not isinstance(table, pd.DataFrame):
        raise ValueError(f"crop needs the Cells of segment or a DataFrame, not {type(cells_or_table).__name__}")
    missing = [name for name in ("y0", "x0", "y1", "x1") if name not in table.columns]
    if missing:
        raise ValueError(f"the cell table lacks the column(s) {', '.join(missing)}: give boxes in pixels")
    _check_boxes(table, height, width)
    return table


def _check_boxes(table: pd.DataFrame, height: int, width: int) -> None:
    """Refuse boxes that are no numbers, upside down or outside the picture; the message names the first such row."""
    try:
        boxes = table[["y0", "x0", "y1", "x1"]].to_numpy(np.float64).reshape(-1, 4)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the boxes y0 x0 y1 x1 are not all numbers ({error}): give pixels") from error
    y0, x0, y1, x1 = boxes.T
    faults = {
        "is not finite": ~np.isfinite(boxes).all(axis=1),
        "ends before it begins (order is y0 x0 y1 x1)": (y1 < y0) | (x1 < x0),
        f"lies outside the picture of {height} x {width} px": (y1 < 0) | (x1 < 0) | (y0 > height) | (x0 > width),
    }
    for what, where in faults.items():
        if where.any():
            row = int(np.flatnonzero(where)[0])
            raise ValueError(f"the box of row {row}, {boxes[row].tolist()}, {what}: correct it or leave the row out")
