"""Nuclei of white cells: found in the nuclear map, lobes of one cell joined, touching cells parted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells.stain import Stain, nuclear_map, otsu

VERSION = 8

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]
Labels = NDArray[np.int32]
Points = NDArray[np.float64]

LOBE_UM2 = 1.5
"""Smallest piece of a nucleus."""

LOBE_GAP_UM = 3.0
"""Widest gap between two lobes of one nucleus."""

JOINED_UM2 = 95.0
"""Largest area of a nucleus joined from lobes; larger ones (monocytes, blasts) come in one piece."""

JOINED_SPAN_UM = 15.0
"""Largest extent of a nucleus joined from lobes."""

WIDE_UM = 10.5
"""A cell this wide between two lobes, and without a neck there, is one cell."""

LOBE_ALONE_UM2 = 14.0
"""A lobe larger than this may be the whole nucleus of a neighbour, if there is a neck between."""

LARGEST_UM2 = 450.0
"""Largest area of a nucleus: the bare ones of smudge cells reach 24 um across. More is no cell."""

BENT = 0.87
"""Solidity below which a piece is a lobe and no whole nucleus; such pieces are joined over a narrow gap."""

BENT_GAP_UM = 1.3
"""Gap over which a bent piece is joined: touching cells have twice their cytoplasm between the nuclei."""

BENT_UM2 = 110.0
"""Largest area of a nucleus joined so."""

LARGEST_JOINED_UM2 = 160.0
"""As `JOINED_UM2`, for cells without a neck (flattened ones in thin parts of a smear)."""

LARGEST_SPAN_UM = 20.0
"""As `JOINED_SPAN_UM`, for cells without a neck."""

PARTED_UM2 = 32.0
"""Smallest area of each part when a blob is parted into touching nuclei."""


SHORTEST_CHORD_UM = 8.0
"""A neck is narrower than this."""


NECK = 0.45
"""Narrowing of the cell between two lobes below which they are two touching cells."""

FAINTEST = 0.4
"""Nuclei reach at least this share of the level that the darkest of the picture reach."""


@dataclass(frozen=True, slots=True)
class Nuclei:
    """Nuclei of one picture.

    Attributes
    ----------
    labels : numpy.ndarray
        (Y, X) int32; the lobes of one cell share a number, 0 is none.
    margin : numpy.ndarray
        (Y, X) float32 nuclear map minus its local level: positive inside nuclei, for outlines finer than a pixel.
    """

    labels: Labels
    margin: Float


def nuclear_margin(density: Float, stain: Stain, pixel_um: float, where: Bool | None = None) -> Float:
    """Nuclear map minus its local level.

    Parameters
    ----------
    density : numpy.ndarray
        (Y, X, 3) float32 absorbance at working resolution.
    stain : Stain
        Of this picture.
    pixel_um : float
        Micrometres per pixel of `density`.
    where : numpy.ndarray, optional
        (Y, X) bool; only there nuclei are sought, and levels found.

    Returns
    -------
    numpy.ndarray
        (Y, X) float32, positive in nuclei.
    """
    from scipy import ndimage as ndi

    score = ndi.gaussian_filter(nuclear_map(density, stain.weight), 0.3 / pixel_um)
    if where is not None:
        score = np.where(where, score, 0)
    return np.asarray(score - _local_level(score, stain, pixel_um), np.float32)


def find_nuclei(margin: Float, solid: Bool, pixel_um: float, smallest_um2: float) -> Nuclei:
    """Number the nuclei: lobes of one cell joined, touching cells parted.

    Parameters
    ----------
    margin : numpy.ndarray
        (Y, X) float32 of `nuclear_margin`.
    solid : numpy.ndarray
        (Y, X) bool white-cell material without the blur between cells.
    pixel_um : float
        Micrometres per pixel.
    smallest_um2 : float
        Smallest area kept, all lobes of a cell together.

    Returns
    -------
    Nuclei
        Numbered nuclei.
    """
    from scipy import ndimage as ndi

    dark = ndi.binary_opening(margin > 0, disk(0.35 / pixel_um))
    dark = _without_small_holes(dark, 3.0 / pixel_um**2)
    lobes = _part_touching(dark, pixel_um)
    area = np.bincount(lobes.ravel()) * pixel_um**2
    area[0] = 0
    lobes = np.where(area[lobes] >= LOBE_UM2, lobes, 0).astype(np.int32)
    joined = _join_lobes(lobes, solid | dark, pixel_um)
    total = np.bincount(joined.ravel()) * pixel_um**2
    total[0] = 0
    keep = (total >= smallest_um2) & (total <= LARGEST_UM2)
    number = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return Nuclei(number[joined], margin)


def disk(radius: float) -> Bool:
    """Round structuring element of at least one pixel's radius."""
    size = max(1, round(radius))
    y, x = np.mgrid[-size : size + 1, -size : size + 1]
    return np.asarray(y * y + x * x <= (size + 0.3) ** 2)


def _local_level(score: Float, stain: Stain, pixel_um: float) -> Float:
    """Level that parts nucleus from cytoplasm, of its own for every separate piece of white-cell material."""
    from scipy import ndimage as ndi

    level = np.full(score.shape, np.inf, np.float32)
    if not np.isfinite(stain.top):
        return level
    pieces, count = ndi.label(score > stain.floor)
    area = np.bincount(pieces.ravel(), minlength=count + 1) * pixel_um**2
    for number, box in enumerate(ndi.find_objects(pieces), start=1):
        if box is None or area[number] < LOBE_UM2:
            continue
        inside = pieces[box] == number
        values = score[box][inside]
        top = float(np.quantile(values, 0.9))
        if top < FAINTEST * stain.top:
            continue
        level[box][inside] = max(stain.floor, float(np.clip(otsu(values), 0.38 * top, 0.58 * top)))
    outside = ndi.grey_erosion(level, size=3)
    return np.where(np.isfinite(level), level, np.minimum(outside, 1e6)).astype(np.float32)


def _without_small_holes(mask: Bool, area: float) -> Bool:
    """Fill holes of less than `area` pixels; the opening of a ring-shaped nucleus stays."""
    from scipy import ndimage as ndi

    holes, _ = ndi.label(ndi.binary_fill_holes(mask) & ~mask)
    small = np.bincount(holes.ravel()) < area
    small[0] = False
    return np.asarray(mask | small[holes])


def _part_touching(dark: Bool, pixel_um: float) -> Labels:
    """Number the blobs; one that is two or more round nuclei grown together is cut at its necks."""
    from scipy import ndimage as ndi
    from skimage.morphology import convex_hull_image
    from skimage.segmentation import watershed

    blobs, count = ndi.label(dark)
    result = blobs.astype(np.int32)
    area = np.bincount(blobs.ravel()) * pixel_um**2
    for number, box in enumerate(ndi.find_objects(blobs), start=1):
        if box is None or area[number] < 2 * PARTED_UM2:
            continue
        mask = np.pad(blobs[box] == number, 1)
        hull = float(convex_hull_image(mask).sum()) * pixel_um**2
        if area[number] > 0.94 * hull:
            continue
        depth = ndi.gaussian_filter(ndi.distance_transform_edt(mask) * pixel_um, 0.4 / pixel_um)
        seeds = deep_maxima(depth, 0.6)
        parts = watershed(-depth, seeds, mask=mask)
        parts = _round_enough(parts, pixel_um)
        inner = parts[1:-1, 1:-1]
        view = result[box]
        fresh = inner > 1
        view[fresh] = count + inner[fresh] - 1
        count += int(parts.max()) - 1
    return np.asarray(result, np.int32)


def _round_enough(parts: Labels, pixel_um: float) -> Labels:
    """Keep a cut only if every part it makes is large and round, as whole nuclei are; number the parts from 1."""
    from skimage.measure import regionprops

    regions = regionprops(parts)
    whole = [r.area * pixel_um**2 >= PARTED_UM2 and r.solidity >= 0.9 for r in regions]
    if len(regions) < 2 or sum(whole) < 2:
        return (parts > 0).astype(np.int32)
    return parts.astype(np.int32)


def deep_maxima(surface: Float, depth: float) -> Labels:
    """Number the maxima that stand at least `depth` above the saddle to a higher one."""
    from scipy import ndimage as ndi
    from skimage.morphology import reconstruction

    filled = reconstruction(surface - depth, surface, method="dilation")
    labels, _ = ndi.label((surface - filled) >= depth * 0.999, structure=np.ones((3, 3)))
    return np.asarray(labels, np.int32)


def _join_lobes(lobes: Labels, white: Bool, pixel_um: float) -> Labels:
    """Give neighbouring lobes one number while together they could be one nucleus.

    Closest pairs first; a pair is joined if the gap is narrow, the union no larger than a lobed nucleus, and the gap
    holds white-cell material rather than background.
    """
    from scipy import ndimage as ndi

    boxes = ndi.find_objects(lobes)
    points = {n: _outline(lobes, box, n) for n, box in enumerate(boxes, start=1) if box is not None}
    area = np.bincount(lobes.ravel()) * pixel_um**2
    parent = {n: n for n in points}
    for gap, first, second, near in _close_pairs(points, pixel_um):
        a, b = _root(parent, first), _root(parent, second)
        if a == b or _share(white, near) < 0.6:
            continue
        both = np.concatenate([points[a], points[b]])
        bent = gap < BENT_GAP_UM and area[a] + area[b] <= BENT_UM2
        bent = bent and any(_is_bent(lobes, boxes[n - 1], n) for n in (first, second))
        waist = _waist(white, near.mean(axis=0), points[a].mean(axis=0), points[b].mean(axis=0), pixel_um)
        if bent or _one_nucleus(area[a], area[b], _span(both) * pixel_um, waist):
            parent[b] = a
            points[a], area[a] = both, area[a] + area[b]
    table = np.zeros(int(lobes.max(initial=0)) + 1, np.int32)
    for n in parent:
        table[n] = _root(parent, n)
    return table[lobes]


def _one_nucleus(first: float, second: float, span: float, waist: tuple[float, float]) -> bool:
    """Tell whether two lobes are one nucleus, from their areas in um2, common extent in um and the cell's waist."""
    both, small = first + second, min(first, second)
    width, narrowing = waist
    if width >= WIDE_UM and narrowing >= NECK:
        return both <= LARGEST_JOINED_UM2 and span <= LARGEST_SPAN_UM
    necked = width < SHORTEST_CHORD_UM and narrowing < NECK
    apart = small > PARTED_UM2 or (small > LOBE_ALONE_UM2 and necked)
    return not apart and both <= JOINED_UM2 and span <= JOINED_SPAN_UM


def _root(parent: dict[int, int], n: int) -> int:
    """Number under which the group of `n` goes."""
    while parent[n] != n:
        n = parent[n]
    return n


def _is_bent(lobes: Labels, box: tuple[slice, slice], number: int) -> bool:
    """Tell whether a lobe is far from convex, as a whole round nucleus never is."""
    from skimage.morphology import convex_hull_image

    mask = np.pad(lobes[box] == number, 1)
    return bool(mask.sum() < BENT * convex_hull_image(mask).sum())


def _outline(lobes: Labels, box: tuple[slice, slice], number: int) -> Points:
    """(k, 2) edge pixels of a lobe."""
    from scipy import ndimage as ndi

    mask = np.pad(lobes[box] == number, 1)
    edge = np.argwhere(mask & ~ndi.binary_erosion(mask)) - 1
    return np.asarray(edge + np.array([box[0].start, box[1].start]), np.float64)


def _close_pairs(points: dict[int, Points], pixel_um: float) -> list[tuple[float, int, int, Points]]:
    """Pairs of lobes by gap in micrometres, each with the (2, 2) ends of the shortest line between them."""
    from scipy.spatial import cKDTree

    reach = LOBE_GAP_UM / pixel_um
    numbers = sorted(points)
    trees = {n: cKDTree(points[n]) for n in numbers}
    low = {n: points[n].min(axis=0) - reach for n in numbers}
    high = {n: points[n].max(axis=0) for n in numbers}
    pairs = []
    for i, first in enumerate(numbers):
        for second in numbers[i + 1 :]:
            if (low[first] > high[second]).any() or (low[second] > high[first] + reach).any():
                continue
            distance, index = trees[first].query(points[second])
            best = int(distance.argmin())
            if distance[best] <= reach:
                ends = np.stack([points[first][index[best]], points[second][best]])
                pairs.append((float(distance[best]) * pixel_um, first, second, ends))
    return sorted(pairs, key=lambda pair: pair[:3])


def _share(white: Bool, ends: Points) -> float:
    """Share of white-cell material on the line between two points."""
    line = np.linspace(ends[0], ends[1], 9).round().astype(int)
    return float(white[line[:, 0], line[:, 1]].mean())


def _waist(white: Bool, middle: Points, first: Points, second: Points, pixel_um: float) -> tuple[float, float]:
    """Width of the white-cell material between two lobes in micrometres, and its narrowing.

    The narrowing compares each side of the middle with the narrower lobe on that side and takes the smaller ratio:
    about 1 and more inside one cell, about one half where two round cells touch.
    """
    along = second - first
    length = float(np.hypot(*along))
    across = np.array([-along[1], along[0]]) / length if length else np.array([0.0, 1.0])
    sides = np.array([[_run(white, p, s * across, pixel_um) for s in (-1, 1)] for p in (middle, first, second)])
    ratio = sides[0] / np.maximum(sides[1:].min(axis=0), 0.5)
    return float(sides[0].sum()), float(ratio.min())


def _run(white: Bool, start: Points, step: Points, pixel_um: float) -> float:
    """Micrometres of unbroken white-cell material from a point in one direction, at most 12."""
    steps = np.arange(round(12 / pixel_um))
    place = np.rint(start + steps[:, None] * step).astype(int)
    inside = ((place >= 0) & (place < white.shape)).all(axis=1)
    run = np.zeros(len(steps), bool)
    run[inside] = white[tuple(place[inside].T)]
    stops = np.flatnonzero(~run)
    return float(stops[0] if len(stops) else len(run)) * pixel_um


def _span(points: Points) -> float:
    """Largest extent over eight directions, pixels."""
    angle = np.arange(8) * np.pi / 8
    along = points @ np.stack([np.sin(angle), np.cos(angle)])
    return float((along.max(axis=0) - along.min(axis=0)).max())
