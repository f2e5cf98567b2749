"""Files of weights: recognise the shapes in which networks are published, and check each against its network.

The same vision transformer comes as ``{"teacher": {"backbone.*", "dino_head.*", "ibot_head.*"}}`` (Zenodo,
and DINOv2's and our own training), as the bare DINOv2 state dict, under timm's key names in safetensors
(with a mask token and heads where our own training wrote it), and under those of transformers; all
become float32 tensors under timm's names. A ResNet of torchvision, CTransPath and models of timm keep
the names they have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dinobloom.encoders.architecture import (
    ARCHITECTURES,
    Architecture,
    Network,
    Shape,
    describe,
    infer,
    misshapen,
)
from napari_dinobloom.encoders.containers import Stored, read_tensors, some
from napari_dinobloom.encoders.names import are_transformers, from_dinov2, from_transformers
from napari_dinobloom.errors import EncoderError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TRAINING_HEADS = ("dino_head.", "ibot_head.")
"""Key prefixes of the heads that training needs and embedding does not."""

HEADS = (*TRAINING_HEADS, "head.")
"""The same, and the classifier of a model of timm."""

BACKBONE = "backbone."

LARGEST_GRID = 128
"""Patches per side that position embeddings may be made for; those of 1792 px pictures."""

HEAD_AXES = {"weight": 2, "weight_g": 2, "weight_v": 2, "bias": 1}
"""Number of axes of a training head's tensors, by the last part of their name."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The weights of one file, checked against its network.

    Attributes
    ----------
    path : Path
        The file.
    shape : str
        Which of the known shapes it has: "teacher", "bare DINOv2", "timm", "training", "transformers",
        "torchvision" or "CTransPath".
    architecture : Architecture or Network
        Found from names and sizes of the tensors.
    grid : int or None
        Patches per side that the position embedding of a vision transformer of ours is made for.
    state : dict of str to Tensor
        Float32 tensors, exactly those of `architecture`; a vision transformer's under timm's key names.
    mask_token : Tensor or None
        (1, D), where the file has one; needed for masked pictures only.
    metadata : dict of str to str
        The safetensors header's free text.
    """

    path: Path
    shape: str
    architecture: Architecture | Network
    grid: int | None
    state: dict[str, Tensor]
    mask_token: Tensor | None = None
    metadata: dict[str, str] = field(default_factory=dict)


def read_checkpoint(path: Path, expected: Architecture | Network | None = None) -> Checkpoint:
    """Read a file of weights in any of the known shapes.

    Parameters
    ----------
    path : Path
        A ``.pth``, ``.pt``, ``.bin`` or ``.safetensors`` file; the content decides, not the name. Nothing beside
        it is read: neither a ``config.json`` nor any other file.
    expected : Architecture or Network, optional
        What the file should hold. Needed for a model of timm and for a ResNet that is to be cut; anything else is
        recognised, and the caller compares.

    Returns
    -------
    Checkpoint
        Its tensors are copies: the file may be replaced afterwards.

    Raises
    ------
    EncoderError
        Missing, empty, truncated or foreign file; a pickle that holds code; sizes of no known
        architecture; missing, left-over, doubled or misshapen tensors, such that are larger than what the file
        holds of them, or such that are not finite numbers.
        The message names file and keys.
    """
    stored = read_tensors(path)
    if isinstance(expected, Network) and expected.name.startswith("timm:"):
        return _read_network(path, stored, "timm", expected)
    if "layer1.0.conv1.weight" in stored.tensors:
        cut = expected if expected == Network("ResNet-50-stage3") else None
        return _read_network(path, stored, "torchvision", cut or Network("ResNet-50"))
    if "patch_embed.proj.0.weight" in stored.tensors:
        return _read_network(path, stored, "CTransPath", Network("CTransPath"))
    return _read_transformer(path, stored)


def read_heads(path: Path) -> dict[str, Tensor]:
    """Read the training heads of a file, for training that goes on from it.

    Parameters
    ----------
    path : Path
        A file of Zenodo's shape or of our own training.

    Returns
    -------
    dict of str to Tensor
        Float32, under ``dino_head.*`` and ``ibot_head.*``; empty where the file has no heads.

    Raises
    ------
    EncoderError
        As `read_checkpoint` for the file itself, for tensors of a wrong number of axes, and for numbers that are
        not finite.
    """
    heads = {key: value for key, value in read_tensors(path).tensors.items() if key.startswith(TRAINING_HEADS)}
    wrong = [
        f"{key} {tuple(value.shape)}"
        for key, value in heads.items()
        if value.dim() != HEAD_AXES.get(key.rpartition(".")[2], value.dim())
    ]
    if wrong:
        raise EncoderError(f"{path}: heads with a wrong number of axes: {some(wrong)}. Take an unchanged release.")
    return {key: _float32(path, key, value) for key, value in heads.items()}


def _read_network(path: Path, stored: Stored, shape: str, network: Network) -> Checkpoint:
    """Check tensors against a network that keeps the names of its file."""
    from napari_dinobloom.encoders.networks.make import empty

    made = empty(network)
    tensors = {key: value for key, value in stored.tensors.items() if not made.ignores(key)}
    wanted: dict[str, Any] = made.stored.state_dict()
    _compare(path, network.name, _shapes(tensors), {key: tuple(value.shape) for key, value in wanted.items()})
    state = {key: _like(path, key, value, wanted[key].dtype) for key, value in tensors.items()}
    return Checkpoint(path, shape, network, None, state, metadata=stored.metadata)


def _read_transformer(path: Path, stored: Stored) -> Checkpoint:
    """Check tensors against the vision transformer that their sizes belong to."""
    named, shape = _timm_named(path, stored)
    tensors = _single(path, named)
    mask_token = tensors.pop("mask_token", None)
    shapes = _shapes(tensors)
    if wrong := misshapen(shapes):
        raise EncoderError(f"{path}: holds {some(wrong)}. Take an unchanged release.")
    arch = infer(shapes)
    if arch is None:
        raise EncoderError(_unknown_sizes(path, shapes))
    tokens = shapes.get("pos_embed", (1, 1, 0))[1]
    grid = round(max(tokens - 1, 1) ** 0.5)
    if grid > LARGEST_GRID:
        raise EncoderError(
            f"{path}: its position embeddings are those of {grid} x {grid} patches; at most {LARGEST_GRID} x "
            f"{LARGEST_GRID} are read. Take an unchanged release."
        )
    what = f"{arch.name} ({arch.dim} dimensions, {arch.depth} blocks)"
    _compare(path, what, shapes, arch.shapes(grid))
    state = {key: _float32(path, key, value) for key, value in tensors.items()}
    mask = None if mask_token is None else _mask_token(path, mask_token, arch)
    return Checkpoint(path, shape, arch, grid, state, mask, stored.metadata)


def _timm_named(path: Path, stored: Stored) -> tuple[Iterable[tuple[str, Tensor]], str]:
    """Rename the keys of a vision transformer to timm's, heads left out, and name the shape."""
    tensors = stored.tensors
    if stored.wrapper == "teacher":
        tensors = _backbone_of(path, tensors)
        shape = "teacher"
    elif are_transformers(tensors):
        return from_transformers(tensors), "transformers"
    elif any(key.startswith(TRAINING_HEADS) for key in tensors):
        shape = "training"
    else:
        shape = "bare DINOv2" if "mask_token" in tensors or "blocks.0.mlp.w12.weight" in tensors else "timm"
    return [(from_dinov2(key), value) for key, value in tensors.items() if not key.startswith(HEADS)], shape


def _backbone_of(path: Path, teacher: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take the backbone out of a training's teacher."""
    tensors = {key[len(BACKBONE) :]: value for key, value in teacher.items() if key.startswith(BACKBONE)}
    foreign = [key for key in teacher if not key.startswith((BACKBONE, *HEADS))]
    if foreign or not tensors:
        raise EncoderError(
            f"{path}: 'teacher' {'has left-over keys ' + some(foreign) if foreign else 'has no backbone.* keys'}; "
            "expected backbone.*, dino_head.* and ibot_head.*."
        )
    return tensors


def _single(path: Path, named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Make a dict of renamed tensors, or say which came twice."""
    tensors: dict[str, Tensor] = {}
    for key, value in named:
        if key in tensors:
            raise EncoderError(f"{path}: holds {key!r} twice, under two spellings. Take an unchanged release.")
        tensors[key] = value
    return tensors


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {key: tuple(value.shape) for key, value in tensors.items()}


def _mask_token(path: Path, value: Tensor, arch: Architecture) -> Tensor:
    if value.numel() != arch.dim:
        raise EncoderError(f"{path}: mask_token has {value.numel()} numbers in place of {arch.dim}.")
    return _float32(path, "mask_token", value).reshape(1, -1)


def _like(path: Path, key: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    """Copy a tensor as its network wants it: float32, or the whole numbers that batch normalisation counts."""
    if not dtype.is_floating_point and not value.is_floating_point():
        return value.to(dtype, copy=True)
    return _float32(path, key, value)


def _float32(path: Path, key: str, value: Tensor) -> Tensor:
    """Copy a tensor to float32, or say why it is none of weights."""
    import torch

    if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
        raise EncoderError(f"{path}: tensor {key!r} holds {value.dtype}, not floating-point numbers.")
    copied = torch.empty(value.shape, dtype=torch.float32).copy_(value)
    # One pass: a sum is finite only if all are, and where it is not, look closer (it may have overflowed).
    if not bool(copied.sum().isfinite()) and not bool(copied.isfinite().all()):
        raise EncoderError(f"{path}: tensor {key!r} holds infinite or undefined numbers; take another copy.")
    return copied


def _unknown_sizes(path: Path, shapes: Mapping[str, Shape]) -> str:
    known = "; ".join(
        f"{a.name}: {a.dim}, {a.depth} blocks, {a.hidden}, {a.patch_size} px" for a in ARCHITECTURES.values()
    )
    if "cls_token" not in shapes or not any(key.startswith("blocks.") for key in shapes):
        return (
            f"{path}: no network that is recognised. Expected keys such as cls_token and blocks.0.attn.qkv.weight, "
            f"found {some(list(shapes)) or 'none'}. The weights of a model of timm are loaded as 'timm:NAME'."
        )
    return f"{path}: a vision transformer of {describe(shapes)}, which is none of the known sizes ({known})."


def _compare(path: Path, what: str, found: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> None:
    """Raise EncoderError unless `found` has exactly the keys and shapes of `wanted`."""
    missing = [key for key in wanted if key not in found]
    left = [key for key in found if key not in wanted]
    wrong = [
        f"{key} {found[key]} in place of {wanted[key]}" for key in wanted if key in found and found[key] != wanted[key]
    ]
    problems = [
        f"{name} {some(keys)}" for name, keys in (("missing", missing), ("left over", left), ("wrong", wrong)) if keys
    ]
    if problems:
        registers = ", without registers" if "register_tokens" in found else ""
        raise EncoderError(
            f"{path}: looks like architecture {what}, but {'; '.join(problems)}. Take an unchanged release{registers}."
        )
