"""An act of a person in a few words, as undo and redo name it."""

from __future__ import annotations

from typing import Any

from napari_dinobloom.io.journal import Entry
from napari_dinobloom.ui.texts import text

TAKEN_BACK = {"label": ("label", ""), "exclude": ("excluded", False), "review": ("reviewed", False)}
"""Acts that can also take a mark away: the column, and its value then."""
OTHER_WORD = {"label": "unlabel", "exclude": "include", "review": "unreview"}


def describe_act(entry: Entry) -> str:
    """Return what an act was: "label of 12 cells".

    Parameters
    ----------
    entry : Entry
        A line of the journal that is itself no undo or redo (`Study.to_undo`, `Study.to_redo`).
    """
    if entry.projection is not None:
        names = [_name(node) for node in _nodes(entry)]
        one = len(names) == 1 and names[0]
        return text("act.gate", name=names[0]) if one else text("act.gates", count=len(entry.new_nodes))
    if entry.patients:
        key = "act.patients.one" if len(entry.patients) == 1 else "act.patients.many"
        return text("act.group", patients=text(key, name=entry.patients[0], count=len(entry.patients)))
    op, count = entry.op, len(entry.cells)
    if op in TAKEN_BACK and entry.new.get(TAKEN_BACK[op][0]) == TAKEN_BACK[op][1]:
        op = OTHER_WORD[op]
    if op == "delete" and entry.new.get("deleted") is False:
        op = "undelete"
    if op in ("merge", "split"):
        count -= sum(cell not in entry.old_shapes for cell in entry.new_shapes)  # without those that it made
    return text(f"act.{op}", count=count)


def _name(node: dict[str, Any]) -> str:
    """Name of a gate; "" where the node, which may be a stranger's, has none."""
    gate = node.get("gate")
    return str(gate.get("name", "")) if isinstance(gate, dict) else ""


def _nodes(entry: Entry) -> list[dict[str, Any]]:
    """Gates that an act changed, as they were after it, or before it where they are gone."""
    pairs = ((entry.new_nodes[key], entry.old_nodes.get(key)) for key in entry.new_nodes)
    return [dict(new or old or {}) for new, old in pairs]
