"""A small convolutional network that guides the starter encoder: it learns from few pictures what a ViT cannot.

With some thousand pictures a ViT learns slowly, as nothing tells it that neighbouring pixels belong together. A
convolutional network that was trained on the same pictures, seen small, tells it: the features of its stages are what
the patch tokens have to predict while they learn (locality guidance, Li et al. 2022, arXiv 2207.10026), and its class
probabilities are what the class token has to give (Hinton et al. 2015, arXiv 1503.02531), both for the very view that
the ViT sees (Beyer et al. 2022, arXiv 2106.05237).
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_dinobloom.training.starter_pictures import Pictures, turn_and_zoom

log = logging.getLogger(__name__)

SIDE = 128
"""Side in pixels of what the guide sees; its second stage has the 16 x 16 places of the ViT's patches."""
WIDTHS = (48, 96, 192)
"""Channels of the stages."""


class _Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (He et al. 2015, arXiv 1512.03385)."""

    def __init__(self, entering: int, leaving: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(entering, leaving, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(leaving)
        self.second = nn.Conv2d(leaving, leaving, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(leaving)
        self.short: nn.Module = nn.Identity()
        if entering != leaving or stride != 1:
            self.short = nn.Sequential(nn.AvgPool2d(stride), nn.Conv2d(entering, leaving, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(y)) + self.short(x))


class Guide(nn.Module):
    """The convolutional network.

    Parameters
    ----------
    classes : int
        Cell classes.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        a, b, c = WIDTHS
        self.fine = nn.Sequential(_Block(32, a, 1), _Block(a, a, 1))
        self.middle = nn.Sequential(_Block(a, b, 2), _Block(b, b, 1))
        self.coarse = nn.Sequential(_Block(b, c, 2), _Block(c, c, 1))
        self.head = nn.Linear(c, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, 3, SIDE, SIDE), 0 to 1, to features (n, 96, 16, 16), (n, 192, 8, 8) and class scores (n, classes)."""
        x = ((x - 0.6) / 0.25).contiguous(memory_format=torch.channels_last)
        middle = self.middle(self.fine(self.stem(x)))
        coarse = self.coarse(middle)
        return middle, coarse, self.head(coarse.mean((2, 3))).float()


def shrink(x: Tensor) -> Tensor:
    """Make (n, 3, h, w) pictures as small as the guide sees them."""
    return F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)


@dataclass(kw_only=True, slots=True)
class GuideConfig:
    """The recipe of the guide."""

    steps: int = 3000
    """Optimiser steps."""
    batch: int = 64
    """Pictures per step."""
    lr: float = 0.1
    """Peak learning rate of SGD with momentum 0.9."""
    weight_decay: float = 5e-4
    """Of all parameters."""
    fov: tuple[float, float] = (190.0, 390.0)
    """Range of the field of view in pixels of the 360 px picture."""
    smoothing: float = 0.1
    """Label smoothing."""
    seed: int = 0
    """Seed of everything that is drawn."""


@torch.inference_mode()
def guide_accuracy(guide: Guide, pictures: Pictures, fov: float = 300.0) -> float:
    """Fraction of `pictures` whose best class is right, at one field of view in pixels."""
    guide.eval()
    edge = int(pictures.images.shape[-1] - fov) // 2
    right = 0
    for start in range(0, len(pictures.images), 64):
        x = pictures.images[start : start + 64, :, edge:-edge, edge:-edge].float() / 255
        with torch.autocast("cpu", torch.bfloat16):
            scores = guide(shrink(x))[2]
        right += int((scores.argmax(1) == pictures.targets[start : start + 64]).sum())
    guide.train()
    return right / len(pictures.images)


def train_guide(data: Pictures, check: Pictures, config: GuideConfig) -> tuple[Guide, dict[str, object]]:
    """Train a guide on `data`; return it, not training any more, and its log with the accuracy on `check`."""
    draw = torch.Generator().manual_seed(config.seed)
    torch.manual_seed(config.seed)
    guide = Guide(len(data.classes)).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(
        guide.parameters(), lr=config.lr, momentum=0.9, nesterov=True, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, total_steps=config.steps, pct_start=0.2)
    chance = torch.bincount(data.targets).float().rsqrt()[data.targets]
    started = time.monotonic()
    for step in range(config.steps):
        rows = torch.multinomial(chance, config.batch, replacement=False, generator=draw)
        x = turn_and_zoom(data.images[rows], config.fov, draw, SIDE)
        light = torch.randn((config.batch, 3, 1, 1), generator=draw) * 0.05 + 1
        x = (x * light + torch.randn((config.batch, 1, 1, 1), generator=draw) * 0.03).clamp_(0, 1)
        with torch.autocast("cpu", torch.bfloat16):
            scores = guide(x)[2]
        loss = F.cross_entropy(scores, data.targets[rows], label_smoothing=config.smoothing)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 50 == 49:
            rate = (step + 1) * config.batch / (time.monotonic() - started)
            log.info("guide: step %d loss %.3f, %.1f pictures/s", step + 1, loss.item(), rate)
        if step % 500 == 499:
            log.info("guide: step %d accuracy %.4f", step + 1, guide_accuracy(guide, check))
    report: dict[str, object] = {
        "guide_steps": config.steps,
        "guide_accuracy": round(guide_accuracy(guide, check), 4),
        "guide_seconds": round(time.monotonic() - started),
    }
    return guide.eval().requires_grad_(requires_grad=False), report
