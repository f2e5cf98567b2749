"""The model beside attention MIL: mean embedding and logistic regression. With few patients it often wins."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.predict.mil.bags import Float32, Ints, class_weights

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse strengths of regularisation that are tried."""

Float64 = NDArray[np.float64]


@dataclass(slots=True)
class MeanPooling:
    """Logistic regression on standardised mean embeddings, classes weighted alike.

    The strength of regularisation is the one with the least loss on training patients held back in turn.
    """

    coef: Float32 = field(init=False, repr=False)
    """(classes, D) weights."""
    intercept: Float32 = field(init=False, repr=False)
    """(classes,) offsets."""
    strength: float = field(init=False)
    """C that was chosen."""
    held_back: Float32 = field(init=False, repr=False)
    """(patients, classes) probabilities of training patients, each by a fit without their fold."""

    def fit(self, means: Float32, code: Ints, classes: int, folds: Ints) -> MeanPooling:
        """Fit the weights.

        Parameters
        ----------
        means : (patients, D) array of float32
            Mean embeddings.
        code : (patients,) array of int
            Classes, 0 to `classes` - 1; each is there.
        classes : int
            Number of classes.
        folds : (patients,) array of int
            Fold of each training patient, to choose the strength by.
        """
        weights = class_weights(code, classes)
        losses, found = [], []
        for strength in STRENGTHS:
            shares = np.zeros((len(code), classes), np.float32)
            for fold in np.unique(folds):
                out = folds == fold
                coef, intercept = _logistic(means[~out], code[~out], classes, strength)
                shares[out] = softmax(means[out] @ coef.T + intercept)
            losses.append(log_loss(shares, code, weights))
            found.append(shares)
        best = int(np.argmin(losses))
        self.strength, self.held_back = STRENGTHS[best], found[best]
        self.coef, self.intercept = _logistic(means, code, classes, self.strength)
        return self

    def predict_proba(self, means: Float32) -> Float32:
        """Probability of each class, (patients, classes) float32."""
        return softmax(means @ self.coef.T + self.intercept)


def softmax(scores: NDArray[np.floating]) -> Float32:
    """Softmax over the last axis, float32."""
    grown = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: Float32 = (grown / grown.sum(axis=-1, keepdims=True)).astype(np.float32)
    return shares


def log_loss(shares: Float32, code: Ints, weights: Float32) -> float:
    """Weighted mean of minus the logarithm of the probability of the true class."""
    right = np.clip(shares[np.arange(len(code)), code].astype(np.float64), 1e-6, None)
    return float(np.average(-np.log(right), weights=weights))


def _logistic(means: Float32, code: Ints, classes: int, strength: float) -> tuple[Float32, Float32]:
    """Weights and offsets on embeddings as they are; a class that is not there gets none."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    centre, spread = means.mean(axis=0, dtype=np.float64), means.std(axis=0, dtype=np.float64)
    spread[spread < 1e-6 * max(float(spread.max()), 1e-30)] = 1.0
    coef, intercept = np.zeros((classes, means.shape[1])), np.full(classes, -30.0)
    there = np.unique(code)
    if len(there) == 1:
        intercept[there] = 0.0
    else:
        model = LogisticRegression(C=strength, max_iter=1000, class_weight="balanced")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit((means - centre) / spread, code)
        two = len(there) == 2
        own = np.vstack([-model.coef_, model.coef_]) / 2 if two else model.coef_
        offset = np.concatenate([-model.intercept_, model.intercept_]) / 2 if two else model.intercept_
        coef[there] = own / spread
        intercept[there] = offset - coef[there] @ centre
    return coef.astype(np.float32), intercept.astype(np.float32)
