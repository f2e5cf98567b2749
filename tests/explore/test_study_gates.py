"""The gates of a study: tree, journal and cell table go together, on the map in use and on kept ones."""

from __future__ import annotations

import json
import os
from pathlib import Path

import anndata
import numpy as np
import pytest
from gated import MAP, OTHER, XY, box, gated_study

from napari_dinobloom.errors import StudyError
from napari_dinobloom.explore.gate_statistics import gate_statistics
from napari_dinobloom.explore.gate_tree import GateTree
from napari_dinobloom.explore.gates import BooleanGate, GateError, RangeGate
from napari_dinobloom.explore.study_gates import StudyGates, free_name, merged
from napari_dinobloom.io.study import Study


@pytest.fixture
def gates(tmp_path: Path):
    with gated_study(tmp_path / "s.dinobloom") as study:
        yield StudyGates(study)


def test_an_act_is_in_the_tree_and_on_the_disk_and_a_later_session_finds_it(gates: StudyGates) -> None:
    right = gates.add(box("right", 0, None), seen=["p1"])
    gates.add(RangeGate(name="large", axes=("area_px",), range_min=400), parent=right)
    gates.do(lambda tree: tree.rename(right, "neutrophils"))
    before = gates.tree.to_dict()
    path = gates.study.path
    gates.study.close()
    with Study.open(path) as again:
        found = StudyGates(again)
        assert found.projection == found.tree.projection == MAP
        assert found.tree.to_dict() == before
        assert found.tree.path("g2") == "neutrophils/large"
        x = again.cells.obsm["X_umap"][:, 0]
        np.testing.assert_array_equal(found.masks()["g1"], x >= 0)
        assert found.projections == (MAP,)


def test_undo_of_the_study_is_seen_at_once_and_masks_that_hold_the_same_stay_the_same_array(gates: StudyGates) -> None:
    left, right = gates.add(box("left", None, 0)), gates.add(box("right", 0, None))
    masks = gates.masks()
    counted = gates.statistics()
    assert gates.statistics() is counted
    gates.do(lambda tree: tree.change(right, box("right", 3, None)))
    assert gates.masks()[left] is masks[left]
    assert gates.masks()[right].sum() < masks[right].sum()
    gates.study.label("f:00001", "blast")
    gates.study.undo()
    gates.study.undo()
    np.testing.assert_array_equal(gates.masks()[right], masks[right])
    gates.study.undo()
    assert gates.tree.keys == (left,)
    gates.study.redo()
    assert gates.tree.keys == (left, right)
    assert counted is not None
    again = gates.statistics()
    assert again is not None
    assert again.counts.equals(counted.counts)


def test_statistics_follow_what_people_say_of_cells(gates: StudyGates) -> None:
    gates.add(box("right", 0, None))
    for act in (
        lambda: gates.study.exclude("f:00002"),
        lambda: gates.study.label("f:00004", "blast"),
        gates.study.undo,
    ):
        act()
        found = gates.statistics()
        expected = gate_statistics(gates.tree, gates.table)
        assert found is not None
        assert found.counts.equals(expected.counts)
        assert found.classes.equals(expected.classes)
    assert gates.table is gates.table
    assert gates.patients == tuple(f"p{i}" for i in range(8))


def test_tree_and_journal_stay_as_they_were_where_the_disk_refuses(
    gates: StudyGates, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates.add(box("right", 0, None))
    before = gates.tree.to_dict()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StudyError, match="is full"):
            gates.add(box("left", None, 0))
    assert gates.tree.to_dict() == before
    assert gates.add(box("left", None, 0)) == "g2"


def test_an_edit_that_fails_half_way_leaves_nothing_behind(gates: StudyGates) -> None:
    with pytest.raises(GateError, match="another gate beside it has this name"):
        gates.do(lambda tree: [tree.add(box("a", 0, 1)), tree.add(box("a", 0, 1))])
    assert len(gates.tree) == 0
    assert not gates.study.can_undo
    gates.do(lambda tree: [tree.add(box("a", 0, 1)), tree.add(box("b", 0, 1))])
    gates.study.undo()
    assert len(gates.tree) == 0, "several acts of one edit are taken back together"


def test_a_gate_that_cannot_be_counted_is_refused(gates: StudyGates) -> None:
    for axis, message in (("area", "no column 'area'"), ("predicted", "holds no numbers")):
        with pytest.raises(GateError, match=message):
            gates.add(RangeGate(name="x", axes=(axis,), range_min=1))
    assert len(gates.tree) == 0
    assert not gates.study.can_undo


def test_what_changes_nothing_is_not_written(gates: StudyGates) -> None:
    key = gates.add(box("a", 0, 1))
    before = gates.version
    gates.do(lambda tree: tree.rename(key, "a"))
    gates.do(lambda tree: tree.move(key, ""))
    gates.do(lambda tree: [tree.hide(key), tree.hide(key, False)])
    assert gates.version == before


def test_acts_in_order_are_merged_to_one(gates: StudyGates) -> None:
    tree = GateTree(MAP)
    acts = [tree.add(box("a", 0, 1)), tree.rename("g1", "b"), tree.add(box("c", 0, 1)), tree.delete("g2")]
    other = GateTree(MAP)
    other.replay(merged(acts))
    assert {key: other[key] for key in other.keys} == {key: tree[key] for key in tree.keys}
    assert merged(acts)["old"] == {"g1": None, "g2": None}


def test_a_study_that_is_only_read_refuses(gates: StudyGates) -> None:
    gates.add(box("a", 0, 1))
    with Study.open(gates.study.path, read_only=True) as shown:
        reader = StudyGates(shown)
        with pytest.raises(StudyError):
            reader.add(box("b", 0, 1))
        assert reader.tree.keys == ("g1",)
        gates.add(box("b", 0, 1))
        shown.reload()
        assert reader.tree.keys == ("g1", "g2")


def test_each_map_has_its_own_tree(gates: StudyGates) -> None:
    gates.add(box("right", 0, None))
    adata = gates.study.cells
    old = adata.obsm["X_umap"].copy()
    adata.obsm["X_umap"] = adata.obsm[f"X_umap:{OTHER[:8]}"]
    adata.obsm[f"X_umap:{MAP[:8]}"] = old
    adata.uns["dinobloom"] = {**adata.uns["dinobloom"], "projection": {"kind": "umap", "hash": OTHER}}
    gates.study.save_cells(adata)
    assert gates.projection == OTHER
    assert len(gates.tree) == 0
    assert gates.statistics() is None
    gates.add(box("right", 0, None))
    np.testing.assert_array_equal(gates.masks()["g1"], -old[:, 0] >= 0)
    np.testing.assert_array_equal(gates.masks(MAP)["g1"], old[:, 0] >= 0)
    assert gates.projections == (MAP, OTHER)
    del adata.obsm[f"X_umap:{MAP[:8]}"]
    with pytest.raises(GateError, match="no coordinates of the map abababab"):
        gates.masks(MAP)


def test_a_bool_column_per_gate_is_in_the_table_that_scanpy_reads(gates: StudyGates, tmp_path: Path) -> None:
    right = gates.add(box("right", 0, None))
    gates.add(RangeGate(name="large", axes=("area_px",), range_min=400), parent=right)
    gates.add(box(".", 0, 1))
    gates.with_gates(gates.study.cells)
    gates.study.save_cells(gates.study.cells)
    stored = anndata.read_h5ad(gates.study.path / "cells.h5ad")
    assert list(stored.obsm["gates"].columns) == ["right", "right > large", ". (g3)"]
    assert set(stored.obsm["gates"].dtypes) == {np.dtype(bool)}
    for name, mask in zip(stored.obsm["gates"], gates.masks().values(), strict=True):
        np.testing.assert_array_equal(stored.obsm["gates"][name], mask)
    again = GateTree.from_dict(json.loads(stored.uns["dinobloom"]["gates"]))
    assert again.to_dict() == gates.tree.to_dict()
    gates.study.undo()
    some = gates.with_gates(gates.study.cells[10:20].copy())
    assert list(some.obsm["gates"].columns) == ["right", "right > large"]
    np.testing.assert_array_equal(some.obsm["gates"]["right"], gates.masks()["g1"][10:20])


def test_gates_are_copied_to_a_study_on_the_same_map_only(gates: StudyGates, tmp_path: Path) -> None:
    right = gates.add(box("right", 0, None), seen=["p1"])
    gates.add(RangeGate(name="large", axes=("area_px",), range_min=400), parent=right)
    gates.add(BooleanGate(name="rest", bool_type="not", gate_refs=[right]))
    with gated_study(tmp_path / "same.dinobloom") as study:
        same = StudyGates(study)
        same.add(box("mine", 0, 1))
        gates.copy_to(same)
        tree = same.tree
        assert [tree.path(key) for key in tree.keys] == ["mine", "right", "right/large", "rest"]
        assert tree["g4"].gate.members == ("g2",)
        assert tree["g2"].seen == ("p1",)
        study.undo()
        assert same.tree.keys == ("g1",)
        with pytest.raises(GateError, match="names the gate 'right', which is not copied"):
            gates.copy_to(same, ["g3"])
    with gated_study(tmp_path / "other.dinobloom", projection=OTHER) as study:
        with pytest.raises(GateError, match=r"was drawn on map abababab, but this tree belongs to map cdcdcdcd"):
            gates.copy_to(StudyGates(study))
        assert not study.can_undo


def test_a_line_that_no_tree_takes_is_named(gates: StudyGates) -> None:
    gates.add(box("a", 0, 1))
    path = gates.study.path / "edits.jsonl"
    line = json.loads(path.read_text())
    line["new"]["g1"]["gate"]["range_min"] = ["x", None]
    path.write_text(json.dumps(line) + "\n")
    gates.study.reload()
    gates.refresh()
    with pytest.raises(StudyError, match=r"act 1 of the journal edits\.jsonl: Gate 'a'.*Move its line"):
        _ = gates.tree


def test_a_name_that_is_taken_gets_a_number() -> None:
    tree = GateTree(MAP)
    for expected in ("a", "a 2", "a 3"):
        assert free_name(tree, "a") == expected
        tree.add(box(expected, 0, 1))
    assert free_name(tree, "a", "g1") == "a"
    assert tree.map_axes == XY
