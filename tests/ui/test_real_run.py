"""The whole way by clicks gives the numbers of the library."""

from __future__ import annotations

import numpy as np
import pytest
from pandas.testing import assert_frame_equal
from qtpy.QtCore import Qt

import napari_dinobloom as nd
from napari_dinobloom.io.generate import generate_smear
from napari_dinobloom.io.smear import write_picture
from napari_dinobloom.ui.images import tag
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.widgets.run_widget import RunWidget

pytestmark = pytest.mark.gui


def test_the_widget_and_the_library_give_the_same_tables(make_napari_viewer_proxy, qtbot, tmp_path):
    made = generate_smear(3, height=300, width=400, n_white=3)
    path = tmp_path / "slide1" / "field.png"
    path.parent.mkdir()
    write_picture(path, made.image, made.pixel_size_um)
    headless = nd.run(path, tmp_path / "headless.dinobloom")
    headless.close()

    viewer = make_napari_viewer_proxy()
    widget = RunWidget(viewer)
    viewer.window.add_dock_widget(widget)
    viewer.open(path, plugin="napari")
    assert widget.job.start.isEnabled(), widget.job.status.text()
    qtbot.mouseClick(widget.job.start, Qt.MouseButton.LeftButton)
    session = session_of(viewer)
    qtbot.waitUntil(lambda: session.job is None, timeout=120_000)
    assert session.result is not None, session.message

    by_clicks = session.study
    assert by_clicks.path == path.with_name("field.dinobloom")
    assert len(by_clicks.cells) == len(made.classes)
    assert_frame_equal(by_clicks.cells.obs, headless.cells.obs)
    np.testing.assert_array_equal(by_clicks.cells.X, headless.cells.X)
    np.testing.assert_array_equal(by_clicks.cells.obsm["X_umap"], headless.cells.obsm["X_umap"])
    for name in ("cells.csv", "differential.csv", "summary.csv"):
        assert (by_clicks.path / "tables" / name).read_bytes() == (headless.path / "tables" / name).read_bytes()

    counts = nd.differential(headless.cells)
    counts = counts[(counts["level"] == "slide") & (counts["n"] > 0)]
    table = widget.results.table
    shown = sorted(int(table.item(row, 1).text()) for row in range(table.rowCount()))
    assert shown == sorted(counts["n"])
    (cells,) = [layer for layer in viewer.layers if tag(layer).get("role") == "cells"]
    np.testing.assert_array_equal(cells.data, headless.labels(headless.fields[0].id))
    assert (by_clicks.path / "report.html").is_file()
    assert widget.results.report.isEnabled()
    session.close_study()
