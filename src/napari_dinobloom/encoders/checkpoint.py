"""Files of weights: recognise the released shapes and turn each into one state dict, or say what is wrong.

Four shapes hold the same backbone: ``{"teacher": {"backbone.*", "dino_head.*", "ibot_head.*"}}`` as
Zenodo has it, the bare DINOv2 state dict, timm key names in safetensors, and what this project's own
training writes (timm key names too). All become float32 tensors under timm's key names. Pickles are
read with torch's restricted unpickler only: a file that wants to run code is refused.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dinobloom.encoders.architecture import ARCHITECTURES, Architecture, Shape, describe, infer
from napari_dinobloom.errors import EncoderError

if TYPE_CHECKING:
    from torch import Tensor

HEADS = ("dino_head.", "ibot_head.", "head.")
"""Key prefixes of training heads: known, and not needed to embed."""

RENAMED = {"mlp.w12.": "mlp.fc1.", "mlp.w3.": "mlp.fc2."}
"""DINOv2's names in the giant's SwiGLU, and timm's."""

ZIP, SAFETENSORS_BRACE, OLD_PICKLE = b"PK\x03\x04", b"{", b"\x80"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The weights of one file, checked against an architecture.

    Attributes
    ----------
    path : Path
        The file.
    sha256 : str
        Its hexadecimal hash.
    shape : str
        Which of the known shapes it has: "teacher", "bare DINOv2" or "timm".
    architecture : Architecture
        Found from the sizes of the tensors.
    grid : int
        Patches per side that the position embedding is made for.
    state : dict of str to Tensor
        Float32 tensors under timm's key names, exactly those of `architecture`.
    mask_token : Tensor or None
        (1, D), where the file has one; needed for masked pictures only.
    metadata : dict of str to str
        The safetensors header's free text.
    """

    path: Path
    sha256: str
    shape: str
    architecture: Architecture
    grid: int
    state: dict[str, Tensor]
    mask_token: Tensor | None = None
    metadata: dict[str, str] = field(default_factory=dict)


def file_hash(path: Path) -> str:
    """Compute the hexadecimal SHA-256 of a file, a megabyte at a time."""
    digest = sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file of weights in any of the known shapes.

    Parameters
    ----------
    path : Path
        A ``.pth``, ``.pt``, ``.bin`` or ``.safetensors`` file; the content decides, not the name.

    Returns
    -------
    Checkpoint

    Raises
    ------
    EncoderError
        Missing, empty, truncated or foreign file; a pickle that holds code; sizes of no known
        architecture; missing, left-over or misshapen tensors. The message names file and keys.
    """
    tensors, shape, metadata = _tensors(path)
    tensors = {_timm_name(key): value for key, value in tensors.items() if not key.startswith(HEADS)}
    mask_token = tensors.pop("mask_token", None)
    shapes: dict[str, Shape] = {key: tuple(value.shape) for key, value in tensors.items()}
    arch = infer(shapes)
    if arch is None:
        raise EncoderError(_unknown_sizes(path, shapes))
    tokens = shapes.get("pos_embed", (1, 1, 0))[1]
    grid = round(max(tokens - 1, 1) ** 0.5)
    _compare(path, arch, shapes, arch.shapes(grid))
    state = {key: value.float() for key, value in tensors.items()}
    bad = [key for key, value in state.items() if not bool(value.isfinite().all())]
    if bad:
        raise EncoderError(f"{path}: tensor {bad[0]!r} holds infinite or undefined numbers; take another copy.")
    mask = None if mask_token is None else mask_token.float().reshape(1, -1)
    return Checkpoint(path, file_hash(path), shape, arch, grid, state, mask, metadata)


def _tensors(path: Path) -> tuple[dict[str, Tensor], str, dict[str, str]]:
    """Read all tensors of a file, with the name of its shape and its free text."""
    try:
        with open(path, "rb") as handle:
            head = handle.read(9)
    except OSError as error:
        raise EncoderError(f"{path}: cannot be read ({error.strerror}). Give the path of a weights file.") from error
    if not head:
        raise EncoderError(f"{path}: the file is empty. Fetch it again.")
    if head[8:9] == SAFETENSORS_BRACE:
        tensors, metadata = _read_safetensors(path)
        return tensors, _shape_name(tensors), metadata
    if head.startswith((ZIP, OLD_PICKLE)):
        return *_backbone_of(path, _read_torch(path)), {}
    raise EncoderError(f"{path}: neither a safetensors file nor one written by torch. Give a file of weights.")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as handle:
            metadata = dict(handle.metadata() or {})
            return {key: handle.get_tensor(key) for key in handle.keys()}, metadata  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise EncoderError(f"{path}: truncated or damaged safetensors file ({error}). Fetch it again.") from error


def _read_torch(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            # It warns of pickle protocols that it reads only in part; what it cannot read is an error here.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" in str(error):
            raise EncoderError(
                f"{path}: refused, because loading this pickle could run code or objects other than tensors. "
                "Save the plain state dict, best as safetensors, and load that."
            ) from error
        raise EncoderError(f"{path}: truncated or damaged file of torch ({error}). Fetch it again.") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EncoderError(f"{path}: truncated or damaged file of torch ({first}). Fetch it again.") from error


def _backbone_of(path: Path, loaded: Any) -> tuple[dict[str, Tensor], str]:
    """Take the backbone out of what torch loaded, with the name of its shape."""
    import torch

    if not isinstance(loaded, Mapping):
        raise EncoderError(f"{path}: holds a {type(loaded).__name__}, not a state dict of tensors by name.")
    if "teacher" in loaded:
        teacher = loaded["teacher"]
        if not isinstance(teacher, Mapping):
            raise EncoderError(f"{path}: 'teacher' is a {type(teacher).__name__}, not a state dict.")
        prefix = "backbone."
        tensors = {key[len(prefix) :]: value for key, value in teacher.items() if key.startswith(prefix)}
        foreign = [key for key in teacher if not key.startswith((prefix, *HEADS))]
        if foreign or not tensors:
            raise EncoderError(
                f"{path}: 'teacher' {'has left-over keys ' + _some(foreign) if foreign else 'has no backbone.* keys'}; "
                "expected backbone.*, dino_head.* and ibot_head.*."
            )
        shape = "teacher"
    else:
        tensors = dict(loaded)
        shape = _shape_name(tensors)
    strange = [str(key) for key, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise EncoderError(
            f"{path}: entries {_some(strange)} are not tensors. Expected a state dict, or one under 'teacher'."
        )
    return {str(key): value for key, value in tensors.items()}, shape


def _shape_name(tensors: Mapping[str, Any]) -> str:
    """Tell DINOv2's own key names, which come with a mask token, from timm's."""
    return "bare DINOv2" if "mask_token" in tensors or "blocks.0.mlp.w12.weight" in tensors else "timm"


def _timm_name(key: str) -> str:
    for old, new in RENAMED.items():
        key = key.replace(old, new)
    return key


def _unknown_sizes(path: Path, shapes: Mapping[str, Shape]) -> str:
    known = "; ".join(f"{a.name}: {a.dim}, {a.depth} blocks, {a.hidden}" for a in ARCHITECTURES.values())
    if "cls_token" not in shapes or not any(key.startswith("blocks.") for key in shapes):
        return (
            f"{path}: no vision transformer. Expected keys such as cls_token and blocks.0.attn.qkv.weight, "
            f"found {_some(list(shapes)) or 'none'}."
        )
    return f"{path}: a vision transformer of {describe(shapes)}, which is none of the known sizes ({known})."


def _compare(path: Path, arch: Architecture, found: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> None:
    """Raise EncoderError unless `found` has exactly the keys and shapes of `wanted`."""
    missing = [key for key in wanted if key not in found]
    left = [key for key in found if key not in wanted]
    wrong = [
        f"{key} {found[key]} in place of {wanted[key]}" for key in wanted if key in found and found[key] != wanted[key]
    ]
    problems = [
        f"{what} {_some(keys)}" for what, keys in (("missing", missing), ("left over", left), ("wrong", wrong)) if keys
    ]
    if problems:
        raise EncoderError(
            f"{path}: looks like architecture {arch.name} ({arch.dim} dimensions, {arch.depth} blocks), but "
            f"{'; '.join(problems)}. Take an unchanged release, without registers."
        )


def _some(keys: list[str], most: int = 5) -> str:
    """List the first few keys and how many follow."""
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more
