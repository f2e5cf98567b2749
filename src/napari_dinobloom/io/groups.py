"""The table of known groups of patients, ``groups.csv``: two columns that other programs read and write too.

In a study it says up to which line of the journal it holds the acts of people. What came later is replayed, so that an
act is never lost between journal and table. A table that does not say so was written by another program and counts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.tables import read_typed, write_csv

FILE = "groups.csv"

_HOLDS = "edits.jsonl up to act {seq}"
_HELD = re.compile(r"(?m)^# edits\.jsonl up to act (\d{1,15})\s*$")


def read_groups(path: Path) -> dict[str, str]:
    """Read groups of patients from a CSV with the columns ``patient`` and ``group``.

    Lines that begin with ``#`` are comments; white space around a name goes.

    Returns
    -------
    dict
        Patient to group; patients with an empty group are left out.

    Raises
    ------
    InputError
        The file cannot be read, lacks a column, or puts a patient into two groups.
    """
    groups: dict[str, str] = {}
    table = read_typed(Path(path), "patient", "group")
    for patient, group in zip(table["patient"], table["group"], strict=True):
        if groups.get(patient, group) != group:
            raise InputError(
                f"{path}: patient {patient!r} is in the groups {groups[patient]!r} and {group!r}. Keep one of the rows."
            )
        if group:
            groups[patient] = group
    return groups


def read_group_table(path: Path) -> tuple[dict[str, str], int]:
    """Read the groups of a study as `read_groups`, and the last act that they hold.

    Returns
    -------
    groups : dict
        Patient to group; none where there is no such file.
    seq : int
        Number of an act; 0 without a file, `sys.maxsize` for a table of another program.
    """
    if not path.is_file():
        return {}, 0
    groups = read_groups(path)
    held = _HELD.search(path.read_text(encoding="utf-8-sig"))
    return groups, sys.maxsize if held is None else int(held[1])


def write_group_table(path: Path, groups: Mapping[str, str], seq: int) -> None:
    """Replace the table of a study, whole or not at all; it holds the acts up to `seq`.

    Columns of other programs stay, with the patients that have no group; comments of theirs do not.

    Raises
    ------
    InputError, StudyError
        If what is there cannot be read; if the disk is full or may not be written.
    """
    others = _other_columns(path) if path.is_file() else pd.DataFrame()
    patients = sorted({*groups, *others.index})
    table = pd.DataFrame({"patient": patients, "group": [groups.get(one, "") for one in patients]}, dtype=object)
    for name in others:
        table[name] = others[name].reindex(patients, fill_value="").to_numpy()
    write_csv(path, table, comments=(_HOLDS.format(seq=seq),))


def _other_columns(path: Path) -> pd.DataFrame:
    """Columns beside ``patient`` and ``group``, by patient; no row where there are none."""
    table = read_typed(path, "patient", "group").drop_duplicates("patient").set_index("patient").drop(columns="group")
    return table.drop(index="", errors="ignore") if table.shape[1] else pd.DataFrame()
