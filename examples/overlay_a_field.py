"""Show what the encoder sees inside every white cell of a field, each at its place, and what resembles one nucleus.

    python examples/overlay_a_field.py IMAGE [OVERLAY.png] [BASIS.safetensors]

The basis keeps the colours: give it again with another image, and the same colour means the same there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import napari_dinobloom as nd
from napari_dinobloom.cells.crop import find_windows
from napari_dinobloom.encoders.overlay import iter_tiles, paint


def main(image: Path, picture: Path, basis_file: Path) -> np.ndarray:
    """Paint the overlay of `image` into `picture`; return its colours as (Y, X, 4) uint8."""
    smear = nd.read_smear(image)
    pixels = smear.load()
    cells = nd.segment(pixels, smear.pixel_size_um)
    policy = nd.CropPolicy()
    encoder = nd.load_encoder("starter")
    tokens = encoder.patch_tokens(nd.crop(pixels, cells, policy=policy))
    if basis_file.exists():
        basis = nd.PatchBasis.load(basis_file)
    else:
        basis = nd.PatchBasis.fit(tokens, encoder=encoder, foreground="centre")
        basis.save(basis_file)
    # Every patch gets its colour: on the field the outlines of the cells say what is background.
    colours = basis.apply(tokens, encoder=encoder, foreground=np.ones(tokens.shape[:3], bool))
    windows = find_windows(cells.table, policy)
    tiles = iter_tiles(colours, windows, pixels.shape[:2], masks=cells.masks, opacity=0.6, interpolation="bilinear")
    overlay = paint(tiles, np.zeros((*pixels.shape[:2], 4), np.uint8))
    Image.alpha_composite(Image.fromarray(pixels).convert("RGBA"), Image.fromarray(overlay)).save(picture)
    if len(tokens):
        alike = nd.patch_similarity(tokens, cell=0, row=8, column=8)
        alike[0, 8, 8] = -1  # a patch is most like itself
        cell, row, column = np.unravel_index(alike.argmax(), alike.shape)
        print(f"The middle of cell 1 of {len(tokens)} is most like patch ({row}, {column}) of cell {cell + 1}: "
              f"cosine {alike.max():.2f}")  # fmt: skip
    return overlay


if __name__ == "__main__":
    given = [Path(word) for word in sys.argv[1:]]
    main(*given, *(Path("overlay.png"), Path("basis.safetensors"))[len(given) - 1 :])
