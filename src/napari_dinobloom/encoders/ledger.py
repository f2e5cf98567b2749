"""What this machine knows about its weights: hashes seen and pinned, terms accepted, checkpoints registered.

All of it is one readable file, ``weights.json`` in the cache folder, replaced whole at every change; changes of
several processes come one after the other. Hashing the largest encoder takes seconds, so a hash is remembered with the
file's size, time and number, and taken again when one of them has changed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from napari_dinobloom.errors import EncoderError
from napari_dinobloom.io.atomic import write_text
from napari_dinobloom.io.journal import now, user
from napari_dinobloom.io.lock import Lock, acquire
from napari_dinobloom.io.part import iter_hash_open
from napari_dinobloom.progress import Steps

NAME = "weights.json"
VERSION = 1

LOCK = ".ledger"
"""Folder beside the file whose lock is held while it is changed; that of the cache folder belongs to fetching."""

PATIENCE_S = 90.0
"""Longest wait for another process that changes the file; a dead one's lock is taken over before."""

HASHINGS = 3
"""Times that a file is hashed which is written to meanwhile."""

REMEMBERED_FROM = 32 << 20
"""Bytes from which the hash of a file outside the cache folder is worth a record."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A hash (64 hexadecimal digits), and the size, time (nanoseconds) and number of the file it was computed from."""

    sha256: str
    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, stat: os.stat_result, sha256: str) -> Seen:
        """Join a hash and the state of the file that it is of."""
        return cls(sha256, stat.st_size, stat.st_mtime_ns, stat.st_ino)

    def holds(self, path: Path) -> bool:
        """Whether a file is still as it was when it was hashed."""
        try:
            return self == Seen.of(path.stat(), self.sha256)
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Pin:
    """The first hash seen of a file for which none is published, when (ISO 8601, UTC), and whose weights it holds."""

    sha256: str
    at: str
    encoder: str


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Terms of an encoder's weights, who accepted them and when (ISO 8601, UTC)."""

    terms: str
    by: str
    at: str


@dataclass(frozen=True, slots=True)
class Imported:
    """A user's own checkpoint.

    Attributes
    ----------
    name : str
        What it is called here.
    file : str
        Its path; relative to the cache folder where it was copied there.
    sha256 : str
        64 hexadecimal digits.
    architecture : str
        Name of its architecture or network.
    positions : str
        Rule by which its position embeddings are resampled; empty where they fit.
    at : str
        When it was imported (ISO 8601, UTC).
    like : str
        Encoder for which pictures are prepared in the same way; empty where the architecture says it.
    """

    name: str
    file: str
    sha256: str
    architecture: str
    positions: str
    at: str
    like: str = ""


Record = TypeVar("Record", Seen, Pin, Acceptance, Imported)


@dataclass(slots=True)
class Ledger:
    """The content of ``weights.json``.

    Attributes
    ----------
    folder : Path
        The cache folder.
    seen, pins : dict
        By path: relative to `folder` for files in it, else absolute.
    accepted : dict
        By name of the encoder.
    imports : dict
        By name in small letters.
    """

    folder: Path
    seen: dict[str, Seen] = field(default_factory=dict)
    pins: dict[str, Pin] = field(default_factory=dict)
    accepted: dict[str, Acceptance] = field(default_factory=dict)
    imports: dict[str, Imported] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Ledger:
        """Read what is known in a cache folder; nothing where there is no file.

        Raises
        ------
        EncoderError
            If the file is damaged, or of a newer version of this package.
        """
        path = folder / NAME
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            if raw["version"] > VERSION:
                raise EncoderError(f"{path} was written by a newer napari-dinobloom. Upgrade this one.")
            parts = (_records(Seen, raw["seen"]), _records(Pin, raw["pins"]))
            return cls(folder, *parts, _records(Acceptance, raw["accepted"]), _records(Imported, raw["imports"]))
        except FileNotFoundError:
            return cls(folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise EncoderError(
                f"{path}: damaged or unreadable ({error}). Put a copy back, or remove it: then hashes are taken anew, "
                "accepted terms are asked for again, and your own checkpoints have to be imported again."
            ) from error

    @classmethod
    @contextmanager
    def change(cls, folder: Path) -> Iterator[Ledger]:
        """Give the ledger to be changed, and write it at the end; other processes wait so long. Never hash inside.

        Raises
        ------
        EncoderError
            As `read`; or another process does not give the file free.
        OSError
            The folder may not be written.
        """
        lock = _lock(folder / LOCK)
        try:
            ledger = cls.read(folder)
            yield ledger
            ledger.write()
        finally:
            lock.release()

    def write(self) -> None:
        """Replace the file; only inside `change`.

        Raises
        ------
        OSError
            If the folder may not be written.
        """
        raw = {
            "version": VERSION,
            "seen": _plain(self.seen),
            "pins": _plain(self.pins),
            "accepted": _plain(self.accepted),
            "imports": _plain(self.imports),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / NAME, json.dumps(raw, indent=1, ensure_ascii=False) + "\n")

    def key(self, path: Path) -> str:
        """Name of a file in the tables."""
        whole, folder = path.resolve(), self.folder.resolve()
        return str(whole.relative_to(folder)) if whole.is_relative_to(folder) else str(whole)

    def remembered(self, path: Path) -> Seen | None:
        """Give the hash of a file that has not changed since it was computed, else None."""
        seen = self.seen.get(self.key(path))
        return seen if seen is not None and seen.holds(path) else None

    def remember(self, path: Path, seen: Seen) -> bool:
        """Take down the hash of a file, where that is new and worth it; return whether it was."""
        key = self.key(path)
        ours = not Path(key).is_absolute() or key in {imported.file for imported in self.imports.values()}
        if self.seen.get(key) == seen or not (ours or seen.size >= REMEMBERED_FROM):
            return False
        self.seen[key] = seen
        return True

    def pin(self, path: Path, sha256: str, encoder: str) -> None:
        """Take down that this is the hash by which the file is known from now on."""
        self.pins[self.key(path)] = Pin(sha256, now(), encoder)

    def accept(self, name: str, terms: str) -> None:
        """Take down that the user accepts the terms of an encoder."""
        self.accepted[name] = Acceptance(terms, user(), now())

    def has_accepted(self, name: str, terms: str) -> bool:
        """Whether these very terms were accepted."""
        known = self.accepted.get(name)
        return known is not None and known.terms == terms


def iter_seen(path: Path) -> Steps[Seen]:
    """Hash a file, with progress in bytes; what comes back is the state of the very bytes that were hashed.

    A file that takes the place of `path` meanwhile has another number, so `Seen.holds` tells it from the hashed one.

    Raises
    ------
    EncoderError
        The file cannot be read, or is written to all the while.
    """
    try:
        for _ in range(HASHINGS):
            with open(path, "rb") as handle:
                before = os.fstat(handle.fileno())
                seen = Seen.of(before, (yield from iter_hash_open(handle, path.name)))
                if seen == Seen.of(os.fstat(handle.fileno()), seen.sha256):
                    return seen
    except OSError as error:
        raise EncoderError(
            f"{path}: cannot be read ({error.strerror or error}). Make the file readable, or give another one."
        ) from error
    raise EncoderError(f"{path}: is being written to. Wait until that has finished, then run again.")


def _lock(folder: Path) -> Lock:
    """Take the lock of `folder`, which is made where it is missing; wait for whoever has it."""
    end = time.monotonic() + PATIENCE_S
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        lock = acquire(folder)
        if isinstance(lock, Lock):
            return lock
        if time.monotonic() > end:
            raise EncoderError(f"{folder.parent / NAME}: {lock} is changing it and does not finish. End that process.")
        time.sleep(0.01)


def _plain(table: Mapping[str, Record]) -> dict[str, dict[str, Any]]:
    """Plain values of records, in the order of their keys."""
    return {key: asdict(record) for key, record in sorted(table.items())}


def _records(kind: type[Record], raw: Mapping[str, Any]) -> dict[str, Record]:
    """Make records of plain values; TypeError where one has another field or type."""
    table = {key: kind(**value) for key, value in raw.items()}
    types = {"str": str, "int": int}
    for key, record in table.items():
        for entry in fields(record):
            if type(getattr(record, entry.name)) is not types[str(entry.type)]:
                raise TypeError(f"{entry.name} of {key!r} is no {entry.type}")
    return table
