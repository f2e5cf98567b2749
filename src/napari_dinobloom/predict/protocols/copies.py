"""Pictures that are there twice, as the same file or nearly the same: resized, compressed again, a little brighter.

Candidates are found by 24 x 24 grey values: their correlation is `ALIKE` or more. As dark nuclei on pale ground look
alike that coarsely, a candidate has to agree in its detail as well: 64 x 64 pixels in colour, the mean over 9 x 9 taken
out of each; the median correlation of the three channels is `AGREEING` or more. No encoder takes part, so that all are
judged on the same pictures. Each picture is compared with the one that stays, never through others.

Both limits were chosen on the 7,594 training pictures of PBC alone (``benchmarks/evaluate_pbc.py``). The detail of two
different cells agrees to 0.60 at most, that of a copy that was compressed, cut down to a third of its size or made 15 %
brighter to 0.97 at least; the limit is nearer to the copies, as other laboratories' pictures have less detail. A copy
that was turned, or cut 6 pixels further, is not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image as Pillow

from napari_dinobloom.io.smear import read_pixels
from napari_dinobloom.predict.protocols.layouts import LabelledFiles
from napari_dinobloom.progress import Progress, Steps

VERSION = 1
"""Raised when the same picture gets another fingerprint."""

SIDE = 24

ALIKE = 0.95
"""Least correlation of the fingerprints of two copies."""

FINE, GROUND = 64, 9
"""Side of the picture whose detail is compared, and of the squares whose mean is taken out."""

AGREEING = 0.9
"""Least correlation of the detail of two copies."""


@dataclass(frozen=True, slots=True, eq=False)
class Copies:
    """What is left out because it is there twice.

    Attributes
    ----------
    kept : (n,) array of bool
        Rows that stay.
    table : DataFrame
        One row for each that does not, in their order: ``file``, ``label``, ``copy_of`` (the file that stays, or that
        of another class) and ``why`` (``copy`` or ``two classes``).
    """

    kept: NDArray[np.bool_]
    table: pd.DataFrame


def fingerprint(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey values of a small copy, their mean taken out and their length made one.

    Parameters
    ----------
    picture : (Y, X, 3) array of uint8
        RGB.

    Returns
    -------
    (576,) array of float32
        All zero for a picture of one grey.
    """
    grey = Pillow.fromarray(np.ascontiguousarray(picture)).convert("L").resize((SIDE, SIDE), Pillow.Resampling.BILINEAR)
    values = np.asarray(grey, np.float64).ravel()
    values -= values.mean()
    length = float(np.linalg.norm(values))
    return (values / length if length > 0 else values).astype(np.float32)


def detail(picture: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Fine detail of each channel, its length made one.

    Parameters
    ----------
    picture : (Y, X, 3) array of uint8
        RGB.

    Returns
    -------
    (3, 4096) array of float16
        All zero for a channel without any.
    """
    from scipy.ndimage import uniform_filter

    small = Pillow.fromarray(np.ascontiguousarray(picture)).resize((FINE, FINE), Pillow.Resampling.BILINEAR)
    values = np.asarray(small, np.float64).transpose(2, 0, 1)
    values = (values - uniform_filter(values, (0, GROUND, GROUND))).reshape(3, -1)
    values -= values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.where(length > 1e-6, values / np.maximum(length, 1e-6), 0).astype(np.float16)


def agreement(one: NDArray[np.float16], other: NDArray[np.float16]) -> float:
    """Correlation of the detail of two pictures, -1 to 1: the median of the channels; 1 of two that have none."""
    a, b = one.astype(np.float32), other.astype(np.float32)
    bare = ~a.any(axis=1) & ~b.any(axis=1)
    return float(np.median(np.where(bare, 1, (a * b).sum(axis=1))))


def iter_find_copies(files: LabelledFiles, prints: NDArray[np.float32]) -> Steps[Copies]:
    """Find pictures that are there twice, yielding `Progress` in pictures that are looked at again.

    Of copies the first one stays, of those that are asked about where the split is fixed, so that the test set stays as
    it was published. Where two copies have two classes neither stays, as nobody knows which is right.

    Parameters
    ----------
    files : LabelledFiles
        The data set.
    prints : (n, 576) array of float32
        `fingerprint` of each.

    Returns
    -------
    Copies
        Memory is 25 kB for each candidate.

    Raises
    ------
    ImageError
        If a candidate cannot be read any more.
    """
    names, labels, splits = (files.table[name].to_numpy(str) for name in ("file", "label", "split"))
    pairs = yield from _iter_pairs(files.paths, prints)
    beside: dict[int, list[int]] = {}
    for one, other in pairs:
        beside.setdefault(one, []).append(other)
        beside.setdefault(other, []).append(one)
    order = sorted(beside, key=lambda row: (splits[row] != "test", row))
    found: dict[int, tuple[int, str]] = {}
    for row in order:
        others = [other for other in beside[row] if labels[other] != labels[row]]
        if others:
            found[row] = (min(others), "two classes")
    place = {row: number for number, row in enumerate(order)}
    for row in order:
        earlier = [other for other in beside[row] if other not in found and place[other] < place[row]]
        if row not in found and earlier:
            found[row] = (min(earlier, key=place.__getitem__), "copy")
    kept = np.ones(len(prints), bool)
    kept[list(found)] = False
    rows = [(names[row], labels[row], names[other], why) for row, (other, why) in sorted(found.items())]
    return Copies(kept, pd.DataFrame(rows, columns=["file", "label", "copy_of", "why"]))


def _iter_pairs(paths: Sequence[Path], prints: NDArray[np.float32]) -> Steps[list[tuple[int, int]]]:
    """Pairs of rows that are copies, the smaller row first."""
    from scipy.sparse import triu
    from sklearn.neighbors import NearestNeighbors

    reach = float(np.sqrt(2 * (1 - ALIKE)))  # distance of two vectors of length one
    search = NearestNeighbors(radius=reach, algorithm="brute").fit(prints)
    graph = triu(search.radius_neighbors_graph(prints, mode="connectivity"), k=1).tocoo()
    candidates = sorted(zip(graph.row.tolist(), graph.col.tolist(), strict=True))
    details: dict[int, NDArray[np.float16]] = {}
    rows = sorted({row for pair in candidates for row in pair})
    for number, row in enumerate(rows):
        yield Progress(number, len(rows), "possible copies", "evaluate")
        details[row] = detail(read_pixels(paths[row]))
    return [pair for pair in candidates if agreement(details[pair[0]], details[pair[1]]) >= AGREEING]
