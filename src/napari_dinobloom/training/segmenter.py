"""Training of the bundled segmentation network on one CPU, in well under an hour.

Owns the recipe from fields to `segmenter.safetensors`; run it with
``python -m napari_dinobloom.training.segmenter --data ../shared/data --out FOLDER``. The bundled weights are the mean
of those after a first part and after a second that began with them: ``--steps 6000``, then ``--start FIRST --steps
2400 --lr 0.0008 --painted 160 --seed 1``, then ``--average FIRST SECOND``.

Every crop is stained and photographed anew: a generated field gets random colours for its six substances, a BCCD field
has its purple and its red exchanged for random ones; then light, blur, hue, saturation, contrast, noise and the error
of the white balance are drawn. The scale is drawn over more than one octave, since it is not always known well.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from napari_dinobloom.cells import background
from napari_dinobloom.cells.network import FLAGS, OFFSET_PX, PIXEL_UM, SegmentationNet, load_network, save_network
from napari_dinobloom.training.smears import FULL, SUBSTANCES, Field, even_fields, paint_fields, read_bccd

log = logging.getLogger(__name__)

Rng = np.random.Generator


@dataclass(kw_only=True, slots=True)
class SegmenterConfig:
    """The recipe."""

    steps: int = 6000
    """Optimiser steps."""
    batch: int = 12
    """Crops per step."""
    side: int = 256
    """Side of a crop in pixels of `PIXEL_UM`."""
    lr: float = 3e-3
    """Peak learning rate of AdamW; one cycle with cosine decay to zero."""
    weight_decay: float = 1e-2
    """Of all weights."""
    painted: int = 240
    """Generated fields."""
    real: float = 0.45
    """Share of crops from BCCD."""
    zoom: tuple[float, float] = (0.58, 1.75)
    """Range of the scale's error, log-uniform."""
    alone: float = 0.2
    """Share of crops that show little more than one cell, as data sets of single cells do."""
    halo: int = 32
    """Pixels by which a crop may reach over the field's border, where the field is mirrored."""
    ema: float = 0.998
    """Decay of the averaged weights, which are the ones written."""
    seed: int = 0
    """Seed of everything that is drawn."""
    start: str = ""
    """File of weights to go on from; empty: start anew."""


class Crops(IterableDataset[dict[str, Tensor]]):
    """Endless crops of fields: absorbance and targets.

    Parameters
    ----------
    painted, real : list of list of Field
        Each field at falling resolutions, finest first.
    config : SegmenterConfig
        The recipe.
    """

    def __init__(self, painted: list[list[Field]], real: list[list[Field]], config: SegmenterConfig) -> None:
        super().__init__()
        self.painted, self.real, self.config = painted, real, config

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        rng = np.random.default_rng([self.config.seed, 0 if worker is None else worker.id])
        torch.set_num_threads(1)
        while True:
            fields = self.real if rng.random() < self.config.real else self.painted
            yield make_crop(fields[int(rng.integers(len(fields)))], self.config, rng)


def make_crop(levels: list[Field], config: SegmenterConfig, rng: Rng) -> dict[str, Tensor]:
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


def loss_of(masks: Tensor, coarse: Tensor, crop: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parts of the loss, weighted: masks (cross-entropy and Dice), middles, offsets, flags."""
    inside, want = crop["inside"], crop["masks"]
    entropy = F.binary_cross_entropy_with_logits(masks, want, reduction="none") * inside
    share = torch.sigmoid(masks) * inside
    both, total = (share * want).sum((0, 2, 3)), (share + want * inside).sum((0, 2, 3))
    rim, cell = inside[:, :, ::2, ::2], want[:, :1, ::2, ::2]
    heat = F.binary_cross_entropy_with_logits(coarse[:, :1], crop["heat"], reduction="none")
    heat = heat * rim * (1 + 20 * crop["heat"])
    off = (coarse[:, 1:3] - crop["offset"]).abs().sum(1, keepdim=True) * cell * rim
    painted = (~crop["real"]).float()[:, None, None, None]
    counted = rim * torch.clamp(painted + cell, max=1)
    flags = F.binary_cross_entropy_with_logits(coarse[:, 3:], crop["flags"], reduction="none") * counted
    return {
        "masks": entropy.sum() / inside.sum(),
        "dice": (1 - 2 * both / total.clamp(min=1)).mean(),
        "heat": heat.sum() / rim.sum(),
        "offset": 0.6 * off.sum() / (cell * rim).sum().clamp(min=1),
        "flags": 0.2 * flags.sum() / counted.sum().clamp(min=1),
    }


def train(config: SegmenterConfig, data: Path, out: Path, jobs: int = 2) -> Path:
    """Train and write ``segmenter.safetensors`` and ``segmenter.json``; gives the first one's path."""
    started = time.perf_counter()
    painted = [
        [f, f.halved()] for f in paint_fields(range(10_000 * config.seed, 10_000 * config.seed + config.painted), jobs)
    ]
    masks = data / "bccd" / "masks"
    real = [[f, f.halved()] for f in (read_bccd(p, masks) for p in even_fields(data))]
    log.info("%d painted and %d real fields in %.0f s", len(painted), len(real), time.perf_counter() - started)
    torch.manual_seed(config.seed)
    loader = DataLoader(Crops(painted, real, config), batch_size=config.batch, num_workers=jobs, prefetch_factor=4)
    net = (load_network(Path(config.start)).requires_grad_(True).train() if config.start else SegmentationNet()).to(
        memory_format=torch.channels_last
    )
    average = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config.ema), use_buffers=True
    )
    optimiser = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, config.steps, pct_start=0.1)
    shown: dict[str, float] = {}
    for step, crop in zip(range(config.steps), loader, strict=False):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            masks_, coarse = net(crop["absorbance"].contiguous(memory_format=torch.channels_last))
        parts = loss_of(masks_.float(), coarse.float(), crop)
        loss = torch.stack(list(parts.values())).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        average.update_parameters(net)
        for name, value in parts.items():
            shown[name] = 0.98 * shown.get(name, value.item()) + 0.02 * value.item()
        if step % 100 == 99:
            rate = (time.perf_counter() - started) / (step + 1)
            log.info("step %d %.2f s/step %s", step + 1, rate, {k: round(v, 4) for k, v in shown.items()})
        if step % 500 == 499 or step + 1 == config.steps:
            _write(average.module, config, out, step + 1, time.perf_counter() - started)
    return out / "segmenter.safetensors"


def _write(net: torch.nn.Module, config: SegmenterConfig, out: Path, step: int, seconds: float) -> None:
    """Write weights and what they were made of."""
    out.mkdir(parents=True, exist_ok=True)
    about = {"config": asdict(config), "step": step, "seconds": round(seconds), "torch": torch.__version__}
    save_network(net, out / "segmenter.safetensors", {"about": json.dumps(about)})
    (out / "segmenter.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def average(first: Path, second: Path, out: Path) -> Path:
    """Write the mean of two networks' weights, one trained on from the other.

    The mean keeps more of what the first knows of other stains than the second does (Wortsman et al., "Robust
    fine-tuning of zero-shot models", CVPR 2022).
    """
    one, other = load_network(first), load_network(second)
    weights = other.state_dict()
    one.load_state_dict({k: (v + weights[k]) / 2 for k, v in one.state_dict().items()})
    out.mkdir(parents=True, exist_ok=True)
    parts = [json.loads(p.with_suffix(".json").read_text(encoding="utf-8")) for p in (first, second)]
    about = {"what": "mean of the weights of two parts, the second begun with those of the first", "parts": parts}
    save_network(one, out / "segmenter.safetensors", {"about": json.dumps(about)})
    (out / "segmenter.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return out / "segmenter.safetensors"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of real images, with bccd/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--steps", type=int, default=SegmenterConfig().steps)
    parser.add_argument("--lr", type=float, default=SegmenterConfig().lr)
    parser.add_argument("--painted", type=int, default=SegmenterConfig().painted)
    parser.add_argument("--seed", type=int, default=SegmenterConfig().seed)
    parser.add_argument("--start", default="", help="weights to go on from")
    parser.add_argument("--average", type=Path, nargs=2, help="do not train: write the mean of two weight files")
    parser.add_argument("--jobs", type=int, default=2, help="processes that draw crops")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if chosen.average:
        first, second = chosen.average
        average(first, second, chosen.out)
        return
    recipe = {name: getattr(chosen, name) for name in ("steps", "lr", "painted", "seed", "start")}
    train(SegmenterConfig(**recipe), chosen.data, chosen.out, chosen.jobs)


if __name__ == "__main__":
    main()
