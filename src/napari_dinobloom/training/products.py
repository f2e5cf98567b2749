"""Linear layers on a CPU in float32 by oneDNN, which takes three quarters of the time of torch's default library there.

On an AMD EPYC with AVX-512, ViT-S, ``benchmarks/training.py``; where oneDNN is missing, all is as before.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``x @ weight.T + bias``, (..., width) to (..., count), with its gradients."""
    plain = type(weight) in (Tensor, nn.Parameter) and x.device.type == "cpu" and x.dtype == torch.float32
    if not plain or torch.is_autocast_enabled("cpu") or not torch.backends.mkldnn.is_available():
        return F.linear(x, weight, bias)
    out: Tensor = _Linear.apply(x, weight, bias)
    return out


def use_in(network: nn.Module) -> None:
    """Let all linear layers of a network compute by `linear`."""
    for module in network.modules():
        if type(module) is nn.Linear:
            module.forward = partial(_forward, module)  # type: ignore[method-assign]


def _forward(module: nn.Linear, x: Tensor) -> Tensor:
    return linear(x, module.weight, module.bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def _back(gradient: Tensor, weight: Tensor) -> Tensor:
    return _product(gradient, weight.t().contiguous()) if len(gradient) > len(weight) else gradient @ weight


class _Linear(torch.autograd.Function):
    """The gradient of the weights stays with torch's default library, which is the faster one for it.

    So does that of `x` where there are more outputs than rows, as turning the weights round would take longer.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        gradient = gradients[0].reshape(-1, len(weight))
        return (
            _back(gradient, weight).view(x.shape) if of_x else None,
            gradient.t() @ x.reshape(-1, x.shape[-1]) if of_weight else None,
            gradient.sum(dim=0) if of_bias else None,
        )
