"""Processes that train together: how they find each other, share a network, agree, and end.

One process, or those that torchrun started. DDP keeps the whole network on each, FSDP2 (`fully_shard`) a part of
each tensor. In both the average of gradients over processes is taken; `step` scales losses so that it is their sum.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Literal, Self, cast

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from napari_dinobloom.encoders.device import resolve_device
from napari_dinobloom.errors import DinoBloomError, InputError
from napari_dinobloom.training import products
from napari_dinobloom.training.distillation import Network, SelfDistillation

Strategy = Literal["none", "ddp", "fsdp"]

FAILED = "failed"

LOST = ("gloo", "NCCL", "Connection closed", "Connection reset", "Timed out")
"""What torch's errors say where another process is no longer there."""

GO_ON = "The same command goes on from the last checkpoint."


class ProcessError(DinoBloomError):
    """A process of a training ended and took the others with it."""


@dataclass(frozen=True, slots=True)
class World:
    """The processes of a training, seen from one of them.

    Attributes
    ----------
    rank, size, local_rank : int
        Which of how many processes this is, and which of its machine.
    device : torch.device
        Where this process computes.
    group : ProcessGroup or None
        All processes, for a step; None for one process.
    side : ProcessGroup or None
        The same processes over gloo, for what runs beside the steps in another thread (checkpoints).
    store : Store or None
        Where a process leaves its error for the others.
    """

    rank: int
    size: int
    local_rank: int
    device: torch.device
    group: dist.ProcessGroup | None = None
    side: dist.ProcessGroup | None = None
    store: Store | None = None


def start(device: str = "auto", patience: float = 45.0) -> World:
    """Join the processes that torchrun started, or begin alone.

    Parameters
    ----------
    device : str, default: "auto"
        As for `load_encoder`, but Apple's cards are passed over. Several processes take the graphics card of their
        local rank each.
    patience : float, default: 45
        Seconds after which a process that waits for the others in a step gives up. Whatever only one process has to
        do (writing an export) therefore belongs in the background.

    Returns
    -------
    World

    Raises
    ------
    EncoderError
        No such device.
    """
    size, local_rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    where = resolve_device(device)
    if where.type == "mps":
        where = torch.device("cpu")  # Apple's cards have no float64, and neither nccl nor gloo sends what lies there
    if where.type == "cuda":
        if size > 1 or ":" not in str(where):
            where = resolve_device(f"cuda:{local_rank}")
        torch.cuda.set_device(where)
    if "RANK" not in os.environ:
        return World(0, 1, 0, where)
    store, rank, size = next(rendezvous("env://"))
    dist.init_process_group(
        "nccl" if where.type == "cuda" else "gloo",
        store=PrefixStore("training", store),
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=patience),
        device_id=where if where.type == "cuda" else None,
    )
    group = cast(dist.ProcessGroup, dist.group.WORLD)
    side = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=timedelta(minutes=20)))
    return World(rank, size, local_rank, where, group, side, PrefixStore("errors", store))


def finish(world: World) -> None:
    """Leave the other processes; nothing is sent afterwards."""
    if world.group is not None:
        dist.destroy_process_group()


@contextmanager
def together(world: World) -> Iterator[None]:
    """Run the body of a training: when one process fails, the others end with its error in place of a lost connection.

    Raises
    ------
    ProcessError
        In the other processes; the one that failed raises its own error. In all that are left, where one was killed
        and could say nothing.
    """
    try:
        yield
    except Exception as error:
        lost = world.group is not None and isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST)
        said = "lost another one, which was killed or hangs" if lost else f"{type(error).__name__}: {error}"
        mine = f"process {world.rank} of {world.size}: {said}"
        first = mine if world.store is None else _first_error(world.store, mine)
        if first == mine and not lost:
            raise
        raise ProcessError(f"The training ended because of {first}. {GO_ON}") from error


def _first_error(store: Store, mine: str) -> str:
    """Leave an error for the others, unless one is there; give the first."""
    try:
        return bytes(store.compare_set(FAILED, "", mine)).decode()
    except (dist.DistError, RuntimeError):
        return "process 0, which can no longer be reached: it was killed, or says why in its own output"


def check_alike(world: World, **facts: str) -> None:
    """Raise InputError in all processes where one of them begins with something else than the first.

    Parameters
    ----------
    world : World
        The processes; all have to call.
    facts : str
        What must be the same everywhere, by name.
    """
    if world.side is None:
        return
    everyone: list[dict[str, str]] = [facts] * world.size
    dist.all_gather_object(everyone, facts, group=world.side)
    for rank, theirs in enumerate(everyone):
        for name, value in everyone[0].items():
            if theirs[name] != value:
                raise InputError(
                    f"Process {rank} has another {name.replace('_', ' ')} than process 0: {theirs[name]} and {value}. "
                    "Give all the same files and settings; on a shared disk, wait until all machines see the same."
                )


def agree(world: World, flag: bool) -> bool:
    """Say whether any process has the flag up; all of them have to ask."""
    if world.group is None:
        return flag
    up = torch.tensor(int(flag), device=world.device)
    dist.all_reduce(up, dist.ReduceOp.MAX, group=world.group)
    return bool(up)


class StopSignal:
    """Takes note of SIGTERM, which a cluster sends before it kills, so that a training can save and end by itself.

    A context; `seen` says whether the signal came. Ask for it with `agree`, so that all processes stop alike.
    """

    def __init__(self, *signals: signal.Signals) -> None:
        self.seen = False
        self._before: dict[signal.Signals, Any] = dict.fromkeys(signals or (signal.SIGTERM,))

    def __enter__(self) -> Self:
        for number in self._before:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.seen = True


def parallelize(
    model: SelfDistillation,
    world: World,
    strategy: Strategy,
    *,
    compile: bool = False,
    checkpointing: bool = False,
    bf16: bool = False,
) -> None:
    """Spread student and teacher over the processes; make the optimiser afterwards.

    Key names stay as they are. Recomputation stands outside the compiled block, sharding outside both.

    Parameters
    ----------
    model : SelfDistillation
        On `world`'s device, the same in all processes (weights from the same file and seed). Changed in place.
    world : World
        The processes.
    strategy : {"none", "ddp", "fsdp"}
        "ddp" and "fsdp" mean "none" where there is one process without a group.
    compile : bool
        Compile each block; the blocks of a network share one compilation.
    checkpointing : bool
        Recompute the student's blocks in the backward pass, in place of keeping what they computed.
    bf16 : bool
        Compute in bf16, with weights, sums of gradients, scores of prototypes and losses in float32.

    Raises
    ------
    ValueError
        Several processes with the strategy "none".
    """
    if strategy == "none" and world.size > 1:
        raise ValueError(f"{world.size} processes need the strategy 'ddp' or 'fsdp'; 'none' is for one.")
    model.group = world.group
    sharded = strategy == "fsdp" and world.group is not None
    for network in (model.student, model.teacher):
        if not (bf16 or compile or sharded):
            products.use_in(network)
        for block in network.backbone.blocks:
            if compile:
                block.forward = torch.compile(block.forward, dynamic=False)
            if checkpointing and network is model.student:
                block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
        if bf16:
            network.autocast = None if sharded else torch.bfloat16
            network.dino_head.last_layer.factors = network.ibot_head.last_layer.factors = torch.bfloat16
        if sharded:
            _shard(network, world, bf16)
    if strategy == "ddp" and world.group is not None:
        model.trained = DistributedDataParallel(model.student, process_group=world.group, gradient_as_bucket_view=True)


def _shard(network: Network, world: World, bf16: bool) -> None:
    """Shard a network block by block; heads in two units each, since their last layers are called by themselves."""
    mesh = init_device_mesh(world.device.type, (world.size,))
    exact = MixedPrecisionPolicy(cast_forward_inputs=False)
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if bf16 else exact
    backbone, heads = network.backbone, (network.dino_head, network.ibot_head)
    for unit in (*backbone.blocks, backbone, *(head.mlp for head in heads)):
        # Also at the root: the teacher has no backward pass after which it would be sharded again.
        fully_shard(unit, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
    for head in heads:
        fully_shard(head.last_layer, mesh=mesh, reshard_after_forward=True, mp_policy=exact)


@contextmanager
def gradients(model: SelfDistillation, *, summed: bool) -> Iterator[None]:
    """Say whether backward passes inside sum gradients over processes, those kept from earlier passes included."""
    if isinstance(model.trained, DistributedDataParallel) and not summed:
        with model.trained.no_sync():
            yield
        return
    for unit in model.student.modules():
        if isinstance(unit, FSDPModule):
            unit.set_requires_gradient_sync(summed, recurse=False)
    yield
