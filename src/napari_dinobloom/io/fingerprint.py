"""What tells one picture from another: the hash of its bytes, of a large one that of samples of them.

A whole slide takes minutes to read from a network disk. So of more than 256 MiB, in one file or in the files of a slide
or an OME-Zarr folder together, the names and sizes of all files are hashed, the metadata of zarr, the first MiB, which
holds the header, the last, and 64 blocks spread evenly between them. Such a fingerprint begins with ``sampled:``. It
does not change when the slide is copied or renamed; a change of pixels between the samples, which leaves the length of
a file as it is, would be missed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

WHOLE_BYTES = 256 << 20
"""Pictures up to this size, all their files together, are hashed whole."""

MARK = "sampled:"
METADATA = ("zarr.json", ".zattrs", ".zgroup", ".zarray", ".zmetadata")
"""Files of zarr that are always hashed whole: they hold the scale and how the pixels are to be read."""

END_BYTES = 1 << 20
BLOCK_BYTES = 64 << 10
BLOCKS = 64

_TRACES = (".DS_Store", "Thumbs.db", "desktop.ini")

_TEXT_BYTES = 1 << 20


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fingerprint_of(path: Path) -> str:
    """Return what tells the content of a picture: 64 hex digits, with ``sampled:`` before them for a large one.

    Without the mark those of one file are `sha256_of` it, those of several cover all of them.

    Parameters
    ----------
    path : Path
        A file, an OME-Zarr folder, or the file of a slide whose other parts lie beside it (MRXS, VMS).

    Raises
    ------
    OSError
        If it cannot be read.
    """
    parts = parts_of(path)
    sizes = [part.stat().st_size for part in parts]
    whole = sum(sizes) <= WHOLE_BYTES
    if whole and parts == [path]:
        return sha256_of(path)
    digest = hashlib.sha256()
    for part, size in zip(parts, sizes, strict=True):
        name = part.relative_to(path).as_posix() if path.is_dir() else part.name
        digest.update(repr(("" if part == path else name, size)).encode())  # a slide may be renamed
    step = max(1, len(parts) // BLOCKS)
    for number, part in enumerate(parts):
        if whole or part.name in METADATA:
            digest.update(bytes.fromhex(sha256_of(part)))
        elif number % step == 0:
            _sample(part, digest, max(1, BLOCKS * step // len(parts)))
    return digest.hexdigest() if whole else MARK + digest.hexdigest()


def parts_of(path: Path) -> list[Path]:
    """Files that a picture consists of, sorted: of most just itself; what file browsers leave in folders is no part."""
    if path.is_dir():
        return sorted(part for part in path.rglob("*") if _is_part(part))
    ending = path.suffix.lower()
    if ending == ".mrxs" and (folder := path.with_suffix("")).is_dir():
        return [path, *sorted(part for part in folder.iterdir() if _is_part(part))]
    if ending in (".vms", ".vmu"):
        return [path, *sorted(part for part in path.parent.iterdir() if part.name in named_in(path))]
    return [path]


def named_in(path: Path) -> set[str]:
    """Names of the files that the text of a VMS or VMU slide lists; none where it cannot be read."""
    try:
        with path.open("rb") as handle:
            lines = handle.read(_TEXT_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return set()
    return {line.partition("=")[2].strip() for line in lines if "=" in line} - {"", path.name}


def _is_part(path: Path) -> bool:
    """Whether a file in the folder of a picture is its own, and no trace of macOS or Windows."""
    return path.is_file() and path.name not in _TRACES and not path.name.startswith("._")


def _sample(path: Path, digest: Any, blocks: int) -> None:
    """Hash the ends of a file and some blocks between; all of a small one."""
    size = path.stat().st_size
    with path.open("rb") as handle:
        if size <= 2 * END_BYTES:
            digest.update(handle.read())
            return
        digest.update(handle.read(END_BYTES))
        for number in range(blocks):
            handle.seek(END_BYTES + (size - 2 * END_BYTES) * number // blocks)
            digest.update(handle.read(BLOCK_BYTES))
        handle.seek(size - END_BYTES)
        digest.update(handle.read())
