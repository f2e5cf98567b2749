import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_dinobloom.cells.scale import STEP, Scale, estimate_scale, pool_scale, quantise, red_cell_diameter_px
from napari_dinobloom.io.generate import generate_smear


@pytest.mark.parametrize("pixel_um", [0.06, 0.1, 0.25, 0.5])
def test_the_scale_of_a_generated_smear_is_found_from_its_red_cells(pixel_um):
    smear = generate_smear(
        11, height=round(45 / pixel_um), width=round(60 / pixel_um), pixel_size_um=pixel_um, stain="wright-giemsa"
    )
    scale = estimate_scale(smear.image)
    assert scale.source == "red cells"
    assert scale.pixel_size_um == pytest.approx(pixel_um, rel=0.12)


def test_painted_discs_are_measured_to_a_few_percent():
    picture = np.full((400, 500, 3), (240, 235, 230), np.uint8)
    y, x = np.mgrid[:400, :500]
    for cy in (60, 190, 320):
        for cx in (70, 220, 390):
            picture[np.hypot(y - cy, x - cx) < 36] = (210, 150, 160)
    diameter, count = red_cell_diameter_px(picture)
    assert count == 9
    assert diameter == pytest.approx(72, rel=0.04)


def test_a_picture_without_cells_has_an_assumed_scale():
    assert estimate_scale(np.full((100, 100, 3), 230, np.uint8)) == Scale(0.1, "assumed", 0)


def test_pooling_prefers_the_user_then_the_file_then_red_cells():
    red, white = Scale(0.08, "red cells", 9), Scale(0.3, "white cells")
    assert pool_scale([white, red, Scale(0.11, "file")]) == Scale(0.11, "file", 0)
    assert pool_scale([Scale(0.11, "file"), Scale(0.12, "user")]).source == "user"
    assert pool_scale([white, red]).red_cells == 9
    with pytest.raises(ValueError, match="at least one field"):
        pool_scale([])


def test_a_field_with_many_red_cells_outweighs_one_with_few():
    pooled = pool_scale([Scale(0.2, "red cells", 1), Scale(0.1, "red cells", 12), Scale(0.25, "red cells", 2)])
    assert pooled.pixel_size_um == pytest.approx(0.1)


@given(st.floats(0.02, 2.0))
def test_quantising_moves_a_scale_by_at_most_half_a_step_and_is_stable(size):
    rounded = quantise(size)
    assert abs(np.log(rounded / size)) <= 0.5 * np.log(STEP) + 1e-9
    assert quantise(rounded) == pytest.approx(rounded)
