"""What changes from iteration to iteration: learning rate, weight decay, teacher momentum and temperature."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


class Values(NamedTuple):
    """What holds at one iteration."""

    lr: float
    """Learning rate."""
    last_layer_lr: float
    """That of the heads' last layers, 0 while they are frozen."""
    weight_decay: float
    momentum: float
    """Share of the old teacher in the new one."""
    teacher_temperature: float


@dataclass(kw_only=True, slots=True, frozen=True)
class Schedules:
    """DinoBloom's schedules; the defaults are those of the published training.

    The published optimum (4,000 to 8,000 iterations) lies inside the warm-up of a schedule of 100,000.
    """

    batch: int
    """Pictures per iteration over all processes and micro-batches; Table 1 has 1216, 960, 448, 208 (S, B, L, G)."""
    iterations: int = 100_000
    """Length of the schedule; training may stop before."""
    warmup: int = 10_000
    """Iterations of linear warm-up from 0."""
    freeze: int = 500
    """Iterations in which the heads' last layers keep the learning rate 0."""
    temperature_warmup: int = 15_000
    """Iterations in which the teacher temperature rises."""
    base_lr: float = 2e-4
    """Learning rate for a batch of 1024; it goes with the square root of the batch."""
    min_lr: float = 1e-6
    """Where the cosine ends."""
    weight_decay: tuple[float, float] = (0.04, 0.2)
    """From and to, by a cosine."""
    momentum: tuple[float, float] = (0.994, 1.0)
    """From and to, by a cosine."""
    teacher_temperature: tuple[float, float] = (0.04, 0.07)
    """From and to, by a line."""

    def __post_init__(self) -> None:
        if self.batch < 1 or self.iterations < 1:
            raise ValueError(f"batch {self.batch} and iterations {self.iterations} must be at least 1.")
        if not 0 <= self.warmup < self.iterations:
            raise ValueError(f"warmup {self.warmup} must lie in 0..{self.iterations - 1}, below the iterations.")
        if min(self.teacher_temperature) <= 0:
            raise ValueError(f"teacher_temperature {self.teacher_temperature} must be above 0.")

    @property
    def peak_lr(self) -> float:
        """Learning rate at the end of the warm-up."""
        return self.base_lr * math.sqrt(self.batch / 1024)

    def at(self, iteration: int) -> Values:
        """Give all values at an iteration, counted from 0; after the schedule's end those of its end hold."""
        if iteration < self.warmup:
            lr = _line(0.0, self.peak_lr, iteration, self.warmup)
        else:
            lr = _cosine(self.peak_lr, self.min_lr, iteration - self.warmup, self.iterations - self.warmup)
        temperature = self.teacher_temperature[1]
        if iteration < self.temperature_warmup:
            temperature = _line(*self.teacher_temperature, iteration, self.temperature_warmup)
        return Values(
            lr=lr,
            last_layer_lr=0.0 if iteration < self.freeze else lr,
            weight_decay=_cosine(*self.weight_decay, iteration, self.iterations),
            momentum=_cosine(*self.momentum, iteration, self.iterations),
            teacher_temperature=temperature,
        )


def _line(start: float, end: float, step: int, steps: int) -> float:
    """Step `step` of `steps` on a line that reaches `end` at its last step, as ``numpy.linspace`` does."""
    return start + (end - start) * step / max(steps - 1, 1)


def _cosine(start: float, end: float, step: int, steps: int) -> float:
    """Half a cosine from `start`; its last step lies just before `end`, which holds afterwards."""
    if step >= steps:
        return end
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * step / steps))
