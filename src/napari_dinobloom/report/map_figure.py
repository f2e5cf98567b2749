"""Figures of maps: new patients' cells on a cohort's map, and slides before and after re-standardisation.

The first has the layout of Fig. 2 of Koch et al., MICCAI 2024, arXiv 2404.05022. Text from files is never read as
markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_dinobloom.report.figure_file import DPI, one_line, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Float32 = npt.NDArray[np.float32]

GREY = "#d4d4d4"
INK = "#333333"


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Some cells on a map.

    Attributes
    ----------
    title : str
        Patient, or what they are.
    spots : (n, 2) array of float32
        Where they lie.
    kinds : (n,) array of str
        Diagnosis or class of each.
    """

    title: str
    spots: Float32
    kinds: npt.NDArray[np.str_]


def draw_cohort(
    cohort: Cells,
    patients: Sequence[Cells],
    colours: Mapping[str, str],
    names: Mapping[str, str],
    note: str,
    path: Path,
) -> Path:
    """Draw a cohort's map, and beside it the cells of each new patient over the cohort in grey.

    Parameters
    ----------
    cohort : Cells
        Cells of the reference patients.
    patients : sequence of Cells
        New patients, in the order of the panels.
    colours, names : mapping
        Colour ``#rrggbb`` and name for readers of each kind, in the order of the legend.
    note : str
        What is shown, below the figure.
    path : Path
        File to replace, whole or not at all; its ending is one of `figure_file.FORMATS`.

    Returns
    -------
    Path
        `path`.
    """
    from matplotlib.figure import Figure

    columns = 1 if len(patients) < 3 else 2 if len(patients) < 7 else 3
    rows = max(2, -(-len(patients) // columns))
    side = 5.9 / rows
    figure = Figure(figsize=(6.0 + columns * (side - 0.14) + 0.1, 7.0), dpi=DPI, facecolor="white")
    width, height = figure.get_size_inches()
    left = figure.add_axes((0.2 / width, 1.0 / height, 5.6 / width, 5.6 / height))
    limits = _limits(np.concatenate([cohort.spots, *(one.spots for one in patients)]))
    order = np.random.default_rng(0).permutation(len(cohort.spots))  # no kind lies above another
    dot = float(np.clip(9000 / max(len(order), 1), 0.6, 14))
    _dots(left, cohort.spots[order], [colours[kind] for kind in cohort.kinds[order]], dot)
    _frame(left, limits, cohort.title, 10)
    for place, patient in enumerate(patients):
        row, column = divmod(place, columns)
        x, y, inner = 6.0 + column * (side - 0.14), 6.9 - (row + 1) * side, side - 0.3
        axes = figure.add_axes((x / width, y / height, inner / width, inner / height))
        _dots(axes, cohort.spots, GREY, dot * 0.5)
        _dots(axes, patient.spots, [colours[kind] for kind in patient.kinds], 13, edge=True)
        _frame(axes, limits, patient.title, 7.5)
    _legend(left, cohort, patients, colours, names)
    figure.text(0.2 / width, 0.12 / height, one_line(note, 400), size=6.5, color="#666666", parse_math=False)
    return write_figure(figure, path)


def draw_mixing(panels: Sequence[Cells], colours: Mapping[str, str], path: Path) -> Path:
    """Draw maps side by side, coloured by slide, each with its title: before and after.

    Parameters
    ----------
    panels : sequence of Cells
        Maps; their kinds are slides.
    colours : mapping
        Colour of each slide.
    path : Path
        File to replace.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(4.6 * len(panels), 5.1), dpi=DPI, facecolor="white")
    for place, panel in enumerate(panels):
        axes = figure.add_axes(((place + 0.02) / len(panels), 0.07, 0.96 / len(panels), 0.86))
        order = np.random.default_rng(0).permutation(len(panel.spots))
        dot = float(np.clip(9000 / max(len(order), 1), 0.6, 14))
        _dots(axes, panel.spots[order], [colours[kind] for kind in panel.kinds[order]], dot)
        _frame(axes, _limits(panel.spots), panel.title, 9.5)
    handles = [Line2D([], [], marker="o", linestyle="", markersize=6, color=colour) for colour in colours.values()]
    labels = [one_line(name, 30) for name in colours]
    for text in figure.legend(handles, labels, loc="lower left", ncols=8, frameon=False, fontsize=8).get_texts():
        text.set_parse_math(False)
    return write_figure(figure, path)


def _dots(axes: Axes, spots: Float32, colours: str | list[str], size: float, *, edge: bool = False) -> None:
    line = {"edgecolors": "white", "linewidths": 0.25} if edge else {"linewidths": 0}
    axes.scatter(spots[:, 0], spots[:, 1], s=size, c=colours, rasterized=True, **line)


def _frame(axes: Axes, limits: tuple[float, float, float], title: str, size: float) -> None:
    """Give all panels the same square window; the numbers of a map's axes mean nothing and are left out."""
    x, y, half = limits
    axes.set(xlim=(x - half, x + half), ylim=(y - half, y + half), xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color="#bbbbbb", linewidth=0.6)
    axes.set_title(one_line(title, 90), size=size, loc="left", color=INK, pad=4, parse_math=False)


def _limits(spots: Float32) -> tuple[float, float, float]:
    """Middle and half side of a square around spots."""
    known = spots[np.isfinite(spots).all(1)].astype(np.float64)
    if not len(known):
        return 0.0, 0.0, 1.0
    low, high = known.min(0), known.max(0)
    middle = (low + high) / 2
    return float(middle[0]), float(middle[1]), float(max((high - low).max() / 2 * 1.05, 1e-6))


def _legend(
    axes: Axes, cohort: Cells, patients: Sequence[Cells], colours: Mapping[str, str], names: Mapping[str, str]
) -> None:
    """Name the kinds that are shown, with the cohort's cells of each."""
    from matplotlib.lines import Line2D

    shown = set(cohort.kinds.tolist()).union(*(one.kinds.tolist() for one in patients))
    kinds = [kind for kind in colours if kind in shown]
    handles = [Line2D([], [], marker="o", linestyle="", markersize=6, color=colours[kind]) for kind in kinds]
    labels = [f"{one_line(names.get(kind, kind), 30)}  {(cohort.kinds == kind).sum():,}" for kind in kinds]
    found = axes.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(0, -0.015),
        ncols=3 if len(kinds) < 10 else 4,
        frameon=False,
        fontsize=7.5,
        handletextpad=0.2,
        columnspacing=1.2,
        borderaxespad=0,
    )
    for text in found.get_texts():
        text.set_parse_math(False)
