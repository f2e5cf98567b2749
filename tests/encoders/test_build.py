from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from napari_dinobloom.encoders import library, registry
from napari_dinobloom.encoders.build import load_backbone
from napari_dinobloom.encoders.encoder import load_encoder
from napari_dinobloom.encoders.imports import import_checkpoint
from napari_dinobloom.encoders.networks.ctranspath import CTransPath
from napari_dinobloom.encoders.positions import resample_positions
from napari_dinobloom.encoders.registry import REGISTRY, WeightSource, vit_spec
from napari_dinobloom.errors import EncoderError

State = dict[str, torch.Tensor]
X = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def _shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Move every parameter, so that biases and norms count too, which begin as zeros and ones."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn(value.shape, generator=random) * 0.05)
    return model.eval()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of weights."""
    monkeypatch.setenv("NAPARI_DINOBLOOM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def _enter(monkeypatch: pytest.MonkeyPatch, size: str, source: WeightSource, **more: str) -> None:
    monkeypatch.setitem(REGISTRY, "Toy", vit_spec("Toy", size, licence="none", sources=(source,), **more))


def test_all_shapes_load_into_the_same_network(tmp_path: Path, toy_state: State) -> None:
    mask = torch.ones(1, 32)
    torch.save({"teacher": {f"backbone.{key}": value for key, value in toy_state.items()}}, tmp_path / "a.pth")
    torch.save(toy_state | {"mask_token": mask}, tmp_path / "b.bin")
    save_file(toy_state, tmp_path / "c.safetensors")
    with torch.inference_mode():
        tokens = [load_backbone(tmp_path / name).backbone(X) for name in ("a.pth", "b.bin", "c.safetensors")]
    assert torch.equal(tokens[0], tokens[1])
    assert torch.equal(tokens[0], tokens[2])
    assert tokens[0].shape == (1, 257, 32)
    loaded = load_backbone(tmp_path / "b.bin")
    assert loaded.mask_token is not None
    assert torch.equal(loaded.mask_token, mask)
    assert (loaded.spec.name, loaded.spec.licence, loaded.positions) == ("b", "unknown", None)
    assert not loaded.backbone.training
    assert all(not value.requires_grad and not value.is_meta for value in loaded.backbone.parameters())


def test_dinov2s_entries_resample_by_the_hubs_rule_and_others_only_when_asked(
    folder: Path, toy_state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = toy_state | {"pos_embed": torch.randn(1, 1370, 32, generator=torch.Generator().manual_seed(1))}
    save_file(wide, folder / "Toy.safetensors")
    source = WeightSource("https://example.org/Toy", "Toy.safetensors")
    _enter(monkeypatch, "toy", source)
    with pytest.raises(EncoderError, match=r"518 px pictures, 224 px are used here.*positions='hub'"):
        load_backbone("Toy")
    _enter(monkeypatch, "toy", source, positions="hub")
    for asked, used in ((None, "hub"), ("training", "training"), ("timm", "timm")):
        loaded = load_backbone("Toy", positions=asked)
        assert loaded.positions == used
        expected = resample_positions(wide["pos_embed"], 16, used)
        assert torch.equal(loaded.backbone.state_dict()["pos_embed"], expected)


def test_the_upload_whose_config_says_518_px_runs_at_224(folder: Path, toy_state: State) -> None:
    upload = folder / "vit_small_patch14_224.dinobloom"
    upload.mkdir()
    save_file(toy_state, upload / "model.safetensors", metadata={"format": "pt"})
    config = {"architecture": "vit_small_patch14_dinov2", "pretrained_cfg": {"input_size": [3, 518, 518]}}
    (upload / "config.json").write_text(json.dumps(config))
    loaded = load_backbone(upload / "model.safetensors")
    assert (loaded.spec.input_size, loaded.spec.grid, loaded.positions) == (224, 16, None)
    with torch.inference_mode():
        assert loaded.backbone(X).shape == (1, 257, 32)
    assert torch.equal(loaded.backbone.state_dict()["pos_embed"], toy_state["pos_embed"])


def test_a_file_of_another_architecture_is_named(
    folder: Path, toy_state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(toy_state, folder / "Toy.safetensors")
    source = WeightSource("https://example.org/Toy", "Toy.safetensors")
    _enter(monkeypatch, "S", source)
    with pytest.raises(EncoderError, match=r"Toy\.safetensors: holds architecture toy, but Toy is S"):
        load_backbone("Toy")
    save_file(toy_state, folder / "resnet50-11ad3fa6.pth")
    monkeypatch.setitem(REGISTRY, "ResNet-50", registry.spec_of(REGISTRY["ResNet-50"].architecture, "ResNet-50",
                                                               sources=(source,)))  # fmt: skip
    with pytest.raises(EncoderError, match="holds architecture toy, but ResNet-50 is ResNet-50"):
        load_backbone("ResNet-50")


@pytest.mark.parametrize("known", ["sha256", "sha256_prefix"])
def test_another_hash_than_the_published_one_is_refused(
    folder: Path, toy_state: State, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    save_file(toy_state, folder / "Toy.safetensors")
    right = library.identify(folder / "Toy.safetensors")
    for value in (right[:8], "0" * 8):
        whole = right if value == right[:8] else "0" * 64
        stated = {known: whole if known == "sha256" else value}
        _enter(monkeypatch, "toy", WeightSource("https://example.org/Toy", "Toy.safetensors", **stated))
        if whole == right:
            assert load_backbone("Toy").sha256 == right
        else:
            with pytest.raises(EncoderError, match=rf"sha256 is {right}, but Toy is published as 0{{8}}"):
                load_backbone("Toy")


def test_resnet_from_torchvisions_file_whole_and_cut(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import resnet50

    torch.manual_seed(0)
    other = resnet50(weights=None).eval()
    file = REGISTRY["ResNet-50"].sources[0].file
    torch.save(other.state_dict(), folder / file)
    with pytest.raises(EncoderError, match=r"published as 11ad3fa6\.\.\."):
        load_backbone("ResNet-50")
    for name in ("ResNet-50", "ResNet-50-stage3"):
        own = registry.spec_of(REGISTRY[name].architecture, name, sources=(WeightSource("https://x", file),))
        monkeypatch.setitem(REGISTRY, name, own)
    whole, cut, path = load_backbone("ResNet-50"), load_backbone("ResNet-50-stage3"), load_backbone(folder / file)
    with torch.inference_mode():
        torch.testing.assert_close(whole.backbone.pooled(X), other(X))
        torch.testing.assert_close(path.backbone.pooled(X), other(X))
        assert cut.backbone.pooled(X).shape == (1, 1024)
    assert path.spec.pooling == "logits"
    mean, std = (np.float32(value).reshape(3, 1, 1) for value in (path.spec.mean, path.spec.std))
    crop = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    with load_encoder(folder / file, device="cpu") as encoder, torch.inference_mode():
        expected = other(torch.from_numpy((crop.transpose(0, 3, 1, 2) / np.float32(255) - mean) / std))
        np.testing.assert_allclose(encoder.embed(crop), expected.numpy(), atol=1e-4)


def test_ctranspath_from_its_pickle(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = CTransPath()
    tables = {"layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49), "head.weight": torch.zeros(1000, 768)}
    tables["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
    torch.save({"model": made.state_dict() | tables}, tmp_path / "ctranspath.pth")
    loaded = load_backbone(tmp_path / "ctranspath.pth")
    assert (loaded.spec.name, loaded.spec.dim, loaded.spec.grid) == ("ctranspath", 768, None)
    with torch.inference_mode():
        assert torch.equal(loaded.backbone.pooled(X), made.eval().pooled(X))
    torch.save({"model": made.state_dict() | {"layers.0.extra": torch.ones(1)}}, tmp_path / "ctranspath.pth")
    with pytest.raises(EncoderError, match=r"CTransPath, but left over layers\.0\.extra"):
        load_backbone(tmp_path / "ctranspath.pth")


def test_a_model_of_timm_from_the_folder_of_weights(folder: Path) -> None:
    other = _shaken(timm.create_model("vit_tiny_patch16_224.augreg_in21k", pretrained=False))
    save_file(other.state_dict(), folder / "vit_tiny_patch16_224.augreg_in21k.safetensors")
    loaded = load_backbone("timm:vit_tiny_patch16_224.augreg_in21k")
    assert loaded.spec.pooling == "class"
    with torch.inference_mode():
        tokens = other.forward_features(X)
        torch.testing.assert_close(loaded.backbone.pooled(X), tokens[:, 0])
        torch.testing.assert_close(loaded.backbone(X), tokens)


def test_a_file_of_ones_own_that_is_like_a_model_of_timm(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224.augreg_in21k"
    other = _shaken(timm.create_model(name, pretrained=False, num_classes=3))
    save_file(other.state_dict(), tmp_path / "tuned.safetensors")
    import_checkpoint(tmp_path / "tuned.safetensors", "tuned", like=name)
    loaded = load_backbone("tuned")
    assert (loaded.spec.name, loaded.spec.mean, loaded.spec.interpolation) == ("tuned", (0.5,) * 3, "bicubic")
    with torch.inference_mode():
        torch.testing.assert_close(loaded.backbone(X), other.forward_features(X))


def test_a_model_of_timm_with_numbers_that_no_file_holds(folder: Path) -> None:
    name = "swin_tiny_patch4_window7_224.ms_in1k"
    other = _shaken(timm.create_model(name, pretrained=False, num_classes=0))
    save_file(other.state_dict(), folder / f"{name}.safetensors")
    with torch.inference_mode():
        torch.testing.assert_close(load_backbone(name).backbone.pooled(X), other(X))


def test_phikon_is_timms_vit_base_under_transformers_names(folder: Path) -> None:
    other = _shaken(timm.create_model("vit_base_patch16_224", num_classes=0))
    state = other.state_dict()
    theirs = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.position_embeddings": state["pos_embed"],
        "embeddings.patch_embeddings.projection.weight": state["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": state["patch_embed.proj.bias"],
        "layernorm.weight": state["norm.weight"],
        "layernorm.bias": state["norm.bias"],
        "pooler.dense.weight": torch.zeros(1),
    }
    for block in range(12):
        old, new = f"encoder.layer.{block}", f"blocks.{block}"
        for end in ("weight", "bias"):
            for part, value in zip(("query", "key", "value"), state[f"{new}.attn.qkv.{end}"].split(768), strict=True):
                theirs[f"{old}.attention.attention.{part}.{end}"] = value.clone()
            theirs |= {
                f"{old}.attention.output.dense.{end}": state[f"{new}.attn.proj.{end}"],
                f"{old}.layernorm_before.{end}": state[f"{new}.norm1.{end}"],
                f"{old}.layernorm_after.{end}": state[f"{new}.norm2.{end}"],
                f"{old}.intermediate.dense.{end}": state[f"{new}.mlp.fc1.{end}"],
                f"{old}.output.dense.{end}": state[f"{new}.mlp.fc2.{end}"],
            }
    torch.save(theirs, folder / REGISTRY["Phikon"].sources[0].file)
    library.accept("Phikon")
    loaded = load_backbone("phikon")
    assert (loaded.spec.grid, loaded.spec.pooling) == (14, "class")
    with torch.inference_mode():
        torch.testing.assert_close(loaded.backbone(X), other.forward_features(X), atol=1e-4, rtol=0)
