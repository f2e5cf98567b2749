"""The page of a cohort: a line for each patient, their differentials side by side, their map, and the patient model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED
from napari_dinobloom.report.cohort import Cohort, Prediction
from napari_dinobloom.report.figures import MapFigure, map_figure
from napari_dinobloom.report.html import counted_entries, tiles
from napari_dinobloom.report.legend import Legend
from napari_dinobloom.report.overview import Count, Group, cautions
from napari_dinobloom.report.page import facts, own_script, write_page

TOP_CLASSES = 3
_SCORES = {"weighted_f1": "Weighted F1", "auc": "AUC"}
EACH = 12
"""Patients that are also drawn each by itself."""


@dataclass(frozen=True, slots=True)
class Line:
    """One patient in the table; `page` is the address of the patient's page, empty where there is none."""

    patient: str
    page: str
    cells: int
    counted: int
    top: tuple[Count, ...]
    prediction: Prediction | None
    given: str
    warnings: tuple[str, ...]
    group: Group | None


@dataclass(frozen=True, slots=True)
class PeopleMap:
    """The map of all cells coloured by something of their patients, with the legend of its colours."""

    title: str
    figure: MapFigure
    legend: Legend


def write_cohort_page(cohort: Cohort, path: str | Path, *, pages: Mapping[str, str] | None = None) -> Path:
    """Write the page of all patients of a study, whole or not at all.

    Parameters
    ----------
    cohort : Cohort
        The study.
    path : path
        The file; replaced if it exists.
    pages : mapping, optional
        Patient to the file name of the patient's page in the same folder.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    StudyError
        If the file cannot be written; what stood there before is then untouched.
    """
    return write_page(Path(path), "cohort.html.j2", _context(cohort, pages or {}))


def _context(cohort: Cohort, pages: Mapping[str, str]) -> dict[str, object]:
    """What the template draws."""
    data, cells = cohort.data, cohort.cells
    maps = _maps(cohort)
    return {
        "data": data,
        "legend": cohort.legend,
        "tiles": tiles(data),
        "cautions": [
            *cohort.left_out(),
            *cautions(cells, cohort.groups, data.fields, data.problems, data.atlas, data.obs),
        ],
        "lines": [_line(cohort, patient, pages.get(patient, "")) for patient in cohort.patients],
        "counted_entries": counted_entries(data, cohort.legend),
        "maps": maps,
        "map_entries": [entry for one in maps for entry in one.legend.entries],
        "each": EACH,
        "groups": any(cohort.given.get(patient) for patient in cohort.patients),
        "model": cohort.model,
        "scores": _scores(cohort),
        "facts": [*facts([("Hashes", cohort.hashes)]), *data.facts(brief=True)],
        **own_script(),
    }


def _line(cohort: Cohort, patient: str, page: str) -> Line:
    """One patient in the table."""
    whole, _ = cohort.groups_of(patient)
    named = [count for count in whole.counts if count.n and count.entry.name != UNCLASSIFIED] if whole else []
    named.sort(key=lambda count: -count.n)
    warnings = [caution.short for caution in cohort.cautions_of(patient) if caution.level == "warning"]
    return Line(
        patient=patient,
        page=quote(page),
        cells=int((cohort.cells["patient"] == patient).sum()),
        counted=whole.total if whole else 0,
        top=tuple(named[:TOP_CLASSES]),
        prediction=None if cohort.model is None else cohort.model.predictions.get(patient),
        given=cohort.given.get(patient, ""),
        warnings=tuple(filter(None, warnings)),
        group=whole,
    )


def _maps(cohort: Cohort) -> list[PeopleMap]:
    """The map by group, where groups are known, and by patient."""
    cells = cohort.cells
    spots = cohort.data.coordinates[cells["row"].to_numpy(dtype=int)]
    if not np.isfinite(spots).all(axis=1).any():
        return []
    found = []
    if cohort.given:
        of_group = cells["patient"].map(lambda patient: cohort.given.get(patient, "not known"))
        found.append(_map("Groups", spots, of_group, "g"))
    return [*found, _map("Patients", spots, cells["patient"], "p")]


def _map(title: str, spots: np.ndarray[tuple[int, int], np.dtype[np.float64]], kinds: pd.Series, key: str) -> PeopleMap:
    legend = Legend.of_names(sorted(set(kinds)), key)
    return PeopleMap(title, map_figure(spots, kinds, legend), legend)


def _scores(cohort: Cohort) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of the table of scores as text; an estimate and its interval share a cell."""
    if cohort.model is None or cohort.model.scores.empty:
        return [], []
    table = cohort.model.scores
    shown = [str(name) for name in table.columns if not str(name).endswith(("_low", "_high"))]
    titles = [_SCORES.get(name, name.replace("_", " ").capitalize()) for name in shown]
    return titles, [[_cell(row, name) for name in shown] for row in table.to_dict("records")]


def _cell(row: Mapping[object, object], name: str) -> str:
    """One score, with its interval where there is one."""
    value, low, high = (row.get(column) for column in (name, f"{name}_low", f"{name}_high"))
    if not isinstance(value, float):
        return str(value)
    if not np.isfinite(value):
        return "–"
    known = isinstance(low, float) and isinstance(high, float) and np.isfinite([low, high]).all()
    return f"{value:.2f} ({low:.2f}–{high:.2f})" if known else f"{value:.2f}"
