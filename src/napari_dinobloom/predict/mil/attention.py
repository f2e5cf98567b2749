"""Attention of cells: scores, their rank and their place between least and most, and a check that it matters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from napari_dinobloom.predict.mil.bags import Float32, Ints

DRAWS = 10
"""Random sets of cells that are removed for comparison."""


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """How much each cell of one patient weighs, per class.

    Attributes
    ----------
    scores : (n, classes) array of float32
        Before the softmax; the mean over the members of an ensemble.
    """

    scores: Float32

    @property
    def scaled(self) -> Float32:
        """(n, classes) float32: 0 for the least score of the patient, 1 for the highest; 1 where all are equal."""
        low, high = self.scores.min(axis=0), self.scores.max(axis=0)
        wide = np.where(high > low, high - low, 1.0)
        return np.where(high > low, (self.scores - low) / wide, 1.0).astype(np.float32)

    @property
    def weights(self) -> Float32:
        """(n, classes) float32: softmax of the scores over the cells; columns sum to 1."""
        grown = np.exp(self.scores.astype(np.float64) - self.scores.max(axis=0))
        return np.asarray(grown / grown.sum(axis=0), dtype=np.float32)

    @property
    def rank(self) -> Ints:
        """(n, classes) int: 1 for the cell with the highest score; of equal ones the earlier cell comes first."""
        order = np.argsort(-self.scores, axis=0, kind="stable")
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(1, len(order) + 1)[:, None], axis=0)
        return ranks

    def top(self, count: int, column: int) -> Ints:
        """Rows of the cells with the highest scores of a class, the highest first."""
        return np.argsort(-self.scores[:, column], kind="stable")[:count]

    def bottom(self, count: int, column: int) -> Ints:
        """Rows of the cells with the lowest scores of a class, the lowest first."""
        return np.argsort(self.scores[:, column], kind="stable")[:count]


def deletion(
    predict: Callable[[list[Float32]], Float32],
    bags: Sequence[Float32],
    attention: Sequence[Attention],
    *,
    count: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare removing the cells with the highest attention to removing random ones.

    Parameters
    ----------
    predict : callable
        Bags to probabilities, `AttentionMIL.predict_proba`.
    bags : sequence of (n_i, D) arrays
        Patients.
    attention : sequence of Attention
        Of the same patients.
    count : int
        Cells that are removed; at most half of a patient's.
    seed : int
        Of the random cells.

    Returns
    -------
    DataFrame
        One row a patient with two cells or more: ``bag`` (number), ``removed`` (cells), ``column`` (the predicted
        class), ``probability``, and by how much it changes (absolute): ``top`` without the cells of highest attention,
        ``random`` without as many random ones, the mean over `DRAWS` draws.
    """
    draws, rows = np.random.default_rng(seed), []
    before = predict(list(bags))
    for number, (bag, given) in enumerate(zip(bags, attention, strict=True)):
        gone = min(count, len(bag) // 2)
        if gone < 1:
            continue
        column = int(before[number].argmax())
        sets = [given.top(gone, column), *(draws.choice(len(bag), gone, replace=False) for _ in range(DRAWS))]
        after = predict([np.delete(bag, cells, axis=0) for cells in sets])[:, column]
        change = np.abs(after - before[number, column])
        row = {"bag": number, "removed": gone, "column": column, "probability": float(before[number, column])}
        rows.append({**row, "top": float(change[0]), "random": float(change[1:].mean())})
    return pd.DataFrame(rows, columns=["bag", "removed", "column", "probability", "top", "random"])
