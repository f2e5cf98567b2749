"""Embeddings of a whole data set, kept on the disk as they are computed: a run that was stopped or killed goes on.

A picture is known by the SHA-256 of its bytes, and what was computed of it lies in blocks of 256 (`io.embeddings`), for
each encoder, way of computing and way of resizing by itself. So a picture that was renamed, or stands in two data sets,
is computed once. Only whole blocks are there, and a killed run loses at most one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells.picture_files import PictureFiles
from napari_dinobloom.errors import ImageError, InputError
from napari_dinobloom.io.atomic import DAY, sweep
from napari_dinobloom.io.embeddings import BLOCK, EmbeddingSet, Keys, Sink
from napari_dinobloom.io.smear import read_pixels
from napari_dinobloom.predict.pictures import LabelledPicture, iter_embed_pictures
from napari_dinobloom.predict.protocols import copies
from napari_dinobloom.predict.protocols.layouts import LabelledFiles
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.cells.crop import CropPolicy
    from napari_dinobloom.encoders.encoder import Encoder

Float32 = NDArray[np.float32]

NAMED = 10
"""Unreadable files that an error names."""


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """A data set and the embedding of each of its pictures.

    Attributes
    ----------
    files : LabelledFiles
        The pictures that can be read.
    X : (n, D) array of float32
        Embeddings.
    prints : (n, 576) array of float32
        Fingerprints by which copies are found (`copies`).
    hash : str
        First 16 hexadecimal digits of the SHA-256 over name, class, split, patient and bytes of all pictures.
    unreadable : tuple of str
        What is wrong with the files that were left out.
    """

    files: LabelledFiles
    X: Float32
    prints: Float32
    hash: str
    unreadable: tuple[str, ...]


def iter_embed_cohort(
    files: LabelledFiles,
    encoder: Encoder,
    policy: CropPolicy,
    cache: Path,
    *,
    skip_unreadable: bool = False,
    workers: int = 2,
) -> Steps[Cohort]:
    """Embed a data set, yielding `Progress`; what `cache` holds is not computed again.

    Parameters
    ----------
    files : LabelledFiles
        The data set.
    encoder : Encoder
        What embeds.
    policy : CropPolicy
        How pictures are resized. Of kind ``context`` all are cropped at one scale, and nothing is kept.
    cache : Path
        Folder for what is computed; need not exist.
    skip_unreadable : bool, default: False
        Leave pictures that cannot be read out.
    workers : int, default: 2
        Threads that read.

    Returns
    -------
    Cohort
        Memory is that of `X` and of 2.3 kB a picture.

    Raises
    ------
    InputError
        If pictures cannot be read and are not to be skipped (before any is embedded), or an embedding is not finite.
    StudyError
        If the disk is full or the folder may not be written.
    """
    keys, problems = yield from _look(files, cache, workers)
    if problems and not skip_unreadable:
        named = "; ".join(text for _, text in problems[:NAMED])
        more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        raise InputError(
            f"{len(problems)} of {len(keys)} pictures cannot be read: {named}{more}. Mend or remove them, or leave "
            "them out with --skip-unreadable."
        )
    good = np.ones(len(keys), bool)
    good[[row for row, _ in problems]] = False
    files, keys = files.keep(good), keys[good]
    if not len(keys):
        raise InputError(f"{files.root}: no picture can be read. Check the files.")
    if policy.kind == "published":
        X = yield from _embed(files.paths, keys, encoder, policy, cache)
    else:
        X = yield from _embed_context(files, keys, encoder, policy, workers)
    bad = np.flatnonzero(~np.isfinite(X).all(axis=1))
    if len(bad):
        raise InputError(
            f"{files.paths[bad[0]]} and {len(bad) - 1} more: the embedding by {encoder.name} is not finite. Compute in "
            "float32, or take other weights."
        )
    return Cohort(files, X, _prints(cache).read(keys), _hash(files, keys), tuple(text for _, text in problems))


def _look(files: LabelledFiles, cache: Path, workers: int) -> Steps[tuple[Keys, list[tuple[int, str]]]]:
    """Key of each picture, and those that cannot be read; pictures that are new get their fingerprint."""
    sweep(cache / "pictures", older=DAY)
    prints, paths = _prints(cache), files.paths
    keys, problems = np.zeros(len(paths), np.uint64), []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for start in range(0, len(paths), BLOCK):
            part = paths[start : start + BLOCK]
            hashed = list(pool.map(_key, part))
            keys[start : start + BLOCK] = [key for key, _ in hashed]
            unread = np.array([bool(why) for _, why in hashed])
            problems += [(start + i, why) for i, (_, why) in enumerate(hashed) if why]
            new = [i for i in prints.missing(keys[start : start + BLOCK]) if not unread[i]]
            made = list(pool.map(_print, [part[i] for i in new]))
            problems += [(start + i, one) for i, one in zip(new, made, strict=True) if isinstance(one, str)]
            values = [(keys[start + i], one) for i, one in zip(new, made, strict=True) if not isinstance(one, str)]
            if values:
                prints.append(np.array([key for key, _ in values], np.uint64), np.stack([one for _, one in values]))
            yield Progress(min(start + BLOCK, len(paths)), len(paths), "pictures", "read")
    known = dict(problems)
    of = {int(keys[row]): row for row in known if keys[row]}
    for row in range(len(keys)):  # of equal files only the first was looked at
        if row not in known and (first := of.get(int(keys[row]))) is not None:
            problems.append((row, known[first].replace(str(paths[first]), str(paths[row]))))
    return keys, sorted(problems)


def _key(path: Path) -> tuple[int, str]:
    """First 64 bits of the SHA-256 of a file, or why it cannot be read."""
    try:
        with path.open("rb") as handle:
            return int.from_bytes(hashlib.file_digest(handle, "sha256").digest()[:8], "big"), ""
    except OSError as error:
        return 0, f"{path}: {error.strerror or error}"


def _print(path: Path) -> Float32 | str:
    """Fingerprint of a picture, or why it cannot be read."""
    try:
        return copies.fingerprint(read_pixels(path))
    except (ImageError, OSError) as error:
        text = str(error)
        return text if str(path) in text else f"{path}: {text}"


def _prints(cache: Path) -> EmbeddingSet:
    """Fingerprints that are kept."""
    return EmbeddingSet(cache / "pictures", {"key": f"fingerprint-{copies.VERSION}"}, copies.SIDE**2)


def _embed(paths: Sequence[Path], keys: Keys, encoder: Encoder, policy: CropPolicy, cache: Path) -> Steps[Float32]:
    """Embed whole pictures that are not there yet."""
    folder = cache / f"{_plain(encoder.name)}-{encoder.sha256[:8]}"
    about = {
        "key": hashlib.sha256(f"{encoder.key}:{policy.hash}".encode()).hexdigest()[:16],
        "encoder": encoder.name,
        "sha256": encoder.sha256,
        "precision": encoder.precision,
        "device": encoder.device,
        "pooling": encoder.pooling,
        "crops": json.dumps(policy.to_dict(), sort_keys=True),
    }
    sweep(folder, older=DAY)
    kept = EmbeddingSet(folder, about, encoder.dim)
    new = kept.missing(keys)
    done = len(keys) - len(new)
    yield Progress(done, len(keys), "pictures", "embed")
    sink = Sink(kept, keys[new])
    try:
        for report in encoder.iter_embed_to(PictureFiles([paths[row] for row in new], policy), sink):
            yield Progress(done + report.done, len(keys), "pictures", "embed")
    finally:
        sink.close()
    return kept.read(keys)


def _embed_context(
    files: LabelledFiles, keys: Keys, encoder: Encoder, policy: CropPolicy, workers: int
) -> Steps[Float32]:
    """Embed the cell in the middle of each picture, all at one scale."""
    pictures = [LabelledPicture(path, label) for path, label in zip(files.paths, files.table["label"], strict=True)]
    found = yield from iter_embed_pictures(pictures, encoder, policy, workers=workers)
    place = {int(source, 16): row for row, source in enumerate(found.source)}
    return found.X[[place[int(key)] for key in keys]]


def _hash(files: LabelledFiles, keys: Keys) -> str:
    """Hash of all that is evaluated."""
    digest = hashlib.sha256()
    for row, key in zip(_rows(files), keys, strict=True):
        digest.update(json.dumps([*row, int(key)]).encode())
    return digest.hexdigest()[:16]


def _rows(files: LabelledFiles) -> Iterator[tuple[str, ...]]:
    columns = (files.table[name] for name in ("file", "label", "split", "patient"))
    return zip(*columns, strict=True)


def _plain(name: str) -> str:
    """A name that can be that of a folder."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
