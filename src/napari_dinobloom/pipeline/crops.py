"""Third step: one 224 x 224 picture per cell, in ``crops.zarr``.

The store has one row per row of the cell table, in chunks of 64, uncompressed, and in its attributes the key of every
row. A new store is built beside the old one, takes over every chunk whose rows did not change, and replaces it whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_dinobloom.cells import crop as cropping
from napari_dinobloom.cells.crop import CropPolicy
from napari_dinobloom.errors import ImageError, StudyError
from napari_dinobloom.io.atomic import disk_errors, replacing
from napari_dinobloom.pipeline.settings import RunSettings, digest
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study

ROWS = 64
FILE = "crops.zarr"


def policy_of(settings: RunSettings) -> CropPolicy:
    """Crop policy of a run: smears are cut by field of view, single-cell pictures are taken whole."""
    if settings.cells:
        return CropPolicy(kind="published")
    return CropPolicy(kind="context", fov_um=settings.fov_um)


def open_crops(study: Study) -> Any:
    """Open the crops of a study for reading.

    Returns
    -------
    zarr.Array
        (n, 224, 224, 3) uint8, one row per row of the cell table.

    Raises
    ------
    StudyError
        If there are none yet.
    """
    import zarr

    try:
        return zarr.open_array(study.path / FILE, mode="r")
    except Exception as error:  # a damaged store makes zarr raise nearly anything
        raise StudyError(f"{study.path / FILE}: there are no readable crops; run `napari-dinobloom crop`.") from error


def iter_crop_study(study: Study, settings: RunSettings) -> Steps[None]:
    """Cut the crops of all cells whose picture, box, scale or policy changed."""
    obs = study.cells.obs
    keys = row_keys(study, obs, policy_of(settings))
    old = _known_keys(study.path / FILE)
    with disk_errors(study.path / FILE), replacing(study.path / FILE) as part:
        array = _create(part, len(obs))
        chunks = range(0, len(obs), ROWS)
        kept = [start for start in chunks if keys[start : start + ROWS] == old[start : start + ROWS]]
        for start in kept:
            _take_over(study.path / FILE, part, start // ROWS)
        todo = np.ones(len(obs), bool)
        for start in kept:
            todo[start : start + ROWS] = False
        yield from _fill(study, obs, todo, array, settings)
        array.attrs["rows"] = keys
    return None


def row_keys(study: Study, obs: pd.DataFrame, policy: CropPolicy) -> list[str]:
    """Key of every crop: the picture's bytes, the cell's box, the scale, the policy and its version."""
    bytes_of = {record.id: record.sha256 for record in study.fields}
    columns = zip(obs["field"], obs["y0"], obs["x0"], obs["y1"], obs["x1"], obs["pixel_size_um"], strict=True)
    common = (policy.to_dict(), cropping.VERSION)
    return [
        digest(bytes_of.get(field, ""), int(y0), int(x0), int(y1), int(x1), round(float(size), 7), common)
        for field, y0, x0, y1, x1, size in columns
    ]


def _create(path: Path, rows: int) -> Any:
    import zarr

    shape = (rows, 224, 224, 3)
    return zarr.create_array(path, shape=shape, chunks=(ROWS, *shape[1:]), dtype="uint8", compressors=None)


def _known_keys(path: Path) -> list[str]:
    """Row keys of the store as it is; empty if there is none or it is damaged."""
    import zarr

    if not path.is_dir():
        return []
    try:
        keys = zarr.open_array(path, mode="r").attrs.get("rows", [])
    except Exception:  # damaged: everything is cut again
        return []
    return [str(key) for key in keys] if isinstance(keys, list) else []


def _take_over(old: Path, new: Path, chunk: int) -> None:
    """Link (or copy) one chunk file of the old store into the new one."""
    name = Path("c", str(chunk), "0", "0", "0")
    if not (old / name).is_file():
        return  # a chunk of zeros only has no file
    (new / name).parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(old / name, new / name)
    except OSError:
        shutil.copyfile(old / name, new / name)


def _fill(
    study: Study, obs: pd.DataFrame, todo: np.ndarray[Any, Any], array: Any, settings: RunSettings
) -> Steps[None]:
    """Cut the crops of the rows in `todo`, field by field, and write them in whole chunks."""
    policy = policy_of(settings)
    waiting: dict[int, np.ndarray[Any, Any]] = {}
    left = {int(c): int(n) for c, n in zip(*np.unique(np.flatnonzero(todo) // ROWS, return_counts=True), strict=True)}
    done, total = 0, int(todo.sum())
    yield Progress(0, total, "")
    for field, rows in _by_field(obs, todo):
        for row, picture in zip(rows, _cut(study, field, obs.iloc[rows], policy), strict=True):
            chunk = row // ROWS
            block = waiting.setdefault(chunk, np.zeros((min(ROWS, len(obs) - chunk * ROWS), 224, 224, 3), np.uint8))
            block[row % ROWS] = picture
            left[chunk] -= 1
            if not left[chunk]:
                array[chunk * ROWS : chunk * ROWS + len(block)] = waiting.pop(chunk)
        done += len(rows)
        yield Progress(done, total, field)
    return None


def _by_field(obs: pd.DataFrame, todo: np.ndarray[Any, Any]) -> list[tuple[str, list[int]]]:
    """Row numbers to cut for each field, in the order in which the fields first stand in the table."""
    rows = np.flatnonzero(todo)
    groups: dict[str, list[int]] = {}
    for row, field in zip(rows.tolist(), obs["field"].to_numpy()[rows], strict=True):
        groups.setdefault(str(field), []).append(row)
    return list(groups.items())


def _cut(study: Study, field: str, rows: pd.DataFrame, policy: CropPolicy) -> Sequence[np.ndarray[Any, Any]]:
    """Crops of some cells of one field; black where the field has become unusable (its cells are deleted ones)."""
    try:
        image = study.read_field(field).load()
    except (ImageError, StudyError):
        if not rows["deleted"].all():
            raise
        return [np.zeros((224, 224, 3), np.uint8)] * len(rows)
    crops: np.ndarray[Any, Any] = cropping.crop(image, rows, policy=policy)
    return list(crops)
