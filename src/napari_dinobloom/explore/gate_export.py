"""Statistics of gates as CSV and JSON, and cells as FCS 3.1 for the programs of flow cytometry."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_dinobloom.explore.gate_statistics import GateTables
from napari_dinobloom.explore.gate_tree import GateTree
from napari_dinobloom.explore.gates.base import GateError, column
from napari_dinobloom.io.atomic import disk_errors, replacing
from napari_dinobloom.io.tables import NOTE, write_csv

INTERVALS = "Percentages with low and high: 95 %, Wilson, counting error only."
TABLES = ("counts", "classes", "means")
LARGEST_FLOAT = 3.4e38


def write_gate_csv(folder: Path, tables: GateTables, *, prefix: str = "gates") -> list[Path]:
    """Write the three tables as ``PREFIX-counts.csv``, ``-classes.csv`` and ``-means.csv``; return their paths.

    Raises
    ------
    StudyError
        If the disk is full or the folder may not be written.
    """
    paths = []
    for name in TABLES:
        path = Path(folder) / f"{prefix}-{name}.csv"
        write_csv(path, getattr(tables, name), comments=(INTERVALS,) if name != "means" else ())
        paths.append(path)
    return paths


def write_gate_json(path: Path, tables: GateTables, tree: GateTree) -> None:
    """Write tree and tables as one JSON file: ``note``, ``intervals``, ``tree``, and a list of lines for each table.

    Numbers that are not known are null. ``tree`` is what `GateTree.from_dict` reads.

    Raises
    ------
    StudyError
        If the disk is full or the folder may not be written.
    """
    content: dict[str, Any] = {"note": NOTE, "intervals": INTERVALS, "tree": tree.to_dict()}
    for name in TABLES:
        frame = getattr(tables, name).astype(object)
        content[name] = frame.where(frame.notna(), None).to_dict(orient="records")
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_text(text, encoding="utf-8")


def read_gate_json(path: Path) -> GateTree:
    """Read the tree of a file that `write_gate_json` wrote, or of one that holds only what `GateTree.to_dict` gives.

    Raises
    ------
    GateError
        The file cannot be read, is no JSON, or holds no gates that can be; it may come from a stranger.
    """
    path = Path(path)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GateError(f"{path}: cannot be read ({error.strerror or error}). Choose another file.") from error
    except (ValueError, RecursionError) as error:
        raise GateError(f"{path}: is no JSON ({error}). Choose a file that 'gate export --json' wrote.") from error
    try:
        return GateTree.from_dict(raw.get("tree", raw) if isinstance(raw, dict) else raw)
    except GateError as error:
        raise GateError(f"{path}: {error}") from error


def write_fcs(
    path: Path, table: pd.DataFrame, *, columns: Sequence[str] | None = None, gates: GateTree | None = None
) -> tuple[str, ...]:
    """Write cells as an FCS 3.1 file, one event a cell, float32.

    Parameters
    ----------
    path : Path
        File to replace.
    table : DataFrame
        n cells, as `axes_table` gives them.
    columns : sequence of str, optional
        Channels; by default all columns of numbers. Unknown values are kept as NaN.
    gates : GateTree, optional
        One more channel for each gate, called ``gate:PATH``: 1 inside, 0 outside.

    Returns
    -------
    tuple of str
        Names of the channels as they stand in the file ($PnN): a comma, which FCS forbids there, is a blank.

    Raises
    ------
    GateError
        flowio is not installed, a column is missing or holds no numbers or numbers that float32 cannot hold, or two
        channels have one name.
    StudyError
        If the disk is full or the folder may not be written.

    Notes
    -----
    Spidlen et al. 2010, doi:10.1002/cyto.a.20825, as flowio writes it: little-endian, list mode.
    """
    try:
        from flowio import create_fcs
    except ImportError as error:
        raise GateError(
            "FCS files need the package flowio, which is not installed: pip install 'napari-dinobloom[fcs]'"
        ) from error
    numeric = [name for name in table if pd.api.types.is_numeric_dtype(table[name].dtype)]
    names = [str(name) for name in (numeric if columns is None else columns)]
    values = [column(table, name, "FCS export") for name in names]
    for key, mask in (gates.masks(table) if gates is not None else {}).items():
        names.append(f"gate:{gates.path(key) if gates is not None else key}")
        values.append(mask.astype(np.float64))
    if not names or not len(table):
        raise GateError("There is nothing to write into an FCS file: give a table with cells and columns of numbers.")
    channels = [re.sub(r"\s+", " ", name.replace(",", " ")).strip() for name in names]
    if twice := sorted({name for name in channels if channels.count(name) > 1}):
        raise GateError(f"Two channels would be called {twice[0]!r}. Rename one of the columns or gates.")
    for name, one in zip(names, values, strict=True):
        if np.any(np.abs(one) > LARGEST_FLOAT):
            raise GateError(
                f"The column {name!r} holds numbers that FCS cannot (infinite or above 3.4e38). Leave it out."
            )
    events = array("f", np.column_stack(values).astype("<f4").tobytes())
    ranges = [f"{max(float(np.nanmax(one, initial=0.0)), 1.0):.0f}" for one in values]
    notes = {f"p{i + 1}r": largest for i, largest in enumerate(ranges)}
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, part.open("wb") as handle:
            create_fcs(handle, events, channels, metadata_dict={**notes, "com": NOTE})
    return tuple(channels)
