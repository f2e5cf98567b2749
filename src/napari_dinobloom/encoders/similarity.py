"""How alike the patches of cells are to one of them, in the eyes of the encoder.

Tokens of one picture share much: what kind of cell it shows stands in all of them, in those of the background too. So a
token is compared by what sets it apart from the mean token of its own picture.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

ROUNDING = 1e-6
"""A token that differs from the mean of its picture by this share of the largest number, or less, is that mean."""


def patch_similarity(tokens: Float32, cell: int, row: int, column: int) -> Float32:
    """Compare one patch with all patches of all cells.

    Parameters
    ----------
    tokens : ndarray (n, h, w, D) float32
        What `Encoder.patch_tokens` gives. They are not copied.
    cell, row, column : int
        The patch: 0 <= cell < n, 0 <= row < h, 0 <= column < w.

    Returns
    -------
    ndarray (n, h, w) float32
        Cosine of the angle between tokens after the mean token of its picture was taken from each, -1..1; 1 at the
        patch itself, 0 for a token that equals the mean of its picture.

    Raises
    ------
    ValueError
        If the tokens are not of that shape or the patch is not among them.
    """
    tokens = np.asarray(tokens, np.float32)
    if tokens.ndim != 4:
        raise ValueError(f"Patch tokens must be (n, h, w, D); got shape {tokens.shape}.")
    place = (cell, row, column)
    if not all(0 <= index < size for index, size in zip(place, tokens.shape, strict=False)):
        raise ValueError(f"There is no patch (cell, row, column) = {place} in tokens of shape {tokens.shape}.")
    patch = _apart(tokens[cell])[row, column]
    length = float(np.linalg.norm(patch))
    found = np.zeros(tokens.shape[:3], np.float32)
    for number, x_HWD in enumerate(tokens):
        apart = _apart(x_HWD)
        lengths = np.sqrt(np.einsum("hwd,hwd->hw", apart, apart)) * length
        np.divide(apart @ patch, lengths, out=found[number], where=lengths > 0)
    return np.clip(found, -1, 1, out=found)


def _apart(x_HWD: Float32) -> Float32:
    """What sets the tokens of a picture apart from their mean; zeros where that is rounding."""
    apart: Float32 = x_HWD - x_HWD.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    apart[np.abs(apart).max(axis=2) <= ROUNDING * np.abs(x_HWD).max()] = 0
    return apart
