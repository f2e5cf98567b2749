"""Block masks against their bounds and a plain implementation of the rule."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from napari_dinobloom.training.counter import uniform
from napari_dinobloom.training.masking import block_masks, most_masked


@pytest.mark.parametrize(("images", "rows"), [(152, 11_649), (120, 9_209), (56, 4_326), (26, 2_037)])
def test_the_bound_is_that_of_the_reference_and_holds(images: int, rows: int) -> None:
    assert most_masked(images, 16) == rows
    totals = [int(block_masks(images, 16, 0, 0, iteration).sum()) for iteration in range(4)]
    assert 0.8 * rows < min(totals)
    assert max(totals) <= rows


def test_each_crop_is_within_its_share() -> None:
    masks = block_masks(40, 16, seed=3, group=1, iteration=2)
    counts = np.sort(masks.sum(dim=1).numpy())
    assert masks.shape == (80, 256)
    assert masks.dtype == torch.bool
    assert (counts[:40] == 0).all()
    bounds = 256 * np.linspace(0.1, 0.5, 41)
    assert (counts[40:] <= bounds[1:]).all()
    assert (counts[40:] > 0).all()


def test_masks_are_a_function_of_seed_group_and_iteration() -> None:
    first = block_masks(8, 16, 1, 2, 3)
    np.random.default_rng(0).random()
    torch.manual_seed(5)
    assert torch.equal(first, block_masks(8, 16, 1, 2, 3))
    for other in ((0, 2, 3), (1, 3, 3), (1, 2, 4), (2, 1, 3)):
        assert not torch.equal(first, block_masks(8, 16, *other))


def test_masked_crops_are_shuffled() -> None:
    masked = sum(block_masks(8, 16, 0, 0, iteration).any(dim=1).int() for iteration in range(400)).numpy()
    assert masked.sum() == 400 * 8
    assert np.abs(masked - 200).max() < 5 * math.sqrt(400 / 4)


def _plain(wanted: int, rng: random.Random) -> np.ndarray:
    """The rule, one rectangle and one mask at a time."""
    mask = np.zeros((16, 16), bool)
    while True:
        room = min(wanted - int(mask.sum()), 128)
        if room <= 0:
            return mask
        for _ in range(10):
            area, aspect = rng.uniform(4, room), math.exp(rng.uniform(math.log(0.3), -math.log(0.3)))
            high, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if high >= 16 or wide >= 16:
                continue
            y, x = rng.randint(0, 16 - high), rng.randint(0, 16 - wide)
            new = high * wide - int(mask[y : y + high, x : x + wide].sum())
            if 0 < new <= room:
                mask[y : y + high, x : x + wide] = True
                break
        else:
            return mask


def _shapes(masks: np.ndarray) -> np.ndarray:
    """Of each mask: patches, their square, edges down and across, mean distance of patches from the centre."""
    down, across = (np.diff(masks, axis=axis).sum(axis=(1, 2)) for axis in (1, 2))
    far = np.abs(np.arange(16) - 7.5)
    count = masks.sum(axis=(1, 2))
    spread = (masks * (far[:, None] + far)).sum(axis=(1, 2)) / count
    return np.stack([count, count**2 / 100, down, across, spread], axis=1)


def test_masks_are_distributed_as_by_the_plain_rule() -> None:
    ours = np.concatenate([block_masks(100, 16, 7, 0, i).numpy() for i in range(20)]).reshape(-1, 16, 16)
    ours = ours[ours.any(axis=(1, 2))]
    rng = random.Random(0)
    bounds = np.linspace(0.1, 0.5, 101)
    plain = np.array(
        [_plain(int(256 * rng.uniform(bounds[i], bounds[i + 1])), rng) for _ in range(20) for i in range(100)]
    )
    found, expected = _shapes(ours), _shapes(plain)
    error = np.sqrt((found.var(axis=0) + expected.var(axis=0)) / 2000)
    assert (np.abs(found.mean(axis=0) - expected.mean(axis=0)) < 4 * error).all()


@pytest.mark.parametrize(("probability", "ratio"), [(1.5, (0.1, 0.5)), (0.5, (0.5, 0.1)), (0.5, (0.1, 1.2))])
def test_shares_that_cannot_be(probability: float, ratio: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="shares"):
        block_masks(4, 16, 0, 0, 0, probability, ratio)


def test_no_masks_and_other_grids() -> None:
    assert not block_masks(4, 16, 0, 0, 0, probability=0).any()
    assert most_masked(4, 16, probability=0) == 0
    assert block_masks(3, 7, 0, 0, 0).shape == (6, 49)


def test_numbers_of_counters_are_even_and_unrelated() -> None:
    numbers = uniform(4, 9, np.arange(50_000), 1)
    cells = np.histogram(numbers, 100, (0, 1))[0]
    assert ((cells - 2000) ** 2 / 2000).sum() < 160  # chi-square of 99 degrees of freedom: p = 1e-4
    others = [
        numbers[1:, 0],
        numbers[:-1, 1],
        uniform(1, 9, np.arange(50_000), 2)[1:, 0],
        uniform(1, 1, np.arange(50_000), 9)[1:, 0],
    ]
    for other in others:
        assert abs(np.corrcoef(numbers[:-1, 0], other)[0, 1]) < 0.02
    assert np.array_equal(uniform(9, 9, [4], 1)[:, :4], uniform(4, 9, [4], 1))
