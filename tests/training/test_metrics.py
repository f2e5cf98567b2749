"""Lines of metrics, their sinks, and the end of a run that has no losses any more."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from napari_dinobloom.errors import DinoBloomError, InputError
from napari_dinobloom.training.metrics import Metrics, NanGuard, log, read_metrics

NAN = float("nan")
REAL = importlib.util.find_spec


@pytest.fixture(autouse=True)
def _only_what_is_faked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """TensorBoard and Weights & Biases are there only where a test puts them."""

    def find(name: str, *rest: Any) -> Any:
        if name not in ("tensorboard", "wandb"):
            return REAL(name, *rest)
        there = sys.modules.get(name)
        return there if there is not None and there.__spec__ is None else None

    monkeypatch.setattr(importlib.util, "find_spec", find)
    return


def test_a_line_is_the_mean_of_its_iterations(tmp_path: Path) -> None:
    with Metrics(tmp_path / "run", 0, 3) as metrics:
        for iteration, loss in enumerate([1.0, NAN, 5.0, 7.0, NAN], start=1):
            metrics.add(iteration, {"total": loss}, images=8)
        metrics.log(5, {"knn_1": 0.5})
    first, evaluated, rest = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert (first["iteration"], first["total"]) == (3, 3.0)
    assert first["images_per_second"] == pytest.approx(8 / first["seconds"])
    assert (evaluated["iteration"], evaluated["knn_1"]) == (5, 0.5)
    assert (rest["iteration"], rest["total"]) == (5, 7.0)  # what was left is written at the end


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    with Metrics(tmp_path, 0, 1) as metrics:
        metrics.add(1, {"total": NAN, "norm": float("inf")})
    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert line["total"] is None
    assert line["norm"] is None


def test_a_resumed_run_goes_on_after_its_checkpoint(tmp_path: Path) -> None:
    with Metrics(tmp_path, 0, 2) as metrics:
        for iteration in range(1, 9):
            metrics.add(iteration, {"total": float(iteration)})
    file = tmp_path / "metrics.jsonl"
    file.write_text(file.read_text() + '{"iteration": 9, "tot')  # killed while it wrote
    with Metrics(tmp_path, 0, 2, resumed=4) as metrics:
        metrics.add(5, {"total": 50.0})
        metrics.add(6, {"total": 60.0})
    assert [(line["iteration"], line["total"]) for line in read_metrics(file)] == [(2, 1.5), (4, 3.5), (6, 55.0)]
    file.write_text('{"iteration": 2}\nrubbish\n{"iteration": 4}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl: line 2"):
        Metrics(tmp_path, 0, 2, resumed=4)


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    with Metrics(tmp_path / "run", 1, 1, wandb="project") as metrics:
        metrics.add(1, {"total": 1.0})
    assert not (tmp_path / "run").exists()


def test_evaluations_do_not_slow_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 101.0, 104.0, 104.0])
    monkeypatch.setattr("napari_dinobloom.training.metrics.time.perf_counter", lambda: next(clock))
    metrics = Metrics(tmp_path, 1, 2)
    metrics._line.since = 0.0  # the field's default was bound before
    written: dict[str, float] = {}
    monkeypatch.setattr(metrics, "log", lambda _, values: written.update(values))
    next(clock)
    metrics.add(1, {"total": 1.0})
    with metrics.aside():
        pass
    metrics.add(2, {"total": 1.0}, images=8)
    assert (written["seconds"], written["images_per_second"]) == (2.0, 2.0)


def test_a_table_in_a_terminal_and_lines_elsewhere(tmp_path: Path) -> None:
    shown, lines = io.StringIO(), io.StringIO()
    for file, terminal in ((shown, True), (lines, False)):
        console = Console(file=file, force_terminal=terminal, width=80)
        with Metrics(tmp_path, 0, 1, console=console) as metrics:
            metrics.add(1, {"total": 11.25})
            metrics.add(2, {"total": NAN})
            metrics.add(3, {"total": 7.5})
    assert "11.25" in shown.getvalue()
    assert "7.5" in shown.getvalue()
    told = lines.getvalue().splitlines()
    assert [line.partition(", ")[0] for line in told] == [
        "iteration 1: total 11.25",
        "iteration 2: total nan",
        "iteration 3: total 7.5",
    ]


class _Recorder:
    def __init__(self, *args: object, **options: object) -> None:
        self.args, self.options, self.got, self.closed = args, options, [], False

    def add_scalar(self, *args: object) -> None:
        self.got.append(args)

    def log(self, values: dict[str, float]) -> None:
        self.got.append(values)

    def close(self) -> None:
        self.closed = True

    finish = close


def test_tensorboard_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[_Recorder] = []
    fake = ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = lambda *a, **k: made.append(_Recorder(*a, **k)) or made[0]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    monkeypatch.setitem(sys.modules, "tensorboard", ModuleType("tensorboard"))
    with Metrics(tmp_path, 0, 1, resumed=6) as metrics:
        metrics.add(7, {"total": 2.0})
    assert made[0].options == {"purge_step": 7}
    assert ("total", 2.0, 7) in made[0].got
    assert made[0].closed


def test_tensorboard_reads_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setattr(importlib.util, "find_spec", REAL)
    with Metrics(tmp_path, 0, 1) as metrics:
        for iteration in (1, 2, 3):
            metrics.add(iteration, {"total": float(iteration)})
    with Metrics(tmp_path, 0, 1, resumed=1) as metrics:
        metrics.add(2, {"total": 20.0})
    found = events.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(one.step, one.value) for one in found.Scalars("total")] == [(1, 1.0), (2, 20.0)]


def test_without_tensorboard_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(log, "warning", lambda text, *values: said.append(text % values))  # whoever set up logging
    with Metrics(tmp_path, 0, 1):
        pass
    with Metrics(tmp_path, 1, 1):
        pass
    assert said == [
        "TensorBoard is not installed, only metrics.jsonl is written: pip install 'napari-dinobloom[training]'"
    ]


def test_weights_and_biases_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="wandb is not installed"):
        Metrics(tmp_path, 0, 1, wandb="cells")
    run, asked = _Recorder(), []
    fake = ModuleType("wandb")
    fake.init = lambda **options: asked.append(options) or run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for folder in ("a", "a", "b"):
        with Metrics(tmp_path / folder, 0, 1, wandb="cells") as metrics:
            metrics.log(3, {"total": 2.0})
    assert run.got[0] == {"total": 2.0, "iteration": 3}
    assert run.closed
    first, again, other = (options["id"] for options in asked)
    assert first == again != other


def test_three_skipped_steps_in_a_row_end_the_run(tmp_path: Path) -> None:
    guard, batch = NanGuard(tmp_path / "run", 1), {"crops": torch.full((2, 3), NAN), "rows": torch.tensor([4, 7])}
    for iteration, skipped in enumerate((True, True, False, True, True), start=1):
        guard.check(iteration, skipped, lambda: pytest.fail("the batch is asked for only at the end"))
    with pytest.raises(DinoBloomError, match=r"3 iterations in a row, up to 6.*not-finite-0000006-rank1\.safetensors"):
        guard.check(6, True, lambda: batch)
    saved = load_file(tmp_path / "run" / "not-finite-0000006-rank1.safetensors")
    assert saved["rows"].tolist() == [4, 7]
    assert bool(saved["crops"].isnan().all())
