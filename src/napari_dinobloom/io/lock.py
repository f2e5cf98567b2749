"""One writer for a study: a lock file with host, process and heartbeat, and its takeover when the writer is dead.

The file ``.lock`` names the writer by a random token. It is made whole and exclusively: written under another name and
hard-linked (on Windows renamed), which fails if it exists; where the file system knows no hard links, ``O_EXCL``.

Takeover without a race: whoever finds the writer with token T dead makes ``.lock-T`` exclusively; only one can. The
last link of the chain ``.lock`` -> ``.lock-T`` -> ``.lock-U`` ... holds the study, and shortens the chain by renaming
its own file over ``.lock`` before it removes the others, so at no moment the study looks free.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from napari_dinobloom.errors import StudyHeldError
from napari_dinobloom.io.atomic import disk_errors

NAME = ".lock"
BEAT_S = 10.0
STALE_S = 60.0
_START_TOLERANCE_S = 2.0  # the system's idea of when it was booted moves by about a second
_ours: set[str] = set()  # tokens that this process holds; a moved folder may bring the file of one that was let go


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a study for writing.

    Attributes
    ----------
    host : str
        Name of the machine; with the number of the process name space on Linux, as containers may share a host name.
    pid : int
        Number of the process; 0 where the lock file cannot be read.
    since : str
        ISO time in UTC at which the study was opened.
    started : float
        Start of the process, seconds since 1970; tells a reused number from the process itself.
    token : str
        Random, for each opening.
    """

    host: str
    pid: int
    since: str
    started: float = 0.0
    token: str = ""

    def __str__(self) -> str:
        host = self.host.partition("|")[0]
        return f"process {self.pid} on {host} since {self.since}" if self.pid else "another process"


class Lock:
    """The right to write into a folder, kept by a heartbeat until `release`.

    Made by `acquire` only.
    """

    def __init__(self, folder: Path, holder: Holder) -> None:
        self.holder = holder
        self._path = folder / NAME
        self._stop = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._beat, name="dinobloom-lock", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether another process has taken the study over, because this one was silent for too long."""
        return self._lost

    def check(self) -> bool:
        """Look at the file now and return whether this process still holds the study."""
        if not self._stop.is_set():
            self._look()
        return not self._lost

    def release(self) -> None:
        """Give the study free; does nothing in a forked child, or after another process took over."""
        self._stop.set()
        if os.getpid() != self.holder.pid:
            return
        try:
            if threading.current_thread() is not self._thread:
                self._thread.join(timeout=1.0)
            chain = _chain(self._path.parent)
            if chain and chain[-1][1].token == self.holder.token:
                with suppress(OSError):
                    self._path.unlink()
        finally:
            _ours.discard(self.holder.token)  # last: a file whose token is not ours is free for another thread

    def _beat(self) -> None:
        """Touch the lock file until the end; runs in a daemon thread."""
        while not self._stop.wait(BEAT_S):
            self._look()
            if self._lost:
                return
            with suppress(OSError):
                os.utime(self._path)

    def _look(self) -> None:
        """Note whether somebody else's name now stands at the end of the chain."""
        try:
            chain = _chain(self._path.parent)
        except OSError:
            return  # a disk that is away for a moment says nothing about the lock
        if chain and chain[-1][1].token != self.holder.token:
            self._lost = True
        elif not chain and not self._stop.is_set():
            with suppress(OSError):  # the folder itself may be gone
                _create(self._path, self.holder)


def acquire(folder: Path) -> Lock | Holder:
    """Take the lock of `folder`, or say who has it.

    Returns
    -------
    Lock or Holder
        A `Lock` that is now ours, or the live `Holder`.

    Raises
    ------
    OSError
        If the folder may not be written.
    """
    me = Holder(_host(), os.getpid(), _now(), _started(os.getpid()) or 0.0, uuid.uuid4().hex)
    _ours.add(me.token)  # before any file has it: another thread may look at once
    found: Lock | Holder | None = None
    try:
        found = _acquire(folder, me)
    finally:
        if not isinstance(found, Lock):
            _ours.discard(me.token)
    return found


def hold(folder: Path, refusal: str) -> Lock:
    """Make a folder, if need be, and take its lock.

    Parameters
    ----------
    folder : Path
        The folder.
    refusal : str
        What is said where another process has it, with ``{holder}`` in it: what it does there and what to do.

    Raises
    ------
    StudyHeldError
        Another process has it; the message names folder and process.
    StudyError
        If the folder cannot be written.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        found = acquire(folder)
    if isinstance(found, Holder):
        raise StudyHeldError(f"{folder}: {refusal.format(holder=found)}")
    return found


def _acquire(folder: Path, me: Holder) -> Lock | Holder:
    """Take the lock of `folder` in the name of `me`, or say who has it."""
    for _ in range(50):
        chain = _chain(folder)
        if not chain:
            if _create(folder / NAME, me) and _is_last(folder, me):
                return Lock(folder, me)
            continue
        path, holder = chain[-1]
        if _alive(folder, path, holder):
            return holder
        claim = _successor(folder, holder)
        if not _create(claim, me):
            continue
        if _is_last(folder, me):
            _shorten(folder, me, [place for place, _ in chain] + [claim])
            return Lock(folder, me)
        with suppress(OSError):  # somebody was faster and has shortened the chain already
            claim.unlink()
    return Holder(host="", pid=0, since="")


def _chain(folder: Path) -> list[tuple[Path, Holder]]:
    """Return all lock files from ``.lock`` to the last takeover, each with its holder."""
    links: list[tuple[Path, Holder]] = []
    path = folder / NAME
    while len(links) < 100:
        holder = _read(path)
        if holder is None:
            break
        links.append((path, holder))
        path = _successor(folder, holder)
    return links


def _successor(folder: Path, holder: Holder) -> Path:
    """Path of the file that takes over from `holder`."""
    return folder / f"{NAME}-{holder.token}"


def _is_last(folder: Path, me: Holder) -> bool:
    """Whether the chain ends with us."""
    chain = _chain(folder)
    return bool(chain) and chain[-1][1].token == me.token


def _shorten(folder: Path, me: Holder, old: list[Path]) -> None:
    """Put our own file in the place of ``.lock``, then remove the rest of the chain."""
    part = folder / f"{NAME}.part-{me.token[:8]}"
    try:
        part.write_text(json.dumps(asdict(me)), encoding="utf-8")
        os.replace(part, folder / NAME)
    except OSError:
        return  # a long chain is as good
    for path in old:
        if path.name != NAME:
            with suppress(OSError):
                path.unlink()


def _create(path: Path, me: Holder) -> bool:
    """Make a lock file whole and exclusively; return False if it exists."""
    text = json.dumps(asdict(me))
    part = path.with_name(f"{NAME}.part-{uuid.uuid4().hex[:8]}")
    try:
        part.write_text(text, encoding="utf-8")
        try:
            if sys.platform == "win32":
                os.rename(part, path)
            else:
                os.link(part, path)
        except FileExistsError:
            return False
        except OSError:
            return _create_exclusively(path, text)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return True


def _create_exclusively(path: Path, text: str) -> bool:
    """Make a lock file on a file system without hard links."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    return True


def _read(path: Path) -> Holder | None:
    """Return who stands in a lock file; None if there is no file, an unknown holder if it cannot be understood."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        holder = Holder(
            host=str(stored["host"])[:200],
            pid=int(stored["pid"]),
            since=str(stored["since"])[:40],
            started=float(stored["started"]),
            token=uuid.UUID(str(stored["token"])).hex,
        )
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, OverflowError):
        return Holder(host="", pid=0, since="", token="unreadable")
    return holder


def _alive(folder: Path, path: Path, holder: Holder) -> bool:
    """Whether the holder still lives: its process on this machine, its heartbeat on any other."""
    if holder.pid > 0 and holder.host == _host():
        if holder.pid == os.getpid():
            return holder.token in _ours
        started = _started(holder.pid)
        return started is not None and abs(started - holder.started) <= _START_TOLERANCE_S
    return _age(folder, path) <= STALE_S


def _age(folder: Path, path: Path) -> float:
    """Seconds since the last heartbeat by the clock of the disk's own machine, which may differ from ours."""
    probe = folder / f"{NAME}.part-{uuid.uuid4().hex[:8]}"
    try:
        probe.touch()
        now = probe.stat().st_mtime
        return now - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def _host() -> str:
    """Name of this machine and, on Linux, of the process name space in which process numbers hold."""
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return f"{socket.gethostname()}|{space}"


def _started(pid: int) -> float | None:
    """Start time of a process in seconds since 1970; None if there is none (or only its corpse), 0 if unknown."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(process.create_time())
    except psutil.NoSuchProcess:
        return None
    except psutil.Error:
        return 0.0


def _now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
