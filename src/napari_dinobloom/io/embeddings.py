"""Embeddings on the disk: the vectors of cells, each under the key of the crop that it was computed from.

What one encoder made, computing in one way, is a set. It lies in blocks of up to 256 rows, one safetensors file each,
``KEY-NUMBER.safetensors``: ``X`` (rows, D) float32 and ``crops`` (rows,) uint64, the keys of the crops; the header says
in words what made them. Sets of one encoder share its folder. A block is written once and never changed.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.atomic import disk_errors, replacing, sweep
from napari_dinobloom.io.journal import now

BLOCK = 256
"""Rows of a block: what a killed process loses at most."""

Keys = NDArray[np.uint64]
Rows = NDArray[np.intp]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One file of embeddings.

    Attributes
    ----------
    path : Path
        The file.
    about : mapping of str
        Its header: ``key`` is that of the set, the rest is for people.
    crops : (rows,) array of uint64
        Key of the crop of each row.
    dim : int
        Length D of an embedding.
    """

    path: Path
    about: Mapping[str, str]
    crops: Keys
    dim: int

    def load(self) -> Float32:
        """Read the embeddings, (rows, D) float32.

        Raises
        ------
        StudyError
            If the file is gone or was damaged since it was opened.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="numpy") as file:
                values: Float32 = file.get_tensor("X")
        except (OSError, SafetensorError) as error:
            raise StudyError(f"{self.path}: cannot be read any more ({error}). Run again.") from error
        return values


def read_blocks(folder: Path) -> tuple[list[Block], list[Path]]:
    """Look at all blocks in a folder without reading their embeddings.

    Returns
    -------
    blocks : list of Block
        In the order of their names.
    damaged : list of Path
        Files that are torn, or no block of this layout.
    """
    blocks, damaged = [], []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            block = _opened(path)
        except OSError:  # it may be there again tomorrow: a network drive, too many open files
            continue
        if block is None:
            damaged.append(path)
        else:
            blocks.append(block)
    return blocks, damaged


def _opened(path: Path) -> Block | None:
    """Header and keys of a block; None if it is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about = dict(file.metadata() or {})
            if not about.get("key") or not {"X", "crops"} <= set(file.keys()):
                return None
            vectors, crops = file.get_slice("X"), file.get_tensor("crops")
            shape, kind = vectors.get_shape(), vectors.get_dtype()
    except SafetensorError:
        return None
    if crops.dtype != np.uint64 or kind != "F32" or len(shape) != 2 or crops.shape != (shape[0],):
        return None
    return Block(path, about, crops, int(shape[1]))


class EmbeddingSet:
    """What one encoder made, computing in one way: embeddings by the key of their crop.

    Parameters
    ----------
    folder : Path
        Folder of the encoder; need not exist.
    about : mapping of str
        Goes into the header of each block; ``key`` tells this set from all others.
    dim : int
        Length D of an embedding.

    Attributes
    ----------
    dim : int
        Length D of an embedding.
    """

    def __init__(self, folder: Path, about: Mapping[str, str], dim: int) -> None:
        self.dim = dim
        self._folder, self._about = folder, dict(about)
        blocks, self._damaged = read_blocks(folder)
        self._blocks = [block for block in blocks if block.about["key"] == about["key"] and block.dim == dim]

    def missing(self, crops: Keys) -> Rows:
        """Rows whose crop has no embedding yet, in order; of equal crops only the first."""
        first = np.zeros(len(crops), bool)
        first[np.unique(crops, return_index=True)[1]] = True
        rows: Rows = np.flatnonzero(first & (self._places(crops) < 0))
        return rows

    def read(self, crops: Keys) -> Float32:
        """Embeddings of crops, (n, D) float32; NaN where there is none."""
        out = np.full((len(crops), self.dim), np.nan, np.float32)
        places = self._places(crops)
        order = np.argsort(places, kind="stable")
        start = 0
        for block in self._blocks:
            stop = start + len(block.crops)
            low, high = np.searchsorted(places, (start, stop), sorter=order)
            rows = order[low:high]
            if len(rows):
                out[rows] = block.load()[places[rows] - start]
            start = stop
        return out

    def append(self, crops: Keys, values: Float32) -> None:
        """Write one block, whole or not at all."""
        from safetensors.numpy import save

        mark = uuid.uuid4().hex[:8]  # another process may be adding to the same folder
        path = self._folder / f"{self._about['key']}-{len(self._blocks):06d}-{mark}.safetensors"
        about = {**self._about, "written": now()}
        tensors: dict[str, NDArray[Any]] = {"X": np.ascontiguousarray(values, np.float32), "crops": crops.copy()}
        with disk_errors(path):
            self._folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as part:
                part.write_bytes(save(tensors, metadata=about))
        self._blocks.append(Block(path, about, tensors["crops"], self.dim))

    def tidy(self, crops: Keys) -> None:
        """Keep what these crops need: drop blocks without a row of theirs, and pack those with few rows together.

        Also torn blocks go, and what killed processes left of unfinished ones. Only for the one who may write.
        """
        sweep(self._folder)
        old = list(self._blocks)
        ends = np.cumsum([len(block.crops) for block in old])
        useful = np.split(np.isin(self._held(), crops), ends[:-1]) if old else []
        thin = [i for i, rows in enumerate(useful) if 0 < rows.sum() < BLOCK // 2]
        gone = [i for i, rows in enumerate(useful) if not rows.any()]
        if len(thin) > 1:
            kept = np.unique(np.concatenate([old[i].crops[useful[i]] for i in thin]))
            values = self.read(kept)
            for start in range(0, len(kept), BLOCK):
                self.append(kept[start : start + BLOCK], values[start : start + BLOCK])
            gone += thin
        for path in [*(old[i].path for i in gone), *self._damaged]:
            with suppress(OSError):  # it is swept the next time
                path.unlink()
        self._blocks = [block for i, block in enumerate(self._blocks) if i not in set(gone)]
        self._damaged = []

    def _places(self, crops: Keys) -> Rows:
        """For each crop its row in all blocks one after the other, -1 where it has none."""
        held = self._held()
        if not len(held):
            return np.full(len(crops), -1, np.intp)
        order = np.argsort(held, kind="stable")
        places = order[np.minimum(np.searchsorted(held, crops, sorter=order), len(held) - 1)]
        return np.where(held[places] == crops, places, -1)

    def _held(self) -> Keys:
        """Keys of the rows of all blocks, one after the other."""
        return np.concatenate([np.zeros(0, np.uint64), *(block.crops for block in self._blocks)])


class Sink:
    """Takes the embeddings of crops by slice assignment, in any order, and writes each block as soon as it is whole.

    Rows that are not finite are not kept, so that the next run tries them again.

    Parameters
    ----------
    into : EmbeddingSet
        Gets the blocks.
    crops : (n,) array of uint64
        Keys of the crops that are embedded.

    Attributes
    ----------
    shape : tuple of int
        (n, D), as an array of the embeddings would have it.
    """

    def __init__(self, into: EmbeddingSet, crops: Keys) -> None:
        self.shape, self.dtype = (len(crops), into.dim), np.dtype(np.float32)
        self._into, self._crops = into, crops
        self._open: dict[int, tuple[Float32, NDArray[np.bool_]]] = {}

    def __setitem__(self, rows: slice, values: Float32) -> None:
        start, stop, _ = rows.indices(len(self._crops))
        for first in range(start - start % BLOCK, stop, BLOCK):
            block, done = self._started(first)
            here = slice(max(start, first) - first, min(stop, first + BLOCK) - first)
            block[here] = values[max(start, first) - start : min(stop, first + BLOCK) - start]
            done[here] = True
            if done.all():
                self._write(first)

    def close(self) -> None:
        """Write what came of blocks that are not whole."""
        for first in list(self._open):
            self._write(first)

    def _started(self, first: int) -> tuple[Float32, NDArray[np.bool_]]:
        """Rows of the block that begins at a row, and which of them have come."""
        if first not in self._open:
            size = min(BLOCK, len(self._crops) - first)
            self._open[first] = np.empty((size, self.shape[1]), np.float32), np.zeros(size, bool)
        return self._open[first]

    def _write(self, first: int) -> None:
        block, done = self._open.pop(first)
        good = done & np.isfinite(block).all(axis=1)
        if good.any():
            self._into.append(self._crops[first : first + BLOCK][good], block[good])


def keys_of(texts: Sequence[str]) -> Keys:
    """Keys of crops as numbers, from their 16 hexadecimal digits.

    Raises
    ------
    ValueError
        If one is no such key.
    """
    try:
        return np.fromiter((int(text, 16) for text in texts), np.uint64, len(texts))
    except (TypeError, OverflowError) as error:
        raise ValueError(f"a key is not 16 hexadecimal digits ({error})") from error
