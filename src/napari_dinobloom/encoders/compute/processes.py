"""Several devices, one process each: blocks of pictures go to whichever is free, results come back in order.

A process is this package's own ``python -m``, not a fork and not `multiprocessing`: it starts the same from a script
without a main guard, from a notebook and from napari. Pictures and results lie in two files per process, mapped by
both sides (in shared memory where the system has it); one line of JSON each way says what lies there. Nothing is
pickled.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from napari_dinobloom.encoders.compute.base import Float32, Output, Pictures
from napari_dinobloom.errors import EncoderError

SHARED_MEMORY = Path("/dev/shm")


class ProcessCompute:
    """One network in each of several processes.

    Parameters
    ----------
    jobs : sequence of mapping
        For each process the keyword arguments of `encoder.load_encoder`, plain values, and ``threads``.
    block : int, default: 64
        Pictures per errand. Errands are fixed ranges of pictures, whatever the number of processes.

    Raises
    ------
    EncoderError
        Where a process does not start; the message is its own.
    """

    def __init__(self, jobs: Iterable[Mapping[str, Any]], block: int = 64) -> None:
        self.block = block
        self._workers = [_Worker(job) for job in jobs]
        try:
            for worker in self._workers:
                worker.wait_until_ready()
        except BaseException:
            self.close()
            raise

    def stream(self, blocks: Iterable[Pictures], output: Output) -> Iterator[Float32]:
        """Compute blocks of pictures (n, Y, X, 3) in their order."""
        free: queue.Queue[_Worker] = queue.Queue()
        for worker in self._workers:
            free.put(worker)

        def errand(pictures: Pictures) -> Float32:
            worker = free.get()
            try:
                return worker.compute(pictures, output)
            finally:
                free.put(worker)

        waiting: deque[Future[Float32]] = deque()
        with ThreadPoolExecutor(len(self._workers), "device") as pool:
            try:
                for block in blocks:
                    waiting.append(pool.submit(errand, block))
                    if len(waiting) > 2 * len(self._workers):
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.end()


class _Worker:
    """One process: its pipes, its two mapped files and what it said on its way out."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.device = str(job["device"])
        place = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        self._folder = tempfile.TemporaryDirectory(prefix="napari-dinobloom-", dir=place)
        self._said = open(Path(self._folder.name) / "errors", "w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - until `end`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "napari_dinobloom.encoders.compute.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            encoding="utf-8",
        )
        self._send({**job, "folder": self._folder.name})

    def wait_until_ready(self) -> None:
        """Wait until the network is loaded."""
        self._answer()

    def compute(self, pictures: Pictures, output: Output) -> Float32:
        """Send pictures, wait for their results."""
        path = Path(self._folder.name) / "pictures"
        shared = np.memmap(path, np.uint8, "w+", shape=pictures.shape)
        shared[:] = pictures
        shared.flush()
        self._send({"shape": list(pictures.shape), "output": output})
        shape = tuple(self._answer()["shape"])
        return np.fromfile(Path(self._folder.name) / "results", np.float32).reshape(shape)

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
                "Finished blocks are kept; run again, or on fewer devices."
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
