"""Any model of timm (Wightman, Apache-2.0) as a backbone, and its registry entry from timm's own configuration."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from napari_dinobloom.encoders.architecture import Network
from napari_dinobloom.encoders.networks.backbone import Backbone
from napari_dinobloom.encoders.spec import EncoderSpec, Pooling, WeightSource
from napari_dinobloom.errors import EncoderError

POOLINGS: dict[str, Pooling] = {"token": "class", "avg": "mean"}
"""timm's names of the simplest poolings and ours."""

FREE = {"apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc-by-4.0"}
"""Licences under which nobody has to be asked."""


class TimmModel(Backbone):
    """A model of timm without its classifier.

    Parameters
    ----------
    name : str
        Name of the model and of its weights, such as "vit_small_patch16_224.augreg_in21k".
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        model: Any = timm.create_model(name, pretrained=False, num_classes=0)
        self.model = model
        self.dim = int(model.head_hidden_size)
        self.prefix = int(getattr(model, "num_prefix_tokens", 0))
        self.grid = self._grid()

    @property
    def stored(self) -> nn.Module:
        """The model of timm."""
        model: nn.Module = self.model
        return model

    def _grid(self) -> int | None:
        """Patches per side, where all tokens come out in one row, square, and as long as the embedding."""
        sides = getattr(getattr(self.model, "patch_embed", None), "grid_size", None)
        plain = hasattr(self.model, "num_prefix_tokens") and self.model.num_features == self.dim
        return int(sides[0]) if plain and sides is not None and len(sides) == 2 and sides[0] == sides[1] else None

    def ignores(self, key: str) -> bool:
        """Whether the key is the classifier's."""
        named = self.model.default_cfg.get("classifier") or ()
        return any(key.startswith(f"{name}.") for name in ([named] if isinstance(named, str) else named))

    def pooled(self, x_BCYX: Tensor) -> Tensor:
        """Compute what stands before the classifier, (B, D)."""
        return self._head(self.model.forward_features(x_BCYX))

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Compute the embedding and the patch tokens, (B, 1 + grid * grid, D); registers are left out.

        The first place holds the class token, or the pooled embedding where a model has no class token.
        """
        features = self.model.forward_features(x_BCYX)
        first = features[:, :1] if self.prefix else self._head(features).unsqueeze(1)
        return torch.cat([first, features[:, self.prefix :]], dim=1)

    def _head(self, features: Tensor) -> Tensor:
        out: Tensor = self.model.forward_head(features, pre_logits=True)
        return out


def is_known(name: str) -> bool:
    """Whether timm has a model of this name, with or without the name of its weights."""
    return bool(timm.is_model(name))


@cache  # it plans the whole network, and the name of an encoder is looked up several times
def timm_spec(name: str) -> EncoderSpec:
    """Build the entry of a model of timm.

    Parameters
    ----------
    name : str
        With or without the name of its weights; without, timm's preferred ones are meant.

    Returns
    -------
    EncoderSpec
        Size, mean, deviation and interpolation are timm's; whole pictures are resized, nothing is cut off.

    Raises
    ------
    EncoderError
        Where timm has no such model or no such weights for it, or it sees pictures that are not square.
    """
    try:
        config = get_pretrained_cfg(name, allow_unregistered=False) if timm.is_model(name) else None
    except RuntimeError:  # a known model, but no such weights
        config = None
    if config is None or not config.has_weights:
        near = difflib.get_close_matches(name, timm.list_models(pretrained=True), n=3)
        raise EncoderError(f"timm has no weights named {name!r}. Near ones: {', '.join(near) or 'none'}.")
    full = f"{config.architecture}.{config.tag}" if config.tag else str(config.architecture)
    channels, size, width = config.input_size
    if channels != 3 or size != width:
        raise EncoderError(f"{full} of timm sees pictures of {width} x {size} px; only square RGB ones are used here.")
    with torch.device("meta"):
        model = TimmModel(full)
    licence = config.license or "unknown"
    page, sources = _published(full, config)
    return EncoderSpec(
        name=f"timm:{full}",
        architecture=Network(f"timm:{full}"),
        dim=model.dim,
        patch_size=None if model.grid is None else size // model.grid,
        input_size=size,
        mean=_rgb(config.mean),
        std=_rgb(config.std),
        interpolation="bilinear" if config.interpolation == "bilinear" else "bicubic",
        pooling=POOLINGS.get(getattr(model.model, "global_pool", ""), "model"),
        parameters=sum(value.numel() for value in model.parameters()),
        licence=licence,
        sources=sources,
        terms="" if licence in FREE else f"The licence of {full} is {licence}, says timm: see {page}",
        note="A model of timm, without its classifier.",
    )


def _published(full: str, config: Any) -> tuple[str, tuple[WeightSource, ...]]:
    """Give the page and the files of a model's weights: at Hugging Face, else where timm's configuration says."""
    if not config.hf_hub_id and config.url:
        return config.url, (WeightSource(config.url, f"{full}.pth"),)
    hub = config.hf_hub_id or f"timm/{full}"
    address = f"https://huggingface.co/{hub}/resolve/main"
    return f"huggingface.co/{hub}", (
        WeightSource(f"{address}/model.safetensors", f"{full}.safetensors"),
        WeightSource(f"{address}/pytorch_model.bin", f"{full}.bin"),
    )


def _rgb(numbers: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = numbers
    return red, green, blue
