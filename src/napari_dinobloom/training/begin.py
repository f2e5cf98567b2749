"""What a training begins with: a network, from a file or at random, and pictures."""

from __future__ import annotations

import os
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_dinobloom.encoders.architecture import ARCHITECTURES, Architecture
from napari_dinobloom.encoders.checkpoint import TRAINING_HEADS, read_checkpoint, read_heads
from napari_dinobloom.encoders.library import checked, locate
from napari_dinobloom.encoders.positions import resample_positions
from napari_dinobloom.errors import EncoderError, InputError
from napari_dinobloom.training.batches import Pictures
from napari_dinobloom.training.config import Config
from napari_dinobloom.training.distillation import MaskedTransformer, Network
from napari_dinobloom.training.heads import DINOHead, make_heads
from napari_dinobloom.training.parallel import Strategy
from napari_dinobloom.training.store import Store
from napari_dinobloom.training.topics import Heads


def make_network(config: Config) -> Network:
    """Make the student, the same in every process: from a file of weights, or at random by the seed.

    Raises
    ------
    EncoderError
        As `start_from`, or where the file is not the published one.
    InputError
        Where the file is of another size than `model.size`.
    """
    heads, arch = config.heads, ARCHITECTURES[config.model.size]
    if config.model.start:
        located = locate(config.model.start)
        checked(located)  # a file that is not the published one is refused here as everywhere
        path = located.path
        network = start_from(
            path,
            prototypes=heads.prototypes,
            bottleneck=heads.bottleneck,
            hidden=heads.hidden,
            seed=config.run.seed,
        )
        if network.backbone.arch != arch:
            raise InputError(f"{path} is a {network.backbone.arch.name}, but model.size is {config.model.size}.")
        _check_heads(path, network, heads)
        return network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        backbone = MaskedTransformer(arch)
        randomise(backbone)
    made = make_heads(arch.dim, heads.bottleneck, heads.prototypes, heads.hidden, config.run.seed)
    return Network(backbone, *made)


def start_from(
    path: Path,
    *,
    grid: int = 16,
    prototypes: int = 65536,
    bottleneck: int = 256,
    hidden: int = 2048,
    seed: int = 0,
) -> Network:
    """Make a student from a file of weights: DINOv2's, or one of this training with its heads.

    Parameters
    ----------
    path : Path
        A vision transformer of a known size in any published shape. Position embeddings of another grid are resampled
        by the rule "training".
    grid : int, default: 16
        Patches per side; 16 for 224 px and patch 14.
    prototypes, bottleneck, hidden : int
        Of heads that the file does not have; such heads are random. Heads of the file keep their sizes.
    seed : int
        Of random heads; the same gives the same in every process.

    Returns
    -------
    Network
        float32, on the CPU. `SelfDistillation` makes the teacher as its copy.

    Raises
    ------
    EncoderError
        As `read_checkpoint`; a network that is no vision transformer; heads that do not fit it.
    """
    checkpoint, heads = read_checkpoint(path), read_heads(path)
    arch, state = checkpoint.architecture, dict(checkpoint.state)
    if checkpoint.grid is None or not isinstance(arch, Architecture):
        raise EncoderError(f"{path}: holds {arch.name}; training starts from a vision transformer.")
    if checkpoint.grid != grid:
        state["pos_embed"] = resample_positions(state["pos_embed"], grid, "training")
    backbone = MaskedTransformer(arch, grid)
    token = backbone.mask_token.detach() if checkpoint.mask_token is None else checkpoint.mask_token
    backbone.load_state_dict(state | {"mask_token": token})
    made = list(make_heads(arch.dim, bottleneck, prototypes, hidden, seed))
    for place, prefix in enumerate(TRAINING_HEADS):
        stored = {name.removeprefix(prefix): value for name, value in heads.items() if name.startswith(prefix)}
        if stored:
            made[place] = _head(path, prefix, stored, arch.dim)
    return Network(backbone, *made)


def _head(path: Path, prefix: str, stored: dict[str, Tensor], dim: int) -> DINOHead:
    """Make a head of a file's sizes with its weights."""
    try:
        prototypes, bottleneck = stored["last_layer.weight_v"].shape
        head = DINOHead(dim, bottleneck, prototypes, len(stored["mlp.0.weight"]))
        head.load_state_dict(stored)
    except (KeyError, ValueError, RuntimeError) as error:
        raise EncoderError(
            f"{path}: {prefix}* is no head of this training ({error}). Take an unchanged release, or a file without "
            "heads."
        ) from error
    return head


def _check_heads(path: Path, network: Network, heads: Heads) -> None:
    """Raise InputError where a file has heads of other sizes than the configuration says."""
    last = network.dino_head.last_layer.weight_v
    found = Heads(
        prototypes=len(last), bottleneck=last.shape[1], hidden=cast(nn.Linear, network.dino_head.mlp[0]).out_features
    )
    if found != heads or len(network.ibot_head.last_layer.weight_v) != heads.prototypes:
        sizes = " ".join(f"heads.{name}={value}" for name, value in asdict(found).items())
        raise InputError(f"{path} has heads of other sizes than are configured. To go on with them, set {sizes}.")


def randomise(backbone: MaskedTransformer) -> None:
    """Give a backbone the weights that DINOv2 starts from.

    Normal of 0.02 without bias in linear layers, the default of a convolution in the patch embedding, positions normal
    of 0.02, a class token next to zero, a mask token of zeros, LayerScale 1e-5.
    """
    for name, value in backbone.named_parameters():
        if "gamma" in name:
            nn.init.constant_(value, 1e-5)
        elif name == "cls_token":
            nn.init.normal_(value, std=1e-6)
        elif name == "pos_embed" or ("blocks" in name and value.ndim == 2):
            nn.init.trunc_normal_(value, std=0.02)
        elif "blocks" in name and name.endswith("bias"):
            nn.init.zeros_(value)


def pictures_of(config: Config) -> Pictures:
    """Open what a training draws from.

    Raises
    ------
    InputError
        If no pictures are named, or as `Store.open`.
    """
    if config.data.store:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        store = Store.open(config.data.store, config.data.threads or max(1, (os.cpu_count() or 1) // here))
        return Pictures(
            store.read,
            dict(zip(store.names, store.sizes, strict=True)),
            sha256(store.sha256.tobytes()).hexdigest()[:16],
            store.sha256,
        )
    if config.data.generated:
        pictures = generated(config.data.generated, config.data.seed)
        return Pictures(lambda rows: pictures[rows], {"generated": len(pictures)}, "generated")
    raise InputError("There are no pictures: name a folder that `prepare` made with data.store=FOLDER.")


def generated(count: int, seed: int) -> NDArray[np.uint8]:
    """Cells of generated smears, (count, 224, 224, 3), for trials."""
    from napari_dinobloom.cells.crop import CropPolicy, crop
    from napari_dinobloom.io.generate import generate_smear

    found: list[NDArray[np.uint8]] = []
    while sum(map(len, found)) < count:
        smear = generate_smear(seed=seed + len(found))
        found.append(crop(smear.image, smear.table, policy=CropPolicy(), pixel_size_um=smear.pixel_size_um))
    return np.concatenate(found)[:count]


def strategy_of(config: Config, processes: int) -> Strategy:
    """How the network is spread: as configured, or by its size."""
    if config.run.strategy != "auto":
        return config.run.strategy
    if processes == 1:
        return "none"
    return "fsdp" if config.model.size == "G" else "ddp"
