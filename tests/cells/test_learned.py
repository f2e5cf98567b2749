"""The bundled segmenter: its cells do not depend on tiles, laziness or a kill."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dinobloom.cells import learned
from napari_dinobloom.cells.background import Background
from napari_dinobloom.cells.learned import CORE, HALO, MIRRORED, Lattice, LearnedSegmenter, find_in
from napari_dinobloom.cells.scale import Scale
from napari_dinobloom.cells.segment import segment
from napari_dinobloom.cells.stain import Stain
from napari_dinobloom.io.generate import generate_smear
from napari_dinobloom.progress import drain

COLOURS = Stain(0.1, 0.01, 1.0, 0.3, 2.0)


@pytest.fixture(scope="module")
def crowded():
    """A field of several blocks and tiles with many touching cells."""
    return generate_smear(2, height=1500, width=1700, n_white=40, touching=0.7, stain="may-gruenwald").image


@pytest.fixture(scope="module")
def untiled(crowded):
    return segment(crowded, 0.1, tile=100_000)


@pytest.mark.parametrize("tile", [512, 1024, 4096, 333])
def test_tiles_of_any_size_give_the_same_cells(crowded, untiled, tile):
    cells = segment(crowded, 0.1, tile=tile)
    assert len(untiled.table) > 30
    assert np.array_equal(cells.labels, untiled.labels)
    assert np.array_equal(cells.nuclei, untiled.nuclei)
    assert cells.table.equals(untiled.table)


def test_a_lazy_picture_in_odd_chunks_gives_the_same_cells(crowded, untiled):
    import dask.array as da

    lazy = segment(da.from_array(crowded, chunks=(701, 333, 3)), 0.1, tile=512)
    assert lazy.table.equals(untiled.table)
    assert np.array_equal(lazy.labels, untiled.labels)


def test_a_zarr_picture_gives_the_same_cells(crowded, untiled, tmp_path):
    import zarr

    stored = zarr.create_array(tmp_path / "smear.zarr", shape=crowded.shape, chunks=(512, 512, 3), dtype="uint8")
    stored[:] = crowded
    assert segment(zarr.open_array(tmp_path / "smear.zarr", mode="r"), 0.1).table.equals(untiled.table)


def test_a_run_that_was_stopped_goes_on_after_the_last_finished_tile(crowded, untiled, tmp_path, monkeypatch):
    computed = []
    whole = find_in
    monkeypatch.setattr(learned, "find_in", lambda *a: computed.append(a[1]) or whole(*a))
    finder = LearnedSegmenter(tile=600, scratch=tmp_path / "tiles")
    light = Background(np.full(3, 240, np.float32), np.zeros((6, 3), np.float32))
    steps = finder.iter_find(crowded, Scale(0.1, "user"), light=light)
    for _ in range(4):
        next(steps)
    steps.close()
    before = len(computed)
    again = drain(finder.iter_find(crowded, Scale(0.1, "user"), light=light))
    assert before == 3
    assert len(computed) == len(set(computed)) == 9
    fresh = drain(LearnedSegmenter(tile=600).iter_find(crowded, Scale(0.1, "user"), light=light))
    assert np.array_equal(again.masks.boxes, fresh.masks.boxes)
    assert all(np.array_equal(a, b) for a, b in zip(again.masks.cells, fresh.masks.cells, strict=True))
    assert again.hints == fresh.hints


def test_tiles_of_other_settings_are_not_taken_for_finished(tmp_path):
    image = generate_smear(5, height=300, width=400).image
    first = segment(image, 0.1, scratch=tmp_path)
    second = segment(image, 0.13, scratch=tmp_path)
    assert second.table.equals(segment(image, 0.13).table)
    assert not second.table.equals(first.table)


@pytest.mark.parametrize(("size", "core"), [(1, 32), (100, 128), (448, 448), (449, 256), (1000, 352)])
def test_blocks_are_as_few_and_small_as_may_be(size, core):
    assert learned._core(size) == core
    assert core <= CORE


def test_a_block_reaches_beyond_the_picture_as_its_mirror_image():
    image = np.random.default_rng(1).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    light = Background(np.full(3, 240, np.float32), np.zeros((6, 3), np.float32))
    block = Lattice(image, light, COLOURS, 1.0).absorbance(0, 0)
    inner = block[HALO : HALO + 90, HALO : HALO + 120]
    assert np.array_equal(inner, -np.log((image + np.float32(2)) / np.float32(242)).astype(np.float32))
    near = slice(HALO, HALO + MIRRORED)
    back = slice(HALO - 1, HALO - 1 - MIRRORED, -1)
    assert np.array_equal(block[back], block[near])
    assert np.array_equal(block[:, back], block[:, near])
    assert not block[: HALO - MIRRORED].any()
    assert not block[:, HALO + 120 + MIRRORED :].any()


def test_shrinking_does_not_move_the_picture():
    y, x = np.mgrid[0:400, 0:600]
    ramp = np.rint(np.stack([x / 3, y / 2, np.full(x.shape, 99)], axis=-1)).astype(np.uint8)
    light = Background(np.full(3, 240, np.float32), np.zeros((6, 3), np.float32))
    for factor in (1.7, 2.5, 3.3):
        lattice = Lattice(ramp, light, COLOURS, factor)
        small = lattice._shrunk((20, 60), (30, 90)).astype(float)
        wanted = ((np.arange(30, 90) + 0.5) * factor - 0.5) / 3
        assert abs((small[10, :, 0] - wanted).mean()) < 0.1
        assert np.abs(small[10, :, 0] - wanted).max() <= 1
        assert (small[..., 2] == 99).all()
