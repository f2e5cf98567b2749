"""Densities of cells, against counting them one by one."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dinobloom.ui.map.raster import density

pytestmark = pytest.mark.gui


@pytest.mark.parametrize("colours", [3, 100])
def test_it_is_the_mean_colour_of_the_cells_of_each_pixel(colours: int) -> None:
    random = np.random.default_rng(0)
    n, shape, rect = 4000, (7, 5), (-1.0, 2.0, 4.0, 9.0)
    places = random.uniform((-2, 1), (5, 10), (n, 2)).astype(np.float32)
    places[:5] = np.nan
    codes = random.integers(0, colours, n).astype(np.uint16)
    table = random.random((colours, 4)).astype(np.float32)
    table[:, 3] = 1
    table[1, 3] = 0
    found = density(places, codes, table, rect, shape)
    wanted = np.zeros((*shape, 3))
    counts = np.zeros(shape, int)
    for (x, y), code in zip(places.astype(float), codes, strict=True):
        if -1 <= x < 4 and 2 <= y < 9 and code != 1:
            row, column = int(y - 2), int(x + 1)
            counts[row, column] += 1
            wanted[row, column] += table[code, :3]
    assert np.allclose(found[..., :3], wanted / counts[..., None], atol=1e-5)
    assert found[..., 3].argmax() == counts.argmax()
    assert found[..., 3].max() == pytest.approx(1)


def test_no_cell_gives_an_empty_picture() -> None:
    empty = density(
        np.zeros((0, 2), np.float32), np.zeros(0, np.uint16), np.ones((1, 4), np.float32), (0, 0, 1, 1), (4, 4)
    )
    assert not empty.any()
