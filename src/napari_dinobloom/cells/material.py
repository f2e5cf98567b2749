"""White-cell material: a map of what is stained but is not a red cell, for every stain.

Red cells are known by where they lie: stained pixels too far from any nucleus to be cytoplasm teach their colour in
this very picture, whatever its tint.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells.stain import Stain

VERSION = 4

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]

FAR_UM = 4.5
"""Beyond this distance from a nucleus stained pixels are taken for red cells."""


@dataclass(frozen=True, slots=True)
class RedModel:
    """Colour of the red cells of one picture.

    Attributes
    ----------
    centre : numpy.ndarray
        (2,) float32 median of red over green and blue over green absorbance.
    precision : numpy.ndarray
        (2, 2) float32 inverse covariance of the two.
    densest : float
        Green absorbance that red cells, overlapping ones included, hardly exceed.
    """

    centre: Float
    precision: Float
    densest: float


@dataclass(frozen=True, slots=True)
class Material:
    """Maps of one picture at working resolution.

    Attributes
    ----------
    pale : numpy.ndarray
        (Y, X) float32 absorbance in which faint cytoplasm shows best.
    redness : numpy.ndarray
        (Y, X) float32, 0 to 1: how much a pixel looks like a red cell.
    level : float
        Level of `pale` above which a pixel is stained.
    """

    pale: Float
    redness: Float
    level: float

    def white(self) -> Bool:
        """(Y, X) bool: stained and not red-cell-like."""
        return np.asarray((self.pale > self.level) & (self.redness < 0.5))

    def solid(self, dark: Bool, pixel_um: float) -> Bool:
        """(Y, X) bool: `white` without the faint blur between cells, and with red-cell-like granules inside of them."""
        from scipy import ndimage as ndi

        white = self.white()
        weight = (white & ~dark).astype(np.float32)
        around = ndi.gaussian_filter(weight, 2.0 / pixel_um)
        usual = ndi.gaussian_filter(weight * self.pale, 2.0 / pixel_um) / np.maximum(around, 1e-4)
        strong = self.pale > 0.55 * usual
        solid = dark | (white & strong)
        steps = max(1, round(0.7 / pixel_um))
        enclosed = ndi.binary_fill_holes(ndi.binary_closing(np.pad(solid, steps), iterations=steps))
        return np.asarray(solid | (enclosed[steps:-steps, steps:-steps] & strong))


def find_material(density: Float, stain: Stain, dark: Bool, pixel_um: float) -> Material:
    """Part white-cell material from red cells and background.

    Parameters
    ----------
    density : numpy.ndarray
        (Y, X, 3) float32 absorbance at working resolution.
    stain : Stain
        Of this picture.
    dark : numpy.ndarray
        (Y, X) bool pixels of nuclei.
    pixel_um : float
        Micrometres per pixel.

    Returns
    -------
    Material
        The maps.
    """
    from scipy import ndimage as ndi

    smooth = ndi.gaussian_filter(density, (0.3 / pixel_um, 0.3 / pixel_um, 0))
    pale = np.maximum(smooth.mean(axis=-1), 0.5 * (smooth[..., 0] + smooth[..., 1]))
    level = max(0.035, 2.5 * stain.noise, 0.5 * stain.foreground)
    near = ndi.distance_transform_edt(~dark) * pixel_um < FAR_UM if dark.any() else dark
    model = find_red_cells(smooth[~near], 2.0 * level)
    redness = np.zeros_like(pale) if model is None else red_likeness(smooth, model)
    return Material(pale, redness, level)


def find_red_cells(far: Float, level: float) -> RedModel | None:
    """Colour of red cells.

    Parameters
    ----------
    far : numpy.ndarray
        (n, 3) float32 absorbance of pixels far from nuclei.
    level : float
        Green absorbance above which they count as stained.

    Returns
    -------
    RedModel or None
        None where too few pixels are stained.
    """
    far = far[far[:, 1] > level]
    if len(far) < 250:
        return None
    far = far[:: max(1, len(far) // 20_000)]
    chroma = far[:, [0, 2]] / far[:, 1:2]
    centre = np.median(chroma, axis=0)
    spread = np.maximum(1.48 * np.median(np.abs(chroma - centre), axis=0), 0.04)
    kept = chroma[(np.abs(chroma - centre) < 3 * spread).all(axis=1)]
    covariance = np.cov(kept.T) + np.diag([0.03**2, 0.03**2])
    densest = 1.25 * float(np.quantile(far[:, 1], 0.95))
    return RedModel(centre.astype(np.float32), np.linalg.inv(covariance).astype(np.float32), densest)


def red_likeness(smooth: Float, model: RedModel) -> Float:
    """How much each pixel looks like a red cell.

    Parameters
    ----------
    smooth : numpy.ndarray
        (Y, X, 3) float32 absorbance.
    model : RedModel
        Colour of red cells.

    Returns
    -------
    numpy.ndarray
        (Y, X) float32, 0 to 1; one half at a Mahalanobis distance of 2.4 from the red cells' colour.
    """
    green = np.maximum(smooth[..., 1], 0.04)
    first = smooth[..., 0] / green - model.centre[0]
    second = smooth[..., 2] / green - model.centre[1]
    (a, b), (_, c) = model.precision
    squared = a * first * first + 2 * b * first * second + c * second * second
    like = 1.0 / (1.0 + np.exp(np.clip((squared - 4.0) / 1.5, -30, 30)))
    like *= 1.0 / (1.0 + np.exp(np.clip((smooth[..., 1] - model.densest) / 0.05, -30, 30)))
    return np.asarray(like, np.float32)
