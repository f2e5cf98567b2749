"""The projection head: from a token to scores of prototypes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_dinobloom.training.products import linear

NORM_EPS = 1e-12

IBOT_BOTTLENECK = 256
"""Of the head for patches, whatever that of the head for class tokens is."""


class DINOHead(nn.Module):
    """Three linear layers with GELU, a normalised bottleneck, and prototypes of learned length.

    The key names are those of DINOv2's released heads (``mlp.0.weight``, ``last_layer.weight_g``, ...). The last
    layer is ``g * v / |v|``: `g` starts at 1 and is trained, `v` starts as a linear layer's weights do.

    Parameters
    ----------
    dim : int
        Length of a token.
    bottleneck : int, default: 256
        Length of the normalised vector that meets the prototypes.
    prototypes : int, default: 65536
        Scores per token.
    hidden : int, default: 2048
        Width of the first two layers.
    """

    def __init__(self, dim: int, bottleneck: int = 256, prototypes: int = 65536, hidden: int = 2048) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = Prototypes(bottleneck, prototypes)

    def forward(self, x: Tensor) -> Tensor:
        """Score tokens, (rows, dim) to (rows, prototypes)."""
        out: Tensor = self.last_layer(self.bottleneck(x))
        return out

    def bottleneck(self, x: Tensor) -> Tensor:
        """Give the normalised vectors that meet the prototypes, (rows, dim) to (rows, bottleneck)."""
        out: Tensor = self.mlp(x)
        return F.normalize(out if out.dtype == torch.float64 else out.float(), dim=-1, eps=NORM_EPS)


def make_heads(dim: int, bottleneck: int, prototypes: int, hidden: int, seed: int) -> tuple[DINOHead, DINOHead]:
    """Make the random heads for class tokens (DINO) and for patches (iBOT), the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DINOHead(dim, bottleneck, prototypes, hidden), DINOHead(dim, IBOT_BOTTLENECK, prototypes, hidden)


class Prototypes(nn.Module):
    """A linear map without bias whose rows have a direction `v` and a length `g`.

    Attributes
    ----------
    factors : torch.dtype or None
        What the two factors of the product are rounded to on CUDA, where it then is faster; None leaves them.
    """

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.factors: torch.dtype | None = None
        self.weight_g = nn.Parameter(torch.ones(count, 1))
        self.weight_v = nn.Parameter(torch.empty(count, width))
        nn.init.kaiming_uniform_(self.weight_v, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Score vectors, (rows, width) to (rows, count); the product leaves in float32 whatever autocast says."""
        with torch.autocast(x.device.type, enabled=False):
            weight = self.weight_v * (self.weight_g / self.weight_v.norm(dim=1, keepdim=True))
            if self.factors is None or x.device.type != "cuda":
                return linear(x, weight)
            out: Tensor = _Product.apply(x, weight, self.factors)
            return out


class _Product(torch.autograd.Function):
    """``x @ weight.T`` of bf16 factors with sums and result in float32, backwards too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, factors: torch.dtype) -> Tensor:
        x, weight = x.to(factors), weight.to(factors)
        ctx.save_for_backward(x, weight)
        return torch.mm(x, weight.t(), out_dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0].to(x.dtype)
        of_x = torch.mm(gradient, weight, out_dtype=torch.float32)
        return of_x, torch.mm(gradient.t(), x, out_dtype=torch.float32), None
