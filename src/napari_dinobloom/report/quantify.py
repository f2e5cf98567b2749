"""How sure a count is: intervals of proportions and ratios, and counts corrected for the errors of the classifier.

The correction. A classifier that names a cell of true class i as j with probability C[i, j] (the held-out confusion of
the atlas, the outcome ``unclassified`` included) turns the true mix p into the expected mix p C of given names. p is
estimated by maximum likelihood on the simplex, by expectation maximisation (as Saerens, Latinne & Decaestecker 2002,
doi:10.1162/089976602753284446, for hard outcomes). The interval repeats this on draws of the count (multinomial) and
of the confusion (each row a Dirichlet distribution), so that it covers counting error and what is not known of the
classifier. It does not cover another stain or cells of a class that the atlas lacks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED
from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.explore.proportions import Z95, wilson

VERSION = 1
DRAWS = 400
_ITERATIONS = 400


def ratio_interval(first: int, second: int, z: float = Z95) -> tuple[float, float, float]:
    """Ratio of two counts and its interval, from Wilson's interval of first / (first + second).

    Returns
    -------
    ratio, low, high : float
        Infinite where `second` is 0 or the interval is open above; all NaN where both counts are 0.
    """
    if first + second == 0:
        return float("nan"), float("nan"), float("nan")
    low, high = (float(v) for v in wilson(first, first + second, z))
    ratio = first / second if second else float("inf")
    return ratio, low / (1 - low) if low < 1 else float("inf"), high / (1 - high) if high < 1 else float("inf")


def goodman(counts: ArrayLike, alpha: float = 0.05) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intervals that hold for all classes of one count at once (Goodman 1965, doi:10.1080/00401706.1965.10490252).

    With k classes each interval is Wilson's at the level 1 - alpha / k, so that all of them cover with 1 - alpha or
    more. Goodman's are taken and not those of Sison and Glaz (1995), which need seven classes: the five-part
    differential has six.

    Parameters
    ----------
    counts : (k,) array of int
        Cells of each class, those without a cell included.
    alpha : float
        Chance that any of the intervals misses.

    Returns
    -------
    low, high : (k,) array of float64
        Proportions 0 to 1; NaN where no cell was counted.
    """
    from scipy.special import ndtri

    n = np.asarray(counts, dtype=np.float64)
    return wilson(n, n.sum(), float(ndtri(1 - alpha / (2 * max(n.size, 1)))))


def mixture(
    counts: ArrayLike, outcomes: ArrayLike, *, iterations: int = 10_000, tolerance: float = 1e-10
) -> NDArray[np.float64]:
    """Maximum-likelihood weights of a mixture of known outcome distributions.

    Parameters
    ----------
    counts : (..., outcomes) array
        How often each outcome was seen.
    outcomes : (..., classes, outcomes) array
        Probability of each outcome given each class; rows sum to 1.
    iterations : int
        Most steps of expectation maximisation.
    tolerance : float
        Stop when no weight changes by more.

    Returns
    -------
    (..., classes) array of float64
        Weights that sum to 1; uniform where all counts are 0.
    """
    seen, given = np.asarray(counts, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    total = seen.sum(axis=-1, keepdims=True)
    share = np.divide(seen, total, out=np.zeros_like(seen), where=total > 0)
    batch = np.broadcast_shapes(seen.shape[:-1], given.shape[:-2])
    weights = np.full((*batch, given.shape[-2]), 1.0 / given.shape[-2])
    empty = np.broadcast_to(total[..., 0] == 0, batch)[..., None]
    for _ in range(iterations):
        # Plain sums, no matrix product: BLAS rounds differently from call to call, and tables are compared bit by bit.
        expected = (weights[..., :, None] * given).sum(axis=-2)
        quotient = share / np.maximum(expected, 1e-300)
        new = weights * (given * quotient[..., None, :]).sum(axis=-1)
        new = np.where(empty, weights, new / np.maximum(new.sum(axis=-1, keepdims=True), 1e-300))
        change = float(np.abs(new - weights).max(initial=0.0))
        weights = new
        if change <= tolerance:
            break
    return weights


def corrected_percent(
    named: Mapping[str, int],
    known: Mapping[str, int],
    confusion: pd.DataFrame,
    denominator: set[str],
    *,
    lines: Mapping[str, str] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Percentages corrected for the classifier's errors, with 95 % intervals.

    Cells whose class a person has stated are taken as they are and go around the correction; their number still
    varies from draw to draw, because they are part of the sample.

    Parameters
    ----------
    named : mapping of str to int
        Cells by the name that the classifier gave, ``unclassified`` where it abstained.
    known : mapping of str to int
        Cells by the class that a person stated.
    confusion : DataFrame
        Held-out cells by true class (rows) and given name (columns); see `Atlas.confusion_table`.
    denominator : set of str
        Classes among which the percentages are taken; others (platelets) are estimated, then left out.
    lines : mapping of str to str, optional
        Line that each class of `denominator` is added up in; by default its own. Adding up comes after the estimate
        and in every draw, so that a line's interval knows that its classes are mistaken for each other.
    draws : int
        Bootstrap draws.
    seed : int
        Seed of the draws.

    Returns
    -------
    DataFrame
        Index: lines of the classes of `denominator` that `confusion` or `known` names. Columns ``corrected``, ``low``,
        ``high`` in percent; NaN where there is no cell. The interval is never narrower than the counting error of the
        corrected percentage (Wilson), which a bootstrap misses for a class that was not seen. A cell that the
        classifier left ``unclassified`` is shared out among the classes of the atlas; only those that a person called
        so stay.

    Raises
    ------
    DinoBloomError
        If the classifier gave a name that `confusion` has no column for.
    """
    check_confusion(confusion)
    foreign = sorted({name for name, n in named.items() if n} - set(confusion.columns))
    if foreign:
        raise DinoBloomError(
            f"The classifier gave the name {foreign[0]!r}, which the confusion table does not know: "
            "give the confusion of the atlas or model that named the cells"
        )
    automatic = np.array([named.get(name, 0) for name in confusion.columns], dtype=np.float64)
    stated = sorted(known)
    by_hand = np.array([known[name] for name in stated], dtype=np.float64)
    classes = sorted({*confusion.index, *stated})
    rows = confusion_prior(confusion)
    rng = np.random.default_rng(seed)
    sample = np.concatenate([automatic, by_hand])
    n = int(sample.sum())
    drawn = rng.multinomial(n, sample / n, size=draws) if n else np.zeros((draws, len(sample)))
    gamma = rng.standard_gamma(np.broadcast_to(rows, (draws, *rows.shape)))
    resampled = gamma / np.maximum(gamma.sum(axis=-1, keepdims=True), 1e-300)
    j = len(automatic)
    point = mixture(automatic, rows / rows.sum(axis=1, keepdims=True)) * automatic.sum()
    spread = mixture(drawn[:, :j], resampled, iterations=_ITERATIONS, tolerance=1e-6) * drawn[:, :j].sum(
        axis=1, keepdims=True
    )
    cells = np.zeros((draws + 1, len(classes)))
    at = {name: i for i, name in enumerate(classes)}
    cells[:, [at[name] for name in confusion.index]] += np.vstack([point, spread])
    cells[:, [at[name] for name in stated]] += np.vstack([by_hand, drawn[:, j:]])
    inside = [name for name in classes if name in denominator]
    index = sorted({(lines or {}).get(name, name) for name in inside})
    cells = _added(cells[:, [at[name] for name in inside]], [index.index((lines or {}).get(n, n)) for n in inside])
    with np.errstate(invalid="ignore", divide="ignore"):
        percent = 100 * cells / cells.sum(axis=1, keepdims=True)
    low, high = _interval(percent[1:])
    least, most = wilson(percent[0] / 100 * cells[0].sum(), np.full(len(index), cells[0].sum()))
    columns = {"corrected": percent[0], "low": np.fmin(low, 100 * least), "high": np.fmax(high, 100 * most)}
    return pd.DataFrame(columns, index=index).round(9)


def _added(columns: NDArray[np.float64], place: list[int]) -> NDArray[np.float64]:
    """Columns added up into those that `place` says; plain sums, as in `mixture`."""
    added = np.zeros((len(columns), max(place, default=-1) + 1))
    for at, column in zip(place, columns.T, strict=True):
        added[:, at] += column
    return added


def _interval(percent: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """2.5 and 97.5 percentiles over the draws in which the denominator was not empty."""
    usable = percent[np.isfinite(percent).all(axis=1)]
    if len(usable) == 0:
        nothing = np.full(percent.shape[1], np.nan)
        return nothing, nothing
    low, high = np.quantile(usable, [0.025, 0.975], axis=0)
    return low, high


def confusion_prior(confusion: pd.DataFrame) -> NDArray[np.float64]:
    """Dirichlet parameters of each row: the counts and one pseudo-count spread over the outcomes.

    A class without a held-out cell gets one more pseudo-count on its own name: nothing is known, and it is taken to be
    named rightly more often than not.
    """
    counts = confusion.to_numpy(dtype=np.float64)
    prior = counts + 1.0 / counts.shape[1]
    for i, name in enumerate(confusion.index):
        if counts[i].sum() == 0:
            prior[i, list(confusion.columns).index(name)] += 1.0
    return prior


def check_confusion(confusion: pd.DataFrame) -> None:
    """Raise DinoBloomError unless rows are distinct classes and columns are these and ``unclassified``, counts >= 0."""
    rows, columns = list(confusion.index), list(confusion.columns)
    if (
        not rows
        or len(set(rows)) != len(rows)
        or set(columns) != {*rows, UNCLASSIFIED}
        or len(columns) != len(rows) + 1
    ):
        raise DinoBloomError(
            f"A confusion table needs true classes as rows and the same names with {UNCLASSIFIED!r} as columns, "
            f"but it has rows {rows} and columns {columns}"
        )
    values = confusion.to_numpy(dtype=np.float64)
    if not np.isfinite(values).all() or (values < 0).any():
        raise DinoBloomError("A confusion table holds counts of cells; this one has negative or missing values")


def pack_confusion(confusion: pd.DataFrame) -> str:
    """Confusion table as JSON text, as it stands in ``uns["dinobloom"]["confusion"]`` of a cell table."""
    check_confusion(confusion)
    return json.dumps(
        {
            "true": list(confusion.index),
            "named": list(confusion.columns),
            "counts": confusion.to_numpy(dtype=np.int64).tolist(),
        }
    )


def unpack_confusion(document: str) -> pd.DataFrame:
    """Confusion table from what `pack_confusion` wrote.

    Raises
    ------
    DinoBloomError
        If it is not such a text.
    """
    try:
        parts = json.loads(document)
        table = pd.DataFrame(np.asarray(parts["counts"], dtype=np.int64), index=parts["true"], columns=parts["named"])
    except (ValueError, TypeError, KeyError) as error:
        raise DinoBloomError(
            f"The stored confusion table cannot be read ({error}): classify the cells again"
        ) from error
    check_confusion(table)
    return table
