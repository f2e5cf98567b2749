"""Bags: the cells of each patient as one array, checked before anything is learned from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_dinobloom.errors import InputError

Float32 = NDArray[np.float32]
Ints = NDArray[np.int64]

FEW = 10
"""Patients of a group below which a warning is given."""


def check_bags(bags: Sequence[ArrayLike], names: Sequence[str] | None = None, dim: int | None = None) -> list[Float32]:
    """Return bags as float32 arrays that all have cells and one dimension.

    Parameters
    ----------
    bags : sequence of (n_i, D) arrays
        Embeddings of the cells of each patient.
    names : sequence of str, optional
        Patients, for messages; else their number.
    dim : int, optional
        D that is needed; else that of the first bag.

    Raises
    ------
    InputError
        If there is no bag, or one has no cell, another D, or a value that is not finite; the patient is named.
    """
    if len(bags) == 0:
        raise InputError("There is no patient: give one array of embeddings for each.")
    named = [f"Patient {name!r}" for name in names] if names is not None else [f"Bag {i}" for i in range(len(bags))]
    if len(named) != len(bags):
        raise InputError(f"There are {len(bags)} bags but {len(named)} names: give one name for each bag.")
    done: list[Float32] = []
    for name, bag in zip(named, bags, strict=True):
        x = np.ascontiguousarray(bag, dtype=np.float32)
        if x.ndim != 2:
            raise InputError(f"{name}: embeddings must be (cells, numbers), not of shape {x.shape}.")
        if len(x) == 0:
            raise InputError(f"{name} has no cell: leave this patient out, or segment more of their fields.")
        dim = x.shape[1] if dim is None else dim
        if x.shape[1] != dim:
            raise InputError(
                f"{name}: embeddings have {x.shape[1]} numbers, {dim} are needed: embed all patients with one encoder."
            )
        bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
        if len(bad):
            raise InputError(
                f"{name}: {len(bad)} cells have an embedding with NaN or infinity, the first is cell {bad[0]}: "
                "embed them again or leave them out."
            )
        done.append(x)
    return done


def check_groups(y: Sequence[str] | NDArray[np.str_], n: int) -> tuple[NDArray[np.str_], Ints]:
    """Return the classes in sorted order and the number of each patient's class.

    Raises
    ------
    InputError
        If there are not `n` labels, fewer than two classes, a patient without a label, or a class with one patient.
    """
    labels = np.asarray(y).astype(str)
    if labels.shape != (n,):
        raise InputError(f"{n} patients need {n} groups, not an array of shape {labels.shape}.")
    if (labels == "").any():
        raise InputError(f"Patient number {int(np.argmax(labels == ''))} has no group: name one or leave them out.")
    classes, code, count = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise InputError(f"All {n} patients are in the group {labels[0]!r}: give patients of two groups or more.")
    if count.min() < 2:
        raise InputError(
            f"The group {str(classes[count.argmin()])!r} has one patient; two are the least, and ten are needed to "
            "say anything: add patients or leave the group out."
        )
    return classes, code.astype(np.int64)


def few_patients(y: Iterable[str]) -> str:
    """Warning that names the groups with fewer than `FEW` patients; empty where all have enough."""
    names, counts = np.unique(np.asarray(list(y), dtype=str), return_counts=True)
    few = [f"{name} has {count}" for name, count in zip(names, counts, strict=True) if count < FEW]
    if not few:
        return ""
    return (
        f"Fewer than {FEW} patients in a group: {', '.join(few)}. What is learned from so few says little about "
        "others, and scores can be far off either way."
    )


def class_weights(code: Ints, classes: int) -> Float32:
    """Weight of each patient such that every class weighs the same; their mean is 1."""
    count = np.bincount(code, minlength=classes)
    weights: Float32 = (len(code) / (np.count_nonzero(count) * np.maximum(count, 1))).astype(np.float32)[code]
    return weights


def bag_means(bags: Sequence[Float32]) -> Float32:
    """Mean embedding of each patient, (patients, D) float32, summed in float64."""
    return np.stack([bag.mean(axis=0, dtype=np.float64) for bag in bags]).astype(np.float32)


def moments(bags: Sequence[Float32]) -> tuple[Float32, Float32]:
    """Mean and spread of each number over cells, every patient counting the same whatever their number of cells."""
    mean = np.mean([bag.mean(axis=0, dtype=np.float64) for bag in bags], axis=0)
    square = np.mean([np.square(bag - mean.astype(np.float32)).mean(axis=0, dtype=np.float64) for bag in bags], axis=0)
    spread = np.sqrt(square)
    spread[spread < 1e-6 * max(float(spread.max()), 1e-30)] = 1.0  # a constant number says nothing
    return mean.astype(np.float32), spread.astype(np.float32)


def padded(bags: Sequence[Float32], most: int, random: np.random.Generator) -> tuple[Float32, NDArray[np.bool_]]:
    """Bags side by side, filled with zeros; of a bag with more than `most` cells a random part.

    Returns
    -------
    cells : (B, n, D) array of float32
    there : (B, n) array of bool
        Which are cells.
    """
    drawn = [bag if len(bag) <= most else bag[random.choice(len(bag), most, replace=False)] for bag in bags]
    cells = np.zeros((len(drawn), max(map(len, drawn)), drawn[0].shape[1]), np.float32)
    there = np.zeros(cells.shape[:2], bool)
    for row, bag in enumerate(drawn):
        cells[row, : len(bag)], there[row, : len(bag)] = bag, True
    return cells, there
