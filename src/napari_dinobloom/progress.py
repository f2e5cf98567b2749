"""Progress of a long step: what ``iter_*`` functions yield and how a plain call drains them."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """One report of a running step.

    Attributes
    ----------
    done : int
        Finished units, from 0 to `total`.
    total : int
        All units of the step; 0 where the step has nothing to do.
    message : str
        What the units are or what is going on, for people ("field BloodImage_00003").
    step : str
        Name of the step ("segment"); empty inside a single function.
    """

    done: int
    total: int
    message: str = ""
    step: str = ""


Steps = Generator[Progress, None, T]
"""Type of an ``iter_*`` function: yields `Progress`, returns the result."""


def drain(steps: Steps[T]) -> T:
    """Run an ``iter_*`` generator to its end and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
