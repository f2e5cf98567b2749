import numpy as np
import pytest

from napari_dinobloom.cells.nuclei import deep_maxima, find_nuclei

PIXEL_UM = 0.16
Y, X = np.mgrid[:220, :260] * PIXEL_UM


def _disc(y: float, x: float, radius: float) -> np.ndarray:
    return np.hypot(Y - y, X - x) < radius


def _count(dark: np.ndarray, solid: np.ndarray) -> int:
    margin = np.where(dark, 0.5, -0.5).astype(np.float32)
    return int(find_nuclei(margin, solid, PIXEL_UM, 12.0).labels.max())


def test_three_lobes_of_one_cell_are_one_nucleus():
    lobes = _disc(15, 14, 2.0) | _disc(18, 19, 2.0) | _disc(14.5, 23, 2.0)
    assert _count(lobes, _disc(16.5, 18.5, 7.5)) == 1


def test_two_large_lobes_without_a_neck_between_them_are_one_nucleus():
    lobes = _disc(17, 15.2, 3.5) | _disc(17, 23.0, 3.5)
    assert _count(lobes, _disc(17, 19.1, 8.2)) == 1


@pytest.mark.parametrize("overlap", [0.0, 0.4])
def test_two_touching_lymphocytes_are_two_nuclei(overlap):
    dark = _disc(17, 13, 4.2) | _disc(17, 23 - overlap, 4.2)
    assert _count(dark, _disc(17, 13, 5.0) | _disc(17, 23 - overlap, 5.0)) == 2


def test_round_nuclei_that_grew_together_are_parted_and_a_bean_is_not():
    together = _disc(17, 12, 4.5) | _disc(17, 20.2, 4.5)
    assert _count(together, _disc(17, 12, 5.2) | _disc(17, 20.2, 5.2)) == 2
    bean = _disc(17, 18, 5.5) & ~_disc(11.5, 18, 3.0)
    assert _count(bean, _disc(17, 18, 8.0)) == 1


def test_platelets_and_distant_lobes_are_not_joined_to_a_nucleus():
    dark = _disc(17, 10, 4.0) | _disc(8, 28, 1.2) | _disc(28, 33, 4.0)
    assert _count(dark, _disc(17, 10, 6.0) | _disc(8, 28, 1.2) | _disc(28, 33, 6.0)) == 2


def test_deep_maxima_counts_only_hills_with_a_deep_saddle():
    x = np.linspace(0, 1, 201)
    ridge = np.tile(np.sin(2 * np.pi * 2 * x) ** 2 * np.array([1.0, 0.3])[(x > 0.5).astype(int)], (3, 1))
    assert deep_maxima(ridge.astype(np.float32), 0.5).max() == 2
    assert deep_maxima(ridge.astype(np.float32), 0.2).max() == 4
