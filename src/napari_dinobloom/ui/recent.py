"""The studies that this user opened last, in a small file of the user's own folder; never in a study."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_dinobloom.io.atomic import write_text
from napari_dinobloom.io.locations import home
from napari_dinobloom.io.manifest import NAME

_log = logging.getLogger(__name__)

MOST = 12
"""Studies that are kept in mind."""


@dataclass(frozen=True, slots=True)
class Recent:
    """A study that was open before.

    Attributes
    ----------
    path : Path
        Its folder.
    missing : bool
        Whether there is no study at this place now: moved, deleted, or on a disk that is not connected.
    """

    path: Path
    missing: bool


def recent() -> list[Recent]:
    """List the studies that were open last, and look whether they are there, which may take long: in a second thread.

    Returns
    -------
    list of Recent
        The latest first; none where the file is damaged.
    """
    return [Recent(path, not (path / NAME).is_file()) for path in remembered()]


def remembered() -> list[Path]:
    """Folders of the studies that were open last, the latest first; nobody looks whether they are there."""
    try:
        stored = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    named = stored if isinstance(stored, list) else []
    return [Path(one) for one in named if isinstance(one, str) and one]


def remember(path: Path) -> None:
    """Put a study first on the list; a home that cannot be written is no reason to fail."""
    path = Path(path).absolute()
    _write([path, *(other for other in remembered() if other != path)][:MOST])


def forget(*paths: Path) -> None:
    """Take studies off the list."""
    _write([other for other in remembered() if other not in paths])


def _file() -> Path:
    return home() / "recent.json"


def _write(paths: Sequence[Path]) -> None:
    content = json.dumps([str(path) for path in paths], indent=1, ensure_ascii=False)
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_text(_file(), content + "\n")
    except OSError as error:
        _log.warning("the list of recent studies cannot be kept: %s", error)
