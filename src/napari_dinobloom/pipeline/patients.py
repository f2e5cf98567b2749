"""The predicted group of each patient of a study: trained on patients with a known group, or by a model file.

A model lies in ``models/patients-HASH8.safetensors``; what it found in ``models/patients.json``, which is written last
and is what `patient_result` reads, and for people in ``tables/patients.csv`` and ``tables/patients_scores.csv``. The
attention of each cell stands in the cell table (`explore.cell_attention`). Of a patient who was used in training only
the out-of-fold prediction is given.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.errors import InputError, StudyError
from napari_dinobloom.explore.cell_attention import keeping_attention
from napari_dinobloom.explore.gates.base import nearest
from napari_dinobloom.io.atomic import disk_errors, write_text
from napari_dinobloom.io.tables import write_csv
from napari_dinobloom.io.trust import inside
from napari_dinobloom.pipeline.patient_bags import Bags, Seen, about, collect, made_of
from napari_dinobloom.pipeline.patient_groups import groups_of
from napari_dinobloom.pipeline.patient_learning import Float32, iter_learn, out_of_fold, packed, table_of
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.predict.mil.attention import Attention
    from napari_dinobloom.predict.mil.model import AttentionMIL

STATE = "models/patients.json"
TABLE, SCORES = "tables/patients.csv", "tables/patients_scores.csv"
SCHEMA = 1
_MOST_BYTES = 1 << 27
SAME = ("encoder_sha256", "pooling", "crops", "stain")
"""What the cells of a study and those a model was trained on have in common."""
NAMED = 10
"""Patients that a note names."""
OUTDATED = "Predicted groups were made with other embeddings or cells than the study has now: train or apply again."


@dataclass(frozen=True, slots=True, eq=False)
class PatientResult:
    """What is predicted of the patients of a study.

    Attributes
    ----------
    classes : tuple of str
        Groups in sorted order.
    table : DataFrame
        One row a patient with cells: ``patient cells group predicted_group out_of_fold``, then the probability of each
        group by the model (``p:GROUP``) and by mean pooling (``mean:GROUP``), 0 to 1. ``group`` is empty where none is
        known. ``out_of_fold`` (bool): used in training; predicted by models that never saw the patient.
    scores : DataFrame
        `Validation.scores` of the model.
    notes : tuple of str
        Warnings and findings in words.
    model : Path
        The model file.
    recommended : str
        The model of `scores` that the validation recommends.
    made_of : str
        Digest of the cells that it was made of, see `fits`; empty where that was no study.
    """

    classes: tuple[str, ...]
    table: pd.DataFrame
    scores: pd.DataFrame
    notes: tuple[str, ...]
    model: Path
    recommended: str = ""
    made_of: str = ""


def iter_train_patients(study: Study, groups: Mapping[str, str], **options: Any) -> Steps[PatientResult]:
    """Train on the patients of a study whose group is known, and predict all of its patients.

    Parameters
    ----------
    study : Study
        Open for writing; its cells are embedded.
    groups : mapping
        Patient to known group.
    **options
        As for `validation.iter_validate`: ``preset``, ``folds``, ``repeats``, ``permutations``, ``seed``, ``device``,
        and settings of the preset.

    Yields
    ------
    Progress
        The first message warns if a group has fewer than 10 patients.

    Raises
    ------
    InputError, StudyError
        If no patient with a group has a cell that can be used, groups are too small, or nothing may be written.
    """
    study.ensure_writable()
    bags = collect(study)
    groups, left_out = with_cells(study, bags.names, groups)
    known = np.flatnonzero([name in groups for name in bags.names])
    model, validation, found = yield from iter_learn(
        [np.asarray(bags.X[row]) for row in known],
        [groups[bags.names[row]] for row in known],
        [bags.names[row] for row in known],
        [bags.sources[row] for row in known],
        about(study),
        options,
    )
    yield Progress(0, 1, "all patients", "predict")
    others = np.setdiff1d(np.arange(len(bags.names)), known)
    shares = np.zeros((len(bags.names), 2, len(model.classes_)), np.float32)
    shares[known] = out_of_fold(model, validation)
    attention: list[Attention | None] = [None] * len(bags.names)
    for row, one in zip(known, validation.attention, strict=True):
        attention[row] = one
    _predict(model, bags, others, shares, attention)
    table = table_of(bags.names, [len(x) for x in bags.X], groups, shares, model.classes_, set(known.tolist()))
    notes = (left_out, *found) if left_out else found
    result = _keep(study, model, table, validation.scores, notes, validation.recommended, bags, attention)
    yield Progress(1, 1, "all patients", "predict")
    return result


def iter_apply_patients(study: Study, model: Path) -> Steps[PatientResult]:
    """Predict the patients of a study by a model file.

    Patients the model was trained on are recognised by most of their embeddings or fields and get their out-of-fold
    prediction; their attention is that of the model itself. Groups are those given in the study.

    Raises
    ------
    InputError, StudyError
        If the file is no model, or belongs to another encoder or other crops, or nothing may be written.
    """
    from napari_dinobloom.predict.mil.model import AttentionMIL

    study.ensure_writable()
    loaded = AttentionMIL.load(model)
    check_same(loaded, about(study), model)
    bags, groups = collect(study), groups_of(study)
    yield Progress(0, 1, "all patients", "predict")
    shares = np.zeros((len(bags.names), 2, len(loaded.classes_)), np.float32)
    attention: list[Attention | None] = [None] * len(bags.names)
    _predict(loaded, bags, np.arange(len(bags.names)), shares, attention)
    trained = loaded.trained_on_
    notes = [_of_whom(loaded)]
    seen = np.full(len(bags.names), -1)
    if trained is not None:
        seen, partly = trained.find(bags.X, bags.sources)
        shares[seen >= 0] = trained.shares[seen[seen >= 0]]
        if partly.any():
            names = _named([bags.names[row] for row in np.flatnonzero(partly)])
            notes.append(
                f"Patients who share a picture with one the model was trained on: {names}. They have a prediction of "
                "their own, which that picture flatters."
            )
    used = set(np.flatnonzero(seen >= 0).tolist())
    table = table_of(bags.names, [len(x) for x in bags.X], groups, shares, loaded.classes_, used)
    scores, said = _unpacked(loaded.about["scores"]), (*notes, *map(str, loaded.about["notes"]))
    result = _keep(study, loaded, table, scores, said, str(loaded.about.get("recommended", "")), bags, attention)
    yield Progress(1, 1, "all patients", "predict")
    return result


def with_cells(study: Study, names: Sequence[str], groups: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Leave out patients without a cell that can be used.

    Parameters
    ----------
    study : Study
        The study.
    names : sequence of str
        Patients with cells that take part, `Bags.names`.
    groups : mapping
        Patient to group.

    Returns
    -------
    groups : dict
        The others.
    note : str
        Who was left out; "" where nobody was.

    Raises
    ------
    InputError
        If nobody is left.
    """
    used = {patient: group for patient, group in groups.items() if patient in names}
    gone = sorted(set(groups) - set(used))
    if not gone:
        return used, ""
    known = set(study.cells.obs["patient"].astype(str))
    unknown = next((name for name in gone if name not in known), None)
    hint = "" if unknown is None else nearest(unknown, known)
    note = f"Left out, without a cell that can be used (living, not excluded, embedded): {_named(gone)}{hint or '.'}"
    if not used:
        raise InputError(f"{study.path}: no patient with a group is left. {note}")
    return used, note


def patient_result(study: Study) -> PatientResult | None:
    """Read what was trained or applied last; None where nothing was. Whether it still holds is said by `fits`.

    Raises
    ------
    StudyError
        If the file is damaged.
    """
    path = inside(study.path, STATE)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is {path.stat().st_size:,} bytes long")
        raw = json.loads(path.read_text(encoding="utf-8"))
        classes, notes = tuple(map(str, raw["classes"])), tuple(map(str, raw["notes"]))
        table, scores = _unpacked(raw["table"]), _unpacked(raw["scores"])
        shown = [f"{kind}:{name}" for kind in ("p", "mean") for name in classes]
        table = table.astype({"cells": int, "out_of_fold": bool} | dict.fromkeys(shown, float))
        model = inside(study.path, str(raw["model"]))
        more = {key: str(raw.get(key, "")) for key in ("recommended", "made_of")}
        return PatientResult(classes, table, scores, notes, model, **more)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StudyError(f"{path}: is damaged ({error}). Delete it, and train or apply the model again.") from error


def fits(study: Study, result: PatientResult, seen: Seen | None = None) -> bool:
    """Whether a result was made of the embeddings and cells that the study has now; `seen` as for `made_of`."""
    try:
        return result.made_of == made_of(study, seen)
    except StudyError:  # not embedded any more
        return False


def check_same(model: AttentionMIL, cells: Mapping[str, Any], path: Path) -> None:
    """Raise InputError if a model was trained on another encoder's cells, or on other crops."""
    if not {*SAME, "scores", "notes", "patients"} <= set(model.about):
        raise InputError(f"{path}: this model does not say on which cells it was trained. Train one on a study.")
    for name in SAME:
        if model.about[name] != cells[name]:
            raise InputError(
                f"{path}: this model was trained on cells of another kind ({name} {model.about[name]!r}, "
                f"here {cells[name]!r}). Embed the study as the model's cells were, or train a model on this one."
            )


def _of_whom(model: AttentionMIL) -> str:
    """Whose scores a model file holds."""
    return f"These scores are of the {model.about['patients']} patients the model was trained on, not of this study."


def _named(names: Sequence[str]) -> str:
    """Some patients in words."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(repr, names[:NAMED])) + more


def _predict(
    model: AttentionMIL, bags: Bags, rows: NDArray[np.intp], shares: Float32, attention: list[Attention | None]
) -> None:
    """Fill in probabilities and attention of some patients."""
    from napari_dinobloom.predict.mil.model import MEAN

    if not len(rows):
        return
    for row in rows:  # one after the other: the cells of all may not fit into memory
        bag = [np.asarray(bags.X[row])]
        found = model.proba(bag)
        shares[row, 0], shares[row, 1] = found[model.preset.name][0], found[MEAN][0]
        attention[row] = model.attention(bag)[0]


def _keep(
    study: Study,
    model: AttentionMIL,
    table: pd.DataFrame,
    scores: pd.DataFrame,
    notes: tuple[str, ...],
    recommended: str,
    bags: Bags,
    attention: Sequence[Attention | None],
) -> PatientResult:
    """Write model, tables and attention; what `patient_result` reads comes last. Earlier models stay."""
    folder = study.path / "models"
    with disk_errors(folder):
        folder.mkdir(exist_ok=True)
        part = model.save(folder / "patients.safetensors")
        path = folder / f"patients-{hashlib.sha256(part.read_bytes()).hexdigest()[:8]}.safetensors"
        part.replace(path)
    write_csv(study.path / TABLE, table, comments=("out_of_fold: by models that never saw the patient.", *notes))
    write_csv(study.path / SCORES, scores, comments=notes)
    adata, classes = study.cells, model.classes_.tolist()
    values = _values(adata.n_obs, bags, attention if model.share_ > 0 else [None] * len(bags.names), len(classes))
    with keeping_attention(adata, values, classes, path.name):
        study.save_cells(adata)
    state: dict[str, Any] = {"schema": SCHEMA, "model": path.relative_to(study.path).as_posix(), "notes": list(notes)}
    state["classes"] = classes
    state |= {"table": packed(table), "scores": packed(scores)}
    state |= {"recommended": recommended, "made_of": (digested := made_of(study))}
    with disk_errors(study.path / STATE):
        write_text(study.path / STATE, json.dumps(state, ensure_ascii=False, allow_nan=False) + "\n")
    return PatientResult(tuple(classes), table, scores, notes, path, recommended, digested)


def _unpacked(raw: Mapping[str, Any]) -> pd.DataFrame:
    """The table of plain values."""
    return pd.DataFrame(raw["rows"], columns=raw["columns"])


def _values(n: int, bags: Bags, attention: Sequence[Attention | None], classes: int) -> Float32:
    """Attention of each cell, 0 to 1 within its patient, (n, classes); NaN of cells that took no part."""
    values = np.full((n, classes), np.nan, np.float32)
    for rows, one in zip(bags.rows, attention, strict=True):
        if one is not None:
            values[rows] = one.scaled
    return values
