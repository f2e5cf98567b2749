"""Outlines proposed for a click or a box, against the truth of generated smears."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dinobloom.cells.propose import cell_at, cell_in_box
from napari_dinobloom.io.generate import generate_smear
from napari_dinobloom.io.masks import draw


@pytest.fixture(scope="module")
def smear():
    return generate_smear(11, height=480, width=640, n_white=7, touching=0.6, stain="wright-giemsa")


def _iou(first, second):
    return (first & second).sum() / (first | second).sum()


def test_a_click_on_a_cell_proposes_that_cell_and_its_nucleus(smear):
    for row in smear.table.itertuples():
        masks = cell_at(smear.image, (row.y, row.x), 0.1)
        assert len(masks) == 1
        assert _iou(draw(masks, (480, 640)) > 0, smear.labels == row.label) > 0.75
        assert _iou(draw(masks, (480, 640), "nuclei") > 0, smear.nuclei == row.label) > 0.6


def test_a_box_around_a_cell_proposes_that_cell_within_it(smear):
    for row in smear.table.itertuples():
        masks = cell_in_box(smear.image, (row.y0, row.x0, row.y1, row.x1), 0.1)
        (y0, x0, y1, x1), *_ = masks.boxes.tolist()
        assert row.y0 <= y0 < y1 <= row.y1
        assert row.x0 <= x0 < x1 <= row.x1
        assert _iou(draw(masks, (480, 640)) > 0, smear.labels == row.label) > 0.7


def test_where_nothing_is_seen_a_click_gives_a_disc_and_a_box_its_ellipse():
    empty = np.full((300, 400, 3), 235, np.uint8)
    disc = cell_at(empty, (150, 200), 0.1)
    assert disc.cells[0].sum() * 0.01 == pytest.approx(np.pi * 36, rel=0.03)
    assert not disc.nuclei[0].any()
    ellipse = cell_in_box(empty, (100, 100, 180, 240), 0.1)
    assert ellipse.boxes[0].tolist() == [100, 100, 180, 240]
    assert ellipse.cells[0].sum() == pytest.approx(np.pi * 40 * 70, rel=0.02)


def test_a_click_at_the_border_stays_in_the_picture():
    empty = np.full((60, 60, 3), 235, np.uint8)
    y0, x0, y1, x1 = cell_at(empty, (0, 59), 0.1).boxes[0].tolist()
    assert 0 <= y0 < y1 <= 60
    assert 0 <= x0 < x1 <= 60
