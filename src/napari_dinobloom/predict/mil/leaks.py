"""Leaks: the same picture under two patients, who then may not stand on both sides of a split.

Pictures are the same where their files have the same hash or their embeddings are equal to the last bit. Patients
that share a picture, directly or through others, are one group; a group stands in one fold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.errors import InputError
from napari_dinobloom.predict.mil.bags import Float32, Ints

_CHUNK = 4096
NAMED = 3
"""Pairs of patients that a message names."""


def cell_keys(X: Float32) -> NDArray[np.uint64]:
    """A number for each cell that is equal where embeddings are equal to the last bit (multiply-shift hash)."""
    bits = np.ascontiguousarray(X, dtype=np.float32).view(np.uint32)
    odd = np.random.default_rng(2022).integers(0, 2**63, bits.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    keys = np.empty(len(bits), np.uint64)
    for start in range(0, len(bits), _CHUNK):
        part = bits[start : start + _CHUNK].astype(np.uint64) + np.uint64(1)
        keys[start : start + _CHUNK] = (part * odd).sum(axis=1, dtype=np.uint64)
    return keys


def related(bags: Sequence[Float32], sources: Sequence[Iterable[str]] | None = None) -> Ints:
    """Group of each patient: those who share a picture have one.

    Parameters
    ----------
    bags : sequence of (n_i, D) arrays of float32
        Embeddings of each patient.
    sources : sequence of iterables of str, optional
        Hashes of the pictures of each patient; empty text is no picture.

    Returns
    -------
    (patients,) array of int
        Numbers from 0, in the order of patients.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(bags)
    keys = [np.unique(cell_keys(bag)) for bag in bags]
    owners, items = [np.repeat(np.arange(n), [len(one) for one in keys])], [np.concatenate(keys)]
    numbers = [np.unique(items[0], return_inverse=True)[1]]
    if sources is not None:
        texts = [sorted({text for text in one if text}) for one in sources]
        owners.append(np.repeat(np.arange(n), [len(one) for one in texts]))
        found = np.unique(np.array([text for one in texts for text in one], dtype=str), return_inverse=True)[1]
        numbers.append(found + numbers[0].max() + 1)
    owner, number = np.concatenate(owners).astype(np.int64), np.concatenate(numbers).astype(np.int64)
    size = n + int(number.max()) + 1
    graph = coo_matrix((np.ones(len(owner), bool), (owner, number + n)), shape=(size, size))
    part = connected_components(graph, directed=False)[1][:n]
    first = np.unique(part, return_index=True)[1]
    order = np.argsort(np.argsort(first))
    groups: Ints = order[np.searchsorted(np.sort(np.unique(part)), part)].astype(np.int64)
    return groups


def torn(groups: Ints, folds: Ints, names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of patients who share a picture, directly or through others, but stand in two folds."""
    pairs = []
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        apart = rows[folds[rows] != folds[rows[0]]]
        pairs += [(str(names[rows[0]]), str(names[row])) for row in apart]
    return pairs


def check_folds(groups: Ints, folds: Ints, names: Sequence[str]) -> None:
    """Raise InputError that names patients if some who share a picture stand in two folds."""
    if pairs := torn(groups, folds, names):
        shown = "; ".join(f"{a!r} and {b!r}" for a, b in pairs[:NAMED])
        raise InputError(
            f"Patients in different folds share pictures: {shown}{' and others' if len(pairs) > NAMED else ''}. A test "
            "on one would be a test on a training picture: put them into one fold, or remove the shared pictures."
        )
