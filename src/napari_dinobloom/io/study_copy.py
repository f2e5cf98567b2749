"""A copy of a whole study in another folder: a study of its own, with the same pictures behind it."""

from __future__ import annotations

import shutil
import stat
import uuid
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io import locations, lock, manifest, view
from napari_dinobloom.io.atomic import PART, disk_errors, replacing
from napari_dinobloom.io.study import Study
from napari_dinobloom.progress import Progress, Steps, drain

STEP = 64
"""Files between two reports of progress."""


def copy_study(study: Study, target: str | Path) -> Path:
    """Copy a study as it is now, its journal included; `iter_copy_study` reports its progress.

    Parameters
    ----------
    study : Study
        What is copied; it may be open for reading only.
    target : str or Path
        The new folder ``NAME.dinobloom``; it must not exist, or be empty.

    Returns
    -------
    Path
        The new folder. Its study has an id and a name of its own, and finds its pictures where the first one does.

    Raises
    ------
    StudyError
        If `target` holds something, lies in the study itself, or cannot be written, or if the study was changed while
        it was copied, as by another process. Nothing is left there then.
    """
    return drain(iter_copy_study(study, target))


def iter_copy_study(study: Study, target: str | Path) -> Steps[Path]:
    """Copy a study as `copy_study` does, with progress in files."""
    folder = Path(target).expanduser().absolute()
    if folder.resolve().is_relative_to(study.path):
        raise StudyError(f"{folder}: lies in the study that is to be copied. Choose a folder beside it.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StudyError(f"{folder}: is there already. Choose a new name for the copy.")
    before = _state(study.path)
    files = list(before)
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder) as part:
            part.mkdir()
            for done, file in enumerate(files):
                if done % STEP == 0:
                    yield Progress(done, len(files), study.name)
                place = part / file.relative_to(study.path)
                place.parent.mkdir(parents=True, exist_ok=True)
                try:
                    shutil.copyfile(file, place)
                except FileNotFoundError:
                    break  # which the comparison below says
            if _state(study.path) != before:
                raise StudyError(f"{study.path}: was changed while it was copied. Copy it when nothing works on it.")
            content = manifest.read_manifest(part)
            own = replace(content, id=str(uuid.uuid4()), name=folder.name.removesuffix(".dinobloom"))
            manifest.write_manifest(part, own)
    with suppress(OSError):  # a user without a writable home names the folders of the pictures again
        for root, place in locations.recall(content.id).items():
            locations.remember(own.id, root, place)
    yield Progress(len(files), len(files), study.name)
    return folder


def _state(folder: Path) -> dict[Path, tuple[int, int]]:
    """Every file of a study with its size and the time of its last change, in the order of their paths."""
    found: dict[Path, tuple[int, int]] = {}
    for path in sorted(folder.rglob("*")):
        if not _passing(path, folder):
            with suppress(FileNotFoundError):
                about = path.stat()
                if stat.S_ISREG(about.st_mode):
                    found[path] = about.st_size, about.st_mtime_ns
    return found


def _passing(path: Path, folder: Path) -> bool:
    """Whether a file is no part of the study: its lock, how it was left, or a file that is not whole yet."""
    parts = path.relative_to(folder).parts
    unfinished = any(part.startswith(".") and PART in part for part in parts)
    return unfinished or parts == (view.FILE,) or parts[0].startswith(lock.NAME)
