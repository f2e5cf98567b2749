"""The Map and gates window in a whole viewer: choices, new maps in the background, pictures, a clean end."""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_dinobloom.explore import apart
from napari_dinobloom.explore.gates import RectangleGate
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline import maps
from napari_dinobloom.ui import map_job
from napari_dinobloom.ui.map import export
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.texts import text
from napari_dinobloom.ui.widgets.map_widget import MapWidget

pytestmark = pytest.mark.gui

_spec = importlib.util.spec_from_file_location("map_fixtures", Path(__file__).parent / "map" / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fixtures)


def _study(path: Path) -> Study:
    """400 cells of two kinds with embeddings."""
    study: Study = fixtures.map_study(path)
    adata = study.cells
    random = np.random.default_rng(0)
    adata.X = (random.normal(size=(400, 6)) + 6 * (np.arange(400) % 2)[:, None]).astype(np.float32)
    adata.uns["dinobloom"] = dict(adata.uns["dinobloom"]) | {"encoder": "starter", "encoder_sha256": "0" * 64}
    study.save_cells(adata)
    study.finish_step("embed", "key", ("cells.h5ad",))
    return study


@pytest.fixture
def window(make_napari_viewer_proxy, tmp_path, qtbot):
    viewer = make_napari_viewer_proxy(strict_qt="raise", show=True)
    session = session_of(viewer)
    session.show(_study(tmp_path / "s.dinobloom"))
    widget = MapWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Map and gates")
    viewer.window.resize(1200, 800)
    qtbot.waitExposed(widget)
    QApplication.processEvents()
    widget.view.canvas.fit()
    yield SimpleNamespace(viewer=viewer, session=session, widget=widget, mouse=fixtures.Mouse(widget.view))
    qtbot.waitUntil(lambda: session.job is None, timeout=60_000)
    session.close_study()


def _choose(box, value: str) -> None:
    box.setCurrentIndex(box.findData(value))
    box.activated.emit(box.currentIndex())


def test_axes_colours_and_population_are_chosen_and_shown(window) -> None:
    widget, session = window.widget, window.session
    _choose(widget.boxes["x"], "area_px")
    assert session.axes == ("area_px", "umap_2")
    _choose(widget.boxes["y"], "area_px")
    assert session.axes == ("umap_2", "area_px")
    assert widget.boxes["x"].currentData() == "umap_2"
    _choose(widget.boxes["colour"], "confidence")
    assert widget.view.legend.low.text()
    key = widget.view.gating.add(RectangleGate(name="a", axes=("umap_1", "umap_2"), range_min=(0, 0), range_max=(9, 9)))
    assert session.axes == ("umap_1", "umap_2")
    _choose(widget.boxes["population"], key)
    assert session.population == key
    assert widget.view.drawable.sum() == widget.view.gating.masks()[key].sum()


def test_a_tool_is_taken_by_its_button_and_shown_pressed(window, qtbot) -> None:
    tools = window.widget.tools
    qtbot.mouseClick(tools.buttons["ellipse"], Qt.MouseButton.LeftButton)
    assert window.widget.view.hand.tool == "ellipse"
    assert [name for name, button in tools.buttons.items() if button.isChecked()] == ["ellipse"]
    assert window.widget.view.status.text() == text("map.help.ellipse")


def test_a_new_map_is_fitted_in_the_background_and_the_old_one_kept_with_its_gates(window, qtbot) -> None:
    session, widget = window.session, window.widget
    map_job.start_refit(session, map_method="pca")
    assert not widget.maps.isEnabled()
    qtbot.waitUntil(lambda: session.job is None, timeout=60_000)
    first = maps.active_hash(session.study)
    widget.view.gating.add(RectangleGate(name="a", axes=("umap_1", "umap_2"), range_min=(-9, -9), range_max=(0, 9)))
    map_job.start_refit(session, map_method="pca", restandardise="slide")
    qtbot.waitUntil(lambda: session.job is None, timeout=60_000)
    assert maps.active_hash(session.study) != first
    assert len(widget.view.gating.tree) == 0
    assert session.gate == ""
    widget._offer_maps()
    offered = [action for action in widget.maps.menu().actions() if action.isCheckable()]
    old = next(action for action in offered if first[:8] in action.text())
    assert "1 gate (" in old.text()
    old.trigger()
    qtbot.waitUntil(lambda: session.job is None, timeout=60_000)
    assert maps.active_hash(session.study) == first
    assert len(widget.view.gating.tree) == 1
    assert np.isfinite(widget.view.places).all()


def test_cancelling_a_fit_changes_nothing_and_ends_its_process(window, qtbot, monkeypatch) -> None:
    session, made = window.session, []
    popen = apart.subprocess.Popen
    monkeypatch.setattr(apart, "FEWEST", 10)
    monkeypatch.setattr(apart.subprocess, "Popen", lambda *a, **k: made.append(popen(*a, **k)) or made[-1])
    before = session.study.cells.obsm["X_umap"].copy()
    map_job.start_refit(session, map_method="umap")
    qtbot.waitUntil(lambda: bool(made), timeout=60_000)
    session.job.cancel()
    qtbot.waitUntil(lambda: session.job is None, timeout=60_000)
    assert made[0].poll() is not None
    assert np.array_equal(session.study.cells.obsm["X_umap"], before)


def test_closing_in_the_middle_of_a_fit_ends_cleanly(make_napari_viewer_proxy, tmp_path, qtbot, monkeypatch) -> None:
    made = []
    popen = apart.subprocess.Popen
    monkeypatch.setattr(apart, "FEWEST", 10)
    monkeypatch.setattr(apart.subprocess, "Popen", lambda *a, **k: made.append(popen(*a, **k)) or made[-1])
    viewer = make_napari_viewer_proxy(strict_qt="raise", show=True)
    session = session_of(viewer)
    study = _study(tmp_path / "s.dinobloom")
    session.show(study)
    viewer.window.add_dock_widget(MapWidget(viewer), name="Map and gates")
    map_job.start_refit(session, map_method="umap")
    qtbot.waitUntil(lambda: bool(made), timeout=60_000)
    viewer.close()
    qtbot.waitUntil(lambda: made[0].poll() is not None, timeout=20_000)
    session.close_study()
    with Study.open(study.path) as again:
        assert not again.read_only
        assert again.cells.n_obs == 400


def test_the_picture_is_copied_and_saved(window, tmp_path, monkeypatch) -> None:
    widget = window.widget
    widget.view.gating.add(RectangleGate(name="<a>", axes=("umap_1", "umap_2"), range_min=(0, -9), range_max=(9, 9)))
    for name, kind in (("map.png", "PNG"), ("map.svg", "SVG")):
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_a, name=name: (str(tmp_path / name), ""))
        widget.save()
        assert (tmp_path / name).stat().st_size > 1000, kind
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.size == (widget.view.canvas.picture().shape[1], widget.view.canvas.picture().shape[0])
    root = ET.parse(tmp_path / "map.svg").getroot()
    circles = root.findall(".//{http://www.w3.org/2000/svg}circle")
    assert len(circles) == len(widget.view.rows_in_sight()) == 400
    labels = [found.text for found in root.findall(".//{http://www.w3.org/2000/svg}text")]
    assert labels == [f"<a>  {widget.view.gating.shares()[window.session.gate]:.1f} %"]
    widget.copy()
    clipboard = QApplication.clipboard()
    assert clipboard is not None
    assert clipboard.pixmap().width() > 100


def test_too_many_cells_are_no_svg_and_a_full_disk_is_said(window, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(export, "MOST_IN_SVG", 100)
    said = export.write(window.widget.view, tmp_path / "map.svg")
    assert "100" in said
    assert not (tmp_path / "map.svg").exists()
    assert "cannot be written" in export.write(window.widget.view, tmp_path / "nowhere" / "map.png")
