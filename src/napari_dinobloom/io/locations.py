"""Where the images of a study lie on this machine: kept in the user's own folder, never in the study.

A study names its images relative to roots ``r1``, ``r2``, ... One small JSON file for each study, named by the study's
uuid, says which folder each root is here. ``NAPARI_DINOBLOOM_HOME`` moves the folder.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

from napari_dinobloom.io.atomic import write_text


def home() -> Path:
    """Return the user's data folder of this package (it need not exist yet)."""
    chosen = os.environ.get("NAPARI_DINOBLOOM_HOME")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("napari-dinobloom", appauthor=False))


def recall(study_id: str) -> dict[str, Path]:
    """Return the folder of each root of a study on this machine; empty if none is known or the file is unreadable."""
    try:
        stored = json.loads(_file(study_id).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(stored, dict):
        return {}
    return {root: Path(folder) for root, folder in stored.items() if isinstance(folder, str) and folder}


def remember(study_id: str, root: str, folder: Path) -> None:
    """Keep that `root` of the study is `folder` on this machine.

    Raises
    ------
    OSError
        If the user's data folder may not be written; the caller keeps the location for this session.
    """
    known = {name: str(place) for name, place in recall(study_id).items()}
    known[root] = str(folder)
    path = _file(study_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(known, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def _file(study_id: str) -> Path:
    """Return the file of one study; its id is parsed, so that a stranger's text never becomes a path."""
    return home() / "locations" / f"{uuid.UUID(study_id)}.json"
