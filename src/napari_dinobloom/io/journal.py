"""The journal of human acts, ``edits.jsonl``: one line an act, appended and fsynced at once, with its inverse.

What a line holds stands in `napari_dinobloom.io.acts`. Acts on cells, gates and groups of patients are in one order,
and so are undo and redo. Replay sets columns, shapes, gates and groups to ``new``, so that it does no harm to a table
that holds some of the acts already.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.acts import EDITABLE, OPS, RESHAPING, Entry, Nodes, Value, Values, parse_line
from napari_dinobloom.io.atomic import disk_errors, sync_folder
from napari_dinobloom.io.celltable import as_column
from napari_dinobloom.io.shapes import Shape

__all__ = ["EDITABLE", "OPS", "RESHAPING", "Entry", "Journal", "Value", "Values", "apply", "now", "spread", "user"]


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
    gates : list of Entry
        Those of `entries` that are on gates.
    groups : list of Entry
        Those of `entries` that are on the known groups of patients.
    """

    path: Path
    entries: list[Entry] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    deleted: dict[str, bool] = field(default_factory=dict)
    unmade: set[str] = field(default_factory=set)
    gates: list[Entry] = field(default_factory=list)
    groups: list[Entry] = field(default_factory=list)
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
                entry = parse_line(line)
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
        who: str | None = None,
        when: str | None = None,
        old_shapes: Mapping[str, Shape] | None = None,
        new_shapes: Mapping[str, Shape] | None = None,
    ) -> Entry:
        """Write one act on cells to the disk and return it; when this returns, it survives a power cut.

        Raises
        ------
        StudyError
            If the disk is full or may not be written, or another process has written into the file. Nothing has
            changed then, neither on disk nor in memory.
        """
        entry = Entry(
            seq=self.last + 1,
            op=op,
            cells=tuple(cells),
            old={column: _compact(values) for column, values in old.items()},
            new={column: _compact(values) for column, values in new.items()},
            who=who or user(),
            when=when or now(),
            undoes=undoes,
            old_shapes=dict(old_shapes or {}),
            new_shapes=dict(new_shapes or {}),
        )
        self._keep(entry)
        return entry

    def append_gates(self, op: str, projection: str, old: Nodes, new: Nodes, *, undoes: int | None = None) -> Entry:
        """Write one act on gates as `append` does one on cells.

        Raises
        ------
        StudyError
            As `append`, or if the act is none: it names no gates, or holds what JSON cannot.
        """
        entry = Entry(
            seq=self.last + 1,
            op=op,
            cells=(),
            old={},
            new={},
            who=user(),
            when=now(),
            undoes=undoes,
            projection=projection,
            old_nodes=dict(old),
            new_nodes=dict(new),
        )
        try:
            parse_line(entry.to_line().encode("utf-8"))
        except (TypeError, ValueError) as error:
            raise StudyError(f"{self.path}: this act on gates cannot be kept, as it {error}") from error
        self._keep(entry)
        return entry

    def append_groups(
        self,
        op: str,
        patients: Sequence[str],
        old: Sequence[Value],
        new: Sequence[Value],
        *,
        undoes: int | None = None,
        who: str | None = None,
    ) -> Entry:
        """Write one act on the groups of patients, one value for each of them, as `append` does one on cells.

        Raises
        ------
        StudyError
            As `append`, or if a name is not printable.
        """
        entry = Entry(
            seq=self.last + 1,
            op=op,
            cells=(),
            old={"group": _compact(old)},
            new={"group": _compact(new)},
            who=who or user(),
            when=now(),
            undoes=undoes,
            patients=tuple(patients),
        )
        try:
            parse_line(entry.to_line().encode("utf-8"))
        except (UnicodeError, ValueError) as error:
            raise StudyError(f"{self.path}: this act on groups cannot be kept, as it {error}") from error
        self._keep(entry)
        return entry

    @property
    def last(self) -> int:
        """Number of the last act; 0 where there is none."""
        return self.entries[-1].seq if self.entries else 0

    def _keep(self, entry: Entry) -> None:
        """Put an act on the disk, then into memory."""
        self._write(entry.to_line().encode("utf-8"))
        self._take(entry)

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
        if entry.projection is not None:
            self.gates.append(entry)
        if entry.patients:
            self.groups.append(entry)
        self.shapes.update(entry.new_shapes)
        self.unmade.difference_update(entry.new_shapes)
        self.unmade.update(cell for cell in entry.old_shapes if cell not in entry.new_shapes)
        if "deleted" in entry.new:
            values = spread({"deleted": entry.new["deleted"]}, len(entry.cells))["deleted"]
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
        return self.by_seq(self._done[-1]) if self._done else None

    def to_redo(self) -> Entry | None:
        """Return the undo line that redo would take back."""
        return self.by_seq(self._undone[-1]) if self._undone else None

    def invert(self, op: str, entry: Entry) -> Entry:
        """Append the inverse of `entry` as an undo or redo line."""
        if entry.projection is not None:
            return self.append_gates(op, entry.projection, entry.new_nodes, entry.old_nodes, undoes=entry.seq)
        if entry.patients:
            sides = (spread(side, len(entry.patients))["group"] for side in (entry.new, entry.old))
            return self.append_groups(op, entry.patients, *sides, undoes=entry.seq)
        n = len(entry.cells)
        return self.append(
            op,
            entry.cells,
            spread(entry.new, n),
            spread(entry.old, n),
            undoes=entry.seq,
            old_shapes=entry.new_shapes,
            new_shapes=entry.old_shapes,
        )

    def by_seq(self, seq: int) -> Entry | None:
        """Return the act with this number; None where somebody took its line out."""
        return next((entry for entry in reversed(self.entries) if entry.seq == seq), None)


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
        if not entry.cells:
            continue  # on gates or groups
        rows = obs.index.get_indexer(pd.Index(entry.cells, dtype=object))
        known = rows >= 0
        if not known.all():
            orphans.update(cell for cell, row in zip(entry.cells, rows, strict=True) if row < 0)
        for name, value in entry.new.items():
            dtype = object if EDITABLE[name] is str else bool
            columns[name][rows[known]] = np.array(value, dtype=dtype)[known] if isinstance(value, list) else value
            changed.add(name)
    for name in changed:
        obs[name] = as_column(columns[name], obs.index)
    return sorted(orphans)


def _compact(values: Sequence[Value]) -> Values:
    """One value where all are equal, else a list."""
    return values[0] if len(set(values)) == 1 else list(values)


def spread(values: Mapping[str, Values], n: int) -> dict[str, Sequence[Value]]:
    """One value for each of `n` cells."""
    return {column: value if isinstance(value, list) else [value] * n for column, value in values.items()}


def user() -> str:
    """Name of the user for the journal; "unknown" where the system knows none (containers)."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
