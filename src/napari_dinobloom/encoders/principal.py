"""Principal axes of more rows than fit into memory, in one pass and in float64."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

NEGLIGIBLE = 1e-12
"""Share of the largest variance below which an axis is rounding noise."""


def principal_axes(blocks: Iterable[Float64], count: int) -> tuple[Float64, Float64, Float64]:
    """Compute the mean and the first principal axes of rows that come in blocks.

    Sums are taken about the mean of the first block, so that no digits are lost to a mean far from zero.

    Parameters
    ----------
    blocks : iterable of ndarray (rows, D) float64
        Observations; blocks without rows are passed over. The same blocks give the same bits.
    count : int
        Number of axes; axes beyond D or without variance are zero.

    Returns
    -------
    mean : ndarray (D,) float64
    axes : ndarray (count, D) float64
        Orthonormal, by falling variance; the loading of largest size of each is positive, as in scikit-learn's
        ``svd_flip(u_based_decision=False)``.
    explained : ndarray (count,) float64
        Share of the variance along each axis.

    Raises
    ------
    ValueError
        Where there is no row, or one that is not finite.
    """
    rows, shift, total, scatter = 0, np.zeros(0), np.zeros(0), np.zeros((0, 0))
    for block in blocks:
        if not len(block):
            continue
        if not np.isfinite(block).all():
            raise ValueError("Patch tokens hold infinite or undefined numbers; compute them again.")
        if not rows:
            shift = block.mean(axis=0)
            total, scatter = np.zeros_like(shift), np.zeros((len(shift), len(shift)))
        moved = block - shift
        total += moved.sum(axis=0)
        scatter += moved.T @ moved
        rows += len(block)
    if not rows:
        raise ValueError("There is no patch to fit: give at least one cell with a patch that counts.")
    offset = total / rows
    scatter -= rows * np.outer(offset, offset)
    return shift + offset, *_leading(scatter, count)


def _leading(scatter: Float64, count: int) -> tuple[Float64, Float64]:
    """Axes and shares of variance of a scatter matrix (D, D), signs fixed."""
    values, vectors = np.linalg.eigh(scatter)
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count].T
    real = values > max(float(values[0]) * NEGLIGIBLE, 0.0)
    largest = np.abs(vectors).argmax(axis=1)
    signs = np.sign(vectors[np.arange(len(vectors)), largest])
    axes, explained = np.zeros((count, len(scatter))), np.zeros(count)
    axes[: len(real)][real] = (vectors * signs[:, None])[real]
    explained[: len(real)][real] = values[real] / np.trace(scatter)
    return axes, explained
