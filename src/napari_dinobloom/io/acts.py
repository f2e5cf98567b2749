"""One act of a person as a line of the journal: what a line may hold, and its check when it is read.

A line on cells is ``{"seq", "op", "cells", "old", "new", "who", "when"}`` and, for undo and redo, ``"undoes"``: the
line whose inverse it is. ``old`` and ``new`` give for each changed column one value for all cells, or a list with one
for each. An act that changes outlines has ``"shapes": {"old": {cell: shape}, "new": {cell: shape}}`` too; a cell that
only ``new`` has is made by the act. A line on the gates of a map has ``"projection"`` in place of ``"cells"``, and its
``old`` and ``new`` give the nodes of the gate tree that it changed, null for one that is not there. A line on the known
groups of patients has ``"patients"`` in place of ``"cells"``, and its ``old`` and ``new`` give their ``group``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.celltable import split_cell_id
from napari_dinobloom.io.shapes import Shape, parse_shape
from napari_dinobloom.io.trust import check_text

Value = str | bool
Values = Value | list[Value]

EDITABLE: dict[str, type] = {
    "label": str,
    "label_by": str,
    "label_at": str,
    "reviewed": bool,
    "excluded": bool,
    "deleted": bool,
}
"""Columns of the cell table that a human act may change."""

RESHAPING = ("add", "merge", "split", "repaint")
"""Acts that change outlines or make cells."""

OPS = ("label", "exclude", "review", "delete", *RESHAPING, "gate", "group", "undo", "redo")

Nodes = Mapping[str, Mapping[str, Any] | None]
"""Nodes of a gate tree by key, as JSON can hold them; None for one that is not there."""

_NODE_KEY = re.compile(r"g[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One act.

    Attributes
    ----------
    seq : int
        1, 2, ... in the order of the file.
    op : str
        One of `OPS`.
    cells : tuple of str
        Cell ids; none for an act on gates or groups.
    old, new : dict
        Column to the value before and after: one for all cells, or a list in the order of `cells`; of an act on groups
        likewise ``group``, in the order of `patients`.
    who : str
        User name.
    when : str
        ISO time in UTC.
    undoes : int or None
        For undo and redo: the line whose inverse this is.
    old_shapes, new_shapes : dict
        Cell id to its outline before and after; a cell that the act makes has none before, and its undo has none after.
    projection : str or None
        Of an act on gates: hash of the map, "" for gates on no map. None for an act on cells.
    old_nodes, new_nodes : dict
        Of an act on gates: each node that it changed before and after, by its key.
    patients : tuple of str
        Of an act on groups: the patients whose group it changed.
    """

    seq: int
    op: str
    cells: tuple[str, ...]
    old: Mapping[str, Values]
    new: Mapping[str, Values]
    who: str
    when: str
    undoes: int | None = None
    old_shapes: Mapping[str, Shape] = field(default_factory=dict)
    new_shapes: Mapping[str, Shape] = field(default_factory=dict)
    projection: str | None = None
    old_nodes: Nodes = field(default_factory=dict)
    new_nodes: Nodes = field(default_factory=dict)
    patients: tuple[str, ...] = ()

    def to_line(self) -> str:
        """Return the JSON line, with its line end."""
        if self.projection is None:
            whose = {"patients": list(self.patients)} if self.patients else {"cells": list(self.cells)}
            about: dict[str, Any] = {**whose, "old": dict(self.old), "new": dict(self.new)}
        else:
            about = {"projection": self.projection, "old": dict(self.old_nodes), "new": dict(self.new_nodes)}
        content: dict[str, Any] = {"seq": self.seq, "op": self.op, **about, "who": self.who, "when": self.when}
        if self.undoes is not None:
            content["undoes"] = self.undoes
        if self.old_shapes or self.new_shapes or self.op in RESHAPING:
            sides = {"old": self.old_shapes, "new": self.new_shapes}
            content["shapes"] = {
                side: {cell: shape.to_json() for cell, shape in shapes.items()} for side, shapes in sides.items()
            }
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"

    def gate_act(self) -> dict[str, Any]:
        """Return an act on gates, its undo or redo too, in the form that a gate tree replays."""
        sides = {"old": dict(self.old_nodes), "new": dict(self.new_nodes)}
        return {"op": "gate", "projection": self.projection or "", **sides}


def parse_line(line: bytes) -> Entry:
    """Read one line; raise ValueError with a sentence if it is damaged or unknown."""
    try:
        raw = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is damaged ({error}).") from error
    if not isinstance(raw, dict):
        raise ValueError("is no act.")
    if raw.get("op") not in OPS:
        raise ValueError(
            f"holds the act {str(raw.get('op'))[:40]!r}, which this version does not know. "
            "Update with 'pip install -U napari-dinobloom'."
        )
    undoes = raw.get("undoes")
    if not (undoes is None or type(undoes) is int) or type(raw.get("seq")) is not int:
        raise ValueError("has a number that is none.")
    if undoes is None and raw["op"] in ("undo", "redo"):
        raise ValueError("does not say which act it undoes.")
    if undoes is not None and undoes >= raw["seq"]:
        raise ValueError(f"undoes the act {undoes}, which is not one before it.")
    try:
        who, when = (check_text(raw.get(name), name) for name in ("who", "when"))
        if raw["op"] == "gate" or (raw["op"] in ("undo", "redo") and "projection" in raw):
            return _parse_gates(raw, who, when)
        if raw["op"] == "group" or (raw["op"] in ("undo", "redo") and "patients" in raw):
            return _parse_groups(raw, who, when)
        return _parse_cells(raw, who, when)
    except StudyError as error:
        raise ValueError(str(error)) from error


def _parse_cells(raw: dict[str, Any], who: str, when: str) -> Entry:
    """Read an act on cells."""
    cells = raw.get("cells")
    if not (isinstance(cells, list) and cells and all(isinstance(cell, str) for cell in cells)):
        raise ValueError("names no cells.")
    old, new = (_check_values(raw.get(side), len(cells)) for side in ("old", "new"))
    if set(old) != set(new):
        raise ValueError("'old' and 'new' name other columns.")
    shapes = _check_shapes(raw)
    return Entry(raw["seq"], raw["op"], tuple(cells), old, new, who, when, raw.get("undoes"), *shapes)


def _parse_gates(raw: dict[str, Any], who: str, when: str) -> Entry:
    """Read an act on gates; what stands in a node is checked by the gate tree that it is put into."""
    projection = check_text(raw.get("projection"), "projection")
    sides = (raw.get("old"), raw.get("new"))
    if "cells" in raw or "shapes" in raw:
        raise ValueError("changes gates and cells at once.")
    for side in sides:
        if not isinstance(side, dict) or not side:
            raise ValueError("names no gates.")
        for key, node in side.items():
            if not _NODE_KEY.fullmatch(key) or not (node is None or isinstance(node, dict)):
                raise ValueError(f"holds the gate {key[:20]!r}, which is none.")
    old, new = sides
    if set(old) != set(new):  # type: ignore[arg-type]
        raise ValueError("'old' and 'new' name other gates.")
    nodes: dict[str, Any] = {"projection": projection, "old_nodes": old, "new_nodes": new}
    return Entry(raw["seq"], raw["op"], (), {}, {}, who, when, raw.get("undoes"), **nodes)


def _parse_groups(raw: dict[str, Any], who: str, when: str) -> Entry:
    """Read an act on the known groups of patients."""
    patients = raw.get("patients")
    if "cells" in raw or "shapes" in raw:
        raise ValueError("changes groups and cells at once.")
    if not (isinstance(patients, list) and patients and all(isinstance(one, str) and one for one in patients)):
        raise ValueError("names no patients.")
    for patient in patients:
        check_text(patient, "patient")
    if len(set(patients)) < len(patients):
        raise ValueError("names a patient twice.")
    old, new = (_check_values(raw.get(side), len(patients), {"group": str}) for side in ("old", "new"))
    return Entry(raw["seq"], raw["op"], (), old, new, who, when, raw.get("undoes"), patients=tuple(patients))


def _check_shapes(raw: dict[str, Any]) -> tuple[dict[str, Shape], dict[str, Shape]]:
    """Return the outlines before and after of a line that may have some; they must be those of its cells."""
    if "shapes" not in raw:
        if raw["op"] in RESHAPING:
            raise ValueError("lacks its shapes.")
        return {}, {}
    sides = raw["shapes"]
    if raw["op"] not in (*RESHAPING, "undo", "redo") or "deleted" not in raw["new"]:
        raise ValueError("holds shapes, which such an act does not change.")
    if not isinstance(sides, dict) or set(sides) != {"old", "new"}:
        raise ValueError("holds shapes without 'old' and 'new'.")
    named = set(raw["cells"])
    parsed: list[dict[str, Shape]] = []
    for side in (sides["old"], sides["new"]):
        if not isinstance(side, dict) or not named.issuperset(side):
            raise ValueError("holds shapes of cells that it does not name.")
        for cell in side:
            try:
                split_cell_id(cell)
            except StudyError as error:
                raise ValueError(str(error)) from error
        parsed.append({cell: parse_shape(shape) for cell, shape in side.items()})
    return parsed[0], parsed[1]


def _check_values(raw: object, n: int, editable: Mapping[str, type] = EDITABLE) -> dict[str, Values]:
    """Return the columns of one side of an act if they are known and of the right type and length."""
    if not isinstance(raw, dict) or not raw:
        raise ValueError("lacks its values.")
    for column, value in raw.items():
        kind = editable.get(column)
        values = value if isinstance(value, list) else [value]
        if kind is None:
            raise ValueError(f"changes the column {str(column)[:40]!r}, which no act may change.")
        if any(type(one) is not kind for one in values) or (isinstance(value, list) and len(value) != n):
            raise ValueError(f"gives {column!r} values of the wrong type or number.")
        for one in values:
            if isinstance(one, str):
                check_text(one, column)
    return raw
