"""The map of all cells: UMAP, PCA or given coordinates, written into the cell table; and cells placed on a map.

The graph is stored where scanpy looks for it, so that its clusterings run on the table as it is. What was fitted and
how is stored with a hash, by which gates know the map they were drawn on.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from napari_dinobloom.explore import apart
from napari_dinobloom.explore.graph import NUMBA, Graph, choose_search, graph_key, iter_graph, stored_graph, write_graph
from napari_dinobloom.explore.neighbours import Metric
from napari_dinobloom.explore.projection import (
    BLOCK,
    VERSION,
    Kind,
    Projection,
    ProjectionError,
    along,
    finite_rows,
    moved,
)
from napari_dinobloom.explore.restandardise import fit_many
from napari_dinobloom.explore.subset import chosen_size, iter_subset
from napari_dinobloom.io.vectors import AT_ONCE, Vectors, rows_in
from napari_dinobloom.progress import Progress, Steps, drain

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

FEWEST = 12
"""With fewer cells a neighbour graph says nothing; the map is then a PCA."""

PROGRAMS = ("umap-learn", "pynndescent", "numba", "numpy", "scipy")
"""Whose versions are stored with a map."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MapSettings:
    """How a map is made."""

    method: Literal["umap", "pca"] = "umap"
    """``pca``: the first two principal components."""
    n_neighbors: int = 15
    """Size of a neighbourhood, the cell itself counted, as in umap-learn; reduced to the number of cells."""
    min_dist: float = 0.1
    """Least distance on the map, 0 to 1."""
    metric: Metric = "euclidean"
    """Distance between embeddings, ``euclidean`` or ``cosine``."""
    seed: int = 42
    """Of the layout and of the subset."""
    search: Literal["auto", "exact", "nn-descent"] = "auto"
    """How neighbours are found; ``auto``: exactly up to 20,000 cells or on a GPU, else by NN-descent."""
    subset: int | None = None
    """Cells that are fitted, the others being placed; None: all up to 200,000, else 50,000."""
    restandardise: str | None = None
    """Column of ``obs`` whose groups are re-standardised, ``slide`` for example."""

    def __post_init__(self) -> None:
        allowed = {
            "method": ("umap", "pca"),
            "metric": ("euclidean", "cosine"),
            "search": ("auto", "exact", "nn-descent"),
        }
        for name, choices in allowed.items():
            if getattr(self, name) not in choices:
                given = getattr(self, name)
                raise ValueError(f"{name}={given!r} is unknown. Give {' or '.join(map(repr, choices))}.")
        if self.n_neighbors < 2:
            raise ValueError(f"n_neighbors={self.n_neighbors}: give at least 2.")
        if not 0 <= self.min_dist <= 1:
            raise ValueError(f"min_dist={self.min_dist}: give a number in 0..1.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed={self.seed}: give a number in 0..4294967295.")
        if self.subset is not None and self.subset < FEWEST:
            raise ValueError(f"subset={self.subset}: give at least {FEWEST} cells.")


def umap(adata: AnnData, *, coordinates: npt.ArrayLike | None = None, **settings: Any) -> Projection:
    """Compute the map of all cells and write it into the table.

    Cells that are deleted, or whose embedding is undefined, get undefined coordinates and no neighbours. Bit-identical
    when repeated on one machine.

    Parameters
    ----------
    adata : AnnData
        ``X`` (n, D) holds the embeddings. Written: ``obsm["X_umap"]`` (n, 2) float32; for UMAP
        ``obsp["distances"]``, ``obsp["connectivities"]`` and ``uns["neighbors"]`` as scanpy has them;
        ``uns["dinobloom"]["projection"]`` with kind, parameters, seed, number of fitted cells, recall of the
        neighbours, versions and hash.
    coordinates : array (n, 2) of float, optional
        Coordinates of your own (a t-SNE, another program's UMAP) instead of a layout; cells whose coordinates are
        undefined are placed among the others.
    **settings
        Fields of `MapSettings`: ``method``, ``n_neighbors``, ``min_dist``, ``metric``, ``seed``, ``search``,
        ``subset``, ``restandardise``.

    Returns
    -------
    Projection
        The map; `place` puts other cells on it, `Projection.save` keeps it.

    Raises
    ------
    ValueError
        A setting out of its range, a column that is missing, or coordinates of another shape.

    Notes
    -----
    McInnes, Healy and Melville 2018, arXiv 1802.03426, as umap-learn computes it, with its defaults. Where a table
    holds the graph of the same embeddings already, it is taken: another `min_dist` or `seed` costs no search. Fewer
    than 12 cells are placed by their first two principal components, and no graph is stored.
    """
    return drain(iter_umap(adata, coordinates=coordinates, **settings))


def iter_umap(adata: AnnData, *, coordinates: npt.ArrayLike | None = None, **settings: Any) -> Steps[Projection]:
    """Do what `umap` does, with progress in cells; the table changes only at the end.

    Yields
    ------
    Progress
        Neighbours first; the layout, which in the main thread cannot be interrupted, counts as the last cell.
    """
    asked = MapSettings(**settings)
    given = None if coordinates is None else _given(coordinates, adata.n_obs)
    rows, table = fitted_rows(adata), _embeddings(adata)
    x = table if len(rows) == len(table) else rows_in(table, rows)
    standards = None
    if asked.restandardise and len(x):
        groups = _groups(adata, asked.restandardise)[rows]
        standards = fit_many(x, groups, AT_ONCE)
        x = moved(standards, x, groups)
    if given is not None:
        chosen = finite_rows(given[rows])
    else:
        chosen = yield from iter_subset(x, chosen_size(len(x), asked.subset), asked.seed)
    part = np.asarray(x) if len(chosen) == len(x) else np.ascontiguousarray(x[chosen])
    names = adata.obs_names.to_numpy()[rows[chosen]]
    fit = _Fit(adata, rows[chosen], part, asked)
    fitted = yield from fit.steps(None if given is None else given[rows[chosen]])
    about = fit.about | _encoder(adata)
    projection = Projection.of(
        fit.kind, fit.params, names, part, fitted, principal=fit.principal, standards=standards, about=about
    )
    spots = np.full((adata.n_obs, 2), np.nan, np.float32)
    spots[rows[chosen]] = fitted
    rest = np.setdiff1d(np.arange(len(x)), chosen)
    if len(rest) and len(chosen):
        spots[rows[rest]] = yield from projection.iter_place_moved(rows_in(x, rest))
    write_graph(adata, rows[chosen], fit.graph, fit.strengths, asked.metric)
    write_spots(adata, projection, spots)
    yield Progress(len(rows), len(rows), "map", "map")
    return projection


def place(adata: AnnData, projection: Projection) -> Projection:
    """Put cells, of another patient for example, on a map, and write their spots into the table.

    Parameters
    ----------
    adata : AnnData
        ``X`` (n, D) holds embeddings of the map's encoder. Written: ``obsm["X_umap"]`` (n, 2) float32, and
        ``uns["dinobloom"]["projection"]``; graphs of an earlier map are taken away. Fitted cells, told by name and
        embedding, get their own spots, deleted and undefined ones undefined spots.
    projection : Projection
        The map. Where it is re-standardised, groups that it does not know are estimated from all their cells here.

    Returns
    -------
    Projection
        `projection`; with the new groups, where there were any.

    Raises
    ------
    ProjectionError
        The cells come from another encoder, or have no column of groups that the map needs.
    """
    return drain(iter_place(adata, projection))


def iter_place(adata: AnnData, projection: Projection) -> Steps[Projection]:
    """Do what `place` does, with progress in cells; the table changes only at the end."""
    projection, spots = yield from iter_spots(adata, projection)
    write_graph(adata, np.zeros(0, np.int64), None, None, "")
    write_spots(adata, projection, spots)
    return projection


def iter_spots(adata: AnnData, projection: Projection) -> Steps[tuple[Projection, Float32]]:
    """Compute where a table's cells lie on a map, and change nothing.

    Returns
    -------
    projection : Projection
        With the groups of this table.
    spots : ndarray (n, 2) float32
        Undefined for deleted and undefined cells.
    """
    check_encoder(adata, projection)
    rows, table = fitted_rows(adata), _embeddings(adata)
    x, groups = rows_in(table, rows), None
    if projection.standards is not None:
        column = str(projection.params.get("restandardise", ""))
        groups = _groups(adata, column)[rows]
        projection = projection.with_groups(x, groups)
    x = projection.moved(x, groups)
    spots = np.full((adata.n_obs, 2), np.nan, np.float32)
    place = {name: row for row, name in enumerate(projection.cell_ids)}
    own = np.array([place.get(name, -1) for name in adata.obs_names[rows]], np.int64)
    known = np.flatnonzero(own >= 0)
    parts = [known[start : start + BLOCK] for start in range(0, len(known), BLOCK)]
    alike = [part[(x[part] == projection.reference[own[part]]).all(1)] for part in parts]
    same = np.concatenate([known[:0], *alike])
    spots[rows[same]] = projection.coordinates[own[same]]
    rest = np.setdiff1d(np.arange(len(rows)), same)
    spots[rows[rest]] = yield from projection.iter_place_moved(rows_in(x, rest))
    return projection, spots


def write_spots(adata: AnnData, projection: Projection, spots: Float32) -> None:
    """Make a map the table's active one."""
    adata.obsm["X_umap"] = spots
    notes = dict(adata.uns.get("dinobloom", {}))
    about = {name: value for name, value in projection.about.items() if not name.startswith("encoder")}
    own = {"kind": projection.kind, "hash": projection.hash, "n": len(projection)}
    notes["projection"] = {**projection.params, **about, **own}
    adata.uns["dinobloom"] = notes


def fitted_rows(adata: AnnData) -> Int64:
    """Give the rows of the table that a map is fitted to: not deleted, embedding defined."""
    rows = finite_rows(_embeddings(adata))
    if "deleted" in adata.obs:
        rows = rows[~adata.obs["deleted"].to_numpy(bool)[rows]]
    return rows


class EncoderMismatch(ProjectionError):
    """A map and cells belong to different encoders."""


def check_encoder(adata: AnnData, projection: Projection) -> None:
    """Raise EncoderMismatch if a table's embeddings come from another encoder, as far as both say."""
    own = _encoder(adata)
    for name, value in own.items():
        theirs = projection.about.get(name, value)
        if name != "encoder" and theirs != value:
            raise EncoderMismatch(
                f"The map {projection.hash[:8]} belongs to {projection.about.get('encoder')} ({str(theirs)[:12]}), the "
                f"cells to {own['encoder']} ({value[:12]}): embed them with the encoder of the map."
            )


class _Fit:
    """Fitting some cells: the spots, and what else comes of it."""

    def __init__(self, adata: AnnData, rows: Int64, x: Float32, asked: MapSettings) -> None:
        self.adata, self.rows, self.x, self.asked = adata, rows, x, asked
        self.graph: Graph | None = None
        self.strengths: csr_matrix | None = None
        self.principal: tuple[Float64, Float64] | None = None
        self.kind: Kind = "umap"
        self.params: dict[str, Any] = {"version": VERSION, "restandardise": asked.restandardise or ""}
        self.about: dict[str, Any] = {"versions": json.dumps({name: metadata.version(name) for name in PROGRAMS})}

    def steps(self, given: Float32 | None) -> Steps[Float32]:
        """Fit, with progress; give the spots (n, 2) float32."""
        asked = self.asked
        if given is not None:
            self.kind = "given"
            self.params |= {"n_neighbors": asked.n_neighbors, "metric": asked.metric}
            return given
        self.params |= {"seed": asked.seed, "subset": asked.subset or 0}
        if asked.method == "pca" or len(self.x) < FEWEST:
            self.kind = "pca"
            return self._principal()
        size = min(asked.n_neighbors, len(self.x) - 1)
        search = choose_search(len(self.x), asked.search)
        self.params |= {"n_neighbors": asked.n_neighbors, "min_dist": float(asked.min_dist), "metric": asked.metric}
        self.params["search"] = search
        key = graph_key(self.x, size - 1, asked.metric, search)
        self.graph = stored_graph(self.adata, self.rows, size - 1, key)
        if self.graph is None:
            self.graph = yield from iter_graph(self.x, size - 1, asked.metric, search)
        self.about |= {"graph": key, "recall": self.graph.recall, "recall_cells": self.graph.checked}
        begun = Progress(len(self.x) - 1, len(self.x), f"layout of {len(self.x)} cells", "map")
        yield begun
        spots, self.strengths = yield from iter_lay_out(
            self.x, self.graph, asked.min_dist, asked.metric, asked.seed, begun
        )
        return spots

    def _principal(self) -> Float32:
        """Place cells by their first two principal components; the largest loading of each is positive."""
        from napari_dinobloom.encoders.principal import principal_axes

        if not len(self.x):
            self.principal = np.zeros(self.x.shape[1]), np.zeros((2, self.x.shape[1]))
            return np.zeros((0, 2), np.float32)
        blocks = (self.x[start : start + BLOCK].astype(np.float64) for start in range(0, len(self.x), BLOCK))
        mean, axes, _ = principal_axes(blocks, 2)
        self.principal = mean, axes
        return along(self.x, mean, axes)


def iter_lay_out(
    x: Float32, graph: Graph, min_dist: float, metric: str, seed: int, report: Progress
) -> Steps[tuple[Float32, csr_matrix]]:
    """Do what `lay_out` does, in a process of its own where a window waits; `report` is yielded meanwhile."""
    from scipy.sparse import csr_matrix

    if not apart.wanted(len(x)):
        return lay_out(x, graph, min_dist, metric, seed)
    arrays: dict[str, npt.NDArray[Any]] = {"x": x, "indices": graph.indices, "distances": graph.distances}
    found = yield from apart.iter_apart("layout", arrays, report, min_dist=min_dist, metric=metric, seed=seed)
    strengths = csr_matrix((found["data"], found["columns"], found["ends"]), (len(x), len(x)))
    return found["spots"], strengths


def lay_out(x: Float32, graph: Graph, min_dist: float, metric: str, seed: int) -> tuple[Float32, csr_matrix]:
    """Run umap-learn over a graph; give coordinates (n, 2) float32 and the fuzzy memberships (n, n)."""
    own = np.arange(len(x))[:, None]
    indices = np.hstack([own, graph.indices])
    distances = np.hstack([np.zeros((len(x), 1), np.float32), graph.distances])
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


def _embeddings(adata: AnnData) -> Float32 | Vectors:
    """Embeddings as an array; as `Vectors` where they stay on the disk."""
    found = Vectors.of(adata)
    return found if found.lazy else np.asarray(found)


def _groups(adata: AnnData, column: str) -> npt.NDArray[np.object_]:
    """Group of each cell as text."""
    if column not in adata.obs:
        raise ProjectionError(
            f"restandardise={column!r}: the table has no such column; it has {', '.join(map(str, adata.obs.columns))}."
        )
    return np.asarray(adata.obs[column].astype(str), object)


def _given(coordinates: npt.ArrayLike, count: int) -> Float32:
    """Check a user's own coordinates."""
    spots = np.ascontiguousarray(coordinates, np.float32)
    if spots.shape != (count, 2) or np.isinf(spots).any():
        raise ValueError(f"coordinates have shape {spots.shape}; needed ({count}, 2), without infinite numbers.")
    return spots


def _encoder(adata: AnnData) -> dict[str, str]:
    """What tells the encoder of a table's embeddings, as far as it says."""
    notes = dict(adata.uns.get("dinobloom", {}))
    return {name: str(notes[name]) for name in ("encoder", "encoder_sha256", "pooling") if name in notes}
