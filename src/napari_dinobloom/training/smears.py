"""Fields that the segmentation network learns from: generated smears and BCCD's even-numbered fields, with their truth.

A generated field is kept as amounts of six substances instead of colours, so that each time it is seen it can be
stained anew. Only even-numbered BCCD fields are read, since the odd ones are judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_dinobloom.cells import background
from napari_dinobloom.io.canvas import STAINS, Canvas, Float, edge, wobble
from napari_dinobloom.io.cell_types import CELL_TYPES
from napari_dinobloom.io.painting import add_platelets, add_red_cells, add_white_cells, draw_red_cell

SUBSTANCES = ("red", "nucleus", "cytoplasm", "blue", "eosin", "basophil", "grey")
"""Channels of a generated field; ``grey`` is dirt."""

FULL = 80.0
"""Amounts are stored as uint8 after multiplication with this."""

PAINTED_UM = 0.125
SIDE_UM = 132.0
BCCD_UM = 0.083
"""Micrometres per pixel of the BCCD set: median of what its red cells tell over the even fields."""

SMALLEST_MASK_PX = 500


@dataclass(frozen=True, slots=True)
class Field:
    """One field with its truth, at one resolution.

    Attributes
    ----------
    amounts : numpy.ndarray
        (Y, X, C) uint8 amounts of `SUBSTANCES`, or (Y, X, 3) float16 absorbance of a photograph.
    labels : numpy.ndarray
        (Y, X) int16 white cells, 0 is none.
    nuclei : numpy.ndarray
        (Y, X) bool.
    centres : numpy.ndarray
        (n + 1, 2) float32 y, x of each cell's visible part; row 0 is unused.
    flags : numpy.ndarray
        (Y, X) uint8: 0 none, else 1 + index into `cells.network.FLAGS`.
    pixel_um : float
        Micrometres per pixel.
    vectors : numpy.ndarray or None
        (2, 3) colour of nuclei and of red cells of a photograph.
    """

    amounts: NDArray[np.uint8] | NDArray[np.float16]
    labels: NDArray[np.int16]
    nuclei: NDArray[np.bool_]
    centres: Float
    flags: NDArray[np.uint8]
    pixel_um: float
    vectors: Float | None = None

    def halved(self) -> Field:
        """Give the same at half the resolution."""
        height, width = (n // 2 * 2 for n in self.labels.shape)

        def parts(array: NDArray[np.generic]) -> NDArray[np.generic]:
            return array[:height, :width].reshape(height // 2, 2, width // 2, 2, *array.shape[2:])

        amounts = parts(self.amounts.astype(np.float32)).mean(axis=(1, 3))
        amounts = np.rint(amounts) if self.amounts.dtype == np.uint8 else amounts
        return Field(
            amounts.astype(self.amounts.dtype),
            np.where(parts(self.labels > 0).mean(axis=(1, 3)) >= 0.5, parts(self.labels).max(axis=(1, 3)), 0),
            parts(self.nuclei).mean(axis=(1, 3)) >= 0.5,
            np.asarray((self.centres - 0.5) / 2, np.float32),
            parts(self.flags).max(axis=(1, 3)),
            self.pixel_um * 2,
            self.vectors,
        )

    def around_one_cell(self, rng: np.random.Generator) -> Field:
        """Give a window of 17 to 40 um around one of the cells; the field itself where it has none."""
        if len(self.centres) < 2:
            return self
        sides = np.exp(rng.uniform(np.log(17), np.log(40), 2)) / self.pixel_um
        middle = self.centres[int(rng.integers(1, len(self.centres)))] + rng.normal(0, 1.5 / self.pixel_um, 2)
        spans = []
        for place, side, size in zip(middle, sides, self.labels.shape, strict=True):
            start = int(np.clip(place - side / 2, 0, max(size - side, 0)))
            spans.append(slice(start, min(start + int(side), size)))
        window = tuple(spans)
        labels = self.labels[window]
        return Field(
            self.amounts[window], labels, self.nuclei[window], _centres(labels, len(self.centres) - 1),
            self.flags[window], self.pixel_um, self.vectors,
        )  # fmt: skip


class _Palette(Canvas):
    """A canvas that counts substances instead of mixing their colours."""

    def __init__(self, side: int, pixel_um: float, rng: np.random.Generator) -> None:
        super().__init__(side, side, pixel_um, STAINS["wright-giemsa"], rng)
        self.density = np.zeros((side, side, len(SUBSTANCES)), np.float32)
        self.colour = {name: np.eye(len(SUBSTANCES), dtype=np.float32)[i] for i, name in enumerate(SUBSTANCES)}
        self.variety = 1.0
        self.flags = np.zeros((side, side), np.uint8)


def paint_field(seed: int) -> Field:
    """Paint one field of white cells of every type, with artefacts; same seed, same field."""
    rng = np.random.default_rng([20261124, seed])
    canvas = _Palette(round(SIDE_UM / PAINTED_UM), PAINTED_UM, rng)
    share = rng.dirichlet(np.full(len(CELL_TYPES), 0.6))
    wanted = int(rng.choice([0, 3, 8, 16, 30, 48], p=[0.06, 0.14, 0.25, 0.25, 0.2, 0.1]))
    mixture = dict(zip(CELL_TYPES, share, strict=True))
    mixture["smudge"] = min(mixture["smudge"], 0.12)
    classes = add_white_cells(canvas, wanted, rng.uniform(0, 0.85), mixture)
    smudged = np.array([0] + [name == "smudge" for name in classes], bool)
    canvas.flags[smudged[canvas.labels]] = 1
    if rng.random() < 0.6:
        _press_red_cells(canvas)
    add_red_cells(canvas, rng.choice([0.0, rng.uniform(0.05, 0.75)], p=[0.08, 0.92]))
    add_platelets(canvas)
    for _ in range(int(rng.poisson(1.5))):
        _add_clump(canvas)
    for _ in range(int(rng.poisson(0.8))):
        _add_precipitate(canvas)
    _add_dirt(canvas)
    amounts = np.clip(np.rint(canvas.density * FULL), 0, 255).astype(np.uint8)
    labels = canvas.labels.astype(np.int16)
    return Field(amounts, labels, canvas.nuclei > 0, _centres(labels), canvas.flags, PAINTED_UM)


def _press_red_cells(canvas: _Palette) -> None:
    """Lay red cells all around some of the white ones, pressed against them, as where a smear is thick."""
    rng = canvas.rng
    centres = _centres(canvas.labels.astype(np.int16))[1:]
    areas = np.bincount(canvas.labels.ravel())[1:]
    for (y, x), area in zip(centres * PAINTED_UM, areas, strict=False):
        if not area or rng.random() < 0.5:
            continue
        reach = float(np.sqrt(area / np.pi)) * PAINTED_UM
        for angle in rng.uniform(0, 2 * np.pi) + np.arange(rng.integers(1, 8)) * rng.uniform(0.7, 1.2):
            radius = float(rng.normal(3.75, 0.3))
            far = reach + radius * rng.uniform(0.3, 1.0)
            draw_red_cell(canvas, float(y + far * np.sin(angle)), float(x + far * np.cos(angle)), radius)


def _add_clump(canvas: _Palette) -> None:
    """Draw platelets of all sizes side by side, as they lie where blood began to clot; single giant ones too."""
    rng = canvas.rng
    y, x = rng.uniform(0, SIDE_UM, 2)
    count = int(rng.choice([1, 3, 8, 20]))
    for _ in range(count):
        radius = float(rng.uniform(0.9, 3.0 if count == 1 else 1.8))
        spread = 0.9 * count**0.5
        where, dy, dx = canvas.window(y + rng.normal(0, spread), x + rng.normal(0, spread), 1.5 * radius)
        if 0 in canvas.labels[where].shape or (canvas.labels[where] > 0).any():
            continue
        cover = edge(radius * wobble(rng, dy, dx, 0.15) - np.hypot(dy, dx), 0.4)
        grainy = np.clip(rng.uniform(0.1, 0.5) + 0.25 * canvas.grain(cover.shape, rng.uniform(0.15, 0.3)), 0.05, 1)
        canvas.density[where] += (cover * grainy)[..., None] * canvas.colour["basophil"]
        canvas.density[where] += (0.6 * cover)[..., None] * canvas.colour["cytoplasm"]
        if count > 2:
            canvas.flags[where][cover > 0.5] = 2


def _add_precipitate(canvas: _Palette) -> None:
    """Strew the dark dots that dried stain leaves, over cells and background alike."""
    from scipy import ndimage as ndi

    rng, px = canvas.rng, canvas.pixel_um
    reach = float(rng.uniform(3, 15))
    where, dy, dx = canvas.window(rng.uniform(0, SIDE_UM), rng.uniform(0, SIDE_UM), reach)
    if 0 in canvas.labels[where].shape:
        return
    near = np.exp(-((dy / reach) ** 2 + (dx / reach) ** 2) * 2)
    seeds = (rng.random(near.shape) < rng.uniform(0.2, 2.0) * px * px * near).astype(np.float32)
    sigma = float(rng.uniform(0.12, 0.35)) / px
    dots = np.minimum(ndi.gaussian_filter(seeds, sigma) * (2 * np.pi * sigma * sigma), 1.5)
    canvas.density[where] += (dots * rng.uniform(0.6, 1.6))[..., None] * canvas.colour["basophil"]
    crowded = ndi.uniform_filter((dots > 0.3).astype(np.float32), round(1.5 / px)) > 0.15
    canvas.flags[where][crowded & (canvas.labels[where] == 0)] = 3


def _add_dirt(canvas: _Palette) -> None:
    """Add grey specks and out-of-focus shadows."""
    rng = canvas.rng
    for _ in range(int(rng.poisson(2))):
        radius = float(rng.uniform(0.5, 4.0))
        where, dy, dx = canvas.window(rng.uniform(0, SIDE_UM), rng.uniform(0, SIDE_UM), 2 * radius)
        if 0 in canvas.labels[where].shape:
            continue
        soft = float(rng.uniform(0.3, 2.0))
        cover = edge(radius * wobble(rng, dy, dx, 0.2) - np.hypot(dy, dx), soft)
        canvas.density[where] += (cover * rng.uniform(0.1, 0.8))[..., None] * canvas.colour["grey"]


def _centres(labels: NDArray[np.int16], count: int | None = None) -> Float:
    """Middle of each label, row 0 unused."""
    from scipy import ndimage as ndi

    count = int(labels.max(initial=0)) if count is None else count
    centres = np.zeros((count + 1, 2), np.float32)
    present = np.unique(labels[labels > 0])
    if len(present):
        centres[present] = ndi.center_of_mass(labels > 0, labels, present)
    return centres


def read_bccd(image: Path, masks: Path) -> Field:
    """Read one BCCD field; connected pieces of its mask are its cells."""
    from scipy import ndimage as ndi

    with Image.open(image) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    with Image.open(masks / f"{image.stem}.png") as picture:
        mask = np.asarray(picture)
    mask = mask[..., 0] if mask.ndim == 3 else mask
    pieces, count = ndi.label(mask > 0)
    small = np.bincount(pieces.ravel(), minlength=count + 1) < SMALLEST_MASK_PX
    labels = np.where(small[pieces], 0, pieces).astype(np.int16)
    density = background.absorbance(pixels, background.find_background(pixels))
    nuclei = (mask == 2) & (labels > 0)
    vectors = np.array([[1.1, 1.2, 0.25], [0.2, 0.4, 0.25]], np.float32)
    stained = (density.mean(axis=-1) > 0.08) & ~ndi.binary_dilation(mask > 0, iterations=8)
    for row, where in ((0, nuclei), (1, stained)):
        if where.sum() > 500:
            vectors[row] = np.median(density[where], axis=0)
    flags = np.zeros(labels.shape, np.uint8)
    return Field(density.astype(np.float16), labels, nuclei, _centres(labels), flags, BCCD_UM, vectors)


def even_fields(data: Path) -> list[Path]:
    """Even-numbered BCCD pictures, sorted."""
    return [p for p in sorted((data / "bccd" / "images").glob("*.jpg")) if int(p.stem[-5:]) % 2 == 0]


def paint_fields(seeds: range, jobs: int) -> Iterator[Field]:
    """Paint fields in several processes, in order."""
    with Pool(jobs) as pool:
        yield from pool.imap(paint_field, seeds, 2)
