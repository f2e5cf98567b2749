"""The differential count: per slide and patient, with its uncertainty, and a summary of what was not counted.

Which cells count is stated in `napari_dinobloom.report.counting`. Research use, not for diagnosis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED, describe
from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.explore.proportions import wilson
from napari_dinobloom.predict.novelty import FAR_SHARE
from napari_dinobloom.report.counting import (
    LEFT_OUT,
    PER_100,
    REASONS,
    SMUDGE,
    Selection,
    Specimen,
    class_reason,
    counting,
    in_order,
    table_of,
    text,
)
from napari_dinobloom.report.quantify import (
    check_confusion,
    corrected_percent,
    goodman,
    ratio_interval,
    unpack_confusion,
)

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_dinobloom.report.schemes import Scheme

VERSION = 2
LEVELS = ("patient", "slide")
FEW = (100, 200)
"""A count of fewer cells is noted. Laboratories count 100 or more; the reference count of CLSI H20-A2 (2007), against
which analysers are judged, is of 200 cells by each of two examiners."""
REVIEWED_NOTE = "reviewed cells only"
STRANGE_NOTE = "not in the scheme"
FAR_NOTE = "not corrected: the stain or scanner is unlike the atlas"

TITLES: dict[str, str] = {
    "level": "Level",
    "patient": "Patient",
    "slide": "Slide",
    "class": "Class",
    "n": "Cells",
    "counted": "Cells counted",
    "percent": "%",
    "low": "Low (95 %, Wilson, counting error only)",
    "high": "High (95 %, Wilson, counting error only)",
    "simultaneous_low": "Low (95 % for all classes at once, Goodman, counting error only)",
    "simultaneous_high": "High (95 % for all classes at once, Goodman, counting error only)",
    "corrected": "% corrected for the classifier's held-out confusion",
    "corrected_low": "Low (95 %, counting and confusion)",
    "corrected_high": "High (95 %, counting and confusion)",
    "per_100_wbc": "Per 100 counted cells",
    "per_100_low": "Low (95 %, Wilson, counting error only)",
    "per_100_high": "High (95 %, Wilson, counting error only)",
    "in_denominator": "In the denominator",
    "note": "Note",
}
"""What the columns of `differential` are called in tables for people."""

MYELOID = ("granulocytic", "monocytic")
"""Lineages that are myeloid in the myeloid to erythroid ratio. Cells called blasts and no more are left out of it:
their lineage is not to be seen in a smear. Laboratories differ in whether monocytes are included; here they are."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is counted and how: `lines` in order, `inside` (bool) those in the denominator, `note` for each line."""

    lines: tuple[str, ...]
    inside: NDArray[np.bool_]
    specimen: Specimen
    scheme: Scheme | None
    confusion: pd.DataFrame | None
    note: str

    def named(self, name: str) -> str:
        """Line that class `name` is counted in."""
        return name if self.scheme is None else self.scheme.named(name)


def differential(
    table: AnnData | pd.DataFrame,
    /,
    *,
    specimen: Specimen = "blood",
    by: Sequence[str] = LEVELS,
    confusion: pd.DataFrame | None = None,
    scheme: Scheme | None = None,
    cells: Selection = "all",
) -> pd.DataFrame:
    """Differential count per patient and slide.

    Parameters
    ----------
    table : AnnData or DataFrame
        The cell table (see the study format), or its `obs`.
    specimen : {"blood", "marrow"}
        Blood: the denominator is white cells; erythroblasts and smudge cells are given per 100 of them. Marrow: it is
        nucleated cells, erythroid ones included; smudge cells are given per 100 of them.
    by : sequence of {"patient", "slide"}
        Levels to count at.
    confusion : DataFrame, optional
        Held-out confusion of what named the cells (`Atlas.confusion_table`), for the corrected columns. By default
        the one that `pack_confusion` put into ``uns["dinobloom"]["confusion"]``; without any they are NaN.
    scheme : Scheme, optional
        Lines to count in (`report.schemes.load_scheme`); by default each class is a line.
    cells : {"all", "reviewed"}
        Which cells are counted: all, or those that a person has reviewed or labelled. These are not corrected.

    Returns
    -------
    DataFrame
        One row for each level, patient, slide and class. Columns: ``level patient slide class`` (str; slide is ""
        at level patient), ``n`` (cells of the class), ``counted`` (cells in the denominator), ``percent low high``
        (Wilson 95 %, counting error only; NaN outside the denominator), ``simultaneous_low simultaneous_high`` (95 %
        for all lines of the denominator at once, Goodman), ``corrected corrected_low corrected_high`` (percent, 95 %),
        ``per_100_wbc per_100_low per_100_high`` (for classes outside the denominator, else NaN), ``in_denominator``
        (bool), ``note`` (fewer than 100 or 200 cells; reviewed cells only; not in the scheme; not corrected, as more
        than 10 % of the cells are unlike the atlas; or ""). Every level lists the same classes: all lines of the
        scheme, then classes that it lacks and that were seen or that the atlas can name; without a scheme only
        these. Platelets, artefacts and what the scheme leaves out are never listed. ``unclassified`` is the line of
        cells that nobody and nothing named.

    Raises
    ------
    DinoBloomError
        If specimen or level is not known, no cell was classified, or the confusion is not of what named the cells.
    """
    _check_levels(by)
    if confusion is None:
        confusion = _stored_confusion(table)
    if confusion is not None:
        check_confusion(confusion)
    counted = counting(table, specimen=specimen, scheme=scheme, cells=cells)
    counted["far"] = _far(table)
    if cells == "reviewed":
        confusion = None
    plan = _plan(counted, specimen, scheme, confusion, REVIEWED_NOTE if cells == "reviewed" else "")
    parts = [
        _placed(_lines(part, plan), level=level, patient=patient, slide=slide)
        for level, patient, slide, part in _groups(table_of(table), counted, by)
    ]
    if not parts:
        return pd.DataFrame(_placed(_lines(counted, plan), level="", patient="", slide=""))[list(TITLES)].iloc[:0]
    return pd.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in TITLES})


def _placed(lines: dict[str, NDArray[Any]], **place: str) -> dict[str, NDArray[Any]]:
    """Lines with where they belong."""
    return lines | {name: np.full(len(lines["n"]), value, dtype=object) for name, value in place.items()}


def summary(
    table: AnnData | pd.DataFrame,
    /,
    *,
    specimen: Specimen = "blood",
    by: Sequence[str] = LEVELS,
    scheme: Scheme | None = None,
    cells: Selection = "all",
) -> pd.DataFrame:
    """What was counted and what was not, per patient and slide.

    Parameters
    ----------
    table, specimen, by, scheme, cells
        As for `differential`.

    Returns
    -------
    DataFrame
        One row for each level, patient and slide. Columns: ``level patient slide``, ``cells`` (all rows),
        ``counted`` (in the denominator), ``unclassified`` (of these, not named), ``labelled`` (of these, named by a
        person), one column for each of `REASONS` (cells not counted, by the first reason that applies; these and
        ``counted`` add up to ``cells``), ``erythroblasts_per_100`` and ``smudge_per_100`` with ``_low`` and ``_high``
        (per 100 counted cells; NaN where they count themselves, as erythroblasts in marrow, or are left out by the
        scheme), ``myeloid erythroid me_ratio
        me_low me_high`` (marrow; ratio NaN in blood), ``note``.
    """
    _check_levels(by)
    counted = counting(table, specimen=specimen, scheme=scheme, cells=cells)
    note = REVIEWED_NOTE if cells == "reviewed" else ""
    rows = [
        {"level": level, "patient": patient, "slide": slide, **_totals(part, specimen, scheme, note)}
        for level, patient, slide, part in _groups(table_of(table), counted, by)
    ]
    if rows:
        return pd.DataFrame(rows)
    empty = {"level": "", "patient": "", "slide": "", **_totals(counted, specimen, scheme, note)}
    return pd.DataFrame([empty]).iloc[:0]


def _check_levels(by: Sequence[str]) -> None:
    """Raise unless `by` names levels."""
    wrong = [level for level in by if level not in LEVELS] if not isinstance(by, str) else [by]
    if wrong or not by:
        raise DinoBloomError(f"A differential is by {LEVELS}, not by {by!r}; give one or both as a tuple")


def _groups(
    obs: pd.DataFrame, counted: pd.DataFrame, by: Sequence[str]
) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """Yield level, patient, slide and the cells of each, sorted; patients before their slides."""
    table = counted.assign(patient=text(obs, "patient"), slide=text(obs, "slide"))
    for patient, of_patient in table.groupby("patient", sort=True):
        if "patient" in by:
            yield "patient", str(patient), "", of_patient
        if "slide" in by:
            for slide, of_slide in of_patient.groupby("slide", sort=True):
                yield "slide", str(patient), str(slide), of_slide


def _plan(
    counted: pd.DataFrame, specimen: Specimen, scheme: Scheme | None, confusion: pd.DataFrame | None, note: str
) -> _Plan:
    """Lines of all differentials of a table: those of the scheme, then other classes, the unclassified last."""
    listed = ("", PER_100)
    seen = set(counted.loc[counted["reason"].isin(listed), "class"])
    classes = seen | (set() if confusion is None else set(confusion.index))
    reason = {name: class_reason(name, specimen, scheme) for name in classes}
    of_scheme = [] if scheme is None else [line.name for line in scheme.classes]
    reason |= {name: class_reason(name, specimen, scheme) for name in of_scheme}
    others = {name for name in classes if scheme is None or scheme.line(name) is None}
    names = [name for name in of_scheme + in_order(others - set(of_scheme)) if reason[name] in listed]
    lines = (*(name for name in names if name != UNCLASSIFIED), UNCLASSIFIED)
    inside = np.array([class_reason(name, specimen, scheme) == "" for name in lines])
    return _Plan(lines, inside, specimen, scheme, confusion, note)


def _lines(cells: pd.DataFrame, plan: _Plan) -> dict[str, NDArray[Any]]:
    """Lines of the differential of one slide or patient, by column."""
    reason, inside = cells["reason"].to_numpy(), plan.inside
    usable = (reason == "") | (reason == PER_100)
    found: Counter[str] = Counter()
    for name, count in _class_counts(cells, usable).items():
        found[plan.named(name)] += count
    n = np.array([found[name] for name in plan.lines], dtype=np.int64)
    total = int(n[inside].sum())
    low, high = wilson(np.where(inside, n, 0), total)
    share = np.where(inside, n, 0) / (total or np.nan)
    beside, beside_low, beside_high = _per_100(np.where(inside, 0, n), total)
    both = np.full((2, len(n)), np.nan)
    both[:, inside] = goodman(n[inside])
    far = cells["far"].to_numpy(bool)[usable & ~cells["known"].to_numpy(bool)]
    unlike = plan.confusion is not None and len(far) > 0 and far.mean() > FAR_SHARE
    corrected = _corrected(cells, plan, None if unlike else plan.confusion)
    return {
        "class": np.array(plan.lines, dtype=object),
        "n": n,
        "counted": np.full(len(n), total, dtype=np.int64),
        "percent": np.where(inside, 100 * share, np.nan),
        "low": np.where(inside, 100 * low, np.nan),
        "high": np.where(inside, 100 * high, np.nan),
        "simultaneous_low": 100 * both[0],
        "simultaneous_high": 100 * both[1],
        **{str(name): corrected[name].to_numpy() for name in corrected.columns},
        "per_100_wbc": np.where(inside, np.nan, beside),
        "per_100_low": np.where(inside, np.nan, beside_low),
        "per_100_high": np.where(inside, np.nan, beside_high),
        "in_denominator": inside,
        "note": np.array(_notes(plan, total, FAR_NOTE if unlike else ""), dtype=object),
    }


def _notes(plan: _Plan, total: int, unlike: str) -> list[str]:
    """What is to be known of each line."""
    known = None if plan.scheme is None else {line.name for line in plan.scheme.classes} | {UNCLASSIFIED}
    strange = [STRANGE_NOTE if known is not None and name not in known else "" for name in plan.lines]
    return ["; ".join(filter(None, (few_note(total), plan.note, one, unlike))) for one in strange]


def few_note(counted: int) -> str:
    """Note of a count of so few cells; "" for one that is long enough."""
    return next((f"fewer than {few} cells" for few in FEW if counted < few), "")


def _far(cells: AnnData | pd.DataFrame) -> NDArray[np.bool_]:
    """Cells that are farther from the nearest reference cell than the atlas' limit, if the table knows it."""
    obs = table_of(cells)
    if isinstance(cells, pd.DataFrame) or "distance" not in obs:
        return np.zeros(len(obs), dtype=bool)
    limit = float(dict(cells.uns.get("dinobloom", {})).get("distance_limit", np.inf))
    far: NDArray[np.bool_] = obs["distance"].to_numpy(dtype=np.float64) > limit
    return far


def _per_100(n: NDArray[np.int64], total: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Cells per 100 of `total` others, with the interval of the ratio; NaN where `total` is 0."""
    if total == 0:
        nothing = np.full(len(n), np.nan)
        return nothing, nothing, nothing
    values = np.array([ratio_interval(int(count), total) for count in n]).reshape(-1, 3)
    return 100 * values[:, 0], 100 * values[:, 1], 100 * values[:, 2]


def _corrected(cells: pd.DataFrame, plan: _Plan, confusion: pd.DataFrame | None) -> pd.DataFrame:
    """Corrected percentages of the lines, NaN outside the denominator and where there is no confusion."""
    columns = {"corrected": "corrected", "low": "corrected_low", "high": "corrected_high"}
    if confusion is None:
        return pd.DataFrame(np.nan, index=list(plan.lines), columns=list(columns.values()))
    usable = cells[cells["reason"].isin(["", PER_100, "platelet", "artefact", LEFT_OUT])]
    known = usable["known"].to_numpy(dtype=bool)
    classes = {*confusion.index, *usable["class"], UNCLASSIFIED}
    inside = {name for name in classes if class_reason(name, plan.specimen, plan.scheme) == ""}
    found = corrected_percent(
        usable.loc[~known, "class"].value_counts().to_dict(),
        usable.loc[known, "class"].value_counts().to_dict(),
        confusion,
        inside,
        lines={name: plan.named(name) for name in inside},
    )
    wide = found.rename(columns=columns).reindex(list(plan.lines))
    if len(usable):
        # Nothing that the atlas or a person can name is left: all of it was shared out among the classes.
        wide.loc[[n for n, counts in zip(plan.lines, plan.inside, strict=True) if counts and n not in found.index]] = (
            0.0
        )
    return wide


def _totals(cells: pd.DataFrame, specimen: Specimen, scheme: Scheme | None, note: str) -> dict[str, Any]:
    """Counts of one slide or patient for `summary`."""
    reason = cells["reason"].to_numpy()
    inside, beside = (_class_counts(cells, reason == one) for one in ("", PER_100))
    total = sum(inside.values())
    erythroblasts = sum(n for name, n in beside.items() if describe(name).group == "erythroid")
    smudges = beside.get(SMUDGE, 0)
    why = pd.Series(reason).value_counts()
    row: dict[str, Any] = {
        "cells": len(cells),
        "counted": total,
        "unclassified": inside.get(UNCLASSIFIED, 0),
        "labelled": int(cells["known"].to_numpy(bool)[reason == ""].sum()),
        **{one: int(why.get(one, 0)) for one in REASONS},
    }
    for name, of, count in (
        ("erythroblasts_per_100", "erythroblast", erythroblasts),
        ("smudge_per_100", SMUDGE, smudges),
    ):
        given = total > 0 and class_reason(of, specimen, scheme) == PER_100
        ratio = ratio_interval(count, total) if given else (np.nan, np.nan, np.nan)
        for ending, value in zip(("", "_low", "_high"), ratio, strict=True):
            row[name + ending] = 100 * value
    whole = Counter(inside) + Counter(beside if specimen == "marrow" else {})
    lineage: Counter[str] = Counter()
    for name, n in whole.items():
        lineage["" if name == "blast" else describe(name).lineage] += n
    myeloid, erythroid = sum(lineage[one] for one in MYELOID), lineage["erythroid"]
    me = ratio_interval(myeloid, erythroid) if specimen == "marrow" else (np.nan, np.nan, np.nan)
    row |= {"myeloid": myeloid, "erythroid": erythroid}
    row |= dict(zip(("me_ratio", "me_low", "me_high"), me, strict=True))
    row["note"] = "; ".join(filter(None, (few_note(total), note)))
    return row


def _class_counts(cells: pd.DataFrame, which: NDArray[np.bool_]) -> dict[str, int]:
    """How many of some cells each class has."""
    return {str(name): int(n) for name, n in pd.Series(cells["class"].to_numpy()[which]).value_counts().items()}


def _stored_confusion(cells: AnnData | pd.DataFrame) -> pd.DataFrame | None:
    """Confusion that travels with the cell table, if there is one."""
    if isinstance(cells, pd.DataFrame):
        return None
    stored = cells.uns.get("dinobloom", {}).get("confusion", "")
    return unpack_confusion(str(stored)) if stored else None
