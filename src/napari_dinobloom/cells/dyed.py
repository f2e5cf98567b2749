"""The nucleus of a cell whose outline is known: its part that takes the nuclear stain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells.background import Background, absorbance, find_background, thinned
from napari_dinobloom.cells.scale import Scale
from napari_dinobloom.cells.stain import Stain, nuclear_map, otsu, stain_of
from napari_dinobloom.io.masks import Bitmap, FieldMasks

VERSION = 2

BLUR_UM = 0.3
"""Smoothing before the level is taken."""

SMALLEST_UM2 = 4.0
"""Less dye than this in a cell is a platelet on it, or granules."""

Masks = TypeVar("Masks", bound=FieldMasks)


def with_nuclei(image: Any, masks: Masks, scale: Scale, light: Background | None = None) -> Masks:
    """Find the nuclei of those cells that have none.

    Within each cell the nuclear map is parted by Otsu's threshold, kept between the level of red cells and that of the
    picture's nuclei; holes are filled and crumbs dropped.

    Parameters
    ----------
    image : array
        (Y, X, 3) uint8, numpy or lazy.
    masks : FieldMasks
        Cells; nuclei that are there are kept.
    scale : Scale
        Of the picture.
    light : Background, optional
        Of the picture, where it is known already.

    Returns
    -------
    FieldMasks
        The same cells with nuclei; empty where nothing is dyed.
    """
    if all(nucleus.any() for nucleus in masks.nuclei):
        return masks
    light = find_background(thinned(image)) if light is None else light
    colours = stain_of(image, light)
    nuclei = [
        nucleus if nucleus.any() else _nucleus(image, box, cell, light, colours, scale.pixel_size_um)
        for box, cell, nucleus in zip(masks.boxes.tolist(), masks.cells, masks.nuclei, strict=True)
    ]
    return replace(masks, nuclei=nuclei)


def _nucleus(
    image: Any, box: list[int], cell: Bitmap, light: Background, colours: Stain, pixel_um: float
) -> NDArray[np.bool_]:
    """Nucleus of one cell."""
    from scipy import ndimage as ndi

    y0, x0, y1, x1 = box
    height, width = image.shape[:2]
    part = (y0 / height, x0 / width, y1 / height, x1 / width)
    density = absorbance(np.asarray(image[y0:y1, x0:x1]), light, part)
    score = ndi.gaussian_filter(nuclear_map(density, colours.weight), BLUR_UM / pixel_um)
    if not np.isfinite(colours.top):
        return np.zeros_like(cell)
    level = np.clip(otsu(score[cell]), colours.floor, max(colours.floor, 0.75 * colours.top))
    found = ndi.binary_fill_holes((score > level) & cell) & cell
    labels, count = ndi.label(found)
    large = np.bincount(labels.ravel(), minlength=count + 1) * pixel_um**2 >= SMALLEST_UM2
    large[0] = False
    return np.asarray(large[labels])
