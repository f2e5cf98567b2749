"""Crops that the segmentation network learns from: a field stained and photographed anew each time, with its targets.

A generated field gets random colours for its six substances, a BCCD field has its purple and its red exchanged for
random ones; then light, blur, hue, saturation, contrast, noise and the error of the white balance are drawn. The scale
is drawn over more than one octave, since it is not always known well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from napari_dinobloom.cells import background
from napari_dinobloom.cells.network import FLAGS, OFFSET_PX, PIXEL_UM
from napari_dinobloom.training.smears import FULL, SUBSTANCES, Field

Rng = np.random.Generator


@dataclass(kw_only=True, slots=True)
class CropConfig:
    """How crops are drawn."""

    side: int = 256
    """Side of a crop in pixels of `PIXEL_UM`."""
    real: float = 0.45
    """Share of crops from BCCD."""
    zoom: tuple[float, float] = (0.58, 1.75)
    """Range of the scale's error, log-uniform."""
    alone: float = 0.2
    """Share of crops that show little more than one cell, as data sets of single cells do."""
    halo: int = 32
    """Pixels by which a crop may reach over the field's border, where the field is mirrored."""
    seed: int = 0
    """Seed of everything that is drawn."""


class Crops(IterableDataset[dict[str, Tensor]]):
    """Endless crops of fields: absorbance and targets.

    Parameters
    ----------
    painted, real : list of list of Field
        Each field at falling resolutions, finest first.
    config : CropConfig
        The recipe.
    """

    def __init__(self, painted: list[list[Field]], real: list[list[Field]], config: CropConfig) -> None:
        super().__init__()
        self.painted, self.real, self.config = painted, real, config

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        rng = np.random.default_rng([self.config.seed, 0 if worker is None else worker.id])
        torch.set_num_threads(1)
        while True:
            fields = self.real if rng.random() < self.config.real else self.painted
            yield make_crop(fields[int(rng.integers(len(fields)))], self.config, rng)


def make_crop(levels: list[Field], config: CropConfig, rng: Rng) -> dict[str, Tensor]:
    """Cut, stain and photograph one crop of a field, with its targets."""
    pixel = PIXEL_UM * math.exp(rng.uniform(*np.log(config.zoom)))
    source = max((f for f in levels if f.pixel_um <= pixel * 1.05), key=lambda f: f.pixel_um, default=levels[0])
    alone = rng.random() < config.alone
    if alone:
        source = source.around_one_cell(rng)
    step = pixel / source.pixel_um
    side, halo = config.side, config.halo
    top, left = _corner(source, side, step, halo, rng)
    rows, columns = _places(top, side, step), _places(left, side, step)
    height, width = source.labels.shape
    near = np.ix_(*(_mirrored(np.rint(p).astype(np.int64), n) for p, n in ((rows, height), (columns, width))))
    inside = np.outer(_within(rows, height, 0), _within(columns, width, 0))
    picture, white = _photograph(_stain(_bilinear(source.amounts, rows, columns), source, rng), rng)
    if alone:  # with little background in sight its colour is found as for a picture of one cell
        box = np.ix_(_within(rows, height, 0), _within(columns, width, 0))
        white = background.find_background(picture[box].astype(np.uint8)).colour
    else:
        white = (white * np.exp(rng.normal(0, 0.02, 3) + rng.normal(0, 0.02))).astype(np.float32)
    absorbance = -np.log((picture + 2) / (white + 2)).astype(np.float32)
    absorbance[~np.outer(_within(rows, height, halo * step), _within(columns, width, halo * step))] = 0
    centres = (source.centres - np.array([rows[0], columns[0]], np.float32)) / step
    labels = np.where(inside, source.labels[near], 0)
    targets = _targets(labels, source.nuclei[near] & inside, source.flags[near], inside, centres)
    targets["absorbance"] = torch.from_numpy(absorbance).permute(2, 0, 1)
    targets["real"] = torch.tensor(source.vectors is not None)
    return _turned(targets, rng)


def _corner(field: Field, side: int, step: float, halo: int, rng: Rng) -> tuple[float, float]:
    """Top left place of a crop: around a cell more often than not, never farther over the border than the halo."""
    count = len(field.centres) - 1
    middle = field.centres[int(rng.integers(1, count + 1))] if count and rng.random() < 0.75 else None
    corner = []
    for axis, length in enumerate(field.labels.shape):
        low, high = -halo * step, length - (side - halo) * step
        if high < low:
            place = rng.uniform(high, low)
        elif middle is None:
            place = rng.uniform(low, high)
        else:
            place = np.clip(middle[axis] - side * step * rng.uniform(0.05, 0.95), low, high)
        corner.append(float(place))
    return corner[0], corner[1]


def _places(start: float, side: int, step: float) -> NDArray[np.float64]:
    """Source coordinates of a crop's pixels along one axis."""
    return np.asarray(start + (np.arange(side) + 0.5) * step - 0.5, np.float64)


def _mirrored(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Fold indices into 0 .. size - 1, as numpy's ``symmetric`` padding does."""
    index = index % (2 * size)
    return np.where(index < size, index, 2 * size - 1 - index)


def _within(places: NDArray[np.float64], length: int, rim: float) -> NDArray[np.bool_]:
    """Tell which places lie in a field or its rim, along one axis."""
    return np.asarray((places > -0.5 - rim) & (places < length - 0.5 + rim))


def _bilinear(
    values: NDArray[np.generic], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Sample (Y, X, C) on a lattice, mirrored outside."""
    low_y, low_x = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    wy, wx = (rows - low_y).astype(np.float32)[:, None, None], (columns - low_x).astype(np.float32)[None, :, None]
    y = [_mirrored(low_y + k, values.shape[0]) for k in (0, 1)]
    x = [_mirrored(low_x + k, values.shape[1]) for k in (0, 1)]
    first = values[y[0]].astype(np.float32) * (1 - wy) + values[y[1]].astype(np.float32) * wy
    return np.asarray(first[:, x[0]] * (1 - wx) + first[:, x[1]] * wx, np.float32)


def random_colours(rng: Rng) -> dict[str, NDArray[np.float64]]:
    """Draw the absorbance of every substance in red, green, blue: one made-up laboratory."""
    nuclear = np.array([rng.uniform(0.4, 1.05), 1.0, rng.uniform(-0.02, 0.62)])
    green = rng.uniform(0.6, 2.0)
    red = np.array([rng.uniform(0.05, 0.75), 1.0, rng.uniform(0.45, 1.35)])
    red *= np.exp(rng.uniform(np.log(0.12), np.log(0.65)))
    if red[0] / red[1] > 0.55 and red[2] < 0.7 * red[1]:
        red[2] = rng.uniform(0.7, 1.2) * red[1]
    plasma = np.array([rng.uniform(0.25, 1.1), 1.0, rng.uniform(0.05, 0.75)]) * rng.uniform(0.06, 0.4)
    blue = np.array([rng.uniform(0.7, 1.35), 1.0, rng.uniform(0.1, 0.5)]) * rng.uniform(0.12, 0.5)
    eosin = red / red[1] * rng.uniform(0.3, 0.9) * np.array([1.0, 1.0, rng.uniform(0.8, 1.2)])
    granule = nuclear * rng.uniform(0.85, 1.15, 3) * green * rng.uniform(0.7, 1.1)
    grey = np.full(3, 1.0) * rng.uniform(0.6, 1.2, 3)
    return {
        "red": red, "nucleus": nuclear * green, "cytoplasm": plasma, "blue": blue,
        "eosin": eosin, "basophil": granule, "grey": grey,
    }  # fmt: skip


def _stain(amounts: NDArray[np.float32], field: Field, rng: Rng) -> NDArray[np.float32]:
    """Give a crop its colours as (Y, X, 3) absorbance."""
    colours = random_colours(rng)
    if field.vectors is None:
        mix = np.stack([colours[name] for name in SUBSTANCES]) / FULL
        return (amounts @ mix.astype(np.float32)).astype(np.float32)
    strength = np.exp(rng.uniform(-0.8, 0.7))
    if rng.random() < 0.4:
        return amounts * np.float32(strength)
    purple, red = (v / np.linalg.norm(v) for v in field.vectors)
    old = np.stack([purple, red, np.cross(purple, red)])
    norms = [np.linalg.norm(v) for v in field.vectors]
    new_purple = colours["nucleus"] / norms[0] * rng.uniform(0.7, 1.1)
    new_red = colours["red"] / norms[1]
    new = np.stack([new_purple, new_red, np.cross(purple, red) * strength])
    return np.asarray(amounts @ (np.linalg.inv(old) @ new).astype(np.float32), np.float32)


def _photograph(density: NDArray[np.float32], rng: Rng) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Add light, blur, colour changes, noise, eight bits; gives values and white in 0 to 255."""
    from scipy import ndimage as ndi

    side = density.shape[0]
    if rng.random() < 0.3:  # plasma that took the stain
        density = density + (rng.uniform(0, 0.06) * rng.uniform(0, 1, 3)).astype(np.float32)
    sigma = rng.choice([0.0, rng.uniform(0.3, 0.9), rng.uniform(0.9, 2.2)], p=[0.45, 0.4, 0.15])
    if sigma:
        density = ndi.gaussian_filter(density, (sigma, sigma, 0))
    y = np.linspace(-1, 1, side, dtype=np.float32)
    tilt = rng.normal(0, 0.03, 2).astype(np.float32)
    light = 1 + tilt[0] * y[:, None] + tilt[1] * y[None, :]
    white = rng.uniform(0.45, 1.0) * rng.uniform([0.75, 0.75, 0.45], 1.0)
    picture = (white * np.exp(-np.maximum(density, -0.3))).astype(np.float32) * light[..., None]
    change = _colour_change(rng)
    gamma = np.exp(rng.uniform(-0.4, 0.4))
    picture = np.clip(picture @ change, 0, 1) ** np.float32(gamma)
    white = np.clip(white @ change, 0.03, 1) ** gamma
    noise = rng.choice([0.003, 0.012, 0.03], p=[0.5, 0.35, 0.15])
    grain = rng.normal(0, noise, (side, side, 1 if rng.random() < 0.3 else 3)).astype(np.float32)
    if rng.random() < 0.5:
        grain = 1.6 * ndi.gaussian_filter(grain, (0.7, 0.7, 0))
    picture = np.rint(np.clip(picture + grain, 0, 1) * 255)
    return picture.astype(np.float32), (white * 255).astype(np.float32)


def _colour_change(rng: Rng) -> NDArray[np.float32]:
    """Draw a (3, 3) matrix that turns hue about the grey axis, changes saturation, and lets channels leak."""
    angle = rng.normal(0, 0.25)
    u = 1 / math.sqrt(3)
    c, s = math.cos(angle), math.sin(angle)
    turn = c * np.eye(3) + (1 - c) / 3 + s * u * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    strength = math.exp(np.clip(rng.normal(-0.05, 0.4), -0.9, 0.7))
    turn = strength * turn + (1 - strength) / 3
    leak = rng.normal(0, 0.03, (3, 3))
    return (turn + leak - np.diag(leak.sum(axis=1)) / 3).astype(np.float32)


def _targets(
    labels: NDArray[np.int16],
    nuclei: NDArray[np.bool_],
    flags: NDArray[np.uint8],
    inside: NDArray[np.bool_],
    centres: NDArray[np.float32],
) -> dict[str, Tensor]:
    """Masks, heat of the middles, offsets to them, flags; and where each counts."""
    side = labels.shape[0]
    coarse = labels[::2, ::2]
    half = np.arange(0, side, 2, dtype=np.float32) + 0.5
    grid = np.stack(np.meshgrid(half, half, indexing="ij"), axis=-1)
    offset = (centres[coarse] - grid) / OFFSET_PX
    heat = np.zeros(coarse.shape, np.float32)
    for number in np.unique(labels[labels > 0]):
        distance = ((grid - centres[number]) ** 2).sum(axis=-1)
        heat = np.maximum(heat, np.exp(-distance / (2 * 5.0**2)))
    flag = np.stack([flags[::2, ::2] == i + 1 for i in range(len(FLAGS))]).astype(np.float32)
    return {
        "masks": torch.from_numpy(np.stack([labels > 0, nuclei]).astype(np.float32)),
        "inside": torch.from_numpy(inside[None].astype(np.float32)),
        "heat": torch.from_numpy(heat[None]),
        "offset": torch.from_numpy(np.where(coarse[..., None] > 0, offset, 0).transpose(2, 0, 1).astype(np.float32)),
        "flags": torch.from_numpy(flag),
    }


def _turned(crop: dict[str, Tensor], rng: Rng) -> dict[str, Tensor]:
    """Flip and transpose a crop at random."""
    flip_y, flip_x, swap = (bool(rng.random() < 0.5) for _ in range(3))
    result = {}
    for name, value in crop.items():
        if value.ndim == 3:
            if name == "offset":
                sign = torch.tensor([-1.0 if flip_y else 1.0, -1.0 if flip_x else 1.0])
                value = value * sign[:, None, None]
            value = value.flip([axis for axis, yes in ((1, flip_y), (2, flip_x)) if yes])
            if swap:
                value = value.transpose(1, 2)
                value = value.flip(0) if name == "offset" else value
            value = value.contiguous()
        result[name] = value
    return result
