"""The neighbour graph under a map: exact, or by seeded NN-descent with its recall measured.

NN-descent: Dong, Moses and Li 2011, doi:10.1145/1963405.1963487, as pynndescent computes it and with umap-learn's
settings. Recall is measured in float64; the distances of the graph are those in float32, as umap-learn has them. It
runs on one thread: with several its result depends on how many there are.
"""

from __future__ import annotations

import hashlib
import json
import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from napari_dinobloom.explore import apart
from napari_dinobloom.explore.neighbours import Metric, iter_neighbours, pair_distances
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Search = Literal["exact", "nn-descent"]

VERSION = 1
"""Raised when the same embeddings would give another graph."""

EXACT = 20_000
"""Cells up to which the search is exact without a GPU."""

SEED = 42
"""Of NN-descent and of the rows that recall is measured on; not that of the layout, so that layouts share a graph."""

CHECKED = 500
"""Cells whose neighbours are searched exactly too, to measure recall."""

LOW = 0.9
"""Recall below which the user is warned."""

NUMBA = threading.Lock()
"""Held while numba computes: its workqueue layer ends the process when two threads use it at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Neighbours of each cell, itself left out.

    Attributes
    ----------
    indices : (n, k) array of int64
        By distance, then by row number.
    distances : (n, k) array of float32
        Rounded from float64 where the search was exact.
    search : {"exact", "nn-descent"}
        How they were found.
    recall : float
        Share of the true k neighbours that were found, measured on `checked` cells; 1 for an exact search.
    checked : int
        Cells that recall was measured on; all for an exact search.
    """

    indices: Int64
    distances: Float32
    search: Search
    recall: float
    checked: int


def best_device() -> str:
    """Return where exact searches run: "cuda" where there is a GPU, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def best_devices() -> list[str]:
    """Return where exact searches run, side by side: all GPUs, else the processor."""
    if best_device() == "cpu":
        return ["cpu"]
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def choose_search(count: int, asked: Literal["auto", "exact", "nn-descent"] = "auto") -> Search:
    """Decide how to search: exactly up to 20,000 cells or on a GPU, else by NN-descent."""
    if asked != "auto":
        return asked
    return "exact" if count <= EXACT or best_device() == "cuda" else "nn-descent"


def iter_graph(x: Float32, size: int, metric: Metric, search: Search) -> Steps[Graph]:
    """Find the neighbours of all cells.

    Parameters
    ----------
    x : ndarray (n, D) float32
        More than `size` cells.
    size : int
        Neighbours of a cell, itself not counted.
    metric : {"euclidean", "cosine"}
        Distance.
    search : {"exact", "nn-descent"}
        How; see `choose_search`.

    Yields
    ------
    Progress
        In cells; in the main thread NN-descent cannot be interrupted.

    Returns
    -------
    Graph

    Warns
    -----
    UserWarning
        If NN-descent missed more than a tenth of the neighbours.
    """
    if search == "exact":
        found = yield from iter_neighbours(x, x, size, metric=metric, exclude_self=True, device=best_devices())
        return Graph(*found, search, 1.0, len(x))
    begun = Progress(0, len(x), "approximate neighbours", "neighbours")
    yield begun
    if apart.wanted(len(x)):
        around = (yield from apart.iter_apart("neighbours", {"x": x}, begun, size=size + 1, metric=metric))["indices"]
    else:
        around = descend(x, size + 1, metric)
    indices = without_self(around, size)
    distances = _distances(x, indices, metric)
    order = np.lexsort((indices, distances), axis=1)
    indices, distances = np.take_along_axis(indices, order, 1), np.take_along_axis(distances, order, 1)
    rows = np.sort(np.random.default_rng(SEED).choice(len(x), min(CHECKED, len(x)), replace=False))
    own = (rows, np.arange(len(x)))
    _, exact = yield from iter_neighbours(x[rows], x, size, metric=metric, groups=own, device=best_device())
    recall = float((pair_distances(x, indices[rows], metric, rows) <= exact[:, -1:]).mean())
    if recall < LOW:
        warnings.warn(
            f"NN-descent found {100 * recall:.1f} % of the nearest neighbours of {len(rows)} cells; the map rests on "
            "wrong neighbours in part. Search exactly (search='exact'), or fit fewer cells (subset).",
            stacklevel=2,
        )
    yield Progress(len(x), len(x), "approximate neighbours", "neighbours")
    return Graph(indices, distances, search, recall, len(rows))


def descend(x: Float32, size: int, metric: Metric) -> Int64:
    """Run NN-descent with umap-learn's settings; give rows (n, size), -1 where nothing was found."""
    with NUMBA:
        from pynndescent import NNDescent  # type: ignore[import-untyped]

        index = NNDescent(
            x,
            n_neighbors=size,
            metric=metric,
            random_state=np.random.RandomState(SEED),
            n_trees=min(64, 5 + round(len(x) ** 0.5 / 20)),
            n_iters=max(5, round(np.log2(len(x)))),
            max_candidates=60,
            low_memory=True,
            n_jobs=1,
            compressed=False,
        )
        return np.asarray(index.neighbor_graph[0], np.int64)


def _distances(x: Float32, indices: Int64, metric: Metric) -> Float32:
    """Distances of each row to its neighbours; Euclidean ones in float32, which is much faster and enough for a map."""
    if metric != "euclidean":
        return pair_distances(x, indices, metric)
    found = np.empty(indices.shape, np.float32)
    for start in range(0, len(x), 2048):
        part = slice(start, start + 2048)
        for column in range(indices.shape[1]):
            gap = x[part] - x[indices[part, column]]
            found[part, column] = np.sqrt(np.vecdot(gap, gap))
    found[indices < 0] = np.inf
    return found


def without_self(indices: Int64, size: int) -> Int64:
    """Leave each cell out of its own neighbours; where it is not among them (copies), the last one goes."""
    own = indices == np.arange(len(indices))[:, None]
    order = np.argsort(own, axis=1, kind="stable")
    return np.take_along_axis(indices, order, 1)[:, :size]


def graph_key(x: Float32, size: int, metric: str, search: str) -> str:
    """Return what identifies a graph, sha256 in hexadecimal: embeddings, size, distance and search."""
    digest = hashlib.sha256(json.dumps([list(x.shape), size, metric, search, SEED, VERSION]).encode())
    digest.update(np.ascontiguousarray(x, "<f4").data)
    return digest.hexdigest()


def stored_graph(adata: AnnData, rows: Int64, size: int, key: str) -> Graph | None:
    """Take the graph of an earlier map out of the table, if it is the one that `key` means."""
    notes = dict(dict(adata.uns.get("dinobloom", {})).get("projection", {}))
    if notes.get("graph") != key or "distances" not in adata.obsp:
        return None
    part = adata.obsp["distances"].tocsr()[rows]
    place = np.full(adata.n_obs, -1, np.int64)
    place[rows] = np.arange(len(rows))
    if not (np.diff(part.indptr) == size).all() or (place[part.indices] < 0).any():
        return None  # another program changed it
    indices = place[part.indices].reshape(-1, size)
    distances = part.data.astype(np.float32).reshape(-1, size)
    order = np.lexsort((indices, distances), axis=1)
    indices, distances = np.take_along_axis(indices, order, 1), np.take_along_axis(distances, order, 1)
    return Graph(indices, distances, notes["search"], float(notes["recall"]), int(notes["recall_cells"]))


def write_graph(adata: AnnData, rows: Int64, graph: Graph | None, strengths: csr_matrix | None, metric: str) -> None:
    """Put a graph where scanpy looks for it: ``obsp["distances"]``, ``obsp["connectivities"]``, ``uns["neighbors"]``.

    Parameters
    ----------
    adata : AnnData
        The table.
    rows : ndarray (n,) int64
        Its rows that the graph connects; others get no edges.
    graph : Graph or None
        None takes an earlier graph away.
    strengths : csr_matrix (n, n) or None
        Fuzzy memberships of umap-learn.
    metric : str
        Distance.
    """
    from scipy.sparse import csr_matrix

    for name in ("distances", "connectivities"):
        adata.obsp.pop(name, None)
    adata.uns.pop("neighbors", None)
    if graph is None or strengths is None:
        return
    size = graph.indices.shape[1]
    ends = np.zeros(adata.n_obs + 1, np.int64)
    ends[rows + 1] = size
    values = (graph.distances.ravel().astype(np.float64), rows[graph.indices.ravel()], np.cumsum(ends))
    adata.obsp["distances"] = csr_matrix(values, (adata.n_obs, adata.n_obs))  # zeros between copies are kept
    edges = strengths.tocoo()
    adata.obsp["connectivities"] = csr_matrix((edges.data, (rows[edges.row], rows[edges.col])), (adata.n_obs,) * 2)
    adata.uns["neighbors"] = {
        "connectivities_key": "connectivities",
        "distances_key": "distances",
        "params": {"n_neighbors": size + 1, "method": "umap", "metric": metric, "random_state": SEED},
    }
