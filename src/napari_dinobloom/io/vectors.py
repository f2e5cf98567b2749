"""The embeddings of a cell table: in memory where they are few, else on the disk and read block by block.

``X`` of a table of more than `LAZY` bytes is a dask array over its dataset in ``cells.h5ad``; slices of it, and
``np.asarray(X)``, read what they name. Everything in this package asks `Vectors`, which gives rows of either kind.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.errors import StudyError

if TYPE_CHECKING:
    from anndata import AnnData

LAZY = 1 << 30
"""Bytes of ``X`` above which it stays on the disk: 350,000 cells of DinoBloom-B, 700,000 of DinoBloom-S."""

ROWS = 4096
"""Rows that are read at once."""

MARK = "dinobloom_made"
"""Attribute of the dataset ``X``: another one for each set of embeddings that was written."""

AT_ONCE = 200_000
"""Cells that are held in memory together where something needs all cells of a slide, or a sample of all."""

FLOAT32 = np.dtype(np.float32)
Float32 = NDArray[np.float32]
Rows = NDArray[np.integer[Any]]
Mask = NDArray[np.bool_]


class Vectors:
    """Embeddings of some cells of a table, read when they are asked for: (n, D) float32.

    Parameters
    ----------
    X : (N, D) array of float
        ``X`` of a cell table: an array, a sparse matrix or a dask array.
    rows : (n,) array of int, optional
        Rows of `X` to take; by default all.

    Attributes
    ----------
    shape : tuple of int
        (n, D), as an array of them would have it.
    lazy : bool
        Whether they lie on the disk.
    """

    def __init__(self, X: Any, rows: Rows | None = None) -> None:
        self._table = X.toarray() if hasattr(X, "toarray") else X
        self._rows = rows
        self.lazy = not isinstance(self._table, np.ndarray)
        self.shape = (len(self._table) if rows is None else len(rows), int(self._table.shape[1]))

    @classmethod
    def of(cls, adata: AnnData) -> Vectors:
        """Embeddings of all cells of a table.

        Raises
        ------
        ValueError
            If the table has none.
        """
        if adata.X is None:
            raise ValueError("The table has no embeddings in X; embed the cells first.")
        return cls(adata.X)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice | Rows | Mask) -> Float32:
        """Some rows, in the order in which they are named, as numpy understands slices, numbers and masks.

        Raises
        ------
        IndexError
            If there is no such row, or a mask has another length.
        """
        part = part if isinstance(part, slice) else numbered(part, len(self))
        if self._rows is not None:
            part = self._rows[part]
        if not self.lazy:
            return np.asarray(self._table[part], np.float32)
        if isinstance(part, slice):
            return computed(self._table[part])
        out = np.empty((len(part), self.shape[1]), np.float32)
        order = np.argsort(part, kind="stable")
        for few in np.split(order, np.flatnonzero(np.diff(part[order] // ROWS)) + 1):
            if len(few):
                low, high = int(part[few[0]]), int(part[few[-1]]) + 1
                out[few] = computed(self._table[low:high])[part[few] - low]
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All of them in memory."""
        return np.asarray(self[:], dtype)

    def take(self, rows: Rows | Mask) -> Vectors:
        """Some of these, still not read."""
        rows = numbered(rows, len(self))
        return Vectors(self._table, rows if self._rows is None else self._rows[rows])

    def blocks(self, size: int = ROWS) -> Iterator[tuple[slice, Float32]]:
        """All of them, up to `size` rows at a time, each with its place."""
        for start in range(0, len(self), size):
            part = slice(start, min(start + size, len(self)))
            yield part, self[part]

    def finite(self) -> NDArray[np.bool_]:
        """Which rows are without undefined numbers, (n,)."""
        found = np.zeros(len(self), bool)
        for part, block in self.blocks():
            found[part] = np.isfinite(block).all(axis=1)
        return found


class Changed(Vectors):
    """Embeddings that are changed when they are read, each row by itself.

    Parameters
    ----------
    base : Vectors
        What is read.
    change : callable
        Given rows (m, D) and which of `base` they are, a slice or (m,) array of int; returns (m, D) float32.
    """

    def __init__(self, base: Vectors, change: Callable[[Float32, slice | Rows], Float32]) -> None:
        self._base, self._change = base, change
        self.lazy, self.shape = base.lazy, base.shape

    def __getitem__(self, part: slice | Rows | Mask) -> Float32:
        """Some rows, changed."""
        part = part if isinstance(part, slice) else numbered(part, len(self))
        return self._change(self._base[part], part)

    def take(self, rows: Rows | Mask) -> Vectors:
        """Some of these, still neither read nor changed."""
        rows = numbered(rows, len(self))
        return Changed(self._base.take(rows), lambda block, part: self._change(block, rows[part]))


def rows_in(table: Vectors | Float32, rows: Rows) -> Vectors | Float32:
    """Some rows of a table: read where it is in memory, else still not."""
    return table.take(rows) if isinstance(table, Vectors) else np.ascontiguousarray(table[rows])


def numbered(rows: Rows | Mask, count: int) -> Rows:
    """Rows as numbers from 0: of a mask those that are true, negative ones counted from the end.

    Raises
    ------
    IndexError
        If one is not among `count` rows, or a mask has another length.
    """
    named: NDArray[Any] = np.asarray(rows)
    if named.dtype == bool:
        if named.shape != (count,):
            raise IndexError(f"A mask of shape {named.shape} for {count} rows.")
        return np.flatnonzero(named)
    if not named.size:
        return named.astype(np.intp)
    if named.min() < -count or named.max() >= count:
        raise IndexError(f"Rows {named.min()} to {named.max()} are asked for; there are {count}.")
    return np.where(named < 0, named + count, named) if named.min() < 0 else named


def computed(array: Any) -> Float32:
    """A dask array in memory, read by this thread, whatever scheduler a caller has for his own work."""
    return np.asarray(array.compute(scheduler="synchronous"), np.float32)


def lazy(source: Any, name: str) -> Any:
    """Dask array over anything that is sliced along its rows; equal names stand for equal numbers."""
    import dask.array

    meta = np.empty((0, 0), np.float32)
    return dask.array.from_array(source, (ROWS, source.shape[1]), name=name, fancy=False, inline_array=True, meta=meta)


@dataclass(frozen=True, slots=True)
class StoredRows:
    """The dataset ``X`` of a cell table as an array that is sliced along its rows.

    It is opened for each slice, so that the table can be replaced meanwhile, also on Windows. Other embeddings are told
    by their mark; where another program wrote the table, by `stamp`, which is empty else.
    """

    path: Path
    mark: str
    stamp: tuple[int, ...]
    shape: tuple[int, int]
    dtype: np.dtype[Any] = FLOAT32
    ndim: int = 2

    def __getitem__(self, part: Any) -> Float32:
        import h5py  # type: ignore[import-untyped]

        try:
            with h5py.File(self.path, "r") as file:
                found = own_x(file)
                if found is None:
                    raise StudyError(f"{self.path}: its X is no array that lies in this file. Get the study again.")
                here = mark_of(found), stamp_of(self.path, self.mark), found.shape
                if here != (self.mark, self.stamp, self.shape):
                    raise StudyError(
                        f"{self.path}: holds other embeddings than when the table was read. Take `study.cells` anew."
                    )
                return np.asarray(found[part], np.float32)
        except (OSError, KeyError) as error:
            raise StudyError(f"{self.path}: its embeddings cannot be read any more ({error}).") from error


def own_x(file: Any) -> Any:
    """Dataset ``X`` of an open table, which may have been replaced since it was checked; None if it is not in there."""
    import h5py

    found = file["X"] if isinstance(file.get("X", getlink=True), h5py.HardLink) else None
    own = isinstance(found, h5py.Dataset) and not found.external and not found.is_virtual
    return found if own else None


def stamp_of(path: Path, mark: str) -> tuple[int, ...]:
    """What tells a table whose embeddings have no mark from any that comes into its place; empty where they have."""
    if mark:
        return ()
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def mark_of(dataset: Any) -> str:
    """What tells the embeddings of a table from all others; empty where another program wrote them."""
    found = dataset.attrs.get(MARK, "")
    return found if isinstance(found, str) else ""


def stays(dataset: Any) -> bool:
    """Whether an HDF5 object is a dense ``X`` that is read lazily."""
    return hasattr(dataset, "shape") and len(dataset.shape) == 2 and dataset.shape[0] * dataset.shape[1] * 4 > LAZY


def stored(path: Path) -> Any:
    """Lazy ``X`` of a table on the disk; StudyError if it is no array of numbers."""
    import h5py

    with h5py.File(path, "r") as file:
        found = own_x(file)
        if found is None or found.dtype.kind not in "fiu":
            raise StudyError("X is no array of numbers.")
        mark = mark_of(found)
        rows = StoredRows(path, mark, stamp_of(path, mark), tuple(found.shape))
    return lazy(rows, f"{MARK}-{rows.mark or uuid.uuid4().hex}")


def write(group: Any, X: Any, before: Path) -> None:
    """Write ``X`` of a table block by block, or copy it where `before` holds it already.

    Parameters
    ----------
    group : h5py.Group
        Root of the new file.
    X : (n, D) array or dask array
        Embeddings.
    before : Path
        The table that is going to be replaced.
    """
    import h5py

    if hasattr(X, "dask") and before.exists():
        with h5py.File(before, "r") as old:
            found = own_x(old)
            if found is not None and X.name == f"{MARK}-{mark_of(found)}" and found.shape == X.shape:
                old.copy(found, group, "X")
                return
    data = group.create_dataset("X", X.shape, np.float32)
    data.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0", MARK: uuid.uuid4().hex})
    for part, block in Vectors(X).blocks():
        data[part] = block
