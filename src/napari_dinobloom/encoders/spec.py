"""What has to be known about an encoder: its network, how pictures are prepared for it, its terms and its files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from napari_dinobloom.encoders.architecture import ARCHITECTURES, Architecture, Network

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Interpolation = Literal["bilinear", "bicubic"]
PositionRule = Literal["hub", "training", "timm"]
Pooling = Literal["class", "class+mean", "mean", "logits", "model"]


@dataclass(frozen=True, slots=True)
class WeightSource:
    """One published file of weights.

    Attributes
    ----------
    url : str
        Where the file is published; empty for a file inside this package.
    file : str
        Name under which the file is looked for in the cache folder (or in the package's ``weights``).
    size : int or None
        Bytes, rounded as published.
    sha256 : str or None
        Hexadecimal SHA-256 of the file.
    sha256_prefix : str or None
        Its first digits, where only those are published (torchvision writes eight into a file's name).
    manual : bool
        Whether `url` is a page for people, from which the file cannot be fetched by a program.
    """

    url: str
    file: str
    size: int | None = None
    sha256: str | None = None
    sha256_prefix: str | None = None
    manual: bool = False

    def agrees(self, sha256: str) -> bool | None:
        """Say whether a file's hash is the published one, as far as that is known; None where nothing is."""
        known = self.sha256 or self.sha256_prefix
        return sha256.startswith(known) if known else None


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """What has to be known about an encoder to embed a cell as its authors do.

    Attributes
    ----------
    name : str
        Registry name.
    architecture : Architecture or Network
        Sizes of a vision transformer of ours, or the name of another network.
    dim, input_size : int
        Length of an embedding; side of the input picture in pixels.
    patch_size : int or None
        Side of a patch in pixels; None where a network has no patch tokens.
    mean, std : tuple of float
        Subtracted from and divided into channels R, G, B in 0..1.
    interpolation : {"bilinear", "bicubic"}
        Resampling of pictures of another size, with antialiasing, aspect not kept and nothing cut off.
    pooling : {"class", "class+mean", "mean", "logits", "model"}
        What the embedding is. "class": the class token after the final norm; "mean": the mean over places;
        "class+mean": both, one after the other; "logits": the scores of the trained classes; "model": what
        timm's model puts before its classifier. Never normalised afterwards.
    parameters : int
        Number of weights at `input_size` that the embedding is computed with, the mask token left out.
    licence : str
        Licence of the weights, as far as it is stated.
    sources : tuple of WeightSource
        Published files, the preferred one first.
    terms : str
        What a user has to accept before the weights are used; empty for free ones.
    positions : {"hub", "training", "timm"} or None
        Rule by which the released position embeddings are resampled to `input_size`; None where they fit.
    note : str
        What a user should know.
    gated : bool
        Whether the publisher asks for an account or a consent before the download. Those of today's entries and
        of timm's models do not.
    """

    name: str
    architecture: Architecture | Network
    dim: int
    patch_size: int | None
    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation
    pooling: Pooling
    parameters: int
    licence: str
    sources: tuple[WeightSource, ...]
    terms: str = ""
    positions: PositionRule | None = None
    note: str = ""
    gated: bool = False

    @property
    def grid(self) -> int | None:
        """Patches per side; None where the network has no patch tokens."""
        return None if self.patch_size is None else self.input_size // self.patch_size


def vit_spec(
    name: str,
    size: str,
    *,
    licence: str,
    sources: tuple[WeightSource, ...] = (),
    terms: str = "",
    positions: PositionRule | None = None,
    note: str = "",
) -> EncoderSpec:
    """Build the entry of a vision transformer that sees 224 px through ImageNet's mean and deviation.

    Parameters
    ----------
    name : str
        Registry name.
    size : str
        Key of `ARCHITECTURES`.
    licence, sources, terms, positions, note
        As in `EncoderSpec`.

    Returns
    -------
    EncoderSpec
    """
    arch = ARCHITECTURES[size]
    return EncoderSpec(
        name=name,
        architecture=arch,
        dim=arch.dim,
        patch_size=arch.patch_size,
        input_size=224,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        interpolation="bilinear",
        pooling="class",
        parameters=arch.parameters(224 // arch.patch_size),
        licence=licence,
        sources=sources,
        terms=terms,
        positions=positions,
        note=note,
    )
