"""The pictures of each iteration, as groups of crops and masks: functions of the seed and of positions alone.

Picture number p of the whole training is drawn, augmented and masked the same way whatever process sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_dinobloom.errors import InputError
from napari_dinobloom.training.augment import Augmentation
from napari_dinobloom.training.config import Config
from napari_dinobloom.training.distillation import Group
from napari_dinobloom.training.masking import block_masks, most_masked
from napari_dinobloom.training.parallel import World
from napari_dinobloom.training.sampling import Sampler, balanced

Read = Callable[[NDArray[np.int64]], NDArray[np.uint8]]
"""Gives pictures (n, 224, 224, 3) for rows (n,)."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """What a training draws from.

    Attributes
    ----------
    read : function
        From rows of all pictures to pictures (n, 224, 224, 3) uint8.
    sizes : dict of str to int
        Pictures of each data set, whose rows follow each other in this order.
    key : str
        Stands for all of it.
    sha256 : ndarray (n, 32) of uint8, optional
        Of their files.
    """

    read: Read
    sizes: dict[str, int]
    key: str
    sha256: NDArray[np.uint8] | None = None


class Batches:
    """The share of each iteration that a process has, read and masked one iteration ahead.

    Parameters
    ----------
    config : Config
        Says sampling, batch, masks and augmentation.
    pictures : Pictures
        What is drawn from.
    world : World
        The processes; each takes the same number of neighbouring groups.
    grid : int
        Patches per side.
    dtype : torch.dtype, default: float32
        Of the crops.

    Raises
    ------
    InputError
        If the groups cannot be shared out evenly, or weights are of other data sets than the pictures.
    """

    def __init__(
        self,
        config: Config,
        pictures: Pictures,
        world: World,
        grid: int = 16,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        share = share_evenly(config, world.size)
        self.config, self.world, self.grid, self.dtype = config, world, grid, dtype
        self._read = pictures.read
        self._groups = range(world.rank * share, (world.rank + 1) * share)
        replacement = config.data.sampling != "shuffle"
        weights = _weights(config, pictures.sizes)
        self._sampler = Sampler(
            list(pictures.sizes.values()), weights, config.data.seed, replacement, block=config.data.block
        )
        self._augmentation = Augmentation(config.augmentation)
        self._ahead: tuple[int, Future[tuple[Tensor, list[Tensor]]]] | None = None
        self._pool = ThreadPoolExecutor(1, "read")

    def groups(self, iteration: int) -> list[Group]:
        """Give the groups of an iteration, on the device; the next iteration is read meanwhile."""
        if self._ahead is None or self._ahead[0] != iteration:
            self._ahead = (iteration, self._pool.submit(self._prepare, iteration))
        pictures, masks = self._ahead[1].result()
        self._ahead = (iteration + 1, self._pool.submit(self._prepare, iteration + 1))
        parts = pictures.unflatten(0, (len(masks), self.config.batch.group))
        return [
            self._group(part, of_part, iteration, number)
            for part, of_part, number in zip(parts, masks, self._groups, strict=True)
        ]

    def _prepare(self, iteration: int) -> tuple[Tensor, list[Tensor]]:
        """Read an iteration's pictures and draw its masks, in memory from which a card copies by itself."""
        config, size = self.config, self.config.batch.group
        first = iteration * config.batch.total + self._groups.start * size
        rows = self._sampler.rows(np.arange(first, first + len(self._groups) * size))
        pictures = torch.from_numpy(np.ascontiguousarray(self._read(rows)))
        share, ratio = config.masks.probability, config.masks.ratio
        masks = [
            block_masks(size, self.grid, config.run.seed, number, iteration, probability=share, ratio=ratio)
            for number in self._groups
        ]
        if self.world.device.type == "cuda":
            return pictures.pin_memory(), [mask.pin_memory() for mask in masks]
        return pictures, masks

    def _group(self, pictures: Tensor, masks: Tensor, iteration: int, number: int) -> Group:
        """Augment one group."""
        config, device = self.config, self.world.device
        size = config.batch.group
        positions = torch.arange(size) + iteration * config.batch.total + number * size
        views = self._augmentation.views(pictures.to(device, non_blocking=True), config.run.seed, positions)
        share, ratio = config.masks.probability, config.masks.ratio
        rows = most_masked(size, self.grid, probability=share, ratio=ratio) if config.run.compile else None
        local = None if views.local is None else views.local.to(self.dtype)
        return Group(views.crops.to(self.dtype), masks.to(device, non_blocking=True), rows, local)

    def close(self) -> None:
        """Stop reading ahead."""
        self._pool.shutdown(cancel_futures=True)


def _weights(config: Config, sizes: dict[str, int]) -> list[float] | None:
    """How often each data set is drawn; None draws every picture alike."""
    asked = config.data.weights
    if not asked:
        return balanced(list(sizes.values())) if config.data.sampling == "balanced" else None
    if set(asked) != set(sizes):
        raise InputError(
            f"data.weights names {', '.join(sorted(asked))}; the pictures are of {', '.join(sorted(sizes))}. Name each."
        )
    return [asked[name] for name in sizes]


def share_evenly(config: Config, processes: int) -> int:
    """Groups of a step that each process takes.

    Raises
    ------
    InputError
        Where they are not as many for each.
    """
    groups = config.batch.total // config.batch.group
    if groups % processes:
        raise InputError(
            f"{groups} groups (batch.total {config.batch.total} / batch.group {config.batch.group}) cannot be "
            f"shared evenly by {processes} processes: change one, or start {_divisor(groups, processes)}."
        )
    return groups // processes


def _divisor(groups: int, most: int) -> int:
    """The largest number of processes up to `most` among which groups can be shared."""
    return next(number for number in range(min(groups, most), 0, -1) if groups % number == 0)
