"""A study comes back as it was left: by Open, Recent and drop, after a crash, from a read-only or a damaged place."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel
from painted import _segment as find_cells
from painted import paint
from qtpy.QtWidgets import QApplication

from napari_dinobloom.explore.gates import RangeGate
from napari_dinobloom.io.smear import write_picture
from napari_dinobloom.io.study import Study
from napari_dinobloom.io.view import FILE, View, keep_view, parse_view, recall_view
from napari_dinobloom.progress import Progress
from napari_dinobloom.ui import jobs, layers, study_job, view_writer
from napari_dinobloom.ui.following import Follower
from napari_dinobloom.ui.gating import gating_of
from napari_dinobloom.ui.images import tag
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.widgets.gallery_widget import GalleryWidget
from napari_dinobloom.ui.widgets.patches_widget import PatchesWidget

pytestmark = pytest.mark.gui


class Scene:
    """A viewer with our window open, as far as views are concerned."""

    def __init__(self, viewer, qtbot, *, real: bool) -> None:
        self.viewer, self._qtbot, self._real = viewer, qtbot, real
        self.session = session_of(self.viewer)
        self.follower = Follower.of(self.viewer, self.session)
        self.keeper = self.follower._keeper

    def open(self, path) -> None:
        study_job.start_open(self.viewer, self.session, path)
        self.rest()

    def drop(self, path) -> None:
        self.viewer.open(str(path), plugin="napari-dinobloom")
        self.rest()

    def rest(self) -> None:
        """Wait until a study is open and its view restored."""
        session, keeper = self.session, self.keeper
        self._qtbot.waitUntil(
            lambda: session.job is None and session.study is not None and keeper._study is session.study, timeout=20_000
        )

    def ours(self, role: str) -> list:
        return [layer for layer in self.viewer.layers if tag(layer).get("role") == role]

    def leave(self) -> None:
        """Close the viewer, as a person does."""
        study = self.session.study
        if self._real:
            self.viewer.close()
        else:
            self.viewer.layers.clear()
        self.follower.detach()
        if study is not None:
            self.session.close_study()


@pytest.fixture
def scenes(make_napari_viewer, qtbot):
    made: list[Scene] = []

    def make(*, real: bool = True) -> Scene:
        made.append(Scene(make_napari_viewer() if real else ViewerModel(), qtbot, real=real))
        return made[-1]

    yield make
    for scene in made:
        scene.viewer.layers.clear()  # else the study would be opened again with them
        if scene.follower._users > 0:
            scene.follower.detach()
        scene.session.close_study()


def arrange(scene: Scene) -> SimpleNamespace:
    """Set all that is kept to something unusual; return what it was set to."""
    session, viewer = scene.session, scene.viewer
    cells = list(session.study.cells.obs.index)
    key = gating_of(session).add(RangeGate(name="right", axes=("x0",), range_min=60.0))
    (image,), (outlines,) = scene.ours("image"), scene.ours("cells")
    viewer.layers.move(viewer.layers.index(outlines), 0)
    image.opacity, image.gamma, image.contrast_limits, image.name = 0.5, 1.5, (10, 200), "mine"
    outlines.visible, outlines.contour = False, 0
    session.axes, session.colour_by = ("x0", "y0"), "area_px"
    session.population = session.gate = key
    session.select(cells[4], cells[3])
    session.shown = (cells[0], cells[1])
    session.keep("gallery", sort="slide", turned=True)
    viewer.dims.set_point(0, 1)
    viewer.scene.camera.center, viewer.scene.camera.zoom = (0, 40, 50), 7.5
    return SimpleNamespace(cells=cells, key=key, order=[tag(layer).get("role") for layer in viewer.layers])


def check(scene: Scene, was: SimpleNamespace) -> None:
    """All is as it was left."""
    session, viewer = scene.session, scene.viewer
    (image,), (outlines,) = scene.ours("image"), scene.ours("cells")
    assert [tag(one)["role"] for one in viewer.layers if tag(one).get("role") != "selected"] == ["cells", "image"]
    assert (image.opacity, image.gamma, list(image.contrast_limits), image.name) == (0.5, 1.5, [10, 200], "mine")
    assert (outlines.visible, outlines.contour, outlines.editable) == (False, 0, False)
    assert (session.axes, session.colour_by) == (("x0", "y0"), "area_px")
    assert (session.population, session.gate) == (was.key, was.key)
    assert (session.selected, session.focus) == ((was.cells[4], was.cells[3]), was.cells[3])
    assert session.shown == (was.cells[0], was.cells[1])
    assert session.choices["gallery"] == {"sort": "slide", "turned": True}
    assert viewer.dims.point[0] == 1
    assert tuple(viewer.scene.camera.center)[-2:] == pytest.approx((40, 50))
    assert viewer.scene.camera.zoom == pytest.approx(7.5)


def closed(study: Study):
    study.close()
    return study.path


def test_all_comes_back_by_open_and_by_drop(scenes, make_study) -> None:
    path = closed(make_study(0, 5))
    one = scenes()
    one.open(path)
    was = arrange(one)
    one.leave()
    two = scenes()
    two.drop(path)
    check(two, was)
    study_job.close(two.viewer, two.session)
    assert not [layer for layer in two.viewer.layers if tag(layer).get("role") in ("image", "cells")]
    two.open(path)
    check(two, was)


def test_a_killed_process_loses_no_more_than_the_last_look(scenes, make_study) -> None:
    path = closed(make_study(0, 5))
    one = scenes(real=False)
    one.open(path)
    was = arrange(one)
    one.keeper._timer.setInterval(50)
    file = path / FILE
    one._qtbot.waitUntil(lambda: file.is_file() and was.key in file.read_text(encoding="utf-8"), timeout=8000)
    with Study.open(path, read_only=True) as left:  # while the other still has it: nothing was said to it
        view = recall_view(left)
    assert (view.selected, view.zoom) == ((was.cells[4], was.cells[3]), 7.5)
    assert one.keeper._kept == view, "what is read is what was written, so that nothing is written again"


def test_nothing_moves_when_a_window_comes_while_the_study_is_open(scenes, make_study) -> None:
    one = scenes(real=False)
    one.open(closed(make_study(0, 5)))
    was = arrange(one)
    one.follower.detach()
    one.viewer.scene.camera.zoom = 3.0
    one.session.colour_by = "class"
    again = Follower.of(one.viewer, one.session)
    QApplication.processEvents()
    assert (one.viewer.scene.camera.zoom, one.session.colour_by, one.session.gate) == (3.0, "class", was.key)
    again.detach()
    assert recall_view(one.session.study).zoom == 3.0


def test_a_layer_that_was_taken_away_stays_away_and_a_new_field_comes(scenes, make_study, tmp_path) -> None:
    study = make_study(0, 5)
    first, second = (study.field(record.id) for record in study.fields)
    study.update(fields=[first, replace(second, pixel_size_um=0.25)])  # so that they make no stack
    path = closed(study)
    one = scenes(real=False)
    one.open(path)
    assert len(one.ours("cells")) == 2
    for layer in [*one.ours("cells"), *one.ours("image")]:
        if tag(layer)["fields"] == (second.id,):
            one.viewer.layers.remove(layer)
    QApplication.processEvents()
    one.leave()
    write_picture(tmp_path / "new.png", paint(9))
    with Study.open(path) as again:
        find_cells(again, tmp_path / "new.png")
    two = scenes(real=False)
    two.open(path)
    assert [tag(layer)["fields"] for layer in two.ours("cells")] == [(first.id,), ("new",)]


def test_what_is_there_no_more_is_passed_over(scenes, make_study) -> None:
    study = make_study(0, 5)
    path, cells = study.path, list(study.cells.obs.index)
    gone = View(
        selected=(cells[0], "nobody:00001"),
        focus="nobody:00001",
        shown=("nobody:00001",),
        axes=("umap_7", "x0"),
        colour_by="no column",
        population="g99",
        gate="g99",
        point=(0.0,),
        zoom=3.0,
        centre=(0.0, 1.0, 2.0),
    )
    assert keep_view(study, gone)
    for record in study.fields:
        study.locate(record).unlink()
    study.close()
    one = scenes(real=False)
    one.open(path)
    session = one.session
    assert session.selected == (cells[0],)
    assert (session.focus, session.shown, session.gate, session.population) == ("", (), "", "")
    assert (session.axes, session.colour_by) == (("umap_1", "umap_2"), "class")
    assert one.ours("image") == []
    assert one.viewer.scene.camera.zoom == 3.0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe{",
        b"[1, 2]",
        b'{"schema": 99, "views": {}}',
        b'{"schema": 1, "views": {"me": {"layers": [{"role": "cells", "fields": ["x"], "look": {"opacity": "red"}}]}}}',
        b'{"schema": 1, "views": {"me": {"zoom": NaN, "axes": ["a"], "selected": [1], "choices": [], "centre": {}}}}',
    ],
)
def test_a_damaged_view_is_no_reason_to_fail(make_study, content) -> None:
    study = make_study()
    (study.path / FILE).write_bytes(content)
    view = recall_view(study)
    assert (view.axes, view.zoom, view.selected, view.choices) == (("umap_1", "umap_2"), 0.0, (), {})
    assert keep_view(study, View(zoom=2.0))
    assert recall_view(study).zoom == 2.0


def test_looks_that_no_layer_can_have_are_passed_over(scenes, make_study) -> None:
    study = make_study()
    look = {"opacity": 7, "visible": "no", "gamma": -1, "contrast_limits": [5, 5], "blending": "x", "name": 3}
    fields = [study.fields[0].id]
    raw = {"layers": [{"role": role, "fields": fields, "look": look | {"contour": -2}} for role in ("image", "cells")]}
    assert keep_view(study, parse_view(raw))
    one = scenes(real=False)
    one.open(closed(study))
    (image,), (outlines,) = one.ours("image"), one.ours("cells")
    assert (image.opacity, image.visible, image.gamma, image.name) == (1.0, True, 1.0, fields[0])
    assert outlines.contour > 0


def test_a_view_goes_into_the_user_s_own_folder_where_the_study_is_read_only(scenes, make_study) -> None:
    held = make_study(0, 5)  # this object keeps the lock
    before = sorted(path.name for path in held.path.iterdir())
    one = scenes(real=False)
    one.open(held.path)
    assert one.session.study.read_only
    cell = str(held.cells.obs.index[1])
    one.session.select(cell)
    one.viewer.scene.camera.zoom = 9.0
    one.leave()
    assert sorted(path.name for path in held.path.iterdir()) == before
    two = scenes(real=False)
    two.open(held.path)
    assert two.session.selected == (cell,)
    assert two.viewer.scene.camera.zoom == 9.0


def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(make_study, caplog) -> None:
    study = make_study()
    (study.path / FILE).mkdir()  # in the way, whoever the user is
    assert not keep_view(study, View(zoom=2.0))
    assert recall_view(study) == View()
    assert "cannot be kept" in caplog.text


def test_the_view_of_another_person_is_a_beginning_and_not_a_reader(make_study, monkeypatch) -> None:
    from napari_dinobloom.io import view

    study = make_study()
    monkeypatch.setattr(view, "user", lambda: "anna")
    keep_view(study, View(zoom=2.0, reader="anna", blind=True))
    assert (recall_view(study).reader, recall_view(study).blind) == ("anna", True)
    monkeypatch.setattr(view, "user", lambda: "ben")
    assert (recall_view(study).zoom, recall_view(study).reader, recall_view(study).blind) == (2.0, "", False)
    keep_view(study, View(zoom=5.0))
    monkeypatch.setattr(view, "user", lambda: "anna")
    assert recall_view(study).zoom == 2.0, "each has his own"


@pytest.mark.parametrize("first", ["windows", "study"])
def test_windows_are_set_as_they_were_left(scenes, make_study, qtbot, first) -> None:
    path = closed(make_study(0, 5))

    def windows(scene: Scene) -> tuple[GalleryWidget, PatchesWidget]:
        made = GalleryWidget(scene.viewer), PatchesWidget(scene.viewer)
        for widget in made:
            qtbot.addWidget(widget)
        return made

    one = scenes(real=False)
    one.open(path)
    gallery, patches = windows(one)
    gallery.choice.show_.setCurrentIndex(gallery.choice.show_.findText("Lymphocyte (2)"))
    gallery.choice.sort.setCurrentIndex(gallery.choice.sort.findData("slide"))
    gallery.choice.turn.setChecked(True)
    gallery.choice.side.setValue(0)
    patches.rule.setCurrentIndex(2)
    patches.opacity.setValue(33)
    patches.on_field.setChecked(False)
    shown = gallery.model.cells(range(len(gallery.model.rows)))
    assert len(shown) == 2
    one.leave()
    two = scenes(real=False)
    before = windows(two) if first == "windows" else None
    two.open(path)
    gallery, patches = before or windows(two)
    assert gallery.model.cells(range(len(gallery.model.rows))) == shown
    assert gallery.choice.show_.currentText() == "Lymphocyte (2)"
    assert (gallery.choice.sort.currentData(), gallery.choice.turn.isChecked()) == ("slide", True)
    assert (gallery.choice.side.value(), gallery.view.tiles.side) == (0, 56)
    assert (patches.rule.currentData(), patches.opacity.value(), patches.on_field.isChecked()) == ("otsu", 33, False)


def test_a_study_that_is_dropped_takes_the_place_of_another_and_is_shown_once(scenes, make_study) -> None:
    first, second = closed(make_study(name="one")), closed(make_study(name="two"))
    one = scenes()
    one.open(first)
    before = [layer.name for layer in one.viewer.layers]
    one.drop(first)
    assert [layer.name for layer in one.viewer.layers] == before
    one.drop(second)
    one._qtbot.waitUntil(lambda: one.session.study is not None and one.session.study.path == second, timeout=20_000)
    one.rest()
    assert {tag(layer)["study"] for layer in one.ours("cells")} == {str(second)}
    assert not one.session.study.read_only
    with Study.open(first) as free:
        assert not free.read_only, "the lock of the first one was given back"


def test_a_copy_leaves_the_view_out(make_study, tmp_path) -> None:
    from napari_dinobloom.io.study_copy import copy_study

    study = make_study()
    keep_view(study, View(zoom=2.0))
    assert not (copy_study(study, tmp_path / "copy.dinobloom") / FILE).exists()


def test_a_view_is_no_larger_than_it_must_be(make_study) -> None:
    study = make_study()
    many = tuple(f"f:{number:05d}" for number in range(30_000))
    keep_view(study, View(selected=many, focus=many[-1], zoom=2.0))
    view = recall_view(study)
    assert (view.selected, view.focus, view.zoom) == ((), many[-1], 2.0)
    assert json.loads((study.path / FILE).read_text(encoding="utf-8"))["schema"] == 1


def test_nothing_is_made_at_the_old_place_of_a_study_that_was_renamed(scenes, make_study, tmp_path) -> None:
    path = closed(make_study(0, 5))
    one = scenes(real=False)
    one.open(path)
    path.rename(tmp_path / "moved.dinobloom")
    one.viewer.scene.camera.zoom = 4.5
    one.keeper.leave()
    assert not path.exists()
    one.leave()
    assert not path.exists()


def test_what_cannot_be_kept_is_tried_again_with_the_next_change_only(scenes, make_study, monkeypatch) -> None:
    from napari_dinobloom.io import view

    one, tried = scenes(real=False), []

    def full(*_: object, **__: object) -> None:
        tried.append(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    one.open(closed(make_study()))
    monkeypatch.setattr(view, "write_text", full)
    for zoom, times in ((4.5, 1), (4.5, 1), (5.5, 2)):
        one.viewer.scene.camera.zoom = zoom
        one.keeper.leave()
        assert len(tried) == times


@pytest.fixture
def slow_disk(monkeypatch):
    """A disk that writes a view only when it is let `go`; views that were `begun`, and the zooms of those written."""
    go, begun, zooms = threading.Event(), threading.Semaphore(0), []

    def keep(study: Study, view: View) -> bool:
        begun.release()
        assert go.wait(20)
        zooms.append(view.zoom)
        return keep_view(study, view)

    monkeypatch.setattr(view_writer, "keep_view", keep)
    yield SimpleNamespace(go=go, begun=begun, zooms=zooms)
    go.set()


def test_no_window_waits_for_the_disk_and_the_last_view_is_on_it_when_the_study_is_closed(
    scenes, make_study, slow_disk
) -> None:
    path = closed(make_study(0, 5))
    one = scenes(real=False)
    one.open(path)
    for zoom in (4.5, 5.5, 6.5):
        one.viewer.scene.camera.zoom = zoom
        one.keeper.keep()  # comes back though nothing can be written
        if zoom == 4.5:
            assert slow_disk.begun.acquire(timeout=20)
    assert slow_disk.zooms == []
    assert not slow_disk.begun.acquire(blocking=False), "one at a time"
    one.viewer.scene.camera.zoom = 7.5
    let_go = threading.Timer(0.2, slow_disk.go.set)
    let_go.start()
    one.session.close_study()
    assert slow_disk.zooms == [4.5, 7.5], "of those that waited the latest"
    with Study.open(path, read_only=True) as left:
        assert recall_view(left).zoom == 7.5


def test_what_waits_is_written_when_the_program_ends_without_closing_the_study(make_study) -> None:
    path = closed(make_study(0, 5))
    program = (
        "import sys, time\n"
        "from napari_dinobloom.io.study import Study\n"
        "from napari_dinobloom.io.view import View, keep_view\n"
        "from napari_dinobloom.ui import view_writer\n"
        "view_writer.keep_view = lambda study, view: time.sleep(0.2) or keep_view(study, view)\n"
        "writer, study = view_writer.ViewWriter(), Study.open(sys.argv[1])\n"
        "for zoom in (1.0, 2.0, 3.0):\n"
        "    writer.put(study, View(zoom=zoom))\n"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)
    with Study.open(path, read_only=True) as left:
        assert recall_view(left).zoom == 3.0


def test_a_writer_goes_on_after_an_error_that_nobody_expected(make_study, monkeypatch) -> None:
    study, said = make_study(), []

    def fail(*_: object) -> bool:
        raise RuntimeError("unheard of")

    monkeypatch.setattr(threading, "excepthook", lambda about: said.append(str(about.exc_value)))
    monkeypatch.setattr(view_writer, "keep_view", fail)
    writer = view_writer.ViewWriter()
    writer.put(study, View(zoom=1.0))
    writer.flush()
    assert said == ["unheard of"]
    monkeypatch.setattr(view_writer, "keep_view", keep_view)
    writer.put(study, View(zoom=2.0))
    writer.flush()
    assert recall_view(study).zoom == 2.0


def test_what_a_newer_version_keeps_is_left_alone(make_study) -> None:
    study = make_study()
    newer = json.dumps({"schema": 2, "views": {"anna": {"zoom": 3}}})
    (study.path / FILE).write_text(newer, encoding="utf-8")
    assert keep_view(study, View(zoom=2.0))
    assert (study.path / FILE).read_text(encoding="utf-8") == newer
    assert recall_view(study).zoom == 2.0


@pytest.mark.parametrize("ours", [True, False])
def test_a_job_leaves_the_view_as_it_is(scenes, make_study, qtbot, ours) -> None:
    study = make_study(0, 5)
    cells, path = list(study.cells.obs.index), study.path
    keep_view(study, View(zoom=33.0, centre=(0.0, 900.0, 900.0), colour_by="area_px", point=(0.0, 0.0, 0.0)))
    study.close()
    one, go = scenes(real=False), threading.Event()
    if ours:
        one.open(path)
        one.session.select(*cells[:2])
        (image,) = one.ours("image")
    else:
        image = one.viewer.add_image(np.zeros((2, 96, 128, 3), np.uint8), rgb=True)

    def steps():
        yield Progress(0, 1, "")
        go.wait(20)
        found = Study.open(path)
        built = layers.cell_layer(found, [record.id for record in found.fields], name="cells", stack=True)
        return SimpleNamespace(study=found, cells=built, problems=[])

    jobs.start(one.viewer, one.session, image, path, title="Job", steps=steps, keep=lambda _: None)
    one.viewer.dims.set_point(0, 1)
    one.viewer.scene.camera.center, one.viewer.scene.camera.zoom = (0, 40, 50), 9.0
    one.session.axes, one.session.colour_by = ("x0", "y0"), "class"
    go.set()
    one.rest()
    assert (one.viewer.scene.camera.zoom, one.viewer.dims.point[0]) == (9.0, 1)
    assert tuple(one.viewer.scene.camera.center)[-2:] == pytest.approx((40, 50))
    assert (one.session.axes, one.session.colour_by) == (("x0", "y0"), "class")
    assert one.session.selected == (tuple(cells[:2]) if ours else ())
