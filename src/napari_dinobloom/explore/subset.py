"""The part of very many cells that a map is fitted to: rare populations are thinned less than common ones.

Density-dependent down-sampling (Qiu et al. 2011, doi:10.1038/nbt.1991): the local density of a cell is the number of
seeded landmarks within a radius, and cells are drawn without replacement with weights that fall with its square root
(Efraimidis and Spirakis 2006, doi:10.1016/j.ipl.2005.11.003). The radius is the median distance of a landmark from its
tenth neighbour among them. The densest regions still hold most of the sample.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_dinobloom.io.vectors import Vectors
from napari_dinobloom.progress import Progress, Steps

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

VERSION = 1
"""Raised when other cells would be chosen."""

MOST = 200_000
"""Cells up to which all are fitted unless a number is asked for."""

SIZE = 50_000
"""Cells that are fitted where there are more than that."""

LANDMARKS = 1000
"""Cells, drawn evenly, by which density is counted."""

WITHIN = 10
"""Landmarks around a landmark that the radius takes in, in the median."""

BLOCK = 1 << 14


def chosen_size(count: int, asked: int | None) -> int:
    """Return to how many of `count` cells a map is fitted."""
    size = (SIZE if count > MOST else count) if asked is None else asked
    return min(size, count)


def iter_subset(x: Float32 | Vectors, size: int, seed: int) -> Steps[Int64]:
    """Choose cells to fit.

    Parameters
    ----------
    x : (n, D) array of float32, or Vectors
        Embeddings; read in blocks.
    size : int
        Cells to choose, 1 to n.
    seed : int
        Of landmarks and draw.

    Yields
    ------
    Progress
        In cells.

    Returns
    -------
    ndarray (size,) int64
        Rows, rising. The same for the same input.
    """
    if size >= len(x):
        return np.arange(len(x))
    random = np.random.default_rng(seed)
    marks = np.ascontiguousarray(x[np.sort(random.choice(len(x), min(LANDMARKS, len(x)), replace=False))])
    chance = random.random(len(x))
    lengths = np.square(marks).sum(1)
    between = np.sort(_squares(marks, marks, lengths), axis=1)
    radius = float(np.median(between[:, min(WITHIN, len(marks) - 1)]))
    yield Progress(0, len(x), "choosing cells to fit", "subset")
    around = np.empty(len(x), np.int64)
    for start in range(0, len(x), BLOCK):
        part = slice(start, min(start + BLOCK, len(x)))
        around[part] = (_squares(x[part], marks, lengths) <= radius).sum(1)
        yield Progress(part.stop, len(x), "choosing cells to fit", "subset")
    keys = np.log(np.maximum(chance, 1e-300)) * np.sqrt(1.0 + around)
    return np.sort(np.argsort(-keys, kind="stable")[:size])


def _squares(rows: Float32, marks: Float32, lengths: Float32) -> Float32:
    """Squared distances of rows from landmarks."""
    found: Float32 = np.square(rows).sum(1)[:, None] + lengths - 2 * rows @ marks.T
    return found
