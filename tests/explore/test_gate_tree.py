"""The tree of gates: who sees whose cells, edits and their inverses, what is refused, and what is computed again."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

import napari_dinobloom as nd
from napari_dinobloom.explore.gate_tree import GateTree, inverse
from napari_dinobloom.explore.gates import BooleanGate, Gate, GateError, PolygonGate, RangeGate, RectangleGate

MAP = "ab" * 32
XY = ("umap_1", "umap_2")


def key_of(act: dict[str, Any]) -> str:
    return next(iter(act["new"]))


def box(name: str, x0: float, x1: float) -> RectangleGate:
    return RectangleGate(name=name, axes=XY, range_min=(x0, None), range_max=(x1, None))


@pytest.fixture
def cells() -> pd.DataFrame:
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(1000, 2)), columns=list(XY))
    table["area_px"] = random.integers(100, 600, 1000)
    table.attrs["projection"] = MAP
    return table


@pytest.fixture
def tree() -> GateTree:
    """right (g1) > large (g2) > middle (g3); left (g4); not right (g5)."""
    tree = GateTree(MAP)
    tree.add(box("right", 0, None))
    tree.add(RangeGate(name="large", axes=("area_px",), range_min=350), parent="g1")
    tree.add(box("middle", -0.5, 0.5), parent="g2")
    tree.add(box("left", None, 0))
    tree.add(BooleanGate(name="not large right", bool_type="not", gate_refs=["g2"]))
    return tree


def test_a_child_sees_only_its_parents_cells(tree: GateTree, cells: pd.DataFrame) -> None:
    masks = tree.masks(cells)
    x, large = cells["umap_1"], cells["area_px"] >= 350
    np.testing.assert_array_equal(masks["g2"], (x >= 0) & large)
    np.testing.assert_array_equal(masks["g3"], (x >= 0) & large & (x <= 0.5))
    np.testing.assert_array_equal(masks["g5"], ~((x >= 0) & large))
    assert list(masks) == ["g1", "g2", "g3", "g4", "g5"] == list(tree.keys)
    assert tree.path("g3") == "right/large/middle"
    assert nd.GateTree is GateTree


EDITS = {
    "add": lambda tree: tree.add(box("new", 1, 2), parent="g4", colour="#FF0000", seen=["p2", "p1", "p1"]),
    "change": lambda tree: tree.change("g2", RangeGate(name="huge", axes=("area_px",), range_min=500)),
    "rename": lambda tree: tree.rename("g1", "far right"),
    "recolour": lambda tree: tree.recolour("g1", "#00FF00"),
    "hide": lambda tree: tree.hide("g1"),
    "lock": lambda tree: tree.lock("g1"),
    "move": lambda tree: tree.move("g3", "", before="g4"),
    "delete": lambda tree: tree.delete("g4"),
    "copy": lambda tree: tree.copy_to(tree, "g2", parent="g4"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_every_edit_is_an_act_that_json_holds_and_that_can_be_taken_back(tree: GateTree, edit: str) -> None:
    before = tree.to_dict()
    act = json.loads(json.dumps(EDITS[edit](tree), allow_nan=False))
    after = tree.to_dict()
    assert after["nodes"] != before["nodes"]
    tree.replay(inverse(act))
    assert tree.to_dict()["nodes"] == before["nodes"]
    tree.replay(act)
    tree.replay(act)  # replaying twice does no harm
    assert tree.to_dict() == after
    other = GateTree.from_dict(before)  # a journal replays acts over what was saved
    other.replay(act)
    assert other.to_dict() == after


def test_a_tree_comes_back_from_json(tree: GateTree, cells: pd.DataFrame) -> None:
    tree.add(PolygonGate(name="blasts", axes=XY, vertices=[(0, 0), (1, 0.1), (0.3, 1 / 3)]), seen=["p1"])
    tree.delete("g4")
    again = GateTree.from_dict(json.loads(json.dumps(tree.to_dict(), allow_nan=False)))
    assert again.to_dict() == tree.to_dict()
    assert [again[key] for key in again.keys] == [tree[key] for key in tree.keys]
    masks, found = tree.masks(cells), again.masks(cells)
    assert all((masks[key] == found[key]).all() for key in masks)
    assert key_of(again.add(box("next", 0, 1))) == "g7"


def test_a_key_is_never_used_again(tree: GateTree) -> None:
    act = tree.add(box("new", 0, 1))
    tree.replay(inverse(act))
    assert key_of(act) == "g6"
    assert key_of(tree.add(box("new", 0, 1))) == "g7"


def test_delete_takes_the_children_along_and_undo_brings_them_back_in_place(tree: GateTree) -> None:
    tree.change("g5", BooleanGate(name="x", bool_type="not", gate_refs=["g4"]))
    before = tree.to_dict()
    act = tree.delete("g1")
    assert tree.keys == ("g4", "g5")
    tree.replay(inverse(act))
    assert tree.to_dict() == before


def test_a_gate_is_moved_between_siblings_with_its_children(tree: GateTree, cells: pd.DataFrame) -> None:
    tree.move("g2", "g4")
    assert tree.keys == ("g1", "g4", "g2", "g3", "g5")
    assert tree.path("g3") == "left/large/middle"
    tree.move("g4", "", before="g1")
    assert tree.keys == ("g4", "g2", "g3", "g1", "g5")
    x, large = cells["umap_1"], cells["area_px"] >= 350
    np.testing.assert_array_equal(tree.masks(cells)["g3"], (x <= 0) & large & (x >= -0.5))


def test_only_what_changed_and_its_descendants_are_computed_again(
    tree: GateTree, cells: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []
    for kind in (RectangleGate, RangeGate, BooleanGate):
        plain = kind.evaluate

        def spy(self: Any, *args: Any, plain: Any = plain) -> Any:
            computed.append(self.name)
            return plain(self, *args)

        monkeypatch.setattr(kind, "evaluate", spy)
    first = tree.masks(cells)
    assert len(computed) == 5
    assert all(tree.masks(cells)[key] is first[key] for key in first)
    tree.rename("g1", "r")
    tree.recolour("g1", "#000000")
    assert all(tree.masks(cells)[key] is first[key] for key in first)
    assert len(computed) == 5
    tree.change("g1", box("r", 0.2, None))
    second = tree.masks(cells)
    assert [key for key in first if second[key] is not first[key]] == ["g1", "g2", "g3", "g5"]
    assert computed[5:] == ["r", "not large right"]  # children are joined with their parent anew, not tested anew
    tree.change("g4", box("left", None, -1))
    third = tree.masks(cells)
    assert [key for key in first if third[key] is not second[key]] == ["g4"]
    with pytest.raises(ValueError, match="read-only"):
        third["g4"][0] = True


def test_a_table_that_was_changed_in_place_or_grew_is_noticed(tree: GateTree, cells: pd.DataFrame) -> None:
    first = tree.masks(cells)
    cells.loc[:, "area_px"] = 700
    second = tree.masks(cells)
    assert second["g1"] is first["g1"]
    np.testing.assert_array_equal(second["g2"], first["g1"])
    longer = pd.concat([cells, cells])
    np.testing.assert_array_equal(tree.masks(longer)["g2"], np.tile(first["g1"], 2))


def test_cached_masks_are_those_of_a_new_tree_after_any_edits(cells: pd.DataFrame) -> None:
    random = np.random.default_rng(5)
    tree, refused = GateTree(MAP), []
    for i in range(60):
        keys = ["", *tree.keys]
        one, other = (keys[j] for j in random.integers(0, len(keys), 2))
        low = float(random.normal())
        gate: Gate = box(f"n{i}", low, low + 1)
        if i % 5 == 4 and other:
            gate = BooleanGate(name=f"n{i}", bool_type="not", gate_refs=[other])
        try:
            if i % 3 == 0 or not one:
                tree.add(gate, parent=other)
            elif i % 3 == 1:
                tree.change(one, gate)
            else:
                tree.move(one, other)
        except GateError as error:
            refused.append(str(error))
        found, fresh = tree.masks(cells), GateTree.from_dict(tree.to_dict()).masks(cells)
        assert all((found[key] == fresh[key]).all() for key in fresh)
    assert len(tree) > 15
    assert all("depend on themselves" in message for message in refused)


def test_a_gate_of_another_map_is_refused_with_the_reason(tree: GateTree, cells: pd.DataFrame) -> None:
    foreign = PolygonGate(name="blasts", axes=XY, vertices=[(0, 0), (1, 0), (0, 1)], projection="cd" * 32)
    before = tree.to_dict()
    nested = BooleanGate(name="n", bool_type="not", gate_refs=[foreign])
    for gate in (foreign, nested):
        with pytest.raises(GateError, match=r"'blasts'.*map cdcdcdcd.*map abababab.*draw the gate anew"):
            tree.add(gate)
    other = GateTree("cd" * 32)
    with pytest.raises(GateError, match="another map"):
        tree.copy_to(other, "g1")
    with pytest.raises(GateError, match="another map"):
        tree.replay(other.add(foreign))
    cells.attrs["projection"] = "ef" * 32
    with pytest.raises(GateError, match=r"coordinates are those of map efefefef"):
        tree.masks(cells)
    assert tree.to_dict() == before
    assert tree["g1"].gate.projection == MAP
    assert tree["g2"].gate.projection == ""  # on a measurement: of no map


def test_copies_are_independent_and_name_each_other(tree: GateTree, cells: pd.DataFrame) -> None:
    tree.add(BooleanGate(name="not middle", bool_type="not", gate_refs=["g3"]), parent="g1")
    other = GateTree(MAP)
    other.add(box("first", 0, 1))
    tree.copy_to(other, "g1")
    assert [other.path(key) for key in other.keys] == [
        "first",
        "right",
        "right/large",
        "right/large/middle",
        "right/not middle",
    ]
    assert other["g5"].gate.members == ("g4",)
    masks = tree.masks(cells)
    np.testing.assert_array_equal(other.masks(cells)["g5"], masks["g6"])
    other.change("g2", box("right", 5, None))
    assert tree.masks(cells)["g1"] is masks["g1"]
    with pytest.raises(GateError, match=r"'not large right' names the gate 'right/large'.*Copy a gate above both"):
        tree.copy_to(other, "g5")


def test_what_cannot_be_is_refused_and_changes_nothing(tree: GateTree) -> None:
    tree.lock("g3")
    before = tree.to_dict()
    for message, edit in (
        ("'right/large/middle' is locked. Unlock", lambda: tree.rename("g3", "m")),
        ("'right/large/middle' is locked", lambda: tree.delete("g1")),
        ("'right/large/middle' is locked", lambda: tree.move("g3", "")),
        ("depend on themselves", lambda: tree.move("g1", "g2")),
        ("depend on themselves", lambda: tree.move("g2", "g5")),
        ("names the gate 'g9'", lambda: tree.add(BooleanGate(name="n", bool_type="not", gate_refs=["g9"]))),
        ("another gate beside it has this name", lambda: tree.rename("g4", "right")),
        ("no gate 'g8' to put it under", lambda: tree.add(box("n", 0, 1), parent="g8")),
        ("no gate with the key 'g8'", lambda: tree.hide("g8")),
        ("no child", lambda: tree.move("g4", "", before="g2")),
        ("#rrggbb", lambda: tree.recolour("g1", "red")),
        ("no act", lambda: tree.replay({"op": "label"})),
        ("is damaged", lambda: tree.replay({"op": "gate", "projection": MAP, "old": {}, "new": {"x": {}}})),
    ):
        with pytest.raises(GateError, match=message):
            edit()
        assert tree.to_dict() == before
    tree.lock("g3", False)
    tree.rename("g3", "m")
    with pytest.raises(GateError, match="'not large right' names the gate 'g2'"):
        tree.delete("g1")


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"nodes": []}, {"next": "3"}, {"nodes": {"g1": {"gate": {}}}}, {"projection": None}]
)
def test_a_damaged_tree_is_refused(tree: GateTree, change: dict[str, Any]) -> None:
    with pytest.raises(GateError, match="gate tree"):
        GateTree.from_dict({**tree.to_dict(), **change})


def test_a_tree_from_a_strange_file_neither_goes_down_without_end_nor_takes_for_ever(cells: pd.DataFrame) -> None:
    tree = GateTree(MAP)
    tree.add(box("top", 0, 1))
    tree.add(box("other", -1, 0))
    for i in range(40):  # each names the two before: going through all ways would take years
        tree.add(BooleanGate(name=f"b{i}", bool_type="or", gate_refs=[f"g{i + 1}", f"g{i + 2}"]))
    assert len(tree.ancestry("g42")) == 42
    assert tree.masks(cells)["g42"].sum() == cells["umap_1"].between(-1, 1).sum()
    nodes = {f"g{i}": {**tree["g1"].to_dict(), "parent": f"g{i - 1}" if i > 1 else ""} for i in range(1, 2000)}
    with pytest.raises(GateError, match="below 100 others"):
        GateTree.from_dict({**tree.to_dict(), "nodes": nodes})
