"""Toy trainings in float64, in one process or in several that gloo connects, and jobs for these."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch._dynamo.utils import counters

from napari_dinobloom.encoders.architecture import Architecture
from napari_dinobloom.errors import InputError
from napari_dinobloom.training import losses, parallel
from napari_dinobloom.training.checkpoint import Checkpoints, Restored, load
from napari_dinobloom.training.distillation import Group, LossWeights, MaskedTransformer, Network, SelfDistillation
from napari_dinobloom.training.heads import DINOHead
from napari_dinobloom.training.optimiser import make_optimiser
from napari_dinobloom.training.parallel import World, agree, check_alike, parallelize
from napari_dinobloom.training.schedules import Values
from napari_dinobloom.training.step import StepResult, run_step

GROUPS = 4
"""Groups of a step over all processes, of three pictures each."""


def values(iteration: int) -> Values:
    """A full learning rate from the first step; nothing frozen."""
    return Values(1e-3, 1e-3, 0.04, 0.9, 0.05 + 0.0002 * iteration)


def toy(width: int = 16) -> SelfDistillation:
    """The same network each time; its sizes divide by neither 2 nor 4 everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        backbone = MaskedTransformer(Architecture("toy", width, 2, 2, 24, patch_size=2), 3)
        for parameter in backbone.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        network = Network(backbone, DINOHead(width, 6, 22, 10), DINOHead(width, 6, 22, 10))
    return SelfDistillation(network.double(), LossWeights(local=0.5))


def groups(iteration: int, rank: int = 0, size: int = 1, rows: int | None = None) -> list[Group]:
    """This process's share of a step's groups."""
    made = []
    for number in range(rank * GROUPS // size, (rank + 1) * GROUPS // size):
        random = torch.Generator().manual_seed(1000 * iteration + number)
        crops = torch.randn(6, 3, 6, 6, generator=random, dtype=torch.float64)
        masks = torch.rand(6, 9, generator=random) < 0.4
        masks[number % 6] = False
        local = torch.randn(6, 3, 4, 4, generator=random, dtype=torch.float64)
        made.append(Group(crops, masks, rows, local))
    return made


def set_up(world: World, strategy: str = "none", **options: Any) -> tuple[SelfDistillation, torch.optim.AdamW]:
    model = toy()
    parallelize(model, world, strategy, **options)
    return model, make_optimiser(model.student)


def train(
    world: World, model: SelfDistillation, optimiser: torch.optim.AdamW, steps: range, leave_out: str = ""
) -> list[StepResult]:
    """Train some steps; `leave_out` names what a mutant leaves out."""
    results = []
    for step in steps:
        mine = groups(step, world.rank, world.size)
        if leave_out == "group" and world.rank == world.size - 1:
            mine = [mine[0]] * len(mine)
        results.append(run_step(model, optimiser, mine, values(step), world))
    return results


def whole(model: SelfDistillation) -> dict[str, torch.Tensor]:
    """All tensors of student and teacher, as one process has them."""
    named = {f"{who}.{k}": v for who in ("student", "teacher") for k, v in getattr(model, who).state_dict().items()}
    return {name: (v.full_tensor() if hasattr(v, "full_tensor") else v).clone() for name, v in named.items()}


class Train:
    """A job that can be sent to another process."""

    def __init__(self, strategy: str, steps: int, leave_out: str = "") -> None:
        self.strategy, self.steps, self.leave_out = strategy, steps, leave_out

    def __call__(self, world: World) -> tuple[list[StepResult], dict[str, torch.Tensor]]:
        model, optimiser = set_up(world, self.strategy)
        silent = mock.Mock(wraps=torch.distributed)
        silent.all_reduce = lambda *_, **__: None
        if self.leave_out == "sinkhorn":
            patch: Any = mock.patch.object(losses, "dist", silent)
        elif self.leave_out == "gradients":
            never = parallel.gradients
            patch = mock.patch(
                "napari_dinobloom.training.step.gradients", lambda model, summed: never(model, summed=False)
            )
        else:
            patch = mock.patch.object(losses, "dist", losses.dist)
        with patch:
            results = train(world, model, optimiser, range(self.steps), self.leave_out)
        return results, whole(model)


class Save:
    """Train three steps, save, and train on while it is being written."""

    def __init__(self, folder: Path, strategy: str) -> None:
        self.folder, self.strategy = folder, strategy

    def __call__(self, world: World) -> dict[str, torch.Tensor]:
        model, optimiser = set_up(world, self.strategy)
        train(world, model, optimiser, range(3))
        checkpoints = Checkpoints(self.folder, world)
        checkpoints.save(model, optimiser, 3, {"seed": 5})
        train(world, model, optimiser, range(3, 6))
        checkpoints.finish()
        assert checkpoints.latest() == self.folder / "iteration-00000003"
        return whole(model)


class Resume(Save):
    """Go on with what `Save` left, three steps."""

    def __call__(self, world: World) -> dict[str, torch.Tensor]:
        model, optimiser = set_up(world, self.strategy)
        path = Checkpoints(self.folder, world).latest()
        assert path is not None
        assert load(path, model, optimiser, world) == Restored(3, {"seed": 5})
        train(world, model, optimiser, range(3, 6))
        return whole(model)


class Agreement:
    """What each process hears when only the last has the flag up, and when none has."""

    def __call__(self, world: World) -> tuple[bool, bool]:
        return agree(world, world.rank == world.size - 1), agree(world, False)


class Death:
    """One process is killed between two steps, as by a system that has no memory left."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def __call__(self, world: World) -> None:
        model, optimiser = set_up(world, "ddp")
        train(world, model, optimiser, range(2))
        if world.rank == self.rank:
            os.kill(os.getpid(), signal.SIGKILL)
        train(world, model, optimiser, range(2, 4))


class Compiled:
    """Two steps with compiled blocks and a fixed number of masked rows; beside them the same without compiling."""

    def __init__(self, strategy: str, **options: Any) -> None:
        self.strategy, self.options = strategy, options

    def __call__(self, world: World) -> tuple[list[StepResult], list[StepResult], int]:
        found, graphs = [], 0
        counters.clear()
        for compile in (True, False):
            with mock.patch.object(torch, "compile", partial(torch.compile, backend="eager")):
                model = toy()
                if self.options.get("bf16"):
                    model.student.float()
                    model.teacher.float()
                parallelize(model, world, self.strategy, compile=compile, **self.options)
            optimiser = make_optimiser(model.student)
            results = []
            for step in range(2):
                mine = groups(step, world.rank, world.size, rows=40)
                if self.options.get("bf16"):
                    mine = [
                        Group(g.crops.float(), g.masks, g.rows, g.local.float()) for g in mine if g.local is not None
                    ]
                results.append(run_step(model, optimiser, mine, values(step), world))
            found.append(results)
            graphs = graphs or counters["stats"]["unique_graphs"]
        return found[0], found[1], graphs


class Alike:
    """Whether processes with the same and with other facts are told."""

    def __call__(self, world: World) -> str:
        check_alike(world, store="one")
        try:
            check_alike(world, store=f"of {world.rank}")
        except InputError as error:
            return str(error)
        return ""


class Failure:
    """The last process fails while the others wait for it."""

    def __call__(self, world: World) -> None:
        if world.rank == world.size - 1:
            raise ValueError("picture 7 is broken")
        agree(world, False)


class WholeTraining:
    """`loop.train` from a configuration, with a release that takes longer to write than a step may, or an error."""

    SAID = "process 1 of 2: ValueError: picture 7 is broken"

    def __init__(self, out: Path, settings: list[str], what: str) -> None:
        self.out, self.settings, self.what = out, settings, what

    def __call__(self, world: World) -> str:
        from napari_dinobloom.encoders.architecture import ARCHITECTURES
        from napari_dinobloom.training import checkpoint, config, loop

        ARCHITECTURES["tiny"] = Architecture("tiny", 32, 2, 2, 64, layer_scale=False)
        write, step = checkpoint.write_release, loop.run_step
        steps: list[int] = []
        assert world.group is not None
        world.group.set_timeout(timedelta(seconds=2))

        def slowly(*given: Any) -> None:
            time.sleep(3)
            write(*given)

        def fail(*given: Any) -> StepResult:
            steps.append(1)
            if self.what == "error" and world.rank == 1 and len(steps) == 3:
                raise ValueError("picture 7 is broken")
            return step(*given)

        def save(self_: Checkpoints, *given: Any) -> None:
            time.sleep(1)
            commit(self_, *given)

        commit = Checkpoints._commit
        with (
            mock.patch.object(loop, "start", return_value=world),
            mock.patch.object(loop, "finish"),
            mock.patch.object(loop, "run_step", fail),
            mock.patch.object(Checkpoints, "_commit", save),
            mock.patch.object(checkpoint, "write_release", slowly if self.what == "slow export" else write),
        ):
            return loop.train(config.load("smoke", [*self.settings, f"run.out={self.out}"])).name


def spawn(size: int, folder: Path, *jobs: Callable[[World], Any]) -> list[list[Any]]:
    """Run jobs one after the other in several processes; what each process got for each job, or its error's text.

    Nothing for a process that was killed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    # DDP imports torch._dynamo, which takes seconds: once here in place of once in each process.
    context.set_forkserver_preload(["napari_dinobloom.training.checkpoint", "torch._dynamo", "spawned"])
    processes = [
        context.Process(target=_run, args=(rank, size, port, folder, jobs), daemon=True) for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode is not None, "a process hangs"
    files = [folder / f"{rank}.pt" for rank in range(size)]
    return [torch.load(file, weights_only=False) if file.exists() else [] for file in files]


def _run(rank: int, size: int, port: int, folder: Path, jobs: tuple[Callable[[World], Any], ...]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    found: list[Any] = []
    world = parallel.start("cpu")
    try:
        with parallel.together(world):
            for job in jobs:
                found.append(job(world))
    except Exception as error:
        traceback.print_exc()
        found.append(f"{type(error).__name__}: {error}")
    torch.save(found, folder / f"{rank}.pt")
    if not found or not isinstance(found[-1], str):
        parallel.finish(world)
