"""The journal of a study, and its acts on gates, which need no cell table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io import journal, lock, manifest
from napari_dinobloom.io.images import StudyImages
from napari_dinobloom.io.trust import inside

EDITS = "edits.jsonl"


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

    def _acts(self) -> journal.Journal:
        """Return the journal, read once."""
        if self._journal is None:
            self._journal = journal.Journal.read(inside(self.path, EDITS))
        return self._journal
