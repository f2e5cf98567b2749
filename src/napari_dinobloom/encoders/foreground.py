"""Which patches show the cell: a direction among the tokens, and Otsu's threshold along it.

Two rules give the direction. ``otsu`` is that of the DinoBloom authors' notebook: the first principal component of all
patches. It presumes that cell against background is what patches differ in most, which not every encoder grants: in the
bundled one whole pictures differ more. ``centre`` asks for no more than that the cell lies in the middle of its crop:
it takes the direction that tells the middle from the corners best, as Fisher's discriminant does, so that directions
in which pictures differ among themselves count less (see docs/patches.md for what both find).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt

from napari_dinobloom.encoders.principal import principal_axes

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Rule = Literal["otsu", "centre"]

MIDDLE, CORNERS = 0.1, 0.2
"""Shares of the patches, the nearest to and the farthest from the centre, that ``centre`` compares."""

ROUND = 0.9
"""How far the scatter within both parts is made round, 0 to 1: with few cells it is known badly. Of 0.05 to 0.9 the
best on PBC's training pictures, with the masks of our segmentation, for both editions of the bundled encoder."""


def find_foreground(cells: Iterable[Float32], rule: Rule) -> tuple[Float64, float]:
    """Find the direction and the threshold that part foreground and background in all cells together.

    Parameters
    ----------
    cells : iterable of ndarray (h, w, D) float32
        Patch tokens of one cell after the other, all of one shape; gone through twice.
    rule : {"otsu", "centre"}
        What gives the direction. Its sign, which a PCA leaves open, is such that the patches beyond the threshold lie
        nearer to the centre of their crops, on average, than the others do.

    Returns
    -------
    axis : ndarray (D,) float64
    threshold : float
        A patch is foreground where its token's product with `axis` exceeds it (Otsu 1979, on all patches). Zeros and
        -1, which make every patch foreground, where all tokens are equal.

    Raises
    ------
    ValueError
        Where there is no cell, or tokens are not finite.
    """
    if rule == "otsu":
        axis = principal_axes((_rows(x_HWD) for x_HWD in cells), 1)[1][0]
    else:
        axis = _centre_axis(cells)
    scores: list[Float64] = []
    shape: tuple[int, ...] = ()
    for x_HWD in cells:
        shape = x_HWD.shape
        scores.append(_rows(x_HWD) @ axis)
    if not axis.any():
        return axis, -1.0
    score = np.stack(scores)
    threshold = otsu_threshold(score)
    far = np.broadcast_to(_distances(shape).ravel(), score.shape)
    beyond = score > threshold
    if far[beyond].mean() > far[~beyond].mean():
        axis, threshold = -axis, -threshold
    return axis, threshold


def otsu_threshold(values: Float64) -> float:
    """Part values in two so that the variance between the parts is largest (Otsu 1979), exactly: without a histogram.

    Bins would put values of one part on the other side where the two lie far apart, and would not be symmetric in sign.

    Parameters
    ----------
    values : ndarray of float64
        At least two.

    Returns
    -------
    float
        The middle between the largest value of the lower part and the smallest of the upper.
    """
    ordered = np.sort(values, axis=None)
    ordered -= (shift := float(ordered.mean()))
    below = np.arange(1, len(ordered))
    total = np.cumsum(ordered)[:-1]  # of the upper part it is the negative, as all add up to nothing
    cut = int(np.argmax(total**2 / (below * (len(ordered) - below))))
    return shift + float(ordered[cut] + ordered[cut + 1]) / 2


def _rows(x_HWD: Float32) -> Float64:
    """Tokens of a cell, one a row."""
    return x_HWD.reshape(-1, x_HWD.shape[-1]).astype(np.float64)


def _distances(shape: tuple[int, ...]) -> Float64:
    """Distance of each patch (h, w) from the centre of the crop, in half sides."""
    y, x = ((np.arange(side) + 0.5) / side * 2 - 1 for side in shape[:2])
    return np.hypot(y[:, None], x[None, :])


def _centre_axis(cells: Iterable[Float32]) -> Float64:
    """Direction (D,) that tells the middle of all crops from their corners, by Fisher's discriminant.

    It is S^-1 (m - c), with the mean tokens m and c of both parts and S the mean of their covariances, which is made
    rounder by `ROUND` (Fisher 1936, doi:10.1111/j.1469-1809.1936.tb02137.x; Friedman 1989,
    doi:10.1080/01621459.1989.10478752).
    """
    parts: list[_Moments] = []
    for x_HWD in cells:
        rows, far = _rows(x_HWD), _distances(x_HWD.shape).ravel()
        parts = parts or [_Moments(rows.mean(axis=0)) for _ in range(2)]
        parts[0].take(rows[far <= np.quantile(far, MIDDLE)])
        parts[1].take(rows[far >= np.quantile(far, 1 - CORNERS)])
    if not parts:
        raise ValueError("There is no patch to fit: give at least one cell.")
    middle, corners = parts
    apart = middle.mean - corners.mean
    if not np.isfinite(apart).all():
        raise ValueError("Patch tokens hold infinite or undefined numbers; compute them again.")
    scatter = (middle.covariance + corners.covariance) / 2
    size = float(np.trace(scatter)) / len(scatter)
    if not size > 0:
        return apart
    return np.asarray(np.linalg.solve((1 - ROUND) / size * scatter + ROUND * np.eye(len(scatter)), apart))


class _Moments:
    """Mean and covariance of rows that come in parts; sums are taken from a point among them, so that none is lost."""

    def __init__(self, origin: Float64) -> None:
        self.origin = origin
        self.count = 0
        self.sum, self.products = np.zeros(len(origin)), np.zeros((len(origin), len(origin)))

    def take(self, rows: Float64) -> None:
        """Add rows (n, D)."""
        moved = rows - self.origin
        self.count += len(rows)
        self.sum += moved.sum(axis=0)
        self.products += moved.T @ moved

    @property
    def mean(self) -> Float64:
        """(D,)."""
        found: Float64 = self.origin + self.sum / self.count
        return found

    @property
    def covariance(self) -> Float64:
        """(D, D)."""
        found: Float64 = self.products / self.count - np.outer(self.sum, self.sum) / self.count**2
        return found
