"""Sizes of the vision transformers that the project knows, the tensors of each, and names for other networks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Architecture:
    """Everything about a vision transformer that its forward pass depends on, beside the weights.

    Attributes
    ----------
    name : str
        "tiny", "S", "B", "L", "G" or "B/16".
    dim : int
        Length D of a token and of the embedding.
    depth : int
        Number of transformer blocks.
    heads : int
        Attention heads per block; each is ``dim / heads`` wide.
    hidden : int
        Width inside the feed-forward part. With SwiGLU the first layer is twice as wide.
    swiglu : bool
        Gated feed-forward (``silu(a) * b``) in place of GELU.
    layer_scale : bool
        Whether each block's two branches are multiplied by a learned vector.
    patch_size : int
        Side of a patch in pixels.
    """

    name: str
    dim: int
    depth: int
    heads: int
    hidden: int
    swiglu: bool = False
    layer_scale: bool = True
    patch_size: int = 14

    def shapes(self, grid: int = 16) -> dict[str, Shape]:
        """Give key names (as timm spells them) and shapes of the weights for a `grid` x `grid` patch layout."""
        dim = self.dim
        shapes: dict[str, Shape] = {
            "cls_token": (1, 1, dim),
            "pos_embed": (1, grid * grid + 1, dim),
            "patch_embed.proj.weight": (dim, 3, self.patch_size, self.patch_size),
            "patch_embed.proj.bias": (dim,),
            "norm.weight": (dim,),
            "norm.bias": (dim,),
        }
        for block in range(self.depth):
            shapes |= {f"blocks.{block}.{key}": shape for key, shape in self._block_shapes().items()}
        return shapes

    def _block_shapes(self) -> dict[str, Shape]:
        dim, first = self.dim, self.hidden * (2 if self.swiglu else 1)
        shapes: dict[str, Shape] = {
            "norm1.weight": (dim,),
            "norm1.bias": (dim,),
            "attn.qkv.weight": (3 * dim, dim),
            "attn.qkv.bias": (3 * dim,),
            "attn.proj.weight": (dim, dim),
            "attn.proj.bias": (dim,),
            "norm2.weight": (dim,),
            "norm2.bias": (dim,),
            "mlp.fc1.weight": (first, dim),
            "mlp.fc1.bias": (first,),
            "mlp.fc2.weight": (dim, self.hidden),
            "mlp.fc2.bias": (dim,),
        }
        if self.layer_scale:
            shapes |= {"ls1.gamma": (dim,), "ls2.gamma": (dim,)}
        return shapes

    def parameters(self, grid: int = 16) -> int:
        """Count the weights of `shapes`."""
        total = 0
        for shape in self.shapes(grid).values():
            count = 1
            for side in shape:
                count *= side
            total += count
        return total


@dataclass(frozen=True, slots=True)
class Network:
    """A network that is known by its name alone: its module in `encoders.networks` says which tensors it has.

    Attributes
    ----------
    name : str
        "ResNet-50", "ResNet-50-stage3", "CTransPath", or "timm:" and the name of a model of timm.
    """

    name: str


ARCHITECTURES: dict[str, Architecture] = {
    "tiny": Architecture("tiny", 192, 12, 3, 768, layer_scale=False),
    "S": Architecture("S", 384, 12, 6, 1536),
    "B": Architecture("B", 768, 12, 12, 3072),
    "L": Architecture("L", 1024, 24, 16, 4096),
    "G": Architecture("G", 1536, 40, 24, 4096, swiglu=True),
    "B/16": Architecture("B/16", 768, 12, 12, 3072, layer_scale=False, patch_size=16),
}
"""By name. S, B, L and G are those of DINOv2 and DinoBloom (Oquab et al. 2023, Koch et al. 2024), B/16 is the
ViT-Base of iBOT and Phikon. All normalise with LayerNorm's epsilon 1e-6, Phikon since its authors mended its
config.json (huggingface.co/owkin/phikon, discussion 1)."""


def infer(shapes: Mapping[str, Shape]) -> Architecture | None:
    """Find the architecture that a checkpoint's dimension, depth, feed-forward width and patch size belong to.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Shapes by key name, spelled as timm does.

    Returns
    -------
    Architecture or None
        None where no known architecture has these sizes; `describe` then says what was found.
    """
    dim, depth, hidden, patch = _sizes(shapes)
    first = (shapes.get("blocks.0.mlp.fc1.weight") or (0,))[0]
    for known in ARCHITECTURES.values():
        wide = known.hidden * (2 if known.swiglu else 1)
        if (dim, depth, first, hidden, patch) == (known.dim, known.depth, wide, known.hidden, known.patch_size):
            return known
    return None


def misshapen(shapes: Mapping[str, Shape]) -> list[str]:
    """List the tensors of a vision transformer that have another number of axes than any of its tensors' name has."""
    known = ARCHITECTURES["S"].shapes() | ARCHITECTURES["G"].shapes()
    axes = {key: len(shape) for key, shape in known.items()}
    found = []
    for key, shape in shapes.items():
        wanted = axes.get(re.sub(r"^blocks\.\d+\.", "blocks.0.", key), len(shape))
        if len(shape) != wanted:
            found.append(f"{key} with {len(shape)} axes in place of {wanted}")
    return found


def describe(shapes: Mapping[str, Shape]) -> str:
    """Say in words which sizes a checkpoint has, for an error message."""
    dim, depth, hidden, patch = _sizes(shapes)
    return f"dimension {dim}, {depth} blocks, feed-forward width {hidden}, patches of {patch} px"


def _sizes(shapes: Mapping[str, Shape]) -> tuple[int, int, int, int]:
    """Dimension, blocks, feed-forward width and patch size; 0 for what is not there."""
    keys = ("cls_token", "blocks.0.mlp.fc2.weight", "patch_embed.proj.weight")
    dim, hidden, patch = ((shapes.get(key) or (0,))[-1] for key in keys)
    return dim, len({key.split(".")[1] for key in shapes if key.startswith("blocks.")}), hidden, patch
