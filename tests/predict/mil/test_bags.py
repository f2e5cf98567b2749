"""Bags that cannot be used are refused by name, and what is computed of good ones is what a plain loop gives."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dinobloom.errors import InputError
from napari_dinobloom.predict.mil.bags import (
    bag_means,
    check_bags,
    check_groups,
    class_weights,
    few_patients,
    moments,
    padded,
)


@pytest.fixture
def bags() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [(random.normal(size=(n, 3)) * [1, 10, 0.1] + [0, 5, 0]).astype("f4") for n in (1, 4, 40)]


def test_what_is_wrong_is_said_of_which_patient(bags: list[np.ndarray]) -> None:
    names = ["anna", "bert", "carl"]
    assert [len(bag) for bag in check_bags(bags, names)] == [1, 4, 40]
    with pytest.raises(InputError, match="'bert' has no cell"):
        check_bags([bags[0], bags[1][:0]], names[:2])
    bags[2][7, 1] = np.nan
    with pytest.raises(InputError, match=r"'carl'.*1 cells.*cell 7"):
        check_bags(bags, names)
    with pytest.raises(InputError, match=r"'bert'.*have 2 numbers, 3 are needed"):
        check_bags([bags[0], bags[1][:, :2]], names[:2])
    with pytest.raises(InputError, match="no patient"):
        check_bags([])


@pytest.mark.parametrize(
    ("y", "words"),
    [(["a", "a", "a"], "All 3 patients"), (["a", "b", "b"], "'a' has one patient"), (["a", ""], "of shape"),
     (["a", "a", ""], "number 2 has no group")],
)  # fmt: skip
def test_groups_that_say_nothing_are_refused(y: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_groups(y, 3)


def test_every_class_and_every_patient_weighs_the_same(bags: list[np.ndarray]) -> None:
    code = np.array([0, 0, 0, 1, 2, 2])
    weights = class_weights(code, 3)
    np.testing.assert_allclose([weights[code == one].sum() for one in range(3)], 2)
    mean, spread = moments(bags)
    np.testing.assert_allclose(mean, np.mean([bag.mean(0) for bag in bags], 0), rtol=1e-5)
    np.testing.assert_allclose(spread**2, np.mean([((bag - mean) ** 2).mean(0) for bag in bags], 0), rtol=1e-4)
    np.testing.assert_allclose(bag_means(bags)[2], bags[2].mean(0), rtol=1e-5)
    still = [np.full((3, 2), 7, "f4"), np.full((2, 2), 7, "f4")]
    assert moments(still)[1].tolist() == [1, 1], "a number that never changes is not divided by nothing"


def test_large_bags_are_drawn_from_and_small_ones_are_whole(bags: list[np.ndarray]) -> None:
    cells, there = padded(bags, 10, np.random.default_rng(0))
    assert cells.shape == (3, 10, 3)
    assert there.sum(1).tolist() == [1, 4, 10]
    np.testing.assert_array_equal(cells[1, :4], bags[1])
    assert not cells[~there].any()
    of_carl = {row.tobytes() for row in bags[2]}
    assert len({row.tobytes() for row in cells[2]} & of_carl) == 10, "ten different cells of the patient"


def test_the_warning_names_how_few_patients_there_are() -> None:
    assert few_patients(["a"] * 10 + ["b"] * 12) == ""
    assert "b has 9" in few_patients(["a"] * 10 + ["b"] * 9)
