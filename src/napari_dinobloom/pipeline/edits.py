"""Correction by hand: cells added, merged, split and repainted by a person, each act one line of the journal.

What the window calls; deleting, excluding, labelling, undo and redo are methods of the study. A new outline is measured
at once: in the whole picture, or where that is large in the part around it, so that its stain strength is against the
light there. Crops, embeddings and counts follow with the next run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_dinobloom.cells import correct, measures, propose
from napari_dinobloom.cells.scale import Scale
from napari_dinobloom.errors import InputError, StudyError
from napari_dinobloom.io.celltable import cell_id, split_cell_id
from napari_dinobloom.io.masks import FieldMasks
from napari_dinobloom.io.replay import scale_of
from napari_dinobloom.io.shapes import Shape
from napari_dinobloom.pipeline.table import load_cells

if TYPE_CHECKING:
    from napari_dinobloom.io.fields import FieldRecord
    from napari_dinobloom.io.study import Study

WHOLE_PX = 1 << 24
"""Pictures of up to so many pixels are read whole, so that a cell is measured as the segmentation would."""

AROUND_UM = 60.0
"""Of larger ones this much is read around what changed: enough to see the light, wider than any cell."""

GAP_UM = 1.5
"""Merged cells that lie no farther apart become one piece."""

SMALLEST_UM2 = 1.0
"""A new cell with less room has none: the area of the smallest platelets."""


def add_at(study: Study, field_id: str, y: float, x: float) -> str:
    """Add the cell around a point; its outline is proposed from the picture.

    Parameters
    ----------
    study : Study
        Open for writing.
    field_id : str
        The field.
    y, x : float
        Where the person clicked, in pixels of the field; the centre of a pixel is at whole numbers.

    Returns
    -------
    str
        Id of the new cell; its line is on the disk.

    Raises
    ------
    InputError, StudyError
        If the point lies outside the field or in a cell, no room is left there, the field was not segmented yet, or
        nothing may be written.
    """
    field = _Field.of(study, field_id)
    row, column = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
    if not (0 <= row < field.record.height and 0 <= column < field.record.width):
        raise InputError(f"The point ({y:.0f}, {x:.0f}) lies outside {field.describe()}. Click inside it.")
    pixel = (row, column, row + 1, column + 1)
    here = int(correct.within(field.masks, pixel)[0, 0])
    if here:
        raise InputError(f"{cell_id(field_id, here)} is there already. Split or repaint it, or click beside it.")
    window, pixels = field.read(pixel)
    found = propose.cell_at(pixels, (y - window[0], x - window[1]), field.scale.pixel_size_um)
    return _added(study, field, _moved(found, window[0], window[1]))


def add_box(study: Study, field_id: str, box: tuple[float, float, float, float]) -> str:
    """Add the cell in a box (y0, x0, y1, x1, in pixels of the field); its outline is proposed from the picture.

    Returns
    -------
    str
        Id of the new cell; its line is on the disk.

    Raises
    ------
    InputError, StudyError
        As `add_at`; also if the box is empty.
    """
    field = _Field.of(study, field_id)
    y0, x0, y1, x1 = (float(side) for side in box)
    y0, x0, y1, x1 = max(y0, 0.0), max(x0, 0.0), min(y1, float(field.record.height)), min(x1, float(field.record.width))
    if not (y0 < y1 and x0 < x1):
        raise InputError(f"The box {tuple(box)} is empty or lies outside {field.describe()}. Draw it around a cell.")
    window, pixels = field.read((int(y0), int(x0), int(np.ceil(y1)), int(np.ceil(x1))))
    inner = (y0 - window[0], x0 - window[1], y1 - window[0], x1 - window[1])
    found = propose.cell_in_box(pixels, inner, field.scale.pixel_size_um)
    return _added(study, field, _moved(found, window[0], window[1]))


def merge(study: Study, cell_ids: Sequence[str]) -> str:
    """Make one cell of several cells of one field.

    The old ones are deleted, the new one is their union; a narrow gap between them is closed. It takes their hand
    label if all that have one agree.

    Returns
    -------
    str
        Id of the new cell; its line is on the disk.

    Raises
    ------
    InputError, StudyError
        If fewer than two cells are named, they lie in several fields, one is unknown or deleted, or nothing may be
        written.
    """
    cells = list(dict.fromkeys(cell_ids))
    if len(cells) < 2:
        raise InputError("Merging takes at least two cells. Select those that are one.")
    old = study.shapes(cells)
    field = _Field.of(study, split_cell_id(cells[0])[0])
    parts, others = field.parted(cells)
    gap = max(1, round(GAP_UM / field.scale.pixel_size_um))
    whole = correct.merge(parts, number=study.next_number(field.record.id), gap=gap, others=others)
    shapes = field.measured(whole)
    (made,) = shapes
    said = [cell for cell in old if study.cells.obs.at[cell, "label"]]
    same = len({study.cells.obs.at[cell, "label"] for cell in said}) == 1
    last = max(said, key=lambda cell: str(study.cells.obs.at[cell, "label_at"]), default="")
    study.reshape("merge", shapes, delete=cells, inherit={made: last} if same else None)
    return made


def split(study: Study, cell_id: str, line: ArrayLike) -> tuple[str, str]:
    """Make two cells of one along a line.

    Parameters
    ----------
    study : Study
        Open for writing.
    cell_id : str
        The cell; it is deleted, and both parts take its hand label.
    line : array-like
        (k, 2) float, y and x in pixels of the field (centres at whole numbers): a line drawn across the cell; it is
        lengthened a little at both ends.

    Returns
    -------
    (str, str)
        Ids of the two parts, the larger first; their line is on the disk.

    Raises
    ------
    InputError, StudyError
        If the line does not part the cell into two, the cell is unknown or deleted, or nothing may be written.
    """
    study.shapes([cell_id])
    field = _Field.of(study, split_cell_id(cell_id)[0])
    one, _ = field.parted([cell_id])
    first = study.next_number(field.record.id)
    shapes = field.measured(correct.split(one, line, numbers=(first, first + 1)))
    larger, smaller = shapes
    label = study.cells.obs.at[cell_id, "label"]
    study.reshape("split", shapes, delete=[cell_id], inherit=dict.fromkeys(shapes, cell_id) if label else None)
    return larger, smaller


def repaint(
    study: Study,
    field_id: str,
    labels: NDArray[np.integer[Any]],
    nuclei: NDArray[np.integer[Any]] | None = None,
    *,
    box: tuple[int, int, int, int] | None = None,
) -> list[str]:
    """Take over a label image that a person has painted in; one act for all its changes.

    Parameters
    ----------
    study : Study
        Open for writing.
    field_id : str
        The field.
    labels : ndarray
        (Y, X) integers: `study.labels` as the person changed it. A value that is no living cell's number is a new
        cell, which gets the next free number; a cell without a pixel left is deleted.
    nuclei : ndarray, optional
        (Y, X) integers, `study.nuclei` likewise, with the values of `labels`. Without it, what was nucleus stays
        nucleus, of the cell that now has the pixel.
    box : tuple of 4 int, optional
        y0, x0, y1, x1 in pixels: both images are only this part of the field, which spares the memory of a large one.

    Returns
    -------
    list of str
        Ids of the changed cells, then of the new ones; empty, and nothing written, if no cell changed.

    Raises
    ------
    InputError, StudyError
        If an image has another size than the field or the box, or negative values, or nothing may be written.
    """
    field = _Field.of(study, field_id)
    box = (0, 0, field.record.height, field.record.width) if box is None else field.checked(box)
    painted = _checked(labels, box, "labels")
    window = field.around(box, painted)
    before, cores = (correct.within(field.masks, window, what) for what in ("cells", "nuclei"))
    inside = (slice(box[0] - window[0], box[2] - window[0]), slice(box[1] - window[1], box[3] - window[1]))
    after = before.copy()
    after[inside] = painted
    inner = np.where(cores > 0, after, 0)
    if nuclei is not None:
        inner = cores.copy()
        inner[inside] = _checked(nuclei, box, "nuclei")
    changes = correct.repainted(before, after)
    old, new = set(changes.changed), list(changes.new)
    if nuclei is not None:
        recored = correct.repainted(cores, inner)
        living = set(field.masks.numbers.tolist()).difference(changes.vanished)
        old |= living.intersection((*recored.changed, *recored.new, *recored.vanished))
    if not (old or new or changes.vanished):
        return []
    masks = correct.cut_out(after, np.where(inner == after, inner, 0), [*sorted(old), *new])
    first = study.next_number(field_id)
    numbers = np.asarray([*sorted(old), *range(first, first + len(new))], np.int32)
    shapes = field.measured(_moved(replace(masks, numbers=numbers), window[0], window[1]))
    study.reshape("repaint", shapes, delete=[cell_id(field_id, number) for number in changes.vanished])
    return list(shapes)


@dataclass(frozen=True, slots=True)
class _Field:
    """A field as people left it: its living cells, its picture and its scale."""

    record: FieldRecord
    image: Any
    masks: FieldMasks
    scale: Scale

    @classmethod
    def of(cls, study: Study, field_id: str) -> _Field:
        """Open a field; raise before anything is done if it cannot be corrected."""
        study.ensure_writable()
        record = study.field(field_id)
        image: Any = study.read_field(field_id).image
        if image.shape[:2] != (record.height, record.width):
            raise StudyError(f"{study.locate(record)}: has another size than when it was read. Run again first.")
        if record.height * record.width <= WHOLE_PX:
            image = np.asarray(image)  # decoded once, however often it is looked at
        return cls(record, image, study.masks(field_id), _scale(study, record))

    def describe(self) -> str:
        """Name and size, for messages."""
        return f"the field {self.record.id} of {self.record.height} x {self.record.width} pixels"

    def parted(self, cells: Sequence[str]) -> tuple[FieldMasks, FieldMasks]:
        """Masks of some cells, in their order, and of all others."""
        numbers = [split_cell_id(cell)[1] for cell in cells]
        rows = {number: row for row, number in enumerate(self.masks.numbers.tolist())}
        others = [row for number, row in rows.items() if number not in numbers]
        return self.masks.take([rows[number] for number in numbers]), self.masks.take(others)

    def checked(self, box: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Return a box of whole numbers that lies in the field."""
        y0, x0, y1, x1 = (int(side) for side in box)
        if not (0 <= y0 < y1 <= self.record.height and 0 <= x0 < x1 <= self.record.width):
            raise InputError(f"The box {(y0, x0, y1, x1)} is empty or leaves {self.describe()}. Give one inside.")
        return y0, x0, y1, x1

    def around(self, box: tuple[int, int, int, int], painted: NDArray[np.int32]) -> tuple[int, int, int, int]:
        """Smallest box that holds `box`, and whole each cell that reaches into it or is painted in it."""
        touched = (self.masks.boxes[:, :2] < box[2:]).all(axis=1) & (self.masks.boxes[:, 2:] > box[:2]).all(axis=1)
        touched |= np.isin(self.masks.numbers, painted)
        boxes = np.concatenate([[box], self.masks.boxes[touched]])
        (y0, x0), (y1, x1) = boxes[:, :2].min(axis=0).tolist(), boxes[:, 2:].max(axis=0).tolist()
        return y0, x0, y1, x1

    def read(self, box: tuple[int, int, int, int]) -> tuple[tuple[int, int, int, int], NDArray[np.uint8]]:
        """Read the part of the picture around a box: where it lies, and its pixels (h, w, 3)."""
        height, width = self.record.height, self.record.width
        if height * width <= WHOLE_PX:
            return (0, 0, height, width), np.asarray(self.image)
        margin = int(np.ceil(AROUND_UM / self.scale.pixel_size_um))
        y0, x0, y1, x1 = box
        around = (max(y0 - margin, 0), max(x0 - margin, 0), min(y1 + margin, height), min(x1 + margin, width))
        return around, np.asarray(self.image[around[0] : around[2], around[1] : around[3]])

    def measured(self, masks: FieldMasks) -> dict[str, Shape]:
        """Shapes by cell id, with their measures, in the order of `masks`."""
        if not len(masks):
            return {}
        low, high = masks.boxes[:, :2].min(axis=0).tolist(), masks.boxes[:, 2:].max(axis=0).tolist()
        window, pixels = self.read((*low, *high))
        table = measures.measure_masks(pixels, _moved(masks, -window[0], -window[1]), self.scale)
        rows = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
        cells = zip(masks.numbers.tolist(), masks.boxes, masks.cells, masks.nuclei, rows, strict=True)
        return {
            cell_id(self.record.id, number): Shape.of(box, cell, nucleus, row)
            for number, box, cell, nucleus, row in cells
        }


def _scale(study: Study, record: FieldRecord) -> Scale:
    """Scale of a field: its slide's in the cell table, or where that has no cell the field's own."""
    known = scale_of(record.slide, study.cells.obs)
    return Scale(float(known["pixel_size_um"]), known["scale_from"]) if known else load_cells(study, record).scale


def _added(study: Study, field: _Field, found: FieldMasks) -> str:
    """Write a proposed cell, kept off its neighbours."""
    free = correct.clear_of(found, field.masks)
    if free is None or int(free.cells[0].sum()) * field.scale.pixel_size_um**2 < SMALLEST_UM2:
        raise InputError(f"Other cells of {field.record.id} leave no room there. Repaint or split them instead.")
    number = study.next_number(field.record.id)
    shapes = field.measured(replace(free, numbers=np.asarray([number], np.int32)))
    study.reshape("add", shapes)
    return cell_id(field.record.id, number)


def _moved(masks: FieldMasks, y: int, x: int) -> FieldMasks:
    """The same cells, `y` rows and `x` columns farther."""
    return replace(masks, boxes=masks.boxes + np.asarray([y, x, y, x], np.int32))


def _checked(image: NDArray[np.integer[Any]], box: tuple[int, int, int, int], what: str) -> NDArray[np.int32]:
    """A painted label image, if it fits its box."""
    size = (box[2] - box[0], box[3] - box[1])
    if image.shape != size or image.dtype.kind not in "iu":
        raise InputError(f"The painted {what} are {image.shape} {image.dtype}; give {size} whole numbers.")
    if image.size and (image.min() < 0 or image.max() > np.iinfo(np.int32).max):
        raise InputError(f"The painted {what} hold the value {image.min() if image.min() < 0 else image.max()}. "
                         "Paint with values from 0 to 2,147,483,647.")  # fmt: skip
    return image.astype(np.int32)
