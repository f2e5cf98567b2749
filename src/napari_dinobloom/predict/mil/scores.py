"""How well groups of patients are predicted, with intervals over patients.

Weighted F1, balanced accuracy and the area under the ROC curve (of each group against the rest, their plain mean) are
computed for many weightings of the patients at once; a bootstrap sample is a weighting.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.predict.evaluation import table_scores
from napari_dinobloom.predict.mil.bags import Float32, Ints

METRICS = ("weighted_f1", "balanced_accuracy", "auc")
Float64 = NDArray[np.float64]


def bootstrap(code: Ints, draws: int, seed: int) -> Float64:
    """Weightings of the patients, (1 + draws, patients): each once, then samples with replacement within each class."""
    random, weights = np.random.default_rng(seed), np.zeros((draws + 1, len(code)))
    weights[0] = 1.0
    for one in np.unique(code):
        rows = np.flatnonzero(code == one)
        weights[1:, rows] = random.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=draws)
    return weights


def metrics(shares: Float32, code: Ints, weights: Float64) -> Float64:
    """Score predictions under each weighting of the patients.

    Parameters
    ----------
    shares : (patients, classes) array of float
        Probabilities; the largest is the prediction, of equal ones the first.
    code : (patients,) array of int
        True classes.
    weights : (draws, patients) array of float
        Weightings.

    Returns
    -------
    (draws, 3) array of float64
        `METRICS`, 0 to 1.
    """
    classes = shares.shape[1]
    table = weights @ np.eye(classes * classes)[code * classes + shares.argmax(axis=1)]
    found = table_scores(table.reshape(-1, classes, classes))
    return np.stack([found["weighted_f1"], found["balanced_accuracy"], _auc(shares, code, weights)], axis=1)


def _auc(shares: Float32, code: Ints, weights: Float64) -> Float64:
    """Mean over classes of the chance that a patient of the class has a higher probability of it than another."""
    found = []
    for one in np.unique(code):
        own, other = code == one, code != one
        a, b = shares[own, one], shares[other, one]
        before = (a[:, None] > b[None]) + 0.5 * (a[:, None] == b[None])
        pairs = weights[:, own].sum(axis=1) * weights[:, other].sum(axis=1)
        found.append(((weights[:, own] @ before) * weights[:, other]).sum(axis=1) / np.maximum(pairs, 1e-12))
    mean: Float64 = np.mean(found, axis=0)
    return mean


def repeated(shares: Sequence[Float32], code: Ints, weights: Float64) -> Float64:
    """Mean of `metrics` over repeats of the cross-validation, (draws, 3)."""
    mean: Float64 = np.mean([metrics(one, code, weights) for one in shares], axis=0)
    return mean


def interval(values: Float64) -> dict[str, float]:
    """First row of (1 + draws, 3) values, and the middle 95 % of the others, by names of columns."""
    low, high = np.percentile(values[1:], (2.5, 97.5), axis=0)
    return columns(values[0], low, high)


def columns(value: Float64, low: Float64, high: Float64) -> dict[str, float]:
    """Values of `METRICS`, (3,) each, by names of columns: NAME, NAME_low, NAME_high."""
    found: dict[str, float] = {}
    for number, name in enumerate(METRICS):
        found |= {name: float(value[number]), f"{name}_low": float(low[number]), f"{name}_high": float(high[number])}
    return found
