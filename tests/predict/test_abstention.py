"""The abstention rule against a search over all thresholds, and the confusion against a count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dinobloom.predict.abstention import below, calibrate, choose_threshold, settle, to_ask

CELL = st.tuples(st.integers(1, 20), st.booleans(), st.sampled_from("abc"))


def by_search(votes, right, truth) -> float:
    """The rule, word for word, on every possible threshold."""
    weight = np.array([1 / np.sum(truth == t) for t in truth]) / len(set(truth.tolist()))
    affordable, accurate = 0.0, np.inf
    for threshold in sorted({0, *votes.tolist()}):
        named = votes >= threshold
        if weight[~named].sum() <= 0.10 + 1e-9:
            affordable = threshold / 20
        if weight[named & right].sum() >= 0.95 * weight[named].sum() - 1e-9:
            accurate = min(accurate, threshold / 20)
    return min(affordable, accurate)


@settings(max_examples=150, deadline=None)
@given(st.lists(CELL, min_size=1, max_size=60))
def test_the_threshold_is_that_of_a_full_search(cells) -> None:
    votes = np.array([c[0] for c in cells])
    right, truth = np.array([c[1] for c in cells]), np.array([c[2] for c in cells])
    confidence = (votes / 20).astype(np.float32)
    threshold, accuracy, abstained = choose_threshold(confidence, right, truth)
    expected = by_search(votes, right, truth)
    assert np.array_equal(below(confidence, threshold), votes / 20 < expected - 1e-9)
    assert -1e-9 <= abstained <= 0.10 + 1e-9
    assert 0 <= accuracy <= 1


def test_no_cell_gives_no_threshold() -> None:
    threshold, accuracy, abstained = choose_threshold(np.zeros(0), np.zeros(0, bool), np.zeros(0, str))
    assert (threshold, abstained) == (0.0, 0.0)
    assert np.isnan(accuracy)


def test_held_out_cells_are_classified_by_all_cells_of_other_pictures() -> None:
    # The held-out "a" at 10.01 lies among "b"; the "b" of its own picture, which is nearest, must not vote.
    X = np.array([[0.0], [0.1], [10.0], [10.1], [10.2], [10.01], [0.05], [10.01]], dtype=np.float32)
    y = np.array(["a", "a", "b", "b", "b", "a", "a", "b"])
    held = np.array([False] * 5 + [True] * 2 + [False])
    source = np.array(["", "", "", "", "", "p", "q", "p"])
    found = calibrate(X, y, source, held, k=1)
    assert found.held_out == "held out"
    assert found.confusion.tolist() == [[1, 1, 0], [0, 0, 0]]
    assert found.accuracy == 0.5
    np.testing.assert_allclose(found.distance_limit, 0.05, rtol=1e-5)


def test_a_class_of_one_picture_is_not_measured() -> None:
    X = np.array([[0.0], [0.1], [5.0], [5.1], [9.0], [9.1]], dtype=np.float32)
    y = np.array(["a", "a", "b", "b", "c", "c"])
    source = np.array(["1", "2", "3", "4", "5", "5"])
    found = calibrate(X, y, source, np.ones(6, bool), k=1)
    assert found.confusion.tolist() == [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]]
    assert (found.accuracy, found.threshold) == (1.0, 0.0)


def test_without_a_split_each_cell_meets_the_others() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b"], 20)
    X = (np.where(y == "a", 0, 5)[:, None] + rng.normal(size=(40, 3))).astype(np.float32)
    source = np.array([f"{i:016x}" for i in range(40)])
    for held in (np.ones(40, bool), np.zeros(40, bool)):
        found = calibrate(X, y, source, held, k=5)
        assert found.held_out == "leave one out"
        assert found.confusion.sum() == 40
        assert np.trace(found.confusion) >= 38
        assert found.distance_limit > 0  # no cell is its own neighbour


def test_a_class_whose_only_held_out_cells_have_no_second_picture_leaves_all_to_be_asked() -> None:
    y = np.array(["a", "a", "b", "b", "c", "c"])
    source = np.array(["1", "2", "3", "4", "5", "5"])
    held = y == "c"
    assert to_ask(y, source, held).tolist() == [True] * 4 + [False] * 2
    assert to_ask(y, source, ~held | (y == "a")).tolist() == [True] * 4 + [False] * 2
    assert to_ask(y, source, y == "a").tolist() == [True] * 2 + [False] * 4
    X = np.array([[0.0], [0.1], [5.0], [5.1], [9.0], [9.1]], dtype=np.float32)
    found = calibrate(X, y, source, held, k=1)
    assert (found.held_out, found.confusion.sum(), found.accuracy) == ("leave one out", 4, 1.0)


def test_a_cell_beyond_the_distance_limit_goes_unnamed_as_in_use() -> None:
    truth = np.array(["a"] * 100 + ["b"] * 100)
    said = truth.copy()
    said[:5] = "b"
    distance = np.linspace(1, 2, 200)[::-1].copy()
    distance[:3] = 9.0  # wrong, and far
    found = settle(truth, said, np.ones(200, np.float32), distance, np.array(["a", "b"]), "held out")
    far = distance > found.distance_limit
    assert far[:3].all()
    assert far.sum() == 3 + 2 + 1, "the far wrong ones, the two wrong ones beside them, a hundredth of the right ones"
    assert found.confusion.tolist() == [[94, 0, 6], [0, 100, 0]]
    assert (found.accuracy, found.accuracy_named, found.abstained) == (0.975, 1.0, pytest.approx(0.03))


def test_few_cells_do_not_put_the_farthest_of_themselves_beyond_the_limit() -> None:
    truth = np.array(["a", "a", "b", "b"])
    distance = np.array([1.0, 2.0, 3.0, 4.0])
    found = settle(truth, truth, np.ones(4, np.float32), distance, np.array(["a", "b"]), "held out")
    assert found.distance_limit == 4.0
    assert found.confusion.tolist() == [[2, 0, 0], [0, 2, 0]]


def test_what_is_no_number_is_below_any_threshold() -> None:
    assert below(np.array([np.nan, 0.0, 0.5]), 0.5).tolist() == [True, True, False]
