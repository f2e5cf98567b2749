"""Cutting crops by other processes: each does one file of the store, and leaves it in a folder of its own.

The one that asked links these files into the new store, or copies what is new where a file was there in part: no two
ever write one file. The folders outlast its end, so that the next run goes on, and go when the store is in its place.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.cells.crop import CropPolicy, Windows
from napari_dinobloom.cells.resample import MANY
from napari_dinobloom.errors import ImageError, StudyError
from napari_dinobloom.io.atomic import disk_errors, replacing
from napari_dinobloom.io.crops import CropFiles, Pictures
from napari_dinobloom.io.embeddings import Keys, Rows
from napari_dinobloom.io.smear import read_smear
from napari_dinobloom.pipeline import crops
from napari_dinobloom.pipeline.workers import Workers
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study

UNCUT = "uncut.json"
"""File of a part: its rows that could not be cut."""

COLUMNS = ("field", "y0", "x0", "y1", "x1", "deleted")
"""Of the cell table: all that cutting needs."""


@dataclass(frozen=True, slots=True, eq=False)
class CropJob:
    """Rows of one file of the store.

    Attributes
    ----------
    files : CropFiles
        Where to leave them: a folder for this file of the store.
    rows : (n,) array of int
        Rows of the cell table.
    cells : DataFrame
        `COLUMNS` of these rows.
    windows : ndarray
        Theirs.
    policy : CropPolicy
        How to cut.
    pictures : dict of str to Path
        Image of each field; a field whose image is gone is not in it.
    study : Path
        Opened only where the masks of neighbours count.
    many : bool
        Whether hundreds will be cut in all.
    """

    files: CropFiles
    rows: Rows
    cells: pd.DataFrame
    windows: Windows
    policy: CropPolicy
    pictures: dict[str, Path]
    study: Path
    many: bool

    @property
    def place(self) -> Path:
        """Folder for the file."""
        return self.files.folder


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What is to be cut.

    Attributes
    ----------
    obs : DataFrame
        The cell table.
    windows : ndarray
        Of all its rows.
    policy : CropPolicy
        How to cut.
    todo : (n,) array of bool
        Rows to cut.
    keys : (n,) array of uint64
        Key of each row.
    """

    obs: pd.DataFrame
    windows: Windows
    policy: CropPolicy
    todo: NDArray[np.bool_]
    keys: Keys


def iter_cut_apart(study: Study, work: Work, into: CropFiles, workers: Workers) -> Steps[Rows]:
    """Have rows cut, and take them into a new store; returns the rows that could not be cut."""
    home = study.path / crops.PARTS / _named(work.keys)
    for old in set((study.path / crops.PARTS).glob("*")) - {home}:
        shutil.rmtree(old, ignore_errors=True)  # of another table
    jobs = list(_jobs(study, work, replace(into, folder=home)))
    done, total = 0, int(work.todo.sum())
    uncut: list[int] = []
    waiting = [job for job in jobs if not (job.place / UNCUT).is_file()]
    for job in jobs:
        if (job.place / UNCUT).is_file():
            uncut += _taken(job, into)
            done += len(job.rows)
    yield Progress(done, total, "")
    for place, answer in workers.map(cut_files, waiting):
        job = waiting[place]
        if isinstance(answer, Exception):
            fields = ", ".join(pd.unique(job.cells["field"])[:5])
            raise StudyError(f"{study.path}: the crops of {fields} could not be cut: {answer}") from answer
        uncut += _taken(job, into)
        done += len(job.rows)
        yield Progress(done, total, str(job.cells["field"].iloc[0]))
    return np.asarray(uncut, np.intp)


def cut_files(job: CropJob) -> None:
    """Cut rows of a file of the store into a folder of its own; done again it is the same."""
    if (job.place / UNCUT).is_file():
        return
    uncut = np.ones(len(job.rows), bool)
    with disk_errors(job.place):
        job.place.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(job.place), replacing(job.place) as part:
        part.mkdir()
        files = replace(job.files, folder=part)
        for field, mine in crops.by_field(job.cells, np.ones(len(job.rows), bool)):
            for places, pictures in _cut(job, field, mine):
                files.write(job.rows[places], pictures)
                uncut[places] = False
        files.finish()
        (part / UNCUT).write_text(json.dumps(job.rows[uncut].tolist()), encoding="utf-8")


def _jobs(study: Study, work: Work, home: CropFiles) -> Iterator[CropJob]:
    """Cut the work into jobs: for each file of the store its rows that are to be cut."""
    rows = np.flatnonzero(work.todo)
    pictures: dict[str, Path] = {}
    for field, mine in crops.by_field(work.obs, work.todo):
        try:
            pictures[field] = study.locate(field)
        except StudyError:
            if not work.obs["deleted"].to_numpy(bool)[mine].all():
                raise
    for part in np.split(rows, np.flatnonzero(np.diff(rows // home.per_file)) + 1) if len(rows) else []:
        cells = work.obs.iloc[part][list(COLUMNS)]
        seen = {field: pictures[field] for field in pd.unique(cells["field"]) if field in pictures}
        files = replace(home, folder=home.folder / f"{part[0] // home.per_file:07d}-{_named(part)}")
        yield CropJob(files, part, cells, work.windows[part], work.policy, seen, study.path, many=len(rows) >= MANY)


def _taken(job: CropJob, into: CropFiles) -> list[int]:
    """Take the rows of a job into the new store; gives those that were not cut."""
    uncut: list[int] = json.loads((job.place / UNCUT).read_text(encoding="utf-8"))
    if len(uncut) < len(job.rows):
        into.take(job.files, job.rows)
    return uncut


def _named(numbers: NDArray[Any]) -> str:
    """Name of a folder for what belongs to some keys or rows."""
    return hashlib.sha256(numbers.tobytes()).hexdigest()[:16]


def _cut(job: CropJob, field: str, rows: Rows) -> Iterator[tuple[Rows, Pictures]]:
    """Crops of the rows of one field; none where its image is gone, so that only deleted cells are left of it."""
    cells = job.cells.iloc[rows]
    if field not in job.pictures:
        return
    try:
        image = read_smear(job.pictures[field]).image
        masks = _opened(job.study, job.place.parent.name).masks(field) if job.policy.neighbours == "mask" else None
        for places, pictures in crops.cut(image, cells, job.windows[rows], job.policy, masks=masks, many=job.many):
            yield rows[places], pictures
    except (ImageError, StudyError):
        if not cells["deleted"].to_numpy(bool).all():
            raise


@lru_cache(maxsize=1)
def _opened(path: Path, run: str) -> Study:
    """The study, for reading, once for each run: nobody draws in it meanwhile."""
    from napari_dinobloom.io.study import Study

    return Study.open(path, read_only=True)
