"""How many cells a second this machine embeds, measured with random weights, which need no file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_dinobloom.encoders.compute.base import Pictures
from napari_dinobloom.encoders.device import Precision, bf16_gains, resolve_device
from napari_dinobloom.encoders.registry import find

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Speed:
    """One measurement: encoder, torch device, number format and cells per second."""

    encoder: str
    device: str
    precision: Precision
    per_second: float


def measure_speed(encoder: str = "DinoBloom-S", device: str = "auto", seconds: float = 4.0) -> list[Speed]:
    """Embed generated pictures for a while, in float32 and, where the device gains from it, in bf16.

    Parameters
    ----------
    encoder : str, default: "DinoBloom-S"
        Registry name of a vision transformer; only its size matters.
    device : str, default: "auto"
        As for `load_encoder`.
    seconds : float, default: 4
        Time for each number format, without that for loading.

    Returns
    -------
    list of Speed
        float32 first.
    """
    chosen = resolve_device(device)
    precisions: list[Precision] = ["float32", "bf16"] if bf16_gains(chosen) else ["float32"]
    return [
        Speed(encoder, str(chosen), precision, _rate(encoder, chosen, precision, seconds)) for precision in precisions
    ]


def _rate(encoder: str, device: torch.device, precision: Precision, seconds: float) -> float:
    """Cells per second, counted from the second block on."""
    import torch

    from napari_dinobloom.encoders.build import Loaded
    from napari_dinobloom.encoders.encoder import place
    from napari_dinobloom.encoders.networks.make import empty

    spec = find(encoder)
    with torch.random.fork_rng(devices=[]):
        backbone = empty(spec.architecture, spec.grid).to_empty(device="cpu").requires_grad_(False).eval()
        for value in backbone.state_dict().values():
            value.normal_(std=0.02)
    compute = place(Loaded(spec, "", backbone), device, precision)
    picture = np.random.default_rng(0).integers(0, 256, (compute.block, 224, 224, 3), np.uint8)
    ends: list[float] = []

    def blocks() -> Iterator[Pictures]:
        while len(ends) < 3 or ends[-1] - ends[0] < seconds:
            yield picture

    for _ in compute.stream(blocks(), "pooled"):
        ends.append(time.perf_counter())
    compute.close()
    return (len(ends) - 1) * len(picture) / (ends[-1] - ends[0])
