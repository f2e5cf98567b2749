"""Stain normalisation, against pictures whose stain is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_dinobloom.cells.stain_transfer import (
    METHODS,
    SAMPLE,
    SlideStain,
    estimate,
    reference,
    sample_rows,
    transfer,
)

NUCLEI = np.array([0.50, 0.85, 0.15]) / np.linalg.norm([0.50, 0.85, 0.15])
REDS = np.array([0.30, 0.60, 0.74]) / np.linalg.norm([0.30, 0.60, 0.74])


def _slide(
    light: tuple[float, float, float] = (250, 245, 240),
    factor: tuple[float, float, float] = (1, 1, 1),
    seed: int = 0,
    n: int = 6,
) -> NDArray[np.uint8]:
    """Crops of two dyes, each pixel mostly of one, on an empty ground; `factor` changes the dyes' absorbance."""
    random = np.random.default_rng(seed)
    amounts = np.zeros((n, 96, 96, 2))
    amounts[:, :40, :, 0] = random.gamma(9, 0.14, (n, 40, 96))
    amounts[:, 40:70, :, 1] = random.gamma(9, 0.06, (n, 30, 96))
    density = amounts @ np.stack([NUCLEI, REDS]) * np.asarray(factor)
    return np.clip(np.rint((np.asarray(light) + 1) * np.exp(-density) - 1), 0, 255).astype(np.uint8)


def test_the_dyes_of_a_slide_are_found() -> None:
    found = estimate(_slide())
    assert found is not None
    np.testing.assert_allclose(found.light, (250, 245, 240), atol=1)
    for vector, true in zip(found.vectors, (NUCLEI, REDS), strict=True):
        assert np.dot(vector, true) > 0.99
    # Of all stained pixels 4 in 7 hold the first dye: its 99th percentile is about the 98th of those.
    assert found.top[0] == pytest.approx(np.quantile(np.random.default_rng(1).gamma(9, 0.14, 10**5), 0.9825), rel=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_another_stain_of_the_same_cells_comes_near(method: str) -> None:
    plain, other = _slide(), _slide(light=(235, 225, 245), factor=(0.7, 0.9, 1.3))
    goal = estimate(plain)
    moved = transfer(other, method, estimate(other), goal)
    before, after = (np.abs(x.astype(float) - plain).mean() for x in (other, moved))
    assert after < 0.4 * before


@pytest.mark.parametrize("method", METHODS)
def test_the_goals_own_slide_hardly_changes_and_its_ground_takes_the_light(method: str) -> None:
    plain = _slide()
    goal = estimate(plain)
    assert goal is not None
    same = transfer(plain, method, goal, goal)
    assert np.abs(same.astype(int) - plain).max() <= 2
    dimmer = transfer(plain, method, goal, SlideStain(**{**goal.to_dict(), "light": (200.0, 210.0, 220.0)}))
    assert (np.abs(dimmer[:, 80:].astype(int) - (200, 210, 220)) <= 1).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_crop_is_recoloured_alike_whatever_stands_beside_it(method: str) -> None:
    crops = _slide()
    found = estimate(crops)
    together = transfer(crops, method, found)
    assert together.dtype == np.uint8
    np.testing.assert_array_equal(together[2:3], transfer(crops[2:3], method, found))
    np.testing.assert_array_equal(together, transfer(crops, method, estimate(crops.copy())))


def test_turned_and_mirrored_crops_give_the_same_stain() -> None:
    crops = _slide()
    first, second = estimate(crops), estimate(np.ascontiguousarray(crops[:, :, ::-1]))
    assert first is not None
    assert second is not None
    np.testing.assert_allclose(first.vectors, second.vectors, atol=0.02)
    np.testing.assert_allclose(first.mean, second.mean, atol=1.5)


@pytest.mark.parametrize(
    "blank",
    [
        np.full((4, 64, 64, 3), 255, np.uint8),
        np.zeros((4, 64, 64, 3), np.uint8),
        np.full((4, 64, 64, 3), (220, 120, 90), np.uint8),
        np.zeros((0, 64, 64, 3), np.uint8),
        np.repeat(np.random.default_rng(0).integers(0, 256, (4, 64, 64, 1), np.uint8), 3, axis=3),
    ],
    ids=["white", "black", "one colour", "none", "grey"],
)
def test_where_there_is_no_stain_nothing_is_changed(blank: NDArray[np.uint8]) -> None:
    assert estimate(blank) is None
    for method in METHODS:
        np.testing.assert_array_equal(transfer(blank, method, estimate(blank)), blank)


def test_the_bundled_reference_is_read_and_makes_the_round_trip() -> None:
    found = reference()
    assert SlideStain.from_dict(found.to_dict()) == found
    assert found.vectors[0][2] < found.vectors[1][2]  # nuclei take less blue light than red cells
    assert min(found.light) > 180


def test_the_sample_is_spread_and_no_larger_than_said() -> None:
    assert sample_rows(3).tolist() == [0, 1, 2]
    assert len(sample_rows(0)) == 0
    rows = sample_rows(10_000)
    assert len(rows) == SAMPLE
    assert (rows[0], rows[-1]) == (0, 9_999)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="reinhard or macenko"):
        transfer(_slide(), "vahadane", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="uint8 of shape"):
        estimate(_slide().astype(np.float32))  # type: ignore[arg-type]
