"""Stain normalisation: crops of a slide recoloured as if the laboratory of the reference had stained them.

What is known of a slide is a `SlideStain`: numbers estimated from many of its crops together, never from one crop,
because a crop's colours depend on which cell it shows. Two methods move crops from one such stain to another:

``reinhard``: mean and standard deviation of the stained pixels in CIE Lab (Reinhard et al. 2001,
doi:10.1109/38.946629, there in l-alpha-beta).
``macenko``: the two stain vectors that span the slide's absorbance, and the 99th percentile of how much of each there
is (Macenko et al. 2009, doi:10.1109/ISBI.2009.5193250).

Both work on absorbance against the slide's own background, so exposure and white balance go with the stain, and what
is not stained takes the colour of the reference's background.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells.background import DARKEST, find_background

VERSION = 1
"""Raised when the same crops would be recoloured otherwise."""

METHODS = ("reinhard", "macenko")
Method = Literal["reinhard", "macenko"]

SAMPLE = 128
"""Crops of a slide that are looked at, spread evenly over it."""

STAINED = 0.15
"""Absorbance (base e, mean of the channels) from which a pixel counts as stained; Macenko's beta in all but base."""

_STEP = 4
_ENOUGH_PX = 500
_TAIL = 1.0
"""Percent of the angles cut off on either side when the stain vectors are found, as Macenko et al."""

Image = NDArray[np.uint8]
Float = NDArray[np.float32]
Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class SlideStain:
    """Colours of one slide.

    Attributes
    ----------
    light : tuple of 3 float
        Background red, green, blue, 0 to 255.
    mean, spread : tuple of 3 float
        Mean and standard deviation of the stained pixels in CIE Lab, after the background was made white.
    vectors : tuple of 2 tuples of 3 float
        Directions of the two stains in absorbance, unit length; first the one that takes less blue light (nuclei).
    top : tuple of 2 float
        99th percentile of the amount of each stain, absorbance.
    """

    light: Triple
    mean: Triple
    spread: Triple
    vectors: tuple[Triple, Triple]
    top: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SlideStain:
        """The stain that `to_dict` wrote."""
        first, second = (_triple(v) for v in values["vectors"])
        top = values["top"]
        return cls(
            light=_triple(values["light"]),
            mean=_triple(values["mean"]),
            spread=_triple(values["spread"]),
            vectors=(first, second),
            top=(float(top[0]), float(top[1])),
        )


@lru_cache(maxsize=1)
def reference() -> SlideStain:
    """The stain of the reference cells that come with the package (PBC; `benchmarks/stain_reference.py` made it)."""
    text = (resources.files("napari_dinobloom") / "weights" / "stain_reference.json").read_text(encoding="utf-8")
    return SlideStain.from_dict(json.loads(text)["stain"])


def sample_rows(n: int) -> NDArray[np.intp]:
    """Rows of at most `SAMPLE` of a slide's `n` crops, spread evenly, the same every time."""
    return np.unique(np.linspace(0, max(n - 1, 0), min(n, SAMPLE)).round().astype(np.intp))


def estimate(crops: Image) -> SlideStain | None:
    """Estimate the stain of a slide.

    Parameters
    ----------
    crops : (n, Y, X, 3) array of uint8
        Crops of one slide, of cells of all kinds; every fourth pixel of `sample_rows` of them is looked at.

    Returns
    -------
    SlideStain or None
        None where there is too little to go by: blank, dark or colourless pictures.

    Raises
    ------
    ValueError
        If the array has another shape or type.
    """
    _check(crops)
    if not len(crops):
        return None
    thin = crops[sample_rows(len(crops)), _STEP // 2 :: _STEP, _STEP // 2 :: _STEP]
    light = find_background(np.ascontiguousarray(thin.reshape(-1, thin.shape[2], 3))).colour
    if light.max() < DARKEST:
        return None
    density = _absorbance(thin, _triple(light)).reshape(-1, 3)
    stained = density[density.mean(axis=1) > STAINED]
    found = _stain_vectors(stained) if len(stained) >= _ENOUGH_PX else None
    if found is None:
        return None
    vectors, amounts = found
    top = np.quantile(amounts, 0.99, axis=0)
    lab = _lab(stained)
    spread = lab.std(axis=0, dtype=np.float64)
    if top.min() < 0.02 or spread.min() < 0.1:
        return None
    first, second = (_triple(v) for v in vectors)
    mean = _triple(lab.mean(axis=0, dtype=np.float64))
    return SlideStain(_triple(light), mean, _triple(spread), (first, second), (float(top[0]), float(top[1])))


def transfer(crops: Image, method: Method, found: SlideStain | None, wanted: SlideStain | None = None) -> Image:
    """Recolour crops of one slide.

    Parameters
    ----------
    crops : (n, Y, X, 3) array of uint8
        Crops of one slide; each is recoloured alike, whatever stands beside it.
    method : {"reinhard", "macenko"}
        How.
    found : SlideStain or None
        The slide's stain, see `estimate`; None leaves the crops as they are.
    wanted : SlideStain, optional
        The stain they shall have; by default `reference`.

    Returns
    -------
    (n, Y, X, 3) array of uint8

    Raises
    ------
    ValueError
        If the method is not known, or the array has another shape or type.
    """
    _check(crops)
    if method not in METHODS:
        raise ValueError(f"The stain normalisation {method!r} is not known; use {' or '.join(METHODS)}.")
    if found is None:
        return crops
    goal = reference() if wanted is None else wanted
    move = _macenko if method == "macenko" else _reinhard
    out = np.empty_like(crops)
    for row, crop in enumerate(crops):
        density = move(_absorbance(crop, found.light), found, goal)
        lit = np.exp(-density) * (np.asarray(goal.light, np.float32) + 1) - 1
        out[row] = np.clip(np.rint(lit), 0, 255).astype(np.uint8)
    return out


def _macenko(density: Float, found: SlideStain, goal: SlideStain) -> Float:
    """Absorbance with the goal's stain vectors and amounts; what lies off the slide's two stains stays off."""
    own, new = (np.asarray(s.vectors, np.float64) for s in (found, goal))
    factor = np.asarray(goal.top) / np.asarray(found.top)
    inverse = np.linalg.pinv(own)  # (3, 2): absorbance to amounts
    change = inverse @ (factor[:, None] * new) + (np.eye(3) - inverse @ own)
    result: Float = density @ change.astype(np.float32)
    return result


def _reinhard(density: Float, found: SlideStain, goal: SlideStain) -> Float:
    """Absorbance with the goal's mean and spread in CIE Lab; the less a pixel is stained, the less it is moved."""
    from skimage.color import lab2rgb

    mean, spread = np.asarray(found.mean, np.float32), np.asarray(found.spread, np.float32)
    factor = np.asarray(goal.spread, np.float32) / spread
    moved = (_lab(density) - mean) * factor + np.asarray(goal.mean, np.float32)
    moved[..., 0] = np.clip(moved[..., 0], 0, 100)
    colour = np.clip(np.asarray(lab2rgb(moved), np.float32), 0, 1)
    weight = np.clip(density.mean(axis=-1, keepdims=True) / np.float32(STAINED), 0, 1)
    result: Float = weight * -np.log((colour * 255 + 1) / 256) + (1 - weight) * density
    return result


def _stain_vectors(stained: Float) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Two unit vectors (2, 3) and the amount of each in every pixel (n, 2); None where there is but one colour."""
    rows = stained.astype(np.float64)
    values, axes = np.linalg.eigh(rows.T @ rows / len(rows))
    if not values[1] > 1e-5 * values[2]:
        return None
    plane = axes[:, :0:-1]  # the two strongest, (3, 2)
    plane = plane * np.where(plane.sum(axis=0) < 0, -1, 1)
    flat = rows @ plane
    angle = np.arctan2(flat[:, 1], flat[:, 0])
    low, high = np.percentile(angle, [_TAIL, 100 - _TAIL])
    if high - low < 0.02:
        return None
    vectors = np.stack([plane @ [np.cos(a), np.sin(a)] for a in (low, high)])
    vectors = vectors[np.argsort(vectors[:, 2], kind="stable")]
    return vectors, rows @ np.linalg.pinv(vectors)


def _absorbance(image: Image, light: Triple) -> Float:
    """Absorbance (base e, float32) against `light`, at least 0."""
    levels = np.arange(256, dtype=np.float32)[:, None] + 1
    table = np.maximum(-np.log(levels / (np.asarray(light, np.float32) + 1)), 0).astype(np.float32)
    return np.stack([table[image[..., channel], channel] for channel in range(3)], axis=-1)


def _lab(density: Float) -> Float:
    """CIE Lab of absorbance before a white light, float32."""
    from skimage.color import rgb2lab

    return np.asarray(rgb2lab(np.clip((np.exp(-density) * 256 - 1) / 255, 0, 1).astype(np.float32)), np.float32)


def _check(crops: Any) -> None:
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[3] != 3:
        raise ValueError(f"Crops are {crops.dtype} of shape {crops.shape}; uint8 of shape (n, Y, X, 3) is needed.")


def _triple(values: Any) -> Triple:
    """Three numbers as plain floats, rounded to what matters."""
    a, b, c = (round(float(v), 5) for v in values)
    return a, b, c
