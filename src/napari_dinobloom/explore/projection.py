"""A map as it was fitted: the cells it rests on, where they lie, and how another cell finds its place among them.

A projection never changes. Its hash covers the fitted cells' embeddings, names and spots and all parameters: whoever
has the same hash has the same map, to the last bit. The file holds no pickle and may come from a stranger.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.explore.placing import iter_place_among
from napari_dinobloom.explore.restandardise import Groups, Restandardise, batches
from napari_dinobloom.io.tensors import read_header, read_tensors, write_tensors
from napari_dinobloom.io.vectors import AT_ONCE, Changed, Vectors, rows_in
from napari_dinobloom.progress import Steps, drain

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Kind = Literal["umap", "pca", "given"]

VERSION = 2
"""Raised when the same embeddings and parameters would give other coordinates."""

KIND = "projection"
SCHEMA = 1
NEIGHBOURS = 15
"""Fitted cells that place a new one, where the map was not made with a number of its own."""

BLOCK = 1 << 14
"""Cells at a time in float64."""

_STANDARDS = {
    "group_cells": "int64",
    "group_shift": "float32",
    "group_scale": "float32",
    "group_shared": "float32",
    "centre": "float32",
    "clusters": "float32",
    "spread": "float32",
}
_DTYPES = {
    "reference": "float32",
    "coordinates": "float32",
    "mean": "float64",
    "axes": "float64",
    "cell_ids": "uint8",
    **_STANDARDS,
}


class ProjectionError(DinoBloomError, ValueError):
    """A projection cannot be read, or cells do not fit it; the message says why and what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """A fitted map.

    Attributes
    ----------
    hash : str
        Hexadecimal sha256; its first 8 characters name the map in files and keys.
    kind : {"umap", "pca", "given"}
        How new cells are placed: ``pca`` by the axes, the others among the fitted cells.
    params : mapping
        What it was fitted with, seed and version of the method among it.
    cell_ids : tuple of str
        The fitted cells.
    reference : (n, D) array of float32
        Their embeddings, re-standardised if the map is.
    coordinates : (n, 2) array of float32
        Their spots.
    mean : (D,) array of float64
        Of ``pca``, else empty.
    axes : (2, D) array of float64
        Of ``pca``, else empty.
    standards : Restandardise or None
        How embeddings are re-standardised before they are placed.
    about : mapping
        Not covered by the hash: encoder, versions of programs, recall of the neighbours.
    """

    hash: str
    kind: Kind
    params: Mapping[str, Any]
    cell_ids: tuple[str, ...]
    reference: Float32
    coordinates: Float32
    mean: Float64
    axes: Float64
    standards: Restandardise | None
    about: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.cell_ids)

    @classmethod
    def of(
        cls,
        kind: Kind,
        params: Mapping[str, Any],
        cell_ids: Sequence[str],
        reference: Float32,
        coordinates: Float32,
        *,
        principal: tuple[Float64, Float64] | None = None,
        standards: Restandardise | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> Projection:
        """Make a projection of what was fitted, and its hash; `principal` are mean and axes of ``pca``."""
        mean, axes = principal or (np.zeros(0), np.zeros((0, 0)))
        ids = tuple(str(name) for name in cell_ids)
        key = projection_hash(reference, ids, {**params, "kind": kind}, coordinates)
        return cls(key, kind, dict(params), ids, reference, coordinates, mean, axes, standards, dict(about or {}))

    def place(self, x: npt.ArrayLike, groups: Groups | None = None) -> Float32:
        """Say where cells lie on the map.

        A cell's spot depends on its embedding (and the numbers of its group) alone: not on what comes with it, on the
        order, on chunks or on the number of threads. A fitted cell lands on its own spot.

        Parameters
        ----------
        x : array (m, D) of float
            Embeddings of the same encoder; rows with undefined numbers get undefined spots.
        groups : sequence (m,), optional
            Slide or batch of each cell; needed where the map is re-standardised.

        Returns
        -------
        ndarray (m, 2) float32

        Raises
        ------
        ProjectionError
            Another number of columns, missing or unknown groups, or a map without cells.
        """
        return drain(self.iter_place(x, groups))

    def iter_place(self, x: npt.ArrayLike, groups: Groups | None = None) -> Steps[Float32]:
        """Do what `place` does, with progress in cells."""
        return (yield from self.iter_place_moved(self.moved(x, groups)))

    def moved(self, x: npt.ArrayLike | Vectors, groups: Groups | None = None) -> Float32 | Vectors:
        """Return embeddings as the map compares them: re-standardised, if it is."""
        table = x if isinstance(x, Vectors) else np.asarray(x, np.float32)
        if len(table.shape) != 2 or table.shape[1] != self.reference.shape[1]:
            raise ProjectionError(
                f"The map {self.hash[:8]} has embeddings of {self.reference.shape[1]} numbers, the cells have shape "
                f"{table.shape}: embed them with the encoder of the map."
            )
        if self.standards is None:
            return table
        if groups is None:
            raise ProjectionError(f"The map {self.hash[:8]} is re-standardised: say the group of each cell.")
        try:
            return moved(self.standards, table, groups)
        except ValueError as error:
            raise ProjectionError(f"The map {self.hash[:8]}: {error}") from error

    def iter_place_moved(self, table: Float32 | Vectors) -> Steps[Float32]:
        """Place embeddings that are re-standardised already."""
        known = finite_rows(table)
        if len(known) and not len(self):
            raise ProjectionError(f"The map {self.hash[:8]} holds no cell to place others by; fit one with cells.")
        placed = np.full((len(table), 2), np.nan, np.float32)
        if len(known):
            some = table if len(known) == len(table) else rows_in(table, known)
            if self.kind == "pca":
                placed[known] = along(some, self.mean, self.axes)
            else:
                size = int(self.params.get("n_neighbors", NEIGHBOURS))
                metric = self.params.get("metric", "euclidean")
                placed[known] = yield from iter_place_among(some, self.reference, self.coordinates, size, metric)
        return placed

    def with_groups(self, x: npt.ArrayLike | Vectors, groups: Groups) -> Projection:
        """Return the same map that knows the shift of new slides too; itself where nothing is to add."""
        if self.standards is None:
            return self
        table = x if isinstance(x, Vectors) else np.asarray(x, np.float32)
        names, added = np.asarray(groups, object), self.standards
        new = np.flatnonzero(self.standards.unknown(names))
        new = new[finite_rows(rows_in(table, new))]
        for rows in batches(names[new], AT_ONCE):
            added = added.with_groups(table[new[rows]], names[new[rows]])
        return self if added is self.standards else replace(self, standards=added)

    def save(self, path: str | Path) -> Path:
        """Write the map to one safetensors file, whole or not at all; the same map gives the same bytes."""
        tensors = self._tensors()
        header = self._header()
        return write_tensors(Path(path), tensors, KIND, {**header, "content": _content(tensors, header)})

    @classmethod
    def load(cls, path: str | Path) -> Projection:
        """Read and check a map.

        Raises
        ------
        ProjectionError
            If the file is missing, is no projection, of a newer schema, or was changed after it was written.
        """
        path = Path(path)
        tensors, about = read_tensors(path, KIND, _DTYPES, ProjectionError)
        if type(about.get("schema")) is not int or not 1 <= about["schema"] <= SCHEMA:
            raise ProjectionError(
                f"{path}: schema {str(about.get('schema'))[:20]} is not known; this version reads up to {SCHEMA}. "
                "Update with 'pip install -U napari-dinobloom'."
            )
        content = about.pop("content", None)
        try:
            if content == _content(tensors, about):
                return _assembled(tensors, about)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ProjectionError(f"{path}: its parts do not fit together ({error}). Fit the map anew.") from error
        raise ProjectionError(f"{path}: was damaged or changed after it was written. Get it again, or fit anew.")

    @staticmethod
    def peek(path: Path) -> dict[str, Any]:
        """Read what a map's file says of itself (``hash``, ``projection``, ``params``, ``cells``, ``about``) alone.

        Raises
        ------
        ProjectionError
            If it is no projection.
        """
        header = read_header(path, KIND, ProjectionError)
        wanted = {"hash": str, "projection": str, "params": dict, "cells": int, "about": dict}
        right = all(isinstance(header.get(name), kind) for name, kind in wanted.items())
        if not right or not (_flat(header["params"]) and _flat(header["about"])):
            raise ProjectionError(f"{path}: its header is damaged. Get the file again, or fit the map anew.")
        return header

    def _tensors(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays as they are stored."""
        s = self.standards
        names = np.frombuffer("\n".join(self.cell_ids).encode(), np.uint8)
        found: dict[str, npt.NDArray[Any]] = {name: np.zeros(0, dtype) for name, dtype in _STANDARDS.items()}
        found |= {"reference": self.reference, "coordinates": self.coordinates, "cell_ids": names}
        found |= {"mean": self.mean, "axes": self.axes}
        if s is not None:
            found |= {"group_cells": s.cells, "group_shift": s.shift, "group_scale": s.scale, "group_shared": s.shared}
            found |= {"centre": s.centre, "clusters": s.clusters, "spread": s.spread}
        return found

    def _header(self) -> dict[str, Any]:
        """The document in the file's header, without the checksum."""
        s = self.standards
        return {
            "schema": SCHEMA,
            "hash": self.hash,
            "projection": self.kind,
            "params": dict(self.params),
            "cells": len(self),
            "about": dict(self.about),
            "groups": None
            if s is None
            else {"names": list(s.groups), "prior": s.prior, "taken": s.taken, "chance": s.chance},
        }


def projection_hash(x: Float32, cell_ids: Sequence[str], params: Mapping[str, Any], coordinates: Float32) -> str:
    """Compute what identifies a map: what was fitted, how, and what came of it.

    Parameters
    ----------
    x : ndarray (n, D) float32
        Embeddings of the fitted cells.
    cell_ids : sequence of str
        Their names, in order.
    params : mapping
        Kind, parameters, seed and version.
    coordinates : ndarray (n, 2) float32
        Their spots: other machines may round a layout otherwise, and a gate holds for one only.

    Returns
    -------
    str
        Hexadecimal SHA-256; its first 8 characters name a map in file and key names.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps([list(x.shape), dict(params)], sort_keys=True).encode())
    digest.update(json.dumps(list(cell_ids)).encode())
    digest.update(np.ascontiguousarray(x, "<f4").data)
    digest.update(np.ascontiguousarray(coordinates, "<f4").data)
    return digest.hexdigest()


def moved(standards: Restandardise, table: Float32 | Vectors, groups: Groups) -> Float32 | Vectors:
    """Re-standardise embeddings; those on the disk when they are read.

    Raises
    ------
    ValueError
        As `Restandardise.transform`.
    """
    if not isinstance(table, Vectors):
        return standards.transform(table, groups)
    names = np.asarray(groups, object)
    first = np.flatnonzero(~pd.Series(names).duplicated().to_numpy())
    standards.transform(table[first], names[first])  # an unknown slide is told before anything is read
    return Changed(table, lambda block, part: standards.transform(block, names[part]))


def finite_rows(table: Float32 | Vectors) -> npt.NDArray[np.int64]:
    """Rows without undefined numbers, found in blocks."""
    parts = [np.isfinite(table[start : start + BLOCK]).all(1) for start in range(0, len(table), BLOCK)]
    return np.flatnonzero(np.concatenate(parts)) if parts else np.zeros(0, np.int64)


def along(x: Float32 | Vectors, mean: Float64, axes: Float64) -> Float32:
    """Coordinates of cells along axes, (n, len(axes)) float32; each row is summed alone, so that company is nothing."""
    placed = np.empty((len(x), len(axes)), np.float32)
    for start in range(0, len(x), BLOCK):
        moved = x[start : start + BLOCK].astype(np.float64) - mean
        for axis, direction in enumerate(axes):
            placed[start : start + BLOCK, axis] = (moved * direction).sum(1)
    return placed


def _content(tensors: Mapping[str, npt.NDArray[Any]], header: Mapping[str, Any]) -> str:
    """sha256 over all that a file holds."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True, allow_nan=False).encode())
    for name, array in sorted(tensors.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _assembled(tensors: Mapping[str, npt.NDArray[Any]], about: Mapping[str, Any]) -> Projection:
    """Make a projection of the parts of a file; raise ValueError where they do not fit."""
    reference, spots, kind = tensors["reference"], tensors["coordinates"], about["projection"]
    names = bytes(tensors["cell_ids"]).decode()
    ids = tuple(names.split("\n")) if about["cells"] else ()
    if kind not in ("umap", "pca", "given") or not (_flat(about["params"]) and _flat(about["about"])):
        raise ValueError(f"kind {str(kind)[:20]!r} or the parameters are not known")
    if reference.ndim != 2 or spots.shape != (len(reference), 2) or len(ids) != len(reference):
        raise ValueError(f"{len(ids)} cells, embeddings {reference.shape}, coordinates {spots.shape}")
    if not (np.isfinite(reference).all() and np.isfinite(spots).all()):
        raise ValueError("undefined numbers")
    mean, axes, dim = tensors["mean"], tensors["axes"], reference.shape[1]
    if kind == "pca" and (mean.shape != (dim,) or axes.shape != (2, dim) or not np.isfinite([mean, *axes]).all()):
        raise ValueError(f"axes {axes.shape} for embeddings of {dim} numbers")
    size, metric = about["params"].get("n_neighbors", NEIGHBOURS), about["params"].get("metric", "euclidean")
    if type(size) is not int or not 2 <= size <= 10_000 or metric not in ("euclidean", "cosine"):
        raise ValueError("n_neighbors or metric out of range")
    if projection_hash(reference, ids, {**about["params"], "kind": kind}, spots) != about["hash"]:
        raise ValueError("the hash belongs to another map")
    standards = _standards(tensors, about["groups"], dim)
    return Projection(
        about["hash"], kind, about["params"], ids, reference, spots, mean, axes, standards, dict(about["about"])
    )


def _flat(values: Any) -> bool:
    """Whether something from a file is a document that a cell table can hold: names, each with one plain value."""
    plain = (str, int, float, bool, type(None))
    return isinstance(values, dict) and all(isinstance(value, plain) for value in values.values())


def _standards(tensors: Mapping[str, npt.NDArray[Any]], groups: Any, dim: int) -> Restandardise | None:
    """The re-standardisation of a file, or None."""
    if groups is None:
        return None
    count = len(groups["names"])
    shapes = {"group_cells": (count,), "group_shift": (count, dim), "group_scale": (count, dim), "centre": (dim,)}
    shapes |= {"group_shared": (count,), "spread": (dim,), "clusters": (len(tensors["clusters"]), dim)}
    for name, shape in shapes.items():
        if tensors[name].shape != shape or not np.isfinite(tensors[name]).all():
            raise ValueError(f"{name} has shape {tensors[name].shape} where {shape} is needed, or undefined numbers")
    return Restandardise(
        groups=tuple(str(name) for name in groups["names"]),
        cells=tensors["group_cells"],
        shift=tensors["group_shift"],
        scale=tensors["group_scale"],
        centre=tensors["centre"],
        clusters=tensors["clusters"],
        spread=tensors["spread"],
        prior=float(groups["prior"]),
        taken=float(groups["taken"]),
        chance=float(groups["chance"]),
        shared=tensors["group_shared"],
    )
