"""How alike the patches of cells are to one of them, in the eyes of the encoder."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]


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
        Cosine of the angle between tokens, -1..1; 1 at the patch itself, 0 for a token of zeros.

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
    patch = tokens[place] / (np.linalg.norm(tokens[place]) or 1.0)
    length = np.sqrt(np.einsum("nhwd,nhwd->nhw", tokens, tokens))
    cosine: Float32 = np.divide(tokens @ patch, length, out=np.zeros_like(length), where=length > 0)
    return np.clip(cosine, -1, 1, out=cosine)
