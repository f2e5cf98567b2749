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

    def close(self) -> None:
        """Give all memory back; nothing can be computed afterwards."""
        ...


def prepare(pictures_BYXC: Tensor, spec: EncoderSpec, dtype: torch.dtype) -> Tensor:
    """Bring uint8 pictures to the encoder's input size, mean and deviation, on the device where they are.

    Parameters
    ----------
    pictures_BYXC : Tensor
        (B, Y, X, 3) uint8.
    spec : EncoderSpec
        Says input size, interpolation (antialiased), mean and deviation.
    dtype : torch.dtype
        Number type wanted; sums are in float32.

    Returns
    -------
    Tensor
        (B, 3, size, size).
    """
    import torch
    import torch.nn.functional as F

    side = spec.input_size
    x_BCYX = pictures_BYXC.permute(0, 3, 1, 2).float().div(255)
    if x_BCYX.shape[-2:] != (side, side):
        x_BCYX = F.interpolate(
            x_BCYX, size=(side, side), mode=spec.interpolation, antialias=True, align_corners=False
        ).clamp(0, 1)
    mean, std = (torch.tensor(values, device=x_BCYX.device).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    return x_BCYX.sub(mean).div(std).to(dtype)


def reduce(tokens_BND: Tensor, output: Output) -> Tensor:
    """Take from all tokens what was asked for: all of them, or the class token beside the mean patch token."""
    import torch

    if output == "tokens":
        return tokens_BND
    return torch.cat([tokens_BND[:, 0], tokens_BND[:, 1:].mean(dim=1)], dim=-1)
