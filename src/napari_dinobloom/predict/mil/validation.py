"""Repeated cross-validation of attention MIL and of mean pooling on the same folds, with a control of shuffled groups.

Patients are split, never cells; those who share a picture stand in one fold. Standardisation, strengths, the epoch and
the share of attention are found on the training patients of each fold alone. Intervals are bootstraps over patients
(within groups), of the mean over repeats: they cover which patients were sampled, not what another training would give.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_dinobloom.errors import InputError
from napari_dinobloom.predict.mil.attention import Attention, deletion
from napari_dinobloom.predict.mil.bags import Float32, Ints, check_bags, check_groups, few_patients
from napari_dinobloom.predict.mil.folds import make_folds, most_folds
from napari_dinobloom.predict.mil.leaks import NAMED, check_folds, related
from napari_dinobloom.predict.mil.model import AttentionMIL
from napari_dinobloom.predict.mil.presets import Preset, preset_of
from napari_dinobloom.predict.mil.verdict import Control, judge
from napari_dinobloom.progress import Progress, Steps, drain

T = TypeVar("T")

LEAST = 3
"""Patients of a group below which nothing can be validated: two to learn from and one to test."""
STEP = "validate"
UNITS = 1000
"""Parts of one repeat in reports of progress."""


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """What cross-validation found.

    Attributes
    ----------
    classes : tuple of str
        Groups in sorted order.
    folds : (repeats, patients) array of int
        Fold of each patient.
    shares : dict of str to array
        Model to out-of-fold probabilities (repeats, patients, classes) float32.
    scores : DataFrame
        One row a model: ``model``, and ``weighted_f1 balanced_accuracy auc``, each with ``_low`` and ``_high``. Also
        the paired difference to mean pooling, the models on shuffled groups (low and high: least and highest of the
        shufflings), and ``chance``: the first model's predictions against shuffled groups (95 %).
    attention : list of Attention
        Of each patient, by models that never saw them; scores are the mean over repeats.
    deletion : DataFrame
        `attention.deletion` of each patient in the first repeat, ``bag`` being the patient's number.
    recommended : str
        The model to use: mean pooling, unless the other is shown to be better.
    notes : tuple of str
        Warnings and findings in words.
    nameless : tuple of str
        The same without names of patients, as a file that is handed on may say them.
    """

    classes: tuple[str, ...]
    folds: Ints
    shares: dict[str, Float32]
    scores: pd.DataFrame
    attention: list[Attention]
    deletion: pd.DataFrame
    recommended: str
    notes: tuple[str, ...]
    nameless: tuple[str, ...]

    def out_of_fold(self, model: str) -> Float32:
        """Probabilities of each patient by models that never saw them, the mean over repeats, (patients, classes)."""
        mean: Float32 = self.shares[model].mean(axis=0, dtype=np.float64).astype(np.float32)
        return mean


@dataclass(slots=True)
class _Crossed:
    """Out of fold, of each patient: model to probabilities (patients, K), scores of cells, the check of attention."""

    shares: dict[str, Float32]
    scores: list[Float32]
    deletion: pd.DataFrame


def validate(bags: Sequence[ArrayLike], y: Sequence[str] | NDArray[np.str_], **options: Any) -> Validation:
    """Validate by repeated, stratified cross-validation over patients; see `iter_validate`.

    Warns
    -----
    UserWarning
        If a group has fewer than `FEW` patients.
    """
    if few := few_patients(y):
        warnings.warn(few, UserWarning, stacklevel=2)
    return drain(iter_validate(bags, y, **options))


def iter_validate(
    bags: Sequence[ArrayLike],
    y: Sequence[str] | NDArray[np.str_],
    *,
    names: Sequence[str] | None = None,
    sources: Sequence[Iterable[str]] | None = None,
    given: Sequence[Any] | None = None,
    preset: str | Preset = "gated",
    folds: int = 5,
    repeats: int = 5,
    permutations: int = 5,
    seed: int = 0,
    device: str = "auto",
    **changes: Any,
) -> Steps[Validation]:
    """Validate attention MIL and mean pooling, yielding `Progress`.

    Parameters
    ----------
    bags : sequence of (n_i, D) arrays of float
        Embeddings of the cells of each patient.
    y : (patients,) sequence of str
        Groups, each with three patients or more.
    names : sequence of str, optional
        Patients, for messages.
    sources : sequence of iterables of str, optional
        Hashes of the pictures of each patient, to find those that stand under two.
    given : (patients,) sequence, optional
        Fold of each patient; else folds are drawn anew in each repeat.
    preset, device, **changes
        As for `AttentionMIL`.
    folds, repeats : int
        How many; fewer folds where a group has fewer patients.
    permutations : int
        Repeats with groups shuffled among the patients of each fold; 0 leaves the control out.
    seed : int
        Of folds, trainings and shufflings.

    Raises
    ------
    InputError
        If bags, groups or folds cannot be used, or patients who share a picture stand in different folds.
    """
    settings = preset_of(preset, **changes)
    cells = check_bags(bags, names)
    labels = list(names) if names is not None else [str(number) for number in range(len(cells))]
    classes, code = check_groups(y, len(cells))
    few = few_patients(classes[code])
    yield Progress(0, 1, few, STEP)
    groups = related(cells, sources)
    drawn = _folds(code, groups, labels, classes, given, folds, max(1, repeats), seed)
    random, plans = np.random.default_rng(seed), [(code, one) for one in drawn]
    plans += [(_shuffled(code, drawn[number % len(drawn)], random), drawn[number % len(drawn)])
              for number in range(permutations)]  # fmt: skip
    found: list[_Crossed] = []
    for number, (truth, parts) in enumerate(plans):
        what = "groups shuffled" if number >= len(drawn) else f"repeat {number + 1}"
        model = partial(AttentionMIL, settings, seed=seed + number, device=device)
        look, check = number < len(drawn), number == 0
        crossed = _iter_cross(cells, classes[truth], groups, parts, model, look, check)
        found.append((yield from _scaled(crossed, number, len(plans), what)))
    real, shuffled = found[: len(drawn)], found[len(drawn) :]
    shares = {name: np.stack([one.shares[name] for one in real]) for name in real[0].shares}
    controls = [Control(truth, one.shares) for (truth, _), one in zip(plans[len(drawn) :], shuffled, strict=True)]
    verdict = judge(settings.name, shares, code, controls, seed)
    attention = [
        Attention(np.mean(scores, axis=0, dtype=np.float32))
        for scores in zip(*(one.scores for one in real), strict=True)
    ]
    rest = (*verdict.notes, _matters(real[0].deletion))
    notes, nameless = ((few, _shared(groups, known), *rest) for known in (labels, None))
    return Validation(
        classes=tuple(classes.tolist()),
        folds=drawn,
        shares=shares,
        scores=verdict.scores,
        attention=attention,
        deletion=real[0].deletion,
        recommended=verdict.recommended,
        notes=tuple(text for text in notes if text),
        nameless=tuple(text for text in nameless if text),
    )


def _matters(found: pd.DataFrame) -> str:
    """Say whether the cells with the highest attention matter more than random ones; empty where it was not checked."""
    if found.empty:
        return ""
    top, other, count = found["top"].mean(), found["random"].mean(), int(found["removed"].max())
    return (
        f"Without the {count} cells of highest attention a patient's probability changes by {top:.3f} on average, "
        f"without {count} random ones by {other:.3f}"
        + ("." if top > other else ": attention does not show what the prediction rests on; do not read it.")
    )


def _shared(groups: Ints, names: Sequence[str] | None) -> str:
    """Say which patients share pictures, or only how many; empty where none do."""
    count = np.bincount(groups)
    many = int(count[count > 1].sum())
    if not many:
        return ""
    rest = "those who do stand in one fold, so that none is tested on a picture that was learned from."
    if names is None:
        return f"{many} patients share pictures with others: {rest}"
    sets = [[names[row] for row in np.flatnonzero(groups == one).tolist()] for one in np.flatnonzero(count > 1)]
    shown = "; ".join(", ".join(map(repr, one[:NAMED])) + (", ..." if len(one) > NAMED else "") for one in sets[:NAMED])
    return f"{many} patients share pictures with others ({shown}{'; ...' if len(sets) > NAMED else ''}): {rest}"


def _folds(
    code: Ints,
    groups: Ints,
    names: Sequence[str],
    classes: NDArray[np.str_],
    given: Sequence[Any] | None,
    wanted: int,
    repeats: int,
    seed: int,
) -> Ints:
    """Folds of each repeat, (repeats, patients): no picture across, two patients of each group to learn from."""
    count = np.bincount(code)
    if count.min() < LEAST:
        raise InputError(
            f"The group {str(classes[count.argmin()])!r} has {count.min()} patients; {LEAST} are the least for "
            "cross-validation, ten are needed to say anything: add patients or leave the group out."
        )
    if given is not None:
        if len(given) != len(code):
            raise InputError(f"{len(code)} patients need {len(code)} folds, not {len(given)}.")
        one = np.unique(np.asarray(given).astype(str), return_inverse=True)[1].astype(np.int64)
        check_folds(groups, one, names)
        drawn = np.repeat(one[None], repeats, axis=0)
    else:
        number = most_folds(code, groups, wanted)
        if number < 2:
            check_folds(groups, np.arange(len(code)), names)  # all share pictures: names some of them
        drawn = np.stack([make_folds(code, groups, number, seed + repeat) for repeat in range(repeats)])
    for parts in drawn:
        for fold in np.unique(parts):
            left = np.bincount(code[parts != fold], minlength=len(classes))
            if left.min() < 2:
                raise InputError(
                    f"Without the patients of one fold, {left.min()} of group {str(classes[left.argmin()])!r} are left "
                    "to learn from; two are the least. Spread the group over the folds, or add patients."
                )
    return drawn


def _shuffled(code: Ints, folds: Ints, random: np.random.Generator) -> Ints:
    """Classes shuffled among the patients of each fold, so that folds stay as stratified as they are."""
    shuffled = code.copy()
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        shuffled[rows] = code[random.permutation(rows)]
    return shuffled


def _iter_cross(
    bags: list[Float32],
    y: NDArray[np.str_],
    groups: Ints,
    folds: Ints,
    model: Callable[[], AttentionMIL],
    look: bool,
    check: bool,
) -> Steps[_Crossed]:
    """Predict each fold by a model of the others; `look`: also take the attention; `check`: and check it."""
    parts, found = np.unique(folds), _Crossed({}, [np.zeros((0, 0), np.float32)] * len(bags), pd.DataFrame())
    for number, fold in enumerate(parts):
        learn, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        fitting = model().iter_fit([bags[row] for row in learn], y[learn], groups=groups[learn])
        fitted = yield from _scaled(fitting, number, len(parts), "")
        some = [bags[row] for row in test]
        for name, shares in fitted.proba(some).items():
            found.shares.setdefault(name, np.zeros((len(bags), shares.shape[1]), np.float32))[test] = shares
        if look:
            attention = fitted.attention(some)
            for row, one in zip(test, attention, strict=True):
                found.scores[row] = one.scores
            if check:
                checked = deletion(fitted.predict_proba, some, attention)
                found.deletion = pd.concat([found.deletion, checked.assign(bag=test[checked["bag"].to_numpy(int)])])
    if check:
        found.deletion = found.deletion.sort_values("bag", ignore_index=True)
    return found


def _scaled(steps: Steps[T], number: int, of: int, what: str) -> Steps[T]:
    """Report the progress of one of several parts as that of the whole."""
    while True:
        try:
            at = next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        done = round(UNITS * (number + at.done / max(at.total, 1)))
        yield Progress(done, UNITS * of, what or at.message, STEP)
