"""A training from its configuration to its exports: build, resume, repeat, end."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from napari_dinobloom.encoders.device import resolve_precision
from napari_dinobloom.errors import DinoBloomError, InputError
from napari_dinobloom.io import lock
from napari_dinobloom.io.atomic import disk_errors, write_text
from napari_dinobloom.training.batches import Batches
from napari_dinobloom.training.begin import make_network, pictures_of, strategy_of
from napari_dinobloom.training.checkpoint import Checkpoints, load
from napari_dinobloom.training.config import Config
from napari_dinobloom.training.distillation import Group, Network, SelfDistillation
from napari_dinobloom.training.evaluation import Best, LabelledSet, evaluate, read_set
from napari_dinobloom.training.metrics import Metrics, NanGuard
from napari_dinobloom.training.optimiser import make_optimiser
from napari_dinobloom.training.parallel import (
    StopSignal,
    World,
    agree,
    check_alike,
    finish,
    parallelize,
    start,
    together,
)
from napari_dinobloom.training.step import run_step

CONFIG = "config.json"
IN_USE = "{holder} trains there. Wait for it, or give another folder with run.out=FOLDER."
BEST_TEACHER = "teacher-best.safetensors"

ALSO_FIXED = {("run", "seed"), ("run", "precision")}
"""Settings of how it runs that decide what is learned."""
MAY_CHANGE = {("data", "threads"), ("data", "store")}
"""Settings of the pictures that do not: those in a store are told by its hash, wherever it lies."""

log = logging.getLogger(__name__)


def train(config: Config) -> Path:
    """Train, or go on with a training that was stopped.

    Parameters
    ----------
    config : Config
        From `config.load`. A folder `run.out` that holds checkpoints is resumed, with the same configuration but for
        where and how it runs.

    Returns
    -------
    Path
        The last export of the teacher, a safetensors file that `load_encoder` takes.

    Raises
    ------
    InputError
        What cannot work, before anything is computed: sizes that do not fit, a folder of another training.
    DinoBloomError
        Losses that stay undefined, a full disk, another process's error.
    """
    world, run = start(config.run.device), None
    try:
        with together(world), StopSignal() as stop:
            run = Run(config, world)
            try:
                return run.go(lambda: stop.seen)
            finally:
                run.close()
    finally:
        if run is not None:
            run.checkpoints.settle()  # after the others were told of an error: their share may still be on its way
        finish(world)


class Run:
    """Everything that lives as long as a training."""

    def __init__(self, config: Config, world: World) -> None:
        self.config, self.world = config, world
        self.out = Path(config.run.out)
        check_config(self.out, config)
        pictures = pictures_of(config)
        network = make_network(config)
        self.batches = Batches(config, pictures, world, network.backbone.grid)
        self.labelled = _labelled(config, world, pictures.sha256)
        self.pictures = pictures.key
        self._held = None if world.rank else lock.hold(self.out, IN_USE)
        try:
            self._set_up(network)
        except BaseException:
            self._let_go()
            raise

    def _set_up(self, network: Network) -> None:
        """Make what writes into the folder, and take up what lies there."""
        config, world = self.config, self.world
        self.checkpoints = Checkpoints(self.out / "checkpoints", world, config.run.keep)
        check_alike(
            world,
            configuration=json.dumps(config.to_dict()),
            store=self.pictures,
            weights_to_start_from=_digest(network),
            newest_checkpoint=str(self.checkpoints.latest()),
        )
        if world.rank == 0:
            keep_config(self.out, config)
        self.model = SelfDistillation(network.to(world.device), config.weights)
        bf16 = resolve_precision(config.run.precision, world.device) == "bf16"
        parallelize(
            self.model,
            world,
            strategy_of(config, world.size),
            compile=config.run.compile,
            checkpointing=config.run.checkpointing,
            bf16=bf16,
        )
        self.autocast = torch.bfloat16 if bf16 else None
        self.optimiser = make_optimiser(network)
        self.best = Best(config.evaluation.score, config.evaluation.patience)
        self.iteration = self._resumed()
        self.metrics = Metrics(
            self.out,
            world.rank,
            config.run.log_every,
            resumed=self.iteration,
            wandb=config.run.wandb,
        )
        self.guard = NanGuard(self.out, world.rank)
        if world.side is not None:
            dist.barrier(group=world.side)  # which waits longer than a step for a process that is slow to begin

    def _resumed(self) -> int:
        """Take the newest checkpoint up, if there is one; gives the iterations done."""
        newest = self.checkpoints.latest()
        if newest is None:
            return 0
        restored = load(newest, self.model, self.optimiser, self.world)
        if restored.extra.get("pictures", self.pictures) != self.pictures:
            raise InputError(
                f"{self.out} holds a training on other pictures than {self.config.data.store or 'these'}: resume it "
                "with the store it began with, or give another folder with run.out=FOLDER."
            )
        before, labelled = (
            Best(**restored.extra["best"]),
            restored.extra.get("labelled", self.config.evaluation.labelled),
        )
        if (before.score, labelled) == (self.best.score, self.config.evaluation.labelled):
            self.best = replace(before, patience=self.best.patience)  # of another score or set nothing is best so far
        return restored.iteration

    def go(self, stopped: Callable[[], bool]) -> Path:
        """Repeat steps until the end, the patience's end, or until `stopped` says so."""
        config, export = self.config, self.out / f"teacher-{self.iteration:07d}.safetensors"
        if self.iteration and _due(config.run.export_every, self.iteration, last=self.iteration == config.last):
            self._mend(export)
        if self.iteration and self.best.iteration == self.iteration:
            self._mend(self.out / BEST_TEACHER, anyway=True)
        while self.iteration < config.last and not self.best.stop:
            self.step()
            done, ended = self.iteration, self.iteration == config.last
            halt, improved = agree(self.world, stopped()), False
            if not halt and self.labelled is not None and _due(config.run.evaluate_every, done, ended):
                improved = self.evaluate(self.labelled, stopped)
                halt = agree(self.world, stopped()) or self.best.stop
            last = ended or halt
            if improved or _due(config.run.checkpoint_every, done, last):
                extra = {"best": asdict(self.best), "pictures": self.pictures, "labelled": config.evaluation.labelled}
                self.checkpoints.save(self.model, self.optimiser, done, extra, best=improved)
            if improved:
                self.checkpoints.export(self.model, self.out / BEST_TEACHER, "training")
            if _due(config.run.export_every, done, last):
                export = self.out / f"teacher-{done:07d}.safetensors"
                self.checkpoints.export(self.model, export, "training")
            if halt:
                break
        self.checkpoints.finish()
        self._mend(export)
        return export

    def _mend(self, export: Path, *, anyway: bool = False) -> None:
        """Export the teacher of an iteration that was killed between its checkpoint and its export."""
        if agree(self.world, self.world.rank == 0 and (anyway or not export.is_file())):
            self.checkpoints.export(self.model, export, "training")
            self.checkpoints.finish()

    def step(self) -> None:
        """Do one iteration."""
        values = self.config.schedule.at(self.iteration)
        groups = self.batches.groups(self.iteration)
        result = run_step(self.model, self.optimiser, groups, values, self.world)
        self.iteration += 1
        norms = {f"norm_{name}": norm for name, norm in result.norms.items()}
        same = {**result.losses, **norms, **values._asdict(), "skipped": float(result.skipped)}
        self.metrics.add(self.iteration, same, images=self.config.batch.total)
        try:
            self.guard.check(self.iteration, result.skipped, lambda: _named(groups))
        except DinoBloomError:
            self.checkpoints.finish()  # all processes end here: what is being written is kept
            raise

    def evaluate(self, labelled: LabelledSet, stopped: Callable[[], bool]) -> bool:
        """Score the teacher, unless a stop is asked for meanwhile; True if it is the best so far."""
        with self.metrics.aside():
            scores = evaluate(
                self.model.teacher.backbone,
                labelled,
                self.world.device,
                autocast=self.autocast,
                group=self.world.group,
                halt=lambda: agree(self.world, stopped()),
            )
        if scores is None:
            return False
        self.metrics.log(self.iteration, asdict(scores))
        return self.best.update(self.iteration, scores)

    def close(self) -> None:
        """Close files and threads."""
        self.batches.close()
        self.metrics.close()
        self._let_go()

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.release()


def check_config(out: Path, config: Config) -> None:
    """Raise InputError for a folder of a training with another configuration."""
    path = out / CONFIG
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            then = {topic: {**values, **before.get(topic, {})} for topic, values in Config().to_dict().items()}
        except (ValueError, AttributeError, TypeError) as error:
            raise InputError(f"{path}: is damaged ({error}). Give another folder with run.out=FOLDER.") from error
        changed = [
            f"{topic}.{key}: {then[topic].get(key)!r} then, {value!r} now"
            for topic, values in config.to_dict().items()
            for key, value in values.items()
            if (topic, key) in ALSO_FIXED or (topic not in ("run", "evaluation") and (topic, key) not in MAY_CHANGE)
            if then[topic].get(key) != value
        ]
        if changed:
            raise InputError(
                f"{out} holds a training with another configuration ({'; '.join(changed[:5])}). Resume it with the "
                "same one, or give another folder with run.out=FOLDER."
            )


def keep_config(out: Path, config: Config) -> None:
    """Write the configuration to the run's folder."""
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / CONFIG, json.dumps(config.to_dict(), indent=1) + "\n")


def _labelled(config: Config, world: World, trained: NDArray[np.uint8] | None) -> LabelledSet | None:
    """The labelled pictures of the evaluation, if any."""
    asked = config.evaluation
    if not asked.labelled:
        return None
    batch = 2 * config.batch.group
    return read_set(asked.labelled, asked.split, most=asked.most, batch=batch, group=world.group, trained=trained)


def _digest(network: nn.Module) -> str:
    """Stands for the weights of a network."""
    digest = sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.double().sum().numpy().tobytes())
    return digest.hexdigest()[:16]


def _due(every: int, done: int, last: bool) -> bool:
    return last or bool(every and done % every == 0)


def _named(groups: list[Group]) -> dict[str, torch.Tensor]:
    """A batch by name, for the file that is written where losses are undefined."""
    return {
        f"{name}.{number}": tensor
        for number, group in enumerate(groups)
        for name, tensor in (("crops", group.crops), ("masks", group.masks), ("local", group.local))
        if tensor is not None
    }
