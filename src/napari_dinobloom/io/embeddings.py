"""Embeddings on the disk: the vectors of cells, each under the key of the crop that it was computed from.

What one encoder made, computing in one way, is a set. It lies in blocks of up to 256 rows, one safetensors file each,
``KEY-NUMBER.safetensors``: ``X`` (rows, D) float32 and ``crops`` (rows,) uint64, the keys of the crops; the header says
in words what made them. Where it says ``embeddings: bf16``, ``X`` holds the upper 16 bits of each number as uint16.
Sets of one encoder share its folder. A block is written once and never changed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.atomic import disk_errors, replacing, sweep
from napari_dinobloom.io.journal import now
from napari_dinobloom.io.vectors import FLOAT32

BLOCK = 256
"""Rows of a block: what a killed process loses at most."""

KEPT, BF16 = "embeddings", "bf16"
"""In the header of a block: how its numbers are kept."""

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
                values = file.get_tensor("X")
        except (OSError, SafetensorError) as error:
            raise StudyError(f"{self.path}: cannot be read any more ({error}). Run again.") from error
        return widened(values) if values.dtype == np.uint16 else values


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
    if (
        crops.dtype != np.uint64
        or kind != ("U16" if about.get(KEPT) == BF16 else "F32")
        or len(shape) != 2
        or crops.shape != (shape[0],)
    ):
        return None
    return Block(path, about, crops, int(shape[1]))


def write_block(folder: Path, about: Mapping[str, str], name: str, crops: Keys, values: Float32) -> Block:
    """Write one block of a set, whole or not at all; one of the same name is replaced.

    Parameters
    ----------
    folder : Path
        Folder of the encoder; made if need be.
    about : mapping of str
        Header; ``key`` is that of the set, ``embeddings`` may be ``bf16``.
    name : str
        Tells the block from others of its set.
    crops : (rows,) array of uint64
        Keys of the crops.
    values : (rows, D) array of float32
        Their embeddings.
    """
    from safetensors.numpy import save

    path = folder / f"{about['key']}-{name}.safetensors"
    about = {**about, "written": now()}
    kept = halved(values) if about.get(KEPT) == BF16 else np.ascontiguousarray(values, np.float32)
    tensors: dict[str, NDArray[Any]] = {"X": kept, "crops": crops.copy()}
    with disk_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_bytes(save(tensors, metadata=about))
    return Block(path, about, tensors["crops"], values.shape[1])


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
        return self._read(self._places(crops), self._ends())

    def rows(self, crops: Keys) -> Embedded:
        """The same as an array that is read when it is sliced; not after `tidy`."""
        return Embedded(partial(self._read, ends=self._ends()), self._places(crops), (len(crops), self.dim))

    def _ends(self) -> Rows:
        """Row behind each block, in all blocks one after the other."""
        return np.cumsum([len(block.crops) for block in self._blocks], dtype=np.intp)

    def _read(self, places: Rows, ends: Rows) -> Float32:
        """Embeddings by their row in all blocks, of which only those are looked at that have one; NaN for -1."""
        out = np.full((len(places), self.dim), np.nan, np.float32)
        order = np.argsort(places, kind="stable")
        order = order[np.searchsorted(places, 0, sorter=order) :]
        numbers = np.searchsorted(ends, places[order], side="right")
        for rows in np.split(order, np.flatnonzero(np.diff(numbers)) + 1) if len(order) else ():
            number = int(np.searchsorted(ends, places[rows[0]], side="right"))
            block = self._blocks[number]
            out[rows] = block.load()[places[rows] - (ends[number] - len(block.crops))]
        return out

    def append(self, crops: Keys, values: Float32) -> None:
        """Write one block, whole or not at all."""
        mark = uuid.uuid4().hex[:8]  # another process may be adding to the same folder
        self._blocks.append(write_block(self._folder, self._about, f"{len(self._blocks):06d}-{mark}", crops, values))

    def tidy(self, crops: Keys) -> None:
        """Keep what these crops need: drop blocks without a row of theirs, and pack those with few rows together.

        Also torn blocks go, and what killed processes left of unfinished ones. Only for the one who may write.
        """
        sweep(self._folder)
        old = list(self._blocks)
        useful = np.split(np.isin(self._held(), crops), self._ends()[:-1]) if old else []
        thin = [i for i, rows in enumerate(useful) if 0 < rows.sum() < BLOCK // 2]
        gone = [i for i, rows in enumerate(useful) if not rows.any()]
        if len(thin) > 1:
            held = np.isin(crops, np.concatenate([old[i].crops[useful[i]] for i in thin]))
            kept = pd.unique(crops[held])  # in the order of the cells, so that neighbours are read together
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


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """Embeddings of crops as an array (n, D) float32 that is sliced along its rows and read then; see `EmbeddingSet`.

    `places`: row of each in all blocks, one after the other.
    """

    read: Callable[[Rows], Float32]
    places: Rows
    shape: tuple[int, int]
    dtype: np.dtype[Any] = FLOAT32
    ndim: int = 2

    def __getitem__(self, part: Any) -> Float32:
        rows, columns = part if isinstance(part, tuple) else (part, slice(None))
        return self.read(self.places[rows])[:, columns]


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


def halved(values: Float32) -> NDArray[np.uint16]:
    """Numbers in bf16, rounded to the nearest, of two the even one: the upper halves of their bits."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def widened(halves: NDArray[np.uint16]) -> Float32:
    """Numbers of `halved` as float32."""
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)


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
