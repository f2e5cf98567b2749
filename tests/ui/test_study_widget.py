"""The Study window in a whole viewer, with clicks; and what it rests on."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from napari.utils.notifications import notification_manager
from painted import _segment as segment_by_threshold
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.study import Study
from napari_dinobloom.io.study_copy import copy_study, iter_copy_study
from napari_dinobloom.pipeline import driver
from napari_dinobloom.pipeline.driver import Outcome, StepState
from napari_dinobloom.pipeline.settings import STEPS, resolve
from napari_dinobloom.progress import Progress, drain
from napari_dinobloom.ui import recent, study_job
from napari_dinobloom.ui.images import tag
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.study_widget import StudyWidget

gui = pytest.mark.gui


@pytest.fixture
def dock(make_napari_viewer_proxy, qtbot):
    """A viewer with the widget docked."""
    viewer = make_napari_viewer_proxy(strict_qt="raise", show=False)
    widget = StudyWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Study")
    yield viewer, widget
    qtbot.waitUntil(lambda: not widget.steps.busy and not widget.inputs.lookup.busy, timeout=20_000)
    session_of(viewer).close_study()


@pytest.fixture
def rest(qtbot):
    """Wait until nothing is under way."""

    def rest(widget):
        quiet = lambda: widget._session.job is None and not widget.steps.busy and not widget.inputs.lookup.busy  # noqa: E731
        qtbot.waitUntil(quiet, timeout=20_000)

    return rest


@pytest.fixture
def steps(monkeypatch):
    """Put cells found by a threshold in the place of the pipeline; return what it is asked for."""
    calls = []

    def outcome(inputs, study, *, until="report", **asked):
        calls.append({"inputs": inputs, "until": until, **asked})
        files = [file for one in inputs for file in sorted(Path(one).rglob("*.png"))]
        yield Progress(0, len(files), "", "segment")
        table = pd.concat([segment_by_threshold(study, file) for file in files])
        obs = table.set_index("cell_id", drop=False)
        study.save_cells(AnnData(X=np.zeros((len(table), 2), np.float32), obs=obs))
        return Outcome(study, resolve({}, {}))

    monkeypatch.setattr(driver, "iter_outcome", outcome)
    return calls


def drop(widget, *paths):
    """Drop files on the area for images."""
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    keys, buttons = Qt.KeyboardModifier.NoModifier, Qt.MouseButton.LeftButton
    widget.inputs.dropEvent(QDropEvent(QPointF(5, 5), Qt.DropAction.CopyAction, data, buttons, keys))


def click(qtbot, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


@gui
def test_it_says_how_to_begin(dock):
    _, widget = dock
    assert widget.header.title.text() == text("study.none")
    assert not widget.job.start.isEnabled()
    assert widget.job.start.toolTip() == text("study.why.begin")
    assert widget.header.buttons["close"].toolTip() == text("study.why.none")
    assert widget.header.buttons["recent"].toolTip() == text("study.why.no_recent")
    assert widget.header.buttons["new"].toolTip() == tip("study.new")


@gui
def test_new_images_and_the_next_steps(dock, smear_file, steps, rest, qtbot, monkeypatch, tmp_path):
    viewer, widget = dock
    monkeypatch.setattr(
        "napari_dinobloom.ui.widgets.study_header.QFileDialog.getSaveFileName",
        lambda *_: (str(tmp_path / "mine"), ""),
    )
    drop(widget, smear_file.parent)
    rest(widget)
    assert widget.job.start.toolTip() == text("study.why.none_yet")
    click(qtbot, widget.header.buttons["new"])
    rest(widget)
    study = session_of(viewer).study
    assert study.path == tmp_path / "mine.dinobloom"
    assert widget.header.title.text() == "mine"
    (item,) = [widget.inputs.found.topLevelItem(at) for at in range(widget.inputs.found.topLevelItemCount())]
    assert [item.text(at) for at in range(3)] == ["field.png", "slide1", "slide1"]
    widget.inputs.boxes["patient"].setCurrentText(r"^(fi)eld")
    rest(widget)
    assert widget.inputs.found.topLevelItem(0).text(2) == "fi"
    widget.steps.until.setCurrentIndex(STEPS.index("embed"))
    click(qtbot, widget.job.start)
    rest(widget)
    assert steps == [
        {
            "inputs": [str(smear_file.parent)],
            "until": "embed",
            "slide_from": "folder",
            "patient_from": r"^(fi)eld",
            "specimen": "blood",
            "encoder": "starter",
            "device": "auto",
        }
    ]
    assert {tag(layer).get("role") for layer in viewer.layers} == {"image", "cells"}
    assert widget.tree.topLevelItem(0).text(2) == "3"
    assert widget.inputs.inputs == ()
    assert widget.job.status.text() == text("study.done")


@gui
def test_pictures_of_single_cells_are_taken_whole(dock, smear_file, steps, rest, make_study, qtbot):
    viewer, widget = dock
    study = make_study(name="single")
    session_of(viewer).show(study)
    drop(widget, smear_file.parent)
    widget.inputs.single.setChecked(True)
    rest(widget)
    click(qtbot, widget.job.start)
    rest(widget)
    assert steps[0]["cells"] is True
    study.update(settings={**study.settings, "cells": True})
    session_of(viewer).events.study.emit(study)
    assert widget.inputs.single.isChecked()
    drop(widget, smear_file)
    assert "cells" not in widget.inputs.settings, "what the study has need not be asked for again"
    widget.inputs.single.setChecked(False)
    assert widget.inputs.settings["cells"] is False
    widget.inputs.clear()


@gui
def test_pictures_stay_on_the_list_until_the_study_has_them(dock, smear_file, make_study, rest, monkeypatch, qtbot):
    viewer, widget = dock
    session_of(viewer).show(make_study())
    other = smear_file.parent.parent / "other.png"
    other.write_bytes(smear_file.read_bytes())

    def refused(inputs, study, **_asked):
        yield Progress(0, 1, "", "read")
        if len(inputs) == 2:
            raise StudyError("Is refused.")
        segment_by_threshold(study, Path(inputs[0]))
        raise StudyError("Broke off later.")

    monkeypatch.setattr(driver, "iter_outcome", refused)
    drop(widget, smear_file.parent, other)
    rest(widget)
    click(qtbot, widget.job.start)
    rest(widget)
    assert widget.job.status.text() == text("status.failed", message="Is refused.")
    assert widget.inputs.inputs == (str(smear_file.parent), str(other))
    widget.inputs.take_off([str(smear_file.parent)])
    rest(widget)
    click(qtbot, widget.job.start)
    rest(widget)
    assert widget.inputs.inputs == (), "this one the study holds"


@gui
def test_a_rule_that_does_not_fit_is_said_before_anything_is_done(dock, smear_file, make_study, rest):
    viewer, widget = dock
    session_of(viewer).show(make_study())
    drop(widget, smear_file)
    widget.inputs.boxes["slide"].setCurrentText("nothing(like)it")
    rest(widget)
    assert not widget.job.start.isEnabled()
    assert "nothing(like)it" in widget.job.start.toolTip()
    assert "nothing(like)it" in widget.inputs.note.text()
    click_free = widget.inputs.buttons["clear"]
    click_free.click()
    assert widget.inputs.why_not() == ""


@gui
def test_open_show_close(dock, make_study, rest, qtbot):
    viewer, widget = dock
    study = make_study(0, 5)
    study.close()
    drop(widget, study.path)
    rest(widget)
    session = session_of(viewer)
    assert not session.study.read_only
    assert len(viewer.layers) == 2
    assert widget.tree.topLevelItem(0).text(1) == "2"
    assert recent.recent()[0].path == study.path
    own = viewer.add_image(np.zeros((4, 4)))
    click(qtbot, widget.header.buttons["close"])
    assert session.study is None
    assert [layer.name for layer in viewer.layers] == [own.name], "the user's own layer stays"
    Study.open(study.path).close()


@gui
def test_another_process_writes_it(dock, make_study, rest):
    viewer, widget = dock
    study = make_study()
    widget.header.open_path(study.path)  # `make_study` holds it still
    rest(widget)
    held = text("study.held", holder=session_of(viewer).study.held_by)
    assert held in widget.header.about.text()
    assert widget.job.start.toolTip() == held
    study.close()
    widget.header.open_path(study.path)  # as the line says
    rest(widget)
    assert not session_of(viewer).study.read_only
    assert held not in widget.header.about.text()


@gui
def test_pictures_that_were_moved_are_shown_when_their_folder_is_dropped(
    dock, smear_file, steps, rest, qtbot, tmp_path, monkeypatch
):
    viewer, widget = dock
    session = session_of(viewer)
    study_job.start_create(viewer, session, tmp_path / "theirs.dinobloom", "blood")
    rest(widget)
    drop(widget, smear_file.parent)
    rest(widget)
    click(qtbot, widget.job.start)
    rest(widget)
    study_job.close(viewer, session)
    moved = smear_file.parent.rename(tmp_path / "elsewhere")
    widget.header.open_path(tmp_path / "theirs.dinobloom")
    rest(widget)
    assert "Drop the folder that holds them" in notification_manager.records[-1].message
    assert [tag(layer).get("role") for layer in viewer.layers] == ["cells"]

    def found_again(inputs, study, **_asked):
        yield Progress(1, 1, "", "read")
        study.remember_root("r1", moved)
        return Outcome(study, resolve({}, {}))

    monkeypatch.setattr(driver, "iter_outcome", found_again)
    drop(widget, moved)
    rest(widget)
    click(qtbot, widget.job.start)
    rest(widget)
    assert [tag(layer).get("role") for layer in viewer.layers] == ["image", "cells"]


@gui
def test_a_missing_study_is_marked_and_can_be_forgotten(dock, make_study, rest, tmp_path, monkeypatch, qtbot):
    viewer, widget = dock
    recent.remember(tmp_path / "gone.dinobloom")
    recent.remember(make_study().path)
    looked = threading.Event()
    there = recent.recent
    monkeypatch.setattr(recent, "recent", lambda: looked.wait(20) and there())
    widget.header.refresh()
    assert widget.header.buttons["recent"].isEnabled(), "which needs no look at the disks"
    widget.header.offer_recent()
    assert [action.isEnabled() for action in widget.header.menu.actions()][:2] == [True, True]
    looked.set()
    qtbot.waitUntil(lambda: not widget.header.lookup.busy, timeout=20_000)
    monkeypatch.setattr(recent, "recent", there)
    first, second, *_, tidy = widget.header.menu.actions()
    assert first.isEnabled()
    assert not second.isEnabled()
    assert second.text() == text("study.recent_missing", name="gone", folder=tmp_path)
    before = len(notification_manager.records)
    widget.header.open_path(tmp_path / "gone.dinobloom")
    rest(widget)
    assert "no such study" in notification_manager.records[before].message
    assert session_of(viewer).study is None
    said = widget.job.status.text()
    assert "no such study" in said
    assert text("study.why.begin") in said, "which hides no error"
    tidy.trigger()
    assert [one.missing for one in recent.recent()] == [False]


@gui
def test_failed_fields_say_why(dock, make_study):
    viewer, widget = dock
    study = make_study()
    (record,) = study.fields
    torn = record.__class__(id="torn", file="torn.png", root=record.root, status="failed", problem="Is damaged.")
    study.update(fields=[record, torn])
    session_of(viewer).show(study)
    top = widget.tree.topLevelItem(1)
    assert top.text(1) == text("study.some_failed", count=1, failed=1)
    assert "Is damaged." in top.child(0).child(0).text(0)


@gui
def test_steps_show_their_state_and_open_their_window(dock, make_study, rest, monkeypatch, qtbot):
    viewer, widget = dock
    said = [StepState(name, "done" if at < 4 else "stale" if at == 5 else "missing") for at, name in enumerate(STEPS)]
    monkeypatch.setattr(driver, "step_states", lambda study: tuple(said))
    session_of(viewer).show(make_study())
    rest(widget)
    shown = [widget.steps.notes[name].text() for name in STEPS]
    assert shown[:6] == [text("study.state.done")] * 4 + [text("study.state.next"), text("study.state.stale")]
    widget.steps.until.setCurrentIndex(3)
    assert widget.job.start.toolTip() == text("study.why.all_done")
    widget.steps.until.setCurrentIndex(4)
    assert widget.job.start.isEnabled()
    click(qtbot, widget.steps.buttons["segment"])
    assert any("Segment and crop" in name for name in viewer.window.dock_widgets)


@gui
def test_many_acts_are_one_look_at_the_steps(dock, make_study, rest, monkeypatch):
    viewer, widget = dock
    looks = []
    monkeypatch.setattr(driver, "step_states", lambda study: looks.append(study) or ())
    session_of(viewer).show(make_study())
    rest(widget)
    looks.clear()
    for _ in range(10):
        session_of(viewer).revision += 1
        session_of(viewer).gates_revision += 1
    assert widget.steps.busy
    rest(widget)
    assert len(looks) == 1


@gui
def test_a_copy_is_made_beside(dock, make_study, rest, tmp_path):
    viewer, widget = dock
    session_of(viewer).show(make_study())
    study_job.start_copy(session_of(viewer), tmp_path / "copy.dinobloom")
    rest(widget)
    assert widget.job.status.text().startswith(text("study.copied", folder=tmp_path / "copy.dinobloom")[:20])
    assert Study.open(tmp_path / "copy.dinobloom", read_only=True).cells.n_obs == 3


def test_a_copy_is_a_study_of_its_own(make_study, tmp_path):
    study = make_study()
    study.label(str(study.cells.obs_names[0]), "blast")
    folder = copy_study(study, tmp_path / "twin.dinobloom")
    with Study.open(folder) as twin:
        assert not twin.read_only, "the lock was left behind"
        assert twin.id != study.id
        assert twin.name == "twin"
        assert twin.cells.obs["label"].tolist() == study.cells.obs["label"].tolist()
        assert twin.read_field(twin.fields[0].id).load().shape == (96, 128, 3)
        twin.undo()
    assert study.cells.obs["label"].iloc[0] == "blast"
    with pytest.raises(StudyError, match="is there already"):
        copy_study(study, folder)
    with pytest.raises(StudyError, match="lies in the study"):
        copy_study(study, study.path / "inner.dinobloom")


def test_no_copy_is_left_of_a_study_that_changes_meanwhile(make_study, tmp_path):
    study = make_study()
    steps = iter_copy_study(study, tmp_path / "torn.dinobloom")
    next(steps)
    study.label(str(study.cells.obs_names[0]), "blast")
    with pytest.raises(StudyError, match="changed while it was copied"):
        drain(steps)
    assert not list(tmp_path.glob("*torn*"))
    drain(iter_copy_study(study, tmp_path / "torn.dinobloom"))


def test_the_list_of_recent_studies_outlives_damage(tmp_path):
    for name in range(20):
        recent.remember(tmp_path / f"{name}.dinobloom")
    assert [one.path.name for one in recent.recent()] == [f"{name}.dinobloom" for name in range(19, 7, -1)]
    recent.remember(tmp_path / "10.dinobloom")
    assert recent.recent()[0].path.name == "10.dinobloom"
    recent._file().write_text("{", encoding="utf-8")
    assert recent.recent() == []
