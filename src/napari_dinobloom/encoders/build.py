"""From a name or a file to a network with its weights in it, float32 on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_dinobloom.encoders.checkpoint import Checkpoint, read_checkpoint
from napari_dinobloom.encoders.library import locate
from napari_dinobloom.encoders.registry import EncoderSpec, PositionRule, vit_spec
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
    positions : {"hub", "training"} or None
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
    path, spec, source = located.path, located.spec, located.source
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
    return _build(checkpoint, spec, positions or spec.positions)


def _build(checkpoint: Checkpoint, spec: EncoderSpec, rule: PositionRule | None) -> Loaded:
    """Make the network with the checkpoint's weights in it."""
    import torch

    from napari_dinobloom.encoders.networks.vit import VisionTransformer
    from napari_dinobloom.encoders.positions import resample_positions

    state = dict(checkpoint.state)
    fits = checkpoint.grid == spec.grid
    if not fits:
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
    model.requires_grad_(False).eval()
    return Loaded(spec, checkpoint.sha256, model, checkpoint.mask_token, None if fits else rule)
