"""Cells that the user brings: from label pictures and outlines of other programs to masks like those of a segmenter.

Owns what becomes of marks: outlines are drawn, boxes get the outline of the cell in them, nuclei that nobody marked are
found by the stain, red cells and platelets are left out by the name of their class.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells import dyed
from napari_dinobloom.cells.background import Background
from napari_dinobloom.cells.region import Region
from napari_dinobloom.cells.scale import Scale
from napari_dinobloom.cells.segmenter import Found, get_segmenter
from napari_dinobloom.cells.stain import Stain, light_and_stain
from napari_dinobloom.errors import InputError
from napari_dinobloom.io.annotations import ENDINGS, hash_of, matching, pictures, read_annotations, table, voc, yolo
from napari_dinobloom.io.annotations.marks import Mark, Marks
from napari_dinobloom.io.annotations.polygons import fill
from napari_dinobloom.io.masks import Bitmap, FieldMasks
from napari_dinobloom.progress import Progress, Steps

VERSION = 1

NOT_WHITE = frozenset(
    {"rbc", "rbcs", "red_cell", "red_cells", "red_blood_cell", "red_blood_cells", "erythrocyte", "erythrocytes"}
    | {"plt", "platelet", "platelets", "thrombocyte", "thrombocytes", "background"}
)
"""Classes that are no white cells, lower case with underscores; so are names that end in ``*`` (ignored in QuPath)."""

COVER = 4
"""Times that all boxes together may cover the image: more is an attack on the memory, or another image's file."""

_WITH_BOXES = (*table.ENDINGS, *voc.ENDINGS, *yolo.ENDINGS)

Box = tuple[int, int, int, int]
Cut = tuple[Box, Bitmap, Bitmap, str]
"""Box, cell, nucleus and class of one cell."""


class Brought:
    """The segmenter of one field whose cells are marked already.

    Make it with `from_file`, `from_labels` or `brought_fields`.

    Attributes
    ----------
    name : str
        ``labels:`` and the name of the file or layer.
    licence : str
        Empty: they are the user's own.
    """

    licence = ""

    def __init__(self, name: str, content: str, read: Callable[[tuple[int, int]], Marks], *, strict: bool) -> None:
        self.name = f"labels:{name}"
        self._title = name
        self._content = content
        self._read = read
        self._strict = strict

    @property
    def key(self) -> str:
        """Changes with the content of the marks, and with what finds nuclei in cells and cells in boxes."""
        finder = get_segmenter("learned").key if self._title.lower().endswith(_WITH_BOXES) else ""
        return f"{VERSION}-{dyed.VERSION}-{self._content}-{finder}"

    @classmethod
    def from_file(cls, path: str | Path, *, strict: bool = True) -> Brought:
        """Take the marks of one image from a file of any format of `io.annotations`.

        Parameters
        ----------
        path : str or Path
            The file; a CSV must not name more than one image.
        strict : bool
            Whether a file that cannot be used as a whole is an error; else it gives no cells and a note.

        Raises
        ------
        InputError
            If there is no such file, or none of this kind.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: is no file. Name the file with the marks of this one image.")
        if path.suffix.lower() not in ENDINGS:
            raise InputError(f"{path}: is no file of marked cells. Known endings: {', '.join(ENDINGS)}.")
        return cls(path.name, hash_of(path), lambda size: read_annotations(path, size), strict=strict)

    @classmethod
    def from_labels(cls, labels: NDArray[Any], nuclei: NDArray[Any] | None = None, *, name: str = "layer") -> Brought:
        """Take the marks from an array, such as the data of a Labels layer.

        Parameters
        ----------
        labels : numpy.ndarray
            (Y, X) integers or booleans; 0 is none. See `io.annotations.pictures` for what values mean.
        nuclei : numpy.ndarray, optional
            (Y, X); where it is not 0 and in a cell, that cell's nucleus is.
        name : str
            For messages.

        Raises
        ------
        InputError
            If they are no labels, or not of one size.
        """
        whole = np.asarray(labels)
        content = hashlib.sha256(repr((whole.shape, whole.dtype.str)).encode() + np.ascontiguousarray(whole).tobytes())
        if nuclei is not None:
            if np.shape(nuclei) != whole.shape:
                raise InputError(f"{name}: nuclei are {np.shape(nuclei)}, cells {whole.shape}. Give both at one size.")
            content.update(np.ascontiguousarray(nuclei).tobytes())

        def read(size: tuple[int, int]) -> Marks:
            if whole.shape != size:
                raise InputError(f"{name}: has the shape {whole.shape}, its image {size}. Draw on this image.")
            marks = pictures.marks_of_labels(whole, name)
            if nuclei is None or marks.labels is None:
                return marks
            inner = np.where(np.asarray(nuclei) != 0, marks.labels, 0).astype(np.int32)
            return Marks(labels=marks.labels, nuclei=inner, problems=marks.problems)

        return cls(name, content.hexdigest(), read, strict=True)

    def tiled(self, tile: int | None, scratch: Path | None) -> Brought:
        """Give itself: marks are read at once."""
        del tile, scratch
        return self

    def within(self, region: Region) -> Brought:
        """Give itself: marks are taken wherever they lie."""
        del region
        return self

    def iter_find(self, image: Any, scale: Scale, *, light: Background | None = None) -> Steps[Found]:
        """Make masks of the marks.

        Parameters
        ----------
        image : array
            (Y, X, 3) uint8, numpy or lazy.
        scale : Scale
            Of the image.
        light : Background, optional
            Of the image, where it is known already.

        Returns
        -------
        Found
            Sorted by y0, x0 and numbered 1, 2, ..., with the classes that came along.

        Raises
        ------
        InputError
            If the file as a whole cannot be used and the segmenter is strict.
        """
        size = (int(image.shape[0]), int(image.shape[1]))
        yield Progress(0, 1, self.name)
        notes: list[str] = []
        try:
            marks = self._read(size)
            if marks.labels is not None:
                cuts = _cut_labels(marks.labels, marks.nuclei, self._title)
            else:
                cuts, notes = yield from _iter_draw(marks.cells, image, scale, self._title)
            problems = marks.problems
        except InputError as error:
            if self._strict:
                raise
            cuts, notes, problems = [], [], (str(error),)
        cuts = [_trimmed(cut) for cut in cuts]
        masks = dyed.with_nuclei(image, _masks(cuts), scale, light)
        yield Progress(1, 1, f"{len(masks)} cells")
        classes = tuple(cut[3] for cut in cuts)
        return Found(masks, classes=classes if any(classes) else (), notes=(*problems, *notes)).sorted()


def brought_fields(source: str | Path, images: Mapping[str, Path]) -> dict[str, Brought | None]:
    """Make the segmenter of each field of a study from a file or folder of marks.

    Parameters
    ----------
    source : str or Path
        A folder with one file for each image, matched by name without ending (``anna/field0.xml`` before
        ``field0.xml``); a table of boxes with a column ``file``; or one file where there is one image.
    images : mapping of str to Path
        Absolute path of each image by its field's id.

    Returns
    -------
    dict of str to Brought or None
        For every field; None where nothing was brought. A file that cannot be used as a whole gives no cells and a
        note, so that the other images go on.

    Raises
    ------
    InputError
        If nothing fits any image, or it is not clear what fits.
    """
    source = Path(source)
    if source.suffix.lower() in table.ENDINGS and source.is_file():
        return _fields_of_table(source, images)
    files = matching.match_files(source, images, ENDINGS)
    return {field: Brought.from_file(file, strict=False) if file else None for field, file in files.items()}


def _fields_of_table(path: Path, images: Mapping[str, Path]) -> dict[str, Brought | None]:
    """Segmenters of all images of a table."""
    boxes = table.read_table(path)
    if set(boxes.rows) == {""}:
        if len(images) > 1:
            raise InputError(f"{path}: has no column 'file', so it fits one image, not {len(images)}. Add the column.")
        return {field: Brought.from_file(path) for field in images}
    keys: dict[str, list[table.Row]] = {}
    for name, rows in boxes.rows.items():
        keys.setdefault(matching.key_of_text(name), []).extend(rows)
    matched = matching.match_keys(path, keys, images)
    return {field: None if key is None else _of_rows(path, boxes, keys[key]) for field, key in matched.items()}


def _of_rows(path: Path, boxes: table.BoxTable, rows: list[table.Row]) -> Brought:
    """Segmenter of the rows of one image; its key does not know their places in the file."""
    content = hashlib.sha256(repr([row[1:] for row in rows]).encode()).hexdigest()
    return Brought(path.name, content, lambda size: boxes.marks(rows, size), strict=False)


def _cut_labels(labels: NDArray[np.int32], nuclei: NDArray[np.int32] | None, name: str) -> list[Cut]:
    """Cells of label pictures."""
    from scipy import ndimage as ndi

    places = [place for place in ndi.find_objects(labels) if place is not None]
    _check_cover(sum((y.stop - y.start) * (x.stop - x.start) for y, x in places), labels.shape, name)
    masks = FieldMasks.from_labels(labels, np.zeros_like(labels) if nuclei is None else nuclei)
    boxes = [(int(y0), int(x0), int(y1), int(x1)) for y0, x0, y1, x1 in masks.boxes]
    return list(zip(boxes, masks.cells, masks.nuclei, [""] * len(masks), strict=True))


def _iter_draw(marks: tuple[Mark, ...], image: Any, scale: Scale, name: str) -> Steps[tuple[list[Cut], list[str]]]:
    """Cells of marks: outlines are filled, in a box the cell is sought; what is no white cell is left out."""
    wanted = [mark for mark in marks if not _is_other(mark.name)]
    left_out = Counter(mark.name for mark in marks if _is_other(mark.name))
    notes = []
    if left_out:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
        notes.append(f"{name}: {counts} left out, as their class is no white cell. Rename the class if it is one.")
    _check_cover(sum(_area(_window(mark)) for mark in wanted), image.shape[:2], name)
    cuts: list[Cut] = []
    look = None if all(mark.cell for mark in wanted) else light_and_stain(image)
    for done, mark in enumerate(wanted):
        yield Progress(done, len(wanted), name)
        try:
            cuts.append(_outlined(mark) if mark.cell else _boxed(mark, image, scale, look))
        except ValueError as error:
            notes.append(f"{name}, {mark.where}: {error}. Draw it again or delete it.")
    return cuts, notes


def _is_other(name: str) -> bool:
    """Whether a class says that this is no white cell."""
    plain = name.strip().casefold().replace(" ", "_").replace("-", "_")
    return plain in NOT_WHITE or plain.endswith("*")


def _window(mark: Mark) -> Box:
    """Whole pixels that the box of a mark touches."""
    y0, x0, y1, x1 = mark.box
    return int(np.floor(y0)), int(np.floor(x0)), int(np.ceil(y1)), int(np.ceil(x1))


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _check_cover(pixels: int, shape: tuple[int, ...], name: str) -> None:
    """Refuse marks whose bitmaps would fill the memory."""
    if pixels > COVER * shape[0] * shape[1]:
        raise InputError(
            f"{name}: the boxes of its cells cover the image {pixels / (shape[0] * shape[1]):.0f} times; at most "
            f"{COVER} can be right. Check that every value or outline is a single cell."
        )


def _outlined(mark: Mark) -> Cut:
    """Cell whose outline is known, its nucleus cut to it."""
    box = _window(mark)
    cell = fill(mark.cell, box)
    if not cell.any():
        raise ValueError("the outline holds no pixel")
    return box, cell, fill(mark.nucleus, box) & cell, mark.name


def _boxed(mark: Mark, image: Any, scale: Scale, look: tuple[Background, Stain] | None) -> Cut:
    """Cell that is seen in a box; its nucleus is left to the stain, as in all cells whose nucleus nobody marked."""
    from napari_dinobloom.cells.propose import cell_in_box

    found = cell_in_box(image, mark.box, scale.pixel_size_um, look=look)
    if not len(found) or not found.cells[0].any():
        raise ValueError("no cell is seen in the box")
    y0, x0, y1, x1 = (int(value) for value in found.boxes[0])
    return (y0, x0, y1, x1), found.cells[0], np.zeros_like(found.cells[0]), mark.name


def _masks(cuts: list[Cut]) -> FieldMasks:
    """Masks of cells, numbered 1, 2, ..."""
    return FieldMasks.numbered(
        [box for box, _, _, _ in cuts], [cell for _, cell, _, _ in cuts], [nucleus for _, _, nucleus, _ in cuts]
    )


def _trimmed(cut: Cut) -> Cut:
    """The same with the smallest box."""
    (y0, x0, _, _), cell, nucleus, kind = cut
    rows, columns = np.flatnonzero(cell.any(axis=1)), np.flatnonzero(cell.any(axis=0))
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    box = (y0 + int(rows[0]), x0 + int(columns[0]), y0 + int(rows[-1]) + 1, x0 + int(columns[-1]) + 1)
    return box, cell[part], nucleus[part], kind
