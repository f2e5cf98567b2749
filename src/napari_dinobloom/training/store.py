"""A store of pictures for training: 224 x 224 RGB in a few large files, read in any order.

A folder with ``index.safetensors`` (where each picture stands, its data set, class and the SHA-256 of its source) and
shards ``shard-00000.raw`` (uint8, mapped into memory) or ``.jpeg`` (one JPEG after the other). `prepare` makes it. The
rows of a data set follow each other, in the order of `Store.names`.
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from hashlib import file_digest
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.tensors import read_tensors

SIDE = 224
BYTES = SIDE * SIDE * 3
INDEX = "index.safetensors"
KIND = "picture store"
ARRAYS = {
    "shard": "int32",
    "start": "int64",
    "length": "int64",
    "dataset": "int32",
    "label": "int32",
    "sha256": "uint8",
}
"""Arrays (n,) of the index and their types; ``sha256`` is (n, 32)."""


class Store:
    """A store, opened for reading; make one with `open`.

    Attributes
    ----------
    folder : Path
        Where it lies.
    names : list of str
        Data sets.
    sizes : list of int
        Pictures of each.
    classes : list of str
        Class names.
    labels : ndarray
        (n,) int32, index into `classes`, -1 where the class is not known.
    sha256 : ndarray
        (n, 32) uint8, of the source file of each picture.
    about : dict
        Format, kernel and what else `prepare` wrote.
    """

    def __init__(self, folder: Path, arrays: dict[str, NDArray[Any]], about: dict[str, Any], threads: int) -> None:
        self.folder, self.about = folder, about
        self.names: list[str] = about["names"]
        self.classes: list[str] = about["classes"]
        self.sizes: list[int] = np.bincount(arrays["dataset"], minlength=len(self.names)).tolist()
        self.labels: NDArray[np.int32] = arrays["label"]
        self.sha256: NDArray[np.uint8] = arrays["sha256"]
        self._shard, self._start, self._length = arrays["shard"], arrays["start"], arrays["length"]
        self._maps: dict[int, NDArray[np.uint8]] = {}
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None

    @classmethod
    def open(cls, folder: str | Path, threads: int = 1) -> Self:
        """Open a store; shards are opened when they are read.

        Parameters
        ----------
        folder : str or Path
            What `prepare` made.
        threads : int, default: 1
            Threads that decode JPEGs.

        Raises
        ------
        InputError
            If it is no store, is unfinished or damaged, or a shard is missing or of another length.
        """
        folder = Path(folder)
        if not (folder / INDEX).is_file():
            raise InputError(f"{folder}: holds no finished store (no {INDEX}). Make it with training.prepare.")
        arrays, about = read_tensors(folder / INDEX, KIND, ARRAYS, InputError)
        for shard in about["shards"]:
            path = folder / shard["name"]
            if not path.is_file() or path.stat().st_size != shard["bytes"]:
                raise InputError(f"{path}: is missing or not {shard['bytes']:,} bytes long. Delete {INDEX} and the "
                                 "shard's two files and run the same prepare again.")  # fmt: skip
        return cls(folder, arrays, about, threads)

    def __len__(self) -> int:
        return len(self._shard)

    def __reduce__(self) -> tuple[Any, ...]:
        return Store.open, (self.folder, self._threads)

    def read(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Read pictures.

        Parameters
        ----------
        rows : ndarray of int
            (n,) rows in any order, also several times.

        Returns
        -------
        ndarray
            (n, 224, 224, 3) uint8 RGB.

        Raises
        ------
        IndexError
            If a row is not in the store.
        InputError
            If a JPEG is damaged.
        """
        rows = np.asarray(rows, np.int64).reshape(-1)
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} asked of a store of {len(self)} pictures")
        out = np.empty((len(rows), SIDE, SIDE, 3), np.uint8)
        order = np.lexsort((self._start[rows], self._shard[rows]))  # a disk is read forwards
        for number in np.unique(self._shard[rows]).tolist():
            if number not in self._maps:
                path = self.folder / self.about["shards"][number]["name"]
                self._maps[number] = np.memmap(path, np.uint8, mode="r")
        if self._threads > 1 and self.about["format"] == "jpeg":
            self._pool = self._pool or ThreadPoolExecutor(self._threads)
            list(self._pool.map(lambda part: self._fill(rows, part, out), np.array_split(order, 4 * self._threads)))
        else:
            self._fill(rows, order, out)
        return out

    def _fill(self, rows: NDArray[np.int64], places: NDArray[np.intp], out: NDArray[np.uint8]) -> None:
        """Write the pictures of some places of `rows` into `out`."""
        raw = self.about["format"] == "raw"
        for place in places.tolist():
            row = rows[place]
            start = int(self._start[row])
            data = self._maps[int(self._shard[row])][start : start + int(self._length[row])]
            out[place] = data.reshape(SIDE, SIDE, 3) if raw else self._decoded(data, int(row))

    def _decoded(self, data: NDArray[np.uint8], row: int) -> NDArray[np.uint8]:
        """Decode a JPEG."""
        from PIL import Image

        try:
            with Image.open(io.BytesIO(data.tobytes()), formats=["JPEG"]) as picture:
                return np.asarray(picture.convert("RGB")).reshape(SIDE, SIDE, 3)
        except (OSError, ValueError, SyntaxError) as error:
            raise InputError(f"{self.folder}: row {row} is damaged ({error}). Run prepare with --verify.") from error


def verify(folder: str | Path) -> list[str]:
    """Compare every shard with the SHA-256 taken when it was written, and the index with the shards' lengths.

    Returns
    -------
    list of str
        What is wrong and what to do, a line each; empty for a sound store.

    Raises
    ------
    InputError
        As `Store.open`.
    """
    store = Store.open(folder)
    problems = []
    for number, shard in enumerate(store.about["shards"]):
        path = store.folder / shard["name"]
        with path.open("rb") as handle:
            if file_digest(handle, "sha256").hexdigest() != shard["sha256"]:
                problems.append(f"{path}: has changed since it was written. Delete it with its .json, prepare again.")
        of_it = store._shard == number
        ends = store._start[of_it] + store._length[of_it]
        if (store._start[of_it] < 0).any() or (ends > shard["bytes"]).any():
            problems.append(f"{store.folder / INDEX}: points beyond {shard['name']}. Delete it, prepare again.")
    return problems
