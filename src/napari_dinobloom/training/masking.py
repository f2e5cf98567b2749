"""Block masks: which patches of its crops the student does not see.

After BEiT (Bao et al. 2021, arXiv 2106.08254) as iBOT and DINOv2 use it (``dinov2/data/masking.py`` and
``collate.py``): rectangles are laid on the grid of patches until a crop has its share. The pictures of one group share
the list of shares, as those of one card do in the reference.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_dinobloom.training.counter import uniform

PROBABILITY = 0.5
RATIO = (0.1, 0.5)
SMALLEST = 4
"""Patches of a rectangle before rounding; fewer only where the crop lacks fewer."""
ASPECT = 0.3
"""Least ratio of a rectangle's sides; the largest is its inverse."""
ATTEMPTS = 10
"""Rectangles in a row that do not fit, after which a mask stays as it is."""


def block_masks(
    images: int,
    grid: int,
    seed: int,
    group: int,
    iteration: int,
    probability: float = PROBABILITY,
    ratio: tuple[float, float] = RATIO,
) -> Tensor:
    """Draw the masks of one group's crops.

    Parameters
    ----------
    images : int
        Pictures of the group, of two crops each.
    grid : int
        Patches along a side of a crop.
    seed, group, iteration : int
        Decide what is drawn, and nothing else does. `group` counts over all processes.
    probability : float, default: 0.5
        Share of the crops that are masked.
    ratio : tuple of float, default: (0.1, 0.5)
        Least and largest share of masked patches; the masked crops divide this range evenly.

    Returns
    -------
    Tensor (2 * images, grid * grid) of bool
        True where a patch is masked; at most `most_masked` are. On the CPU.

    Raises
    ------
    ValueError
        If images or grid are below 1, or the shares are none.
    """
    bounds = _bounds(images, grid, probability, ratio)
    masked = len(bounds) - 1
    numbers = uniform(1, seed, group, iteration, 0, np.arange(2 * images))[:, 0]
    within = uniform(1, seed, group, iteration, 1, np.arange(masked))[:, 0]
    wanted = (grid * grid * (bounds[:-1] + (bounds[1:] - bounds[:-1]) * within)).astype(np.int64)
    masks = np.zeros((2 * images, grid, grid), bool)
    _fill(masks[:masked], wanted, (seed, group, iteration))
    return torch.from_numpy(masks[np.argsort(numbers, kind="stable")].reshape(2 * images, grid * grid))


def most_masked(images: int, grid: int, probability: float = PROBABILITY, ratio: tuple[float, float] = RATIO) -> int:
    """Give the number of masked patches that no draw of `block_masks` with the same arguments exceeds."""
    return int((grid * grid * _bounds(images, grid, probability, ratio)[1:]).astype(np.int64).sum())


def _bounds(images: int, grid: int, probability: float, ratio: tuple[float, float]) -> NDArray[np.float64]:
    """Shares between which those of the masked crops lie, each between two that follow each other."""
    if images < 1 or grid < 1:
        raise ValueError(f"{images} pictures on a grid of {grid} patches a side: both must be 1 or more.")
    if not (0 <= probability <= 1 and 0 <= ratio[0] <= ratio[1] <= 1):
        raise ValueError(f"Mask probability {probability} and ratio {ratio} must be shares of 1, the ratio's rising.")
    return np.linspace(*ratio, int(2 * images * probability) + 1)


def _fill(masks: NDArray[np.bool_], wanted: NDArray[np.int64], counters: tuple[int, int, int]) -> None:
    """Lay rectangles on all masks at a time, one attempt a round, until each has what is wanted or nothing fits."""
    grid = masks.shape[1]
    largest = grid * grid // 2
    side = np.arange(grid)
    missing, failed = wanted.copy(), np.zeros(len(wanted), np.int64)
    attempt = 0
    while len(active := np.flatnonzero((missing > 0) & (failed < ATTEMPTS))):
        area_u, aspect_u, top_u, left_u = uniform(4, *counters, 2, attempt, active).T
        room = np.minimum(missing[active], largest)
        area = SMALLEST + (room - SMALLEST) * area_u
        aspect = np.exp(math.log(ASPECT) * (1 - 2 * aspect_u))
        height, width = (np.rint(np.sqrt(x)).astype(np.int64) for x in (area * aspect, area / aspect))
        top, left = ((u * (grid - x + 1)).astype(np.int64)[:, None] for u, x in ((top_u, height), (left_u, width)))
        rows = (side >= top) & (side < top + height[:, None])
        columns = (side >= left) & (side < left + width[:, None])
        new = rows[:, :, None] & columns[:, None, :] & ~masks[active]
        count = np.count_nonzero(new.reshape(len(active), -1), axis=1)
        fits = (height < grid) & (width < grid) & (count > 0) & (count <= room)
        masks[active[fits]] |= new[fits]
        missing[active] -= np.where(fits, count, 0)
        failed[active] = np.where(fits, 0, failed[active] + 1)
        attempt += 1
