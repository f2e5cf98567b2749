"""What gives each cell of the map its colour, and the lines of the legend.

A cell has a code, a code has a colour: new colours are a new table of a few hundred entries, and a category that is
switched off is an entry without opacity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_dinobloom.cells.taxonomy import describe
from napari_dinobloom.explore.gate_statistics import classes_of
from napari_dinobloom.explore.gate_tree import GateTree
from napari_dinobloom.explore.gates import BooleanGate
from napari_dinobloom.explore.gates.base import Mask, column
from napari_dinobloom.ui.texts import text

Codes = npt.NDArray[np.uint16]
Table = npt.NDArray[np.float32]

CLASS, GATE, DENSITY = "class", "gate", "density"
CATEGORIES = ("slide", "patient", "field", "quality", "label_by")
"""Columns whose values are names."""
MOST_CATEGORIES = 400
"""Names beyond the most frequent ones share a colour."""
STEPS = 256
"""Colours of a scale."""
OUTSIDE = "#8a8a8a"
"""Cells in no gate, and cells whose value is not known."""
CYCLE = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a800", "#332288", "#88ccee", "#117733"),
    *("#999933", "#aa4499", "#44aa99", "#882255", "#ddaa33", "#bb5566", "#6699cc", "#997700", "#994455", "#4477aa"),
)
"""Colours of slides and patients: Okabe and Ito, then Tol's muted and high-contrast sets."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the legend.

    Attributes
    ----------
    key : str
        The category.
    title : str
        Its name for people.
    colour : str
        ``#rrggbb``.
    count : int
        Cells that have it.
    """

    key: str
    title: str
    colour: str
    count: int


@dataclass(frozen=True, slots=True)
class Colouring:
    """Colours of n cells.

    Attributes
    ----------
    codes : ndarray (n,) uint16
        Entry of `table` for each cell.
    table : ndarray (k, 4) float32
        RGBA from 0 to 1.
    entries : tuple of Entry
        One for each code of a category; none for a scale.
    limits : (float, float) or None
        Values at both ends of a scale.
    """

    codes: Codes
    table: Table
    entries: tuple[Entry, ...] = ()
    limits: tuple[float, float] | None = None

    def without(self, hidden: frozenset[str]) -> Table:
        """The table with the categories of `hidden` made invisible."""
        table = self.table.copy()
        for code, entry in enumerate(self.entries):
            if entry.key in hidden:
                table[code, 3] = 0
        return table

    def counted_among(self, cells: Mask) -> Colouring:
        """The same with the counts of some cells alone, (n,) bool."""
        counts = np.bincount(self.codes[cells], minlength=len(self.table))
        entries = (replace(entry, count=int(count)) for entry, count in zip(self.entries, counts, strict=False))
        return replace(self, entries=tuple(entries))

    def recoloured(self, seen: Callable[[str], str]) -> Colouring:
        """The same with the colours of categories as `seen` gives them on the background; a scale stays."""
        if not self.entries:
            return self
        entries = tuple(replace(entry, colour=seen(entry.colour)) for entry in self.entries)
        return replace(self, table=_table([entry.colour for entry in entries]), entries=entries)

    def seen(self, hidden: frozenset[str]) -> Mask:
        """Which cells have a category that is not in `hidden`, (n,) bool."""
        return np.asarray(self.without(hidden)[:, 3] > 0)[self.codes]


def coloured(
    by: str, table: pd.DataFrame, palette: Mapping[str, str], tree: GateTree | None, masks: Mapping[str, Mask]
) -> Colouring:
    """Colour by what `Session.colour_by` says; by class where that cannot be done."""
    if by == GATE and tree is not None and set(tree.keys) <= set(masks):
        return by_gate(tree, masks, len(table))
    if by in CATEGORIES and by in table:
        return by_name(table, by)
    if by in table and table[by].dtype.kind in "iuf":
        return by_value(column(table, by, by))
    return by_class(table, palette)


def by_class(table: pd.DataFrame, palette: Mapping[str, str]) -> Colouring:
    """Colour by class: a person's, else the machine's, else unclassified."""
    return _categories(classes_of(table), lambda name, _: palette.get(name) or describe(name).colour, _title_of_class)


def by_name(table: pd.DataFrame, column: str) -> Colouring:
    """Colour by a column of names, such as the slide."""
    values = table[column].astype(object).where(table[column].notna(), "").astype(str)
    return _categories(values, lambda _, at: CYCLE[at % len(CYCLE)], lambda name: name or text("map.nameless"))


def by_gate(tree: GateTree, masks: Mapping[str, Mask], n: int) -> Colouring:
    """Colour by the lowest shown gate of the tree that holds a cell; of several beside each other the last.

    Gates made of others colour only what no other gate does: they would hide those that they are made of.
    """
    codes = np.zeros(n, dtype=np.uint16)
    keys = [key for key in tree.keys if not tree[key].hidden]
    made = {key: isinstance(tree[key].gate, BooleanGate) for key in keys}
    for key in sorted(keys, key=lambda key: (not made[key], tree.path(key).count("/"))):
        codes[masks[key]] = keys.index(key) + 1
    counts = np.bincount(codes, minlength=len(keys) + 1)
    entries = [Entry("", text("map.no_gate"), OUTSIDE, int(counts[0]))]
    entries += [
        Entry(key, tree.path(key), tree[key].colour, int(count)) for key, count in zip(keys, counts[1:], strict=True)
    ]
    return Colouring(codes, _table([entry.colour for entry in entries]), tuple(entries))


def by_value(values: npt.NDArray[np.float64]) -> Colouring:
    """Colour by a number on a scale between its 1st and 99th percentile; unknown ones are grey."""
    known = np.isfinite(values)
    codes = np.full(len(values), STEPS, dtype=np.uint16)
    low, high = (float(v) for v in np.percentile(values[known], (1, 99))) if known.any() else (0.0, 1.0)
    if high <= low:
        low, high = (float(values[known].min()), float(values[known].max())) if known.any() else (0.0, 1.0)
    share = (values[known] - low) / (high - low) if high > low else np.zeros(int(known.sum()))
    codes[known] = np.clip(np.rint(share * (STEPS - 1)), 0, STEPS - 1).astype(np.uint16)
    return Colouring(codes, scale_table(), limits=(low, high))


def by_density(positions: npt.NDArray[np.float32], cells: int = 256) -> Colouring:
    """Colour by how many cells lie around each, on a scale by rank; (n, 2) positions, NaN where there is none."""
    from scipy.ndimage import gaussian_filter

    known = np.isfinite(positions).all(axis=1)
    codes = np.full(len(positions), STEPS, dtype=np.uint16)
    if known.any():
        there = positions[known].astype(np.float64)
        low, span = there.min(axis=0), np.ptp(there, axis=0)
        at = np.minimum((there - low) / np.where(span > 0, span, 1) * cells, cells - 1).astype(np.int64)
        place = at[:, 1] * cells + at[:, 0]
        counts = np.bincount(place, minlength=cells * cells).reshape(cells, cells)
        around = gaussian_filter(counts.astype(np.float64), 2).ravel()[place]
        ranks = np.searchsorted(np.sort(around), around, side="left") / max(1, len(around) - 1)
        codes[known] = np.rint(ranks * (STEPS - 1)).astype(np.uint16)
    return Colouring(codes, scale_table())


@cache
def scale_table() -> Table:
    """(257, 4): viridis, which rises evenly in lightness for colour-blind people as well, and grey for unknown."""
    from vispy.color import get_colormap

    steps = np.asarray(get_colormap("viridis").map(np.linspace(0, 1, STEPS)[:, None]), dtype=np.float32)
    table = np.vstack([steps, _table([OUTSIDE])])
    table.flags.writeable = False
    return table


def _categories(values: pd.Series[str], colour: object, title: object) -> Colouring:
    """Codes of names in the order of their frequency."""
    numbers, names = pd.factorize(values)
    counts = np.bincount(numbers, minlength=len(names))
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(names), dtype=np.uint16)
    rank[order] = np.minimum(np.arange(len(names)), MOST_CATEGORIES)
    entries = [
        Entry(str(names[i]), title(str(names[i])), colour(str(names[i]), at), int(counts[i]))  # type: ignore[operator]
        for at, i in enumerate(order[:MOST_CATEGORIES])
    ]
    if len(names) > MOST_CATEGORIES:
        rest = int(counts[order[MOST_CATEGORIES:]].sum())
        entries.append(Entry("\0others", text("map.others"), OUTSIDE, rest))
    codes = rank[numbers] if len(names) else np.zeros(0, dtype=np.uint16)
    return Colouring(codes, _table([entry.colour for entry in entries] or [OUTSIDE]), tuple(entries))


def hexed(rgba: npt.NDArray[np.float32]) -> str:
    """RGB or RGBA from 0 to 1 as ``#rrggbb``."""
    return "#" + "".join(f"{round(float(value) * 255):02x}" for value in rgba[:3])


def _title_of_class(name: str) -> str:
    return describe(name).title


def _table(colours: list[str]) -> Table:
    """``#rrggbb`` as (k, 4) RGBA from 0 to 1."""
    rgb = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in colours], dtype=np.float32) / 255
    return np.column_stack([rgb, np.ones(len(rgb), dtype=np.float32)])
