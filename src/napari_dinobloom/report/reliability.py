"""The reliability figure: how often a classifier is right, against how sure it is, before and after scaling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from napari_dinobloom.report.figure_file import DPI, check_files, one_line, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, GREY, BLUE = "#333333", "#bbbbbb", "#0072b2"


def draw_reliability(tables: Mapping[str, pd.DataFrame], path: Path, *, note: str = "") -> Path:
    """Draw one diagram for each table, side by side.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Title and table of `predict.calibration.reliability`; columns ``low high n confidence accuracy``.
    path : Path
        File to replace, whole or not at all; its ending is one of `figure_file.FORMATS`.
    note : str
        What is shown, below the diagrams.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        If a figure cannot have this name.
    ValueError
        If there is no table.
    """
    from matplotlib.figure import Figure

    check_files(path)
    if not tables:
        raise ValueError("No reliability table was given; give one at least.")
    figure = Figure(figsize=(3.2 * len(tables) + 0.4, 3.9), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
    for place, (title, table) in zip(axes, tables.items(), strict=True):
        _diagram(place, one_line(title, 44), table)
    axes[0].set_ylabel("share of right names", color=INK)
    if note:
        figure.supxlabel(one_line(note, 60 * len(tables)), fontsize=7, color=INK, parse_math=False)
    return write_figure(figure, path)


def _diagram(axes: Axes, title: str, table: pd.DataFrame) -> None:
    """Bars of accuracy over the bins of confidence, the diagonal, and how many cells a bin holds."""
    full = table[table["n"] > 0]
    total = int(full["n"].sum())
    error = float(((full["confidence"] - full["accuracy"]).abs() * full["n"]).sum() / total) if total else float("nan")
    width = full["high"] - full["low"]
    axes.bar(full["low"], full["accuracy"], width, align="edge", color=BLUE, alpha=0.35, edgecolor=BLUE, linewidth=0.8)
    axes.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle="--")
    axes.plot(full["confidence"], full["accuracy"], color=INK, marker="o", markersize=3, linewidth=1)
    share = full["n"] / max(total, 1)
    axes.bar(full["low"], share * 0.2, width, align="edge", bottom=-0.24, color=GREY)
    axes.set(xlim=(0, 1), ylim=(-0.24, 1.02), xticks=(0.2, 0.4, 0.6, 0.8), yticks=(0, 0.25, 0.5, 0.75, 1))
    axes.set_xlabel("confidence", color=INK)
    axes.set_title(title, fontsize=9, color=INK, parse_math=False)
    axes.text(0.04, 0.96, f"ECE {error:.3f}\n{total:,} cells", va="top", fontsize=8, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
