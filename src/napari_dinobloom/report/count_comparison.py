"""A differential against a count by hand of the same smears: Rümke's limits, bias, and one test for the whole count.

Both counts are taken as independent samples of the cells of one smear. Two things are asked of each line:

- Is the study's percentage one that the manual count allows? Rümke's limits are the exact binomial 95 % limits of the
  manual percentage at the number of cells counted by hand (Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404), in
  whole percent and rounded outward, as Rümke tabulated them for differential counts (Triangle 1960, 4:154). They hold
  the error of the manual count only, and are meant for a study that counted many more cells.
- Do the two differ by more than both counting errors? The interval of the difference is put together from Wilson's
  intervals of the two percentages (method 10 of Newcombe 1998, Statistics in Medicine 17:873): errors that are
  independent add up as squares of the distances to the limits.

About one line in twenty falls outside by chance; `overall` therefore tests each count as a whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED
from napari_dinobloom.errors import InputError
from napari_dinobloom.explore.proportions import Z95, wilson
from napari_dinobloom.report.counting import in_order
from napari_dinobloom.report.manual_count import place_of
from napari_dinobloom.report.quantify import ratio_interval
from napari_dinobloom.report.schemes import nearest

WHERE = ("level", "patient", "slide")
DRAWS = 9_999
"""Random tables behind the p-value of `overall`."""

COARSE: dict[str, tuple[str, ...]] = {
    "neutrophil": ("neutrophil_segmented", "neutrophil_band"),
    "immature_granulocyte": ("metamyelocyte", "myelocyte", "promyelocyte"),
    "blast": ("myeloblast", "monoblast"),
}
"""Classes that one count may keep together and the other apart."""

NOTES = (
    "rumke_low and rumke_high: exact binomial 95 % limits of the manual percentage, rounded outward; inside: whether "
    "the study's lies within; bias: study minus manual, with the 95 % interval of both counting errors (Newcombe).",
    "Outside the denominator, percentages are cells per 100 counted ones.",
)


def rumke_limits(n: ArrayLike, counted: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rümke's 95 % limits of `n` of `counted` cells: exact binomial (Clopper and Pearson 1934).

    Parameters
    ----------
    n, counted : array of int
        Cells of a class, and all cells counted (1 or more); broadcast against each other.

    Returns
    -------
    low, high : array of float64
        Proportions 0 to 1.
    """
    from scipy.stats import beta

    k, total = np.broadcast_arrays(np.asarray(n, dtype=np.float64), np.asarray(counted, dtype=np.float64))
    low = np.where(k > 0, beta.ppf(0.025, np.maximum(k, 1), total - k + 1), 0.0)
    high = np.where(k < total, beta.ppf(0.975, k + 1, np.maximum(total - k, 1)), 1.0)
    return low, high


def compare(differential: pd.DataFrame, manual: pd.DataFrame) -> pd.DataFrame:
    """Compare a differential with counts by hand, line by line.

    Parameters
    ----------
    differential : DataFrame
        As `report.differential.differential` returns it, of the same specimen and scheme.
    manual : DataFrame
        As `read_manual` returns it. A count with a slide is compared with that slide, others with the patient.

    Returns
    -------
    DataFrame
        One row a line of each count by hand: ``level patient slide class in_denominator``, ``n counted percent`` of the
        study, ``manual_n manual_counted manual_percent``, ``rumke_low rumke_high`` (whole percent) and ``inside``
        (whether the study's percentage lies within), ``bias bias_low bias_high`` (study minus manual, in percent
        points, 95 %) and ``differs`` (whether the interval leaves out 0). Outside the denominator all are per 100
        counted cells, and only lines that were counted by hand are compared. Lines without a cell in both are left
        out unless the manual count names them.

    Raises
    ------
    InputError
        If the study has no such patient or slide (the nearest is named) or no counted cell of it, or one count keeps
        together what the other keeps apart.
    """
    parts = [_against(differential, part) for _, part in manual.groupby(["patient", "slide"], sort=False)]
    return pd.concat(parts, ignore_index=True)


def _against(differential: pd.DataFrame, manual: pd.DataFrame) -> pd.DataFrame:
    """One count by hand against its slide or patient."""
    first = manual.iloc[0]
    level = "slide" if first["slide"] else "patient"
    lines = differential[differential["level"] == level]
    for column in ("patient", "slide"):
        found = lines[lines[column] == first[column]]
        if not len(found):
            there = list(dict.fromkeys(lines[column]))
            raise InputError(f"The study has no {column} {first[column]!r}{nearest(str(first[column]), there) or '.'}")
        lines = found
    counted = int(lines["counted"].iloc[0])
    if not counted:
        raise InputError(f"The study counted no cell of {place_of(first)}.")
    _check_same_grain(lines, manual)
    mine, theirs = (dict(zip(t["class"], t["n"].tolist(), strict=True)) for t in (lines, manual))
    inside = {
        str(name): bool(within)
        for t in (lines, manual)
        for name, within in zip(t["class"], t["in_denominator"], strict=True)
    }
    held = set(theirs) | {name for name, n in mine.items() if n and inside[name]}
    names = [name for name in mine if name in held] + in_order(held - set(mine))
    by_hand = int(first["counted"])
    rows = [_row(name, mine.get(name, 0), counted, theirs.get(name, 0), by_hand, inside[name]) for name in names]
    table = pd.DataFrame(rows)
    for column, value in zip(WHERE, (level, first["patient"], first["slide"]), strict=True):
        table.insert(WHERE.index(column), column, value)
    return table


def _row(name: str, n: int, counted: int, hand: int, by_hand: int, inside: bool) -> dict[str, Any]:
    """One line of a comparison: `n` of `counted` cells against `hand` of `by_hand`."""
    share, low, high = _estimate(n, counted, inside)
    hand_share, hand_low, hand_high = _estimate(hand, by_hand, inside)
    limits = [float(v) for v in rumke_limits(hand, by_hand if inside else hand + by_hand)]
    least, most = (100 * v if inside else 100 * v / (1 - v) for v in limits)
    least, most = float(np.floor(least + 1e-9)), float(np.ceil(most - 1e-9))
    bias = share - hand_share
    bias_low = bias - np.hypot(share - low, hand_high - hand_share)
    bias_high = bias + np.hypot(high - share, hand_share - hand_low)
    return {
        "class": name,
        "in_denominator": inside,
        "n": n,
        "counted": counted,
        "percent": share,
        "manual_n": hand,
        "manual_counted": by_hand,
        "manual_percent": hand_share,
        "rumke_low": least,
        "rumke_high": most,
        "inside": bool(least <= share <= most),
        "bias": bias,
        "bias_low": bias_low,
        "bias_high": bias_high,
        "differs": bool(bias_low > 0 or bias_high < 0),
    }


def _estimate(n: int, counted: int, inside: bool) -> tuple[float, float, float]:
    """Percent of the denominator, or cells per 100 of it, with Wilson's limits."""
    if not inside:
        ratio, low, high = ratio_interval(n, counted)
        return 100 * ratio, 100 * low, 100 * high
    low_share, high_share = wilson(n, counted)
    return 100 * n / counted, 100 * float(low_share), 100 * float(high_share)


def _check_same_grain(lines: pd.DataFrame, manual: pd.DataFrame) -> None:
    """Raise where one count has a class as a whole and the other its parts."""
    seen = [set(table.loc[table["n"] > 0, "class"]) for table in (lines, manual)]
    for whole, parts in COARSE.items():
        for one, other, who in ((*seen, "study"), (*seen[::-1], "manual count")):
            apart = [part for part in parts if part in one]
            if whole in other and whole not in one and apart:
                raise InputError(
                    f"{place_of(manual.iloc[0])}: the {who} has {' and '.join(apart)}, the other count {whole}. They "
                    "cannot be compared line by line: count both in a scheme that puts them together (--scheme "
                    "five-part, or one of your own)."
                )


def unclassified_note(compared: pd.DataFrame) -> str:
    """Say what share of the study's cells is unclassified, which a count by hand has none of; "" for no such cell.

    Parameters
    ----------
    compared : DataFrame
        As `compare` returns it.
    """
    unnamed = int(compared.loc[compared["class"] == UNCLASSIFIED, "n"].sum())
    if not unnamed:
        return ""
    share = unnamed / int(compared.drop_duplicates(list(WHERE))["counted"].sum())
    return f"{100 * share:.1f} % of the study's cells are unclassified and make every class look smaller."


def overall(compared: pd.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Judge each count as a whole.

    Parameters
    ----------
    compared : DataFrame
        As `compare` returns it.
    draws, seed : int
        Random tables for the p-value, and their seed.

    Returns
    -------
    DataFrame
        One row a count: ``level patient slide``, ``lines``, ``outside`` (lines outside Rümke's limits), ``differing``
        (lines whose two percentages differ), ``chi2`` and ``p``: whether both are samples of one mix of cells, by the
        chi-square statistic of the denominator's lines and random tables with the same margins (valid for rare
        classes, too); 1 for a single line.
    """
    rows = []
    for place, part in compared.groupby(list(WHERE), sort=False):
        chi2, p = _homogeneity(part.loc[part["in_denominator"], ["n", "manual_n"]].to_numpy(np.int64).T, draws, seed)
        figures = (len(part), int((~part["inside"]).sum()), int(part["differs"].sum()), chi2, p)
        rows.append((*place, *figures))
    return pd.DataFrame(rows, columns=[*WHERE, "lines", "outside", "differing", "chi2", "p"])


def _homogeneity(table: NDArray[np.int64], draws: int, seed: int) -> tuple[float, float]:
    """Chi-square statistic of a table of two rows and its p-value by random tables with the same margins."""
    from scipy.stats import random_table

    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 0.0, 1.0
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    expected = np.outer(rows, columns) / table.sum()
    chi2 = float(((table - expected) ** 2 / expected).sum())
    drawn = random_table.rvs(rows, columns, size=draws, random_state=np.random.default_rng(seed))
    others = ((drawn - expected) ** 2 / expected).sum(axis=(1, 2))
    return chi2, float((1 + (others >= chi2 - 1e-9).sum()) / (1 + draws))


def biases(compared: pd.DataFrame) -> pd.DataFrame:
    """Bias of each class over all counts.

    Parameters
    ----------
    compared : DataFrame
        As `compare` returns it.

    Returns
    -------
    DataFrame
        One row for a level and class: ``level class``, ``counts`` (all counts by hand; outside the denominator those
        with this line), ``bias`` (mean of study minus manual, percent points; 0 in a count where neither saw one),
        ``sd``, ``agree_low agree_high`` (limits of agreement, bias and 1.96 sd; Bland and Altman 1986,
        doi:10.1016/S0140-6736(86)90837-8; NaN for one count), ``inside`` (share of counts within Rümke's limits; about
        0.95 is expected without bias from a study that counted many more cells).
    """
    totals = compared.drop_duplicates(list(WHERE))["level"].value_counts().to_dict()
    rows = []
    for (level, name), part in compared.groupby(["level", "class"], sort=False):
        # where both counts saw none they agree; beside the denominator only what was counted by hand is compared
        unseen = int(totals[level]) - len(part) if part["in_denominator"].any() else 0
        bias = np.append(part["bias"].to_numpy(np.float64), np.zeros(unseen))
        mean, sd = float(bias.mean()), float(bias.std(ddof=1)) if len(bias) > 1 else float("nan")
        agree = (mean - Z95 * sd, mean + Z95 * sd)
        rows.append((level, name, len(bias), mean, sd, *agree, float((part["inside"].sum() + unseen) / len(bias))))
    return pd.DataFrame(rows, columns=["level", "class", "counts", "bias", "sd", "agree_low", "agree_high", "inside"])
