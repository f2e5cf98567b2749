"""Measures per cell: the rows of the cell table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.cells.scale import Scale

VERSION = 3

Image = NDArray[np.uint8]
Labels = NDArray[np.int32]

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
    "nucleus_red": "float64",
    "nucleus_green": "float64",
    "nucleus_blue": "float64",
    "cytoplasm_red": "float64",
    "cytoplasm_green": "float64",
    "cytoplasm_blue": "float64",
    "touches_border": "bool",
    "quality": "object",
    "pixel_size_um": "float64",
    "scale_from": "object",
}
"""Columns of the table and their types."""


def measure(image: Any, labels: Labels, nuclei: Labels, scale: Scale) -> tuple[Labels, Labels, pd.DataFrame]:
    """Measure all cells and number them 1, 2, ... by y0, then x0.

    Parameters
    ----------
    image : numpy.ndarray
        (Y, X, 3) uint8.
    labels, nuclei : numpy.ndarray
        (Y, X) int32 with the same numbers.
    scale : Scale
        Of the picture.

    Returns
    -------
    labels, nuclei : numpy.ndarray
        (Y, X) int32, renumbered.
    table : pandas.DataFrame
        One row a cell with the columns `COLUMNS`.
    """
    from scipy import ndimage as ndi

    boxes = [(n, box) for n, box in enumerate(ndi.find_objects(labels), start=1) if box is not None]
    boxes.sort(key=lambda item: (item[1][0].start, item[1][1].start, item[0]))
    number = np.zeros(int(labels.max(initial=0)) + 1, np.int32)
    rows = []
    for new, (old, box) in enumerate(boxes, start=1):
        number[old] = new
        row = _row(np.asarray(image[box]), labels[box] == old, nuclei[box] == old, scale.pixel_size_um)
        y0, x0, y1, x1 = box[0].start, box[1].start, box[0].stop, box[1].stop
        row.update(label=new, y0=y0, x0=x0, y1=y1, x1=x1, y=row["y"] + y0, x=row["x"] + x0)
        row["touches_border"] = y0 == 0 or x0 == 0 or y1 == labels.shape[0] or x1 == labels.shape[1]
        row.update(pixel_size_um=scale.pixel_size_um, scale_from=scale.source)
        row["quality"] = _quality(row, scale.pixel_size_um)
        rows.append(row)
    table = pd.DataFrame({name: pd.Series([r[name] for r in rows], dtype=kind) for name, kind in COLUMNS.items()})
    return number[labels], number[nuclei], table


def _row(image: Image, mask: NDArray[np.bool_], nucleus: NDArray[np.bool_], pixel_um: float) -> dict[str, Any]:
    """Measures of one cell in its box; coordinates relative to the box."""
    from scipy import ndimage as ndi
    from skimage.measure import perimeter
    from skimage.morphology import convex_hull_image

    area, inner = int(mask.sum()), int(nucleus.sum())
    y, x = (float(v) for v in ndi.center_of_mass(mask))
    outline = float(perimeter(np.pad(mask, 1), neighborhood=8))
    solidity = inner / max(int(convex_hull_image(nucleus).sum()), 1) if inner > 2 else float("nan")
    row: dict[str, Any] = {
        "y": y,
        "x": x,
        "area_px": area,
        "nucleus_area_px": inner,
        "nc_ratio": inner / area,
        "solidity": float(min(solidity, 1.0)) if inner > 2 else float("nan"),
        "circularity": float(min(4 * np.pi * area / outline**2, 1.0)) if outline else 1.0,
        "lobes": int(ndi.label(nucleus)[1]),
        "focus": _focus(image, nucleus, pixel_um),
    }
    for part, where in (("nucleus", nucleus), ("cytoplasm", mask & ~nucleus)):
        colour = image[where].mean(axis=0) if where.any() else np.full(3, np.nan)
        for channel, value in zip(("red", "green", "blue"), colour, strict=True):
            row[f"{part}_{channel}"] = float(value)
    return row


def _focus(image: Image, nucleus: NDArray[np.bool_], pixel_um: float) -> float:
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


def _quality(row: dict[str, Any], pixel_um: float) -> str:
    """Flag a cell only where the measures leave little doubt; else ``ok``."""
    area, nucleus = row["area_px"] * pixel_um**2, row["nucleus_area_px"] * pixel_um**2
    if area < SMALLEST_CELL_UM2:
        return "debris" if not row["touches_border"] else "ok"
    if area > LARGEST_CELL_UM2:
        return "clump"
    if nucleus > 150.0 and row["nc_ratio"] > 0.85 and row["solidity"] < 0.85:
        return "smudge"
    if row["focus"] < BLURRED:
        return "out_of_focus"
    return "ok"
