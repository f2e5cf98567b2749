"""How wide a crop is in pixels: micrometres by the scale of the slide, or diameters of its white cells.

Owns the rule for slides whose scale nobody knows: `typical_diameters`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FEWEST = 5
"""Whole, readable cells that a slide must have for their median to be trusted."""

TYPICAL_UM = 13.0
"""Diameter of a white cell in a smear, for slides with fewer cells but a scale: neutrophils measure 12 to 15 um (Bain,
Blood Cells, 2015), the cells of the PBC test pictures 13.9 um in the median."""

RULERS = ("user", "file", "red cells")
"""Sources of a scale that do not rest on the white cells themselves."""

STEPS_PER_DOUBLING = 18
"""Diameters are rounded to steps of 2 ** (1 / 18), 4 %: one more field rarely changes the crops of all others."""

SIDES_PX = (2.0, 16_384.0)

Floats = NDArray[np.float64]


def pixel_sizes(table: pd.DataFrame, given: float | None) -> Floats:
    """Pixel size of each row in micrometres: the given one, else the table's.

    Raises
    ------
    ValueError
        If there is none, or one is not a positive number.
    """
    if given is None and "pixel_size_um" not in table.columns:
        raise ValueError("context crops need a scale: give pixel_size_um, or a table with the column pixel_size_um")
    sizes = table["pixel_size_um"].to_numpy(np.float64) if given is None else np.full(len(table), float(given))
    bad = np.flatnonzero(~(np.isfinite(sizes) & (sizes > 0)))
    if len(bad):
        raise ValueError(f"pixel_size_um of row {bad[0]} is {sizes[bad[0]]}: it must be a positive number")
    return sizes


def check_sides(sides: Floats) -> Floats:
    """Give the sides back, or say which one shows that the scale is in another unit.

    Raises
    ------
    ValueError
        If a side is below 2 or above 16,384 pixels.
    """
    bad = np.flatnonzero(~((sides >= SIDES_PX[0]) & (sides <= SIDES_PX[1])))
    if len(bad):
        raise ValueError(
            f"the crop of row {bad[0]} would be {sides[bad[0]]:.3g} px wide: check pixel_size_um, which is in "
            f"micrometres per pixel, and the field of view ({SIDES_PX[0]:.0f} to {SIDES_PX[1]:.0f} px are possible)"
        )
    return sides


def typical_diameters(table: pd.DataFrame, pixel_size_um: float | None = None) -> Floats:
    """Diameter of a typical white cell of each row's slide.

    The median of the slide's whole cells (not on the border, not deleted) of quality ``ok``, if there are five. Else,
    if the scale comes from the user, the file or the red cells, 13 um by that scale. Else the median of what cells
    there are. Rounded to steps of 4 %. The diameter of a cell is that of a disc of its area.

    Parameters
    ----------
    table : pandas.DataFrame
        All cells of the slides, with ``area_px``; ``slide``, ``quality``, ``touches_border``, ``deleted``,
        ``pixel_size_um`` and ``scale_from`` are used where they are there. Without ``slide`` it is one slide.
    pixel_size_um : float, optional
        Scale, where it is known.

    Returns
    -------
    numpy.ndarray
        (n,) float64, pixels.

    Raises
    ------
    ValueError
        If there is no ``area_px``, or a slide has neither a cell with an area nor a scale.
    """
    if "area_px" not in table.columns:
        raise ValueError("a field of view in cell diameters needs areas: give a table with the column area_px")
    diameters = np.empty(len(table))
    slide = table["slide"].astype(str).to_numpy() if "slide" in table.columns else np.zeros(len(table), int)
    for name in np.unique(slide):
        rows = slide == name
        diameters[rows] = _rounded(_typical(table[rows], pixel_size_um))
    return diameters


def _typical(cells: pd.DataFrame, pixel_size_um: float | None) -> float:
    """Diameter of a typical cell of one slide in pixels."""
    area = cells["area_px"].to_numpy(np.float64)
    known = np.isfinite(area) & (area > 0) & ~_flag(cells, "deleted")
    whole = known & ~_flag(cells, "touches_border")
    if "quality" in cells.columns:
        whole &= (cells["quality"] == "ok").to_numpy(bool)
    if whole.sum() >= FEWEST:
        return _median(area[whole])
    by_ruler = pixel_size_um is not None or ("scale_from" in cells.columns and cells["scale_from"].iloc[0] in RULERS)
    if by_ruler or not known.any():
        present = cells[~_flag(cells, "deleted")]  # a cell that is gone may have an earlier scale
        return TYPICAL_UM / float(pixel_sizes(present if len(present) else cells, pixel_size_um)[0])
    return _median(area[known])


def _flag(cells: pd.DataFrame, name: str) -> NDArray[np.bool_]:
    """A column of truth values; all False where it is missing."""
    return cells[name].to_numpy(bool) if name in cells.columns else np.zeros(len(cells), bool)


def _median(area: Floats) -> float:
    """Median equivalent diameter."""
    return float(np.sqrt(4 / np.pi * np.median(area)))


def _rounded(diameter: float) -> float:
    """Nearest step."""
    return float(2.0 ** (round(np.log2(diameter) * STEPS_PER_DOUBLING) / STEPS_PER_DOUBLING))
