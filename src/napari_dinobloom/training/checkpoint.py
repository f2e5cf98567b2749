"""Checkpoints of a training: written beside the steps, whole or not at all, read by any number of processes.

A checkpoint is a folder ``iteration-00001000`` of safetensors files (torch.distributed.checkpoint, each process its
share, no pickle) and ``state.json``, which names the best checkpoint, too. Tensors have the names ``student.*``,
``teacher.*``, ``exp_avg.*`` and ``exp_avg_sq.*``; how many processes wrote does not matter.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load as read_shares
from torch.distributed.checkpoint.state_dict_saver import save as write_shares
from torch.distributed.tensor import DTensor

from napari_dinobloom.encoders.checkpoint import TRAINING_HEADS, Checkpoint
from napari_dinobloom.encoders.containers import some
from napari_dinobloom.encoders.release import ReleaseShape, write_release
from napari_dinobloom.errors import EncoderError, StudyError
from napari_dinobloom.io.atomic import PART, disk_errors, sweep, sync_folder
from napari_dinobloom.training.distillation import SelfDistillation
from napari_dinobloom.training.parallel import World

NAME = "iteration-"
STATE = "state.json"
FORMAT = 1
MOMENTS = ("exp_avg", "exp_avg_sq")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Restored:
    """What a checkpoint says beside its tensors.

    Attributes
    ----------
    iteration : int
        Steps done; the next is step number `iteration`, counted from 0.
    extra : dict
        What `Checkpoints.save` was given.
    """

    iteration: int
    extra: dict[str, Any]


class Checkpoints:
    """The checkpoints and exports of one run, written in the background.

    Parameters
    ----------
    folder : Path
        Holds the checkpoints; seen by all processes. What a killed run left unfinished is removed.
    world : World
        The processes; each has its `Checkpoints` and makes the same calls.
    keep : int, default: 3
        Newest checkpoints that stay; the best one stays as well.
    """

    def __init__(self, folder: Path, world: World, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"keep {keep}: at least 1 checkpoint has to stay.")
        self.folder, self.world, self.keep = folder, world, keep
        self._under_way: list[Future[None]] = []
        self._missed = False
        if world.rank == 0:
            with disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                sweep(folder)
        if world.side is not None:
            dist.barrier(group=world.side)
        self._best = best.name if (best := self.best()) else ""

    def save(
        self,
        model: SelfDistillation,
        optimiser: torch.optim.Optimizer,
        iteration: int,
        extra: Mapping[str, Any] | None = None,
        *,
        best: bool = False,
    ) -> None:
        """Copy everything to the memory of the processor and write it in the background.

        Parameters
        ----------
        model, optimiser : SelfDistillation, Optimizer
            May change as soon as this returns.
        iteration : int
            Steps done.
        extra : mapping, optional
            What the loop wants back, for JSON.
        best : bool
            Whether this is the best so far, which stays until there is a better one.

        Raises
        ------
        StudyError
            In all processes, where the two saves before could not be written: one that fails is told in the log, and
            the next one may find the disk in order. What had been finished is untouched.
        """
        try:
            self.finish()
            self._missed = False
        except StudyError:
            if self._missed:
                raise
            self._missed = True
        if best:
            self._best = f"{NAME}{iteration:08d}"
        state = state_of(model, optimiser)
        about = {
            "format": FORMAT,
            "iteration": iteration,
            "steps": _steps(optimiser),
            "shapes": {name: list(tensor.shape) for name, tensor in state.items()},
            "best": self._best,
            "extra": dict(extra or {}),
        }
        text = json.dumps(about, allow_nan=False)
        stager = DefaultStager(StagingOptions(False, False, False, False))
        staged = cast(dict[str, Tensor], stager.stage(state))
        self._begin(self._write, staged, text, iteration)

    def export(self, model: SelfDistillation, path: Path, shape: ReleaseShape) -> None:
        """Write the teacher in a published shape in the background, heads included where the shape has room for them.

        All processes have to call; the first writes. Raises as `save` does, at the next call.
        """
        arch, grid = model.teacher.backbone.arch, model.teacher.backbone.grid
        full = {}
        for name, tensor in model.teacher.state_dict().items():
            whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if self.world.rank == 0:
                full[name] = whole.detach().to("cpu", torch.float32, copy=True)
        if self.world.rank:
            return
        heads = {name: tensor for name, tensor in full.items() if name.startswith(TRAINING_HEADS)}
        state = {name.removeprefix("backbone."): tensor for name, tensor in full.items() if name not in heads}
        mask_token = state.pop("mask_token")
        teacher = Checkpoint(path, "training", arch, grid, state, mask_token)
        self._begin(write_release, teacher, path, shape, heads)

    def finish(self) -> None:
        """Wait for what is being written, by all processes; all have to call.

        Raises
        ------
        StudyError
            In all processes, what went wrong in one.
        """
        under_way, self._under_way = self._under_way, []
        failed = [error for future in under_way if (error := future.exception()) is not None]
        if self.world.side is not None:
            down = torch.tensor(len(failed))
            dist.all_reduce(down, group=self.world.side)
            if down and not failed:
                failed = [StudyError(f"{self.folder.parent}: another process could not write; see its output.")]
        if failed:
            raise failed[0]

    def settle(self, seconds: float = 30) -> None:
        """Give what is being written a while to end, when this process is about to; whatever becomes of it."""
        wait(self._under_way, seconds)

    def _begin(self, write: Callable[..., object], *given: Any) -> None:
        """Write in the background, after what is being written.

        The thread ends with the process: it may wait for another one that no longer answers.
        """
        future: Future[None] = Future()
        before = list(self._under_way)

        def work() -> None:
            wait(before)
            try:
                write(*given)
            except BaseException as error:
                log.error("%s", error)  # at once: the loop asks much later
                future.set_exception(error)
            else:
                future.set_result(None)

        self._under_way.append(future)
        Thread(target=work, name="checkpoint", daemon=True).start()

    def latest(self) -> Path | None:
        """Give the newest whole checkpoint, or None."""
        done = _whole(self.folder)
        return done[-1] if done else None

    def best(self) -> Path | None:
        """Give the checkpoint that was saved as the best, or None."""
        newest = self.latest()
        if newest is None:
            return None
        try:
            name = json.loads((newest / STATE).read_text(encoding="utf-8"))["best"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return next((path for path in _whole(self.folder) if path.name == name), None)

    def _write(self, state: dict[str, Tensor], text: str, iteration: int) -> None:
        path = self.folder / f"{NAME}{iteration:08d}"
        part = self.folder / f".{path.name}{PART}writing"  # one name for all processes, which write together
        if self.world.rank == 0:
            shutil.rmtree(part, ignore_errors=True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                write_shares(
                    state,
                    storage_writer=HuggingFaceStorageWriter(str(part), save_distributed=True),
                    process_group=self.world.side,
                    no_dist=self.world.side is None,
                )
        except CheckpointException as error:  # the same in all processes
            shutil.rmtree(part, ignore_errors=True)
            first = next(iter(error.failures.values()))[0]
            raise StudyError(
                f"{path}: the checkpoint could not be written ({first}). Those before it are untouched. Free some "
                "space, or look after the disk, and resume."
            ) from error
        failed = None
        if self.world.rank == 0:
            try:
                with disk_errors(path):
                    self._commit(part, path, text)
            except StudyError as error:
                failed = error
                shutil.rmtree(part, ignore_errors=True)
        if self.world.side is not None:
            down = torch.tensor(int(failed is not None))
            dist.all_reduce(down, group=self.world.side)
            if down and failed is None:
                failed = StudyError(f"{path}: process 0 could not put the checkpoint in its place.")
        if failed is not None:
            raise failed

    def _commit(self, part: Path, path: Path, text: str) -> None:
        """Put a checkpoint that is written in its place, then remove those that need not stay."""
        with open(part / STATE, "w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        sync_folder(part)
        if path.exists():
            shutil.rmtree(path)
        os.rename(part, path)
        sync_folder(self.folder)
        best = self.best()
        for old in _whole(self.folder)[: -self.keep]:
            if old != best:
                shutil.rmtree(old, ignore_errors=True)


def load(path: Path, model: SelfDistillation, optimiser: torch.optim.Optimizer, world: World) -> Restored:
    """Put a checkpoint into student, teacher and optimiser; all processes have to call.

    Parameters
    ----------
    path : Path
        Folder of one checkpoint, written by any number of processes.
    model, optimiser : SelfDistillation, Optimizer
        After `parallelize` and `make_optimiser`; changed in place.
    world : World
        The processes.

    Returns
    -------
    Restored

    Raises
    ------
    EncoderError
        No checkpoint, a damaged one, or one of another model: the message names the first differences. Nothing has
        changed then, unless a file of tensors is damaged.
    """
    try:
        about = json.loads((path / STATE).read_text(encoding="utf-8"))
        iteration, steps, shapes, extra = (about[key] for key in ("iteration", "steps", "shapes", "extra"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EncoderError(f"{path}: no whole checkpoint ({error}). Name a folder {NAME}... of a run.") from error
    if about.get("format") != FORMAT:
        raise EncoderError(f"{path}: format {about.get('format')}, this version reads {FORMAT}. Update the package.")
    state = state_of(model, optimiser)
    _compare(path, shapes, {name: list(tensor.shape) for name, tensor in state.items()})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read_shares(
                dict(state),
                storage_reader=HuggingFaceStorageReader(str(path)),
                process_group=world.side,
                no_dist=world.side is None,
            )
    except CheckpointException as error:
        first = next(iter(error.failures.values()))[0]
        raise EncoderError(
            f"{path}: cannot be read ({first}). Delete this folder to go on from the one before."
        ) from error
    for parameter in _parameters(optimiser):
        optimiser.state[parameter]["step"].fill_(steps)
    return Restored(iteration, extra)


def state_of(model: SelfDistillation, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Give all tensors of a training by name; the optimiser's moments are made where there are none yet."""
    state = {f"student.{name}": parameter.detach() for name, parameter in model.student.named_parameters()}
    for name, parameter in model.student.named_parameters():
        moments = optimiser.state[parameter]
        if not moments:
            # As AdamW makes them at its first step: with `fused` the count lies on the device, in float32.
            moments["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            for moment in MOMENTS:
                moments[moment] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        state |= {f"{moment}.{name}": moments[moment].detach() for moment in MOMENTS}
    return state | {f"teacher.{name}": parameter.detach() for name, parameter in model.teacher.named_parameters()}


def _compare(path: Path, found: Mapping[str, list[int]], wanted: Mapping[str, list[int]]) -> None:
    """Raise EncoderError unless a checkpoint has the names and shapes of a model."""
    problems = [f"missing {some([name for name in wanted if name not in found])}"] if wanted.keys() - found else []
    if found.keys() - wanted.keys():
        problems.append(f"left over {some([name for name in found if name not in wanted])}")
    wrong = [f"{n} {found[n]} in place of {wanted[n]}" for n in wanted if n in found and found[n] != wanted[n]]
    if wrong:
        problems.append(f"wrong {some(wrong)}")
    if problems:
        raise EncoderError(f"{path}: of another model: {'; '.join(problems)}. Resume with the configuration it has.")


def _parameters(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def _steps(optimiser: torch.optim.Optimizer) -> float:
    """Steps that AdamW has taken, the same for all parameters."""
    first = optimiser.state.get(_parameters(optimiser)[0])
    return float(first["step"]) if first else 0.0


def _whole(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{NAME}*") if (path / STATE).is_file())
