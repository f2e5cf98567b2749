"""Measures per cell: the rows of the cell table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.cells.background import Background, find_background, thinned
from napari_dinobloom.cells.scale import Scale
from napari_dinobloom.cells.windows import Parts
from napari_dinobloom.io.celltable import COLOURS
from napari_dinobloom.io.masks import FieldMasks

VERSION = 4

Image = NDArray[np.uint8]
Bool = NDArray[np.bool_]

SMALLEST_CELL_UM2 = 18.0
"""Less is debris: a white cell of 5 um across has 20."""

LARGEST_CELL_UM2 = 650.0
"""More is a clump: the largest monocytes and blasts, flattened, reach 25 um across."""

BLURRED = 0.42
"""Focus below which a cell cannot be read: its nucleus' edge is 2.4 um wide (1 % of cells in the BCCD fields)."""

COLUMNS: dict[str, str] = {
    "label": "int32",
    "y0": "int32",
    "x0": "int32",
    "y1": "int32",
    "x1": "int32",
    "y": "float64",
    "x": "float64",
    "area_px": "int64",
    "nucleus_area_px": "int64",
    "nc_ratio": "float64",
    "solidity": "float64",
    "circularity": "float64",
    "lobes": "int32",
    "focus": "float64",
    **dict.fromkeys(COLOURS, "float64"),
    "touches_border": "bool",
    "quality": "object",
    "pixel_size_um": "float64",
    "scale_from": "object",
}
"""Columns of the table and their types."""


def measure_masks(
    image: Any,
    masks: FieldMasks,
    scale: Scale,
    *,
    light: Background | None = None,
    hints: Sequence[str] = (),
) -> pd.DataFrame:
    """Measure cells.

    Parameters
    ----------
    image : array
        (Y, X, 3) uint8, NumPy or lazy; only the windows around cells are read.
    masks : FieldMasks
        Cells and their nuclei.
    scale : Scale
        Of the picture.
    light : Background, optional
        Of the picture, where it is known already.
    hints : sequence of str, optional
        Per cell a quality flag that the segmenter is sure of, else empty.

    Returns
    -------
    pandas.DataFrame
        One row a cell, in the order of `masks`, with the columns `COLUMNS`; ``label`` counts from 1.
    """
    parts = Parts(image)
    if light is None:
        light = find_background(thinned(image))
    rows: list[dict[str, Any]] = [{}] * len(masks)
    centres = (masks.boxes[:, :2] + masks.boxes[:, 2:]) / 2
    for i in parts.order(centres[:, 0], centres[:, 1]).tolist():
        y0, x0, y1, x1 = masks.boxes[i].tolist()
        picture = parts.part(y0, x0, y1 - y0, x1 - x0)
        row = _row(picture, masks.cells[i], masks.nuclei[i], scale.pixel_size_um, light)
        row.update(label=i + 1, y0=y0, x0=x0, y1=y1, x1=x1, y=row["y"] + y0, x=row["x"] + x0)
        row["touches_border"] = y0 == 0 or x0 == 0 or y1 == parts.height or x1 == parts.width
        row.update(pixel_size_um=scale.pixel_size_um, scale_from=scale.source)
        row["quality"] = _quality(row, scale.pixel_size_um, hints[i] if hints else "")
        rows[i] = row
    return pd.DataFrame({name: pd.Series([r[name] for r in rows], dtype=kind) for name, kind in COLUMNS.items()})


def _row(image: Image, mask: Bool, nucleus: Bool, pixel_um: float, light: Background) -> dict[str, Any]:
    """Measures of one cell in its box; coordinates relative to the box."""
    from scipy import ndimage as ndi
    from skimage.measure import perimeter_crofton

    area, inner = int(mask.sum()), int(nucleus.sum())
    columns, lines = mask.sum(axis=0), mask.sum(axis=1)
    outline = float(perimeter_crofton(np.pad(mask, 1), directions=4))
    row: dict[str, Any] = {
        "y": float(lines @ np.arange(len(lines))) / max(area, 1),
        "x": float(columns @ np.arange(len(columns))) / max(area, 1),
        "area_px": area,
        "nucleus_area_px": inner,
        "nc_ratio": inner / max(area, 1),
        "solidity": min(inner / hull_area(nucleus), 1.0) if inner > 2 else float("nan"),
        "circularity": float(min(4 * np.pi * area / outline**2, 1.0)) if outline else 1.0,
        "lobes": int(ndi.label(nucleus)[1]),
        "focus": _focus(image, nucleus, pixel_um),
    }
    for part, where in (("nucleus", nucleus), ("cytoplasm", mask & ~nucleus)):
        pixels = image[where].astype(np.float32)
        colour, spread = (pixels.mean(axis=0), pixels.std(axis=0)) if len(pixels) else (np.full(3, np.nan),) * 2
        for channel, value, width in zip(("red", "green", "blue"), colour, spread, strict=True):
            row[f"{part}_{channel}"], row[f"{part}_{channel}_sd"] = float(value), float(width)
    colour = np.array([row[f"nucleus_{channel}"] for channel in ("red", "green", "blue")])
    row["stain_strength"] = float(np.mean(np.log((light.colour + 2.0) / (colour + 2.0))))
    return row


def _focus(image: Image, nucleus: Bool, pixel_um: float) -> float:
    """Steepness of the nucleus' edge: gradient over contrast, per micrometre; about 1 when sharp, NaN if unmeasurable.

    A blurred edge that rises over w micrometres gives 1 / w, whatever the stain's strength.
    """
    from scipy import ndimage as ndi

    if nucleus.sum() < 20:
        return float("nan")
    green = ndi.gaussian_filter(-np.log(image[..., 1].astype(np.float32) + 2.0), 0.15 / pixel_um)
    outer = ndi.binary_dilation(nucleus, iterations=max(1, round(0.4 / pixel_um)))
    inner = ndi.binary_erosion(nucleus, iterations=max(1, round(0.4 / pixel_um)))
    if not (~outer).any() or not inner.any():
        return float("nan")
    contrast = float(np.median(green[inner]) - np.median(green[~outer]))
    if contrast < 0.05:
        return float("nan")
    dy, dx = np.gradient(green)
    steep = np.hypot(dy, dx)[outer & ~inner] / pixel_um
    return float(np.quantile(steep, 0.75) / contrast)


def _quality(row: dict[str, Any], pixel_um: float, hint: str) -> str:
    """Flag a cell only where the measures or the segmenter leave little doubt; else ``ok``."""
    area, nucleus = row["area_px"] * pixel_um**2, row["nucleus_area_px"] * pixel_um**2
    if area < SMALLEST_CELL_UM2:
        return "debris" if not row["touches_border"] else "ok"
    if hint:
        return hint
    if area > LARGEST_CELL_UM2:
        return "clump"
    if nucleus > 150.0 and row["nc_ratio"] > 0.85 and row["solidity"] < 0.85:
        return "smudge"
    if row["focus"] < BLURRED:
        return "out_of_focus"
    return "ok"


def hull_area(mask: Bool) -> float:
    """Area of the convex hull of a mask in pixels; pixels are diamonds between the middles of their sides."""
    from scipy.spatial import ConvexHull

    ys, first = np.flatnonzero(mask.any(axis=1)), mask.argmax(axis=1)
    last = mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
    ends = np.concatenate([np.stack([ys, first[ys]], 1), np.stack([ys, last[ys]], 1)]).astype(np.float64)
    corners = np.array([[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]])
    return float(ConvexHull((ends[:, None] + corners).reshape(-1, 2)).volume)
