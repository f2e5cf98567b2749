"""Steps are the same in one process and in many, in one micro-batch and in several, sharded and not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from spawned import Train, groups, set_up, spawn, toy, train, values, whole

from napari_dinobloom.training.distillation import Group
from napari_dinobloom.training.optimiser import make_optimiser
from napari_dinobloom.training.parallel import World, parallelize
from napari_dinobloom.training.step import run_step

ALONE = World(0, 1, 0, torch.device("cpu"))
STEPS = 50
SHARDED_STEPS = 8  # each of them waits for some two hundred small messages


@pytest.fixture(scope="module")
def alone() -> Any:
    """What one process gives, by the number of steps."""
    return {steps: Train("none", steps)(ALONE) for steps in (3, SHARDED_STEPS, STEPS)}


def _differ(found: Any, wanted: Any) -> float:
    """Largest difference of losses, norms and tensors."""
    results = [
        abs(one[name] - other[name])
        for a, b in zip(found[0], wanted[0], strict=True)
        for one, other in ((a.losses, b.losses), (a.norms, b.norms))
        for name in other
    ]
    return max(*results, *(float((found[1][name] - tensor).abs().max()) for name, tensor in wanted[1].items()))


def test_the_toy_trains(alone: Any) -> None:
    results, tensors = alone[STEPS]
    assert results[-1].losses["total"] != pytest.approx(results[0].losses["total"], rel=0.01)
    start = whole(toy())
    assert all(float((tensors[name] - start[name]).abs().max()) > 1e-3 for name in start)


def test_two_processes(alone: Any, tmp_path: Path) -> None:
    jobs = [Train("ddp", STEPS), Train("fsdp", SHARDED_STEPS)]
    jobs += [Train("ddp", 3, what) for what in ("gradients", "sinkhorn", "group")] + [Train("fsdp", 3, "sinkhorn")]
    for found in spawn(2, tmp_path, *jobs):
        assert _differ(found[0], alone[STEPS]) < 1e-9
        assert _differ(found[1], alone[SHARDED_STEPS]) < 1e-9
        assert all(_differ(mutant, alone[3]) > 1e-6 for mutant in found[2:])
        assert len(found) == len(jobs)


def test_four_processes(alone: Any, tmp_path: Path) -> None:
    for found in spawn(4, tmp_path, Train("ddp", STEPS), Train("fsdp", 3)):
        assert _differ(found[0], alone[STEPS]) < 1e-9
        assert _differ(found[1], alone[3]) < 1e-9


def test_recomputing_and_padding_change_nothing(alone: Any) -> None:
    model, optimiser = set_up(ALONE, checkpointing=True)
    results = [run_step(model, optimiser, groups(step, rows=40), values(step), ALONE) for step in range(3)]
    assert _differ((results, whole(model)), alone[3]) < 1e-9


def test_the_order_of_groups_does_not_matter(alone: Any) -> None:
    model, optimiser = set_up(ALONE)
    results = [run_step(model, optimiser, groups(step)[::-1], values(step), ALONE) for step in range(3)]
    assert _differ((results, whole(model)), alone[3]) < 1e-9


def test_a_step_with_a_number_that_is_not_finite_changes_nothing() -> None:
    model, optimiser = set_up(ALONE)
    train(ALONE, model, optimiser, range(1))
    before = whole(model)
    broken = groups(1)
    broken[2].crops[0, 0, 0, 0] = float("nan")
    assert run_step(model, optimiser, broken, values(1), ALONE).skipped
    assert all(torch.equal(before[name], tensor) for name, tensor in whole(model).items())
    assert not run_step(model, optimiser, groups(1), values(1), ALONE).skipped


def test_bf16_stays_near(alone: Any) -> None:
    model = toy()
    model.student.float()
    model.teacher.float()
    parallelize(model, ALONE, "none", bf16=True)
    single = [Group(g.crops.float(), g.masks, local=g.local.float()) for g in groups(0) if g.local is not None]
    found = run_step(model, make_optimiser(model.student), single, values(0), ALONE)
    assert found.losses == pytest.approx(alone[3][0][0].losses, rel=0.02)
    assert found.losses["total"] != pytest.approx(alone[3][0][0].losses["total"], rel=1e-7)
