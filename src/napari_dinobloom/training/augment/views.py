"""The crops of a batch of pictures, as the network sees them.

The order is that of ``dinov2/data/augmentations.py`` with DinoBloom's flips and turns: crop and resize, horizontal
flip, vertical flip, quarter turn, colour jitter, grey, blur, solarise, normalise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_dinobloom.errors import InputError
from napari_dinobloom.training.augment import operations
from napari_dinobloom.training.augment.draws import BRIGHTNESS, CONTRAST, HUE, SATURATION, Augmentations, Draws, draw

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""Of ImageNet's pictures, red, green and blue."""

CROPS_AT_ONCE = {"cpu": 1, "cuda": 152}
"""One crop stays in a core's cache; a card wants many, each taking about 6 MB while it is worked on."""

JITTER: dict[int, Callable[[Tensor, Tensor], Tensor]] = {
    BRIGHTNESS: operations.brightness,
    CONTRAST: operations.contrast,
    SATURATION: operations.saturation,
    HUE: operations.hue,
}


@dataclass(frozen=True, slots=True)
class Views:
    """Crops of n pictures, float32 and normalised.

    Attributes
    ----------
    crops : Tensor (2 n, 3, size, size)
        All first crops, then all second ones.
    local : Tensor (k n, 3, local_size, local_size), optional
        All first local crops, then all second ones and so on.
    """

    crops: Tensor
    local: Tensor | None = None


class Augmentation:
    """Random crops of pictures that depend on a seed and the pictures' positions in the global stream alone.

    Parameters
    ----------
    config : Augmentations, optional
        Defaults to DinoBloom's.
    """

    def __init__(self, config: Augmentations | None = None) -> None:
        self.config = config or Augmentations()

    def views(self, pictures: Tensor, seed: int, positions: Tensor) -> Views:
        """Cut and change all crops of pictures, on the pictures' device.

        Parameters
        ----------
        pictures : Tensor (n, Y, Y, 3) of uint8
            Red, green, blue.
        seed : int
            Of the run.
        positions : Tensor (n,) of int64
            In the global stream; best on the CPU, where parameters are drawn.

        Returns
        -------
        Views

        Raises
        ------
        InputError
            If pictures are not square uint8 RGB, or positions are not one for each.
        """
        if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[1:] != (pictures.shape[1],) * 2 + (3,):
            shape = tuple(pictures.shape)
            raise InputError(f"Pictures are {pictures.dtype} of shape {shape}; augmentation takes uint8 (n, Y, Y, 3).")
        if positions.shape != pictures.shape[:1]:
            raise InputError(
                f"{len(pictures)} pictures have positions of shape {tuple(positions.shape)}; give one each."
            )
        config = self.config
        crops = self._crops(pictures, seed, positions, range(2), config.size)
        if not config.local_crops:
            return Views(crops)
        return Views(crops, self._crops(pictures, seed, positions, range(2, 2 + config.local_crops), config.local_size))

    def _crops(self, pictures: Tensor, seed: int, positions: Tensor, numbers: range, size: int) -> Tensor:
        count = len(pictures)
        out = torch.empty((len(numbers) * count, 3, size, size), device=pictures.device)
        step = CROPS_AT_ONCE.get(pictures.device.type, 32)
        for place, crop in enumerate(numbers):
            draws = draw(self.config, pictures.shape[1], seed, positions, crop)
            for start in range(0, count, step):
                rows = slice(start, min(start + step, count))
                out[place * count + rows.start : place * count + rows.stop] = apply(
                    pictures[rows], draws.part(rows), size
                )
        return out


@torch.no_grad()
def apply(pictures: Tensor, draws: Draws, size: int) -> Tensor:
    """Make one crop of each picture.

    Parameters
    ----------
    pictures : Tensor (n, Y, Y, 3) of uint8
        On any device.
    draws : Draws
        Of n crops.
    size : int
        Side of the crops in pixels.

    Returns
    -------
    Tensor (n, 3, size, size) of float32
        Normalised by ImageNet's mean and deviation.
    """
    device = pictures.device
    with torch.autocast(device.type, enabled=False):
        x = _cut(pictures, draws, size)
        factors = draws.factors.to(device, non_blocking=True)
        for turn in range(len(JITTER)):
            for number, operation in JITTER.items():
                _change(x, draws.jitter & (draws.order[:, turn] == number), operation, factors[:, number])
        _change(x, draws.grey, lambda part: operations.grey(part).expand_as(part))
        _change(x, draws.sigma > 0, operations.blur, draws.sigma.to(device, non_blocking=True))
        _change(x, draws.solarise, operations.solarise)
        mean, deviation = (torch.tensor(values, device=device).view(3, 1, 1) for values in (MEAN, DEVIATION))
        return x.sub_(mean * 255).div_(deviation * 255)


def _cut(pictures: Tensor, draws: Draws, size: int) -> Tensor:
    """Crop, resize, flip and turn: flips are weights in reverse order, a turn reverses columns and transposes."""
    device = pictures.device
    low = draws.box[:, :2].amin(dim=0)
    y, x = (draws.box[:, :2] + draws.box[:, 2:]).amax(dim=0).tolist()
    pictures = pictures[:, low[0] : y, low[1] : x]  # no pixels that no crop shows
    top, left = (draws.box[:, :2] - low).to(device, non_blocking=True).unbind(1)
    height, width = draws.box[:, 2:].to(device, non_blocking=True).unbind(1)
    turn = draws.quarter_turn.to(device, non_blocking=True)
    vertical = draws.vertical_flip.to(device, non_blocking=True)
    horizontal = draws.horizontal_flip.to(device, non_blocking=True) ^ turn
    rows = operations.resize_weights(top, height, vertical, pictures.shape[1], size)
    columns = operations.resize_weights(left, width, horizontal, pictures.shape[2], size)
    crops = operations.resize(pictures.permute(0, 3, 1, 2).to(torch.float32), rows, columns)
    _change(crops, draws.quarter_turn, lambda part: part.mT.contiguous())
    return crops


def _change(x: Tensor, which: Tensor, operation: Callable[..., Tensor], *parameters: Tensor) -> None:
    """Apply an operation in place to some crops. `which` lies on the CPU, so that no device is waited for."""
    rows = which.nonzero().flatten()
    if len(rows) == len(x):
        x.copy_(operation(x, *parameters))
    elif len(rows):
        rows = rows.to(x.device, non_blocking=True)
        x.index_copy_(0, rows, operation(x[rows], *(values[rows] for values in parameters)))
