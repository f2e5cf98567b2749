"""Several devices, one process each: blocks of pictures go to whichever is free, results come back in order.

A process is this package's own ``python -m``, not a fork and not `multiprocessing`: it starts the same from a script
without a main guard, from a notebook and from napari. Pictures and results lie in two files per process (in shared
memory where the system has enough); one line of JSON each way says what lies there. Nothing is pickled.
"""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from napari_dinobloom.encoders.compute.base import Float32, Output, Pictures
from napari_dinobloom.encoders.compute.reading import close_reading
from napari_dinobloom.errors import EncoderError
from napari_dinobloom.io.atomic import disk_errors

SHARED_MEMORY = Path("/dev/shm")

ROOM = 1 << 30
"""Bytes that shared memory must have free to be used; containers often give it 64 MB."""

PASSES = 2
"""Passes in an errand, so that a process reads for one while it computes another."""


class ProcessCompute:
    """One network in each of several processes.

    Parameters
    ----------
    jobs : iterable of mapping
        For each process the keyword arguments of `encoder.load_compute`, plain values.

    Raises
    ------
    EncoderError
        Where a process does not start; the message is its own.
    """

    def __init__(self, jobs: Iterable[Mapping[str, Any]]) -> None:
        self._workers: list[_Worker] = []
        self._free: queue.Queue[_Worker] = queue.Queue()
        # Also where nobody closes it: a process that was left behind would keep its card's memory.
        self._end = weakref.finalize(self, _end_all, self._workers)
        try:
            for job in jobs:
                self._workers.append(_Worker(job))
            self.block = PASSES * min(worker.wait_until_ready() for worker in self._workers)
        except BaseException:
            self.close()
            raise
        for worker in self._workers:
            self._free.put(worker)

    def stream(self, blocks: Iterable[Pictures], output: Output) -> Iterator[Float32]:
        """Compute blocks of pictures (n, Y, X, 3) in their order; several streams share the processes."""
        waiting: deque[Future[Float32]] = deque()
        with ThreadPoolExecutor(len(self._workers), "device") as pool:
            try:
                for block in blocks:
                    waiting.append(pool.submit(self._errand, block, output))
                    if len(waiting) > 2 * len(self._workers):
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                close_reading(blocks)
                for future in waiting:
                    future.cancel()

    def _errand(self, pictures: Pictures, output: Output) -> Float32:
        """Have a block computed by a process that is free."""
        worker = self._free.get()
        try:
            return worker.compute(pictures, output)
        finally:
            self._free.put(worker)

    def release(self) -> None:
        """Have each process give back what only the job needed; one that is busy with another job keeps it."""
        for _ in self._workers:
            with suppress(queue.Empty):
                worker = self._free.get_nowait()
                try:
                    worker.release()
                finally:
                    self._free.put(worker)

    def close(self) -> None:
        """End the processes."""
        self._end()


def _end_all(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.end()


class _Worker:
    """One process: its pipes, the folder of its two files and what it said on its way out."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.device = str(job["device"])
        roomy = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > ROOM
        self._folder = tempfile.TemporaryDirectory(prefix="napari-dinobloom-", dir=SHARED_MEMORY if roomy else None)
        said = Path(self._folder.name) / "errors"
        self._said = said.open("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            # Without -P the folder one happens to be in could put a module in the place of a library's.
            [sys.executable, "-P", "-m", "napari_dinobloom.encoders.compute.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            encoding="utf-8",
        )
        self._send({**job, "folder": self._folder.name})

    def wait_until_ready(self) -> int:
        """Wait until the network is loaded; gives the pictures that it likes at a time."""
        return int(self._answer()["block"])

    def compute(self, pictures: Pictures, output: Output) -> Float32:
        """Send pictures, wait for their results."""
        with disk_errors(Path(self._folder.name)):
            np.ascontiguousarray(pictures).tofile(Path(self._folder.name) / "pictures")
        self._send({"shape": list(pictures.shape), "output": output})
        shape = tuple(self._answer()["shape"])
        return np.fromfile(Path(self._folder.name) / "results", np.float32).reshape(shape)

    def release(self) -> None:
        """Have it give back what only a job needed."""
        self._send({"release": True})
        self._answer()

    def _send(self, message: Mapping[str, Any]) -> None:
        pipe: IO[str] | None = self._process.stdin
        with suppress(OSError):  # it has ended; `_answer` says how
            if pipe is not None:
                pipe.write(json.dumps(message) + "\n")
                pipe.flush()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            code = self._process.wait()
            self._said.seek(0)
            last = self._said.read().strip().splitlines()[-3:]
            raise EncoderError(
                f"The process that computed on {self.device} ended with code {code}. {' '.join(last)} "
                "Load the encoder again, perhaps on fewer devices."
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EncoderError(f"{self.device}: {answer['error']}")
        return answer

    def end(self) -> None:
        """Close the pipe, which ends the process, and remove its files."""
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._said.close()
        self._folder.cleanup()
