"""The verdict of a cross-validation: scores with intervals, the difference to mean pooling, and both in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from napari_dinobloom.predict.mil.bags import Float32, Ints
from napari_dinobloom.predict.mil.model import MEAN
from napari_dinobloom.predict.mil.scores import bootstrap, columns, interval, metrics, repeated
from napari_dinobloom.words import number_of

DRAWS = 2000
"""Bootstrap samples, and shufflings of groups for the level of chance."""
SHUFFLED = ", groups shuffled"
CHANCE = "chance"
COVER = (
    "low and high: 95 %, bootstrap over patients within groups; which patients were sampled, not what another training "
    "or laboratory would give."
)


@dataclass(frozen=True, slots=True, eq=False)
class Control:
    """A repeat with shuffled groups: the shuffled classes, and model to out-of-fold probabilities."""

    code: Ints
    shares: Mapping[str, Float32]


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """Scores as `Validation` has them, the model to use, and what there is to say."""

    scores: pd.DataFrame
    recommended: str
    notes: tuple[str, ...]


def judge(name: str, shares: Mapping[str, Float32], code: Ints, controls: Sequence[Control], seed: int = 0) -> Verdict:
    """Compare models.

    Parameters
    ----------
    name : str
        The model that is compared to mean pooling.
    shares : mapping
        Model to out-of-fold probabilities, (repeats, patients, classes); `name` and `MEAN` are there.
    code : (patients,) array of int
        True classes.
    controls : sequence of Control
        Repeats with shuffled groups.
    seed : int
        Of the bootstrap.
    """
    weights = bootstrap(code, DRAWS, seed)
    draws = {one: repeated(list(values), code, weights) for one, values in shares.items()}
    rows = [{"model": one, **interval(values)} for one, values in draws.items()]
    difference = interval(draws[name] - draws[MEAN])
    rows.append({"model": f"{name} - {MEAN}", **difference})
    notes = [_compare(name, difference)]
    if controls:
        chance = _chance(list(shares[name]), code, seed)
        for one in (name, MEAN):
            rows.append({"model": one + SHUFFLED, **_spread(one, controls)})
        rows.append({"model": CHANCE, **chance})
        notes.append(_control(rows[-3], chance, len(controls)))
    recommended = name if difference["weighted_f1_low"] > 0 else MEAN
    return Verdict(pd.DataFrame(rows), recommended, (*notes, COVER))


def _compare(name: str, difference: Mapping[str, float]) -> str:
    """Say which of two models is better, by weighted F1."""
    by, low, high = (difference[f"weighted_f1{end}"] for end in ("", "_low", "_high"))
    figures = f"weighted F1 {by:+.3f}, 95 % {low:+.3f} to {high:+.3f}"
    if low > 0:
        return f"Attention ({name}) is better than mean pooling on these patients ({figures})."
    if high < 0:
        return f"Mean pooling is better than attention ({name}) on these patients ({figures}): use mean pooling."
    return (
        f"Attention ({name}) is not shown to be better than mean pooling on these patients ({figures}): use mean "
        "pooling, the simpler one."
    )


def _control(found: Mapping[str, object], chance: Mapping[str, float], count: int) -> str:
    """Say whether models of shuffled groups are at chance."""
    value, high = float(str(found["weighted_f1"])), chance["weighted_f1_high"]
    times = number_of(count, "time")
    text = f"Trained on shuffled groups ({times}), weighted F1 is {value:.3f}; chance is {high:.3f} at most (95 %)"
    if value <= high:
        return (
            f"{text}: no sign of patients being recognised. A stain or scanner that goes with a group is not found "
            "by this."
        )
    return (
        f"{text}. It should not be above: something else, such as shared pictures, tells patients apart. Look for it."
    )


def _spread(name: str, controls: Sequence[Control]) -> dict[str, float]:
    """Mean, least and highest scores of a model over shufflings."""
    each = np.stack([metrics(one.shares[name], one.code, np.ones((1, len(one.code))))[0] for one in controls])
    return columns(each.mean(axis=0), each.min(axis=0), each.max(axis=0))


def _chance(shares: Sequence[Float32], code: Ints, seed: int) -> dict[str, float]:
    """Scores of predictions against groups shuffled over all patients: mean and the middle 95 %."""
    random, each = np.random.default_rng(seed), []
    for number in range(DRAWS // 10):
        each.append(metrics(shares[number % len(shares)], random.permutation(code), np.ones((1, len(code))))[0])
    low, high = np.percentile(each, (2.5, 97.5), axis=0)
    return columns(np.mean(each, axis=0), low, high)
