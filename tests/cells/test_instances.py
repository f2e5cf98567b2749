"""Cells read off maps that are drawn by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_dinobloom.cells.instances import Maps, assign, find_instances, find_peaks, outline
from napari_dinobloom.cells.stain import Stain

UNDYED = Stain(0.1, 0.01, 1.0, np.inf, np.nan)
"""A stain without any dye in nuclei: the network's word alone counts."""


def _maps(discs, shape=(160, 200)):
    """Perfect maps of discs (y, x, radius) in pixels; later ones lie over earlier ones."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    owner = np.zeros(shape, int)
    edge = np.full(shape, -9.0)
    for number, (cy, cx, radius) in enumerate(discs, start=1):
        inside = radius - np.hypot(y - cy, x - cx)
        owner[inside > 0] = number
        edge = np.maximum(edge, inside)
    coarse = owner[::2, ::2]
    gy, gx = np.mgrid[0 : shape[0] // 2, 0 : shape[1] // 2].astype(float)
    middle, offset = np.full(coarse.shape, -12.0), np.zeros((2, *coarse.shape))
    for number, (cy, cx, _) in enumerate(discs, start=1):
        py, px = (cy - 0.5) / 2, (cx - 0.5) / 2
        share = np.clip(np.exp(-((gy - py) ** 2 + (gx - px) ** 2) / 12), 1e-5, 1 - 1e-5)
        middle = np.maximum(middle, np.log(share / (1 - share)))
        offset[:, coarse == number] = np.stack([py - gy, px - gx])[:, coarse == number]
    flags = np.full((3, *coarse.shape), -9)
    as32 = [np.asarray(a, np.float32) for a in (edge, edge - 6, middle, offset, flags, np.zeros(shape))]
    return Maps(*as32), owner


def test_touching_discs_part_along_the_line_between_them():
    discs = [(60, 60, 24), (60, 104, 24), (104, 82, 24)]
    maps, owner = _maps(discs)
    found = find_instances(maps, (0, 0, 160, 200), UNDYED)
    assert len(found) == 3
    for instance in found:
        box, cell, nucleus = outline(instance, (0, 0), 1.0, (160, 200))
        truth = owner == owner[instance.peak]
        mine = np.zeros_like(truth)
        mine[box[0] : box[2], box[1] : box[3]] = cell
        assert (mine & truth).sum() / (mine | truth).sum() > 0.96
        assert cell[nucleus].all()
        assert 0 < nucleus.sum() < cell.sum()


def test_a_box_is_close_around_its_cell_at_any_resolution():
    maps, _ = _maps([(80, 100, 30)])
    (instance,) = find_instances(maps, (0, 0, 160, 200), UNDYED)
    for factor in (0.5, 1.0, 2.5):
        shape = (round(160 * factor), round(200 * factor))
        (y0, x0, y1, x1), cell, _ = outline(instance, (0, 0), factor, shape)
        assert cell[0].any()
        assert cell[-1].any()
        assert cell[:, 0].any()
        assert cell[:, -1].any()
        assert (y0 + y1) / 2 == pytest.approx((80 + 0.5) * factor, abs=1)
        assert (x0 + x1) / 2 == pytest.approx((100 + 0.5) * factor, abs=1)
        assert cell.sum() == pytest.approx(np.pi * (30 * factor) ** 2, rel=0.05)


def test_a_cell_belongs_to_the_part_that_its_middle_lies_in():
    maps, _ = _maps([(60, 60, 24), (60, 104, 24), (104, 82, 24)])
    parts = [find_instances(maps, box, UNDYED) for box in ((0, 0, 160, 80), (0, 80, 160, 200))]
    assert [len(p) for p in parts] == [1, 2]


def test_pixels_go_to_the_peak_that_they_point_to_as_brute_force_says():
    rng = np.random.default_rng(4)
    maps, _ = _maps([(60, 60, 24), (60, 104, 24)])
    noise = rng.normal(0, 2, maps.offset.shape).astype(np.float32)
    noisy = replace(maps, offset=maps.offset + noise)
    peaks = find_peaks(noisy.middle)
    labels = assign(noisy, peaks)
    for y in range(0, 80, 3):
        for x in range(0, 100, 3):
            vote = np.array([y, x]) + noisy.offset[:, y, x]
            distance = np.hypot(*(peaks - vote).T)
            stuff = noisy.cell[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].max() > 0
            wanted = distance.argmin() + 1 if stuff and distance.min() <= 9 else 0
            assert labels[y, x] == wanted


def test_nothing_gives_nothing():
    maps, _ = _maps([])
    assert find_instances(maps, (0, 0, 160, 200), UNDYED) == []


def test_cells_never_share_a_pixel_and_the_dye_moves_the_nucleus():
    discs = [(60, 60, 24), (60, 104, 24), (104, 82, 24)]
    maps, _ = _maps(discs)
    y, x = np.mgrid[0:160, 0:200]
    dye = np.where(np.hypot(y - 60, x - 60) < 14, 1.5, 0.3).astype(np.float32)
    for instances in (
        find_instances(maps, (0, 0, 160, 200), UNDYED),
        find_instances(_dyed(maps, dye), (0, 0, 160, 200), DYED),
    ):
        cover = np.zeros((400, 500), int)
        for instance in instances:
            (y0, x0, y1, x1), cell, _ = outline(instance, (0, 0), 2.5, (400, 500))
            cover[y0:y1, x0:x1] += cell
        assert cover.max() == 1
    _, _, plain = outline(find_instances(maps, (0, 0, 160, 200), UNDYED)[0], (0, 0), 1.0, (160, 200))
    _, _, dyed = outline(find_instances(_dyed(maps, dye), (0, 0, 160, 200), DYED)[0], (0, 0), 1.0, (160, 200))
    assert plain.sum() == pytest.approx(np.pi * 18**2, rel=0.06)
    assert dyed.sum() == pytest.approx(np.pi * 14**2, rel=0.06)


DYED = Stain(0.1, 0.01, 1.0, 0.4, 1.5)


def _dyed(maps, dye):
    return replace(maps, dye=dye)
