"""The cells of a patient that a person should look at, and why each of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from napari_dinobloom.cells.taxonomy import LOOKED_AT, UNCLASSIFIED, describe
from napari_dinobloom.report.counting import flag, text
from napari_dinobloom.report.gallery import Crops, Portrait, portraits
from napari_dinobloom.report.legend import Legend
from napari_dinobloom.report.sightings import BY_CLASS

SHOWN = 16


@dataclass(frozen=True, slots=True)
class Flag:
    """One reason to look: `total` cells have it, `portraits` are the gravest of them."""

    title: str
    text: str
    total: int
    portraits: tuple[Portrait, ...]


def flags(
    cells: pd.DataFrame, obs: pd.DataFrame, limit: float, crops: Crops | None, legend: Legend, *, most: int = SHOWN
) -> list[Flag]:
    """The reasons that some cell has, the gravest first; a cell can have several.

    Parameters
    ----------
    cells : DataFrame
        The patient's cells as `sightings` gives them; those that a person took out and doubles are passed over.
    obs : DataFrame
        The study's cell table, row by ``row``.
    limit : float
        Distance beyond which a cell is unlike the atlas; NaN where there is none.
    crops : Crops or None
        Pictures by ``row``.
    legend : Legend
        Titles and colours.
    most : int
        Cells shown for each reason.
    """
    looked = cells[cells["reason"].isin(BY_CLASS)]
    own = obs.iloc[looked["row"].to_numpy(dtype=int)]
    found = []
    for title, words, rows, notes in _reasons(looked, own, limit):
        if len(rows):
            shown = portraits(rows.iloc[:most], crops, legend, notes[:most])
            found.append(Flag(title, words, len(rows), tuple(shown)))
    return found


def _reasons(
    cells: pd.DataFrame, obs: pd.DataFrame, limit: float
) -> Iterator[tuple[str, str, pd.DataFrame, list[str]]]:
    """Title, explanation, cells in order and a note for each, of every reason."""
    by_hand = cells["by_hand"].to_numpy(dtype=bool)
    nearest, distance = cells["nearest"].to_numpy(dtype=str), cells["distance"].to_numpy(dtype=float)
    critical = cells[cells["shown"].isin(LOOKED_AT) | np.isin(nearest, LOOKED_AT)]
    ordered = critical.sort_values("confidence", ascending=False, kind="stable", na_position="first")
    yield (
        "Of a class that must not be missed",
        "Blasts, bilobed promyelocytes and faggot cells; atypical and immature lymphocytes, hairy and plasma cells; "
        "and cells that are nearest to one.",
        ordered,
        [""] * len(ordered),
    )
    predicted = text(obs, "predicted")
    told = by_hand & ~flag(obs, "abstained") & (predicted != "") & (predicted != UNCLASSIFIED)
    against = told & (cells["shown"].to_numpy(dtype=str) != predicted.astype(str))
    yield (
        "Named otherwise by a person",
        "The person's name counts. Many such cells of one kind say that the atlas does not fit these smears.",
        cells[against],
        [f"predicted {describe(name).title.lower()}" for name in predicted[against]],
    )
    unlike = ~by_hand & (distance > limit)
    far = cells[unlike].sort_values("distance", ascending=False, kind="stable")
    yield (
        "Unlike the reference",
        "They are farther from every reference cell than the atlas' own kind is: another stain, a class that it lacks, "
        "two cells in one, or no cell.",
        far,
        [f"distance {value:.2f}, limit {limit:.2f}" for value in far["distance"]],
    )
    doubtful = cells[(nearest != "") & ~unlike].sort_values("confidence", kind="stable")
    yield (
        "Low confidence",
        "The nearest reference cells did not agree enough, so that the cell was left unclassified.",
        doubtful,
        [""] * len(doubtful),
    )


def limit_of(atlas: object) -> float:
    """The distance limit in what is said of an atlas, NaN where it says none."""
    try:
        return float(str(dict(atlas)["distance_limit"]))  # type: ignore[call-overload]
    except (KeyError, TypeError, ValueError):
        return math.nan
