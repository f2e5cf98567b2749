"""The reference atlas: labelled cells of one encoder and one crop policy, with what held-out cells taught about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED, unnamed_by
from napari_dinobloom.errors import AtlasError
from napari_dinobloom.predict.abstention import Calibration, below, calibrate, elsewhere, to_ask
from napari_dinobloom.predict.calibration import Temperature
from napari_dinobloom.predict.classifier import HasWeights, check_made
from napari_dinobloom.predict.knn import KnnClassifier, Metric, Weights, finite_rows, neighbour_table
from napari_dinobloom.predict.novelty import kth
from napari_dinobloom.predict.thumbnails import Thumbnails

if TYPE_CHECKING:
    from napari_dinobloom.cells.crop import CropPolicy


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
        Confidence below which a cell is left unclassified.
    distance_limit : float
        Distance to the k-th nearest reference cell beyond which a cell is unlike the reference (`novelty`).
    k : int
        Neighbours that vote.
    info : mapping
        How the atlas came to be: calibration, counts, data sets, licence, notes.
    metric, weights : str
        Distance and weight of a vote, as for `KnnClassifier`.
    place : (n, 2) array of float32, or None
        y and x of each cell's centre in its picture, in pixels; NaN where the cell is the picture.
    thumbnails : Thumbnails or None
        Small pictures of the cells.
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
    metric: Metric = "euclidean"
    weights: Weights = "uniform"
    place: NDArray[np.float32] | None = None
    thumbnails: Thumbnails | None = None
    hash: str = ""
    _rows: NDArray[np.intp] | None = field(default=None, repr=False)
    _kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

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
        metric: Metric = "euclidean",
        weights: Weights = "uniform",
        place: NDArray[np.float32] | None = None,
        thumbnails: Thumbnails | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> Atlas:
        """Make an atlas of embedded cells: round to float16, calibrate on the held-out cells, hash.

        Raises
        ------
        AtlasError
            If there is no cell, fewer than two classes, lengths differ, a value is not finite, a class has no name
            or is called ``unclassified``, a source is not 16 hexadecimal digits, or no class is seen in two pictures.
        """
        with np.errstate(over="ignore"):
            x = finite_rows(np.asarray(X, dtype=np.float32).astype(np.float16), "atlas")
        labels, origin = np.asarray(y).astype(str), np.asarray(source).astype(str)
        held = np.asarray(held_out, dtype=bool)
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
            confusion=np.zeros((0, 0), np.int64),
            threshold=0.0,
            distance_limit=1.0,
            k=k,
            info=dict(info or {}),
            metric=metric,
            weights=weights,
            place=None if place is None or np.isnan(place).all() else np.asarray(place, np.float32),
            thumbnails=thumbnails,
        )
        check_rows(atlas)
        if not elsewhere(labels, origin).any():
            raise AtlasError(
                "Every class comes from one picture only, so that nothing could be held out to choose a threshold: "
                "label cells in a second picture"
            )
        return atlas.calibrated(calibrate(x, labels, origin, held, k=k, metric=metric, weights=weights))

    def calibrated(self, found: Calibration) -> Atlas:
        """The same cells with another threshold, distance limit and confusion, and what they mean in `info`."""
        from napari_dinobloom.predict.atlas_file import digest

        measured = set(self.y[to_ask(self.y, self.source, self.held_out)].tolist())
        unmeasured = [name for name in self.classes if name not in measured]
        about = {
            **{name: value for name, value in self.info.items() if name != "unmeasured"},
            "calibration": found.held_out,
            "accuracy": round(found.accuracy, 4),
            "accuracy_named": round(found.accuracy_named, 4),
            "abstained": round(found.abstained, 4),
            "temperature": found.temperature,
            **({"unmeasured": unmeasured} if unmeasured else {}),
        }
        atlas = replace(
            self,
            confusion=found.confusion,
            threshold=found.threshold,
            distance_limit=min(found.distance_limit, float(np.finfo(np.float32).max)),
            info=about,
        )
        return replace(atlas, hash=digest(atlas))

    def using(self, *, k: int = 0, metric: Metric | None = None, weights: Weights | None = None) -> Atlas:
        """The same cells with another way to vote, and the threshold that held-out cells give for it.

        Parameters
        ----------
        k : int
            Neighbours that vote; 0 leaves it.
        metric, weights : str, optional
            As for `KnnClassifier`; None leaves it.
        """
        from napari_dinobloom.predict.atlas_choice import chosen

        return chosen(self, k=k or self.k, metric=metric or self.metric, weights=weights or self.weights)

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
            ``confidence`` (float32, its vote share, calibrated), ``abstained`` (bool, confidence below the threshold),
            ``distance`` (float32, to the k-th nearest reference cell) and ``unlike`` (bool, distance beyond the limit).

        Raises
        ------
        AtlasError
            If the embeddings have another dimension or are not finite.
        """
        model = self.classifier()
        indices, distances = model.kneighbors(X, source)
        shares, winners = model.votes(indices, distances)
        confidence = self._scaled(shares).max(axis=1, initial=0.0)
        distance = kth(distances) if "temperature" in self.info else distances[:, 0]  # the limit of older ones
        return pd.DataFrame(
            {
                "predicted": model.names(winners).astype(object),
                "confidence": confidence,
                "abstained": below(confidence, self.threshold) | (winners < 0),
                "distance": distance,
                "unlike": distance > self.distance_limit,
            }
        )

    def predict_proba(self, X: ArrayLike, source: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Share of the votes of each class, calibrated: (m, classes) float32 in the order of `classes`."""
        model = self.classifier()
        shares = np.zeros((len(np.asarray(X)), len(self.classes)), np.float32)
        shares[:, np.isin(self.classes, model.classes_)] = self._scaled(model.predict_proba(X, source))
        return shares

    def _scaled(self, shares: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vote shares as confidences; as they are where the atlas was built before there was a temperature."""
        temperature = self.info.get("temperature")
        return shares if temperature is None else Temperature(float(temperature)).apply(shares)

    def explain(self, X: ArrayLike, source: Sequence[str] | None = None) -> pd.DataFrame:
        """Reference cells that vote on each cell.

        Parameters
        ----------
        X, source
            As for `classify`.

        Returns
        -------
        DataFrame
            One row a cell and neighbour: ``cell`` (int, row of `X`), ``rank`` (1 is the nearest), ``class``,
            ``source``, ``distance`` (float32) and ``row`` (int, of the atlas; see `thumbnail`).
        """
        return neighbour_table(*self.classifier().kneighbors(X, source), self.y, self.source)

    def thumbnail(self, row: int) -> NDArray[np.uint8] | None:
        """Picture of a reference cell, (96, 96, 3) uint8; None where the atlas carries none. AtlasError if broken."""
        return None if self.thumbnails is None else self.thumbnails.picture(row)

    def without(self, name: str) -> Atlas:
        """The same atlas without the reference cells of one class, to name cells that cannot be of it.

        Threshold, distance limit, classes and confusion stay those of the whole atlas, and so does the hash.
        """
        if name not in self._kept:
            rows = np.flatnonzero(self.y != name)
            parts: dict[str, Any] = {
                "X": self.X[rows],
                "y": self.y[rows],
                "source": self.source[rows],
                "held_out": self.held_out[rows],
            }
            place = None if self.place is None else self.place[rows]
            pictures = None if self.thumbnails is None else self.thumbnails.take(rows)
            self._kept[name] = replace(self, **parts, place=place, thumbnails=pictures, _rows=self.rows(rows))
        atlas: Atlas = self._kept[name]
        return atlas

    def rows(self, rows: NDArray[np.integer]) -> NDArray[np.intp]:
        """Rows of the whole atlas, where this is one `without` a class; else the same."""
        return rows.astype(np.intp) if self._rows is None else self._rows[rows]

    def classifier(self) -> KnnClassifier:
        """The k-NN classifier over all reference cells."""
        if "" not in self._kept:  # no class has this name
            model = KnnClassifier(k=self.k, metric=self.metric, weights=self.weights)
            self._kept[""] = model.fit(self.X, self.y, self.source.tolist())
        kept: KnnClassifier = self._kept[""]
        return kept

    def confusion_table(self) -> pd.DataFrame:
        """Held-out cells by true class (rows) and given name (columns, ``unclassified`` last)."""
        return pd.DataFrame(self.confusion, index=list(self.classes), columns=[*self.classes, UNCLASSIFIED])

    def unnamed(self) -> list[str]:
        """Clinically critical classes that this atlas cannot name (blast, atypical lymphocyte, plasma cell)."""
        return unnamed_by(self.classes)

    def facts(self) -> dict[str, object]:
        """What a report says of the atlas."""
        return {
            "name": self.name,
            "hash": self.hash,
            "cells": len(self),
            "classes": list(self.classes),
            "k": self.k,
            "metric": self.metric,
            "weights": self.weights,
            "threshold": round(self.threshold, 4),
            "distance_limit": round(self.distance_limit, 4),
            "encoder": self.encoder,
            "encoder_sha256": self.encoder_sha256,
            "crops": dict(self.policy),
            "info": dict(self.info),
        }

    def check(self, encoder: HasWeights, policy: CropPolicy) -> None:
        """Refuse cells that another encoder or other crops have made; see `check_made`."""
        check_made(self, encoder, policy, what="atlas")

    def save(self, path: str | Path) -> Path:
        """Write the atlas to one safetensors file, whole or not at all, and return its path."""
        from napari_dinobloom.predict.atlas_file import write_atlas

        return write_atlas(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Atlas:
        """Read and validate an atlas.

        Raises
        ------
        AtlasError
            If the file is missing, is no atlas, holds parts that do not fit together, or was changed after it was
            written (its hash does not agree).
        """
        from napari_dinobloom.predict.atlas_file import read_atlas

        return read_atlas(Path(path))

    @classmethod
    def bundled(cls, encoder: str = "starter", policy: CropPolicy | str = "context") -> Atlas:
        """Load the atlas that comes with the package for an encoder's name and a kind of crops.

        Raises
        ------
        AtlasError
            If there is none.
        """
        from napari_dinobloom.predict.shelf import bundled_file

        path = bundled_file(encoder, policy)
        if path is None:
            kind = policy if isinstance(policy, str) else policy.kind
            raise AtlasError(
                f"No atlas comes with the package for encoder {encoder!r} and {kind!r} crops: "
                "build one with `napari-dinobloom atlas build` and name its file"
            )
        return cls.load(path)

    @staticmethod
    def is_bundled(encoder: str, policy: CropPolicy | str) -> bool:
        """Whether an atlas comes with the package for an encoder's name and a kind of crops."""
        from napari_dinobloom.predict.shelf import bundled_file

        return bundled_file(encoder, policy) is not None


def check_rows(atlas: Atlas) -> None:
    """Raise AtlasError unless the rows of an atlas make sense."""
    x, y, source = atlas.X, atlas.y, atlas.source
    if len(x) == 0:
        raise AtlasError("An atlas needs cells, but there is none")
    lengths = {"labels": y.shape, "sources": source.shape, "held-out flags": atlas.held_out.shape}
    if atlas.place is not None:
        lengths["places"] = atlas.place.shape[:1]
    if atlas.thumbnails is not None:
        lengths["thumbnails"] = (len(atlas.thumbnails),)
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
