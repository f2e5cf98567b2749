"""k nearest neighbours: the class of a cell as the vote of the reference cells that look most like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED
from napari_dinobloom.errors import AtlasError
from napari_dinobloom.io.tensors import read_tensors, write_tensors
from napari_dinobloom.progress import drain

if TYPE_CHECKING:
    from napari_dinobloom.explore.neighbours import Search

Metric = Literal["euclidean", "cosine"]
Weights = Literal["uniform", "distance"]

_KIND = "k-nearest-neighbours"


@dataclass(kw_only=True, slots=True)
class KnnClassifier:
    """Exact k-nearest-neighbour classifier in which a cell never votes for itself.

    The probability of a class is its share of the votes of the `k` nearest reference rows. Where two classes have the
    same share, the one with the larger sum of inverse distances is predicted, and where that is equal too, the one
    that comes first in `classes_`. Rows at equal distance are taken in the order of the reference. With
    ``k in (1, 20)``, Euclidean distance and uniform weights this is the evaluation of the DinoBloom paper
    (Koch et al. 2024, arXiv:2404.05022).
    """

    k: int = 20
    """Number of neighbours that vote; fewer where the reference has fewer eligible rows."""
    metric: Metric = "euclidean"
    """Distance between embeddings; ``cosine`` is one minus the cosine."""
    weights: Weights = "uniform"
    """``uniform``: one vote each. ``distance``: a vote weighs its inverse distance; rows at distance 0 outvote all."""
    classes_: NDArray[np.str_] = field(init=False, repr=False)
    """Names of the classes in sorted order, set by `fit`."""
    _x: NDArray[np.float32] = field(init=False, repr=False)
    _codes: NDArray[np.int64] = field(init=False, repr=False)
    _source: NDArray[np.str_] = field(init=False, repr=False)
    _search: Search | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if self.k < 1:
            raise ValueError(f"k is {self.k}, but at least one neighbour must vote")
        if self.metric not in ("euclidean", "cosine"):
            raise ValueError(f"metric {self.metric!r} is not known; use 'euclidean' or 'cosine'")
        if self.weights not in ("uniform", "distance"):
            raise ValueError(f"weights {self.weights!r} is not known; use 'uniform' or 'distance'")

    def fit(self, X: ArrayLike, y: Sequence[str] | NDArray[Any], source: Sequence[str] | None = None) -> KnnClassifier:
        """Keep the reference.

        Parameters
        ----------
        X : (n, D) array of float
            Embeddings, finite.
        y : (n,) sequence of str
            Class of each row.
        source : (n,) sequence of str, optional
            What picture each row came from. A query of the same source is not compared with the row. ``""`` = unknown.

        Returns
        -------
        KnnClassifier
            This classifier.

        Raises
        ------
        AtlasError
            If there is no row, lengths differ, or a value is not finite.
        """
        x = finite_rows(X, "reference")
        labels = np.asarray(y).astype(str)
        if len(x) == 0:
            raise AtlasError("The reference has no cell; give at least one labelled cell")
        if labels.shape != (len(x),):
            raise AtlasError(f"The reference has {len(x)} embeddings but labels of shape {labels.shape}")
        origin = np.full(len(x), "") if source is None else np.asarray(source).astype(str)
        if origin.shape != (len(x),):
            raise AtlasError(f"The reference has {len(x)} embeddings but sources of shape {origin.shape}")
        self.classes_, codes = np.unique(labels, return_inverse=True)
        self._x, self._codes, self._source, self._search = x, codes.astype(np.int64), origin, None
        return self

    def kneighbors(
        self, X: ArrayLike, source: Sequence[str] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Nearest reference rows that may vote.

        Parameters
        ----------
        X : (m, D) array of float
            Embeddings of the queries.
        source : (m,) sequence of str, optional
            What picture each query came from; reference rows of the same non-empty source are left out.

        Returns
        -------
        indices : (m, k) array of int64
            Reference rows by distance, then by row; -1 where fewer than `k` rows are eligible.
        distances : (m, k) array of float32
            Their distances; infinite where the index is -1.

        Raises
        ------
        AtlasError
            If the dimension is another one, a value is not finite, or lengths differ.
        """
        from napari_dinobloom.explore.neighbours import Search

        x = finite_rows(X, "query")
        if x.shape[1] != self._x.shape[1] and len(x):
            raise AtlasError(
                f"The cells have embeddings of {x.shape[1]} numbers, the reference of {self._x.shape[1]}: "
                "embed both with the same encoder"
            )
        asked = np.full(len(x), "") if source is None else np.asarray(source).astype(str)
        if asked.shape != (len(x),):
            raise AtlasError(f"There are {len(x)} queries but sources of shape {asked.shape}")
        own = (asked != "") & np.isin(asked, self._source)
        indices = np.full((len(x), self.k), -1, dtype=np.int64)
        distances = np.full((len(x), self.k), np.inf, dtype=np.float32)
        if self._search is None:  # the table is prepared once, for cells that are asked for one by one
            self._search = Search(self._x, self.metric)
        if not own.all():
            indices[~own], distances[~own] = drain(self._search.iter_nearest(x[~own], self.k))
        if own.any():
            groups = (asked[own], self._source)
            indices[own], distances[own] = drain(self._search.iter_nearest(x[own], self.k, groups=groups))
        return indices, distances

    def votes(
        self, indices: NDArray[np.int64], distances: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Vote shares and winners from neighbours that `kneighbors` returned.

        Returns
        -------
        shares : (m, classes) array of float32
            Share of the votes; a row sums to 1, or to 0 where no reference row was eligible.
        winners : (m,) array of int64
            Index of the predicted class in `classes_`; -1 where no reference row was eligible.
        """
        m, n_classes = len(indices), len(self.classes_)
        valid = indices >= 0
        near = np.where(valid, distances.astype(np.float64), np.inf)
        inverse = 1.0 / np.maximum(near, 1e-12)
        ballots = _distance_ballots(near) if self.weights == "distance" else valid.astype(np.float64)
        cell = np.arange(m)[:, None] * n_classes + np.where(valid, self._codes[indices], 0)
        share = np.bincount(cell.ravel(), ballots.ravel(), m * n_classes).astype(np.float64).reshape(m, n_classes)
        closeness = np.bincount(cell.ravel(), np.where(valid, inverse, 0.0).ravel(), m * n_classes)
        total = share.sum(axis=1, keepdims=True)
        share = np.divide(share, total, out=np.zeros_like(share), where=total > 0)
        leading = share >= share.max(axis=1, keepdims=True, initial=0.0) - 1e-12
        winners = np.where(leading, closeness.reshape(m, n_classes), -1.0).argmax(axis=1)
        winners = np.where(valid.any(axis=1), winners, -1).astype(np.int64)
        return share.astype(np.float32), winners

    def predict_proba(self, X: ArrayLike, source: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Vote share of each class, (m, classes) float32 in the order of `classes_`; see `kneighbors`."""
        return self.votes(*self.kneighbors(X, source))[0]

    def predict(self, X: ArrayLike, source: Sequence[str] | None = None) -> NDArray[np.str_]:
        """Class with most votes, (m,) str; ``unclassified`` where no reference row was eligible."""
        winners = self.votes(*self.kneighbors(X, source))[1]
        return self.names(winners)

    def names(self, winners: NDArray[np.int64]) -> NDArray[np.str_]:
        """Class names of the indices that `votes` returned, ``unclassified`` for -1."""
        return np.append(self.classes_.astype(object), UNCLASSIFIED)[winners].astype(str)

    def save(self, path: str | Path) -> Path:
        """Write the reference and the settings to one safetensors file and return its path."""
        about = {
            "k": self.k,
            "metric": self.metric,
            "weights": self.weights,
            "classes": self.classes_.tolist(),
            "source": self._source.tolist(),
        }
        return write_tensors(Path(path), {"X": self._x, "y": self._codes.astype(np.int32)}, _KIND, about)

    @classmethod
    def load(cls, path: str | Path) -> KnnClassifier:
        """Read what `save` wrote.

        Raises
        ------
        AtlasError
            If the file is not a saved classifier or its parts do not fit together.
        """
        tensors, about = read_tensors(Path(path), _KIND, {"X": "float32", "y": "int32"}, AtlasError)
        classes, codes = about.get("classes"), tensors["y"]
        if not isinstance(classes, list) or codes.ndim != 1 or np.any((codes < 0) | (codes >= len(classes))):
            raise AtlasError(f"{path}: rows name classes that the file does not list; save the classifier again")
        try:
            model = cls(k=int(about["k"]), metric=about["metric"], weights=about["weights"])
            model.fit(tensors["X"], np.asarray(classes, dtype=str)[codes], about["source"])
        except (AtlasError, KeyError, TypeError, ValueError) as error:
            raise AtlasError(f"{path}: not a usable classifier ({error}); save it again") from error
        return model


def _distance_ballots(near: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weight of each vote by inverse distance; where a row has votes at distance 0, those alone weigh, one each."""
    same = near == 0
    inverse = np.divide(1.0, near, out=np.zeros_like(near), where=np.isfinite(near) & ~same)
    ballots: NDArray[np.float64] = np.where(same.any(axis=1, keepdims=True), same.astype(np.float64), inverse)
    return ballots


def neighbour_table(
    indices: NDArray[np.int64], distances: NDArray[np.float32], y: NDArray[np.str_], source: NDArray[np.str_]
) -> pd.DataFrame:
    """Neighbours that `KnnClassifier.kneighbors` found as the table of `Atlas.explain`."""
    cell, column = np.nonzero(indices >= 0)
    row = indices[cell, column]
    return pd.DataFrame(
        {
            "cell": cell,
            "rank": column + 1,
            "class": y[row].astype(object),
            "source": source[row].astype(object),
            "distance": distances[cell, column],
            "row": row,
        }
    )


def finite_rows(X: ArrayLike, what: str) -> NDArray[np.float32]:
    """Return `X` as a C-contiguous (n, D) float32 array.

    Raises
    ------
    AtlasError
        If it is not two-dimensional or a row holds NaN or infinity; the message names the first such row.
    """
    x = np.ascontiguousarray(X, dtype=np.float32)
    if x.ndim != 2:
        raise AtlasError(f"The {what} must be an array of shape (cells, numbers), not {x.shape}")
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(bad):
        raise AtlasError(
            f"The {what} has {len(bad)} embeddings with NaN or infinity, the first in row {bad[0]}: "
            "embed these cells again or leave them out"
        )
    return x
