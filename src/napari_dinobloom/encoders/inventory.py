"""Which encoders lie on this machine and in what state, and the checkpoints that a user adds to them."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from napari_dinobloom.encoders import library
from napari_dinobloom.encoders.build import read_as
from napari_dinobloom.encoders.checkpoint import Checkpoint, read_checkpoint
from napari_dinobloom.encoders.ledger import Imported, Ledger, Seen, iter_seen
from napari_dinobloom.encoders.library import Located
from napari_dinobloom.encoders.registry import REGISTRY, find, published_as, spec_of
from napari_dinobloom.encoders.spec import EncoderSpec, PositionRule
from napari_dinobloom.errors import EncoderError
from napari_dinobloom.io.atomic import disk_errors
from napari_dinobloom.io.journal import now
from napari_dinobloom.io.part import Unwanted, iter_copy
from napari_dinobloom.progress import Progress, Steps, drain

State = Literal["absent", "bundled", "verified", "unverified", "imported", "unchecked", "wrong"]
"""verified: as published; unverified: nothing is published to compare with, but it was read and is the same since;
unchecked: not hashed or not read since it changed."""

IMPORTS = "imports"
"""Folder in the cache folder for copies of checkpoints, apart from the files of published encoders."""


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
        here = [_holding(located, ledger.remembered(located.path), ledger) for located in _here(spec)]
        found.append(next((one for one in here if not one.problem), here[0]) if here else Holding(spec, "absent"))
    return found


def iter_verify(name: str | None = None) -> Steps[list[Holding]]:
    """Hash the files of one encoder, or of all, whatever is remembered, and compare them.

    A file for which no hash is published is read, too, the first time, and its hash pinned if it can be.

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
        One for each encoder and each of its files that is here; `Holding.problem` says what is wrong with it.

    Raises
    ------
    EncoderError
        Unknown name, or no file of this encoder is here.
    """
    ledger = Ledger.read(library.cache_folder())
    specs = [library.entry(name)] if name else _known(ledger)
    held = [located for spec in specs for located in _here(spec)]
    if name and not held:
        library.locate(name)  # says where to get it
    sizes = {located.path: located.path.stat().st_size for located in held}
    hashes: dict[Path, Seen] = {}
    for path in sizes:
        before = sum(sizes[other] for other in hashes)
        hashes[path] = yield from _shifted(iter_seen(path), before, sum(sizes.values()), path.name)
    return [_verified(located, hashes[located.path]) for located in held]


def _verified(located: Located, seen: Seen) -> Holding:
    """Compare a file that was just hashed, read it where that has to be, and take down what was found."""
    folder = library.cache_folder()
    ledger = Ledger.read(folder)
    if ledger.remember(located.path, seen):  # of a wrong file, too: what loading remembers may be of the one before
        with suppress(OSError), Ledger.change(folder) as ledger:  # a folder that many share may be read-only
            ledger.remember(located.path, seen)
    holding = _holding(located, seen, ledger)
    if holding.state != "unchecked":
        return holding
    try:
        read_as(located, located.path)
        library.vouch(located, seen)
    except EncoderError as error:
        return replace(holding, state="wrong", problem=str(error))
    return replace(holding, state="unverified")


def iter_repin(name: str) -> Steps[str]:
    """Take the file of an encoder as it is now for the right one from now on.

    Parameters
    ----------
    name : str
        An encoder without a published hash, or an imported checkpoint.

    Yields
    ------
    Progress
        In bytes of the file that is hashed.

    Returns
    -------
    str
        Its sha256; empty where no file is here, and the next one to come is pinned.

    Raises
    ------
    EncoderError
        Unknown name, the hash or its beginning is published and another one, or the file cannot be read as the
        encoder's weights.
    StudyError
        ``weights.json`` cannot be written.
    """
    spec, folder = library.entry(name), library.cache_folder()
    own = spec.name.lower() in Ledger.read(folder).imports and not library.is_published(spec.name)
    open_ones = [place for place in library.places(spec) if own or (place.source and place.source.sha256 is None)]
    if not open_ones:
        raise EncoderError(f"The sha256 of {spec.name} is published; a file with another one is another file.")
    found: dict[Path, Seen] = {}
    for located in open_ones:
        if located.path.is_file():
            found[located.path] = yield from iter_seen(located.path)
            _check_right(located, found[located.path], own)
    with disk_errors(folder), Ledger.change(folder) as ledger:
        for located in open_ones:
            seen = found.get(located.path)
            if seen is None:
                ledger.pins.pop(ledger.key(located.path), None)
                continue
            ledger.remember(located.path, seen)
            if own:
                known = ledger.imports[spec.name.lower()]
                ledger.imports[spec.name.lower()] = replace(known, sha256=seen.sha256)
            else:
                ledger.pin(located.path, seen.sha256, spec.name)
    return next((seen.sha256 for seen in reversed(found.values())), "")


def repin(name: str) -> str:
    """Take a file for the right one as `iter_repin` does, without reports."""
    return drain(iter_repin(name))


def _check_right(located: Located, seen: Seen, own: bool) -> None:
    """Raise EncoderError for a file that cannot be its encoder's, whoever says so."""
    if not own and located.source is not None and located.source.agrees(seen.sha256) is False:
        raise EncoderError(library.difference(located, seen.sha256, Ledger(library.cache_folder())))
    read_as(located, located.path)
    if not seen.holds(located.path):
        raise EncoderError(f"{located.path}: was replaced while it was read. Run again.")


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


def _holding(located: Located, seen: Seen | None, ledger: Ledger) -> Holding:
    """Say in what state a file is, whose hash is known or not."""
    spec, source = located.spec, located.source
    if spec is None or source is None:
        raise TypeError("only files of named encoders are held")
    bundled = library.is_bundled(spec)
    if seen is None:
        return Holding(spec, "bundled" if bundled else "unchecked", located.path)
    sha256 = seen.sha256
    problem = library.difference(located, sha256, ledger)
    if problem:
        return Holding(spec, "wrong", located.path, sha256, problem)
    if not source.url:
        state: State = "bundled" if bundled else "imported"
    elif source.agrees(sha256):
        state = "verified"
    else:
        state = "unverified" if library.is_vouched(located, sha256, ledger) else "unchecked"
    return Holding(spec, state, located.path, sha256)


def _shifted(steps: Steps[Seen], done: int, total: int, message: str) -> Steps[Seen]:
    """Report the progress of one file as that of all."""
    while True:
        try:
            report = next(steps)
        except StopIteration as end:
            seen: Seen = end.value
            return seen
        yield Progress(done + report.done, total, message)
