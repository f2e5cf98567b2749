"""The map of all cells: UMAP of the embeddings over exact neighbours, written into the cell table.

The graph is stored where scanpy looks for it, so that its clusterings run on the table as it is. What
was fitted and how is stored with a hash, by which gates know the map they were drawn on.
"""

from __future__ import annotations

import hashlib
import json
import threading
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_dinobloom.explore.neighbours import iter_neighbours
from napari_dinobloom.progress import Progress, Steps, drain

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

Float32 = npt.NDArray[np.float32]

VERSION = 1
"""Raised when the same embeddings and parameters would give other coordinates."""

FEWEST = 12
"""With fewer cells a neighbour graph says nothing; the map is then a PCA."""

BLOCK = 1 << 14
"""Cells at a time in float64."""

NUMBA = threading.Lock()
"""Held while numba computes: its workqueue layer ends the process when two threads use it at once."""


def umap(
    adata: AnnData, *, n_neighbors: int = 15, min_dist: float = 0.1, metric: str = "euclidean", seed: int = 42
) -> None:
    """Compute the map of all cells and write it into the table.

    Cells that are deleted, or whose embedding is undefined, get undefined coordinates and no
    neighbours. Bit-identical when repeated on one machine.

    Parameters
    ----------
    adata : AnnData
        ``X`` (n, D) holds the embeddings. Written: ``obsm["X_umap"]`` (n, 2) float32;
        ``obsp["distances"]``, ``obsp["connectivities"]`` and ``uns["neighbors"]`` as scanpy has them;
        ``uns["dinobloom"]["projection"]`` with kind, parameters, seed, number of cells and hash.
    n_neighbors : int, default: 15
        Size of a neighbourhood, the cell itself counted, as in umap-learn; reduced to the number of cells.
    min_dist : float, default: 0.1
        Least distance on the map, 0 to 1.
    metric : {"euclidean", "cosine"}, default: "euclidean"
        Distance between embeddings.
    seed : int, default: 42
        Of the layout.

    Raises
    ------
    ValueError
        A parameter out of its range.

    Notes
    -----
    McInnes, Healy and Melville 2018, arXiv 1802.03426, as umap-learn computes it, with its defaults
    and over exact neighbours. Fewer than 12 cells are placed by their first two principal components,
    and no graph is stored.
    """
    drain(iter_umap(adata, n_neighbors=n_neighbors, min_dist=min_dist, metric=metric, seed=seed))


def iter_umap(
    adata: AnnData, *, n_neighbors: int = 15, min_dist: float = 0.1, metric: str = "euclidean", seed: int = 42
) -> Steps[None]:
    """Do what `umap` does, with progress in cells; the table changes only at the end.

    Yields
    ------
    Progress
        Neighbours first; the layout, which cannot be interrupted, counts as the last cell.
    """
    params = _params(n_neighbors, min_dist, metric, seed)
    rows = fitted_rows(adata)
    x = np.ascontiguousarray(_embeddings(adata)[rows])
    count = len(x)
    if count < FEWEST:
        layout, graph = _principal(x), None
    else:
        size = min(n_neighbors, count - 1)
        indices, distances = yield from _neighbours(x, size, params["metric"])
        yield Progress(count - 1, count, f"layout of {count} cells", "map")
        layout, strengths = _layout(x, indices, distances, min_dist, params["metric"], seed)
        graph = (_sparse(indices, distances), strengths)
    _write(adata, rows, layout, graph, params)
    params["kind"] = "pca" if graph is None else "umap"
    params["hash"] = projection_hash(x, adata.obs_names[rows], params)
    params["n"] = count
    notes = dict(adata.uns.get("dinobloom", {}))
    notes["projection"] = params
    adata.uns["dinobloom"] = notes
    yield Progress(count, count, "map", "map")


def fitted_rows(adata: AnnData) -> npt.NDArray[np.int64]:
    """Give the rows of the table that a map is fitted to: not deleted, embedding defined."""
    keep = np.isfinite(_embeddings(adata)).all(1)
    if "deleted" in adata.obs:
        keep &= ~adata.obs["deleted"].to_numpy(bool)
    return np.flatnonzero(keep)


def projection_hash(x: Float32, cell_ids: Sequence[str], params: dict[str, Any]) -> str:
    """Compute what identifies a map: what was fitted, and how.

    Parameters
    ----------
    x : ndarray (n, D) float32
        Embeddings of the fitted cells.
    cell_ids : sequence of str
        Their names, in order.
    params : dict
        Kind, parameters, seed and version.

    Returns
    -------
    str
        Hexadecimal SHA-256; its first 8 characters name a map in file and key names.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps([list(x.shape), params], sort_keys=True).encode())
    digest.update(json.dumps(list(cell_ids)).encode())
    digest.update(np.ascontiguousarray(x, "<f4").tobytes())
    return digest.hexdigest()


def _params(n_neighbors: int, min_dist: float, metric: str, seed: int) -> dict[str, Any]:
    """Check the parameters and give them as they are stored."""
    if n_neighbors < 2:
        raise ValueError(f"n_neighbors={n_neighbors}: give at least 2.")
    if not 0 <= min_dist <= 1:
        raise ValueError(f"min_dist={min_dist}: give a number in 0..1.")
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f"metric={metric!r} is unknown. Give 'euclidean' or 'cosine'.")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed}: give a number in 0..4294967295.")
    return {
        "n_neighbors": int(n_neighbors),
        "min_dist": float(min_dist),
        "metric": metric,
        "seed": int(seed),
        "version": VERSION,
    }


def _embeddings(adata: AnnData) -> Float32:
    x = adata.X
    if x is None:
        raise ValueError("The table has no embeddings in X; embed the cells first.")
    return np.asarray(x.toarray() if hasattr(x, "toarray") else x, np.float32)


def _principal(x: Float32) -> Float32:
    """Place cells by their first two principal components; the largest loading of each is positive."""
    from napari_dinobloom.encoders.principal import principal_axes

    if not len(x):
        return np.zeros((0, 2), np.float32)
    blocks = (x[start : start + BLOCK].astype(np.float64) for start in range(0, len(x), BLOCK))
    mean, axes, _ = principal_axes(blocks, 2)
    return np.asarray((x.astype(np.float64) - mean) @ axes.T, np.float32)


def _neighbours(x: Float32, size: int, metric: Any) -> Steps[tuple[npt.NDArray[np.int64], Float32]]:
    """Find `size` neighbours of each cell, itself first, as umap-learn wants them."""
    own = np.arange(len(x))[:, None]
    indices, distances = yield from iter_neighbours(x, x, size - 1, metric=metric, exclude_self=True)
    return np.hstack([own, indices]), np.hstack([np.zeros((len(x), 1), np.float32), distances])


def _layout(
    x: Float32, indices: npt.NDArray[np.int64], distances: Float32, min_dist: float, metric: str, seed: int
) -> tuple[Float32, csr_matrix]:
    """Run umap-learn over given neighbours; give coordinates and the graph of fuzzy memberships."""
    with NUMBA, warnings.catch_warnings():
        # It warns that it has no search index to transform with, and that a seed costs parallelism.
        warnings.filterwarnings("ignore", module=r"umap\..*")
        from umap import UMAP

        fit = UMAP(
            n_neighbors=indices.shape[1],
            min_dist=min_dist,
            metric=metric,
            random_state=seed,
            n_jobs=1,
            precomputed_knn=(indices, distances),
        ).fit(x)
    return np.asarray(fit.embedding_, np.float32), fit.graph_.tocsr()


def _sparse(indices: npt.NDArray[np.int64], distances: Float32) -> csr_matrix:
    """Neighbour distances as scanpy stores them: without the cell itself, zeros between copies kept."""
    from scipy.sparse import csr_matrix

    count, size = len(indices), indices.shape[1] - 1
    ends = np.arange(0, count * size + 1, size)
    return csr_matrix((distances[:, 1:].ravel().astype(np.float64), indices[:, 1:].ravel(), ends), (count, count))


def _write(
    adata: AnnData,
    rows: npt.NDArray[np.int64],
    layout: Float32,
    graph: tuple[csr_matrix, csr_matrix] | None,
    params: dict[str, Any],
) -> None:
    """Put coordinates and graph into the table; cells left out get undefined coordinates and no edges."""
    from scipy.sparse import csr_matrix

    placed = np.full((adata.n_obs, 2), np.nan, np.float32)
    placed[rows] = layout
    adata.obsm["X_umap"] = placed
    for key, matrix in zip(("distances", "connectivities"), graph or (None, None), strict=True):
        adata.obsp.pop(key, None)
        if matrix is not None:
            edges = matrix.tocoo()
            adata.obsp[key] = csr_matrix((edges.data, (rows[edges.row], rows[edges.col])), (adata.n_obs, adata.n_obs))
    adata.uns.pop("neighbors", None)
    if graph is not None:
        adata.uns["neighbors"] = {
            "connectivities_key": "connectivities",
            "distances_key": "distances",
            "params": {
                "n_neighbors": params["n_neighbors"],
                "method": "umap",
                "metric": params["metric"],
                "random_state": params["seed"],
            },
        }
