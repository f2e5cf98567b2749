"""One writer, whoever else tries: with real processes, real kills and a hundred takers at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from napari_dinobloom.io import lock
from napari_dinobloom.io.lock import NAME, Holder, Lock, acquire

HOLD = """
import sys, time
from pathlib import Path
from napari_dinobloom.io.lock import acquire, Lock
held = acquire(Path(sys.argv[1]))
print("got" if isinstance(held, Lock) else "held", flush=True)
sys.stdin.readline()
if isinstance(held, Lock):
    held.release()
"""


def _other(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _forged(folder: Path, **changes: object) -> Holder:
    values = asdict(Holder(lock._host(), os.getpid(), "2026-01-01T00:00:00+00:00", lock._started(os.getpid()) or 0.0))
    holder = Holder(**{**values, "token": "a" * 32, **changes})  # type: ignore[arg-type]
    (folder / NAME).write_text(json.dumps(asdict(holder)))
    return holder


def test_a_second_process_is_told_who_and_gets_it_after_a_kill_and_a_release(tmp_path: Path) -> None:
    with _other(tmp_path) as process:
        assert _said(process) == "got"
        holder = acquire(tmp_path)
        assert isinstance(holder, Holder)
        assert holder.pid == process.pid
        assert f"process {process.pid} on" in str(holder)
        process.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
        deadline = time.monotonic() + 10
        while isinstance(found := acquire(tmp_path), Holder) and time.monotonic() < deadline:
            time.sleep(0.02)  # until the kernel has taken the process away; its corpse is not waited for
        assert isinstance(found, Lock)
        process.communicate()
    with _other(tmp_path) as process:
        assert _said(process) == "held"
        process.communicate("\n")
    found.release()
    with _other(tmp_path) as process:
        assert _said(process) == "got"
        process.communicate("\n")
    assert not list(tmp_path.iterdir())


def test_the_same_process_does_not_get_it_twice(tmp_path: Path) -> None:
    first = acquire(tmp_path)
    assert isinstance(first, Lock)
    second = acquire(tmp_path)
    assert isinstance(second, Holder)
    assert second.pid == os.getpid()
    first.release()
    first.release()
    third = acquire(tmp_path)
    assert isinstance(third, Lock)
    third.release()


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": 2**22 + 1},
        {"started": 1.0},  # the number was given to another process since
    ],
)
def test_a_dead_process_of_this_machine_is_taken_over_at_once(tmp_path: Path, changes: dict[str, object]) -> None:
    _forged(tmp_path, **changes)
    found = acquire(tmp_path)
    assert isinstance(found, Lock)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    found.release()


def test_another_machine_is_judged_by_its_heartbeat(tmp_path: Path) -> None:
    _forged(tmp_path, host="elsewhere", pid=1)
    assert isinstance(acquire(tmp_path), Holder)
    old = time.time() - lock.STALE_S - 5
    os.utime(tmp_path / NAME, (old, old))
    found = acquire(tmp_path)
    assert isinstance(found, Lock)
    found.release()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"host": 1}', '{"host":"h","pid":1,"since":"","started":0,"token":"../x"}']
)
def test_a_lock_that_cannot_be_read_counts_until_it_is_old(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    holder = acquire(tmp_path)
    assert isinstance(holder, Holder)
    assert str(holder) == "another process"
    os.utime(tmp_path / NAME, (1, 1))
    found = acquire(tmp_path)
    assert isinstance(found, Lock)
    found.release()


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_at_once_exactly_one_gets_it(tmp_path: Path, stale: bool) -> None:
    for turn in range(10):
        folder = tmp_path / str(turn)
        folder.mkdir()
        if stale:
            _forged(folder, pid=2**22 + 1)
        start = threading.Barrier(8)
        found: list[Lock | Holder] = []

        def take(folder: Path = folder, start: threading.Barrier = start, found: list[Lock | Holder] = found) -> None:
            start.wait()
            found.append(acquire(folder))

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        locks = [held for held in found if isinstance(held, Lock)]
        assert len(locks) == 1
        assert locks[0].check()
        locks[0].release()
        again = acquire(folder)
        assert isinstance(again, Lock)
        again.release()


def test_a_taker_killed_halfway_is_taken_over_itself(tmp_path: Path) -> None:
    dead = _forged(tmp_path, pid=2**22 + 1)
    taker = Holder(lock._host(), 2**22 + 2, "", 0.0, "b" * 32)
    (tmp_path / f"{NAME}-{dead.token}").write_text(json.dumps(asdict(taker)))
    found = acquire(tmp_path)
    assert isinstance(found, Lock)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    found.release()


def test_whoever_was_taken_over_notices_and_leaves_the_new_lock_alone(tmp_path: Path) -> None:
    first = acquire(tmp_path)
    assert isinstance(first, Lock)
    _forged(tmp_path, host="elsewhere")
    assert not first.check()
    first.release()
    assert (tmp_path / NAME).exists()


def test_the_heartbeat_moves_the_time_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.01)
    held = acquire(tmp_path)
    assert isinstance(held, Lock)
    os.utime(tmp_path / NAME, (1, 1))
    deadline = time.monotonic() + 10
    while (tmp_path / NAME).stat().st_mtime < 1000 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert time.time() - (tmp_path / NAME).stat().st_mtime < 60
    held.release()


def test_without_hard_links_it_is_exclusive_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", none)
    monkeypatch.setattr(os, "rename", none)
    held = acquire(tmp_path)
    assert isinstance(held, Lock)
    assert isinstance(acquire(tmp_path), Holder)
    held.release()


def test_another_thread_does_not_get_it_while_it_is_given_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = acquire(tmp_path)
    assert isinstance(held, Lock)
    chain, found = lock._chain, list[Lock | Holder]()

    def slow(folder: Path) -> list[tuple[Path, Holder]]:
        """Look, and let another thread try before anything comes of it."""
        seen = chain(folder)
        if not found:
            found.append(Holder("", 0, ""))
            thread = threading.Thread(target=lambda: found.append(acquire(folder)))
            thread.start()
            thread.join()
        return seen

    monkeypatch.setattr(lock, "_chain", slow)
    held.release()
    assert isinstance(found[1], Holder)
    free = acquire(tmp_path)
    assert isinstance(free, Lock)
    free.release()
