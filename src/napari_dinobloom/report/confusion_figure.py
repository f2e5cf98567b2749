"""Which classes are taken for which: one matrix for each method, in percent of the true class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_dinobloom.report.figure_file import DPI, one_line, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, PALE = "#333333", "#ffffff"

LEAST_SHOWN = 1.0
"""Percent from which a number is written into its square."""


def draw_confusion(tables: Mapping[str, pd.DataFrame], title: str, note: str, path: Path) -> Path:
    """Draw a matrix for each method, side by side.

    Parameters
    ----------
    tables : mapping of DataFrame
        By method: true classes in rows, predicted ones in columns, counts.
    title, note : str
        Lines above and below.
    path : Path
        File to replace, whole or not at all; its ending is one of `figure_file.FORMATS`.

    Returns
    -------
    Path
        `path`.
    """
    from matplotlib.figure import Figure

    first = next(iter(tables.values()))
    names = [one_line(str(name), 24) for name in first.index]
    side = max(2.6, 0.3 * len(names))
    left, right = 0.75 + 0.075 * max(map(len, names)), 0.0
    bottom, top = 0.6 + 0.07 * max(map(len, names)), 0.6
    width, height = left + len(tables) * (side + 0.25) + right, bottom + side + top
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    for place, (method, table) in enumerate(tables.items()):
        box = ((left + place * (side + 0.25)) / width, bottom / height, side / width, side / height)
        axes = figure.add_axes(box)
        _panel(axes, table, one_line(method), names, labelled=place == 0)
    figure.text(0.12 / width, 1 - 0.25 / height, one_line(title, 160), size=10, color=INK, parse_math=False)
    figure.text(0.12 / width, 0.12 / height, one_line(note, 300), size=6.5, color="#666666", parse_math=False)
    return write_figure(figure, path)


def _panel(axes: Axes, table: pd.DataFrame, method: str, names: list[str], *, labelled: bool) -> None:
    """One matrix; a class that nothing shows stays empty."""
    counts = table.to_numpy(np.float64)
    support = counts.sum(axis=1)
    percent = 100 * np.divide(counts, support[:, None], out=np.zeros_like(counts), where=support[:, None] > 0)
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    size = 6.0 if len(names) > 12 else 7.0
    for row, column in zip(*np.nonzero(percent >= LEAST_SHOWN), strict=True):
        colour = PALE if percent[row, column] > 55 else INK
        axes.text(column, row, f"{percent[row, column]:.0f}", ha="center", va="center", size=size, color=colour)
    rows = [f"{name}  {int(n):,}" for name, n in zip(names, support, strict=True)] if labelled else []
    axes.set_xticks(range(len(names)), names, rotation=90, size=size, color=INK, parse_math=False)
    axes.set_yticks(range(len(names)), rows or [""] * len(names), size=size, color=INK, parse_math=False)
    axes.tick_params(length=0)
    axes.set_title(method, size=9, loc="left", color=INK, pad=4, parse_math=False)
    axes.set_xlabel("predicted, percent of the true class", size=7, color=INK)
    if labelled:
        axes.set_ylabel("true, with the number asked about", size=7, color=INK)
    for spine in axes.spines.values():
        spine.set(color="#bbbbbb", linewidth=0.6)
