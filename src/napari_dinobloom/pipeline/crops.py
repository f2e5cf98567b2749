"""Third step: one 224 x 224 picture per cell, in ``crops.zarr`` (`io.crops`).

A new store is built beside the old one, takes over every row whose key did not change, and replaces it whole. Each crop
is written to its place as soon as it is cut.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.cells import crop as cropping
from napari_dinobloom.cells.crop import CropPolicy, Cutter, Windows, find_windows
from napari_dinobloom.cells.neighbours import signatures
from napari_dinobloom.cells.resample import MANY
from napari_dinobloom.errors import ImageError, StudyError
from napari_dinobloom.io.atomic import disk_errors, replacing
from napari_dinobloom.io.crops import BLACK, ROWS, SHAPE, CropFiles, Pictures
from napari_dinobloom.io.embeddings import Keys, Rows, keys_of
from napari_dinobloom.io.masks import FieldMasks
from napari_dinobloom.pipeline.settings import RunSettings, digest
from napari_dinobloom.pipeline.workers import Workers
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study

FILE = "crops.zarr"
PARTS = "crops.parts"
"""Folder of what other processes have cut, until it is in the store."""


def policy_of(settings: RunSettings) -> CropPolicy:
    """Crop policy of a run: smears are cut by field of view, single-cell pictures are taken whole."""
    if settings.cells:
        return CropPolicy(kind="published", interpolation=settings.interpolation)
    return CropPolicy(
        kind="context",
        fov_um=settings.fov_um,
        fov_diameters=settings.fov_diameters,
        interpolation=settings.interpolation,
        neighbours="mask" if settings.mask_neighbours else "keep",
    )


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


def read_crop(study: Study, row: int) -> Pictures:
    """Read one crop of the store, (224, 224, 3) uint8, without the others of its chunk; zeros where it was not cut.

    Raises
    ------
    StudyError
        The store cannot be read.
    """
    crop: Pictures = CropFiles.of(study.path / FILE).read(row)[0]
    return crop


def stored_keys(study: Study) -> Keys:
    """Key of each row of the store, (n,) uint64; that of a crop that could not be cut, as its field is gone, is 0.

    Raises
    ------
    StudyError
        There are no crops, or they have no keys that can be used.
    """
    return CropFiles.of(study.path / FILE).keys()


@dataclass(frozen=True, slots=True)
class CropReader:
    """The crops of a study by row, each read by itself; `shape` is that of all of them."""

    study: Study
    shape: tuple[int, ...]

    def __getitem__(self, row: int, /) -> Pictures:
        """One crop, as `read_crop` reads it."""
        return read_crop(self.study, row)


def iter_crop_study(study: Study, settings: RunSettings, workers: Workers | None = None) -> Steps[None]:
    """Cut the crops of all cells whose picture, box, scale or policy changed."""
    obs, policy, store = study.cells.obs, policy_of(settings), study.path / FILE
    windows = find_windows(obs, policy)
    keys = keys_of(row_keys(study, obs, windows, policy))
    with disk_errors(store), replacing(store) as part:
        files = CropFiles.create(part, len(obs))
        todo = yield from _iter_take_over(store, files, keys)
        if workers is not None and workers.apart:
            from napari_dinobloom.pipeline.cluster import chunks

            uncut = yield from chunks.iter_cut_apart(
                study, chunks.Work(obs, windows, policy, todo, keys), files, workers
            )
        else:
            uncut = yield from _iter_cut_here(study, obs, windows, policy, todo, files)
        total = int(todo.sum())
        yield Progress(total, total, "writing to the disk")
        keys[uncut] = BLACK
        files.finish(keys)
    shutil.rmtree(study.path / PARTS, ignore_errors=True)
    return None


def _iter_take_over(store: Path, files: CropFiles, keys: Keys) -> Steps[NDArray[np.bool_]]:
    """Take the crops whose keys are the same over from the store that is there; tells which rows are to be cut."""
    todo = np.ones(files.count, bool)
    try:
        old = CropFiles.of(store)
        known = min(old.count, files.count)
        todo[:known] = (keys[:known] != old.keys()[:known]) | ~old.whole()[:known]
    except StudyError:  # there is none, or it is damaged: everything is cut
        return todo
    for number in files.numbers():
        rows = np.flatnonzero(~todo[number * files.per_file :][: files.per_file]) + number * files.per_file
        if len(rows):
            try:
                files.take(old, rows)
            except StudyError:  # the disk cannot read it any more
                todo[rows] = True
            yield Progress(0, int(todo.sum()), "taking over what is there")
    return todo


def _iter_cut_here(
    study: Study, obs: pd.DataFrame, windows: Windows, policy: CropPolicy, todo: NDArray[np.bool_], files: CropFiles
) -> Steps[Rows]:
    """Cut rows field by field into a new store; returns those that could not be cut."""
    uncut = np.zeros(len(obs), bool)
    done, total = 0, int(todo.sum())
    yield Progress(done, total, "")
    for field, rows in by_field(obs, todo):
        made = 0
        uncut[rows] = True
        for places, pictures in _cut(study, field, obs.iloc[rows], windows[rows], policy, many=total >= MANY):
            files.write(rows[places], pictures)
            uncut[rows[places]] = False
            made += len(places)
            yield Progress(done + made, total, field)
        done += len(rows)
    return np.flatnonzero(uncut)


def row_keys(study: Study, obs: pd.DataFrame, windows: Windows, policy: CropPolicy) -> list[str]:
    """Key of every crop: the picture's bytes, the cell's box, the scale, the policy and its version.

    What later policies rest on beside these (the side in pixels, the masks in view) counts only where they are used.
    """
    bytes_of = {record.id: record.sha256 for record in study.fields}
    more: list[list[object]] = [[] for _ in range(len(obs))]
    if policy.fov_diameters is not None:
        for extra, side in zip(more, windows[:, 2].tolist(), strict=True):
            extra.append(round(side, 4))
    if policy.neighbours == "mask":
        for field, rows in by_field(obs, np.ones(len(obs), bool)):
            for row, seen in zip(rows, _signatures(study, field, obs.iloc[rows], windows[rows]), strict=True):
                more[row].append(seen)
    columns = zip(obs["field"], obs["y0"], obs["x0"], obs["y1"], obs["x1"], obs["pixel_size_um"], more, strict=True)
    common = (policy.to_dict(), cropping.VERSION)
    return [
        digest(bytes_of.get(field, ""), int(y0), int(x0), int(y1), int(x1), round(float(size), 7), common, *extra)
        for field, y0, x0, y1, x1, size, extra in columns
    ]


def _signatures(study: Study, field: str, cells: pd.DataFrame, windows: Windows) -> list[str]:
    """What the masks around each cell are; nothing where the field has none any more."""
    try:
        masks = study.masks(field)
    except StudyError:
        return [""] * len(cells)
    return signatures(cells, masks, windows)


def by_field(obs: pd.DataFrame, todo: NDArray[np.bool_]) -> list[tuple[str, Rows]]:
    """Row numbers to cut for each field, in the order in which the fields first stand in the table."""
    rows = np.flatnonzero(todo)
    groups: dict[str, list[int]] = {}
    for row, field in zip(rows.tolist(), obs["field"].to_numpy()[rows], strict=True):
        groups.setdefault(str(field), []).append(row)
    return [(field, np.asarray(found, np.intp)) for field, found in groups.items()]


def _cut(
    study: Study, field: str, cells: pd.DataFrame, windows: Windows, policy: CropPolicy, *, many: bool
) -> Iterator[tuple[Rows, Pictures]]:
    """Crops of some cells of one field of a study.

    None where the field has become unusable and only deleted cells are left of it: those stay black.
    """
    try:
        masks = study.masks(field) if policy.neighbours == "mask" else None
        yield from cut(study.read_field(field).image, cells, windows, policy, masks=masks, many=many)
    except (ImageError, StudyError):
        if not cells["deleted"].all():
            raise


def cut(
    image: Any, cells: pd.DataFrame, windows: Windows, policy: CropPolicy, *, masks: FieldMasks | None, many: bool
) -> Iterator[tuple[Rows, Pictures]]:
    """Crops of some cells of one picture, up to 64 at a time, with their rows; they hold until the next are asked for.

    Parameters
    ----------
    image, cells, windows, policy, masks, many
        As for `Cutter`.

    Yields
    ------
    (k,) array of int, (k, 224, 224, 3) array of uint8
        Rows of `cells`, and their crops.
    """
    cutter = Cutter(image, cells, windows, policy, masks=masks, many=many)
    pictures = np.empty((min(ROWS, len(cells)), *SHAPE), np.uint8)
    for start in range(0, len(cells), ROWS):
        rows = np.sort(cutter.order[start : start + ROWS])
        for place, row in enumerate(rows):
            cutter.cut(int(row), pictures[place])
        yield rows, pictures[: len(rows)]
