"""A training from its configuration to its exports: build, resume, repeat, end."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from napari_dinobloom.encoders.architecture import ARCHITECTURES
from napari_dinobloom.encoders.device import resolve_precision
from napari_dinobloom.encoders.library import checked, locate
from napari_dinobloom.errors import InputError
from napari_dinobloom.io.atomic import disk_errors, write_text
from napari_dinobloom.training.batches import Batches, Read
from napari_dinobloom.training.checkpoint import Checkpoints, load, start_from
from napari_dinobloom.training.config import Config
from napari_dinobloom.training.distillation import Group, MaskedTransformer, Network, SelfDistillation
from napari_dinobloom.training.evaluation import Best, LabelledSet, evaluate, read_set
from napari_dinobloom.training.heads import DINOHead
from napari_dinobloom.training.metrics import Metrics, NanGuard
from napari_dinobloom.training.optimiser import make_optimiser
from napari_dinobloom.training.parallel import (
    StopSignal,
    Strategy,
    World,
    agree,
    finish,
    parallelize,
    start,
    together,
)
from napari_dinobloom.training.step import run_step
from napari_dinobloom.training.store import Store

CONFIG = "config.json"
IBOT_BOTTLENECK = 256

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
    world = start(config.run.device)
    try:
        with together(world), StopSignal() as stop:
            run = Run(config, world)
            try:
                return run.go(lambda: stop.seen)
            finally:
                run.close()
    finally:
        finish(world)


class Run:
    """Everything that lives as long as a training."""

    def __init__(self, config: Config, world: World) -> None:
        self.config, self.world = config, world
        self.out = Path(config.run.out)
        check_config(self.out, config)
        read, sizes = pictures_of(config)
        network = make_network(config)
        self.batches = Batches(config, read, sizes, world, network.backbone.grid)
        self.labelled = _labelled(config, world)
        if world.rank == 0:
            keep_config(self.out, config)
        self.model = SelfDistillation(network.to(world.device), config.weights)
        bf16 = resolve_precision(config.run.precision, world.device) == "bf16"
        parallelize(
            self.model,
            world,
            strategy_of(config, world),
            compile=config.run.compile,
            checkpointing=config.run.checkpointing,
            bf16=bf16,
        )
        self.autocast = torch.bfloat16 if bf16 else None
        self.optimiser = make_optimiser(network)
        self.checkpoints = Checkpoints(self.out / "checkpoints", world, config.run.keep)
        self.best = Best(config.evaluation.score, config.evaluation.patience)
        self.iteration = self._resumed()
        self.metrics = Metrics(
            self.out,
            world.rank,
            config.run.log_every,
            group=world.group,
            resumed=self.iteration,
            wandb=config.run.wandb,
        )
        self.guard = NanGuard(self.out, world.rank)

    def _resumed(self) -> int:
        """Take the newest checkpoint up, if there is one; gives the iterations done."""
        newest = self.checkpoints.latest()
        if newest is None:
            return 0
        restored = load(newest, self.model, self.optimiser, self.world)
        before = Best(**restored.extra["best"])
        if before.score == self.best.score:  # another score has no best so far; the patience is that of today
            self.best = replace(before, patience=self.best.patience)
        return restored.iteration

    def go(self, stopped: Callable[[], bool]) -> Path:
        """Repeat steps until the end, the patience's end, or until `stopped` says so."""
        config, export = self.config, self.out / f"teacher-{self.iteration:07d}.safetensors"
        while self.iteration < config.last and not self.best.stop:
            self.step()
            done, ended = self.iteration, self.iteration == config.last
            improved = False
            if self.labelled is not None and _due(config.run.evaluate_every, done, ended):
                improved = self.evaluate(self.labelled)
            halt = agree(self.world, stopped()) or self.best.stop
            last = ended or halt
            if improved or _due(config.run.checkpoint_every, done, last):
                extra = {"best": asdict(self.best)}
                self.checkpoints.save(self.model, self.optimiser, done, extra, best=improved)
            if _due(config.run.export_every, done, last):
                export = self.out / f"teacher-{done:07d}.safetensors"
                self.checkpoints.export(self.model, export, "training")
            if halt:
                break
        self.checkpoints.finish()
        if agree(self.world, self.world.rank == 0 and not export.is_file()):  # killed after its last checkpoint
            self.checkpoints.export(self.model, export, "training")
            self.checkpoints.finish()
        return export

    def step(self) -> None:
        """Do one iteration."""
        values = self.config.schedule.at(self.iteration)
        groups = self.batches.groups(self.iteration)
        result = run_step(self.model, self.optimiser, groups, values, self.world)
        self.iteration += 1
        norms = {f"norm_{name}": norm for name, norm in result.norms.items()}
        same = {**result.losses, **norms, **values._asdict()}
        self.metrics.add(self.iteration, same, images=self.config.batch.total)
        self.guard.check(self.iteration, result.skipped, lambda: _named(groups))

    def evaluate(self, labelled: LabelledSet) -> bool:
        """Score the teacher; True if it is the best so far."""
        with self.metrics.aside():
            scores = evaluate(
                self.model.teacher.backbone,
                labelled,
                self.world.device,
                autocast=self.autocast,
                group=self.world.group,
            )
        self.metrics.log(self.iteration, asdict(scores))
        return self.best.update(self.iteration, scores)

    def close(self) -> None:
        """Close files and threads."""
        self.batches.close()
        self.metrics.close()


def make_network(config: Config) -> Network:
    """Make the student, the same in every process: from a file of weights, or at random by the seed.

    Raises
    ------
    EncoderError
        As `checkpoint.start_from`, or where the file is not the published one.
    InputError
        Where the file is of another size than `model.size`.
    """
    heads, arch = config.heads, ARCHITECTURES[config.model.size]
    if config.model.start:
        located = locate(config.model.start)
        checked(located)  # a file that is not the published one is refused here as everywhere
        path = located.path
        network = start_from(path, prototypes=heads.prototypes, bottleneck=heads.bottleneck, seed=config.run.seed)
        if network.backbone.arch != arch:
            raise InputError(f"{path} is a {network.backbone.arch.name}, but model.size is {config.model.size}.")
        return network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        backbone = MaskedTransformer(arch)
        randomise(backbone)
        return Network(
            backbone,
            DINOHead(arch.dim, heads.bottleneck, heads.prototypes, heads.hidden),
            DINOHead(arch.dim, IBOT_BOTTLENECK, heads.prototypes, heads.hidden),
        )


def randomise(backbone: MaskedTransformer) -> None:
    """Give a backbone the weights that DINOv2 starts from: normal of 0.02, LayerScale 1e-5, no bias."""
    for name, value in backbone.named_parameters():
        if "gamma" in name:
            torch.nn.init.constant_(value, 1e-5)
        elif value.ndim > 1:
            torch.nn.init.trunc_normal_(value, std=1e-6 if name == "cls_token" else 0.02)
        elif name.endswith("bias"):
            torch.nn.init.zeros_(value)


def pictures_of(config: Config) -> tuple[Read, list[int]]:
    """How pictures are read, and how many each data set has."""
    if config.data.store:
        store = Store.open(config.data.store)
        return store.read, list(store.sizes)
    if config.data.generated:
        pictures = generated(config.data.generated, config.data.seed)
        return (lambda rows: pictures[rows]), [len(pictures)]
    raise InputError("There are no pictures: name a folder that `prepare` made with data.store=FOLDER.")


def generated(count: int, seed: int) -> NDArray[np.uint8]:
    """Cells of generated smears, (count, 224, 224, 3), for trials."""
    from napari_dinobloom.cells.crop import CropPolicy, crop
    from napari_dinobloom.io.generate import generate_smear

    found: list[NDArray[np.uint8]] = []
    while sum(map(len, found)) < count:
        smear = generate_smear(seed=seed + len(found))
        found.append(crop(smear.image, smear.table, policy=CropPolicy(), pixel_size_um=smear.pixel_size_um))
    return np.concatenate(found)[:count]


def strategy_of(config: Config, world: World) -> Strategy:
    """How the network is spread: as configured, or by its size."""
    if config.run.strategy != "auto":
        return config.run.strategy
    if world.size == 1:
        return "none"
    return "fsdp" if config.model.size == "G" else "ddp"


def check_config(out: Path, config: Config) -> None:
    """Raise InputError for a folder of a training with another configuration."""
    path = out / CONFIG
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path}: is damaged ({error}). Give another folder with run.out=FOLDER.") from error
        changed = [
            f"{topic}.{key}: {before.get(topic, {}).get(key)!r} then, {value!r} now"
            for topic, values in config.to_dict().items()
            for key, value in values.items()
            if (topic, key) in {("run", "seed"), ("run", "precision")} or topic not in ("run", "evaluation")
            if before.get(topic, {}).get(key) != value
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


def _labelled(config: Config, world: World) -> LabelledSet | None:
    """The labelled pictures of the evaluation, if any."""
    asked = config.evaluation
    if not asked.labelled:
        return None
    trained = Store.open(config.data.store).sha256 if config.data.store else None
    batch = 2 * config.batch.group
    return read_set(asked.labelled, asked.split, most=asked.most, batch=batch, group=world.group, trained=trained)


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
