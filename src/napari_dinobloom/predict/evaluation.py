"""How good embeddings are: the table of the DinoBloom evaluation (1-NN, 20-NN, linear probe) for any embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_dinobloom.predict.knn import KnnClassifier
from napari_dinobloom.predict.linear import LinearProbe


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
    names, support = np.unique(actual, return_counts=True)
    hit = np.array([np.sum((actual == name) & (given == name)) for name in names], dtype=np.float64)
    claimed = np.array([np.sum(given == name) for name in names], dtype=np.float64)
    f1 = 2 * hit / (support + claimed)
    return {
        "weighted_f1": float(np.average(f1, weights=support)),
        "balanced_accuracy": float(np.mean(hit / support)),
        "accuracy": float(hit.sum() / support.sum()),
    }


def evaluate_embeddings(
    X_train: ArrayLike,
    y_train: Sequence[str] | NDArray[Any],
    X_test: ArrayLike,
    y_test: Sequence[str] | NDArray[Any],
    *,
    ks: Sequence[int] = (1, 20),
) -> pd.DataFrame:
    """Score embeddings by k-NN and a linear probe fitted on the training cells.

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
