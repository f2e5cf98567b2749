"""Training of the bundled segmentation network on one CPU, in well under an hour.

Owns the recipe from fields to `segmenter.safetensors`; run it with
``python -m napari_dinobloom.training.segmenter --data ../shared/data --out FOLDER``. The bundled weights are the mean
of those after a first part and after a second that began with them: ``--steps 6000``, then ``--start FIRST --steps
2400 --lr 0.0008 --painted 160 --seed 1``, then ``--average FIRST SECOND``.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from napari_dinobloom.cells.network import SegmentationNet, load_network, save_network
from napari_dinobloom.training.smear_crops import CropConfig, Crops
from napari_dinobloom.training.smears import even_fields, paint_fields, read_bccd

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class SegmenterConfig(CropConfig):
    """The recipe."""

    steps: int = 6000
    """Optimiser steps."""
    batch: int = 12
    """Crops per step."""
    lr: float = 3e-3
    """Peak learning rate of AdamW; one cycle with cosine decay to zero."""
    weight_decay: float = 1e-2
    """Of all weights."""
    painted: int = 240
    """Generated fields."""
    ema: float = 0.998
    """Decay of the averaged weights, which are the ones written."""
    start: str = ""
    """File of weights to go on from; empty: start anew."""


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
