"""When a classifier had better not name a cell: threshold, distance limit and confusion, from cells it never saw.

The rule for the threshold. Every true class weighs the same, because the mix of classes in an atlas is not that of a
patient. A cell is left unclassified when the vote share of its class is below the threshold. The threshold is the
smallest at which at least 95 % of the held-out cells that are named are named rightly; but it is never raised so far
that more than 10 % of the held-out cells go unnamed, because somebody has to look at each of those. A cell beyond the
distance limit is left unclassified too, whatever its share; confusion and figures count both, as in use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED
from napari_dinobloom.predict.calibration import Temperature
from napari_dinobloom.predict.knn import KnnClassifier, Metric, Weights
from napari_dinobloom.predict.novelty import kth

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
        Distance to the k-th nearest reference cell (`novelty`) beyond which a cell is unlike all of them: the 99th
        percentile of the rightly named held-out cells.
    held_out : str
        ``held out``: cells that the encoder never saw, among others that it saw. ``leave one out``: all cells, because
        it saw all or none, or none of those can be asked (`to_ask`). Either way each is compared with all cells of
        other pictures. ``five folds``: of a probe.
    accuracy : float
        Share of right names before abstention, mean over the classes.
    accuracy_named : float
        The same among the cells that are named, by threshold and distance limit; 0 where none is.
    abstained : float
        Share of cells that are not named, mean over the classes.
    temperature : float
        What makes confidence of shares; the threshold is one of confidence (`calibration`).
    """

    confusion: NDArray[np.int64]
    threshold: float
    distance_limit: float
    held_out: str
    accuracy: float
    accuracy_named: float
    abstained: float
    temperature: float = 1.0


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
    X: NDArray[np.float32],
    y: NDArray[np.str_],
    source: NDArray[np.str_],
    held_out: NDArray[np.bool_],
    *,
    k: int = 20,
    metric: Metric = "euclidean",
    weights: Weights = "uniform",
) -> Calibration:
    """Classify held-out cells as they would be in use, and derive threshold, distance limit and confusion.

    Parameters
    ----------
    X : (n, D) array of float32
        Embeddings of the reference.
    y, source : (n,) arrays of str
        Class and picture of each row.
    held_out : (n,) array of bool
        Cells that the encoder never saw in training. They are classified by all cells of other pictures; where no cell
        is held out, or none of them can be asked (`to_ask`), all cells are.
    k : int
        Neighbours that vote.
    metric, weights : str
        As for `KnnClassifier`.

    Returns
    -------
    Calibration
        With the classes of the confusion in sorted order. Cells of a class that only one picture shows are left out:
        nothing could name them, and a class that cannot be measured must not move the threshold.
    """
    own = np.where(source == "", np.char.add("row ", np.arange(len(y)).astype(str)), source)
    asked = to_ask(y, own, held_out)
    model = KnnClassifier(k=k, metric=metric, weights=weights).fit(X, y, own.tolist())
    indices, distances = model.kneighbors(X[asked], own[asked].tolist())
    shares, winners = model.votes(indices, distances)
    how = "held out" if held_out[asked].any() and not held_out.all() else "leave one out"
    temperature = Temperature.fit(shares, np.searchsorted(model.classes_, y[asked]))
    confidence = temperature.apply(shares).max(axis=1, initial=0.0)
    found = settle(y[asked], model.names(winners), confidence, kth(distances), np.unique(y), how)
    return replace(found, temperature=temperature.value)


def to_ask(y: NDArray[np.str_], source: NDArray[np.str_], held_out: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cells by which a reference is measured, (n,) bool.

    Those held out whose class another picture shows too; where there are none, all whose class another picture shows.
    """
    other = elsewhere(y, source)
    return held_out & other if (held_out & other).any() else other


def elsewhere(y: NDArray[np.str_], source: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Whether the class of each cell is shown by another picture too, (n,) bool."""
    pictures = pd.Series(source).groupby(pd.Series(y)).transform("nunique")
    found: NDArray[np.bool_] = pictures.to_numpy() > 1
    return found


def settle(
    truth: NDArray[np.str_],
    predicted: NDArray[np.str_],
    confidence: NDArray[np.floating],
    distance: NDArray[np.floating],
    classes: NDArray[np.str_],
    held_out: str,
) -> Calibration:
    """Derive threshold, distance limit and confusion from what a classifier said of cells it was not made of.

    Parameters
    ----------
    truth, predicted : (n,) arrays of str
        True class, and the one that was named.
    confidence : (n,) array of float
        Share or probability of the named class.
    distance : (n,) array of float
        Distance to the k-th nearest reference cell.
    classes : (classes,) array of str
        All classes, sorted.
    held_out : str
        How the cells were held out, for people.
    """
    right = predicted == truth
    threshold, _, _ = choose_threshold(confidence, right, truth)
    near = distance[right]
    limit = float(np.quantile(near, DISTANCE_QUANTILE, method="higher")) if len(near) else float("inf")
    silent = below(confidence, threshold) | (distance > limit)
    named = np.where(silent, UNCLASSIFIED, predicted)
    per_class = [[part.mean() for part in (right[own], ~silent[own], (right & ~silent)[own])]
                 for own in (truth == name for name in np.unique(truth))]  # fmt: skip
    accuracy, told, rightly = np.mean(per_class, axis=0) if per_class else np.full(3, np.nan)
    return Calibration(
        confusion=cross_table(truth, named, classes).to_numpy(),
        threshold=threshold,
        distance_limit=limit,
        held_out=held_out,
        accuracy=float(accuracy),
        accuracy_named=float(rightly / told) if told else 0.0,
        abstained=float(1 - told),
    )


def below(confidence: NDArray[np.floating], threshold: float) -> NDArray[np.bool_]:
    """Whether each vote share is below the threshold; equal within float32 is not below, one that is no number is."""
    under: NDArray[np.bool_] = ~(confidence.astype(np.float64) >= threshold - 1e-6)
    return under


def cross_table(truth: NDArray[np.str_], named: NDArray[np.str_], classes: NDArray[np.str_]) -> pd.DataFrame:
    """Cells by true class (rows, `classes`) and given name (columns, `classes` and ``unclassified``), int64."""
    columns = [*classes.tolist(), UNCLASSIFIED]
    table = pd.crosstab(pd.Series(truth, name="true"), pd.Series(named, name="predicted"))
    return table.reindex(index=list(classes), columns=columns, fill_value=0).astype(np.int64)
