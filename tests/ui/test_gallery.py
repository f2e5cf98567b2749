"""The Gallery window in a whole viewer, with clicks and keys; journal, table, counts and pixels are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QColor, QKeyEvent, QMouseEvent
from qtpy.QtWidgets import QApplication

from napari_dinobloom.cells.taxonomy import describe
from napari_dinobloom.explore.gates import RangeGate
from napari_dinobloom.io.journal import user
from napari_dinobloom.io.study import Study
from napari_dinobloom.report.agreement import agreement, labels_by_reader
from napari_dinobloom.ui import layers
from napari_dinobloom.ui.gallery.choice import Choice
from napari_dinobloom.ui.gallery.class_list import NAME
from napari_dinobloom.ui.gallery.delegate import BORDER, MARGIN
from napari_dinobloom.ui.gating import gating_of
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.texts import text
from napari_dinobloom.ui.widgets.gallery_widget import GalleryWidget

pytestmark = pytest.mark.gui

CTRL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
NONE = Qt.KeyboardModifier.NoModifier


class Window:
    """A viewer with the gallery, and what a person can do there."""

    def __init__(self, viewer, widget, qtbot):
        self.viewer, self.widget, self.qtbot = viewer, widget, qtbot
        self.session = session_of(viewer)
        self.view, self.model = widget.view, widget.model

    @property
    def study(self):
        return self.session.study

    @property
    def obs(self):
        return self.study.cells.obs

    def cell(self, place):
        return self.model.cell(place)

    def centre(self, place, view=None) -> QPoint:
        view = view or self.view
        return view.visualRect(view.cells.index(place)).center()

    def click(self, place, modifier=NONE, view=None):
        view = view or self.view
        self.qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, modifier, self.centre(place, view))

    def drag(self, start: QPoint, end: QPoint, let_go=True):
        port, left = self.view.viewport(), Qt.MouseButton.LeftButton
        self.qtbot.mousePress(port, left, pos=start)
        for share in (0.3, 0.7, 1.0):  # qtbot's own moves hold no button down
            pos = QPointF(start) + share * (QPointF(end) - QPointF(start))
            moved = (QEvent.Type.MouseMove, pos, port.mapToGlobal(pos), Qt.MouseButton.NoButton, left, NONE)
            QApplication.sendEvent(port, QMouseEvent(*moved))
        if let_go:
            self.qtbot.mouseRelease(port, left, pos=end)

    def key(self, key, modifier=NONE, view=None):
        view = view or self.view
        view.setFocus()
        self.qtbot.keyClick(view, key, modifier)

    def border(self, place) -> str:
        """Colour that is drawn around a cell."""
        self.view.scrollTo(self.model.index(place))
        image = self.view.viewport().grab().toImage()
        rect = self.view.visualRect(self.model.index(place))
        return image.pixelColor(rect.center().x() + 20, rect.y() + MARGIN + BORDER // 2).name()

    def counts(self) -> dict:
        """Figures in the list of classes."""
        items = [self.widget.classes.list.item(row) for row in range(self.widget.classes.list.count())]
        return {item.data(NAME): tuple(item.data(NAME + 1)) for item in items if item.data(NAME + 1) != (0, 0)}

    def check(self):
        """Everything on show is what the study holds."""
        label = np.where(self.obs["label"] != "", self.obs["label"], self.obs["predicted"])
        every = {name: int((label == name).sum()) for name in set(label)}
        seen = {name: int(((label == name) & self.obs["reviewed"]).sum()) for name in every}
        assert self.counts() == {name: (every[name], seen[name]) for name in every}
        wanted = text("gallery.reviewed", seen=int(self.obs["reviewed"].sum()), count=len(self.obs))
        assert self.widget.acts.reviewed.text() == wanted
        for place in range(4):
            name = label[self.obs.index.get_loc(self.cell(place))]
            if not self.obs.loc[self.cell(place), "excluded"]:
                assert self.border(place) == describe(name).colour

    def warned(self, since) -> list[str]:
        return [record.message for record in notification_manager.records[since:]]


@pytest.fixture
def window(make_napari_viewer_proxy, tmp_path, monkeypatch, qtbot):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    viewer = make_napari_viewer_proxy(strict_qt="raise", show=True)
    widget = GalleryWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Gallery")
    viewer.window.resize(1100, 760)
    yield Window(viewer, widget, qtbot)
    session_of(viewer).close_study()
    qtbot.waitUntil(lambda: not widget.thumbnails.busy, timeout=20_000)


@pytest.fixture
def opened(window, make_study, qtbot):
    """The window with a study of twelve cells, in the order of the table."""
    study = make_study(0, 1, 2, 3)
    window.session.show(study)
    window.widget.content.sort("slide")
    qtbot.waitUntil(lambda: window.view.in_sight()[1] == 12 and window.view.columns > 1, timeout=20_000)
    return window


def test_an_empty_window_says_what_to_do(window, make_study):
    widget = window.widget
    assert widget.view.empty == text("gallery.empty.no_study")
    assert not widget.disclaimer.isHidden()
    assert widget.side.isHidden()
    assert all(not button.isEnabled() for button in widget.acts.buttons.values())
    window.session.show(make_study())
    assert not widget.side.isHidden()
    widget.content.choose(Choice("selection"))
    assert widget.view.empty == text("gallery.empty.selection")
    window.session.close_study()
    assert len(widget.model.rows) == 0
    assert widget.view.empty == text("gallery.empty.no_study")


def test_cells_are_shown_with_their_pictures_and_colours(opened, qtbot):
    assert opened.model.rowCount() == 12
    assert [opened.cell(place) for place in range(12)] == list(opened.obs.index)
    qtbot.waitUntil(lambda: opened.widget.thumbnails.kept == 12, timeout=20_000)
    opened.check()
    image = opened.view.viewport().grab().toImage()
    rect = opened.view.visualRect(opened.model.index(0))
    middle = image.pixelColor(rect.center().x(), rect.y() + MARGIN + BORDER + opened.view.tiles.side // 2)
    assert abs(middle.red() - 110) < 12, "the painted cell is violet"
    assert abs(middle.green() - 60) < 12
    tip = opened.model.data(opened.model.index(0), Qt.ItemDataRole.ToolTipRole)
    assert tip.startswith(opened.cell(0))
    assert opened.model.data(opened.model.index(0)) == "Neutrophil"


def test_clicks_select_in_the_session(opened):
    told = []
    opened.session.events.selected.connect(told.append)
    opened.click(2)
    assert opened.session.selected == (opened.cell(2),)
    assert opened.session.focus == opened.cell(2)
    opened.click(4, CTRL)
    assert opened.session.selected == (opened.cell(2), opened.cell(4))
    opened.click(4, CTRL)
    assert opened.session.selected == (opened.cell(2),)
    opened.click(1)
    opened.click(5, SHIFT)
    assert set(opened.session.selected) == {opened.cell(place) for place in range(1, 6)}
    assert opened.session.focus == opened.cell(5)
    opened.key(Qt.Key.Key_A, CTRL)
    opened.view.settle()
    assert set(opened.session.selected) == set(opened.obs.index)
    assert len(told) == 6, "each act is told once and comes back to nobody"


def test_arrows_and_shift_select(opened):
    opened.click(0)
    opened.key(Qt.Key.Key_Right)
    opened.view.settle()
    assert opened.session.selected == (opened.cell(1),)
    opened.key(Qt.Key.Key_Down, SHIFT)
    opened.view.settle()
    assert len(opened.session.selected) == opened.view.columns + 1
    opened.key(Qt.Key.Key_End)
    opened.view.settle()
    assert opened.session.selected == (opened.cell(11),)


def test_a_rubber_band_selects_what_it_touches(opened, qtbot):
    columns = opened.view.columns
    assert columns >= 2
    opened.drag(opened.centre(0), opened.centre(columns + 1), let_go=False)
    qtbot.waitUntil(lambda: len(opened.session.selected) == 4, timeout=5_000)  # before the button is let go
    band = opened.view._band
    assert not band.isEmpty()
    qtbot.mouseRelease(opened.view.viewport(), Qt.MouseButton.LeftButton, pos=opened.centre(columns + 1))
    wanted = {opened.cell(place) for place in (0, 1, columns, columns + 1)}
    assert set(opened.session.selected) == wanted


def test_a_selection_from_elsewhere_is_shown_and_brought_into_sight(opened, qtbot):
    opened.widget.choice.side.setValue(5)
    assert opened.view.in_sight()[1] < 12
    told = []
    opened.session.events.selected.connect(told.append)
    opened.session.select(opened.cell(3), opened.cell(11))
    assert opened.view.chosen_places().tolist() == [3, 11]
    assert opened.view.viewport().rect().contains(opened.centre(11))
    qtbot.wait(80)
    assert len(told) == 1, "the gallery does not tell it again"
    opened.session.focus = opened.cell(0)
    assert opened.view.viewport().rect().contains(opened.centre(0))
    assert opened.view.chosen_places().tolist() == [3, 11]


def test_many_scattered_cells_are_kept_beside_qt(opened, monkeypatch):
    monkeypatch.setattr("napari_dinobloom.ui.gallery.grid_view.MOST_RANGES", 2)
    chosen = [opened.cell(place) for place in (0, 2, 4, 6)]
    opened.session.select(*chosen)
    assert not opened.view.selectionModel().hasSelection()
    assert opened.view.chosen_places().tolist() == [0, 2, 4, 6]
    opened.key(Qt.Key.Key_C)
    assert opened.obs.index[opened.obs["reviewed"]].tolist() == chosen
    opened.click(1)
    assert opened.view.chosen_places().tolist() == [1]


def test_hover_goes_both_ways(opened):
    port, pos, none = opened.view.viewport(), QPointF(opened.centre(1)), Qt.MouseButton.NoButton
    assert port.hasMouseTracking()
    QApplication.sendEvent(port, QMouseEvent(QEvent.Type.MouseMove, pos, port.mapToGlobal(pos), none, none, NONE))
    assert opened.session.hover == opened.cell(1)
    before = opened.view.viewport().grab().toImage()
    opened.session.hover = opened.cell(2)
    after = opened.view.viewport().grab().toImage()
    rect = opened.view.visualRect(opened.model.index(2))
    ring = rect.center().x(), rect.y() + 1
    assert before.pixelColor(*ring) != after.pixelColor(*ring)
    QApplication.sendEvent(opened.view, QEvent(QEvent.Type.Leave))
    assert opened.session.hover == ""


def test_a_key_names_cells_and_goes_on_to_the_next(opened):
    opened.click(0)
    opened.click(1, CTRL)
    name = opened.widget.classes.names()[2]
    assert name == "monocyte"
    opened.key(Qt.Key.Key_3)
    rows = opened.obs.loc[[opened.cell(0), opened.cell(1)]]
    assert rows["label"].tolist() == ["monocyte", "monocyte"]
    assert rows["label_by"].tolist() == [user(), user()]
    assert rows["reviewed"].all()
    assert rows["predicted"].tolist() == ["neutrophil", "lymphocyte"], "labels are kept apart from predictions"
    entry = opened.study.acts[-1]
    assert (entry.op, entry.cells, entry.who) == ("label", (opened.cell(0), opened.cell(1)), user())
    assert opened.session.selected == (opened.cell(2),)
    opened.check()
    assert opened.border(0) == describe("monocyte").colour
    opened.key(Qt.Key.Key_Z, CTRL)
    assert opened.obs["label"].eq("").all()
    assert not opened.obs["reviewed"].any(), "label and review were one act"
    assert set(opened.session.selected) == {opened.cell(0), opened.cell(1)}, "what was taken back is seen"
    opened.check()
    opened.key(Qt.Key.Key_Z, CTRL | SHIFT)
    assert opened.obs["label"].tolist()[:2] == ["monocyte", "monocyte"]
    opened.check()


def test_the_next_cell_comes_from_the_top_when_the_end_is_reached(opened):
    for place in range(1, 12):
        opened.study.set_review(opened.cell(place))
    opened.session.revision += 1
    opened.click(11)
    opened.key(Qt.Key.Key_1)
    assert opened.session.selected == (opened.cell(0),)
    opened.key(Qt.Key.Key_Return)
    assert opened.session.selected == (opened.cell(0),), "all are reviewed: nothing moves"
    assert opened.obs["reviewed"].all()


def test_confirm_takes_over_what_the_classifier_said(opened):
    opened.obs.loc[opened.cell(1), "abstained"] = True
    opened.session.revision += 1
    before = len(notification_manager.records)
    for place in range(3):
        opened.click(place, CTRL)
    opened.key(Qt.Key.Key_C)
    assert opened.obs["label"].tolist()[:3] == ["neutrophil", "", "monocyte"]
    assert opened.obs["reviewed"].tolist()[:3] == [True, False, True]
    assert opened.warned(before) == [text("gallery.why.unnamed", count=1)]
    assert len([act for act in opened.study.acts if act.op == "label"]) == 1, "one act, one undo"


def test_clear_review_and_exclude(opened):
    opened.click(0)
    opened.key(Qt.Key.Key_2)
    opened.click(0)
    opened.key(Qt.Key.Key_0)
    assert opened.obs["label"].iloc[0] == ""
    assert not opened.obs["reviewed"].iloc[0]
    assert opened.obs["label_by"].iloc[0] == ""
    opened.key(Qt.Key.Key_R)
    assert opened.obs["reviewed"].iloc[0]
    opened.key(Qt.Key.Key_R)
    assert not opened.obs["reviewed"].iloc[0]
    opened.key(Qt.Key.Key_X)
    assert opened.obs["excluded"].iloc[0]
    opened.check()
    opened.key(Qt.Key.Key_X)
    assert not opened.obs["excluded"].iloc[0]
    assert [act.op for act in opened.study.acts] == ["label", "label", "review", "review", "exclude", "exclude"]


def test_the_layers_in_the_image_follow(opened, smear):
    field = opened.study.fields[0]
    image = opened.viewer.add_image(smear, rgb=True, name="smear")
    cells = layers.show(opened.viewer, image, layers.cell_layer(opened.study, [field.id], name="s", stack=False))
    opened.click(0)
    opened.key(Qt.Key.Key_3)
    assert cells.features["class"].iloc[0] == "monocyte"
    colour = cells.colormap.map(cells.features["index"].to_numpy(cells.dtype))[0]
    assert QColor.fromRgbF(*map(float, colour)).name() == describe("monocyte").colour


def test_keys_are_ours_only_while_the_gallery_has_the_focus(opened, qtbot):
    opened.click(0)
    typed = QKeyEvent(QEvent.Type.ShortcutOverride, Qt.Key.Key_3, NONE, "3")
    typed.ignore()
    QApplication.sendEvent(opened.view, typed)
    assert typed.isAccepted(), "before napari takes it for a shortcut"
    for other in (Qt.Key.Key_G, Qt.Key.Key_F5):
        foreign = QKeyEvent(QEvent.Type.ShortcutOverride, other, NONE, "")
        foreign.ignore()
        QApplication.sendEvent(opened.view, foreign)
        assert not foreign.isAccepted()
    opened.widget.reader.reader.setFocus()
    qtbot.keyClicks(opened.widget.reader.reader, "3rx")
    qtbot.keyClick(opened.viewer.__wrapped__.window._qt_viewer.canvas.native, Qt.Key.Key_3)
    assert opened.study.acts == ()
    assert opened.widget.reader.reader.text() == "3rx"


def test_acts_without_a_selection_say_so(opened):
    before = len(notification_manager.records)
    opened.key(Qt.Key.Key_1)
    opened.key(Qt.Key.Key_X)
    opened.key(Qt.Key.Key_Z, CTRL)
    assert opened.warned(before) == [text("gallery.why.select")] * 2 + [text("edit.why.no_undo")]
    buttons = opened.widget.acts.buttons
    assert not buttons["confirm"].isEnabled()
    assert buttons["confirm"].toolTip() == text("gallery.why.select")
    opened.click(0)
    assert buttons["confirm"].isEnabled()
    opened.qtbot.mouseClick(buttons["confirm"], Qt.MouseButton.LeftButton)
    assert opened.obs["label"].iloc[0] == "neutrophil"
    assert buttons["undo"].isEnabled()


def test_a_study_that_cannot_be_written_is_only_looked_at(opened):
    path = opened.study.path
    opened.session.close_study()
    opened.session.show(Study.open(path, read_only=True))
    opened.click(0)
    before = len(notification_manager.records)
    opened.key(Qt.Key.Key_1)
    assert opened.warned(before) == [text("edit.why.read_only", name=opened.study.name)]
    assert opened.study.acts == ()


def test_cells_stay_in_their_place_until_update(opened):
    opened.widget.choice.show_.setCurrentIndex(opened.widget.choice.show_.findText("Neutrophil (4)"))
    assert opened.model.rowCount() == 4
    opened.click(1)
    named = opened.cell(1)
    opened.key(Qt.Key.Key_2)
    assert opened.model.rowCount() == 4, "it does not jump away"
    assert opened.cell(1) == named
    assert opened.widget.choice.update_.isVisible()
    opened.qtbot.mouseClick(opened.widget.choice.update_, Qt.MouseButton.LeftButton)
    assert opened.model.rowCount() == 3
    assert opened.widget.choice.update_.isHidden()
    assert opened.widget.choice.show_.currentText() == "Neutrophil (3)"


def test_the_selection_of_others_can_be_what_is_shown(opened):
    ids = list(opened.obs.index)
    opened.session.select(*ids[:5])
    opened.widget.choice.show_.setCurrentIndex(1)
    assert [opened.cell(place) for place in range(opened.model.rowCount())] == ids[:5]
    opened.click(2)
    assert opened.session.selected == (ids[2],)
    assert opened.model.rowCount() == 5, "a click here chooses among them"
    opened.key(Qt.Key.Key_1)
    assert opened.model.rowCount() == 5
    opened.session.select(*ids[7:9])
    assert [opened.cell(place) for place in range(opened.model.rowCount())] == ids[7:9]


def test_the_chosen_gate_is_shown(opened):
    gating = gating_of(opened.session)
    key = gating.add(RangeGate(name="sure", axes=("confidence",), range_min=0.7))
    opened.widget.content.choose(Choice("gate"))
    wanted = opened.obs.index[opened.obs["confidence"] >= 0.7].tolist()
    assert [opened.cell(place) for place in range(opened.model.rowCount())] == wanted
    assert opened.widget.choice.show_.currentText() == text("gallery.show.gate_named", name="sure")
    gating.change(key, RangeGate(name="sure", axes=("confidence",), range_min=0.8))
    assert opened.model.rowCount() == (opened.obs["confidence"] >= 0.8).sum()
    opened.session.gate = ""
    assert opened.model.rowCount() == 0
    assert opened.view.empty == text("gallery.empty.no_gate")


def test_the_list_of_classes_is_edited_and_kept(opened, qtbot):
    classes = opened.widget.classes
    names = classes.names()
    model = classes.list.model()
    model.moveRow(classes.list.rootIndex(), 2, classes.list.rootIndex(), 0)
    assert classes.names()[:3] == [names[2], names[0], names[1]]
    opened.click(0)
    opened.key(Qt.Key.Key_1)
    assert opened.obs["label"].iloc[0] == names[2]
    classes.list.setCurrentRow(8)
    qtbot.mouseClick(classes.remove, Qt.MouseButton.LeftButton)
    assert len(classes.names()) == 8
    opened.click(1)
    classes.more.setEditText("Sézary cell")
    qtbot.mouseClick(classes.assign, Qt.MouseButton.LeftButton)
    assert opened.obs["label"].iloc[1] == "Sézary cell"
    assert classes.names()[-1] == "Sézary cell"
    assert "Sézary cell" in opened.study.palette
    assert opened.border(1) == opened.study.palette["Sézary cell"]
    assert opened.view.window().focusWidget() is opened.view, "keys go on"
    kept = classes.names()
    other = GalleryWidget(opened.viewer)
    assert other.classes.names() == kept
    other.close()
    other.deleteLater()


def test_a_double_click_on_a_class_names_cells(opened, qtbot):
    opened.click(0)
    classes = opened.widget.classes.list
    where = classes.visualItemRect(classes.item(1)).center()
    qtbot.mouseClick(classes.viewport(), Qt.MouseButton.LeftButton, pos=where)
    qtbot.mouseDClick(classes.viewport(), Qt.MouseButton.LeftButton, pos=where)
    assert opened.obs["label"].iloc[0] == opened.widget.classes.names()[1]


def test_the_reader_is_kept_with_each_act(opened, qtbot):
    field = opened.widget.reader.reader
    field.setFocus()
    qtbot.keyClicks(field, " Ada  Lovelace ")
    qtbot.keyClick(field, Qt.Key.Key_Return)
    assert opened.session.reader == "Ada Lovelace"
    opened.click(0)
    opened.key(Qt.Key.Key_1)
    opened.key(Qt.Key.Key_R)
    assert [act.who for act in opened.study.acts] == ["Ada Lovelace"] * 2
    assert opened.obs["label_by"].iloc[0] == "Ada Lovelace"


def test_a_blinded_reader_sees_nothing_of_the_other(opened, qtbot):
    opened.session.reader = "Ada"
    opened.click(0)
    opened.key(Qt.Key.Key_3)
    assert opened.border(0) == describe("monocyte").colour
    opened.session.reader = "Ben"
    qtbot.mouseClick(opened.widget.reader.blind, Qt.MouseButton.LeftButton)
    assert opened.session.blind
    assert opened.border(0) == describe("neutrophil").colour
    assert opened.widget.acts.reviewed.text() == text("gallery.reviewed", seen=0, count=12)
    assert "Ada" not in opened.model.data(opened.model.index(0), Qt.ItemDataRole.ToolTipRole)
    before = len(notification_manager.records)
    opened.key(Qt.Key.Key_Z, CTRL)
    assert opened.warned(before) == [text("gallery.why.others")], "the label of Ada is neither seen nor taken back"
    opened.click(0)
    opened.key(Qt.Key.Key_2)
    opened.key(Qt.Key.Key_Z, CTRL)
    opened.key(Qt.Key.Key_Z, CTRL | SHIFT)
    assert labels_by_reader(opened.study).loc[opened.cell(0)].to_dict() == {"Ada": "monocyte", "Ben": "lymphocyte"}
    opened.widget.tabs.setCurrentIndex(1)
    assert opened.widget.readers.kappa.text() == text("readers.blind")
    assert opened.widget.readers.view.isHidden()


def test_two_readers_side_by_side(opened, qtbot):
    readers, ids = opened.widget.readers, list(opened.obs.index)
    opened.widget.tabs.setCurrentIndex(1)
    assert readers.kappa.text() == text("readers.none")
    opened.study.label(ids[:8], ["blast"] * 4 + ["monocyte"] * 4, who="Ada")
    opened.study.label(ids[:8], ["blast"] * 3 + ["monocyte"] * 4 + ["blast"], who="Ben")
    opened.session.revision += 1
    assert (readers.first.currentText(), readers.second.currentText()) == ("Ada", "Ben")
    labels = labels_by_reader(opened.study)
    found = agreement(labels["Ada"], labels["Ben"])
    assert f"{found.kappa:.2f}" in readers.kappa.text()
    assert f"{found.low:.2f} to {found.high:.2f}" in readers.kappa.text()
    shown = [[readers.table.item(row, column).text() for column in range(2)] for row in range(2)]
    assert shown == [["3", "1"], ["1", "3"]]
    assert readers.model.cells(np.arange(readers.model.rowCount())) == (ids[3], ids[7])
    assert readers.view.tiles.second == {ids[3]: ("blast", "monocyte"), ids[7]: ("monocyte", "blast")}
    opened.click(1, view=readers.view)
    assert opened.session.selected == (ids[7],)
    assert opened.view.chosen_places().tolist() == [7], "the gallery follows"
    opened.session.reader = "Ben"
    opened.key(Qt.Key.Key_3, view=readers.view)
    assert opened.obs.loc[ids[7], "label"] == "monocyte"
    assert readers.model.cells(np.arange(readers.model.rowCount())) == (ids[3],), "settled"


def test_cells_without_a_picture_are_shown_and_the_reason_said(window, make_study, qtbot):
    study = make_study()
    study.locate(study.fields[0]).unlink()
    window.session.show(study)
    qtbot.waitUntil(lambda: not window.widget.note.isHidden(), timeout=20_000)
    assert "field1.png" in window.widget.note.text()
    window.click(0)
    window.key(Qt.Key.Key_1)
    assert window.obs["label"].iloc[0] != "", "they can be named all the same"


def test_only_what_is_in_sight_is_made(opened, qtbot):
    opened.widget.choice.side.setValue(5)
    asked = []
    opened.widget.thumbnails.want = lambda cells: asked.append(tuple(cells))
    opened.view.scrollToTop()
    opened.view.viewport().repaint()
    qtbot.waitUntil(lambda: bool(asked), timeout=5_000)
    first, end = opened.view.in_sight()
    assert end < 12
    assert asked[-1][: end - first] == opened.model.cells(np.arange(first, end))
    assert len(asked[-1]) <= 2 * (end - first)


def test_pictures_that_are_out_of_room_go(opened, qtbot, monkeypatch):
    monkeypatch.setattr("napari_dinobloom.ui.gallery.thumbnails.ROOM", 0)
    monkeypatch.setattr("napari_dinobloom.ui.gallery.thumbnails.BATCH", 2)
    opened.widget.choice.side.setValue(0)
    opened.view.viewport().repaint()
    qtbot.waitUntil(lambda: opened.widget.thumbnails.kept == 4, timeout=20_000)


def test_nothing_is_left_behind(make_napari_viewer_proxy, make_study, qtbot):
    viewer = make_napari_viewer_proxy(strict_qt="raise")
    session = session_of(viewer)
    before = {name: len(getattr(session.events, name)) for name in ("selected", "revision", "hover", "gate", "blind")}
    widget = GalleryWidget(viewer)
    session.show(make_study())
    qtbot.waitUntil(lambda: not widget.thumbnails.busy, timeout=20_000)
    widget.close()
    widget.deleteLater()
    qtbot.wait(50)
    after = {name: len(getattr(session.events, name)) for name in before}
    assert after == {**before, "gate": after["gate"]}, "what the gates listen to is theirs"
    session.select()
    session.revision += 1
    session.close_study()
