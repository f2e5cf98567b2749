"""The Classify window with clicks and keys: its numbers are those of the library and of the command line."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from classified import NAMES, drawn_study, make_atlas
from napari.utils.notifications import notification_manager
from numpy.testing import assert_allclose
from pandas.testing import assert_frame_equal
from PIL import Image
from qtpy.compat import isalive
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QScrollArea
from typer.testing import CliRunner

from napari_dinobloom.cells.taxonomy import describe
from napari_dinobloom.cli import app
from napari_dinobloom.io.generate import generate_smear
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline.driver import iter_outcome
from napari_dinobloom.pipeline.evidence import evidence
from napari_dinobloom.pipeline.own_reference import next_to_label
from napari_dinobloom.predict import shelf as shelves
from napari_dinobloom.predict.classifier import load_classifier
from napari_dinobloom.predict.shelf import look_at, own_folder
from napari_dinobloom.progress import drain
from napari_dinobloom.ui.references import _why_not
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.classify_widget import ClassifyWidget
from napari_dinobloom.ui.widgets.gallery_widget import GalleryWidget

pytestmark = pytest.mark.gui

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A shelf of the user's own with an atlas that fits the drawn study, and one of another encoder."""
    monkeypatch.setenv("NAPARI_DINOBLOOM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NAPARI_DINOBLOOM_CACHE", str(tmp_path / "cache"))
    folder = own_folder()
    folder.mkdir(parents=True)
    make_atlas("fits").save(folder / "fits.safetensors")
    make_atlas("foreign", sha256="cd" * 32).save(folder / "foreign.safetensors")
    return folder


@pytest.fixture
def window(make_napari_viewer_proxy, tmp_path, monkeypatch, qtbot, shelf):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    viewer = make_napari_viewer_proxy(strict_qt="raise", show=True)
    session = session_of(viewer)
    widget = ClassifyWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Classify")
    viewer.window.resize(1100, 760)
    yield SimpleNamespace(viewer=viewer, session=session, widget=widget, shelf=shelf)
    qtbot.waitUntil(lambda: session.job is None, timeout=60_000)
    session.close_study()
    if isalive(widget):
        qtbot.waitUntil(lambda: not (widget.cell.lookup.busy or widget.form.lookup.busy), timeout=20_000)


@pytest.fixture
def opened(window, tmp_path, qtbot):
    """The window with the drawn study, named by the atlas that fits."""
    study = drawn_study(tmp_path / "drawn.dinobloom", atlas=make_atlas("fits"))
    study.update(settings={"atlas": "fits"})
    window.session.show(study)
    window.study = study
    return window


def _focus(window, qtbot, *cells: str) -> None:
    """Select cells, and wait until the last one is looked up."""
    window.session.select(*cells)
    qtbot.waitUntil(lambda: window.widget.cell.lines.text().startswith(cells[-1]), timeout=20_000)


def _items(box) -> dict[str, bool]:
    """Lines of a box, and whether they can be chosen."""
    return {box.itemData(at).name: box.model().item(at).isEnabled() for at in range(box.count())}


def test_an_empty_window_says_what_to_do(window) -> None:
    widget = window.widget
    assert not widget.job.start.isEnabled()
    assert widget.job.start.toolTip() == text("classify.why.no_study")
    assert widget.job.status.text() == text("classify.why.no_study")
    assert widget.cell.lines.text() == text("classify.cell.none")
    assert widget.labels.probe.toolTip() == text("classify.why.no_study")
    assert widget.disclaimer.text() == text("disclaimer")


def test_only_references_of_this_encoder_can_be_chosen(opened) -> None:
    form = opened.widget.form
    found = _items(form.reference)
    assert found["fits"]
    assert not found["foreign"]
    assert sum(found.values()) == 1
    assert form.chosen.name == "fits"
    at = list(found).index("foreign")
    why = text("classify.refused.encoder", encoder="drawn", sha256="cdcdcdcd")
    assert form.reference.itemData(at, Qt.ItemDataRole.ToolTipRole) == why
    assert why in form.reference.itemText(at)
    assert opened.widget.job.start.isEnabled()


def test_a_reference_of_recoloured_cells_is_no_choice_for_others(opened) -> None:
    one = look_at(opened.widget.form.chosen.path)
    study = opened.study
    assert not _why_not(one, study)
    assert not _why_not(replace(one, stain="reference"), study)
    assert _why_not(replace(one, stain="macenko"), study) == text("classify.refused.stain")


def test_the_limits_of_a_reference_are_shown(opened, qtbot) -> None:
    form = opened.widget.form
    atlas = make_atlas("fits")

    def said(one):
        return text("classify.threshold", threshold=one.threshold, limit=one.distance_limit)

    qtbot.waitUntil(lambda: form.note.text() == said(atlas), timeout=20_000)
    form.k.setFocus()
    form.k.selectAll()
    qtbot.keyClicks(form.k, "9")
    other = atlas.using(k=9)
    assert said(other) != said(atlas)
    qtbot.waitUntil(lambda: form.note.text() == said(other), timeout=20_000)


def test_the_cell_in_focus_is_explained_as_the_library_does(opened, qtbot) -> None:
    panel, study = opened.widget.cell, opened.study
    atlas = load_classifier(opened.shelf / "fits.safetensors")
    obs = study.cells.obs
    for cell in (obs.index[~obs["abstained"]][0], obs.index[obs["abstained"]][0]):
        _focus(opened, qtbot, str(cell))
        row = obs.index.get_loc(cell)
        source = [study.field(obs.at[cell, "field"]).sha256[:16]]
        shares = atlas.predict_proba(study.cells.X[[row]], source)[0]
        order = [at for at in np.argsort(-shares, kind="stable") if shares[at] >= 0.005]
        shown = [bar for bar in panel.bars.bars if not bar.isHidden()]
        titles = [button.text() for button in panel.bars.buttons if not button.isHidden()]
        assert titles == [describe(atlas.classes[at]).title for at in order]
        assert [bar.value() for bar in shown] == [round(1000 * float(shares[at])) for at in order]
        near = atlas.explain(study.cells.X[[row]], source)
        assert [line[2:] for line in panel.near.texts()] == [
            [f"{one.distance:.3g}", one.source] for one in near.itertuples()
        ]
        lines, one = panel.lines.text().split("\n"), obs.loc[cell]
        key = "classify.cell.unnamed" if one["abstained"] else "classify.cell.named"
        assert text(key, title=describe(one["predicted"]).title, confidence=one["confidence"]) in lines
        reasons = [line for line in lines if line.startswith("It stays without a name")]
        assert bool(reasons) == bool(one["abstained"])
        assert text("classify.cell.other") not in lines


def test_evidence_is_that_of_the_table(opened) -> None:
    study, atlas = opened.study, make_atlas("fits")
    obs = study.cells.obs
    for cell in obs.index[:6]:
        found = evidence(study, str(cell), atlas)
        assert found.shares.index[0] == obs.at[cell, "predicted"]
        assert_allclose(found.shares.iloc[0], obs.at[cell, "confidence"], rtol=1e-6)
        assert_allclose(found.near["distance"].iloc[-1], obs.at[cell, "distance"], rtol=1e-6)  # the k-th counts
        assert found.named_by == found.reference


def test_one_click_names_the_cell_and_the_next_one_comes_into_focus(opened, qtbot) -> None:
    panel, study, session = opened.widget.cell, opened.study, opened.session
    cells = [str(cell) for cell in study.cells.obs.index[:3]]
    session.look_through(*cells)
    qtbot.waitUntil(lambda: panel.lines.text().startswith(cells[0]), timeout=20_000)
    button = panel.bars.buttons[0]
    named = next(one.name for one in map(describe, NAMES) if one.title == button.text())
    qtbot.mouseClick(button, LEFT)
    obs = study.cells.obs
    assert obs.at[cells[0], "label"] == named
    assert obs.at[cells[0], "reviewed"]
    assert session.focus == cells[1]
    assert set(session.selected) == set(cells[1:])
    qtbot.waitUntil(lambda: panel.lines.text().startswith(cells[1]), timeout=20_000)
    panel.other.setFocus()
    qtbot.keyClicks(panel.other.lineEdit(), "my new class")
    qtbot.keyClick(panel.other.lineEdit(), Qt.Key.Key_Return)
    assert obs.at[cells[1], "label"] == "my new class"
    assert study.palette["my new class"] not in {study.palette.get(name) for name in NAMES}
    assert session.focus == cells[2]
    qtbot.waitUntil(lambda: panel.lines.text().startswith(cells[2]), timeout=20_000)
    assert opened.widget.labels.counts.rowCount() == 2


def test_only_a_cell_that_is_shown_gets_a_label(opened, qtbot, monkeypatch) -> None:
    panel, obs, seen = opened.widget.cell, opened.study.cells.obs, threading.Event()
    first, second = map(str, obs.index[:2])
    _focus(opened, qtbot, first)
    answer = panel.lookup._answer
    monkeypatch.setattr(panel.lookup, "_answer", lambda asked: seen.wait(20) and answer(asked))
    opened.session.select(second)
    assert panel.lines.text() == text("classify.cell.busy")
    shown = [button for button in panel.bars.buttons if not button.isHidden()]
    assert shown
    assert not any(button.isEnabled() for button in (*shown, panel.assign))
    assert shown[0].toolTip() == text("classify.cell.busy")
    panel.name_it("monocyte")
    assert (obs["label"] == "").all()
    seen.set()
    qtbot.waitUntil(lambda: panel.lines.text().startswith(second), timeout=20_000)
    assert panel.bars.buttons[0].isEnabled()
    panel.lookup._at_work = panel.lookup._asked  # as if it were being looked up
    panel.lookup._fail(RuntimeError("unforeseen"))
    assert panel.lines.text() == text("classify.cell.failed")
    panel.name_it("monocyte")
    assert (obs["label"] == "").all()
    panel.ask()
    qtbot.waitUntil(lambda: panel.lines.text().startswith(second), timeout=20_000)
    panel.name_it("monocyte")
    assert obs.at[second, "label"] == "monocyte"


def test_the_last_run_of_a_study_is_taken_over(opened, tmp_path, monkeypatch) -> None:
    form = opened.widget.form
    form.k.setValue(3)
    own = tmp_path / "elsewhere" / "own.safetensors"
    own.parent.mkdir()
    make_atlas("own").save(own)
    second = drawn_study(tmp_path / "second.dinobloom")
    used = {"atlas": str(own), "knn_k": 700, "knn_metric": "cosine", "knn_weights": "distance"}
    second.update(settings=used)
    opened.session.show(second)
    assert form.chosen.path == own
    assert form.settings() == used
    later = opened.shelf / "later.safetensors"
    make_atlas("later").save(later)
    monkeypatch.setattr(shelves, "bundled_file", lambda _encoder, _policy: later)
    third = drawn_study(tmp_path / "third.dinobloom")
    third.update(settings={"atlas": "auto"})
    opened.session.show(third)
    assert form.chosen.name == "later"
    assert (form.k.value(), form.distance.currentData(), form.weights.currentData()) == (0, "own", "own")


def test_a_probe_that_is_ready_after_its_window_was_closed(opened, qtbot) -> None:
    widget, session = opened.widget, opened.session
    made = widget.labels._made("mine")
    qtbot.waitUntil(lambda: not (widget.cell.lookup.busy or widget.form.lookup.busy), timeout=20_000)
    with qtbot.waitSignal(widget.destroyed, timeout=5000):
        opened.viewer.window.remove_dock_widget(widget)
        widget.deleteLater()
    made(opened.shelf / "fits.safetensors")
    assert session.message == text("classify.learned_only", name="mine")


def test_the_cells_to_label_next_are_selected_and_the_gallery_shows_them_alone(opened, qtbot) -> None:
    labels, session = opened.widget.labels, opened.session
    cell = str(opened.study.cells.obs.index[1])
    session.select(cell)
    gallery = GalleryWidget(opened.viewer)
    opened.viewer.window.add_dock_widget(gallery, name="Gallery")
    qtbot.wait(60)
    assert session.selected == (cell,), "to open the gallery is no selection"
    labels.count.setValue(6)
    qtbot.mouseClick(labels.next, LEFT)
    qtbot.waitUntil(lambda: session.job is None, timeout=60_000)
    wanted = next_to_label(opened.study, 6)
    assert list(session.selected) == wanted
    assert session.focus == wanted[0]
    assert len(wanted) == 6
    assert set(gallery.model.cells(range(len(gallery.model.rows)))) == set(wanted)
    for _ in range(2):  # asked for once more, they are shown and selected again
        qtbot.wait(60)  # a selection of a person settles in 30 ms
        assert list(opened.session.selected) == wanted
        assert len(gallery.view.chosen_places()) == 6
        session.look_through(*wanted)
    qtbot.waitUntil(lambda: not gallery.thumbnails.busy, timeout=20_000)


def test_a_second_start_is_refused_visibly(opened, qtbot) -> None:
    opened.widget.labels.count.setValue(3)
    opened.widget.labels.next.click()
    assert opened.session.job is not None
    for button in (opened.widget.job.start, opened.widget.labels.next, opened.widget.labels.probe):
        assert not button.isEnabled()
        assert button.toolTip() == text("run.why.busy", job=text("job.next"))
    assert opened.widget.job.cancel.isEnabled()
    qtbot.waitUntil(lambda: opened.session.job is None, timeout=60_000)
    assert opened.widget.labels.next.isEnabled()


def test_a_file_that_is_no_reference_is_said(opened, tmp_path) -> None:
    (tmp_path / "thesis.safetensors").write_bytes(b"dear reader")
    before = len(notification_manager.records)
    opened.widget.form.add_file(tmp_path / "thesis.safetensors")
    said = [record.message for record in notification_manager.records[before:]]
    assert any("thesis.safetensors" in line for line in said)
    assert opened.widget.form.chosen.name == "fits"


def test_it_fits_into_a_narrow_dock_and_closes_with_its_study(opened, qtbot) -> None:
    widget = opened.widget
    _focus(opened, qtbot, str(opened.study.cells.obs.index[0]))
    inner = widget.findChildren(QScrollArea)[0].widget()
    assert inner.minimumSizeHint().width() <= 345
    opened.session.close_study()
    assert widget.cell.lines.text() == text("classify.cell.none")
    assert not widget.job.start.isEnabled()
    assert widget.form.encoder.text() == text("classify.encoder.none")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A study of 24 pictures of cells that went the whole way up to a map."""
    folder = tmp_path_factory.mktemp("pictures")
    smear = generate_smear(1, n_white=24, width=800, height=700)
    pixels = np.asarray(smear.image)
    for at, box in enumerate(smear.table[["y0", "x0", "y1", "x1"]].to_numpy(int)):
        path = folder / "cells" / f"p{at % 3}" / f"{at}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[box[0] : box[2], box[1] : box[3]]).save(path)
    study = folder / "cells.dinobloom"
    drain(iter_outcome([folder / "cells"], study, until="map", cells=True, map_method="pca", atlas="none"))
    return study


@pytest.fixture
def embedded(window, pictures, tmp_path):
    """The window with a copy of that study, whose cells nobody has named."""
    shutil.copytree(pictures, tmp_path / "clicks.dinobloom")
    window.study = Study.open(tmp_path / "clicks.dinobloom")
    window.session.show(window.study)
    return window


def test_labels_train_a_probe_and_extend_an_atlas(embedded, qtbot) -> None:
    labels, form, session = embedded.widget.labels, embedded.widget.form, embedded.session
    cells, first = [str(cell) for cell in embedded.study.cells.obs.index], form.chosen
    qtbot.keyClicks(labels.name, "mine")
    assert labels.probe.toolTip() == labels.extend.toolTip() == text("classify.why.no_labels")
    embedded.study.label(cells[:12], "monocyte")
    session.revision += 1
    assert not labels.probe.isEnabled()
    assert labels.probe.toolTip() == labels.why.text() == text("classify.why.one_class", count=12)
    embedded.study.label(cells[12:22], "lymphocyte")
    session.revision += 1
    assert labels.counts.texts() == [["Monocyte", "12"], ["Lymphocyte", "10"]]
    assert labels.probe.toolTip() == tip("classify.probe")
    qtbot.mouseClick(labels.probe, LEFT)
    qtbot.waitUntil(lambda: session.job is None, timeout=60_000)
    assert session.message == text("classify.learned", name="mine")
    assert (form.chosen.name, form.chosen.kind) == ("mine", "probe")
    assert load_classifier(form.chosen.path).classes == ("lymphocyte", "monocyte")
    assert not form.k.isEnabled()
    assert form.k.toolTip() == text("classify.why.probe")
    assert labels.extend.toolTip() == text("classify.why.no_atlas")
    qtbot.keyClicks(labels.name, "mine")
    assert labels.probe.toolTip() == text("classify.why.taken", name="mine")
    form.reference.setCurrentIndex(form.reference.findText(first.title))
    labels.name.setText("larger")
    qtbot.mouseClick(labels.extend, LEFT)
    qtbot.waitUntil(lambda: session.job is None, timeout=60_000)
    assert form.chosen.name == "larger", session.message
    assert len(load_classifier(form.chosen.path)) == len(load_classifier(first.path)) + 22


def test_a_run_gives_the_table_of_the_command_line(embedded, pictures, tmp_path, qtbot) -> None:
    shutil.copytree(pictures, tmp_path / "line.dinobloom")
    session, widget = embedded.session, embedded.widget
    assert (session.study.cells.obs["predicted"] == "").all()
    before = session.revision
    chosen = widget.form.chosen
    assert chosen.kind == "atlas"
    widget.form.k.setValue(5)
    widget.form.weights.setCurrentIndex(widget.form.weights.findData("distance"))
    qtbot.mouseClick(widget.job.start, LEFT)
    qtbot.waitUntil(lambda: session.job is None, timeout=120_000)
    assert widget.job.status.text() == text("classify.done")
    assert session.revision > before
    options = ["--atlas", chosen.asked, "--k", "5", "--weights", "distance"]
    answer = CliRunner().invoke(app, ["classify", str(tmp_path / "line.dinobloom"), *options])
    assert answer.exit_code == 0, answer.output
    with Study.open(tmp_path / "line.dinobloom", read_only=True) as line:
        assert_frame_equal(session.study.cells.obs, line.cells.obs)
        assert (line.cells.obs["predicted"] != "").all()
    _focus(embedded, qtbot, str(session.study.cells.obs.index[0]))
    assert len(widget.cell.near.texts()) == 5
    QApplication.processEvents()
