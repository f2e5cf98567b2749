"""Which pictures of DinoBloom's data sets a training reads, and which are kept out of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.datasets import DataSet, find_dataset, match
from napari_dinobloom.io.inputs import find_images
from napari_dinobloom.training.manifest import Row

TEST_SHARE = 0.2
"""Of the pictures or patients of a class that are kept out (BMC, Hehr)."""

SEED = 42
"""Of the splits. The reference drew with this seed too, but its order of files is not known: the splits differ."""


def read_dataset(name: str, folder: str | Path) -> list[Row]:
    """List the pictures of a data set with class, patient and the split of the paper.

    Parameters
    ----------
    name : str
        A key of `io.datasets.DATASETS`.
    folder : str or Path
        Where its archive was unpacked, or any folder above or below.

    Returns
    -------
    list of Row
        Sorted by path. Splits depend on the names of classes, patients and pictures alone.

    Raises
    ------
    InputError
        If the name is not known or the data set not public, or no picture in the folder has the layout.
    """
    data, folder = find_dataset(name), Path(folder).resolve()
    short = {key.casefold(): value for key, value in data.labels.items()}
    rows = [
        Row(found.path, name, short.get(found.label.casefold(), found.label), found.patient, found.split, found.file)
        for found in match(name, find_images([folder]).files)
    ]
    if not rows:
        raise InputError(f"{folder}: holds no picture laid out as data set {name!r} ({data.source}). Name its folder.")
    return _split(sorted(rows, key=lambda row: row.path), data)


def _split(rows: list[Row], data: DataSet) -> list[Row]:
    """Say of each row whether it is for training; folders named train and test count where there are any."""
    if data.split == "held out":
        return [replace(row, split="test") for row in rows]
    if any(row.split for row in rows) or data.split in ("train", "by folder"):
        return [replace(row, split=row.split or "train") for row in rows]
    by_patient = data.split == "by patient"
    units = {(row.label, row.patient if by_patient else row.path.name) for row in rows}
    kept = _kept_out(units)
    return [
        replace(row, split="test" if (row.label, row.patient if by_patient else row.path.name) in kept else "train")
        for row in rows
    ]


def _kept_out(units: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """A fifth of the units (class, name) of each class, by the order of their hashes."""
    classes: dict[str, list[str]] = defaultdict(list)
    for label, unit in units:
        classes[label].append(unit)
    return {
        (label, unit)
        for label, names in classes.items()
        for unit in sorted(names, key=lambda unit: sha256(f"{SEED}/{label}/{unit}".encode()).digest())[
            : round(TEST_SHARE * len(names))
        ]
    }
