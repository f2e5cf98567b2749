"""The quality map against the layout that a slide was generated from, and the region that it gives."""

from __future__ import annotations

from functools import partial

import dask.array as da
import numpy as np
import pytest

from napari_dinobloom.cells import learned, monolayer
from napari_dinobloom.cells.monolayer import FEATHERED, RIGHT, THICK, graded, quality_map
from napari_dinobloom.cells.region import Region
from napari_dinobloom.cells.scale import estimate_scale
from napari_dinobloom.cells.segment import segment
from napari_dinobloom.io.generate_slide import KINDS, TILE, generate_slide, wedge
from napari_dinobloom.io.lazy import lazy_picture
from napari_dinobloom.io.smear import read_pixels
from napari_dinobloom.progress import drain


class Counted:
    """Levels of a generated slide that count what is read of each, in pixels."""

    def __init__(self, slide, factors=(1, 4, 16)):
        self.slide = slide
        self.read = dict.fromkeys(factors, 0)
        self.places = []
        sizes = [tuple(n // factor for n in slide.size) for factor in factors]
        self.levels = [
            lazy_picture(partial(self._pixels, factor), size) for factor, size in zip(factors, sizes, strict=True)
        ]

    def _pixels(self, factor, y0, y1, x0, x1):
        self.read[factor] += (y1 - y0) * (x1 - x0)
        if factor == 1:
            self.places.append((y0, x0, y1, x1))
        side = TILE // factor
        picture = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
        for row in range(y0 // side, -(-y1 // side)):
            for column in range(x0 // side, -(-x1 // side)):
                tile = self.slide.tile(row, column)
                tile = tile.reshape(side, factor, side, factor, 3).mean(axis=(1, 3)).round()
                top, left = row * side, column * side
                a, b = max(top, y0), min(top + side, y1)
                c, d = max(left, x0), min(left + side, x1)
                picture[a - y0 : b - y0, c - x0 : d - x0] = tile[a - top : b - top, c - left : d - left]
        return picture


@pytest.fixture(scope="module")
def slide():
    return generate_slide(wedge(12, 16, (4, 4, 8, 12)), 0)


@pytest.fixture(scope="module")
def found(slide):
    counted = Counted(slide)
    return counted, quality_map(counted.levels, 0.25)


def test_the_map_is_the_layout_that_the_slide_was_made_of(slide, found):
    assert np.array_equal(found[1].grades, slide.layout)
    assert tuple(KINDS) == monolayer.GRADES
    assert found[1].searched == pytest.approx(0.25)
    assert found[1].share(RIGHT) == pytest.approx(8 / 192)


def test_glass_is_never_read_at_full_resolution(slide, found):
    """The look at half a micrometre needs the finest level here; it is read around the blood only, in whole chunks."""
    counted, _ = found
    assert counted.read[16] == slide.size[0] * slide.size[1] / 256
    assert counted.read[4] == 0
    blood = np.kron(slide.layout > 0, np.ones((TILE, TILE), bool))
    for y0, x0, y1, x1 in counted.places:
        assert blood[y0:y1, x0:x1].any()


def test_another_stain_and_a_slide_without_levels_give_the_same(monkeypatch):
    monkeypatch.setattr("napari_dinobloom.io.generate_slide.VARIANTS", 1)
    made = generate_slide(wedge(5, 8, (1, 1, 4, 7)), 5, stain="pale")
    levels = Counted(made, (1,)).levels
    assert (quality_map(levels, 0.25).grades == made.layout).mean() >= 0.95


def test_of_much_blood_only_some_squares_are_looked_at(slide, monkeypatch):
    monkeypatch.setattr(monolayer, "MOST_LOOKS", 10)
    looked = []
    measured = monolayer.measure_square
    monkeypatch.setattr(monolayer, "measure_square", lambda *a: looked.append(0) or measured(*a))
    grades = quality_map(Counted(slide).levels, 0.25).grades
    assert len(looked) <= 10
    assert np.array_equal(grades > 0, slide.layout > 0)
    assert (grades == slide.layout).mean() > 0.9


def test_ink_dust_and_what_was_not_scanned_are_empty(slide):
    whole = np.block([[[slide.tile(row, column)] for column in range(10)] for row in range(6)])
    whole[:, :1024] = 255
    whole[512:1024, 1536:2048] = 40  # a felt pen
    whole[:512, 3000:3100] = (90, 140, 200)  # a blue one
    grades = quality_map([da.from_array(whole, chunks=(1024, 1024, 3))], 0.25).grades
    wanted = slide.layout[:6, :10].copy()
    assert np.array_equal(grades, wanted)


@pytest.mark.parametrize(
    ("coverage", "stacked", "pallor", "grade"),
    [
        (0.45, 0.02, 0.4, RIGHT),
        (0.45, 0.02, -0.2, RIGHT),  # as in BCCD: red cells that dried flat, yet lie close
        (0.28, 0.02, 0.4, RIGHT),
        (0.28, 0.02, 0.05, FEATHERED),
        (0.08, 0.0, 0.4, FEATHERED),
        (0.90, 0.02, 0.4, THICK),
        (0.60, 0.30, 0.4, THICK),
        (0.28, 0.02, np.nan, RIGHT),
    ],
)
def test_each_rule(coverage, stacked, pallor, grade):
    values = (np.array([[value]], np.float32) for value in (coverage, stacked, pallor))
    assert graded(*values).item() == grade


def test_a_map_needs_a_scale():
    with pytest.raises(ValueError, match="micrometres per pixel"):
        quality_map([np.zeros((100, 100, 3), np.uint8)], 0)


@pytest.mark.parametrize("wide", [True, False])
def test_the_thumbnail_of_a_strip_lies_where_the_strip_does(wide):
    """Its sides are no multiples of its pixel, and those of its levels are rounded."""
    strip = np.full((130, 20_010, 3), 250, np.uint8)
    strip[:, 15_000:15_030] = (200, 100, 120)
    strip = strip if wide else strip.transpose(1, 0, 2)
    levels = [da.from_array(strip[::step, ::step], chunks=(2000, 1000, 3)) for step in (1, 4)]
    thumb, step = drain(monolayer._iter_thumbnail(levels, 0.25))
    thumb = thumb if wide else thumb.transpose(1, 0, 2)
    assert step == pytest.approx(32, rel=0.01)
    stained = np.flatnonzero(thumb[0, :, 1] < 245)
    assert abs((stained.mean() + 0.5) * step - 15_015) < step
    light = monolayer._glass(thumb)
    shape = (1, 314) if wide else (314, 1)
    blood = monolayer._told(thumb if wide else thumb.transpose(1, 0, 2), light, shape, 64 / step)[0]
    assert np.abs(np.flatnonzero(blood) - 15_015 // 64).max() <= 1


def test_the_thumbnail_is_the_mean_of_the_pixels_whatever_the_blocks():
    pixels = np.random.default_rng(0).integers(0, 256, (1300, 2100, 3), dtype=np.uint8)
    found = [drain(monolayer._iter_thumbnail([da.from_array(pixels, chunks=(n, n, 3))], 1.0)) for n in (1030, 5000)]
    assert np.array_equal(found[0][0], found[1][0])
    assert found[0][1] == 4
    assert np.array_equal(found[0][0], pixels.reshape(325, 4, 525, 4, 3).sum(axis=(1, 3)) // 16)


def test_cells_in_a_region_are_those_of_the_whole_picture_that_lie_there(slide, monkeypatch):
    """Also of tiles that end where the region does: cells lie across."""
    whole = np.block([[[slide.tile(row, column)] for column in range(8, 12)] for row in range(4, 7)])
    monkeypatch.setitem(learned.LearnedSegmenter.__init__.__kwdefaults__, "tile", 512)
    wanted = np.zeros((3, 4), bool)
    wanted[1, :2] = wanted[2, 0] = True
    everywhere = Region(np.ones((3, 4), bool), 512.0, whole)
    every = segment(whole, 0.25, region=everywhere).table
    computed = []
    compute = learned.Lattice._compute
    monkeypatch.setattr(learned.Lattice, "_compute", lambda s, *at: computed.append(at) or compute(s, *at))
    some = segment(whole, 0.25, region=Region(wanted, 512.0, whole)).table
    middle = [((every[f"{axis}0"] + every[f"{axis}1"]) / 2 / 512).astype(int) for axis in "yx"]
    inside = every[wanted[middle[0], middle[1]]].reset_index(drop=True)
    assert len(inside) > 3
    columns = ["y0", "x0", "y1", "x1", "area_px", "nucleus_area_px", "quality"]
    assert some[columns].equals(inside[columns])
    assert len(computed) == 12  # of 4 x 5 blocks


def test_an_empty_region_has_no_cells():
    nothing = Region(np.zeros((2, 2), bool), 512.0, np.zeros((0, 0, 3), np.uint8))
    cells = segment(np.full((1024, 1024, 3), 240, np.uint8), 0.25, region=nothing)
    assert len(cells.table) == 0
    assert cells.notes == ()


def test_the_sample_of_a_region_comes_from_it(slide, found):
    counted, quality = found
    region = quality.region(counted.levels[0])
    assert region.sample.shape == (512, 512, 3)  # eight squares: four windows of 256 pixels
    for y, x in np.argwhere(region.wanted):
        assert region.holds(y * 512 + 256, x * 512 + 256)
    assert not region.holds(0, 0)
    assert not region.touches(0, 0, 512, 512)
    none = quality.region(counted.levels[0], (7,))
    assert none.sample.size == 0


@pytest.mark.real_data
def test_fields_that_a_person_took_are_right(real_data):
    """Odd-numbered fields of BCCD, on which nothing was set; every 12th for the sake of time."""
    fields = sorted((real_data / "bccd" / "images").glob("*"))
    odd = [f for f in fields if int("".join(c for c in f.stem if c.isdigit())) % 2][::12]
    right = 0
    for field in odd:
        pixels = read_pixels(field)
        grades = quality_map([pixels], estimate_scale(pixels).pixel_size_um).grades
        right += int((grades == RIGHT).all())
    assert len(odd) >= 10
    assert right / len(odd) >= 0.85
