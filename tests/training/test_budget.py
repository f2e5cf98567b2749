"""What a training is said to take, against what torch keeps."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from napari_dinobloom.encoders.architecture import ARCHITECTURES
from napari_dinobloom.encoders.networks import vit
from napari_dinobloom.training.budget import SAVED, budget
from napari_dinobloom.training.config import load


@pytest.mark.parametrize("size", ["S", "G"])
def test_a_block_keeps_as_much_as_is_reckoned(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vit, "attention", F.scaled_dot_product_attention)  # as on cards
    arch, crops = ARCHITECTURES[size], 2
    block = vit.Block(arch)
    kept: dict[int, int] = {}

    def note(tensor: Any) -> Any:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x = torch.randn(crops, 257, arch.dim, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t), torch.autocast("cpu", torch.bfloat16):
        out = block(x)
    assert out.requires_grad
    weights = sum(p.numel() for p in block.parameters() if p.ndim == 2) * 2  # copies in bf16
    weights += sum(p.untyped_storage().nbytes() for p in block.parameters() if p.untyped_storage().data_ptr() in kept)
    assert (sum(kept.values()) - weights) / (crops * 257 * arch.dim * 2) == pytest.approx(SAVED[arch.swiglu], rel=0.01)


def test_g_at_the_published_batch() -> None:
    config = load("dinobloom-paper", ["model.size=G"])
    alone, eight = (_gigabytes(budget(config, processes)) for processes in (1, 8))
    assert alone["state"] + alone["activations"] == pytest.approx(63, abs=1)
    assert eight["state"] == pytest.approx(alone["state"] / 8, rel=0.02)
    assert eight["activations"] == alone["activations"]
    recomputed = _gigabytes(budget(load("dinobloom-paper", ["model.size=G", "run.checkpointing=true"]), 1))
    assert recomputed["activations"] < 0.2 * alone["activations"]
    with pytest.raises(ValueError, match="1 or more"):
        budget(config, 0)


def _gigabytes(text: str) -> dict[str, float]:
    return {name: float(size) * 2**30 / 1e9 for name, size in re.findall(r"(\w+) ([\d.]+) GiB", text)}
