"""White balance from the smear's own background: from pixel values to absorbance.

Owns what "no stain here" looks like in a picture: one background colour, and where the light varies slowly over the
field a quadratic surface per channel. Everything after it works on absorbance (optical density, natural logarithm),
in which the camera's white balance and exposure have gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSION = 2

Image = NDArray[np.uint8]
Float = NDArray[np.float32]

DARKEST = 40.0
"""Brightness (0..255) that the background of a bright-field picture reaches at least."""

_SAMPLES = 40_000
_SMALLEST_SPREAD = 0.8
"""Share of a 4 x 4 grid in which background must be seen before a surface is fitted to it."""


@dataclass(frozen=True, slots=True)
class Background:
    """The light behind the cells.

    Attributes
    ----------
    colour : numpy.ndarray
        (3,) float32, typical background red, green, blue in 0..255.
    surface : numpy.ndarray
        (6, 3) float32 coefficients of ``log(background / colour)`` in 1, y, x, y y, x y, x x with y, x in -1..1;
        zeros where the light is even.
    """

    colour: Float
    surface: Float


def thinned(image: Any) -> Image:
    """Take enough of a picture to see its light: every n-th pixel, of a large one 64 windows spread over it.

    Parameters
    ----------
    image : array
        (Y, X, 3) uint8, NumPy or lazy.

    Returns
    -------
    numpy.ndarray
        (y, x, 3) uint8, at most 2048 pixels a side.
    """
    height, width = image.shape[:2]
    if height * width <= 16_000_000:
        step = max(1, max(height, width) // 2048)
        return np.asarray(image[::step, ::step])
    sides = [min(256, n // 8) for n in (height, width)]
    ys, xs = (np.linspace(0, n - side, 8).astype(int) for n, side in zip((height, width), sides, strict=True))
    return np.concatenate(
        [np.concatenate([np.asarray(image[y : y + sides[0], x : x + sides[1]]) for x in xs], axis=1) for y in ys]
    )


def find_background(image: Image) -> Background:
    """Estimate background colour and slow illumination changes of one picture.

    Background is the brightest well-populated mode of the green channel (red cells and nuclei both absorb green),
    read off among pixels in flat surroundings.

    Parameters
    ----------
    image : numpy.ndarray
        (Y, X, 3) uint8.

    Returns
    -------
    Background
        Colour and quadratic surface, which is zero unless background is seen in enough parts of the picture.
    """
    sample, where = _sample(image)
    level = _bright_mode(sample[:, 1])
    spread = 12.0
    near = np.abs(sample[:, 1] - level) <= spread
    if near.sum() < 20:
        near = sample[:, 1] >= np.quantile(sample[:, 1], 0.9)
    colour = np.maximum(np.median(sample[near], axis=0), 8.0).astype(np.float32)
    return Background(colour, _fit_surface(sample, where, colour))


def absorbance(
    image: Image, background: Background, part: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
) -> Float:
    """Absorbance of every pixel against its background.

    Parameters
    ----------
    image : numpy.ndarray
        (Y, X, 3) uint8.
    background : Background
        Of the picture.
    part : tuple of float
        Where `image` lies in the picture: top, left, bottom, right as shares of its height and width.

    Returns
    -------
    numpy.ndarray
        (Y, X, 3) float32, natural logarithm; 0 is background, negative is brighter than background. All 0 where the
        picture has no bright background: what absorbs light can only be seen before light.
    """
    if background.colour.max() < DARKEST:
        return np.zeros(image.shape, np.float32)
    table = -np.log((np.arange(256, dtype=np.float32)[:, None] + 2.0) / (background.colour + 2.0))
    density = np.empty(image.shape, np.float32)
    for channel in range(3):
        density[..., channel] = table[image[..., channel], channel]
    if background.surface.any():
        top, left, bottom, right = part
        y = np.linspace(2 * top - 1, 2 * bottom - 1, image.shape[0], dtype=np.float32)[:, None]
        x = np.linspace(2 * left - 1, 2 * right - 1, image.shape[1], dtype=np.float32)[None, :]
        for channel in range(3):
            c = background.surface[:, channel]
            density[..., channel] += (c[0] + c[1] * y + c[3] * y * y) + (c[2] * x + c[5] * x * x) + c[4] * (y * x)
    return density


def _sample(image: Image) -> tuple[Float, Float]:
    """Give (n, 3) values on a regular lattice and their (n, 2) places in -1..1."""
    height, width = image.shape[:2]
    step = max(1, int(np.sqrt(height * width / _SAMPLES)))
    values = image[step // 2 :: step, step // 2 :: step].astype(np.float32)
    y = np.linspace(-1, 1, values.shape[0], dtype=np.float32)
    x = np.linspace(-1, 1, values.shape[1], dtype=np.float32)
    where = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)
    return values.reshape(-1, 3), where.reshape(-1, 2)


def _bright_mode(green: Float) -> float:
    """Level of the brightest mode of `green` that holds a fair share of the pixels."""
    counts = np.bincount(green.astype(np.int64), minlength=256).astype(np.float64)
    kernel = np.exp(-0.5 * (np.arange(-9, 10) / 3.0) ** 2)
    smooth = np.convolve(counts, kernel / kernel.sum(), mode="same")
    smooth[255] = max(smooth[255], counts[254:].sum() / 3)
    left = np.concatenate([[-1.0], smooth[:-1]])
    right = np.concatenate([smooth[1:], [-1.0]])
    peaks = np.flatnonzero((smooth >= left) & (smooth > right))
    tall = peaks[smooth[peaks] >= 0.15 * smooth.max()]
    return float(tall[-1])


def _fit_surface(sample: Float, where: Float, colour: Float) -> Float:
    """Fit the slow change of light to background pixels, re-selecting them twice."""
    y, x = where[:, 0], where[:, 1]
    terms = np.stack([np.ones_like(y), y, x, y * y, x * y, x * x], axis=1)
    ratio = np.log((sample + 2.0) / (colour + 2.0))
    surface = np.zeros((6, 3), np.float32)
    width = 0.10
    for _ in range(3):
        rest = ratio - terms @ surface
        chosen = (np.abs(rest) < width).all(axis=1)
        if not _widespread(where[chosen]):
            return np.zeros((6, 3), np.float32)
        gram = terms[chosen].T @ terms[chosen] + 1e-3 * len(y) * np.diag([0, 0, 0, 1, 1, 1])
        surface = np.linalg.solve(gram, terms[chosen].T @ ratio[chosen]).astype(np.float32)
        width = 0.08
    return surface


def _widespread(where: Float) -> bool:
    """Tell whether enough of 16 parts of the picture show background."""
    if len(where) < 200:
        return False
    part = np.clip(((where + 1) * 2).astype(np.int64), 0, 3)
    seen = np.bincount(part[:, 0] * 4 + part[:, 1], minlength=16)
    return bool((seen > 0.004 * len(where)).mean() >= _SMALLEST_SPREAD)
