"""The galleries of a report: crops of each class from the most to the least confident."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED
from napari_dinobloom.report.budget import jpeg_uri
from napari_dinobloom.report.legend import Entry, Legend
from napari_dinobloom.report.sightings import BY_CLASS, describe_cell, reason_words

SHOWN = 24
SIDE = 112


class Crops(Protocol):
    """Pictures of all cells, (n, 224, 224, 3) uint8, read by row: a zarr or numpy array."""

    def __getitem__(self, row: int, /) -> object:
        """The picture of one cell."""

    @property
    def shape(self) -> tuple[int, ...]:
        """How many cells have one."""


@dataclass(frozen=True, slots=True)
class Portrait:
    """One cell in a gallery; `picture` is empty where no crop was kept, `note` says why it is shown."""

    anchor: str
    cell_id: str
    entry: Entry
    by_hand: bool
    words: str
    picture: str
    confidence: float | None
    nearest: Entry | None
    reason: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Gallery:
    """Cells of one class: `total` there are, `portraits` are shown; `entry` is None for the discarded cells."""

    entry: Entry | None
    total: int
    portraits: tuple[Portrait, ...]


def iter_galleries(cells: pd.DataFrame, crops: Crops | None, legend: Legend, *, most: int = SHOWN) -> Iterator[Gallery]:
    """Yield one gallery for each class, then the unclassified, then the cells discarded for other reasons than class.

    Parameters
    ----------
    cells : DataFrame
        The cells as `sightings` gives them.
    crops : Crops or None
        Their pictures by ``row``.
    legend : Legend
        Titles and colours; its order is the order of the galleries.
    most : int
        Cells shown of each class.
    """
    kept = cells["reason"].isin(BY_CLASS)
    groups = {str(name): rows for name, rows in cells[kept].groupby("shown", sort=False)}
    names = sorted(groups, key=lambda name: (name == UNCLASSIFIED, legend.rank(name)))
    for name in names:
        yield _gallery(legend[name], groups[name], crops, legend, most)
    if not kept.all():
        yield _gallery(None, cells[~kept], crops, legend, most)


def _gallery(entry: Entry | None, rows: pd.DataFrame, crops: Crops | None, legend: Legend, most: int) -> Gallery:
    """Pictures of `most` cells spread evenly over the ranking by confidence, so that the doubtful are not hidden."""
    ranked = rows.assign(rank=rows["confidence"].fillna(1.0)).sort_values(
        ["rank", "row"], ascending=[False, True], kind="stable"
    )
    take = np.unique(np.linspace(0, len(ranked) - 1, min(most, len(ranked))).round().astype(int))
    return Gallery(entry, len(rows), tuple(portraits(ranked.iloc[take], crops, legend)))


def portraits(
    rows: pd.DataFrame, crops: Crops | None, legend: Legend, notes: Sequence[str] | None = None
) -> list[Portrait]:
    """Pictures of cells in their order; `rows` as `sightings` gives them, with a note for each."""
    records = [{str(name): value for name, value in record.items()} for record in rows.to_dict("records")]
    return [
        _portrait(row, crops, legend, note) for row, note in zip(records, notes or [""] * len(records), strict=True)
    ]


def _portrait(row: dict[str, object], crops: Crops | None, legend: Legend, note: str) -> Portrait:
    """One cell with its picture."""
    number = int(str(row["row"]))
    picture = ""
    if crops is not None and number < crops.shape[0]:
        picture = jpeg_uri(np.asarray(crops[number], dtype=np.uint8), width=SIDE, height=SIDE, quality=80)
    confidence = float(str(row["confidence"]))
    return Portrait(
        f"c{number}",
        str(row["cell_id"]),
        legend[str(row["shown"])],
        bool(row["by_hand"]),
        describe_cell(row, legend),
        picture,
        confidence if np.isfinite(confidence) else None,
        legend[str(row["nearest"])] if row["nearest"] else None,
        "" if row["reason"] in BY_CLASS else reason_words(row),
        note,
    )
