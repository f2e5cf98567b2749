"""Exact nearest neighbours: fast float32 products find candidates, float64 distances decide.

The result is that of a full search in float64, ties by row number included: where float32 cannot tell candidates
apart safely, all rows that could be meant are compared in float64. It does not depend on chunks, threads or the
order of the queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from napari_dinobloom.progress import Progress, Steps, drain

if TYPE_CHECKING:
    from torch import Tensor

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Metric = Literal["euclidean", "cosine"]

CHUNK_BYTES = 256 << 20
"""Bound on one block of float32 distances."""

SPARE = 8
"""Candidates beyond k; more make a second look rarer and the selection slower."""

TOGETHER = 1 << 18
"""Numbers of float64 that are compared at once, so that they stay in the processor's cache."""


def exact_neighbours(
    query: npt.ArrayLike,
    reference: npt.ArrayLike,
    k: int,
    *,
    metric: Metric = "euclidean",
    exclude_self: bool = False,
    groups: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    device: str | Sequence[str] = "cpu",
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
    device : str or sequence of str, default: "cpu"
        Where candidates are searched: "cpu", "cuda" for a GPU, or several, ``("cuda:0", "cuda:1")``, that share the
        queries and each hold the reference. Float64 decides on the CPU, so that the result is the same.

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
    device: str | Sequence[str] = "cpu",
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
    search = Search(reference, metric, device=device)
    return (yield from search.iter_nearest(query, k, exclude_self=exclude_self, groups=groups))


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


class Search:
    """A reference table, prepared once for many queries.

    Parameters
    ----------
    reference : array (n, D)
        Rows to search; used as float32, not copied where they are.
    metric : {"euclidean", "cosine"}
        Distance.
    device : str or sequence of str
        Where candidates are searched; several devices share the queries.

    Raises
    ------
    ValueError
        Rows with undefined numbers, all-zero rows with "cosine".
    """

    def __init__(
        self, reference: npt.ArrayLike, metric: Metric = "euclidean", *, device: str | Sequence[str] = "cpu"
    ) -> None:
        import torch

        self.table, self.metric = _rows(reference, "reference", metric), metric
        self.devices = (device,) if isinstance(device, str) else tuple(device)
        self.moved = [torch.empty(self.table.shape, dtype=torch.float32, device=one) for one in self.devices]
        self.squares = [torch.empty(len(self.table), dtype=torch.float32, device=one) for one in self.devices]
        self.centre = np.zeros(self.table.shape[1], np.float32)
        if not len(self.table):
            return
        # Rounding this centre to float32 costs nothing: what counts is that rows and queries are moved by the same.
        parts = [slice(start, start + 8192) for start in range(0, len(self.table), 8192)]
        sums = [torch.from_numpy(self._part(part)).sum(0) for part in parts]
        centre = (torch.stack(sums).sum(0) / len(self.table)).float()
        self.centre = centre.numpy()
        for part in parts:
            rows = (torch.from_numpy(self._part(part)) - centre).float()  # one rounding
            for moved, squares in zip(self.moved, self.squares, strict=True):
                moved[part], squares[part] = rows, rows.square().sum(1)
        self.length = float(self.squares[0].max().sqrt())

    def _part(self, part: slice) -> Float32 | Float64:
        """Some rows; for the cosine of unit length, in float64."""
        return self.table[part] if self.metric == "euclidean" else _exact(self.table[part], self.metric)

    def iter_nearest(
        self,
        query: npt.ArrayLike,
        k: int,
        *,
        exclude_self: bool = False,
        groups: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    ) -> Steps[tuple[Int64, Float32]]:
        """Do what `iter_neighbours` does."""
        probe = self._queries(query, k)
        codes = _codes(len(probe), len(self.table), exclude_self, groups)
        indices = np.full((len(probe), k), -1, np.int64)
        distances = np.full((len(probe), k), np.inf, np.float32)
        done = 0
        yield Progress(0, len(probe), "cells", "neighbours")
        for near, far, part in self._chunks(probe, k, codes):
            indices[part], distances[part] = near, far
            done += part.stop - part.start
            yield Progress(done, len(probe), "cells", "neighbours")
        return indices, distances

    def chunks(self, query: npt.ArrayLike, k: int) -> Iterator[tuple[Int64, Float32, slice]]:
        """Neighbours of some queries after the other, so that not those of all are held: indices, distances, which."""
        yield from self._chunks(self._queries(query, k), k, None)

    def _queries(self, query: npt.ArrayLike, k: int) -> Float32:
        """Check what is asked."""
        probe = _rows(query, "query", self.metric)
        if self.table.shape[1] != probe.shape[1]:
            columns = f"query has {probe.shape[1]} columns, reference {self.table.shape[1]}"
            raise ValueError(f"{columns}; both need the same.")
        if k < 1:
            raise ValueError(f"k={k}: give at least 1.")
        return probe

    def _chunks(
        self, probe: Float32, k: int, codes: list[tuple[Int64, Int64]] | None
    ) -> Iterator[tuple[Int64, Float32, slice]]:
        """Search chunk by chunk, several devices side by side; as they are done, one device in order."""
        if not len(self.table):
            return
        most = max(1, min(1024, CHUNK_BYTES // (4 * len(self.table))))
        step = -(-len(probe) // max(1, -(-len(probe) // most))) or 1  # chunks of about one size
        parts = [slice(start, min(start + step, len(probe))) for start in range(0, len(probe), step)]

        def search(part: slice, number: int, room: Tensor) -> tuple[Int64, Float32, slice]:
            banned = [] if codes is None else [c[0][part, None] == c[1][None, :] for c in codes]
            return *self._nearest(probe[part], k, banned, room, number), part

        rooms = [self._room(min(step, len(probe)), one) for one in self.devices[: max(1, len(parts))]]
        if len(rooms) == 1:
            yield from (search(part, 0, rooms[0]) for part in parts)
            return
        with ThreadPoolExecutor(len(rooms)) as pool:
            for first in range(0, len(parts), len(rooms)):
                some = enumerate(parts[first : first + len(rooms)])
                for job in [pool.submit(search, part, number, rooms[number]) for number, part in some]:
                    yield job.result()

    def _room(self, queries: int, device: str) -> Tensor:
        """Where products of a chunk of queries with all rows are written; used again for each, as new memory costs."""
        import torch

        # Lowered matrix precision, which other code may have asked torch for, would break the bound of the error.
        dtype = torch.float32 if torch.get_float32_matmul_precision() == "highest" else torch.float64
        return torch.empty((queries, len(self.table)), dtype=dtype, device=device)

    def _nearest(
        self, rows: Float32, k: int, banned: list[npt.NDArray[np.bool_]], room: Tensor, number: int
    ) -> tuple[Int64, Float32]:
        """Search a chunk of queries on one of the devices."""
        import torch

        probe = _exact(rows, self.metric)
        moved = (probe - self.centre).astype(np.float32)
        squares = np.square(moved.astype(np.float64)).sum(1)
        where = torch.from_numpy(moved).to(room.device)
        near, dtype = room[: len(rows)], room.dtype
        lengths, table = self.squares[number][None, :].to(dtype), self.moved[number].to(dtype)
        torch.addmm(lengths, where.to(dtype), table.T, alpha=-2, out=near)
        for pairs in banned:
            near[torch.from_numpy(pairs).to(room.device)] = torch.inf
        take = min(k + SPARE, len(self.table))
        found = near.topk(take, dim=1, largest=False, sorted=False)
        candidates, values = found.indices.cpu().numpy(), found.values.cpu().numpy()
        d2 = self._compared(probe, candidates)
        d2[~np.isfinite(values)] = np.inf
        indices, distances, kth = self._winners(candidates, d2, k)
        cut = values.max(1).astype(np.float64) + squares
        bound = self._bound(np.sqrt(squares))
        doubtful = (kth >= cut - bound) & np.isfinite(cut) & (take < len(self.table))
        for row in np.flatnonzero(doubtful):  # whatever float32 cannot exclude
            close = near[row] <= np.nextafter(np.float32(kth[row] - squares[row] + bound[row]), np.float32(np.inf))
            again = torch.nonzero(close)[:, 0].cpu().numpy()[None, :]
            d2 = self._compared(probe[row : row + 1], again)
            indices[row], distances[row], _ = (part[0] for part in self._winners(again, d2, k))
        return indices, distances

    def _bound(self, lengths: Float64) -> Float64:
        """Bound the error of a float32 squared distance (Higham 2002, 3.5: a dot product of D terms)."""
        unit = 2.0**-24
        dim = self.table.shape[1]
        bound: Float64 = 2 * (dim + 8) * unit * np.square(lengths + self.length)
        return bound

    def _compared(self, probe: Float64, candidates: Int64) -> Float64:
        """Squared distances in float64 of queries from their candidates, (m, candidates)."""
        import torch

        d2 = np.empty(candidates.shape)
        width = max(1, TOGETHER // max(1, self.table.shape[1]))
        step = max(1, width // max(1, candidates.shape[1]))

        def compare(start: int) -> None:
            part = slice(start, start + step)
            for first in range(0, candidates.shape[1], width):
                some = candidates[part, first : first + width]
                rows = _exact(self.table[some.ravel()], self.metric).reshape(*some.shape, -1)
                np.subtract(probe[part, None, :], rows, out=rows)
                d2[part, first : first + width] = np.square(rows, out=rows).sum(2)

        starts = range(0, len(probe), step)
        if len(starts) < 2:
            compare(0)
            return d2
        with ThreadPoolExecutor(min(len(starts), torch.get_num_threads())) as pool:  # numpy lets others compute
            list(pool.map(compare, starts))
        return d2

    def _winners(self, candidates: Int64, d2: Float64, k: int) -> tuple[Int64, Float32, Float64]:
        """The k nearest candidates by distance, then row number; their distances; and the square of the last."""
        best = np.lexsort((candidates, d2), axis=1)[:, :k]
        near = np.take_along_axis(d2, best, 1)
        indices = np.full((len(d2), k), -1, np.int64)
        distances = np.full((len(d2), k), np.inf, np.float32)
        indices[:, : best.shape[1]] = np.where(np.isfinite(near), np.take_along_axis(candidates, best, 1), -1)
        distances[:, : best.shape[1]] = _distance(near, self.metric)
        return indices, distances, near[:, -1]


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
