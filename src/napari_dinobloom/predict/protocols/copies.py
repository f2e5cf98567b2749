"""Pictures that are there twice, as the same file or nearly the same: resized, compressed again, a little brighter.

Each is brought to 24 x 24 grey values, of which the mean is taken out and the length made one; two whose product, the
correlation, is `ALIKE` or more are copies. No encoder takes part, so that all are judged on the same pictures. Among
the 9,495 pictures of PBC two different cells reach 0.90 at most, a copy that was compressed, halved or made 15 %
brighter 0.98 at least (``benchmarks/evaluate_pbc.py``). A copy that was turned, or cut 6 pixels further, is not found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image as Pillow

from napari_dinobloom.predict.protocols.layouts import LabelledFiles

VERSION = 1
"""Raised when the same picture gets another fingerprint."""

SIDE = 24

ALIKE = 0.95
"""Least correlation of two copies."""


@dataclass(frozen=True, slots=True, eq=False)
class Copies:
    """What is left out because it is there twice.

    Attributes
    ----------
    kept : (n,) array of bool
        Rows that stay.
    table : DataFrame
        One row for each that does not: ``file``, ``label``, ``copy_of`` (the file that stays, or another of the same
        picture where none does) and ``why`` (``copy`` or ``two classes``).
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


def find_copies(files: LabelledFiles, prints: NDArray[np.float32]) -> Copies:
    """Find pictures that are there twice.

    Of copies the first one stays, of those that are asked about where the split is fixed, so that the test set stays as
    it was published. Where copies have two classes none stays, as nobody knows which is right.

    Parameters
    ----------
    files : LabelledFiles
        The data set.
    prints : (n, 576) array of float32
        `fingerprint` of each.
    """
    from scipy.sparse.csgraph import connected_components
    from sklearn.neighbors import NearestNeighbors

    reach = float(np.sqrt(2 * (1 - ALIKE)))  # distance of two vectors of length one
    search = NearestNeighbors(radius=reach, algorithm="brute").fit(prints)
    count, group = connected_components(search.radius_neighbors_graph(prints, mode="connectivity"), directed=False)
    kept = np.ones(len(prints), bool)
    rows = []
    names, labels, splits = (files.table[name].to_numpy(str) for name in ("file", "label", "split"))
    sizes = np.bincount(group, minlength=count)
    for members in _groups(group, sizes):
        first = min(members, key=lambda row: (splits[row] != "test", row))
        agreed = len(set(labels[members])) == 1
        for row in members:
            if row != first or not agreed:
                kept[row] = False
                other = first if row != first else next(one for one in members if labels[one] != labels[row])
                rows.append((names[row], labels[row], names[other], "copy" if agreed else "two classes"))
    return Copies(kept, pd.DataFrame(rows, columns=["file", "label", "copy_of", "why"]))


def _groups(group: NDArray[np.int32], sizes: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """Members, ascending, of each group of two or more."""
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.cumsum(sizes)[:-1])
    return [part for part in parts if len(part) > 1]
