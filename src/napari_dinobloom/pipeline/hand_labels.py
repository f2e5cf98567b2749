"""Classes that people give cells: in a window, or in a table that was filled in elsewhere.

What the Gallery window and ``napari-dinobloom label`` call.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from napari_dinobloom.cells.taxonomy import palette
from napari_dinobloom.errors import InputError, StudyError
from napari_dinobloom.io.tables import read_csv

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study

COLUMNS = ("cell_id", "label")


def name_cells(study: Study, cells: Sequence[str], value: str | Sequence[str], *, who: str | None = None) -> None:
    """Give cells a class by hand, or take it away with an empty one; it is a review of them too, in the same act.

    Parameters
    ----------
    study : Study
        Open for writing. A class that is new to it gets a colour that none of the others has.
    cells : sequence of str
        Their ids.
    value : str or sequence of str
        One class for all, or one for each cell.
    who : str, optional
        Reader who says so; else the user of this machine.

    Raises
    ------
    StudyError
        If a cell is unknown, or nothing may be written. Nothing has changed then.
    """
    names, before = [value] if isinstance(value, str) else list(value), dict(study.palette)
    if new := [name for name in dict.fromkeys(names) if name and name not in before]:
        fresh = palette([*before, *new])
        study.update(palette=before | {name: fresh[name] for name in new})  # first: an act that stands is no error
    try:
        study.label(cells, value, who=who, reviewed=bool(value) if isinstance(value, str) else list(map(bool, names)))
    except StudyError:
        if new:
            with suppress(StudyError):  # a colour that no cell has does no harm
                study.update(palette=before)
        raise


def read_labels(path: Path) -> pd.Series[str]:
    """Read the classes of cells from a CSV with the columns ``cell_id`` and ``label``, such as an exported cells.csv.

    Returns
    -------
    Series of str
        Class by cell id, in the order of the file; rows without a label are left out.

    Raises
    ------
    InputError
        If the file is no such table, or names a cell twice.
    """
    table = read_csv(path)
    for name in COLUMNS:
        if name not in table:
            raise InputError(f"{path}: has no column {name!r}. It needs the columns {' and '.join(COLUMNS)}.")
    cells, labels = table["cell_id"].astype(str), table["label"]
    if cells.duplicated().any():
        raise InputError(f"{path}: names the cell {cells[cells.duplicated()].iloc[0][:100]!r} twice. Keep one row.")
    said = labels.notna() & (labels.astype(str).str.strip() != "")
    return pd.Series(labels[said].astype(str).str.strip().to_list(), index=cells[said].to_list(), dtype=object)


def take_labels(study: Study, path: Path, *, who: str | None = None) -> int:
    """Give cells the classes of a table, in one act; return how many cells have another one than before.

    Parameters
    ----------
    study : Study
        Open for writing.
    path : Path
        As for `read_labels`. Cells without a label there stay as they are.
    who : str, optional
        Reader who says so; else the user of this machine.

    Raises
    ------
    InputError, StudyError
        As `read_labels` and `name_cells`. Nothing has changed then.
    """
    labels = read_labels(path)
    known = study.cells.obs["label"]
    if missing := [cell for cell in labels.index if cell not in known.index]:
        raise InputError(f"{path}: the study has no cell {missing[0][:100]!r} ({len(missing)} unknown in all).")
    new = labels[labels.to_numpy() != known[labels.index].to_numpy()]
    if len(new):
        name_cells(study, list(new.index), list(new), who=who)
    return len(new)
