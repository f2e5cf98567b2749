"""CTransPath (Wang et al. 2022): a Swin-T (Liu et al. 2021) whose patches come out of a small convolutional stem.

Written from the two papers' facts. Key names are those of the published file, in which a stage's
downsampling stands at its end.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_dinobloom.encoders.networks.backbone import Backbone

DIM, DEPTHS, HEADS, WINDOW = 96, (2, 2, 6, 2), (3, 6, 12, 24), 7
"""Channels after the stem, blocks and heads of the four stages, and side of an attention window in tokens."""


class ConvStem(nn.Module):
    """Two convolutions of stride 2 and one of 1 x 1 in place of a patch embedding, after Xiao et al. 2021."""

    def __init__(self) -> None:
        super().__init__()
        first, second = DIM // 8, DIM // 4
        self.proj = nn.Sequential(
            nn.Conv2d(3, first, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(second),
            nn.ReLU(),
            nn.Conv2d(second, DIM, 1),
        )
        self.norm = nn.LayerNorm(DIM)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Embed patches of 4 px, (B, 3, Y, X) to (B, Y / 4, X / 4, 96)."""
        out: Tensor = self.norm(self.proj(x_BCYX).permute(0, 2, 3, 1))
        return out


class WindowAttention(nn.Module):
    """Self-attention inside each window, with a learned bias for each offset between two tokens.

    Parameters
    ----------
    dim, heads : int
        Length of a token and number of heads.
    side : int
        Tokens per side of the picture at this stage.
    shift : int
        Tokens by which the windows are moved; those that the move brings together across the border do not attend
        to each other.
    """

    index: Tensor
    mask: Tensor | None

    def __init__(self, dim: int, heads: int, side: int, shift: int) -> None:
        super().__init__()
        self.heads, self.shift = heads, shift
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, heads))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        # Made by rule, on a real device even while the weights are only planned; the file's copies are not read.
        with torch.device("cpu"):
            self.register_buffer("index", _offsets(), persistent=False)
            self.register_buffer("mask", _apart(side, shift) if shift else None, persistent=False)

    def forward(self, x_BYXD: Tensor) -> Tensor:
        """Attend, (B, Y, X, D) to (B, Y, X, D)."""
        batch, rows, cols, dim = x_BYXD.shape
        moved = torch.roll(x_BYXD, (-self.shift, -self.shift), (1, 2)) if self.shift else x_BYXD
        x_BWND = _windows(moved)
        shape = (*x_BWND.shape[:3], 3, self.heads, dim // self.heads)
        q_BWHND, k_BWHND, v_BWHND = self.qkv(x_BWND).view(shape).permute(3, 0, 1, 4, 2, 5).unbind(0)
        bias_HNN = self.relative_position_bias_table[self.index].permute(2, 0, 1)
        if self.mask is not None:
            bias_HNN = bias_HNN + self.mask.to(bias_HNN.dtype).unsqueeze(1)  # one for each window: (W, H, N, N)
        out = F.scaled_dot_product_attention(q_BWHND, k_BWHND, v_BWHND, attn_mask=bias_HNN)
        out = self.proj(out.transpose(2, 3).reshape(x_BWND.shape))
        out = out.view(batch, rows // WINDOW, cols // WINDOW, WINDOW, WINDOW, dim)
        out = out.transpose(2, 3).reshape(batch, rows, cols, dim)
        return torch.roll(out, (self.shift, self.shift), (1, 2)) if self.shift else out


def _windows(x_BYXD: Tensor) -> Tensor:
    """Cut into windows, (B, Y, X, D) to (B, windows, 49, D)."""
    batch, rows, cols, dim = x_BYXD.shape
    cut = x_BYXD.view(batch, rows // WINDOW, WINDOW, cols // WINDOW, WINDOW, dim).transpose(2, 3)
    return cut.reshape(batch, -1, WINDOW * WINDOW, dim)


def _offsets() -> Tensor:
    """Number the offset between each two tokens of a window, (49, 49): row difference first."""
    place = torch.arange(WINDOW)
    at_N2 = torch.cartesian_prod(place, place)
    apart_NN2 = at_N2[:, None] - at_N2[None] + WINDOW - 1
    return apart_NN2[..., 0] * (2 * WINDOW - 1) + apart_NN2[..., 1]


def _apart(side: int, shift: int) -> Tensor:
    """-100 where two tokens of a moved window come from different sides of the picture, (windows, 49, 49)."""
    place = torch.arange(side)
    region = (place >= side - WINDOW).long() + (place >= side - shift).long()
    region_WN = _windows((3 * region[:, None] + region[None]).view(1, side, side, 1))[0, ..., 0]
    return (region_WN[:, :, None] != region_WN[:, None]).float() * -100.0


class Mlp(nn.Module):
    """The feed-forward part of a block."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x_BYXD: Tensor) -> Tensor:
        """Transform each token by itself."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x_BYXD)))
        return out


class Block(nn.Module):
    """Window attention and feed-forward, each after a LayerNorm and added to what came in."""

    def __init__(self, dim: int, heads: int, side: int, shift: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, side, shift)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)

    def forward(self, x_BYXD: Tensor) -> Tensor:
        """Apply both branches."""
        x_BYXD = x_BYXD + self.attn(self.norm1(x_BYXD))
        out: Tensor = x_BYXD + self.mlp(self.norm2(x_BYXD))
        return out


class PatchMerging(nn.Module):
    """Join each 2 x 2 tokens, column by column, and map them to twice the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x_BYXD: Tensor) -> Tensor:
        """Halve the sides, (B, Y, X, D) to (B, Y / 2, X / 2, 2 D)."""
        batch, rows, cols, dim = x_BYXD.shape
        four = x_BYXD.view(batch, rows // 2, 2, cols // 2, 2, dim).permute(0, 1, 3, 4, 2, 5).flatten(3)
        out: Tensor = self.reduction(self.norm(four))
        return out


class Stage(nn.Module):
    """Blocks of one resolution, every other one with moved windows, and the downsampling behind them."""

    def __init__(self, level: int) -> None:
        super().__init__()
        dim, side = DIM << level, 56 >> level
        shift = WINDOW // 2 if side > WINDOW else 0
        self.blocks = nn.Sequential(
            *(Block(dim, HEADS[level], side, shift if block % 2 else 0) for block in range(DEPTHS[level]))
        )
        self.downsample = PatchMerging(dim) if level < 3 else nn.Identity()

    def forward(self, x_BYXD: Tensor) -> Tensor:
        """Apply the blocks and halve the sides."""
        out: Tensor = self.downsample(self.blocks(x_BYXD))
        return out


class CTransPath(Backbone):
    """The whole network for pictures of 224 px; its embedding is the mean of the 49 last tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.dim = DIM << 3
        self.grid = None
        self.patch_embed = ConvStem()
        self.layers = nn.Sequential(*(Stage(level) for level in range(4)))
        self.norm = nn.LayerNorm(self.dim)

    def ignores(self, key: str) -> bool:
        """Whether the key is a classifier's or one of the tables that are made by rule here."""
        return key.startswith("head.") or key.endswith((".attn_mask", ".relative_position_index"))

    def pooled(self, x_BCYX: Tensor) -> Tensor:
        """Compute the embedding, (B, 768)."""
        x_BYXD: Tensor = self.norm(self.layers(self.patch_embed(x_BCYX)))
        return x_BYXD.mean((1, 2))
