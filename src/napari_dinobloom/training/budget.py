"""What a training takes: parameters, memory and time, reckoned before anything is started."""

from __future__ import annotations

from napari_dinobloom.encoders.architecture import ARCHITECTURES
from napari_dinobloom.training.batches import share_evenly
from napari_dinobloom.training.begin import strategy_of
from napari_dinobloom.training.config import Config
from napari_dinobloom.training.masking import most_masked

STATE_BYTES = 20
"""Per parameter in float32: student, its gradient, two moments of AdamW, teacher."""

RATES = {"S": 2000.0, "B": 700.0, "L": 220.0, "G": 55.0}
"""Pictures per second that one H100 should train with two crops of 224 px, from 40 % of its bf16 rate; not measured."""

SAVED = {False: 20.05, True: 22.7}
"""Tensors of (tokens, D) in bf16 that a block keeps for its backward pass, without and with SwiGLU."""

MATRICES = 3
"""Of scores of prototypes in float32 that are in memory together: assignment, student's scores, their gradient."""

COPY_BYTES = 2
"""Per parameter of the student's backbone: autocast's copy in bf16, which lives until the backward pass."""


def budget(config: Config, processes: int) -> str:
    """Describe a training on a number of processes in a few lines.

    Parameters
    ----------
    config : Config
        The training.
    processes : int
        Cards, each with a process.
    """
    if processes < 1:
        raise ValueError(f"{processes} processes: give 1 or more.")
    share_evenly(config, processes)
    arch, heads = ARCHITECTURES[config.model.size], config.heads
    backbone = arch.parameters(16) + arch.dim
    in_heads = sum(
        arch.dim * heads.hidden + heads.hidden**2 + heads.hidden * width + 2 * heads.hidden + width
        + heads.prototypes * (width + 1)
        for width in (heads.bottleneck, 256)
    )  # fmt: skip
    parameters = backbone + in_heads
    sharded = processes if strategy_of(config, processes) == "fsdp" else 1
    state = STATE_BYTES * parameters / sharded
    crops = 2 * config.batch.group
    blocks = 2 if config.run.checkpointing else SAVED[arch.swiglu]
    activations = crops * 257 * arch.dim * 2 * blocks * arch.depth + COPY_BYTES * backbone
    rows = crops + most_masked(config.batch.group, 16, probability=config.masks.probability, ratio=config.masks.ratio)
    scores = MATRICES * rows * heads.prototypes * 4
    rate = RATES.get(config.model.size)
    pictures = config.last * config.batch.total
    time = f"{pictures / rate / processes / 3600:.1f} h at {rate:g} pictures/s and card" if rate else "not reckoned"
    lines = [
        f"{config.model.size}: {backbone / 1e6:.1f} M parameters, {in_heads / 1e6:.1f} M in the heads",
        f"batch {config.batch.total} = {config.batch.total // config.batch.group} groups of {config.batch.group}",
        f"per card: state {state / 2**30:.1f} GiB, activations {activations / 2**30:.1f} GiB, "
        f"scores {scores / 2**30:.1f} GiB",
        f"{config.last:,} iterations, {pictures:,} pictures: {time} (reckoned, not measured)",
    ]
    return "\n".join(lines)
