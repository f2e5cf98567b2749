"""The colours of a laboratory's own: a table of classes that new studies take their palette from.

``NAPARI_DINOBLOOM_COLOURS`` names a CSV with the columns ``class`` and ``colour`` (``#rrggbb``). A study keeps its
palette from when it is made, so that a class has one colour on map, image and report whoever opens it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from napari_dinobloom.errors import InputError, StudyError
from napari_dinobloom.io.tables import read_typed
from napari_dinobloom.io.trust import check_text

VARIABLE = "NAPARI_DINOBLOOM_COLOURS"
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


def own_colours() -> dict[str, str]:
    """Return ``#rrggbb`` by class of the table that `VARIABLE` names; none where it is not set.

    Raises
    ------
    InputError
        If the table cannot be read, lacks a column, or holds what is no class or no colour.
    """
    named = os.environ.get(VARIABLE)
    return read_colours(Path(named).expanduser()) if named else {}


def read_colours(path: Path) -> dict[str, str]:
    """Read such a table; see `own_colours`."""
    remedy = f"It is the table of class colours in the preferences or {VARIABLE}; choose another or none."
    try:
        table = read_typed(path, "class", "colour")
    except InputError as error:
        raise InputError(f"{error} {remedy}") from error
    found: dict[str, str] = {}
    for row, (name, colour) in enumerate(zip(table["class"], table["colour"], strict=True), start=1):
        try:
            check_text(name, f"{path}, class {row}", empty=False)
        except StudyError as error:
            raise InputError(f"{error} {remedy}") from error
        if not _COLOUR.fullmatch(colour):
            raise InputError(f"{path}, class {name!r}: the colour {colour[:40]!r} is not #rrggbb. {remedy}")
        found[name] = colour.lower()
    return found
