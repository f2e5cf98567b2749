"""Tables that people open: CSV with the sentence on their use on top and no cell that a spreadsheet would execute.

The first line is ``# Research use, not for diagnosis``; pandas reads the rest with ``comment="#"``. Text is always in
quotes, so that a ``#`` inside it is no comment. Text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line
break gets an apostrophe in front, unless it is a plain number.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from difflib import get_close_matches
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.atomic import disk_errors, replacing

NOTE = "Research use, not for diagnosis"

_RISKY = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_PLAIN_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def defuse(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet would take for a formula; plain numbers stay as they are."""
    if _RISKY.match(text) and not _PLAIN_NUMBER.fullmatch(text):
        return "'" + text
    return text


def restore(text: str) -> str:
    """Undo `defuse`."""
    return text[1:] if text.startswith("'") and _RISKY.match(text) else text


def write_csv(
    path: Path, table: pd.DataFrame | Iterable[pd.DataFrame], note: bool = True, *, comments: tuple[str, ...] = ()
) -> None:
    """Write a table as UTF-8 CSV, whole or not at all.

    Parameters
    ----------
    path : Path
        File to replace.
    table : DataFrame or iterable of DataFrame
        Its index is not written. Numbers keep all their digits, missing ones are empty. Of a very long one, parts that
        have the same columns, one after the other.
    note : bool
        Whether the first line is `NOTE` behind ``#``.
    comments : tuple of str
        More lines behind ``#``, e.g. how an interval is meant.

    Raises
    ------
    StudyError
        If the disk is full or the folder may not be written.
    """
    parts = [table] if isinstance(table, pd.DataFrame) else table
    lines = ([NOTE] if note else []) + [" ".join(text.split()) for text in comments]
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as handle:
            handle.writelines(f"# {line}\n" for line in lines)
            for number, one in enumerate(parts):
                safe = _safe(one)
                safe.to_csv(handle, index=False, header=not number, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)


def _safe(table: pd.DataFrame) -> pd.DataFrame:
    """A copy whose text no program takes for a formula."""
    safe = table.copy()
    for place in range(safe.shape[1]):
        column = safe.iloc[:, place]
        if column.dtype.kind not in "biufcM":
            safe.isetitem(place, [_cell(value) for value in column.astype(object)])
    safe.columns = pd.Index([defuse(str(name)) for name in safe.columns])
    return safe


def _cell(value: object) -> object:
    """Return text made safe; missing values and numbers in a mixed column as they are."""
    if isinstance(value, str):
        return defuse(value)
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return np.nan
    return value if isinstance(value, (bool, int, float, np.generic)) else defuse(str(value))


def unreadable(path: Path, error: Exception, remedy: str = "") -> InputError:
    """Return an error that says why a table cannot be read: that it is not there, or what is wrong with it."""
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: there is no such file. Check the name.")
    return InputError(f"{path}: cannot be read as a table ({error}). {remedy}".rstrip())


def read_csv(path: Path) -> pd.DataFrame:
    """Read a table that `write_csv` wrote, apostrophes taken away again; empty text stays ``""``.

    Raises
    ------
    InputError
        If the file is missing or no table.
    """
    try:
        table = pd.read_csv(path, comment="#", encoding="utf-8", na_values={}, keep_default_na=True)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    for name in table.columns:
        if table[name].dtype.kind not in "biufcM":
            filled = table[name].astype(object).where(table[name].notna(), "")
            table[name] = [restore(value) if isinstance(value, str) else value for value in filled]
    table.columns = pd.Index([restore(str(name)) for name in table.columns])
    return table


def read_typed(path: Path, *columns: str) -> pd.DataFrame:
    """Read a CSV that a person or another program made: all text, lines that begin with ``#`` are comments.

    Parameters
    ----------
    path : Path
        The file.
    *columns : str
        Those that it must have.

    Returns
    -------
    DataFrame
        All columns, white space around names and values taken away, apostrophes of `defuse` too; "" where empty.

    Raises
    ------
    InputError
        If it cannot be read or lacks a column.
    """
    try:
        text = re.sub(r"(?m)^#.*\n?", "", path.read_text(encoding="utf-8-sig"))
        table = pd.read_csv(StringIO(text), dtype=str, keep_default_na=False).fillna("")
    except (OSError, ValueError) as error:
        raise unreadable(path, error, f"Give a CSV with the columns {', '.join(columns)}.") from error
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    if missing := [name for name in columns if name not in table]:
        near = get_close_matches(missing[0], list(table.columns), 1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"{path}: has no column {missing[0]!r}{meant}. It needs {' and '.join(columns)}.")
    return table.map(lambda value: restore(value.strip()))
