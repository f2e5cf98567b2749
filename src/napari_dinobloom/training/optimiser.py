"""AdamW with the reference's parameter groups: who learns slower, who does not decay, who is frozen at first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from napari_dinobloom.training.distillation import Network
from napari_dinobloom.training.schedules import Values

CLIP = 3.0
"""Largest gradient norm of the backbone and of each head."""


@dataclass(frozen=True, slots=True)
class Multipliers:
    """What a parameter's learning rate and weight decay are multiplied by, and whether it is of a last layer."""

    lr: float = 1.0
    weight_decay: float = 1.0
    last_layer: bool = False


def multipliers(name: str, patch_embed: float = 0.2) -> Multipliers:
    """Give the multipliers of a parameter.

    Parameters
    ----------
    name : str
        As in `Network`: "backbone.blocks.0.norm1.weight", "dino_head.last_layer.weight_g".
    patch_embed : float, default: 0.2
        Multiplies the learning rate of the patch embedding.

    Returns
    -------
    Multipliers
        No weight decay for biases, norms and LayerScale; everything else decays, class, position and mask tokens and
        the prototypes' lengths included.
    """
    plain = name.endswith(".bias") or "norm" in name or "gamma" in name
    return Multipliers(
        lr=patch_embed if "patch_embed" in name else 1.0,
        weight_decay=0.0 if plain else 1.0,
        last_layer="last_layer" in name,
    )


def make_optimiser(network: Network, patch_embed: float = 0.2) -> torch.optim.AdamW:
    """Make AdamW (0.9, 0.999, eps 1e-8) with one group for each combination of multipliers."""
    groups: dict[Multipliers, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        groups.setdefault(multipliers(name, patch_embed), []).append(parameter)
    fused = next(network.parameters()).device.type in ("cuda", "cpu")
    return torch.optim.AdamW(
        [{"params": parameters, "multipliers": which} for which, parameters in groups.items()],
        lr=0.0,
        betas=(0.9, 0.999),
        eps=1e-8,
        fused=fused,
    )


def apply_schedule(optimiser: torch.optim.Optimizer, values: Values) -> None:
    """Set learning rate and weight decay of every group for one iteration."""
    for group in optimiser.param_groups:
        which: Multipliers = group["multipliers"]
        group["lr"] = (values.last_layer_lr if which.last_layer else values.lr) * which.lr
        group["weight_decay"] = values.weight_decay * which.weight_decay


def clip_gradients(parts: Iterable[tuple[str, list[nn.Parameter]]], most: float = CLIP) -> dict[str, torch.Tensor]:
    """Clip the gradients of each part by itself, sharded ones too; gives the norms before clipping."""
    norms = {}
    for name, parameters in parts:
        norm = nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])
        norms[name] = norm.full_tensor() if isinstance(norm, DTensor) else norm
        nn.utils.clip_grads_with_norm_(parameters, most, norms[name])
    return norms
