"""Take position embeddings of one patch grid to another, by a named rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dinobloom.encoders.spec import PositionRule

if TYPE_CHECKING:
    from torch import Tensor

HUB_OFFSET = 0.1
"""What the public DINOv2 models add to the grid before they divide, so that rounding never loses a row."""


def resample_positions(pos_1ND: Tensor, grid: int, rule: PositionRule) -> Tensor:
    """Resample a position embedding bicubically.

    Parameters
    ----------
    pos_1ND : Tensor
        (1, 1 + n * n, D): class token first, then an n x n grid row by row.
    grid : int
        Patches per side wanted.
    rule : {"hub", "training", "timm"}
        "training": scale ``grid / n`` exactly, how DinoBloom's fine-tuning starts from a DINOv2 file.
        "hub": scale ``(grid + 0.1) / n``, how the public DINOv2 models run at another size.
        Both after ``facebookresearch/dinov2`` and without antialiasing. "timm": with antialiasing, as timm's
        ``resample_abs_pos_embed`` does.

    Returns
    -------
    Tensor
        (1, 1 + grid * grid, D) float32, or float64 if `pos_1ND` is.
    """
    import torch
    import torch.nn.functional as F

    side = round((pos_1ND.shape[1] - 1) ** 0.5)
    pos_1ND = pos_1ND.to(torch.promote_types(pos_1ND.dtype, torch.float32))
    patches = pos_1ND[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if rule == "hub":
        scale = (grid + HUB_OFFSET) / side
        moved = F.interpolate(
            patches, scale_factor=(scale, scale), mode="bicubic", antialias=False, recompute_scale_factor=False
        )
    else:  # by size, as n * (grid / n) may round to less than the grid
        moved = F.interpolate(patches, size=(grid, grid), mode="bicubic", antialias=rule == "timm")
    flat = moved.permute(0, 2, 3, 1).reshape(1, grid * grid, -1)
    return torch.cat([pos_1ND[:, :1], flat], dim=1)
