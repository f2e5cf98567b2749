"""Operations on batches of crops, each as torchvision does it to a PIL image.

Crops are float32 (n, 3, Y, X) with values 0 to 255, not rounded between operations as PIL's are; factors have the
shape (n,). The results are clipped to 0 to 255.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

BLUR_REACH = 4
"""Pixels to each side that the blur takes in: its kernel has 9."""

_LUMA = (0.299, 0.587, 0.114)


def resize_weights(start: Tensor, length: Tensor, flip: Tensor, side: int, size: int) -> Tensor:
    """Weights (n, size, side) that take pixels ``start`` to ``start + length`` of a line of `side` to one of `size`.

    Bicubic with a = -0.5 (Keys 1981), stretched where it shrinks, cut off at the ends and normalised, as PIL does.
    Flipped lines are written from their other end.
    """
    start, length = (x.to(torch.float32)[:, None, None] for x in (start, length))
    where = torch.arange(side, device=start.device, dtype=torch.float32) - start
    target = torch.arange(size, device=start.device, dtype=torch.float32)[None, :, None] + 0.5
    target = torch.where(flip[:, None, None], size - target, target)
    scale = length / size
    distance = (where + 0.5 - target * scale).abs_().div_(scale.clamp(min=1))
    # The two pieces of the kernel written as powers of what is left to 1 and to 2.
    inner, outer = (1 - distance).clamp_(min=0), (2 - distance).clamp_(min=0)
    weights = outer.square().mul_(outer.sub_(1)).mul_(0.5).addcmul_(inner.square(), 1 - 2 * inner)
    weights.mul_((where >= 0) & (where < length))
    return weights.div_(weights.sum(dim=2, keepdim=True))


def blur_weights(sigma: Tensor, size: int) -> Tensor:
    """Weights (n, size, size) of a Gaussian of 9 pixels along a line that is mirrored at its ends."""
    reach = torch.arange(BLUR_REACH + 1, device=sigma.device)
    taps = torch.exp(-0.5 * (reach / sigma[:, None]).square())
    taps = taps / (2 * taps.sum(dim=1, keepdim=True) - taps[:, :1])
    return (taps @ _neighbours(size, sigma.device)).view(-1, size, size)


@lru_cache(maxsize=8)
def _neighbours(size: int, device: torch.device) -> Tensor:
    """For each distance (row), how often pixel j lies so far from pixel i of the mirrored line: (5, size * size)."""
    i, j = torch.arange(size, device=device)[:, None], torch.arange(size, device=device)
    end = 2 * (size - 1)
    mirrored_low, mirrored_high = torch.where(j > 0, i + j, size + BLUR_REACH), end - i - j
    mirrored_high = torch.where(j < size - 1, mirrored_high, size + BLUR_REACH)
    reach = torch.arange(BLUR_REACH + 1, device=device)[:, None, None]
    return sum(((d == reach).float() for d in ((i - j).abs(), mirrored_low)), (mirrored_high == reach).float()).flatten(
        1
    )


def resize(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Weigh with `columns` (n, X', X) along x, round as PIL does between its passes, then with `rows` (n, Y', Y)."""
    return _along_y(_along_x(x, columns).clamp_(0, 255).round_(), rows).clamp_(0, 255)


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Blur by a Gaussian of `sigma` pixels, above 0."""
    return _along_y(_along_x(x, blur_weights(sigma, x.shape[3])), blur_weights(sigma, x.shape[2])).clamp_(0, 255)


def _along_x(x: Tensor, weights: Tensor) -> Tensor:
    count, planes, height, width = x.shape
    return torch.bmm(x.reshape(count, planes * height, width), weights.mT).view(count, planes, height, -1)


def _along_y(x: Tensor, weights: Tensor) -> Tensor:
    return torch.matmul(weights.unsqueeze(1), x)


def grey(x: Tensor) -> Tensor:
    """Give the luma (ITU-R 601-2) of crops as one plane (n, 1, Y, X)."""
    red, green, blue = x.unbind(1)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2]).unsqueeze(1)


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Mix with black; a factor of 1 changes nothing."""
    return (x * _across(factor)).clamp_(0, 255)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Mix with the crop's mean grey, rounded as PIL does."""
    mean = grey(x).mean(dim=(1, 2, 3), keepdim=True).round_()
    return torch.lerp(mean, x, _across(factor)).clamp_(0, 255)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Mix with the crop's grey."""
    return torch.lerp(grey(x), x, _across(factor)).clamp_(0, 255)


def hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by `shift` turns, in PIL's HSV.

    PIL keeps hue and saturation as whole numbers from 0 to 255, cut off, and lets hue run over at 256. On saturated
    colours that is worth several grey levels, so it is done here as well.
    """
    red, green, blue = x.unbind(1)
    value, least = torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
    chroma = value - least
    divisor = chroma.clamp(min=1e-6)
    # Many hues of whole numbers lie on a step: there, PIL's mix of float and double decides which level they get.
    r, g, b = (((value - plane) / divisor).double() for plane in (red, green, blue))
    sixths = torch.where(red == value, b - g, torch.where(green == value, 2 + r - b, 4 + g - r)).float()
    turns = sixths.double().div_(6).add_(1)
    turns = turns.sub_(turns.floor()).float()
    level = (turns.double() * 255).floor_().float()
    level = _wrapped(level.add_((shift * 255).trunc_()[:, None, None]), 256).mul_(6 / 255)
    saturated = (chroma * 255 / value.clamp(min=1e-6)).floor_().div_(255).mul_(value)
    # Of the colour circle, each channel falls by the chroma outside its third.
    planes = [_wrapped(level + n, 6) for n in (5, 3, 1)]
    return torch.stack([value - torch.minimum(k, 4 - k).clamp_(0, 1).mul_(saturated) for k in planes], dim=1)


def solarise(x: Tensor) -> Tensor:
    """Invert values from 128, which gives the lesser of a value and its inverse."""
    return torch.minimum(x, 255 - x)


def _wrapped(x: Tensor, period: int) -> Tensor:
    """Change x in place to its remainder; `Tensor.remainder` takes several times as long."""
    return x.sub_((x / period).floor_().mul_(period))


def _across(factor: Tensor) -> Tensor:
    return factor[:, None, None, None]
