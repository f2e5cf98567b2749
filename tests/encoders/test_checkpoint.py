from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from napari_dinobloom.encoders.checkpoint import file_hash, read_checkpoint
from napari_dinobloom.errors import EncoderError

State = dict[str, torch.Tensor]


def _shapes_of(state: State) -> dict[str, object]:
    """The same weights as each release stores them."""
    bare = state | {"mask_token": torch.ones(1, 32)}
    heads = {"dino_head.mlp.0.weight": torch.ones(2, 2), "ibot_head.last_layer.weight_g": torch.ones(2, 1)}
    return {"teacher": {"teacher": {f"backbone.{key}": value for key, value in bare.items()} | heads}, "bare": bare}


@pytest.fixture
def toy_file(tmp_path: Path, toy_state: State) -> Path:
    path = tmp_path / "toy.safetensors"
    save_file(toy_state, path, metadata={"made": "by a test"})
    return path


def test_timm_keys_in_safetensors(toy_file: Path, toy_state: State) -> None:
    found = read_checkpoint(toy_file)
    assert (found.shape, found.architecture.name, found.grid) == ("timm", "toy", 16)
    assert found.metadata == {"made": "by a test"}
    assert found.mask_token is None
    assert found.sha256 == hashlib.sha256(toy_file.read_bytes()).hexdigest() == file_hash(toy_file)
    assert found.state.keys() == toy_state.keys()
    assert all(torch.equal(found.state[key], toy_state[key]) for key in toy_state)


@pytest.mark.parametrize(("shape", "name"), [("teacher", "teacher"), ("bare", "bare DINOv2")])
@pytest.mark.parametrize("zipped", [True, False])
def test_shapes_written_by_torch(tmp_path: Path, toy_state: State, shape: str, name: str, zipped: bool) -> None:
    path = tmp_path / "weights.pth"
    torch.save(_shapes_of(toy_state)[shape], path, _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(path)
    assert found.shape == name
    assert all(torch.equal(found.state[key], toy_state[key]) for key in toy_state)
    assert found.mask_token is not None
    assert torch.equal(found.mask_token, torch.ones(1, 32))


def test_giants_names_become_those_of_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_dinobloom.encoders import architecture

    gated = architecture.Architecture("gated", 32, 2, 2, 24, swiglu=True)
    monkeypatch.setitem(architecture.ARCHITECTURES, "gated", gated)
    state = {key: torch.randn(shape) for key, shape in gated.shapes().items()}
    theirs = {key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): value for key, value in state.items()}
    torch.save(theirs, tmp_path / "g.bin")
    found = read_checkpoint(tmp_path / "g.bin")
    assert (found.shape, found.architecture) == ("bare DINOv2", gated)
    assert all(torch.equal(found.state[key], state[key]) for key in state)


def test_half_precision_becomes_float32(tmp_path: Path, toy_state: State) -> None:
    save_file({key: value.half() for key, value in toy_state.items()}, tmp_path / "half.safetensors")
    found = read_checkpoint(tmp_path / "half.safetensors")
    assert all(value.dtype == torch.float32 for value in found.state.values())
    assert all(torch.equal(found.state[key], toy_state[key].half().float()) for key in toy_state)


def _without(state: State) -> State:
    return {key: value for key, value in state.items() if key != "norm.bias"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without, ["missing norm.bias", "architecture toy"]),
        (lambda s: s | {"register_tokens": torch.ones(1, 4, 32)}, ["left over register_tokens"]),
        (lambda s: s | {"norm.bias": torch.ones(31)}, ["wrong norm.bias (31,) in place of (32,)"]),
        (lambda s: s | {"cls_token": torch.ones(1, 1, 48)}, ["dimension 48, 2 blocks", "none of the known sizes"]),
        (lambda s: {"conv1.weight": torch.ones(2)}, ["no vision transformer", "conv1.weight"]),
        (lambda s: s | {"pos_embed": torch.ones(1, 200, 32)}, ["wrong pos_embed (1, 200, 32)"]),
        (lambda s: s | {"norm.bias": torch.full((32,), torch.nan)}, ["norm.bias", "undefined numbers"]),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, toy_state: State, change, words: list[str]) -> None:
    path = tmp_path / "changed.safetensors"
    save_file(change(toy_state), path)
    with pytest.raises(EncoderError) as caught:
        read_checkpoint(path)
    assert all(word in str(caught.value) for word in [str(path), *words]), str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "holds a list"),
        ({"teacher": 3}, "'teacher' is a int"),
        (
            {"teacher": {"backbone.norm.bias": torch.ones(2), "optimizer.x": torch.ones(1)}},
            "left-over keys optimizer.x",
        ),
        ({"teacher": {"dino_head.x": torch.ones(1)}}, "no backbone.* keys"),
        ({"epoch": 3, "state": [1]}, "entries epoch, state are not tensors"),
    ],
)
def test_other_things_written_by_torch_are_named(tmp_path: Path, content: object, words: str) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(EncoderError, match=r"x\.pth") as caught:
        read_checkpoint(tmp_path / "x.pth")
    assert words in str(caught.value)


@pytest.mark.parametrize("kind", ["safetensors", "teacher", "bare"])
@pytest.mark.parametrize("left", [0.999, 0.5, 0.001])
def test_a_truncated_file_is_named(tmp_path: Path, toy_state: State, kind: str, left: float) -> None:
    whole, path = tmp_path / "whole", tmp_path / "cut.bin"
    if kind == "safetensors":
        save_file(toy_state, whole)
    else:
        torch.save(_shapes_of(toy_state)[kind], whole)
    content = whole.read_bytes()
    path.write_bytes(content[: int(len(content) * left)])
    with pytest.raises(EncoderError, match=r"cut\.bin.*truncated or damaged"):
        read_checkpoint(path)


def test_empty_foreign_and_absent_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "page.pth").write_text("<!doctype html><title>Sign in</title>")
    for name, words in [
        ("empty.pth", "is empty"),
        ("page.pth", "neither a safetensors"),
        ("gone.pth", "cannot be read"),
    ]:
        with pytest.raises(EncoderError, match=words) as caught:
            read_checkpoint(tmp_path / name)
        assert name in str(caught.value)


class Malicious:
    """Unpickles to a call of the shell."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("written", ["zip", "old torch", "plain pickle"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, toy_state: State, written: str) -> None:
    mark, path = tmp_path / "it ran".replace(" ", "_"), tmp_path / "evil.pth"
    content = {"teacher": {"backbone.norm.bias": toy_state["norm.bias"]}, "extra": Malicious(mark)}
    if written == "plain pickle":
        path.write_bytes(pickle.dumps(Malicious(mark)))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=written == "zip")
    with pytest.raises(EncoderError, match=r"evil\.pth: refused.*run code"):
        read_checkpoint(path)
    assert not mark.exists()
    if written == "plain pickle":
        pickle.loads(path.read_bytes())
        assert mark.exists(), "the test's own pickle must be one that acts"
