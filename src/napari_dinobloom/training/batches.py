"""The pictures of each iteration, as groups of crops and masks: functions of the seed and of positions alone.

Picture number p of the whole training is drawn, augmented and masked the same way whatever process sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from napari_dinobloom.errors import InputError
from napari_dinobloom.training.augment import Augmentation
from napari_dinobloom.training.config import Config
from napari_dinobloom.training.distillation import Group
from napari_dinobloom.training.masking import block_masks, most_masked
from napari_dinobloom.training.parallel import World
from napari_dinobloom.training.sampling import Sampler

Read = Callable[[NDArray[np.int64]], NDArray[np.uint8]]
"""Gives pictures (n, 224, 224, 3) for rows (n,)."""


class Batches:
    """The share of each iteration that a process has, read one iteration ahead.

    Parameters
    ----------
    config : Config
        Says sampling, batch, masks and augmentation.
    read : function
        From rows of all pictures to pictures.
    sizes : sequence of int
        Pictures of each data set.
    world : World
        The processes; each takes the same number of neighbouring groups.
    grid : int
        Patches per side.
    dtype : torch.dtype, default: float32
        Of the crops.

    Raises
    ------
    InputError
        If the groups cannot be shared out evenly.
    """

    def __init__(
        self,
        config: Config,
        read: Read,
        sizes: list[int],
        world: World,
        grid: int = 16,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        groups = config.batch.total // config.batch.group
        if groups % world.size:
            raise InputError(
                f"{groups} groups (batch.total {config.batch.total} / batch.group {config.batch.group}) cannot be "
                f"shared evenly by {world.size} processes: change one, or start {_divisor(groups, world.size)}."
            )
        self.config, self.world, self.grid, self.dtype = config, world, grid, dtype
        self._read = read
        share = groups // world.size
        self._groups = range(world.rank * share, (world.rank + 1) * share)
        weights = [1.0 if size else 0.0 for size in sizes] if config.data.sampling == "balanced" else None
        replacement = config.data.sampling != "shuffle"
        self._sampler = Sampler(sizes, weights, config.data.seed, replacement, block=config.data.block)
        self._augmentation = Augmentation(config.augmentation)
        self._ahead: tuple[int, Future[NDArray[np.uint8]]] | None = None
        self._pool = ThreadPoolExecutor(1, "read")

    def groups(self, iteration: int) -> list[Group]:
        """Give the groups of an iteration, on the device; the next iteration is read meanwhile."""
        if self._ahead is None or self._ahead[0] != iteration:
            self._ahead = (iteration, self._ask(iteration))
        pictures = self._ahead[1].result()
        self._ahead = (iteration + 1, self._ask(iteration + 1))
        size = self.config.batch.group
        parts = pictures.reshape(-1, size, *pictures.shape[1:])
        return [self._group(part, iteration, number) for part, number in zip(parts, self._groups, strict=True)]

    def _positions(self, iteration: int) -> NDArray[np.int64]:
        size = self.config.batch.group
        first = iteration * self.config.batch.total + self._groups.start * size
        return np.arange(first, first + len(self._groups) * size)

    def _ask(self, iteration: int) -> Future[NDArray[np.uint8]]:
        return self._pool.submit(lambda: self._read(self._sampler.rows(self._positions(iteration))))

    def _group(self, pictures: NDArray[np.uint8], iteration: int, number: int) -> Group:
        """Augment and mask one group."""
        config, device = self.config, self.world.device
        size = config.batch.group
        positions = torch.arange(size) + iteration * config.batch.total + number * size
        views = self._augmentation.views(
            torch.from_numpy(np.ascontiguousarray(pictures)).to(device, non_blocking=True),
            config.run.seed,
            positions.to(device),
        )
        share, ratio = config.masks.probability, config.masks.ratio
        masks = block_masks(size, self.grid, config.run.seed, number, iteration, probability=share, ratio=ratio)
        rows = most_masked(size, self.grid, probability=share, ratio=ratio) if config.run.compile else None
        local = None if views.local is None else views.local.to(self.dtype)
        return Group(views.crops.to(self.dtype), masks.to(device, non_blocking=True), rows, local)

    def close(self) -> None:
        """Stop reading ahead."""
        self._pool.shutdown(cancel_futures=True)


def _divisor(groups: int, most: int) -> int:
    """The largest number of processes up to `most` among which groups can be shared."""
    return next(number for number in range(min(groups, most), 0, -1) if groups % number == 0)
