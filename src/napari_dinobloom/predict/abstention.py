"""When a classifier had better not name a cell: threshold, distance limit and confusion, from cells it never saw.

The rule for the threshold. Every true class weighs the same, because the mix of classes in an atlas is not that of a
patient. A cell is left unclassified when the vote share of its class is below the threshold. The threshold is the
smallest at which at least 95 % of the held-out cells that are named are named rightly; but it is never raised so far
that more than 10 % of the held-out cells go unnamed, because somebody has to look at each of those.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED
from napari_dinobloom.predict.knn import KnnClassifier

TARGET_ACCURACY = 0.95
MOST_ABSTAINED = 0.10
DISTANCE_QUANTILE = 0.99


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What held-out cells say about a reference.

    Attributes
    ----------
    confusion : (classes, classes + 1) array of int64
        Held-out cells by true class (rows) and by predicted class, the last column being ``unclassified``.
    threshold : float
        Least vote share at which a cell is named, 0 to 1.
    distance_limit : float
        Distance to the nearest reference cell beyond which a cell is unlike all of them: the 99th percentile of the
        rightly named held-out cells.
    held_out : str
        ``held out``: cells that the encoder never saw, against the others. ``leave one out``: each cell against all
        cells of other pictures, because the cells are all held out or none is.
    accuracy : float
        Share of right names before abstention, mean over the classes.
    accuracy_named : float
        The same among the cells that are named.
    abstained : float
        Share of cells that are not named, mean over the classes.
    """

    confusion: NDArray[np.int64]
    threshold: float
    distance_limit: float
    held_out: str
    accuracy: float
    accuracy_named: float
    abstained: float


def choose_threshold(
    confidence: NDArray[np.floating], right: NDArray[np.bool_], truth: NDArray[np.str_]
) -> tuple[float, float, float]:
    """Choose the abstention threshold by the rule of this module.

    Parameters
    ----------
    confidence : (n,) array of float
        Vote share of the predicted class.
    right : (n,) array of bool
        Whether the prediction is the true class.
    truth : (n,) array of str
        True class; each one weighs the same.

    Returns
    -------
    threshold, accuracy_named, abstained : float
        The threshold, and what it makes of these cells. 0, NaN, 0 where there is no cell.
    """
    if len(confidence) == 0:
        return 0.0, float("nan"), 0.0
    _, code, count = np.unique(truth, return_inverse=True, return_counts=True)
    weight = 1.0 / (count[code] * len(count))
    levels, level = np.unique(np.round(confidence.astype(np.float64), 6), return_inverse=True)
    named = np.cumsum(np.bincount(level, weight, len(levels))[::-1])[::-1]
    correct = np.cumsum(np.bincount(level, weight * right, len(levels))[::-1])[::-1]
    affordable = np.flatnonzero(1 - named <= MOST_ABSTAINED + 1e-9)
    accurate = np.flatnonzero(correct >= TARGET_ACCURACY * named - 1e-9)
    at = int(min(affordable[-1], accurate[0] if len(accurate) else len(levels)))
    threshold = 0.0 if at == 0 else float(levels[at])
    return threshold, float(correct[at] / named[at]), float(1 - named[at])


def calibrate(
    X: NDArray[np.float32], y: NDArray[np.str_], source: NDArray[np.str_], held_out: NDArray[np.bool_], *, k: int = 20
) -> Calibration:
    """Classify held-out cells and derive threshold, distance limit and confusion.

    Parameters
    ----------
    X : (n, D) array of float32
        Embeddings of the reference.
    y, source : (n,) arrays of str
        Class and picture of each row.
    held_out : (n,) array of bool
        Cells that the encoder never saw in training.
    k : int
        Neighbours that vote.

    Returns
    -------
    Calibration
        With the classes of the confusion in sorted order.
    """
    split = bool(held_out.any() and not held_out.all())
    own = np.where(source == "", np.char.add("row ", np.arange(len(y)).astype(str)), source)
    reference = ~held_out if split else np.ones(len(y), dtype=bool)
    asked = held_out if split else reference
    model = KnnClassifier(k=k).fit(X[reference], y[reference], own[reference].tolist())
    indices, distances = model.kneighbors(X[asked], own[asked].tolist())
    shares, winners = model.votes(indices, distances)
    predicted, confidence = model.names(winners), shares.max(axis=1, initial=0.0)
    truth, right = y[asked], predicted == y[asked]
    threshold, accuracy_named, abstained = choose_threshold(confidence, right, truth)
    named = np.where(below(confidence, threshold), UNCLASSIFIED, predicted)
    classes = np.unique(y)
    near = distances[right, 0]
    per_class = [right[truth == name].mean() for name in np.unique(truth)]
    return Calibration(
        confusion=cross_table(truth, named, classes).to_numpy(),
        threshold=threshold,
        distance_limit=float(np.quantile(near, DISTANCE_QUANTILE)) if len(near) else float("inf"),
        held_out="held out" if split else "leave one out",
        accuracy=float(np.mean(per_class)),
        accuracy_named=accuracy_named,
        abstained=abstained,
    )


def below(confidence: NDArray[np.floating], threshold: float) -> NDArray[np.bool_]:
    """Whether each vote share is below the threshold; equal within float32 is not below."""
    under: NDArray[np.bool_] = confidence.astype(np.float64) < threshold - 1e-6
    return under


def cross_table(truth: NDArray[np.str_], named: NDArray[np.str_], classes: NDArray[np.str_]) -> pd.DataFrame:
    """Cells by true class (rows, `classes`) and given name (columns, `classes` and ``unclassified``), int64."""
    columns = [*classes.tolist(), UNCLASSIFIED]
    table = pd.crosstab(pd.Series(truth, name="true"), pd.Series(named, name="predicted"))
    return table.reindex(index=list(classes), columns=columns, fill_value=0).astype(np.int64)
