"""How many cells each gate holds, of which classes and with which measurements: of all cells, per patient and slide.

A `GateStatistics` reads a table once (who belongs to which slide and class) and counts any number of trees on it;
gates whose population has not changed since the last time are not counted again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED
from napari_dinobloom.explore.gate_tree import GateTree
from napari_dinobloom.explore.gates.base import Float64, GateError, Mask, column
from napari_dinobloom.explore.proportions import wilson

Int64 = NDArray[np.int64]
Columns = dict[str, NDArray[Any]]

LEVELS = ("all", "patient", "slide")
MEASUREMENTS = ("area_px", "nucleus_area_px", "nc_ratio", "solidity", "circularity", "lobes", "confidence")
"""Columns whose means are given, where the table has them."""
LEFT_OUT = ("deleted", "excluded", "gone")
"""Cells with one of these flags are not counted."""


@dataclass(frozen=True, slots=True)
class GateTables:
    """The statistics of a tree; each table has a line for every gate, level and group.

    The first columns of each are ``key``, ``gate`` (its path), ``level`` ("all", "patient" or "slide"), ``patient`` and
    ``slide`` ("" where the level has none).

    Attributes
    ----------
    counts : DataFrame
        ``n`` (cells of the gate), ``parent_n`` (of its parent; of all cells at the top), ``all_n``, and, in percent
        with Wilson's 95 % interval (counting error only), ``percent_of_parent parent_low parent_high percent_of_all
        all_low all_high``; NaN where there is no cell to take a share of.
    classes : DataFrame
        ``class``, ``n`` and, in percent of the gate's cells, ``percent low high``; classes with no cell in the gate are
        left out.
    means : DataFrame
        ``measurement``, ``mean`` (in the measurement's unit) over the ``n`` cells for which it is known.
    """

    counts: pd.DataFrame
    classes: pd.DataFrame
    means: pd.DataFrame


@dataclass(slots=True)
class _Tally:
    """Counts of one population: per slide, per slide and class, per slide and measurement."""

    mask: Mask
    n: Int64
    classes: Int64
    known: Int64
    sums: Float64


class GateStatistics:
    """Counts of gates over one table.

    Parameters
    ----------
    table : DataFrame
        n cells, as `axes_table` gives them. It is read now: make a new object when classes, slides or flags
        change. The columns of gates are read at each `tables`.
    counted : ndarray (n,) bool, optional
        Cells that count, such as those of the differential. By default all but deleted, excluded and lost ones.
    measurements : sequence of str, optional
        Columns whose means are wanted; by default those of `MEASUREMENTS` that the table has.

    Raises
    ------
    GateError
        `counted` has another length, or a measurement is missing or holds no numbers.
    """

    def __init__(
        self, table: pd.DataFrame, *, counted: Mask | None = None, measurements: Sequence[str] | None = None
    ) -> None:
        self.table = table
        if counted is not None and np.shape(counted) != (len(table),):
            raise GateError(f"'counted' must hold one value for each of {len(table)} cells, not {np.shape(counted)}.")
        wanted = [m for m in MEASUREMENTS if m in table] if measurements is None else list(measurements)
        if missing := [m for m in wanted if m not in table]:
            raise GateError(f"The table has no column {missing[0]!r} to take the mean of.")
        self.measurements = tuple(wanted)
        self._counted = _counted(table) if counted is None else np.asarray(counted, dtype=bool)
        self._values = [column(table, name, "means") for name in wanted]
        self._class, self.classes = _codes(classes_of(table))
        self._slide, self._patients, self._slides = _places(table)
        self._all = self._tally(self._counted)
        self._tallies: dict[str, _Tally] = {}

    def tables(self, tree: GateTree) -> GateTables:
        """Count the gates of a tree.

        Raises
        ------
        GateError
            As `GateTree.masks`.
        """
        keys = self._count(tree)
        if not keys:
            raise GateError("The tree has no gate to count. Draw one first.")
        own = [self._tallies[key] for key in keys]
        parents = [self._tallies[tree[key].parent] if tree[key].parent else self._all for key in keys]
        paths = [tree.path(key) for key in keys]
        parts: dict[str, list[Columns]] = {"counts": [], "classes": [], "means": []}
        for level in LEVELS:
            group, names = self._groups(level)
            lead = _lead(keys, paths, level, names)
            size = len(names)
            n, parent_n = (_gather([t.n for t in side], group, size) for side in (own, parents))
            total = np.broadcast_to(_gather([self._all.n], group, size), n.shape)
            parts["counts"].append({**lead, **_counts(n.ravel(), parent_n.ravel(), total.ravel())})
            parts["classes"].append(self._classes(lead, _gather([t.classes for t in own], group, size), n))
            sums, given = (_gather([getattr(t, what) for t in own], group, size) for what in ("sums", "known"))
            parts["means"].append(self._means(lead, sums, given))
        return GateTables(**{name: _joined(columns) for name, columns in parts.items()})

    def totals(self, tree: GateTree) -> dict[str, tuple[int, int, int]]:
        """Count the gates of a tree over all cells only: what must be there at once.

        Returns
        -------
        dict
            Key to the numbers ``n``, ``parent_n`` and ``all_n`` of `GateTables.counts`; empty for an empty tree.

        Raises
        ------
        GateError
            As `GateTree.masks`.
        """
        n = {"": int(self._all.n.sum()), **{key: int(self._tallies[key].n.sum()) for key in self._count(tree)}}
        return {key: (n[key], n[tree[key].parent], n[""]) for key in tree.keys}

    def _count(self, tree: GateTree) -> list[str]:
        """Count anew the gates whose population has changed; return the keys of all."""
        known = self._tallies
        masks = tree.masks(self.table)
        self._tallies = {
            key: known[key] if key in known and known[key].mask is mask else self._tally(mask)
            for key, mask in masks.items()
        }
        return list(masks)

    def _tally(self, mask: Mask) -> _Tally:
        """Count one population per slide."""
        rows = np.flatnonzero(mask & self._counted)
        slide, slides, classes = self._slide[rows], len(self._slides), len(self.classes)
        by_class = np.bincount(slide * classes + self._class[rows], minlength=slides * classes)
        sums = np.zeros((slides, len(self._values)))
        known = np.zeros((slides, len(self._values)), dtype=np.int64)
        for i, values in enumerate(self._values):
            some = values[rows]
            there = ~np.isnan(some)
            whole = bool(there.all())
            at = slide if whole else slide[there]
            sums[:, i] = np.bincount(at, weights=some if whole else some[there], minlength=slides)
            known[:, i] = np.bincount(at, minlength=slides)
        by_slide = by_class.reshape(slides, classes)
        return _Tally(mask, by_slide.sum(axis=1), by_slide, known, sums)

    def _groups(self, level: str) -> tuple[Int64, list[tuple[str, str]]]:
        """Number of the group of each slide, and patient and slide of each group."""
        if level == "all":
            return np.zeros(len(self._slides), dtype=np.int64), [("", "")]
        if level == "slide":
            return np.arange(len(self._slides)), list(zip(self._patients, self._slides, strict=True))
        names = sorted(set(self._patients))
        at = {name: i for i, name in enumerate(names)}
        return np.array([at[name] for name in self._patients], dtype=np.int64), [(name, "") for name in names]

    def _classes(self, lead: Columns, n: Int64, total: Int64) -> Columns:
        """Composition; `n` (gates, groups, classes), `total` (gates, groups)."""
        flat = n.reshape(len(lead["key"]), len(self.classes))
        line, which = np.nonzero(flat)
        found, of = flat[line, which], total.ravel()[line]
        low, high = wilson(found, of)
        columns = {"class": np.array(self.classes, dtype=object)[which], "n": found}
        shares = {"percent": 100 * found / of, "low": 100 * low, "high": 100 * high}
        return {**{name: values[line] for name, values in lead.items()}, **columns, **shares}

    def _means(self, lead: Columns, sums: Float64, known: Int64) -> Columns:
        """Means; `sums` and `known` (gates, groups, measurements)."""
        many = len(self.measurements)
        given = known.reshape(-1)
        mean = np.divide(sums.reshape(-1), given, out=np.full(len(given), np.nan), where=given > 0)
        names = np.tile(np.array(self.measurements, dtype=object), len(lead["key"]))
        lines = {name: np.repeat(values, many) for name, values in lead.items()}
        return {**lines, "measurement": names, "n": given, "mean": mean}


def gate_statistics(tree: GateTree, table: pd.DataFrame, **options: Any) -> GateTables:
    """Count the gates of a tree once; see `GateStatistics` for `table`, `options` and what is raised."""
    return GateStatistics(table, **options).tables(tree)


def classes_of(table: pd.DataFrame) -> pd.Series[Any]:
    """Class of each cell: a person's, else the machine's, else ``unclassified``; as the differential has it."""
    named = _text(table, "predicted")
    unsure = (named == "").to_numpy()
    if "abstained" in table:
        unsure = unsure | _flag(table, "abstained")
    named = named.where(~unsure, UNCLASSIFIED)
    label = _text(table, "label")
    return label.where((label != "").to_numpy(), named)


def _lead(keys: Sequence[str], paths: Sequence[str], level: str, names: Sequence[tuple[str, str]]) -> Columns:
    """First columns: every gate with every group."""
    gates, groups = len(keys), len(names)
    each = np.array(names, dtype=object).reshape(groups, 2)
    columns = {"key": keys, "gate": paths}
    lead = {name: np.repeat(np.array(values, dtype=object), groups) for name, values in columns.items()}
    places = {name: np.tile(each[:, i], gates) for i, name in enumerate(("patient", "slide"))}
    return {**lead, "level": np.full(gates * groups, level, dtype=object), **places}


def _joined(parts: Sequence[Columns]) -> pd.DataFrame:
    """One table of the columns of all levels."""
    return pd.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def _counts(n: Int64, parent_n: Int64, total: Int64) -> Columns:
    columns: dict[str, Any] = {"n": n, "parent_n": parent_n, "all_n": total}
    for name, of in (("parent", parent_n), ("all", total)):
        low, high = wilson(n, of)
        share = np.divide(n, of, out=np.full(len(n), np.nan), where=of > 0)
        columns.update({f"percent_of_{name}": 100 * share, f"{name}_low": 100 * low, f"{name}_high": 100 * high})
    return columns


def _gather(parts: Sequence[NDArray[Any]], group: Int64, size: int) -> NDArray[Any]:
    """Sum over the slides of each group: (gates, groups, ...)."""
    stacked = np.stack(parts)
    found = np.zeros((len(parts), size, *stacked.shape[2:]), dtype=stacked.dtype)
    np.add.at(np.moveaxis(found, 1, 0), group, np.moveaxis(stacked, 1, 0))
    return found


def _places(table: pd.DataFrame) -> tuple[Int64, list[str], list[str]]:
    """Number of each cell's slide, and patient and name of each slide; slides of one name of two patients are two."""
    patient, patients = _codes(_text(table, "patient"))
    slide, slides = _codes(_text(table, "slide"))
    both = patient * max(len(slides), 1) + slide
    present, numbers = np.unique(both, return_inverse=True)
    of = [divmod(int(value), max(len(slides), 1)) for value in present]
    return numbers.astype(np.int64), [patients[p] for p, _ in of], [slides[s] for _, s in of]


def _codes(values: pd.Series[Any]) -> tuple[Int64, list[str]]:
    """Numbers of values, and the values sorted."""
    codes, names = pd.factorize(values, sort=True)
    return codes.astype(np.int64), [str(name) for name in names]


def _text(table: pd.DataFrame, name: str) -> pd.Series[Any]:
    """A text column with "" for missing values and for a missing column."""
    if name not in table:
        return pd.Series("", index=table.index, dtype=object)
    values = table[name].astype(object)
    if pd.api.types.infer_dtype(values, skipna=False) == "string":
        return values
    return values.where(values.notna(), "").astype(str)


def _flag(table: pd.DataFrame, name: str) -> Mask:
    values = table[name]
    return np.asarray(
        values if values.dtype == bool else values.astype(object).where(values.notna(), False), dtype=bool
    )


def _counted(table: pd.DataFrame) -> Mask:
    """Say which cells have none of the flags of `LEFT_OUT`."""
    counted = np.ones(len(table), dtype=bool)
    for name in LEFT_OUT:
        if name in table:
            counted &= ~_flag(table, name)
    return counted
