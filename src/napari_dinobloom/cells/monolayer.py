"""The quality map of a whole slide: where the smear is too thick, right, or its feathered edge, and where nothing lies.

Cells of a smear are read where red cells lie singly, just touching, with little overlap, and show their pale centre
(CLSI H20-A2, 2007; Bain, Blood Cells, 5th edition, 2015, chapter 1). Towards the start of a smear red cells lie on one
another; in its feathered edge they are flat and evenly stained, without pallor. Each rule here measures one of these in
squares of 128 um, so that a person can check it.

The limits were set on generated slides (`io.generate_slide`) of six stains and on the even-numbered fields of BCCD,
which a person took where the smear was right. Red cells of BCCD show little pallor, as those of many smears that dried
slowly, so its lack alone does not make a square the feathered edge. No real whole slide was at hand: see
``docs/whole-slides.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells.background import Background, absorbance, find_background
from napari_dinobloom.cells.region import Region
from napari_dinobloom.cells.stain import Stain, estimate_stain, nuclear_map
from napari_dinobloom.cells.windows import Parts, iter_blocks
from napari_dinobloom.progress import Progress, Steps, drain

VERSION = 1

GRADES = ("empty", "right", "thick", "feathered")
"""What a square is; its grade is the index here. ``empty`` is glass, ink, dust, or was not scanned."""

EMPTY, RIGHT, THICK, FEATHERED = range(4)

WHOLE_SLIDE_PX = 64_000_000
"""Pictures of more pixels are whole slides, in which the monolayer is sought first; smaller ones are fields."""

TILE_UM = 128.0
"""Side of a square: about what a 100x objective shows in one field."""

THUMB_UM = 8.0
"""Pixel of the thumbnail in which blood is told from glass: about one red cell."""

LEAST_THUMB = 512
"""The longer side of the thumbnail has this many pixels at least, so that the colour of glass can be seen in it."""

LOOK_UM = 0.5
"""Pixel of the closer look, in which a red cell is 15 pixels across."""

MOST_LOOKS = 4096
"""Squares that are looked at closely; of more blood than that (8 cm2), every second or third, and the others take on
the grade of the nearest."""

BLOOD = 0.02
"""Mean absorbance from which a square holds anything: red cells absorb about 0.25, so some 8 % of it are covered."""

INK = 0.95
"""Red light absorbed relative to green from which it is no blood: stains of Romanowsky absorb green more than red, ink
and dust both alike."""

SPARSE = 0.15
"""Coverage below which red cells are too few: the last cells of the feathered edge."""

LOOSE = 0.32
"""Coverage below which flat red cells are the feathered edge; fields of BCCD have 0.33 to 0.58, flat or not."""

CROWDED = 0.80
"""Coverage above which no glass is seen between red cells: the thick part."""

STACKED = 0.12
"""Share of the red area that absorbs 1.6 times as much as one red cell, above which they lie on one another: 0.04 in
98 of 100 fields of BCCD, 0.24 and more in generated thick parts."""

TWICE = 1.6
"""So many times the absorbance of a red cell mean two, one on the other."""

FLAT = 0.15
"""Pallor (1 - absorbance of centres / that of rims) below which red cells are flat: generated ones have 0.4, flat ones
0.1 at most."""

Image = NDArray[np.uint8]
Float = NDArray[np.float32]
Bool = NDArray[np.bool_]
Grades = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class QualityMap:
    """What each square of a slide is, and why.

    Attributes
    ----------
    grades : numpy.ndarray
        (h, w) uint8, indices in `GRADES`.
    side : float
        Side of a square in pixels of the finest level; the last row and column may reach over the slide.
    pixel_size_um : float
        Micrometres per pixel of the finest level.
    coverage, stacked, pallor : numpy.ndarray
        (h, w) float32, NaN where nothing was measured: share of the square that is stained; share of that in which red
        cells lie on one another; how much paler red cells are in the middle than at the rim.
    """

    grades: Grades
    side: float
    pixel_size_um: float
    coverage: Float
    stacked: Float
    pallor: Float

    def share(self, grade: int) -> float:
        """Share of the slide's squares that have a grade, 0 to 1."""
        return float((self.grades == grade).mean())

    @property
    def searched(self) -> float:
        """Share of the blood that is right, 0 to 1; 0 where there is no blood."""
        blood = int((self.grades != EMPTY).sum())
        return int((self.grades == RIGHT).sum()) / blood if blood else 0.0

    def region(self, image: Any, grades: Sequence[int] = (RIGHT,)) -> Region:
        """Give the squares of some grades as a region of the slide, with a sample of its pixels.

        Parameters
        ----------
        image : array
            (Y, X, 3) uint8, finest level; at most 16 windows of it are read.
        grades : sequence of int
            Indices in `GRADES`.
        """
        wanted = np.isin(self.grades, grades)
        return Region(wanted, self.side, _sample(image, wanted, self.side))


def quality_map(levels: Sequence[Any], pixel_size_um: float) -> QualityMap:
    """Find out where the smear of a whole slide can be read.

    Parameters
    ----------
    levels : sequence of array
        (Y, X, 3) uint8, NumPy or lazy, the finest first; coarse ones are read where there are any.
    pixel_size_um : float
        Micrometres per pixel of the finest level.

    Returns
    -------
    QualityMap
        Grades of squares of `TILE_UM`.

    Raises
    ------
    ValueError
        If there is no level, or the pixel size is no positive number.
    """
    return drain(iter_quality_map(levels, pixel_size_um))


def iter_quality_map(levels: Sequence[Any], pixel_size_um: float) -> Steps[QualityMap]:
    """Twin of `quality_map` that yields `Progress`."""
    if not len(levels) or not (np.isfinite(pixel_size_um) and pixel_size_um > 0):
        raise ValueError(f"a quality map needs a picture and micrometres per pixel, not {pixel_size_um}")
    height, width = levels[0].shape[:2]
    side = TILE_UM / pixel_size_um
    size = (int(np.ceil(height / side)), int(np.ceil(width / side)))
    thumb, step = yield from _iter_thumbnail(levels, pixel_size_um)
    light = _glass(thumb)
    blood, ink = _told(thumb, light, size, side / step)
    looks = _looks(blood & ~ink)
    level = _level(levels, pixel_size_um, LOOK_UM)
    values = yield from _iter_look(levels[level], side / _down(levels, level), looks, light)
    measures = _spread(values, looks, blood & ~ink)
    grades = np.where(blood & ~ink, graded(*measures), EMPTY).astype(np.uint8)
    return QualityMap(_smooth(grades), side, float(pixel_size_um), *measures)


def graded(coverage: Float, stacked: Float, pallor: Float) -> Grades:
    """Grade of squares of blood by the rules of this module; the measures may be arrays of any one shape."""
    grades = np.full(np.shape(coverage), RIGHT, np.uint8)
    with np.errstate(invalid="ignore"):
        grades[(coverage < SPARSE) | ((coverage < LOOSE) & (pallor < FLAT))] = FEATHERED
        grades[(coverage > CROWDED) | (stacked > STACKED)] = THICK
    return grades


def measure_square(density: Float, stain: Stain, single: float, pixel_um: float) -> tuple[float, float, float]:
    """Measure one square of blood.

    Parameters
    ----------
    density : numpy.ndarray
        (Y, X, 3) float32 absorbance.
    stain : Stain
        Of the slide.
    single : float
        Mean absorbance of a red cell of the slide.
    pixel_um : float
        Micrometres per pixel.

    Returns
    -------
    coverage, stacked, pallor : float
        As in `QualityMap`; pallor is NaN where no centre of a red cell is seen.
    """
    from scipy import ndimage as ndi

    mean = density.mean(axis=-1)
    stained = mean > stain.foreground
    coverage = float(stained.mean())
    white = nuclear_map(density, stain.weight) > stain.floor
    red = stained & ~ndi.binary_dilation(white, iterations=max(1, round(1.0 / pixel_um)))
    area = int(red.sum())
    stacked = float((mean[red] > TWICE * single).mean()) if area else float("nan")
    depth = ndi.distance_transform_edt(np.pad(_filled(red, pixel_um), 1))[1:-1, 1:-1] * pixel_um
    centre, rim = depth > 2.9, (depth > 0.9) & (depth < 1.9)
    centre &= ~white & (depth < 4.6)
    if centre.sum() * pixel_um**2 < 10 or not rim.any():
        return coverage, stacked, float("nan")
    return coverage, stacked, 1.0 - float(mean[centre].mean()) / float(mean[rim].mean())


def _filled(red: Bool, pixel_um: float) -> Bool:
    """Fill holes no larger than the pale centre of a red cell."""
    from scipy import ndimage as ndi

    holes, count = ndi.label(~red)
    sizes = np.bincount(holes.ravel(), minlength=count + 1) * pixel_um**2
    small = sizes < 14.0
    small[0] = False
    filled: Bool = red | small[holes]
    return filled


def _level(levels: Sequence[Any], pixel_size_um: float, wanted_um: float) -> int:
    """Coarsest level whose pixels are not much larger than wanted; the finest if all are."""
    sizes = [pixel_size_um * _down(levels, number) for number in range(len(levels))]
    return max((i for i, um in enumerate(sizes) if um <= 1.3 * wanted_um), default=0)


def _down(levels: Sequence[Any], level: int) -> float:
    """Pixels of the finest level per pixel of another, by the longer side, which is rounded least."""
    return float(max(levels[0].shape[:2]) / max(levels[level].shape[:2]))


def _iter_thumbnail(levels: Sequence[Any], pixel_size_um: float) -> Steps[tuple[Image, float]]:
    """The slide in pixels of about `THUMB_UM`, added up block by block; and their side in pixels of the finest."""
    number = _level(levels, pixel_size_um, THUMB_UM)
    height, width = levels[number].shape[:2]
    factor = round(THUMB_UM / (pixel_size_um * _down(levels, number)))
    factor = max(1, min(factor, max(height, width) // LEAST_THUMB))
    inside = [np.minimum(np.arange(0, n, factor) + factor, n) - np.arange(0, n, factor) for n in (height, width)]
    sums = np.zeros((len(inside[0]), len(inside[1]), 3), np.uint32)
    for top, left, block in iter_blocks(levels[number]):
        yield Progress(top, height, "thumbnail")
        part: NDArray[Any] = block
        for axis, start in enumerate((top, left)):
            first = -start % factor  # where the next pixel of the thumbnail begins
            edges = np.unique([0, *range(first, block.shape[axis], factor)])
            part = np.add.reduceat(part, edges, axis=axis, dtype=np.uint32)
        y, x = top // factor, left // factor
        sums[y : y + part.shape[0], x : x + part.shape[1]] += part
    return (sums // np.outer(*inside)[..., None]).astype(np.uint8), factor * _down(levels, number)


def _glass(thumb: Image) -> Background:
    """Colour of glass without blood; what was not scanned is pure white, and no glass."""
    scanned = thumb[(thumb < 255).any(axis=-1)]
    side = int(np.sqrt(len(scanned)))
    if side < 8:
        return Background(np.full(3, 255, np.float32), np.zeros((6, 3), np.float32))
    found = find_background(scanned[: side * side].reshape(side, side, 3))
    return Background(found.colour, np.zeros((6, 3), np.float32))  # scanners correct their light


def _told(thumb: Image, light: Background, size: tuple[int, int], side: float) -> tuple[Bool, Bool]:
    """Which squares of `side` pixels of the thumbnail hold anything, which of these ink or dust, (h, w) bool each."""
    density = absorbance(thumb, light)
    density[(thumb == 255).all(axis=-1)] = 0
    ys, xs = (
        np.minimum((np.arange(n) + 0.5) / side, m - 1).astype(int) for n, m in zip(thumb.shape[:2], size, strict=True)
    )
    place = (ys[:, None] * size[1] + xs).ravel()
    count = np.maximum(np.bincount(place, minlength=size[0] * size[1]), 1)
    red, green, blue = (
        (np.bincount(place, density[..., i].ravel(), size[0] * size[1]) / count).reshape(size) for i in range(3)
    )
    blood = (red + green + blue) / 3 > BLOOD
    return blood, blood & (red > INK * green)


def _looks(blood: Bool) -> Bool:
    """Squares to look at closely: all of the blood, or of very much every n-th along both axes."""
    step = 1
    while blood[::step, ::step].sum() > MOST_LOOKS:
        step += 1
    chosen = np.zeros_like(blood)
    chosen[::step, ::step] = blood[::step, ::step]
    return chosen


def _iter_look(level: Any, side: float, looks: Bool, light: Background) -> Steps[NDArray[np.float32]]:
    """Measures of the squares to look at, (n, 3), in their order."""
    parts, places = Parts(level), np.argwhere(looks)
    squares = places[parts.order(*(places.T * side))]
    shrink = max(1, round(LOOK_UM * side / TILE_UM))
    pixel_um = TILE_UM / side * shrink
    some = squares[:: max(1, len(squares) // 64)]
    seen = [_density(parts, y, x, side, shrink, light) for y, x in some.tolist()]
    if not seen:
        return np.zeros((0, 3), np.float32)
    stain = estimate_stain(np.concatenate([part.reshape(-1, 3) for part in seen])[:, None])
    single = _single(seen, stain)
    found: dict[tuple[int, int], tuple[float, float, float]] = {}
    for done, (y, x) in enumerate(squares.tolist()):
        if done % 16 == 0:
            yield Progress(done, len(squares), "quality of the smear")
        found[y, x] = measure_square(_density(parts, y, x, side, shrink, light), stain, single, pixel_um)
    return np.asarray([found[y, x] for y, x in places.tolist()], np.float32)


def _density(parts: Parts, row: int, column: int, side: float, shrink: int, light: Background) -> Float:
    """Absorbance of one square in pixels of the closer look."""
    top, left = int(row * side), int(column * side)
    bottom, right = min(int((row + 1) * side), parts.height), min(int((column + 1) * side), parts.width)
    picture = parts.part(top, left, max(bottom - top, 1), max(right - left, 1))
    if shrink > 1:
        height, width = (max(n // shrink, 1) for n in picture.shape[:2])
        whole = picture[: height * shrink, : width * shrink]
        picture = whole.reshape(height, -1, width, whole.shape[1] // width, 3).mean(axis=(1, 3)).round()
    return absorbance(picture.astype(np.uint8), light)


def _single(seen: Sequence[Float], stain: Stain) -> float:
    """Mean absorbance of one red cell: the middle of what is stained where glass is seen, too."""
    each = []
    for density in seen:
        mean = density.mean(axis=-1)
        stained = mean > stain.foreground
        if 0.05 < stained.mean() < 0.65:
            each.append(float(np.median(mean[stained])))
    if each:
        return float(np.median(each))
    every = np.concatenate([density.mean(axis=-1).ravel() for density in seen])
    every = every[every > stain.foreground]
    return float(np.quantile(every, 0.1)) if len(every) else float("inf")


def _spread(values: NDArray[np.float32], looks: Bool, blood: Bool) -> tuple[Float, Float, Float]:
    """Measures on the grid; squares of blood that were not looked at take those of the nearest that was."""
    from scipy import ndimage as ndi

    maps = []
    for column in range(3):
        grid = np.full(looks.shape, np.nan, np.float32)
        grid[looks] = values[:, column]
        if looks.any() and (blood & ~looks).any():
            nearest = ndi.distance_transform_edt(~looks, return_distances=False, return_indices=True)
            grid = np.where(blood, grid[tuple(nearest)], np.nan).astype(np.float32)
        maps.append(grid)
    return maps[0], maps[1], maps[2]


def _smooth(grades: Grades) -> Grades:
    """Give a square of blood the grade of most of its neighbours in blood, where at least five of eight agree."""
    from scipy import ndimage as ndi

    votes = np.stack([ndi.uniform_filter((grades == g).astype(np.float32), 3, mode="constant") * 9 for g in range(4)])
    most = votes[1:].argmax(axis=0) + 1
    agree = np.take_along_axis(votes, most[None], axis=0)[0] > 4.5
    return np.where((grades != EMPTY) & agree, most, grades).astype(np.uint8)


def _sample(image: Any, wanted: Bool, side: float) -> Image:
    """A picture of up to 16 squares spread evenly over the region; (0, 0, 3) where it is empty."""
    places = np.argwhere(wanted)
    if not len(places):
        return np.zeros((0, 0, 3), np.uint8)
    parts = Parts(image)
    window = int(max(min(side, 256, parts.height, parts.width), 1))
    count = 16 if len(places) >= 16 else 4 if len(places) >= 4 else 1
    windows = []
    for y, x in places[np.linspace(0, len(places) - 1, count).astype(int)].tolist():
        top, left = min(int(y * side), parts.height - window), min(int(x * side), parts.width - window)
        windows.append(parts.part(top, left, window, window))
    rows = int(np.sqrt(count))
    return np.concatenate([np.concatenate(windows[i : i + rows], axis=1) for i in range(0, count, rows)])
