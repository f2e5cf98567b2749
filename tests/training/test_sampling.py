"""The sampler: a permutation for every size, even draws, and nothing but seed and position."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from napari_dinobloom.training import sampling
from napari_dinobloom.training.sampling import Sampler, balanced

SEEDS = st.integers(-(2**63), 2**63 - 1)


def _first(sampler: Sampler, count: int, start: int = 0) -> np.ndarray:
    return sampler.rows(np.arange(start, start + count))


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 3000), seed=SEEDS, block=st.integers(0, 700), epoch=st.integers(0, 10**6))
def test_every_epoch_without_replacement_is_a_bijection(size: int, seed: int, block: int, epoch: int) -> None:
    rows = _first(Sampler([size], None, seed, replacement=False, block=block), size, epoch * size)
    np.testing.assert_array_equal(np.sort(rows), np.arange(size))


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 500), min_size=1, max_size=5),
    seed=SEEDS,
    weighted=st.booleans(),
    replacement=st.booleans(),
    block=st.integers(0, 70),
    at=st.lists(st.integers(0, 2**40), min_size=1, max_size=50),
)
def test_a_row_depends_on_seed_and_position_only(
    sizes: list[int], seed: int, weighted: bool, replacement: bool, block: int, at: list[int]
) -> None:
    weights = balanced(sizes) if weighted else None
    positions = np.array(at)
    rows = Sampler(sizes, weights, seed, replacement, block=block).rows(positions)
    other = Sampler(sizes, weights, seed, replacement, block=block)
    assert [int(other.rows(np.array([p]))[0]) for p in at] == rows.tolist()
    assert rows.min() >= 0
    assert rows.max() < sum(sizes)


@pytest.mark.parametrize("block", [0, 7])
def test_with_replacement_every_row_is_as_likely(block: int) -> None:
    rows = _first(Sampler([40, 60], None, 3, block=block), 200_000)
    counts = np.bincount(rows, minlength=100)
    spread = block or 1  # rows of a block come together, so that counts vary the more
    assert chisquare(counts / spread).pvalue > 1e-3
    assert len(set(rows[: 7 * 20 : 7])) > 8


@pytest.mark.parametrize("size", [5, 12, 100])
def test_every_order_puts_every_row_everywhere_alike(size: int) -> None:
    sampler = Sampler([size], None, 11, replacement=False)
    epochs = _first(sampler, 6000 * size).reshape(6000, size)
    for place in (0, 1, size // 2, size - 1):
        assert chisquare(np.bincount(epochs[:, place], minlength=size)).pvalue > 1e-4
    pairs = epochs[:, 0] * size + epochs[:, 1]
    assert len(np.unique(pairs)) > 0.8 * min(size * (size - 1), 6000 * 0.6)


def test_neighbouring_positions_and_seeds_are_independent() -> None:
    rows = _first(Sampler([10], None, 0), 100_001)
    assert chisquare(np.bincount(rows[:-1] * 10 + rows[1:], minlength=100)).pvalue > 1e-3
    other = _first(Sampler([10], None, 1), 100_000)
    assert chisquare(np.bincount(rows[:-1] * 10 + other, minlength=100)).pvalue > 1e-3


def test_weights_with_replacement() -> None:
    rows = _first(Sampler([10, 1000, 5], [1, 2, 1], 5), 40_000)
    counts = np.bincount(np.searchsorted([10, 1010], rows, side="right"), minlength=3)
    assert chisquare(counts, [10_000, 20_000, 10_000]).pvalue > 1e-3


def test_weights_without_replacement_hold_exactly_and_sets_are_gone_through_in_turn() -> None:
    rows = _first(Sampler([10, 1000, 7, 0], balanced([10, 1000, 7, 0]), 5, replacement=False), sampling.PERIOD)
    sets = np.searchsorted([10, 1010], rows, side="right")
    counts = np.bincount(sets)
    assert counts.sum() == sampling.PERIOD
    assert counts.max() - counts.min() <= 1
    each = np.bincount(rows, minlength=1017)
    assert np.ptp(each[:10]) <= 1
    assert np.ptp(each[10:1010]) <= 1
    assert np.ptp(np.bincount(sets[:3000])) < 250  # mixed from the start, not one after the other


def test_blocks_stay_together_and_come_in_a_new_order() -> None:
    sampler = Sampler([10_050], None, 2, replacement=False, block=100)
    window = 100 * sampling.BLOCKS_TOGETHER
    met = [set(_first(sampler, window, start) // 100) for start in range(0, 9000, window)]
    assert max(map(len, met)) <= sampling.BLOCKS_TOGETHER + 2  # the short last block shifts the borders
    assert met[0] != {0, 1, 2, 3, 4, 5, 6, 7}
    assert met[0] != set(_first(sampler, window, 10_050) // 100)
    assert len(set(_first(sampler, 100) // 100)) >= 6  # several blocks from the first positions on
    drawn = _first(Sampler([10_050], None, 2, block=100), 1000).reshape(10, 100) // 100
    assert (drawn == drawn[:, :1]).all()


def test_what_cannot_work_is_refused() -> None:
    for sizes, weights in [([0], None), ([3, 4], [1]), ([3, 0], [1, 1]), ([3], [-1]), ([3], [np.nan]), ([3], [0])]:
        with pytest.raises(ValueError):
            Sampler(sizes, weights, 0)
    with pytest.raises(ValueError, match="negative"):
        Sampler([3], None, 0).rows(np.array([-1]))


def test_the_stream_of_a_seed_is_pinned() -> None:
    """A change here changes every run that is resumed."""
    assert _first(Sampler([1000], None, 0), 5).tolist() == [12, 177, 117, 188, 255]
    assert _first(Sampler([1000], None, 0, replacement=False), 5).tolist() == [749, 139, 602, 84, 808]
