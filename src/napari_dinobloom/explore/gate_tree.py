"""The tree of gates of one map: a child sees only its parent's cells.

Every edit is an **act**, a plain dict that JSON can hold::

    {"op": "gate", "projection": HASH, "old": {KEY: NODE or null}, "new": {KEY: NODE or null}}

with each node that the edit changed, before and after; null is a node that is not there. `GateTree.replay` sets nodes
to ``new``, so that replaying twice does no harm, and `inverse` swaps the two sides: a journal that keeps acts has undo
and redo.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from napari_dinobloom.explore.gate_masks import MaskCache, ordered
from napari_dinobloom.explore.gates.base import Gate, GateError, Mask, nearest
from napari_dinobloom.explore.gates.boolean import BooleanGate, references

Act = dict[str, Any]

VERSION = 1
MAP_AXES = ("umap_1", "umap_2")
"""Columns that belong to the map."""
DEEPEST = 100
"""Gates below one another."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#332288", "#999933", "#882255", "#44aa99")
"""Given to new gates in turn: Okabe-Ito and Tol, which people with colour-blindness can tell apart."""
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_KEY = re.compile(r"g[1-9][0-9]{0,8}")
_FIELDS = ("gate", "parent", "place", "colour", "hidden", "locked", "seen")


@dataclass(frozen=True, slots=True, kw_only=True)
class GateNode:
    """A gate in its tree.

    Attributes
    ----------
    key : str
        ``g1``, ``g2``, ...; never used again in the tree.
    gate : Gate
        The region.
    parent : str
        Key of the parent, "" at the top.
    place : int
        Order among siblings.
    colour : str
        ``#rrggbb``.
    hidden, locked : bool
        Not drawn; its region, name and place in the tree cannot be changed.
    seen : tuple of str or None
        Patients whose cells were in view when the gate was made; None where nobody noted it. Comparing these patients
        by this gate is exploratory.
    """

    key: str
    gate: Gate
    parent: str = ""
    place: int = 0
    colour: str = COLOURS[0]
    hidden: bool = False
    locked: bool = False
    seen: tuple[str, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the node, without its key, as JSON can hold it."""
        content = {name: getattr(self, name) for name in _FIELDS}
        return {**content, "gate": self.gate.to_dict(), "seen": None if self.seen is None else list(self.seen)}

    @classmethod
    def from_dict(cls, key: str, raw: Mapping[str, Any]) -> GateNode:
        """Return the node that `to_dict` wrote; raise GateError where it is damaged."""
        given: object = raw  # from a file
        if not isinstance(given, Mapping) or set(raw) != set(_FIELDS) or not _KEY.fullmatch(str(key)):
            raise GateError(f"The node {str(key)[:20]!r} of a gate tree is damaged: it needs {', '.join(_FIELDS)}.")
        seen = raw["seen"]
        right = (
            isinstance(raw["parent"], str)
            and type(raw["place"]) is int
            and isinstance(raw["colour"], str)
            and type(raw["hidden"]) is bool
            and type(raw["locked"]) is bool
            and (seen is None or (isinstance(seen, list) and all(isinstance(one, str) for one in seen)))
        )
        if not right or not _COLOUR.fullmatch(raw["colour"]):
            raise GateError(f"The node {key!r} of a gate tree holds a value of the wrong type, or no colour #rrggbb.")
        rest = {name: raw[name] for name in _FIELDS if name not in ("gate", "seen")}
        return cls(key=key, gate=Gate.from_dict(raw["gate"]), seen=None if seen is None else tuple(seen), **rest)


class GateTree:
    """Gates of one map, one below another.

    Parameters
    ----------
    projection : str
        Hash of the map (``uns["dinobloom"]["projection"]["hash"]``); "" for a tree of gates on other columns only.
    map_axes : sequence of str
        Columns that belong to this map; a gate on one of them belongs to the map too.
    """

    def __init__(self, projection: str = "", map_axes: Sequence[str] = MAP_AXES) -> None:
        self.projection = projection
        self.map_axes = tuple(map_axes)
        self._nodes: dict[str, GateNode] = {}
        self._next = 1
        self._cache = MaskCache()

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, key: object) -> bool:
        return key in self._nodes

    def __getitem__(self, key: str) -> GateNode:
        if key not in self._nodes:
            raise GateError(f"The tree has no gate with the key {key!r}{nearest(key, self._nodes)}.")
        return self._nodes[key]

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys from top to bottom as a tree is read: a gate, then its children."""
        return tuple(key for top in self.children("") for key in (top, *self.descendants(top)))

    def children(self, key: str) -> tuple[str, ...]:
        """Keys of the children of a gate, or of the top with "", in order."""
        found = [node for node in self._nodes.values() if node.parent == key]
        return tuple(node.key for node in sorted(found, key=lambda node: (node.place, int(node.key[1:]))))

    def descendants(self, key: str) -> tuple[str, ...]:
        """Keys of children and children's children, as a tree is read."""
        return tuple(one for child in self.children(key) for one in (child, *self.descendants(child)))

    def ancestry(self, key: str) -> tuple[str, ...]:
        """Keys of all gates that decide which cells a gate holds: itself, those above it and those it names."""
        found = {self[key].key: None}
        waiting = [key]
        while waiting:
            node = self[waiting.pop()]
            above = [one for one in (node.parent, *references(node.gate)) if one and one not in found]
            found.update(dict.fromkeys(above))
            waiting += above
        return tuple(found)

    def path(self, key: str) -> str:
        """Names from the top to the gate, with ``/`` between them."""
        node = self[key]
        return f"{self.path(node.parent)}/{node.gate.name}" if node.parent else node.gate.name

    def masks(self, table: pd.DataFrame, *, projection: str | None = None) -> dict[str, Mask]:
        """Say which cells each gate holds, those of its parents only.

        Parameters
        ----------
        table : DataFrame
            n cells.
        projection : str, optional
            Hash of the map whose coordinates the table has; by default what `table.attrs` says under "projection".

        Returns
        -------
        dict
            Key to (n,) bool, in the order of `keys`; read-only, the same object as long as it holds the same.

        Raises
        ------
        GateError
            The coordinates are those of another map, or a column is missing or holds no numbers.
        """
        given = table.attrs.get("projection") if projection is None else projection
        on_map = next((node.gate for node in self._nodes.values() if node.gate.projection), None)
        if given is not None and on_map is not None and given != self.projection:
            raise GateError(self._foreign(on_map.name, str(given), "the table's coordinates are those of"))
        return self._cache.masks({key: self._nodes[key] for key in self.keys}, table)

    def add(
        self,
        gate: Gate,
        *,
        parent: str = "",
        colour: str | None = None,
        seen: Sequence[str] | None = None,
    ) -> Act:
        """Add a gate below `parent`, as the last; its key is ``next(iter(act["new"]))``.

        Raises
        ------
        GateError
            The gate is of another map, a sibling has its name, or it names a gate that is not there.
        """
        key = f"g{self._next}"
        return self._commit({key: self._new(key, gate, parent, colour, seen)})

    def change(self, key: str, gate: Gate) -> Act:
        """Put another region, or another name, in the place of a gate; its children stay."""
        return self._commit({key: replace(self._free(key), gate=self._own(gate))})

    def rename(self, key: str, name: str) -> Act:
        """Give a gate another name."""
        return self.change(key, self[key].gate.renamed(name))

    def recolour(self, key: str, colour: str) -> Act:
        """Give a gate another colour, ``#rrggbb``; a locked one too."""
        return self._commit({key: replace(self[key], colour=_colour(colour))})

    def hide(self, key: str, hidden: bool = True) -> Act:
        """Hide a gate, or show it; it goes on being counted. A locked one too."""
        return self._commit({key: replace(self[key], hidden=hidden)})

    def lock(self, key: str, locked: bool = True) -> Act:
        """Keep a gate from being changed, moved, renamed and deleted, or allow it again."""
        return self._commit({key: replace(self[key], locked=locked)})

    def move(self, key: str, parent: str, *, before: str | None = None) -> Act:
        """Move a gate with its children below another gate ("" for the top), `before` a sibling or as the last."""
        self._free(key)
        siblings = [one for one in self.children(parent) if one != key]
        if before is not None and before not in siblings:
            raise GateError(f"The gate {before!r} is no child of {parent or 'the top'!r}: name one that is, or none.")
        siblings.insert(len(siblings) if before is None else siblings.index(before), key)
        placed = {one: replace(self._nodes[one], place=i, parent=parent) for i, one in enumerate(siblings)}
        return self._commit({one: node for one, node in placed.items() if node != self._nodes[one]})

    def delete(self, key: str) -> Act:
        """Delete a gate with all below it.

        Raises
        ------
        GateError
            One of them is locked, or a gate that stays names one of them.
        """
        gone = (self._free(key).key, *(self._free(one).key for one in self.descendants(key)))
        return self._commit(dict.fromkeys(gone))

    def copy_to(self, other: GateTree, key: str | Sequence[str], *, parent: str = "") -> Act:
        """Copy a gate, or several, with their children into another tree of the same map; return the other tree's act.

        Raises
        ------
        GateError
            The other tree is of another map, or a gate names one that is not copied with it.
        """
        asked = [key] if isinstance(key, str) else key
        source = tuple(dict.fromkeys(one for top in asked for one in (self[top].key, *self.descendants(top))))
        new_keys = {one: f"g{other._next + i}" for i, one in enumerate(source)}
        new: dict[str, GateNode | None] = {}
        for i, one in enumerate(source):
            node = self[one]
            if outside := sorted(set(references(node.gate)) - set(source)):
                raise GateError(
                    f"Gate {node.gate.name!r} names the gate {self.path(outside[0])!r}, which is not copied with it. "
                    "Copy a gate above both, or both."
                )
            top = node.parent not in new_keys
            gate = other._own(_rekeyed(node.gate, new_keys))
            below = parent if top else new_keys[node.parent]
            copied = other._new(new_keys[one], gate, below, node.colour, node.seen)
            new[copied.key] = replace(copied, place=copied.place + i if top else node.place)
        return other._commit(new)

    def replay(self, act: Mapping[str, Any]) -> None:
        """Set the nodes that an act names to what it says; the tree stays as it is if that cannot be.

        Raises
        ------
        GateError
            The act is damaged, of another map, or leads to a tree that cannot be (a child without its parent).
        """
        sides = (act.get("old"), act.get("new"))
        if not all(isinstance(side, Mapping) for side in sides) or act.get("op") != "gate":
            raise GateError("This is no act of a gate tree: it needs 'op' \"gate\", 'old' and 'new'.")
        if act.get("projection") != self.projection:
            raise GateError(self._foreign("an act", str(act.get("projection")), "belongs to"))
        self._set({key: None if raw is None else GateNode.from_dict(key, raw) for key, raw in act["new"].items()})

    def to_dict(self) -> dict[str, Any]:
        """Return the tree as JSON can hold it."""
        nodes = {key: self._nodes[key].to_dict() for key in self.keys}
        axes = list(self.map_axes)
        return {"version": VERSION, "projection": self.projection, "map_axes": axes, "next": self._next, "nodes": nodes}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> GateTree:
        """Return the tree that `to_dict` wrote; raise GateError where it is damaged or of a newer version."""
        given: object = raw  # from a file
        if not isinstance(given, Mapping) or not isinstance(raw.get("nodes"), Mapping):
            raise GateError("A gate tree must be a JSON object with 'version', 'projection' and 'nodes'.")
        if type(raw.get("version")) is not int or not 1 <= raw["version"] <= VERSION:
            raise GateError(f"A gate tree of version {str(raw.get('version'))[:20]} is not known. Update the program.")
        axes, number = raw.get("map_axes"), raw.get("next")
        if not isinstance(raw.get("projection"), str) or type(number) is not int or not isinstance(axes, list):
            raise GateError("A gate tree needs 'projection' (text), 'map_axes' (a list) and 'next' (a number).")
        tree = cls(raw["projection"], [str(axis) for axis in axes])
        tree._set({key: GateNode.from_dict(key, node) for key, node in raw["nodes"].items()})
        tree._next = max(tree._next, number)
        return tree

    def _new(self, key: str, gate: Gate, parent: str, colour: str | None, seen: Sequence[str] | None) -> GateNode:
        """A node that is to be the last child of its parent."""
        places = [self._nodes[one].place for one in self.children(parent)]
        chosen = COLOURS[(int(key[1:]) - 1) % len(COLOURS)] if colour is None else _colour(colour)
        names = None if seen is None else tuple(sorted({str(one) for one in seen}))
        place = max(places, default=-1) + 1
        return GateNode(key=key, gate=self._own(gate), parent=parent, place=place, colour=chosen, seen=names)

    def _own(self, gate: Gate) -> Gate:
        """Return the gate as one of this map, or raise if it is of another."""
        if isinstance(gate, BooleanGate):
            refs = [self._own(one) if isinstance(one, Gate) else one for one in gate.members]
            gate = replace(gate, gate_refs=refs)
        if gate.projection and gate.projection != self.projection:
            raise GateError(self._foreign(gate.name, gate.projection, "was drawn on"))
        return replace(gate, projection=self.projection) if set(gate.needs) & set(self.map_axes) else gate

    def _foreign(self, name: str, other: str, how: str) -> str:
        def called(value: str) -> str:
            return f"map {value[:8]}" if value else "no map"

        return (
            f"Gate {name!r}: {how} {called(other)}, but this tree belongs to {called(self.projection)}. The same place "
            "on another map holds other cells: open the map it belongs to, or draw the gate anew on this one."
        )

    def _free(self, key: str) -> GateNode:
        """Return a node that may be changed."""
        node = self[key]
        if node.locked:
            raise GateError(f"Gate {self.path(key)!r} is locked. Unlock it first.")
        return node

    def _commit(self, new: Mapping[str, GateNode | None]) -> Act:
        """Set nodes and return the act."""
        old = {key: self._nodes.get(key) for key in new}
        self._set(new)
        sides = [{key: node and node.to_dict() for key, node in side.items()} for side in (old, new)]
        return {"op": "gate", "projection": self.projection, "old": sides[0], "new": sides[1]}

    def _set(self, new: Mapping[str, GateNode | None]) -> None:
        """Set nodes, None for those to take away, if the tree that results can be."""
        nodes = {**self._nodes, **new}
        kept = {key: node for key, node in nodes.items() if node is not None}
        for node in new.values():
            if node is not None:
                self._own(node.gate)
        _check(kept)
        self._nodes = kept
        self._next = max([self._next, *(int(key[1:]) + 1 for key in new)])


def inverse(act: Mapping[str, Any]) -> Act:
    """Return the act that takes an act back."""
    return {**act, "old": act["new"], "new": act["old"]}


def _check(nodes: Mapping[str, GateNode]) -> None:
    """Raise GateError unless parents and named gates are there, names of siblings differ and there is no circle."""
    names: dict[tuple[str, str], str] = {}
    for key, node in nodes.items():
        name = node.gate.name
        if node.parent and node.parent not in nodes:
            raise GateError(f"Gate {name!r}: the tree has no gate {node.parent!r} to put it under.")
        if missing := [one for one in references(node.gate) if one not in nodes]:
            raise GateError(f"Gate {name!r} names the gate {missing[0]!r}, which the tree would not have.")
        if names.setdefault((node.parent, name), key) != key:
            raise GateError(f"Gate {name!r}: another gate beside it has this name. Give it another one.")
    try:
        order = ordered(nodes)
    except ValueError as error:
        within = ", ".join(repr(nodes[key].gate.name) for key in error.args)
        raise GateError(f"The gates {within} would depend on themselves. Choose a parent outside of them.") from error
    depth = {"": 0}
    for key in order:
        depth[key] = depth[nodes[key].parent] + 1
        if depth[key] > DEEPEST:
            name = nodes[key].gate.name
            raise GateError(f"Gate {name!r} would lie below {DEEPEST} others. Put it higher in the tree.")


def _rekeyed(gate: Gate, keys: Mapping[str, str]) -> Gate:
    """Return the gate with the keys that it names replaced."""
    if not isinstance(gate, BooleanGate):
        return gate
    return replace(gate, gate_refs=[keys[one] if isinstance(one, str) else _rekeyed(one, keys) for one in gate.members])


def _colour(colour: str) -> str:
    if not _COLOUR.fullmatch(str(colour).lower()):
        raise GateError(f"The colour {str(colour)[:20]!r} is none: write it as #rrggbb.")
    return colour.lower()
