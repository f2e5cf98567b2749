"""What all ways to compute share: the kinds of result, and how pictures are prepared for a network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from napari_dinobloom.encoders.spec import EncoderSpec

Output = Literal["pooled", "class+mean", "tokens"]
"""The network's own embedding (B, D); class token and mean patch token (B, 2 D); all tokens (B, 1 + patches, D)."""

Pictures = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]


class Compute(Protocol):
    """A network on its device."""

    @property
    def block(self) -> int:
        """Pictures that it likes to be given at a time."""
        ...

    def stream(self, blocks: Iterable[Pictures], output: Output) -> Iterator[Float32]:
        """Compute blocks of pictures (n, Y, X, 3) in their order; closing the generator stops the work."""
        ...

    def release(self) -> None:
        """Give back what only a running job needs; called when one ends."""
        ...

    def close(self) -> None:
        """Give all memory back; nothing can be computed afterwards."""
        ...


class Preparation:
    """Brings uint8 pictures to the encoder's input size, mean and deviation, on the device where they are.

    Parameters
    ----------
    spec : EncoderSpec
        Says input size, interpolation (antialiased), mean and deviation.
    device : torch.device
        Where pictures will be.
    dtype : torch.dtype
        Number type of the result; sums are in float32.
    """

    def __init__(self, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> None:
        import torch

        self._side, self._interpolation, self._dtype = spec.input_size, spec.interpolation, dtype
        # Made once: a CUDA graph may not copy them from the CPU while it is recorded.
        self._mean, self._std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (spec.mean, spec.std))

    def __call__(self, pictures_BYXC: Tensor) -> Tensor:
        """Prepare (B, Y, X, 3) uint8 to (B, 3, size, size)."""
        import torch.nn.functional as F

        size = (self._side, self._side)
        x_BCYX = pictures_BYXC.permute(0, 3, 1, 2).float().div(255)
        if x_BCYX.shape[-2:] != size:
            x_BCYX = F.interpolate(x_BCYX, size=size, mode=self._interpolation, antialias=True, align_corners=False)
            x_BCYX = x_BCYX.clamp(0, 1)
        return x_BCYX.sub(self._mean).div(self._std).to(self._dtype)


def reduce(tokens_BND: Tensor, output: Output) -> Tensor:
    """Take from all tokens what was asked for: all of them, or the class token beside the mean patch token."""
    import torch

    if output == "tokens":
        return tokens_BND
    return torch.cat([tokens_BND[:, 0], tokens_BND[:, 1:].mean(dim=1)], dim=-1)
