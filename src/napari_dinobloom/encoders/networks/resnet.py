"""ResNet-50 (He et al. 2016), as torchvision builds it: whole, or cut after its third stage."""

from __future__ import annotations

from torch import Tensor
from torchvision.models import resnet50

from napari_dinobloom.encoders.networks.backbone import Backbone

STAGE4 = ("layer4", "fc")
"""What is left out of the network that ends with its third stage."""


class ResNet50(Backbone):
    """A ResNet-50 that gives the scores of its 1,000 classes, or the mean of its third stage's 1,024 channels.

    Parameters
    ----------
    stages : {4, 3}
        With 3, the last stage and the classifier are left out.
    """

    def __init__(self, stages: int = 4) -> None:
        super().__init__()
        self.stages = stages
        self.dim = 1000 if stages == 4 else 1024
        self.grid = None
        for name, module in resnet50(weights=None).named_children():
            if stages == 4 or name not in STAGE4:
                self.add_module(name, module)

    def ignores(self, key: str) -> bool:
        """Whether the key belongs to what is left out."""
        return self.stages == 3 and key.split(".")[0] in STAGE4

    def pooled(self, x_BCYX: Tensor) -> Tensor:
        """Compute the embedding, (B, 1000) or (B, 1024)."""
        x_BCYX = self._run("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", x=x_BCYX)
        if self.stages == 3:
            return self._run("avgpool", x=x_BCYX).flatten(1)
        return self._run("fc", x=self._run("layer4", "avgpool", x=x_BCYX).flatten(1))

    def _run(self, *names: str, x: Tensor) -> Tensor:
        for name in names:
            x = self.get_submodule(name)(x)
        return x
