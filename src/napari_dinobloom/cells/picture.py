"""What a picture is before cells are sought in it: its pixels as 8-bit RGB, its light, its scale, and what is odd.

A picture in which no stained white cell can be seen is no error: it has no cells, and a note says why and which setting
helps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells import background
from napari_dinobloom.cells import scale as scales
from napari_dinobloom.cells.region import Region
from napari_dinobloom.cells.scale import Scale
from napari_dinobloom.errors import ImageError
from napari_dinobloom.io.pixels import GREY, MIN_SIDE, on_white, to_uint8

VERSION = 2

WHERE = "the picture"
"""How messages call a picture that has no file name."""

DARK_SHARE = 0.7
"""A picture of which more is nearly black was not taken in bright field; the rim that an eyepiece leaves has less."""

COARSEST_UM = 1.5
"""Pixels larger than this leave a nucleus 5 pixels across, which is too few to find it by."""

COARSE_UM = 0.5
"""Pixels larger than this (objectives of 10x and 20x) leave too little of a nucleus to tell its class."""

COLOURLESS = 0.06
"""Difference between channels, in absorbance, that the most colourful hundredth of a stained picture exceeds."""

ENOUGH_PX = 400
"""Pixels a side that are looked at to tell whether a picture can be used."""

ALIKE = 0.2
"""Correlation of neighbouring pixels below which a picture is noise."""

STAINED = 0.1
"""Mean absorbance that the densest hundredth of a picture with cells exceeds."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a first look at a picture tells.

    Attributes
    ----------
    light : Background
        Its background.
    scale : Scale
        Micrometres per pixel.
    usable : bool
        Whether stained cells can be sought in it.
    notes : tuple of str
        What is odd, and what helps.
    """

    light: background.Background
    scale: Scale
    usable: bool
    notes: tuple[str, ...]


def as_picture(image: Any) -> Any:
    """Give a picture as (Y, X, 3) uint8; lazy ones that already are so stay lazy.

    Parameters
    ----------
    image : array
        (Y, X, 3) or (Y, X, 4), uint8, unsigned integers or floating point in 0 to 1, NumPy or lazy.

    Returns
    -------
    array
        (Y, X, 3) uint8.

    Raises
    ------
    ImageError
        If it has no colour channels, fewer than 8 pixels a side, or values without a rule for colours.
    """
    shape, kind = getattr(image, "shape", None), getattr(image, "dtype", None)
    if shape is None or kind is None:
        raise ImageError(f"{WHERE}: expected an array (Y, X, 3), got {type(image).__name__}; read_smear gives one.")
    if len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 2)):
        raise ImageError(f"{WHERE} {tuple(shape)}: {GREY}")
    if len(shape) != 3 or shape[2] not in (3, 4):
        raise ImageError(f"{WHERE}: expected (Y, X, 3) pixels of red, green, blue, got {tuple(shape)} {kind}.")
    if min(shape[:2]) < MIN_SIDE:
        raise ImageError(f"{WHERE}: is {shape[1]} x {shape[0]} pixels; a cell needs {MIN_SIDE} x {MIN_SIDE} or more.")
    if np.dtype(kind) == np.uint8 and shape[2] == 3:
        return image
    pixels = to_uint8(np.asarray(image), WHERE)
    return on_white(pixels) if shape[2] == 4 else pixels


def look_over(image: Any, pixel_size_um: float | None, region: Region | None = None) -> Look:
    """Find light and scale of a picture, and whether stained cells can be sought in it.

    Parameters
    ----------
    image : array
        (Y, X, 3) uint8, NumPy or lazy.
    pixel_size_um : float or None
        Scale where it is known.
    region : Region, optional
        Where cells are sought: only its sample is looked at, and its light taken for even.

    Returns
    -------
    Look
        With notes where something is odd; not usable where the region is empty.
    """
    if region is not None:
        if not region.sample.size:
            nothing = background.Background(np.full(3, 255, np.float32), np.zeros((6, 3), np.float32))
            return Look(nothing, Scale(pixel_size_um or scales.ASSUMED_UM, "user"), False, ())
        seen = look_over(region.sample, pixel_size_um)
        return replace(seen, light=replace(seen.light, surface=np.zeros((6, 3), np.float32)))
    thin = background.thinned(image)
    light = background.find_background(thin)
    known = None if pixel_size_um is None else Scale(float(pixel_size_um), "user")
    problem = _unusable(thin, light)
    if problem:
        return Look(light, known or Scale(scales.ASSUMED_UM, "assumed"), False, (problem,))
    scale = known or scales.estimate_scale(image, light)
    size = scale.pixel_size_um
    told = "as given" if known else f"estimated from {scale.source}"
    if size > COARSEST_UM:
        note = (
            f"{WHERE} has {size:.3g} um per pixel ({told}): a nucleus has fewer than 6 pixels, so no cells were "
            "sought. If that is not so, give the right pixel size; else take pictures with 20x or more."
        )
        return Look(light, scale, False, (note,))
    notes = []
    if size > COARSE_UM:
        notes.append(
            f"{WHERE} has {size:.3g} um per pixel ({told}): a nucleus has about {8 / size:.0f} pixels across, too few "
            "to tell classes apart. Give the pixel size if that is not so; else take pictures with 40x or more."
        )
    if scale.source == "assumed":
        notes.append(
            f"the scale of {WHERE} could not be estimated and {size} um per pixel was assumed: no red cell and no "
            "nucleus was measured. Give the pixel size."
        )
    return Look(light, scale, True, tuple(notes))


def _unusable(thin: NDArray[np.uint8], light: background.Background) -> str:
    """Say why no stained cell can be seen in a picture; empty where one could."""
    step = max(1, max(thin.shape[:2]) // ENOUGH_PX)
    some = thin[::step, ::step]
    dark = float((some.max(axis=-1) < background.DARKEST).mean())
    if light.colour.max() < background.DARKEST or dark > DARK_SHARE:
        return (
            f"{WHERE} is dark where nothing lies ({dark:.0%} of it is nearly black): no cells were sought. Stained "
            "smears are seen in bright field; for fluorescence bring labels from another program (segmenter=FILE)."
        )
    green = thin[::step, :, 1].astype(np.float32)  # whole rows: their neighbours, all over the picture
    green -= green.mean()
    if float((green[:, 1:] * green[:, :-1]).mean()) < ALIKE * float((green**2).mean()):
        return f"{WHERE} shows nothing but noise: neighbouring pixels have nothing in common, so no cells were sought."
    density = background.absorbance(some, light).reshape(-1, 3)
    if float(np.quantile(density.mean(axis=1), 0.995)) < STAINED:
        return f"{WHERE} is empty: nothing in it is darker than its background, so it has no cells."
    colour = float(np.quantile(density.max(axis=1) - density.min(axis=1), 0.99))
    if colour < COLOURLESS:
        return (
            f"{WHERE} has no colour (greyscale, phase contrast or unstained): white cells are told by their stain, so "
            "no cells were sought. Give a colour picture of a stained smear, or bring labels (segmenter=FILE)."
        )
    return ""
