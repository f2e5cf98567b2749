"""What an evaluation found: scores with their spread and intervals, tables of classes, and each prediction."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.io.atomic import disk_errors, write_text
from napari_dinobloom.io.tables import NOTE, write_csv
from napari_dinobloom.predict.evaluation import table_scores
from napari_dinobloom.predict.protocols.intervals import Counts

Protocol = Literal["paper", "strict"]

LEAST_SUPPORT = 20
"""Pictures that are asked about, below which a class is left out of ``balanced_accuracy_20``."""

COLUMNS = ("method", "metric", "value", "sd", "lowest", "highest", "runs", "low", "high")
"""Of the table of scores: see `Evaluation`."""

PROGRAMS = ("napari-dinobloom", "scikit-learn", "numpy", "torch", "pillow")

Row = dict[str, object]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """How good an encoder is on a data set.

    Attributes
    ----------
    protocol : str
        ``paper`` or ``strict``.
    classes : tuple of str
        Sorted names.
    metrics : DataFrame
        One row for each method and metric. ``value``: the score, 0 to 1 (paper: mean over folds). ``sd lowest highest
        runs``: its spread over the folds (paper) or draws (strict). ``low high``: 95 % interval over pictures, or over
        patients where they are known.
    per_class : DataFrame
        ``method class precision recall f1 support`` of the predictions that are reported.
    confusion : dict of DataFrame
        By method: true classes in rows, predicted ones in columns.
    predictions : DataFrame
        One row for each picture (of bags: patient) that was asked about: ``file label patient fold`` and a column for
        each method.
    copies : DataFrame
        Pictures that were left out as copies (strict), as `copies.Copies` describes.
    notes : tuple of str
        What to know, in words.
    """

    protocol: Protocol
    classes: tuple[str, ...]
    metrics: pd.DataFrame
    per_class: pd.DataFrame
    confusion: dict[str, pd.DataFrame]
    predictions: pd.DataFrame
    copies: pd.DataFrame
    notes: tuple[str, ...]


def all_scores(table: Counts, counted: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """The three scores of tables (..., K, K), and the balanced accuracy of the classes that are counted."""
    return {**table_scores(table), "balanced_accuracy_20": table_scores(table, counted)["balanced_accuracy"]}


def metric_rows(
    method: str,
    parts: Mapping[str, NDArray[np.float64]],
    spread: Mapping[str, NDArray[np.float64]],
    bounds: Mapping[str, tuple[float, float]],
) -> list[Row]:
    """Rows of the table of scores of a method.

    Parameters
    ----------
    method : str
        Its name.
    parts : mapping of (p,) arrays
        Scores of the parts that are averaged.
    spread : mapping of (r,) arrays
        Scores of the runs over which they spread.
    bounds : mapping of (low, high)
        Intervals.
    """
    rows = []
    for metric, values in parts.items():
        over = spread[metric]
        numbers = (values.mean(), over.std(), over.min(), over.max(), len(over), *bounds[metric])
        rows.append(dict(zip(COLUMNS, (method, metric, *numbers), strict=True)))
    return rows


def write_evaluation(found: Evaluation, folder: Path, about: Mapping[str, object]) -> list[Path]:
    """Write the tables of an evaluation, and ``run.json``, which says how they came about.

    Parameters
    ----------
    found : Evaluation
        What was found.
    folder : Path
        Is made where it is not there; files of the same names are replaced.
    about : mapping
        Settings and hashes, in plain JSON types.

    Returns
    -------
    list of Path
        ``metrics.csv``, ``per_class.csv``, ``predictions.csv``, ``run.json``, and ``copies.csv`` where copies were left
        out.

    Raises
    ------
    StudyError
        If the disk is full or the folder may not be written.
    """
    tables = {"metrics": found.metrics, "per_class": found.per_class, "predictions": found.predictions}
    if len(found.copies):
        tables["copies"] = found.copies
    paths = [folder / f"{name}.csv" for name in tables]
    for path, table in zip(paths, tables.values(), strict=True):
        write_csv(path, table)
    run = {
        "use": NOTE,
        "protocol": found.protocol,
        **about,
        "classes": list(found.classes),
        "asked": len(found.predictions),
        "copies": len(found.copies),
        "notes": list(found.notes),
        "versions": {name: metadata.version(name) for name in PROGRAMS},
    }
    with disk_errors(folder / "run.json"):
        write_text(folder / "run.json", json.dumps(run, indent=1, ensure_ascii=False) + "\n")
    return [*paths, folder / "run.json"]
