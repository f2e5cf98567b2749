"""Patients judged by the attention model of the paper (ABMIL): bags of cells, one class for each patient.

The reference (marrlab/DinoBloom at 3bfbcf4, ``dinov2/eval/miccai/wbc_mil.py``) trained on three of four folds of the
training patients and stopped by the fourth, five times over, and scored each of the 20 models on the fixed test
patients. So are 20 models here, each with another quarter held back, drawn stratified. In the reference both folders
were the test one and the best weights were not kept; here no patient who is asked about is trained on.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.errors import InputError
from napari_dinobloom.predict.evaluation import class_scores
from napari_dinobloom.predict.mil.model import AttentionMIL
from napari_dinobloom.predict.protocols.folds import Plan
from napari_dinobloom.predict.protocols.intervals import Score, bounds, resample
from napari_dinobloom.predict.protocols.layouts import LabelledFiles
from napari_dinobloom.predict.protocols.result import (
    COLUMNS,
    LEAST_SUPPORT,
    Evaluation,
    Protocol,
    all_scores,
    metric_rows,
)
from napari_dinobloom.progress import Progress, Steps, drain

METHOD = "ABMIL"

MODELS = 20
"""Of the reference: four folds, five times."""


def iter_evaluate_bags(
    protocol: Protocol, files: LabelledFiles, X: NDArray[np.float32], plan: Plan, notes: list[str], resamples: int
) -> Steps[Evaluation]:
    """Evaluate embeddings of patients' cells, yielding `Progress` in models.

    Parameters
    ----------
    protocol : {"paper", "strict"}
        What is noted; near-duplicates were left out before.
    files : LabelledFiles
        Laid out as ``hehr``: each picture has a patient, each patient one class.
    X : (n, D) array of float32
        Embeddings.
    plan : Plan
        Its first reported fold tells which patients are asked about.
    notes : list of str
        What is known so far.
    resamples : int
        Of the intervals, over patients.

    Returns
    -------
    Evaluation
        The scores are means over the 20 models, the table of classes and the predictions those of the first.

    Raises
    ------
    InputError
        If one patient is asked about, or the training patients are of one class or one of a class.
    """
    patients, truth, bags = _bags(files, X)
    tested = np.isin(patients, files.table["patient"].to_numpy(str)[plan.reported[0].test])
    train, test = np.flatnonzero(~tested), np.flatnonzero(tested)
    if len(test) < 2:
        raise InputError(f"{files.root}: {len(test)} patients are asked about. Two or more are needed.")
    if len(plan.reported) > 1:
        notes.append(f"The first of {len(plan.reported)} folds of patients is asked about.")
    names = np.unique(truth)
    learned, asked = [bags[row] for row in train], [bags[row] for row in test]
    tables, guesses = [], []
    for number in range(MODELS):
        yield Progress(number, MODELS, "attention models", "evaluate")
        model = AttentionMIL("paper", seed=number)
        drain(model.iter_fit(learned, truth[train], names=patients[train].tolist()))
        guesses.append(model.predict(asked))
        tables.append(_units(truth[test], guesses[-1], names))
    yield Progress(MODELS, MODELS, "attention models", "evaluate")
    units = np.stack(tables)  # (models, patients, K, K)
    whole = units.sum(axis=1)
    few = names[whole[0].sum(axis=1) < LEAST_SUPPORT]
    if len(few):
        notes.append(f"balanced_accuracy_20 leaves out classes under {LEAST_SUPPORT} patients: {', '.join(few)}.")
    score = partial(all_scores, counted=~np.isin(names, few))
    found = score(whole)
    rows_of = metric_rows(METHOD, found, found, _intervals(units, score, resamples))
    first = files.table.groupby("patient", sort=True)["file"].first()
    predictions = pd.DataFrame(
        {"file": first.to_numpy()[test], "label": truth[test], "patient": patients[test], "fold": 0, METHOD: guesses[0]}
    )
    per_class = class_scores(whole[0], names)
    per_class.insert(0, "method", METHOD)
    return Evaluation(
        protocol, tuple(names), pd.DataFrame(rows_of, columns=list(COLUMNS)),
        per_class,
        {METHOD: pd.DataFrame(whole[0], index=names, columns=names)}, predictions,
        pd.DataFrame(columns=["file", "label", "copy_of", "why"]), (*notes, "Intervals are over patients."),
    )  # fmt: skip


def _bags(
    files: LabelledFiles, X: NDArray[np.float32]
) -> tuple[NDArray[np.str_], NDArray[np.str_], list[NDArray[np.float32]]]:
    """Patients in sorted order, their classes, and their cells."""
    owner = files.table["patient"].to_numpy(str)
    patients, first = np.unique(owner, return_index=True)
    order = np.argsort(owner, kind="stable")
    ends = np.searchsorted(owner[order], patients, side="right")
    return patients, files.table["label"].to_numpy(str)[first], [X[rows] for rows in np.split(order, ends[:-1])]


def _units(truth: NDArray[np.str_], said: NDArray[np.str_], names: NDArray[np.str_]) -> NDArray[np.int64]:
    """A table (K, K) with one entry for each patient."""
    table = np.zeros((len(truth), len(names), len(names)), np.int64)
    table[np.arange(len(truth)), np.searchsorted(names, truth), np.searchsorted(names, said)] = 1
    return table


def _intervals(units: NDArray[np.int64], score: Score, resamples: int) -> dict[str, tuple[float, float]]:
    """Intervals of the mean over models, the same patients drawn for all of them."""
    models, count, k, _ = units.shape
    flat = units.transpose(1, 0, 2, 3).reshape(count, models * k, k)
    drawn = resample(flat, resamples, np.random.default_rng(0)).reshape(-1, models, k, k)
    return {name: bounds(values.mean(axis=1)) for name, values in score(drawn).items()}
