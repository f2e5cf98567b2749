"""Load an encoder and turn pictures of cells into embeddings and patch tokens.

Pictures are computed in fixed batches in their order, the last one padded, so that every batch has
the same shape: a cell's float32 embedding does not depend on which cells come along, and a resumed
run continues with the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from napari_dinobloom.encoders.build import Loaded, load_backbone
from napari_dinobloom.encoders.device import Precision, resolve_device, resolve_precision
from napari_dinobloom.encoders.registry import EncoderSpec, PositionRule
from napari_dinobloom.errors import EncoderError
from napari_dinobloom.progress import Progress, Steps, drain

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from napari_dinobloom.encoders.networks.backbone import Backbone

Float32 = npt.NDArray[np.float32]

COMPUTE_BATCH = {"cpu": 4, "mps": 64, "cuda": 64}
"""Pictures per forward pass. On a CPU a few fit its cache, and more are slower; measured on two cores with
ViT-Tiny: 70 pictures a second in fours, 22 in batches of 64."""


def load_encoder(
    name: str | Path,
    device: str = "auto",
    precision: Literal["auto", "float32", "bf16"] = "auto",
    *,
    positions: PositionRule | None = None,
) -> Encoder:
    """Load an encoder by registry name or from a file of weights.

    Parameters
    ----------
    name : str or Path
        "starter" (bundled), a published name such as "DinoBloom-S", whose file is looked for in
        `library.cache_folder`, or the path of a checkpoint in any of the known shapes.
    device : str, default: "auto"
        "auto" takes CUDA, else Apple's MPS, else the CPU; or a torch device such as "cuda:1".
    precision : {"auto", "float32", "bf16"}, default: "auto"
        "auto" is bf16 on a CUDA device that computes in it, float32 elsewhere.
    positions : {"hub", "training"}, optional
        Rule to resample position embeddings of a checkpoint made for another picture size than
        224 px (see `positions.resample_positions`); without it such a file is refused.

    Returns
    -------
    Encoder

    Raises
    ------
    EncoderError
        Unknown name, file not there (the message says where it is published and where to put it),
        hash other than the published one, or anything that `read_checkpoint` finds wrong.
    """
    chosen = resolve_device(device)
    number = resolve_precision(precision, chosen)
    loaded = load_backbone(name, positions)
    model, mask_token = _moved(loaded, chosen, number)
    return Encoder(loaded.spec, loaded.sha256, model, mask_token, str(chosen), number)


def _moved(loaded: Loaded, device: torch.device, precision: Precision) -> tuple[Backbone, Tensor | None]:
    """Bring a network to its device and number format."""
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    mask_token = loaded.mask_token
    model = loaded.backbone.to(device=device, dtype=dtype)
    return model, None if mask_token is None else mask_token.to(device=device, dtype=dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """A loaded encoder; made by `load_encoder`.

    Attributes
    ----------
    spec : EncoderSpec
        What the encoder is and how pictures are prepared for it.
    sha256 : str
        Hexadecimal hash of the file of weights.
    model : Backbone
        The network, on its device.
    mask_token : Tensor or None
        (1, D) where the checkpoint had one.
    device : str
        Torch device that computes.
    precision : {"float32", "bf16"}
        Number type of weights and sums.
    """

    spec: EncoderSpec
    sha256: str
    model: Backbone
    mask_token: Tensor | None
    device: str
    precision: Precision

    @property
    def name(self) -> str:
        """Registry name, or the file's name without its ending."""
        return self.spec.name

    @property
    def dim(self) -> int:
        """Length D of an embedding."""
        return self.spec.dim

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.spec.patch_size

    def embed(self, crops: Any) -> Float32:
        """Embed pictures of cells.

        Parameters
        ----------
        crops : array (n, Y, X, 3) uint8
            RGB pictures; any array that can be sliced along its first axis, such as a zarr array.
            Pictures of another size than the encoder's 224 px are resized to it, aspect not kept.

        Returns
        -------
        ndarray (n, D) float32
            Class token after the final LayerNorm, neither scaled nor normalised, as DinoBloom's own
            evaluation takes it. In float32 on a CPU a row is the same whatever rows come with it.

        Raises
        ------
        EncoderError
            Where `crops` has another type or number of axes.
        """
        return drain(self.iter_embed(crops))

    def iter_embed(self, crops: Any, batch: int = 64) -> Steps[Float32]:
        """Embed as `embed` does, with progress after every `batch` pictures.

        Parameters
        ----------
        crops : array (n, Y, X, 3) uint8
            As in `embed`.
        batch : int, default: 64
            Pictures between two reports; the numbers do not depend on it.

        Yields
        ------
        Progress
            In pictures.

        Returns
        -------
        ndarray (n, D) float32
        """
        _check(crops)
        if batch < 1:
            raise EncoderError(f"batch={batch}: give a number of pictures of at least 1.")
        total = len(crops)
        out = np.empty((total, self.dim), np.float32)
        yield Progress(0, total, "cells", "embed")
        for start in range(0, total, batch):
            part = np.asarray(crops[start : start + batch])
            for rows, tokens in self._tokens(part):
                out[start + rows.start : start + rows.stop] = tokens[:, 0].float().cpu().numpy()
            yield Progress(min(start + batch, total), total, "cells", "embed")
        return out

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
        """
        _check(crops)
        grid = self.spec.grid
        out = np.empty((len(crops), grid, grid, self.dim), np.float32)
        for rows, tokens in self._tokens(np.asarray(crops)):
            out[rows] = tokens[:, 1:].float().reshape(-1, grid, grid, self.dim).cpu().numpy()
        return out

    def _tokens(self, crops: npt.NDArray[np.uint8]) -> Iterator[tuple[slice, Tensor]]:
        """Yield row ranges and their tokens (rows, 1 + patches, D), computed in padded fixed batches."""
        import torch

        size = COMPUTE_BATCH.get(torch.device(self.device).type, 64)
        for start in range(0, len(crops), size):
            part = np.ascontiguousarray(crops[start : start + size])
            count = len(part)
            if count < size:
                part = np.concatenate([part, np.zeros((size - count, *part.shape[1:]), np.uint8)])
            with torch.inference_mode():
                tokens = self.model(self._prepare(part))[:count]
            yield slice(start, start + count), tokens

    def _prepare(self, crops: npt.NDArray[np.uint8]) -> Tensor:
        """Bring uint8 pictures to the device, to the input size and to the encoder's mean and deviation."""
        import torch
        import torch.nn.functional as F

        side = self.spec.input_size
        x_BCYX = torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2).float().div_(255)
        if x_BCYX.shape[-2:] != (side, side):
            x_BCYX = F.interpolate(
                x_BCYX, size=(side, side), mode=self.spec.interpolation, antialias=True, align_corners=False
            ).clamp_(0, 1)
        mean = torch.tensor(self.spec.mean, device=self.device).view(1, 3, 1, 1)
        std = torch.tensor(self.spec.std, device=self.device).view(1, 3, 1, 1)
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        return x_BCYX.sub_(mean).div_(std).to(dtype).contiguous()


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
