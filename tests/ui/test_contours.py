"""Outlines in a label image: pixel for pixel those that napari draws."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels
from napari.layers.labels._labels_utils import get_contours

from napari_dinobloom.ui.contours import contours, draw_by

pytestmark = pytest.mark.gui


@pytest.mark.parametrize("thickness", [1, 2, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_outlines_are_those_of_napari(dtype, thickness):
    random = np.random.default_rng(thickness)
    for shape in ((1, 1), (1, 7), (23, 40)):
        noise = random.integers(0, 4, shape).astype(dtype)
        for labels in (noise, np.kron(noise, np.ones((6, 5), dtype))):
            np.testing.assert_array_equal(contours(labels, thickness), get_contours(labels, thickness, 0))


@pytest.mark.parametrize("width", [0, 1, 3])
def test_a_layer_shows_the_same_with_it_and_without_also_where_a_part_is_drawn_anew(width):
    labels = np.kron(np.random.default_rng(0).integers(0, 4, (9, 9)), np.ones((7, 7), int)).astype(np.uint16)
    usual, ours = Labels(labels.copy()), Labels(labels.copy())
    draw_by(ours)
    draw_by(ours)
    for layer in (usual, ours):
        layer.contour = width
        layer.data_setitem((np.array([30, 31, 31]), np.array([30, 30, 31])), 7)
    np.testing.assert_array_equal(np.asarray(ours._slice.image.view), np.asarray(usual._slice.image.view))
    assert (np.asarray(ours._slice.image.view) != np.asarray(labels)).any() or width == 0
