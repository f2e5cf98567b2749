"""From a name or a file to a network with its weights in it, float32 on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_dinobloom.encoders.checkpoint import Checkpoint, read_checkpoint
from napari_dinobloom.encoders.library import checked_hash, locate
from napari_dinobloom.encoders.registry import EncoderSpec, PositionRule, spec_of
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
    sha256 = checked_hash(located)
    checkpoint = read_checkpoint(located.path, None if located.spec is None else located.spec.architecture)
    spec = located.spec or spec_of(checkpoint.architecture, located.path.stem, note=FROM_FILE)
    if checkpoint.architecture != spec.architecture:
        raise EncoderError(
            f"{checkpoint.path}: holds architecture {checkpoint.architecture.name}, but {spec.name} is "
            f"{spec.architecture.name}."
        )
    return _build(checkpoint, spec, sha256, positions or spec.positions)


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
