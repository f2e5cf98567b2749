"""Load an encoder and turn pictures of cells into embeddings and patch tokens.

Pictures are computed in fixed batches in their order, the last one padded, so that every batch has
the same shape: a cell's float32 embedding does not depend on which cells come along, and a resumed
run continues with the same numbers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from napari_dinobloom.encoders.checkpoint import Checkpoint, file_hash, read_checkpoint
from napari_dinobloom.encoders.registry import EncoderSpec, PositionRule, WeightSource, find, vit_spec
from napari_dinobloom.errors import EncoderError
from napari_dinobloom.progress import Progress, Steps, drain

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from napari_dinobloom.encoders.vit import VisionTransformer

Precision = Literal["float32", "bf16"]
Float32 = npt.NDArray[np.float32]

CACHE_VARIABLE = "NAPARI_DINOBLOOM_CACHE"

COMPUTE_BATCH = {"cpu": 4, "mps": 64, "cuda": 64}
"""Pictures per forward pass. On a CPU a few fit its cache, and more are slower; measured on two cores with
ViT-Tiny: 70 pictures a second in fours, 22 in batches of 64."""

FROM_FILE = "A file given by path."


def cache_folder() -> Path:
    """Give the folder where downloaded weights lie.

    Returns
    -------
    Path
        The environment's NAPARI_DINOBLOOM_CACHE, else the system's cache folder for napari-dinobloom.
    """
    import pooch

    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else Path(pooch.os_cache("napari-dinobloom"))


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
        `cache_folder`, or the path of a checkpoint in any of the known shapes.
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
    path, spec, source = _resolve(name)
    chosen = _device(device)
    number = _precision(precision, chosen)
    checkpoint = read_checkpoint(path)
    if source is not None and source.sha256 is not None and checkpoint.sha256 != source.sha256:
        raise EncoderError(
            f"{path}: its sha256 is {checkpoint.sha256}, but {spec.name if spec else name} is published as "
            f"{source.sha256}. The file is damaged or another one; fetch it again from {source.url or 'the package'}."
        )
    if spec is None:
        spec = vit_spec(path.stem, checkpoint.architecture.name, licence="unknown", note=FROM_FILE)
    if checkpoint.architecture != spec.architecture:
        raise EncoderError(
            f"{path}: holds architecture {checkpoint.architecture.name}, but {spec.name} is {spec.architecture.name}."
        )
    model, mask_token = _build(checkpoint, spec, positions or spec.positions, chosen, number)
    return Encoder(spec, checkpoint.sha256, model, mask_token, str(chosen), number)


def identify(name: str | Path) -> str:
    """Give the sha256 of the weights that `load_encoder` would load, without loading torch.

    Parameters
    ----------
    name : str or Path
        As for `load_encoder`.

    Returns
    -------
    str
        64 hexadecimal digits: the published hash where one is known (loading checks it), else the file's.

    Raises
    ------
    EncoderError
        Unknown name, or the file is not there.
    """
    path, _, source = _resolve(name)
    return source.sha256 if source is not None and source.sha256 is not None else file_hash(path)


def _resolve(name: str | Path) -> tuple[Path, EncoderSpec | None, WeightSource | None]:
    """Find the file of an encoder, and its registry entry where it was asked for by name."""
    path = Path(name).expanduser()
    if isinstance(name, Path) or path.suffix in {".pth", ".pt", ".bin", ".safetensors"} or path.is_file():
        if not path.is_file():
            raise EncoderError(f"{path}: there is no such file. Give the path of a file of weights.")
        return path, None, None
    spec = find(str(name))
    for source in spec.sources:
        found = _bundled(source) if not source.url else cache_folder() / source.file
        if found.is_file():
            return found, spec, source if source.url else _pinned(found, source)
    raise EncoderError(_not_here(spec))


def _bundled(source: WeightSource) -> Path:
    return Path(str(resources.files("napari_dinobloom") / "weights" / source.file))


def _pinned(path: Path, source: WeightSource) -> WeightSource:
    """Add the hash that the package's model card states for a bundled file."""
    card = path.with_suffix(".json")
    try:
        stated = json.loads(card.read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise EncoderError(f"{card}: the model card with the sha256 is missing or damaged. Install again.") from error
    return replace(source, sha256=str(stated))


def _not_here(spec: EncoderSpec) -> str:
    places = [source for source in spec.sources if source.url]
    if not places:
        return f"The weights of {spec.name!r} are missing from the package. Install napari-dinobloom again."
    offers = "\n".join(f"  {source.url}  ->  {source.file}" for source in places)
    return (
        f"The weights of {spec.name!r} are not on this machine. Put one of these files, under the name on the "
        f"right, into {cache_folder()} (the environment variable {CACHE_VARIABLE} chooses another folder), "
        f"or pass the path of the file:\n{offers}"
    )


def _device(wanted: str) -> torch.device:
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


def _precision(wanted: str, device: torch.device) -> Precision:
    import torch

    if wanted not in ("auto", "float32", "bf16"):
        raise EncoderError(f"Precision {wanted!r} is unknown. Give auto, float32 or bf16.")
    if wanted == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return "bf16" if wanted == "bf16" else "float32"


def _build(
    checkpoint: Checkpoint, spec: EncoderSpec, rule: PositionRule | None, device: torch.device, precision: Precision
) -> tuple[VisionTransformer, Tensor | None]:
    """Make the model on its device, with the checkpoint's weights in it."""
    import torch

    from napari_dinobloom.encoders.positions import resample_positions
    from napari_dinobloom.encoders.vit import VisionTransformer

    state = dict(checkpoint.state)
    if checkpoint.grid != spec.grid:
        if rule is None:
            pixels = checkpoint.grid * spec.patch_size
            raise EncoderError(
                f"{checkpoint.path}: its position embeddings are those of {pixels} px pictures, {spec.input_size} px "
                "are used here. Pass positions='hub' (as DINOv2 runs at another size) or 'training'."
            )
        state["pos_embed"] = resample_positions(state["pos_embed"], spec.grid, rule)
    with torch.device("meta"):
        model = VisionTransformer(spec.architecture, spec.grid)
    model.load_state_dict(state, strict=True, assign=True)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = model.to(device=device, dtype=dtype).requires_grad_(False).eval()
    mask_token = checkpoint.mask_token
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
    model : VisionTransformer
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
    model: VisionTransformer
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
