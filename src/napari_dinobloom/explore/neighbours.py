"""Exact nearest neighbours: fast float32 products find candidates, float64 distances decide.

The result is that of a full search in float64, ties by row number included: candidates that float32
cannot tell apart safely are searched again in float64. It does not depend on chunks, threads or the
order of the queries.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from napari_dinobloom.progress import Progress, Steps, drain

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Metric = Literal["euclidean", "cosine"]

CHUNK_BYTES = 128 << 20
"""Bound on one block of float32 distances."""

SPARE = 16
"""Candidates beyond k; more make the search in float64 rarer and the selection slower."""


def exact_neighbours(
    query: npt.ArrayLike,
    reference: npt.ArrayLike,
    k: int,
    *,
    metric: Metric = "euclidean",
    exclude_self: bool = False,
    groups: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    device: str = "cpu",
) -> tuple[Int64, Float32]:
    """Find the k nearest reference rows of each query row, exactly.

    Parameters
    ----------
    query : array (m, D)
        Rows to find neighbours for; used as float32.
    reference : array (n, D)
        Rows to search; used as float32.
    k : int
        Neighbours per query, at least 1.
    metric : {"euclidean", "cosine"}, default: "euclidean"
        Cosine is ``1 - cos`` of the angle.
    exclude_self : bool, default: False
        `query` and `reference` are the same table, and a row is no neighbour of itself (its copies are).
    groups : (array (m,), array (n,)), optional
        A group per query and per reference row, of any type that compares; a reference row of the
        query's own group is no neighbour.
    device : str, default: "cpu"
        Where candidates are searched: "cpu", or "cuda" for a GPU. Float64 decides on the CPU, so that the result is
        the same.

    Returns
    -------
    indices : ndarray (m, k) int64
        By distance, then by row number. -1 where fewer than k reference rows may be taken.
    distances : ndarray (m, k) float32
        Rounded from float64; 0 between equal rows. Infinite where the index is -1.

    Raises
    ------
    ValueError
        Arrays that do not fit each other, rows with undefined numbers, all-zero rows with "cosine".
    """
    return drain(
        iter_neighbours(query, reference, k, metric=metric, exclude_self=exclude_self, groups=groups, device=device)
    )


def iter_neighbours(
    query: npt.ArrayLike,
    reference: npt.ArrayLike,
    k: int,
    *,
    metric: Metric = "euclidean",
    exclude_self: bool = False,
    groups: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    device: str = "cpu",
) -> Steps[tuple[Int64, Float32]]:
    """Do what `exact_neighbours` does, chunk by chunk.

    Yields
    ------
    Progress
        In query rows.

    Returns
    -------
    indices : ndarray (m, k) int64
    distances : ndarray (m, k) float32
    """
    table, probe = _rows(reference, "reference", metric), _rows(query, "query", metric)
    if table.shape[1] != probe.shape[1]:
        raise ValueError(f"query has {probe.shape[1]} columns, reference {table.shape[1]}; both need the same.")
    if k < 1:
        raise ValueError(f"k={k}: give at least 1.")
    codes = _codes(len(probe), len(table), exclude_self, groups)
    indices = np.full((len(probe), k), -1, np.int64)
    distances = np.full((len(probe), k), np.inf, np.float32)
    step = max(1, min(1024, CHUNK_BYTES // (4 * max(len(table), 1))))
    yield Progress(0, len(probe), "cells", "neighbours")
    if len(table):
        search = _Search(table, k, metric, device)
        for start in range(0, len(probe), step):
            part = slice(start, min(start + step, len(probe)))
            banned = [] if codes is None else [c[0][part, None] == c[1][None, :] for c in codes]
            indices[part], distances[part] = search.nearest(probe[part], banned)
            yield Progress(part.stop, len(probe), "cells", "neighbours")
    return indices, distances


def pair_distances(x: Float32, indices: Int64, metric: Metric, rows: Int64 | None = None) -> Float32:
    """Compute the distances of given pairs as `exact_neighbours` does.

    Parameters
    ----------
    x : ndarray (n, D) float32
        Rows without undefined numbers.
    indices : ndarray (m, k) int64
        For each of `rows` its partners; -1 for none, at an infinite distance.
    metric : {"euclidean", "cosine"}
        Distance.
    rows : ndarray (m,) int64, optional
        Rows to take; by default all.

    Returns
    -------
    ndarray (m, k) float32
        Rounded from float64.
    """
    squares = np.full(indices.shape, np.inf)
    for start in range(0, len(indices), 1024):
        part = slice(start, start + 1024)
        own = _exact(x[part] if rows is None else x[rows[part]], metric)
        for column in range(indices.shape[1]):
            squares[part, column] = _squares(own, _exact(x[indices[part, column]], metric))
    squares[indices < 0] = np.inf
    return _distance(squares, metric)


class _Search:
    """A reference table prepared for queries."""

    def __init__(self, table: Float32, k: int, metric: Metric, device: str = "cpu") -> None:
        import torch

        self.table, self.k, self.metric, self.device = table, k, metric, device
        # Lowered matrix precision, which other code may have asked torch for, would break the bound below.
        exact = torch.get_float32_matmul_precision() == "highest"
        self.dtype = torch.float32 if exact else torch.float64
        parts = [slice(i, i + 1024) for i in range(0, len(table), 1024)]
        self.centre = np.sum([_exact(table[part], self.metric).sum(0) for part in parts], axis=0) / len(table)
        self.moved = torch.empty(table.shape, dtype=self.dtype, device=device)
        squares = np.empty(len(table))
        for part in parts:  # float64 in parts: the whole table twice as wide may not fit
            moved = _exact(table[part], self.metric) - self.centre
            self.moved[part] = torch.from_numpy(moved).to(self.dtype)
            squares[part] = np.square(moved).sum(1)
        self.squares = torch.from_numpy(squares).to(device, self.dtype)
        self.length = float(np.sqrt(squares.max()))

    def nearest(self, rows: Float32, banned: list[npt.NDArray[np.bool_]]) -> tuple[Int64, Float32]:
        """Search a chunk of queries."""
        import torch

        probe = _exact(rows, self.metric)
        moved = probe - self.centre
        squares = np.square(moved).sum(1)
        where = torch.from_numpy(moved).to(self.device, self.dtype)
        near = torch.addmm(self.squares[None, :], where, self.moved.T, alpha=-2)
        for pairs in banned:
            near[torch.from_numpy(pairs).to(self.device)] = torch.inf
        take = min(self.k + SPARE, len(self.table))
        found = near.topk(take, dim=1, largest=False, sorted=False)
        candidates, values = found.indices.cpu().numpy(), found.values.cpu().numpy()
        cut = values.max(1).astype(np.float64) + squares
        allowed = np.isfinite(values)
        order, winners, d2 = self._decide(probe, candidates, allowed)
        if take < len(self.table):
            kth = d2[np.arange(len(probe)), order[:, min(self.k, take) - 1]]
            doubtful = kth >= cut - self._bound(np.sqrt(squares))
            for row in np.flatnonzero(doubtful & np.isfinite(cut)):
                winners[0][row], winners[1][row] = self._full(probe[row], [pairs[row] for pairs in banned])
        return winners

    def _bound(self, lengths: Float64) -> Float64:
        """Bound the error of a float32 squared distance (Higham 2002, 3.5: a dot product of D terms)."""
        unit = 2.0**-24
        dim = self.table.shape[1]
        bound: Float64 = 2 * (dim + 8) * unit * np.square(lengths + self.length)
        return bound

    def _decide(
        self, probe: Float64, candidates: Int64, allowed: npt.NDArray[np.bool_]
    ) -> tuple[Int64, tuple[Int64, Float32], Float64]:
        """Order candidates by float64 distance, then row number; give the order, the k winners and squares."""
        d2 = np.empty(candidates.shape)
        for column in range(candidates.shape[1]):
            d2[:, column] = _squares(probe, _exact(self.table[candidates[:, column]], self.metric))
        d2[~allowed] = np.inf
        order = np.lexsort((candidates, d2), axis=1)
        best = order[:, : self.k]
        near = np.take_along_axis(d2, best, 1)
        rows = np.where(np.isfinite(near), np.take_along_axis(candidates, best, 1), -1)
        indices = np.full((len(probe), self.k), -1, np.int64)
        distances = np.full((len(probe), self.k), np.inf, np.float32)
        indices[:, : best.shape[1]] = rows
        distances[:, : best.shape[1]] = _distance(near, self.metric)
        return order, (indices, distances), d2

    def _full(self, row: Float64, banned: list[npt.NDArray[np.bool_]]) -> tuple[Int64, Float32]:
        """Search the whole table for one query in float64."""
        d2 = np.concatenate(
            [
                _squares(row[None, :], _exact(self.table[i : i + 1024], self.metric))
                for i in range(0, len(self.table), 1024)
            ]
        )
        for own in banned:
            d2[own] = np.inf
        best = np.lexsort((np.arange(len(d2)), d2))[: self.k]
        return np.where(np.isfinite(d2[best]), best, -1), _distance(d2[best], self.metric)


def _exact(rows: Float32, metric: Metric) -> Float64:
    """Give rows in float64, of unit length for the cosine."""
    wide = rows.astype(np.float64)
    return wide / np.sqrt(np.square(wide).sum(1, keepdims=True)) if metric == "cosine" else wide


def _distance(squares: Float64, metric: Metric) -> Float32:
    """Turn squared differences into the metric; of unit vectors, half the square is 1 - cos."""
    values = squares / 2 if metric == "cosine" else np.sqrt(squares)
    return values.astype(np.float32)


def _squares(one: Float64, other: Float64) -> Float64:
    """Squared differences row by row, summed along each row alone, so that chunks do not matter."""
    summed: Float64 = np.square(one - other).sum(1)
    return summed


def _rows(values: npt.ArrayLike, name: str, metric: Metric) -> Float32:
    """Read a table as float32 and check it."""
    table = np.ascontiguousarray(values, np.float32)
    if table.ndim != 2:
        raise ValueError(f"{name} must be a table (rows, columns); got shape {table.shape}.")
    bad = np.flatnonzero(~np.isfinite(table).all(1))
    if len(bad):
        raise ValueError(f"{name} row {bad[0]} holds infinite or undefined numbers ({len(bad)} such rows).")
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f"metric={metric!r} is unknown. Give 'euclidean' or 'cosine'.")
    zero = np.flatnonzero(~table.any(1))
    if metric == "cosine" and len(zero):
        raise ValueError(f"{name} row {zero[0]} is all zeros and has no direction; use metric='euclidean'.")
    return table


def _codes(
    queries: int, references: int, exclude_self: bool, groups: tuple[npt.ArrayLike, npt.ArrayLike] | None
) -> list[tuple[Int64, Int64]] | None:
    """Give pairs of integer codes; equal codes are no neighbours."""
    codes: list[tuple[Int64, Int64]] = []
    if exclude_self:
        if queries != references:
            raise ValueError(f"exclude_self needs one table; query has {queries} rows, reference {references}.")
        own = np.arange(queries)
        codes.append((own, own))
    if groups is not None:
        one, other = np.asarray(groups[0]), np.asarray(groups[1])
        if one.shape != (queries,) or other.shape != (references,):
            raise ValueError(f"groups have shapes {one.shape}, {other.shape}; needed ({queries},), ({references},).")
        joint = np.unique(np.concatenate([one, other]), return_inverse=True)[1].astype(np.int64)
        codes.append((joint[:queries], joint[queries:]))
    return codes or None
