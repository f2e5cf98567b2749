"""A whole slide through the steps: cells are sought in its monolayer only, and little else of it is read."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_dinobloom.cells import monolayer
from napari_dinobloom.cells import segment as segmentation
from napari_dinobloom.cells.monolayer import QualityMap
from napari_dinobloom.cells.segmenter import get_segmenter
from napari_dinobloom.io import slides
from napari_dinobloom.io.fields import FieldRecord
from napari_dinobloom.io.generate_slide import TILE, generate_slide, wedge, write_slide
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline import quality
from napari_dinobloom.pipeline.driver import iter_outcome, step_states
from napari_dinobloom.pipeline.field_cells import FieldJob
from napari_dinobloom.pipeline.quality import iter_region, read_map
from napari_dinobloom.pipeline.settings import RunSettings
from napari_dinobloom.progress import drain

RUN = Path(__file__).parents[2] / "benchmarks" / "slides.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    patches = pytest.MonkeyPatch()
    patches.setattr("napari_dinobloom.io.generate_slide.VARIANTS", 1)
    slide = generate_slide(wedge(10, 12, (4, 3, 6, 9), (0.34, 0.34)), 3)
    patches.undo()
    return slide, write_slide(tmp_path_factory.mktemp("slide") / "s1.svs", slide)


@pytest.fixture
def small(monkeypatch):
    """Count every picture as a whole slide."""
    monkeypatch.setattr(monolayer, "WHOLE_SLIDE_PX", 1000)
    monkeypatch.setattr(segmentation, "IN_MEMORY", 1000)


@pytest.fixture
def read(monkeypatch):
    """Squares of the finest level that were read."""
    places = set()
    plain = slides._read

    def counting(part, y0, y1, x0, x1):
        if part.level == 0:
            places.update((y, x) for y in range(y0 // TILE, -(-y1 // TILE)) for x in range(x0 // TILE, -(-x1 // TILE)))
        return plain(part, y0, y1, x0, x1)

    monkeypatch.setattr(slides, "_read", counting)
    monkeypatch.setattr("napari_dinobloom.io.lazy.CHUNK", TILE)
    monkeypatch.setattr("napari_dinobloom.cells.windows.BLOCK", TILE)
    return places


def test_cells_are_sought_in_the_monolayer_and_nothing_far_from_blood_is_read(made, small, read, tmp_path):
    slide, path = made
    outcome = drain(iter_outcome(path, tmp_path / "a.dinobloom", until="crop"))
    with outcome.study as study:
        assert {one.name: one.state for one in step_states(study)}["segment"] == "done"
        assert {one.name: one.state for one in step_states(study, search="all")}["segment"] == "stale"
        field = study.fields[0]
        assert (field.pixel_size_um, field.height, field.width) == (0.25, 5120, 6144)
        assert "monolayer: 33% of the blood, 3% of the slide" in field.problem
        obs = study.cells.obs
        assert len(obs) >= 8
        assert set(obs["scale_from"]) == {"file"}
        squares = set(zip((obs["y"] // TILE).astype(int), (obs["x"] // TILE).astype(int), strict=True))
        assert squares <= set(map(tuple, np.argwhere(slide.layout == 1).tolist()))
        assert np.array_equal(read_map(study, field.id).grades, slide.layout)
    blood = {tuple(place) for place in np.argwhere(slide.layout > 0).tolist()}
    around = {(y + dy, x + dx) for y, x in blood for dy in range(-2, 3) for dx in range(-2, 3)}
    assert blood <= read <= around  # a block of the network reaches so far beyond the monolayer
    assert len(around) <= slide.layout.size / 2


def test_a_map_is_made_once_and_again_when_it_is_damaged(made, small, tmp_path, monkeypatch):
    computed = []
    look = monolayer._iter_thumbnail
    monkeypatch.setattr(monolayer, "_iter_thumbnail", lambda *a: computed.append(0) or look(*a))
    nothing = monolayer.graded
    monkeypatch.setattr(monolayer, "graded", lambda *a: nothing(*a) * 0 + monolayer.THICK)  # no square is right
    out = tmp_path / "a.dinobloom"
    with drain(iter_outcome(made[1], out, until="segment")).study as study:
        assert study.cells.n_obs == 0
        assert "100% is too thick" in study.fields[0].problem
    for damaged in (False, True):
        (out / "masks" / "s1.npz").unlink()
        if damaged:
            (out / "masks" / "monolayer" / "s1.npz").write_bytes(b"broken")
        with Study.open(out) as study:
            study.forget_steps(["segment"])
        drain(iter_outcome([], out, until="segment")).study.close()
        assert (out / "masks" / "s1.npz").exists()
        assert len(computed) == 1 + damaged


@pytest.mark.parametrize(
    "wrong",
    [
        {"side": np.ones(2)},
        {"side": 0.0},
        {"side": "far"},
        {"pixel_size_um": float("nan")},
        {"coverage": np.full((2, 3), "much")},
        {"grades": np.full((2, 3), 4, np.uint8)},
    ],
)
def test_a_map_of_a_stranger_that_is_none_is_made_anew(tmp_path, wrong):
    good = QualityMap(np.ones((2, 3), np.uint8), 512.0, 0.25, *(np.zeros((2, 3), np.float32),) * 3)
    quality._save(tmp_path / "a.npz", good, "key")
    assert np.array_equal(quality._load(tmp_path / "a.npz", "key").grades, good.grades)
    quality._save(tmp_path / "a.npz", replace(good, **wrong), "key")
    assert quality._load(tmp_path / "a.npz", "key") is None


def test_the_search_is_all_over_where_asked_for_and_where_nobody_knows_the_scale(made, small, tmp_path):
    record = FieldRecord("s1", "s1.svs", sha256="0" * 64, height=5120, width=6144)
    segmenter = get_segmenter("learned")
    job = FieldJob(record, made[1], RunSettings(search="all"), segmenter, "k", tmp_path / "masks" / "s1.tiles" / "k")
    assert drain(iter_region(job)) == (None, ())
    region, notes = drain(iter_region(replace(job, settings=RunSettings())))
    assert region is None
    assert "--pixel-size-um" in notes[0]


@pytest.mark.slow
def test_a_slide_of_40_000_pixels_a_side_takes_little_memory():
    """Mostly blank, as real slides are; in a process of its own, whose peak is what the system says."""
    done = subprocess.run(
        [sys.executable, str(RUN), "--only-run", "--blood", "3", "12"],
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["side_px"] >= 40_000
    assert figures["cells"] > 20
    assert figures["peak_gib"] < 2
    assert figures["full_resolution_read"] < 0.05
