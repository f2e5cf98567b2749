"""Root folders of images: recognising one that was moved by the hashes of its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from napari_dinobloom.io.fields import FieldRecord
from napari_dinobloom.io.fingerprint import fingerprint_of

_SAMPLES = 3


def find_root(folder: Path, known: Mapping[str, Path | None], fields: Sequence[FieldRecord]) -> str | None:
    """Return the root id that `folder` is.

    Parameters
    ----------
    folder : Path
        A folder of images on this machine.
    known : mapping
        Root id to its folder here, None where that is not known.
    fields : sequence of FieldRecord
        The fields of the study.

    Returns
    -------
    str or None
        The root remembered at `folder`; else a root whose own folder is unknown or gone and of whose files the first
        three that `folder` has are the same by hash; else None.
    """
    for root, place in known.items():
        if place == folder:
            return root
    for root, place in known.items():
        if place is not None and place.is_dir():
            continue
        mine = [record for record in fields if record.root == root and record.sha256]
        there = [record for record in mine if (folder / record.file).exists()][:_SAMPLES]
        if there and all(_same(folder / record.file, record.sha256) for record in there):
            return root
    return None


def _same(path: Path, sha256: str) -> bool:
    """Whether a picture can be read and has this hash."""
    try:
        return fingerprint_of(path) == sha256
    except OSError:
        return False
