"""The panel of gates by mouse and keys; what is on show is what the study holds."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from gated import OTHER, XY, box, gated_study
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QMimeData, QModelIndex, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QApplication, QColorDialog, QFileDialog, QLineEdit

from napari_dinobloom.explore.gate_statistics import gate_statistics
from napari_dinobloom.explore.gates import EllipseGate, RangeGate
from napari_dinobloom.explore.study_gates import StudyGates
from napari_dinobloom.io.study import Study
from napari_dinobloom.ui.gating import gating_of
from napari_dinobloom.ui.session import Session, session_of
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.gate_model import LOCKED, NAME, SHOWN, percent
from napari_dinobloom.ui.widgets.gate_panel import MENU, GatePanel

pytestmark = pytest.mark.gui

LEFT, NONE, CTRL = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ControlModifier


class Window:
    """The panel and a study of three gates: right > large > core."""

    def __init__(self, session, study, qtbot):
        self.session, self.qtbot = session, qtbot
        self.panel = GatePanel(session)
        self.panel.resize(430, 500)
        self.session.show(study)
        self.gating = gating_of(self.session)
        self.gating.add(box("right", 0, None), "")
        self.gating.add(RangeGate(name="large", axes=("area_px",), range_min=400), "g1")
        self.gating.add(EllipseGate(name="core", axes=XY, center=(3, 0), half_axes=(1, 1)), "g2")
        QApplication.processEvents()

    @property
    def tree(self):
        return self.gating.tree

    def index(self, key: str, column: int = NAME) -> QModelIndex:
        return self.panel.model.index_of(key, column)

    def click(self, key: str, column: int = NAME, modifier=NONE) -> None:
        self.panel.tree.scrollTo(self.index(key, column))
        place = self.panel.tree.visualRect(self.index(key, column)).center()
        self.qtbot.mouseClick(self.panel.tree.viewport(), LEFT, modifier, place)

    def tick(self, key: str, column: int) -> None:
        """Click a check mark, which stands at the left of its column."""
        rect = self.panel.tree.visualRect(self.index(key, column))
        place = rect.center()
        place.setX(rect.left() + 12)
        self.qtbot.mouseClick(self.panel.tree.viewport(), LEFT, NONE, place)

    def key(self, key, modifier=NONE) -> None:
        self.qtbot.keyClick(self.panel.tree, key, modifier)

    def shown(self) -> dict[str, list[str]]:
        """What the list shows, by gate and in its order; children are counted through Qt's own calls."""
        model, found = self.panel.model, {}

        def walk(parent: QModelIndex) -> None:
            for row in range(model.rowCount(parent)):
                index = model.index(row, 0, parent)
                assert model.parent(index) == parent
                found[model.key_of(index)] = [model.index(row, column, parent).data() for column in range(4)]
                walk(index)

        walk(QModelIndex())
        return found

    def check(self) -> None:
        """The list is what the study's journal holds, counted anew."""
        fresh = StudyGates(self.session.study)
        assert fresh.tree.to_dict() == self.tree.to_dict()
        counts = gate_statistics(fresh.tree, fresh.table).counts.query("level == 'all'").set_index("key")
        shown = self.shown()
        assert set(shown) == set(fresh.tree.keys)
        for key, cells in shown.items():
            row = counts.loc[key]
            shares = [percent(row["n"], row["parent_n"]), percent(row["n"], row["all_n"])]
            assert cells == [fresh.tree[key].gate.name, f"{row['n']:,}", *shares]


@pytest.fixture
def window(tmp_path, qtbot):
    study = gated_study(tmp_path / "s.dinobloom")
    opened = Window(Session(), study, qtbot)
    qtbot.addWidget(opened.panel)
    opened.panel.show()
    yield opened
    qtbot.waitUntil(lambda: opened.session.job is None, timeout=20_000)
    opened.panel.detach()
    opened.session.close_study()
    study.close()


def test_in_a_viewer_it_follows_the_theme_and_leaves_nothing_behind(make_napari_viewer_proxy, tmp_path, qtbot):
    viewer = make_napari_viewer_proxy(strict_qt="raise", show=True)
    opened = Window(session_of(viewer), gated_study(tmp_path / "s.dinobloom"), qtbot)
    viewer.window.add_dock_widget(opened.panel, name="Gates")
    inks = []
    for theme in ("light", "dark"):
        viewer.theme = theme
        QApplication.processEvents()
        picture = opened.panel.buttons["undo"].icon().pixmap(20).toImage()
        drawn = [
            picture.pixelColor(x, y) for x in range(20) for y in range(20) if picture.pixelColor(x, y).alpha() > 200
        ]
        inks.append(np.mean([colour.lightness() for colour in drawn]))
    assert inks[0] < 100
    assert inks[1] > 155
    opened.click("g2")
    opened.gating.undo()
    opened.check()
    opened.panel.detach()
    opened.session.close_study()


def test_the_list_shows_the_tree_with_counts_that_follow_every_act(window):
    assert list(window.shown()) == ["g1", "g2", "g3"]
    window.check()
    window.gating.change("g1", box("right", 3, None))
    window.check()
    window.session.study.exclude(list(window.session.study.cells.obs_names[:50]))
    window.session.revision += 1
    before = window.shown()["g1"]
    window.qtbot.waitUntil(lambda: window.shown()["g1"] != before, timeout=5000)
    window.check()
    low, high = (float(x) for x in _between(window.index("g2", 2).data(Qt.ItemDataRole.ToolTipRole)))
    row = window.gating.tables().counts.query("level == 'all'").set_index("key").loc["g2"]
    assert (low, high) == (pytest.approx(row["parent_low"], abs=0.005), pytest.approx(row["parent_high"], abs=0.005))


def _between(line: str) -> list[str]:
    """Both ends of the interval that a tooltip names."""
    return line.split("interval ")[1].split(" (")[0].split(" to ")


def test_a_click_chooses_a_gate_and_the_session_s_gate_is_the_current_row(window):
    window.click("g2")
    assert window.session.gate == "g2"
    window.session.gate = "g3"
    assert window.panel.tree.keys == ["g3"]
    window.key(Qt.Key.Key_Up)
    assert window.session.gate == "g2"
    window.session.gate = ""
    assert window.panel.tree.keys == []
    window.panel.tree.collapse(window.index("g1"))
    window.gating.add(box("left", None, 0), "")
    assert not window.panel.tree.isExpanded(window.index("g1")), "what was closed stays closed"
    assert window.panel.tree.keys == ["g4"]


def test_a_gate_is_renamed_in_place_and_a_wrong_name_is_refused(window):
    def write(name: str) -> None:
        window.click("g2")
        window.key(Qt.Key.Key_F2)
        editor = window.panel.tree.findChild(QLineEdit)
        editor.setText(name)
        window.qtbot.keyClick(editor, Qt.Key.Key_Return)
        window.qtbot.waitUntil(lambda: window.panel.tree.findChild(QLineEdit) is None)

    write("huge cells")
    assert window.tree["g2"].gate.name == "huge cells"
    window.check()
    records = len(notification_manager.records)
    write("a/b")
    assert len(notification_manager.records) == records + 1
    assert window.index("g2").data() == "huge cells"
    window.check()


def test_check_marks_and_keys_hide_and_lock(window):
    window.tick("g2", SHOWN)
    assert window.tree["g2"].hidden
    window.tick("g2", LOCKED)
    assert window.tree["g2"].locked
    assert not window.panel.model.flags(window.index("g2")) & Qt.ItemFlag.ItemIsEditable
    window.click("g2")
    assert window.panel.buttons["delete"].toolTip().endswith(text("gates.why.locked", name="large"))
    assert not window.panel.buttons["delete"].isEnabled()
    for key in (Qt.Key.Key_H, Qt.Key.Key_L):
        window.key(key)
    assert not window.tree["g2"].hidden
    assert not window.tree["g2"].locked
    assert window.panel.buttons["delete"].isEnabled()


def test_delete_takes_the_children_along_and_undo_is_there(window):
    before = window.tree.to_dict()
    window.click("g2")
    window.key(Qt.Key.Key_Delete)
    assert list(window.shown()) == ["g1"]
    assert window.session.gate == ""
    window.qtbot.mouseClick(window.panel.buttons["undo"], LEFT)
    assert window.tree.to_dict()["nodes"] == before["nodes"]
    window.check()
    window.key(Qt.Key.Key_Z, CTRL | Qt.KeyboardModifier.ShiftModifier)
    assert list(window.shown()) == ["g1"]
    assert not window.panel.buttons["redo"].isEnabled()
    assert window.panel.buttons["redo"].toolTip().endswith(text("edit.why.no_redo"))


def test_two_gates_and_one_made_of_them_are_deleted_together(window):
    window.gating.combine("or", ["g1", "g3"])
    for key in ("g1", "g4"):
        window.click(key, modifier=CTRL if key == "g4" else NONE)
    window.key(Qt.Key.Key_Delete)
    assert window.shown() == {}
    assert window.panel.empty.isVisible()
    assert window.panel.empty.text() == text("gates.empty")
    window.key(Qt.Key.Key_Z, CTRL)
    assert list(window.shown()) == ["g1", "g2", "g3", "g4"]


def drop(window, keys, parent: str, row: int) -> None:
    data: QMimeData = window.panel.model.mimeData([window.index(key) for key in keys])
    window.panel.model.dropMimeData(data, Qt.DropAction.MoveAction, row, 0, window.index(parent))


def test_gates_are_dragged_below_another_and_between_two(window):
    window.gating.add_all([box("a", 0, 1), box("b", 0, 1)], "")
    drop(window, ["g3"], "g5", -1)
    assert window.tree["g3"].parent == "g5"
    drop(window, ["g5"], "", 0)
    assert window.tree.keys == ("g5", "g3", "g1", "g2", "g4")
    drop(window, ["g5", "g3"], "", 2)
    assert window.tree.children("") == ("g1", "g5", "g4"), "a gate that goes with its parent stays below it"
    window.check()
    assert window.tree.children("g5") == ("g3",)
    drop(window, ["g1"], "g2", -1)
    assert "depend on themselves" in str(notification_manager.records[-1].message)
    window.check()
    window.gating.undo()
    assert window.tree.children("") == ("g5", "g1", "g4"), "the refused drop left nothing to undo"


def test_a_colour_is_chosen(window, monkeypatch):
    monkeypatch.setattr(QColorDialog, "getColor", lambda *_: QColor("#12ab34"))
    window.click("g2")
    window.key(Qt.Key.Key_C)
    assert window.tree["g2"].colour == "#12ab34"
    picture = window.index("g2").data(Qt.ItemDataRole.DecorationRole).pixmap(12).toImage()
    np.testing.assert_allclose(picture.pixelColor(6, 6).getRgb()[:3], (0x12, 0xAB, 0x34), atol=8)  # 16 bits a pixel


def test_gates_are_made_of_chosen_ones_from_the_menu(window):
    acts = window.panel.actions_
    window.click("g3")
    assert acts["not"].isEnabled()
    assert not acts["and"].isEnabled()
    assert acts["and"].toolTip().endswith(text("gates.why.select_two"))
    window.click("g1", modifier=CTRL)
    acts["and"].trigger()
    masks = window.gating.masks()
    np.testing.assert_array_equal(masks["g4"], masks["g1"] & masks["g3"])
    window.check()


def test_details_are_those_of_the_chosen_gate(window):
    details = window.panel.details
    window.click("g2")
    window.qtbot.waitUntil(lambda: details.tables["classes"].rowCount() == 1, timeout=5000)
    tables = window.gating.tables()
    mine = tables.classes.query("key == 'g2' and level == 'all'")
    assert details.tables["classes"].texts()[0][:2] == ["Neutrophil", f"{mine['n'].iloc[0]:,}"]
    mean = tables.means.query("key == 'g2' and level == 'all' and measurement == 'area_px'")["mean"].iloc[0]
    assert [text("measure.area_px"), f"{mean:,.0f}", f"{mine['n'].iloc[0]}"] in details.tables["means"].texts()
    counts = tables.counts.query("key == 'g2' and level == 'patient'")
    shown = details.tables["counts"].texts()
    assert [row[0] for row in shown] == [f"p{i}" for i in range(8)], "a patient with one slide is one line"
    assert [row[1] for row in shown] == [f"{n:,}" for n in counts["n"]]
    window.session.gate = ""
    window.qtbot.waitUntil(lambda: details.none.isVisible(), timeout=5000)


def test_suggest_is_offered_where_there_is_no_gate(window):
    while window.panel.buttons["undo"].isEnabled():
        window.gating.undo()
    window.qtbot.mouseClick(window.panel.first, LEFT)
    window.qtbot.waitUntil(lambda: len(window.shown()) == 2, timeout=60_000)
    window.check()


def test_exports_hold_what_is_on_show(window, tmp_path, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda _self, _title, name, _kind: (str(tmp_path / name), ""))
    for name, file in (("csv", "gates-counts.csv"), ("json", "gates.json"), ("fcs", "gates.fcs")):
        window.panel.act(name)
        window.qtbot.waitUntil(lambda file=file: (tmp_path / file).exists(), timeout=20_000)
        window.qtbot.waitUntil(lambda: window.session.job is None, timeout=20_000)
    lines = [line for line in (tmp_path / "gates-counts.csv").read_text().splitlines() if not line.startswith("#")]
    rows = [row for row in csv.DictReader(lines) if row["level"] == "all"]
    assert [f"{int(row['n']):,}" for row in rows] == [cells[1] for cells in window.shown().values()]
    assert json.loads((tmp_path / "gates.json").read_text())["tree"] == window.tree.to_dict()
    window.gating.delete("g1")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(tmp_path / "gates.json"), ""))
    window.panel.act("import")
    assert [window.tree.path(key) for key in window.tree.keys] == ["right", "right/large", "right/large/core"]
    window.check()


def test_gates_go_to_another_study_on_the_same_map_only(window, tmp_path, monkeypatch):
    for name, projection in (("same", None), ("other", OTHER)):
        options = {} if projection is None else {"projection": projection}
        gated_study(tmp_path / f"{name}.dinobloom", **options).close()
        path = str(tmp_path / f"{name}.dinobloom")
        monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_, path=path: path)
        window.panel.act("copy")
        window.qtbot.waitUntil(lambda: window.session.job is None, timeout=20_000)
        said = str(notification_manager.records[-1].message)
        with Study.open(Path(path)) as study:
            assert len(StudyGates(study).tree) == (3 if projection is None else 0)
        assert said.startswith("3 gates copied") if projection is None else "belongs to map cdcdcdcd" in said


def test_two_groups_of_patients_are_compared(window, tmp_path, monkeypatch):
    window.panel.act("compare")
    dialog = window.panel.compared
    assert dialog.patients.rowCount() == 8
    assert not dialog.start.isEnabled()
    groups = tmp_path / "groups.csv"
    groups.write_text("patient,group\n" + "".join(f"p{i},{'ab'[i % 2]}\n" for i in range(8)))
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(groups), ""))
    window.qtbot.mouseClick(dialog.load, LEFT)
    assert [row[2] for row in dialog.patients.texts()] == list("abababab")
    dialog.patients.selectRow(0)
    window.qtbot.mouseClick(dialog.put[2], LEFT)
    assert dialog.patients.texts()[0][2] == ""
    window.qtbot.mouseClick(dialog.start, LEFT)
    window.qtbot.waitUntil(lambda: dialog.figures.rowCount() == 3, timeout=20_000)
    assert [row[0] for row in dialog.figures.texts()] == ["right", "right/large", "right/large/core"]
    assert {row[1] for row in dialog.figures.texts()} == {text("gates.is_exploratory")}
    assert text("gates.compare.exploratory") in dialog.note.text()
    path = tmp_path / "comparison.csv"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    window.qtbot.mouseClick(dialog.save, LEFT)
    assert path.read_text().count("True") >= 3
    dialog.close()


def test_everything_has_a_tip_and_a_name(window):
    panel = window.panel
    for name in [name for group in MENU for name in group]:
        assert panel.actions_[name].toolTip()
        assert tip(f"gates.act.{name}")
    for button in (*panel.buttons.values(), panel.more, panel.first):
        assert button.toolTip()
        assert button.accessibleName() or button.text()
        assert button.focusPolicy() & Qt.FocusPolicy.TabFocus
    for key in ("g1", "g2", "g3"):
        for column in range(6):
            assert window.index(key, column).data(Qt.ItemDataRole.ToolTipRole)
            assert panel.model.headerData(column, Qt.Orientation.Horizontal, Qt.ItemDataRole.ToolTipRole)


def test_a_study_that_is_only_read_is_shown_and_cannot_be_changed(window):
    path = window.session.study.path
    with Study.open(path, read_only=True) as shown:
        window.session.study = shown
        assert list(window.shown()) == ["g1", "g2", "g3"]
        assert not window.panel.actions_["suggest"].isEnabled()
        assert not window.panel.model.flags(window.index("g1", SHOWN)) & Qt.ItemFlag.ItemIsUserCheckable
        window.session.study = None
    assert window.shown() == {}
    assert window.panel.empty.text() == text("gates.why.no_study")
