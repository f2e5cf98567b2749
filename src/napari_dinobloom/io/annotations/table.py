"""Boxes in a CSV: one line a cell.

Columns ``x0, y0, x1, y1`` or ``x, y, width, height`` (x, y the upper left corner), in pixels, x1 and y1 exclusive; a
column ``file`` where one table serves many images; a column ``class`` or ``label``. Usual other names are known too.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.annotations.marks import Flaw, Mark, Marks, mark_of_box, read_text, sift
from napari_dinobloom.io.tables import restore

ENDINGS = (".csv",)

MAX_ROWS = 2_000_000
"""Most lines of one table."""

_ALIASES = {
    "x0": ("x0", "xmin", "x_min", "left"),
    "y0": ("y0", "ymin", "y_min", "top"),
    "x1": ("x1", "xmax", "x_max", "right"),
    "y1": ("y1", "ymax", "y_max", "bottom"),
    "x": ("x",),
    "y": ("y",),
    "width": ("width", "w"),
    "height": ("height", "h"),
    "file": ("file", "filename", "image"),
    "class": ("class", "label", "name", "cell_type"),
}
_CORNERS = ("y0", "x0", "y1", "x1")
_EXTENT = ("y", "x", "height", "width")

Row = tuple[int, str, tuple[str, ...]]
"""Line in the file, class, and four numbers as text: y0, x0, y1, x1 or y, x, height, width."""


@dataclass(frozen=True, slots=True)
class BoxTable:
    """A table of boxes.

    Attributes
    ----------
    path : Path
        The file.
    corners : bool
        Whether the numbers of a row are y0, x0, y1, x1; else y, x, height, width.
    rows : dict of str to list of Row
        Rows of each image as the table calls it; under ``""`` if the table does not name images.
    """

    path: Path
    corners: bool
    rows: dict[str, list[Row]]

    def marks(self, rows: Sequence[Row], size: tuple[int, int]) -> Marks:
        """Boxes of one image of `size` (height, width) pixels."""
        return sift(self.path, size, ((f"line {row[0]}", row) for row in rows), self._mark)

    def _mark(self, where: str, row: Row) -> Mark:
        """Cell of one row."""
        try:
            y, x, down, right = (float(value) for value in row[2])
        except ValueError as error:
            raise Flaw(f"holds something else than numbers ({error}). Correct or delete the line.") from error
        if not self.corners:
            down, right = y + down, x + right
        return mark_of_box(where, row[1], y, x, down, right)


def read_boxes(path: Path, size: tuple[int, int]) -> Marks:
    """Read the boxes of one image; see `read_annotations`."""
    boxes = read_table(path)
    if len(boxes.rows) > 1:
        raise InputError(f"{path}: holds boxes of {len(boxes.rows)} images; this is one image. Give only its lines.")
    return boxes.marks(next(iter(boxes.rows.values()), []), size)


def read_table(path: Path) -> BoxTable:
    """Read a table of boxes with comma, semicolon or tab; lines that begin with ``#`` are comments.

    Raises
    ------
    InputError
        If columns are missing, or the file is no table or too large.
    """
    text = read_text(path)
    head = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    rows: dict[str, list[Row]] = {}
    columns: dict[str, int] = {}
    try:
        for count, cells in enumerate(reader):
            if not any(cell.strip() for cell in cells) or cells[0].startswith("#"):
                continue
            if not columns:
                columns = _columns(path, cells)
                places = [columns[name] for name in _wanted(columns)]
                continue
            if count > MAX_ROWS:
                raise InputError(f"{path}: holds more than {MAX_ROWS:,} lines. Split it.")
            cells = [*cells, *[""] * (max(columns.values()) + 1 - len(cells))]
            file = cells[columns["file"]].strip() if "file" in columns else ""
            name = restore(cells[columns["class"]].strip()) if "class" in columns else ""
            rows.setdefault(file, []).append((reader.line_num, name, tuple(cells[place] for place in places)))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: is no CSV ({error}). Export it again.") from error
    if not columns:
        raise InputError(f"{path}: is empty. Give a table with the columns x0, y0, x1, y1.")
    return BoxTable(path, _wanted(columns) == _CORNERS, rows)


def _columns(path: Path, head: list[str]) -> dict[str, int]:
    """Place of each column that is known, by our name for it."""
    names = [restore(cell.strip()).casefold() for cell in head]
    columns: dict[str, int] = {}
    for ours, aliases in _ALIASES.items():
        for alias in aliases:
            if alias in names:
                columns.setdefault(ours, names.index(alias))
    if not _wanted(columns):
        raise InputError(
            f"{path}: has the columns {', '.join(names)[:200]}; needed are x0, y0, x1, y1 or x, y, width, height."
        )
    return columns


def _wanted(columns: dict[str, int]) -> tuple[str, ...]:
    """The four columns that give the box; empty if neither kind is complete."""
    return next((kind for kind in (_CORNERS, _EXTENT) if all(name in columns for name in kind)), ())
