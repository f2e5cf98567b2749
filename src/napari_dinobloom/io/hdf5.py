"""HDF5 files: written so that a full disk cannot crash the process, read so that a stranger's file does no harm."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dinobloom.errors import StudyError

if TYPE_CHECKING:
    import h5py  # type: ignore[import-untyped]

_EXPANSION = 1100  # deflate cannot shrink by more than 1032 : 1
_ALWAYS_ALLOWED = 1 << 30
_MAX_LINKS = 100_000


class _SteadyFile(io.RawIOBase):
    """A file that takes note of the first failed write and lets HDF5 believe that all went well.

    HDF5 tries to flush what it holds when its objects are freed, and ends the process with a segmentation fault if the
    disk is full then. Here it never learns of it; the caller raises `failure` afterwards.
    """

    def __init__(self, path: Path) -> None:
        self._raw = io.FileIO(path, "w+")
        self._at = 0
        self._end = 0
        self.failure: OSError | None = None

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        self._raw.seek(self._at)
        got = self._raw.readinto(view) or 0
        wanted = max(0, min(len(view), self._end - self._at))
        if got < wanted:  # bytes that the disk did not take
            view[got:wanted] = bytes(wanted - got)
        self._at += wanted
        return wanted

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        start = self._at
        self._at += len(view)
        self._end = max(self._end, self._at)
        if self.failure is None:
            try:
                self._raw.seek(start)
                done = 0
                while done < len(view):
                    done += self._raw.write(view[done:])
            except OSError as error:
                self.failure = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self._end = self._at if size is None else size
        if self.failure is None:
            try:
                self._raw.truncate(self._end)
            except OSError as error:
                self.failure = error
        return self._end

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self._raw.close()
        super().close()


def write_hdf5(path: Path, fill: Callable[[h5py.File], None]) -> None:
    """Make an HDF5 file and let `fill` write into it.

    Raises
    ------
    OSError
        If the disk did not take all of it, whatever HDF5 made of that.
    """
    import h5py

    steady = _SteadyFile(path)
    try:
        with h5py.File(steady, "w") as file:
            fill(file)
    except Exception:
        if steady.failure is None:
            raise
    finally:
        steady.close()
    if steady.failure is not None:
        raise steady.failure


def check_hdf5(path: Path) -> None:
    """Refuse links and data that lie in other files, and sizes that the file cannot hold.

    Raises
    ------
    StudyError
        Naming the entry.
    OSError
        If it is no HDF5 file.
    """
    import h5py

    total = seen = 0
    with h5py.File(path, "r") as file:
        pending: list[Any] = [file]
        while pending:
            group = pending.pop()
            for name in group:
                seen += 1
                if not isinstance(group.get(name, getlink=True), h5py.HardLink) or seen > _MAX_LINKS:
                    raise StudyError(f"{group.name}/{name} is a link, which a study may not hold.")
                entry = group[name]
                if isinstance(entry, h5py.Group):
                    pending.append(entry)
                elif not isinstance(entry, h5py.Dataset) or entry.external or entry.is_virtual:
                    raise StudyError(f"{entry.name} keeps its values in another file, which a study may not do.")
                else:
                    total += int(entry.nbytes)
    if total > max(_ALWAYS_ALLOWED, path.stat().st_size * _EXPANSION):
        raise StudyError(f"claims {total:,} bytes, more than a file of this size can hold.")
