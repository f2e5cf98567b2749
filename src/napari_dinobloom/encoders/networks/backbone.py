"""What every network that embeds offers: all tokens of a picture, or its embedding alone."""

from __future__ import annotations

from torch import Tensor, nn


class Backbone(nn.Module):
    """Base of the networks; a subclass sets the attributes and defines both methods as far as it can.

    Attributes
    ----------
    dim : int
        Length D of the embedding.
    grid : int or None
        Patches per side; None for a network without patch tokens.
    """

    dim: int
    grid: int | None

    @property
    def stored(self) -> nn.Module:
        """The module whose key names are those of the file of weights: this one, or one inside."""
        return self

    def ignores(self, key: str) -> bool:
        """Whether the file of weights may hold this key, though the network has no use for it."""
        return False

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Compute all tokens after the final norm, (B, 1 + grid * grid, D), class token first, patches row by row."""
        raise NotImplementedError

    def pooled(self, x_BCYX: Tensor) -> Tensor:
        """Compute the embedding alone, (B, D); may leave out what only other tokens need."""
        raise NotImplementedError
