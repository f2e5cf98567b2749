"""Geometry of the report's figures: composition bars with their whiskers, and the map of all cells.

What is drawn is decided here; how it is written as SVG stands in the templates, so that all text passes their
escaping. Horizontal places of bars are percentages of the figure's width: they fit a wide screen, a phone and paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED
from napari_dinobloom.report.budget import mask_uri
from napari_dinobloom.report.legend import Entry, Legend

DOTS_AS_VECTORS = 20_000
MAP_WIDTH, MAP_HEIGHT = 800, 560
GROUND = "#cbd1d8"
_RASTER = 2


@dataclass(frozen=True, slots=True)
class Bar:
    """One class in a composition figure; lengths in percent of the figure's width, shares in percent of the cells."""

    entry: Entry
    n: int
    percent: float
    length: float
    low: float
    high: float
    corrected: float | None
    corrected_low: float
    corrected_high: float


@dataclass(frozen=True, slots=True)
class BarFigure:
    """Bars in order, the ticks of their axis as (share in percent, place in percent of the width)."""

    bars: tuple[Bar, ...]
    ticks: tuple[tuple[int, float], ...]
    has_corrected: bool


def bar_figure(rows: pd.DataFrame, legend: Legend) -> BarFigure:
    """Bars of one slide or patient, the largest first and the unclassified last.

    Parameters
    ----------
    rows : DataFrame
        Rows of a differential that stand in the denominator: ``class n percent low high corrected corrected_low
        corrected_high``, in percent.
    legend : Legend
        Titles and colours.
    """
    seen = rows[(rows["n"] > 0) | (rows["corrected"].fillna(0) >= 0.5)]
    values = seen[["percent", "high", "corrected", "corrected_high"]].to_numpy(dtype=float)
    longest = float(np.nanmax(values)) if np.isfinite(values).any() else 0.0
    end = min(100, max(10, 10 * int(np.ceil(longest / 10))))
    scale = 100 / end
    ordered = sorted(
        seen.to_dict("records"), key=lambda r: (r["class"] == UNCLASSIFIED, -r["n"], legend.rank(r["class"]))
    )
    bars = tuple(_bar(row, legend[str(row["class"])], scale) for row in ordered)
    step = 5 if end <= 20 else 10 if end <= 60 else 20
    ticks = tuple((t, t * scale) for t in range(0, end + 1, step))
    return BarFigure(bars, ticks, any(bar.corrected is not None for bar in bars))


def _bar(row: dict[object, object], entry: Entry, scale: float) -> Bar:
    """One row of a differential as lengths on an axis of `scale` percent of the width per percent of the cells."""

    def place(name: str) -> float:
        value = float(str(row[name]))
        return round(min(100.0, value * scale), 2) if np.isfinite(value) else 0.0

    corrected = float("nan") if entry.name == UNCLASSIFIED else float(str(row["corrected"]))
    return Bar(
        entry,
        int(str(row["n"])),
        float(str(row["percent"])),
        place("percent"),
        place("low"),
        place("high"),
        place("corrected") if np.isfinite(corrected) else None,
        place("corrected_low"),
        place("corrected_high"),
    )


@dataclass(frozen=True, slots=True)
class MapLayer:
    """The cells of one class on the map: dots as an SVG path, or a transparent picture where there are too many."""

    entry: Entry
    n: int
    path: str
    picture: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class MapFigure:
    """The map of all cells, the commonest class at the bottom; `missing` cells have no place on it.

    `ground` is a grey picture of the cells that are not told apart, empty where all are.
    """

    layers: tuple[MapLayer, ...]
    dot: float
    missing: int
    ground: str = ""
    width: int = MAP_WIDTH
    height: int = MAP_HEIGHT


def map_figure(
    xy: npt.ArrayLike, shown: pd.Series, legend: Legend, *, among: npt.NDArray[np.bool_] | None = None
) -> MapFigure:
    """Place cells on the map.

    Parameters
    ----------
    xy : array-like, (n, 2), float
        UMAP coordinates; cells without finite ones are left out and counted.
    shown : Series of str, (n,)
        Class of each cell.
    legend : Legend
        Titles and colours.
    among : array of bool, (n,), optional
        The cells to tell apart, over all others in grey; `missing` then counts among them.
    """
    points = np.asarray(xy, dtype=float).reshape(-1, 2)
    known = np.isfinite(points).all(axis=1)
    mine = np.ones(len(points), dtype=bool) if among is None else among
    missing = int((mine & ~known).sum())
    if not (mine & known).any():
        return MapFigure((), 3.0, missing)
    spots = _fit(points[known])
    placed, names = spots[mine[known]], shown.to_numpy(dtype=str)[mine & known]
    dot = float(np.clip(160 / np.sqrt(len(placed)), 2.2, 7.0))
    counts = pd.Series(names).value_counts()
    order = sorted(counts.index, key=lambda name: (name != UNCLASSIFIED, -counts[name], legend.rank(name)))
    vectors = len(placed) <= DOTS_AS_VECTORS
    layers = tuple(_layer(legend[name], placed[names == name], dot, vectors=vectors) for name in order)
    ground = ""
    if len(placed) < len(spots):
        around = float(np.clip(160 / np.sqrt(len(spots)), 1.5, 5.0))
        ground = mask_uri(_splat(spots * _RASTER, around * _RASTER / 2), GROUND)
    return MapFigure(layers, round(dot, 1), missing, ground)


def _fit(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`points` moved and scaled alike in both directions into the map's frame, the second axis upwards."""
    margin = 24
    room = np.array([MAP_WIDTH - 2 * margin, MAP_HEIGHT - 2 * margin], dtype=float)
    low, high = points.min(axis=0), points.max(axis=0)
    span = np.maximum(high - low, 1e-9)
    scaled = (points - (low + high) / 2) * float((room / span).min())
    if not (high > low).any():
        scaled = np.zeros_like(points)
    return np.column_stack([MAP_WIDTH / 2 + scaled[:, 0], MAP_HEIGHT / 2 - scaled[:, 1]])


def _layer(entry: Entry, placed: npt.NDArray[np.float64], dot: float, *, vectors: bool) -> MapLayer:
    """The dots of one class, and where its abbreviation is written: on the cell nearest to their median."""
    centre = np.median(placed, axis=0)
    anchor = placed[np.argmin(((placed - centre) ** 2).sum(axis=1))]
    path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in placed) if vectors else ""
    picture = "" if vectors else mask_uri(_splat(placed * _RASTER, dot * _RASTER / 2), entry.colour)
    return MapLayer(entry, len(placed), path, picture, round(float(anchor[0]), 1), round(float(anchor[1]), 1))


def _splat(placed: npt.NDArray[np.float64], radius: float) -> npt.NDArray[np.bool_]:
    """Discs of `radius` pixels at `placed` (n, 2) x, y as a picture of the map at `_RASTER` times its size."""
    mask = np.zeros((MAP_HEIGHT * _RASTER, MAP_WIDTH * _RASTER), dtype=bool)
    columns, rows = np.rint(placed).astype(int).T
    reach = int(np.ceil(radius))
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dx * dx + dy * dy <= radius * radius:
                mask[np.clip(rows + dy, 0, mask.shape[0] - 1), np.clip(columns + dx, 0, mask.shape[1] - 1)] = True
    return mask
