"""What a window does when something goes away or breaks under it: it says so, loses nothing, and goes on."""

from __future__ import annotations

import errno
import gc
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager

from napari_dinobloom.errors import ImageError, StudyError
from napari_dinobloom.explore.gates import RangeGate
from napari_dinobloom.io import lock
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline import exports
from napari_dinobloom.progress import Progress
from napari_dinobloom.ui import embedding, images, jobs, reader, reporting, study_job, workers
from napari_dinobloom.ui.correction import Correction
from napari_dinobloom.ui.following import Follower
from napari_dinobloom.ui.gating import gating_of
from napari_dinobloom.ui.images import tag
from napari_dinobloom.ui.lookup import Lookup
from napari_dinobloom.ui.patients import cohort_of
from napari_dinobloom.ui.picking import Picker
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.texts import text
from napari_dinobloom.ui.widgets.smear_form import number

pytestmark = pytest.mark.gui


@pytest.fixture
def scene(make_study: Callable[..., Study], qtbot: Any) -> Iterator[SimpleNamespace]:
    """A viewer that shows a study of two fields, which its session holds."""
    path = (study := make_study(0, 5)).path
    study.close()
    viewer = ViewerModel()
    session = session_of(viewer)
    study_job.start_open(viewer, session, path)
    qtbot.waitUntil(lambda: session.job is None, timeout=20_000)
    study = session.study
    found = SimpleNamespace(viewer=viewer, session=session, study=study, path=path, qtbot=qtbot)
    found.cells = list(study.cells.obs.index)
    found.correction = Correction(viewer, session)
    found.rest = lambda: qtbot.waitUntil(lambda: session.job is None, timeout=60_000)
    yield found
    session.close_study()


def warned() -> str:
    """What was said last."""
    return str(notification_manager.records[-1].message)


ACTS: dict[str, Callable[[SimpleNamespace], object]] = {
    "label": lambda scene: scene.correction.label("Sézary cell"),
    "exclude": lambda scene: scene.correction.exclude(),
    "delete": lambda scene: scene.correction.delete(),
    "undo": lambda scene: scene.correction.undo(),
    "gate": lambda scene: gating_of(scene.session).add(RangeGate(name="right", axes=("x0",), range_min=60.0)),
    "group": lambda scene: cohort_of(scene.session).put({"patient1": "A"}),
}


def said_of(study: Study) -> tuple[Any, ...]:
    """What people said of a study."""
    obs = study.cells.obs
    columns = [obs[name].tolist() for name in ("label", "reviewed", "excluded", "deleted")]
    return (*columns, len(study.acts), study.groups(), study.palette)


@pytest.mark.parametrize("name", ACTS)
def test_a_full_disk_refuses_an_act_whole(scene, monkeypatch, name) -> None:
    scene.session.select(scene.cells[0])
    scene.correction.label("blast")
    before = said_of(scene.study)

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        ACTS[name](scene)
        assert "full" in warned()
        assert said_of(scene.study) == before
    gone = len(notification_manager.records)
    ACTS[name](scene)
    assert said_of(scene.study) != before, "it can be done when there is room again"
    assert len(notification_manager.records) == gone
    with Study.open(scene.path, read_only=True) as again:
        assert said_of(again) == said_of(scene.study)


@pytest.mark.parametrize("name", ACTS)
def test_a_folder_that_was_renamed_refuses_acts_in_words(scene, tmp_path, name) -> None:
    scene.session.select(scene.cells[0])
    scene.correction.label("blast")
    before = said_of(scene.study)
    moved = scene.path.rename(tmp_path / "moved.dinobloom")
    said = len(notification_manager.records)
    ACTS[name](scene)
    assert len(notification_manager.records) > said
    assert str(scene.path) in warned()
    assert said_of(scene.study) == before
    assert not scene.path.exists(), "nothing is made at the old place"
    scene.session.close_study()
    study_job.start_open(scene.viewer, scene.session, moved)
    scene.rest()
    assert not scene.session.study.read_only, "it was this process that held it, and it has let go"
    assert said_of(scene.session.study) == before


def test_a_folder_that_was_renamed_is_held_as_long_as_it_is_open(scene, tmp_path) -> None:
    with Study.open(scene.path.rename(tmp_path / "moved.dinobloom")) as other:
        assert other.read_only
        assert other.held_by.pid == os.getpid()


def test_pictures_that_are_deleted_while_they_are_shown(scene) -> None:
    (image,) = [layer for layer in scene.viewer.layers if tag(layer).get("role") == "image"]
    scene.viewer.dims.set_point(0, 0)
    for record in scene.study.fields:
        scene.study.locate(record).unlink()
    with pytest.raises(ImageError, match=r"field2\.png: is gone\. Put it back"):  # napari makes a notification of it
        scene.viewer.dims.set_point(0, 1)
    scene.session.select(scene.cells[-1])
    scene.correction.label("blast")
    assert scene.study.cells.obs["label"].iloc[-1] == "blast", "cells can be named without it"
    scene.correction.add_at("field2", np.array([5.0, 5.0]))
    assert "field2" in warned()
    assert image in scene.viewer.layers


def test_a_table_that_is_damaged_is_said_and_holds_no_lock(make_study, qtbot) -> None:
    path = (study := make_study()).path
    study.close()
    (path / "cells.h5ad").write_bytes(b"torn")
    viewer = ViewerModel()
    session = session_of(viewer)
    study_job.start_open(viewer, session, path)
    qtbot.waitUntil(lambda: session.job is None, timeout=20_000)
    assert session.study is None
    assert "cells.h5ad" in warned()
    assert session.message == text("status.failed", message=warned())
    assert not (path / lock.NAME).exists()


def test_a_study_of_a_newer_version_is_said(make_study, qtbot) -> None:
    path = (study := make_study()).path
    study.close()
    content = json.loads((path / "study.json").read_text(encoding="utf-8"))
    (path / "study.json").write_text(json.dumps({**content, "schema": 99}), encoding="utf-8")
    viewer = ViewerModel()
    session = session_of(viewer)
    study_job.start_open(viewer, session, path)
    qtbot.waitUntil(lambda: session.job is None, timeout=20_000)
    assert "99" in warned()
    assert session.study is None


def test_weights_that_are_damaged_are_said_and_change_nothing(scene, tmp_path) -> None:
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}torn")
    before = dict(scene.study.settings), said_of(scene.study)
    embedding.start_embed(scene.session, embedding.Choice(str(weights), "file"))
    scene.rest()
    assert "mine.safetensors" in warned()
    assert (dict(scene.study.settings), said_of(scene.study)) == before


def test_an_export_onto_a_full_disk_is_said(scene, monkeypatch, tmp_path) -> None:
    def full(*_args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "out"))

    monkeypatch.setattr(exports, "write_tables", full)
    reporting.start_export(scene.session, tmp_path / "out", ["tables"])
    scene.rest()
    assert warned() == text("error.disk_full", folder=tmp_path / "out")


def test_layers_that_are_removed_during_a_job_stay_away(scene) -> None:
    go = threading.Event()

    def steps(study: Study) -> Any:
        yield Progress(0, 1, "")
        assert go.wait(20)
        study.label(scene.cells[0], "blast")

    jobs.start_job(scene.session, "Job", steps, lambda _: None, ended=lambda: jobs.refresh_cells(scene.session))
    scene.viewer.layers.clear()
    go.set()
    scene.rest()
    assert scene.session.message == ""
    assert len(scene.viewer.layers) == 0
    assert scene.study.cells.obs["label"].iloc[0] == "blast"


@pytest.mark.parametrize("breaks", [False, True])
def test_a_job_on_the_pictures_of_the_open_study_closes_and_opens_it(scene, breaks) -> None:
    follower = Follower.of(scene.viewer, scene.session)  # opens the study of layers where none is open
    image = next(layer for layer in scene.viewer.layers if tag(layer).get("role") == "image")
    said = len(notification_manager.records)

    def steps() -> Any:
        yield Progress(0, 1, "")
        study = Study.open(scene.path)
        assert not study.read_only
        if breaks:
            study.close()
            raise StudyError("Broke off.")
        return SimpleNamespace(study=study, cells=None, problems=[])

    jobs.start(scene.viewer, scene.session, image, scene.path, title="Job", steps=steps, keep=lambda _: None)
    scene.qtbot.waitUntil(lambda: scene.session.job is None and scene.session.study is not None, timeout=20_000)
    assert not scene.session.study.read_only
    assert scene.session.study.path == scene.path
    assert [one.message for one in notification_manager.records[said:]] == ["Broke off."] * breaks
    follower.detach()


STARTS: dict[str, Callable[[Any, Any, Path], object]] = {
    "open": lambda viewer, session, path: study_job.start_open(viewer, session, path),
    "create": lambda viewer, session, path: study_job.start_create(
        viewer, session, path.with_name("n.dinobloom"), "blood"
    ),
    "steps": lambda viewer, session, path: study_job.start_steps(viewer, session, [], "report"),
    "copy": lambda viewer, session, path: study_job.start_copy(session, path.with_name("copy.dinobloom")),
    "export": lambda viewer, session, path: reporting.start_export(session, path.parent / "out", ["tables", "labels"]),
    "suggest": lambda viewer, session, path: gating_of(session).suggest(),
    "train": lambda viewer, session, path: cohort_of(session).train(),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_viewer_that_is_closed_during_a_job_gives_the_study_back(make_study, monkeypatch, qtbot, name) -> None:
    study = make_study(0, 5)
    path = study.path
    study.cells.obsm["X_umap"] = np.zeros((6, 2), np.float32)
    study.save_cells(study.cells)
    study.close()
    viewer = ViewerModel()
    session = session_of(viewer)
    if name not in ("open", "create"):
        session.show(Study.open(path))
    go, begun, drained = threading.Event(), threading.Event(), workers.StepsWorker._drain

    def held(worker: Any) -> Any:
        begun.set()
        assert go.wait(20)
        return drained(worker)

    monkeypatch.setattr(workers.StepsWorker, "_drain", held)
    said = len(notification_manager.records)
    STARTS[name](viewer, session, path)
    assert begun.wait(20)
    del viewer
    gc.collect()
    go.set()
    qtbot.waitUntil(lambda: session.job is None, timeout=20_000)
    assert [one.message for one in notification_manager.records[said:]] == []
    assert session.study is None
    with Study.open(path) as again:
        assert not again.read_only
        assert again.cells.n_obs == 6


def test_two_viewers_on_one_study(scene, qtbot) -> None:
    other = ViewerModel()
    second = session_of(other)
    study_job.start_open(other, second, scene.path)
    qtbot.waitUntil(lambda: second.job is None, timeout=20_000)
    assert second.study.read_only
    assert warned() == text("study.held", holder=second.study.held_by)
    assert str(os.getpid()) in warned()
    second.select(scene.cells[0])
    Correction(other, second).label("blast")
    assert str(second.study.held_by) in warned()
    assert scene.study.acts == ()
    second.close_study()
    scene.session.select(scene.cells[0])
    assert scene.correction.label("blast"), "the first one writes on"


def test_sizes_that_are_no_numbers_are_none() -> None:
    layer = ViewerModel().add_image(np.zeros((4, 4, 3), np.uint8), rgb=True, units=("um", "um"))
    assert images.pixel_size_um(layer) == 1
    for size in ("nan", "inf", "-1", "0", "1e999"):
        assert number(size, (0.01, 10)) is None


def test_layers_of_a_study_whose_masks_are_gone(make_study) -> None:
    study = make_study()
    study.masks_path(study.fields[0].id).unlink()
    with pytest.raises(Exception, match="masks") as caught:
        reader.layers_of(study, study.fields)
    assert type(caught.value).__module__.startswith("napari_dinobloom")


def test_a_question_that_breaks_is_said_in_words(qtbot) -> None:
    lookup = Lookup(lambda asked: {}[asked])
    with qtbot.capture_exceptions() as caught, qtbot.waitSignal(lookup.failed, timeout=20_000):
        lookup.ask("schema")
    qtbot.waitUntil(lambda: bool(caught), timeout=20_000)
    (error,) = {str(error) for _, error, _ in caught}
    assert error.startswith(text("job.look_up"))
    assert "schema" in error
    assert "Run" not in error


def test_a_file_that_went_away_is_said_in_words(tmp_path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "gone").read_bytes()
    assert str(workers.explain("Run", caught.value)) == text("error.gone", path=tmp_path / "gone")


def test_a_selection_in_a_stack_draws_the_plane_once_and_moves_nothing(scene, monkeypatch) -> None:
    picker = Picker.of(scene.viewer, scene.session)
    (cells,) = [layer for layer in scene.viewer.layers if tag(layer).get("role") == "cells"]
    scene.session.select(scene.cells[0])  # its layer of outlines comes
    drawn, sliced = [], []
    labels = Study.labels
    monkeypatch.setattr(Study, "labels", lambda study, field: drawn.append(field) or labels(study, field))
    cells.events.set_data.connect(lambda _event: sliced.append(1))
    scene.session.select(*scene.cells)
    (shapes,) = [layer for layer in scene.viewer.layers if tag(layer).get("role") == "selected"]
    assert drawn == ["field1"], "of the plane on show, once for all its cells"
    assert len(shapes.data) == 3
    scene.session.select()
    assert len(shapes.data) == 0
    assert sliced == [], "napari does not slice the cells again"
    scene.session.select(*scene.cells)
    scene.viewer.dims.set_point(0, 1)
    assert {float(corner[0]) for path in shapes.data for corner in path} == {1.0}
    picker.detach()
