"""Every sentence, label and tooltip that the widgets show: a dictionary for each window, merged here.

Keys are ``place.thing``; ``place.thing.tip`` is the tooltip of ``place.thing``. Values may hold ``{names}`` that
`text` fills in: ``{n:cell|cells}`` is a number with its noun, "1 cell" or "2,400 cells".
"""

from __future__ import annotations

import string
from types import MappingProxyType
from typing import Any

from napari_dinobloom.ui.texts import (
    classify,
    common,
    embed,
    gallery,
    gates,
    maps,
    patches,
    patients,
    report,
    run,
    segment,
    study,
)
from napari_dinobloom.words import number_of

PARTS = (
    run,
    segment,
    gates,
    gallery,
    maps,
    study,
    embed,
    patches,
    report,
    classify,
    patients,
    common,
)
"""One module for each window, and one for what all share."""

TEXTS: MappingProxyType[str, str] = MappingProxyType(
    {key: value for part in PARTS for key, value in part.TEXTS.items()}
)


def text(key: str, /, **values: object) -> str:
    """Return the text of `key` with its ``{names}`` filled in from `values`.

    Raises
    ------
    KeyError
        If there is no such text, or a name in it has no value.
    """
    template = TEXTS[key]
    return _WORDS.format(template, **values) if values else template


def tip(key: str, /) -> str:
    """Tooltip of the control whose label is `key`."""
    return TEXTS[f"{key}.tip"]


def measure_title(name: str, /) -> str:
    """Name of a column of the cell table for people, with its unit; one that is not known keeps its own."""
    stem, _, number = name.rpartition("_")
    if number.isdigit() and stem in ("umap", "pca"):
        return f"{stem.upper()} {number}"
    return TEXTS.get(f"measure.{name}") or name[:1].upper() + name[1:].replace("_", " ")


def step_title(step: str, /) -> str:
    """Name of a step of the pipeline for people; a step that is not known keeps its own."""
    return TEXTS.get(f"step.{step}", step)


class _Words(string.Formatter):
    """Fills in texts: numbers with their noun, and shares with a space before the % at which no line breaks."""

    def format_field(self, value: Any, format_spec: str) -> str:
        """Format one value; ``one|many`` stands for a number and the noun that goes with it."""
        one, either, many = format_spec.partition("|")
        if either:
            return number_of(value, one, many)
        told = str(super().format_field(value, format_spec))
        return f"{told[:-1]}\u00a0%" if format_spec.endswith("%") else told


_WORDS = _Words()
