"""Moving cells towards a reference, and the rule that says whether to."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dinobloom.predict.adaptation import DOUBT, LEAST_GAIN, Choice, evidence, moved, pick, shifts
from napari_dinobloom.predict.atlas import Atlas

ABOUT = {"encoder": "e", "encoder_sha256": "0" * 64, "policy": {}, "policy_hash": "h"}


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    """Three kinds of cells of ten numbers, well apart."""
    random = np.random.default_rng(0)
    X = np.concatenate([random.normal(size=(200, 10)) * 0.5 + 5 * np.eye(10)[kind] for kind in range(3)])
    y = np.repeat(["a", "b", "c"], 200).tolist()
    return Atlas.from_embeddings(X, y, [f"{i:016x}" for i in range(600)], np.zeros(600, bool), name="three", **ABOUT)


def _cells(kinds: list[int], seed: int = 1) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.concatenate([random.normal(size=(n, 10)) * 0.5 + 5 * np.eye(10)[k] for k, n in enumerate(kinds)])


def test_the_shift_of_a_slide_of_another_mix_is_taken_out(atlas: Atlas) -> None:
    plain = _cells([100, 15, 5])
    shift = np.linspace(-0.9, 0.9, 10)
    back = moved(plain + shift, ["s"] * 120, atlas)
    assert back.dtype == np.float32
    error = np.linalg.norm((back - plain).mean(axis=0))
    assert error < 0.25 * np.linalg.norm(shift)


def test_slides_are_moved_each_by_its_own(atlas: Atlas) -> None:
    plain = _cells([40, 40, 40])
    slides = np.tile(["s", "t"], 60)
    shifted = plain + np.where(slides == "s", 0.8, -0.8)[:, None] * np.eye(10)[9]
    both = moved(shifted, slides, atlas)
    for slide in ("s", "t"):
        own = slides == slide
        np.testing.assert_allclose(both[own], moved(shifted[own], slides[own], atlas), atol=1e-5)
        # Ten cells weigh in for no shift: of 0.8 a sixth or a seventh stays with 60 cells.
        assert abs((both[own] - plain[own]).mean(axis=0)[9]) < 0.25


def test_the_reference_itself_stays_and_no_cell_is_no_error(atlas: Atlas) -> None:
    assert np.abs(moved(atlas.X, ["s"] * 600, atlas) - atlas.X).max() < 0.05
    assert moved(np.zeros((0, 10)), [], atlas).shape == (0, 10)
    with pytest.raises(ValueError, match="infinite or undefined"):
        moved(np.full((3, 10), np.nan), ["s"] * 3, atlas)


def test_a_slide_that_is_not_known_stays_where_it_is(atlas: Atlas) -> None:
    plain = _cells([40, 40, 40])
    found = shifts(plain + 0.8, ["s"] * 120, atlas)
    X = np.float32([[1.0] * 10, [1.0] * 10])
    both = found.apply(X, ["s", "new"])
    assert both.dtype == np.float32
    np.testing.assert_array_equal(both[1], X[1])
    np.testing.assert_allclose(both[0], X[0] - found.shift[0], rtol=1e-6)
    assert found.apply(np.zeros((0, 10), np.float32), []).shape == (0, 10)


def test_evidence_is_the_distance_to_the_kth_cell_of_another_picture(atlas: Atlas) -> None:
    X = atlas.X[:3]
    apart = np.linalg.norm(X[:, None].astype(float) - atlas.X[None], axis=2)
    np.testing.assert_allclose(evidence(X, atlas), np.log(np.sort(apart, axis=1)[:, 19]), rtol=1e-4)
    np.testing.assert_allclose(
        evidence(X, atlas, atlas.source[:3].tolist()), np.log(np.sort(apart, axis=1)[:, 20]), rtol=1e-4
    )


def test_only_clear_evidence_moves_the_rule() -> None:
    random = np.random.default_rng(0)
    plain = random.normal(size=100)
    near = plain - LEAST_GAIN["macenko"] - 0.1
    assert pick({"none": plain, "macenko": near}).option == "macenko"
    assert pick({"none": plain, "macenko": near, "reinhard": near - 0.1}).option == "reinhard"
    assert pick({"none": plain, "macenko": plain - LEAST_GAIN["macenko"] * 0.9}).option == "none", "clear but little"
    assert pick({"none": plain, "macenko": plain + 0.3}).option == "none"
    assert pick({"none": plain, "restandardise": near}).option == "none", "what is fitted to distances needs more"
    doubtful = plain - 0.2 + random.normal(size=100) * 2
    choice = pick({"none": plain, "reinhard": doubtful})
    mean, error = choice.shorter["reinhard"]
    assert LEAST_GAIN["reinhard"] < mean < LEAST_GAIN["reinhard"] + DOUBT * error
    assert choice.option == "none", "enough on the mean, but not beyond doubt"


def test_few_cells_tell_nothing() -> None:
    choice = pick({"none": np.ones(19), "macenko": np.zeros(19)})
    assert choice == Choice("none", "19 cells are too few to tell (20 are needed).", {})


@pytest.mark.parametrize(
    "found",
    [{"macenko": np.zeros(30)}, {"none": np.zeros(30), "vahadane": np.zeros(30)},
     {"none": np.zeros(30), "macenko": np.zeros(31)}],
)  # fmt: skip
def test_evidence_that_does_not_belong_together_is_refused(found: dict) -> None:
    with pytest.raises(ValueError, match="Evidence of the same cells"):
        pick(found)


def test_a_shifted_slide_is_recognised_without_labels(atlas: Atlas) -> None:
    shifted = _cells([90, 20, 10]) + np.eye(10)[8] * 2
    plain, back = evidence(shifted, atlas), evidence(moved(shifted, ["s"] * 120, atlas), atlas)
    assert pick({"none": plain, "restandardise": back}).option == "restandardise"
    own = _cells([90, 20, 10], seed=2)
    again = evidence(moved(own, ["s"] * 120, atlas), atlas)
    assert pick({"none": evidence(own, atlas), "restandardise": again}).option == "none"
