"""Which devices compute, in which number format, and how much memory they have."""

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
        "auto" takes CUDA, else Apple's MPS, else the CPU; a torch device such as "cuda:1"; or the number of a
        CUDA device.

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
        device = torch.device(f"cuda:{wanted}" if wanted.isdecimal() else wanted)
    except RuntimeError as error:
        raise EncoderError(f"Device {wanted!r} is unknown. Give auto, cpu, cuda, cuda:1 or mps.") from error
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here.get(device.type, False):
        raise EncoderError(f"Device {wanted!r} is not available on this machine. Give auto or cpu.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EncoderError(f"Device {wanted!r}: this machine has {torch.cuda.device_count()} CUDA devices.")
    return device


def resolve_devices(wanted: str) -> tuple[torch.device, ...]:
    """Give the torch devices of a list of names.

    Parameters
    ----------
    wanted : str
        Names as `resolve_device` takes, separated by commas: "cuda:0,cuda:1", "0,1,2,3", "cpu,cpu".

    Returns
    -------
    tuple of torch.device
        At least one; all of one type.

    Raises
    ------
    EncoderError
        As for `resolve_device`; or types are mixed, or a graphics card is named twice.
    """
    names = [name.strip() for name in wanted.split(",")]
    devices = tuple(resolve_device(name) for name in names)
    if len({device.type for device in devices}) > 1:
        raise EncoderError(f"Devices {wanted!r}: their numbers would differ. Give devices of one type.")
    if devices[0].type != "cpu" and len({device.index or 0 for device in devices}) < len(devices):
        raise EncoderError(f"Devices {wanted!r}: one is named twice.")
    return devices


def resolve_precision(wanted: str, device: torch.device) -> Precision:
    """Give the number format that a name stands for on a device.

    Parameters
    ----------
    wanted : {"auto", "float32", "bf16"}
        "auto" is bf16 on a CUDA device that computes in it (Ampere and newer), float32 elsewhere: on a CPU float32
        gives the same numbers on old and new machines, so bf16 has to be asked for there (see `bf16_gains`).
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
    if wanted not in ("auto", "float32", "bf16"):
        raise EncoderError(f"Precision {wanted!r} is unknown. Give auto, float32 or bf16.")
    if wanted == "auto":
        return "bf16" if device.type == "cuda" and bf16_gains(device) else "float32"
    return "bf16" if wanted == "bf16" else "float32"


def bf16_gains(device: torch.device) -> bool:
    """Tell whether a device multiplies bf16 matrices faster than float32 ones.

    On a CPU that is so with the instructions AVX512-BF16 or AMX-BF16; the others emulate it.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # Named in torch's own capability report since 2.6; absent on other architectures than x86.
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def free_memory(device: torch.device) -> int:
    """Give the bytes that a new job may still take on a device."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)
