"""The classes that the keys 1 to 9 stand for: a list that a person edits, kept for each study on this machine."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Sequence
from pathlib import Path

from napari_dinobloom.cells.taxonomy import CLASSES, UNCLASSIFIED
from napari_dinobloom.io.atomic import write_text
from napari_dinobloom.io.locations import home
from napari_dinobloom.io.study import Study
from napari_dinobloom.ui.gallery.sheet import Sheet

KEYS = 9
"""Classes that have a key."""

MOST = 60
"""Classes that a list may hold."""

_log = logging.getLogger(__name__)


def class_keys(study: Study, sheet: Sheet) -> list[str]:
    """Return the list that was kept for this study; else the classes that occur and, up to nine, others."""
    kept = _recall(study)
    if kept:
        return kept
    found = [name for name in sheet.classes if name != UNCLASSIFIED]
    more = [known.name for known in CLASSES if known.name not in (*found, UNCLASSIFIED)]
    return [*found, *more[: max(KEYS - len(found), 0)]]


def keep_class_keys(study: Study, names: Sequence[str]) -> None:
    """Keep the list of a study for the next time; without a home that can be written it lasts as long as the window."""
    path = _file(study)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(list(names), indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        _log.info("the classes of %s were not kept: %s", study.name, error)


def _recall(study: Study) -> list[str]:
    """The list that was kept; empty where there is none or it cannot be read."""
    try:
        stored = json.loads(_file(study).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    names = stored if isinstance(stored, list) else []
    return list(dict.fromkeys(name for name in names if isinstance(name, str) and name))[:MOST]


def _file(study: Study) -> Path:
    """The file of one study; its id is parsed, so that a stranger's text never becomes a path."""
    return home() / "classes" / f"{uuid.UUID(study.id)}.json"
