"""Attention MIL from a table of pictures, without a study: one picture of a cell a row, with its patient and group."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.atomic import disk_errors
from napari_dinobloom.io.tables import write_csv
from napari_dinobloom.pipeline.cohort import read_table
from napari_dinobloom.pipeline.patient_learning import iter_learn, out_of_fold, table_of
from napari_dinobloom.pipeline.patients import PatientResult
from napari_dinobloom.progress import Steps

if TYPE_CHECKING:
    import pandas as pd

SUFFIX = ".safetensors"


def iter_train_pictures(
    table: Path, out: Path, *, encoder: str = "starter", device: str = "auto", precision: str = "auto", **options: Any
) -> Steps[PatientResult]:
    """Embed the pictures of patients, validate, and train.

    Parameters
    ----------
    table : Path
        CSV with the columns ``file`` (relative to it), ``patient``, ``diagnosis``, and ``pool`` where folds are given:
        patients with one value of it stand in one fold.
    out : Path
        Model file NAME.safetensors; NAME_patients.csv and NAME_scores.csv are written beside it.
    encoder, device, precision : str
        As for `load_encoder`; pictures are taken whole (``published`` crops).
    **options
        As for `iter_train_patients`.

    Raises
    ------
    DinoBloomError
        If a column, picture or label is missing, a patient has two groups or two folds, the groups are too small, or
        `table` itself would be written over.
    """
    from napari_dinobloom.cells.crop import CropPolicy
    from napari_dinobloom.encoders.encoder import load_encoder
    from napari_dinobloom.predict.pictures import iter_embed_files

    if out.suffix != SUFFIX or not out.parent.is_dir():
        raise InputError(f"{out}: the model is a file NAME{SUFFIX} in a folder that is there.")
    predictions, scores = (out.with_name(f"{out.stem}_{what}.csv") for what in ("patients", "scores"))
    if taken := [path for path in (out, predictions, scores) if path.exists() and path.samefile(table)]:
        raise InputError(f"{taken[0]}: is the table of pictures and would be written over. Give --out another name.")
    rows = read_table(table)
    names = list(dict.fromkeys(rows["patient"]))
    y = only(table, rows, "diagnosis", names)
    given = only(table, rows, "pool", names) if "pool" in rows else None
    files, at = np.unique(rows["file"].to_numpy(str), return_inverse=True)
    policy = CropPolicy(kind="published")
    with load_encoder(encoder, device, precision) as loaded:  # type: ignore[arg-type]
        embedded = yield from iter_embed_files([table.parent / file for file in files], loaded, policy)
        cells = {"encoder": loaded.name, "encoder_sha256": loaded.sha256, "pooling": loaded.pooling}
    patient = rows["patient"].to_numpy(str)
    bags = [embedded.X[at[patient == name]] for name in names]
    sources = [set(embedded.source[at[patient == name]].tolist()) for name in names]
    asked = {"device": device, "given": given, **options}
    about = {**cells, "crops": policy.to_dict(), "stain": ""}
    model, validation, notes = yield from iter_learn(bags, y, names, sources, about, asked)
    shares = out_of_fold(model, validation)
    counts = [len(bag) for bag in bags]
    predicted = table_of(
        names, counts, dict(zip(names, y, strict=True)), shares, model.classes_, set(range(len(names)))
    )
    with disk_errors(out):
        model.save(out)
    write_csv(predictions, predicted, comments=notes)
    write_csv(scores, validation.scores, comments=notes)
    return PatientResult(validation.classes, predicted, validation.scores, notes, out, validation.recommended)


def only(table: Path, rows: pd.DataFrame, column: str, names: Sequence[str]) -> list[str]:
    """Value of a column for each patient; raise InputError where a patient has two, or none."""
    found: dict[str, str] = {}
    for number, (patient, value) in enumerate(zip(rows["patient"], rows[column], strict=True), start=2):
        if not patient or not value:
            raise InputError(f"{table}: row {number} has no patient or no {column}; complete or remove it.")
        if found.setdefault(patient, value) != value:
            raise InputError(
                f"{table}: row {number}: patient {patient!r} has the {column} {found[patient]!r} already, "
                f"not {value!r}. A patient has one."
            )
    return [found[name] for name in names]
