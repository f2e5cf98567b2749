"""The classifiers by which the reference judged embeddings: scikit-learn's own, called as the reference called them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

METHODS = ("1-NN", "20-NN", "linear probe")

MAX_ITER = 1000
"""Of the linear probe."""


@dataclass(frozen=True, slots=True, eq=False)
class Guess:
    """What a classifier says.

    Attributes
    ----------
    predicted : (m,) array of str
        Classes.
    converged : bool
        Whether the fit ended by itself; the reference took it either way.
    """

    predicted: NDArray[np.str_]
    converged: bool


def reference_classifier(method: str, dim: int, classes: int) -> Any:
    """Make the classifier of a method, not fitted.

    ``KNeighborsClassifier`` with 1 or 20 neighbours (Euclidean, uniform), or ``LogisticRegression`` with
    ``C = dim * classes / 100`` and 1,000 iterations of lbfgs. The paper writes another formula, with the number of
    training samples; the code is followed (marrlab/DinoBloom, ``dinov2/eval/general_patch_eval.py``). Its argument
    ``multi_class="multinomial"`` is left out: scikit-learn fits multinomially without it, and no longer takes it.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    dim : int
        Length of an embedding.
    classes : int
        Classes among the training pictures.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    if method == "linear probe":
        return LogisticRegression(C=dim * classes / 100, max_iter=MAX_ITER)
    return KNeighborsClassifier(n_neighbors=neighbours(method))


def neighbours(method: str) -> int:
    """Training pictures that a method needs at least."""
    return {"1-NN": 1, "20-NN": 20}.get(method, 1)


def guess(method: str, X_train: NDArray[np.float64], y_train: NDArray[np.str_], X_test: NDArray[np.float64]) -> Guess:
    """Fit a method and ask it.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    X_train, X_test : (n, D) and (m, D) arrays of float64
        Embeddings, neither scaled nor normalised.
    y_train : (n,) array of str
        Two classes or more for the linear probe.
    """
    from sklearn.exceptions import ConvergenceWarning

    model = reference_classifier(method, X_train.shape[1], len(np.unique(y_train)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        predicted = model.fit(X_train, y_train).predict(X_test)
    converged = method != "linear probe" or bool(np.max(model.n_iter_) < MAX_ITER)
    return Guess(np.asarray(predicted, dtype=np.str_), converged)
