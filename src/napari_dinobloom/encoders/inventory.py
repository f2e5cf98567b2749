"""Which encoders lie on this machine, and in what state."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from napari_dinobloom.encoders import library
from napari_dinobloom.encoders.build import read_as
from napari_dinobloom.encoders.ledger import Ledger, Seen, iter_seen
from napari_dinobloom.encoders.library import Located
from napari_dinobloom.encoders.registry import REGISTRY
from napari_dinobloom.encoders.spec import EncoderSpec
from napari_dinobloom.errors import EncoderError
from napari_dinobloom.io.atomic import disk_errors
from napari_dinobloom.progress import Progress, Steps, drain

State = Literal["absent", "bundled", "verified", "unverified", "imported", "unchecked", "wrong"]
"""verified: as published; unverified: nothing is published to compare with, but it was read and is the same since;
unchecked: not hashed or not read since it changed."""


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
