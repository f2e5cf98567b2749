"""Third step: one 224 x 224 picture per cell, in ``crops.zarr``.

The store has one row per row of the cell table, in chunks of 64, uncompressed, and in its attributes the key of every
row. A new store is built beside the old one, takes over every chunk whose rows did not change, and replaces it whole.
An uncompressed chunk is a plain file of its rows, so that each crop is written to its place as soon as it is cut.
"""

from __future__ import annotations

import os
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
from napari_dinobloom.io.masks import FieldMasks
from napari_dinobloom.pipeline.settings import RunSettings, digest
from napari_dinobloom.pipeline.workers import Workers
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study

ROWS = 64
SHAPE = (224, 224, 3)
BYTES_EACH = 224 * 224 * 3
FILE = "crops.zarr"
PARTS = "crops.parts"
"""Folder of what other processes have cut, until it is in the store."""
BLACK = "0" * 16
"""Key of a crop that could not be cut, as its field is gone: of deleted cells only."""

Pictures = NDArray[np.uint8]
Rows = NDArray[np.intp]


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
    """Read one crop of the store, (224, 224, 3) uint8, without the 63 others of its chunk; zeros where it was not cut.

    Raises
    ------
    StudyError
        The store cannot be read.
    """
    number, place = divmod(row, ROWS)
    path = _chunk(study.path / FILE, number)
    try:
        with path.open("rb") as file:
            file.seek(place * BYTES_EACH)
            data = file.read(BYTES_EACH)
    except FileNotFoundError:
        data = b""
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror or error}). Run `napari-dinobloom crop`.") from error
    return np.frombuffer(data.ljust(BYTES_EACH, b"\0"), np.uint8).reshape(SHAPE)


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
    obs, policy = study.cells.obs, policy_of(settings)
    windows = find_windows(obs, policy)
    keys = row_keys(study, obs, windows, policy)
    old = _known_keys(study.path / FILE)
    with disk_errors(study.path / FILE), replacing(study.path / FILE) as part:
        array = _create(part, len(obs))
        todo, uncut = np.ones(len(obs), bool), np.zeros(len(obs), bool)
        for start in range(0, len(obs), ROWS):
            same = keys[start : start + ROWS] == old[start : start + ROWS]
            if same and take_over(study.path / FILE, part, start // ROWS):
                todo[start : start + ROWS] = False
        if workers is not None and workers.apart:
            from napari_dinobloom.pipeline.cluster import chunks

            work = chunks.Work(obs, windows, policy, todo, keys)
            uncut[(yield from chunks.iter_cut_apart(study, work, part, workers))] = True
        else:
            uncut[(yield from _iter_cut_here(study, obs, windows, policy, todo, part))] = True
        total = int(todo.sum())
        yield Progress(total, total, "writing to the disk")
        flush(part)
        array.attrs["rows"] = [BLACK if black else key for key, black in zip(keys, uncut.tolist(), strict=True)]
    shutil.rmtree(study.path / PARTS, ignore_errors=True)
    return None


def _iter_cut_here(
    study: Study, obs: pd.DataFrame, windows: Windows, policy: CropPolicy, todo: NDArray[np.bool_], part: Path
) -> Steps[Rows]:
    """Cut rows field by field into a new store; returns those that could not be cut."""
    uncut = np.zeros(len(obs), bool)
    done, total = 0, int(todo.sum())
    yield Progress(done, total, "")
    for field, rows in by_field(obs, todo):
        made = 0
        uncut[rows] = True
        for places, pictures in _cut(study, field, obs.iloc[rows], windows[rows], policy, many=total >= MANY):
            write_rows(part, rows[places], pictures)
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


def _create(path: Path, rows: int) -> Any:
    import zarr

    return zarr.create_array(path, shape=(rows, *SHAPE), chunks=(ROWS, *SHAPE), dtype="uint8", compressors=None)


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


def _chunk(store: Path, number: int) -> Path:
    """File of a chunk."""
    return store / "c" / str(number) / "0" / "0" / "0"


def take_over(old: Path, new: Path, number: int) -> bool:
    """Link (or copy) one chunk file of the old store into the new one; False if it is missing or not whole."""
    source, target = _chunk(old, number), _chunk(new, number)
    if not source.is_file() or source.stat().st_size != ROWS * BYTES_EACH:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return True


def write_rows(store: Path, rows: Rows, pictures: Pictures) -> None:
    """Write crops to their rows; what no crop was written to reads as zeros."""
    starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
    chunk_starts = np.flatnonzero(rows % ROWS == 0)
    for run in np.split(np.arange(len(rows)), np.union1d(starts, chunk_starts)[1:]):
        number, place = divmod(int(rows[run[0]]), ROWS)
        path = _chunk(store, number)
        fresh = not path.exists()
        if fresh:
            path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w+b" if fresh else "r+b") as file:
            if fresh:
                file.truncate(ROWS * BYTES_EACH)
            file.seek(place * BYTES_EACH)
            file.write(pictures[run[0] : run[-1] + 1].data)


def flush(store: Path) -> None:
    """Wait until all chunks are on the disk: the keys, which are written next, say that they are whole."""
    for path in store.glob("c/*/0/0/0"):
        with path.open("rb+") as file:
            os.fsync(file.fileno())


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
