"""``crops.zarr``: one 224 x 224 picture per cell, row for row with the cell table, in a few large files.

A Zarr array in shards of 1,024 rows, in chunks of 64, not compressed: a file is the pictures of its rows one after the
other, and behind them the index of its chunks, so that each picture is read and written at its place. ``keys.npy``
beside the files holds the key of each row. Stores of before (a file for each chunk, keys in the attributes) are read as
they are; they become shards when crops are next cut.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.embeddings import Keys, Rows, keys_of

ROWS = 64
"""Rows of a chunk."""
CHUNKS = 16
"""Chunks of a shard: 147 MiB."""
SHAPE = (224, 224, 3)
BYTES_EACH = 224 * 224 * 3
KEYS = "keys.npy"
BLACK = 0
"""Key of a crop that could not be cut."""
EMPTY = 2**64 - 1
"""Offset and length of a chunk that a shard does not have, in its index."""

Pictures = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class CropFiles:
    """The files of a store of crops.

    Attributes
    ----------
    folder : Path
        The store, or a folder with some of its files.
    count : int
        Rows of the store.
    per_file : int
        Rows of a file.
    sharded : bool
        Whether there is an index behind them; else a file is one chunk.
    """

    folder: Path
    count: int
    per_file: int
    sharded: bool = True

    @classmethod
    def create(cls, folder: Path, count: int) -> CropFiles:
        """Make an empty store, to be filled by `write` and `take` and ended by `finish`."""
        import zarr

        zarr.create_array(
            folder,
            shape=(count, *SHAPE),
            shards=(CHUNKS * ROWS, *SHAPE),
            chunks=(ROWS, *SHAPE),
            dtype="uint8",
            compressors=None,
            chunk_key_encoding={"name": "default", "separator": "."},
        )
        return cls(folder, count, CHUNKS * ROWS)

    @classmethod
    def of(cls, folder: Path) -> CropFiles:
        """The files of a store that is there.

        Raises
        ------
        StudyError
            If there is none, or it is not as described above.
        """
        path = folder / "zarr.json"
        try:
            found = path.stat()
            return _described(path, found.st_mtime_ns, found.st_ino)
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise StudyError(f"{folder}: there are no readable crops; run `napari-dinobloom crop`.") from error

    def numbers(self) -> range:
        """Numbers of the files."""
        return range(-(-self.count // self.per_file))

    def path(self, number: int) -> Path:
        """A file."""
        return self.folder / (f"c.{number}.0.0.0" if self.sharded else f"c/{number}/0/0/0")

    def size(self, number: int) -> int:
        """Bytes of a file that is whole."""
        return self._pictures(number) + (16 * (self.per_file // ROWS) + 4 if self.sharded else 0)

    def whole(self) -> NDArray[np.bool_]:
        """Tell for each row whether its file is there and whole, (n,) bool."""
        found = np.zeros(self.count, bool)
        for number in self.numbers():
            found[number * self.per_file :][: self.per_file] = self._is_whole(number)
        return found

    def keys(self) -> Keys:
        """Key of each row, (n,) uint64.

        Raises
        ------
        StudyError
            If there are none that can be used.
        """
        path = self.folder / KEYS
        try:
            if path.is_file() or self.sharded:
                keys = np.load(path, allow_pickle=False)
            else:
                about = json.loads((self.folder / "zarr.json").read_text(encoding="utf-8"))
                keys = keys_of(about["attributes"]["rows"])
            if keys.shape != (self.count,) or keys.dtype != np.uint64:
                raise ValueError(f"{keys.dtype} {keys.shape} for {self.count} rows")
        except (OSError, EOFError, ValueError, LookupError, TypeError) as error:
            raise StudyError(
                f"{self.folder}: the crops have no usable keys ({error}); delete it and run again."
            ) from error
        found: Keys = keys
        return found

    def read(self, row: int, count: int = 1) -> Pictures:
        """Read rows side by side within one chunk, (count, 224, 224, 3); zeros where nothing was written.

        Raises
        ------
        StudyError
            If their file cannot be read.
        """
        number, place = divmod(row, self.per_file)
        path = self.path(number)
        pictures = np.empty((count, *SHAPE), np.uint8)
        there = 0
        try:
            if row < self.count:
                with open(path, "rb") as file:
                    file.seek(place * BYTES_EACH)
                    there = file.readinto(pictures.data.cast("B"))
        except FileNotFoundError:
            pass
        except OSError as error:
            reason = error.strerror or error
            raise StudyError(f"{path}: cannot be read ({reason}). Run `napari-dinobloom crop`.") from error
        pictures.reshape(-1)[there:] = 0
        return pictures

    def write(self, rows: Rows, pictures: Pictures) -> None:
        """Write crops to their rows; what no crop was written to reads as zeros."""
        for run in _runs(rows):
            number, place = divmod(int(rows[run[0]]), self.per_file)
            path = self.path(number)
            fresh = not path.exists()
            if fresh:
                path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w+b" if fresh else "r+b") as file:
                if fresh:
                    file.truncate(self._pictures(number))
                file.seek(place * BYTES_EACH)
                file.write(pictures[run[0] : run[-1] + 1].data)

    def take(self, source: CropFiles, rows: Rows) -> None:
        """Take rows of one of our files over from another store: by a link where the file is the same, else copied."""
        number = int(rows[0]) // self.per_file
        same = source.sharded and source.per_file == self.per_file and source.size(number) == self.size(number)
        if same and len(rows) == min(self.per_file, self.count - number * self.per_file):
            try:
                os.link(source.path(number), self.path(number))
            except OSError:
                shutil.copyfile(source.path(number), self.path(number))
            return
        for run in _runs(rows):
            self.write(rows[run], source.read(int(rows[run[0]]), len(run)))

    def finish(self, keys: Keys | None = None) -> None:
        """Write the indices and wait until all is on the disk; then the `keys`, which say that it is."""
        for number in self.numbers():
            path = self.path(number)
            if not path.exists():
                continue
            with path.open("rb+") as file:
                if not self._is_whole(number):
                    file.seek(self._pictures(number))
                    file.write(_index(self._pictures(number) // (ROWS * BYTES_EACH), self.per_file // ROWS))
                    file.flush()
                os.fsync(file.fileno())
        if keys is not None:
            with (self.folder / KEYS).open("wb") as file:
                np.save(file, keys, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())

    def _pictures(self, number: int) -> int:
        """Bytes of the pictures of a file: whole chunks."""
        rows = min(self.per_file, self.count - number * self.per_file)
        return -(-rows // ROWS) * ROWS * BYTES_EACH

    def _is_whole(self, number: int) -> bool:
        try:
            return self.path(number).stat().st_size == self.size(number)
        except OSError:
            return False


def _runs(rows: Rows) -> list[Rows]:
    """Cut rows into runs that lie side by side within one chunk; gives the places of each run's rows."""
    cuts = np.flatnonzero((np.diff(rows) != 1) | (rows[1:] % ROWS == 0)) + 1
    return [run for run in np.split(np.arange(len(rows)), cuts) if len(run)]


def _index(chunks: int, of: int) -> bytes:
    """Index of a shard that has the first `chunks` `of` its chunks one after the other.

    Offset and length of each, little-endian, and their CRC-32C: Zarr's codec ``sharding_indexed``, version 1.0.
    """
    import google_crc32c

    table = np.full((of, 2), EMPTY, "<u8")
    table[:chunks, 0] = np.arange(chunks) * ROWS * BYTES_EACH
    table[:chunks, 1] = ROWS * BYTES_EACH
    data = table.tobytes()
    checksum: int = google_crc32c.value(data)
    return data + checksum.to_bytes(4, "little")


@lru_cache(maxsize=8)
def _described(path: Path, written: int, inode: int) -> CropFiles:
    """What the description of a store says, read once for each that is written."""
    about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    count, *shape = about["shape"]
    per_file, *rest = about["chunk_grid"]["configuration"]["chunk_shape"]
    codecs = about["codecs"]
    sharded = codecs[0]["name"] == "sharding_indexed"
    plain = codecs[0]["configuration"]["codecs"] if sharded else codecs
    kind = (about["data_type"], tuple(shape), tuple(rest), [codec["name"] for codec in plain], len(codecs))
    if kind != ("uint8", SHAPE, SHAPE, ["bytes"], 1) or per_file % ROWS or not (sharded or per_file == ROWS):
        raise ValueError(f"{path}: not as this program writes it")
    return CropFiles(path.parent, int(count), int(per_file), sharded)
