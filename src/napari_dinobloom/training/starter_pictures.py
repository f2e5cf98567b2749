"""Labelled pictures for the finish of a starter encoder, and how they are varied: turned, zoomed, stained anew."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from napari_dinobloom.encoders.splits import held_out


@dataclass(frozen=True, slots=True)
class Pictures:
    """Labelled pictures in memory.

    Attributes
    ----------
    images : Tensor
        (n, 3, 360, 360) uint8.
    targets : Tensor
        (n,) int64, index into `classes`.
    classes : list of str
        Sorted class names.
    """

    images: Tensor
    targets: Tensor
    classes: list[str] = field(default_factory=list)


def read_pictures(
    table: Path, *, split: str, held: bool, classes: list[str] | None = None, side: int = 360
) -> Pictures:
    """Read the pictures of `split` from a CSV with columns file, cell_type, split.

    Parameters
    ----------
    table : Path
        The CSV; `file` is relative to its folder.
    split : str
        Rows whose column ``split`` has this value.
    held : bool
        Whether to take the rows held out of training (`held_out`) or the others.
    classes : list of str, optional
        Class names to index; by default those found.
    side : int
        Pictures are cut to their central `side` x `side` pixels.
    """
    with open(table, newline="", encoding="utf-8") as handle:
        rows = [r for r in csv.DictReader(handle) if r["split"] == split and held_out(r["file"]) == held]
    if not rows:
        raise ValueError(f"{table}: no row with split {split!r}; the columns file, cell_type and split are needed")
    names = classes or sorted({r["cell_type"] for r in rows})
    images = torch.empty((len(rows), 3, side, side), dtype=torch.uint8)
    for i, row in enumerate(rows):
        with Image.open(table.parent / row["file"]) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
        images[i] = torch.from_numpy(pixels[top : top + side, left : left + side].transpose(2, 0, 1).copy())
    return Pictures(images, torch.tensor([names.index(r["cell_type"]) for r in rows]), names)


def _uniform(n: int, low: float, high: float, draw: torch.Generator) -> Tensor:
    return torch.rand(n, generator=draw) * (high - low) + low


def turn_and_zoom(images: Tensor, fov: tuple[float, float], draw: torch.Generator, size: int = 224) -> Tensor:
    """Cut randomly turned, flipped, zoomed and shifted squares; (b, 3, s, s) uint8 to (b, 3, size, size) float 0..1."""
    n, side = len(images), images.shape[-1]
    base = math.exp(float(_uniform(1, math.log(fov[0]), math.log(fov[1]), draw)))
    keep = min(side, 2 * math.ceil(base * 0.8))
    edge, side = (side - keep) // 2, keep
    x = images[..., edge : edge + side, edge : edge + side].float().div_(255)
    if base > 1.2 * size:
        x = F.interpolate(x, scale_factor=size / base, mode="bilinear", antialias=True)
    zoom = base / side * _uniform(n, 0.92, 1.08, draw)
    angle = _uniform(n, 0, 2 * math.pi, draw)
    flip = torch.where(torch.rand(n, generator=draw) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    shift = _uniform(2 * n, -20 / side, 20 / side, draw).view(2, n)
    theta = torch.stack([torch.stack([cos * flip, -sin, shift[0]], 1), torch.stack([sin * flip, cos, shift[1]], 1)], 1)
    grid = F.affine_grid(theta, [n, 3, size, size], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def restain(x: Tensor, draw: torch.Generator) -> Tensor:
    """Vary tint, saturation, contrast, gamma, focus and noise as other stains, lamps and cameras do; in place, 0..1."""
    n, height, width = len(x), *x.shape[2:]
    saturation = torch.exp(torch.randn((n, 1, 1), generator=draw) * 0.25)
    mix = saturation * torch.eye(3) + (1 - saturation) / 3 + torch.randn((n, 3, 3), generator=draw) * 0.04
    mix = mix * torch.exp(torch.randn((n, 3, 1), generator=draw) * 0.06)
    contrast = torch.exp(torch.randn((n, 1, 1), generator=draw) * 0.15)
    middle = 0.6 * (1 - contrast) + torch.randn((n, 1, 1), generator=draw) * 0.05
    x = torch.baddbmm(middle, contrast * mix, x.flatten(2)).view(n, 3, height, width).clamp_(1e-3, 1)
    bent = torch.rand(n, generator=draw) < 0.5
    x[bent] = x[bent].pow(torch.exp(torch.randn((int(bent.sum()), 1, 1, 1), generator=draw) * 0.2))
    soft = torch.rand(n, generator=draw) < 0.25
    if soft.any():
        taps = torch.arange(-4, 5).float()
        kernel = torch.exp(-(taps**2) / (2 * float(_uniform(1, 0.5, 2.2, draw)) ** 2))
        kernel = (kernel / kernel.sum()).repeat(3, 1)
        rows = F.conv2d(x[soft], kernel[:, None, None, :], padding="same", groups=3)
        x[soft] = F.conv2d(rows, kernel[:, None, :, None], padding="same", groups=3)
    noisy = torch.rand(n, generator=draw) < 0.2
    x[noisy] += 0.03 * torch.randn((int(noisy.sum()), 3, height, width), generator=draw)
    return x
