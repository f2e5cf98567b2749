"""Which device computes, and in which number format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from napari_dinobloom.errors import EncoderError

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bf16"]


def resolve_device(wanted: str) -> torch.device:
    """Give the torch device that a name stands for.

    Parameters
    ----------
    wanted : str
        "auto" takes CUDA, else Apple's MPS, else the CPU; or a torch device such as "cuda:1".

    Returns
    -------
    torch.device

    Raises
    ------
    EncoderError
        Unknown name, or no such device on this machine.
    """
    import torch

    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise EncoderError(f"Device {wanted!r} is unknown. Give auto, cpu, cuda, cuda:1 or mps.") from error
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here.get(device.type, False):
        raise EncoderError(f"Device {wanted!r} is not available on this machine. Give auto or cpu.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EncoderError(f"Device {wanted!r}: this machine has {torch.cuda.device_count()} CUDA devices.")
    return device


def resolve_precision(wanted: str, device: torch.device) -> Precision:
    """Give the number format that a name stands for on a device.

    Parameters
    ----------
    wanted : {"auto", "float32", "bf16"}
        "auto" is bf16 on a CUDA device that computes in it, float32 elsewhere: on a CPU float32 gives the same
        numbers everywhere, and bf16 is asked for by name.
    device : torch.device
        What computes.

    Returns
    -------
    {"float32", "bf16"}

    Raises
    ------
    EncoderError
        Unknown name.
    """
    import torch

    if wanted not in ("auto", "float32", "bf16"):
        raise EncoderError(f"Precision {wanted!r} is unknown. Give auto, float32 or bf16.")
    if wanted == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return "bf16" if wanted == "bf16" else "float32"
