"""The differential count: per slide and patient, with its uncertainty, and a summary of what was not counted.

Which cells count is stated in `napari_dinobloom.report.counting`. Research use, not for diagnosis.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED, describe
from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.explore.proportions import wilson
from napari_dinobloom.report.counting import (
    PER_100,
    REASONS,
    SMUDGE,
    Specimen,
    class_reason,
    counting,
    in_order,
    table_of,
    text,
)
from napari_dinobloom.report.quantify import check_confusion, corrected_percent, ratio_interval

if TYPE_CHECKING:
    from anndata import AnnData

VERSION = 1
LEVELS = ("patient", "slide")
FEW = 100
FEW_NOTE = "fewer than 100 cells"
FAR_SHARE = 0.10
"""Share of cells beyond the atlas' distance limit above which a count is not corrected: the confusion of the atlas' own
kind of smears says nothing about others."""
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
"""Lineages that are myeloid in the myeloid to erythroid ratio. Blasts are left out of it: their lineage is not to be
seen in a smear. Laboratories differ in whether monocytes are included; here they are."""


def differential(
    cells: AnnData | pd.DataFrame,
    *,
    specimen: Specimen = "blood",
    by: Sequence[str] = LEVELS,
    confusion: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Differential count per patient and slide.

    Parameters
    ----------
    cells : AnnData or DataFrame
        The cell table (see the study format), or its `obs`.
    specimen : {"blood", "marrow"}
        Blood: the denominator is white cells; erythroblasts and smudge cells are given per 100 of them. Marrow: it is
        nucleated cells, erythroid ones included; smudge cells are given per 100 of them.
    by : sequence of {"patient", "slide"}
        Levels to count at.
    confusion : DataFrame, optional
        Held-out confusion of what named the cells (`Atlas.confusion_table`), for the corrected columns. By default
        the one that `pack_confusion` put into ``uns["dinobloom"]["confusion"]``; without any they are NaN.

    Returns
    -------
    DataFrame
        One row for each level, patient, slide and class. Columns: ``level patient slide class`` (str; slide is ""
        at level patient), ``n`` (cells of the class), ``counted`` (cells in the denominator), ``percent low high``
        (Wilson 95 %, counting error only; NaN outside the denominator), ``corrected corrected_low corrected_high``
        (percent, 95 %), ``per_100_wbc per_100_low per_100_high`` (for classes outside the denominator, else NaN),
        ``in_denominator`` (bool), ``note`` (fewer than 100 cells; not corrected, as more than 10 % of the cells are
        unlike the atlas; or ""). Every level lists the same classes; platelets and artefacts are never listed.
        ``unclassified`` is the line of cells that nobody and nothing named.

    Raises
    ------
    DinoBloomError
        If specimen or level is not known, no cell was classified, or the confusion is not of what named the cells.
    """
    _check_levels(by)
    if confusion is None:
        confusion = _stored_confusion(cells)
    if confusion is not None:
        check_confusion(confusion)
    counted = counting(cells, specimen=specimen)
    counted["far"] = _far(cells)
    seen = set(counted.loc[counted["reason"].isin(["", PER_100]), "class"])
    known_to_atlas = set() if confusion is None else set(confusion.index)
    listed = {name for name in seen | known_to_atlas if class_reason(name, specimen) in ("", PER_100)}
    names = in_order(listed | {UNCLASSIFIED})
    frames = [
        _lines(part, names, specimen, confusion).assign(level=level, patient=patient, slide=slide)
        for level, patient, slide, part in _groups(table_of(cells), counted, by)
    ]
    if not frames:
        frames = [_lines(counted, names, specimen, None).iloc[:0].assign(level="", patient="", slide="")]
    return pd.concat(frames, ignore_index=True)[list(TITLES)]


def summary(cells: AnnData | pd.DataFrame, *, specimen: Specimen = "blood", by: Sequence[str] = LEVELS) -> pd.DataFrame:
    """What was counted and what was not, per patient and slide.

    Parameters
    ----------
    cells, specimen, by
        As for `differential`.

    Returns
    -------
    DataFrame
        One row for each level, patient and slide. Columns: ``level patient slide``, ``cells`` (all rows),
        ``counted`` (in the denominator), ``unclassified`` (of these, not named), ``labelled`` (of these, named by a
        person), one column for each of `REASONS` (cells not counted, by the first reason that applies; these and
        ``counted`` add up to ``cells``), ``erythroblasts_per_100`` and ``smudge_per_100`` with ``_low`` and ``_high``
        (per 100 counted cells; the first NaN in marrow, where erythroblasts count), ``myeloid erythroid me_ratio
        me_low me_high`` (marrow; ratio NaN in blood), ``note``.
    """
    _check_levels(by)
    counted = counting(cells, specimen=specimen)
    rows = [
        {"level": level, "patient": patient, "slide": slide, **_totals(part, specimen)}
        for level, patient, slide, part in _groups(table_of(cells), counted, by)
    ]
    if rows:
        return pd.DataFrame(rows)
    empty = {"level": "", "patient": "", "slide": "", **_totals(counted, specimen)}
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


def _lines(
    cells: pd.DataFrame, names: Sequence[str], specimen: Specimen, confusion: pd.DataFrame | None
) -> pd.DataFrame:
    """Lines of the differential of one slide or patient, one for each of `names`."""
    usable = cells[cells["reason"].isin(["", PER_100])]
    n = usable["class"].value_counts().reindex(list(names), fill_value=0).to_numpy(dtype=np.int64)
    inside = np.array([class_reason(name, specimen) == "" for name in names])
    total = int(n[inside].sum())
    low, high = wilson(np.where(inside, n, 0), total)
    share = np.where(inside, n, 0) / (total or np.nan)
    beside, beside_low, beside_high = _per_100(np.where(inside, 0, n), total)
    lines = pd.DataFrame(
        {
            "class": pd.Series(names, dtype=object),
            "n": n,
            "counted": total,
            "percent": np.where(inside, 100 * share, np.nan),
            "low": np.where(inside, 100 * low, np.nan),
            "high": np.where(inside, 100 * high, np.nan),
            "per_100_wbc": np.where(inside, np.nan, beside),
            "per_100_low": np.where(inside, np.nan, beside_low),
            "per_100_high": np.where(inside, np.nan, beside_high),
            "in_denominator": inside,
            "note": FEW_NOTE if total < FEW else "",
        }
    )
    far = usable.loc[~usable["known"].to_numpy(dtype=bool), "far"]
    if confusion is not None and len(far) and far.mean() > FAR_SHARE:
        confusion = None
        lines["note"] = [f"{note}; {FAR_NOTE}".removeprefix("; ") for note in lines["note"]]
    corrected = _corrected(cells, names, inside, confusion)
    return pd.concat([lines, corrected.reset_index(drop=True)], axis=1)


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


def _corrected(
    cells: pd.DataFrame, names: Sequence[str], inside: NDArray[np.bool_], confusion: pd.DataFrame | None
) -> pd.DataFrame:
    """Corrected percentages of `names`, NaN outside the denominator and where there is no confusion."""
    columns = {"corrected": "corrected", "low": "corrected_low", "high": "corrected_high"}
    if confusion is None:
        return pd.DataFrame(np.nan, index=list(names), columns=list(columns.values()))
    usable = cells[cells["reason"].isin(["", PER_100, "platelet", "artefact"])]
    known = usable["known"].to_numpy(dtype=bool)
    denominator = {name for name, counts in zip(names, inside, strict=True) if counts}
    found = corrected_percent(
        usable.loc[~known, "class"].value_counts().to_dict(),
        usable.loc[known, "class"].value_counts().to_dict(),
        confusion,
        denominator,
    )
    wide = found.rename(columns=columns).reindex(list(names))
    if len(usable):
        # Nothing that the atlas or a person can name is left: all of it was shared out among the classes.
        wide.loc[[name for name in denominator if name not in found.index]] = 0.0
    return wide


def _totals(cells: pd.DataFrame, specimen: Specimen) -> dict[str, Any]:
    """Counts of one slide or patient for `summary`."""
    inside = cells[cells["reason"] == ""]
    total = len(inside)
    beside = cells.loc[cells["reason"] == PER_100, "class"]
    erythroblasts = int((beside != SMUDGE).sum()) if specimen == "blood" else None
    row: dict[str, Any] = {
        "cells": len(cells),
        "counted": total,
        "unclassified": int((inside["class"] == UNCLASSIFIED).sum()),
        "labelled": int(inside["known"].sum()),
        **{reason: int((cells["reason"] == reason).sum()) for reason in REASONS},
    }
    for name, count in (("erythroblasts_per_100", erythroblasts), ("smudge_per_100", int((beside == SMUDGE).sum()))):
        ratio = (np.nan, np.nan, np.nan) if count is None or total == 0 else ratio_interval(count, total)
        for ending, value in zip(("", "_low", "_high"), ratio, strict=True):
            row[name + ending] = 100 * value
    lineage = inside["class"].map(lambda name: "" if name == "blast" else describe(name).lineage)
    myeloid, erythroid = int(lineage.isin(MYELOID).sum()), int((lineage == "erythroid").sum())
    me = ratio_interval(myeloid, erythroid) if specimen == "marrow" else (np.nan, np.nan, np.nan)
    row |= {"myeloid": myeloid, "erythroid": erythroid}
    row |= dict(zip(("me_ratio", "me_low", "me_high"), me, strict=True))
    row["note"] = FEW_NOTE if total < FEW else ""
    return row


def pack_confusion(confusion: pd.DataFrame) -> str:
    """Confusion table as JSON text, as it stands in ``uns["dinobloom"]["confusion"]`` of a cell table."""
    check_confusion(confusion)
    return json.dumps(
        {
            "true": list(confusion.index),
            "named": list(confusion.columns),
            "counts": confusion.to_numpy(dtype=np.int64).tolist(),
        }
    )


def unpack_confusion(document: str) -> pd.DataFrame:
    """Confusion table from what `pack_confusion` wrote.

    Raises
    ------
    DinoBloomError
        If it is not such a text.
    """
    try:
        parts = json.loads(document)
        table = pd.DataFrame(np.asarray(parts["counts"], dtype=np.int64), index=parts["true"], columns=parts["named"])
    except (ValueError, TypeError, KeyError) as error:
        raise DinoBloomError(
            f"The stored confusion table cannot be read ({error}): classify the cells again"
        ) from error
    check_confusion(table)
    return table


def _stored_confusion(cells: AnnData | pd.DataFrame) -> pd.DataFrame | None:
    """Confusion that travels with the cell table, if there is one."""
    if isinstance(cells, pd.DataFrame):
        return None
    stored = cells.uns.get("dinobloom", {}).get("confusion", "")
    return unpack_confusion(str(stored)) if stored else None
