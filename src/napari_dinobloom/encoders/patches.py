"""Colours for patch tokens: a joint PCA over all given cells, three components to red, green, blue."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

CHUNK = 1 << 15
"""Tokens per step of the covariance; bounds the float64 copy to 0.4 GB for 1,536 dimensions."""


def patch_pca(
    tokens: npt.NDArray[np.float32],
    *,
    foreground: npt.NDArray[np.bool_] | None = None,
    percentiles: tuple[float, float] = (1.0, 99.0),
) -> npt.NDArray[np.float32]:
    """Show patch tokens as colours that mean the same in all given cells.

    One PCA is computed over the tokens of all cells together; the first three components become
    red, green and blue, each scaled between two percentiles over all cells. The sign of a component,
    which a PCA leaves open, is such that its loading of largest size is positive (the rule of
    scikit-learn's ``PCA``), so that a rerun gives the same colours.

    Parameters
    ----------
    tokens : ndarray (n, h, w, D) float32
        What `Encoder.patch_tokens` gives.
    foreground : ndarray (n, h, w) bool, optional
        Patches that count. The PCA and the scaling are those of the foreground, everything else is
        black, as in Fig. 3 of Koch et al. 2024 (arXiv 2404.05022). All patches count without it.
    percentiles : (float, float), default: (1, 99)
        Values of a component that become 0 and 1; what lies beyond is clipped.

    Returns
    -------
    ndarray (n, h, w, 3) float32
        Colours in 0..1. A component without any spread is 0.5 everywhere.

    Raises
    ------
    ValueError
        Where the arrays do not fit each other, tokens are not finite, or percentiles do not increase.
    """
    tokens, mask = _checked(tokens, foreground, percentiles)
    out = np.zeros((*tokens.shape[:3], 3), np.float32)
    if not mask.any():
        return out
    rows = tokens[mask]
    if not np.isfinite(rows).all():
        raise ValueError("Patch tokens hold infinite or undefined numbers; compute them again.")
    mean, axes = principal_axes(rows, 3)
    scores = np.concatenate(
        [(rows[i : i + CHUNK].astype(np.float64) - mean) @ axes.T for i in range(0, len(rows), CHUNK)]
    )
    out[mask] = _stretched(scores, percentiles).astype(np.float32)
    return out


def principal_axes(rows: npt.NDArray[np.float32], count: int) -> tuple[Float64, Float64]:
    """Compute the mean and the first principal axes of rows, in float64.

    Parameters
    ----------
    rows : ndarray (n, D) float32
        Observations.
    count : int
        Number of axes; axes beyond D or without variance are zero.

    Returns
    -------
    mean : ndarray (D,) float64
    axes : ndarray (count, D) float64
        Orthonormal, by falling variance; the loading of largest size of each is positive.
    """
    dim = rows.shape[1]
    parts = [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]
    mean = np.sum([part.sum(0, dtype=np.float64) for part in parts], axis=0) / len(rows)
    scatter = np.zeros((dim, dim))
    for part in parts:
        centred = part.astype(np.float64) - mean
        scatter += centred.T @ centred
    values, vectors = np.linalg.eigh(scatter)
    axes = np.zeros((count, dim))
    usable = min(count, dim)
    axes[:usable] = vectors[:, ::-1].T[:usable]
    axes[:usable][values[::-1][:usable] <= values[-1] * 1e-12] = 0
    largest = np.abs(axes).argmax(1)
    axes *= np.where(axes[np.arange(count), largest] < 0, -1.0, 1.0)[:, None]
    return mean, axes


def _checked(
    tokens: npt.NDArray[np.float32], foreground: npt.NDArray[np.bool_] | None, percentiles: tuple[float, float]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Bring both arrays to their types, or raise ValueError."""
    tokens = np.asarray(tokens, np.float32)
    if tokens.ndim != 4:
        raise ValueError(f"Patch tokens must be (n, h, w, D); got shape {tokens.shape}.")
    mask = np.ones(tokens.shape[:3], bool) if foreground is None else np.asarray(foreground, bool)
    if mask.shape != tokens.shape[:3]:
        raise ValueError(f"foreground has shape {mask.shape}, the tokens need {tokens.shape[:3]}.")
    low, high = percentiles
    if not 0 <= low < high <= 100:
        raise ValueError(f"percentiles={percentiles}: give two increasing numbers in 0..100.")
    return tokens, mask


def _stretched(scores: Float64, percentiles: tuple[float, float]) -> Float64:
    """Scale each column between its percentiles to 0..1; a column without spread becomes 0.5."""
    low, high = np.percentile(scores, percentiles, axis=0)
    spread = high - low
    flat = spread <= 1e-9 * max(float(np.abs(scores).max()), 1e-30)
    stretched: Float64 = np.clip((scores - low) / np.where(flat, 1.0, spread), 0, 1)
    stretched[:, flat] = 0.5
    return stretched
