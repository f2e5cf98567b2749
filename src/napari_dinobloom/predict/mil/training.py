"""Training of the networks of attention MIL: an ensemble that holds patients back in turn, and the paper's recipe.

Importing this module loads torch; import it inside functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from napari_dinobloom.errors import InputError
from napari_dinobloom.predict.mil.bags import Float32, Ints, class_weights, padded
from napari_dinobloom.predict.mil.mean_pooling import log_loss, softmax
from napari_dinobloom.predict.mil.network import AttentionNetwork, GatedNetwork, PaperNetwork
from napari_dinobloom.predict.mil.presets import Preset
from napari_dinobloom.progress import Progress, Steps

WARM = 20
"""Steps in which the learning rate grows to its highest."""
SMOOTH = 5
"""Epochs over which the loss of patients held back is averaged before the best is chosen."""
WATCHED = 1024
"""Most cells of a patient held back that are looked at after each epoch."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network.

    Attributes
    ----------
    weights : dict of str to array of float32
        Its parameters.
    epochs : int
        Epochs after which they were taken.
    losses : list of float
        Loss of the patients held back after each epoch.
    held_back : (patients, classes) array of float32
        Probabilities of training patients by the member that held them back; NaN where none did.
    """

    weights: dict[str, NDArray[np.float32]]
    epochs: int
    losses: list[float]
    held_back: Float32


def build(preset: Preset, members: int, dim: int, classes: int, seed: int = 0) -> AttentionNetwork:
    """Build the network of a preset with its first weights."""
    random = torch.Generator().manual_seed(seed)
    if preset.network == "paper":
        return PaperNetwork(dim, classes, random)
    return GatedNetwork(members, dim, classes, preset.hidden, preset.attention, random)


def iter_train_gated(
    bags: Sequence[Float32], code: Ints, classes: int, folds: Ints, preset: Preset, seed: int, device: torch.device
) -> Steps[Trained]:
    """Train the members side by side; member m learns from all patients but those of fold m.

    All members are stopped after the same epoch: where the loss of the patients held back, over all folds, is least.
    One number is chosen by all patients, so that the probabilities of those held back are hardly flattered by it.

    Parameters
    ----------
    bags : sequence of (n_i, D) arrays of float32
        Standardised embeddings.
    code, folds : (patients,) arrays of int
        Class and fold, from 0.
    """
    members = int(folds.max()) + 1
    network = build(preset, members, bags[0].shape[1], classes, seed).to(device)
    draws, random = np.random.default_rng(seed), torch.Generator(device).manual_seed(seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=preset.rate, weight_decay=preset.decay)
    weights = class_weights(code, classes)
    learns = folds[None] != np.arange(members)[:, None]
    target = torch.from_numpy(code).to(device)
    weight = torch.from_numpy(weights * learns).to(device)
    steps = -(-len(bags) // preset.batch)
    epochs = max(preset.epochs, -(-preset.steps // steps))
    kept, shares = [], []
    for epoch in range(epochs):
        yield Progress(epoch, epochs, "training attention")
        for step, rows in enumerate(_batches(bags, steps, preset.most_cells, draws)):
            at = epoch * steps + step
            warm = min(1.0, (at + 1) / WARM)
            optimiser.param_groups[0]["lr"] = preset.rate * warm * _cosine(at, epochs * steps)
            x, there = padded([bags[row] for row in rows], preset.most_cells, draws)
            logits = network(torch.from_numpy(x).to(device), torch.from_numpy(there).to(device), preset.drop, random)
            each = F.cross_entropy(logits.transpose(1, 2), target[rows].expand(members, -1), reduction="none")
            loss = (each * weight[:, rows]).sum() / len(rows)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        kept.append({name: value.detach().cpu().clone() for name, value in network.state_dict().items()})
        shares.append(_held_back(network, bags, folds, device))
    losses = [log_loss(one, code, weights) for one in shares]
    best = int(np.argmin(_smooth(losses)))
    return Trained({name: value.numpy() for name, value in kept[best].items()}, best + 1, losses, shares[best])


def iter_train_paper(
    bags: Sequence[Float32], code: Ints, classes: int, folds: Ints, preset: Preset, seed: int, device: torch.device
) -> Steps[Trained]:
    """Train as the code of the DinoBloom evaluation does; the patients of fold 0 stop it.

    Its cosine has a period of 150 steps and the step is a bag: the rate swings between 0 and its highest many times.
    The best weights are copied when they are reached; the reference kept a reference to weights that went on changing.
    """
    network = build(preset, 1, bags[0].shape[1], classes, seed).to(device)
    draws = np.random.default_rng(seed)
    optimiser = torch.optim.SGD(network.parameters(), lr=preset.rate, momentum=0.9, nesterov=True)
    learns, watched = np.flatnonzero(folds != 0), np.flatnonzero(folds == 0).tolist()
    target = torch.from_numpy(code).to(device)
    best, kept, found, losses, at = np.inf, {}, softmax(np.zeros((len(watched), classes))), [], 0
    for epoch in range(preset.epochs):
        yield Progress(epoch, preset.epochs, "training attention")
        for row in draws.permutation(learns):
            optimiser.param_groups[0]["lr"] = preset.rate * _cosine(at, 150)
            loss = F.cross_entropy(_whole(network, bags[row], device)[0], target[row : row + 1])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            at += 1
        with torch.no_grad():
            logits = torch.cat([_whole(network, bags[row], device)[0] for row in watched]).cpu().numpy()
        losses.append(log_loss(softmax(logits), code[watched], np.ones(len(watched), np.float32)))
        if losses[-1] < best:
            best, found = losses[-1], softmax(logits)
            kept = {name: value.detach().cpu().clone().numpy() for name, value in network.state_dict().items()}
        if epoch - int(np.argmin(losses)) >= preset.patience:
            break
    if not kept:
        raise InputError("Training came to no finite loss; lower the rate, or take the preset gated.")
    held_back = np.full((len(bags), classes), np.nan, np.float32)
    held_back[watched] = found
    return Trained(kept, int(np.argmin(losses)) + 1, losses, held_back)


def _cosine(at: int, period: int) -> float:
    """Half a cosine from 1 to 0 in `period` steps, and back again after it."""
    return 0.5 * (1.0 + float(np.cos(np.pi * at / period)))


def _whole(network: AttentionNetwork, bag: Float32, device: torch.device) -> Tensor:
    """Logits (M, 1, K) of one bag."""
    x = torch.from_numpy(bag).to(device)[None]
    found: Tensor = network(x, torch.ones(x.shape[:2], dtype=torch.bool, device=device))
    return found


def _batches(bags: Sequence[Float32], steps: int, most: int, draws: np.random.Generator) -> list[Ints]:
    """Patients of each step: random ones of about the same number of cells, so that little is filled up."""
    sizes = np.minimum([len(bag) for bag in bags], most)
    order = np.argsort(np.log(sizes) + draws.normal(size=len(bags)) * 0.5, kind="stable")
    parts = np.array_split(order, steps)
    return [parts[number] for number in draws.permutation(steps)]


@torch.no_grad()
def _held_back(network: AttentionNetwork, bags: Sequence[Float32], folds: Ints, device: torch.device) -> Float32:
    """Probabilities of each patient by the member that did not learn from them."""
    draws, order, parts = np.random.default_rng(0), np.argsort([len(bag) for bag in bags], kind="stable"), []
    for start in range(0, len(order), 16):
        x, there = padded([bags[row] for row in order[start : start + 16]], WATCHED, draws)
        parts.append(network(torch.from_numpy(x).to(device), torch.from_numpy(there).to(device)).cpu().numpy())
    logits = np.concatenate(parts, axis=1)[:, np.argsort(order, kind="stable")]
    return softmax(logits[folds, np.arange(len(bags))])


def _smooth(losses: list[float]) -> NDArray[np.float64]:
    """Moving average, with the ends repeated."""
    half = SMOOTH // 2
    return np.convolve(np.pad(np.array(losses), half, mode="edge"), np.ones(SMOOTH) / SMOOTH, mode="valid")
