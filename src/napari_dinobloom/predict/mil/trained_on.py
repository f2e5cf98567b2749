"""Patients a model was trained on, told by their cells and without their names, and what was predicted without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.predict.mil.bags import Float32
from napari_dinobloom.predict.mil.leaks import cell_keys

KEPT = 64
"""Cells of a patient that are kept: those with the smallest keys (MinHash, so that parts of a bag share them, too)."""
NONE = np.uint64(2**64 - 1)
"""Fills up patients with fewer cells."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainedOn:
    """Keys of some cells of each training patient, and the probabilities of a model that never saw them.

    Attributes
    ----------
    keys : (patients, KEPT) array of uint64
        `leaks.cell_keys`, the smallest ones; a key does not give the cell back.
    shares : (patients, 2, classes) array of float32
        Out-of-fold probabilities of the model and of mean pooling.
    """

    keys: NDArray[np.uint64]
    shares: Float32

    @classmethod
    def of(cls, bags: Sequence[Float32], shares: Float32) -> TrainedOn:
        """Take down training patients."""
        keys = np.full((len(bags), KEPT), NONE, np.uint64)
        for row, bag in enumerate(bags):
            found = np.unique(cell_keys(bag))[:KEPT]
            keys[row, : len(found)] = found
        return cls(keys, np.asarray(shares, np.float32))

    def find(self, bags: Sequence[Float32]) -> NDArray[np.int64]:
        """Row of the training patient that each bag shares most cells with; -1 where it shares none."""
        found = np.full(len(bags), -1, np.int64)
        known = self.keys.ravel()
        for number, bag in enumerate(bags):
            same = np.isin(known, np.unique(cell_keys(bag))) & (known != NONE)
            shared = same.reshape(self.keys.shape).sum(axis=1)
            if shared.size and shared.max() > 0:
                found[number] = int(shared.argmax())
        return found
