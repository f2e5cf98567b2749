"""The Segment and crop window in a whole viewer: each tool by the mouse, on a real small study."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from painted import CENTRES, HEIGHT, WIDTH, FakeRun
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

from napari_dinobloom.cells.crop import CropPolicy, crop
from napari_dinobloom.cells.segmenter import licence_of
from napari_dinobloom.io.smear import write_picture
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline import driver, edits
from napari_dinobloom.progress import drain
from napari_dinobloom.ui import layers
from napari_dinobloom.ui.images import tag
from napari_dinobloom.ui.previews import crops_of
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.segment_widget import SegmentWidget

pytestmark = pytest.mark.gui

PLACES = {
    "plain": {},
    "scaled": {"scale": (0.1, 0.1), "units": ("um", "um"), "translate": (3, 4)},
}
everywhere = pytest.mark.parametrize("opened", PLACES.values(), ids=PLACES.keys(), indirect=True)

EMPTY = (20, 90)
"""Where there is no cell."""


class Window:
    """A viewer with the widget, an image and the cells of its study."""

    def __init__(self, viewer, widget, qtbot):
        self.viewer, self.widget, self.qtbot = viewer, widget, qtbot
        self.session = session_of(viewer)
        self.canvas = viewer.__wrapped__.window._qt_viewer.canvas

    def show(self, study: Study, image: np.ndarray, **place) -> None:
        """Open `study` and lay its cells over the image."""
        stack = image.ndim == 4
        self.image = self.viewer.add_image(image, rgb=True, name="smear", **place)
        built = layers.cell_layer(study, [r.id for r in study.fields], name="smear", stack=stack)
        self.session.show(study)
        self.cells = layers.show(self.viewer, self.image, built)
        self.session.revision += 1

    @property
    def study(self) -> Study:
        return self.session.study

    def at(self, point) -> QPoint:
        """Where the canvas shows a pixel of the image."""
        if len(point) < self.image.ndim:
            point = (round(self.viewer.dims.point[0]), *point)
        world = self.image.data_to_world(point)
        x, y = self.canvas.view.scene.transform.map([world[-1], world[-2]])[:2]
        return QPoint(round(x), round(y))

    def click(self, point, shift=False) -> None:
        modifier = Qt.KeyboardModifier.ShiftModifier if shift else Qt.KeyboardModifier.NoModifier
        self.qtbot.mouseClick(self.canvas.native, Qt.MouseButton.LeftButton, modifier, self.at(point))

    def drag(self, one, other) -> None:
        left, native = Qt.MouseButton.LeftButton, self.canvas.native
        self.qtbot.mousePress(native, left, pos=self.at(one))
        ends = [QPointF(self.at(point)) for point in (one, other)]
        for share in (0.3, 0.7, 1.0):  # qtbot's own moves hold no button down
            pos, none = ends[0] + share * (ends[1] - ends[0]), Qt.MouseButton.NoButton
            moved = (QEvent.Type.MouseMove, pos, native.mapToGlobal(pos), none, left, Qt.KeyboardModifier.NoModifier)
            QApplication.sendEvent(native, QMouseEvent(*moved))
        self.qtbot.mouseRelease(native, left, pos=ends[1].toPoint())

    def press(self, name: str) -> None:
        """Click one of the tool buttons."""
        button = self.widget.correction.buttons[name]
        assert button.isEnabled(), button.toolTip()
        self.qtbot.mouseClick(button, Qt.MouseButton.LeftButton)

    def why_not(self, name: str) -> str:
        """Why a tool button is disabled; empty when it is not."""
        button = self.widget.correction.buttons[name]
        return "" if button.isEnabled() else button.toolTip().partition(": ")[2]

    def check(self) -> None:
        """Everything on show is what the study holds."""
        study = self.study
        obs = study.cells.obs[~study.cells.obs["deleted"]]
        fresh = layers.cell_layer(study, tag(self.cells)["fields"], name="", stack=self.cells.ndim == 3)
        np.testing.assert_array_equal(np.asarray(self.cells.data), np.asarray(fresh[0]))
        assert list(self.cells.features["cell_id"]) == list(obs.index)
        values = self.cells.features["index"].to_numpy(self.cells.dtype)
        np.testing.assert_allclose(self.cells.colormap.map(values), fresh[1]["colormap"].map(values))
        np.testing.assert_array_equal(tag(self.cells)["boxes"], tag_of(fresh)["boxes"])
        assert self.widget.cells.count.text() == text("cells.count", count=len(obs))

    def living(self) -> list[str]:
        obs = self.study.cells.obs
        return list(obs.index[~obs["deleted"]])


def tag_of(built):
    (mark,) = built[1]["metadata"].values()
    return mark


@pytest.fixture
def window(make_napari_viewer_proxy, tmp_path, monkeypatch, qtbot):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    viewer = make_napari_viewer_proxy(strict_qt="raise", show=True)
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Segment and crop")
    viewer.window.resize(900, 620)
    yield Window(viewer, widget, qtbot)
    qtbot.waitUntil(lambda: widget.crops._worker is None, timeout=20_000)
    session_of(viewer).close_study()


@pytest.fixture
def fake_outcome(monkeypatch):
    """Put a `FakeRun` in the place of the pipeline's driver."""
    fake = FakeRun()

    def iter_outcome(inputs, out, **asked):
        study = yield from fake(inputs, out, specimen="blood", **asked)
        study.close()
        return driver.Outcome(study, None, [("blurred.png", "cannot be read.")])

    monkeypatch.setattr(driver, "iter_outcome", iter_outcome)
    return fake


@pytest.fixture
def opened(window, make_study, smear, request):
    """The window with a study of one painted field; a parameter says where in the world it lies."""
    window.show(make_study(), smear, **getattr(request, "param", {}))
    return window


@everywhere
def test_a_click_with_the_tool_adds_a_cell_and_undo_takes_it_back(opened):
    before = np.array(opened.cells.data)
    opened.press("add")
    opened.click(EMPTY)
    assert len(opened.living()) == 4
    new = opened.living()[-1]
    assert opened.session.selected == (new,)
    assert opened.cells.data[EMPTY] == layers.value_of(opened.cells, new)
    opened.check()
    assert opened.widget.correction.buttons["add"].isChecked(), "the tool stays in the hand"
    opened.press("undo")
    np.testing.assert_array_equal(opened.cells.data, before)
    assert opened.session.selected == ()
    opened.check()
    opened.press("redo")
    assert opened.living()[-1] == new
    opened.check()


def test_a_drag_with_the_add_tool_is_left_to_the_camera(opened):
    camera = opened.viewer.scene.camera
    opened.press("add")
    assert camera.mouse_pan
    opened.drag(EMPTY, (40, 60))
    assert len(opened.living()) == 3
    opened.press("box")
    assert not camera.mouse_pan
    opened.press("box")
    assert camera.mouse_pan


@everywhere
def test_a_box_adds_a_cell(opened):
    opened.press("box")
    opened.drag((12, 80), (28, 100))
    assert len(opened.living()) == 4
    y0, x0, y1, x1 = opened.study.cells.obs.loc[opened.living()[-1], ["y0", "x0", "y1", "x1"]]
    assert y0 >= 11
    assert x0 >= 79
    assert y1 <= 30
    assert x1 <= 102
    opened.check()
    opened.click(EMPTY)
    assert len(opened.living()) == 4, "a click draws no box"


def test_escape_puts_the_tool_down(opened, qtbot):
    ours = len(opened.viewer.layers)
    for widget in (opened.canvas.native, opened.widget.correction.buttons["box"]):
        opened.press("box")
        assert len(opened.viewer.layers) == ours + 1
        widget.setFocus()
        qtbot.keyClick(widget, Qt.Key.Key_Escape)
        assert not opened.widget.correction.buttons["box"].isChecked()
        assert len(opened.viewer.layers) == ours
        assert opened.viewer.layers.selection.active.name == "smear"
    opened.press("box")
    opened.viewer.layers.selection.active = opened.viewer.layers["smear"]
    assert not opened.widget.correction.buttons["box"].isChecked(), "the user went to another layer"
    opened.press("box")
    (tool,) = [layer for layer in opened.viewer.layers if tag(layer).get("role") == "tool"]
    opened.viewer.layers.remove(tool)
    assert not opened.widget.correction.buttons["box"].isChecked(), "the user removed our layer"


def test_delete_several(opened):
    opened.click(CENTRES[0])
    opened.click(CENTRES[1], shift=True)
    opened.click(CENTRES[2], shift=True)
    opened.click(CENTRES[2], shift=True)
    first, second, third = opened.living()
    assert opened.session.selected == (first, second)
    opened.press("delete")
    assert opened.living() == [third]
    assert opened.session.selected == ()
    assert set(np.unique(opened.cells.data)) == {0, 3}
    assert opened.widget.cells.count.text() == text("cells.count", count=1)
    opened.press("undo")
    assert opened.living() == [first, second, third]
    opened.check()


@everywhere
def test_split_with_a_line_then_merge_again(opened):
    opened.click(CENTRES[1])
    (cell,) = opened.session.selected
    old = np.array(opened.cells.data)
    area = int((old == 2).sum())
    opened.press("split")
    opened.drag((30, 88), (66, 92))
    assert cell not in opened.living()
    parts = opened.session.selected
    assert len(parts) == 2
    sizes = [int((opened.cells.data == layers.value_of(opened.cells, part)).sum()) for part in parts]
    assert sum(sizes) == area
    assert min(sizes) > area / 3
    assert not opened.widget.correction.buttons["split"].isChecked(), "one cut, then it is put down"
    opened.check()
    opened.press("merge")
    (merged,) = opened.session.selected
    assert int((opened.cells.data == layers.value_of(opened.cells, merged)).sum()) == area
    opened.check()
    for _ in range(2):
        opened.press("undo")
    np.testing.assert_array_equal(opened.cells.data, old)
    opened.check()


def test_a_line_beside_the_cell_says_so_and_changes_nothing(opened):
    opened.click(CENTRES[1])
    records, before = len(notification_manager.records), opened.living()
    opened.press("split")
    opened.drag((6, 6), (10, 40))
    assert opened.living() == before
    assert len(notification_manager.records) == records + 1
    assert not opened.study.can_undo


def test_exclude_shows_and_takes_back(opened):
    opened.click(CENTRES[0])
    opened.press("exclude")
    (cell,) = opened.session.selected
    assert opened.study.cells.obs.at[cell, "excluded"]
    assert opened.cells.colormap.map(np.uint16(1))[3] == pytest.approx(layers.FADED)
    assert opened.cells.colormap.map(np.uint16(2))[3] == 1
    assert "1 excluded" in opened.widget.cells.flags.text()
    assert opened.widget.correction.buttons["exclude"].toolTip() == tip("edit.include")
    opened.check()
    opened.press("exclude")
    assert not opened.study.cells.obs.at[cell, "excluded"]
    assert opened.widget.cells.flags.isHidden()
    opened.check()


@everywhere
def test_repaint_with_the_brush(opened):
    opened.click(CENTRES[0])
    (cell,) = opened.session.selected
    before = np.array(opened.cells.data)
    opened.press("repaint")
    correction = opened.widget.correction
    (layer,) = [layer for layer in opened.viewer.layers if tag(layer).get("role") == "tool"]
    assert layer.mode == "paint"
    assert layer.selected_label == 1
    painted = (CENTRES[0][0] - 12, CENTRES[0][1])
    assert opened.cells.data[painted] == 0
    np.testing.assert_allclose(layer.world_to_data(opened.image.data_to_world(CENTRES[0]))[-2:] % 1, 0, atol=1e-6)
    opened.click(painted)
    assert opened.cells.data[painted] == 0, "nothing is changed before it is applied"
    assert opened.why_not("delete") == text("edit.why.painting")
    opened.qtbot.mouseClick(correction.apply, Qt.MouseButton.LeftButton)
    assert opened.cells.data[painted] == 1
    assert (opened.cells.data[before > 0] == before[before > 0]).all()
    assert opened.session.selected == (cell,)
    assert not [layer for layer in opened.viewer.layers if tag(layer).get("role") == "tool"]
    opened.check()
    opened.press("repaint")
    opened.click((CENTRES[0][0] + 12, CENTRES[0][1]))
    opened.qtbot.mouseClick(correction.discard, Qt.MouseButton.LeftButton)
    assert opened.cells.data[CENTRES[0][0] + 12, CENTRES[0][1]] == 0
    opened.press("undo")
    np.testing.assert_array_equal(opened.cells.data, before)
    opened.check()


def test_a_cell_can_be_erased_within_its_box(opened):
    """The box stays, its pixels change: undo must bring them back."""
    opened.click(CENTRES[1])
    before = np.array(opened.cells.data)
    opened.press("repaint")
    (layer,) = [layer for layer in opened.viewer.layers if tag(layer).get("role") == "tool"]
    layer.mode = "erase"
    opened.click(CENTRES[1])
    opened.qtbot.mouseClick(opened.widget.correction.apply, Qt.MouseButton.LeftButton)
    assert opened.cells.data[CENTRES[1]] == 0
    opened.check()
    opened.press("undo")
    np.testing.assert_array_equal(opened.cells.data, before)


def test_keys_act_while_the_panel_has_the_focus(opened, qtbot):
    opened.click(CENTRES[0])
    qtbot.keyClick(opened.canvas.native, Qt.Key.Key_Delete)
    assert len(opened.living()) == 3, "the canvas is not ours while no tool is in the hand"
    assert "smear" in [layer.name for layer in opened.viewer.layers]
    button = opened.widget.correction.buttons["delete"]
    button.setFocus()
    qtbot.keyClick(button, Qt.Key.Key_Delete)
    assert len(opened.living()) == 2
    button = opened.widget.correction.buttons["undo"]
    button.setFocus()
    qtbot.keyClick(button, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert len(opened.living()) == 3


def test_napari_s_own_undo_does_not_reach_our_pixels(opened, qtbot):
    opened.click(CENTRES[0])
    opened.press("delete")
    opened.viewer.layers.selection.active = opened.cells
    qtbot.keyClick(opened.canvas.native, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    opened.check()


def test_tools_say_why_they_are_disabled(window, make_study, smear):
    names = window.widget.correction.buttons
    assert {window.why_not(name) for name in names} == {text("edit.why.no_study")}
    window.show(make_study(), smear)
    assert window.why_not("add") == window.why_not("box") == ""
    assert window.why_not("delete") == window.why_not("exclude") == text("edit.why.select")
    assert window.why_not("split") == window.why_not("repaint") == text("edit.why.select_one")
    assert window.why_not("merge") == text("edit.why.select_two")
    assert window.why_not("undo") == text("edit.why.no_undo")
    assert window.why_not("redo") == text("edit.why.no_redo")
    window.session.select(*window.living())
    assert window.why_not("merge") == window.why_not("delete") == ""
    assert window.why_not("split") == text("edit.why.select_one")
    window.viewer.layers.remove(window.cells)
    assert window.why_not("add") == text("edit.why.no_layer")


def test_a_study_that_another_process_holds_is_only_shown(window, make_study, smear, monkeypatch):
    study = make_study()
    study.close()
    ready, done = multiprocessing.Event(), multiprocessing.Event()
    holder = threading.Thread(target=_hold, args=(study.path, ready, done))
    holder.start()
    try:
        assert ready.wait(60)
        window.show(Study.open(study.path), smear)
        assert window.study.held_by is not None
        why = text("edit.why.held", name=study.name, holder=window.study.held_by)
        assert {window.why_not(name) for name in window.widget.correction.buttons} == {why}
        assert window.widget.correction.help.text() == why
        window.click(CENTRES[0])
        assert len(window.session.selected) == 1, "looking is allowed"
    finally:
        done.set()
        holder.join()


def _hold(path, ready, done):
    """Hold a study open for writing until `done`."""
    with Study.open(path):
        ready.set()
        done.wait(60)


def test_two_images_of_one_name(window, tmp_path, smear):
    """Each act goes to the image that was clicked."""
    folder = tmp_path / "two"
    folder.mkdir()
    pictures = [smear, np.ascontiguousarray(smear[:, ::-1])]
    for number, picture in enumerate(pictures):
        write_picture(folder / f"f{number}.png", picture)
    study = drain(FakeRun()(sorted(folder.glob("*.png")), tmp_path / "two.dinobloom", specimen="blood"))
    shown = []
    for record, picture, shift in zip(study.fields, pictures, (0, 200), strict=True):
        image = window.viewer.add_image(picture, rgb=True, name="smear", translate=(0, shift))
        image.name = "smear"
        built = layers.cell_layer(study, [record.id], name="smear", stack=False)
        window.session.show(study)
        shown.append((image, layers.show(window.viewer, image, built), record.id))
    window.viewer.reset_view()
    names = [image.name for image, _, _ in shown]
    for image, cells, field in shown:
        before = [np.array(layer.data) for _, layer, _ in shown]
        window.image, window.cells = image, cells
        window.press("add")
        window.click((8, 64))
        window.press("add")
        (new,) = window.session.selected
        assert new.startswith(f"{field}:")
        for (_, layer, other), old in zip(shown, before, strict=True):
            assert (layer.data != old).any() == (other == field)
    assert [image.name for image, _, _ in shown] == names


def test_in_a_stack_an_act_goes_to_the_plane_on_show(window, make_study, smear):
    window.show(make_study(0, 20), np.stack([smear, np.roll(smear, 20, axis=1)]), scale=(1, 0.5, 0.5))
    second = window.study.fields[1].id
    window.viewer.dims.set_point(0, 1)
    window.press("add")
    window.click((14, 100))
    (new,) = window.session.selected
    assert new.startswith(f"{second}:")
    window.check()
    window.viewer.dims.set_point(0, 0)
    window.click((14, 100))
    assert window.session.selected[0].startswith(f"{window.study.fields[0].id}:")
    window.check()
    window.press("add")
    window.viewer.dims.set_point(0, 1)
    y, x = CENTRES[1]
    window.click((y, x + 20))
    window.press("repaint")
    window.click((y - 14, x + 20))
    window.qtbot.mouseClick(window.widget.correction.apply, Qt.MouseButton.LeftButton)
    assert np.asarray(window.cells.data)[1, y - 14, x + 20] > 0
    window.check()


def test_a_large_field_is_read_in_a_second_thread(opened, monkeypatch):
    monkeypatch.setattr("napari_dinobloom.ui.correction.LARGE_FIELD", 1)
    threads = []
    add_at = edits.add_at

    def watched(*args):
        threads.append(threading.current_thread())
        return add_at(*args)

    monkeypatch.setattr(edits, "add_at", watched)
    opened.press("add")
    opened.click(EMPTY)
    assert opened.session.job is not None
    opened.qtbot.waitUntil(lambda: opened.session.job is None, timeout=20_000)
    assert threads[0] is not threading.main_thread()
    assert len(opened.living()) == 4
    opened.check()


def test_the_strip_shows_the_crops_of_the_selected_cells(opened):
    strip = opened.widget.crops
    assert strip.isHidden()
    opened.click(CENTRES[0])
    opened.click(CENTRES[2], shift=True)
    opened.qtbot.waitUntil(lambda: len(strip.pictures) == 2, timeout=20_000)
    assert [label.toolTip() for label in strip.pictures] == list(opened.session.selected)
    _, crops, problem = crops_of(opened.study, opened.session.selected)
    rows = opened.study.cells.obs.loc[list(opened.session.selected)]
    image = opened.study.read_field(opened.study.fields[0].id).image
    np.testing.assert_array_equal(crops, crop(image, rows, policy=CropPolicy()))
    assert problem == ""


def test_run_on_a_file_finds_and_shows_cells(window, smear_file, fake_outcome):
    window.viewer.open(smear_file, plugin="napari")
    widget = window.widget
    widget.form.view.setText("30,5")
    widget.form.blank.setChecked(True)
    window.qtbot.mouseClick(widget.job.start, Qt.MouseButton.LeftButton)
    window.qtbot.waitUntil(lambda: window.session.job is None, timeout=60_000)
    (call,) = fake_outcome.calls
    asked = {key: call[key] for key in ("until", "segmenter", "fov_um", "interpolation", "mask_neighbours")}
    assert asked == {
        "until": "crop",
        "segmenter": "learned",
        "fov_um": 30.5,
        "interpolation": "bilinear",
        "mask_neighbours": True,
    }
    assert call["inputs"] == [smear_file]
    (cells,) = [layer for layer in window.viewer.layers if tag(layer).get("role") == "cells"]
    assert len(cells.features) == 3
    assert widget.cells.count.text() == text("cells.count", count=3)
    assert widget.cells.scale.text() == text("cells.scale", size="0.5", source=text("cells.scale.user"))
    assert widget.cells.notes.text() == "blurred.png: cannot be read."
    assert window.why_not("add") == ""
    assert not window.study.read_only


def test_cancel_keeps_what_is_finished(window, smear_file, fake_outcome):
    window.viewer.open(smear_file, plugin="napari")
    go = threading.Event()
    fake_outcome.hold = lambda: go.wait(60)
    job = window.widget.job
    window.qtbot.mouseClick(job.start, Qt.MouseButton.LeftButton)
    window.qtbot.waitUntil(lambda: bool(fake_outcome.calls), timeout=60_000)
    assert window.why_not("add") == text("run.why.busy", job=text("job.segment"))
    window.qtbot.mouseClick(job.cancel, Qt.MouseButton.LeftButton)
    go.set()
    window.qtbot.waitUntil(lambda: window.session.job is None, timeout=60_000)
    assert job.status.text() == text("status.cancelled")
    assert window.why_not("add") == text("edit.why.no_study")
    assert job.start.isEnabled()


def test_a_labels_layer_brings_its_cells(window, smear_file, fake_outcome):
    window.viewer.open(smear_file, plugin="napari")
    form = window.widget.form
    form.segmenter.setCurrentIndex(form.segmenter.findData("labels"))
    assert window.widget.job.start.toolTip() == text("segment.why.no_labels")
    small = window.viewer.add_labels(np.ones((4, 4), np.int32), name="small")
    assert window.widget.job.start.toolTip() == text(
        "segment.why.size", name="small", found="4 × 4", wanted=f"{HEIGHT} × {WIDTH}"
    )
    window.viewer.layers.remove(small)
    drawn = np.zeros((HEIGHT, WIDTH), np.int32)
    drawn[10:30, 40:60] = 7
    window.viewer.add_labels(drawn, name="mine")
    window.qtbot.mouseClick(window.widget.job.start, Qt.MouseButton.LeftButton)
    window.qtbot.waitUntil(lambda: window.session.job is None, timeout=60_000)
    assert fake_outcome.calls[0]["segmenter"] == "brought"  # in the study, so that it may move
    place = window.study.path / "brought"
    np.testing.assert_array_equal(np.load(place / f"{smear_file.stem}.npy"), drawn)


def test_the_form_remembers_how_a_study_was_made(window, make_study, tmp_path):
    study, form = make_study(), window.widget.form
    marks = tmp_path / "marks"
    marks.mkdir()
    study.update(settings={"segmenter": str(marks), "fov_um": 25.0, "fov_diameters": 3.5, "interpolation": "lanczos"})
    form.folder.setText(str(study.path))
    assert form.segmenter.currentText() == text("segment.segmenter.kept", name="marks")
    settings = form.settings()
    assert settings.segmenter == str(marks)
    assert settings.crops == {"fov_diameters": 3.5, "interpolation": "lanczos", "mask_neighbours": False}
    form.folder.setText(str(tmp_path / "new.dinobloom"))


def test_consent_to_a_licence_is_asked_once(window, make_study, smear):
    window.viewer.add_image(smear, rgb=True)
    form, start = window.widget.form, window.widget.job.start
    form.segmenter.setCurrentIndex(form.segmenter.findData("cellpose"))
    assert start.toolTip() == text("segment.why.licence")
    form.licence.setChecked(True)
    assert start.isEnabled()
    assert form.settings().accept_licence
    study = make_study()
    study.update(settings={"segmenter": "cellpose", "accepted_licence": f"{licence_of('cellpose')}; accepted by ann"})
    form.licence.setChecked(False)
    form.folder.setText(str(study.path))
    assert start.isEnabled()
    assert not form.settings().accept_licence


def test_closing_the_dock_leaves_the_viewer_as_it_was(opened, qtbot):
    opened.click(CENTRES[0])
    opened.press("repaint")
    callbacks = len(opened.viewer.mouse_drag_callbacks)
    with qtbot.waitSignal(opened.widget.destroyed, timeout=5000):
        opened.viewer.window.remove_dock_widget(opened.widget)
        opened.widget.deleteLater()
    assert [layer.name for layer in opened.viewer.layers] == ["smear", text("layer.cells", name="smear")]
    assert len(opened.viewer.mouse_drag_callbacks) == callbacks - 1
    opened.session.revision += 1
    opened.session.select()
    opened.viewer.add_image(np.zeros((HEIGHT, WIDTH, 3), np.uint8), rgb=True)


def test_what_is_painted_goes_with_the_study_it_belongs_to(opened, tmp_path):
    opened.click(CENTRES[0])
    opened.press("repaint")
    assert opened.widget.correction.painting.active
    opened.session.close_study()
    assert not opened.widget.correction.painting.active
    assert not any(tag(layer).get("role") == "tool" for layer in opened.viewer.layers)


def test_the_form_forgets_what_another_study_was_made_with(window, make_study, tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    with make_study() as study:
        study.update(settings={**study.settings, "segmenter": str(marks), "accepted_licence": licence_of("cellpose")})
        path = study.path
    form = window.widget.form
    form.folder.setText(str(path))
    form.remember()
    assert form.segmenter.currentData() == str(marks)
    form.folder.setText(str(tmp_path / "new.dinobloom"))
    form.remember()
    assert form.segmenter.currentData() == "learned"
    assert form.segmenter.findData(str(marks)) < 0


def test_the_strip_goes_on_after_a_read_that_failed(opened, monkeypatch, qtbot):
    def fail(study, cells):
        raise OSError("the disk is gone")

    strip = opened.widget.crops
    with monkeypatch.context() as broken, qtbot.captureExceptions() as raised:  # the worker also raises it for napari
        broken.setattr("napari_dinobloom.ui.widgets.crop_strip.crops_of", fail)
        broken.setattr(notification_manager, "dispatch", lambda *args: None)
        opened.session.select(opened.living()[0])
        qtbot.waitUntil(lambda: "the disk is gone" in strip.note.text() and len(raised) > 0)
    assert strip.pictures == []
    opened.session.select(opened.living()[1])
    qtbot.waitUntil(lambda: len(strip.pictures) == 1)
