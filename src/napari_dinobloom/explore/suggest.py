"""Suggested gates: clusters by density on two axes, each as an editable polygon.

Clusters are those of HDBSCAN (Campello, Moulavi & Sander 2013, doi:10.1007/978-3-642-37456-2_14; scikit-learn). The
outline of a cluster is an alpha shape (Edelsbrunner, Kirkpatrick & Seidel 1983, doi:10.1109/TIT.1983.1056714): the
outer ring, holes filled, of the largest connected piece of those Delaunay triangles of its cells that have up to some
circumradius. It is simplified (Douglas & Peucker 1973) by at most `TOLERANCE` of its extent. The radius is the smallest
of the quantiles `RADII` of all circumradii with which the simplified outline holds at least `HOLDS` of the cells; where
none does, the convex hull is taken.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.explore import apart
from napari_dinobloom.explore.gates.base import Float64, GateError, column
from napari_dinobloom.explore.gates.polygon import PolygonGate
from napari_dinobloom.explore.gates.winding import inside_polygon
from napari_dinobloom.progress import Progress, Steps, drain

MOST = 20_000
"""Cells that are clustered; of more, a seeded sample: the time grows with the square."""
HOLDS = 0.95
RADII = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999, 1.0)
TOLERANCE = 0.005
FEWEST = 5


def suggest_gates(
    table: pd.DataFrame,
    axes: tuple[str, str],
    *,
    min_cluster_size: int | None = None,
    projection: str | None = None,
    seed: int = 0,
) -> list[PolygonGate]:
    """Suggest a polygon gate for each dense cluster of cells.

    Parameters
    ----------
    table : DataFrame
        n cells; those without a place on both axes are left out.
    axes : (str, str)
        Columns. Each is divided by its standard deviation before distances are taken.
    min_cluster_size : int, optional
        Fewest cells of a cluster, 5 or more; by default a fiftieth of the cells that are clustered.
    projection : str, optional
        Hash of the map; by default what `table.attrs` says under "projection".
    seed : int
        Of the sample of 20,000 cells that is clustered where there are more.

    Returns
    -------
    list of PolygonGate
        Called ``cluster 1``, ``cluster 2``, ... from the largest to the smallest; empty if nothing is denser than the
        rest. The same for the same table.

    Raises
    ------
    GateError
        A column is missing or holds no numbers, or `min_cluster_size` is below 5.
    """
    options = {"min_cluster_size": min_cluster_size, "projection": projection, "seed": seed}
    return drain(iter_suggest_gates(table, axes, **options))  # type: ignore[arg-type]


def iter_suggest_gates(
    table: pd.DataFrame,
    axes: tuple[str, str],
    *,
    min_cluster_size: int | None = None,
    projection: str | None = None,
    seed: int = 0,
) -> Steps[list[PolygonGate]]:
    """Do what `suggest_gates` does; HDBSCAN cannot say how far it is."""
    report = Progress(0, 1, "clusters", "gates")
    yield report
    xy = np.column_stack([column(table, axis, "suggestion") for axis in axes])
    xy = xy[np.isfinite(xy).all(axis=1)]
    if min_cluster_size is not None and min_cluster_size < FEWEST:
        raise GateError(f"min_cluster_size={min_cluster_size}: give at least {FEWEST}.")
    if len(xy) > MOST:
        xy = xy[np.sort(np.random.default_rng(seed).choice(len(xy), MOST, replace=False))]
    size = max(FEWEST, len(xy) // 50) if min_cluster_size is None else min_cluster_size
    spread = xy.std(axis=0) if len(xy) else np.ones(2)
    if len(xy) < 2 * size or not (spread > 0).all():
        return []
    places = xy / spread
    if apart.wanted(len(xy)):  # HDBSCAN and Delaunay hold the interpreter's lock
        found = yield from apart.iter_apart("outlines", {"xy": places}, report, size=size)
        rings = np.split(found["points"], found["starts"])
    else:
        rings = outlines(places, size)
    of = table.attrs.get("projection", "") if projection is None else projection
    return [
        PolygonGate(name=f"cluster {i + 1}", axes=axes, vertices=ring * spread, projection=of)
        for i, ring in enumerate(rings)
        if len(ring)
    ]


def outlines(xy: Float64, size: int) -> list[Float64]:
    """Return a polygon (k, 2) around each dense cluster of places (n, 2), from the largest to the smallest.

    `size` is the fewest cells of a cluster.
    """
    labels = clusters(xy, size)
    found = [xy[labels == label] for label in range(labels.max() + 1)]
    return [outline(cells) for cells in sorted(found, key=len, reverse=True) if _wide(cells)]


def outline(points: Float64) -> Float64:
    """Return a simplified polygon around points, (k, 2) float64, by the rule of the module.

    Parameters
    ----------
    points : ndarray (n, 2) float64
        At least three that lie on no common line.
    """
    from scipy.spatial import ConvexHull, Delaunay

    places = np.unique(points, axis=0)
    hull: Float64 = places[ConvexHull(places).vertices]
    triangles = Delaunay(places).simplices
    radius = _circumradius(places[triangles])
    tolerance = TOLERANCE * float(np.ptp(places, axis=0).max())
    for limit in np.quantile(radius, RADII, method="lower"):
        piece = _largest_piece(triangles[radius <= limit])
        if len(np.unique(piece)) < HOLDS * len(places):
            continue
        ring = simplified(places[_outer_ring(piece, places)], tolerance)
        if len(ring) > 3 and inside_polygon(points[:, 0], points[:, 1], ring).mean() >= HOLDS:
            return ring
    return hull


def simplified(ring: Float64, tolerance: float) -> Float64:
    """Leave out vertices of a closed ring that lie within `tolerance` of the line between those kept."""
    far = int(np.argmax(((ring - ring[0]) ** 2).sum(axis=1)))
    closed = np.vstack([ring, ring[:1]])
    keep = np.zeros(len(closed), dtype=bool)
    keep[[0, far, -1]] = True
    waiting = [(0, far), (far, len(closed) - 1)]
    while waiting:
        start, stop = waiting.pop()
        if stop - start < 2:
            continue
        a, along = closed[start], closed[stop] - closed[start]
        offset = closed[start + 1 : stop] - a
        length = max(float(np.hypot(*along)), 1e-300)
        share = np.clip((offset @ along) / length**2, 0, 1)
        distance = np.hypot(*(offset - share[:, None] * along).T)
        most = int(np.argmax(distance))
        if distance[most] > tolerance:
            middle = start + 1 + most
            keep[middle] = True
            waiting += [(start, middle), (middle, stop)]
    return closed[:-1][keep[:-1]]


def clusters(xy: Float64, size: int) -> NDArray[np.int64]:
    """Give the number of the cluster of each cell, (n,), -1 for none; `xy` (n, 2), `size` the fewest cells."""
    from sklearn.cluster import HDBSCAN

    model = HDBSCAN(min_cluster_size=size, min_samples=min(size, 15), n_jobs=1, copy=True)
    return np.asarray(model.fit_predict(xy), dtype=np.int64)


def _wide(cells: Float64) -> bool:
    """Whether cells enclose something: three and more that lie on no line."""
    return len(np.unique(cells, axis=0)) > 3 and np.linalg.matrix_rank(cells - cells.mean(axis=0)) == 2


def _circumradius(corners: Float64) -> Float64:
    """Of triangles (t, 3, 2): product of the sides over four times the area; infinite for flat ones."""
    a, b, c = (np.hypot(*(corners[:, i] - corners[:, j]).T) for i, j in ((0, 1), (1, 2), (2, 0)))
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2
    return np.asarray(np.divide(a * b * c, 4 * area, out=np.full(len(area), np.inf), where=area > 0))


def _edges(triangles: NDArray[np.integer]) -> NDArray[np.int64]:
    """Directed edges of triangles, (3 t, 2)."""
    return np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).astype(np.int64)


def _largest_piece(triangles: NDArray[np.integer]) -> NDArray[np.integer]:
    """Of triangles those of the largest piece that hangs together by edges."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(triangles):
        return triangles
    edges = np.sort(_edges(triangles), axis=1)
    owner = np.tile(np.arange(len(triangles)), 3)
    order = np.lexsort(edges.T)
    same = (edges[order][1:] == edges[order][:-1]).all(axis=1)
    one, other = owner[order][1:][same], owner[order][:-1][same]
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(len(triangles), len(triangles)))
    piece = connected_components(graph, directed=False)[1]
    return np.asarray(triangles[piece == np.argmax(np.bincount(piece))])


def _outer_ring(triangles: NDArray[np.integer], places: Float64) -> list[int]:
    """Vertices of the ring around triangles that encloses most; those of holes enclose less."""
    corners = places[triangles]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    left = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0] > 0
    edges = _edges(np.where(left[:, None], triangles, triangles[:, ::-1]))
    both = {tuple(edge) for edge in edges.tolist()}
    onward: dict[int, list[int]] = {}
    for start, stop in sorted(edge for edge in both if edge[::-1] not in both):
        onward.setdefault(start, []).append(stop)
    rings = []
    while onward:
        ring = [next(iter(onward))]
        while ring[-1] in onward:
            following = onward[ring[-1]]
            ring.append(following.pop())
            if not following:
                del onward[ring[-2]]
        rings.append(ring[:-1])
    return max(rings, key=lambda ring: _area(places[ring]))


def _area(ring: Float64) -> float:
    """Signed area of a ring, positive when it runs counter-clockwise."""
    x, y = ring[:, 0], ring[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)
