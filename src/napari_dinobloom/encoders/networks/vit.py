"""The vision transformer itself: patches in, normalised tokens out.

Written for inference on pictures of one size: no drop path, no head, no position interpolation. The
class token after the final LayerNorm is DinoBloom's embedding; key names are those of timm, so that
a timm state dict loads as it is.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_dinobloom.encoders.architecture import Architecture
from napari_dinobloom.encoders.networks.backbone import Backbone

EPS = 1e-6
"""LayerNorm epsilon of DINOv2."""


def attention(q_BHND: Tensor, k_BHND: Tensor, v_BHND: Tensor) -> Tensor:
    """Mix values by the softmax of scaled products, all (B, H, N, D).

    In bf16 on a CPU as three plain operations: torch's fused kernels take 1.7 times as long there, and backwards 2.5
    times (`benchmarks/training.py`).
    """
    if q_BHND.dtype != torch.bfloat16 or q_BHND.device.type != "cpu":
        return F.scaled_dot_product_attention(q_BHND, k_BHND, v_BHND)
    weight_BHNN = (q_BHND * q_BHND.shape[-1] ** -0.5) @ k_BHND.transpose(-2, -1)
    mixed: Tensor = weight_BHNN.softmax(dim=-1) @ v_BHND
    return mixed


class Attention(nn.Module):
    """Multi-head self-attention over all tokens of a picture."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_BND: Tensor, rows_R: Tensor | None = None) -> Tensor:
        """Attend, (B, N, D) to (B, N, D); with `rows_R` to (R, D), for the tokens in these places of all B * N."""
        batch, tokens, dim = x_BND.shape
        qkv = self.qkv(x_BND).view(batch, tokens, 3, self.heads, dim // self.heads)
        q_BHND, k_BHND, v_BHND = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        out_BND = attention(q_BHND, k_BHND, v_BHND).transpose(1, 2).reshape(batch, tokens, dim)
        mixed: Tensor = self.proj(out_BND if rows_R is None else out_BND.flatten(0, 1).index_select(0, rows_R))
        return mixed

    def first(self, x_BND: Tensor) -> Tensor:
        """Attend for the first token only, (B, N, D) to (B, D).

        One query needs no key and no value per token: the query goes through the key matrix once and meets the
        tokens themselves, and what they add up to goes through the value matrix once. The key's bias is the same
        for all tokens and drops out of the softmax. The same function with 1 / N of the products.
        """
        batch, _, dim = x_BND.shape
        width = dim // self.heads
        q_HED, k_HED, v_HED = self.qkv.weight.view(3, self.heads, width, dim).unbind(0)
        q_HE, _, v_HE = self.qkv.bias.view(3, self.heads, width).unbind(0)
        query_BHE = torch.einsum("bd,hed->bhe", x_BND[:, 0], q_HED) + q_HE
        key_BHD = torch.einsum("bhe,hed->bhd", query_BHE * width**-0.5, k_HED)
        weight_BHN = (key_BHD @ x_BND.transpose(1, 2)).softmax(dim=-1)
        value_BHE = torch.einsum("bhd,hed->bhe", weight_BHN @ x_BND, v_HED) + v_HE
        mixed: Tensor = self.proj(value_BHE.reshape(batch, dim))
        return mixed


class Mlp(nn.Module):
    """The feed-forward part of a block: GELU, or SwiGLU whose gate is the first half of `fc1`."""

    def __init__(self, dim: int, hidden: int, swiglu: bool) -> None:
        super().__init__()
        self.swiglu = swiglu
        self.fc1 = nn.Linear(dim, 2 * hidden if swiglu else hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x_BND: Tensor) -> Tensor:
        """Transform each token by itself, (B, N, D) to (B, N, D)."""
        x_BNF = self.fc1(x_BND)
        if self.swiglu:
            gate, value = x_BNF.chunk(2, dim=-1)
            x_BNF = F.silu(gate) * value
        else:
            x_BNF = F.gelu(x_BNF)
        out: Tensor = self.fc2(x_BNF)
        return out


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x_BND: Tensor) -> Tensor:
        """Scale channels, (B, N, D) to (B, N, D)."""
        return x_BND * self.gamma


class Block(nn.Module):
    """Attention and feed-forward, each after a LayerNorm and added to what came in."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(arch.dim, eps=EPS)
        self.attn = Attention(arch.dim, arch.heads)
        self.ls1 = LayerScale(arch.dim) if arch.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(arch.dim, eps=EPS)
        self.mlp = Mlp(arch.dim, arch.hidden, arch.swiglu)
        self.ls2 = LayerScale(arch.dim) if arch.layer_scale else nn.Identity()

    def forward(self, x_BND: Tensor, rows_R: Tensor | None = None) -> Tensor:
        """Apply both branches, (B, N, D) to (B, N, D); with `rows_R` to (R, D), for the tokens in these places."""
        mixed = self.ls1(self.attn(self.norm1(x_BND), rows_R))
        x = mixed + (x_BND if rows_R is None else x_BND.flatten(0, 1).index_select(0, rows_R))
        out: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return out

    def first(self, x_BND: Tensor) -> Tensor:
        """Give the first token of what `forward` gives, (B, N, D) to (B, D)."""
        x_BD = x_BND[:, 0] + self.ls1(self.attn.first(self.norm1(x_BND)))
        out: Tensor = x_BD + self.ls2(self.mlp(self.norm2(x_BD)))
        return out


def patches(x_BCYX: Tensor, side: int) -> Tensor:
    """Cut pictures into non-overlapping squares, (B, C, Y, X) to (B, patches, C * side * side), row by row."""
    batch, channels, height, width = x_BCYX.shape
    x_BCYIXJ = x_BCYX.reshape(batch, channels, height // side, side, width // side, side)
    return x_BCYIXJ.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * side * side)


class PatchEmbed(nn.Module):
    """Linear map of non-overlapping patches, kept as a convolution as every release stores it."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, arch.dim, kernel_size=arch.patch_size, stride=arch.patch_size)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Embed patches row by row, (B, 3, Y, X) to (B, patches, D)."""
        return F.linear(patches(x_BCYX, self.proj.kernel_size[0]), self.proj.weight.flatten(1), self.proj.bias)


class VisionTransformer(Backbone):
    """A DINOv2-style vision transformer without registers.

    Parameters
    ----------
    arch : Architecture
        The sizes.
    grid : int, default: 16
        Patches per side; 16 for 224 px and patch 14.
    """

    def __init__(self, arch: Architecture, grid: int = 16) -> None:
        super().__init__()
        self.arch = arch
        self.dim = arch.dim
        self.grid: int = grid
        self.patch_embed = PatchEmbed(arch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, arch.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid * grid + 1, arch.dim))
        self.blocks = nn.ModuleList(Block(arch) for _ in range(arch.depth))
        self.norm = nn.LayerNorm(arch.dim, eps=EPS)

    def forward(
        self,
        x_BCYX: Tensor,
        masks_BP: Tensor | None = None,
        mask_token_1D: Tensor | None = None,
        rows_R: Tensor | None = None,
    ) -> Tensor:
        """Compute all tokens after the final LayerNorm, or some of them.

        Parameters
        ----------
        x_BCYX : Tensor
            Normalised pictures (B, 3, Y, X); Y = X = grid * patch size.
        masks_BP : Tensor, optional
            Boolean (B, patches): patches whose embedding `mask_token_1D` replaces before positions are added.
        mask_token_1D : Tensor, optional
            The mask token (1, D); needed with `masks_BP`.
        rows_R : Tensor, optional
            int64 places among all B * (1 + patches) tokens; the last block computes no others after its attention.

        Returns
        -------
        Tensor
            (B, 1 + patches, D): the class token, then the patch tokens row by row. With `rows_R` (R, D).
        """
        x_BND = self._enter(x_BCYX, masks_BP, mask_token_1D)
        for block in self.blocks[:-1]:
            x_BND = block(x_BND)
        out: Tensor = self.norm(self.blocks[-1](x_BND, rows_R))
        return out

    def pooled(self, x_BCYX: Tensor) -> Tensor:
        """Compute the class token after the final LayerNorm, (B, D), without the last block's other tokens."""
        x_BND = self._enter(x_BCYX)
        for block in self.blocks[:-1]:
            x_BND = block(x_BND)
        out: Tensor = self.norm(cast(Block, self.blocks[-1]).first(x_BND))
        return out

    def _enter(self, x_BCYX: Tensor, masks_BP: Tensor | None = None, mask_token_1D: Tensor | None = None) -> Tensor:
        """Turn pictures into the tokens that the first block sees, (B, 1 + patches, D)."""
        x_BPD = self.patch_embed(x_BCYX)
        if masks_BP is not None and mask_token_1D is not None:
            x_BPD = torch.where(masks_BP.unsqueeze(-1), mask_token_1D.to(x_BPD.dtype).unsqueeze(0), x_BPD)
        return torch.cat([self.cls_token.expand(len(x_BPD), -1, -1), x_BPD], dim=1) + self.positions(x_BPD.shape[1])

    def positions(self, patches: int) -> Tensor:
        """Give the positions (1, 1 + patches, D) that are added to a picture's tokens."""
        return self.pos_embed
