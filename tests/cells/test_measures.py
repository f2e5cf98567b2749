"""Measures against other implementations and figures known by construction."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dinobloom.cells.background import Background
from napari_dinobloom.cells.measures import COLUMNS, hull_area, measure_masks
from napari_dinobloom.cells.scale import Scale
from napari_dinobloom.io.celltable import MEASURES
from napari_dinobloom.io.masks import FieldMasks

LIGHT = Background(np.full(3, 238, np.float32), np.zeros((6, 3), np.float32))


def _disc(side, radius, y=None, x=None):
    yy, xx = np.mgrid[0:side, 0:side]
    return np.hypot(yy - (side / 2 if y is None else y), xx - (side / 2 if x is None else x)) < radius


def _measured(cell, nucleus, image, **options):
    height, width = cell.shape
    masks = FieldMasks(
        np.array([[10, 20, 10 + height, 20 + width]], np.int32), np.array([1], np.int32), [cell], [nucleus]
    )
    field = np.full((200, 220, 3), 238, np.uint8)
    field[10 : 10 + height, 20 : 20 + width] = image
    return measure_masks(field, masks, Scale(0.1, "user"), light=LIGHT, **options).iloc[0]


def test_a_painted_cell_has_the_figures_that_it_was_painted_with():
    cell, nucleus = _disc(120, 58), _disc(120, 30)
    image = np.full((120, 120, 3), 238, np.uint8)
    image[cell] = (220, 190, 230)
    image[nucleus] = (118, 58, 158)
    image[nucleus & (np.arange(120) < 60)[None, :]] = (98, 38, 138)
    row = _measured(cell, nucleus, image)
    assert (row.y0, row.x0, row.y1, row.x1) == (10, 20, 130, 140)
    assert (row.y, row.x) == pytest.approx((70, 80), abs=0.05)
    assert (row.area_px, row.nucleus_area_px) == (cell.sum(), nucleus.sum())
    assert row.nc_ratio == pytest.approx(nucleus.sum() / cell.sum())
    assert row.circularity > 0.95
    assert row.solidity > 0.97
    assert row.lobes == 1
    share = (nucleus & (np.arange(120) < 60)[None, :]).sum() / nucleus.sum()
    assert row.nucleus_green == pytest.approx(58 - 20 * share, abs=0.01)
    assert row.nucleus_green_sd == pytest.approx(20 * np.sqrt(share * (1 - share)), abs=0.01)
    assert (row.cytoplasm_red, row.cytoplasm_blue_sd) == (220, 0)
    mean = np.array([118, 58, 158]) - 20 * share
    assert row.stain_strength == pytest.approx(np.log(240 / (mean + 2)).mean(), abs=1e-4)
    assert not row.touches_border
    assert row.quality == "ok"


def test_lobes_are_counted_and_the_segmenter_may_flag():
    cell = _disc(120, 58)
    nucleus = _disc(120, 14, 40, 40) | _disc(120, 14, 40, 85) | _disc(120, 14, 85, 60)
    image = np.where(nucleus[..., None], np.uint8(60), np.uint8(200)) * np.ones(3, np.uint8)
    assert _measured(cell, nucleus, image).lobes == 3
    assert _measured(cell, nucleus, image).solidity < 0.75
    assert _measured(cell, nucleus, image, hints=["smudge"]).quality == "smudge"


def test_the_hull_has_the_area_that_scikit_image_gives_it():
    from skimage.morphology import convex_hull_image

    rng = np.random.default_rng(3)
    for _ in range(20):
        mask = np.zeros((70, 80), bool)
        for _ in range(3):
            y, x, radius = rng.integers(20, 50), rng.integers(20, 60), rng.integers(4, 16)
            yy, xx = np.mgrid[0:70, 0:80]
            mask |= np.hypot(yy - y, xx - x) < radius
        assert hull_area(mask) == pytest.approx(convex_hull_image(mask).sum(), rel=0.03)


def test_no_cell_gives_an_empty_table_and_the_study_keeps_what_is_measured():
    table = measure_masks(np.zeros((50, 50, 3), np.uint8), FieldMasks.empty(), Scale(0.1, "user"), light=LIGHT)
    assert {name: str(kind) for name, kind in table.dtypes.items()} == COLUMNS
    assert set(MEASURES) <= set(COLUMNS)
