"""Intervals and corrected counts against published values, scipy, brute force and simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import binomtest

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.explore.proportions import wilson
from napari_dinobloom.report.quantify import corrected_percent, goodman, mixture, ratio_interval

CLASSES = ["a", "b", "c"]


def confusion(rows: list[list[int]]) -> pd.DataFrame:
    return pd.DataFrame(rows, index=CLASSES, columns=[*CLASSES, "unclassified"])


PERFECT = confusion([[10**7, 0, 0, 0], [0, 10**7, 0, 0], [0, 0, 10**7, 0]])
USUAL = confusion([[85, 8, 2, 5], [4, 90, 1, 5], [3, 12, 75, 10]])


def test_wilson_is_that_of_newcombe() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
    for count, total, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = wilson(count, total)
        assert found[0] == pytest.approx(low, abs=5e-5)
        assert found[1] == pytest.approx(high, abs=5e-5)


@settings(deadline=None)
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_that_of_scipy(counts: tuple[int, int]) -> None:
    theirs = binomtest(*counts).proportion_ci(method="wilson")
    low, high = wilson(*counts)
    assert low == pytest.approx(theirs.low, abs=1e-9)
    assert high == pytest.approx(theirs.high, abs=1e-9)
    assert low <= counts[0] / counts[1] <= high


def test_wilson_of_no_cell_is_not_a_number() -> None:
    low, high = wilson([0, 1], [0, 1])
    assert np.isnan([low[0], high[0]]).all()
    assert high[1] == 1


def test_a_ratio_has_the_interval_of_its_proportion() -> None:
    ratio, low, high = ratio_interval(300, 100)
    expected = binomtest(300, 400).proportion_ci(method="wilson")
    assert (ratio, low, high) == pytest.approx(
        (3, expected.low / (1 - expected.low), expected.high / (1 - expected.high))
    )
    assert ratio_interval(5, 0)[0] == ratio_interval(5, 0)[2] == np.inf
    assert ratio_interval(5, 0)[1] > 0
    assert ratio_interval(0, 5)[:2] == (0, 0)
    assert np.isnan(ratio_interval(0, 0)).all()


def test_a_mixture_that_fits_exactly_is_found() -> None:
    rows = USUAL.to_numpy() / USUAL.to_numpy().sum(axis=1, keepdims=True)
    truth = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    np.testing.assert_allclose(mixture(1000 * truth @ rows, rows), truth, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=4, max_size=4), st.integers(0, 1000))
def test_a_mixture_has_the_likelihood_that_slsqp_finds(counts: list[int], seed: int) -> None:
    rows = np.random.default_rng(seed).dirichlet([1, 1, 1, 1], 3) * 0.4
    rows[np.arange(3), np.arange(3)] += 0.6
    seen = np.array(counts, dtype=float)
    if not seen.sum():
        np.testing.assert_allclose(mixture(seen, rows), 1 / 3)
        return

    def loss(p):
        return -(seen * np.log(np.maximum(p @ rows, 1e-12))).sum() / seen.sum()

    theirs = minimize(
        loss, np.full(3, 1 / 3), method="SLSQP", bounds=[(0, 1)] * 3, options={"ftol": 1e-12, "maxiter": 500},
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
    )  # fmt: skip
    ours = mixture(seen, rows)
    assert ours.sum() == pytest.approx(1)
    assert (ours >= 0).all()
    assert loss(ours) <= loss(np.clip(theirs.x, 0, 1) / np.clip(theirs.x, 0, 1).sum()) + 1e-6


def test_a_perfect_classifier_is_not_corrected() -> None:
    named = {"a": 60, "b": 30, "c": 10}
    found = corrected_percent(named, {}, PERFECT, set(CLASSES))
    np.testing.assert_allclose(found["corrected"], [60, 30, 10], atol=0.01)
    # without error of the classifier the interval is the counting error's
    low, high = wilson([60, 30, 10], 100)
    np.testing.assert_allclose(found["low"], 100 * low, atol=2.5)
    np.testing.assert_allclose(found["high"], 100 * high, atol=2.5)


def test_systematic_errors_are_taken_out() -> None:
    truth = np.array([0.6, 0.3, 0.1])
    rows = USUAL.to_numpy() / 100
    named = dict(zip(USUAL.columns, (10_000 * truth @ rows).round().astype(int).tolist(), strict=True))
    found = corrected_percent(named, {}, 1000 * USUAL, set(CLASSES))
    np.testing.assert_allclose(found["corrected"], 100 * truth, atol=0.1)


def test_what_a_person_stated_goes_around_the_correction() -> None:
    found = corrected_percent({}, {"b": 5, "blast": 15, "unclassified": 5}, USUAL, {*CLASSES, "blast", "unclassified"})
    assert found["corrected"].to_dict() == pytest.approx({"a": 0, "b": 20, "blast": 60, "c": 0, "unclassified": 20})
    assert found.loc["blast", "low"] < 60 < found.loc["blast", "high"]
    # a class that was not seen may still be there: the counting error stays
    assert found.loc["a", "high"] == pytest.approx(100 * wilson(0, 25)[1])


def test_a_class_outside_the_denominator_is_estimated_and_left_out() -> None:
    found = corrected_percent({"a": 50, "b": 30, "c": 920}, {}, PERFECT, {"a", "b"})
    assert found.index.tolist() == ["a", "b"]
    np.testing.assert_allclose(found["corrected"], [62.5, 37.5], atol=0.01)


def test_no_cell_has_no_percentage() -> None:
    assert corrected_percent({}, {}, USUAL, set(CLASSES)).isna().all(axis=None)


def test_the_same_seed_gives_the_same_interval() -> None:
    named = {"a": 20, "b": 50, "unclassified": 5}
    one, two = (corrected_percent(named, {}, USUAL, set(CLASSES)) for _ in range(2))
    assert one.equals(two)
    assert not one.equals(corrected_percent(named, {}, USUAL, set(CLASSES), seed=1))


def test_a_class_without_a_held_out_cell_is_taken_to_be_named_rightly() -> None:
    found = corrected_percent(
        {"a": 50, "c": 50}, {}, confusion([[99, 1, 0, 0], [1, 99, 0, 0], [0, 0, 0, 0]]), set(CLASSES)
    )
    assert found.loc["c", "corrected"] == pytest.approx(50, abs=12)
    assert found["corrected"].sum() == pytest.approx(100)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (USUAL.drop(columns="unclassified"), "columns"),
        (USUAL.iloc[:0], "rows"),
        (-USUAL, "negative"),
        (USUAL.rename(index={"a": "b"}), "rows"),
    ],
)
def test_a_table_that_is_no_confusion_is_refused(table: pd.DataFrame, message: str) -> None:
    with pytest.raises(DinoBloomError, match=message):
        corrected_percent({"a": 1}, {}, table, set(CLASSES))


def test_a_name_that_the_confusion_does_not_know_is_refused() -> None:
    with pytest.raises(DinoBloomError, match="'blast'"):
        corrected_percent({"blast": 1}, {}, USUAL, set(CLASSES))


def test_the_corrected_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    truth, rows = np.array([0.55, 0.35, 0.10]), USUAL.to_numpy() / 100
    covered, raw = [], []
    for seed in range(80):
        named = dict(zip(USUAL.columns, rng.multinomial(200, truth @ rows).tolist(), strict=True))
        measured = confusion([rng.multinomial(100, row).tolist() for row in rows])
        found = corrected_percent(named, {}, measured, set(CLASSES), draws=150, seed=seed)
        covered += ((found["low"] <= 100 * truth) & (100 * truth <= found["high"])).tolist()
        low, high = wilson([named[c] for c in CLASSES], 200)
        raw += ((low <= truth) & (truth <= high)).tolist()
    assert np.mean(covered) >= 0.91
    assert np.mean(covered) > np.mean(raw)  # the uncorrected interval misses what the classifier shifts


def test_intervals_for_all_classes_at_once() -> None:
    # Published with the R package CoinMinD for Goodman's method, alpha 0.05
    low, high = goodman([44, 55, 43, 32, 67, 78])
    np.testing.assert_allclose(low, [0.09468368, 0.12376893, 0.09208527, 0.06412671, 0.15637944, 0.18692732], atol=5e-9)
    np.testing.assert_allclose(high, [0.1966413, 0.2350489, 0.1931040, 0.1535697, 0.2760670, 0.3130119], atol=5e-8)


@pytest.mark.parametrize("counts", [[56, 72, 73, 59, 62, 87, 58], [5, 1, 0, 94], [3], [0, 200]])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_intervals_for_all_classes_are_those_of_statsmodels(counts: list[int], alpha: float) -> None:
    from statsmodels.stats.proportion import multinomial_proportions_confint

    np.testing.assert_allclose(
        np.stack(goodman(counts, alpha), axis=1),
        np.clip(multinomial_proportions_confint(counts, alpha, method="goodman"), 0, 1),
        atol=1e-9,
    )


def test_intervals_cover_all_classes_together_as_often_as_they_say() -> None:
    p = np.array([0.6, 0.25, 0.08, 0.04, 0.02, 0.01])
    drawn = np.random.default_rng(0).multinomial(200, p, size=2000)
    ends = [goodman(counts) for counts in drawn]
    together = np.mean([((low <= p) & (p <= high)).all() for low, high in ends])
    each = [wilson(counts, 200) for counts in drawn]
    alone = np.mean([((low <= p) & (p <= high)).all() for low, high in each])
    assert together > 0.93
    assert alone < 0.85


def test_no_cell_has_no_interval() -> None:
    assert np.isnan(goodman([0, 0])).all()
    assert np.shape(goodman([])) == (2, 0)
