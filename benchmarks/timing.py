"""Times of a window: of tasks, of methods, of our own Python within others, and between turns of the event loop."""

from __future__ import annotations

import functools
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

Times = list[tuple[float, float]]
"""Milliseconds on the clock and of this thread's processor time."""


def spent(task: Callable[[], Any]) -> tuple[float, float]:
    """Milliseconds of a task."""
    clock, processor = time.perf_counter(), time.thread_time()
    task()
    return 1000 * (time.perf_counter() - clock), 1000 * (time.thread_time() - processor)


def figures(times: Times) -> dict[str, float]:
    """Median and worst on the clock, median of the processor."""
    clock, processor = np.array(times).T
    found = {"median": np.median(clock), "worst": clock.max(), "processor": np.median(processor)}
    return {**{name: round(float(value), 2) for name, value in found.items()}, "runs": len(times)}


def turn() -> None:
    """Let Qt do what it has to do now, draws included."""
    QApplication.processEvents()


def rest(seconds: float) -> None:
    """Let the window live for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        turn()
        time.sleep(0.002)


class Stopwatch:
    """Takes the times of methods, given by class and name; make it before the objects are.

    Attributes
    ----------
    times : dict
        Of each part, one a call.
    ended : float
        When the last of them ended, as `time.perf_counter` has it.
    """

    def __init__(self, parts: Mapping[str, tuple[type, str]]) -> None:
        self.times: dict[str, Times] = defaultdict(list)
        self.ended = 0.0
        for name, (owner, method) in parts.items():
            setattr(owner, method, self._timed(name, getattr(owner, method)))

    def _timed(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def timed(*given: Any, **named: Any) -> Any:
            clock, processor = time.perf_counter(), time.thread_time()
            try:
                return method(*given, **named)
            finally:
                self.ended = time.perf_counter()
                took = 1000 * (self.ended - clock), 1000 * (time.thread_time() - processor)
                self.times[name].append(took)

        return timed

    def sums(self) -> dict[str, tuple[float, float]]:
        """Sum of each part since the last time this was asked."""
        found = {name: tuple(np.sum(times, axis=0).tolist()) for name, times in self.times.items()}
        self.times.clear()
        return found  # type: ignore[return-value]


class Ours:
    """Time spent in our own functions, with all that they call, and how often each is entered, while it is on."""

    def __init__(self) -> None:
        self.seconds, self.calls = 0.0, Counter[str]()
        self._depth, self._begun = 0, 0.0

    def __enter__(self) -> Ours:
        sys.setprofile(self._on)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _on(self, frame: FrameType, event: str, _given: object) -> None:
        code = frame.f_code
        if "napari_dinobloom" not in code.co_filename or event not in ("call", "return"):
            return
        if event == "call":
            self.calls[f"{Path(code.co_filename).stem}.{code.co_qualname}"] += 1
            self._depth += 1
            if self._depth == 1:
                self._begun = time.perf_counter()
            return
        self._depth -= 1
        if self._depth == 0:
            self.seconds += time.perf_counter() - self._begun


def stall(session: Any, begin: Callable[[], Any], drawn: Times, seconds: float = 600) -> dict[str, float]:
    """Longest time between two ticks of a timer of 5 ms while a job of the session is under way.

    Parameters
    ----------
    session : Session
        Its `job` tells when the job has ended.
    begin : callable
        Begins it, in the background.
    drawn : list of (float, float)
        Begin and end of each draw of the map, in seconds; emptied here, and filled by whoever draws.
    """
    ticks, timer = [time.perf_counter()], QTimer()
    timer.setInterval(5)
    timer.timeout.connect(lambda: ticks.append(time.perf_counter()))
    drawn.clear()
    timer.start()
    begin()
    if session.job is None:
        raise RuntimeError("the job did not begin, or was over at once")
    while session.job is not None and time.perf_counter() - ticks[0] < seconds:
        turn()
        time.sleep(0.001)
    timer.stop()
    ticks.append(time.perf_counter())
    beside = [
        later - tick - sum(max(0.0, min(later, end) - max(tick, start)) for start, end in drawn)
        for tick, later in pairwise(ticks)
    ]
    return {
        "seconds": round(ticks[-1] - ticks[0], 2),
        "longest": round(1000 * max(later - tick for tick, later in pairwise(ticks)), 1),
        "longest, after seconds": round(max(pairwise(ticks), key=lambda pair: pair[1] - pair[0])[0] - ticks[0], 2),
        "beside draws of the map": round(1000 * max(beside), 1),
    }
