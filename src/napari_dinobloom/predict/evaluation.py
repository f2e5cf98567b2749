"""How good embeddings are: scores of predicted classes, and the table 1-NN, 20-NN, linear probe for any embeddings.

All scores are computed from a table of true against predicted classes, of one set of predictions or of many resampled
ones at once (`protocols.intervals`). The protocols of the DinoBloom evaluation stand in `protocols`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_dinobloom.predict.knn import KnnClassifier
from napari_dinobloom.predict.linear import LinearProbe

METRICS = ("weighted_f1", "balanced_accuracy", "accuracy")


def count_table(
    truth: Sequence[str] | NDArray[Any], predicted: Sequence[str] | NDArray[Any], classes: Sequence[str] | NDArray[Any]
) -> NDArray[np.int64]:
    """Count true against predicted classes.

    Parameters
    ----------
    truth, predicted : (n,) sequences of str
        True and predicted classes, all of them among `classes`.
    classes : (K,) sequence of str
        Sorted names.

    Returns
    -------
    (K, K) array of int64
        Rows are true classes, columns predicted ones.
    """
    names = np.asarray(classes).astype(str)
    row, column = (np.searchsorted(names, np.asarray(part).astype(str)) for part in (truth, predicted))
    counts = np.bincount(row * len(names) + column, minlength=len(names) ** 2)
    return counts.reshape(len(names), len(names)).astype(np.int64)


def table_scores(table: NDArray[np.int64], counted: NDArray[np.bool_] | None = None) -> dict[str, NDArray[np.float64]]:
    """Scores of tables of true against predicted classes, as scikit-learn defines them.

    Parameters
    ----------
    table : (..., K, K) array of int
        Rows are true classes, columns predicted ones.
    counted : (K,) array of bool, optional
        Classes of which the balanced accuracy is the mean; by default all. Classes that have no picture never count.

    Returns
    -------
    dict
        ``weighted_f1``, ``balanced_accuracy``, ``accuracy``: (...) arrays, 0 to 1; NaN where nothing counts.
    """
    support, claimed = table.sum(axis=-1).astype(np.float64), table.sum(axis=-2).astype(np.float64)
    hit = np.diagonal(table, axis1=-2, axis2=-1).astype(np.float64)
    there = support > 0
    f1 = np.divide(2 * hit, support + claimed, out=np.zeros_like(hit), where=there)
    recall = np.divide(hit, support, out=np.zeros_like(hit), where=there)
    weight = there if counted is None else there & counted
    with np.errstate(invalid="ignore"):
        return {
            "weighted_f1": (f1 * support).sum(axis=-1) / support.sum(axis=-1),
            "balanced_accuracy": (recall * weight).sum(axis=-1) / weight.sum(axis=-1),
            "accuracy": hit.sum(axis=-1) / support.sum(axis=-1),
        }


def class_scores(table: NDArray[np.int64], classes: Sequence[str] | NDArray[Any]) -> pd.DataFrame:
    """Precision, recall and F1 of each class, as scikit-learn's report gives them.

    Parameters
    ----------
    table : (K, K) array of int
        Rows are true classes, columns predicted ones.
    classes : (K,) sequence of str
        Names.

    Returns
    -------
    DataFrame
        Columns ``class precision recall f1 support``; a share of nothing is 0.
    """
    hit, support, claimed = np.diag(table), table.sum(axis=1), table.sum(axis=0)

    def share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)

    return pd.DataFrame(
        {
            "class": np.asarray(classes).astype(str).astype(object),
            "precision": share(hit, claimed),
            "recall": share(hit, support),
            "f1": share(2 * hit, support + claimed),
            "support": support,
        }
    )


def scores(truth: Sequence[str] | NDArray[Any], predicted: Sequence[str] | NDArray[Any]) -> dict[str, float]:
    """Weighted F1, balanced accuracy and accuracy, as scikit-learn defines them.

    Parameters
    ----------
    truth, predicted : (n,) sequences of str
        True and predicted classes.

    Returns
    -------
    dict
        ``weighted_f1``, ``balanced_accuracy``, ``accuracy``, each 0 to 1.
    """
    actual, given = np.asarray(truth).astype(str), np.asarray(predicted).astype(str)
    table = count_table(actual, given, np.union1d(actual, given))
    return {name: float(value) for name, value in table_scores(table).items()}


def evaluate_embeddings(
    X_train: ArrayLike,
    y_train: Sequence[str] | NDArray[Any],
    X_test: ArrayLike,
    y_test: Sequence[str] | NDArray[Any],
    *,
    ks: Sequence[int] = (1, 20),
) -> pd.DataFrame:
    """Score embeddings by this package's k-NN and linear probe, fitted on the training cells.

    Parameters
    ----------
    X_train, X_test : (n, D) and (m, D) arrays of float
        Embeddings.
    y_train, y_test : (n,) and (m,) sequences of str
        Classes.
    ks : sequence of int
        Neighbours that vote; one row for each.

    Returns
    -------
    DataFrame
        Index ``1-NN``, ``20-NN``, ``linear probe``; columns ``weighted_f1``, ``balanced_accuracy``, ``accuracy``.
        k-NN is Euclidean with uniform weights, the probe that of `LinearProbe` (dinobloom evaluation code).
    """
    rows: dict[str, dict[str, float]] = {}
    for k in ks:
        model = KnnClassifier(k=k).fit(X_train, y_train)
        rows[f"{k}-NN"] = scores(y_test, model.predict(X_test))
    rows["linear probe"] = scores(y_test, LinearProbe().fit(X_train, y_train).predict(X_test))
    return pd.DataFrame.from_dict(rows, orient="index")
