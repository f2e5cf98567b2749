"""The stain of one picture: what red cells and nuclei look like in it, and the map that tells nuclei apart.

Romanowsky stains (Wright, Giemsa, May-Gruenwald, rapid kits) dye nuclei purple (they absorb green and red light) and
red cells pink to grey (green and blue light). Which purple and which pink differs between laboratories and cameras, so
both are estimated from each picture: a colour is a direction in absorbance space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells.background import Background, absorbance, find_background, thinned

VERSION = 3

Float = NDArray[np.float32]

_SAMPLES = 40_000
_ENOUGH_PX = 512


@dataclass(frozen=True, slots=True)
class Stain:
    """Colours and levels of one picture in absorbance.

    Attributes
    ----------
    foreground : float
        Mean absorbance above which a pixel is stained at all.
    noise : float
        Spread (robust standard deviation) of the mean absorbance of background.
    weight : float
        Weight of blue in the nuclear map ``red + green - weight * blue``, chosen so that red cells lie near zero.
    floor : float
        Level of the nuclear map above red cells and background: what lies higher is white-cell material.
    top : float
        Level that nuclei reach in this picture; NaN where nothing is dyed so.
    """

    foreground: float
    noise: float
    weight: float
    floor: float
    top: float


def nuclear_map(density: Float, weight: float) -> Float:
    """Map that is high in nuclei and low in red cells and background.

    Parameters
    ----------
    density : numpy.ndarray
        (..., 3) float32 absorbance.
    weight : float
        Weight of blue.

    Returns
    -------
    numpy.ndarray
        (...) float32.
    """
    result: Float = density[..., 0] + density[..., 1] - np.float32(weight) * density[..., 2]
    return result


def otsu(values: Float, *, bins: int = 128) -> float:
    """Otsu's threshold (IEEE Trans. SMC 9, 1979) of a flat sample; its level where all values are equal."""
    low, high = (float(v) for v in np.quantile(values, [0.001, 0.999]))
    if high <= low:
        return low
    counts, edges = np.histogram(values, bins=bins, range=(low, high))
    centre = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    total = np.cumsum(counts * centre)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    between[~np.isfinite(between)] = 0
    best = np.flatnonzero(between >= between.max() * (1 - 1e-6))
    return float(edges[1:][best].mean())


def estimate_stain(density: Float) -> Stain:
    """Estimate the stain of one picture.

    Parameters
    ----------
    density : numpy.ndarray
        (Y, X, 3) float32 absorbance; a regular lattice of it is looked at.

    Returns
    -------
    Stain
        Colours and levels.
    """
    step = max(1, int(np.sqrt(density.shape[0] * density.shape[1] / _SAMPLES)))
    sample = density[::step, ::step].reshape(-1, 3)
    mean = sample.mean(axis=1)
    noise = _background_noise(mean)
    foreground = float(np.clip(0.6 * otsu(np.clip(mean, 0, 0.6)), max(0.04, 3 * noise), 0.25))
    stained = sample[mean > foreground]
    if len(stained) < 30:
        return Stain(foreground, noise, 1.0, np.inf, np.nan)
    red = _red_colour(stained)
    weight = 1.0
    if np.isfinite(red).all():
        weight = float(np.clip((red[0] + red[1]) / max(float(red[2]), 0.02), 0.6, 1.6))
    floor, top = _nuclear_levels(stained, red, weight)
    return Stain(foreground, noise, weight, floor, top)


def stain_of(image: Any, light: Background) -> Stain:
    """Colours of a picture, (Y, X, 3) uint8, NumPy or lazy, from enough of it."""
    thin = thinned(image)
    step = max(1, max(thin.shape[:2]) // _ENOUGH_PX)
    return estimate_stain(absorbance(thin[::step, ::step], light))


def light_and_stain(image: Any) -> tuple[Background, Stain]:
    """Light and colours of a picture, (Y, X, 3) uint8, NumPy or lazy."""
    light = find_background(thinned(image))
    return light, stain_of(image, light)


def _background_noise(mean: Float) -> float:
    """Spread of the background's absorbance, from its brighter half, which no stain widens."""
    below = -mean[mean < 0]
    return 1.48 * float(np.median(below)) if len(below) > 20 else 0.01


def _red_colour(stained: Float) -> Float:
    """Median absorbance of red cells; NaN where few pixels look like them.

    They absorb less red light than nuclei do, and relative to green more blue.
    """
    green = np.maximum(stained[:, 1], 0.02)
    darkness = stained[:, 0] + stained[:, 1]
    dark = stained[darkness >= np.quantile(darkness, 0.98)]
    dark_ratio = float(np.median(dark[:, 2] / np.maximum(dark[:, 1], 0.02)))
    pale = darkness < 0.6 * float(np.median(dark[:, 0] + dark[:, 1]))
    usual = darkness < 2.0 * float(np.median(darkness))
    haem = (stained[:, 2] / green > min(dark_ratio + 0.12, 0.45)) & (stained[:, 0] < 1.3 * green)
    reds = stained[(pale | usual) & haem]
    if len(reds) < 0.08 * len(stained):
        return np.full(3, np.nan, np.float32)
    return np.median(reds, axis=0).astype(np.float32)


def _nuclear_levels(stained: Float, red: Float, weight: float) -> tuple[float, float]:
    """Floor above all red cells, and the level that nuclei reach."""
    values = nuclear_map(stained, weight)
    floor = 0.2
    if np.isfinite(red).all():
        centre = float(red[0] + red[1] - weight * red[2])
        below = values[values < centre]
        spread = 1.48 * float(np.median(centre - below)) if len(below) > 10 else 0.05
        floor = float(np.clip(centre + 3.0 * spread, floor, 0.6))
    high = values[values > floor]
    if len(high) < 12:
        return floor, np.nan
    return floor, float(np.quantile(high, 0.95))
