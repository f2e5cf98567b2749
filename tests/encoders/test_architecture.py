from __future__ import annotations

import pytest
import timm
import torch

from napari_dinobloom.encoders.architecture import ARCHITECTURES, describe, infer

TIMM = {"S": "vit_small_patch14_dinov2", "G": "vit_giant_patch14_dinov2"}


@pytest.mark.parametrize("size", TIMM)
def test_shapes_are_those_of_timm(size: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(TIMM[size], img_size=224, num_classes=0)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert ARCHITECTURES[size].shapes(16) == shapes
    assert ARCHITECTURES[size].parameters(16) == sum(value.numel() for value in model.state_dict().values())


@pytest.mark.parametrize("size", ARCHITECTURES)
def test_an_architecture_is_inferred_from_its_own_shapes(size: str) -> None:
    assert infer(ARCHITECTURES[size].shapes(16)) == ARCHITECTURES[size]
    assert infer(ARCHITECTURES[size].shapes(37)) == ARCHITECTURES[size]


def test_other_sizes_are_none_and_described() -> None:
    shapes = ARCHITECTURES["S"].shapes()
    fewer = {key: shape for key, shape in shapes.items() if not key.startswith("blocks.11.")}
    assert infer(fewer) is None
    assert infer({}) is None
    assert describe(fewer) == "dimension 384, 11 blocks, feed-forward width 1536, patches of 14 px"
