"""What a study from a stranger may say and hold: names, relative paths, and no links out of its folder."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path, PurePosixPath

from napari_dinobloom.errors import StudyError

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_RESERVED = {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(1, 10)), *(f"lpt{i}" for i in range(1, 10))}
_DRIVE = re.compile(r"[A-Za-z]:")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

MAX_TEXT = 1000


def why_not_relative(file: str) -> str:
    """Say why `file` is no plain relative POSIX path, or return an empty string.

    A plain path has no root, drive, backslash, ``.`` or ``..`` part, double slash, control character or text that is
    not valid Unicode, so that it means the same place below a folder on every system.
    """
    if not file or len(file) > MAX_TEXT:
        return "is empty or too long"
    if _UNPRINTABLE.search(file):
        return "holds a control character or is not valid Unicode"
    if "\\" in file:
        return "holds a backslash"
    if file.startswith("/") or _DRIVE.match(file):
        return "is absolute"
    parts = file.split("/")
    if ".." in parts:
        return "leaves its folder by '..'"
    if "" in parts or "." in parts:
        return "has an empty or '.' part"
    return ""


def check_relative(file: object, where: str) -> str:
    """Return `file` if it is a plain relative POSIX path.

    Raises
    ------
    StudyError
        Naming `where` the path stands and what is wrong with it.
    """
    if not isinstance(file, str):
        raise StudyError(f"{where}: a path must be text, not {type(file).__name__}. The study cannot be trusted.")
    reason = why_not_relative(file)
    if reason:
        raise StudyError(
            f"{where}: the path {file[:200]!r} {reason}. A study holds only plain paths below its folders; "
            "this one was made or changed by something else and is refused."
        )
    return file


def is_id(text: object) -> bool:
    """Whether `text` can be the id of a field: a portable file stem of at most 80 ASCII characters."""
    return (
        isinstance(text, str)
        and _ID.fullmatch(text) is not None
        and not text.endswith(".")
        and text.split(".")[0].casefold() not in _RESERVED
    )


def check_text(text: object, where: str, *, empty: bool = True) -> str:
    """Return `text` if it is a printable string of at most 1,000 characters (any language, any punctuation).

    Raises
    ------
    StudyError
        Naming `where` the text stands.
    """
    if not isinstance(text, str) or len(text) > MAX_TEXT or _UNPRINTABLE.search(text) or not (text or empty):
        raise StudyError(
            f"{where}: {str(text)[:80]!r} is not a name: expected {'' if empty else 'non-empty '}text "
            f"of at most {MAX_TEXT} characters without line breaks or control characters."
        )
    return text


def check_tree(folder: Path) -> None:
    """Refuse a study folder that holds a symbolic link, a junction or anything but files and folders.

    Raises
    ------
    StudyError
        Naming the entry.
    """
    pending = [str(folder)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_symlink() or getattr(entry, "is_junction", bool)():
                    raise StudyError(
                        f"{entry.path}: is a link. A link inside a study can lead to any file of this machine, "
                        "so the study is refused. Put the file or folder itself in its place, or delete the link."
                    )
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif not entry.is_file(follow_symlinks=False):
                    raise StudyError(f"{entry.path}: is neither a file nor a folder. Delete it to open the study.")


def inside(folder: Path, file: str) -> Path:
    """Path of the plain relative `file` in `folder`, with no link on the way.

    Raises
    ------
    StudyError
        If `file` is not plain or a part of it is a link.
    """
    check_relative(file, str(folder))
    path = folder
    for part in PurePosixPath(file).parts:
        path = path / part
        try:
            mode = path.lstat().st_mode
        except OSError:
            continue
        if stat.S_ISLNK(mode):
            raise StudyError(f"{path}: is a link, which is refused inside a study. Put the file itself in its place.")
    return path
