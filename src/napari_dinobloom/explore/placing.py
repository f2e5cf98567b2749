"""Placing new cells among the fitted ones of a map: a robust mean over exact nearest neighbours.

Weights are those of Franke and Little for scattered data (Renka 1988, doi:10.1145/45054.45055), ``1 / d - 1 / R`` with
R the distance of the first neighbour that is left out: a fitted cell lands on its own spot, a neighbour that leaves
the neighbourhood has lost its weight by then, and only ratios of distances count, as in UMAP's own membership
strengths. Where a cell's neighbours lie in several places of the map, a mean would put it into the void between them.
So the spot is an M-estimate (Geman and McClure 1987) that starts at the weighted geometric median (Weiszfeld 1937,
doi:10.1007/s10479-008-0352-z) and takes the median distance of the neighbours from there as its scale: the cell lies
where most of the weight does.

All operations are ones that IEEE 754 rounds one way only, in a fixed number of steps, and added up along each cell
alone: a cell's spot does not depend on its company.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_dinobloom.explore.graph import best_devices
from napari_dinobloom.explore.neighbours import Metric, Search
from napari_dinobloom.io.vectors import Vectors
from napari_dinobloom.progress import Progress, Steps

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

VERSION = 1
"""Raised when the same cell would land on another spot."""

MEDIAN_STEPS, MEAN_STEPS = 30, 20
BLOCK = 1 << 14
"""Cells at a time in float64."""


def iter_place_among(
    x: Float32 | Vectors, reference: Float32, spots: Float32, k: int, metric: Metric
) -> Steps[Float32]:
    """Place cells among fitted ones.

    Parameters
    ----------
    x : (m, D) array of float32, or Vectors
        Embeddings of the cells to place; read in blocks.
    reference : ndarray (n, D) float32
        Embeddings of the fitted cells, at least one.
    spots : ndarray (n, 2) float32
        Where these lie.
    k : int
        Neighbours that take part; fewer where there are fewer fitted cells.
    metric : {"euclidean", "cosine"}
        Distance.

    Yields
    ------
    Progress
        In cells.

    Returns
    -------
    ndarray (m, 2) float32
        Within the spots of the cell's neighbours.
    """
    take = min(k + 1, len(reference))
    near = slice(0, min(k, take))
    search = Search(reference, metric, device=best_devices())
    placed = np.empty((len(x), 2), np.float32)
    yield Progress(0, len(x), "cells", "neighbours")
    for start in range(0, len(x), BLOCK):
        part = slice(start, min(start + BLOCK, len(x)))
        for indices, distances, done in search.chunks(x[part], take):
            edge = distances[:, -1] if take > k else np.full(len(indices), np.inf, np.float32)
            shares = weights(distances[:, near], edge)
            at = slice(start + done.start, start + done.stop)
            placed[at] = robust_mean(spots[indices[:, near]].astype(np.float64), shares)
            yield Progress(at.stop, len(x), "cells", "neighbours")
    return placed


def weights(distances: Float32, edge: Float32) -> Float64:
    """Compute the share of each neighbour in a cell's spot.

    Parameters
    ----------
    distances : ndarray (m, k) float32
        Rising along each row.
    edge : ndarray (m,) float32
        Distance from which on a neighbour has no weight; infinite where none is left out.

    Returns
    -------
    ndarray (m, k) float64
        Rows sum to 1. At distance 0 stands the cell itself, or copies of it: they share all.
    """
    wide = distances.astype(np.float64)
    same = wide == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        raw = np.where(same, 0.0, np.maximum(1 / wide - 1 / edge.astype(np.float64)[:, None], 0))
    raw = np.where(same.any(1, keepdims=True), same, raw)
    raw = np.where(raw.any(1, keepdims=True), raw, 1.0)  # all at the edge, equally far
    shares: Float64 = raw / raw.sum(1, keepdims=True)
    return shares


def robust_mean(spots: Float64, shares: Float64) -> Float64:
    """Compute the place where most of the weight of some spots lies.

    Parameters
    ----------
    spots : ndarray (m, k, 2) float64
        Spots of k neighbours of each of m cells.
    shares : ndarray (m, k) float64
        Their weights; rows sum to 1.

    Returns
    -------
    ndarray (m, 2) float64
    """
    x, y = (np.ascontiguousarray(spots[:, :, axis]) for axis in range(2))
    size = np.abs(spots).max(axis=(1, 2), initial=0.0)[:, None]
    tiny = 1e-7 * size + 1e-30  # what float32 coordinates of this size cannot tell apart
    at_x, at_y = _mean(x, shares), _mean(y, shares)
    for _ in range(MEDIAN_STEPS):
        pull = shares / np.maximum(_far(x, y, at_x, at_y), tiny)
        at_x, at_y = _mean(x, pull), _mean(y, pull)
    far = _far(x, y, at_x, at_y)
    order = np.argsort(far, axis=1, kind="stable")
    half = (np.cumsum(np.take_along_axis(shares, order, 1), axis=1) >= 0.5).argmax(1)[:, None]
    scale = np.take_along_axis(np.take_along_axis(far, order, 1), half, 1) + tiny
    for _ in range(MEAN_STEPS):
        ratio = _far(x, y, at_x, at_y) / scale
        close = 1 + ratio * ratio
        pull = shares / (close * close)
        at_x, at_y = _mean(x, pull), _mean(y, pull)
    return np.hstack([at_x, at_y])


def _far(x: Float64, y: Float64, at_x: Float64, at_y: Float64) -> Float64:
    """Distances (m, k) of spots from a place each (m, 1)."""
    far: Float64 = np.sqrt((x - at_x) * (x - at_x) + (y - at_y) * (y - at_y))
    return far


def _mean(values: Float64, pull: Float64) -> Float64:
    """Weighted mean along each row's own memory, (m, 1)."""
    mean: Float64 = (values * pull).sum(1, keepdims=True) / pull.sum(1, keepdims=True)
    return mean
