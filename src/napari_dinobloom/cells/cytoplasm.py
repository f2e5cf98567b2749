"""Whole cells: nuclei grown over their cytoplasm, with red cells, background and neighbours kept out.

Each cell is the best star-shaped region around its nucleus: along 64 rays the evidence for cytoplasm is summed
outwards, and dynamic programming picks the closed outline with the highest sum whose radius changes little from ray to
ray. Red cells that touch are left out by their colour, and where colour fails by the smoothness of the outline.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells.material import Material

VERSION = 4

Float = NDArray[np.float32]
Labels = NDArray[np.int32]

RAYS = 64
STEP_UM = 0.16
BEND = 2
"""Largest change of the radius from one ray to the next, in steps."""


@dataclass(frozen=True, slots=True)
class Outlines:
    """Star-shaped outlines of cells.

    Attributes
    ----------
    centres : numpy.ndarray
        (n, 2) float32 y, x in pixels of the working picture.
    radii : numpy.ndarray
        (n, 64) float32 pixels, at angles 0, 1/64, ... of a turn from the x axis towards y.
    """

    centres: Float
    radii: Float


def grow_cells(material: Material, nuclei: Labels, pixel_um: float, reach_um: float) -> Outlines:
    """Grow each nucleus to its whole cell.

    The first outline tells how strongly the cell's own cytoplasm is stained; the second ends where the stain has
    fallen to half of that.

    Parameters
    ----------
    material : Material
        Maps of the picture at working resolution.
    nuclei : numpy.ndarray
        (Y, X) int32, numbers 1 to n.
    pixel_um : float
        Micrometres per pixel.
    reach_um : float
        Farthest from the nucleus that cytoplasm is sought.

    Returns
    -------
    Outlines
        One per nucleus, in the order of the numbers.
    """
    count = int(nuclei.max(initial=0))
    if not count:
        return Outlines(np.empty((0, 2), np.float32), np.empty((0, RAYS), np.float32))
    centres, span = _centres(nuclei, count)
    rays = _sample_rays(material, nuclei, centres, span * pixel_um + reach_um, pixel_um)
    level = np.full(count, material.level, np.float32)
    for _ in range(2):
        best = _close_outline(_total_gain(rays, level, reach_um))
        inside = np.arange(rays.pale.shape[2]) <= best[..., None]
        cytoplasm = inside & (rays.distance > 0.3) & (rays.redness < 0.5)
        for row in range(count):
            values = rays.pale[row][cytoplasm[row]]
            if len(values) > 20:
                level[row] = max(material.level, 0.5 * float(np.median(values)))
    return Outlines(centres, ((best + 1) * (STEP_UM / pixel_um)).astype(np.float32))


@dataclass(frozen=True, slots=True)
class _Rays:
    """Maps sampled along the rays of every cell, each (n, rays, radii) float32."""

    pale: Float
    redness: Float
    distance: Float
    foreign: NDArray[np.bool_]


def _sample_rays(material: Material, nuclei: Labels, centres: Float, length_um: float, pixel_um: float) -> _Rays:
    """Read the maps along the rays; outside the picture `pale` is NaN."""
    from scipy import ndimage as ndi

    distance = ndi.distance_transform_edt(nuclei == 0)
    zone = _zones(material.white() | (nuclei > 0), nuclei)
    angle = np.arange(RAYS) * (2 * np.pi / RAYS)
    radius = (np.arange(int(np.ceil(length_um / STEP_UM))) + 0.5) * (STEP_UM / pixel_um)
    y = centres[:, 0, None, None] + np.sin(angle)[None, :, None] * radius
    x = centres[:, 1, None, None] + np.cos(angle)[None, :, None] * radius
    rows = np.clip(np.rint(y), 0, nuclei.shape[0] - 1).astype(np.int64)
    columns = np.clip(np.rint(x), 0, nuclei.shape[1] - 1).astype(np.int64)
    pale = ndi.map_coordinates(material.pale, (y, x), order=1, mode="constant", cval=np.nan)
    owner = zone[rows, columns]
    foreign = owner != np.arange(1, len(centres) + 1)[:, None, None]
    far = (distance * pixel_um).astype(np.float32)[rows, columns]
    return _Rays(pale.astype(np.float32), material.redness[rows, columns], far, foreign)


def _zones(white: NDArray[np.bool_], nuclei: Labels) -> Labels:
    """Part the picture between the nuclei, along the necks of the white-cell material."""
    from scipy import ndimage as ndi
    from skimage.segmentation import watershed

    if nuclei.max() < 2:
        return np.full_like(nuclei, nuclei.max())
    depth = ndi.distance_transform_edt(white)
    return np.asarray(watershed(-depth, nuclei), np.int32)


def _total_gain(rays: _Rays, level: Float, reach_um: float) -> Float:
    """Evidence for the cell from its centre to every point of every ray, weighted by area."""
    half = level[:, None, None]
    stained = 1.0 / (1.0 + np.exp(np.clip((half - rays.pale) / (0.2 * half), -30, 30)))
    gain = 2.0 * stained * (1.0 - rays.redness) - 1.0
    gain[rays.distance > reach_um] = -1.0
    gain[rays.distance == 0] = 4.0
    gain[rays.foreign] = -1.5
    gain[np.isnan(rays.pale)] = 0.0
    radius = (np.arange(gain.shape[2], dtype=np.float32) + 0.5) * STEP_UM
    return np.cumsum(gain * radius, axis=2, dtype=np.float32)


def _centres(nuclei: Labels, count: int) -> tuple[Float, float]:
    """Centres of the nuclei's convex hulls, which lie inside of bent ones too, and the longest half diagonal."""
    from scipy import ndimage as ndi
    from skimage.morphology import convex_hull_image

    centres, span = np.zeros((count, 2), np.float32), 1.0
    for number, box in enumerate(ndi.find_objects(nuclei), start=1):
        if box is not None:
            hull = convex_hull_image(nuclei[box] == number)
            centre = np.argwhere(hull).mean(axis=0) if hull.any() else np.zeros(2)
            centres[number - 1] = centre + np.array([box[0].start, box[1].start])
            span = max(span, float(np.hypot(*hull.shape)) / 1.6)
    return centres, span


def _close_outline(total: Float) -> NDArray[np.int64]:
    """Viterbi's algorithm round the circle one and a half times; the middle turn is the outline.

    Parameters
    ----------
    total : numpy.ndarray
        (n, rays, radii) float32 gain of ending a ray at a radius.

    Returns
    -------
    numpy.ndarray
        (n, rays) int64 index of the radius.
    """
    count, rays, length = total.shape
    order = np.arange(-rays // 2, rays + rays // 2) % rays
    penalty = 0.4 * np.abs(np.arange(-BEND, BEND + 1))
    value = total[:, order[0]]
    moves = np.zeros((len(order), count, length), np.int8)
    for turn in range(1, len(order)):
        padded = np.pad(value, ((0, 0), (BEND, BEND)), constant_values=-1e9)
        options = np.stack([padded[:, k : k + length] - penalty[k] for k in range(2 * BEND + 1)])
        moves[turn] = options.argmax(axis=0)
        value = options.max(axis=0) + total[:, order[turn]]
    best = np.zeros((count, rays), np.int64)
    place = value.argmax(axis=1)
    rows = np.arange(count)
    for turn in range(len(order) - 1, -1, -1):
        if rays // 2 <= turn < rays // 2 + rays:
            best[:, order[turn]] = place
        place = np.clip(place + moves[turn, rows, place] - BEND, 0, length - 1)
    return best
