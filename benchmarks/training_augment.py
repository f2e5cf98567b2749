"""Processor time of the augmentation per picture, beside that of the reference's pipeline on PIL images.

    OMP_NUM_THREADS=1 python benchmarks/training_augment.py

Processor time, so that other work on the machine counts little. ``cpu``: `Augmentation.views` with two global crops on
one core. ``pil``: the same steps and probabilities by torchvision on PIL images. ``host``: what the host does per
picture when a device augments: parameters and masks, drawn for a group of 152, and the calls of all operations, timed
with pictures of 16 pixels, which cost little to compute. No card is needed or used. Writes
``benchmarks/results/training_augment.json``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np
import torch
from machine import RESULTS, machine
from PIL import Image
from torchvision import transforms

from napari_dinobloom.training.augment import Augmentation, Augmentations, apply
from napari_dinobloom.training.augment.draws import draw
from napari_dinobloom.training.masking import block_masks

PICTURES = 24
GROUP = 152
BICUBIC = transforms.InterpolationMode.BICUBIC


def reference(blur: float, solarise: float) -> transforms.Compose:
    """One global crop of the reference, with the probabilities that were applied."""
    return transforms.Compose([
        transforms.RandomResizedCrop(224, scale=(0.32, 1.0), interpolation=BICUBIC),
        transforms.RandomHorizontalFlip(0.5),
        transforms.RandomVerticalFlip(0.5),
        transforms.RandomApply([transforms.RandomRotation((90, 90))], p=0.5),
        transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
        transforms.RandomGrayscale(0.2),
        transforms.RandomApply([transforms.GaussianBlur(9, (0.1, 2.0))], p=blur),
        transforms.RandomSolarize(128, p=solarise),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])  # fmt: skip


def per_picture(work: Callable[[], object], pictures: int, runs: int = 3) -> float:
    """Least milliseconds of processor time per picture of several runs."""
    work()
    times = []
    for _ in range(runs):
        start = time.process_time()
        work()
        times.append((time.process_time() - start) * 1e3 / pictures)
    return round(min(times), 3)


def main() -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (PICTURES, 224, 224, 3), dtype=np.uint8)
    images, batch = [Image.fromarray(picture) for picture in pictures], torch.from_numpy(pictures)
    first, second = reference(0.0, 0.0), reference(0.9, 0.2)
    positions, config = torch.arange(GROUP), Augmentations()
    tiny = torch.zeros((GROUP, 16, 16, 3), dtype=torch.uint8)
    drawn = [draw(config, 16, 0, positions, crop) for crop in (0, 1)]
    found = {
        "cpu_ms": per_picture(lambda: Augmentation().views(batch, 0, torch.arange(PICTURES)), PICTURES),
        "pil_ms": per_picture(lambda: [(first(image), second(image)) for image in images], PICTURES),
        "host_draw_ms": per_picture(lambda: [draw(config, 224, 0, positions, crop) for crop in (0, 1)], GROUP),
        "host_masks_ms": per_picture(lambda: block_masks(GROUP, 16, 0, 0, 0), GROUP),
        "host_calls_ms": per_picture(lambda: [apply(tiny, draws, 16) for draws in drawn], GROUP),
    }
    found["cpu_over_pil"] = round(found["cpu_ms"] / found["pil_ms"], 3)
    print(json.dumps(found, indent=1))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "training_augment.json").write_text(json.dumps(machine() | found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
