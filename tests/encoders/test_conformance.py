"""The functions of the public implementation: golden vectors, timm, and a reference of a few lines."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_dinobloom.encoders.architecture import ARCHITECTURES
from napari_dinobloom.encoders.build import load_backbone
from napari_dinobloom.encoders.encoder import load_encoder
from napari_dinobloom.encoders.networks.vit import VisionTransformer

pytestmark = pytest.mark.real_data

Conformance = tuple[ModuleType, dict[str, np.ndarray]]
MASKED = [[3, 4, 19, 20, 200], range(100, 140)]
TIMM = {
    size: f"vit_{name}_patch14_dinov2" for size, name in zip("SBLG", ("small", "base", "large", "giant"), strict=True)
}


def _weights(rule: ModuleType, size: str) -> dict[str, Tensor]:
    """The rule's weights under DINOv2's key names, two tensors at a time."""
    shapes = rule.backbone_shapes(size)
    with ThreadPoolExecutor(2) as pool:
        made = pool.map(lambda key: rule.weights({key: shapes[key]})[key], shapes)
        return {key: torch.from_numpy(value) for key, value in zip(shapes, made, strict=True)}


def _pictures(rule: ModuleType) -> Tensor:
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    images = np.stack([rule.image(0), rule.image(1)]) / 255
    return torch.from_numpy(((images - mean) / std).transpose(0, 3, 1, 2).astype(np.float32))


def _masks() -> Tensor:
    masks = torch.zeros(2, 256, dtype=torch.bool)
    for row, patches in enumerate(MASKED):
        masks[row, list(patches)] = True
    return masks


def _reference(weights: dict[str, Tensor], heads: int, x: Tensor, masks: Tensor) -> Tensor:
    """Compute all tokens of masked pictures from DINOv2's keys, independently of our modules."""
    w = weights
    dim = w["cls_token"].shape[-1]

    def norm(tokens: Tensor, key: str) -> Tensor:
        return F.layer_norm(tokens, (dim,), w[f"{key}.weight"], w[f"{key}.bias"], 1e-6)

    def linear(tokens: Tensor, key: str) -> Tensor:
        return tokens @ w[f"{key}.weight"].T + w[f"{key}.bias"]

    cut = F.unfold(x, 14, stride=14).transpose(1, 2)
    tokens = cut @ w["patch_embed.proj.weight"].flatten(1).T + w["patch_embed.proj.bias"]
    tokens = torch.where(masks[..., None], w["mask_token"][:, None], tokens)
    tokens = torch.cat([w["cls_token"].expand(len(x), 1, dim), tokens], 1) + w["pos_embed"]
    for block in range(sum(key.endswith(".ls1.gamma") for key in w)):
        at = f"blocks.{block}"
        q, k, v = linear(norm(tokens, f"{at}.norm1"), f"{at}.attn.qkv").chunk(3, -1)
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
        weight = (q @ k.transpose(-1, -2) * (dim // heads) ** -0.5).softmax(-1)
        mixed = (weight @ v).transpose(1, 2).flatten(2)
        tokens = tokens + linear(mixed, f"{at}.attn.proj") * w[f"{at}.ls1.gamma"]
        hidden = norm(tokens, f"{at}.norm2")
        if f"{at}.mlp.w12.weight" in w:
            gate, value = linear(hidden, f"{at}.mlp.w12").chunk(2, -1)
            out = linear(F.silu(gate) * value, f"{at}.mlp.w3")
        else:
            out = linear(F.gelu(linear(hidden, f"{at}.mlp.fc1")), f"{at}.mlp.fc2")
        tokens = tokens + out * w[f"{at}.ls2.gamma"]
    return norm(tokens, "norm")


def _check_golden(golden: dict[str, np.ndarray], size: str, plain: np.ndarray, masked: np.ndarray) -> None:
    """Compare tokens of both pictures with the numbers of the public implementation."""
    for found, key in [
        (plain[:, 0], "cls"),
        (plain[0, 1:][[0, 17, 128, 255]], "patch_0_0"),
        (masked[:, 0], "masked_cls"),
        (masked[1, 1:][[100, 120, 139, 255]], "masked_patch"),
    ]:
        np.testing.assert_allclose(found, golden[f"{size}/{key}"], atol=1e-4, err_msg=key)


def test_dinobloom_s_gives_the_numbers_of_the_public_implementation(conformance: Conformance, tmp_path: Path) -> None:
    rule, golden = conformance
    weights, x = _weights(rule, "S"), _pictures(rule)
    torch.save(weights, tmp_path / "s.bin")
    loaded = load_backbone(tmp_path / "s.bin")
    with torch.inference_mode():
        plain, masked = loaded.backbone(x), loaded.backbone(x, _masks(), loaded.mask_token)
        pooled = loaded.backbone.pooled(x).numpy()
        reference = _reference(weights, 6, x, _masks())
    _check_golden(golden, "S", plain.numpy(), masked.numpy())
    np.testing.assert_allclose(pooled, golden["S/cls"], atol=1e-4)
    torch.testing.assert_close(masked, reference, atol=1e-4, rtol=0)
    images = np.stack([rule.image(0), rule.image(1)])
    with load_encoder(tmp_path / "s.bin", device="cpu", precision="float32") as encoder:
        np.testing.assert_allclose(encoder.embed(images), golden["S/cls"], atol=1e-4)
        patches = encoder.patch_tokens(images[:1]).reshape(256, 384)
    np.testing.assert_allclose(patches[[0, 17, 128, 255]], golden["S/patch_0_0"], atol=1e-4)


@pytest.mark.parametrize(("size", "depth"), [("B", 12), ("L", 2), ("G", 2)])
def test_other_sizes_give_the_tokens_of_timm_and_of_the_reference(
    conformance: Conformance, size: str, depth: int
) -> None:
    """Of L and G only the first blocks, so that it stays a matter of seconds; the whole of G is tested below."""
    rule, _ = conformance
    arch = replace(ARCHITECTURES[size], depth=depth)
    rule.ARCHITECTURES["cut"] = (arch.dim, depth, arch.heads, arch.hidden if arch.swiglu else None)
    weights, x, masks = _weights(rule, "cut"), _pictures(rule)[1:], _masks()[1:]
    state = {
        key.replace("mlp.w12", "mlp.fc1").replace("mlp.w3", "mlp.fc2"): value
        for key, value in weights.items()
        if key != "mask_token"
    }
    model, other = _assigned(VisionTransformer(arch), state), _timm(size, depth, state)
    with torch.inference_mode():
        plain, masked = model(x), model(x, masks, weights["mask_token"])
        torch.testing.assert_close(plain, other.forward_features(x), atol=1e-4, rtol=0)
        torch.testing.assert_close(masked, _reference(weights, arch.heads, x, masks), atol=1e-4, rtol=0)


def _assigned(model: torch.nn.Module, state: dict[str, Tensor]) -> torch.nn.Module:
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


def _timm(size: str, depth: int, state: dict[str, Tensor]) -> torch.nn.Module:
    with torch.device("meta"):
        other = timm.create_model(TIMM[size], img_size=224, num_classes=0, depth=depth)
    return _assigned(other, state)


@pytest.mark.slow
def test_dinobloom_g_gives_the_numbers_of_the_public_implementation(conformance: Conformance) -> None:
    rule, golden = conformance
    weights = _weights(rule, "G")
    mask_token, x = weights.pop("mask_token"), _pictures(rule)
    with torch.device("meta"):
        model = VisionTransformer(ARCHITECTURES["G"])
    names = {"mlp.w12": "mlp.fc1", "mlp.w3": "mlp.fc2"}
    for key in list(weights):
        for theirs, ours in names.items():
            if theirs in key:
                weights[key.replace(theirs, ours)] = weights.pop(key)
    _assigned(model, weights)
    with torch.inference_mode():
        plain, masked = model(x), model(x, _masks(), mask_token)
    _check_golden(golden, "G", plain.numpy(), masked.numpy())
