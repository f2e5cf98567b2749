"""Counts that were made by hand, read from a CSV and checked before anything is compared with them."""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_dinobloom.cells.taxonomy import BY_NAME
from napari_dinobloom.errors import InputError
from napari_dinobloom.io.tables import unreadable
from napari_dinobloom.report.counting import PER_100, Specimen, class_reason
from napari_dinobloom.report.schemes import Scheme, nearest, read_class


def read_manual(
    path: str | Path, *, specimen: Specimen = "blood", scheme: Scheme | None = None, known: Collection[str] = ()
) -> pd.DataFrame:
    """Read counts that were made by hand.

    Parameters
    ----------
    path : str or Path
        CSV (UTF-8; comma, or semicolon with decimal commas) with the columns ``patient``, ``class`` and either ``n``
        (cells) or ``percent`` and ``counted``; ``slide`` where single slides were counted. ``class`` is a name or
        title, or a code of the scheme. The percentages of a count add up to 100 within their rounding; a class that
        stands outside the denominator is given per 100 counted cells. A class without a row was not seen.
    specimen : {"blood", "marrow"}
        Says which classes are in the denominator.
    scheme : Scheme, optional
        Lines that classes are put together in, and their codes.
    known : collection of str
        More classes that may occur: those of the study.

    Returns
    -------
    DataFrame
        One row a line of each count: ``patient slide class`` (str), ``n`` and ``counted`` (int, the denominator),
        ``percent`` (of the denominator, or per 100 of it), ``in_denominator`` (bool).

    Raises
    ------
    InputError
        With file and row: a column is missing, a value is no number or negative, a class is not known (the nearest is
        named), given twice or no part of a differential, or the numbers of a count do not add up.
    """
    path = Path(path)
    rows = _rows(path)
    rows["class"] = [_class(row, path, scheme, known) for row in rows.to_dict("records")]
    reasons = [class_reason(name, specimen, scheme) for name in rows["class"]]
    for row, name, reason in zip(rows["row"], rows["class"], reasons, strict=True):
        if reason not in ("", PER_100):
            raise InputError(f"{path}: row {row}: {name} is no part of this differential ({reason}); take the row out.")
    rows["in_denominator"] = [reason == "" for reason in reasons]
    again = rows[rows.duplicated(["patient", "slide", "class"])]
    if len(again):
        first = again.iloc[0]
        raise InputError(
            f"{path}: row {first['row']} gives {first['class']} of {place_of(first)} again; add the two up."
        )
    parts = [_one_count(part, path) for _, part in rows.groupby(["patient", "slide"], sort=False)]
    found = pd.concat(parts, ignore_index=True)
    found["class"] = [name if scheme is None else scheme.named(name) for name in found["class"]]
    keys = ["patient", "slide", "class", "counted", "in_denominator"]
    found = found.groupby(keys, sort=False, as_index=False)[["n"]].sum()
    found["percent"] = 100 * found["n"] / found["counted"]
    return found[["patient", "slide", "class", "n", "counted", "percent", "in_denominator"]]


def _rows(path: Path) -> pd.DataFrame:
    """The file as text: ``patient slide class`` and the numbers, with ``row`` as a spreadsheet counts."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error, "Give a CSV in UTF-8.") from error
    held = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    if len(held) < 2:
        raise InputError(f"{path}: holds no count; it needs a line of column names and one row a class.")
    comma = ";" if ";" in held[0][1] else ","
    table = list(csv.reader([line for _, line in held], delimiter=comma))
    names = [name.strip().casefold() for name in table[0]]
    wanted = ("patient", "class")
    missing = [name for name in wanted if name not in names]
    if not missing and "n" not in names:
        missing = [name for name in ("percent", "counted") if name not in names]
    if missing or len(set(names)) < len(names) or {"n", "percent"} <= set(names):
        raise InputError(
            f"{path}: the columns are {', '.join(names)[:200]}; needed, once each, are patient, class and either n or "
            f"percent and counted{'; missing: ' + ', '.join(missing) if missing else ''}."
        )
    for (number, _), row in zip(held, table, strict=True):
        if len(row) != len(names):
            raise InputError(f"{path}: row {number} has {len(row)} values, the head {len(names)}: put text in quotes.")
    rows = pd.DataFrame(table[1:], columns=names, dtype=object).map(str.strip)
    if comma == ";":
        numbers = [name for name in ("n", "percent", "counted") if name in rows]
        rows[numbers] = rows[numbers].map(lambda value: value.replace(",", "."))
    rows["slide"] = rows.get("slide", "")
    rows["row"] = [number for number, _ in held[1:]]
    return rows


def _class(row: dict[Any, Any], path: Path, scheme: Scheme | None, known: Collection[str]) -> str:
    """Class that a row means."""
    text = str(row["class"])
    found = (scheme.read(text) if scheme is not None else None) or read_class(text, known)
    if found is None:
        words = [*known, *BY_NAME] if scheme is None else [*known, *BY_NAME, *(line.code for line in scheme.classes)]
        raise InputError(f"{path}: row {row['row']}: {text[:60]!r} is no class{nearest(text, words) or '.'}")
    return found


def _one_count(part: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Numbers of one slide or patient as cells, checked against each other."""
    here = f"{path}: {place_of(part.iloc[0])}"
    inside = part["in_denominator"].to_numpy(dtype=bool)
    if "n" in part:
        n = np.array([_number(row, "n", path, whole=True) for row in part.to_dict("records")])
        counted = n[inside].sum()
        stated = {value for value in part.get("counted", pd.Series(dtype=object)) if value}
        if stated - {f"{counted:.0f}"}:
            raise InputError(
                f"{here}: the cells add up to {counted:.0f}, but counted says {', '.join(sorted(stated))}."
            )
    else:
        percent = np.array([_number(row, "percent", path) for row in part.to_dict("records")])
        every = {_number(row, "counted", path, whole=True) for row in part.to_dict("records")}
        if len(every) > 1:
            raise InputError(f"{here}: counted differs from row to row; it is the number of cells of the whole count.")
        counted = every.pop()
        places = max(len(value.partition(".")[2]) for value in part["percent"])
        slack = 0.5 * inside.sum() * 10.0**-places + 1e-9
        if abs(percent[inside].sum() - 100) > slack:
            raise InputError(
                f"{here}: the percentages add up to {percent[inside].sum():g}, which rounding (up to {slack:.2g}) does "
                "not explain. A class may be missing; cells outside the denominator do not belong to the 100."
            )
        n = np.rint(percent * counted / 100)
    if counted < 1:
        raise InputError(f"{here}: no cell of the denominator was counted.")
    return part.assign(n=n.astype(np.int64), counted=int(counted))


def _number(row: dict[Any, Any], name: str, path: Path, *, whole: bool = False) -> float:
    """Value of a row as a number that is not negative."""
    try:
        value = float(row[name])
    except ValueError:
        value = float("nan")
    if not np.isfinite(value) or value < 0 or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        said = str(row[name])[:30]
        raise InputError(
            f"{path}: row {row['row']}: {name} is {said!r}; write {kind}, 0 for a class that was not seen."
        )
    return value


def place_of(row: pd.Series[Any]) -> str:
    """Patient and slide of a row, for messages."""
    return f"patient {row['patient']}" + (f", slide {row['slide']}" if row["slide"] else "")
