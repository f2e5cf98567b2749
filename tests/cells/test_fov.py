import numpy as np
import pandas as pd
import pytest

from napari_dinobloom.cells.fov import FEWEST, STEPS_PER_DOUBLING, TYPICAL_UM, pixel_sizes, typical_diameters

STEP = 2 ** (0.5 / STEPS_PER_DOUBLING)


def _cells(diameters, **columns) -> pd.DataFrame:
    return pd.DataFrame({"area_px": np.pi / 4 * np.asarray(diameters, float) ** 2, "quality": "ok", **columns})


def test_a_slides_diameter_is_the_median_of_its_whole_readable_cells():
    odd = {"quality": ["ok"] * 5 + ["clump", "ok", "ok"], "touches_border": [False] * 6 + [True, False]}
    table = _cells([90, 110, 100, 95, 130, 900, 10, 4000], deleted=[False] * 7 + [True]).assign(**odd)
    found = typical_diameters(table)
    assert np.unique(found).size == 1
    assert 100 / STEP <= found[0] <= 100 * STEP


def test_each_slide_has_its_own():
    table = _cells([100] * 6 + [200] * 6, slide=["a"] * 6 + ["b"] * 6).sample(frac=1, random_state=0)
    found = typical_diameters(table)
    expected = np.where(table["slide"] == "a", 100, 200)
    assert ((found > expected / STEP) & (found < expected * STEP)).all()


def test_an_enlarged_picture_has_exactly_as_many_diameters():
    diameters = [83, 97, 104, 121, 88, 93]
    assert np.allclose(typical_diameters(_cells(np.multiply(diameters, 2))), 2 * typical_diameters(_cells(diameters)))


def test_few_cells_are_helped_by_a_ruler_but_not_by_a_guess():
    few = _cells([100] * (FEWEST - 1), pixel_size_um=0.05)
    for source, expected in (("file", TYPICAL_UM / 0.05), ("red cells", TYPICAL_UM / 0.05), ("white cells", 100.0),
                             ("assumed", 100.0)):  # fmt: skip
        found = typical_diameters(few.assign(scale_from=source))
        assert expected / STEP <= found[0] <= expected * STEP, source
    assert typical_diameters(few, 0.125)[0] == pytest.approx(TYPICAL_UM / 0.125, rel=0.02)


def test_what_gives_no_diameter_is_refused():
    with pytest.raises(ValueError, match="area_px"):
        typical_diameters(pd.DataFrame({"y0": [1]}))
    with pytest.raises(ValueError, match="scale"):
        typical_diameters(_cells([np.nan]))


def test_a_scale_that_is_given_goes_before_the_tables():
    table = pd.DataFrame({"pixel_size_um": [0.1, 0.2]})
    assert pixel_sizes(table, None).tolist() == [0.1, 0.2]
    assert pixel_sizes(table, 0.3).tolist() == [0.3, 0.3]
    with pytest.raises(ValueError, match="row 1"):
        pixel_sizes(table.assign(pixel_size_um=[0.1, np.nan]), None)
