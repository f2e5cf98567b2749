"""The Patches window with clicks: which cells, colours, similarity, and the overlay at its place on the field."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from painted import CENTRES, RADII
from qtpy.QtCore import QPoint, Qt

from napari_dinobloom.encoders.patches import PatchBasis
from napari_dinobloom.encoders.similarity import patch_similarity
from napari_dinobloom.pipeline import cell_patches
from napari_dinobloom.pipeline.cell_patches import CellPatches
from napari_dinobloom.progress import Progress
from napari_dinobloom.ui import overlays, study_job
from napari_dinobloom.ui.images import tag
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.texts import text
from napari_dinobloom.ui.widgets.patches_widget import PatchesWidget

pytestmark = pytest.mark.gui


@pytest.fixture
def tokens(monkeypatch):
    """Put tokens of chance in the place of the encoder's; return what is asked for."""
    calls = []

    def iter_cell_patches(study, cells, crops, *, foreground=None, known=None, anew=False):
        calls.append({"cells": list(cells), "foreground": foreground, "known": known, "anew": anew})
        yield Progress(0, len(cells), "starter", "patch tokens")
        numbers = np.random.default_rng(len(calls)).normal(size=(len(cells), 4, 4, 8)).astype(np.float32)
        basis = PatchBasis.fit(numbers)
        everywhere = basis.apply(numbers)
        return CellPatches(tuple(cells), crops, numbers, basis, everywhere * 0, everywhere, foreground or "")

    monkeypatch.setattr(cell_patches, "iter_cell_patches", iter_cell_patches)
    return calls


@pytest.fixture
def dock(make_napari_viewer_proxy):
    """A viewer with the widget docked."""
    viewer = make_napari_viewer_proxy(strict_qt="raise", show=False)
    widget = PatchesWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Patches")
    yield viewer, widget
    session_of(viewer).close_study()


@pytest.fixture
def opened(dock, make_study, qtbot):
    """The widget with a study of two fields, whose stack is shown."""
    viewer, widget = dock
    study = make_study(0, 12)
    study.close()
    study_job.start_open(viewer, session_of(viewer), study.path)
    qtbot.waitUntil(lambda: session_of(viewer).job is None, timeout=20_000)
    viewer.dims.set_point(0, 0)
    return viewer, widget


@pytest.fixture
def show(opened, qtbot):
    """Press the button and wait for the patches."""
    viewer, widget = opened

    def show():
        qtbot.mouseClick(widget.job.start, Qt.MouseButton.LeftButton)
        qtbot.waitUntil(lambda: session_of(viewer).job is None, timeout=20_000)

    return show


def overlay(viewer):
    return [layer for layer in viewer.layers if tag(layer).get("role") == overlays.ROLE]


def test_it_says_what_is_missing(dock):
    _, widget = dock
    assert widget.job.start.toolTip() == text("study.why.none")
    assert widget.note.text() == text("patches.help")
    assert widget.buttons["anew"].toolTip() == text("patches.why.nothing")


def test_cells_in_view_are_those_around_the_middle(opened):
    viewer, _ = opened
    session = session_of(viewer)
    all_of_it = [cell.split(":")[0] for cell in overlays.cells_in_view(viewer, session)]
    assert all_of_it == ["field1"] * 3
    viewer.dims.set_point(0, 1)
    viewer.scene.camera.center = (0, CENTRES[1][0], CENTRES[1][1] + 12)
    viewer.scene.camera.zoom = min(viewer.canvas.size) / 20
    assert overlays.cells_in_view(viewer, session) == ["field2:00002"], "20 pixels high, and in the second plane"


def test_the_overlay_lies_on_its_cells(opened, tokens, show):
    viewer, widget = opened
    viewer.dims.set_point(0, 1)
    show()
    assert tokens[0]["foreground"] == "centre"
    assert {cell.split(":")[0] for cell in tokens[0]["cells"]} == {"field2"}
    (layer,) = overlay(viewer)
    for number, ((y, x), radius) in enumerate(zip(CENTRES, RADII, strict=True)):
        assert layer.get_value((1, y, x + 12), world=True)[3] == 255, f"cell {number + 1} is covered"
        outside = layer.get_value((1, y, x + 12 + radius + 3), world=True)
        assert outside is None or outside[3] == 0
    assert layer.get_value((0, *CENTRES[0]), world=True) is None, "the other field has none"
    assert widget.found.cells[widget.sheet.current] in tokens[0]["cells"]
    widget.on_field.setChecked(False)
    assert overlay(viewer) == []


def test_a_click_shows_what_is_alike_and_a_second_one_goes_back(opened, tokens, show, qtbot):
    viewer, widget = opened
    widget.sheet.resize(320, 300)
    show()
    before = np.asarray(overlay(viewer)[0].data).copy()
    spot = widget.sheet.spots[1].rect
    at = QPoint(spot.left() + spot.width() * 3 // 8, spot.top() + spot.height() * 7 // 8)
    qtbot.mouseClick(widget.sheet, Qt.MouseButton.LeftButton, pos=at)
    cell = widget.sheet.current
    assert widget.sheet.patch == (cell, 3, 1)
    alike = patch_similarity(widget.found.tokens, cell, 3, 1)
    np.testing.assert_array_equal(widget.values(), overlays.heat(alike))
    assert widget.found.cells[cell] in widget.note.text()
    assert not np.array_equal(np.asarray(overlay(viewer)[0].data), before)
    qtbot.mouseClick(widget.sheet, Qt.MouseButton.LeftButton, pos=at)
    assert widget.sheet.patch is None
    np.testing.assert_array_equal(np.asarray(overlay(viewer)[0].data), before)


def test_another_rule_and_new_colours_keep_the_cells(opened, tokens, show, qtbot):
    viewer, widget = opened
    session = session_of(viewer)
    session.select("field1:00002", "field2:00003")
    widget.scope.setCurrentIndex(1)
    show()
    assert tokens[0]["cells"] == ["field1:00002", "field2:00003"]
    assert len(overlay(viewer)) == 2, "one for each field"
    first = widget.found
    widget.rule.setCurrentIndex(2)
    qtbot.waitUntil(lambda: session.job is None, timeout=20_000)
    qtbot.mouseClick(widget.buttons["anew"], Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: session.job is None, timeout=20_000)
    assert [call["foreground"] for call in tokens] == ["centre", "otsu", "otsu"]
    assert [call["anew"] for call in tokens] == [False, False, True]
    assert tokens[1]["known"] is first
    assert {tuple(call["cells"]) for call in tokens} == {("field1:00002", "field2:00003")}
    session.select("field1:00002")
    assert widget.found.cells[widget.sheet.current] == "field1:00002"
    widget.opacity.setValue(20)
    assert {layer.opacity for layer in overlay(viewer)} == {0.2}


def test_never_more_than_it_says(opened, monkeypatch, tokens, show):
    viewer, widget = opened
    monkeypatch.setattr(overlays, "MOST", 2)
    session_of(viewer).select(*map(str, session_of(viewer).study.cells.obs_names))
    widget.scope.setCurrentIndex(1)
    show()
    assert len(tokens[0]["cells"]) == 2
    assert widget.job.status.text() == text("patches.done", count=2)


def test_a_window_that_is_closed_while_it_computes(opened, tokens, monkeypatch, qtbot):
    viewer, widget = opened
    go, session, compute = threading.Event(), session_of(viewer), cell_patches.iter_cell_patches

    def slow(*args, **asked):
        go.wait(20)
        return (yield from compute(*args, **asked))

    monkeypatch.setattr(cell_patches, "iter_cell_patches", slow)
    qtbot.mouseClick(widget.job.start, Qt.MouseButton.LeftButton)
    with qtbot.waitSignal(widget.destroyed, timeout=5000):
        viewer.window.remove_dock_widget(widget)
        widget.deleteLater()
    go.set()
    qtbot.waitUntil(lambda: session.job is None, timeout=20_000)
    assert session.message == text("patches.done", count=3)
    assert overlay(viewer) == []


def test_closing_window_and_study_takes_the_overlay_away(opened, tokens, show, qtbot):
    viewer, widget = opened
    show()
    study_job.close(viewer, session_of(viewer))
    assert overlay(viewer) == []
    assert widget.found is None
    study_job.start_open(viewer, session_of(viewer), tokens and widget._study.path)
    qtbot.waitUntil(lambda: session_of(viewer).job is None, timeout=20_000)
    show()
    assert overlay(viewer)
    with qtbot.waitSignal(widget.destroyed, timeout=5000):
        viewer.window.remove_dock_widget(widget)
        widget.deleteLater()
    assert overlay(viewer) == []
