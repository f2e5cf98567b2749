"""Micrometres per pixel: from the file, the user, or the size of the cells themselves.

Human red cells measure 7.5 um across in a smear (Bain, Blood Cells, 2015: 6.7 to 7.7 um; 7.5 is the usual ruler), so
they serve as the scale bar where the file gives none. Where no red cells are seen, nuclei of white cells serve, less
exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells.background import Background, absorbance, find_background
from napari_dinobloom.cells.stain import estimate_stain, nuclear_map, otsu

VERSION = 5

RED_CELL_UM = 7.5
NUCLEUS_UM = 8.5
ASSUMED_UM = 0.1
PLAUSIBLE_UM = (0.03, 1.5)
"""Pixel sizes of 100x objectives with small pixels to 10x with large ones; estimates are kept within."""

PLATELETS = 2.0
"""Dark pieces are platelets, not nuclei, if by their scale red cells' clumps were this many red cells thick."""

SPECKS = 0.1
"""Share of the red area below which round things are not taken for the red cells."""

FEW_RED_CELLS = 3
"""With fewer red cells than this the nuclei's estimate counts as one red cell more."""

STEP = 1.04

Source = Literal["file", "user", "red cells", "white cells", "assumed"]
Image = NDArray[np.uint8]
Bool = NDArray[np.bool_]
Floats = NDArray[np.float64]
_TILE = 1024
_TILES = 9
_SIDE = 400


@dataclass(frozen=True, slots=True)
class Scale:
    """Size of a pixel and where the number comes from.

    Attributes
    ----------
    pixel_size_um : float
        Micrometres per pixel.
    source : str
        ``file``, ``user``, ``red cells``, ``white cells`` or ``assumed``.
    red_cells : int
        Red cells measured; 0 where they were not used.
    """

    pixel_size_um: float
    source: Source
    red_cells: int = 0


def red_cell_diameter_px(image: Image) -> tuple[float, int]:
    """Typical diameter of the single, round, whole red cells in a picture.

    Parameters
    ----------
    image : numpy.ndarray
        (Y, X, 3) uint8; of a large one, nine tiles are looked at.

    Returns
    -------
    diameter : float
        Pixels, median weighted by area, so that specks do not count; NaN where no red cell was found.
    count : int
        Red cells within 30 % of it.
    """
    return _typical(_look_over(image, None))


def estimate_scale(image: Image, light: Background | None = None) -> Scale:
    """Scale of one picture from its own cells.

    Parameters
    ----------
    image : numpy.ndarray
        (Y, X, 3) uint8.
    light : Background, optional
        Of the picture, where it is known already.

    Returns
    -------
    Scale
        From red cells if at least one whole one is seen (steadied by the nuclei if fewer than three are), else from
        nuclei unless these are too small for the red cells' clumps, else from the clumps, else assumed (0.1 um).
    """
    seen = _look_over(image, light)
    diameter, count = _typical(seen)
    from_nuclei = NUCLEUS_UM / seen.nucleus()
    if count:
        size = RED_CELL_UM / diameter
        if count < FEW_RED_CELLS and len(seen.cores):
            size = float(np.exp((count * np.log(size) + np.log(from_nuclei)) / (count + 1)))
        return Scale(float(np.clip(size, *PLAUSIBLE_UM)), "red cells", count)
    clump = _weighted_median(seen.clumps, seen.clumps**2) if len(seen.clumps) else float("nan")
    platelets = clump * from_nuclei > PLATELETS * RED_CELL_UM
    if len(seen.cores) and not platelets:
        return Scale(float(np.clip(from_nuclei, *PLAUSIBLE_UM)), "white cells")
    if len(seen.clumps):
        return Scale(float(np.clip(RED_CELL_UM / clump, *PLAUSIBLE_UM)), "red cells")
    return Scale(ASSUMED_UM, "assumed")


def pool_scale(estimates: Sequence[Scale]) -> Scale:
    """One scale for the fields of a slide.

    The best kind of source present is used (user, file, red cells, white cells, assumed); of it the median, weighted
    by red cells where these were measured. Estimates from cells are rounded to steps of 4 %, so that one more field
    rarely moves the scale, and with it the crops, of all others.

    Parameters
    ----------
    estimates : sequence of Scale
        One per field; at least one.

    Returns
    -------
    Scale
        The slide's scale.

    Raises
    ------
    ValueError
        If `estimates` is empty.
    """
    if not estimates:
        raise ValueError("pool_scale needs the scale of at least one field")
    order: tuple[Source, ...] = ("user", "file", "red cells", "white cells", "assumed")
    best = min((scale.source for scale in estimates), key=order.index)
    chosen = [scale for scale in estimates if scale.source == best]
    size = _weighted_median([s.pixel_size_um for s in chosen], [max(s.red_cells, 1) for s in chosen])
    if best in ("red cells", "white cells"):
        size = quantise(size)
    return Scale(size, best, sum(scale.red_cells for scale in chosen))


def quantise(pixel_size_um: float) -> float:
    """Round to the nearest of the steps 0.1 um times 1.04 to an integer power."""
    return float(ASSUMED_UM * STEP ** round(np.log(pixel_size_um / ASSUMED_UM) / np.log(STEP)))


def _weighted_median(values: Sequence[float] | Floats, weights: Sequence[float] | Floats) -> float:
    """Smallest value at which half of the weight is reached."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(np.asarray(weights, np.float64)[order])
    return float(np.asarray(values)[order][np.searchsorted(total, total[-1] / 2)])


@dataclass(frozen=True, slots=True)
class _Seen:
    """Diameters in pixels of what was seen in one or more tiles.

    ``discs``: whole round things without anything dark; ``clumps``: widest circles within all other such things;
    ``cores``: dark pieces.
    """

    discs: Floats
    clumps: Floats
    cores: Floats

    def times(self, factor: float) -> _Seen:
        """Give the same in other pixels."""
        return _Seen(self.discs * factor, self.clumps * factor, self.cores * factor)

    def nucleus(self) -> float:
        """Typical diameter of the dark pieces; NaN where there are none."""
        return _weighted_median(self.cores, self.cores**2) if len(self.cores) else float("nan")


def _typical(seen: _Seen) -> tuple[float, int]:
    """Diameter of red cells and how many agree with it.

    Few discs, or discs that make up little beside the clumps (specks), are believed only if they fit the nuclei, or
    where there are none the clumps.
    """
    diameter, count = _common(seen.discs)
    area, other = float((seen.discs**2).sum()), float((seen.clumps**2).sum())
    if count < FEW_RED_CELLS or area < SPECKS * (area + other):
        ruler = seen.nucleus() if len(seen.cores) else _common(seen.clumps)[0]
        if np.isfinite(ruler):
            diameter, count = _common(seen.discs[(seen.discs > 0.35 * ruler) & (seen.discs < 2.0 * ruler)])
    return diameter, count


def _common(discs: Floats) -> tuple[float, int]:
    """Median diameter, weighted by area so that specks do not count, and how many lie near it."""
    if not len(discs):
        return float("nan"), 0
    middle = _weighted_median(discs, discs**2)
    kept = discs[(discs > 0.7 * middle) & (discs < 1.4 * middle)]
    return float(np.median(kept)), len(kept)


def sample_tiles(image: Image) -> list[Image]:
    """Give the picture itself if small, else up to nine tiles spread evenly over it."""
    height, width = image.shape[:2]
    if height <= 2 * _TILE and width <= 2 * _TILE:
        return [np.asarray(image)]
    side = int(np.sqrt(_TILES))
    ys = np.unique(np.linspace(0, max(height - _TILE, 0), side).astype(int))
    xs = np.unique(np.linspace(0, max(width - _TILE, 0), side).astype(int))
    return [np.asarray(image[y : y + _TILE, x : x + _TILE]) for y in ys for x in xs]


def _resized(image: Image, side: int, *, enlarge: bool) -> tuple[Image, float]:
    """Shrink a picture so that its longer side is `side`, or enlarge it up to fourfold; gives it and the factor."""
    from PIL import Image as Pillow

    factor = max(image.shape[:2]) / side
    factor = max(factor, 0.25) if enlarge else max(factor, 1.0)
    if factor == 1.0:
        return image, 1.0
    size = (max(1, round(image.shape[1] / factor)), max(1, round(image.shape[0] / factor)))
    way = Pillow.Resampling.BOX if factor > 1 else Pillow.Resampling.BILINEAR
    return np.asarray(Pillow.fromarray(image).resize(size, way)), factor


def _look_over(image: Image, light: Background | None) -> _Seen:
    """Look at the picture, or at the tiles of a large one; `light` is the whole picture's."""
    tiles = sample_tiles(image)
    known = light if len(tiles) == 1 else None
    seen = [_look(tile, known or find_background(tile)) for tile in tiles]
    return _Seen(*(np.concatenate(kind) for kind in zip(*((s.discs, s.clumps, s.cores) for s in seen), strict=True)))


def _look(image: Image, light: Background) -> _Seen:
    """Look at one tile; what is small is looked at again, enlarged."""
    small, factor = _resized(image, _SIDE, enlarge=False)
    seen = _look_at(small, light)
    size = seen.nucleus() if len(seen.cores) else _common(np.concatenate([seen.discs, seen.clumps]))[0]
    if size < 16:
        small, factor = _resized(image, 3 * _SIDE, enlarge=True)
        seen = _look_at(small, light)
    return seen.times(factor)


def _look_at(image: Image, light: Background) -> _Seen:
    """Diameters at the picture's own resolution."""
    from scipy import ndimage as ndi

    density = ndi.gaussian_filter(absorbance(image, light), (1, 1, 0))
    stain = estimate_stain(density)
    mean = density.mean(axis=-1)
    solid = mean > max(stain.foreground, 0.5 * otsu(np.clip(mean, 0, 0.5).ravel()))
    score = nuclear_map(density, stain.weight)
    dark = score > max(stain.floor, 0.5 * stain.top) if np.isfinite(stain.top) else np.zeros(solid.shape, bool)
    return _Seen(*_disc_diameters(solid, dark), _core_diameters(dark))


def _disc_diameters(solid: Bool, dark: Bool) -> tuple[Floats, Floats]:
    """Diameters of round, whole pieces of `solid` with nothing `dark` in them, clumps cut at their necks.

    Second come the diameters of the widest circles within the other pieces.
    """
    from scipy import ndimage as ndi
    from skimage.feature import peak_local_max
    from skimage.measure import regionprops
    from skimage.segmentation import watershed

    body = ndi.binary_opening(ndi.binary_fill_holes(solid), iterations=2)
    depth = ndi.distance_transform_edt(np.pad(body, 1))[1:-1, 1:-1]
    depth = ndi.gaussian_filter(depth, 1.0)
    peaks = peak_local_max(depth, min_distance=4, threshold_abs=3.0, exclude_border=False)
    markers = np.zeros(body.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    parts = watershed(-depth, markers, mask=body)
    dyed = np.bincount(parts.ravel(), weights=dark.ravel(), minlength=len(peaks) + 1)
    discs, clumps = [], []
    for region in regionprops(parts):
        if dyed[region.label] > 0.04 * region.area:
            continue
        y0, x0, y1, x1 = region.bbox
        inside = y0 > 0 and x0 > 0 and y1 < body.shape[0] and x1 < body.shape[1]
        square = min(y1 - y0, x1 - x0) >= 0.75 * max(y1 - y0, x1 - x0)
        diameter, widest = float(region.equivalent_diameter_area), 2 * float(depth[tuple(peaks[region.label - 1])])
        if inside and square and diameter < 1.18 * widest and region.solidity > 0.93:
            discs.append(diameter)
        else:
            clumps.append(widest)
    return np.asarray(discs, np.float64), np.asarray(clumps, np.float64)


def _core_diameters(dark: Bool) -> Floats:
    """Equivalent diameters of the large dark pieces, lobes that nearly touch taken together."""
    from scipy import ndimage as ndi

    labels, count = ndi.label(ndi.binary_closing(np.pad(ndi.binary_opening(dark), 4), iterations=3))
    if not count:
        return np.empty(0)
    areas = np.bincount(labels.ravel())[1:].astype(np.float64)
    areas = areas[(areas > max(40.0, 0.3 * areas.max())) & (areas < 0.4 * dark.size)]
    return np.asarray(np.sqrt(4 * areas / np.pi), np.float64)
