"""Key names of vision transformers: those of DINOv2 and of transformers become timm's, and timm's DINOv2's."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

GATED = {"mlp.w12.": "mlp.fc1.", "mlp.w3.": "mlp.fc2."}
"""DINOv2's names in the giant's SwiGLU, and timm's; all other names are the same."""

TRANSFORMERS = [
    # ViTModel and Dinov2Model of Hugging Face's transformers; a model for a task puts "vit." or "dinov2." in front.
    (r"^(vit|dinov2)\.", ""),
    (r"^embeddings\.(cls_token|mask_token|register_tokens)$", r"\1"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.weights_out\.", ".mlp.fc2."),
    (r"(\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
]
"""Patterns and what takes their place, in this order."""

TRANSFORMERS_HEADS = ("pooler.", "classifier.", "vit.pooler.")
"""Key prefixes that the embedding does not need."""


def from_dinov2(key: str) -> str:
    """Spell a key of DINOv2 as timm does; keys of timm stay."""
    for theirs, timm in GATED.items():
        key = key.replace(theirs, timm)
    return key


def to_dinov2(key: str, swiglu: bool) -> str:
    """Spell a key of timm as DINOv2 does."""
    for theirs, timm in GATED.items() if swiglu else ():
        key = key.replace(timm, theirs)
    return key


def are_transformers(keys: Container[str]) -> bool:
    """Whether key names are those of transformers."""
    return any(
        name in keys for name in ("embeddings.cls_token", "vit.embeddings.cls_token", "dinov2.embeddings.cls_token")
    )


def from_transformers(tensors: dict[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Spell keys of transformers as timm does, queries, keys and values joined in one tensor.

    Returns
    -------
    list of (str, Tensor)
        Not a dict: two old names may have become one, which the caller refuses.
    """
    import torch

    renamed = [(_spell(key), value) for key, value in tensors.items() if not key.startswith(TRANSFORMERS_HEADS)]
    parts = dict(renamed)
    joined: list[tuple[str, Tensor]] = []
    for key, value in renamed:
        found = re.fullmatch(r"(blocks\.\d+\.attn\.)(query|key|value)(\..+)", key)
        names = [f"{found[1]}{part}{found[3]}" for part in ("query", "key", "value")] if found else []
        if found is None or not all(name in parts for name in names):
            joined.append((key, value))
        elif found[2] == "query":
            joined.append((f"{found[1]}qkv{found[3]}", torch.cat([parts[name] for name in names])))
    return joined


def _spell(key: str) -> str:
    for pattern, timm in TRANSFORMERS:
        key = re.sub(pattern, timm, key)
    return key
