"""The network that finds white cells: a small U-Net from absorbance to masks, centres and flags.

It sees absorbance (white balance done, so that background is 0) at `PIXEL_UM` and gives, per pixel, how surely it lies
in a white cell and in a nucleus; per 2 x 2 pixels how near the middle of a cell is, where that middle lies, and whether
the cell is a smudge, a clump of platelets or precipitate. Cells are read off by `instances`. The head that points to
the middle is that of Panoptic-DeepLab (Cheng et al., CVPR 2020); lobes of one nucleus are never joined by rule, since
all of them point to one middle.

Importing this module loads torch; import it inside functions.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PIXEL_UM = 0.25
"""Micrometres per pixel that the network sees."""

STRIDE = 32
"""Height and width of its input are multiples of this."""

WIDTHS = (16, 32, 64, 96, 96)
"""Channels at 0.5, 1, 2, 4 and 8 micrometres per pixel."""

OFFSET_PX = 16.0
"""Pixels that one unit of the pointing head stands for."""

FLAGS = ("smudge", "platelet_clump", "precipitate")
"""What the flag head tells, in order."""


class _Block(nn.Sequential):
    """3 x 3 convolution, batch normalisation, rectifier."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
        )


class SegmentationNet(nn.Module):
    """U-Net with additive skips.

    Parameters
    ----------
    widths : tuple of int
        Channels per level, finest first.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.stem = nn.Sequential(_Block(12, widths[0]), _Block(widths[0], widths[0]))
        self.down = nn.ModuleList(
            nn.Sequential(_Block(before, after, 2), _Block(after, after)) for before, after in pairwise(widths)
        )
        self.lift = nn.ModuleList(nn.Conv2d(deep, fine, 1) for fine, deep in pairwise(widths))
        self.up = nn.ModuleList(_Block(fine, fine) for fine in widths[:-1])
        self.last = _Block(widths[0], widths[0])
        self.head = nn.Conv2d(widths[0], 8 + 3 + len(FLAGS), 1)
        with torch.no_grad():  # the four pixels under one coarse pixel start alike (arXiv 1707.02937)
            self.head.weight[:8] = self.head.weight[:8:4].repeat_interleave(4, 0)

    def forward(self, absorbance: Tensor) -> tuple[Tensor, Tensor]:
        """Give the maps of a batch.

        Parameters
        ----------
        absorbance : Tensor
            (B, 3, Y, X) float32, sides multiples of `STRIDE`.

        Returns
        -------
        masks : Tensor
            (B, 2, Y, X) logits of cell and nucleus.
        coarse : Tensor
            (B, 6, Y/2, X/2): logit of the middle, its offset in y and x in units of `OFFSET_PX`, logits of `FLAGS`.
        """
        x = self.stem(F.pixel_unshuffle(absorbance, 2))
        levels = [x]
        for step in self.down:
            levels.append(step(levels[-1]))
        x = levels.pop()
        for lift, up in zip(reversed(self.lift), reversed(self.up), strict=True):
            x = up(levels.pop() + F.interpolate(lift(x), scale_factor=2.0, mode="bilinear", align_corners=False))
        out = self.head(self.last(x))
        # a smear of two pixels, which takes out the comb that separate pixels under a coarse one can leave
        masks = F.pad(F.pixel_shuffle(out[:, :8], 2), (1, 1, 1, 1), mode="replicate")
        masks = (masks[..., :-2] + 2 * masks[..., 1:-1] + masks[..., 2:]) / 4
        masks = (masks[:, :, :-2] + 2 * masks[:, :, 1:-1] + masks[:, :, 2:]) / 4
        return masks, out[:, 8:]

    def folded(self) -> SegmentationNet:
        """Give a copy for inference whose batch normalisation has gone into the convolutions."""
        import copy

        net = copy.deepcopy(self).eval()
        for module in net.modules():
            if isinstance(module, _Block) and not isinstance(module[1], nn.Identity):
                convolution, norm = module[0], module[1]
                assert isinstance(convolution, nn.Conv2d)
                assert isinstance(norm, nn.BatchNorm2d)
                module[0], module[1] = nn.utils.fusion.fuse_conv_bn_eval(convolution, norm), nn.Identity()
        return net


def empty_network(widths: tuple[int, ...] = WIDTHS) -> SegmentationNet:
    """Give a folded network without weights."""
    return SegmentationNet(widths).folded()


def save_network(net: Any, path: Path, about: dict[str, str]) -> None:
    """Write a network's folded weights as float16 safetensors with notes."""
    from safetensors.torch import save_file

    weights = {k: v.detach().to(torch.float16).contiguous() for k, v in net.folded().state_dict().items()}
    save_file(weights, path, metadata=about)


def load_network(path: Path, device: str = "cpu") -> Any:
    """Read folded weights; convolutions run in float32 in channels-last order."""
    from safetensors.torch import load_file

    net = empty_network()
    net.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    return net.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
