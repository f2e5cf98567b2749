"""Whether a confidence of 0.9 means right in 9 of 10 cases: temperature scaling, and what measures it.

One number, the temperature, is fitted on cells that a classifier has not learned from (Guo et al. 2017,
arXiv:1706.04599). It acts on the logarithm of probabilities. For a linear probe that is scaling its logits: both differ
by a constant per cell, which the normalisation takes out. The vote shares of k nearest neighbours hold zeros, whose
logarithm is none: a class without a vote counts as `NO_VOTE`, a hundredth of one vote of twenty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

NO_VOTE = 0.0005
"""Share that a class without votes counts as; chosen on PBC ``train`` (half of the held-out cells judged the other)."""

ENOUGH = 100
"""Cells below which no temperature is fitted: it would follow chance."""

BOUNDS = (0.2, 5.0)
"""Least and greatest temperature."""

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Temperature:
    """How far to soften (above 1) or to sharpen (below 1) probabilities.

    Attributes
    ----------
    value : float
        The temperature; 1 changes nothing but zeros.
    floor : float
        Least probability before the logarithm: `NO_VOTE` for vote shares, 0 for a softmax.
    """

    value: float = 1.0
    floor: float = NO_VOTE

    @classmethod
    def fit(cls, p: ArrayLike, y: ArrayLike, *, floor: float = NO_VOTE) -> Temperature:
        """Find the temperature under which the true classes are most likely.

        Parameters
        ----------
        p : (n, classes) array of float
            Vote shares, or the probabilities of a probe, of cells that the classifier has not learned from.
        y : (n,) array of int
            Column of each cell's true class; -1 where the classifier does not know it (such cells are passed over).
        floor : float, default: NO_VOTE
            Least probability; give 0 for a softmax.

        Returns
        -------
        Temperature
            With value 1 where fewer than `ENOUGH` cells are given.

        Raises
        ------
        ValueError
            If shapes differ or the rows are no probabilities.
        """
        from scipy.optimize import minimize_scalar

        probability, truth = _checked(p, y)
        known = (truth >= 0) & (probability.sum(axis=1) > 0)
        if known.sum() < ENOUGH:
            return cls(1.0, floor)
        probability, truth = probability[known], truth[known]
        rows = np.arange(len(truth))

        def loss(log_t: float) -> float:
            scaled = _scaled(probability, float(np.exp(log_t)), floor)
            return float(-np.log(np.maximum(scaled[rows, truth], 1e-300)).mean())

        found = minimize_scalar(loss, bounds=tuple(np.log(BOUNDS)), method="bounded")
        return cls(round(float(np.exp(found.x)), 4), floor)

    def apply(self, p: ArrayLike) -> Float32:
        """Scale probabilities, (n, classes) float32; rows sum to 1, those without any vote stay 0.

        The order of the classes of a cell does not change.
        """
        probability, _ = _checked(p, np.zeros(len(np.asarray(p)), np.int64))
        return _scaled(probability, self.value, self.floor).astype(np.float32)


def expected_calibration_error(p: ArrayLike, y: ArrayLike, bins: int = 15) -> float:
    """Mean distance between confidence and share of right names, over bins of equal width.

    Parameters
    ----------
    p : (n, classes) array of float
        Probabilities; the confidence is the largest of a row.
    y : (n,) array of int
        Column of the true class; -1, never right, where it is none of them.
    bins : int, default: 15
        Bins of equal width from 0 to 1, weighted by their cells (Guo et al. 2017, eq. 3).

    Returns
    -------
    float
        0 to 1; NaN without cells.
    """
    table = reliability(p, y, bins)
    total = int(table["n"].sum())
    gap = (table["confidence"] - table["accuracy"]).abs().fillna(0.0)
    return float((gap * table["n"]).sum() / total) if total else float("nan")


def reliability(p: ArrayLike, y: ArrayLike, bins: int = 15) -> pd.DataFrame:
    """Confidence against the share of right names, bin by bin.

    Parameters
    ----------
    p, y, bins
        As for `expected_calibration_error`.

    Returns
    -------
    DataFrame
        One row a bin: ``low``, ``high`` (its ends; a confidence at an end lies in the lower bin), ``n``,
        ``confidence`` (mean), ``accuracy`` (share of right names), both NaN where the bin is empty.
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}; use 1 or more.")
    probability, truth = _checked(p, y)
    confidence = probability.max(axis=1, initial=0.0)
    right = probability.argmax(axis=1) == truth if len(truth) else np.zeros(0, bool)
    place = np.clip(np.ceil(confidence * bins - 1e-6).astype(np.int64) - 1, 0, bins - 1)
    n = np.bincount(place, minlength=bins)
    edges = np.linspace(0, 1, bins + 1)
    with np.errstate(invalid="ignore"):
        mean, share = (np.bincount(place, weights, bins) / n for weights in (confidence, right.astype(np.float64)))
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "n": n, "confidence": mean, "accuracy": share})


def _scaled(p: NDArray[np.float64], temperature: float, floor: float) -> NDArray[np.float64]:
    """Probabilities to the power 1 / temperature, normalised; rows of zeros stay so."""
    logs = np.log(np.maximum(p, max(floor, 1e-300))) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True, initial=-np.inf))
    scaled: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    scaled[p.sum(axis=1) == 0] = 0.0
    return scaled


def _checked(p: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities in float64 and columns, or ValueError."""
    probability, truth = np.asarray(p, np.float64), np.asarray(y)
    if probability.ndim != 2 or probability.shape[1] < 1 or truth.shape != (len(probability),):
        raise ValueError(f"p has shape {probability.shape} and y {truth.shape}; (n, classes) and (n,) are needed.")
    sums = probability.sum(axis=1)
    if not (np.all(probability >= 0) and np.all((np.abs(sums - 1) < 1e-3) | (sums == 0))):
        raise ValueError("p holds rows that are no probabilities (0 or more, summing to 1): apply the softmax first.")
    if not np.issubdtype(truth.dtype, np.integer):
        raise ValueError(f"y is {truth.dtype}; the column of each cell's class is needed, a whole number.")
    return probability, truth.astype(np.int64)
