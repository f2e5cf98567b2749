import numpy as np
from skimage.filters import threshold_otsu

from napari_dinobloom.cells.stain import estimate_stain, nuclear_map, otsu


def test_otsu_agrees_with_scikit_image():
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(0.2, 0.05, 3000), rng.normal(0.8, 0.1, 900)]).astype(np.float32)
    mine, theirs = values > otsu(values), values > threshold_otsu(values, nbins=128)
    assert (mine != theirs).mean() < 0.002


def test_otsu_of_equal_values_is_their_value():
    assert otsu(np.full(50, 0.3, np.float32)) == np.float32(0.3)


def test_red_cells_fall_below_the_floor_and_nuclei_above_it_for_any_tint():
    rng = np.random.default_rng(0)
    for red, nucleus in (
        ((0.10, 0.42, 0.30), (1.0, 1.5, 0.5)),
        ((0.30, 0.42, 0.28), (0.9, 1.1, 0.2)),
        ((0.05, 0.55, 0.46), (0.6, 1.2, 0.5)),
    ):
        density = rng.normal(0, 0.01, (200, 200, 3)).astype(np.float32)
        density[:, :90] += np.array(red, np.float32)
        density[90:110, 120:140] += np.array(nucleus, np.float32)
        stain = estimate_stain(density)
        score = nuclear_map(density, stain.weight)
        assert np.quantile(score[:, :90], 0.99) < stain.floor < np.quantile(score[90:110, 120:140], 0.01)


def test_an_unstained_picture_has_no_nuclear_level():
    stain = estimate_stain(np.random.default_rng(1).normal(0, 0.01, (100, 100, 3)).astype(np.float32))
    assert np.isnan(stain.top)
