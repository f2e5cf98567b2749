"""Write a step's result whole or not at all: temporary name, fsync, rename."""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from napari_dinobloom.errors import StudyError

PART = ".part-"
OLD = "old-"
DAY = 86_400.0
"""Seconds."""

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync it and rename it over `path`.

    Works for a file and for a folder. Without `sync` a file may be lost, or left empty, when the machine loses its
    power: for what can be done without. After an error nothing of `path` has changed and the
    temporary is removed. A process killed in between leaves only a ``.part-`` name, which
    `sweep` removes.
    """
    part = path.with_name(f".{path.name}{PART}{uuid.uuid4().hex[:8]}")
    try:
        yield part
        if part.is_dir():
            _swap_folder(part, path)
        else:
            if sync:
                with open(part, "rb+") as handle:
                    os.fsync(handle.fileno())
            _replace_file(part, path)
        if sync:
            sync_folder(path.parent)
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def _replace_file(part: Path, path: Path) -> None:
    """Rename `part` over `path`; Windows refuses while a reader has `path` open, so wait for it there."""
    for _ in range(20 if os.name == "nt" else 0):
        try:
            os.replace(part, path)
        except PermissionError:
            time.sleep(0.05)
        else:
            return
    if part.exists():
        os.replace(part, path)


def _swap_folder(part: Path, path: Path) -> None:
    """Put folder `part` in the place of `path`, which may exist and hold files."""
    if not path.exists():
        os.rename(part, path)
        return
    old = path.with_name(f".{path.name}{PART}{OLD}{uuid.uuid4().hex[:8]}")
    os.rename(path, old)
    os.rename(part, path)
    shutil.rmtree(old, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable; Windows cannot open folders and needs no such call."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str, *, sync: bool = True) -> None:
    """Replace `path` by UTF-8 `text` with Unix line ends, whole or not at all; `sync` as in `replacing`."""
    with replacing(path, sync=sync) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def sweep(folder: Path, *, older: float = 0) -> None:
    """Remove what killed processes left of unfinished writes in `folder`.

    Only by the lock's holder; where others may be writing, only what is `older` than some seconds. A folder that was
    moved aside and whose successor never came is put back.
    """
    for left in folder.glob(f".*{PART}*"):
        if older and _age(left) < older:
            continue
        name, _, tail = left.name[1:].partition(PART)
        home = folder / name
        if tail.startswith(OLD) and not home.exists():
            with suppress(OSError):
                os.rename(left, home)
        elif left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with suppress(OSError):
                left.unlink()


def _age(path: Path) -> float:
    """Seconds since a file was written; 0 where it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an error of the disk while writing `path` into a `StudyError` that names it and the remedy.

    Raises
    ------
    StudyError
        For a full disk or quota, a folder that may not be written, and any other `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise StudyError(_remedy(error, path)) from error
    except RuntimeError as error:  # HDF5 hides the number of the system's error in its text
        if "errno" not in str(error):
            raise
        raise StudyError(_remedy(error, path)) from error


def _remedy(error: OSError | RuntimeError, path: Path) -> str:
    """Describe in words what to do after `error` at `path`."""
    number = _errno_of(error)
    if number in _FULL:
        return (
            f"{path}: the disk, or your quota on it, is full. What was finished before is untouched. "
            "Free some space or move the folder to another disk, then run the same command again."
        )
    if number in _FORBIDDEN:
        return (
            f"{path}: may not be written ({os.strerror(number)}). "
            "Make the folder writable, or choose another output folder."
        )
    return (
        f"{path}: could not be written ({error}). What was finished before is untouched; check the disk and run again."
    )


def _errno_of(error: OSError | RuntimeError) -> int:
    """Return the system's error number, which HDF5 gives only inside the text (``errno = 28``)."""
    number = getattr(error, "errno", None)
    if number:
        return int(number)
    digits = str(error).partition("errno = ")[2].split(",")[0].split(")")[0].strip()
    return int(digits) if digits.isdigit() else 0
