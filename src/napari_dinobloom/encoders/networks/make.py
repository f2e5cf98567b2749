"""Make the network that an architecture names, without its weights."""

from __future__ import annotations

import torch

from napari_dinobloom.encoders.architecture import Architecture, Network
from napari_dinobloom.encoders.networks.backbone import Backbone


def empty(architecture: Architecture | Network, grid: int | None = None) -> Backbone:
    """Make a network whose weights take no memory until a state dict is assigned to it.

    Parameters
    ----------
    architecture : Architecture or Network
        What to make.
    grid : int, optional
        Patches per side of a vision transformer of ours.

    Returns
    -------
    Backbone
        With parameters on torch's meta device wherever the network allows it, for inference.
    """
    with torch.device("meta"):
        network = _make(architecture, grid)
    stored = network.state_dict()
    if any(value.is_meta for key, value in network.named_buffers() if key not in stored):
        network = _make(architecture, grid)  # some models of timm keep numbers that no file holds
    return network.requires_grad_(False).eval()


def _make(architecture: Architecture | Network, grid: int | None) -> Backbone:
    # Each kind imports only its own libraries: torchvision and timm take seconds.
    if isinstance(architecture, Architecture):
        from napari_dinobloom.encoders.networks.vit import VisionTransformer

        return VisionTransformer(architecture, 16 if grid is None else grid)
    if architecture.name.startswith("timm:"):
        from napari_dinobloom.encoders.networks.timm_model import TimmModel

        return TimmModel(architecture.name.removeprefix("timm:"))
    if architecture.name == "CTransPath":
        from napari_dinobloom.encoders.networks.ctranspath import CTransPath

        return CTransPath()
    from napari_dinobloom.encoders.networks.resnet import ResNet50

    return ResNet50(stages=3 if architecture.name == "ResNet-50-stage3" else 4)
