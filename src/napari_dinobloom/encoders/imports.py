"""Checkpoints of a user's own, registered under a name by which `load_encoder` finds them."""

from __future__ import annotations

import re
from pathlib import Path

from napari_dinobloom.encoders import library
from napari_dinobloom.encoders.checkpoint import Checkpoint, read_checkpoint
from napari_dinobloom.encoders.ledger import Imported, Ledger, Seen, iter_seen
from napari_dinobloom.encoders.library import Located
from napari_dinobloom.encoders.registry import REGISTRY, find, published_as, spec_of
from napari_dinobloom.encoders.spec import PositionRule
from napari_dinobloom.errors import EncoderError
from napari_dinobloom.io.atomic import disk_errors
from napari_dinobloom.io.journal import now
from napari_dinobloom.io.part import Unwanted, iter_copy
from napari_dinobloom.progress import Progress, Steps, drain

IMPORTS = "imports"
"""Folder in the cache folder for copies of checkpoints, apart from the files of published encoders."""


def iter_import(
    path: str | Path,
    name: str,
    *,
    copy: bool = False,
    positions: PositionRule | None = None,
    like: str | None = None,
) -> Steps[Located]:
    """Register a checkpoint of your own under a name by which `load_encoder` finds it.

    Parameters
    ----------
    path : str or Path
        A file of weights in any of the known shapes; it is read and checked whole.
    name : str
        Letters, digits, and ``- _ .`` in between; not a name of the registry.
    copy : bool, default: False
        Copy the file into the cache folder; else it is used where it lies.
    positions : {"hub", "training", "timm"}, optional
        Rule to resample position embeddings that were made for another picture size.
    like : str, optional
        Registry name, or "timm:" and that of a model of timm, whose network the file holds and for which pictures
        are prepared in the same way; needed where the file does not tell.

    Yields
    ------
    Progress
        In bytes.

    Returns
    -------
    Located

    Raises
    ------
    EncoderError
        The name is taken or cannot be one, or anything that `read_checkpoint` finds wrong.
    LicenceError
        The file is one that is published under terms that were not accepted.
    StudyError
        The cache folder cannot be written.
    """
    source, folder = Path(path).expanduser().resolve(), library.cache_folder()
    _check_name(name)
    model = find(like) if like else None
    seen = yield from iter_seen(source)
    if twin := published_as(seen.sha256):
        library.check_terms(twin)
    yield Progress(seen.size, seen.size, f"reading {source.name}")
    checkpoint = read_checkpoint(source, model.architecture if model else None)
    if not seen.holds(source):
        raise EncoderError(f"{source}: was replaced while it was read. Run again.")
    rule = _rule(checkpoint, positions, model.name if model else None)
    target = folder / IMPORTS / f"{name}{source.suffix.lower() or '.bin'}" if copy else source
    _check_place(target)
    record = Imported(
        name,
        Ledger(folder).key(target),
        seen.sha256,
        checkpoint.architecture.name,
        rule or "",
        now(),
        model.name if model else "",
    )
    _check_free(record, Ledger.read(folder))
    with disk_errors(folder):
        if copy:
            seen = yield from _iter_put(source, target, seen.sha256)
        with Ledger.change(folder) as ledger:
            _check_free(record, ledger)
            ledger.imports[name.lower()] = record
            ledger.remember(target, seen)
    return library.locate(name)


def import_checkpoint(
    path: str | Path,
    name: str,
    *,
    copy: bool = False,
    positions: PositionRule | None = None,
    like: str | None = None,
) -> Located:
    """Register a checkpoint as `iter_import` does, without reports."""
    return drain(iter_import(path, name, copy=copy, positions=positions, like=like))


def _iter_put(source: Path, target: Path, sha256: str) -> Steps[Seen]:
    """Copy a checkpoint to its place, where no other file is lost."""
    if target.exists():
        found = yield from iter_seen(target)
        if found.sha256 != sha256:
            raise EncoderError(f"{target} is there already and another file. Remove it, or choose another name.")
        return found
    target.parent.mkdir(parents=True, exist_ok=True)
    put: list[Seen] = []
    try:
        yield from iter_copy(
            source, target, sha256=sha256, check=lambda part, found: put.append(Seen.of(part.stat(), found))
        )
    except Unwanted as error:
        raise EncoderError(f"{source} was changed while it was copied: {error}. Import it again.") from error
    return put[0]


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?", name) or name.endswith(library.FILE_ENDINGS):
        raise EncoderError(
            f"{name!r} cannot be the name of an encoder: take up to 64 letters and digits, with - _ . in between, "
            f"and no ending of a file."
        )
    if library.is_published(name):
        raise EncoderError(f"{name!r} is the name of a published encoder. Choose another one.")


def _check_place(target: Path) -> None:
    """Refuse a file that lies where that of a published encoder belongs: fetching may replace it."""
    folder = library.cache_folder().resolve()
    taken = {str(folder / s.file).lower(): spec.name for spec in REGISTRY.values() for s in spec.sources if s.url}
    if owner := taken.get(str(target).lower()):
        raise EncoderError(
            f"{target}: this is the place of the file of {owner}. Use that name; or, if it is another file, move it to "
            "another folder and import it from there."
        )


def _check_free(record: Imported, ledger: Ledger) -> None:
    """Refuse a name that stands for something else already."""
    known = ledger.imports.get(record.name.lower())
    if known is None or _meaning(known) == _meaning(record):
        return
    raise EncoderError(
        f"{known.name!r} is already the name of {known.file} (sha256 {known.sha256[:16]}..., positions "
        f"{known.positions or 'as they are'}, pictures as {known.like or 'its architecture says'}). Choose another "
        "one, so that studies made with it stay what they are."
    )


def _meaning(record: Imported) -> tuple[str, str, str]:
    """All that decides embeddings."""
    return record.sha256, record.positions, record.like


def _rule(checkpoint: Checkpoint, positions: PositionRule | None, like: str | None) -> PositionRule | None:
    """The rule for a checkpoint's positions, None where they fit; refuses one that could not be loaded afterwards."""
    spec = spec_of(checkpoint.architecture, str(checkpoint.path), like=like)
    if checkpoint.grid is None or checkpoint.grid == spec.grid:
        return None
    if positions is None:
        raise EncoderError(
            f"{checkpoint.path}: its position embeddings are those of {checkpoint.grid} x {checkpoint.grid} patches, "
            f"{spec.grid} x {spec.grid} are used here ({spec.input_size} px). Import it with --positions hub (as "
            "DINOv2 runs at another size), training or timm."
        )
    return positions
