"""YOLO: one text file an image, one line a cell.

``class cx cy width height`` is a box (a sixth number, the confidence, is ignored), ``class x1 y1 x2 y2 x3 y3 ...`` an
outline; all are shares of the image's width and height. Names of the classes stand in ``classes.txt`` or ``obj.names``
beside the file or in the folder above, one a line, counted from 0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_dinobloom.io.annotations.marks import (
    Flaw,
    Mark,
    Marks,
    mark_of_box,
    mark_of_outline,
    read_text,
    ring_of,
    sift,
)

ENDINGS = (".txt",)
NAMES = ("classes.txt", "obj.names")


def read_yolo(path: Path, size: tuple[int, int]) -> Marks:
    """Read the boxes and outlines of one YOLO file; see `read_annotations`."""
    names = class_names(path)

    def mark(where: str, words: list[str]) -> Mark:
        return _mark(where, words, size, names)

    lines = read_text(path).splitlines()
    entries = ((f"line {number}", line.split()) for number, line in enumerate(lines, start=1) if line.strip())
    return sift(path, size, entries, mark)


def _mark(where: str, words: list[str], size: tuple[int, int], names: list[str]) -> Mark:
    """Cell of one line."""
    try:
        values = np.asarray([float(word) for word in words[1:]])
    except ValueError as error:
        raise Flaw(f"holds something else than numbers ({str(error)[:80]}). Correct or delete the line.") from error
    name = _name(words[0], names)
    if len(values) < 4 or (len(values) > 5 and len(values) % 2):
        raise Flaw(
            f"has {len(words)} numbers; a box has 5 (class cx cy width height), an outline an odd number of 7 or more. "
            "Correct or delete the line."
        )
    if not np.isfinite(values).all() or (np.abs(values[:4]) > 2).any():
        raise Flaw("the numbers are no shares of the image (0 to 1). Divide pixels by width and height.")
    if len(values) <= 5:
        cx, cy, width, height = values[:4] * np.asarray([size[1], size[0], size[1], size[0]])
        return mark_of_box(where, name, cy - height / 2, cx - width / 2, cy + height / 2, cx + width / 2)
    points = values.reshape(-1, 2)[:, ::-1] * np.asarray(size)
    return mark_of_outline(where, name, ((ring_of(points),),))


def _name(word: str, names: list[str]) -> str:
    """Name of a class by its number; the number itself where no names are known."""
    try:
        number = int(word)
    except ValueError as error:
        raise Flaw(f"begins with {word[:20]!r}, not with the number of a class. Correct the line.") from error
    if names and not 0 <= number < len(names):
        raise Flaw(f"is of class {number}, but only {len(names)} names are given. Correct the line or the names.")
    return names[number] if names else str(number)


def class_names(path: Path) -> list[str]:
    """Names from the first list that is there; none if there is no list."""
    for folder in (path.parent, path.parent.parent):
        for name in NAMES:
            if (folder / name).is_file():
                return [line.strip() for line in read_text(folder / name).splitlines() if line.strip()]
    return []
