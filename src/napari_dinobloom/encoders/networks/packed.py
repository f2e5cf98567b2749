"""The vision transformer on a CPU: one picture on one core, matrices laid out once for the library's kernels.

Two things cost a plain forward pass on a CPU its speed: a matrix product over many cores at once waits for the slowest
of them, and weights are rearranged for the kernel at each call. Here each core takes a picture of its own, and the
weights are rearranged once (oneDNN's packed format, with bias, GELU and the residual sum fused). A picture's tokens
therefore do not depend on what is computed beside it, bit for bit. Measured in ``benchmarks/embedding.py``.
"""

from __future__ import annotations

from functools import cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_dinobloom.encoders.networks.vit import Block, LayerScale, VisionTransformer, patches


@cache
def packing_works(dtype: torch.dtype) -> bool:
    """Tell whether torch's fused oneDNN products are there for a number type and right.

    They are torch's own, made for its compiler, and not part of its documented interface: where a build lacks them
    or computes something else, the documented functions take their place.
    """
    random = torch.Generator().manual_seed(0)
    x, other, weight, bias = (torch.randn(shape, generator=random) for shape in ((5, 24), (5, 16), (16, 24), (16,)))
    try:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        packed = PackedLinear(weight, bias, dtype, len(x))
        x, other = x.to(dtype), other.to(dtype)
        plain = F.linear(x.float(), weight.to(dtype).float(), bias.to(dtype).float())
        pairs = ((packed(x), plain), (packed.gelu(x), F.gelu(plain)), (packed.plus(x, other), plain + other.float()))
        near = 0.05 if dtype == torch.bfloat16 else 1e-4
        return all(bool((ours.float() - theirs).abs().max() < near) for ours, theirs in pairs)
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False


class PackedLinear:
    """A linear map whose weights lie as oneDNN's kernel wants them.

    Parameters
    ----------
    weight, bias : Tensor
        (out, in) and (out,).
    dtype : torch.dtype
        Number type of weights and results.
    rows : int
        Rows of the input; the layout is chosen for it.
    """

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype, rows: int) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype).contiguous(), rows)
        self.bias = bias.to(dtype).contiguous()

    def __call__(self, x_ND: Tensor) -> Tensor:
        """Map rows."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x_ND, self.weight, self.bias, "none", [], "")
        return out

    def gelu(self, x_ND: Tensor) -> Tensor:
        """Map rows and apply the exact GELU."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x_ND, self.weight, self.bias, "gelu", [], "none")
        return out

    def plus(self, x_ND: Tensor, other_NE: Tensor) -> Tensor:
        """Map rows and add others to them."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x_ND, other_NE, self.weight, self.bias, "add")
        return out


class PlainLinear:
    """What `PackedLinear` does, with torch's documented functions."""

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype, rows: int) -> None:
        self.weight, self.bias = weight.to(dtype).contiguous(), bias.to(dtype).contiguous()

    def __call__(self, x_ND: Tensor) -> Tensor:
        """Map rows."""
        return F.linear(x_ND, self.weight, self.bias)

    def gelu(self, x_ND: Tensor) -> Tensor:
        """Map rows and apply the exact GELU."""
        return F.gelu(self(x_ND))

    def plus(self, x_ND: Tensor, other_NE: Tensor) -> Tensor:
        """Map rows and add others to them."""
        return self(x_ND) + other_NE


Linear = PackedLinear | PlainLinear


class PackedTransformer:
    """A vision transformer for one picture at a time on a CPU.

    Each block of the model is released as soon as it is packed, so that both never lie in memory at once; the
    model cannot be used afterwards.

    Parameters
    ----------
    model : VisionTransformer
        With its weights, float32, on the CPU.
    dtype : torch.dtype
        float32 or bfloat16, of weights and products; what blocks add to is float32 in either, and so is the last step
        to the class token.
    """

    def __init__(self, model: VisionTransformer, dtype: torch.dtype) -> None:
        kind = PackedLinear if packing_works(dtype) else PlainLinear
        self.dtype = dtype
        self.side = model.arch.patch_size
        rows = 1 + model.grid**2
        embed = model.patch_embed.proj
        self.embed = kind(embed.weight.detach().flatten(1), cast(Tensor, embed.bias).detach(), dtype, rows - 1)
        positions = model.pos_embed.detach()[0]
        self.class_1D = model.cls_token.detach()[0] + positions[:1]
        self.positions_PD = positions[1:].contiguous()
        self.last, self.norm = cast(Block, model.blocks[-1]), model.norm
        self.blocks = []
        for number in range(len(model.blocks)):
            self.blocks.append(PackedBlock(cast(Block, model.blocks[number]), dtype, rows, kind))
            if number < len(model.blocks) - 1:
                model.blocks[number] = nn.Identity()

    def tokens(self, x_CYX: Tensor) -> Tensor:
        """Compute all tokens after the final LayerNorm, (C, Y, X) normalised float32 to (1 + patches, D) float32."""
        x_ND = self._enter(x_CYX)
        for block in self.blocks:
            x_ND = block(x_ND)
        out: Tensor = self.norm(x_ND)
        return out

    def pooled(self, x_CYX: Tensor) -> Tensor:
        """Compute the class token after the final LayerNorm, (C, Y, X) normalised float32 to (D,) float32."""
        x_ND = self._enter(x_CYX)
        for block in self.blocks[:-1]:
            x_ND = block(x_ND)
        out: Tensor = self.norm(self.last.first(x_ND[None]))
        return out[0]

    def _enter(self, x_CYX: Tensor) -> Tensor:
        cut_PK = patches(x_CYX[None], self.side)[0].to(self.dtype)
        return torch.cat([self.class_1D, _plus(self.embed, cut_PK, self.positions_PD)])


class PackedBlock:
    """One block; LayerScale lies in the weights of what it scales, the softmax's scale in those of the query."""

    def __init__(self, block: Block, dtype: torch.dtype, rows: int, kind: type[Linear]) -> None:
        attention, mlp = block.attn, block.mlp
        dim = attention.proj.weight.shape[0]
        self.dim, self.heads, self.swiglu = dim, attention.heads, mlp.swiglu
        self.dtype, self.norm1, self.norm2 = dtype, block.norm1, block.norm2
        scale = torch.ones(3 * dim)
        scale[:dim] = (dim // attention.heads) ** -0.5
        self.qkv = kind(attention.qkv.weight * scale[:, None], attention.qkv.bias * scale, dtype, rows)
        self.proj = kind(*_scaled(attention.proj, block.ls1), dtype, rows)
        self.fc1 = kind(mlp.fc1.weight, mlp.fc1.bias, dtype, rows)
        self.fc2 = kind(*_scaled(mlp.fc2, block.ls2), dtype, rows)

    def __call__(self, x_ND: Tensor) -> Tensor:
        """Apply both branches, (N, D) float32 to (N, D) float32."""
        rows = len(x_ND)
        qkv_N3HE = self.qkv(self.norm1(x_ND).to(self.dtype)).view(rows, 3, self.heads, -1)
        q_HNE, k_HNE, v_HNE = (qkv_N3HE[:, part].transpose(0, 1) for part in range(3))
        # Faster than the library's fused attention at this number of tokens; keys multiply faster when contiguous.
        weight_HNN = torch.bmm(q_HNE, k_HNE.contiguous().transpose(1, 2)).softmax(dim=-1)
        mixed_ND = torch.bmm(weight_HNN, v_HNE).transpose(0, 1).reshape(rows, self.dim)
        x_ND = _plus(self.proj, mixed_ND, x_ND)
        inner_ND = self.norm2(x_ND).to(self.dtype)
        if self.swiglu:
            gate_NF, value_NF = self.fc1(inner_ND).chunk(2, dim=-1)
            return _plus(self.fc2, F.silu(gate_NF) * value_NF, x_ND)
        return _plus(self.fc2, self.fc1.gelu(inner_ND), x_ND)


def _plus(linear: Linear, x_ND: Tensor, other_NE: Tensor) -> Tensor:
    """Map rows and add them to others in float32: in bf16 the sum over the blocks would lose half of its digits."""
    if x_ND.dtype == other_NE.dtype:
        return linear.plus(x_ND, other_NE)
    return other_NE + linear(x_ND)


def _scaled(linear: nn.Linear, scale: nn.Module) -> tuple[Tensor, Tensor]:
    """Weights and bias of a linear map with the LayerScale that follows it, if any, multiplied in."""
    if isinstance(scale, nn.Identity):
        return linear.weight, linear.bias
    gamma = cast(LayerScale, scale).gamma
    return linear.weight * gamma[:, None], linear.bias * gamma
