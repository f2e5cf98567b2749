"""Undo and redo in the Study window: said before they are done, over cells, gates and groups in one order."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from classified import drawn_study
from napari.components import ViewerModel
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_dinobloom.explore.gates import RangeGate
from napari_dinobloom.io.journal import Entry, user
from napari_dinobloom.io.shapes import Shape
from napari_dinobloom.ui.act_words import describe_act
from napari_dinobloom.ui.correction import Correction
from napari_dinobloom.ui.gating import gating_of
from napari_dinobloom.ui.patients import cohort_of
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.texts import text
from napari_dinobloom.ui.widgets.patients_widget import PatientsWidget
from napari_dinobloom.ui.widgets.study_acts import StudyActs

pytestmark = pytest.mark.gui


@pytest.fixture
def scene(tmp_path, qtbot):
    viewer = ViewerModel()
    session = session_of(viewer)
    acts = StudyActs(viewer, session)
    qtbot.addWidget(acts)
    acts.resize(1600, 40)
    study = drawn_study(tmp_path / "drawn.dinobloom")
    session.show(study)
    acts.show()
    yield SimpleNamespace(viewer=viewer, session=session, acts=acts, study=study, bot=qtbot)
    acts.detach()
    session.close_study()


def press(scene, act: str) -> None:
    scene.bot.mouseClick(scene.acts.buttons[act], Qt.MouseButton.LeftButton)


def says(scene) -> tuple[str, str]:
    return scene.acts.buttons["undo"].text(), scene.acts.buttons["redo"].text()


def test_all_edits_are_taken_back_in_one_order(scene) -> None:
    session, study = scene.session, scene.study
    correction, cells = Correction(scene.viewer, session), list(study.cells.obs.index)
    assert says(scene) == ("Undo", "Redo")
    assert scene.acts.buttons["undo"].toolTip() == text("edit.why.no_undo")
    session.select(*cells[:12])
    correction.label("blast")
    key = gating_of(session).add(RangeGate(name="large & odd", axes=("area_px",), range_min=1.0))
    cohort_of(session).put({"p1": "ill", "p2": "ill", "p3": "well"})
    session.select(cells[0])
    correction.exclude()
    told = []
    while scene.acts.buttons["undo"].isEnabled():
        told.append(scene.acts.buttons["undo"].text())
        press(scene, "undo")
    assert told == [
        "Undo: exclusion of 1 cell",
        "Undo: group of 3 patients",
        "Undo: gate “large && odd”",
        "Undo: label of 12 cells",
    ]
    assert study.cells.obs["label"].eq("").all()
    assert gating_of(session).tree.keys == ()
    assert cohort_of(session).groups == {}
    assert says(scene) == ("Undo", "Redo: label of 12 cells")
    for _ in told:
        press(scene, "redo")
    assert says(scene) == ("Undo: exclusion of 1 cell", "Redo")
    assert cohort_of(session).groups == {"p1": "ill", "p2": "ill", "p3": "well"}
    assert key in gating_of(session).tree
    assert study.cells.obs["label"].eq("blast").sum() == 12
    assert user() in scene.acts.buttons["undo"].toolTip()


def test_the_patients_window_shows_groups_that_are_taken_back(scene) -> None:
    widget = PatientsWidget(scene.viewer)
    scene.bot.addWidget(widget)
    widget.cohort.put({"p3": "ill"})
    row = [line[0] for line in widget.table.texts()].index("p3")
    assert widget.table.texts()[row][2] == "ill"
    press(scene, "undo")
    assert widget.table.texts()[row][2] == ""
    press(scene, "redo")
    assert widget.table.texts()[row][2] == "ill"


def test_a_blind_reader_takes_no_act_of_another_back(scene) -> None:
    scene.study.label(str(scene.study.cells.obs.index[0]), "blast", who="anna")
    scene.session.blind = True
    scene.session.revision += 1
    assert scene.acts.buttons["undo"].toolTip() == text("gallery.why.others")
    assert not scene.acts.buttons["undo"].isEnabled()
    gating_of(scene.session).undo()  # by the keys of other windows neither
    assert scene.study.cells.obs["label"].iloc[0] == "blast"
    scene.session.reader = "anna"
    assert scene.acts.buttons["undo"].isEnabled()
    assert "anna" not in scene.acts.buttons["undo"].toolTip()
    press(scene, "undo")
    scene.session.reader = "ben"
    assert scene.acts.buttons["redo"].toolTip() == text("gallery.why.others")
    cohort_of(scene.session).put({"p1": "ill"})
    assert scene.acts.buttons["undo"].isEnabled(), "groups are not hidden"


def test_long_words_are_cut_where_there_is_no_room(scene) -> None:
    cohort_of(scene.session).put({"p1": "ill"})
    scene.acts.resize(160, 40)
    QApplication.processEvents()
    assert scene.acts.buttons["undo"].text().endswith("…")
    assert "p1" in scene.acts.buttons["undo"].toolTip()


def test_acts_have_words_of_their_own(scene) -> None:
    study = scene.study
    cells = list(study.cells.obs.index)
    said = [
        (study.label(cells[:2], ""), "taking the label off 2 cells"),
        (study.set_review(cells[0]), "review of 1 cell"),
        (study.set_review(cells[0], False), "taking the review mark off 1 cell"),
        (study.exclude(cells[:2], False), "counting 2 cells again"),
        (study.delete(cells[0]), "deletion of 1 cell"),
        (study.delete(cells[0], False), "bringing back 1 cell"),
        (study.record_groups({"p1": "ill"}), "group of “p1”"),
    ]
    for entry, words in said:
        assert entry is not None
        assert describe_act(entry) == words
    shape = Shape((0, 0, 4, 4), b"", {})
    three = ("f:00001", "f:00002", "f:00003")

    def drawn(op: str, cells: tuple[str, ...], *made: str, changed: tuple[str, ...] = ()) -> str:
        new = dict.fromkeys((*made, *changed), shape)
        return describe_act(
            Entry(1, op, cells, {}, {}, "me", "", old_shapes=dict.fromkeys(changed, shape), new_shapes=new)
        )

    assert drawn("add", three[:1], three[0]) == "adding 1 cell"
    assert drawn("merge", three, three[2]) == "merging 2 cells"
    assert drawn("split", three, *three[1:]) == "splitting 1 cell"
    assert drawn("repaint", three, changed=three) == "repainting 3 cells"


def test_a_gate_without_a_name_is_counted() -> None:
    for node in ({}, {"gate": None}, {"gate": {}}):
        act = Entry(1, "gate", (), {}, {}, "me", "", projection="", old_nodes={"g1": None}, new_nodes={"g1": node})
        assert describe_act(act) == "1 gate"
