"""From a name or a file to a network with its weights in it, float32 on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_dinobloom.encoders.checkpoint import Checkpoint, read_checkpoint
from napari_dinobloom.encoders.ledger import Seen
from napari_dinobloom.encoders.library import Located, checked, locate, vouch
from napari_dinobloom.encoders.registry import EncoderSpec, PositionRule, published_as, spec_of
from napari_dinobloom.errors import EncoderError

if TYPE_CHECKING:
    from torch import Tensor

    from napari_dinobloom.encoders.networks.backbone import Backbone

FROM_FILE = "A file given by path."


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A network and what has to be known to use it.

    Attributes
    ----------
    spec : EncoderSpec
        What the encoder is and how pictures are prepared for it.
    sha256 : str
        Hexadecimal hash of the file of weights.
    backbone : Backbone
        The network, float32, on the CPU, for inference.
    mask_token : Tensor or None
        (1, D) where the checkpoint had one.
    positions : {"hub", "training", "timm"} or None
        Rule by which position embeddings were resampled; None where they fitted.
    """

    spec: EncoderSpec
    sha256: str
    backbone: Backbone
    mask_token: Tensor | None = None
    positions: PositionRule | None = None


def load_backbone(name: str | Path, positions: PositionRule | None = None) -> Loaded:
    """Find, check and read the weights of an encoder and put them into its network.

    Parameters
    ----------
    name, positions
        As for `encoder.load_encoder`.

    Returns
    -------
    Loaded

    Raises
    ------
    EncoderError
        As for `encoder.load_encoder`.
    """
    located = locate(name)
    checkpoint, seen = read_weights(located)
    spec = located.spec or _spec_of(checkpoint, seen.sha256)
    return _build(checkpoint, spec, seen.sha256, positions or spec.positions)


def read_weights(located: Located) -> tuple[Checkpoint, Seen]:
    """Check and read the file of an encoder; its hash is pinned once it was read, where none is published.

    Parameters
    ----------
    located : Located
        What `library.locate` found.

    Returns
    -------
    Checkpoint, Seen
        What the file holds, and its hash.

    Raises
    ------
    EncoderError
        As `library.checked` and `read_checkpoint`; the file holds another architecture than its encoder has, or was
        replaced while it was read.
    """
    seen = checked(located)
    checkpoint = read_as(located, located.path)
    vouch(located, seen)
    return checkpoint, seen


def read_as(located: Located, path: Path) -> Checkpoint:
    """Read `path` as the weights of the encoder that `located` stands for; EncoderError where it holds others."""
    spec = located.spec
    checkpoint = read_checkpoint(path, None if spec is None else spec.architecture)
    if spec is not None and checkpoint.architecture != spec.architecture:
        raise EncoderError(
            f"{path}: holds architecture {checkpoint.architecture.name}, but {spec.name} is {spec.architecture.name}."
        )
    return checkpoint


def _spec_of(checkpoint: Checkpoint, sha256: str) -> EncoderSpec:
    """Make the entry of a file given by path; a copy of a published file keeps the licence and terms of that."""
    twin, name = published_as(sha256), checkpoint.path.stem
    if twin is None:
        return spec_of(checkpoint.architecture, name, note=FROM_FILE)
    return spec_of(checkpoint.architecture, name, licence=twin.licence, terms=twin.terms, note=FROM_FILE)


def _build(checkpoint: Checkpoint, spec: EncoderSpec, sha256: str, rule: PositionRule | None) -> Loaded:
    """Make the network with the checkpoint's weights in it."""
    from napari_dinobloom.encoders.networks.make import empty
    from napari_dinobloom.encoders.positions import resample_positions

    state, used = dict(checkpoint.state), None
    if checkpoint.grid is not None and spec.grid is not None and checkpoint.grid != spec.grid:
        if rule is None:
            pixels = checkpoint.grid * (spec.patch_size or 1)
            raise EncoderError(
                f"{checkpoint.path}: its position embeddings are those of {pixels} px pictures, {spec.input_size} px "
                "are used here. Pass positions='hub' (as DINOv2 runs at another size), 'training' or 'timm'."
            )
        state["pos_embed"], used = resample_positions(state["pos_embed"], spec.grid, rule), rule
    backbone = empty(spec.architecture, spec.grid)
    backbone.stored.load_state_dict(state, strict=True, assign=True)
    backbone.requires_grad_(False)
    return Loaded(spec, sha256, backbone, checkpoint.mask_token, used)
