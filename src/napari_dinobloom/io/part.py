"""A file that is arriving: its bytes so far, their hash, and the checks before it gets its name.

The bytes lie in a part file beside the target (``.NAME.download``), which keeps its name so that a later call goes on
with it. Beside it ``.NAME.download.version`` keeps the server's mark of the file's version, so that two versions are
never joined. The SHA-256 is computed while the bytes pass.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from napari_dinobloom.io.atomic import sync_folder
from napari_dinobloom.progress import Progress, Steps

FILE_BLOCK = 1 << 20
"""Bytes read from a disk in one go."""

REPORT_S = 0.1
"""Least seconds between two reports of progress."""

Check = Callable[[Path, str], None]
"""Looks at a file that is whole, given with its SHA-256, before it gets its name; raises `Unwanted` to refuse it."""


class Unwanted(Exception):
    """What arrived is not the file that was asked for; the text says how it differs."""


def part_of(target: Path) -> Path:
    """Name under which the bytes of `target` arrive."""
    return target.with_name(f".{target.name}.download")


def iter_hash(path: Path) -> Steps[str]:
    """Compute the SHA-256 of a file, 64 hexadecimal digits, with progress in bytes."""
    with open(path, "rb") as handle:
        return (yield from iter_hash_open(handle, path.name))


def iter_hash_open(handle: IO[bytes], name: str) -> Steps[str]:
    """Compute the SHA-256 of an open file from its beginning, as `iter_hash` does."""
    digest, total, clock, done = hashlib.sha256(), os.fstat(handle.fileno()).st_size, Clock(), 0
    handle.seek(0)
    while block := handle.read(FILE_BLOCK):
        digest.update(block)
        done += len(block)
        if clock.due():
            yield _report(done, total, name)
    yield _report(done, total, name)
    return digest.hexdigest()


def iter_copy(
    source: Path, target: Path, *, size: int | None = None, sha256: str | None = None, check: Check | None = None
) -> Steps[str]:
    """Copy `source`, which was carried here, to `target` with the checks of `iter_download`.

    Raises
    ------
    Unwanted
        `source` has another size or sum, or `check` refuses it; `target` is untouched then.
    OSError
        `source` cannot be read or `target` not written.
    """
    part = Part(target, size, sha256)
    part.clear()
    part.total = source.stat().st_size
    clock = Clock()
    try:
        with open(source, "rb") as read, open(part.path, "wb") as write:
            while block := read.read(FILE_BLOCK):
                part.take(block, write)
                if clock.due():
                    yield part.progress()
        if check is not None:
            yield part.looking()
        part.settle(check)
    except BaseException:
        part.clear()
        raise
    yield part.progress()
    return part.sha256


def _report(done: int, total: int, name: str) -> Progress:
    """Progress in bytes, with a message in megabytes for people."""
    of = f" of {total / 1e6:,.0f}" if total else ""
    return Progress(done, total, f"{name}, {done / 1e6:,.0f}{of} MB")


class Clock:
    """Says when progress is worth a report: at once, then every `REPORT_S`."""

    def __init__(self) -> None:
        self._next = 0.0

    def due(self) -> bool:
        """Whether it is time; asking starts the next wait."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + REPORT_S
        return True


class Part:
    """What has arrived of a file: how much, its hash so far, and which version of the file it belongs to."""

    def __init__(self, target: Path, size: int | None, sha256: str | None) -> None:
        self.target, self.size, self.wanted = target, size, sha256
        self.path = part_of(target)
        self._note = self.path.with_name(f"{self.path.name}.version")
        self.have, self.total, self.version, self.joined = 0, size or 0, "", False
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Hash of what is there."""
        return self._digest.hexdigest()

    @property
    def complete(self) -> bool:
        """Whether all bytes are there, as far as one can know without asking."""
        return self.size is not None and self.have == self.size

    def progress(self) -> Progress:
        """Report of how much is there."""
        return _report(self.have, max(self.total, self.have) if self.total else 0, self.target.name)

    def looking(self) -> Progress:
        """Report that the file is whole and looked at."""
        return Progress(self.have, self.have, f"reading {self.target.name}")

    def iter_take_up(self) -> Iterator[Progress]:
        """Read what an earlier call left, or remove it where nobody can tell which version it belongs to."""
        with suppress(OSError, UnicodeDecodeError):
            self.version = self._note.read_text(encoding="utf-8").strip()
        left = self.path.stat().st_size if self.path.exists() else 0
        if not (self.wanted or self.version) or (self.size is not None and left > self.size):
            self.clear()
        if not self.path.exists():
            return
        clock = Clock()
        with open(self.path, "rb") as handle:
            while block := handle.read(FILE_BLOCK):
                self._digest.update(block)
                self.have += len(block)
                if clock.due():
                    yield self.progress()
        self.joined = self.have > 0

    def begin(self, version: str) -> None:
        """Note which version the bytes that come now belong to."""
        if version != self.version:
            self.version = version
            self._note.write_text(version, encoding="utf-8")

    def take(self, block: bytes, handle: IO[bytes]) -> None:
        """Write bytes behind those that are there."""
        if self.size is not None and self.have + len(block) > self.size:
            raise Unwanted(f"it is larger than {self.size} bytes")
        handle.write(block)
        self._digest.update(block)
        self.have += len(block)

    def end(self, length: str) -> None:
        """Take note of how long the server says the file is, when it has nothing to add."""
        if length == str(self.have):
            self.size = self.have
        else:
            self.clear()

    def clear(self) -> None:
        """Forget all that has arrived."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self.have, self.total, self.version, self.joined = 0, self.size or 0, "", False
        self._digest = hashlib.sha256()

    def settle(self, check: Check | None = None) -> None:
        """Check what has arrived and give it its name, or raise Unwanted; until then `target` is untouched."""
        if self.size is not None and self.have != self.size:
            raise Unwanted(f"{self.have} bytes instead of {self.size}")
        if self.wanted is not None and self.sha256 != self.wanted.lower():
            raise Unwanted(f"its SHA-256 is {self.sha256[:16]}..., not {self.wanted[:16]}...")
        if not self.path.exists():  # an empty file
            self.path.touch()
        if check is not None:
            check(self.path, self.sha256)
        with open(self.path, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(self.path, self.target)
        self._note.unlink(missing_ok=True)
        sync_folder(self.target.parent)
