"""What is random about a crop: its box, its orientation and how its colours and focus change."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_dinobloom.errors import InputError
from napari_dinobloom.training.counter import uniform

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
"""Operations of the colour jitter, numbered."""

ATTEMPTS = 10
"""Boxes that are tried before the central one is taken, as torchvision's RandomResizedCrop does."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Augmentations:
    """How crops are cut and changed; the defaults are what DinoBloom's training did.

    A triple has a value for first, second and local crops.
    """

    size: int = 224
    """Side of the first and second crop, in pixels."""
    scale: tuple[float, float] = (0.32, 1.0)
    """Least and largest share of the picture's area that they show."""
    local_crops: int = 0
    """Small crops of a picture beside its two large ones."""
    local_size: int = 98
    """Their side, in pixels."""
    local_scale: tuple[float, float] = (0.05, 0.32)
    """Their share of the picture's area."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and largest ratio of a box's width to its height."""
    horizontal_flip: float = 0.5
    """Probability."""
    vertical_flip: float = 0.5
    """Probability; DINOv2 has none."""
    quarter_turn: float = 0.5
    """Probability of a turn by 90 degrees against the clock; DINOv2 has none."""
    jitter: float = 0.8
    """Probability that brightness, contrast, saturation and hue change, in random order."""
    brightness: float = 0.4
    """Largest change of the factor from 1."""
    contrast: float = 0.4
    """Largest change of the factor from 1."""
    saturation: float = 0.2
    """Largest change of the factor from 1."""
    hue: float = 0.1
    """Largest shift, in turns of the colour circle."""
    grey: float = 0.2
    """Probability of losing all colour."""
    blur: tuple[float, float, float] = (0.0, 0.9, 0.5)
    """Probability. DINOv2 names 1, 0.1 and 0.5, but its code applies the complement."""
    sigma: tuple[float, float] = (0.1, 2.0)
    """Least and largest standard deviation of the blur, in pixels of the crop."""
    solarise: tuple[float, float, float] = (0.0, 0.2, 0.0)
    """Probability that bright values are inverted."""

    def __post_init__(self) -> None:
        alone = ("horizontal_flip", "vertical_flip", "quarter_turn", "jitter", "grey", "brightness", "contrast")
        shares = {name: (getattr(self, name),) for name in (*alone, "saturation")}
        for name, values in (shares | {"blur": self.blur, "solarise": self.solarise}).items():
            if not all(0 <= value <= 1 for value in values):
                raise InputError(f"augmentation.{name} is {getattr(self, name)}; use 0 to 1.")
        if not 0 <= self.hue <= 0.5:
            raise InputError(f"augmentation.hue is {self.hue}; use 0 to 0.5 turns.")
        for name in ("scale", "local_scale", "ratio", "sigma"):
            least, largest = getattr(self, name)
            if not 0 < least <= largest or ("scale" in name and largest > 1):
                bound = ", at most 1" if "scale" in name else ""
                raise InputError(
                    f"augmentation.{name} is {[least, largest]}; use two numbers above 0 that rise{bound}."
                )
        if self.local_crops < 0 or min(self.size, self.local_size) < 14:
            sides = f"size {self.size}, local_size {self.local_size} and local_crops {self.local_crops}"
            raise InputError(f"augmentation has {sides}; sides must be at least 14, a patch, and crops at least 0.")


@dataclass(frozen=True, slots=True)
class Draws:
    """The random parameters of n crops, on the CPU.

    Attributes
    ----------
    box : Tensor (n, 4) of int64
        Top, left, height and width, in pixels of the picture.
    horizontal_flip, vertical_flip, quarter_turn : Tensor (n,) of bool
        Done in this order, after the resize.
    jitter : Tensor (n,) of bool
        Whether colours change.
    order : Tensor (n, 4) of int64
        Which of brightness, contrast, saturation and hue (0 to 3) comes when.
    factors : Tensor (n, 4) of float32
        Factors of the first three, shift of hue in turns.
    grey : Tensor (n,) of bool
        Whether the crop loses its colour.
    sigma : Tensor (n,) of float32
        Of the blur, in pixels; 0 for none.
    solarise : Tensor (n,) of bool
        Whether values from 128 are inverted.
    """

    box: Tensor
    horizontal_flip: Tensor
    vertical_flip: Tensor
    quarter_turn: Tensor
    jitter: Tensor
    order: Tensor
    factors: Tensor
    grey: Tensor
    sigma: Tensor
    solarise: Tensor

    def part(self, rows: slice) -> Self:
        """Parameters of some of the crops."""
        return replace(self, **{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def draw(config: Augmentations, side: int, seed: int, positions: Tensor, crop: int) -> Draws:
    """Draw the parameters of one crop of each picture.

    Parameters
    ----------
    config : Augmentations
    side : int
        Of the square pictures, in pixels.
    seed : int
        Of the run.
    positions : Tensor (n,) of int64
        Of the pictures in the global stream.
    crop : int
        0 is the first crop, 1 the second, 2 and on are local ones.

    Returns
    -------
    Draws
        A function of the arguments alone, each crop's of its own position.
    """
    kind = min(crop, 2)
    scale = config.local_scale if kind == 2 else config.scale
    # Each parameter has its own numbers whether or not it is used, so that none moves when another is configured.
    u = uniform(2 * ATTEMPTS + 18, seed, positions.cpu().numpy(), crop)
    box = _boxes(u[:, : 2 * ATTEMPTS + 2], side, scale, config.ratio)
    flip_h, flip_v, turn, jitter, grey, blur, sigma, solarise = u[:, 2 * ATTEMPTS + 2 : 2 * ATTEMPTS + 10].T
    strengths = np.array([config.brightness, config.contrast, config.saturation, config.hue])
    factors = np.array([1, 1, 1, 0]) + strengths * (2 * u[:, -8:-4] - 1)
    sigma = np.where(blur < config.blur[kind], config.sigma[0] + (config.sigma[1] - config.sigma[0]) * sigma, 0)
    return Draws(
        box=torch.from_numpy(box),
        horizontal_flip=torch.from_numpy(flip_h < config.horizontal_flip),
        vertical_flip=torch.from_numpy(flip_v < config.vertical_flip),
        quarter_turn=torch.from_numpy(turn < config.quarter_turn),
        jitter=torch.from_numpy(jitter < config.jitter),
        order=torch.from_numpy(np.argsort(u[:, -4:], axis=1)),
        factors=torch.from_numpy(factors.astype(np.float32)),
        grey=torch.from_numpy(grey < config.grey),
        sigma=torch.from_numpy(sigma.astype(np.float32)),
        solarise=torch.from_numpy(solarise < config.solarise[kind]),
    )


def _boxes(
    u: NDArray[np.float64], side: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> NDArray[np.int64]:
    """Top, left, height, width by torchvision's rule (RandomResizedCrop): the first of ten that fits, or centred."""
    area = side * side * (scale[0] + (scale[1] - scale[0]) * u[:, :ATTEMPTS])
    low, high = np.log(ratio)
    aspect = np.exp(low + (high - low) * u[:, ATTEMPTS:-2])
    last = [[max(1, round(side * min(1.0, 1 / ratio[0])))], [max(1, round(side * min(1.0, ratio[1])))]]
    height, width = (
        np.concatenate([np.rint(np.sqrt(x)).astype(np.int64), np.full((len(u), 1), centre)], axis=1)
        for x, centre in zip((area / aspect, area * aspect), last, strict=True)
    )
    fits = (height > 0) & (height <= side) & (width > 0) & (width <= side)
    chosen = fits.argmax(axis=1)  # the last always fits
    height, width = (x[np.arange(len(u)), chosen] for x in (height, width))
    central = chosen == ATTEMPTS
    top, left = (
        np.where(central, (side - x) // 2, (number * (side - x + 1)).astype(np.int64))
        for x, number in ((height, u[:, -2]), (width, u[:, -1]))
    )
    return np.stack([top, left, height, width], axis=1)
