"""What each fit said, kept on the disk: a run of hours that was stopped or killed goes on with its next fit.

A fit is known by the embeddings, the classes, the pictures that were trained on and asked about, the method, and the
version of scikit-learn.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.io.atomic import DAY, sweep
from napari_dinobloom.io.tensors import read_tensors, write_tensors
from napari_dinobloom.predict.protocols.folds import Fold
from napari_dinobloom.predict.protocols.methods import Guess, guess

_KIND = "fit"


class Fits:
    """Fits methods on folds of a data set.

    Parameters
    ----------
    X : (n, D) array of float64
        Embeddings.
    labels : (n,) array of str
        Classes.
    folder : Path, optional
        Where what was said is kept; need not exist.
    """

    def __init__(self, X: NDArray[np.float64], labels: NDArray[np.str_], folder: Path | None = None) -> None:
        self.labels, self.classes = labels, np.unique(labels)
        self._X, self._folder = X, folder
        self._digest = hashlib.sha256(metadata.version("scikit-learn").encode())
        self._digest.update("\0".join(labels.tolist()).encode())
        self._digest.update(np.ascontiguousarray(X).data)
        if folder is not None:
            sweep(folder, older=DAY)

    def ask(self, method: str, fold: Fold) -> Guess:
        """Fit a method on a fold, or read what it said before."""
        if self._folder is None:
            return self._fitted(method, fold)
        digest = self._digest.copy()
        for part in (method.encode(), fold.train.astype(np.int64).data, b"asked", fold.test.astype(np.int64).data):
            digest.update(part)
        path = self._folder / f"{digest.hexdigest()[:32]}.safetensors"
        if path.is_file():
            with suppress(DinoBloomError):  # a damaged file is written anew
                tensors, about = read_tensors(path, _KIND, {"predicted": "int64"})
                return Guess(
                    np.asarray(self.classes[tensors["predicted"]], np.str_), bool(about.get("converged", True))
                )
        said = self._fitted(method, fold)
        self._folder.mkdir(parents=True, exist_ok=True)
        codes = np.searchsorted(self.classes, said.predicted).astype(np.int64)
        write_tensors(path, {"predicted": codes}, _KIND, {"method": method, "converged": said.converged})
        return said

    def _fitted(self, method: str, fold: Fold) -> Guess:
        return guess(method, self._X[fold.train], self.labels[fold.train], self._X[fold.test])
