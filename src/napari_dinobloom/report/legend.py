"""The legend of a report: how each class is titled, abbreviated and coloured, the same in every figure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from napari_dinobloom.cells.taxonomy import CLASSES, describe

_ORDER = {c.name: i for i, c in enumerate(CLASSES)}
_HEX = re.compile(r"#[0-9a-fA-F]{6}")
_TAGS = {
    "neutrophil_segmented": "SEG",
    "neutrophil_band": "BAND",
    "neutrophil": "NEUT",
    "eosinophil": "EOS",
    "basophil": "BASO",
    "lymphocyte": "LYMPH",
    "monocyte": "MONO",
    "metamyelocyte": "META",
    "myelocyte": "MYELO",
    "promyelocyte": "PRO",
    "blast": "BLAST",
    "myeloblast": "MYBL",
    "monoblast": "MOBL",
    "bilobed_promyelocyte": "PRO-B",
    "faggot_cell": "FAGG",
    "atypical_lymphocyte": "ATYP",
    "immature_lymphocyte": "LY-IM",
    "plasma_cell": "PLASMA",
    "hairy_cell": "HAIRY",
    "immature_granulocyte": "IG",
    "abnormal_eosinophil": "EOS-A",
    "other_cell": "OTHER",
    "erythroblast": "NRBC",
    "proerythroblast": "PRO-E",
    "platelet": "PLT",
    "smudge_cell": "SMUDGE",
    "artefact": "ART",
    "unclassified": "?",
}

_PEOPLE = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a800", "#332288", "#88ccee", "#117733"),
    *("#999933", "#aa4499", "#44aa99", "#882255", "#ddaa33", "#bb5566", "#6699cc", "#997700", "#994455", "#4477aa"),
)
"""Colours of patients and groups, as on the map of the plugin: Okabe and Ito, then Tol's sets."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One class in the legend.

    Attributes
    ----------
    name : str
        Key in tables.
    title : str
        Name for readers.
    tag : str
        Abbreviation written beside a cell, so that colour is never the only sign of a class.
    colour : str
        ``#rrggbb``.
    key : str
        Its class in the style sheet ("k3").
    place : int
        Its line in the legend, from 0.
    """

    name: str
    title: str
    tag: str
    colour: str
    key: str
    place: int

    @property
    def light(self) -> bool:
        """Whether the colour is so light that an outline in it needs a dark edge (relative luminance, WCAG 2)."""
        channels = [int(self.colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True)) > 0.45


class Legend:
    """The classes of one report in the order of the taxonomy, new names after the known ones.

    Parameters
    ----------
    names : iterable of str
        Classes that occur anywhere in the report.
    palette : mapping of str to str
        Colours of the study. A value that is not ``#rrggbb`` is not believed (it would land in a style sheet): the
        taxonomy's own colour is taken.
    titles : mapping of str to str, optional
        Names for readers that differ from the taxonomy's, as those of a counting scheme.
    """

    def __init__(
        self, names: Iterable[str], palette: Mapping[str, str], titles: Mapping[str, str] | None = None
    ) -> None:
        ordered = sorted({str(n) for n in names}, key=lambda name: (_ORDER.get(name, len(_ORDER)), name))
        self._entries = {name: _entry(name, i, palette, titles or {}) for i, name in enumerate(ordered)}

    @classmethod
    def of_names(cls, names: Sequence[str], key: str) -> Legend:
        """A legend of names that are no classes, in their order; colours repeat after 20. `key` begins style names."""
        legend = cls((), {})
        legend._entries = {
            name: Entry(name, name or "not named", str(i + 1), _PEOPLE[i % len(_PEOPLE)], f"{key}{i}", i)
            for i, name in enumerate(names)
        }
        return legend

    def __getitem__(self, name: str) -> Entry:
        """The entry of class `name`; KeyError for a class that was not announced."""
        return self._entries[name]

    @property
    def entries(self) -> list[Entry]:
        """All classes in their order."""
        return list(self._entries.values())

    def rank(self, name: str) -> int:
        """Place of class `name` in the order."""
        return self._entries[name].place


def tag_of(name: str) -> str:
    """Class `name` in a few capital letters, for places that are narrow."""
    return _TAGS.get(name) or describe(name).title[:5].upper()


def _entry(name: str, place: int, palette: Mapping[str, str], titles: Mapping[str, str]) -> Entry:
    """The legend's line for class `name`."""
    known = describe(name)
    given = str(palette.get(name, ""))
    colour = given if _HEX.fullmatch(given) else known.colour
    return Entry(name, titles.get(name) or known.title, tag_of(name), colour, f"k{place}", place)
