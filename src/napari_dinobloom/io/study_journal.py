"""The journal of a study, and its acts on gates and on the groups of patients, which need no cell table."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io import groups, journal, lock, manifest
from napari_dinobloom.io.images import StudyImages
from napari_dinobloom.io.trust import inside

EDITS = "edits.jsonl"

_log = logging.getLogger(__name__)


class StudyJournal(StudyImages):
    """A study folder, its images, and what people did."""

    def __init__(self, path: Path, content: manifest.Manifest, held: lock.Lock | lock.Holder | None, why: str) -> None:
        super().__init__(path, content, held, why)
        self._journal: journal.Journal | None = None

    @property
    def acts(self) -> tuple[journal.Entry, ...]:
        """All acts of people, undone ones and their undoing included, in the order of the journal."""
        with self._guard:
            return tuple(self._acts().entries)

    @property
    def can_undo(self) -> bool:
        """Whether there is an act that `undo` would take back."""
        with self._guard:
            return self._acts().to_undo() is not None

    @property
    def can_redo(self) -> bool:
        """Whether there is an act that `redo` would do again."""
        with self._guard:
            return self._acts().to_redo() is not None

    @property
    def to_undo(self) -> journal.Entry | None:
        """The act that `undo` would take back, as it was first done; None if there is none, or its line is gone."""
        with self._guard:
            return self._first(self._acts().to_undo())

    @property
    def to_redo(self) -> journal.Entry | None:
        """The act that `redo` would do again, as it was first done; None if there is none, or its line is gone."""
        with self._guard:
            return self._first(self._acts().to_redo())

    def _first(self, entry: journal.Entry | None) -> journal.Entry | None:
        """The act that lines of undo and redo go back to."""
        while entry is not None and entry.undoes is not None:
            entry = self._acts().by_seq(entry.undoes)
        return entry

    def record_gate(self, act: Mapping[str, Any]) -> journal.Entry:
        """Write an act of a gate tree, as `explore.gate_tree` has it; it is on the disk when this returns.

        Raises
        ------
        StudyError
            If it is no such act, or nothing may be written. Nothing has changed then.
        """
        self.ensure_writable()
        sides = (act.get("old"), act.get("new"))
        if act.get("op") != "gate" or not all(isinstance(side, Mapping) for side in sides):
            raise StudyError(f"{self.path}: this is no act of a gate tree: it needs 'op' \"gate\", 'old' and 'new'.")
        with self._guard:
            return self._acts().append_gates("gate", act.get("projection", ""), act["old"], act["new"])

    def gate_acts(self, projection: str) -> list[dict[str, Any]]:
        """Acts on the gates of a map in their order, undo and redo as the acts that they amount to; maybe none."""
        return [entry.gate_act() for entry in self.gate_entries(projection)]

    def gate_entries(self, projection: str, *, after: int = 0) -> list[journal.Entry]:
        """Lines of the journal on the gates of a map that come behind line `after`."""
        with self._guard:
            return [one for one in self._acts().gates if one.projection == projection and one.seq > after]

    @property
    def gate_projections(self) -> tuple[str, ...]:
        """Hashes of all maps whose gates the journal has acts on, in the order in which they first came."""
        with self._guard:
            return tuple(dict.fromkeys(str(one.projection) for one in self._acts().gates))

    def groups(self) -> dict[str, str]:
        """Known group of each patient that has one: the table ``groups.csv`` with the acts that it does not hold yet.

        Raises
        ------
        InputError
            If the table cannot be read or puts a patient into two groups.
        """
        with self._guard:
            return self._read_groups()[0]

    def _read_groups(self) -> tuple[dict[str, str], int]:
        """The groups, and the last act that the table says it holds."""
        known, held = groups.read_group_table(inside(self.path, groups.FILE))
        for entry in self._acts().groups:
            if entry.seq > held:
                _put(known, entry)
        return known, held

    def _groups_to_change(self) -> dict[str, str]:
        """The groups before an act on them; the table, which may be of another program, says what it holds then.

        An act that its table then fails to take is replayed over it. Over a table that says nothing it would be lost,
        so such a one is written again before anything stands in the journal.

        Raises
        ------
        InputError, StudyError
            If the table cannot be read, or not be written.
        """
        known, held = self._read_groups()
        last = self._acts().last
        if held > last:
            groups.write_group_table(inside(self.path, groups.FILE), known, last)
        return known

    def record_groups(self, changes: Mapping[str, str], *, who: str | None = None) -> journal.Entry | None:
        """Give patients a known group, "" for none; it is on the disk when this returns.

        Parameters
        ----------
        changes : mapping
            Patient to group; patients that are not named keep theirs.
        who : str, optional
            Reader who says so; else the user of this machine.

        Returns
        -------
        Entry or None
            The journal's line; None if nobody's group changes.

        Raises
        ------
        InputError, StudyError
            As `groups`; if a name is not printable, or nothing may be written. Nothing has changed then.
        """
        self.ensure_writable()
        with self._guard:
            known, _ = self._read_groups()
            patients = [patient for patient, group in sorted(changes.items()) if known.get(patient, "") != group]
            if not patients:
                return None
            known = self._groups_to_change()
            old, new = ([side.get(patient, "") for patient in patients] for side in (known, changes))
            entry = self._acts().append_groups("group", patients, old, new, who=who)
            self._keep_groups(known, entry)
            return entry

    def _keep_groups(self, known: dict[str, str], entry: journal.Entry) -> None:
        """Put an act into the table of groups, as they were before it; the journal has it already."""
        _put(known, entry)
        try:
            groups.write_group_table(inside(self.path, groups.FILE), known, entry.seq)
        except StudyError as error:  # it is replayed over the table of before
            _log.warning("the act %d is kept, but not in the table of groups yet: %s", entry.seq, error)

    def _acts(self) -> journal.Journal:
        """Return the journal, read once."""
        if self._journal is None:
            self._journal = journal.Journal.read(inside(self.path, EDITS))
        return self._journal


def _put(known: dict[str, str], entry: journal.Entry) -> None:
    """Change groups as an act says."""
    values = journal.spread(entry.new, len(entry.patients))["group"]
    for patient, group in zip(entry.patients, values, strict=True):
        known.pop(patient, None)
        if group:
            known[patient] = str(group)
