"""Tables that name labelled pictures: a CSV of ours, and the two lists of BMC in the DinoBloom repository."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.inputs import Source

LISTS = ("bm_train.csv", "bm_test.csv")
"""The paper's split of BMC."""

Row = tuple[str, str, str, str]
"""File, class, split, patient."""


def read_table(path: Path) -> tuple[list[Row], list[str]]:
    """Read a CSV with the columns ``file``, ``cell_type`` and perhaps ``split`` and ``patient``.

    Returns
    -------
    rows : list of tuple
        File, class, split, patient. Without a column ``split`` no row has one.
    notes : list of str
        What was left out.

    Raises
    ------
    InputError
        If it is no CSV, a column is missing, a row is empty or names a file that is not there or was named before, or
        one of the splits train and test is empty.
    """
    table = _read(path, ["file", "cell_type"])
    has_split = "split" in table
    rows: dict[str, Row] = {}
    other: dict[str, int] = defaultdict(int)
    for number, row in enumerate(table.to_dict("records"), start=2):
        where = f"{path}: row {number}"
        file = str(PurePosixPath(row["file"].replace("\\", "/"))) if row["file"] else ""
        if not file or not row["cell_type"]:
            raise InputError(f"{where} has no file or no cell_type. Complete or remove it.")
        if file in rows:
            raise InputError(f"{where} names {file!r} again. Keep one row for each picture.")
        split = row.get("split", "")
        if has_split and split not in ("train", "test"):
            other[split] += 1
            continue
        if not (path.parent / file).is_file():
            raise InputError(f"{where} names {file!r}, which is not there beside the CSV. Correct the name.")
        rows[file] = (file, row["cell_type"], split, row.get("patient", ""))
    missing = {"train", "test"} - {split for _, _, split, _ in rows.values()} if has_split else set()
    if missing or not rows:
        what = f"no row has the split {sorted(missing)[0]!r}" if missing else "no row names a picture"
        raise InputError(f"{path}: {what}. Give train and test, or leave the column 'split' out.")
    notes = [f"{count} rows with the split {name!r} are left out." for name, count in sorted(other.items())]
    return list(rows.values()), notes


def find_lists(folder: Path) -> Path | None:
    """Folder that holds the lists of BMC: `folder` or its ``splits``; None if neither does."""
    return next(
        (place for place in (folder, folder / "splits") if all((place / name).is_file() for name in LISTS)), None
    )


def read_lists(folder: Path, sources: Sequence[Source]) -> list[Row]:
    """Read the paper's split of BMC, whose paths are of another machine.

    A path finds the picture of its name; where several have it, the one whose folders agree with the most of its own.

    Parameters
    ----------
    folder : Path
        Holds `LISTS`, columns ``Image Path,Label``.
    sources : sequence of Source
        The pictures that are here.

    Raises
    ------
    InputError
        If a column is missing, or pictures are not here, are named twice, or could be several.
    """
    here: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        here[source.path.name].append(source)
    rows: dict[str, Row] = {}
    lost: list[str] = []
    for name in LISTS:
        path, split = folder / name, name[len("bm_") : -len(".csv")]
        for number, row in enumerate(_read(path, ["Image Path", "Label"]).to_dict("records"), start=2):
            found = _source(here, row["Image Path"], f"{path}: row {number}")
            if found is None:
                lost.append(f"{name} row {number}: {row['Image Path']}")
            elif found.file in rows:
                raise InputError(f"{path}: row {number} names {found.file!r} again. Keep one row for each picture.")
            elif not row["Label"]:
                raise InputError(f"{path}: row {number} has no Label. Complete or remove it.")
            else:
                rows[found.file] = (found.file, row["Label"], split, "")
    if lost:
        raise InputError(
            f"{len(lost)} pictures of the lists in {folder} are not here, such as {'; '.join(lost[:3])}. "
            "Unpack the whole archive (TCIA, AXH3-T579), or name the folder above it."
        )
    return list(rows.values())


def _source(here: dict[str, list[Source]], entry: str, where: str) -> Source | None:
    """The picture that a path of another machine means; None if it is not here."""
    parts = PurePosixPath(entry.replace("\\", "/")).parts[::-1]
    found = here.get(parts[0], []) if parts else []
    if len(found) < 2:
        return found[0] if found else None

    def agreement(source: Source) -> int:
        same = [a == b for a, b in zip(source.path.parts[::-1], parts, strict=False)]
        return same.index(False) if False in same else len(same)

    ranked = sorted(found, key=agreement, reverse=True)
    if agreement(ranked[0]) == agreement(ranked[1]):
        raise InputError(f"{where}: {entry!r} could be {ranked[0].file!r} or {ranked[1].file!r}. Keep one of them.")
    return ranked[0]


def _read(path: Path, needed: list[str]) -> pd.DataFrame:
    """Read a CSV as text, ``""`` where a cell is empty."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", comment=None)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a CSV in UTF-8 ({error}). Save it as one.") from error
    table.columns = [str(name).strip() for name in table.columns]
    missing = [name for name in needed if name not in table]
    if missing:
        raise InputError(f"{path}: has no column {missing[0]!r}; it has {', '.join(table.columns)}. Rename or add it.")
    return pd.DataFrame({name: table[name].str.strip() for name in table.columns})
