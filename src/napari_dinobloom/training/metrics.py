"""What a run tells while it runs: lines of JSON, TensorBoard, the terminal, Weights & Biases if asked.

What it is given is the same in all processes, so nothing is sent for it. `NanGuard` ends a run whose losses stay
undefined.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table
from torch import Tensor

from napari_dinobloom.errors import DinoBloomError, InputError
from napari_dinobloom.io.atomic import disk_errors, replacing, write_text

log = logging.getLogger(__name__)

FILE = "metrics.jsonl"
"""One JSON object per line: ``iteration`` (iterations done), ``time`` (seconds since 1970), and named numbers."""


SAID = ("total", "skipped", "lr", "seconds", "images_per_second", "knn_1", "knn_20", "probe", "rankme")
"""What a line in the terminal has room for, by the names of the file."""


class Sink(Protocol):
    """What metrics are written to beside the file."""

    def write(self, iteration: int, values: Mapping[str, float]) -> None:
        """Take named numbers of an iteration."""

    def close(self) -> None:
        """Write what is left."""


@dataclass(slots=True)
class _Line:
    """What came in since the last line."""

    steps: int = 0
    images: int = 0
    same: dict[str, list[float]] = field(default_factory=dict)
    since: float = field(default_factory=time.perf_counter)


class Metrics:
    """Averages what steps report and writes it. An iteration's number is that of the iterations done with it.

    Parameters
    ----------
    folder : Path
        The run's folder; made if needed.
    rank : int
        Only rank 0 writes.
    every : int
        Iterations that a line averages.
    resumed : int, default: 0
        Iterations done already: lines beyond are removed from the file, as is a torn last line.
    console : Console, optional
        Where a table is shown, or lines where it is no terminal; standard error by default.
    wandb : str, default: ""
        Project in Weights & Biases; empty sends nothing.

    Raises
    ------
    InputError
        If Weights & Biases is asked for and not installed.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        every: int,
        *,
        resumed: int = 0,
        console: Console | None = None,
        wandb: str = "",
    ) -> None:
        self.every, self.writes = every, rank == 0
        self.path = Path(folder) / FILE
        self._line = _Line()
        self._iteration = resumed
        self._sinks: list[Sink] = []
        if self.writes:
            with disk_errors(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                _truncate(self.path, resumed)
            self._sinks = _sinks(self.path.parent, resumed, console or Console(stderr=True), wandb)
            with disk_errors(self.path):
                self._file = self.path.open("a", encoding="utf-8", newline="\n")

    def add(self, iteration: int, same: Mapping[str, float], images: int = 0) -> None:
        """Take in one iteration; every `every` iterations write a line.

        Numbers are averaged over the iterations in which they are finite.

        Parameters
        ----------
        iteration : int
            Iterations done with this one.
        same : mapping of str to float
            Numbers that all processes share: a step's losses, the learning rate.
        images : int, default: 0
            Pictures of the iteration over all processes, for the rate.
        """
        line = self._line
        self._iteration = iteration
        line.steps += 1
        line.images += images
        for name, number in same.items():
            line.same.setdefault(name, []).append(number)
        if iteration % self.every == 0:
            self.flush()

    def flush(self) -> None:
        """Write the line of what came in since the last one, if anything."""
        line = self._line
        if not line.steps:
            return
        values = {name: _mean(numbers) for name, numbers in line.same.items()}
        seconds = time.perf_counter() - line.since
        values["seconds"] = seconds / line.steps
        if line.images:
            values["images_per_second"] = line.images / seconds
        self._line = _Line()
        self.log(self._iteration, values)

    def log(self, iteration: int, values: Mapping[str, float]) -> None:
        """Write one line of named numbers at once, such as an evaluation; null stands for what is not finite."""
        if not self.writes:
            return
        plain = {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
        line = {"iteration": iteration, "time": round(time.time(), 3), **plain}
        with disk_errors(self.path):
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()
        for sink in self._sinks:
            sink.write(iteration, values)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the time inside, which is no training (an evaluation, a checkpoint), out of the rate."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._line.since += time.perf_counter() - began

    def close(self) -> None:
        """Write what is left, and close file and sinks."""
        self.flush()
        if self.writes:
            self._file.close()
        for sink in self._sinks:
            sink.close()
        self._sinks = []

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class NanGuard:
    """Ends a run after `limit` skipped steps in a row, with the batch of the last one saved.

    Parameters
    ----------
    folder : Path
        The run's folder.
    rank : int
        Of this process; each saves what it saw.
    limit : int, default: 3
        Skipped steps in a row that are too many.
    """

    def __init__(self, folder: Path, rank: int, limit: int = 3) -> None:
        self.folder, self.rank, self.limit = Path(folder), rank, limit
        self.skipped = 0

    def check(self, iteration: int, skipped: bool, batch: Callable[[], Mapping[str, Tensor]]) -> None:
        """Count a step that was skipped, as all processes agreed, because a loss or a gradient was not finite.

        Parameters
        ----------
        iteration : int
            Iterations done with this one.
        skipped : bool
            Whether the step was skipped; the same in all processes.
        batch : function
            Gives what this process saw, by name ("crops.0", "masks.0", "rows"); called only when the run ends.

        Raises
        ------
        DinoBloomError
            After `limit` skipped steps in a row; the message names the file with the batch.
        """
        self.skipped = self.skipped + 1 if skipped else 0
        if skipped:
            log.warning("Iteration %d changed nothing: its losses or gradients are not finite.", iteration)
        if self.skipped < self.limit:
            return
        from safetensors.torch import save_file

        path = self.folder / f"not-finite-{iteration:07d}-rank{self.rank}.safetensors"
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in batch().items()}
        with disk_errors(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as part:
                save_file(tensors, part, metadata={"iteration": str(iteration)})
        raise DinoBloomError(
            f"Losses or gradients were not finite in {self.skipped} iterations in a row, up to {iteration}. The last "
            f"batch is in {path}; look at its pictures, or resume from the last checkpoint with a lower "
            "schedule.base_lr or run.precision=float32."
        )


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a run's file; a torn last line is left out.

    Raises
    ------
    InputError
        If a line before the last is no JSON object; the message names file and line.
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    read = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last line end is torn or empty
        try:
            values = json.loads(line)
            values["iteration"] = int(values["iteration"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: line {number} is no line of metrics; remove it, or the file.") from error
        read.append(values)
    return read


def _mean(numbers: list[float]) -> float:
    """Mean of the finite numbers; NaN where there is none."""
    finite = [number for number in numbers if math.isfinite(number)]
    return sum(finite) / len(finite) if finite else math.nan


def _truncate(path: Path, done: int) -> None:
    """Remove the lines beyond an iteration."""
    if path.is_file():
        kept = [line for line in read_metrics(path) if line["iteration"] <= done]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))


def _sinks(folder: Path, resumed: int, console: Console, wandb: str) -> list[Sink]:
    """What is written to beside the file, as far as it is there."""
    sinks: list[Sink] = []
    if wandb:
        sinks.append(_WandB(folder, wandb))
    if importlib.util.find_spec("tensorboard") is not None:
        sinks.append(_TensorBoard(folder, resumed))
    else:
        log.warning("TensorBoard is not installed, only %s is written: pip install 'napari-dinobloom[training]'", FILE)
    sinks.append(_LiveTable(console) if console.is_terminal else _Lines(console))
    return sinks


class _TensorBoard:
    """Event files in the run's folder."""

    def __init__(self, folder: Path, resumed: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed + 1)

    def write(self, iteration: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, iteration)

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """A run in Weights & Biases, which a resumed run continues."""

    def __init__(self, folder: Path, project: str) -> None:
        if importlib.util.find_spec("wandb") is None:
            raise InputError(f"run.wandb is {project!r}, but wandb is not installed: `pip install wandb`, or leave it.")
        wandb: Any = importlib.import_module("wandb")
        known = sha256(str(folder.resolve()).encode()).hexdigest()[:12]
        self._run = wandb.init(project=project, dir=str(folder), name=folder.resolve().name, id=known, resume="allow")

    def write(self, iteration: int, values: Mapping[str, float]) -> None:
        self._run.log({**values, "iteration": iteration})

    def close(self) -> None:
        self._run.finish()


class _Lines:
    """A line each, for the log of a cluster."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def write(self, iteration: int, values: Mapping[str, float]) -> None:
        said = ", ".join(f"{name} {values[name]:.4g}" for name in SAID if name in values)
        self._console.print(f"iteration {iteration:,}: {said}", highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Nothing is left."""


class _LiveTable:
    """The last number under each name, and the first, in the terminal."""

    def __init__(self, console: Console) -> None:
        self._first: dict[str, float] = {}
        self._last: dict[str, tuple[int, float]] = {}
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._live.start()

    def write(self, iteration: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._first.setdefault(name, value)
            self._last[name] = (iteration, value)
        table = Table("", "at first", "now", "iteration", title=f"iteration {iteration:,}")
        for name, (when, value) in self._last.items():
            table.add_row(name, f"{self._first[name]:.4g}", f"{value:.4g}", f"{when:,}")
        self._live.update(table, refresh=True)

    def close(self) -> None:
        self._live.stop()
