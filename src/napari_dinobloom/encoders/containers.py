"""Open files of weights without running anything in them: safetensors, and torch's zip and older pickle format.

Pickles are read with torch's restricted unpickler only: a file that wants to run code is refused. Both
safetensors and zip files are mapped into memory, not read, so that a tensor takes memory once it is used.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dinobloom.errors import EncoderError

if TYPE_CHECKING:
    from torch import Tensor

ZIP, SAFETENSORS_BRACE, OLD_PICKLE, TAR = b"PK\x03\x04", b"{", b"\x80", b"ustar"
"""What the formats begin with; safetensors after the eight bytes of its header's length, tar at byte 257."""

WRAPPERS = ("teacher", "model")
"""Names under which a state dict lies inside what torch loads: DINOv2's training and CTransPath."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The tensors of a file as they lie there.

    Attributes
    ----------
    tensors : dict of str to Tensor
        Under the names of the file.
    wrapper : str or None
        One of `WRAPPERS` that the tensors lay under.
    metadata : dict of str to str
        The safetensors header's free text.
    """

    tensors: dict[str, Tensor]
    wrapper: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)


def read_tensors(path: Path) -> Stored:
    """Open a file of weights; its content decides of which format it is, not its name.

    Raises
    ------
    EncoderError
        Missing, empty, truncated or foreign file; a pickle that holds code; something other than tensors by name;
        tensors larger than what the file holds of them.
    """
    try:
        with open(path, "rb") as handle:
            head = handle.read(512)
    except OSError as error:
        raise EncoderError(f"{path}: cannot be read ({error.strerror}). Give the path of a weights file.") from error
    if not head:
        raise EncoderError(f"{path}: the file is empty. Fetch it again.")
    if head[8:9] == SAFETENSORS_BRACE:
        return _read_safetensors(path)
    if head.startswith((ZIP, OLD_PICKLE)):
        return _unwrap(path, _read_torch(path, zipped=head.startswith(ZIP)))
    if head[257:262] == TAR:
        raise EncoderError(
            f"{path}: a tar file, as torch wrote them before 2017. Load it with the program that wrote it and save "
            "the state dict anew, best as safetensors."
        )
    raise EncoderError(f"{path}: neither a safetensors file nor one written by torch. Give a file of weights.")


def _read_safetensors(path: Path) -> Stored:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as handle:
            metadata = dict(handle.metadata() or {})
            return Stored({key: handle.get_tensor(key) for key in handle.keys()}, None, metadata)  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise EncoderError(f"{path}: truncated or damaged safetensors file ({error}). Fetch it again.") from error


def _read_torch(path: Path, *, zipped: bool) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            # It warns of pickle protocols that it reads only in part; what it cannot read is an error here.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" in str(error):
            raise EncoderError(_refusal(path)) from error
        raise EncoderError(f"{path}: truncated or damaged file of torch ({error}). Fetch it again.") from error
    except Exception as error:
        # A damaged pickle makes torch's reader fail in any way: IndexError, UnicodeDecodeError, struct.error, ...
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "TorchScript" in first:
            raise EncoderError(_refusal(path)) from error
        raise EncoderError(f"{path}: truncated or damaged file of torch ({first}). Fetch it again.") from error


def _refusal(path: Path) -> str:
    return (
        f"{path}: refused, because loading this pickle could run code or objects other than tensors. "
        "Save the plain state dict, best as safetensors, and load that."
    )


def _unwrap(path: Path, loaded: Any) -> Stored:
    """Take the tensors by name out of what torch loaded."""
    import torch

    if not isinstance(loaded, Mapping):
        raise EncoderError(f"{path}: holds a {type(loaded).__name__}, not a state dict of tensors by name.")
    wrapper = next((name for name in WRAPPERS if name in loaded), None)
    inside = loaded if wrapper is None else loaded[wrapper]
    if not isinstance(inside, Mapping):
        raise EncoderError(f"{path}: {wrapper!r} is a {type(inside).__name__}, not a state dict.")
    strange = [str(key) for key, value in inside.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise EncoderError(
            f"{path}: entries {some(strange)} are not tensors. Expected a state dict, or one under 'teacher'."
        )
    _check_stored(path, inside)
    return Stored({str(key): value for key, value in inside.items()}, wrapper)


def _check_stored(path: Path, tensors: Mapping[Any, Tensor]) -> None:
    """Refuse tensors that claim more numbers than the file has for them: a few bytes could ask for any memory."""
    import torch

    swollen = [
        str(key)
        for key, value in tensors.items()
        if value.layout == torch.strided and value.numel() * value.itemsize > value.untyped_storage().nbytes()
    ]
    if swollen:
        raise EncoderError(f"{path}: tensors {some(swollen)} repeat their numbers; save plain, contiguous ones.")


def some(keys: list[str], most: int = 5) -> str:
    """List the first few keys and how many follow; what a terminal might obey is written as its code."""
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join((key if key.isprintable() else ascii(key))[:100] for key in keys[:most]) + more
