"""`Workers` on `dask.distributed`: tasks are handed out a window at a time, and what is lost is done again.

A task that raises is tried three more times. One whose workers die is set aside and tried again alone at the end, so
that what only stood beside it is not blamed; if it takes its worker with it again, that is its answer.
"""

from __future__ import annotations

import importlib.util
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from napari_dinobloom.errors import DinoBloomError, StudyError
from napari_dinobloom.pipeline.cluster.options import ClusterOptions
from napari_dinobloom.pipeline.cluster.sight import check_sight
from napari_dinobloom.pipeline.cluster.start import GPU, check_installed, connect
from napari_dinobloom.pipeline.workers import Item

if TYPE_CHECKING:
    from distributed import Client, Future, as_completed

_log = logging.getLogger(__name__)

RETRIES = 3
"""Times that a task is tried again."""

WINDOW = 1024
"""Tasks that the scheduler knows of at a time."""

LOOK_S, GONE_S = 10, 600
"""Seconds without an answer after which it is looked whether there is any worker, and without any until it is given
up."""


class WorkerError(DinoBloomError):
    """A task could not be done by any worker; the message says why."""


class Spread:
    """Workers on a cluster; use it as a context manager.

    A scheduler that is named has to answer at once; workers of our own are started when they are first needed.

    Parameters
    ----------
    options : ClusterOptions
        Where they are.

    Raises
    ------
    InputError
        If what is needed is not installed, or the scheduler does not answer.
    """

    apart = True

    def __init__(self, options: ClusterOptions) -> None:
        check_installed(options)
        self.options = options
        self._ends = ExitStack()
        self._client: Client | None = connect(options, self._ends) if options.scheduler else None
        self._unseen: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()
        self._client = None

    def begin(self, study: Path) -> None:
        """Have the workers look for a study, once they are there."""
        self._unseen = study

    @property
    def client(self) -> Client:
        """The client, connected to workers that see the study.

        Raises
        ------
        InputError
            If one does not see it, or has other versions of what decides the numbers.
        """
        if self._client is None:
            self._client = connect(self.options, self._ends)
        if self._unseen is not None:
            _log.info("Waiting for workers of %s", self.options.scheduler or self.options.cluster or "this machine")
            self._client.wait_for_workers(1)
            check_sight(self._client, self._unseen)
            if importlib.util.find_spec("bokeh"):
                _log.info("What the workers do: %s", self._client.dashboard_link)
            self._unseen = None
        return self._client

    def map(self, task: Callable[[Item], Any], items: Sequence[Item], *, encoder: bool = False) -> Iterator[Any]:
        """As `Workers.map`.

        Raises
        ------
        DinoBloomError
            What a user can mend stops all of it: a full disk, an encoder that is not there.
        """
        alone: list[int] = []
        for place, answer in self._passed(task, list(enumerate(items)), WINDOW, encoder):
            if _is_death(answer):
                alone.append(place)
            else:
                yield place, answer
        for place in alone:
            for _, answer in self._passed(task, [(place, items[place])], 1, encoder):
                yield place, _death(answer) if _is_death(answer) else answer

    def _passed(
        self, task: Callable[[Item], Any], items: Sequence[tuple[int, Item]], window: int, encoder: bool
    ) -> Iterator[tuple[int, Any]]:
        """Hand items out, as many as the window holds, and give the answers as they come."""
        from distributed import as_completed

        if not items:
            return
        client = self.client
        needs = {GPU: 1} if encoder and self._has_cards(client) else None
        waiting, running = deque(items), dict[Any, int]()
        group = f"{task.__name__}-{uuid.uuid4().hex}"  # of one group the scheduler hands out a task when one is done
        coming = as_completed(loop=client.loop, with_results=True, raise_errors=False)
        try:
            while waiting or running:
                while waiting and len(running) < window:
                    place, item = waiting.popleft()
                    future = client.submit(task, item, key=(group, place), retries=RETRIES, resources=needs)
                    running[future] = place
                    coming.add(future)
                self._wait(client, coming)
                future, result = next(coming)
                yield running.pop(future), _answer(future, result)
        finally:
            if running:
                with suppress(Exception):  # the scheduler may be gone
                    client.cancel(list(running))

    def _wait(self, client: Client, coming: as_completed) -> None:
        """Wait for an answer; raises StudyError where no worker has been there for long, as they were all ended."""
        seen = time.monotonic()
        while not coming.has_ready():
            time.sleep(0.01)
            if time.monotonic() - seen > LOOK_S:
                if client.scheduler_info(n_workers=-1)["workers"]:
                    seen = time.monotonic()
                elif time.monotonic() - seen > GONE_S:
                    raise StudyError(
                        f"No worker has been there for {GONE_S} s: their jobs have ended, or their machine has no "
                        "memory left. What was finished is kept; start workers and run the same command again."
                    )
                else:
                    time.sleep(1)

    def _has_cards(self, client: Client) -> bool:
        """Whether any worker has declared a graphics card."""
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        return any(worker.get("resources", {}).get(GPU, 0) > 0 for worker in workers)


def _answer(future: Future[Any], result: Any) -> Any:
    """What a task gave; an exception where it could not be done."""
    if future.status == "finished":
        return result
    if future.status != "error":
        raise StudyError(
            "The scheduler is gone, or took its tasks back. What was finished is kept; run the same command again."
        )
    error = result[1]
    if isinstance(error, DinoBloomError):
        raise error
    return error if _is_death(error) else WorkerError(f"{type(error).__name__} in a worker: {error}")


def _is_death(answer: Any) -> bool:
    from distributed import KilledWorker

    return isinstance(answer, KilledWorker)


def _death(answer: Any) -> WorkerError:
    """Say in words that a task took its workers with it."""
    return WorkerError(
        "its workers ended while they worked on it, each time it was tried; mostly the memory did not suffice. It was "
        "left out. Give the workers more memory, or the picture to a run of its own."
    )
