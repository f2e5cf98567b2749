"""The cells as a report shows them: one row a cell with its class, what it was nearest to and why it did not count."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED
from napari_dinobloom.report.counting import LEFT_OUT, PER_100, Selection, Specimen, counting, flag, text
from napari_dinobloom.report.legend import Legend

if TYPE_CHECKING:
    from napari_dinobloom.report.schemes import Scheme

REASON_WORDS: dict[str, str] = {
    "deleted": "deleted by a person",
    "excluded": "excluded by a person",
    "duplicate": "the same cell counts in another field",
    "border": "cut off by the border of the field",
    "unreadable": "crop cannot be read",
    "unreviewed": "no person has looked at it",
    "platelet": "platelets do not count",
    "artefact": "artefacts do not count",
    LEFT_OUT: "left out by the counting scheme",
    PER_100: "given per 100 counted cells",
}
"""The reasons of `counting.REASONS` for readers."""

BY_CLASS = ("", PER_100, "platelet", "artefact", LEFT_OUT)
"""Reasons that lie in the class of a cell: such cells are shown with their class, not among the discarded."""


def sightings(
    obs: pd.DataFrame, specimen: Specimen, *, scheme: Scheme | None = None, cells: Selection = "all"
) -> pd.DataFrame:
    """Return the cells that a report shows, in the order of the study.

    Parameters
    ----------
    obs : DataFrame
        One row a cell, the columns of a study's cell table; the index is the cell_id.
    specimen : {"blood", "marrow"}
        What was smeared.
    scheme, cells
        As for `counting`, so that ``reason`` is that of the differential beside it.

    Returns
    -------
    DataFrame
        One row for each cell that a person has not deleted: ``cell_id field slide patient``, ``number`` (in its field),
        ``y0 x0 y1 x1`` (pixels), ``row`` (in the cell table and the crops), ``shown`` (class it counts as), ``nearest``
        (class an abstained cell was nearest to), ``confidence`` (NaN for a person's label), ``distance``, ``by_hand``
        (bool), ``reviewed`` (bool), ``reason`` (as `counting` gives it), ``quality``, ``scale_from``.

    Raises
    ------
    DinoBloomError
        If `specimen` is not known.
    """
    verdict = counting(obs if len(obs) else obs.assign(predicted=""), specimen=specimen, scheme=scheme, cells=cells)
    known = verdict["known"].to_numpy(dtype=bool)
    predicted = text(obs, "predicted")
    unsure = flag(obs, "abstained") & ~known & (predicted != UNCLASSIFIED)
    table = pd.DataFrame({"cell_id": obs.index.astype(str)}, index=obs.index.astype(str))
    for name in ("field", "slide", "patient", "quality", "scale_from"):
        table[name] = text(obs, name)
    table["number"] = [_number(cell_id) for cell_id in table.index]
    for name in ("y0", "x0", "y1", "x1"):
        table[name] = np.nan_to_num(_numbers(obs, name)).astype(int)
    table["row"] = range(len(obs))
    table["shown"] = verdict["class"].to_numpy(dtype=object)
    table["nearest"] = np.where(unsure, predicted, "")
    table["confidence"] = np.where(known, np.nan, _numbers(obs, "confidence"))
    table["distance"] = _numbers(obs, "distance")
    table["by_hand"] = known
    table["reviewed"] = flag(obs, "reviewed")
    table["reason"] = verdict["reason"].to_numpy(dtype=object)
    return table[table["reason"] != "deleted"]


def describe_cell(row: dict[str, object], legend: Legend) -> str:
    """One cell in words: id, class, confidence and, for one outside the denominator, the reason.

    Parameters
    ----------
    row : dict
        One row of `sightings`.
    legend : Legend
        Titles.
    """
    words = [str(row["cell_id"]), legend[str(row["shown"])].title]
    if row["by_hand"]:
        words.append("named by a person")
    elif row["nearest"]:
        words.append(f"nearest to {legend[str(row['nearest'])].title}")
    confidence = float(str(row["confidence"]))
    if math.isfinite(confidence):
        words.append(f"confidence {confidence:.2f}")
    if row["reason"]:
        words.append(reason_words(row))
    return " · ".join(words)


def reason_words(row: dict[str, object]) -> str:
    """Why a cell is not in the denominator, for readers; empty for one that is."""
    reason = str(row["reason"])
    if not reason:
        return ""
    words = REASON_WORDS.get(reason, reason)
    if reason == "unreadable" and row["quality"]:
        words += f" ({row['quality']})"
    return words if reason == PER_100 else f"not counted: {words}"


def _numbers(obs: pd.DataFrame, name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Column `name` as numbers, NaN where it is missing."""
    column = obs[name] if name in obs else pd.Series(float("nan"), index=obs.index)
    return np.asarray(pd.to_numeric(column, errors="coerce"), dtype=np.float64)


def _number(cell_id: str) -> int:
    """A cell's number in its field, the part of its id behind the colon; 0 in an id of another form."""
    tail = cell_id.rpartition(":")[2]
    return int(tail) if tail.isascii() and tail.isdecimal() else 0
