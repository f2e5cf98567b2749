"""Write the weights of a vision transformer in any of the shapes in which they are published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from napari_dinobloom.encoders.architecture import Architecture, infer
from napari_dinobloom.encoders.build import read_weights
from napari_dinobloom.encoders.checkpoint import BACKBONE, TRAINING_HEADS, Checkpoint, read_heads
from napari_dinobloom.encoders.library import locate
from napari_dinobloom.encoders.names import to_dinov2
from napari_dinobloom.errors import EncoderError
from napari_dinobloom.io.atomic import disk_errors, replacing

if TYPE_CHECKING:
    from torch import Tensor, nn

ReleaseShape = Literal["zenodo", "bare", "timm", "training"]

ENDINGS: dict[str, tuple[str, ...]] = {
    "zenodo": (".pth", ".pt"),
    "bare": (".bin", ".pth", ".pt"),
    "timm": (".safetensors",),
    "training": (".safetensors",),
}
"""How the file of a shape may end, so that other programs open it rightly."""


def write_release(
    source: Checkpoint | nn.Module, path: Path, shape: ReleaseShape, heads: Mapping[str, Tensor] | None = None
) -> None:
    """Write weights in a published shape, whole or not at all.

    Parameters
    ----------
    source : Checkpoint or nn.Module
        What to write: a file that was read, or a vision transformer whose state dict has timm's key names (and
        DINOv2's mask token, where it has one).
    path : Path
        The file; an older one is replaced.
    shape : {"zenodo", "bare", "timm", "training"}
        "zenodo": torch, ``{"teacher": {"backbone.*", and the heads}}``, DINOv2's key names. "bare": torch, DINOv2's
        state dict. "timm": safetensors, timm's key names, no mask token. "training": safetensors, timm's key names,
        mask token and heads. The public DINOv2 code wants a mask token in the first two: where the source
        has none it is written as zeros, as DINOv2 begins with it; only masked pictures need it.
    heads : mapping of str to Tensor, optional
        ``dino_head.*`` and ``ibot_head.*``; written where the shape has room for them.

    Raises
    ------
    EncoderError
        Unknown shape, a file name with another ending, a source that is no vision transformer of a known size, or
        heads under other names. Nothing is written then.
    StudyError
        The file cannot be written.
    """
    path = Path(path)
    _check_ending(path, shape)
    foreign = [key for key in heads or () if not key.startswith(TRAINING_HEADS)]
    if foreign:
        raise EncoderError(f"Heads are named dino_head.* and ibot_head.*; got {', '.join(foreign[:5])}.")
    state, mask_token, arch = _parts(source)
    if shape in ("zenodo", "bare"):
        content = _as_dinov2(state, mask_token, arch)
        _write_torch(path, {"teacher": _with_heads(content, heads)} if shape == "zenodo" else content)
        return
    if shape == "training":
        state = state | ({} if mask_token is None else {"mask_token": mask_token}) | dict(heads or {})
    _write_safetensors(path, state)


def export_weights(name: str | Path, path: Path, shape: ReleaseShape) -> None:
    """Write the weights of an encoder on this machine in another shape.

    Parameters
    ----------
    name : str or Path
        As for `load_encoder`.
    path, shape
        As for `write_release`. Position embeddings stay as the file has them.

    Raises
    ------
    EncoderError
        As `write_release`, `locate` and `read_checkpoint`; also where `path` is the file itself.
    """
    path = Path(path)
    _check_ending(path, shape)
    located = locate(name)
    if path.exists() and path.samefile(located.path):
        raise EncoderError(f"{path}: this is the file that would be read. Give another name.")
    checkpoint, _ = read_weights(located)
    write_release(checkpoint, path, shape, read_heads(located.path) if shape in ("zenodo", "training") else None)


def _check_ending(path: Path, shape: str) -> None:
    if shape not in get_args(ReleaseShape):
        raise EncoderError(f"Shape {shape!r} is unknown. Give {', '.join(get_args(ReleaseShape))}.")
    if path.suffix.lower() not in ENDINGS[shape]:
        raise EncoderError(f"{path}: a file of shape {shape} ends with {' or '.join(ENDINGS[shape])}.")


def _parts(source: Checkpoint | nn.Module) -> tuple[dict[str, Tensor], Tensor | None, Architecture]:
    """Give tensors under timm's names, the mask token and the sizes of what is to be written."""
    if isinstance(source, Checkpoint):
        if isinstance(source.architecture, Architecture):
            return source.state, source.mask_token, source.architecture
        raise EncoderError(
            f"{source.path}: holds {source.architecture.name}; only vision transformers of the known sizes are "
            "published in these shapes."
        )
    state = {key: value.detach().float().cpu() for key, value in source.state_dict().items()}
    mask_token = state.pop("mask_token", None)
    arch = infer({key: tuple(value.shape) for key, value in state.items()})
    if arch is None:
        raise EncoderError(f"{type(source).__name__} is no vision transformer of a known size under timm's key names.")
    return state, mask_token, arch


def _as_dinov2(state: Mapping[str, Tensor], mask_token: Tensor | None, arch: Architecture) -> dict[str, Tensor]:
    import torch

    renamed = {to_dinov2(key, arch.swiglu): value for key, value in state.items()}
    return renamed | {"mask_token": torch.zeros(1, arch.dim) if mask_token is None else mask_token.reshape(1, -1)}


def _with_heads(content: Mapping[str, Tensor], heads: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    return {f"{BACKBONE}{key}": value for key, value in content.items()} | dict(heads or {})


def _write_torch(path: Path, content: object) -> None:
    import torch

    with disk_errors(path), replacing(path) as part, open(part, "wb") as handle:
        torch.save(content, handle)


def _write_safetensors(path: Path, state: Mapping[str, Tensor]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        with disk_errors(path), replacing(path) as part:
            part.touch()
            mode = part.stat().st_mode  # what the user's umask gives; safetensors would keep the file to its writer
            save_file({key: value.contiguous() for key, value in state.items()}, part, metadata={"format": "pt"})
            part.chmod(mode)
    except SafetensorError as error:
        raise EncoderError(
            f"{path}: could not be written ({error}). Is there room, and may you write there?"
        ) from error
