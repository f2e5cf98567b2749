"""Which annotation belongs to which image: by name without ending, and by folder where names repeat."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.fields import stem_of

TAILS = ("_cp_masks", "_masks", "_mask", "_labels", "_label", "-cells")
"""What other programs, and last the export of this one, put behind the name of the image."""

SKIPPED = ("classes.txt", "obj.names")

MAX_FILES = 500_000
"""Most files that are looked at in a folder."""


def match_files(source: Path, images: Mapping[str, Path], endings: Collection[str]) -> dict[str, Path | None]:
    """Find the annotation file of each image.

    Parameters
    ----------
    source : Path
        A folder, searched with all below it, or one file.
    images : mapping of str to Path
        Absolute path of each image by its field's id.
    endings : collection of str
        Endings of annotation files, lower case with the dot.

    Returns
    -------
    dict of str to Path or None
        ``anna/field0.png`` takes ``anna/field0.xml`` of a folder before ``field0.xml``; the only image takes the only
        file, whatever its name. None where there is none.

    Raises
    ------
    InputError
        If nothing fits any image, two files fit one, or two images one file.
    """
    if source.is_file():
        if len(images) == 1:
            return dict.fromkeys(images, source)
        found = {_key(PurePosixPath(source.name)): [source]}
    else:
        found = _index(source, endings, {os.path.realpath(path) for path in images.values()})
    keys = match_keys(source, found, images)
    return {image: _only(source, found[key]) if key is not None else None for image, key in keys.items()}


def match_keys(source: Path, keys: Collection[str], images: Mapping[str, Path]) -> dict[str, str | None]:
    """Find for each image the longest end of its path, without the file's ending, that is in `keys`.

    Raises
    ------
    InputError
        If no image has one, or two have the same.
    """
    longest = max((key.count("/") for key in keys), default=0) + 1
    owners: dict[str, Path] = {}
    matched: dict[str, str | None] = {}
    for image, path in images.items():
        key = next((tail for tail in _path_tails(path, longest) if tail in keys), None)
        if key is not None and key in owners:
            raise InputError(
                f"{source}: {key!r} fits both {owners[key]} and {path}. Name the folder too, as in "
                f"{path.parent.name + '/' + key!r}."
            )
        if key is not None:
            owners[key] = path
        matched[image] = key
    if images and not owners:
        example = stem_of(next(iter(images.values())).name)
        raise InputError(
            f"{source}: holds nothing for any of the {len(images)} images. Name marks as the image: {example!r}."
        )
    return matched


def key_of_text(name: str) -> str:
    """Key of an image as a table names it: a path with any slashes, with or without its ending."""
    return _key(PurePosixPath(name.replace("\\", "/").strip("/ ")), tails=())


def _key(path: PurePosixPath, tails: tuple[str, ...] = TAILS) -> str:
    """Path without ending and without what another program put behind the name."""
    stem = stem_of(path.name)
    tail = next((tail for tail in tails if stem.lower().endswith(tail) and len(stem) > len(tail)), "")
    return path.with_name(stem[: len(stem) - len(tail)]).as_posix()


def _path_tails(path: Path, longest: int) -> Iterator[str]:
    """Ends of a path without the file's ending, the longest first."""
    parts = [*path.parts[:-1], stem_of(path.name)]
    for start in range(max(0, len(parts) - longest), len(parts)):
        yield "/".join(parts[start:])


def _index(folder: Path, endings: Collection[str], images: Collection[str]) -> dict[str, list[Path]]:
    """Annotation files of a folder by key; the images themselves are none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such file or folder. Check the name.")
    found: dict[str, list[Path]] = {}
    seen = 0
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            seen += 1
            if seen > MAX_FILES:
                raise InputError(f"{folder}: holds more than {MAX_FILES:,} files. Name the folder with the marks only.")
            path = Path(place, name)
            skipped = name.startswith(".") or name in SKIPPED or path.suffix.lower() not in endings
            if not skipped and os.path.realpath(path) not in images:
                key = _key(PurePosixPath(path.relative_to(folder).as_posix()))
                found.setdefault(key, []).append(path)
    return found


def _only(source: Path, files: list[Path]) -> Path:
    """The only file, or an error that names two."""
    if len(files) > 1:
        raise InputError(f"{source}: {files[0].name} and {files[1].name} are marks of one image. Remove one of them.")
    return files[0]
