"""The Report window with clicks: what is written, opened and exported."""

from __future__ import annotations

import json

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from tifffile import imread

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.labelimage import CHUNK, write_label_tiff
from napari_dinobloom.io.masks import FieldMasks, draw
from napari_dinobloom.io.study import Study
from napari_dinobloom.io.tables import read_csv
from napari_dinobloom.pipeline import driver, patient_reports
from napari_dinobloom.pipeline.driver import Outcome
from napari_dinobloom.pipeline.patient_reports import PatientReports
from napari_dinobloom.pipeline.settings import resolve
from napari_dinobloom.progress import Progress
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.texts import text
from napari_dinobloom.ui.widgets.report_widget import ReportWidget

gui = pytest.mark.gui


@pytest.fixture
def dock(make_napari_viewer_proxy, make_study, qtbot):
    """A viewer with the widget docked, and a finished study that is not open yet."""
    viewer = make_napari_viewer_proxy(strict_qt="raise", show=False)
    widget = ReportWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Report")
    yield viewer, widget, make_study(0, 9)
    qtbot.waitUntil(lambda: not widget.lookup.busy, timeout=20_000)
    session_of(viewer).close_study()


@pytest.fixture
def rest(qtbot):
    """Wait until nothing is under way."""
    return lambda widget: qtbot.waitUntil(
        lambda: widget._session.job is None and not widget.lookup.busy, timeout=20_000
    )


@gui
def test_it_says_what_is_missing(dock):
    _, widget, _ = dock
    assert widget.job.start.toolTip() == text("study.why.none")
    assert widget.export.toolTip() == text("study.why.none")
    assert widget.open.toolTip() == text("run.why.no_report")


@gui
def test_the_pages_that_were_ticked_are_written(dock, monkeypatch, qtbot, rest):
    viewer, widget, study = dock
    session_of(viewer).show(study)
    calls = []

    def iter_outcome(inputs, given, **asked):
        calls.append(asked)
        yield Progress(0, 1, "", "report")
        return Outcome(study, resolve({}, {}), [("a.png", "is damaged.")])

    def iter_patient_reports(given, **asked):
        calls.append(asked)
        yield Progress(0, 1, "p")
        (study.path / "reports").mkdir()
        (study.path / "reports" / "p.html").write_text("p", encoding="utf-8")
        return PatientReports((), (("anna", "has no cells."),))

    monkeypatch.setattr(driver, "iter_outcome", iter_outcome)
    monkeypatch.setattr(patient_reports, "iter_patient_reports", iter_patient_reports)
    widget.specimen.setCurrentIndex(1)
    widget.pages["per_patient"].setChecked(True)
    qtbot.mouseClick(widget.job.start, Qt.MouseButton.LeftButton)
    rest(widget)
    problems = (("a.png", "is damaged."),)
    assert calls == [
        {"until": "report", "specimen": "marrow"},
        {"per_patient": True, "cohort": False, "pseudonyms": False, "problems": problems},
    ]
    assert [row[0] for row in widget.table.texts()] == ["report.html", "reports/p.html"]
    assert "anna: has no cells." in widget.job.status.text()


@gui
def test_the_chosen_file_is_opened(dock, monkeypatch, qtbot, rest):
    viewer, widget, study = dock
    (study.path / "tables").mkdir()
    (study.path / "tables" / "cells.csv").write_text("a", encoding="utf-8")
    session_of(viewer).show(study)
    rest(widget)
    opened = []
    monkeypatch.setattr(
        "napari_dinobloom.ui.widgets.report_widget.QDesktopServices.openUrl",
        lambda url: opened.append(url.toLocalFile()) or True,
    )
    qtbot.mouseClick(widget.open, Qt.MouseButton.LeftButton)
    widget.table.selectRow(1)
    qtbot.mouseClick(widget.open, Qt.MouseButton.LeftButton)
    assert opened == [str(study.path / "report.html"), str(study.path / "tables" / "cells.csv")]


@gui
def test_exports_also_from_a_study_that_is_only_read(dock, monkeypatch, qtbot, rest, tmp_path):
    viewer, widget, study = dock
    session_of(viewer).show(Study.open(study.path, read_only=True))
    assert widget.job.start.toolTip() == text("study.read_only")
    widget.exports["tables"].setChecked(False)
    assert widget.export.toolTip() == text("report.why.nothing")
    for box in widget.exports.values():
        box.setChecked(True)
    monkeypatch.setattr(
        "napari_dinobloom.ui.widgets.report_widget.QFileDialog.getExistingDirectory", lambda *_: str(tmp_path / "out")
    )
    qtbot.mouseClick(widget.export, Qt.MouseButton.LeftButton)
    rest(widget)
    out = tmp_path / "out" / "smears-export"
    assert session_of(viewer).message == text("report.exported", count=7, folder=out)
    assert notification_manager.records[-1].message == session_of(viewer).message
    assert len(read_csv(out / "cells.csv")) == 6
    assert len(json.loads((out / "field1.geojson").read_text(encoding="utf-8"))["features"]) == 3
    np.testing.assert_array_equal(imread(out / "field2-cells.tif"), study.labels("field2"))
    (out / "cells.csv").write_text("mine", encoding="utf-8")
    qtbot.mouseClick(widget.export, Qt.MouseButton.LeftButton)
    rest(widget)
    assert (out / "cells.csv").read_text(encoding="utf-8") == "mine"
    assert len(read_csv(tmp_path / "out" / "smears-export-2" / "cells.csv")) == 6


@gui
def test_an_act_leaves_the_chosen_specimen(dock, make_study, rest):
    viewer, widget, study = dock
    session_of(viewer).show(study)
    widget.specimen.setCurrentIndex(1)
    session_of(viewer).revision += 1
    rest(widget)
    assert widget.specimen.currentData() == "marrow"
    session_of(viewer).close_study()
    session_of(viewer).show(make_study(name="second"))
    assert widget.specimen.currentData() == "blood"


@gui
def test_a_report_that_breaks_off_shows_what_was_finished(dock, monkeypatch, qtbot, rest):
    viewer, widget, study = dock
    session_of(viewer).show(study)

    def iter_outcome(inputs, given, **asked):
        yield Progress(0, 1, "", "report")
        raise StudyError("Broke off.")

    monkeypatch.setattr(driver, "iter_outcome", iter_outcome)
    before = session_of(viewer).revision, session_of(viewer).gates_revision
    qtbot.mouseClick(widget.job.start, Qt.MouseButton.LeftButton)
    rest(widget)
    assert session_of(viewer).revision > before[0]
    assert session_of(viewer).gates_revision > before[1]
    assert session_of(viewer).message == text("status.failed", message="Broke off.")


def test_a_label_image_of_several_tiles_is_the_drawn_one(tmp_path):
    shape = (CHUNK + 300, CHUNK + 40)
    labels = np.zeros(shape, np.int32)
    labels[10:40, 20:60] = 3
    labels[CHUNK - 20 : CHUNK + 30, CHUNK - 5 : CHUNK + 35] = 7
    masks = FieldMasks.from_labels(labels, labels)
    path = write_label_tiff(masks, shape, tmp_path / "new" / "a.tif")
    np.testing.assert_array_equal(imread(path), draw(masks, shape, "cells"))
