"""Which pictures are trained on and which are asked about, as the reference code drew them, and more strictly.

The reference (marrlab/DinoBloom, ``dinov2/eval``) took the fixed lists of BMC, and for Acevedo scikit-learn's
``StratifiedKFold(5)`` without shuffling. Its order of files was that of the file system; here they are sorted.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.errors import InputError
from napari_dinobloom.predict.protocols.layouts import LabelledFiles

Rows = NDArray[np.intp]

FOLDS = 5

SEED = 42
"""With which the reference drew its lists of BMC, and here those that are not at hand."""


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Rows of a data set to train on, and to ask about.

    Attributes
    ----------
    train, test : (n,) and (m,) arrays of int
        Positions in the table, ascending, none in both.
    """

    train: Rows
    test: Rows


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is trained and asked about.

    Attributes
    ----------
    reported : list of Fold
        Those whose predictions are reported.
    orders : list of list of Fold
        Other draws, which tell how much the figures depend on the draw; empty where there is none. The first can be
        `reported` itself.
    notes : tuple of str
        What to know about the draw, in words.
    """

    reported: list[Fold]
    orders: list[list[Fold]]
    notes: tuple[str, ...] = ()


def paper_plan(files: LabelledFiles) -> Plan:
    """Draw as the reference code did.

    The fixed split where there is one; a stratified fifth drawn with seed 42 for BMC and Hehr (there of patients) where
    their lists are not at hand; else five folds, stratified, unshuffled, over files in sorted order.

    Raises
    ------
    InputError
        If classes are too small to be drawn from.
    """
    if files.fixed:
        return Plan([_fixed(files)], [])
    if files.layout in ("bmc", "hehr"):
        what = "patients" if files.layout == "hehr" else "pictures (no bm_train.csv and bm_test.csv)"
        note = (
            f"The published split is not at hand: a stratified fifth of the {what} was drawn with seed {SEED}. The "
            "paper drew with that seed too, but from files in an order that is not known, so its split is another one."
        )
        return Plan([_drawn(files)], [], (note,))
    from sklearn.model_selection import StratifiedKFold

    return Plan(_split(StratifiedKFold(FOLDS), files, None), [])


def strict_plan(files: LabelledFiles, orders: int = 20) -> Plan:
    """Draw so that no patient is trained on and asked about, and many times.

    Without a fixed split: five folds, stratified, shuffled with the seeds 0, 1, ...; patients stay whole, a picture of
    an unknown patient is one of its own. With one: it is kept, training pictures of patients who are asked about are
    left out, and each further order leaves another fifth of the training pictures (or patients) out.

    Parameters
    ----------
    files : LabelledFiles
        The data set, near-duplicates removed.
    orders : int, default: 20
        Draws.

    Raises
    ------
    InputError
        If classes are too small to be drawn from.
    """
    if not files.fixed:
        drawn = [_split(_shuffled(files, seed), files, _groups(files)) for seed in range(orders)]
        return Plan(drawn[0], drawn)
    whole, notes = _fixed(files), []
    patients = files.table["patient"].to_numpy(str)
    both = (patients[whole.train] != "") & np.isin(patients[whole.train], patients[whole.test])
    if both.any():
        whole = Fold(whole.train[~both], whole.test)
        notes.append(f"{both.sum()} training pictures of patients who are asked about are left out.")
    part = files.keep(whole.train)
    less = [_split(_shuffled(part, seed), part, _groups(part))[0].train for seed in range(orders)]
    return Plan([whole], [[Fold(whole.train[rows], whole.test)] for rows in less], tuple(notes))


def _fixed(files: LabelledFiles) -> Fold:
    """The fold that the data set itself names."""
    split = files.table["split"].to_numpy(str)
    return Fold(np.flatnonzero(split == "train"), np.flatnonzero(split == "test"))


def _drawn(files: LabelledFiles) -> Fold:
    """A fifth of the pictures, or of the patients, of each class."""
    from sklearn.model_selection import train_test_split

    patients = files.table["patient"].to_numpy(str)
    units = patients if files.layout == "hehr" else files.table["file"].to_numpy(str)
    names, first = np.unique(units, return_index=True)
    classes = files.table["label"].to_numpy(str)[first]
    try:
        train, _ = train_test_split(names, test_size=0.2, stratify=classes, random_state=SEED)
    except ValueError as error:
        raise InputError(f"{files.root}: no fifth can be drawn from each class ({error}). Give the split.") from error
    trained = np.isin(units, train)
    return Fold(np.flatnonzero(trained), np.flatnonzero(~trained))


def _groups(files: LabelledFiles) -> NDArray[np.str_] | None:
    """Patient of each picture, its own name where unknown; None where no patient is known."""
    patients = files.table["patient"].to_numpy(str)
    if not (patients != "").any():
        return None
    return np.where(patients != "", np.char.add("p:", patients), np.char.add("f:", files.table["file"].to_numpy(str)))


def _shuffled(files: LabelledFiles, seed: int) -> object:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    kind = StratifiedKFold if _groups(files) is None else StratifiedGroupKFold
    return kind(FOLDS, shuffle=True, random_state=seed)


def _split(splitter: object, files: LabelledFiles, groups: NDArray[np.str_] | None) -> list[Fold]:
    """Folds of a splitter of scikit-learn; classes smaller than the number of folds stand in some of them only."""
    labels = files.table["label"].to_numpy(str)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        try:
            pairs = list(splitter.split(np.zeros(len(labels)), labels, groups))  # type: ignore[attr-defined]
        except ValueError as error:
            raise InputError(
                f"{files.root}: {len(labels)} pictures cannot be divided in {FOLDS} folds ({error}). Give more "
                "pictures (or patients) of each class, or a split."
            ) from error
    return [Fold(np.asarray(train, np.intp), np.asarray(test, np.intp)) for train, test in pairs]
