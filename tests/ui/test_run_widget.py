"""The run widget in a whole viewer, with clicks."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from painted import CENTRES
from qtpy.QtCore import QPoint, Qt

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.study import Study
from napari_dinobloom.ui import jobs
from napari_dinobloom.ui.images import tag
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.run_widget import RunWidget

pytestmark = pytest.mark.gui


@pytest.fixture
def dock(make_napari_viewer_proxy, tmp_path, monkeypatch, request):
    """A viewer with the widget docked; a parameter says whether its window is on the screen."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    viewer = make_napari_viewer_proxy(strict_qt="raise", show=getattr(request, "param", False))
    widget = RunWidget(viewer)
    viewer.window.add_dock_widget(widget, name="DinoBloom")
    return viewer, widget


@pytest.fixture
def press(qtbot):
    """Click a button with the mouse and wait for the job to end."""

    def press(widget, button, *, wait=True):
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
        if wait:
            qtbot.waitUntil(lambda: widget._session.job is None, timeout=20_000)

    return press


def click(qtbot, canvas, world):
    """Click with the mouse where the canvas shows a point of the world."""
    x, y = canvas.view.scene.transform.map([world[1], world[0]])[:2]
    qtbot.mouseClick(canvas.native, Qt.MouseButton.LeftButton, pos=QPoint(round(x), round(y)))


def cells_of(viewer):
    return [layer for layer in viewer.layers if tag(layer).get("role") == "cells"]


def test_the_disclaimer_is_always_in_sight(dock):
    _, widget = dock
    assert widget.disclaimer.text() == "Research use, not for diagnosis"
    assert widget.disclaimer.parent() is widget, "it does not scroll away"
    assert not widget.disclaimer.isHidden()


def test_buttons_say_why_they_are_disabled(dock, smear, fake_run):
    viewer, widget = dock
    assert not widget.job.start.isEnabled()
    assert widget.job.start.toolTip() == widget.job.status.text() == text("run.why.no_image")
    assert not widget.job.cancel.isEnabled()
    assert widget.job.cancel.toolTip() == text("run.why.idle")
    viewer.add_image(smear[..., 0], name="grey")
    assert widget.job.start.toolTip() == text("image.grey", name="grey")
    viewer.add_image(smear, rgb=True, name="smear")
    assert widget.form.image.currentText() == "smear", "the layer that is active is chosen"
    assert widget.job.start.isEnabled()
    assert widget.job.start.toolTip() == tip("run.start")
    widget.form.pixel.setText("zero")
    assert widget.job.start.toolTip() == text("run.why.pixel")
    widget.form.pixel.setText("0,1")
    assert widget.job.start.isEnabled()
    widget.form.folder.clear()
    assert widget.job.start.toolTip() == text("run.why.no_folder")


def test_a_folder_that_is_no_study_cannot_be_chosen(dock, smear, tmp_path):
    viewer, widget = dock
    viewer.add_image(smear, rgb=True)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.txt").write_text("a")
    widget.form.folder.setText(str(tmp_path / "thesis"))
    assert widget.job.start.toolTip() == text("run.why.not_a_study", folder="thesis")
    (tmp_path / "empty").mkdir()
    widget.form.folder.setText(str(tmp_path / "empty"))
    assert widget.job.start.isEnabled()


def test_run_on_a_file_shows_cells_table_and_status(dock, smear_file, fake_run, press):
    viewer, widget = dock
    viewer.open(smear_file, plugin="napari")
    assert widget.form.folder.text() == str(smear_file.with_name("field.dinobloom"))
    press(widget, widget.job.start)
    (call,) = fake_run.calls
    assert call == {
        "inputs": [smear_file],
        "out": smear_file.with_name("field.dinobloom"),
        "encoder": "starter",
        "specimen": "blood",
        "pixel_size_um": None,
    }
    (cells,) = cells_of(viewer)
    assert len(cells.features) == 3
    table = widget.results.table
    rows = [[table.item(row, column).text() for column in range(4)] for row in range(table.rowCount())]
    assert [row[:3] for row in rows] == [
        ["Neutrophil", "1", "33"],
        ["Lymphocyte", "1", "33"],
        ["Monocyte", "1", "33"],
    ]
    assert all("–" in row[3] for row in rows)
    assert not widget.results.isHidden()
    assert "found: 3, counted: 3." in widget.results.summary.text()
    assert widget.job.status.text().startswith("Done")
    assert widget.results.report.isEnabled()
    assert session_of(viewer).study.path == smear_file.with_name("field.dinobloom")


def test_the_table_counts_as_the_study_does(dock, smear_file, fake_run, press):
    viewer, widget = dock
    viewer.open(smear_file, plugin="napari")
    press(widget, widget.job.start)
    session = session_of(viewer)
    study = session.study
    study.label(study.cells.obs_names[0], "neutrophil_band")
    study.update(settings=study.settings | {"scheme": "five-part", "count": "reviewed"})
    jobs.recount(session)
    table = widget.results.table
    assert [table.item(0, column).text() for column in range(3)] == ["Neutrophil", "1", "100"]
    assert table.rowCount() == 1
    assert "counted: 1 (2 not reviewed)." in widget.results.summary.text()
    study.update(settings=study.settings | {"scheme": "gone.yaml"})
    jobs.recount(session)
    assert "gone.yaml" in session.message
    assert table.rowCount() == 1, "the last count stands"


def test_the_pixel_size_and_the_specimen_reach_the_pipeline(dock, smear, fake_run, press):
    viewer, widget = dock
    viewer.add_image(smear, rgb=True, name="a", scale=(0.1, 0.1), units=("um", "um"))
    assert widget.form.pixel.placeholderText() == text("run.pixel.from_layer", size=0.1)
    widget.form.specimen.setCurrentIndex(1)
    press(widget, widget.job.start)
    assert fake_run.calls[0]["pixel_size_um"] == pytest.approx(0.1)
    assert fake_run.calls[0]["specimen"] == "marrow"
    widget.form.pixel.setText("0,25")
    press(widget, widget.job.start)
    assert fake_run.calls[1]["pixel_size_um"] == 0.25


def test_a_second_run_takes_the_same_layer(dock, smear, fake_run, press):
    viewer, widget = dock
    viewer.add_image(smear, rgb=True, name="a")
    press(widget, widget.job.start)
    press(widget, widget.job.start)
    assert len(fake_run.calls) == 2
    assert len(cells_of(viewer)) == 1
    assert widget.job.status.text().startswith("Done")


def test_a_stack_of_fields(dock, smear, fake_run, press):
    viewer, widget = dock
    viewer.add_image(np.stack([smear, np.roll(smear, 9, axis=1)]), rgb=True, name="stack")
    press(widget, widget.job.start)
    assert len(fake_run.calls[0]["inputs"]) == 2
    (cells,) = cells_of(viewer)
    assert cells.data.shape == (2, *smear.shape[:2])
    assert len(cells.features) == 6


def test_two_layers_of_one_name(dock, smear, fake_run, press):
    viewer, widget = dock
    viewer.add_image(smear, rgb=True, name="smear")
    second = viewer.add_image(np.roll(smear, 9, axis=1), rgb=True, name="smear", translate=(0, 200))
    second.name = "smear"
    press(widget, widget.job.start)
    (cells,) = cells_of(viewer)
    assert tuple(cells.translate) == (0, 200)
    viewer.layers.selection.active = viewer.layers[0]
    press(widget, widget.job.start)
    assert len(cells_of(viewer)) == 2
    assert len(set(fake_run.calls[0]["inputs"] + fake_run.calls[1]["inputs"])) == 2


def test_cancel_keeps_the_study_and_run_goes_on(dock, smear, fake_run, press, qtbot):
    viewer, widget = dock
    viewer.add_image(smear, rgb=True, name="a")
    go = threading.Event()
    fake_run.hold = lambda: go.wait(20)
    press(widget, widget.job.start, wait=False)
    qtbot.waitUntil(lambda: bool(fake_run.calls) and widget.job.status.text().startswith("Segment"), timeout=20_000)
    assert not widget.job.start.isEnabled()
    assert widget.job.start.toolTip() == text("run.why.busy", job=text("job.run"))
    assert not widget.job.bar.isHidden()
    qtbot.mouseClick(widget.job.cancel, Qt.MouseButton.LeftButton)
    assert widget.job.status.text() == text("status.cancelling")
    go.set()
    qtbot.waitUntil(lambda: widget._session.job is None, timeout=20_000)
    assert widget.job.status.text() == text("status.cancelled")
    assert fake_run.closed == 1
    assert not cells_of(viewer)
    with Study.open(fake_run.calls[0]["out"]) as study:
        assert not study.read_only, "the lock was given back"
    press(widget, widget.job.start)
    assert len(cells_of(viewer)) == 1


def test_an_error_is_shown_with_what_to_do(dock, smear, fake_run, press):
    viewer, widget = dock
    viewer.add_image(smear, rgb=True, name="a")
    fake_run.fail = StudyError("a.png: is damaged. Copy it again.")
    before = len(notification_manager.records)
    press(widget, widget.job.start)
    assert notification_manager.records[before].message == str(fake_run.fail)
    assert widget.job.status.text() == text("status.failed", message=fake_run.fail)
    assert widget.job.start.isEnabled()


def test_a_study_that_another_process_holds_is_not_touched(dock, smear, fake_run, press):
    viewer, widget = dock
    viewer.add_image(smear, rgb=True, name="a")
    folder = Path(widget.form.folder.text())
    with Study.create(folder):
        press(widget, widget.job.start)
    assert "Stopped" in widget.job.status.text()
    assert not cells_of(viewer)


def test_an_image_that_is_removed_meanwhile(dock, smear, fake_run, press, qtbot):
    viewer, widget = dock
    viewer.add_image(smear, rgb=True, name="a")
    go = threading.Event()
    fake_run.hold = lambda: go.wait(20)
    press(widget, widget.job.start, wait=False)
    qtbot.waitUntil(lambda: bool(fake_run.calls), timeout=20_000)
    viewer.layers.clear()
    go.set()
    qtbot.waitUntil(lambda: widget._session.job is None, timeout=20_000)
    assert len(viewer.layers) == 0
    assert not widget.results.isHidden()


@pytest.mark.parametrize("dock", [True], indirect=True)
def test_a_click_in_the_canvas_selects_a_cell(dock, smear, fake_run, press, qtbot):
    viewer, widget = dock
    image = viewer.add_image(smear, rgb=True, name="a", scale=(0.1, 0.1), translate=(3, 4), units=("um", "um"))
    press(widget, widget.job.start)
    canvas = viewer.__wrapped__.window._qt_viewer.canvas
    for number, centre in enumerate(CENTRES, start=1):
        click(qtbot, canvas, image.data_to_world(centre))
        assert session_of(viewer).focus.endswith(f":{number:05d}")
        assert f":{number:05d}" in widget.results.cell.text()
    click(qtbot, canvas, image.data_to_world((2, 2)))
    assert session_of(viewer).focus == ""
    assert widget.results.cell.text() == text("cell.none")


def test_closing_the_dock_leaves_the_viewer_as_it_was(dock, smear, fake_run, press, qtbot):
    viewer, widget = dock
    viewer.add_image(smear, rgb=True, name="a")
    press(widget, widget.job.start)
    session = session_of(viewer)
    session.select(cells_of(viewer)[0].features["cell_id"].iloc[0])
    assert len(viewer.layers) == 3
    callbacks = len(viewer.mouse_drag_callbacks)
    with qtbot.waitSignal(widget.destroyed, timeout=5000):
        viewer.window.remove_dock_widget(widget)
        widget.deleteLater()
    assert len(viewer.layers) == 2, "the outline went, image and cells stay"
    assert len(viewer.mouse_drag_callbacks) == callbacks - 1
    viewer.add_image(smear, rgb=True, name="b")
    session.message = "nobody listens"


def test_the_report_opens_in_the_browser(dock, smear, fake_run, press, monkeypatch):
    viewer, widget = dock
    viewer.add_image(smear, rgb=True, name="a")
    press(widget, widget.job.start)
    opened = []
    monkeypatch.setattr(
        "napari_dinobloom.ui.widgets.result_panel.QDesktopServices.openUrl",
        lambda url: opened.append(url.toLocalFile()) or False,
    )
    before = len(notification_manager.records)
    press(widget, widget.results.report)
    assert opened == [str(session_of(viewer).study.path / "report.html")]
    assert opened[0] in notification_manager.records[before].message


def test_napari_opens_it_from_the_plugins_menu(make_napari_viewer_proxy):
    viewer = make_napari_viewer_proxy()
    dock, widget = viewer.window.add_plugin_dock_widget("napari-dinobloom", "Count white cells")
    assert isinstance(widget, RunWidget)
    assert dock is not None
