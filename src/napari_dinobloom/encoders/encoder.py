"""Load an encoder and turn pictures of cells into embeddings and patch tokens.

What computes lies in `compute`: on a CPU each picture goes by itself through one core, so that its numbers do not
depend on its company; on a graphics card batches have a fixed size, the last one padded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_dinobloom.encoders.build import Loaded, load_backbone
from napari_dinobloom.encoders.compute.accelerator import AcceleratorCompute
from napari_dinobloom.encoders.compute.base import Compute, Float32, Output
from napari_dinobloom.encoders.compute.cpu import CpuCompute
from napari_dinobloom.encoders.compute.processes import ProcessCompute
from napari_dinobloom.encoders.compute.reading import read_ahead
from napari_dinobloom.encoders.device import Precision, free_memory, resolve_devices, resolve_precision
from napari_dinobloom.encoders.library import is_path
from napari_dinobloom.encoders.spec import EncoderSpec, PositionRule
from napari_dinobloom.errors import EncoderError
from napari_dinobloom.progress import Progress, Steps, drain

if TYPE_CHECKING:
    import torch

Pooling = Literal["class", "class+mean"]

VERSION = 2
"""Of the numbers: part of every key under which embeddings are kept."""

GIB = 2**30

READERS = {"cuda": 4, "mps": 2, "cpu": 1}
"""Threads that read a zarr store ahead, by type of device."""


def load_encoder(
    name: str | Path,
    device: str = "auto",
    precision: Literal["auto", "float32", "bf16"] = "auto",
    *,
    positions: PositionRule | None = None,
    pooling: Pooling | None = None,
    max_memory_gib: float | None = None,
) -> Encoder:
    """Load an encoder by registry name or from a file of weights.

    Parameters
    ----------
    name : str or Path
        "starter" (bundled), a name that ``napari-dinobloom weights list`` shows, such as "DinoBloom-S", whose file
        is looked for in `library.cache_folder`, or the path of a checkpoint in any of the known shapes.
    device : str, default: "auto"
        "auto" takes CUDA, else Apple's MPS, else the CPU; a torch device such as "cuda:1"; or several, separated by
        commas, which share the work with one process each: "0,1,2,3" or "cuda:0,cuda:1" or "cpu,cpu".
    precision : {"auto", "float32", "bf16"}
        "auto" is bf16 on a CUDA device that computes in it, float32 elsewhere. On a CPU with AVX512-BF16 or AMX,
        "bf16" is faster (cosine to float32 above 0.999); on others it is slower.
    positions : {"hub", "training", "timm"}, optional
        Rule to resample position embeddings of a checkpoint made for another picture size than
        224 px (see `positions.resample_positions`); without it such a file is refused.
    pooling : {"class", "class+mean"}, optional
        The class token, or class token and mean patch token one after the other (2 D); None takes the encoder's own.
    max_memory_gib : float, optional
        Most memory in GiB that weights and computation may take on each device; on a graphics card the batch is
        chosen by it, by default by half of what is free.

    Returns
    -------
    Encoder

    Raises
    ------
    EncoderError
        Unknown name, file not there (the message says where it is published and where to put it), hash other than
        the published one, anything that `read_checkpoint` finds wrong, a device that is not there, a pooling that
        the network does not have, or weights larger than `max_memory_gib`.
    """
    devices = resolve_devices(device)
    number = resolve_precision(precision, devices[0])
    loaded = load_backbone(name, positions)
    chosen = _pooling(loaded.spec, pooling)
    _check_memory(loaded.spec, devices, number, max_memory_gib)
    if len(devices) > 1:
        compute: Compute = _several(
            devices,
            {"name": _plain(name), "precision": number, "positions": positions, "max_memory_gib": max_memory_gib},
        )
    else:
        compute = place(loaded, devices[0], number, max_memory_gib)
    label = ",".join(str(one) for one in devices)
    return Encoder(loaded.spec, loaded.sha256, compute, label, number, chosen, loaded.positions)


def load_compute(
    name: str | Path,
    device: str,
    precision: Precision,
    positions: PositionRule | None = None,
    max_memory_gib: float | None = None,
    threads: int | None = None,
) -> Compute:
    """Load only what computes, on one device; what each process of several runs."""
    [one] = resolve_devices(device)
    return place(load_backbone(name, positions), one, precision, max_memory_gib, threads)


def place(
    loaded: Loaded,
    device: torch.device,
    precision: Precision,
    max_memory_gib: float | None = None,
    threads: int | None = None,
) -> Compute:
    """Bring a network to a device; a CPU uses `threads` cores, or as many as torch is set to."""
    if device.type == "cpu":
        return CpuCompute(loaded, precision, threads)
    most = None if max_memory_gib is None else int(max_memory_gib * GIB)
    return AcceleratorCompute(loaded, device, precision, most)


def _several(devices: tuple[torch.device, ...], job: dict[str, Any]) -> ProcessCompute:
    """Start a process for each device; CPUs share the cores."""
    import torch

    threads = max(1, torch.get_num_threads() // len(devices)) if devices[0].type == "cpu" else None
    return ProcessCompute([{**job, "device": str(device), "threads": threads} for device in devices])


def _plain(name: str | Path) -> str:
    """The name as another process understands it, wherever that runs."""
    return str(Path(name).expanduser().resolve()) if is_path(name) else str(name)


def _check_memory(
    spec: EncoderSpec, devices: tuple[torch.device, ...], precision: Precision, most_gib: float | None
) -> None:
    """Raise EncoderError where the weights alone are larger than what may be taken, or is there, on a device."""
    each = spec.parameters * (2 if precision == "bf16" else 4)
    for device in devices:
        needed = each * devices.count(device)
        takes = f"{spec.name}: its weights take {needed / GIB:.2g} GiB in {precision} on {device}"
        if most_gib is not None and needed > most_gib * GIB:
            raise EncoderError(
                f"{takes}, more than the {most_gib:g} GiB allowed. Allow more, take bf16 or a smaller encoder."
            )
        if needed > free_memory(device):
            raise EncoderError(
                f"{takes}, which has {free_memory(device) / GIB:.1f} GiB left. Close other programs, take bf16 or a "
                "smaller encoder."
            )


def _pooling(spec: EncoderSpec, wanted: str | None) -> str:
    """The pooling wanted, if the network has it."""
    if wanted is None or wanted == spec.pooling:
        return spec.pooling
    if wanted not in ("class", "class+mean"):
        raise EncoderError(f"Pooling {wanted!r} is unknown. Give class or class+mean.")
    if spec.grid is None or spec.pooling not in ("class", "class+mean"):
        raise EncoderError(f"{spec.name} has no class token and patch tokens; its pooling is {spec.pooling!r}.")
    return wanted


class Encoder:
    """A loaded encoder; made by `load_encoder`. As a context manager it gives its memory back at the end.

    Attributes
    ----------
    spec : EncoderSpec
        What the encoder is and how pictures are prepared for it.
    sha256 : str
        Hexadecimal hash of the file of weights.
    device : str
        Torch devices that compute, separated by commas.
    precision : {"float32", "bf16"}
        Number type of weights and products.
    pooling : str
        What an embedding is: "class", "class+mean", or the network's own.
    positions : {"hub", "training", "timm"} or None
        Rule by which position embeddings were resampled; None where they fitted.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        sha256: str,
        compute: Compute,
        device: str,
        precision: Precision,
        pooling: str,
        positions: PositionRule | None = None,
    ) -> None:
        self.spec = spec
        self.sha256 = sha256
        self.device = device
        self.precision = precision
        self.pooling = pooling
        self.positions = positions
        self._compute: Compute | None = compute

    def __enter__(self) -> Encoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the memory of weights and results back to the device; nothing can be embedded afterwards."""
        if self._compute is not None:
            self._compute.close()
            self._compute = None

    @property
    def name(self) -> str:
        """Registry name, or the file's name without its ending."""
        return self.spec.name

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.spec.dim * (2 if self.pooling == "class+mean" != self.spec.pooling else 1)

    @property
    def patch_size(self) -> int | None:
        """Side of a patch in pixels; None for a network without patch tokens."""
        return self.spec.patch_size

    @property
    def grid(self) -> int | None:
        """Patches per side; None for a network without patch tokens."""
        return self.spec.grid

    @property
    def device_type(self) -> str:
        """Type of the devices: "cpu", "cuda" or "mps"."""
        return self.device.split(",")[0].split(":")[0]

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How a picture becomes the network's input, in plain values."""
        spec = self.spec
        return {
            "input_size": spec.input_size,
            "mean": list(spec.mean),
            "std": list(spec.std),
            "interpolation": spec.interpolation,
            "positions": self.positions,
        }

    @property
    def key(self) -> str:
        """16 hexadecimal digits that stand for all that decides an embedding beside the picture."""
        parts = (self.sha256, self.preprocessing, self.pooling, self.precision, self.device_type, VERSION)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def embed(self, crops: Any) -> Float32:
        """Embed pictures of cells.

        Parameters
        ----------
        crops : array (n, Y, X, 3) uint8
            RGB pictures; any array that can be sliced along its first axis, such as a zarr array or `PictureFiles`:
            it is read ahead while others are computed, by several threads where it is zarr's or says
            ``shared_reading``. Pictures of another size than the encoder's are resized to it, aspect
            not kept.

        Returns
        -------
        ndarray (n, D) float32
            Class token after the final LayerNorm, neither scaled nor normalised, as DinoBloom's own evaluation
            takes it; or what `pooling` says. On a CPU a row is bit for bit the same whatever rows come with it.

        Raises
        ------
        EncoderError
            Where `crops` has another type or number of axes, or the encoder was closed.
        """
        return drain(self.iter_embed(crops))

    def iter_embed(self, crops: Any) -> Steps[Float32]:
        """Embed as `embed` does, yielding `Progress` in pictures; returns the embeddings."""
        _check(crops)
        out = np.empty((crops.shape[0], self.dim), np.float32)
        yield from self.iter_embed_to(crops, out)
        return out

    def embed_to(self, crops: Any, store: Any) -> None:
        """Embed into a store, a block at a time, so that memory does not grow with the number of pictures.

        Parameters
        ----------
        crops : array (n, Y, X, 3) uint8
            As in `embed`.
        store : array (n, D) float32
            Anything whose rows can be assigned by slices: a zarr or HDF5 array, a memory map.

        Raises
        ------
        EncoderError
            As `embed`, or where `store` has another shape.
        """
        drain(self.iter_embed_to(crops, store))

    def iter_embed_to(self, crops: Any, store: Any) -> Steps[None]:
        """Embed as `embed_to` does, yielding `Progress` in pictures; rows below ``done`` are in the store."""
        _check(crops)
        if tuple(store.shape) != (crops.shape[0], self.dim):
            raise EncoderError(f"The store has shape {tuple(store.shape)}; it needs {(crops.shape[0], self.dim)}.")
        output: Output = "class+mean" if self.pooling == "class+mean" != self.spec.pooling else "pooled"
        total, done = crops.shape[0], 0
        yield Progress(0, total, "cells", "embed")
        for values in self._blocks(crops, output):
            store[done : done + len(values)] = values
            done += len(values)
            yield Progress(done, total, "cells", "embed")
        return None

    def patch_tokens(self, crops: Any) -> Float32:
        """Compute one vector per patch of each picture.

        Parameters
        ----------
        crops : array (n, Y, X, 3) uint8
            As in `embed`.

        Returns
        -------
        ndarray (n, h, w, D) float32
            Patch tokens after the final LayerNorm; h = w = 16 for 224 px and patch 14.

        Raises
        ------
        EncoderError
            As `embed`, or where the network has no patch tokens.
        """
        blocks = list(self.iter_patch_tokens(crops))
        grid = self.spec.grid or 0
        return np.concatenate(blocks) if blocks else np.empty((0, grid, grid, self.spec.dim), np.float32)

    def iter_patch_tokens(self, crops: Any) -> Iterator[Float32]:
        """Yield what `patch_tokens` gives a block of pictures at a time, (k, h, w, D), so that memory is bounded."""
        _check(crops)
        grid = self.spec.grid
        if grid is None:
            raise EncoderError(f"{self.name} has no patch tokens. Take a vision transformer such as DinoBloom-B.")
        for tokens in self._blocks(crops, "tokens"):
            yield np.ascontiguousarray(tokens[:, -grid * grid :]).reshape(len(tokens), grid, grid, -1)

    def _blocks(self, crops: Any, output: Output) -> Iterator[Float32]:
        """Compute blocks of pictures in their order, reading ahead."""
        compute = self._compute
        if compute is None:
            raise EncoderError(f"The encoder {self.name} was closed. Load it again.")
        if not crops.shape[0]:
            return
        block = compute.block
        if isinstance(compute, AcceleratorCompute):
            compute.consider_compiling(crops.shape[0], lambda: np.asarray(crops[:block]), output)
        shared = getattr(crops, "shared_reading", type(crops).__module__.startswith("zarr"))
        readers = READERS[self.device_type] if shared else 1
        try:
            yield from compute.stream(read_ahead(crops, block, readers=readers), output)
        finally:
            compute.release()


def _check(crops: Any) -> None:
    """Raise EncoderError unless `crops` is (n, Y, X, 3) uint8."""
    shape, dtype = getattr(crops, "shape", None), getattr(crops, "dtype", None)
    if shape is None or len(shape) != 4 or shape[-1] != 3 or dtype != np.uint8:
        raise EncoderError(
            f"Crops must be an array (n, height, width, 3) of uint8 RGB; got shape {shape} and type {dtype}. "
            "nd.crop and nd.read_smear give such arrays."
        )
    if shape[0] and min(shape[1:3]) < 1:
        raise EncoderError(f"Crops of shape {shape} have no pixels.")
