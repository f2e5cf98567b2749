from __future__ import annotations

import pytest
import torch
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer as TimmTransformer

from napari_dinobloom.encoders.architecture import Architecture
from napari_dinobloom.encoders.networks.vit import VisionTransformer

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
