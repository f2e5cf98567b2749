"""Reads blocks of pictures ahead, in threads, while others are computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from napari_dinobloom.encoders.compute.base import Pictures


def read_ahead(crops: Any, block: int, *, readers: int = 1, ahead: int = 2) -> Iterator[Pictures]:
    """Yield ``crops[0:block]``, ``crops[block:2 * block]``, ... in order, read before they are asked for.

    Parameters
    ----------
    crops : array (n, Y, X, 3) uint8
        Anything that can be sliced along its first axis.
    block : int
        Pictures per slice; the last has the rest.
    readers : int, default: 1
        Threads that read; more than one only for arrays that may be read by several at once.
    ahead : int, default: 2
        Slices that may wait beside the one that was taken; bounds the memory.

    Yields
    ------
    ndarray (up to block, Y, X, 3) uint8

    Raises
    ------
    Exception
        Whatever reading raises, when its slice is due.
    """
    starts = iter(range(0, crops.shape[0], block))
    waiting: deque[Future[Pictures]] = deque()
    with ThreadPoolExecutor(readers, "read") as pool:

        def ask() -> None:
            start = next(starts, None)
            if start is not None:
                waiting.append(pool.submit(lambda: np.asarray(crops[start : start + block])))

        try:
            for _ in range(max(ahead, readers)):
                ask()
            while waiting:
                found = waiting.popleft().result()
                ask()
                yield found
        finally:
            for future in waiting:
                future.cancel()


def close_reading(blocks: Iterable[Pictures]) -> None:
    """End the threads of `read_ahead` now, and not when the last that knows of it is gone."""
    close = getattr(blocks, "close", None)
    if close is not None:
        close()
