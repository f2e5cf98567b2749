"""The Embed window with clicks: encoders and their terms, download, what a study keeps; and the preferences."""

from __future__ import annotations

import os
import sys
import threading
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from npe2 import PluginManifest
from painted import _segment as find_cells
from qtpy.compat import isalive
from qtpy.QtCore import Qt

from napari_dinobloom.encoders import fetch
from napari_dinobloom.encoders.library import cache_folder
from napari_dinobloom.errors import EncoderError
from napari_dinobloom.io.download import offline
from napari_dinobloom.io.embeddings import EmbeddingSet, Sink, keys_of
from napari_dinobloom.pipeline import driver
from napari_dinobloom.pipeline.driver import Outcome
from napari_dinobloom.pipeline.settings import resolve
from napari_dinobloom.progress import Progress
from napari_dinobloom.ui import embedding, layers, preferences
from napari_dinobloom.ui.images import tag
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.texts import text, tip
from napari_dinobloom.ui.widgets.embed_widget import EmbedWidget

pytestmark = pytest.mark.gui


@pytest.fixture
def dock(make_napari_viewer_proxy, qtbot):
    """A viewer with the widget docked."""
    viewer = make_napari_viewer_proxy(strict_qt="raise", show=False)
    widget = EmbedWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Embed")
    yield viewer, widget
    qtbot.waitUntil(lambda: not isalive(widget) or not widget.lookup.busy, timeout=20_000)
    session_of(viewer).close_study()


@pytest.fixture
def rest(qtbot):
    """Wait until nothing is under way."""
    return lambda widget: qtbot.waitUntil(
        lambda: widget._session.job is None and not widget.lookup.busy, timeout=20_000
    )


@pytest.fixture
def page(plugin_settings, npe2pm):
    """The plugin's page of napari's preferences, fresh."""
    npe2pm.register(PluginManifest.from_file(Path(str(files("napari_dinobloom"))) / "napari.yaml"))
    from napari.settings import get_plugin_settings

    yield get_plugin_settings(preferences.PLUGIN)
    for name in list(preferences._ours):
        os.environ.pop(name, None)
    preferences._ours.clear()
    preferences._threads.clear()


def choose(widget, name):
    at = widget.form.encoder.findData(name)
    assert at >= 0
    widget.form.encoder.setCurrentIndex(at)


def test_an_encoder_says_what_it_is_and_what_it_needs(dock, make_study):
    viewer, widget = dock
    assert widget.job.start.toolTip() == text("study.why.none")
    session_of(viewer).show(make_study())
    assert widget.job.start.isEnabled()
    assert text("embed.size_none") in widget.form.about.text()
    assert widget.form.fetch.toolTip() == text("embed.why.here")
    choose(widget, "DinoBloom-B")
    assert text("embed.size", size=0.5285) in widget.form.about.text()
    assert "Apache-2.0" in widget.form.about.text()
    assert widget.job.start.toolTip() == text("embed.why.absent", name="DinoBloom-B")
    assert widget.form.fetch.isEnabled()
    choose(widget, "Phikon")
    assert widget.form.fetch.toolTip() == text("embed.why.terms")
    assert not widget.form.terms.isHidden()
    widget.form.terms.setChecked(True)
    assert widget.form.fetch.isEnabled()
    choose(widget, "CTransPath")
    assert widget.form.fetch.toolTip().startswith(text("embed.why.by_hand", url="")[:30])
    choose(widget, "ResNet-50")
    assert text("embed.no_patches") in widget.form.about.text()


def test_nothing_is_fetched_unless_asked_and_a_download_can_be_stopped(dock, monkeypatch, qtbot, rest):
    viewer, widget = dock
    asked, go = [], threading.Event()

    def iter_fetch(name, *, accept_licence):
        asked.append((name, accept_licence))
        for done in range(1000):
            yield Progress(done, 1000, name)
            go.wait(20)

    monkeypatch.setattr(fetch, "iter_fetch", iter_fetch)
    choose(widget, "DinoBloom-S")
    assert asked == []
    qtbot.mouseClick(widget.form.fetch, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: bool(asked))
    assert widget.form.fetch.toolTip() == text("run.why.busy", job=text("job.fetch", name="DinoBloom-S"))
    qtbot.mouseClick(widget.job.cancel, Qt.MouseButton.LeftButton)
    go.set()
    rest(widget)
    assert asked == [("DinoBloom-S", True)]
    assert session_of(viewer).message == text("embed.fetch_stopped")
    assert widget.form.choice.name == "DinoBloom-S", "the choice stays"


def test_the_choices_reach_the_pipeline(dock, make_study, monkeypatch, qtbot, rest, tmp_path):
    viewer, widget = dock
    study = make_study()
    session_of(viewer).show(study)
    calls = []

    def iter_outcome(inputs, given, *, until, **asked):
        calls.append((inputs, given, until, asked))
        yield Progress(0, 1, "", "embed")
        return Outcome(study, resolve({}, {}))

    monkeypatch.setattr(driver, "iter_outcome", iter_outcome)
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(b"")
    monkeypatch.setattr(
        "napari_dinobloom.ui.widgets.embed_form.QFileDialog.getOpenFileName", lambda *_: (str(weights), "")
    )
    qtbot.mouseClick(widget.form.browse, Qt.MouseButton.LeftButton)
    widget.form.boxes["device"].setCurrentText("cuda:x")
    assert "cuda:x" in widget.job.start.toolTip()
    widget.form.boxes["device"].setCurrentText("cuda:1")
    widget.form.boxes["pooling"].setCurrentIndex(2)
    widget.form.memory.setValue(3.5)
    qtbot.mouseClick(widget.job.start, Qt.MouseButton.LeftButton)
    rest(widget)
    wanted = {"device": "cuda:1", "precision": "auto", "pooling": "class+mean", "max_memory_gib": 3.5}
    assert calls == [([], study, "embed", {"encoder": str(weights), **wanted})]
    assert widget.job.status.text() == text("embed.done")


def test_an_error_says_what_to_do(dock, make_study, monkeypatch, qtbot, rest):
    viewer, widget = dock
    session_of(viewer).show(make_study())

    def iter_outcome(*_args, **_asked):
        yield Progress(0, 1, "")
        raise EncoderError("Device 'cuda:1' is not available. Give cpu.")

    monkeypatch.setattr(driver, "iter_outcome", iter_outcome)
    qtbot.mouseClick(widget.job.start, Qt.MouseButton.LeftButton)
    rest(widget)
    assert widget.job.status.text() == text("status.failed", message="Device 'cuda:1' is not available. Give cpu.")
    assert widget.job.start.isEnabled()


def test_a_run_that_breaks_off_shows_the_fields_it_found(dock, make_study, monkeypatch, qtbot, rest, smear_file):
    viewer, widget = dock
    study = make_study()
    session_of(viewer).show(study)

    def iter_outcome(*_args, **_asked):
        yield Progress(0, 1, "", "segment")
        find_cells(study, smear_file)
        raise EncoderError("Broke off.")

    monkeypatch.setattr(driver, "iter_outcome", iter_outcome)
    before = session_of(viewer).revision
    qtbot.mouseClick(widget.job.start, Qt.MouseButton.LeftButton)
    rest(widget)
    assert widget.job.status.text() == text("status.failed", message="Broke off.")
    assert session_of(viewer).revision > before
    shown = [field for layer in viewer.layers for field in tag(layer).get("fields", ())]
    assert set(shown) == {study.fields[-1].id}, "the other one was not shown before"


def test_a_window_that_is_closed_during_a_download(dock, monkeypatch, qtbot):
    viewer, widget = dock
    go, session = threading.Event(), session_of(viewer)

    def iter_fetch(name, *, accept_licence):
        yield Progress(0, 1, name)
        go.wait(20)
        return Path(name)

    monkeypatch.setattr(fetch, "iter_fetch", iter_fetch)
    choose(widget, "DinoBloom-S")
    qtbot.mouseClick(widget.form.fetch, Qt.MouseButton.LeftButton)
    with qtbot.waitSignal(widget.destroyed, timeout=5000):
        viewer.window.remove_dock_widget(widget)
        widget.deleteLater()
    go.set()
    qtbot.waitUntil(lambda: session.job is None, timeout=20_000)
    assert session.message == text("embed.fetched", name="DinoBloom-S")


def test_an_encoder_that_is_listed_no_more_is_shown_as_absent(dock, make_study):
    viewer, widget = dock
    study = make_study()
    study.update(settings={"encoder": "my-own"})
    session_of(viewer).show(study)
    assert widget.form.choice.name == "my-own"
    assert widget.form.encoder.currentText() == text("embed.item", name="my-own", state=text("embed.state.absent"))
    for said in (widget.form.about.text(), widget.job.start.toolTip(), widget.form.fetch.toolTip()):
        assert said == text("embed.why.gone", name="my-own")


def test_a_damaged_ledger_stays_in_sight(dock, make_study, monkeypatch):
    viewer, widget = dock

    def damaged(_files):
        raise EncoderError("weights.json is damaged. Delete it.")

    monkeypatch.setattr(embedding, "choices", damaged)
    widget.form.list_encoders()
    session_of(viewer).show(make_study())
    assert widget.form.about.text() == "weights.json is damaged. Delete it."
    assert widget.job.start.toolTip() == "weights.json is damaged. Delete it."
    monkeypatch.undo()
    widget.form.list_encoders()
    assert widget.job.start.isEnabled()


def test_what_the_study_keeps_is_listed(dock, make_study, rest):
    viewer, widget = dock
    study = make_study()
    header = {"encoder": "starter", "sha256": "a" * 64, "key": "k" * 16, "precision": "float32", "device": "cpu"}
    vectors = EmbeddingSet(study.path / "embeddings" / "starter-aaaaaaaa", {**header, "pooling": "class"}, 4)
    sink = Sink(vectors, keys_of([f"{at:016x}" for at in range(3)]))
    sink[0:3] = np.ones((3, 4), np.float32)
    sink.close()
    session_of(viewer).show(study)
    rest(widget)
    (row,) = widget.table.texts()
    assert row[:4] == ["starter", "3", "4", "class, float32, cpu"]
    assert widget.table.horizontalHeaderItem(0).toolTip() == tip("embed.column.name")


def test_preferences_act(dock, make_study, page, tmp_path, monkeypatch):
    viewer, widget = dock
    monkeypatch.delenv("NAPARI_DINOBLOOM_CACHE")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    page.encoder.name, page.encoder.device, page.encoder.threads = "DinoBloom-S", "cpu", 1
    page.privacy.cache_folder, page.privacy.offline = str(tmp_path / "weights"), True
    session_of(viewer).show(make_study())
    assert widget.form.choice.name == "DinoBloom-S"
    assert widget.form.settings()["device"] == "cpu"
    assert cache_folder() == tmp_path / "weights"
    assert offline()
    assert widget.form.fetch.toolTip() == text("embed.why.offline")
    assert os.environ["OMP_NUM_THREADS"] == "1"
    page.encoder.threads, page.privacy.cache_folder, page.privacy.offline = 0, "", False
    preferences.apply()
    assert not offline()
    assert not {"NAPARI_DINOBLOOM_CACHE", "NAPARI_DINOBLOOM_OFFLINE", "OMP_NUM_THREADS"} & set(os.environ)


@pytest.mark.parametrize("loaded_first", [True, False])
def test_torch_gets_its_own_threads_back(page, monkeypatch, loaded_first):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(preferences, "_cores", lambda: 12)
    threads = [12]
    torch = SimpleNamespace(get_num_threads=lambda: threads[-1], set_num_threads=threads.append)
    if loaded_first:
        monkeypatch.setitem(sys.modules, "torch", torch)
    else:
        monkeypatch.delitem(sys.modules, "torch", raising=False)
    page.encoder.threads = 1
    preferences.apply()
    if not loaded_first:  # which obeys OMP_NUM_THREADS then
        threads.append(1)
        monkeypatch.setitem(sys.modules, "torch", torch)
    assert threads[-1] == 1
    page.encoder.threads = 0
    preferences.apply()
    assert threads[-1] == 12
    page.encoder.threads = 2
    preferences.apply()
    page.encoder.threads = 0
    preferences.apply()
    assert threads[-1] == 12


def test_a_variable_that_the_user_set_wins(page, tmp_path):
    page.privacy.cache_folder = str(tmp_path / "other")
    before = cache_folder()
    preferences.apply()
    assert cache_folder() == before


def test_defaults_where_the_page_is_not_there(monkeypatch):
    def gone(_plugin):
        raise KeyError("no such plugin")

    monkeypatch.setattr("napari.settings.get_plugin_settings", gone)
    assert preferences.preferences() == preferences.Preferences()


def test_colours_and_outlines_of_the_preferences_act(page, make_study, tmp_path, monkeypatch):
    monkeypatch.delenv("NAPARI_DINOBLOOM_COLOURS", raising=False)
    boxes = np.array([[0, 0, 0, 0], [0, 0, 60, 60]], np.int32)
    before = layers.width_of(boxes)
    table = tmp_path / "ours.csv"
    table.write_text("# of our laboratory\nclass, colour\nneutrophil,#12AB56\nmy class,#abcdef\n", encoding="utf-8")
    page.colours.classes = str(table)
    page.colours.outline_width, page.colours.outline_opacity = 3.0, 0.4
    preferences.apply()
    study = make_study()
    assert study.palette == {"neutrophil": "#12ab56", "my class": "#abcdef"}
    _, meta, _ = layers.cell_layer(study, [study.fields[0].id], name="smear", stack=False)
    assert meta["opacity"] == 0.4
    np.testing.assert_allclose(meta["colormap"].map(1)[:3], np.array([0x12, 0xAB, 0x56]) / 255, atol=1e-6)
    assert layers.width_of(boxes) == 3 * before
    page.colours.classes = ""
    preferences.apply()
    assert make_study(name="other").palette == {}
