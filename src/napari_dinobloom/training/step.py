"""One step over all groups of all processes: losses, gradients, clip, guard, optimiser, teacher."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from napari_dinobloom.training.distillation import Group, Losses, SelfDistillation
from napari_dinobloom.training.optimiser import apply_schedule, clip_gradients
from napari_dinobloom.training.parallel import World, gradients
from napari_dinobloom.training.schedules import Values


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step gave, the same in all processes.

    Attributes
    ----------
    losses : dict of str to float
        "dino", "ibot", "koleo", each with its weight, and their sum "total".
    norms : dict of str to float
        Gradient norms before clipping of "backbone", "dino_head", "ibot_head".
    skipped : bool
        Whether a number was not finite: then neither student, optimiser nor teacher changed.
    """

    losses: dict[str, float]
    norms: dict[str, float]
    skipped: bool


def run_step(
    model: SelfDistillation,
    optimiser: torch.optim.Optimizer,
    groups: Sequence[Group],
    values: Values,
    world: World,
) -> StepResult:
    """Train one step on groups of pictures, one micro-batch each.

    The teacher sees all groups first, as Sinkhorn-Knopp balances all of them; of what it says only bottlenecks stay in
    memory. Gradients of the groups add up and are exchanged with the last one.

    Parameters
    ----------
    model : SelfDistillation
        After `parallelize`.
    optimiser : Optimizer
        From `make_optimiser`.
    groups : sequence of Group
        This process's; each process has the same number, at least one.
    values : Values
        What the schedules say at this iteration.
    world : World
        The processes.

    Returns
    -------
    StepResult
    """
    apply_schedule(optimiser, values)
    optimiser.zero_grad(set_to_none=True)
    targets = model.targets(groups, values.teacher_temperature)
    shares = []
    for number, group in enumerate(groups):
        with gradients(model, summed=number == len(groups) - 1):
            losses = model.losses(group, targets, number)
            (losses.total * world.size).backward()
        shares.append(torch.stack(losses).detach())
    norms = clip_gradients(model.student.parts())
    found = _over_processes(torch.stack(shares).sum(dim=0), torch.stack(list(norms.values())), world)
    skipped = not all(map(math.isfinite, found))
    if not skipped:
        optimiser.step()
        model.update_teacher(values.momentum)
    optimiser.zero_grad(set_to_none=True)
    terms = len(Losses._fields)
    return StepResult(
        dict(zip(Losses._fields, found[:terms], strict=True)), dict(zip(norms, found[terms:], strict=True)), skipped
    )


def _over_processes(losses: Tensor, norms: Tensor, world: World) -> list[float]:
    """Sum losses over processes, in one message with the norms, which are the same everywhere.

    A number that is not finite anywhere is so in the sum, and hence everywhere.
    """
    found = torch.cat([losses, norms / world.size])
    if world.group is not None:
        dist.all_reduce(found, group=world.group)
    return [float(value) for value in found.tolist()]
