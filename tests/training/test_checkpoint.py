"""Checkpoints: bit-identical resumption, any number of processes, nothing lost when writing fails."""

from __future__ import annotations

import json
import os
from pathlib import Path
from unittest import mock

import pytest
import torch
from spawned import Resume, Save, set_up, spawn, toy, train, whole

from napari_dinobloom.encoders.architecture import ARCHITECTURES, Architecture
from napari_dinobloom.encoders.checkpoint import read_checkpoint, read_heads
from napari_dinobloom.encoders.positions import resample_positions
from napari_dinobloom.encoders.release import write_release
from napari_dinobloom.errors import EncoderError, StudyError
from napari_dinobloom.training import checkpoint
from napari_dinobloom.training.begin import start_from
from napari_dinobloom.training.checkpoint import Checkpoints, load
from napari_dinobloom.training.distillation import MaskedTransformer, Network, SelfDistillation
from napari_dinobloom.training.heads import DINOHead
from napari_dinobloom.training.optimiser import make_optimiser
from napari_dinobloom.training.parallel import World

ALONE = World(0, 1, 0, torch.device("cpu"))
Tensors = dict[str, torch.Tensor]


def _equal(one: Tensors, other: Tensors) -> bool:
    return all(torch.equal(one[name], tensor) for name, tensor in other.items())


def _near(one: Tensors, other: Tensors) -> float:
    return max(float((one[name] - tensor).abs().max()) for name, tensor in other.items())


def test_resuming_is_bit_identical(tmp_path: Path) -> None:
    straight = Save(tmp_path, "none")(ALONE)
    assert _equal(Resume(tmp_path, "none")(ALONE), straight)
    model, optimiser = set_up(ALONE)
    load(tmp_path / "iteration-00000003", model, optimiser, ALONE)
    optimiser.state.clear()  # without the moments it is another training
    train(ALONE, model, optimiser, range(3, 6))
    assert _near(whole(model), straight) > 1e-6


def test_written_by_two_processes_and_resumed_by_two_one_or_four(tmp_path: Path) -> None:
    shared = {strategy: tmp_path / strategy for strategy in ("ddp", "fsdp")}
    jobs = [job(shared[s], s) for s in shared for job in (Save, Resume)]
    straight: Tensors = {}
    for found in spawn(2, tmp_path, *jobs):
        assert len(found) == len(jobs), found[-1]
        assert _equal(found[0], found[1])
        assert _equal(found[2], found[3])
        straight = found[0]
    for folder in shared.values():
        assert _near(Resume(folder, "none")(ALONE), straight) < 1e-9
    for found in spawn(4, tmp_path, Resume(shared["ddp"], "fsdp")):
        assert _near(found[0], straight) < 1e-9


def test_the_newest_and_the_best_stay(tmp_path: Path) -> None:
    model, optimiser = set_up(ALONE)
    checkpoints = Checkpoints(tmp_path, ALONE, keep=2)
    for iteration in (1, 2, 3, 4, 5):
        checkpoints.save(model, optimiser, iteration, best=iteration == 2)
    checkpoints.finish()
    assert sorted(path.name[-1] for path in tmp_path.glob("iteration-*")) == ["2", "4", "5"]
    assert checkpoints.best() == tmp_path / "iteration-00000002"
    assert not any("pt" in path.suffix or path.suffix == ".metadata" for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("where", ["tensors", "state"])
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, where: str) -> None:
    model, optimiser = set_up(ALONE)
    checkpoints = Checkpoints(tmp_path, ALONE)
    checkpoints.save(model, optimiser, 1)
    checkpoints.finish()
    full = mock.Mock(side_effect=OSError(28, "No space left on device"))
    if where == "tensors":
        patched = mock.patch("torch.distributed.checkpoint.filesystem.FileSystem.create_stream", full)
    else:
        patched = mock.patch.object(checkpoint, "sync_folder", full)
    with patched:
        checkpoints.save(model, optimiser, 2)
        with pytest.raises(StudyError, match="iteration-00000002"):
            checkpoints.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["iteration-00000001"]  # what was begun takes no room either
    load(tmp_path / "iteration-00000001", model, optimiser, ALONE)
    checkpoints.save(model, optimiser, 2)
    checkpoints.finish()
    assert checkpoints.latest() == tmp_path / "iteration-00000002"


def test_what_a_killed_run_left_is_no_checkpoint_and_is_removed(tmp_path: Path) -> None:
    model, optimiser = set_up(ALONE)
    checkpoints = Checkpoints(tmp_path, ALONE)
    checkpoints.save(model, optimiser, 1)
    checkpoints.finish()
    os.rename(tmp_path / "iteration-00000001", tmp_path / ".iteration-00000002.part-writing")
    assert checkpoints.latest() is None
    assert Checkpoints(tmp_path, ALONE).latest() is None
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    model, optimiser = set_up(ALONE)
    checkpoints = Checkpoints(tmp_path, ALONE)
    checkpoints.save(model, optimiser, 1)
    checkpoints.finish()
    other = toy(width=12)
    before = whole(other)
    with pytest.raises(EncoderError, match=r"student.backbone.mask_token \[1, 16\] in place of \[1, 12\]"):
        load(tmp_path / "iteration-00000001", other, make_optimiser(other.student), ALONE)
    assert _equal(whole(other), before)
    state = tmp_path / "iteration-00000001" / "state.json"
    about = json.loads(state.read_text())
    state.write_text(json.dumps(about | {"format": 9}))
    with pytest.raises(EncoderError, match="format 9"):
        load(state.parent, model, optimiser, ALONE)
    with pytest.raises(EncoderError, match="no whole checkpoint"):
        load(tmp_path, model, optimiser, ALONE)


SMALL = Architecture("small", 16, 2, 2, 24)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> SelfDistillation:
    """A network of a size that is made known, with a teacher of its own."""
    monkeypatch.setitem(ARCHITECTURES, "small", SMALL)
    torch.manual_seed(0)
    backbone = MaskedTransformer(SMALL, 16)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model = SelfDistillation(Network(backbone, DINOHead(16, 6, 22, 10), DINOHead(16, 6, 22, 10)))
    for parameter in model.teacher.parameters():
        parameter.mul_(1.5)
    return model


def test_the_teacher_is_exported_and_training_starts_from_it(small: SelfDistillation, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "run", ALONE)
    shapes = {"zenodo": "t.pth", "bare": "t.bin", "timm": "timm.safetensors", "training": "t.safetensors"}
    for shape, name in shapes.items():
        checkpoints.export(small, tmp_path / name, shape)
    wanted = {name: tensor.clone() for name, tensor in small.teacher.state_dict().items()}
    for parameter in small.teacher.parameters():
        parameter.zero_()  # the export holds what was
    checkpoints.finish()
    for shape, name in shapes.items():
        found = read_checkpoint(tmp_path / name)
        assert all(torch.equal(wanted[f"backbone.{key}"], value) for key, value in found.state.items())
        assert (len(read_heads(tmp_path / name)) > 0) == (shape in ("zenodo", "training"))
    for name in ("t.pth", "t.safetensors"):
        started = start_from(tmp_path / name)
        assert _equal(started.state_dict(), wanted)
        assert _equal(SelfDistillation(started).teacher.state_dict(), wanted)


def test_starting_from_a_dinov2_file(small: SelfDistillation, tmp_path: Path) -> None:
    large = MaskedTransformer(SMALL, 37)
    torch.nn.init.normal_(large.pos_embed)
    write_release(large, tmp_path / "dinov2.bin", "bare")
    one, same, other = (start_from(tmp_path / "dinov2.bin", prototypes=9, bottleneck=4, seed=s) for s in (1, 1, 2))
    assert torch.equal(one.backbone.pos_embed, resample_positions(large.pos_embed.detach(), 16, "training"))
    assert _equal(one.state_dict(), same.state_dict())
    assert not torch.equal(one.dino_head.mlp[0].weight, other.dino_head.mlp[0].weight)
    assert not torch.equal(one.dino_head.mlp[0].weight, one.ibot_head.mlp[0].weight)
    assert one.dino_head.last_layer.weight_v.shape == (9, 4)
    assert one.ibot_head.last_layer.weight_v.shape == (9, 256)


def test_starting_from_another_kind_of_network_is_refused(tmp_path: Path) -> None:
    from torchvision.models import resnet50

    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in resnet50().state_dict().items()}
    torch.save({name: torch.zeros(shape) for name, shape in shapes.items()}, tmp_path / "resnet.pth")
    with pytest.raises(EncoderError, match=r"resnet\.pth: holds ResNet-50; training starts from a vision transformer"):
        start_from(tmp_path / "resnet.pth")
    (tmp_path / "resnet.pth").unlink()  # 100 MB


def test_heads_that_do_not_fit_are_refused(small: SelfDistillation, tmp_path: Path) -> None:
    heads = {"dino_head.last_layer.weight_v": torch.ones(5, 3)}
    write_release(small.teacher.backbone, tmp_path / "odd.pth", "zenodo", heads)
    with pytest.raises(EncoderError, match=r"odd.pth: dino_head\.\* is no head"):
        start_from(tmp_path / "odd.pth")
