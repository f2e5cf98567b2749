"""Which cells each gate of a tree holds, computed again only where something changed.

Of every column that a gate reads a copy is kept, and compared bit by bit at the next call: a table that was changed in
place is noticed. A gate's own mask is kept beside its population (that of its parent as well), so that a parent
that is moved costs its descendants one logical and.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_dinobloom.explore.gates.base import Float64, Gate, Mask, column, defined
from napari_dinobloom.explore.gates.boolean import references

if TYPE_CHECKING:
    from napari_dinobloom.explore.gate_tree import GateNode


@dataclass(slots=True)
class _Known:
    """A gate's masks and what they were made from: arrays are the same objects as long as they hold the same."""

    gate: Gate
    inputs: tuple[object, ...]
    own: Mask
    parent: Mask | None
    population: Mask


class MaskCache:
    """Masks of the gates of one tree over the last table that was asked for."""

    def __init__(self) -> None:
        self._columns: dict[str, Float64] = {}
        self._known: dict[str, _Known] = {}
        self._n = -1

    def masks(self, nodes: Mapping[str, GateNode], table: pd.DataFrame) -> dict[str, Mask]:
        """Give the population of each gate, (n,) bool, read-only; the same array as long as it has not changed.

        Parameters
        ----------
        nodes : mapping
            Key to node; parents and gates named by others are among them, without circles.
        table : DataFrame
            n cells.

        Raises
        ------
        GateError
            A column is missing or holds no numbers.
        """
        if len(table) != self._n:
            self._columns.clear()
            self._known.clear()
            self._n = len(table)
        read = self._reader(table)
        for key in set(self._known) - set(nodes):
            del self._known[key]
        done: dict[str, Mask] = {}
        for key in ordered(nodes):
            done[key] = self._population(nodes, key, read, done)
        return {key: done[key] for key in nodes}

    def _reader(self, table: pd.DataFrame) -> Callable[[str, str], Float64]:
        """Give a column as the array kept, if that has the same bits; each is compared once."""
        checked: dict[str, Float64] = {}

        def read(axis: str, gate: str) -> Float64:
            if axis not in checked:
                values, kept = column(table, axis, gate), self._columns.get(axis)
                if kept is None or not np.array_equal(kept.view(np.int64), values.view(np.int64)):
                    kept = values.copy() if np.shares_memory(values, table[axis].to_numpy()) else values
                    self._columns[axis] = kept
                checked[axis] = kept
            return checked[axis]

        return read

    def _population(
        self, nodes: Mapping[str, GateNode], key: str, read: Callable[[str, str], Float64], done: Mapping[str, Mask]
    ) -> Mask:
        node, known = nodes[key], self._known.get(key)
        gate = node.gate

        def columns(axis: str) -> Float64:
            return read(axis, gate.name)

        def populations(other: str) -> tuple[Mask, Mask]:
            return done[other], defined(columns, needs(nodes, other), self._n)

        # A negated gate depends on where the gates it names are defined, so on their columns too.
        inputs = tuple(columns(axis) for axis in needs(nodes, key)) + tuple(done[one] for one in references(gate))
        if known is None or not _same(known, gate, inputs):
            own = _sealed(gate.evaluate(columns, populations))
            known = _Known(gate, inputs, own, None, own)
            if node.parent:
                known.parent = done[node.parent]
                known.population = _sealed(own & known.parent)
        elif known.parent is not (done[node.parent] if node.parent else None):
            known.parent = done[node.parent] if node.parent else None
            known.population = known.own if known.parent is None else _sealed(known.own & known.parent)
        self._known[key] = known
        return known.population


def needs(nodes: Mapping[str, GateNode], key: str) -> tuple[str, ...]:
    """Columns that a gate reads, those of the gates that it names by key included."""
    found: dict[str, None] = {}
    seen, waiting = {key}, [key]
    while waiting:
        gate = nodes[waiting.pop()].gate
        found.update(dict.fromkeys(gate.needs))
        named = set(references(gate)) - seen
        seen |= named
        waiting += sorted(named)
    return tuple(found)


def ordered(nodes: Mapping[str, GateNode]) -> list[str]:
    """Give the keys so that a gate comes after its parent and the gates it names.

    Raises
    ------
    ValueError
        There is a circle; its keys are the error's arguments.
    """
    done: dict[str, None] = {}
    waiting = {key: {node.parent, *references(node.gate)} & set(nodes) for key, node in nodes.items()}
    while waiting:
        ready = [key for key, before in waiting.items() if before <= done.keys()]
        if not ready:
            raise ValueError(*waiting)
        for key in ready:
            done[key] = None
            del waiting[key]
    return list(done)


def _same(known: _Known, gate: Gate, inputs: tuple[object, ...]) -> bool:
    """Say whether a gate, whatever it is called, and all it reads are as they were."""
    if len(inputs) != len(known.inputs) or any(a is not b for a, b in zip(inputs, known.inputs, strict=True)):
        return False
    return gate is known.gate or gate.renamed("-") == known.gate.renamed("-")


def _sealed(mask: Mask) -> Mask:
    """Make a mask read-only: it is handed out and kept."""
    mask.flags.writeable = False
    return mask
