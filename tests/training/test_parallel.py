"""Processes find each other, agree, stop together, and end when one of them fails."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from spawned import Agreement, Alike, Compiled, Death, Failure, set_up, spawn, toy

from napari_dinobloom.training.parallel import StopSignal, World, agree, parallelize, start


def test_one_flag_is_enough(tmp_path: Path) -> None:
    assert spawn(2, tmp_path, Agreement()) == [[(True, False)], [(True, False)]]


def test_when_one_process_fails_the_others_end_with_its_error(tmp_path: Path) -> None:
    began = time.monotonic()
    other, failed = (found[-1] for found in spawn(2, tmp_path, Failure()))
    assert failed == "ValueError: picture 7 is broken"
    assert other.startswith("ProcessError: ")
    assert "process 1 of 2: ValueError: picture 7 is broken" in other
    assert time.monotonic() - began < 60


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize("killed", [0, 1])
def test_when_one_process_is_killed_the_others_end(tmp_path: Path, killed: int) -> None:
    began = time.monotonic()
    found = spawn(2, tmp_path, Death(killed))
    assert found[killed] == []
    [said] = found[1 - killed]
    who = "process 0, which can no longer be reached" if killed == 0 else "process 0 of 2: lost another one"
    assert said.startswith(f"ProcessError: The training ended because of {who}")
    assert said.endswith("The same command goes on from the last checkpoint.")
    assert time.monotonic() - began < 60


def test_alone() -> None:
    world = start("cpu")
    assert (world.rank, world.size, world.group, world.device.type) == (0, 1, None, "cpu")
    assert agree(world, True)
    assert not agree(world, False)


def test_several_processes_need_a_strategy() -> None:
    with pytest.raises(ValueError, match="'none' is for one"):
        parallelize(toy(), World(0, 2, 0, torch.device("cpu")), "none")


def test_names_stay_when_blocks_are_compiled_and_recomputed() -> None:
    model, _ = set_up(World(0, 1, 0, torch.device("cpu")), compile=True, checkpointing=True)
    assert list(model.student.state_dict()) == list(toy().student.state_dict())


@pytest.mark.parametrize(
    ("strategy", "options"),
    [("ddp", {"bf16": True}), ("fsdp", {}), ("fsdp", {"checkpointing": True}), ("fsdp", {"bf16": True})],
)
def test_compiled_blocks_compute_the_same(strategy: str, options: dict[str, bool], tmp_path: Path) -> None:
    [[found]] = spawn(1, tmp_path, Compiled(strategy, **options))
    compiled, plain, graphs = found
    for ours, theirs in zip(compiled, plain, strict=True):
        assert ours.losses == pytest.approx(theirs.losses, rel=2e-3 if "bf16" in options else 1e-9)
    assert graphs == 6  # student, its local crops and teacher, each with a last block for some tokens only


def test_processes_that_begin_with_something_else_are_told(tmp_path: Path) -> None:
    for found in spawn(2, tmp_path, Alike()):
        assert found[0].startswith("Process 1 has another store than process 0: of 1 and of 0. Give all the same files")


def test_sigterm_is_noted_and_the_handler_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        assert not stop.seen
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 5
        while not stop.seen and time.monotonic() < deadline:
            time.sleep(0.01)
        assert stop.seen
    assert signal.getsignal(signal.SIGTERM) is before
