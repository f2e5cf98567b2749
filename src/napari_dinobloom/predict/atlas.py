"""The reference atlas: labelled cells of one encoder and one crop policy, with what held-out cells taught about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED, unnamed_by
from napari_dinobloom.errors import AtlasError
from napari_dinobloom.io.tensors import read_tensors, write_tensors
from napari_dinobloom.predict.abstention import below, calibrate
from napari_dinobloom.predict.knn import KnnClassifier, finite_rows

if TYPE_CHECKING:
    from napari_dinobloom.cells.crop import CropPolicy


KIND = "reference-atlas"
SCHEMA = 1
_DTYPES = {"X": "float16", "y": "int16", "source": "uint8", "held_out": "uint8", "confusion": "int64"}
_HEADER: dict[str, type | tuple[type, ...]] = {
    "schema": int,
    "name": str,
    "encoder": str,
    "encoder_sha256": str,
    "policy": dict,
    "policy_hash": str,
    "classes": list,
    "threshold": (int, float),
    "distance_limit": (int, float),
    "k": int,
    "info": dict,
    "hash": str,
}


class HasWeights(Protocol):
    """What tells one encoder from another."""

    @property
    def name(self) -> str:
        """Name of the encoder."""

    @property
    def sha256(self) -> str:
        """Hash of its weights."""


@dataclass(frozen=True, slots=True, eq=False)
class Atlas:
    """Labelled reference cells, and how to read them.

    Attributes
    ----------
    name : str
        Name for people.
    X : (n, D) array of float32
        Embeddings, exactly representable in float16 (so they are stored).
    y : (n,) array of str
        Class of each cell.
    source : (n,) array of str
        The first 16 hexadecimal digits of the sha256 of the picture file a cell came from.
    held_out : (n,) array of bool
        Cells that the encoder never saw in training.
    encoder, encoder_sha256 : str
        Name and hash of the weights that made `X`.
    policy : mapping
        The crop policy as `CropPolicy.to_dict` gives it.
    policy_hash : str
        Its hash.
    classes : tuple of str
        Classes in sorted order.
    confusion : (classes, classes + 1) array of int64
        Held-out cells by true class and by the name they got, the last column being ``unclassified``.
    threshold : float
        Vote share below which a cell is left unclassified.
    distance_limit : float
        Distance to the nearest reference cell beyond which a cell is unlike the reference.
    k : int
        Neighbours that vote.
    info : mapping
        How the atlas came to be: calibration, counts, data sets, licence, notes.
    hash : str
        sha256 over all of the above.
    """

    name: str
    X: NDArray[np.float32]
    y: NDArray[np.str_]
    source: NDArray[np.str_]
    held_out: NDArray[np.bool_]
    encoder: str
    encoder_sha256: str
    policy: Mapping[str, Any]
    policy_hash: str
    classes: tuple[str, ...]
    confusion: NDArray[np.int64]
    threshold: float
    distance_limit: float
    k: int
    info: Mapping[str, Any]
    hash: str = ""

    def __len__(self) -> int:
        return len(self.y)

    @classmethod
    def from_embeddings(
        cls,
        X: ArrayLike,
        y: Sequence[str],
        source: Sequence[str],
        held_out: Sequence[bool] | NDArray[np.bool_],
        *,
        name: str,
        encoder: str,
        encoder_sha256: str,
        policy: Mapping[str, Any],
        policy_hash: str,
        k: int = 20,
        info: Mapping[str, Any] | None = None,
    ) -> Atlas:
        """Make an atlas of embedded cells: round to float16, calibrate on the held-out cells, hash.

        Raises
        ------
        AtlasError
            If there is no cell, fewer than two classes, lengths differ, a value is not finite, a class has no name
            or is called ``unclassified``, or a source is not 16 hexadecimal digits.
        """
        with np.errstate(over="ignore"):
            x = finite_rows(np.asarray(X, dtype=np.float32).astype(np.float16), "atlas")
        labels, origin = np.asarray(y).astype(str), np.asarray(source).astype(str)
        held = np.asarray(held_out, dtype=bool)
        _check_rows(x, labels, origin, held)
        found = calibrate(x, labels, origin, held, k=k)
        about = {
            "calibration": found.held_out,
            "accuracy": round(found.accuracy, 4),
            "accuracy_named": round(found.accuracy_named, 4),
            "abstained": round(found.abstained, 4),
            **(info or {}),
        }
        atlas = cls(
            name=name,
            X=x,
            y=labels,
            source=origin,
            held_out=held,
            encoder=encoder,
            encoder_sha256=encoder_sha256,
            policy=dict(policy),
            policy_hash=policy_hash,
            classes=tuple(np.unique(labels).tolist()),
            confusion=found.confusion,
            threshold=found.threshold,
            distance_limit=min(found.distance_limit, float(np.finfo(np.float32).max)),
            k=k,
            info=about,
        )
        return replace(atlas, hash=atlas._digest())

    def classify(self, X: ArrayLike, source: Sequence[str] | None = None) -> pd.DataFrame:
        """Name cells by the vote of their nearest reference cells.

        Parameters
        ----------
        X : (n, D) array of float
            Embeddings of the same encoder and crop policy; see `check`.
        source : (n,) sequence of str, optional
            First 16 hexadecimal digits of the sha256 of the picture file each cell came from. Reference cells of the
            same picture do not vote.

        Returns
        -------
        DataFrame
            One row a cell: ``predicted`` (str, the class with most votes even where the classifier abstains),
            ``confidence`` (float32, its vote share), ``abstained`` (bool, share below the threshold), ``distance``
            (float32, to the nearest reference cell) and ``unlike`` (bool, distance beyond the limit).

        Raises
        ------
        AtlasError
            If the embeddings have another dimension or are not finite.
        """
        model = self.classifier()
        indices, distances = model.kneighbors(X, source)
        shares, winners = model.votes(indices, distances)
        confidence = shares.max(axis=1, initial=0.0)
        return pd.DataFrame(
            {
                "predicted": model.names(winners).astype(object),
                "confidence": confidence,
                "abstained": below(confidence, self.threshold) | (winners < 0),
                "distance": distances[:, 0],
                "unlike": distances[:, 0] > self.distance_limit,
            }
        )

    def without(self, name: str) -> Atlas:
        """The same atlas without the reference cells of one class, to name cells that cannot be of it.

        Threshold, distance limit and confusion stay those of the whole atlas, and so does the hash.
        """
        rows = self.y != name
        parts = {"X": self.X[rows], "y": self.y[rows], "source": self.source[rows], "held_out": self.held_out[rows]}
        return replace(self, **parts)

    def classifier(self) -> KnnClassifier:
        """The k-NN classifier over all reference cells."""
        return KnnClassifier(k=self.k).fit(self.X, self.y, self.source.tolist())

    def confusion_table(self) -> pd.DataFrame:
        """Held-out cells by true class (rows) and given name (columns, ``unclassified`` last)."""
        return pd.DataFrame(self.confusion, index=list(self.classes), columns=[*self.classes, UNCLASSIFIED])

    def unnamed(self) -> list[str]:
        """Clinically critical classes that this atlas cannot name (blast, atypical lymphocyte, plasma cell)."""
        return unnamed_by(self.classes)

    def check(self, encoder: HasWeights, policy: CropPolicy) -> None:
        """Refuse cells that another encoder or other crops have made.

        Parameters
        ----------
        encoder : Encoder, or anything with its ``name``, ``sha256`` and, where that is not "class", ``pooling``
            What embedded the cells.
        policy : CropPolicy
            How they were cropped.

        Raises
        ------
        AtlasError
            If the encoder's weights, what was taken of its output, or the crop policy are not the atlas' own.
        """
        remedy = (
            "use the atlas that was built with them, build one with `napari-dinobloom atlas build`, "
            "or go without names (atlas none)"
        )
        if encoder.sha256 != self.encoder_sha256:
            raise AtlasError(
                f"Atlas {self.name!r} belongs to encoder {self.encoder!r} with weights {self.encoder_sha256[:12]}, "
                f"but the cells come from {encoder.name!r} with weights {encoder.sha256[:12]}: {remedy}"
            )
        pooling, own_pooling = getattr(encoder, "pooling", "class"), self.info.get("pooling", "class")
        if pooling != own_pooling:
            raise AtlasError(
                f"Atlas {self.name!r} was built with pooling {own_pooling!r}, but of the cells' encoder "
                f"{pooling!r} was taken: {remedy}"
            )
        if policy.hash != self.policy_hash:
            theirs, own = policy.to_dict(), dict(self.policy)
            differ = [f"{key} {theirs.get(key)!r} is not {own[key]!r}" for key in own if theirs.get(key) != own[key]]
            raise AtlasError(
                f"Atlas {self.name!r} was built from other crops ({', '.join(differ) or 'another policy'}): {remedy}"
            )

    def save(self, path: str | Path) -> Path:
        """Write the atlas to one safetensors file, whole or not at all, and return its path."""
        tensors = self._tensors()
        return write_tensors(Path(path), tensors, KIND, {**self._header(), "hash": self.hash})

    @classmethod
    def load(cls, path: str | Path) -> Atlas:
        """Read and validate an atlas.

        Raises
        ------
        AtlasError
            If the file is missing, is no atlas, holds parts that do not fit together, or was changed after it was
            written (its hash does not agree).
        """
        path = Path(path)
        tensors, about = read_tensors(path, KIND, _DTYPES, AtlasError)
        if about.get("schema") != SCHEMA:
            raise AtlasError(
                f"{path}: atlas schema {about.get('schema')!r}, but this version reads {SCHEMA}; build it again"
            )
        for key, kind in _HEADER.items():
            if not isinstance(about.get(key), kind):
                raise AtlasError(f"{path}: the header's {key!r} is {about.get(key)!r}; build the atlas again")
        try:
            atlas = _assemble(tensors, about)
        except AtlasError as error:
            raise AtlasError(f"{path}: {error}") from error
        if atlas._digest() != atlas.hash:
            raise AtlasError(f"{path}: the content does not agree with the atlas' hash; get or build the file again")
        return atlas

    @classmethod
    def bundled(cls, encoder: str = "starter", policy: CropPolicy | str = "context") -> Atlas:
        """Load the atlas that comes with the package for an encoder's name and a kind of crops.

        Raises
        ------
        AtlasError
            If there is none.
        """
        kind = policy if isinstance(policy, str) else policy.kind
        if not cls.is_bundled(encoder, policy):
            raise AtlasError(
                f"No atlas comes with the package for encoder {encoder!r} and {kind!r} crops: "
                "build one with `napari-dinobloom atlas build` and name its file"
            )
        with resources.as_file(_bundled_file(encoder, kind)) as path:
            return cls.load(path)

    @staticmethod
    def is_bundled(encoder: str, policy: CropPolicy | str) -> bool:
        """Whether an atlas comes with the package for an encoder's name and a kind of crops."""
        kind = policy if isinstance(policy, str) else policy.kind
        return Path(encoder).name == encoder and _bundled_file(encoder, kind).is_file()

    def _tensors(self) -> dict[str, NDArray[Any]]:
        """The arrays as they are stored."""
        digits = np.frombuffer(bytes.fromhex("".join(self.source.tolist())), dtype=np.uint8)
        return {
            "X": self.X.astype(np.float16),
            "y": np.searchsorted(np.asarray(self.classes), self.y).astype(np.int16),
            "source": digits.reshape(len(self), 8),
            "held_out": self.held_out.astype(np.uint8),
            "confusion": self.confusion,
        }

    def _header(self) -> dict[str, Any]:
        """The document in the file's header, without the hash."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "encoder": self.encoder,
            "encoder_sha256": self.encoder_sha256,
            "policy": dict(self.policy),
            "policy_hash": self.policy_hash,
            "classes": list(self.classes),
            "threshold": self.threshold,
            "distance_limit": self.distance_limit,
            "k": self.k,
            "info": dict(self.info),
        }

    def _digest(self) -> str:
        """sha256 over header and arrays."""
        digest = hashlib.sha256(json.dumps(self._header(), sort_keys=True, allow_nan=False).encode())
        for name, array in sorted(self._tensors().items()):
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def _bundled_file(encoder: str, kind: str) -> Traversable:
    """Place of the atlas that comes with the package for an encoder's name and a kind of crops."""
    return resources.files("napari_dinobloom") / "weights" / f"atlas-{encoder}-{kind}.safetensors"


def _check_rows(
    x: NDArray[np.float32], y: NDArray[np.str_], source: NDArray[np.str_], held_out: NDArray[np.bool_]
) -> None:
    """Raise AtlasError unless the rows of a new atlas make sense."""
    if len(x) == 0:
        raise AtlasError("An atlas needs cells, but there is none")
    lengths = {"labels": y.shape, "sources": source.shape, "held-out flags": held_out.shape}
    for what, shape in lengths.items():
        if shape != (len(x),):
            raise AtlasError(f"There are {len(x)} embeddings but {what} of shape {shape}")
    names = np.unique(y)
    if len(names) < 2:
        raise AtlasError(f"An atlas needs two classes or more, but all cells are {str(names[0])!r}")
    if "" in names or UNCLASSIFIED in names:
        row = int(np.flatnonzero((y == "") | (y == UNCLASSIFIED))[0])
        raise AtlasError(f"Cell {row} has the class {str(y[row])!r}: give it a class or leave it out of the atlas")
    for row, digits in enumerate(source.tolist()):
        if len(digits) != 16 or set(digits) - set("0123456789abcdef"):
            raise AtlasError(f"Cell {row} has the source {digits!r}; 16 hexadecimal digits of a sha256 are needed")


def _assemble(tensors: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> Atlas:
    """Make an atlas of the parts of a file, or raise AtlasError."""
    classes = about["classes"]
    n, c = len(tensors["y"]), len(classes)
    shapes = {"y": (n,), "source": (n, 8), "held_out": (n,), "confusion": (c, c + 1)}
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise AtlasError(f"{name} has shape {tensors[name].shape} where {shape} is needed")
    if tensors["X"].ndim != 2 or len(tensors["X"]) != n:
        raise AtlasError(f"X has shape {tensors['X'].shape}, but there are {n} labels")
    if classes != sorted(set(classes)) or not all(isinstance(name, str) for name in classes):
        raise AtlasError("the classes in the header are not sorted, distinct names")
    codes, confusion = tensors["y"].astype(np.int64), tensors["confusion"]
    if np.any((codes < 0) | (codes >= c)) or len(np.unique(codes)) != c:
        raise AtlasError("the labels and the classes in the header do not agree")
    if np.any(confusion < 0) or np.any(tensors["held_out"] > 1):
        raise AtlasError("the confusion has negative counts or the held-out flags are not 0 and 1")
    if not 0 <= about["threshold"] <= 1 or not about["distance_limit"] > 0 or about["k"] < 1:
        raise AtlasError("threshold, distance limit or k in the header are out of range")
    digits = tensors["source"].tobytes().hex()
    atlas = Atlas(
        X=tensors["X"].astype(np.float32),
        y=np.asarray(classes, dtype=str)[codes],
        source=np.array([digits[i : i + 16] for i in range(0, 16 * n, 16)], dtype=str),
        held_out=tensors["held_out"].astype(bool),
        confusion=confusion,
        classes=tuple(classes),
        **{key: about[key] for key in _HEADER if key not in ("schema", "classes")},
    )
    _check_rows(finite_rows(atlas.X, "atlas"), atlas.y, atlas.source, atlas.held_out)
    return atlas
