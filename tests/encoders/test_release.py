from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from napari_dinobloom.cli import app
from napari_dinobloom.encoders import architecture
from napari_dinobloom.encoders.architecture import Architecture, Network
from napari_dinobloom.encoders.checkpoint import Checkpoint, read_checkpoint, read_heads
from napari_dinobloom.encoders.networks.vit import VisionTransformer
from napari_dinobloom.encoders.release import export_weights, write_release
from napari_dinobloom.errors import EncoderError, StudyError

HEADS = {"dino_head.mlp.0.weight": torch.arange(4.0).view(2, 2), "ibot_head.last_layer.weight_v": torch.ones(3, 2)}
NAMES = {"zenodo": "a.pth", "bare": "a.bin", "timm": "a.safetensors", "training": "b.safetensors"}
FOUND = {"zenodo": "teacher", "bare": "bare DINOv2", "timm": "timm", "training": "training"}


@pytest.fixture(params=[False, True], ids=["gelu", "swiglu"])
def checkpoint(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    arch = Architecture("toy", 32, 2, 2, 24, swiglu=request.param)
    monkeypatch.setitem(architecture.ARCHITECTURES, "toy", arch)
    random = torch.Generator().manual_seed(1)
    state = {key: torch.randn(shape, generator=random) for key, shape in arch.shapes(4).items()}
    return Checkpoint(Path("made.pth"), "teacher", arch, 4, state, torch.randn(1, 32, generator=random))


@pytest.mark.parametrize("shape", NAMES)
def test_each_shape_comes_back_bit_by_bit(tmp_path: Path, checkpoint: Checkpoint, shape: str) -> None:
    path = tmp_path / NAMES[shape]
    write_release(checkpoint, path, shape, HEADS)
    found = read_checkpoint(path)
    assert (found.shape, found.architecture, found.grid) == (FOUND[shape], checkpoint.architecture, 4)
    assert found.state.keys() == checkpoint.state.keys()
    assert all(torch.equal(found.state[key], value) for key, value in checkpoint.state.items())
    if shape == "timm":
        assert found.mask_token is None
    else:
        assert found.mask_token is not None
        assert torch.equal(found.mask_token, checkpoint.mask_token)
    heads = read_heads(path)
    assert set(heads) == (set(HEADS) if shape in ("zenodo", "training") else set())
    assert all(torch.equal(heads[key], HEADS[key]) for key in heads)
    assert [file.name for file in tmp_path.iterdir()] == [NAMES[shape]], "no temporary file is left"


def test_key_names_are_those_of_the_releases(tmp_path: Path, checkpoint: Checkpoint) -> None:
    for shape, name in NAMES.items():
        write_release(checkpoint, tmp_path / name, shape, HEADS)
    bare = torch.load(tmp_path / "a.bin", weights_only=True)
    teacher = torch.load(tmp_path / "a.pth", weights_only=True)
    assert set(teacher) == {"teacher"}
    assert set(teacher["teacher"]) == {f"backbone.{key}" for key in bare} | set(HEADS)
    assert bare["mask_token"].shape == (1, 32)
    gated = {key for key in bare if ".w12." in key or ".w3." in key}
    assert len(gated) == (8 if checkpoint.architecture.swiglu else 0)
    assert set(load_file(tmp_path / "a.safetensors")) == set(checkpoint.architecture.shapes(4))
    assert set(load_file(tmp_path / "b.safetensors")) == {*checkpoint.architecture.shapes(4), "mask_token", *HEADS}


def test_a_module_is_written_as_its_checkpoint(tmp_path: Path, checkpoint: Checkpoint) -> None:
    model = VisionTransformer(checkpoint.architecture, 4)
    model.load_state_dict(checkpoint.state)
    model.register_parameter("mask_token", torch.nn.Parameter(checkpoint.mask_token))
    write_release(model, tmp_path / "a.pth", "zenodo")
    write_release(checkpoint, tmp_path / "b.pth", "zenodo")
    ours, theirs = (torch.load(tmp_path / name, weights_only=True)["teacher"] for name in ("a.pth", "b.pth"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_without_a_mask_token_dinov2s_shapes_get_zeros(tmp_path: Path, checkpoint: Checkpoint) -> None:
    write_release(checkpoint, tmp_path / "a.safetensors", "timm")
    write_release(read_checkpoint(tmp_path / "a.safetensors"), tmp_path / "a.bin", "bare")
    assert torch.equal(torch.load(tmp_path / "a.bin", weights_only=True)["mask_token"], torch.zeros(1, 32))


def test_what_cannot_be_written_is_said_before(tmp_path: Path, checkpoint: Checkpoint) -> None:
    older = tmp_path / "a.pth"
    older.write_bytes(b"older")
    resnet = Checkpoint(Path("r.pth"), "torchvision", Network("ResNet-50"), None, {})
    for call, words in [
        (lambda: write_release(checkpoint, older, "hub"), "Shape 'hub' is unknown. Give zenodo, bare"),
        (lambda: write_release(checkpoint, older, "timm"), "a.pth: a file of shape timm ends with .safetensors"),
        (lambda: write_release(checkpoint, older, "zenodo", {"head.x": torch.ones(1)}), "got head.x"),
        (lambda: write_release(resnet, older, "zenodo"), "r.pth: holds ResNet-50"),
        (lambda: write_release(torch.nn.Linear(2, 2), older, "zenodo"), "Linear is no vision transformer"),
    ]:
        with pytest.raises(EncoderError) as caught:
            call()
        assert words in str(caught.value)
    with pytest.raises(StudyError, match="gone"):
        write_release(checkpoint, tmp_path / "gone" / "a.pth", "zenodo")
    with pytest.raises((EncoderError, StudyError), match="gone"):
        write_release(checkpoint, tmp_path / "gone" / "a.safetensors", "timm")
    assert older.read_bytes() == b"older"


def test_an_encoder_is_exported_by_path_and_by_name(
    tmp_path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_DINOBLOOM_CACHE", str(tmp_path / "cache"))
    write_release(checkpoint, tmp_path / "a.pth", "zenodo", HEADS)
    export_weights(tmp_path / "a.pth", tmp_path / "b.safetensors", "training")
    assert set(read_heads(tmp_path / "b.safetensors")) == set(HEADS)
    with pytest.raises(EncoderError, match="this is the file that would be read"):
        export_weights(tmp_path / "b.safetensors", tmp_path / "b.safetensors", "timm")
    export_weights("starter", tmp_path / "starter.bin", "bare")
    assert read_checkpoint(tmp_path / "starter.bin").architecture.name == "tiny"


def test_the_command_exports_and_says_what_is_wrong(
    tmp_path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_DINOBLOOM_CACHE", str(tmp_path / "cache"))
    write_release(checkpoint, tmp_path / "a.pth", "zenodo", HEADS)

    def export(*words: object) -> Result:
        return CliRunner().invoke(app, ["weights", "export", *map(str, words)])

    done = export(tmp_path / "a.pth", "-o", tmp_path / "b.safetensors", "--shape", "timm")
    assert done.exit_code == 0, done.output
    assert read_checkpoint(tmp_path / "b.safetensors").shape == "timm"
    wrong = export(tmp_path / "a.pth", "-o", tmp_path / "b.bin", "--shape", "timm")
    assert wrong.exit_code != 0
    assert not (tmp_path / "b.bin").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_others_may_read_what_was_written(tmp_path: Path, checkpoint: Checkpoint) -> None:
    (tmp_path / "plain").touch()
    for shape, name in NAMES.items():
        write_release(checkpoint, tmp_path / name, shape)
        assert (tmp_path / name).stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_half_precision_is_exported_as_the_same_numbers(tmp_path: Path, checkpoint: Checkpoint) -> None:
    save_file({key: value.half() for key, value in checkpoint.state.items()}, tmp_path / "half.safetensors")
    export_weights(tmp_path / "half.safetensors", tmp_path / "full.bin", "bare")
    found = read_checkpoint(tmp_path / "full.bin")
    assert all(torch.equal(found.state[key], value.half().float()) for key, value in checkpoint.state.items())
