"""The linear probe: multinomial logistic regression on frozen embeddings."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.io.tensors import read_tensors, write_tensors

_KIND = "linear-probe"


@dataclass(kw_only=True, slots=True)
class LinearProbe:
    """Logistic regression with the regularisation of the DinoBloom evaluation.

    scikit-learn's `LogisticRegression` with ``C = D * classes / 100`` (D numbers in an embedding), L2 penalty, lbfgs,
    embeddings as they are, as the code of the DinoBloom paper does (its text says otherwise; Koch et al. 2024,
    arXiv:2404.05022). A saved probe predicts without scikit-learn.
    """

    C: float | None = None
    """Inverse strength of regularisation; by default ``D * classes / 100``."""
    max_iter: int = 1000
    """Most iterations of the solver, as in the reference."""
    classes_: NDArray[np.str_] = field(init=False, repr=False)
    """Names of the classes in sorted order, set by `fit`."""
    coef_: NDArray[np.float64] = field(init=False, repr=False)
    """(classes, D) weights."""
    intercept_: NDArray[np.float64] = field(init=False, repr=False)
    """(classes,) offsets."""
    C_: float = field(init=False, repr=False)
    """Strength that was used."""
    converged_: bool = field(init=False, repr=False)
    """Whether the solver ended before `max_iter`."""

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if self.C is not None and not self.C > 0:
            raise ValueError(f"C is {self.C}; the inverse strength of regularisation must be positive")
        if self.max_iter < 1:
            raise ValueError(f"max_iter is {self.max_iter}; at least one iteration is needed")

    def fit(self, X: ArrayLike, y: Sequence[str] | NDArray[Any]) -> LinearProbe:
        """Fit the weights.

        Parameters
        ----------
        X : (n, D) array of float
            Embeddings, finite; fitted in float64.
        y : (n,) sequence of str
            Classes.

        Returns
        -------
        LinearProbe
            This probe.

        Raises
        ------
        DinoBloomError
            If there are fewer than two classes, lengths differ or a value is not finite.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        x, labels = _checked(X), np.asarray(y).astype(str)
        if labels.shape != (len(x),):
            raise DinoBloomError(f"A linear probe got {len(x)} embeddings but labels of shape {labels.shape}")
        classes = np.unique(labels)
        if len(classes) < 2:
            raise DinoBloomError(f"A linear probe needs cells of two classes or more, not only {classes.tolist()}")
        self.C_ = self.C if self.C is not None else x.shape[1] * len(classes) / 100
        model = LogisticRegression(C=self.C_, max_iter=self.max_iter)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, labels)
        self.classes_ = classes
        self.converged_ = bool(np.max(model.n_iter_) < self.max_iter)
        coef, intercept = model.coef_, model.intercept_
        if len(classes) == 2:
            # Two classes are fitted as one logistic curve: the first class is the zero of the softmax.
            coef, intercept = np.vstack([np.zeros_like(coef), coef]), np.concatenate([[0.0], intercept])
        self.coef_, self.intercept_ = coef.astype(np.float64), intercept.astype(np.float64)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float32]:
        """Probability of each class, (m, classes) float32 in the order of `classes_`; rows sum to 1.

        Raises
        ------
        DinoBloomError
            If the embeddings have another dimension or are not finite.
        """
        x = _checked(X)
        if x.shape[1] != self.coef_.shape[1]:
            raise DinoBloomError(
                f"The cells have embeddings of {x.shape[1]} numbers, the probe was fitted on {self.coef_.shape[1]}: "
                "use the encoder that the probe was fitted with"
            )
        score = x @ self.coef_.T + self.intercept_
        score = np.exp(score - score.max(axis=1, keepdims=True))
        share: NDArray[np.float32] = (score / score.sum(axis=1, keepdims=True)).astype(np.float32)
        return share

    def predict(self, X: ArrayLike) -> NDArray[np.str_]:
        """Most probable class, (m,) str."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)], dtype=np.str_)

    def save(self, path: str | Path) -> Path:
        """Write the probe to one safetensors file and return its path."""
        about = {
            "classes": self.classes_.tolist(),
            "C": self.C,
            "C_used": self.C_,
            "max_iter": self.max_iter,
            "converged": self.converged_,
        }
        return write_tensors(Path(path), {"coef": self.coef_, "intercept": self.intercept_}, _KIND, about)

    @classmethod
    def load(cls, path: str | Path) -> LinearProbe:
        """Read what `save` wrote.

        Raises
        ------
        DinoBloomError
            If the file is not a saved probe or its parts do not fit together.
        """
        tensors, about = read_tensors(Path(path), _KIND, {"coef": "float64", "intercept": "float64"})
        try:
            probe = cls(C=about["C"], max_iter=int(about["max_iter"]))
            classes = np.asarray(about["classes"], dtype=str)
            probe.C_, probe.converged_ = float(about["C_used"]), bool(about["converged"])
        except (KeyError, TypeError, ValueError) as error:
            raise DinoBloomError(f"{path}: not a usable linear probe ({error}); save it again") from error
        coef, intercept = tensors["coef"], tensors["intercept"]
        fits = coef.ndim == 2 and classes.shape == intercept.shape == (len(coef),) and len(coef) > 1
        if not fits or not np.isfinite(coef).all() or not np.isfinite(intercept).all():
            raise DinoBloomError(f"{path}: weights and classes of the linear probe do not fit; save it again")
        probe.classes_, probe.coef_, probe.intercept_ = classes, coef, intercept
        return probe


def _checked(X: ArrayLike) -> NDArray[np.float64]:
    """Return `X` as (n, D) float64, or raise DinoBloomError naming the first row that is not finite."""
    x = np.asarray(X, dtype=np.float64)
    if x.ndim != 2:
        raise DinoBloomError(f"Embeddings must be an array of shape (cells, numbers), not {x.shape}")
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(bad):
        raise DinoBloomError(
            f"{len(bad)} embeddings hold NaN or infinity, the first in row {bad[0]}: embed these cells again "
            "or leave them out"
        )
    return x
