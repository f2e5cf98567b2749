"""What workers leave in the study's folder, and the one who asked takes from there; here one process plays both."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_dinobloom.cells import learned
from napari_dinobloom.cells import segment as segmentation
from napari_dinobloom.io import crops
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline import field_cells, run
from napari_dinobloom.pipeline.cluster import units
from napari_dinobloom.pipeline.crops import PARTS, iter_crop_study, open_crops, stored_keys
from napari_dinobloom.pipeline.embed import iter_embed_study
from napari_dinobloom.pipeline.segment import iter_segment_study
from napari_dinobloom.pipeline.settings import RunSettings, resolve
from napari_dinobloom.progress import drain


class Apart:
    """Does tasks one after the other, the last item first, and counts them."""

    apart = True

    def __init__(self) -> None:
        self.done: list[Any] = []

    def begin(self, study: Path) -> None:
        """Nothing to prepare."""

    def map(self, task: Callable[[Any], Any], items: Sequence[Any], *, encoder: bool = False) -> Iterator[Any]:
        for place in reversed(range(len(items))):
            self.done.append(items[place])
            yield place, task(items[place])


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """80 pictures of one cell each: two files of crops."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for i in range(80):
        Image.fromarray(noise.integers(0, 255, (24, 20, 3), dtype=np.uint8)).save(folder / f"{i:03d}.png")
    return folder


def _cells(path: Path) -> Any:
    with Study.open(path, read_only=True) as study:
        return study.cells.obs.copy()


def test_a_large_field_is_shared_in_parts(
    draw: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = draw(tmp_path / "images" / "field.png", 3)
    run(picture, tmp_path / "whole.dinobloom", until="segment", pixel_size_um=0.12)
    with run(picture, tmp_path / "parts.dinobloom", until="read", pixel_size_um=0.12) as made:
        settings = resolve(made.settings, {})
    monkeypatch.setattr(segmentation, "IN_MEMORY", 1000)
    monkeypatch.setattr(field_cells, "TILES", 2)
    monkeypatch.setitem(learned.LearnedSegmenter.__init__.__kwdefaults__, "tile", 150)
    computed = []
    find = learned.find_in
    monkeypatch.setattr(learned, "find_in", lambda *a: computed.append(a[1]) or find(*a))
    workers = Apart()
    with Study.open(tmp_path / "parts.dinobloom") as study:
        drain(iter_segment_study(study, settings, workers))
    assert [job.part for job in workers.done] == [(2, 3), (1, 3), (0, 3), None]
    assert len(computed) == len(set(computed)) == 6
    whole = _cells(tmp_path / "whole.dinobloom")
    assert len(whole) > 1
    assert _cells(tmp_path / "parts.dinobloom").equals(whole)


def test_cells_that_a_worker_left_are_taken_and_not_sought_again(smears: Path, tmp_path: Path, finished: Path) -> None:
    with run(smears, tmp_path / "s.dinobloom", until="read") as made:
        settings = resolve(made.settings, {})
    with Study.open(tmp_path / "s.dinobloom") as study:
        steps = iter_segment_study(study, settings, first := Apart())
        while len(first.done) < 3:
            next(steps)
        steps.close()  # after two fields were stored and the third was left by its worker
    with Study.open(tmp_path / "s.dinobloom") as study:
        drain(iter_segment_study(study, settings, second := Apart()))
    assert len(second.done) == 2
    columns = ["y0", "x0", "y1", "x1", "area_px", "stain_strength", "quality", "slide", "pixel_size_um"]
    assert _cells(tmp_path / "s.dinobloom")[columns].sort_index().equals(_cells(finished)[columns].sort_index())
    assert not list((tmp_path / "s.dinobloom" / "masks").glob("*.tiles"))


def test_files_of_crops_that_were_cut_before_a_stop_are_taken(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crops, "CHUNKS", 1)
    one = run(pictures, tmp_path / "one.dinobloom", until="crop", cells=True)
    with run(pictures, tmp_path / "two.dinobloom", until="segment", cells=True) as made:
        settings = resolve(made.settings, {})
    with Study.open(tmp_path / "two.dinobloom") as study:
        steps = iter_crop_study(study, settings, first := Apart())
        while len(first.done) < 1:
            next(steps)
        steps.close()
        assert (study.path / PARTS).is_dir()
        drain(iter_crop_study(study, settings, second := Apart()))
        assert len(second.done) == 1
        assert np.array_equal(open_crops(study)[...], open_crops(one)[...])
        assert np.array_equal(stored_keys(study), stored_keys(one))
        assert not (study.path / PARTS).exists()


def test_of_a_file_that_is_there_in_part_only_what_changed_is_cut(pictures: Path, tmp_path: Path) -> None:
    with run(pictures, tmp_path / "s.dinobloom", until="crop", cells=True) as made:
        settings = resolve(made.settings, {})
    with Study.open(tmp_path / "s.dinobloom") as study:
        before = open_crops(study)[...]
        table = study.cells
        table.obs.loc[table.obs.index[[3, 70]], "y1"] -= 2
        study.save_cells(table)
        drain(iter_crop_study(study, settings, workers := Apart()))
        assert [job.rows.tolist() for job in workers.done] == [[3, 70]]
        cut_apart = open_crops(study)[...]
        drain(iter_crop_study(study, replace(settings, interpolation="bicubic")))
        drain(iter_crop_study(study, settings))
        assert np.array_equal(cut_apart, open_crops(study)[...])
        changed = (cut_apart != before).any(axis=(1, 2, 3))
    assert changed.nonzero()[0].tolist() == [3, 70]


@pytest.mark.parametrize("settings", [{"mask_neighbours": True}, {"stain": "reinhard"}])
def test_crops_and_embeddings_are_those_of_one_process(
    settings: dict[str, Any], smears: Path, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "UNIT", 6)
    run(smears, copied, until="embed", **settings)
    expected = Study.open(copied, read_only=True)
    with run(smears, _fresh(copied, tmp_path), until="segment", **settings) as made:
        asked = resolve(made.settings, settings)
    with Study.open(tmp_path / "fresh.dinobloom") as study:
        drain(iter_crop_study(study, asked, Apart()))
        drain(iter_embed_study(study, asked, workers := Apart()))
        assert len(workers.done) > 2
        assert np.array_equal(open_crops(study)[...], open_crops(expected)[...])
        assert np.array_equal(np.asarray(study.cells.X), np.asarray(expected.cells.X))
        assert study.cells.uns["dinobloom"] == expected.cells.uns["dinobloom"]


def _fresh(finished: Path, tmp_path: Path) -> Path:
    """A copy of a study without what was computed from its masks."""
    path = tmp_path / "fresh.dinobloom"
    shutil.copytree(finished, path, ignore=shutil.ignore_patterns("crops.zarr", "embeddings"))
    return path


def test_deleted_cells_of_a_lost_picture_are_black(copied: Path, smears: Path) -> None:
    run(smears, copied, until="crop").close()
    with Study.open(copied) as study:
        gone = study.cells.obs.query("field == 'field4'").index
        study.delete(list(gone))
        study.update(fields=[r if r.id != "field4" else _moved(r) for r in study.fields])
        drain(iter_crop_study(study, RunSettings(interpolation="bicubic"), Apart()))
        lost = (study.cells.obs["field"] == "field4").to_numpy()
        pictures = open_crops(study)[...]
        assert not pictures[lost].any()
        assert pictures[~lost].any(axis=(1, 2, 3)).all()


def _moved(record: Any) -> Any:
    return replace(record, file="bert/no_such_file.png")
