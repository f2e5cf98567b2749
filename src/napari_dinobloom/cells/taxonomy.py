"""The classes of blood and marrow cells: how they count, and their colours.

Names follow the labels of the PBC set (Acevedo et al. 2020, doi:10.1016/j.dib.2020.105474), the reference of the
bundled atlas; classes that only other sets tell apart (AML-Cytomorphology, bone marrow cytomorphology) are there too.
`report/schemes.yaml` maps each set onto them. Colours are an extension of the Okabe-Ito and Tol palettes, which people
with colour-blindness can tell apart; neighbours in the differential never share a hue.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Group = Literal["leucocyte", "erythroid", "platelet", "artefact", "unknown"]


@dataclass(frozen=True, slots=True)
class CellClass:
    """One class of cells.

    Attributes
    ----------
    name : str
        Key in tables, lower case with underscores.
    title : str
        Name in reports.
    group : str
        How the class counts in a differential.
    lineage : str
        ``granulocytic``, ``monocytic``, ``lymphoid``, ``erythroid`` or empty; for the myeloid to erythroid ratio.
    colour : str
        ``#rrggbb``.
    """

    name: str
    title: str
    group: Group
    lineage: str
    colour: str


UNCLASSIFIED = "unclassified"

CLASSES: tuple[CellClass, ...] = (
    CellClass("neutrophil_segmented", "Neutrophil, segmented", "leucocyte", "granulocytic", "#0072b2"),
    CellClass("neutrophil_band", "Neutrophil, band", "leucocyte", "granulocytic", "#56b4e9"),
    CellClass("neutrophil", "Neutrophil", "leucocyte", "granulocytic", "#004488"),
    CellClass("eosinophil", "Eosinophil", "leucocyte", "granulocytic", "#d55e00"),
    CellClass("basophil", "Basophil", "leucocyte", "granulocytic", "#332288"),
    CellClass("lymphocyte", "Lymphocyte", "leucocyte", "lymphoid", "#009e73"),
    CellClass("monocyte", "Monocyte", "leucocyte", "monocytic", "#e69f00"),
    CellClass("metamyelocyte", "Metamyelocyte", "leucocyte", "granulocytic", "#cc79a7"),
    CellClass("myelocyte", "Myelocyte", "leucocyte", "granulocytic", "#aa4499"),
    CellClass("promyelocyte", "Promyelocyte", "leucocyte", "granulocytic", "#882255"),
    CellClass("blast", "Blast", "leucocyte", "granulocytic", "#ee3377"),
    CellClass("myeloblast", "Myeloblast", "leucocyte", "granulocytic", "#9966ff"),
    CellClass("monoblast", "Monoblast", "leucocyte", "monocytic", "#664400"),
    CellClass("bilobed_promyelocyte", "Promyelocyte, bilobed", "leucocyte", "granulocytic", "#99eeaa"),
    CellClass("faggot_cell", "Faggot cell", "leucocyte", "granulocytic", "#7700ff"),
    CellClass("atypical_lymphocyte", "Atypical lymphocyte", "leucocyte", "lymphoid", "#117733"),
    CellClass("immature_lymphocyte", "Immature lymphocyte", "leucocyte", "lymphoid", "#550055"),
    CellClass("plasma_cell", "Plasma cell", "leucocyte", "lymphoid", "#44aa99"),
    CellClass("hairy_cell", "Hairy cell", "leucocyte", "lymphoid", "#999933"),
    CellClass("immature_granulocyte", "Immature granulocyte", "leucocyte", "granulocytic", "#cc6677"),
    CellClass("abnormal_eosinophil", "Eosinophil, abnormal", "leucocyte", "granulocytic", "#00eedd"),
    CellClass("other_cell", "Other cell", "leucocyte", "", "#443333"),
    CellClass("erythroblast", "Erythroblast", "erythroid", "erythroid", "#b2182b"),
    CellClass("proerythroblast", "Proerythroblast", "erythroid", "erythroid", "#661100"),
    CellClass("platelet", "Platelet", "platelet", "", "#ddcc77"),
    CellClass("smudge_cell", "Smudge cell", "artefact", "", "#88ccee"),
    CellClass("artefact", "Artefact", "artefact", "", "#6f6f6f"),
    CellClass(UNCLASSIFIED, "Unclassified", "unknown", "", "#bbbbbb"),
)

BY_NAME: dict[str, CellClass] = {c.name: c for c in CLASSES}

CLINICALLY_CRITICAL: tuple[str, ...] = ("blast", "atypical_lymphocyte", "plasma_cell")
"""Classes whose absence from an atlas must be said in every report."""

BLASTS: tuple[str, ...] = ("blast", "myeloblast", "monoblast")
"""Blasts, with or without their lineage in the name."""

LOOKED_AT: tuple[str, ...] = (
    *BLASTS,
    "bilobed_promyelocyte",
    "faggot_cell",
    "atypical_lymphocyte",
    "immature_lymphocyte",
    "hairy_cell",
    "plasma_cell",
)
"""Classes that must not be missed: a person looks at every cell of them. Few atlases know more than blasts."""

_SPARE = ("#4477aa", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#77aadd", "#bbcc33", "#ffaabb", "#225555")


def describe(name: str) -> CellClass:
    """Return the class called `name`; an unknown name is a leucocyte of no known lineage with a spare colour."""
    if name in BY_NAME:
        return BY_NAME[name]
    colour = _SPARE[sum(name.encode()) % len(_SPARE)]
    return CellClass(name, name.replace("_", " ").capitalize(), "leucocyte", "", colour)


def palette(names: Iterable[str]) -> dict[str, str]:
    """Colour of each class in `names` as ``#rrggbb``; none is used twice among all known and up to ten new ones."""
    colours: dict[str, str] = {}
    for name in names:
        if name in BY_NAME:
            colours[name] = BY_NAME[name].colour
        else:
            free = [c for c in _SPARE if c not in colours.values()]
            colours[name] = free[0] if free else describe(name).colour
    return colours


def unnamed_by(classes: Iterable[str]) -> list[str]:
    """Clinically critical classes that an atlas of `classes` cannot name; a blast of any lineage is a blast."""
    known = set(classes)
    known |= {"blast"} if known & set(BLASTS) else set()
    return [name for name in CLINICALLY_CRITICAL if name not in known]
