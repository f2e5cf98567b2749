"""Patients who share a picture are found and never parted."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dinobloom.errors import InputError
from napari_dinobloom.predict.mil.folds import inner_folds, make_folds, most_folds
from napari_dinobloom.predict.mil.leaks import cell_keys, check_folds, related
from napari_dinobloom.predict.mil.trained_on import TrainedOn


@pytest.fixture
def bags() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(size=(12, 5)).astype("f4") for _ in range(6)]


def test_one_equal_embedding_or_hash_relates_patients_also_through_others(bags: list[np.ndarray]) -> None:
    assert related(bags).tolist() == [0, 1, 2, 3, 4, 5]
    bags[4][3] = bags[1][8]
    assert related(bags).tolist() == [0, 1, 2, 3, 1, 4]
    sources = [{"x"}, {"y"}, {""}, {""}, {"z"}, {"z", "x"}]
    assert related(bags, sources).tolist() == [0, 0, 1, 2, 0, 0], "4 to 1 by a cell, 4 to 5 to 0 by hashes; '' is none"


def test_keys_are_equal_where_cells_are_equal_to_the_last_bit(bags: list[np.ndarray]) -> None:
    many = np.concatenate([np.random.default_rng(1).normal(size=(5000, 5)).astype("f4"), bags[0]])
    keys = cell_keys(many)
    assert len(np.unique(keys)) == len(many)
    np.testing.assert_array_equal(cell_keys(many[::-1]), keys[::-1])
    near = np.nextafter(many, np.float32(np.inf))
    assert not np.isin(cell_keys(near), keys).any()


def test_a_planted_picture_under_two_patients_is_caught(bags: list[np.ndarray]) -> None:
    names = [f"p{i}" for i in range(6)]
    folds = np.array([0, 0, 1, 1, 2, 2])
    check_folds(related(bags), folds, names)
    bags[5][0] = bags[0][0]
    with pytest.raises(InputError, match="'p0' and 'p5'"):
        check_folds(related(bags), folds, names)


def test_folds_that_are_made_keep_related_patients_together_and_classes_even() -> None:
    code = np.arange(30) % 3
    groups = np.arange(30)
    folds = make_folds(code, groups, 5, 0)
    assert all(np.bincount(code[folds == one]).tolist() == [2, 2, 2] for one in range(5))
    groups[[1, 5, 9, 22]] = 1
    for seed in range(5):
        folds = make_folds(code, groups, 5, seed)
        assert len(set(folds[[1, 5, 9, 22]])) == 1
    assert most_folds(code, np.zeros(30, int), 5) == 1
    assert most_folds(np.array([0] * 9 + [1] * 3), np.arange(12), 5) == 3
    assert len(np.unique(inner_folds(code, np.zeros(30, int), 5, 0))) == 5, "all related: held back by patient"


def test_training_patients_are_known_again_by_some_of_their_cells(bags: list[np.ndarray]) -> None:
    shares = np.zeros((4, 2, 3), "f4")
    known = TrainedOn.of(bags[:4], [{f"{row}"} for row in range(4)], shares)
    none: list[set[str]] = [set()] * 4
    rows, partly = known.find([bags[2][::-1], bags[5], bags[0][6:], bags[4]], none)
    assert rows.tolist() == [2, -1, 0, -1]
    assert not partly.any()


def test_training_patients_are_known_by_their_pictures_where_embeddings_differ_in_the_last_bit(
    bags: list[np.ndarray],
) -> None:
    hashes = [{f"{row}{one}" for one in "abcd"} for row in range(6)]
    known = TrainedOn.of(bags[:4], hashes[:4], np.zeros((4, 2, 3), "f4"))
    other_device = [np.nextafter(bag, np.float32(np.inf)) for bag in bags]
    assert known.find(other_device, hashes)[0].tolist() == [0, 1, 2, 3, -1, -1]
    assert known.find(other_device, [{"", "2a", "2b"}, {""}, set(), set(), set(), set()])[0].tolist() == [2] + [-1] * 5


@pytest.mark.parametrize("size", [12, 5000])
def test_one_shared_picture_makes_nobody_somebody_else(bags: list[np.ndarray], size: int) -> None:
    large = np.random.default_rng(3).normal(size=(size, 5)).astype("f4")
    known = TrainedOn.of([large], [{"a", "b", "c", "d"}], np.zeros((1, 2, 3), "f4"))
    first = large[[int(np.argmin(cell_keys(large)))]]  # surely among those that are kept
    for bag, hashes in ((np.concatenate([bags[0], first]), set()), (bags[0], {"a", "x", "y", "z"})):
        rows, partly = known.find([bag], [hashes])
        assert (rows.tolist(), partly.tolist()) == ([-1], [True])
    assert known.find([large[: size // 2]], [set()])[0].tolist() == [0], "half of the cells"
    assert known.find([first], [set()])[0].tolist() == [0], "all that there are"
