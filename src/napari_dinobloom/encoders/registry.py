"""The encoders that the project knows by name: what each is, under which terms, and where its weights are.

A new encoder is one entry of `REGISTRY`. Nothing here imports torch; only a model of timm, which is
asked for by timm's own name, makes `find` ask timm. File sizes and hashes are those that are published
or were reported for the files; None where neither is known.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import replace

from napari_dinobloom.encoders.architecture import Architecture, Network
from napari_dinobloom.encoders.spec import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    EncoderSpec,
    Interpolation,
    Pooling,
    PositionRule,
    WeightSource,
    vit_spec,
)
from napari_dinobloom.errors import EncoderError

__all__ = [
    "REGISTRY",
    "EncoderSpec",
    "Interpolation",
    "Pooling",
    "PositionRule",
    "WeightSource",
    "find",
    "published_as",
    "spec_of",
    "vit_spec",
]

TIMM = "timm:"
"""Begins the name of a model of timm."""

SEEN_DIFFERENTLY = {"B/16": "ViT-B/16"}
"""Architectures, and their names for people, whose encoders prepare pictures in different ways."""

_ZENODO = "https://zenodo.org/records/10908163/files/DinoBloom-{0}.pth?download=1"
_HUGGING = "https://huggingface.co/{0}/resolve/main/{1}"
_META = "https://dl.fbaipublicfiles.com/dinov2/{0}/{0}_pretrain.pth"
_LONG = {"S": "small", "B": "base", "L": "large", "G": "giant"}

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

_DINOV2_FILES: dict[str, tuple[int, str]] = {
    # (bytes, sha256) as finegrain-ai/refiners pins them in its conversion of the same files
    "S": (88_283_115, "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9"),
    "B": (346_378_731, "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73"),
    "L": (1_217_586_395, "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428"),
    "G": (4_550_000_000, "baf8467e50af277596bbbafa06887c177ee899ab46033649c383577d7e9309d3"),
}


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
        sources=(WeightSource(_META.format(hub), f"{hub}_pretrain.pth", *_DINOV2_FILES[size]),),
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

PHIKON = vit_spec(
    "Phikon",
    "B/16",
    licence="Owkin non-commercial licence",
    terms="Phikon's weights are Owkin's and may be used for purposes that are not commercial only: "
    "https://github.com/owkin/HistoSSLscaling/blob/main/LICENSE.txt",
    sources=(
        WeightSource(_HUGGING.format("owkin/phikon", "pytorch_model.bin"), "phikon.pytorch_model.bin", 343_000_000),
    ),
    # TRIDENT (mahmoodlab) prepares pictures for it with ImageNet's mean and deviation and bilinearly, too.
    note="Filiot et al. 2023, medRxiv 2023.07.21.23292757: histology, ViT-Base by iBOT. A baseline of the paper.",
)


def _other(
    name: str, dim: int, pooling: Pooling, parameters: int, licence: str, source: WeightSource, terms: str, note: str
) -> EncoderSpec:
    """Build the entry of a network without patch tokens that sees 224 px as the paper's evaluation shows them."""
    return EncoderSpec(
        name=name,
        architecture=Network(name),
        dim=dim,
        patch_size=None,
        input_size=224,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        interpolation="bilinear",
        pooling=pooling,
        parameters=parameters,
        licence=licence,
        sources=(source,),
        terms=terms,
        note=note,
    )


# `ResNet50_Weights.DEFAULT`, which is IMAGENET1K_V2, resized to 224 x 224: eval/models/return_model.py of
# marrlab/DinoBloom, as is the cut after the third stage.
_TORCHVISION = WeightSource(
    "https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
    "resnet50-11ad3fa6.pth",
    102_540_000,
    sha256_prefix="11ad3fa6",
)
RESNET = _other(
    "ResNet-50",
    1000,
    "logits",
    25_557_032,
    "BSD-3-Clause",
    _TORCHVISION,
    "",
    "Trained on ImageNet: the paper's baseline, which takes the scores of the 1,000 classes.",
)
RESNET_STAGE3 = _other(
    "ResNet-50-stage3",
    1024,
    "mean",
    8_543_296,
    "BSD-3-Clause",
    _TORCHVISION,
    "",
    "The same network cut after its third stage and averaged over places, as histology often uses it.",
)
CTRANSPATH = _other(
    "CTransPath",
    768,
    "mean",
    27_520_038,
    "GPL-3.0",
    WeightSource(
        "https://github.com/Xiyue-Wang/TransPath",
        "ctranspath.pth",
        sha256="7c998680060c8743551a412583fac689db43cec07053b72dfec6dcd810113539",  # as KatherLab/STAMP checks it
        manual=True,
    ),
    # The README that states the second half is not among the copies we could read: the stricter reading stands.
    "CTransPath's weights are published under the GPL-3.0 for academic purposes that are not commercial: "
    "https://github.com/Xiyue-Wang/TransPath",
    "Wang et al. 2022, Medical Image Analysis: histology, a Swin-T on a convolutional stem. A baseline of the paper.",
)

REGISTRY: dict[str, EncoderSpec] = {
    spec.name: spec
    for spec in (
        STARTER,
        *(_dinobloom(size) for size in "SBLG"),
        *(_dinov2(size) for size in "SBLG"),
        RESNET,
        RESNET_STAGE3,
        PHIKON,
        CTRANSPATH,
        *(_reddino(size) for size in "SBL"),
    )
}
"""All named encoders, the bundled one first."""


def find(name: str) -> EncoderSpec:
    """Look an encoder up by name, capitals aside.

    Parameters
    ----------
    name : str
        A registry name, or that of a model of timm, such as "timm:vit_small_patch16_224.augreg_in21k" or
        "resnet18": "timm:" may be left out.

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
    if name.startswith(TIMM) or (re.fullmatch(r"[a-z][a-z0-9_.]*", name) and _timm_knows(name)):
        return _timm(name)
    near = difflib.get_close_matches(name.lower().replace("_", "-"), lower, n=1)
    hint = f" Did you mean {lower[near[0]]!r}?" if near else ""
    raise EncoderError(
        f"No encoder is called {name!r}.{hint} "
        f"Known names: {', '.join(REGISTRY)}; or give the path of a checkpoint, or a model of timm as 'timm:NAME'."
    )


def published_as(sha256: str) -> EncoderSpec | None:
    """Find the encoder of which a file is published with this hash; None where there is none."""
    return next((spec for spec in REGISTRY.values() for s in spec.sources if s.sha256 == sha256), None)


def spec_of(
    architecture: Architecture | Network,
    name: str,
    *,
    like: str | None = None,
    licence: str = "unknown",
    terms: str = "",
    sources: tuple[WeightSource, ...] = (),
    positions: PositionRule | None = None,
    note: str = "",
) -> EncoderSpec:
    """Build an entry for a file of one's own: pictures are prepared as for a known encoder.

    Parameters
    ----------
    architecture : Architecture or Network
        What `read_checkpoint` found in the file.
    name : str
        What the encoder shall be called.
    like : str, optional
        Name of the known encoder, of the registry or "timm:" and that of a model of timm; by default the one
        that the architecture belongs to, if all encoders of this architecture see pictures in the same way.
    licence, terms, sources, positions, note
        As in `EncoderSpec`.

    Returns
    -------
    EncoderSpec

    Raises
    ------
    EncoderError
        Without `like`, for an architecture whose encoders differ; or where `like` is unknown or of another one.
    """
    known = _seen_like(architecture, name, like)
    return replace(
        known, name=name, licence=licence, terms=terms, sources=sources, positions=positions, note=note, gated=False
    )


def _seen_like(architecture: Architecture | Network, name: str, like: str | None) -> EncoderSpec:
    """Give the encoder, or one without a file, as for which pictures are prepared."""
    if like is not None:
        known = find(like)
        if known.architecture != architecture:
            raise EncoderError(f"{name}: holds architecture {architecture.name}, {like} is {known.architecture.name}.")
        return known
    if architecture.name in SEEN_DIFFERENTLY:
        raise EncoderError(
            f"{name}: a {SEEN_DIFFERENTLY[architecture.name]}; encoders of this kind see pictures through different "
            "means and deviations. Say as whose: `napari-dinobloom weights import FILE --name NAME --like Phikon`, "
            "or --like timm:MODEL."
        )
    if isinstance(architecture, Architecture):
        return vit_spec(name, architecture.name, licence="")
    return find(architecture.name)


def _timm_knows(name: str) -> bool:
    """Whether timm has a model of this name; this imports timm, and torch with it."""
    from napari_dinobloom.encoders.networks.timm_model import is_known

    return is_known(name)


def _timm(name: str) -> EncoderSpec:
    """Look a model of timm up; this imports timm, and torch with it."""
    from napari_dinobloom.encoders.networks.timm_model import timm_spec

    return timm_spec(name.removeprefix(TIMM))
