from __future__ import annotations

import pytest
import timm
import torch
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer as TimmTransformer

from napari_dinobloom.encoders.architecture import Architecture
from napari_dinobloom.encoders.networks.ctranspath import CTransPath
from napari_dinobloom.encoders.networks.make import empty
from napari_dinobloom.encoders.networks.resnet import ResNet50
from napari_dinobloom.encoders.networks.timm_model import TimmModel
from napari_dinobloom.encoders.networks.vit import VisionTransformer
from napari_dinobloom.encoders.registry import REGISTRY, find

GELU = Architecture("gelu", 64, 3, 2, 256)
PLAIN = Architecture("plain", 64, 3, 2, 256, layer_scale=False)
GATED = Architecture("gated", 64, 3, 2, 96, swiglu=True)


def _timm(arch: Architecture) -> TimmTransformer:
    gated = {"mlp_layer": SwiGLUPacked, "act_layer": torch.nn.SiLU} if arch.swiglu else {}
    return TimmTransformer(
        img_size=56,
        patch_size=14,
        embed_dim=64,
        depth=3,
        num_heads=2,
        num_classes=0,
        mlp_ratio=arch.hidden * (2 if arch.swiglu else 1) / arch.dim,
        init_values=1e-5 if arch.layer_scale else None,
        **gated,
    ).eval()


def _randomised(model: TimmTransformer) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    return {key: torch.randn(value.shape, generator=random) * 0.3 for key, value in model.state_dict().items()}


@pytest.mark.parametrize("arch", [GELU, PLAIN, GATED], ids=lambda arch: arch.name)
def test_tokens_are_those_of_timm(arch: Architecture) -> None:
    other = _timm(arch)
    state = _randomised(other)
    other.load_state_dict(state)
    model = VisionTransformer(arch, grid=4).eval()
    model.load_state_dict(state, strict=True)
    x = torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        torch.testing.assert_close(model(x), other.forward_features(x), atol=2e-5, rtol=0)


def test_a_mask_token_takes_the_place_of_a_patch() -> None:
    model = VisionTransformer(PLAIN, grid=4).eval()
    model.load_state_dict(_randomised(_timm(PLAIN)))
    x = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(3))
    other = x.clone()
    other[0, :, :14, 14:28] = 7.0
    masks = torch.zeros(2, 16, dtype=torch.bool)
    masks[0, 1] = True
    token = torch.ones(1, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model(x, masks, token), model(other, masks, token))
        assert not torch.allclose(model(x), model(other))
        assert not torch.allclose(model(x, masks, token)[0], model(x)[0])
        torch.testing.assert_close(model(x, masks, token)[1], model(x)[1])


def _filled(shapes: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Random numbers of a size that keeps a deep network's activations near 1; variances positive."""
    random = torch.Generator().manual_seed(4)
    state = {}
    for key, value in shapes.items():
        if not value.is_floating_point():
            state[key] = torch.zeros(value.shape, dtype=value.dtype)
        elif key.endswith(("running_var", "norm.weight", "norm1.weight", "norm2.weight", "bn1.weight", "bn2.weight")):
            state[key] = 0.8 + 0.4 * torch.rand(value.shape, generator=random)
        else:
            scale = value[0].numel() ** -0.5 if value.dim() > 1 else 0.1
            state[key] = torch.randn(value.shape, generator=random) * scale
    return state


PICTURES = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(5))


def test_resnet_is_torchvisions_whole_and_cut_as_the_paper_cuts_it() -> None:
    from torchvision.models import resnet50

    other = resnet50(weights=None).eval()
    state = _filled(other.state_dict())
    other.load_state_dict(state)
    cut = torch.nn.Sequential(*list(other.children())[:-3], torch.nn.AdaptiveAvgPool2d((1, 1)), torch.nn.Flatten())
    whole, stage3 = ResNet50(), ResNet50(stages=3)
    whole.load_state_dict(state)
    stage3.load_state_dict({key: value for key, value in state.items() if not stage3.ignores(key)})
    with torch.inference_mode():
        torch.testing.assert_close(whole.eval().pooled(PICTURES), other(PICTURES), atol=1e-4, rtol=0)
        torch.testing.assert_close(stage3.eval().pooled(PICTURES), cut(PICTURES), atol=1e-4, rtol=0)
    assert (whole.dim, stage3.dim, whole.grid) == (1000, 1024, None)
    with pytest.raises(NotImplementedError):
        whole(PICTURES)


def _as_in_timm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """CTransPath's keys as timm spells them today, where a stage begins with its downsampling; no stem."""
    moved = {}
    for key, value in state.items():
        stage = key.split(".")[1]
        name = (
            key.replace(f"layers.{stage}.downsample", f"layers.{int(stage) + 1}.downsample")
            if "downsample" in key
            else key
        )
        if not key.startswith("patch_embed.proj"):
            moved[name] = value
    return moved


def test_ctranspath_is_a_convolutional_stem_before_timms_swin() -> None:
    import torch.nn.functional as F

    model = CTransPath().eval()
    state = _filled(model.state_dict())
    # Large, so that a wrong offset, mask or window would show.
    state = {key: value * 20 if "bias_table" in key else value for key, value in state.items()}
    model.load_state_dict(state)
    other = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0).eval()
    missing, left = other.load_state_dict(_as_in_timm(state), strict=False)
    assert missing == ["patch_embed.proj.weight", "patch_embed.proj.bias"]
    assert left == []

    def norm(x: torch.Tensor, layer: int) -> torch.Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"patch_embed.proj.{layer}.{name}"] for name in names))

    with torch.inference_mode():
        x = F.relu(norm(F.conv2d(PICTURES, state["patch_embed.proj.0.weight"], stride=2, padding=1), 1))
        x = F.relu(norm(F.conv2d(x, state["patch_embed.proj.3.weight"], stride=2, padding=1), 4))
        x = F.conv2d(x, state["patch_embed.proj.6.weight"], state["patch_embed.proj.6.bias"])
        tokens = other.norm(other.layers(other.patch_embed.norm(x.permute(0, 2, 3, 1))))
        torch.testing.assert_close(model.pooled(PICTURES), tokens.mean((1, 2)), atol=1e-4, rtol=0)
    assert model.dim == 768


def test_ctranspaths_file_may_hold_the_tables_that_are_made_by_rule() -> None:
    model = CTransPath()
    assert model.ignores("layers.0.blocks.1.attn_mask")
    assert model.ignores("layers.0.blocks.1.attn.relative_position_index")
    assert not model.ignores("layers.0.blocks.1.attn.relative_position_bias_table")


@pytest.mark.parametrize(
    ("name", "grid", "prefix", "classed"),
    [
        ("vit_tiny_patch16_224.augreg_in21k", 14, 1, True),
        ("vit_medium_patch16_gap_256.sw_in12k_ft_in1k", 16, 0, False),
        ("vit_small_patch16_dinov3.lvd1689m", 16, 5, True),
        ("swin_tiny_patch4_window7_224.ms_in1k", None, 0, False),
        ("resnet18.a1_in1k", None, 0, False),
    ],
)
def test_timms_models_give_what_timm_gives(name: str, grid: int | None, prefix: int, classed: bool) -> None:
    torch.manual_seed(0)
    model = TimmModel(name).eval()
    spec = find(f"timm:{name}")
    x = PICTURES if spec.input_size == 224 else torch.nn.functional.interpolate(PICTURES, size=spec.input_size)
    with torch.inference_mode():
        features, pooled = model.model.forward_features(x), model.pooled(x)
        torch.testing.assert_close(pooled, model.model(x))
        assert pooled.shape == (1, spec.dim) == (1, model.dim)
        assert (model.grid, spec.grid) == (grid, grid)
        if grid is None:
            return
        tokens = model(x)
    assert tokens.shape == (1, 1 + grid * grid, spec.dim)
    torch.testing.assert_close(tokens[:, 1:], features[:, prefix:])
    torch.testing.assert_close(tokens[:, 0], features[:, 0] if classed else pooled)


@pytest.mark.parametrize("name", REGISTRY)
def test_an_entry_says_what_its_network_is(name: str) -> None:
    spec = REGISTRY[name]
    network = empty(spec.architecture, spec.grid)
    assert (network.dim, network.grid) == (spec.dim, spec.grid)
    assert sum(value.numel() for value in network.parameters()) == spec.parameters
    assert all(value.is_meta for value in network.parameters()), "a network is planned without memory for its weights"
    assert not network.training
    assert not any(value.requires_grad for value in network.parameters())
