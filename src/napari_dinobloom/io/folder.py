"""The folder of a study: making and opening it, its one writer, and what ``study.json`` says."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from napari_dinobloom.errors import StudyError, StudyHeldError
from napari_dinobloom.io import lock, manifest
from napari_dinobloom.io.atomic import sweep
from napari_dinobloom.io.colours import own_colours
from napari_dinobloom.io.fields import FieldRecord, make_id, stem_of
from napari_dinobloom.io.trust import check_tree

FOLDERS = ("masks", "fields", "embeddings", "projections", "models", "runs", "tables")
"""Folders in a study in which a killed process may have left unfinished files."""


class StudyFolder:
    """A study folder, opened: its lock and its manifest.

    Make one with `create`, `open` or `open_or_create`; use it as a context manager or call `close`.

    Attributes
    ----------
    path : Path
        The folder.
    read_only : bool
        Whether nothing may be written: asked for, held by another process, or the folder may not be written.
    held_by : Holder or None
        The process that writes, if that is why.
    """

    def __init__(self, path: Path, content: manifest.Manifest, held: lock.Lock | lock.Holder | None, why: str) -> None:
        self.path = path
        self.held_by = held if isinstance(held, lock.Holder) else None
        self._manifest = content
        self._lock = held if isinstance(held, lock.Lock) else None
        self._why_not = why
        self._guard = threading.RLock()

    # Opening and closing

    @classmethod
    def create(cls, path: str | Path, *, name: str = "", specimen: Literal["blood", "marrow"] = "blood") -> Self:
        """Make a new study in a folder that does not exist yet or is empty.

        Its palette begins with the colours of the laboratory's own, where there are some (`io.colours`).

        Raises
        ------
        StudyError
            If the folder holds a study already or anything else, or may not be written.
        InputError
            If the table of colours cannot be used.
        """
        folder = Path(path).resolve()
        _check_free(folder)
        colours = own_colours()
        held = lock.hold(folder, "is being made by {holder}. Wait for it, or choose another folder.")
        try:
            sweep(folder)
            named = name or folder.name.removesuffix(".dinobloom")
            content = manifest.Manifest(name=named, specimen=specimen, palette=colours)
            manifest.write_manifest(folder, content)
        except BaseException:
            held.release()
            raise
        return cls(folder, content, held, "")

    @classmethod
    def open(cls, path: str | Path, read_only: bool = False) -> Self:
        """Open a study; the content of its folder is not trusted.

        If another live process writes into it, it opens read-only and `held_by` says who.

        Raises
        ------
        StudyError
            If the folder is no study, is damaged, newer than this version, or holds links or paths that lead out of
            it. The message names the file and the remedy.
        """
        folder = Path(path).resolve()
        if not folder.is_dir():
            kind = "is a file, not a study folder" if folder.exists() else "there is no such study"
            raise StudyError(f"{folder}: {kind}. Name a .dinobloom folder.")
        _check_links(folder)
        content = manifest.read_manifest(folder)
        if read_only:
            return cls(folder, content, None, "it was opened read-only. Open it for writing")
        try:
            held = lock.acquire(folder)
        except OSError as error:
            return cls(folder, content, None, f"its folder may not be written ({error.strerror}). Mend that")
        if isinstance(held, lock.Holder):
            return cls(folder, content, held, f"{held} has it open for writing. Close it there")
        try:
            for place in (folder, *(folder / name for name in FOLDERS)):
                sweep(place)
            content = manifest.read_manifest(folder)  # the last writer may have changed it before we had the lock
        except BaseException:
            held.release()
            raise
        return cls(folder, content, held, "")

    @classmethod
    def open_or_create(
        cls, path: str | Path, *, name: str = "", specimen: Literal["blood", "marrow"] = "blood"
    ) -> Self:
        """Open the study at `path`, or make it if the folder does not exist or is empty."""
        if (Path(path) / manifest.NAME).exists():
            return cls.open(path)
        return cls.create(path, name=name, specimen=specimen)

    def close(self) -> None:
        """Give the study free for other writers; closing twice does no harm."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
            self._why_not = "it was closed. Open it again"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, fields={len(self.fields)}, read_only={self.read_only})"

    @property
    def read_only(self) -> bool:
        """Whether nothing may be written."""
        return self._lock is None or self._lock.lost

    def ensure_writable(self) -> None:
        """Raise before any work is done if nothing may be written.

        Raises
        ------
        StudyHeldError
            If another process holds the study.
        StudyError
            If it was opened read-only or its folder may not be written.
        """
        if self._lock is not None and not self._lock.check():
            raise StudyHeldError(
                f"{self.path}: this process was silent for so long that another one took the study over. "
                "Open it again to see its state."
            )
        if self._lock is None:
            kind = StudyHeldError if self.held_by else StudyError
            raise kind(f"{self.path}: cannot be changed, as {self._why_not}, or work on a copy of the folder.")

    # What study.json says

    @property
    def id(self) -> str:
        """Random uuid of the study."""
        return self._manifest.id

    @property
    def name(self) -> str:
        """Name for people."""
        return self._manifest.name

    @property
    def specimen(self) -> Literal["blood", "marrow"]:
        """What was smeared."""
        return "marrow" if self._manifest.specimen == "marrow" else "blood"

    @property
    def fields(self) -> list[FieldRecord]:
        """All images, in the order in which they were added (a copy of the list)."""
        return list(self._manifest.fields)

    @property
    def steps(self) -> dict[str, manifest.StepRecord]:
        """Finished steps by name (a copy)."""
        return dict(self._manifest.steps)

    @property
    def palette(self) -> dict[str, str]:
        """Class to ``#rrggbb`` (a copy)."""
        return dict(self._manifest.palette)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the last run (a copy of the top level)."""
        return dict(self._manifest.settings)

    def field(self, field_id: str) -> FieldRecord:
        """Return the field with this id."""
        for record in self._manifest.fields:
            if record.id == field_id:
                return record
        raise StudyError(f"{self.path}: has no field {field_id[:100]!r}.")

    def new_field_id(self, file: str, also_taken: Iterable[str] = ()) -> str:
        """Return an id for a new field: the file's stem made portable, told apart from all others."""
        return make_id(stem_of(file), [*(record.id for record in self._manifest.fields), *also_taken])

    def update(self, **changes: Any) -> None:
        """Change ``study.json`` at once and whole.

        Parameters
        ----------
        **changes
            Any of `name`, `specimen`, `fields`, `palette`, `settings`.

        Raises
        ------
        StudyError
            If a value is not allowed in a study, or it cannot be written; nothing has changed then.
        """
        allowed = ("name", "specimen", "fields", "palette", "settings")
        for key in changes:
            if key not in allowed:
                raise StudyError(f"{key!r} cannot be set in a study; expected {', '.join(allowed)}.")
        if "fields" in changes:
            changes["fields"] = list(changes["fields"])
        self._replace(**changes)

    def finish_step(self, name: str, key: str, outputs: Sequence[str | Path] = ()) -> None:
        """Note that a step is done: `key` is the hash of all it depends on, `outputs` its files in the study."""
        plain = tuple(
            (Path(file).relative_to(self.path) if Path(file).is_absolute() else Path(file)).as_posix()
            for file in outputs
        )
        self._replace(steps={**self._manifest.steps, name: manifest.StepRecord(key, plain)})

    def forget_steps(self, names: Iterable[str]) -> None:
        """Take steps for not done, as what they rest on is about to change."""
        gone = set(names) & set(self._manifest.steps)
        if gone:
            self._replace(steps={name: step for name, step in self._manifest.steps.items() if name not in gone})

    def step_done(self, name: str, key: str) -> bool:
        """Whether the step is done with this very `key` and all its outputs are there."""
        step = self._manifest.steps.get(name)
        return step is not None and step.key == key and all((self.path / file).exists() for file in step.outputs)

    def _replace(self, **changes: Any) -> None:
        """Write a changed manifest, then take it over."""
        self.ensure_writable()
        with self._guard:
            changed = dataclasses.replace(self._manifest, **changes)
            manifest.write_manifest(self.path, changed)
            self._manifest = changed


def _check_free(folder: Path) -> None:
    """Refuse a place for a new study that holds something already."""
    if folder.is_file():
        raise StudyError(f"{folder}: is a file. Choose another name for the study folder.")
    if (folder / manifest.NAME).exists():
        raise StudyError(f"{folder}: holds a study already. Open it, or choose another folder.")
    try:
        others = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    except OSError as error:
        raise StudyError(f"{folder}: cannot be read ({error.strerror}). Choose another folder.") from error
    # A process killed while it made the study leaves only its lock and unfinished files.
    others = [name for name in others if not name.startswith((lock.NAME, f".{manifest.NAME}")) and name != ".DS_Store"]
    if others:
        raise StudyError(
            f"{folder}: exists and is not a study (it holds {others[0]!r}). Nothing was changed in it. "
            "Choose a new or an empty folder."
        )


def _check_links(folder: Path) -> None:
    """Refuse links in a study folder; a folder that cannot be listed is told."""
    try:
        check_tree(folder)
    except OSError as error:
        raise StudyError(
            f"{error.filename or folder}: cannot be read ({error.strerror}). Check who may read it."
        ) from error
