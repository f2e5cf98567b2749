"""Generated whole slides: a wedge smear, from its thick end over the monolayer to the feathered edge, on blank glass.

A few patches of each part are painted and laid side by side, turned and mirrored, since a real slide has a million red
cells. It is written as a pyramidal TIFF that calls itself an Aperio slide, so that OpenSlide, QuPath and tifffile
read it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.io.atomic import replacing
from napari_dinobloom.io.canvas import STAINS, Canvas
from napari_dinobloom.io.generate import COMPOSITION
from napari_dinobloom.io.painting import add_platelets, add_red_cells, add_white_cells

Kind = Literal["empty", "right", "thick", "feathered"]
KINDS: tuple[Kind, ...] = ("empty", "right", "thick", "feathered")

TILE = 512
"""Side of the tiles of the file in pixels; patches are one tile."""

VARIANTS = 3
"""Painted patches of each kind."""

_LAYERS = {"thick": (0.6, 0.6, 0.6), "right": (0.42,), "feathered": (0.3,)}
"""Share of the glass that each layer of red cells covers."""

Image = NDArray[np.uint8]
Layout = NDArray[np.uint8]


def paint_patch(
    kind: Kind, seed: int, *, side: int = TILE, pixel_size_um: float = 0.25, stain: str = "wright-giemsa"
) -> Image:
    """Paint a piece of a wedge smear.

    Parameters
    ----------
    kind : str
        ``empty`` glass; ``right``, a monolayer of single cells with pale centres; ``thick``, three layers of red cells
        on one another; ``feathered``, flat red cells without a pale centre.
    seed : int
        Same seed and options, same patch.
    side : int
        Height and width in pixels.
    pixel_size_um : float
        Micrometres per pixel.
    stain : str
        Key of `canvas.STAINS`.

    Returns
    -------
    numpy.ndarray
        (side, side, 3) uint8, evenly lit, as scanners correct their light.
    """
    from scipy import ndimage as ndi

    rng = np.random.default_rng([seed, KINDS.index(kind)])
    canvas = Canvas(side, side, pixel_size_um, STAINS[stain], rng)
    if kind == "feathered":
        canvas.pallor = (0.0, 0.1)
    if kind != "empty":
        wanted = max(1, round((side * pixel_size_um / 64) ** 2))
        add_white_cells(canvas, wanted, 0.1, COMPOSITION)
        for crowding in _LAYERS[kind]:
            add_red_cells(canvas, crowding)
        add_platelets(canvas)
    density = ndi.gaussian_filter(canvas.density, (0.6, 0.6, 0))
    noise = rng.normal(0, 1.5, (side, side, 3)) if kind != "empty" else 0  # blank glass of a scanner has next to none
    picture = canvas.background * np.exp(-density) + noise
    patch: Image = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return patch


@dataclass(frozen=True, slots=True)
class GeneratedSlide:
    """A slide of patches.

    Attributes
    ----------
    layout : numpy.ndarray
        (h, w) uint8: index in `KINDS` of each tile.
    patches : tuple of tuple of numpy.ndarray
        By kind and variant, (TILE, TILE, 3) uint8.
    pixel_size_um : float
        Micrometres per pixel.
    """

    layout: Layout
    patches: tuple[tuple[Image, ...], ...]
    pixel_size_um: float

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.layout.shape[0] * TILE, self.layout.shape[1] * TILE

    def tile(self, row: int, column: int) -> Image:
        """Pixels of one tile: a variant of its kind, turned by its place."""
        if not self.layout[row, column]:
            return self.patches[0][0]  # blank glass is one and the same everywhere, so that it is encoded once
        variants = self.patches[int(self.layout[row, column])]
        patch = variants[(row * 7 + column) % len(variants)]
        return np.ascontiguousarray(np.rot90(patch[:, ::-1] if (row + column) % 2 else patch, row * 3 + column))


def wedge(rows: int, columns: int, box: tuple[int, int, int, int], shares: tuple[float, float] = (0.5, 0.3)) -> Layout:
    """Lay out a wedge smear on blank glass, (rows, columns) uint8 of indices in `KINDS`.

    Parameters
    ----------
    rows, columns : int
        Tiles of the slide.
    box : tuple of int
        y0, x0, y1, x1 of the blood in tiles.
    shares : tuple of float
        Share of its length that is too thick, and that is right; the rest is the feathered edge.
    """
    layout = np.zeros((rows, columns), np.uint8)
    y0, x0, y1, x1 = box
    ends = [x0, *(x0 + round((x1 - x0) * share) for share in np.cumsum(shares)), x1]
    for kind, start, stop in zip(("thick", "right", "feathered"), ends[:-1], ends[1:], strict=True):
        layout[y0:y1, start:stop] = KINDS.index(kind)
    return layout


def generate_slide(
    layout: Layout, seed: int = 0, *, pixel_size_um: float = 0.25, stain: str = "wright-giemsa"
) -> GeneratedSlide:
    """Paint the patches that a layout needs."""
    patches = tuple(
        tuple(
            paint_patch(kind, seed + variant, pixel_size_um=pixel_size_um, stain=stain)
            for variant in range(VARIANTS if number else 1)
        )
        if number == 0 or (layout == number).any()
        else ()
        for number, kind in enumerate(KINDS)
    )
    return GeneratedSlide(layout, patches, pixel_size_um)


def write_slide(path: Path, slide: GeneratedSlide, factors: tuple[int, ...] = (4, 16)) -> Path:
    """Write a slide as a pyramidal TIFF in deflated tiles, whole or not at all.

    Parameters
    ----------
    path : Path
        ``NAME.svs`` or ``NAME.tif``.
    slide : GeneratedSlide
        What to write.
    factors : tuple of int
        Pixels of the finest level a pixel of each coarser one; they divide `TILE`.

    Returns
    -------
    Path
        `path`.
    """
    import tifffile

    height, width = slide.size
    about = f"Aperio Generated\r\n{width}x{height}|AppMag = 40|MPP = {slide.pixel_size_um:g}"
    common: dict[str, Any] = {
        "photometric": "rgb",
        "compression": "zlib",
        "dtype": np.uint8,
        "metadata": None,
        "description": about,
    }
    with replacing(path) as part, tifffile.TiffWriter(part, bigtiff=True) as file:
        for factor in (1, *factors):
            shape = (-(-height // factor), -(-width // factor), 3)
            density = (10_000 / (factor * slide.pixel_size_um),) * 2
            place: dict[str, Any] = {"resolution": density, "resolutionunit": "CENTIMETER"}
            file.write(_encoded(slide, factor), shape=shape, tile=(TILE, TILE), **place, **common)
            if factor == 1:  # the second page of an Aperio slide is a thumbnail in strips
                file.write(np.full((64, 64, 3), 255, np.uint8), **common)
    return path


def _encoded(slide: GeneratedSlide, factor: int) -> Iterator[bytes]:
    """Encoded tiles of a level, row by row; those of blank glass are encoded once."""
    rows, columns = slide.layout.shape
    glass = np.tile(_shrunk(slide.patches[0][0], factor), (factor, factor, 1))
    blank = zlib.compress(glass.tobytes(), 1)
    side = TILE // factor
    for top in range(0, rows, factor):
        for left in range(0, columns, factor):
            painted = np.argwhere(slide.layout[top : top + factor, left : left + factor])
            if not len(painted):
                yield blank
                continue
            tile = glass.copy()
            for row, column in painted.tolist():
                y, x = row * side, column * side
                tile[y : y + side, x : x + side] = _shrunk(slide.tile(top + row, left + column), factor)
            yield zlib.compress(tile.tobytes(), 1)


def _shrunk(tile: Image, factor: int) -> Image:
    """One tile in the pixels of a level."""
    side = TILE // factor
    small: Image = tile.reshape(side, factor, side, factor, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    return small
