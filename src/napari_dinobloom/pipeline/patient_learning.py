"""What study and pictures have in common: a model, validated and then trained on all, and its table of patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.io.journal import now
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.predict.mil.model import AttentionMIL
    from napari_dinobloom.predict.mil.validation import Validation

Float32 = NDArray[np.float32]


def iter_learn(
    bags: Sequence[Float32],
    y: Sequence[str],
    names: Sequence[str],
    sources: Sequence[set[str]],
    cells: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Steps[tuple[AttentionMIL, Validation, tuple[str, ...]]]:
    """Validate, then train on all; the model remembers the patients, and what was found without their names.

    Returns
    -------
    model : AttentionMIL
    validation : Validation
    notes : tuple of str
        Those of the validation, and on what the model rests.
    """
    from napari_dinobloom.predict.mil.leaks import related
    from napari_dinobloom.predict.mil.model import AttentionMIL
    from napari_dinobloom.predict.mil.validation import iter_validate

    validation = yield from iter_validate(bags, y, names=names, sources=sources, **options)
    own = {key: value for key, value in options.items() if key not in ("given", "folds", "repeats", "permutations")}
    model = AttentionMIL(**own)
    for at in model.iter_fit(bags, y, names=names, groups=related(bags, sources)):
        yield Progress(at.done, at.total, at.message, "train")
    model.remember(bags, sources, out_of_fold(model, validation))
    rests = rests_on(model)
    found = {
        "scores": packed(validation.scores),
        "notes": [*validation.nameless, rests],
        "recommended": validation.recommended,
    }
    model.about = {**cells, **found, "patients": len(bags), "trained_at": now()}
    return model, validation, (*validation.notes, rests)


def rests_on(model: AttentionMIL) -> str:
    """Say how much of the prediction is attention's, and how much mean pooling's."""
    if model.share_ == 0:
        return "The model rests on mean pooling alone (share of attention 0 %): it has no attention to show."
    return f"The model rests on attention by {model.share_:.0%}, on mean pooling by {1 - model.share_:.0%}."


def out_of_fold(model: AttentionMIL, validation: Validation) -> Float32:
    """Probabilities of training patients by models that never saw them, (patients, 2, classes): own, mean pooling."""
    from napari_dinobloom.predict.mil.model import MEAN

    return np.stack([validation.out_of_fold(name) for name in (model.preset.name, MEAN)], axis=1)


def table_of(
    names: Sequence[str],
    cells: Sequence[int],
    groups: Mapping[str, str],
    shares: Float32,
    classes: NDArray[np.str_],
    used: set[int],
) -> pd.DataFrame:
    """Make the table of `PatientResult`; `shares` (patients, 2, classes), `used`: rows of patients used in training."""
    table = pd.DataFrame({"patient": list(names), "cells": list(cells)})
    table["group"] = [groups.get(name, "") for name in names]
    table["predicted_group"] = [str(classes[one]) for one in shares[:, 0].argmax(axis=1)]
    table["out_of_fold"] = [row in used for row in range(len(names))]
    for place, kind in enumerate(("p", "mean")):
        for number, name in enumerate(classes):
            table[f"{kind}:{name}"] = shares[:, place, number].astype(np.float64)
    return table


def packed(frame: pd.DataFrame) -> dict[str, Any]:
    """A table as plain values."""
    return {"columns": list(frame.columns), "rows": frame.astype(object).to_numpy().tolist()}
