"""Comparing two groups of patients by their gates. The patient is the unit: cells of several patients are never pooled.

Each patient gives one number per gate, the percentage of their cells. The p-value is that of a two-sided permutation
test of the difference of the means: exact over all ways to divide the patients where there are few enough, else over
seeded random ones, with the observed one among them (Phipson & Smyth 2010, doi:10.2202/1544-6115.1585). The effect size
is Cliff's delta, P(b > a) - P(b < a), with the asymmetric 95 % interval of Feng & Cliff 2004 (Journal of Modern Applied
Statistical Methods 3:322). P-values are adjusted over the gates by Benjamini & Hochberg 1995 (false discovery rate) and
by Holm 1979 (any false finding).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_dinobloom.explore.gate_tree import GateTree
from napari_dinobloom.explore.gates.base import Float64, GateError, nearest
from napari_dinobloom.explore.proportions import Z95
from napari_dinobloom.io.tables import write_csv

EXACT = 20_000
"""Most ways to divide the patients that are all gone through."""
FEW = 6
"""A group of fewer patients is marked: the interval of the effect size holds for larger ones."""
ALPHA = 0.05
MEANT = (
    "The patient is the unit. p: two-sided permutation test of the difference of means; p_bh, p_holm: adjusted over "
    "the gates; delta: Cliff's, 95 %. Exploratory: the gate was made while looking at these patients, or nobody noted "
    "at whom."
)


def compare_groups(
    counts: pd.DataFrame,
    tree: GateTree,
    groups: Mapping[str, str],
    *,
    of: Literal["parent", "all"] = "parent",
    permutations: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare two groups of patients by every gate of a tree.

    Parameters
    ----------
    counts : DataFrame
        `GateTables.counts` of the tree.
    tree : GateTree
        Says which patients were seen when a gate was made.
    groups : mapping of str to str
        Patient to group; exactly two groups, the first in the alphabet is a. Patients without a group are left out.
    of : {"parent", "all"}
        Percentage of the parent's cells or of all cells of the patient.
    permutations : int
        Random divisions where there are more than 20,000 ways.
    seed : int
        Of the random divisions.

    Returns
    -------
    DataFrame
        One row a gate: ``key gate group_a group_b``; ``patients_a patients_b`` (those with a cell to take a share of),
        ``mean_a mean_b median_a median_b`` (percent, over patients), ``difference`` (mean b minus a, percentage
        points), ``delta delta_low delta_high`` (Cliff's delta, -1 to 1; NaN for fewer than two patients in a
        group), ``p``, ``exact`` (bool), ``p_bh p_holm``, ``exploratory`` (bool: the gate was made while looking at one
        of these patients, or nobody noted at whom, or that is so of a gate above it or one it names), ``note``.

    Raises
    ------
    GateError
        There are not two groups, a patient is not in the table, or `of` or `permutations` is not known.
    """
    if of not in ("parent", "all") or permutations < 1:
        raise GateError(f"'of' is \"parent\" or \"all\" and 'permutations' 1 or more, not {of!r} and {permutations}.")
    names = sorted(set(groups.values()))
    if len(names) != 2:
        raise GateError(f"A comparison needs two groups of patients, not {len(names)} ({', '.join(names)[:80]}).")
    lines = counts[counts["level"] == "patient"]
    known = set(lines["patient"])
    if missing := sorted(set(groups) - known):
        raise GateError(f"There is no patient {missing[0]!r} in the statistics{nearest(missing[0], known)}.")
    rows = []
    for key in tree.keys:
        shares = lines[lines["key"] == key].set_index("patient")[f"percent_of_{of}"].reindex(sorted(groups))
        b = np.array([groups[patient] == names[1] for patient in shares.index])
        given = shares.notna().to_numpy()
        values, second = shares.to_numpy(dtype=np.float64)[given], b[given]
        row = {"key": key, "gate": tree.path(key), "group_a": names[0], "group_b": names[1]}
        rows.append({**row, **_compare(values, second, permutations, seed, int((~given).sum()))})
    table = pd.DataFrame(rows)
    if not len(table):
        raise GateError("The tree has no gate to compare by. Draw one first.")
    table["p_bh"], table["p_holm"] = benjamini_hochberg(table["p"]), holm(table["p"])
    table["exploratory"] = [_looked(tree, key, set(groups)) for key in table["key"]]
    return table[[name for name in table if name != "note"] + ["note"]]


def write_comparison(path: Path, table: pd.DataFrame) -> None:
    """Write what `compare_groups` found as CSV, with how it is meant on top.

    Raises
    ------
    StudyError
        If the disk is full or the folder may not be written.
    """
    write_csv(path, table, comments=(MEANT,))


def permutation_test(
    values: ArrayLike, second: ArrayLike, *, permutations: int = 10_000, seed: int = 0
) -> tuple[float, bool]:
    """Test two-sided whether the means of two groups differ.

    Parameters
    ----------
    values : (n,) array of float
        One value a patient.
    second : (n,) array of bool
        Who is in the second group.
    permutations, seed : int
        Random divisions, where there are more than `EXACT` ways.

    Returns
    -------
    p : float
        NaN if a group is empty.
    exact : bool
        Whether all divisions were gone through.
    """
    x, b = np.asarray(values, dtype=np.float64), np.asarray(second, dtype=bool)
    n, k = len(x), int(b.sum())
    if not 0 < k < n:
        return float("nan"), False
    centred = x - x.mean()
    # With the number of patients fixed, the difference of means grows with the sum of the second group.
    observed = abs(centred[b].sum())
    slack = 1e-12 * max(float(np.abs(centred).sum()), 1e-300)
    if comb(n, k) <= EXACT:
        sums = np.abs(centred[np.array(list(combinations(range(n), k)))].sum(axis=1))
        return float((sums >= observed - slack).mean()), True
    random = np.random.default_rng(seed)
    sums = np.array([abs(centred[random.permutation(n)[:k]].sum()) for _ in range(permutations)])
    return float((1 + (sums >= observed - slack).sum()) / (permutations + 1)), False


def cliffs_delta(first: ArrayLike, second: ArrayLike, z: float = Z95) -> tuple[float, float, float]:
    """Cliff's delta, P(second > first) - P(second < first), and its asymmetric interval (Feng & Cliff 2004).

    Returns
    -------
    delta, low, high : float
        -1 to 1; NaN for fewer than two values in a group. At -1 and 1, where the variance vanishes, the inner bound is
        (m - z^2) / (m + z^2) with the smaller group's size m, as these authors propose.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    m, n = len(a), len(b)
    if min(m, n) < 2:
        return float("nan"), float("nan"), float("nan")
    sign = np.sign(b[None, :] - a[:, None])
    delta = float(sign.mean())
    if abs(delta) == 1:
        inner = (min(m, n) - z**2) / (min(m, n) + z**2)
        return delta, *((inner, 1.0) if delta > 0 else (-1.0, -inner))
    of_a, of_b = sign.mean(axis=1) - delta, sign.mean(axis=0) - delta
    spread = n**2 * (of_a**2).sum() + m**2 * (of_b**2).sum() - ((sign - delta) ** 2).sum()
    variance = max(spread / (m * n * (m - 1) * (n - 1)), (1 - delta**2) / (m * n - 1))
    half = z * np.sqrt(variance) * np.sqrt((1 - delta**2) ** 2 + z**2 * variance)
    low, high = ((delta - delta**3 + s * half) / (1 - delta**2 + z**2 * variance) for s in (-1, 1))
    return delta, max(float(low), -1.0), min(float(high), 1.0)


def benjamini_hochberg(p: ArrayLike) -> Float64:
    """P-values adjusted for the false discovery rate; NaN stays and does not count."""

    def adjust(ordered: Float64) -> Float64:
        scaled = ordered * len(ordered) / np.arange(1, len(ordered) + 1)
        return np.asarray(np.minimum.accumulate(scaled[::-1])[::-1])

    return _adjusted(p, adjust)


def holm(p: ArrayLike) -> Float64:
    """P-values adjusted for any false finding; NaN stays and does not count."""

    def adjust(ordered: Float64) -> Float64:
        return np.asarray(np.maximum.accumulate(ordered * np.arange(len(ordered), 0, -1)))

    return _adjusted(p, adjust)


def _adjusted(p: ArrayLike, adjust: Any) -> Float64:
    values = np.asarray(p, dtype=np.float64)
    found = np.full(len(values), np.nan)
    given = np.flatnonzero(~np.isnan(values))
    order = given[np.argsort(values[given], kind="stable")]
    found[order] = np.minimum(adjust(values[order]), 1.0)
    return found


def _compare(values: Float64, second: NDArray[np.bool_], permutations: int, seed: int, without: int) -> dict[str, Any]:
    """Everything about one gate but its name."""
    a, b = values[~second], values[second]
    p, exact = permutation_test(values, second, permutations=permutations, seed=seed)
    delta, low, high = cliffs_delta(a, b)
    row: dict[str, Any] = {"patients_a": len(a), "patients_b": len(b)}
    for name, part in (("a", a), ("b", b)):
        row[f"mean_{name}"] = float(part.mean()) if len(part) else float("nan")
        row[f"median_{name}"] = float(np.median(part)) if len(part) else float("nan")
    row["difference"] = row["mean_b"] - row["mean_a"]
    row.update(delta=delta, delta_low=low, delta_high=high, p=p, exact=exact)
    return {**row, "note": "; ".join(_notes(len(a), len(b), without))}


def _notes(a: int, b: int, without: int) -> list[str]:
    """What a reader must know of how few patients there are."""
    notes = []
    if without:
        notes.append(f"patients without cells to take a share of, left out: {without}")
    if min(a, b) == 0:
        return [*notes, "a group has no patient: not compared"]
    if min(a, b) < FEW:
        notes.append(f"fewer than {FEW} patients in a group")
    least = (2 if a == b else 1) / comb(a + b, a)
    if least > ALPHA:
        notes.append(f"too few patients for any p below {ALPHA}: the least possible is {least:.3g}")
    return notes


def _looked(tree: GateTree, key: str, patients: set[str]) -> bool:
    """Say whether the gate, one above it or one that it names was made while looking at some of the patients."""
    return any(
        tree[one].seen is None or bool(patients.intersection(tree[one].seen or ())) for one in tree.ancestry(key)
    )
