"""Which pictures a training reads: a CSV with one line a picture, or the reference's lists of paths."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.tables import restore, unreadable, write_csv

COLUMNS = ("file", "dataset", "class", "patient", "split")
"""Columns of a manifest; all but the first may be missing."""

_OTHER_NAMES = {"cell_type": "class"}


@dataclass(frozen=True, slots=True)
class Row:
    """One picture of a manifest.

    Attributes
    ----------
    path : Path
        The file; relative paths are resolved beside the manifest.
    dataset : str
        Data set that it belongs to.
    label : str
        Its class, ``""`` where nobody gave one.
    patient : str
        Patient or smear, ``""`` where unknown.
    split : str
        ``train``, ``test`` or any other name; ``train`` where the manifest has none.
    name : str
        The file as the manifest spells it, which `encoders.splits.held_out` goes by. Two rows can be equal without it.
    """

    path: Path
    dataset: str
    label: str = ""
    patient: str = ""
    split: str = "train"
    name: str = field(default="", compare=False)


def read_manifest(path: str | Path) -> list[Row]:
    """Read a manifest; whether the pictures exist is found out when they are read.

    Parameters
    ----------
    path : str or Path
        A CSV with the columns `COLUMNS` (``cell_type`` is ``class``, others are passed over); a missing data set is the
        name of the CSV. Or a ``.txt`` with one path per line, or a folder of them: each is a data set.

    Returns
    -------
    list of Row
        In the order of the file; of a folder, by the lists' names.

    Raises
    ------
    InputError
        If there is no such file, nothing in it, no column ``file``, a column that is nearly one of ours, or a line
        without a file.
    """
    path = Path(path)
    if path.is_dir():
        lists = sorted(path.glob("*.txt"))
        if not lists:
            raise InputError(f"{path}: holds no list of pictures (*.txt). Name a folder of lists, or a CSV.")
        return [row for one in lists for row in _read_list(one)]
    rows = _read_list(path) if path.suffix == ".txt" else _read_table(path)
    if not rows:
        raise InputError(f"{path}: names no picture. Give one line for each.")
    return rows


def has_splits(path: str | Path) -> bool:
    """Tell whether a table has a column ``split``, in which each row says what it is for."""
    lines = (line for line in _text(Path(path)).splitlines() if line.strip() and not line.startswith("#"))
    return "split" in [name.strip() for name in next(csv.reader(lines), [])]


def write_manifest(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as a manifest, whole or not at all; paths below its folder become relative.

    Raises
    ------
    StudyError
        If the disk is full or the folder may not be written.
    """
    home = path.resolve().parent
    lines = [(_beside(row.path, home), row.dataset, row.label, row.patient, row.split) for row in rows]
    write_csv(path, pd.DataFrame(lines, columns=list(COLUMNS)), note=False)


def _beside(file: Path, home: Path) -> str:
    """Path relative to `home` if it lies below, else as it is."""
    return file.relative_to(home).as_posix() if file.is_relative_to(home) else str(file)


def _resolved(home: Path, file: str) -> Path:
    """Absolute path without ``..``; links stay."""
    return Path(os.path.abspath(home / file))


def _text(path: Path) -> str:
    """Read a text file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error, "Give a CSV or lists in UTF-8.") from error


def _read_list(path: Path) -> list[Row]:
    """Read one of the reference's lists."""
    lines = (line.strip() for line in _text(path).splitlines())
    return [Row(_resolved(path.parent, line), path.stem, name=line) for line in lines if line]


def _read_table(path: Path) -> list[Row]:
    """Read a CSV."""
    lines = _text(path).splitlines()
    first = next((number for number, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    reader = csv.reader(lines[first:])
    header = [_OTHER_NAMES.get(name.strip(), name.strip()) for name in next(reader, [])]
    _check_header(path, header)
    rows = []
    for cells in reader:
        if not cells:
            continue
        where = f"{path}, line {first + reader.line_num}"
        if len(cells) != len(header):
            raise InputError(
                f"{where}: has {len(cells)} cells, the header {len(header)}. Put text with commas in quotes."
            )
        found = {name: restore(cell.strip()) for name, cell in zip(header, cells, strict=True)}
        if not found["file"]:
            raise InputError(f"{where}: names no file. Fill the column 'file' or take the line out.")
        rows.append(
            Row(
                _resolved(path.parent, found["file"]),
                found.get("dataset") or path.stem,
                found.get("class", ""),
                found.get("patient", ""),
                found.get("split") or "train",
                cells[header.index("file")],
            )
        )
    return rows


def _check_header(path: Path, header: Sequence[str]) -> None:
    """Refuse a header without files, with a column twice, or with one that seems misspelt."""
    if "file" not in header:
        raise InputError(
            f"{path}: has no column 'file' (found: {', '.join(header)[:200]}). Columns: {', '.join(COLUMNS)}."
        )
    for name in header:
        if name in COLUMNS and header.count(name) > 1:
            raise InputError(f"{path}: has the column {name!r} twice. Keep one.")
        near = get_close_matches(name, COLUMNS, n=1, cutoff=0.75)
        if near and name not in COLUMNS:
            raise InputError(f"{path}: column {name!r} is not known; the nearest is {near[0]!r}. Rename one of them.")
