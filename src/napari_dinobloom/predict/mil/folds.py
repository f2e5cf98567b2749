"""Folds of patients: stratified by class, and patients who share a picture never apart."""

from __future__ import annotations

import numpy as np

from napari_dinobloom.predict.mil.bags import Ints


def most_folds(code: Ints, groups: Ints, wanted: int) -> int:
    """Folds that can be made: not more than patients of the rarest class, nor than groups; may be below 2."""
    return min(wanted, int(np.bincount(code)[np.unique(code)].min()), len(np.unique(groups)))


def make_folds(code: Ints, groups: Ints, folds: int, seed: int) -> Ints:
    """Draw folds.

    Parameters
    ----------
    code : (patients,) array of int
        Class of each patient.
    groups : (patients,) array of int
        Patients with one number stand in one fold; see `leaks.related`.
    folds : int
        How many, as `most_folds` allows.
    seed : int
        Of the draw.

    Returns
    -------
    (patients,) array of int
        0 to `folds` - 1.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    alone = len(np.unique(groups)) == len(groups)
    kind = StratifiedKFold if alone else StratifiedGroupKFold
    found: Ints = np.zeros(len(code), np.int64)
    parts = kind(folds, shuffle=True, random_state=seed).split(code, code, None if alone else groups)
    for number, (_, rows) in enumerate(parts):
        found[rows] = number
    return found


def inner_folds(code: Ints, groups: Ints, wanted: int, seed: int) -> Ints:
    """Draw folds within training patients, to stop and to choose by.

    Where all share pictures, they are drawn by patient: no test patient is among them, only the choice gets worse.
    """
    count = most_folds(code, groups, wanted)
    if count < 2:
        groups = np.arange(len(code))
        count = max(2, most_folds(code, groups, wanted))
    found = make_folds(code, groups, count, seed)
    return np.unique(found, return_inverse=True)[1].astype(np.int64)
