"""The quality map of a whole slide in a study: made before cells are sought, and kept in ``masks/monolayer/``.

Cells are then sought in the monolayer only, and a note of the field says how much of the slide that is.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells import monolayer
from napari_dinobloom.cells.monolayer import QualityMap, iter_quality_map
from napari_dinobloom.cells.region import Region
from napari_dinobloom.cells.segmenter import Segmenter
from napari_dinobloom.errors import ImageError
from napari_dinobloom.io.atomic import disk_errors, replacing
from napari_dinobloom.io.smear import read_smear
from napari_dinobloom.progress import Steps, drain

if TYPE_CHECKING:
    from napari_dinobloom.io.fields import FieldRecord
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.pipeline.field_cells import FieldJob

FOLDER = "monolayer"
"""Folder in ``masks/`` of a study with the quality maps."""

_ARRAYS = ("grades", "side", "pixel_size_um", "coverage", "stacked", "pallor", "key")

_MAX_BYTES = 1 << 28


def is_slide(record: FieldRecord, segmenter: Segmenter | None) -> bool:
    """Whether a field is a whole slide in which cells have to be found."""
    found = segmenter is not None and not segmenter.name.startswith("labels:")
    return found and record.height * record.width > monolayer.WHOLE_SLIDE_PX


def iter_region(job: FieldJob) -> Steps[tuple[Region | None, tuple[str, ...]]]:
    """Find where the cells of a field are sought.

    Returns
    -------
    region : Region or None
        None: all over the picture.
    notes : tuple of str
        What a person should know of it.

    Raises
    ------
    ImageError
        If the slide cannot be read.
    """
    if not is_slide(job.record, job.segmenter) or job.settings.search == "all":
        return None, ()
    size = job.settings.pixel_size_um or job.record.pixel_size_um
    if size is None:
        return None, ("The monolayer was not sought, as nothing tells the pixel size; give it with --pixel-size-um.",)
    levels = read_smear(job.picture).levels
    path, key = _path(job), f"{monolayer.VERSION} {job.record.sha256} {size!r}"
    known = _load(path, key)
    if known is None:
        known = yield from iter_quality_map(levels, size)
        _save(path, known, key)
    return known.region(levels[0]), (coverage_note(known),)


def leave_map(job: FieldJob) -> ImageError | None:
    """Make the quality map of a slide and leave it in the study's folder; for a process elsewhere."""
    try:
        drain(iter_region(job))
    except ImageError as error:
        return error
    return None


def read_map(study: Study, field_id: str) -> QualityMap | None:
    """The quality map of a field of a study; None where there is none, as of fields that are no whole slides."""
    return _load(study.path / "masks" / FOLDER / f"{study.field(field_id).id}.npz", None)


def coverage_note(found: QualityMap) -> str:
    """Say in one sentence or two how much of a slide was searched."""
    blood = 1 - found.share(monolayer.EMPTY)
    if not blood:
        return "No blood was found on this slide. If there is some, search all of it (--search all)."
    thick, edge = (found.share(grade) / blood for grade in (monolayer.THICK, monolayer.FEATHERED))
    return (
        f"Cells were sought in the monolayer: {_percent(found.searched)} of the blood, "
        f"{_percent(found.share(monolayer.RIGHT))} of the slide. Of the blood {_percent(thick)} is too thick and "
        f"{_percent(edge)} feathered edge. To search all of it: --search all."
    )


def _percent(share: float) -> str:
    """A share for people; little is not nothing."""
    return f"{share:.1%}" if 0 < share < 0.01 else f"{share:.0%}"


def _path(job: FieldJob) -> Path:
    """File of the map of a job's field."""
    return job.scratch.parents[1] / FOLDER / f"{job.record.id}.npz"


def _save(path: Path, found: QualityMap, key: str) -> None:
    """Write a map, whole or not at all."""
    arrays: dict[str, Any] = {name: np.asarray(getattr(found, name)) for name in _ARRAYS[:-1]}
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, part.open("wb") as handle:
            np.savez_compressed(handle, key=np.frombuffer(key.encode(), np.uint8), **arrays)


def _load(path: Path, key: str | None) -> QualityMap | None:
    """Read a map; None if it is missing, damaged or of another slide or version. The file may come from a stranger."""
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        if set(sizes) != {f"{name}.npy" for name in _ARRAYS} or sum(sizes.values()) > _MAX_BYTES:
            return None
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
            values = {name: stored[name] for name in _ARRAYS}
    except (OSError, ValueError, TypeError, EOFError, KeyError, MemoryError, zipfile.BadZipFile):
        return None
    grades = values["grades"]
    maps = [values[name] for name in ("coverage", "stacked", "pallor")]
    fits = grades.ndim == 2 and grades.dtype == np.uint8
    fits &= all(one.shape == grades.shape and one.dtype == np.float32 for one in maps)
    fits &= all(_is_length(values[name]) for name in ("side", "pixel_size_um")) and grades.size > 0
    if not fits or int(grades.max()) >= len(monolayer.GRADES):
        return None
    if key is not None and values["key"].tobytes().decode(errors="replace") != key:
        return None
    return QualityMap(grades, float(values["side"]), float(values["pixel_size_um"]), *maps)


def _is_length(value: NDArray[Any]) -> bool:
    """Whether an array is one positive number."""
    return value.ndim == 0 and value.dtype.kind == "f" and bool(np.isfinite(value) and value > 0)
