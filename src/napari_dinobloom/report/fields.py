"""The fields of a report: each smear image, small, with the outlines of its cells, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.io.masks import FieldMasks, outline
from napari_dinobloom.report.budget import Budget, jpeg_uri
from napari_dinobloom.report.counting import PER_100
from napari_dinobloom.report.legend import Entry, Legend
from napari_dinobloom.report.sightings import describe_cell

if TYPE_CHECKING:
    from napari_dinobloom.io.smear import Smear
    from napari_dinobloom.io.study import FieldRecord


class Fields(Protocol):
    """What a report reads of a study's fields."""

    @property
    def fields(self) -> list[FieldRecord]:
        """All fields, in the study's order."""

    def read_field(self, field_id: str) -> Smear:
        """Open the image of a field; a `DinoBloomError` where it is not found."""

    def masks(self, field_id: str) -> FieldMasks:
        """Bitmaps of the cells of a field; a `DinoBloomError` where there are none."""


@dataclass(frozen=True, slots=True)
class Outline:
    """One cell in a field: its polygon in pixels of the field, and the words that go with it."""

    anchor: str
    entry: Entry
    points: str
    words: str
    counted: bool
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class FieldView:
    """One field as the report shows it.

    Attributes
    ----------
    anchor : str
        Its place in the page ("f12").
    field_id, slide, patient : str
        Names from the study, unescaped.
    width, height : int
        Size of the field, pixels; 0 where the image was never read.
    picture : str
        JPEG as a ``data:`` address, empty where there is none.
    problem : str
        Why there is no picture, for readers.
    outlines : tuple of Outline
        Every cell of the field that a person has not deleted.
    tally : tuple of (Entry, int)
        Cells of the differential by class, those per 100 included.
    uncounted : int
        Cells outlined but not counted.
    letters : int
        Height of the abbreviations, pixels of the field.
    read : bool
        False for a field that was not worked on: it failed, or is the same picture as another.
    new_slide : bool
        True for the first field of a slide.
    """

    anchor: str
    field_id: str
    slide: str
    patient: str
    width: int
    height: int
    picture: str
    problem: str
    outlines: tuple[Outline, ...]
    tally: tuple[tuple[Entry, int], ...]
    uncounted: int
    letters: int
    read: bool
    new_slide: bool


def iter_fields(study: Fields, cells: pd.DataFrame, legend: Legend, budget: Budget) -> Iterator[FieldView]:
    """Yield the fields slide by slide, each made when it is asked for and held nowhere.

    Parameters
    ----------
    study : Fields
        Where records, images and masks come from.
    cells : DataFrame
        The cells as `sightings` gives them.
    legend : Legend
        Titles and colours.
    budget : Budget
        Bytes for all pictures; spent as they are made.
    """
    groups = {str(name): rows for name, rows in cells.groupby("field", sort=False)}
    none = cells.iloc[:0]
    before: tuple[str, str] | None = None
    for place, record in enumerate(sorted(study.fields, key=lambda r: (r.patient, r.slide))):
        slide = (record.patient, record.slide)
        rows = groups.get(record.id, none)
        yield _view(study, record, rows, legend, budget, anchor=f"f{place}", new_slide=slide != before)
        before = slide


def _view(
    study: Fields,
    record: FieldRecord,
    rows: pd.DataFrame,
    legend: Legend,
    budget: Budget,
    *,
    anchor: str,
    new_slide: bool,
) -> FieldView:
    """One field with its picture and outlines."""
    width, height = int(record.width or 0), int(record.height or 0)
    picture, problem = "", ""
    if record.status == "ok":
        picture, problem = _picture(study, record.id, width, height, budget)
    else:
        budget.spend(0, 0)
        problem = _standing(record)
    if not width and len(rows):
        width, height = int(rows["x1"].max()), int(rows["y1"].max())
    counted = rows[rows["reason"].isin(["", PER_100])]
    tally = counted["shown"].value_counts()
    return FieldView(
        anchor,
        record.id,
        record.slide,
        record.patient,
        width,
        height,
        picture,
        problem,
        tuple(_outlines(study, record.id, rows, legend)),
        tuple((legend[name], int(tally[name])) for name in sorted(tally.index, key=legend.rank)),
        len(rows) - len(counted),
        max(6, round(width / 44)),
        record.status == "ok",
        new_slide,
    )


def _standing(record: FieldRecord) -> str:
    """Why a field that was not worked on has no picture."""
    if record.status == "same_as":
        return f"The same picture as {record.problem or 'another field'}; its cells are counted once, there."
    return f"Not read: {record.problem or 'no reason was kept'}"


def _picture(study: Fields, field_id: str, width: int, height: int, budget: Budget) -> tuple[str, str]:
    """The field as a JPEG that fits the budget, or the reason why there is none."""
    fits = budget.width_for(width, height)
    if not fits:
        budget.spend(0, 0)
        return "", "Picture left out to keep this file small; the outlines are complete."
    try:
        pixels = _reduced(study.read_field(field_id), fits)
    except (DinoBloomError, OSError) as error:
        budget.spend(0, 0)
        return "", f"The image of this field was not found or cannot be read: {error}"
    size = (fits, max(1, round(fits * height / width)))
    uri = jpeg_uri(pixels, width=size[0], height=size[1])
    budget.spend(len(uri), size[0] * size[1])
    return uri, ""


def _reduced(smear: Smear, width: int) -> npt.NDArray[np.uint8]:
    """Pixels of the smear, thinned while reading to no less than twice `width` so that a large one stays small."""
    step = max(1, smear.image.shape[1] // (2 * width))
    return np.asarray(smear.image[::step, ::step], dtype=np.uint8)


def _outlines(study: Fields, field_id: str, rows: pd.DataFrame, legend: Legend) -> Iterator[Outline]:
    """The cells of one field, each with its polygon; its box where no bitmap was kept."""
    if not len(rows):
        return
    try:
        masks = study.masks(field_id)
        place = {int(number): i for i, number in enumerate(masks.numbers)}
    except (DinoBloomError, OSError):
        place = {}
    for record in rows.to_dict("records"):
        row = {str(name): value for name, value in record.items()}
        y0, x0, y1, x1 = (int(row[name]) for name in ("y0", "x0", "y1", "x1"))
        corners = np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]], dtype=float)
        found = place.get(row["number"])
        if found is not None:
            contour = np.asarray(outline(masks.cells[found], masks.boxes[found]), dtype=float)
            corners = contour[:-1] + 0.5 if len(contour) > 3 else corners
        yield Outline(
            anchor=f"c{row['row']}",
            entry=legend[str(row["shown"])],
            points=_points(corners),
            words=describe_cell(row, legend),
            counted=row["reason"] in ("", PER_100),
            x=round((x0 + x1) / 2),
            y=y0 - 2,
        )


def _points(corners: npt.NDArray[np.float64]) -> str:
    """A polygon (k, 2) of y, x as SVG's "x,y x,y", to the half pixel; SVG's origin is the corner of the first pixel."""
    halves = np.rint(corners[:, ::-1] * 2) / 2
    return " ".join(f"{x:g},{y:g}" for x, y in halves)
