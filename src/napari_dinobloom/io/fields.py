"""A field: one image of a study, its place below a root folder, its slide and patient."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.trust import check_relative, check_text, is_id

Status = Literal["ok", "failed", "same_as"]

INSIDE = "study"
"""Root id of the study folder itself: its fields lie below it, in ``fields/``."""

_ROOT = re.compile(r"study|r[1-9][0-9]{0,5}")
_SHA256 = re.compile(r"(sampled:)?[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FieldRecord:
    """One image of a study.

    Attributes
    ----------
    id : str
        Portable name, unique in the study without regard to case; never changed once given.
    file : str
        POSIX path below the root folder.
    root : str
        ``r1``, ``r2``, ... : a folder whose place only this machine's own locations file knows; ``study``: the study.
    sha256 : str
        Hash of the file's bytes, 64 hex digits, of a large slide ``sampled:`` and 64 hex digits
        (`napari_dinobloom.io.fingerprint`), or empty where the file could not be read.
    height, width : int
        Size in pixels; 0 where unknown.
    pixel_size_um : float or None
        Micrometres a pixel, if the file says so.
    slide, patient : str
        What the field is counted with.
    status : {"ok", "failed", "same_as"}
        ``failed``: could not be used; ``same_as``: the same bytes as an earlier field.
    problem : str
        Why it failed, the id of the field it equals, or what was odd about a field that is used.
    """

    id: str
    file: str
    root: str = "r1"
    sha256: str = ""
    height: int = 0
    width: int = 0
    pixel_size_um: float | None = None
    slide: str = ""
    patient: str = ""
    status: Status = "ok"
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``study.json``."""
        return asdict(self)


def make_id(name: str, taken: Collection[str]) -> str:
    """Make a field id of a file name or stem that no id in `taken` equals, even without regard to case.

    Accents are dropped, anything but ``A-Z a-z 0-9 _ . -`` becomes ``_``, and ``-2``, ``-3``, ... tells clashes apart.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", plain).lstrip(".-").rstrip(".")
    if not stem.strip("_"):
        stem = "field"
    stem = stem[:80].rstrip(".")
    if not is_id(stem):  # names that Windows keeps for itself, such as "con"
        stem = f"field_{stem}"[:80]
    used = {other.casefold() for other in taken}
    candidate, count = stem, 1
    while candidate.casefold() in used:
        count += 1
        tail = f"-{count}"
        candidate = stem[: 80 - len(tail)] + tail
    return candidate


def stem_of(file: str) -> str:
    """Return the file name without its ending; ``.ome.tif`` counts as one ending."""
    name = PurePosixPath(file).name
    stem = PurePosixPath(name).stem
    return stem[:-4] if stem.lower().endswith(".ome") and len(stem) > 4 else stem


def parse_field(raw: object, where: str) -> FieldRecord:
    """Check and return one entry of ``fields`` in ``study.json``.

    Raises
    ------
    StudyError
        Naming `where` and the value that is not allowed.
    """
    if not isinstance(raw, Mapping):
        raise StudyError(f"{where}: a field must be an object, not {type(raw).__name__}.")
    known = FieldRecord.__dataclass_fields__
    unknown = [str(key) for key in raw if key not in known]
    if unknown:
        raise StudyError(f"{where}: unknown key {unknown[0]!r}. Known keys are {', '.join(known)}.")
    if not is_id(raw.get("id")):
        raise StudyError(f"{where}: {str(raw.get('id'))[:100]!r} is not a field id (A-Z a-z 0-9 _ . -, at most 80).")
    where = f"{where} ({raw['id']})"
    check_relative(raw.get("file"), where)
    record = FieldRecord(**{str(key): value for key, value in raw.items()})
    for name in ("slide", "patient", "problem"):
        check_text(getattr(record, name), f"{where}: {name}")
    _check_values(record, where)
    return record


def _check_values(record: FieldRecord, where: str) -> None:
    """Refuse values of the wrong type or range."""
    size = record.pixel_size_um
    root: object = record.root
    sha256: object = record.sha256
    checks = (
        ("root", isinstance(root, str) and _ROOT.fullmatch(root) is not None),
        ("sha256", sha256 == "" or (isinstance(sha256, str) and _SHA256.fullmatch(sha256) is not None)),
        ("height", type(record.height) is int and 0 <= record.height < 2**31),
        ("width", type(record.width) is int and 0 <= record.width < 2**31),
        ("pixel_size_um", size is None or (type(size) in (int, float) and 0 < float(size) < 1e6)),
        ("status", record.status in get_args(Status)),
    )
    for name, good in checks:
        if not good:
            raise StudyError(f"{where}: {name} is {str(getattr(record, name))[:100]!r}, which is not allowed.")
