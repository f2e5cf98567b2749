"""Which encoders lie on this machine and in what state, and the checkpoints that a user adds to them."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from napari_dinobloom.encoders import library
from napari_dinobloom.encoders.checkpoint import Checkpoint, read_checkpoint
from napari_dinobloom.encoders.ledger import Imported, Ledger
from napari_dinobloom.encoders.library import Located
from napari_dinobloom.encoders.registry import REGISTRY, spec_of
from napari_dinobloom.encoders.spec import EncoderSpec, PositionRule
from napari_dinobloom.errors import EncoderError
from napari_dinobloom.io.atomic import disk_errors
from napari_dinobloom.io.journal import now
from napari_dinobloom.io.part import Unwanted, iter_copy, iter_hash
from napari_dinobloom.progress import Progress, Steps, drain

State = Literal["absent", "bundled", "verified", "unverified", "imported", "unchecked", "wrong"]
"""verified: as published; unverified: nothing is published to compare with; unchecked: not hashed since it changed."""


@dataclass(frozen=True, slots=True)
class Holding:
    """An encoder, and the file in which this machine has it.

    Attributes
    ----------
    spec : EncoderSpec
        Its entry.
    state : str
        One of `State`.
    path : Path or None
        The file; None where there is none.
    sha256 : str
        64 hexadecimal digits, as far as they are known; empty if not.
    problem : str
        What is wrong with the file and what to do; empty where nothing is.
    """

    spec: EncoderSpec
    state: State
    path: Path | None = None
    sha256: str = ""
    problem: str = ""


def holdings() -> list[Holding]:
    """List all encoders of the registry, all imported ones, and the models of timm that are here.

    Nothing is hashed: a file that changed since it was hashed is "unchecked".

    Returns
    -------
    list of Holding
        One for each encoder, with the file that loading would take.

    Raises
    ------
    EncoderError
        ``weights.json`` in the cache folder is damaged.
    """
    ledger = Ledger.read(library.cache_folder())
    found = []
    for spec in _known(ledger):
        here = _here(spec)
        found.append(_holding(here[0], ledger.remembered(here[0].path), ledger) if here else Holding(spec, "absent"))
    return found


def iter_verify(name: str | None = None) -> Steps[list[Holding]]:
    """Hash the files of one encoder, or of all, whatever is remembered, and compare them.

    The first hash of a file for which none is published is pinned.

    Parameters
    ----------
    name : str, optional
        A registry name or that of an imported checkpoint.

    Yields
    ------
    Progress
        In bytes of all files.

    Returns
    -------
    list of Holding
        One for each file that is here; `Holding.problem` says what is wrong with it.

    Raises
    ------
    EncoderError
        Unknown name, or no file of this encoder is here.
    """
    ledger = Ledger.read(library.cache_folder())
    specs = [library.entry(name)] if name else _known(ledger)
    files = {located.path: located for spec in specs for located in _here(spec)}
    if name and not files:
        library.locate(name)  # says where to get it
    total, done = sum(path.stat().st_size for path in files), 0
    found = []
    for path, located in files.items():
        hashing = iter_hash(path)
        sha256 = yield from _shifted(hashing, done, total, path.name)
        done += path.stat().st_size
        ledger = Ledger.read(library.cache_folder())
        if library.difference(located, sha256, ledger):
            # What loading remembers was of the file before.
            new = ledger.seen.pop(ledger.key(path), None) is not None
        else:
            new = library.note(located, sha256, ledger)
        if new:
            with suppress(OSError):  # a cache folder that many share may be read-only
                ledger.write()
        found.append(_holding(located, sha256, ledger))
    return found


def repin(name: str) -> str:
    """Take the file of an encoder as it is now for the right one from now on.

    Parameters
    ----------
    name : str
        An encoder without a published hash, or an imported checkpoint.

    Returns
    -------
    str
        Its sha256; empty where no file is here, and the next one to come is pinned.

    Raises
    ------
    EncoderError
        Unknown name, the hash is published, or ``weights.json`` cannot be written.
    """
    spec, ledger = library.entry(name), Ledger.read(library.cache_folder())
    own = spec.name.lower() in ledger.imports and not library.is_published(spec.name)
    open_ones = [place for place in library.places(spec) if own or (place.source and place.source.sha256 is None)]
    here = [place for place in open_ones if place.path.is_file()]
    if not open_ones:
        raise EncoderError(f"The sha256 of {spec.name} is published; a file with another one is another file.")
    sha256 = ""
    for located in here:
        sha256 = drain(iter_hash(located.path))
        ledger.remember(located.path, sha256)
        if own:
            ledger.imports[spec.name.lower()] = replace(ledger.imports[spec.name.lower()], sha256=sha256)
        else:
            ledger.pin(located.path, sha256, spec.name)
    for located in open_ones:
        if located not in here:
            ledger.pins.pop(ledger.key(located.path), None)
    with disk_errors(ledger.folder):
        ledger.write()
    return sha256


def iter_import(
    path: str | Path, name: str, *, copy: bool = False, positions: PositionRule | None = None
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
    StudyError
        The cache folder cannot be written.
    """
    source = Path(path).expanduser().resolve()
    _check_name(name)
    yield Progress(0, source.stat().st_size if source.is_file() else 0, f"reading {source.name}")
    checkpoint = read_checkpoint(source)
    sha256 = yield from iter_hash(source)
    _check_grid(checkpoint, positions)
    sha256 = yield from iter_hash(source)
    folder = library.cache_folder()
    target = folder / f"{name}{source.suffix.lower() or '.bin'}" if copy else source
    _check_free(name, sha256, Ledger.read(folder))
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if copy:
            yield from _iter_put(source, target, sha256)
        ledger = Ledger.read(folder)
        ledger.imports[name.lower()] = Imported(
            name, ledger.key(target), sha256, checkpoint.architecture.name, positions or "", now()
        )
        ledger.remember(target, sha256)
        ledger.write()
    return library.locate(name)


def import_checkpoint(
    path: str | Path, name: str, *, copy: bool = False, positions: PositionRule | None = None
) -> Located:
    """Register a checkpoint as `iter_import` does, without reports."""
    return drain(iter_import(path, name, copy=copy, positions=positions))


def _iter_put(source: Path, target: Path, sha256: str) -> Steps[None]:
    """Copy a checkpoint into the cache folder, where no other file is lost."""
    if target.exists():
        if (yield from iter_hash(target)) != sha256:
            raise EncoderError(f"{target} is there already and another file. Remove it, or choose another name.")
        return
    try:
        yield from iter_copy(source, target, sha256=sha256)
    except Unwanted as error:
        raise EncoderError(f"{source} was changed while it was copied: {error}. Import it again.") from error


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?", name) or name.endswith(library.FILE_ENDINGS):
        raise EncoderError(
            f"{name!r} cannot be the name of an encoder: take up to 64 letters and digits, with - _ . in between, "
            f"and no ending of a file."
        )
    if library.is_published(name):
        raise EncoderError(f"{name!r} is the name of a published encoder. Choose another one.")


def _check_free(name: str, sha256: str, ledger: Ledger) -> None:
    known = ledger.imports.get(name.lower())
    if known is not None and known.sha256 != sha256:
        raise EncoderError(
            f"{known.name!r} is already the name of {known.file} (sha256 {known.sha256[:16]}...). Choose another one, "
            "so that studies made with it stay what they are."
        )


def _check_grid(checkpoint: Checkpoint, positions: PositionRule | None) -> None:
    """Refuse a checkpoint that could not be loaded afterwards."""
    spec = spec_of(checkpoint.architecture, "")
    if positions is None and checkpoint.grid is not None and checkpoint.grid != spec.grid:
        raise EncoderError(
            f"{checkpoint.path}: its position embeddings are those of {checkpoint.grid} x {checkpoint.grid} patches, "
            f"{spec.grid} x {spec.grid} are used here ({spec.input_size} px). Import it with --positions hub (as "
            "DINOv2 runs at another size), training or timm."
        )


def _known(ledger: Ledger) -> list[EncoderSpec]:
    """Entries of the registry, of imports, and of other encoders whose weights were fetched."""
    own = [imported.name for imported in ledger.imports.values() if not library.is_published(imported.name)]
    other = {pin.encoder for file, pin in ledger.pins.items() if (ledger.folder / file).is_file()}
    specs = list(REGISTRY.values())
    for name in [*own, *sorted(other - set(REGISTRY) - set(own))]:
        with suppress(EncoderError):  # a later timm may not know the model any more
            specs.append(library.entry(name))
    return specs


def _here(spec: EncoderSpec) -> list[Located]:
    return [located for located in library.places(spec) if located.path.is_file()]


def _holding(located: Located, sha256: str | None, ledger: Ledger) -> Holding:
    """Say in what state a file is whose hash is `sha256`, or not known."""
    spec, source = located.spec, located.source
    if spec is None or source is None:
        raise TypeError("only files of named encoders are held")
    bundled = library.is_bundled(spec)
    if sha256 is None:
        return Holding(spec, "bundled" if bundled else "unchecked", located.path)
    problem = library.difference(located, sha256, ledger)
    if problem:
        return Holding(spec, "wrong", located.path, sha256, problem)
    if not source.url:
        state: State = "bundled" if bundled else "imported"
    else:
        state = "verified" if source.agrees(sha256) else "unverified"
    return Holding(spec, state, located.path, sha256)


def _shifted(steps: Steps[str], done: int, total: int, message: str) -> Steps[str]:
    """Report the progress of one file as that of all."""
    while True:
        try:
            report = next(steps)
        except StopIteration as end:
            sha256: str = end.value
            return sha256
        yield Progress(done + report.done, total, message)
