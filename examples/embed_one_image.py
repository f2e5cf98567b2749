"""Find, crop and embed the white cells of one image, and look at what the encoder sees inside them.

    python examples/embed_one_image.py IMAGE [PICTURE.png]

The picture shows each cell beside its patch tokens: the first three principal components as red, green and blue.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import napari_dinobloom as nd


def main(image: Path, picture: Path) -> np.ndarray:
    """Return the embeddings of all cells of `image`, (n, D) float32; draw up to eight cells into `picture`."""
    smear = nd.read_smear(image)
    pixels = smear.image.compute()
    cells = nd.segment(pixels, smear.pixel_size_um)
    crops = nd.crop(pixels, cells)
    encoder = nd.load_encoder("starter")
    embeddings = encoder.embed(crops)
    print(f"{len(crops)} cells at {cells.scale.pixel_size_um:.3f} um per pixel ({cells.scale.source})")
    print(f"embeddings {embeddings.shape} by {encoder.name}, {encoder.sha256[:8]}")
    if len(crops):
        inside = nd.patch_pca(encoder.patch_tokens(crops[:8]))
        colours = (inside * 255).round().astype(np.uint8).repeat(14, axis=1).repeat(14, axis=2)
        rows = [np.hstack([crop, colour]) for crop, colour in zip(crops[:8], colours, strict=True)]
        Image.fromarray(np.vstack(rows)).save(picture)
    return embeddings


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "inside.png"))
