"""Who does the parallel part of a step: threads of this process, or `cluster.spread.Spread`, processes anywhere.

What they are given is a module-level function and plain values, so that it can be done by another process; it may be
done twice, as a process may be lost, and gives the same each time.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

Item = TypeVar("Item")


class Workers(Protocol):
    """Those who do the parts of a step.

    Attributes
    ----------
    apart : bool
        Whether they are other processes: these leave what they made in the study's folder, on a disk that they share
        with the one who asked, and answer in a word.
    """

    @property
    def apart(self) -> bool:
        """Whether they are other processes."""

    def begin(self, study: Path) -> None:
        """Learn in which study they will work, before they do."""

    def map(self, task: Callable[[Item], Any], items: Sequence[Item], *, encoder: bool = False) -> Iterator[Any]:
        """Do a task for each item, in any order; closing the iterator calls off what has not begun.

        Parameters
        ----------
        task : callable
            Function of one item, at the top level of a module.
        items : sequence
            Plain values.
        encoder : bool
            Whether it is work for those with a graphics card, where there are any.

        Yields
        ------
        (int, object)
            Place of an item, and what the task gave; an exception where it could not be done there.
        """


def call(workers: Workers, task: Callable[[Item], Any], item: Item, *, encoder: bool = False) -> Any:
    """Have one task done and wait for what it gives; raises what stands in its place."""
    [(_, answer)] = workers.map(task, [item], encoder=encoder)
    if isinstance(answer, Exception):
        raise answer
    return answer


class Threads:
    """Threads of this process, a few; an error of a task is raised."""

    apart = False

    def __init__(self) -> None:
        self.count = max(1, min(4, os.cpu_count() or 1))

    def begin(self, study: Path) -> None:
        """Nothing to prepare."""

    def map(self, task: Callable[[Item], Any], items: Sequence[Item], *, encoder: bool = False) -> Iterator[Any]:
        """As `Workers.map`, in order and a few items ahead."""
        waiting: deque[tuple[int, Future[Any]]] = deque()
        with ThreadPoolExecutor(self.count) as pool:
            try:
                for place, item in enumerate(items):
                    waiting.append((place, pool.submit(task, item)))
                    if len(waiting) > 2 * self.count:
                        first, future = waiting.popleft()
                        yield first, future.result()
                while waiting:
                    first, future = waiting.popleft()
                    yield first, future.result()
            finally:
                for _, future in waiting:
                    future.cancel()
