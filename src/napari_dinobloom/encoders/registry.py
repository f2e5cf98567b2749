"""The encoders that the project knows by name: what each is, under which terms, and where its weights are.

A new encoder is one entry of `REGISTRY`. Nothing here imports torch. File sizes and hashes are those
that are published or were reported for the files; None where neither is known.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from napari_dinobloom.encoders.architecture import ARCHITECTURES, Architecture
from napari_dinobloom.errors import EncoderError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Interpolation = Literal["bilinear", "bicubic"]
PositionRule = Literal["hub", "training"]


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
    """

    url: str
    file: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """What has to be known about an encoder to embed a cell as its authors do.

    Attributes
    ----------
    name : str
        Registry name.
    architecture : Architecture
        Sizes of the vision transformer.
    dim, patch_size, input_size : int
        Length of an embedding; side of a patch and of the input picture in pixels.
    mean, std : tuple of float
        Subtracted from and divided into channels R, G, B in 0..1.
    interpolation : {"bilinear", "bicubic"}
        Resampling of pictures of another size, with antialiasing.
    pooling : {"class"}
        "class": the class token after the final LayerNorm, neither scaled nor normalised.
    parameters : int
        Number of weights at `input_size`, the mask token left out.
    licence : str
        Licence of the weights, as far as it is stated.
    gated : bool
        Whether the publisher asks for an account or a consent before the download.
    sources : tuple of WeightSource
        Published files, the preferred one first.
    positions : {"hub", "training"} or None
        Rule by which the released position embeddings are resampled to `input_size`; None where they fit.
    note : str
        What a user should know.
    """

    name: str
    architecture: Architecture
    dim: int
    patch_size: int
    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation
    pooling: Literal["class"]
    parameters: int
    licence: str
    gated: bool
    sources: tuple[WeightSource, ...]
    positions: PositionRule | None = None
    note: str = ""

    @property
    def grid(self) -> int:
        """Patches per side."""
        return self.input_size // self.patch_size


def vit_spec(
    name: str,
    size: str,
    *,
    licence: str,
    sources: tuple[WeightSource, ...] = (),
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
    licence, sources, positions, note
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
        gated=False,
        sources=sources,
        positions=positions,
        note=note,
    )


_ZENODO = "https://zenodo.org/records/10908163/files/DinoBloom-{0}.pth?download=1"
_HUGGING = "https://huggingface.co/{0}/resolve/main/{1}"
_META = "https://dl.fbaipublicfiles.com/dinov2/{0}/{0}_pretrain.pth"
_DINOBLOOM_FILES: dict[str, tuple[tuple[int, str | None], tuple[int, str | None], tuple[int, str | None]]] = {
    # size: (bytes, sha256) of the Zenodo .pth, of the bare .bin and of the timm re-upload
    "S": (
        (265_000_000, "c2f7990b003e89bcece80e379fb8fe0ba2ec392ce19b286e8a294abd99568e44"),
        (86_500_000, None),
        (86_500_000, "a7aa4f35e0fdc34c1ce25962db2511df895a96201f2cebe19dd3b3539ab93b26"),
    ),
    "B": (
        (528_500_000, None),
        (343_000_000, None),
        (343_000_000, "37d7c42f6ac8adea355b6cbf4d2a74c5c8de6d292fed909be793328572106334"),
    ),
    "L": (
        (1_440_000_000, None),
        (1_210_000_000, "3963b60942e18e1f66fc77340700f4d408c69ca6d6617c0f94feedbad7caa88f"),
        (1_210_000_000, "6e224b1cc9cab7d2fcdef7d416960df98244fd807b2ad86e53da5d2d1a06d6bc"),
    ),
    "G": (
        (4_740_000_000, None),
        (4_540_000_000, "16bff9c85eabb2628e8c741701b6eb23a6ebd61699de85777af99750d6415a39"),
        (4_540_000_000, None),
    ),
}
_LONG = {"S": "small", "B": "base", "L": "large", "G": "giant"}


def _dinobloom(size: str) -> EncoderSpec:
    zenodo, bare, timm = _DINOBLOOM_FILES[size]
    upload = f"vit_{_LONG[size]}_patch14_224.dinobloom"
    plain = f"pytorch_model_{size.lower()}.bin"
    sources = (
        WeightSource(_ZENODO.format(size), f"DinoBloom-{size}.pth", *zenodo),
        WeightSource(_HUGGING.format("MarrLab/DinoBloom", plain), plain, *bare),
        WeightSource(_HUGGING.format(f"1aurent/{upload}", "model.safetensors"), f"{upload}.safetensors", *timm),
    )
    return vit_spec(
        f"DinoBloom-{size}",
        size,
        licence="Apache-2.0 (of the code; the record of the weights names none that we could check)",
        sources=sources,
        note="Koch et al., MICCAI 2024, arXiv 2404.05022. The timm re-upload's config.json says 518 px; "
        "its positions are those of 224 px, and 224 px is what this entry uses.",
    )


def _dinov2(size: str) -> EncoderSpec:
    hub = f"dinov2_vit{size.lower()}14"
    return vit_spec(
        f"DINOv2-{'g' if size == 'G' else size}",
        size,
        licence="Apache-2.0",
        sources=(WeightSource(_META.format(hub), f"{hub}_pretrain.pth"),),
        positions="hub",
        note="Oquab et al. 2023, trained on natural images: the baseline of the DinoBloom paper.",
    )


def _reddino(size: str) -> EncoderSpec:
    upload = f"RedDino-{_LONG[size]}"
    return vit_spec(
        f"RedDino-{size}",
        size,
        licence="Apache-2.0",
        sources=(WeightSource(_HUGGING.format(f"Snarcy/{upload}", "model.safetensors"), f"{upload}.safetensors"),),
        note="Red blood cells, arXiv 2508.08180.",
    )


STARTER = vit_spec(
    "starter",
    "tiny",
    licence="Apache-2.0 (trained on PBC, CC BY 4.0; see NOTICE)",
    sources=(WeightSource("", "starter.safetensors"),),
    note="Comes with the package, so that everything runs without a download; see its model card for its scores.",
)
"""The bundled encoder; its hash stands in ``weights/starter.json``."""

REGISTRY: dict[str, EncoderSpec] = {
    spec.name: spec
    for spec in (
        STARTER,
        *(_dinobloom(size) for size in "SBLG"),
        *(_dinov2(size) for size in "SBLG"),
        *(_reddino(size) for size in "SBL"),
    )
}
"""All named encoders, the bundled one first."""


def find(name: str) -> EncoderSpec:
    """Look an encoder up by name, capitals aside.

    Parameters
    ----------
    name : str
        A registry name.

    Returns
    -------
    EncoderSpec

    Raises
    ------
    EncoderError
        Where no entry has the name; the message gives the nearest ones and all.
    """
    exact = REGISTRY.get(name)
    if exact is not None:
        return exact
    lower = {key.lower(): key for key in REGISTRY}
    if name.lower() in lower:
        return REGISTRY[lower[name.lower()]]
    near = difflib.get_close_matches(name.lower(), lower, n=1)
    hint = f" Did you mean {lower[near[0]]!r}?" if near else ""
    raise EncoderError(
        f"No encoder is called {name!r} and no file lies at that path.{hint} "
        f"Known names: {', '.join(REGISTRY)}; or give the path of a checkpoint."
    )
