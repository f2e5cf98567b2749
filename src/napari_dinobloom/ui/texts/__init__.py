"""Every sentence, label and tooltip that the widgets show: a dictionary for each window, merged here.

Keys are ``place.thing``; ``place.thing.tip`` is the tooltip of ``place.thing``. Values may hold ``{names}`` that
`text` fills in.
"""

from __future__ import annotations

from types import MappingProxyType

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
    return template.format(**values) if values else template


def tip(key: str, /) -> str:
    """Tooltip of the control whose label is `key`."""
    return TEXTS[f"{key}.tip"]


def step_title(step: str, /) -> str:
    """Name of a step of the pipeline for people; a step that is not known keeps its own."""
    return TEXTS.get(f"step.{step}", step)
