"""The probe: a linear classifier trained on reference cells, with all that it needs to name the cells of a study.

Beside the weights it holds what held-out cells taught about it (temperature, threshold, confusion), and some of the
cells it was trained on, so that a cell can be told to be unlike all of them and be shown with the nearest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED, unnamed_by
from napari_dinobloom.errors import AtlasError
from napari_dinobloom.io.atomic import write_text
from napari_dinobloom.io.tensors import read_tensors, write_tensors
from napari_dinobloom.predict.abstention import below
from napari_dinobloom.predict.atlas_file import check_info
from napari_dinobloom.predict.calibration import Temperature
from napari_dinobloom.predict.classifier import HasWeights, check_made
from napari_dinobloom.predict.knn import KnnClassifier, finite_rows, neighbour_table
from napari_dinobloom.predict.linear import LinearProbe
from napari_dinobloom.predict.novelty import kth

if TYPE_CHECKING:
    from napari_dinobloom.cells.crop import CropPolicy

KIND = "cell-probe"
SCHEMA = 1
_DTYPES = {
    "coef": "float64",
    "intercept": "float64",
    "X": "float16",
    "y": "int16",
    "source": "uint8",
    "confusion": "int64",
}
_HEADER: dict[str, type | tuple[type, ...]] = {
    "schema": int,
    "name": str,
    "encoder": str,
    "encoder_sha256": str,
    "policy": dict,
    "policy_hash": str,
    "classes": list,
    "C": (int, float),
    "converged": bool,
    "temperature": (int, float),
    "threshold": (int, float),
    "distance_limit": (int, float),
    "cells": int,
    "info": dict,
    "hash": str,
}
NEAREST = 20
"""Nearest cells that `Probe.explain` gives; how far the last of them is tells whether a cell is unlike (`novelty`)."""


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A linear probe of one encoder and one crop policy.

    Attributes
    ----------
    name : str
        Name for people.
    linear : LinearProbe
        The weights.
    X, y, source : arrays
        Some of the training cells (m, D) float32, their classes and pictures: what is nearest, and how far it is.
    encoder, encoder_sha256, policy, policy_hash
        As for `Atlas`.
    classes : tuple of str
        Classes in sorted order.
    confusion : (classes, classes + 1) array of int64
        Held-out cells by true class and by the name they got, the last column being ``unclassified``.
    temperature : float
        What the logits are divided by (Guo et al. 2017).
    threshold : float
        Probability below which a cell is left unclassified.
    distance_limit : float
        Distance to the 20th nearest cell in `X` beyond which a cell is unlike the reference (`novelty`).
    cells : int
        Cells that it was trained on.
    info : mapping
        How it came to be.
    hash : str
        sha256 over all of the above.
    """

    name: str
    linear: LinearProbe
    X: NDArray[np.float32]
    y: NDArray[np.str_]
    source: NDArray[np.str_]
    encoder: str
    encoder_sha256: str
    policy: Mapping[str, Any]
    policy_hash: str
    classes: tuple[str, ...]
    confusion: NDArray[np.int64]
    temperature: float
    threshold: float
    distance_limit: float
    cells: int
    info: Mapping[str, Any]
    hash: str = ""
    _left_out: str = ""
    _rows: NDArray[np.intp] | None = field(default=None, repr=False)
    _kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def classify(self, X: ArrayLike, source: Sequence[str] | None = None) -> pd.DataFrame:
        """Name cells by their most probable class.

        Parameters
        ----------
        X, source
            As for `Atlas.classify`; `source` matters for the distance only.

        Returns
        -------
        DataFrame
            As `Atlas.classify`; ``confidence`` is the probability at the probe's temperature.

        Raises
        ------
        AtlasError
            If the embeddings have another dimension or are not finite.
        """
        p = self.predict_proba(X)
        distance = kth(self._nearest().kneighbors(X, source)[1])
        confidence = p.max(axis=1, initial=0.0)
        return pd.DataFrame(
            {
                "predicted": np.asarray(self.classes, dtype=object)[p.argmax(axis=1)],
                "confidence": confidence,
                "abstained": below(confidence, self.threshold),
                "distance": distance,
                "unlike": distance > self.distance_limit,
            }
        )

    def predict_proba(self, X: ArrayLike, source: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Probability of each class at the probe's temperature, (m, classes) float32 in the order of `classes`.

        `source` changes nothing: a probe has no votes to leave out.
        """
        x = finite_rows(X, "query")
        if x.shape[1] != self.linear.coef_.shape[1] and len(x):
            raise AtlasError(
                f"The cells have embeddings of {x.shape[1]} numbers, the probe was trained on "
                f"{self.linear.coef_.shape[1]}: embed them with the encoder of the probe"
            )
        if not len(x):
            return np.zeros((0, len(self.classes)), np.float32)
        p = Temperature(self.temperature, 0.0).apply(self.linear.predict_proba(x))
        if self._left_out:
            p[:, self.classes.index(self._left_out)] = 0
            p /= np.maximum(p.sum(axis=1, keepdims=True), 1e-30)
        return p

    def explain(self, X: ArrayLike, source: Sequence[str] | None = None) -> pd.DataFrame:
        """Nearest of the training cells that the probe holds, in the columns of `Atlas.explain`; they do not vote."""
        return neighbour_table(*self._nearest().kneighbors(X, source), self.y, self.source)

    def thumbnail(self, row: int) -> None:
        """A probe carries no pictures."""

    def without(self, name: str) -> Probe:
        """The same probe without one class: its probability is shared out among the others."""
        if name not in self._kept:
            rows = np.flatnonzero(self.y != name)
            parts: dict[str, Any] = {
                "X": self.X[rows],
                "y": self.y[rows],
                "source": self.source[rows],
                "_rows": self.rows(rows),
            }
            self._kept[name] = replace(self, **parts, _left_out=name if name in self.classes else "")
        probe: Probe = self._kept[name]
        return probe

    def rows(self, rows: NDArray[np.integer]) -> NDArray[np.intp]:
        """Rows among all cells that the probe holds, where this is one `without` a class; else the same."""
        return rows.astype(np.intp) if self._rows is None else self._rows[rows]

    def _nearest(self) -> KnnClassifier:
        """Search among the training cells that the probe holds."""
        if "" not in self._kept:  # no class has this name
            self._kept[""] = KnnClassifier(k=NEAREST).fit(self.X, self.y, self.source.tolist())
        kept: KnnClassifier = self._kept[""]
        return kept

    def confusion_table(self) -> pd.DataFrame:
        """Held-out cells by true class (rows) and given name (columns, ``unclassified`` last)."""
        return pd.DataFrame(self.confusion, index=list(self.classes), columns=[*self.classes, UNCLASSIFIED])

    def unnamed(self) -> list[str]:
        """Clinically critical classes that this probe cannot name."""
        return unnamed_by(self.classes)

    def check(self, encoder: HasWeights, policy: CropPolicy) -> None:
        """Refuse cells that another encoder or other crops have made; see `check_made`."""
        check_made(self, encoder, policy, what="probe")

    def facts(self) -> dict[str, object]:
        """What a report says of the probe."""
        return {
            "name": self.name,
            "hash": self.hash,
            "cells": self.cells,
            "classes": list(self.classes),
            "C": round(self.linear.C_, 6),
            "temperature": round(self.temperature, 4),
            "threshold": round(self.threshold, 4),
            "distance_limit": round(self.distance_limit, 4),
            "encoder": self.encoder,
            "encoder_sha256": self.encoder_sha256,
            "crops": dict(self.policy),
            "info": dict(self.info),
        }

    def save(self, path: str | Path) -> Path:
        """Write the probe to one safetensors file, and beside it what people may want to read, ``NAME.json``."""
        path = write_tensors(Path(path), self._tensors(), KIND, {**self._header(), "hash": self.hash})
        about = self.facts() | {"confusion": self.confusion_table().to_dict("index")}
        write_text(path.with_suffix(".json"), json.dumps(about, indent=1, ensure_ascii=False) + "\n")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Probe:
        """Read and validate a probe.

        Raises
        ------
        AtlasError
            If the file is missing, is no probe, holds parts that do not fit together, or was changed.
        """
        path = Path(path)
        tensors, about = read_tensors(path, KIND, _DTYPES, AtlasError)
        about = check_header(path, about)
        try:
            _check_fit(tensors, about)
        except AtlasError as error:
            raise AtlasError(f"{path}: {error}; get or train the probe again") from error
        probe = _assemble(tensors, about)
        if probe.digest() != probe.hash:
            raise AtlasError(f"{path}: the content does not agree with the probe's hash; get or train it again")
        return probe

    def digest(self) -> str:
        """sha256 over header and arrays."""
        found = hashlib.sha256(json.dumps(self._header(), sort_keys=True, allow_nan=False).encode())
        for name, array in sorted(self._tensors().items()):
            found.update(f"{name} {array.dtype.str} {array.shape}".encode())
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    def _tensors(self) -> dict[str, NDArray[Any]]:
        """The arrays as they are stored."""
        digits = np.frombuffer(bytes.fromhex("".join(self.source.tolist())), dtype=np.uint8)
        return {
            "coef": self.linear.coef_,
            "intercept": self.linear.intercept_,
            "X": self.X.astype(np.float16),
            "y": np.searchsorted(np.asarray(self.classes), self.y).astype(np.int16),
            "source": digits.reshape(len(self.y), 8),
            "confusion": self.confusion,
        }

    def _header(self) -> dict[str, Any]:
        """The document in the file's header, without the hash."""
        own: dict[str, Any] = {"schema": SCHEMA, "C": self.linear.C_, "converged": self.linear.converged_}
        own |= {"policy": dict(self.policy), "classes": list(self.classes), "info": dict(self.info)}
        return {key: own[key] if key in own else getattr(self, key) for key in _HEADER if key != "hash"}


def check_header(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Return a header in which every entry is of its type; AtlasError names the first that is not."""
    if about.get("schema") != SCHEMA:
        raise AtlasError(
            f"{path}: probe schema {about.get('schema')!r}, but this version reads {SCHEMA}; train it again"
        )
    for key, kind in _HEADER.items():
        if not isinstance(about.get(key), kind):
            raise AtlasError(f"{path}: the header's {key!r} is {about.get(key)!r}; train the probe again")
    return about


def _check_fit(tensors: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
    """Raise AtlasError where the parts of a file do not fit together."""
    classes, coef = about["classes"], tensors["coef"]
    n, c = len(tensors["y"]), len(classes)
    dim = coef.shape[-1] if coef.ndim == 2 else -1
    shapes = {"coef": (c, dim), "intercept": (c,), "X": (n, dim), "y": (n,), "source": (n, 8), "confusion": (c, c + 1)}
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise AtlasError(f"{name} has shape {tensors[name].shape} where {shape} is needed")
    if c < 2 or n == 0 or not all(isinstance(name, str) for name in classes) or classes != sorted(set(classes)):
        raise AtlasError("the classes in the header are not two or more sorted, distinct names")
    if any(not np.isfinite(tensors[name]).all() for name in ("coef", "intercept", "X")):
        raise AtlasError("weights or cells hold NaN or infinity")
    if np.any((tensors["y"] < 0) | (tensors["y"] >= c)) or np.any(tensors["confusion"] < 0):
        raise AtlasError("labels or confusion are out of range")
    within = (0 <= about["threshold"] <= 1, 0 < about["distance_limit"] < np.inf, 0 < about["temperature"] < 1e6)
    if not all(within) or not 0 < about["C"] < np.inf:
        raise AtlasError("threshold, distance limit, temperature or C in the header are out of range")
    check_info(about["info"])


def _assemble(tensors: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> Probe:
    """Make a probe of the parts of a file."""
    linear = LinearProbe(C=float(about["C"]))
    linear.classes_, linear.coef_ = np.asarray(about["classes"], dtype=str), tensors["coef"]
    linear.intercept_, linear.C_, linear.converged_ = tensors["intercept"], float(about["C"]), about["converged"]
    digits = tensors["source"].tobytes().hex()
    return Probe(
        linear=linear,
        X=tensors["X"].astype(np.float32),
        y=linear.classes_[tensors["y"].astype(np.int64)],
        source=np.array([digits[i : i + 16] for i in range(0, len(digits), 16)], dtype=str),
        classes=tuple(about["classes"]),
        confusion=tensors["confusion"],
        **{key: about[key] for key in _HEADER if key not in ("schema", "classes", "C", "converged")},
    )
