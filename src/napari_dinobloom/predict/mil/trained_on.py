"""Patients a model was trained on, told by their cells and pictures, not by name, and what was predicted without them.

Embeddings differ in their last bits from device to device; the hashes of pictures do not. A patient is known again by
most keys of either kind: one shared picture makes nobody somebody else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_dinobloom.predict.mil.bags import Float32
from napari_dinobloom.predict.mil.leaks import cell_keys

Keys = NDArray[np.uint64]

KEPT = 64
"""Keys of a patient that are kept, of each kind: the smallest (MinHash, so that parts of a bag share them, too)."""
LEAST = 3
"""Keys that must agree, or all where there are fewer."""
NONE = np.uint64(2**64 - 1)
"""Fills up patients with fewer cells."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainedOn:
    """Keys of some cells and pictures of each training patient, and what a model predicted that never saw them.

    Attributes
    ----------
    keys : (patients, KEPT) array of uint64
        `leaks.cell_keys`, the smallest ones; a key does not give the cell back.
    pictures : (patients, KEPT) array of uint64
        Keys of the hashes of their fields or pictures, the smallest ones.
    shares : (patients, 2, classes) array of float32
        Out-of-fold probabilities of the model and of mean pooling.
    """

    keys: Keys
    pictures: Keys
    shares: Float32

    @classmethod
    def of(cls, bags: Sequence[Float32], sources: Sequence[Iterable[str]], shares: Float32) -> TrainedOn:
        """Take down training patients; `sources`: hashes of the pictures of each."""
        cells, pictures = [_kept(cell_keys(bag)) for bag in bags], [_kept(_picture_keys(one)) for one in sources]
        keys, hashes = (np.array(found, np.uint64).reshape(len(bags), KEPT) for found in (cells, pictures))
        return cls(keys, hashes, np.asarray(shares, np.float32))

    def find(
        self, bags: Sequence[ArrayLike], sources: Sequence[Iterable[str]]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Find training patients among others.

        Parameters
        ----------
        bags : sequence of (n_i, D) arrays of float32
            Embeddings of each patient; read one after the other where they lie on the disk.
        sources : sequence of iterables of str
            Hashes of the pictures of each patient; empty text is no picture.

        Returns
        -------
        rows : (patients,) array of int
            The training patient with whom half of the cells or pictures agree, of the smaller set; -1 where nobody.
        partly : (patients,) array of bool
            Who shares a cell or picture with a training patient, but is nobody of them.
        """
        rows, partly = np.full(len(bags), -1, np.int64), np.zeros(len(bags), bool)
        if not len(self.keys):
            return rows, partly
        for number, (bag, own) in enumerate(zip(bags, sources, strict=True)):
            cells = _agreement(self.keys, cell_keys(np.asarray(bag)))
            pictures = _agreement(self.pictures, _picture_keys(own))
            best = np.maximum(cells, pictures)
            if best.max() >= 0.5:
                rows[number] = int(best.argmax())
            else:
                partly[number] = bool(best.max() > 0)
        return rows, partly


def _picture_keys(hashes: Iterable[str]) -> Keys:
    """A number for each hash of a picture; empty text is none."""
    texts = sorted({text for text in hashes if text})
    return np.array([int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") for text in texts], np.uint64)


def _kept(keys: Keys) -> Keys:
    """The smallest keys, (KEPT,), filled up with `NONE`."""
    found = np.full(KEPT, NONE, np.uint64)
    smallest = np.unique(keys)[:KEPT]
    found[: len(smallest)] = smallest
    return found


def _agreement(known: Keys, keys: Keys) -> NDArray[np.float64]:
    """Share of the keys that agree, of the smaller set, for each training patient, (patients,); small where few do.

    Of a patient with more than `KEPT` keys only the range of those that are kept is compared.
    """
    own, there = np.unique(keys), known != NONE
    shared = (np.isin(known, own) & there).sum(axis=1)
    count = there.sum(axis=1)
    last = np.where(count == KEPT, known[:, -1], NONE)
    within = np.searchsorted(own, last, side="right")
    of = np.maximum(np.minimum(count, within), np.minimum(np.minimum(count, len(own)), LEAST))
    return np.asarray(shared / np.maximum(of, 1), np.float64)
