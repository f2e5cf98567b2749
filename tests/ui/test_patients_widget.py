"""The Patients window with clicks and keys: groups are kept at once, predictions and cells are those of the library."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from classified import drawn_study
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLineEdit, QMessageBox, QScrollArea

from napari_dinobloom.errors import InputError
from napari_dinobloom.explore.cell_attention import attention_of
from napari_dinobloom.io.study import Study
from napari_dinobloom.io.study_copy import copy_study
from napari_dinobloom.pipeline.patient_bags import Seen
from napari_dinobloom.pipeline.patient_groups import groups_of, keep_groups
from napari_dinobloom.pipeline.patients import iter_train_patients, patient_result
from napari_dinobloom.predict.mil import validation
from napari_dinobloom.predict.mil.bags import FEW
from napari_dinobloom.progress import drain
from napari_dinobloom.ui.gating import gating_of
from napari_dinobloom.ui.patients import LEAST, cohort_of
from napari_dinobloom.ui.session import Job, Session, session_of
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.gallery_widget import GalleryWidget
from napari_dinobloom.ui.widgets.patients_scores import PatientsScores
from napari_dinobloom.ui.widgets.patients_table import GROUP, PATIENT
from napari_dinobloom.ui.widgets.patients_widget import PatientsWidget

pytestmark = pytest.mark.gui

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def window(make_napari_viewer_proxy, tmp_path, monkeypatch, qtbot):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    viewer = make_napari_viewer_proxy(strict_qt="raise", show=True)
    session = session_of(viewer)
    widget = PatientsWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Patients")
    viewer.window.resize(1100, 800)
    yield SimpleNamespace(viewer=viewer, session=session, widget=widget)
    qtbot.waitUntil(lambda: session.job is None, timeout=300_000)
    session.close_study()


@pytest.fixture
def opened(window, tmp_path):
    """The window with a study of eight patients; cells of the later four lie elsewhere."""
    study = drawn_study(tmp_path / "drawn.dinobloom")
    adata = study.cells
    adata.X = (adata.X + 4 * (np.arange(48) >= 24)[:, None]).astype(np.float32)
    study.save_cells(adata)
    window.session.show(study)
    window.study = study
    return window


def _row(table, patient: str) -> int:
    """Row of a patient."""
    return next(row for row in range(table.rowCount()) if table.item(row, PATIENT).text() == patient)


def _click(window, qtbot, patient: str, modifier=Qt.KeyboardModifier.NoModifier) -> None:
    """Click a patient."""
    table = window.widget.table
    item = table.item(_row(table, patient), PATIENT)
    table.scrollToItem(item)
    qtbot.mouseClick(table.viewport(), LEFT, modifier, table.visualItemRect(item).center())


def _type(window, qtbot, patient: str, group: str) -> None:
    """Type a group into the table with F2 and Enter."""
    table = window.widget.table
    table.setFocus()
    table.setCurrentCell(_row(table, patient), GROUP)
    qtbot.keyClick(table, Qt.Key.Key_F2)
    editor = table.findChild(QLineEdit)
    editor.selectAll()
    qtbot.keyClicks(editor, group)
    qtbot.keyClick(editor, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: window.widget.cohort.groups.get(patient, "") == group, timeout=5000)


def _groups(window) -> dict[str, str]:
    """Eight patients in two groups."""
    groups = {f"p{at}": "healthy" if at <= 4 else "ill" for at in range(1, 9)}
    assert window.widget.cohort.put(groups)
    window.widget.refresh()
    return groups


def test_an_empty_window_says_what_to_do(window) -> None:
    widget = window.widget
    for button in (widget.job.start, widget.form.load, widget.form.apply):
        assert not button.isEnabled()
        assert button.toolTip() == text("patients.why.no_study")
    assert widget.attention.top.toolTip() == text("patients.why.no_result")
    assert widget.scores.isHidden()
    assert widget.disclaimer.text() == text("disclaimer")


def test_the_patients_and_their_cells_are_listed(opened) -> None:
    study, table = opened.study, opened.widget.table
    study.exclude(study.cells.obs.index[0])
    study.delete(study.cells.obs.index[1])
    opened.session.revision += 1
    assert [line[:3] for line in table.texts()] == [["p1", "4", ""], *([f"p{at}", "6", ""] for at in range(2, 9))]
    assert opened.widget.job.start.toolTip() == text("patients.why.no_groups")


def test_a_group_that_is_typed_is_on_the_disk_at_once(opened, qtbot) -> None:
    _type(opened, qtbot, "p3", "ill")
    assert groups_of(opened.study) == {"p3": "ill"}
    qtbot.waitUntil(lambda: opened.widget.table.item(_row(opened.widget.table, "p3"), GROUP).text() == "ill")
    assert opened.widget.job.start.toolTip() == text("patients.why.one_group")
    _type(opened, qtbot, "p4", "healthy")
    assert opened.widget.job.start.toolTip() == text("patients.why.too_few", group="healthy", n=1, least=LEAST)
    path = opened.study.path
    opened.session.close_study()
    assert opened.widget.table.rowCount() == 0
    with Study.open(path, read_only=True) as again:
        assert groups_of(again) == {"p3": "ill", "p4": "healthy"}


def test_selected_patients_are_put_into_a_group(opened, qtbot) -> None:
    form = opened.widget.form
    assert form.put.toolTip() == text("patients.why.no_selection")
    _click(opened, qtbot, "p2")
    _click(opened, qtbot, "p4", Qt.KeyboardModifier.ShiftModifier)
    qtbot.keyClicks(form.group.lineEdit(), "ill")
    qtbot.mouseClick(form.put, LEFT)
    assert groups_of(opened.study) == {"p2": "ill", "p3": "ill", "p4": "ill"}
    assert opened.widget.table.chosen() == ["p2", "p3", "p4"]
    form.group.lineEdit().clear()
    qtbot.mouseClick(form.put, LEFT)
    assert groups_of(opened.study) == {}


def test_groups_come_from_a_csv_and_join_those_that_are_there(opened, tmp_path) -> None:
    keep_groups(opened.study, {"p1": "typed"})
    opened.widget.cohort.put({"p1": "typed"})
    path = tmp_path / "known.csv"
    path.write_text("patient,group\np2,ill\np3,healthy\nelsewhere,ill\n", encoding="utf-8")
    opened.widget.form.read_groups(path)
    assert groups_of(opened.study) == {"elsewhere": "ill", "p1": "typed", "p2": "ill", "p3": "healthy"}
    assert opened.session.message == text("patients.loaded_others", count=2, others=1, file="known.csv")
    assert opened.widget.cohort.trained_on() == {"p1": "typed", "p2": "ill", "p3": "healthy"}
    path.write_text("patient,group\np2,ill\np2,healthy\n", encoding="utf-8")
    before = len(notification_manager.records)
    opened.widget.form.read_groups(path)
    assert "p2" in notification_manager.records[-1].message
    assert len(notification_manager.records) == before + 1
    assert groups_of(opened.study)["p2"] == "ill"


def test_groups_that_cannot_be_read_are_not_written_over(window, tmp_path) -> None:
    study = drawn_study(tmp_path / "drawn.dinobloom")
    file, mine = study.path / "groups.csv", "patient;group\np1;ill\np2;healthy\n"
    file.write_text(mine, encoding="utf-8")
    window.session.show(study)
    cohort = window.widget.cohort
    assert "groups.csv" in window.widget.job.start.toolTip()
    assert not cohort.put({"p3": "ill"})
    assert file.read_text(encoding="utf-8") == mine
    assert "Repair or delete groups.csv" in notification_manager.records[-1].message
    file.write_text(mine.replace(";", ","), encoding="utf-8")
    assert cohort.put({"p3": "ill"})
    assert groups_of(study) == {"p1": "ill", "p2": "healthy", "p3": "ill"}
    file.write_text(mine, encoding="utf-8")  # by another program, while the window is open
    assert not cohort.put({"p4": "ill"})
    assert file.read_text(encoding="utf-8") == mine


def test_nothing_of_a_closed_study_is_shown(tmp_path) -> None:
    session = Session()
    session.show(drawn_study(tmp_path / "drawn.dinobloom"))
    cohort = cohort_of(session)
    assert cohort.put({"p1": "ill"})
    session.job = Job("any", list)
    session.job = None
    session.close_study()
    assert cohort.groups == {}
    assert cohort.result is None


def test_figures_of_an_applied_model_are_not_called_out_of_fold(qtbot) -> None:
    shown = PatientsScores()
    qtbot.addWidget(shown)
    for out_of_fold, key in ((True, "patients.scores"), (False, "patients.scores_applied")):
        table, scores = pd.DataFrame({"out_of_fold": [False, out_of_fold]}), pd.DataFrame()
        shown.show_result(SimpleNamespace(table=table, scores=scores, notes=()))
        assert shown.title.text() == text(key)
        assert shown.title.toolTip() == tip(key)


def test_groups_of_odd_names_come_back_as_they_are(opened) -> None:
    odd = {"p1": "=1+1", "p2": 'a "b", c', "p3": "# no comment", "p4": "-", "p5": "ä"}
    keep_groups(opened.study, odd | {"p6": "  "})
    assert groups_of(opened.study) == odd
    with pytest.raises(InputError, match="longer than 80"):
        keep_groups(opened.study, {"p1": "x" * 81})
    assert groups_of(opened.study) == odd


def test_a_study_that_is_read_only_keeps_its_groups(window, tmp_path, qtbot) -> None:
    study = drawn_study(tmp_path / "drawn.dinobloom")
    keep_groups(study, {"p1": "ill"})
    study.close()
    window.session.show(Study.open(study.path, read_only=True))
    assert not window.widget.cohort.put({"p1": "healthy"})
    assert window.widget.table.texts()[0][GROUP] == "ill"
    item = window.widget.table.item(0, GROUP)
    assert not item.flags() & Qt.ItemFlag.ItemIsEditable
    why = text("edit.why.read_only", name=window.session.study.name)
    assert window.widget.job.start.toolTip() == why


def test_few_patients_are_trained_on_only_after_a_warning_that_names_them(opened, monkeypatch, qtbot) -> None:
    groups, asked, trained = _groups(opened), [], []
    assert validation.LEAST == LEAST
    counts = "4 in “healthy”, 4 in “ill”"
    assert opened.widget.form.few.text() == text("patients.few.note", least=FEW, counts=counts)
    answers = iter((QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes))
    monkeypatch.setattr(QMessageBox, "warning", lambda *args: asked.append(args[2]) or next(answers))
    monkeypatch.setattr(type(opened.widget.cohort), "train", lambda self, **options: trained.append(options))
    assert opened.widget.job.start.isEnabled(), groups
    qtbot.mouseClick(opened.widget.job.start, LEFT)
    assert asked == [text("patients.few.ask", least=FEW, counts=counts)]
    assert trained == []
    opened.widget.form.preset.setCurrentIndex(1)
    opened.widget.form.folds.setValue(3)
    qtbot.mouseClick(opened.widget.job.start, LEFT)
    assert trained == [{"preset": "paper", "folds": 3, "repeats": 5}]


QUICK = {"preset": "gated", "folds": 2, "repeats": 1, "permutations": 0, "epochs": 1, "members": 2}


@pytest.fixture
def trained(opened, qtbot, monkeypatch):
    """The window after a quick training on eight patients."""
    opened.groups = _groups(opened)
    widget = opened.widget
    monkeypatch.setattr(type(widget.form), "options", lambda self: QUICK)
    monkeypatch.setattr("napari_dinobloom.predict.mil.model.SHARES", (0.5,))  # so that there is attention to show
    monkeypatch.setattr(QMessageBox, "warning", lambda *_: QMessageBox.StandardButton.Yes)
    qtbot.mouseClick(widget.job.start, LEFT)
    assert opened.session.job is not None
    assert not widget.job.start.isEnabled()
    assert widget.job.start.toolTip() == text("run.why.busy", job=text("job.patients"))
    assert not widget.cohort.put({"p1": "lost"}), "groups rest while a job runs"
    qtbot.waitUntil(lambda: opened.session.job is None, timeout=300_000)
    assert opened.session.message == text("patients.done")
    return opened


def test_training_shows_what_the_library_has(trained, qtbot, tmp_path, monkeypatch) -> None:
    widget, study = trained.widget, trained.study
    result = patient_result(study)
    assert result is not None
    copy = copy_study(study, tmp_path / "copy.dinobloom")
    with Study.open(copy) as other:
        library = drain(iter_train_patients(other, trained.groups, **QUICK))
    pd.testing.assert_frame_equal(result.table, library.table)
    table = result.table.set_index("patient")
    for line in widget.table.texts():
        row = table.loc[line[0]]
        chance = f"{100 * row[f'p:{row.predicted_group}']:.0f}"
        assert line[2:] == [trained.groups[line[0]], row["predicted_group"], chance, text("patients.how.out_of_fold")]
    assert widget.scores.table.rowCount() == len(result.scores)
    assert result.notes
    for note in result.notes:
        assert note in widget.scores.notes.text()
    assert not widget.scores.notes.isHidden()
    assert text("patients.outdated") not in widget.scores.notes.text()
    threads = []
    of = Seen.of
    monkeypatch.setattr(Seen, "of", lambda study: threads.append(threading.current_thread()) or of(study))
    study.exclude([study.cells.obs_names[0]])
    study.cells.X = study.cells.X.copy()  # as after a run: the embeddings may be others
    trained.session.revision += 1
    qtbot.waitUntil(lambda: text("patients.outdated") in widget.scores.notes.text(), timeout=20_000)
    study.undo()
    trained.session.revision += 1
    qtbot.waitUntil(lambda: text("patients.outdated") not in widget.scores.notes.text(), timeout=20_000)
    assert len(threads) == 1, "the embeddings are read once, not at each act"
    assert threads[0] is not threading.main_thread()
    # a patient's top cells
    gallery = GalleryWidget(trained.viewer)
    trained.viewer.window.add_dock_widget(gallery, name="Gallery")
    widget.attention.count.setValue(2)
    _click(trained, qtbot, "p5")
    attention, obs = attention_of(study.cells, result.model.name), study.cells.obs
    group = widget.attention.group.currentData()
    assert group == table.at["p5", "predicted_group"]
    other = next(name for name in result.classes if name != group)
    widget.attention.group.setCurrentIndex(widget.attention.group.findData(other))
    trained.session.revision += 1
    assert widget.attention.group.currentData() == other, "the choice stays while the patient is the same"
    widget.attention.group.setCurrentIndex(widget.attention.group.findData(group))
    of_patient = attention.loc[obs["patient"].to_numpy() == "p5", group].sort_values(ascending=False, kind="stable")
    assert list(trained.session.selected) == list(of_patient.index[:2])
    assert set(gallery.model.cells(range(len(gallery.model.rows)))) == set(of_patient.index[:2])
    qtbot.mouseClick(widget.attention.bottom, LEFT)
    assert list(trained.session.selected) == list(of_patient.index[:-3:-1])
    assert widget.findChildren(QScrollArea)[0].widget().minimumSizeHint().width() <= 345
    # colours
    qtbot.mouseClick(widget.attention.colour, LEFT)
    column = f"attention_{group}"
    assert trained.session.colour_by == column
    pd.testing.assert_series_equal(
        gating_of(trained.session).table[column], attention[group], check_names=False, check_index=False
    )
    assert gallery.view.tiles.shades.limits is not None
    qtbot.mouseClick(widget.attention.colour, LEFT)
    assert trained.session.colour_by == "class"
    assert gallery.view.tiles.shades is None
    qtbot.waitUntil(lambda: not gallery.thumbnails.busy, timeout=20_000)
    # nothing is lost with the study
    path = study.path
    trained.session.close_study()
    assert widget.scores.isHidden()
    trained.session.show(Study.open(path))
    assert widget.table.texts()[0][3] == table["predicted_group"].iloc[0]
