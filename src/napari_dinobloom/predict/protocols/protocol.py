"""Both protocols: every method fitted and asked fold by fold, its predictions scored, and how sure the scores are.

``paper`` is what the reference code did: scores of each fold, averaged. ``strict`` leaves near-duplicates out, keeps
patients whole, scores all predictions of a draw together and draws many times. Both use the same classifiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.errors import InputError
from napari_dinobloom.predict.evaluation import class_scores, count_table
from napari_dinobloom.predict.protocols.bags import iter_evaluate_bags
from napari_dinobloom.predict.protocols.cohort import Cohort
from napari_dinobloom.predict.protocols.copies import iter_find_copies
from napari_dinobloom.predict.protocols.fits import Fits
from napari_dinobloom.predict.protocols.folds import Fold, Plan, paper_plan, strict_plan
from napari_dinobloom.predict.protocols.intervals import Counts, intervals
from napari_dinobloom.predict.protocols.layouts import LabelledFiles
from napari_dinobloom.predict.protocols.methods import MAX_ITER, METHODS, neighbours
from napari_dinobloom.predict.protocols.result import (
    COLUMNS,
    LEAST_SUPPORT,
    Evaluation,
    Protocol,
    Row,
    all_scores,
    metric_rows,
)
from napari_dinobloom.progress import Progress, Steps


def iter_evaluate(
    cohort: Cohort,
    protocol: Protocol = "paper",
    *,
    orders: int = 20,
    resamples: int = 1000,
    cache: Path | None = None,
) -> Steps[Evaluation]:
    """Evaluate embeddings, yielding `Progress` in fits.

    Parameters
    ----------
    cohort : Cohort
        Embeddings of a data set.
    protocol : {"paper", "strict"}
        What is done.
    orders : int, default: 20
        Draws of the folds (strict).
    resamples : int, default: 1000
        Of the intervals.
    cache : Path, optional
        Folder in which what each fit said is kept, so that a stopped run goes on; by default nothing is.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        If classes are too small to be drawn from, or only one is left to train on.
    """
    if orders < 1:
        raise InputError(f"{orders} fold orders cannot be drawn. Ask for one or more.")
    files, X, copies, notes = yield from _iter_chosen(cohort, protocol)
    plan = paper_plan(files) if protocol == "paper" else strict_plan(files, orders)
    notes += plan.notes
    if files.layout == "hehr":
        found = yield from iter_evaluate_bags(protocol, files, X, plan, notes, resamples)
        return replace(found, copies=copies)
    labels = files.table["label"].to_numpy(str)
    for fold in plan.reported:
        if len(np.unique(labels[fold.train])) < 2:
            raise InputError(f"{files.root}: a fold has one class to train on. Give more pictures of each class.")
    least = min(len(fold.train) for draw in (plan.reported, *plan.orders) for fold in draw)
    methods = [method for method in METHODS if neighbours(method) <= least]
    few = [method for method in METHODS if method not in methods]
    notes += [f"{method} is left out: it needs more than {least} training pictures." for method in few]
    runner = _Runner(Fits(X.astype(np.float64), labels, cache and cache / "fits"), methods)
    draws = [plan.reported, *(draw for draw in plan.orders if draw is not plan.reported)]
    total, done = sum(map(len, draws)) * len(methods), 0
    tables: list[dict[str, list[Counts]]] = []
    for draw in draws:
        tables.append({method: [] for method in methods})
        for number, fold in enumerate(draw):
            for method in methods:
                yield Progress(done, total, f"{method}, fold {number + 1}", "evaluate")
                predicted = runner.ask(method, fold, keep=number if draw is plan.reported else None)
                tables[-1][method].append(count_table(labels[fold.test], predicted, runner.classes))
                done += 1
    yield Progress(done, total, "scores", "evaluate")
    if runner.stopped:
        what = f"{runner.stopped} of {runner.probes} linear probes were stopped"
        notes.append(f"{what} after {MAX_ITER} iterations, as in the reference.")
    return _result(protocol, files, runner, plan, tables, copies, notes, resamples)


def _iter_chosen(
    cohort: Cohort, protocol: Protocol
) -> Steps[tuple[LabelledFiles, NDArray[np.float32], pd.DataFrame, list[str]]]:
    """The pictures that take part, and which do not."""
    notes = list(cohort.files.notes)
    if cohort.unreadable:
        notes.append(f"{len(cohort.unreadable)} pictures cannot be read and are left out.")
    if protocol == "paper":
        return cohort.files, cohort.X, pd.DataFrame(columns=["file", "label", "copy_of", "why"]), notes
    found = yield from iter_find_copies(cohort.files, cohort.prints)
    if len(found.table):
        two = int((found.table["why"] == "two classes").sum())
        notes.append(
            f"{len(found.table)} pictures are left out because they are there twice"
            + (f", {two} of them under two classes." if two else ".")
        )
    return cohort.files.keep(found.kept), cohort.X[found.kept], found.table, notes


class _Runner:
    """Asks methods fold by fold, and keeps the predictions that are reported."""

    def __init__(self, fits: Fits, methods: Sequence[str]) -> None:
        self.classes, labels = fits.classes, fits.labels
        self.kept = {method: np.full(len(labels), "", dtype=labels.dtype) for method in methods}
        self.stopped = self.probes = 0
        self._fits, self._fold = fits, np.full(len(labels), -1)

    def ask(self, method: str, fold: Fold, keep: int | None) -> NDArray[np.str_]:
        """Predict the pictures that a fold asks about."""
        found = self._fits.ask(method, fold)
        self.probes += method == "linear probe"
        self.stopped += not found.converged
        if keep is not None:
            self._fold[fold.test], self.kept[method][fold.test] = keep, found.predicted
        return found.predicted

    def predictions(self, files: LabelledFiles) -> pd.DataFrame:
        """Picture, patient, fold and the class that each method says, of all that were asked about."""
        asked = self._fold >= 0
        table = files.table.loc[asked, ["file", "label", "patient"]].assign(fold=self._fold[asked])
        said = {method: kept[asked].astype(object) for method, kept in self.kept.items()}
        return table.assign(**said).reset_index(drop=True)


def _result(
    protocol: Protocol,
    files: LabelledFiles,
    runner: _Runner,
    plan: Plan,
    tables: list[dict[str, list[Counts]]],
    copies: pd.DataFrame,
    notes: list[str],
    resamples: int,
) -> Evaluation:
    """Score the tables of all draws; the first is the one that is reported."""
    names, predictions = runner.classes, runner.predictions(files)
    by_patient = (predictions["patient"] != "").all() and predictions["patient"].nunique() > 1
    support = np.array([(predictions["label"] == name).sum() for name in names])
    few = names[support < LEAST_SUPPORT]
    score = partial(all_scores, counted=~np.isin(names, few))
    metrics: list[Row] = []
    per_class, confusion = [], {}
    for method in runner.kept:
        folds = tables[0][method]
        whole = np.sum(folds, axis=0)
        parts = others = folds
        if protocol == "strict":
            parts, others = [whole], [np.sum(draw[method], axis=0) for draw in _spread(tables, plan)]
        units = [part[None] for part in parts]
        if by_patient:
            asked = [predictions[predictions["fold"] == number] for number in range(len(folds))]
            units = [_units(rows, method, names) for rows in (asked if protocol == "paper" else [predictions])]
        bounds = intervals(units, score, resamples=resamples)
        metrics += metric_rows(method, score(np.stack(parts)), score(np.stack(others)), bounds)
        per_class.append(class_scores(whole, names))
        per_class[-1].insert(0, "method", method)
        confusion[method] = pd.DataFrame(whole, index=names, columns=names)
    if len(few):
        notes.append(f"balanced_accuracy_20 leaves out classes under {LEAST_SUPPORT} pictures: {', '.join(few)}.")
    notes.append(f"Intervals are over {'patients' if by_patient else 'pictures'}.")
    return Evaluation(
        protocol, tuple(names), pd.DataFrame(metrics, columns=list(COLUMNS)), pd.concat(per_class, ignore_index=True),
        confusion, predictions, copies, tuple(notes),
    )  # fmt: skip


def _spread(tables: list[dict[str, list[Counts]]], plan: Plan) -> list[dict[str, list[Counts]]]:
    """Draws over which the spread is taken: with a fixed split those that leave pictures out, else all."""
    return tables if plan.orders[0] is plan.reported else tables[1:]


def _units(rows: pd.DataFrame, method: str, names: NDArray[np.str_]) -> Counts:
    """A table of true against predicted classes for each patient who is asked about, (patients, K, K)."""
    patients, unit = np.unique(rows["patient"].to_numpy(str), return_inverse=True)
    row, column = (np.searchsorted(names, rows[name].to_numpy(str)) for name in ("label", method))
    k = len(names)
    flat = np.bincount((unit * k + row) * k + column, minlength=len(patients) * k * k)
    return flat.reshape(len(patients), k, k).astype(np.int64)
