"""The journal of human acts, ``edits.jsonl``: one line an act, appended and fsynced at once, with its inverse.

A line is ``{"seq", "op", "cells", "old", "new", "who", "when"}`` and, for undo and redo, ``"undoes"``: the line whose
inverse it is. ``old`` and ``new`` give for each changed column one value for all cells, or a list with one for each.
An act that changes outlines has ``"shapes": {"old": {cell: shape}, "new": {cell: shape}}`` too; a cell that only
``new`` has is made by the act. Replay sets columns and shapes to ``new``, so that it does no harm to a table that holds
some of the acts already.
"""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.atomic import disk_errors, sync_folder
from napari_dinobloom.io.celltable import split_cell_id
from napari_dinobloom.io.shapes import Shape, parse_shape
from napari_dinobloom.io.trust import check_text

Value = str | bool
Values = Value | list[Value]

EDITABLE: dict[str, type] = {
    "label": str,
    "label_by": str,
    "label_at": str,
    "reviewed": bool,
    "excluded": bool,
    "deleted": bool,
}
"""Columns of the cell table that a human act may change."""

RESHAPING = ("add", "merge", "split", "repaint")
"""Acts that change outlines or make cells."""

OPS = ("label", "exclude", "review", "delete", *RESHAPING, "undo", "redo")


@dataclass(frozen=True, slots=True)
class Entry:
    """One act.

    Attributes
    ----------
    seq : int
        1, 2, ... in the order of the file.
    op : str
        One of `OPS`.
    cells : tuple of str
        Cell ids.
    old, new : dict
        Column to the value before and after: one for all cells, or a list in the order of `cells`.
    who : str
        User name.
    when : str
        ISO time in UTC.
    undoes : int or None
        For undo and redo: the line whose inverse this is.
    old_shapes, new_shapes : dict
        Cell id to its outline before and after; a cell that the act makes has none before, and its undo has none after.
    """

    seq: int
    op: str
    cells: tuple[str, ...]
    old: Mapping[str, Values]
    new: Mapping[str, Values]
    who: str
    when: str
    undoes: int | None = None
    old_shapes: Mapping[str, Shape] = field(default_factory=dict)
    new_shapes: Mapping[str, Shape] = field(default_factory=dict)

    def to_line(self) -> str:
        """Return the JSON line, with its line end."""
        content: dict[str, Any] = {
            "seq": self.seq,
            "op": self.op,
            "cells": list(self.cells),
            "old": dict(self.old),
            "new": dict(self.new),
            "who": self.who,
            "when": self.when,
        }
        if self.undoes is not None:
            content["undoes"] = self.undoes
        if self.old_shapes or self.new_shapes or self.op in RESHAPING:
            sides = {"old": self.old_shapes, "new": self.new_shapes}
            content["shapes"] = {
                side: {cell: shape.to_json() for cell, shape in shapes.items()} for side, shapes in sides.items()
            }
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"


@dataclass(slots=True)
class Journal:
    """The acts of a study, in memory and on disk.

    Attributes
    ----------
    path : Path
        ``edits.jsonl``; need not exist.
    entries : list of Entry
        All whole lines.
    shapes : dict
        Cell id to the outline that the acts leave it with, in the order in which they first named it.
    deleted : dict
        Cell id to whether the acts leave it deleted.
    unmade : set of str
        Cells whose making was undone.
    """

    path: Path
    entries: list[Entry] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    deleted: dict[str, bool] = field(default_factory=dict)
    unmade: set[str] = field(default_factory=set)
    _whole: int = 0  # bytes of the file up to the end of the last whole line
    _size: int = 0  # bytes of the file when it was read or last written
    _done: list[int] = field(default_factory=list)
    _undone: list[int] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Journal:
        """Read a journal; a torn last line is left out, and cut off by the next `append`.

        Raises
        ------
        StudyError
            If another line is damaged, or an act is of a kind that this version does not know.
        """
        journal = cls(path)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return journal
        except OSError as error:
            raise StudyError(f"{path}: cannot be read ({error.strerror or error}). Check who may read it.") from error
        journal._size = len(data)
        lines = data.split(b"\n")
        for number, line in enumerate(lines[:-1], start=1):
            try:
                entry = _parse(line, number)
            except ValueError as error:
                if number == len(lines) - 1 and not lines[-1]:
                    break  # the disk lost the last line's bytes but kept its length
                raise StudyError(
                    f"{path}, line {number}: {error} Move this line into another file to open the study without "
                    "this one act."
                ) from error
            journal._take(entry)
            journal._whole += len(line) + 1
        return journal

    def append(
        self,
        op: str,
        cells: Sequence[str],
        old: Mapping[str, Sequence[Value]],
        new: Mapping[str, Sequence[Value]],
        *,
        undoes: int | None = None,
        when: str | None = None,
        old_shapes: Mapping[str, Shape] | None = None,
        new_shapes: Mapping[str, Shape] | None = None,
    ) -> Entry:
        """Write one act to the disk and return it; when this returns, it survives a power cut.

        Raises
        ------
        StudyError
            If the disk is full or may not be written, or another process has written into the file. Nothing has
            changed then, neither on disk nor in memory.
        """
        entry = Entry(
            seq=self.entries[-1].seq + 1 if self.entries else 1,
            op=op,
            cells=tuple(cells),
            old={column: _compact(values) for column, values in old.items()},
            new={column: _compact(values) for column, values in new.items()},
            who=user(),
            when=when or now(),
            undoes=undoes,
            old_shapes=dict(old_shapes or {}),
            new_shapes=dict(new_shapes or {}),
        )
        self._write(entry.to_line().encode("utf-8"))
        self._take(entry)
        return entry

    def _write(self, line: bytes) -> None:
        """Append bytes durably behind the last whole line, or leave the file as it was."""
        created = not self.path.exists()
        with disk_errors(self.path), open(self.path, "ab" if created else "r+b") as handle:
            size = handle.seek(0, os.SEEK_END)
            if size != self._size:
                raise StudyError(
                    f"{self.path}: another process has written into it. Close the study and open it again."
                )
            try:
                handle.truncate(self._whole)
                handle.seek(self._whole)
                handle.write(line)
                handle.flush()
                os.fsync(handle.fileno())
            except OSError:
                self._size = _cut(self.path, self._whole)
                raise
        self._whole += len(line)
        self._size = self._whole
        if created:
            sync_folder(self.path.parent)

    def _take(self, entry: Entry) -> None:
        """Add an entry in memory; keep the stacks of undo and redo and what the acts come to."""
        self.entries.append(entry)
        self.shapes.update(entry.new_shapes)
        self.unmade.difference_update(entry.new_shapes)
        self.unmade.update(cell for cell in entry.old_shapes if cell not in entry.new_shapes)
        if "deleted" in entry.new:
            values = _spread({"deleted": entry.new["deleted"]}, len(entry.cells))["deleted"]
            self.deleted.update(zip(entry.cells, map(bool, values), strict=True))
        if entry.op == "undo":
            if entry.undoes in self._done:
                self._done.remove(entry.undoes)
            self._undone.append(entry.seq)
        else:
            if entry.op != "redo":
                self._undone.clear()
            elif entry.undoes in self._undone:
                self._undone.remove(entry.undoes)
            self._done.append(entry.seq)

    def to_undo(self) -> Entry | None:
        """Return the act that undo would take back."""
        return self._by_seq(self._done[-1]) if self._done else None

    def to_redo(self) -> Entry | None:
        """Return the undo line that redo would take back."""
        return self._by_seq(self._undone[-1]) if self._undone else None

    def invert(self, op: str, entry: Entry) -> Entry:
        """Append the inverse of `entry` as an undo or redo line."""
        n = len(entry.cells)
        return self.append(
            op,
            entry.cells,
            _spread(entry.new, n),
            _spread(entry.old, n),
            undoes=entry.seq,
            old_shapes=entry.new_shapes,
            new_shapes=entry.old_shapes,
        )

    def _by_seq(self, seq: int) -> Entry:
        return next(entry for entry in reversed(self.entries) if entry.seq == seq)


def _cut(path: Path, size: int) -> int:
    """Cut a file to `size` bytes after a failed write; return how long it is now."""
    with suppress(OSError):  # then the torn line is dropped at the next opening
        os.truncate(path, size)
    return path.stat().st_size


def apply(entries: Iterable[Entry], obs: pd.DataFrame) -> list[str]:
    """Set the columns of `obs` to what the entries say, in their order; `obs` is changed.

    Parameters
    ----------
    entries : iterable of Entry
        Acts.
    obs : DataFrame
        Cell table, indexed by cell id, with the columns of `EDITABLE`.

    Returns
    -------
    list of str
        Cell ids that `obs` does not have, sorted, each once.
    """
    columns = {name: obs[name].to_numpy(copy=True) for name in EDITABLE}
    changed: set[str] = set()
    orphans: set[str] = set()
    for entry in entries:
        rows = obs.index.get_indexer(pd.Index(entry.cells, dtype=object))
        known = rows >= 0
        if not known.all():
            orphans.update(cell for cell, row in zip(entry.cells, rows, strict=True) if row < 0)
        for name, value in entry.new.items():
            dtype = object if EDITABLE[name] is str else bool
            columns[name][rows[known]] = np.array(value, dtype=dtype)[known] if isinstance(value, list) else value
            changed.add(name)
    for name in changed:
        obs[name] = columns[name]
    return sorted(orphans)


def _compact(values: Sequence[Value]) -> Values:
    """One value where all are equal, else a list."""
    return values[0] if len(set(values)) == 1 else list(values)


def _spread(values: Mapping[str, Values], n: int) -> dict[str, Sequence[Value]]:
    """One value for each of `n` cells."""
    return {column: value if isinstance(value, list) else [value] * n for column, value in values.items()}


def _parse(line: bytes, number: int) -> Entry:
    """Read one line; raise ValueError with a sentence if it is damaged or unknown."""
    try:
        raw = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is damaged ({error}).") from error
    if not isinstance(raw, dict):
        raise ValueError("is no act.")
    if raw.get("op") not in OPS:
        raise ValueError(
            f"holds the act {str(raw.get('op'))[:40]!r}, which this version does not know. "
            "Update with 'pip install -U napari-dinobloom'."
        )
    cells, undoes = raw.get("cells"), raw.get("undoes")
    if not (isinstance(cells, list) and cells and all(isinstance(cell, str) for cell in cells)):
        raise ValueError("names no cells.")
    if not (undoes is None or type(undoes) is int) or type(raw.get("seq")) is not int:
        raise ValueError("has a number that is none.")
    try:
        old, new = (_check_values(raw.get(side), len(cells)) for side in ("old", "new"))
        who, when = (check_text(raw.get(name), name) for name in ("who", "when"))
    except StudyError as error:
        raise ValueError(str(error)) from error
    if set(old) != set(new):
        raise ValueError("'old' and 'new' name other columns.")
    old_shapes, new_shapes = _check_shapes(raw)
    return Entry(raw["seq"], raw["op"], tuple(cells), old, new, who, when, undoes, old_shapes, new_shapes)


def _check_shapes(raw: dict[str, Any]) -> tuple[dict[str, Shape], dict[str, Shape]]:
    """Return the outlines before and after of a line that may have some; they must be those of its cells."""
    if "shapes" not in raw:
        if raw["op"] in RESHAPING:
            raise ValueError("lacks its shapes.")
        return {}, {}
    sides = raw["shapes"]
    if raw["op"] not in (*RESHAPING, "undo", "redo") or "deleted" not in raw["new"]:
        raise ValueError("holds shapes, which such an act does not change.")
    if not isinstance(sides, dict) or set(sides) != {"old", "new"}:
        raise ValueError("holds shapes without 'old' and 'new'.")
    named = set(raw["cells"])
    parsed: list[dict[str, Shape]] = []
    for side in (sides["old"], sides["new"]):
        if not isinstance(side, dict) or not named.issuperset(side):
            raise ValueError("holds shapes of cells that it does not name.")
        for cell in side:
            try:
                split_cell_id(cell)
            except StudyError as error:
                raise ValueError(str(error)) from error
        parsed.append({cell: parse_shape(shape) for cell, shape in side.items()})
    return parsed[0], parsed[1]


def _check_values(raw: object, n: int) -> dict[str, Values]:
    """Return the columns of one side of an act if they are known and of the right type and length."""
    if not isinstance(raw, dict) or not raw:
        raise ValueError("lacks its values.")
    for column, value in raw.items():
        kind = EDITABLE.get(column)
        values = value if isinstance(value, list) else [value]
        if kind is None:
            raise ValueError(f"changes the column {str(column)[:40]!r}, which no act may change.")
        if any(type(one) is not kind for one in values) or (isinstance(value, list) and len(value) != n):
            raise ValueError(f"gives {column!r} values of the wrong type or number.")
        for one in values:
            if isinstance(one, str):
                check_text(one, column)
    return raw


def user() -> str:
    """Name of the user for the journal; "unknown" where the system knows none (containers)."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
