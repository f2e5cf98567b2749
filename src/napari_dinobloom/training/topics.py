"""The topics of a training's configuration, a dataclass each, with what cannot work refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from napari_dinobloom.errors import InputError
from napari_dinobloom.training.masking import PROBABILITY, RATIO, SMALLEST

REPORTED = ("test",)
"""Splits whose numbers are reported: no iteration is chosen on them."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Model:
    """The encoder that is trained."""

    size: Literal["S", "B", "L", "G", "tiny"] = "S"
    """Its architecture (`encoders.architecture`)."""
    start: str = ""
    """Name in the registry or a file of weights from which student and teacher start; empty: from scratch."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Data:
    """The pictures."""

    store: str = ""
    """Folder that ``prepare`` made."""
    generated: int = 0
    """Pictures to generate in place of a store, for trials."""
    seed: int = 0
    """Decides which pictures are drawn."""
    sampling: Literal["size", "balanced", "shuffle"] = "size"
    """``size``: drawn with replacement, each picture alike, as the reference does; ``balanced``: each data set alike;
    ``shuffle``: without replacement, all pictures once per epoch."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """How often data sets are drawn against each other, as in {bmc: 1, hehr: 2}; needs every name of the store, and
    takes the place of ``size`` and ``balanced``."""
    threads: int = 0
    """That decode the JPEGs of a store; 0 takes the processors that each process of this machine has."""
    block: int = 0
    """Pictures that lie together in a store on a slow disk and are drawn together; 0 draws each by itself."""

    def __post_init__(self) -> None:
        if self.store and self.generated:
            raise InputError("data.store and data.generated exclude each other: leave one out.")
        _at_least(0, self, "data", "generated", "block", "seed", "threads")
        if self.weights and self.sampling == "balanced":
            raise InputError("data.weights and data.sampling=balanced exclude each other: leave one out.")
        if self.weights and not (min(self.weights.values()) >= 0 and max(self.weights.values()) > 0):
            raise InputError(f"data.weights is {dict(self.weights)}; none may be below 0, and one must be above.")


@dataclass(kw_only=True, slots=True, frozen=True)
class Batch:
    """How many pictures make a step."""

    total: int = 1216
    """Pictures per iteration over all processes and micro-batches; Table 1 has 1216, 960, 448, 208 (S, B, L, G)."""
    group: int = 152
    """Pictures that share masks and KoLeo: the reference's batch of one card, 152, 120, 56, 26. A micro-batch."""

    def __post_init__(self) -> None:
        if self.group < 2:
            raise InputError(f"batch.group is {self.group}; KoLeo needs groups of 2 pictures or more.")
        if self.total < 1 or self.total % self.group:
            whole = max(1, round(self.total / self.group)) * self.group
            raise InputError(
                f"batch.total {self.total} is no whole number of groups of {self.group} pictures (batch.group); "
                f"the nearest is {whole}."
            )


@dataclass(kw_only=True, slots=True, frozen=True)
class Heads:
    """The two projection heads, of class tokens (DINO) and of masked patches (iBOT)."""

    prototypes: int = 65536
    """Of both."""
    bottleneck: int = 256
    """Of the DINO head; that of iBOT is always 256."""
    hidden: int = 2048
    """Width of the first two layers of both."""

    def __post_init__(self) -> None:
        _at_least(2, self, "heads", "prototypes", "bottleneck", "hidden")


@dataclass(kw_only=True, slots=True, frozen=True)
class Masks:
    """Blocks of patches that the student does not see."""

    probability: float = PROBABILITY
    """Share of the crops that are masked."""
    ratio: tuple[float, float] = RATIO
    """Least and largest share of a masked crop's patches."""

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise InputError(f"masks.probability is {self.probability}; use 0 to 1.")
        if not 0 <= self.ratio[0] <= self.ratio[1] < 1:
            raise InputError(f"masks.ratio is {list(self.ratio)}; use two shares that rise, from 0 to below 1.")
        if self.ratio[1] * 256 < SMALLEST:
            raise InputError(f"masks.ratio ends at {self.ratio[1]}: no block of {SMALLEST} of 256 patches has room.")


@dataclass(kw_only=True, slots=True, frozen=True)
class Evaluation:
    """The labelled pictures on which the teacher is measured while it learns; no numbers are reported on them."""

    labelled: str = ""
    """A CSV or a folder of class folders, as `predict.pictures.read_labelled` takes it; empty: nothing is measured."""
    split: str = ""
    """Rows of the CSV with this value of ``split``; empty takes all but those on which results are reported."""
    most: int = 5000
    """Pictures that are used, spread evenly over the table; each takes 150 kB of one process's memory."""
    score: Literal["knn_1", "knn_20", "probe", "rank_me"] = "knn_20"
    """What decides which checkpoint is the best."""
    patience: int = 0
    """Evaluations without a better score after which training stops; 0 never stops."""

    def __post_init__(self) -> None:
        if self.split in REPORTED:
            raise InputError(
                f"evaluation.split is {self.split!r}, on which results are reported: choosing the best iteration on "
                "it would flatter them. Use the split 'train'; a part of it is kept apart for this."
            )
        _at_least(0, self, "evaluation", "patience")
        _at_least(20, self, "evaluation", "most")


@dataclass(kw_only=True, slots=True, frozen=True)
class Run:
    """Where and how it runs; nothing here changes what is learned, save `seed`, `stop` and `precision`."""

    out: str = "training-run"
    """Folder of checkpoints, exports and metrics."""
    stop: int = 0
    """Iterations after which training stops; 0 goes to the end of the schedule."""
    export_every: int = 1000
    """Iterations between exports of the teacher; 0 exports at the end only."""
    checkpoint_every: int = 500
    """Iterations between checkpoints from which a run resumes."""
    keep: int = 3
    """Checkpoints that are kept, beside the best."""
    evaluate_every: int = 500
    """Iterations between evaluations, if there are labelled pictures; 0 never evaluates."""
    seed: int = 0
    """Of the heads' weights, augmentations and masks."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """``auto``: bf16 on a card that has it."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``; with torchrun each process takes the card of its local rank. No Apple cards."""
    strategy: Literal["auto", "none", "ddp", "fsdp"] = "auto"
    """``auto``: ``none`` for one process, else ``fsdp`` for G and ``ddp`` for the others."""
    compile: bool = False
    """Compile the blocks: worth it on cards, and in long runs."""
    checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third more time."""
    log_every: int = 10
    """Iterations that one line of the metrics averages."""
    wandb: str = ""
    """Project in Weights & Biases that gets the metrics too; empty sends nothing anywhere."""

    def __post_init__(self) -> None:
        _at_least(0, self, "run", "stop", "export_every", "evaluate_every", "seed")
        _at_least(1, self, "run", "checkpoint_every", "keep", "log_every")


def _at_least(least: int, topic: Any, name: str, *keys: str) -> None:
    """Refuse values of a topic that are too small."""
    for key in keys:
        value = getattr(topic, key)
        if value < least:
            raise InputError(f"{name}.{key} is {value}; it must be at least {least}.")
