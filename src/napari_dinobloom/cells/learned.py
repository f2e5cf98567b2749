"""The bundled segmenter: the network over a lattice of blocks, cells tile by tile.

The picture is seen at the network's own resolution, whatever its own, in blocks whose places depend on the picture's
size and scale only. A tile is what is read and finished in one go; it asks for the blocks that it needs, and since the
blocks and what is decided from them are the same for every tile size, so are the cells.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells import background, instances, stain
from napari_dinobloom.cells.instances import REACH_UM, Maps
from napari_dinobloom.cells.region import Region
from napari_dinobloom.cells.scale import Scale
from napari_dinobloom.cells.segmenter import Found
from napari_dinobloom.cells.stain import Stain, nuclear_map, stain_of
from napari_dinobloom.cells.windows import Parts, mirror
from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.masks import FieldMasks, load_masks, save_masks
from napari_dinobloom.progress import Progress, Steps

VERSION = 1

WEIGHTS = Path(__file__).parents[1] / "weights" / "segmenter.safetensors"

NETWORK_UM = 0.25
"""Micrometres per pixel that the network sees; `network.PIXEL_UM`, which this module must know without torch."""

REACH_PX = int(REACH_UM / NETWORK_UM) // 2 * 2
"""`REACH_UM` in pixels of the network, an even number."""

CORE = 448
"""Largest side of a block in pixels of the network, without its rim; a multiple of 32."""

HALO = 48
"""Rim of a block, which gives its border context."""

MIRRORED = 32
"""How far a picture goes on as its mirror image; what lies farther outside is background, as in training."""

DYE_BLUR_UM = 0.2
"""Blur of the nuclear map before nuclei are outlined."""

TILE_PX = 4096
"""Default side of a tile in pixels of the picture."""

SMALLEST_CELL_UM2 = 18.0
"""Less is no white cell: a lymphocyte of 5 um across has 20."""

SMALLEST_NUCLEUS_UM2 = 9.0
"""Less is a platelet with a dark core, or debris; the cores of the smallest erythroblasts have 10."""

Image = NDArray[np.uint8]
Float = NDArray[np.float32]
Half = NDArray[np.float16]
Box = tuple[int, int, int, int]


@lru_cache(maxsize=2)
def _network(device: str) -> Any:
    """The network, loaded once for each device."""
    from napari_dinobloom.cells.network import load_network

    return load_network(WEIGHTS, device)


@lru_cache(maxsize=1)
def weights_hash() -> str:
    """First 8 hexadecimal digits of the SHA-256 of the bundled weights."""
    return hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()[:8]


@dataclass(kw_only=True)
class LearnedSegmenter:
    """Finds white cells with the bundled network.

    Attributes
    ----------
    tile : int
        Side of a tile in pixels of the picture; decides memory, never the result.
    scratch : Path or None
        Folder that keeps the cells of finished tiles, so that a run that was stopped goes on after the last of them.
    device : str
        ``cpu`` by default, so that every machine finds the same cells.
    part : (int, int) or None
        Only the tiles of part i of n, which several processes may finish at once into one `scratch`.
    region : Region or None
        Where cells are sought; nothing else of the picture is read. A cell counts if the middle of its box lies there.
    """

    name: str = "learned"
    licence: str = ""
    tile: int = TILE_PX
    scratch: Path | None = None
    device: str = "cpu"
    part: tuple[int, int] | None = None
    region: Region | None = None

    @property
    def key(self) -> str:
        """Changes whenever the result may."""
        parts = (VERSION, instances.VERSION, background.VERSION, stain.VERSION)
        return f"learned-{'.'.join(map(str, parts))}-{weights_hash()}"

    def iter_find(self, image: Any, scale: Scale, *, light: background.Background) -> Steps[Found]:
        """Find the white cells of a picture.

        Parameters
        ----------
        image : array
            (Y, X, 3) uint8, NumPy or lazy; read tile by tile.
        scale : Scale
            Of the picture.
        light : Background
            Of the picture.

        Returns
        -------
        Found
            Cells with their nuclei, in the order of tiles.
        """
        seen = image if self.region is None else self.region.sample
        factor = NETWORK_UM / scale.pixel_size_um
        lattice = Lattice(image, light, stain_of(seen, light), factor, self.device, self.region)
        # a tile has the cells that peak in it; their middles, which lie in the region, may be across its border
        tiles = [tile for tile in lattice.tiles(self.tile) if lattice.sought(tile, REACH_PX)]
        if self.part is not None:
            number, count = self.part
            tiles = tiles[len(tiles) * number // count : len(tiles) * (number + 1) // count]
        parts = []
        for done, tile in enumerate(tiles):
            yield Progress(done, len(tiles), "white cells")
            parts.append(self._tile(lattice, tile, scale))
            lattice.forget(tile)
        return _joined(parts)

    def tiled(self, tile: int | None, scratch: Path | None) -> LearnedSegmenter:
        """Give the same with another tile size, if one is named, and a folder for finished tiles."""
        return replace(self, tile=tile or self.tile, scratch=scratch)

    def within(self, region: Region) -> LearnedSegmenter:
        """Give the same that looks for cells in a region only."""
        return replace(self, region=region)

    def _tile(self, lattice: Lattice, tile: Box, scale: Scale) -> Found:
        """Cells of one tile, from its file if it was finished before."""
        if self.scratch is None:
            return find_in(lattice, tile, scale)
        path = self.scratch / f"{tile[0]:07d}-{tile[1]:07d}.npz"
        light = (lattice.light.colour.tolist(), lattice.light.surface.tolist())
        key = f"{self.key}|{tile}|{lattice.factor!r}|{lattice.shape}|{light}"
        if self.region is not None:
            key += f"|{self.region.key}"
        try:
            masks, hints, stored = load_masks(path)
            if stored == key:
                return Found(masks, tuple(hints.split("\n")) if len(masks) else ())
        except StudyError:  # not finished yet, or damaged
            pass
        found = find_in(lattice, tile, scale)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_masks(path, found.masks, "\n".join(found.hints), key)
        return found


@dataclass
class Lattice:
    """Blocks of a picture as the network sees it, computed when they are asked for.

    Attributes
    ----------
    image : array
        (Y, X, 3) uint8.
    light : Background
        Of the picture.
    colours : Stain
        Of the picture.
    factor : float
        Pixels of the picture per pixel of the network.
    device : str
        Where the network runs.
    region : Region or None
        Where cells are sought; blocks that no cell there reaches are taken for background and never read.
    """

    image: Any
    light: background.Background
    colours: Stain
    factor: float
    device: str = "cpu"
    region: Region | None = None
    _blocks: dict[tuple[int, int], tuple[Half, Half]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.parts = Parts(self.image)
        self.full = (self.parts.height, self.parts.width)
        self.shape = tuple(int(np.ceil(n / self.factor)) for n in self.full)
        self.core = tuple(_core(n) for n in self.shape)
        self.count = tuple(-(-n // core) for n, core in zip(self.shape, self.core, strict=True))

    def tiles(self, side: int) -> Iterator[Box]:
        """Cut the network's grid into tiles of about `side` pixels of the picture: y0, x0, y1, x1, even numbers."""
        step = max(int(side / self.factor) // 2 * 2, 64)
        height, width = (n + n % 2 for n in self.shape)
        for y in range(0, height, step):
            for x in range(0, width, step):
                yield y, x, min(y + step, height), min(x + step, width)

    def sought(self, box: Box, reach: int = 0) -> bool:
        """Whether cells are sought in a part of the network's grid, or within `reach` of it."""
        if self.region is None:
            return True
        around = (box[0] - reach, box[1] - reach, box[2] + reach, box[3] + reach)
        return self.region.touches(*(n * self.factor for n in around))

    def maps(self, box: Box) -> Maps:
        """Maps of a part of the network's grid: y0, x0, y1, x1, even numbers."""
        y0, x0, y1, x1 = box
        masks = np.full((3, y1 - y0, x1 - x0), -20, np.float32)
        coarse = np.full((6, (y1 - y0) // 2, (x1 - x0) // 2), -20, np.float32)
        across = range(x0 // self.core[1], min(-(-x1 // self.core[1]), self.count[1]))
        rows = range(y0 // self.core[0], min(-(-y1 // self.core[0]), self.count[0]))
        for row in rows:
            for column in across:
                self._paste(masks, coarse, box, row, column)
        height, width = self.shape
        masks[:, max(height - y0, 0) :] = -20
        masks[:, :, max(width - x0, 0) :] = -20
        coarse[0, max(-(-(height - y0) // 2), 0) :] = -20
        coarse[0, :, max(-(-(width - x0) // 2), 0) :] = -20
        return Maps(masks[0], masks[1], coarse[0], coarse[1:3], coarse[3:], masks[2])

    def _paste(self, masks: Float, coarse: Float, box: Box, row: int, column: int) -> None:
        """Copy what a block knows of `box`."""
        place = (row, column)
        top, left = row * self.core[0], column * self.core[1]
        if not self.sought((top, left, top + self.core[0], left + self.core[1]), 2 * REACH_PX):
            return
        if place not in self._blocks:
            self._blocks[place] = self._compute(row, column)
        y0, x0 = max(box[0], top), max(box[1], left)
        y1, x1 = min(box[2], top + self.core[0]), min(box[3], left + self.core[1])
        for target, source, size in ((masks, self._blocks[place][0], 1), (coarse, self._blocks[place][1], 2)):
            target[:, (y0 - box[0]) // size : (y1 - box[0]) // size, (x0 - box[1]) // size : (x1 - box[1]) // size] = (
                source[:, (y0 - top) // size : (y1 - top) // size, (x0 - left) // size : (x1 - left) // size]
            )

    def forget(self, tile: Box) -> None:
        """Drop the blocks that no tile behind this one asks for, where tiles come row by row."""
        bottom = tile[2] - REACH_PX
        right = tile[3] - REACH_PX if tile[3] < self.shape[1] else tile[3] + self.core[1]
        for row, column in list(self._blocks):
            if (row + 1) * self.core[0] <= bottom and (column + 1) * self.core[1] <= right:
                del self._blocks[row, column]

    def _compute(self, row: int, column: int) -> tuple[Half, Half]:
        """Run the network over one block; gives logits of cell and nucleus with the dye, and the coarse maps."""
        import torch
        from scipy import ndimage as ndi

        from napari_dinobloom.cells.network import OFFSET_PX

        density = self.absorbance(row, column)
        dye = ndi.gaussian_filter(nuclear_map(density, self.colours.weight), DYE_BLUR_UM / NETWORK_UM)
        batch = torch.from_numpy(density).permute(2, 0, 1)[None].to(self.device)
        with torch.inference_mode():
            masks, coarse = _network(self.device)(batch.contiguous(memory_format=torch.channels_last))
            coarse[:, 1:3] *= OFFSET_PX / 2  # in pixels of the coarse maps
        inner, half = slice(HALO, -HALO), slice(HALO // 2, -HALO // 2)
        return (
            np.concatenate([masks[0, :, inner, inner].cpu().numpy(), dye[None, inner, inner]]).astype(np.float16),
            coarse[0, :, half, half].to("cpu", torch.float16).numpy(),
        )

    def absorbance(self, row: int, column: int) -> Float:
        """(Y, X, 3) float32 absorbance of one block with its rim, mirrored at the picture's border, 0 beyond."""
        inside, folds, beyond = [], [], []
        for place, core, size in zip((row, column), self.core, self.shape, strict=True):
            start = place * core - HALO
            index = mirror(start, core + 2 * HALO, size)
            line = np.arange(start, start + len(index))
            beyond.append((line < -MIRRORED) | (line >= size + MIRRORED))
            inside.append((int(index.min()), int(index.max()) + 1))
            folds.append(index - index.min())
        picture = self._shrunk(inside[0], inside[1])
        height, width = self.shape
        part = (inside[0][0] / height, inside[1][0] / width, inside[0][1] / height, inside[1][1] / width)
        density = background.absorbance(picture, self.light, part)[np.ix_(*folds)]
        density[beyond[0]] = 0
        density[:, beyond[1]] = 0
        return density

    def _shrunk(self, rows: tuple[int, int], columns: tuple[int, int]) -> Image:
        """Read a part of the network's grid from the picture, antialiased."""
        from PIL import Image as Pillow

        margin = int(np.ceil(self.factor)) + 2
        ends, boxes = [], []
        for (start, stop), size in zip((rows, columns), self.full, strict=True):
            first = max(int(start * self.factor) - margin, 0)
            last = min(int(np.ceil(stop * self.factor)) + margin, size)
            ends.append((first, last, max(int(np.ceil(stop * self.factor)) - last, 0)))
            boxes.append((start * self.factor - first, stop * self.factor - first))
        (y0, y1, below), (x0, x1, right) = ends
        part = np.ascontiguousarray(self.parts.part(y0, x0, y1 - y0, x1 - x0))
        if below or right:  # the last pixel of the network's grid may reach over the picture's border
            part = np.pad(part, ((0, below), (0, right), (0, 0)), mode="edge")
        small = (columns[1] - columns[0], rows[1] - rows[0])
        way = Pillow.Resampling.HAMMING if self.factor >= 2 else Pillow.Resampling.BILINEAR
        box = (boxes[1][0], boxes[0][0], boxes[1][1], boxes[0][1])
        return np.asarray(Pillow.fromarray(part).resize(small, way, box=box))


def _core(size: int) -> int:
    """Side of the blocks along an axis of `size` pixels: the fewest blocks, and those as small as they may be."""
    count = max(1, -(-size // CORE))
    return -(-size // (count * 32)) * 32


def find_in(lattice: Lattice, tile: Box, scale: Scale) -> Found:
    """Find the cells whose middle lies in a tile of the network's grid."""
    from napari_dinobloom.cells.network import FLAGS

    height, width = (n + n % 2 for n in lattice.shape)
    y0, x0 = max(tile[0] - REACH_PX, 0), max(tile[1] - REACH_PX, 0)
    around = (y0, x0, min(tile[2] + REACH_PX, height), min(tile[3] + REACH_PX, width))
    owned = (tile[0] - y0, tile[1] - x0, tile[2] - y0, tile[3] - x0)
    boxes, cells, nuclei, hints = [], [], [], []
    area = scale.pixel_size_um**2
    for instance in instances.find_instances(lattice.maps(around), owned, lattice.colours):
        drawn = instances.outline(instance, (y0, x0), lattice.factor, lattice.full)
        if drawn is None:
            continue
        box, cell, nucleus = drawn
        if lattice.region is not None and not lattice.region.holds((box[0] + box[2]) / 2, (box[1] + box[3]) / 2):
            continue
        at_border = box[0] == 0 or box[1] == 0 or box[2] == lattice.full[0] or box[3] == lattice.full[1]
        least = SMALLEST_NUCLEUS_UM2 * (0.5 if at_border else 1.0)
        if cell.sum() * area < SMALLEST_CELL_UM2 or nucleus.sum() * area < least:
            continue
        boxes.append(box)
        cells.append(cell)
        nuclei.append(nucleus)
        sure = int(instance.flags.argmax())
        hints.append(FLAGS[sure] if instance.flags[sure] > 0.5 else "")
    return Found(FieldMasks.numbered(boxes, cells, nuclei), tuple(hints))


def _joined(parts: list[Found]) -> Found:
    """Cells of all tiles, numbered anew."""
    cells = [cell for p in parts for cell in p.masks.cells]
    nuclei = [nucleus for p in parts for nucleus in p.masks.nuclei]
    masks = FieldMasks.numbered([box for p in parts for box in p.masks.boxes.tolist()], cells, nuclei)
    return Found(masks, tuple(hint for p in parts for hint in p.hints))
