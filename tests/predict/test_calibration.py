"""Temperature, expected calibration error and reliability, against hand computations and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_dinobloom.predict.calibration import (
    NO_VOTE,
    Temperature,
    expected_calibration_error,
    reliability,
)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_error_and_table_by_hand() -> None:
    p = [[0.95, 0.05], [0.95, 0.05], [0.4, 0.6], [0.3, 0.7]]
    y = [0, 1, 1, 1]
    table = reliability(p, y, bins=10)
    assert table.loc[9, ["n", "confidence", "accuracy"]].tolist() == pytest.approx([2, 0.95, 0.5])
    assert table.loc[5, ["n", "confidence", "accuracy"]].tolist() == pytest.approx([1, 0.6, 1.0])  # an end: below it
    assert table["n"].sum() == 4
    # (2 * |0.95 - 0.5| + |0.6 - 1| + |0.7 - 1|) / 4
    assert expected_calibration_error(p, y, bins=10) == pytest.approx((0.9 + 0.4 + 0.3) / 4)


def test_a_class_that_is_not_known_is_never_right() -> None:
    assert expected_calibration_error([[0.9, 0.1]], [-1]) == pytest.approx(0.9)


def test_no_cell_has_no_error() -> None:
    assert np.isnan(expected_calibration_error(np.zeros((0, 3)), np.zeros(0, int)))


def test_the_temperature_that_made_the_probabilities_is_found() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 4)) * 2
    true = _softmax(logits)
    y = (true.cumsum(axis=1) < random.random((len(true), 1))).sum(axis=1)
    bold = _softmax(3 * logits)
    found = Temperature.fit(bold, y, floor=0)
    assert found.value == pytest.approx(3, rel=0.03)
    np.testing.assert_allclose(found.apply(bold), true, atol=0.02)
    assert expected_calibration_error(found.apply(bold), y) < 0.015 < expected_calibration_error(bold, y)


def test_scaling_probabilities_is_scaling_logits() -> None:
    logits = np.random.default_rng(1).normal(size=(50, 5)) * 4
    np.testing.assert_allclose(Temperature(1.7, 0.0).apply(_softmax(logits)), _softmax(logits / 1.7), atol=1e-6)


def test_zeros_among_vote_shares_count_as_a_hundredth_of_a_vote() -> None:
    shares = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    scaled = Temperature(1.0).apply(shares)
    assert scaled[0].tolist() == pytest.approx([1 / (1 + 2 * NO_VOTE), *[NO_VOTE / (1 + 2 * NO_VOTE)] * 2])
    assert scaled[1].tolist() == [0, 0, 0]  # no reference cell was eligible: no confidence
    assert scaled.dtype == np.float32


def test_few_cells_leave_probabilities_as_they_are() -> None:
    p = np.tile([0.9, 0.1], (99, 1))
    assert Temperature.fit(p, np.ones(99, int)).value == 1.0
    assert Temperature.fit(np.tile([0.9, 0.1], (100, 1)), np.ones(100, int)).value == pytest.approx(5, abs=0.01)


@given(st.lists(st.lists(st.integers(0, 20), min_size=3, max_size=3), min_size=1, max_size=20), st.floats(0.2, 5))
def test_the_order_of_classes_stays(votes: list[list[int]], value: float) -> None:
    counts = np.array(votes, float)
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    scaled = Temperature(value).apply(shares)
    larger = shares[:, :, None] > shares[:, None, :] + 1e-9
    assert (scaled[:, :, None] >= scaled[:, None, :])[larger].all()
    np.testing.assert_allclose(scaled.sum(axis=1), (total[:, 0] > 0).astype(float), atol=1e-5)


@pytest.mark.parametrize(
    ("p", "y", "said"),
    [
        ([[2.0, -1.0]], [0], "apply the softmax"),
        ([[0.5, 0.5]], [0, 1], r"\(n, classes\) and \(n,\)"),
        ([[0.5, 0.5]], [0.0], "whole number"),
        ([[np.nan, 0.5]], [0], "apply the softmax"),
    ],
)
def test_what_is_no_probability_is_refused(p: list, y: list, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Temperature.fit(p, np.array(y))
