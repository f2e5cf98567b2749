"""Acts on gates through the session: what is told to whom, what is refused, and one undo with acts on cells."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
from gated import MAP, box, gated_study
from napari.utils.notifications import notification_manager

from napari_dinobloom.explore.gates import RangeGate
from napari_dinobloom.explore.study_gates import StudyGates
from napari_dinobloom.io.study import Study
from napari_dinobloom.ui.correction import Correction
from napari_dinobloom.ui.gating import gating_of
from napari_dinobloom.ui.session import Session, session_of, viewer_of
from napari_dinobloom.ui.texts import text


class Viewer:
    """As much of a viewer as a session needs."""

    layers = ()


@pytest.fixture
def session(tmp_path: Path):
    session = Session()
    session.show(gated_study(tmp_path / "s.dinobloom"))
    yield session
    session.close_study()


def said() -> str:
    """What napari said last."""
    return str(notification_manager.records[-1].message)


def test_there_is_one_per_session_and_it_goes_with_it(session: Session) -> None:
    gating = gating_of(session)
    assert gating_of(session) is gating
    other = Session()
    gone = weakref.ref(gating_of(other))
    assert gone() is not gating
    del other
    gc.collect()
    assert gone() is None
    viewer = Viewer()
    assert viewer_of(session_of(viewer)) is viewer
    assert viewer_of(session) is None


def test_without_a_study_there_is_nothing_and_nothing_can_be_done() -> None:
    gating = gating_of(Session())
    assert (gating.tree, gating.masks(), gating.tables(), gating.shares(), len(gating.table)) == (None, {}, None, {}, 0)
    for act in ("add", "delete", "undo", "suggest"):
        assert gating.why_not(act) == text("gates.why.no_study")
    assert gating.add(box("a", 0, 1)) == ""
    assert said() == text("gates.why.no_study")


def test_an_added_gate_is_chosen_told_of_and_counted(session: Session) -> None:
    gating, seen = gating_of(session), []
    session.events.gates_revision.connect(lambda: seen.append(list(gating.masks())))
    key = gating.add(box("right", 0, None))
    assert seen == [["g1"]]
    assert session.gate == key == "g1"
    assert gating.tree is not None
    assert gating.tree[key].seen == tuple(f"p{i}" for i in range(8))
    mask = gating.masks()[key]
    np.testing.assert_array_equal(mask, session.study.cells.obsm["X_umap"][:, 0] >= 0)
    assert gating.totals() == {key: (mask.sum(), 400, 400)}
    assert gating.shares() == {key: pytest.approx(100 * mask.mean())}
    tables = gating.tables()
    assert tables is not None
    assert tables.counts.query("level == 'all'")["n"].tolist() == [mask.sum()]
    assert gating.tables() is tables
    assert StudyGates(session.study).tree.to_dict() == gating.tree.to_dict()


def test_new_gates_go_below_the_population_that_is_shown(session: Session) -> None:
    gating = gating_of(session)
    session.population = gating.add(box("right", 0, None))
    assert session.gate == "g1"
    gating.add(RangeGate(name="large", axes=("area_px",), range_min=400))
    gating.add(RangeGate(name="large", axes=("area_px",), range_min=500))
    gating.add(RangeGate(name="large", axes=("area_px",), range_min=400), "")
    tree = gating.tree
    assert tree is not None
    assert [tree.path(key) for key in tree.keys] == ["right", "right/large", "right/large 2", "large"]
    session.population = "g99"
    assert tree[gating.add(box("x", 0, 1))].parent == "", "a population that is gone is all cells"


def test_four_quadrants_are_one_act(session: Session) -> None:
    gating = gating_of(session)
    keys = gating.add_all([box(name, 0, 1) for name in "abcd"])
    assert (keys, session.gates_revision, session.gate) == (["g1", "g2", "g3", "g4"], 1, "g4")
    gating.undo()
    assert gating.tree is not None
    assert len(gating.tree) == 0
    assert session.gate == "", "a gate that is gone is not chosen"
    gating.redo()
    assert gating.tree.keys == ("g1", "g2", "g3", "g4")


def test_undo_is_one_stack_with_acts_on_cells(session: Session) -> None:
    gating, study = gating_of(session), session.study
    correction = Correction(None, session)
    gating.add(box("right", 0, None))
    study.label("f:00002", "blast")
    gating.rename("g1", "neutrophils")
    counts = (session.revision, session.gates_revision)
    correction.undo()
    assert gating.tree is not None
    assert gating.tree["g1"].gate.name == "right"
    assert (session.revision, session.gates_revision) == (counts[0], counts[1] + 1)
    gating.undo()
    assert study.cells.obs["label"].tolist().count("blast") == 0
    assert (session.revision, session.gates_revision) == (counts[0] + 1, counts[1] + 1)
    gating.undo()
    assert len(gating.tree) == 0
    assert gating.why_not("undo") == text("edit.why.no_undo")
    for _ in range(3):
        correction.redo()
    assert gating.tree["g1"].gate.name == "neutrophils"
    assert study.cells.obs["label"].tolist().count("blast") == 1
    assert gating.why_not("redo") == text("edit.why.no_redo")


def test_what_is_refused_is_said_and_changes_nothing(session: Session) -> None:
    gating = gating_of(session)
    gating.add_all([box("a", 0, 1), box("b", 0, 1)])
    gating.lock("g1")
    before, revision = gating.tree.to_dict(), session.gates_revision
    assert gating.why_not("delete", "g1") == text("gates.why.locked", name="a")
    assert gating.why_not("recolour", "g1") == ""
    assert gating.why_not("rename", "g7") == text("gates.why.choose")
    for act, message in (
        (lambda: gating.delete("g1"), "is locked"),
        (lambda: gating.rename("g2", "a"), "another gate beside it has this name"),
        (lambda: gating.rename("g2", "x/y"), "separates the names of a path"),
        (lambda: gating.recolour("g2", "red"), "write it as #rrggbb"),
        (lambda: gating.move("g2", "g2"), "depend on themselves"),
    ):
        assert act() is False
        assert message in said()
    assert gating.tree.to_dict() == before
    assert session.gates_revision == revision
    assert gating.hide("g1")
    assert gating.recolour("g1", "#ff0000")


def test_gates_are_combined_below_what_they_have_in_common(session: Session) -> None:
    gating = gating_of(session)
    gating.add_all([box("a", -1, 4), box("b", 0, 5)])
    a, b = gating.masks().values()
    expected = {"and": a & b, "or": a | b, "not": ~a}
    for kind, mask in expected.items():
        key = gating.combine(kind, ["g1"] if kind == "not" else ["g1", "g2"])
        np.testing.assert_array_equal(gating.masks()[key], mask)
    assert [gating.tree[key].gate.name for key in gating.tree.keys[2:]] == ["a and b", "a or b", "Not a"]
    inner = gating.add_all([box("c", 0, 1), box("d", 1, 2)], "g1")
    assert gating.tree[gating.combine("or", inner)].parent == "g1"
    assert gating.combine("and", ["g1"]) == ""
    assert "joins two gates or more" in said()


def test_a_study_that_may_not_be_written_says_why(session: Session) -> None:
    gating_of(session).add(box("a", 0, 1))
    with Study.open(session.study.path, read_only=True) as shown:
        other = Session()
        other.show(shown)
        gating = gating_of(other)
        assert gating.masks().keys() == {"g1"}
        assert gating.why_not("add") != ""
        assert gating.rename("g1", "b") is False
        assert said() == gating.why_not("add")


def test_another_study_brings_its_own_tree(session: Session, tmp_path: Path) -> None:
    gating = gating_of(session)
    gating.add(box("a", 0, 1))
    assert session.gate == "g1"
    session.show(gated_study(tmp_path / "t.dinobloom"))
    assert session.gate == ""
    assert gating.tree is not None
    assert len(gating.tree) == 0
    assert gating.tree.projection == MAP


def test_suggested_gates_are_one_act_in_the_population(session: Session, qtbot) -> None:
    gating = gating_of(session)
    gating.suggest()
    qtbot.waitUntil(lambda: session.job is None and session.gates_revision == 1, timeout=60_000)
    masks = gating.masks()
    assert len(masks) == 2
    right = session.study.cells.obs["predicted"].to_numpy() == "neutrophil"
    largest = [max((mask & side).sum() / side.sum() for side in (right, ~right)) for mask in masks.values()]
    assert min(largest) > 0.8
    gating.undo()
    assert len(gating.tree) == 0
