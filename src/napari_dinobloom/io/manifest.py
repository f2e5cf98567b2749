"""``study.json``: the fields, steps, palette and settings of a study, checked when read and replaced when written."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.atomic import disk_errors, write_text
from napari_dinobloom.io.fields import FieldRecord, parse_field
from napari_dinobloom.io.trust import check_relative, check_text

NAME = "study.json"
SCHEMA = 1
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_MAX_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A finished step.

    Attributes
    ----------
    key : str
        Hash of all that the result depends on.
    outputs : tuple of str
        Relative POSIX paths of its files in the study.
    """

    key: str
    outputs: tuple[str, ...] = ()


@dataclass(kw_only=True, slots=True)
class Manifest:
    """The content of ``study.json``."""

    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    """Random uuid; the user's own locations file goes by it."""
    name: str = ""
    """Name for people."""
    specimen: str = "blood"
    """``blood`` or ``marrow``."""
    fields: list[FieldRecord] = field(default_factory=list)
    """Images, in the order in which they were added."""
    roots: dict[str, str] = field(default_factory=dict)
    """Root id to the bare name of its folder, for messages; where it lies is not stored here."""
    steps: dict[str, StepRecord] = field(default_factory=dict)
    """Finished steps by name."""
    palette: dict[str, str] = field(default_factory=dict)
    """Class to ``#rrggbb``."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the last run, plain JSON values."""


def read_manifest(folder: Path) -> Manifest:
    """Read and check ``study.json``.

    Raises
    ------
    StudyError
        If the folder is no study, the file is damaged, of a newer schema, or holds what a study may not hold.
    """
    path = folder / NAME
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise StudyError(f"{path}: is {path.stat().st_size:,} bytes long, which no study needs. It is refused.")
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StudyError(
            f"{folder}: is not a study (it holds no {NAME}). Name a .dinobloom folder, or make one with "
            "'napari-dinobloom run IMAGES -o NAME.dinobloom'."
        ) from error
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror or error}). Check who may read it.") from error
    except (ValueError, RecursionError) as error:
        raise StudyError(
            f"{path}: is damaged ({error}). Restore it from a backup, or run again into a new folder; hand labels lie "
            "in edits.jsonl."
        ) from error
    return _parse(raw, path)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace ``study.json``, whole or not at all.

    Raises
    ------
    StudyError
        If a value is not allowed there, or the disk is full or may not be written.
    """
    path = folder / NAME
    content = {
        "schema": SCHEMA,
        "id": manifest.id,
        "name": manifest.name,
        "specimen": manifest.specimen,
        "fields": [record.to_dict() for record in manifest.fields],
        "roots": manifest.roots,
        "steps": {name: {"key": step.key, "outputs": list(step.outputs)} for name, step in manifest.steps.items()},
        "palette": manifest.palette,
        "settings": manifest.settings,
    }
    try:
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StudyError(f"{path}: a setting cannot be stored as JSON ({error}).") from error
    _parse(json.loads(text), path)  # what could not be opened again is never written
    with disk_errors(path):
        write_text(path, text + "\n")


def _parse(raw: Any, path: Path) -> Manifest:
    """Check every value of a manifest and return it."""
    if not isinstance(raw, dict) or type(raw.get("schema")) is not int:
        raise StudyError(f"{path}: is not the manifest of a study (no 'schema'). Name another folder.")
    if raw["schema"] > SCHEMA:
        raise StudyError(
            f"{path}: was written by a newer version (schema {raw['schema']}; this one knows {SCHEMA}). "
            "Update with 'pip install -U napari-dinobloom'."
        )
    if raw["schema"] < 1:
        raise StudyError(f"{path}: has schema {raw['schema']}, which never existed. The study is refused.")
    known = set(Manifest.__dataclass_fields__) | {"schema"}
    unknown = sorted(str(key) for key in raw if key not in known)
    if unknown:
        raise StudyError(f"{path}: unknown key {unknown[0][:60]!r}. Known keys are {', '.join(sorted(known))}.")
    if raw.get("specimen", "blood") not in ("blood", "marrow"):
        raise StudyError(f"{path}: specimen is {str(raw['specimen'])[:60]!r}; expected 'blood' or 'marrow'.")
    return Manifest(
        id=_uuid(raw.get("id"), path),
        name=check_text(raw.get("name", ""), f"{path}: name"),
        specimen=raw.get("specimen", "blood"),
        fields=_fields(raw.get("fields", []), path),
        roots=_roots(_object(raw, "roots", path), path),
        steps=_steps(_object(raw, "steps", path), path),
        palette=_palette(_object(raw, "palette", path), path),
        settings=dict(_object(raw, "settings", path)),
    )


def _object(raw: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    """Return an object below `key`, empty where it is missing."""
    value = raw.get(key, {})
    if not isinstance(value, dict):
        raise StudyError(f"{path}: {key} must be an object, not {type(value).__name__}.")
    return value


def _uuid(text: object, path: Path) -> str:
    """Return the canonical form of a uuid."""
    try:
        return str(uuid.UUID(str(text)))
    except ValueError as error:
        raise StudyError(f"{path}: the study's id {str(text)[:60]!r} is not a uuid.") from error


def _fields(raw: object, path: Path) -> list[FieldRecord]:
    """Check the fields and that no id is given twice, even without regard to case."""
    if not isinstance(raw, list):
        raise StudyError(f"{path}: fields must be a list, not {type(raw).__name__}.")
    fields = [parse_field(entry, f"{path}: field {number}") for number, entry in enumerate(raw, start=1)]
    seen: set[str] = set()
    for record in fields:
        if record.id.casefold() in seen:
            raise StudyError(f"{path}: the field id {record.id!r} is given twice.")
        seen.add(record.id.casefold())
    return fields


def _roots(raw: Mapping[str, Any], path: Path) -> dict[str, str]:
    """Check that each root has the bare name of a folder."""
    for root, name in raw.items():
        where = f"{path}: root {root[:20]!r}"
        if not re.fullmatch(r"r[1-9][0-9]{0,5}", root):
            raise StudyError(f"{where} is not r1, r2, ...")
        if name != "" and "/" in check_relative(name, where):
            raise StudyError(f"{where}: {name[:100]!r} must be a bare folder name.")
    return dict(raw)


def _steps(raw: Mapping[str, Any], path: Path) -> dict[str, StepRecord]:
    """Check the records of finished steps and the paths of their outputs."""
    steps: dict[str, StepRecord] = {}
    for name, entry in raw.items():
        where = f"{path}: step {name[:80]!r}"
        check_text(name, where, empty=False)
        if not isinstance(entry, dict) or not isinstance(entry.get("outputs"), list):
            raise StudyError(f"{where}: expected an object with 'key' and a list 'outputs'.")
        outputs = tuple(check_relative(output, where) for output in entry["outputs"])
        steps[name] = StepRecord(check_text(entry.get("key"), f"{where}: key"), outputs)
    return steps


def _palette(raw: Mapping[str, Any], path: Path) -> dict[str, str]:
    """Check class names and colours."""
    for name, colour in raw.items():
        check_text(name, f"{path}: palette", empty=False)
        if not isinstance(colour, str) or not _COLOUR.fullmatch(colour):
            raise StudyError(f"{path}: palette of {name[:60]!r} is {str(colour)[:40]!r}; expected '#rrggbb'.")
    return dict(raw)
