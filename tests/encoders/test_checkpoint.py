from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from napari_dinobloom.encoders import architecture
from napari_dinobloom.encoders.architecture import Architecture, Network
from napari_dinobloom.encoders.checkpoint import read_checkpoint, read_heads
from napari_dinobloom.errors import EncoderError

State = dict[str, torch.Tensor]
HEADS = {"dino_head.mlp.0.weight": torch.ones(2, 2), "ibot_head.last_layer.weight_g": torch.full((2, 1), 3.0)}


def _stored(state: State, shape: str) -> object:
    """The same weights as each release stores them."""
    bare = state | {"mask_token": torch.ones(1, 32)}
    if shape == "teacher":
        return {"teacher": {f"backbone.{key}": value for key, value in bare.items()} | HEADS}
    return bare if shape == "bare DINOv2" else bare | HEADS


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
    assert found.state.keys() == toy_state.keys()
    assert all(torch.equal(found.state[key], toy_state[key]) for key in toy_state)


@pytest.mark.parametrize(
    ("name", "container"),
    [
        *((name, container) for name in ("teacher", "bare DINOv2", "training") for container in ("zip", "old torch")),
        *((name, "safetensors") for name in ("bare DINOv2", "training")),
    ],
)
def test_each_shape_in_each_container(tmp_path: Path, toy_state: State, name: str, container: str) -> None:
    path, stored = tmp_path / "weights.any", _stored(toy_state, name)
    if container == "safetensors":
        save_file(stored, path)
    else:
        torch.save(stored, path, _use_new_zipfile_serialization=container == "zip")
    found = read_checkpoint(path)
    assert found.shape == name
    assert found.state.keys() == toy_state.keys()
    assert all(torch.equal(found.state[key], toy_state[key]) for key in toy_state)
    assert found.mask_token is not None
    assert torch.equal(found.mask_token, torch.ones(1, 32))
    heads = read_heads(path)
    assert set(heads) == (set() if name == "bare DINOv2" else set(HEADS))
    assert all(torch.equal(heads[key], HEADS[key]) for key in heads)


def test_what_was_read_does_not_hang_on_the_file(tmp_path: Path, toy_state: State) -> None:
    for name in ("a.pth", "a.safetensors"):
        path = tmp_path / name
        if name.endswith("pth"):
            torch.save(toy_state, path)
        else:
            save_file(toy_state, path)
        found = read_checkpoint(path)
        path.write_bytes(b"")
        assert all(torch.equal(found.state[key], toy_state[key]) for key in toy_state)


def test_giants_names_become_those_of_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gated = Architecture("gated", 32, 2, 2, 24, swiglu=True)
    monkeypatch.setitem(architecture.ARCHITECTURES, "gated", gated)
    state = {key: torch.randn(shape) for key, shape in gated.shapes().items()}
    theirs = {key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): value for key, value in state.items()}
    torch.save(theirs, tmp_path / "g.bin")
    found = read_checkpoint(tmp_path / "g.bin")
    assert (found.shape, found.architecture) == ("bare DINOv2", gated)
    assert all(torch.equal(found.state[key], state[key]) for key in state)


@pytest.mark.parametrize("swiglu", [False, True])
@pytest.mark.parametrize("prefix", ["", "dinov2."])
def test_transformers_names_of_dinov2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swiglu: bool, prefix: str
) -> None:
    arch = Architecture("one", 32, 2, 2, 24, swiglu=swiglu)
    monkeypatch.setitem(architecture.ARCHITECTURES, "one", arch)
    state = {key: torch.randn(shape) for key, shape in arch.shapes(4).items()}
    theirs = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.mask_token": torch.ones(1, 32),
        "embeddings.position_embeddings": state["pos_embed"],
        "embeddings.patch_embeddings.projection.weight": state["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": state["patch_embed.proj.bias"],
        "layernorm.weight": state["norm.weight"],
        "layernorm.bias": state["norm.bias"],
    }
    first, second = ("weights_in", "weights_out") if swiglu else ("fc1", "fc2")
    for block in range(2):
        old, new = f"encoder.layer.{block}", f"blocks.{block}"
        for end in ("weight", "bias"):
            query, key, value = state[f"{new}.attn.qkv.{end}"].split(32)
            theirs |= {
                f"{old}.attention.attention.query.{end}": query.clone(),
                f"{old}.attention.attention.key.{end}": key.clone(),
                f"{old}.attention.attention.value.{end}": value.clone(),
                f"{old}.attention.output.dense.{end}": state[f"{new}.attn.proj.{end}"],
                f"{old}.norm1.{end}": state[f"{new}.norm1.{end}"],
                f"{old}.norm2.{end}": state[f"{new}.norm2.{end}"],
                f"{old}.mlp.{first}.{end}": state[f"{new}.mlp.fc1.{end}"],
                f"{old}.mlp.{second}.{end}": state[f"{new}.mlp.fc2.{end}"],
            }
        theirs |= {f"{old}.layer_scale{i}.lambda1": state[f"{new}.ls{i}.gamma"] for i in (1, 2)}
    save_file({f"{prefix}{key}": value for key, value in theirs.items()}, tmp_path / "model.safetensors")
    found = read_checkpoint(tmp_path / "model.safetensors")
    assert (found.shape, found.architecture, found.grid) == ("transformers", arch, 4)
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[key], state[key]) for key in state)
    assert found.mask_token is not None
    del theirs["encoder.layer.1.attention.attention.key.bias"]
    save_file(theirs, tmp_path / "model.safetensors")
    with pytest.raises(EncoderError, match=r"missing blocks\.1\.attn\.qkv\.bias; left over blocks\.1\.attn\.query"):
        read_checkpoint(tmp_path / "model.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precision_becomes_float32(tmp_path: Path, toy_state: State, dtype: torch.dtype) -> None:
    save_file({key: value.to(dtype) for key, value in toy_state.items()}, tmp_path / "other.safetensors")
    found = read_checkpoint(tmp_path / "other.safetensors")
    assert all(value.dtype == torch.float32 for value in found.state.values())
    assert all(torch.equal(found.state[key], toy_state[key].to(dtype).float()) for key in toy_state)


def test_large_numbers_whose_sum_overflows_are_no_error(tmp_path: Path, toy_state: State) -> None:
    large = toy_state | {"norm.bias": torch.full((32,), 3e38)}
    save_file(large, tmp_path / "large.safetensors")
    assert torch.equal(read_checkpoint(tmp_path / "large.safetensors").state["norm.bias"], large["norm.bias"])


def _without(state: State) -> State:
    return {key: value for key, value in state.items() if key != "norm.bias"}


def _infinite(state: State) -> State:
    weight = state["blocks.1.mlp.fc1.weight"].clone()
    weight[3, 5], weight[4, 5] = torch.inf, -torch.inf
    return state | {"blocks.1.mlp.fc1.weight": weight}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without, ["missing norm.bias", "architecture toy"]),
        (lambda s: s | {"register_tokens": torch.ones(1, 4, 32)}, ["left over register_tokens", "without registers"]),
        (lambda s: s | {"norm.bias": torch.ones(31)}, ["wrong norm.bias (31,) in place of (32,)"]),
        (lambda s: s | {"cls_token": torch.ones(1, 1, 48)}, ["dimension 48, 2 blocks", "none of the known sizes"]),
        (lambda s: {"conv1.weight": torch.ones(2)}, ["no network that is recognised", "conv1.weight", "timm:NAME"]),
        (lambda s: s | {"pos_embed": torch.ones(1, 200, 32)}, ["wrong pos_embed (1, 200, 32)"]),
        (lambda s: s | {"norm.bias": torch.full((32,), torch.nan)}, ["norm.bias", "undefined numbers"]),
        (_infinite, ["blocks.1.mlp.fc1.weight", "infinite"]),
        (lambda s: s | {"norm.bias": torch.ones(32, dtype=torch.int8)}, ["norm.bias", "int8"]),
        (lambda s: s | {"mask_token": torch.ones(1, 31)}, ["mask_token has 31 numbers in place of 32"]),
        (lambda s: s | {"blocks.0.mlp.w12.weight": torch.ones(64, 32)}, ["'blocks.0.mlp.fc1.weight' twice"]),
        (lambda s: s | {"layer1.0.conv1.weight": torch.ones(1)}, ["ResNet-50", "missing conv1.weight", "left over"]),
        *(
            (lambda s, key=key, size=size: s | {key: torch.ones(size)}, [f"{key} with {len(size)} axes in place of"])
            for key, size in (
                ("cls_token", ()),
                ("cls_token", (32,)),
                ("blocks.0.mlp.fc1.weight", ()),
                ("blocks.0.mlp.fc2.weight", ()),
                ("blocks.1.attn.qkv.bias", (96, 1)),
                ("patch_embed.proj.weight", ()),
                ("pos_embed", (5,)),
            )
        ),
        (
            lambda s: s | {"pos_embed": torch.ones(1, 129 * 129 + 1, 32)},
            ["129 x 129 patches", "at most 128 x 128 are read"],
        ),
    ],
)
@pytest.mark.parametrize("container", ["safetensors", "torch"])
def test_what_does_not_fit_is_named(tmp_path: Path, toy_state: State, change, words: list[str], container: str) -> None:
    path = tmp_path / "changed.weights"
    if container == "safetensors":
        save_file(change(toy_state), path)
    else:
        torch.save(change(toy_state), path)
    with pytest.raises(EncoderError) as caught:
        read_checkpoint(path)
    assert all(word in str(caught.value) for word in [str(path), *words]), str(caught.value)


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_tensor_that_repeats_a_few_numbers_takes_no_memory(tmp_path: Path, toy_state: State, wrapped: bool) -> None:
    state = toy_state | {"pos_embed": torch.zeros(1, 1, 32).expand(1, 200_000**2 + 1, 32)}
    swollen = {"teacher": {f"backbone.{key}": value for key, value in state.items()}} if wrapped else state
    torch.save(swollen, tmp_path / "x.pth")
    assert (tmp_path / "x.pth").stat().st_size < 1 << 20
    with pytest.raises(EncoderError, match=r"x\.pth: tensors (backbone\.)?pos_embed repeat their numbers"):
        read_checkpoint(tmp_path / "x.pth")
    heads = {"teacher": {"dino_head.last_layer.weight_v": torch.zeros(1, 1).expand(1 << 20, 1 << 20)}}
    torch.save(heads, tmp_path / "x.pth")
    with pytest.raises(EncoderError, match="repeat their numbers"):
        read_heads(tmp_path / "x.pth")


@pytest.mark.parametrize(("key", "size"), [("mlp.0.weight", ()), ("mlp.2.bias", (2, 2)), ("last_layer.weight_v", (4,))])
def test_heads_of_another_shape_are_named(tmp_path: Path, toy_state: State, key: str, size: tuple[int, ...]) -> None:
    save_file(toy_state | {f"ibot_head.{key}": torch.ones(size)}, tmp_path / "x.safetensors")
    with pytest.raises(EncoderError, match=rf"x\.safetensors: heads with a wrong number of axes: ibot_head\.{key}"):
        read_heads(tmp_path / "x.safetensors")


def test_names_in_a_file_cannot_write_to_the_terminal(tmp_path: Path, toy_state: State) -> None:
    save_file(toy_state | {"\x1b[2Jall is well\n": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(EncoderError, match="all is well") as caught:
        read_checkpoint(tmp_path / "x.safetensors")
    assert str(caught.value).isprintable()


def test_tensors_of_another_kind_are_named(tmp_path: Path, toy_state: State) -> None:
    for strange in (torch.ones(32).to_sparse(), torch.ones(32, dtype=torch.complex64)):
        torch.save(toy_state | {"norm.bias": strange}, tmp_path / "x.pth")
        with pytest.raises(EncoderError, match=r"x\.pth.*norm\.bias"):
            read_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "holds a list"),
        ({"teacher": 3}, "'teacher' is a int"),
        ({"model": [1]}, "'model' is a list"),
        (
            {"teacher": {"backbone.norm.bias": torch.ones(2), "optimizer.x": torch.ones(1)}},
            "left-over keys optimizer.x",
        ),
        ({"teacher": {"dino_head.x": torch.ones(1)}}, "no backbone.* keys"),
        ({"teacher": {}}, "no backbone.* keys"),
        ({"epoch": 3, "state": [1]}, "entries epoch, state are not tensors"),
        ({"teacher": {"backbone.norm.bias": "text"}}, "entries backbone.norm.bias are not tensors"),
    ],
)
def test_other_things_written_by_torch_are_named(tmp_path: Path, content: object, words: str) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(EncoderError, match=r"x\.pth") as caught:
        read_checkpoint(tmp_path / "x.pth")
    assert words in str(caught.value)


@pytest.mark.parametrize("kind", ["safetensors", "zip", "old torch"])
def test_a_truncated_file_is_named_wherever_it_is_cut(tmp_path: Path, toy_state: State, kind: str) -> None:
    whole, path = tmp_path / "whole", tmp_path / "cut.bin"
    if kind == "safetensors":
        save_file(toy_state, whole)
    else:
        torch.save(_stored(toy_state, "teacher"), whole, _use_new_zipfile_serialization=kind == "zip")
    content = whole.read_bytes()
    read_checkpoint(whole)
    for left in (1, 9, 60, 600, len(content) // 3, len(content) // 2, len(content) - 100, len(content) - 1):
        path.write_bytes(content[:left])
        with pytest.raises(EncoderError, match=r"cut\.bin.*(truncated or damaged|neither a safetensors)"):
            read_checkpoint(path)


def test_empty_foreign_and_absent_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "page.pth").write_text("<!doctype html><title>Sign in</title>")
    with tarfile.open(tmp_path / "old.pth", "w") as archive:
        info = tarfile.TarInfo("sys_info")
        archive.addfile(info, io.BytesIO())
    for name, words in [
        ("empty.pth", "is empty"),
        ("page.pth", "neither a safetensors"),
        ("gone.pth", "cannot be read"),
        ("old.pth", "a tar file"),
        (".", "cannot be read"),
    ]:
        with pytest.raises(EncoderError, match=words) as caught:
            read_checkpoint(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_a_compiled_program_is_refused(tmp_path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(str(tmp_path / "program.pt"))
    with pytest.raises(EncoderError, match=r"program\.pt: refused"):
        read_checkpoint(tmp_path / "program.pt")


class Malicious:
    """Unpickles to a call of the shell."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("written", ["zip", "old torch", "plain pickle"])
@pytest.mark.parametrize("hidden", ["beside", "as the teacher", "among the teacher's tensors"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, toy_state: State, written: str, hidden: str) -> None:
    mark, path = tmp_path / "it_ran", tmp_path / "evil.pth"
    teacher = {f"backbone.{key}": value for key, value in toy_state.items()}
    content: object = {
        "beside": {"teacher": teacher, "extra": Malicious(mark)},
        "as the teacher": {"teacher": Malicious(mark)},
        "among the teacher's tensors": {"teacher": teacher | {"backbone.norm.bias": Malicious(mark)}},
    }[hidden]
    if written == "plain pickle":
        path.write_bytes(pickle.dumps(Malicious(mark) if hidden == "beside" else {"teacher": Malicious(mark)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=written == "zip")
    for read in (read_checkpoint, read_heads):
        with pytest.raises(EncoderError, match=r"evil\.pth: refused.*run code"):
            read(path)
    assert not mark.exists()
    if written == "plain pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert mark.exists(), "the test's own pickle must be one that acts"


def test_nothing_beside_the_file_is_read(tmp_path: Path, toy_state: State) -> None:
    folder = tmp_path / "vit_small_patch14_224.dinobloom"
    folder.mkdir()
    save_file(toy_state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"pretrained_cfg": {"input_size": [3, 518, 518]}}))
    assert read_checkpoint(folder / "model.safetensors").grid == 16


def test_a_network_that_is_expected_by_name(tmp_path: Path, toy_file: Path) -> None:
    with pytest.raises(EncoderError, match=r"timm:resnet18.*missing conv1\.weight.*left over"):
        read_checkpoint(toy_file, Network("timm:resnet18.a1_in1k"))
