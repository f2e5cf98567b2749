"""Where the weights of an encoder lie on this machine, which file a name stands for, and if it is the right one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from napari_dinobloom.encoders.architecture import ARCHITECTURES, Network
from napari_dinobloom.encoders.ledger import Imported, Ledger, Seen, iter_seen
from napari_dinobloom.encoders.registry import REGISTRY, TIMM, find, published_as, spec_of
from napari_dinobloom.encoders.spec import EncoderSpec, PositionRule, WeightSource
from napari_dinobloom.errors import EncoderError, LicenceError
from napari_dinobloom.progress import drain

CACHE_VARIABLE = "NAPARI_DINOBLOOM_CACHE"

FILE_ENDINGS = (".pth", ".pt", ".bin", ".safetensors")
"""A name that ends so is a path."""


@dataclass(frozen=True, slots=True)
class Located:
    """The file that a name stands for.

    Attributes
    ----------
    path : Path
        The file of weights.
    spec : EncoderSpec or None
        Registry entry, or that of an imported checkpoint; None for a file given by path.
    source : WeightSource or None
        Where the file is published, with its hash if that is known.
    """

    path: Path
    spec: EncoderSpec | None = None
    source: WeightSource | None = None


def cache_folder() -> Path:
    """Give the folder where downloaded weights lie.

    Returns
    -------
    Path
        The environment's NAPARI_DINOBLOOM_CACHE, else the system's cache folder for napari-dinobloom.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    import pooch

    return Path(pooch.os_cache("napari-dinobloom"))


def locate(name: str | Path) -> Located:
    """Find the file of an encoder, and its registry entry where it was asked for by name.

    Parameters
    ----------
    name : str or Path
        A registry name, the name of an imported checkpoint, or the path of a file of weights (`is_path`). Where
        several files of an encoder are here, the first that is not known to be a wrong one.

    Returns
    -------
    Located

    Raises
    ------
    EncoderError
        Unknown name, or the file is not there: the message says how to fetch it and where to put it.
    LicenceError
        The weights stand under terms that were not accepted on this machine.
    """
    if is_path(name):
        path = Path(name).expanduser()
        if not path.is_file():
            raise EncoderError(f"{path}: there is no such file. Give the path of a file of weights.")
        return Located(path)
    spec = entry(str(name))
    here = [located for located in places(spec) if located.path.is_file()]
    if not here:
        raise EncoderError(_not_here(spec))
    check_terms(spec)
    return here[0] if len(here) == 1 else next((one for one in here if not _known_wrong(one)), here[0])


def is_path(name: str | Path) -> bool:
    """Whether a name is the path of a file: a `Path`, or a text with a folder or the ending of a file of weights.

    A file of the current folder never takes the place of an encoder that has its name.
    """
    if isinstance(name, Path):
        return True
    if name.startswith(TIMM):
        return False
    return Path(name).suffix.lower() in FILE_ENDINGS or any(mark in name for mark in (os.sep, os.altsep) if mark)


def entry(name: str) -> EncoderSpec:
    """Give the entry of an encoder by name: of the registry, or of a checkpoint imported on this machine.

    Parameters
    ----------
    name : str
        Capitals aside.

    Returns
    -------
    EncoderSpec

    Raises
    ------
    EncoderError
        Where nothing has the name; the message lists what there is.
    """
    if is_published(name):
        return find(name)
    imports = Ledger.read(cache_folder()).imports
    if name.lower() in imports:
        return _spec_of(imports[name.lower()])
    try:
        return find(name)
    except EncoderError as error:
        own = ", ".join(imported.name for imported in imports.values())
        own = f" Imported on this machine: {own}." if own else ""
        lies = f" For the file of this name here, write {os.curdir}{os.sep}{name}." if Path(name).is_file() else ""
        raise EncoderError(f"{error}{own}{lies}") from None


def is_published(name: str) -> bool:
    """Whether the registry has an entry of this name, capitals aside."""
    return name.lower() in {known.lower() for known in REGISTRY}


def is_bundled(spec: EncoderSpec) -> bool:
    """Whether an encoder's weights come with this package."""
    return is_published(spec.name) and not any(source.url for source in spec.sources)


def places(spec: EncoderSpec) -> Iterator[Located]:
    """Give the files, here or not, in which an encoder's weights are looked for, in this order."""
    folder = cache_folder()
    for source in spec.sources:
        if is_bundled(spec):
            bundled = Path(str(resources.files("napari_dinobloom") / "weights" / source.file))
            yield Located(bundled, spec, _from_card(bundled, source))
        else:
            yield Located(folder / source.file, spec, source)  # that of an import may be absolute


def identify(name: str | Path) -> str:
    """Give the sha256 of the weights that `load_encoder` would load, without loading torch.

    Parameters
    ----------
    name : str or Path
        As for `load_encoder`.

    Returns
    -------
    str
        64 hexadecimal digits: the published hash where one is known (loading checks it), else the file's.

    Raises
    ------
    EncoderError
        Unknown name, or the file is not there, cannot be read, or is not the one that was first seen.
    LicenceError
        As for `locate`; or the file given by path is one that is published under terms.
    """
    located = locate(name)
    known = located.source.sha256 if located.source is not None else None
    return known if known is not None else checked(located).sha256


def checked(located: Located) -> Seen:
    """Hash a file, or remember its hash where it has not changed, and compare it.

    Parameters
    ----------
    located : Located
        What `locate` found.

    Returns
    -------
    Seen
        The hash and the state of the file that it was computed from.

    Raises
    ------
    EncoderError
        The hash is not the published or the pinned one: the message names both, and the remedy. Or the file cannot
        be read.
    LicenceError
        The file given by path is one that is published under terms that were not accepted.
    """
    seen = hashed(located)
    wrong = difference(located, seen.sha256, _ledger(located))
    if wrong:
        raise EncoderError(wrong)
    if located.spec is None and (twin := published_as(seen.sha256)):
        check_terms(twin)
    return seen


def hashed(located: Located) -> Seen:
    """Hash a file, or remember its hash where it has not changed; EncoderError where it cannot be read."""
    if remembered := _ledger(located).remembered(located.path):
        return remembered
    seen = drain(iter_seen(located.path))
    if _ledger(located).remember(located.path, seen):
        with suppress(OSError), Ledger.change(cache_folder()) as ledger:  # a folder that many share may be read-only
            ledger.remember(located.path, seen)
    return seen


def vouch(located: Located, seen: Seen) -> None:
    """Take down that a file was read as the weights of its encoder; where no sha256 is published, pin its hash.

    From then on the file counts as the same one only as long as its hash stays.

    Parameters
    ----------
    located : Located
        What was read.
    seen : Seen
        What was hashed.

    Raises
    ------
    EncoderError
        The file is not the one that was hashed, or another one was pinned meanwhile.
    """
    if not seen.holds(located.path):
        raise EncoderError(f"{located.path}: was replaced while it was read. Run again.")
    if not _is_open(located) or (known := _ledger(located)).key(located.path) in known.pins:
        return
    with suppress(OSError), Ledger.change(cache_folder()) as ledger:
        note(located, seen, ledger)


def note(located: Located, seen: Seen, ledger: Ledger) -> None:
    """Take down the hash of a file that was read or is published, and pin it where none is.

    Raises
    ------
    EncoderError
        Another process pinned another file.
    """
    wrong = difference(located, seen.sha256, ledger)
    if wrong:
        raise EncoderError(wrong)
    ledger.remember(located.path, seen)
    if located.spec is not None and _is_open(located) and ledger.key(located.path) not in ledger.pins:
        ledger.pin(located.path, seen.sha256, located.spec.name)


def is_vouched(located: Located, sha256: str, ledger: Ledger) -> bool:
    """Whether a hash that does not differ is known to be right: published, or pinned when the file was read."""
    source = located.source
    return ledger.key(located.path) in ledger.pins or (source is not None and source.agrees(sha256) is True)


def _is_open(located: Located) -> bool:
    """Whether a file is an encoder's, and its whole hash is not published."""
    return located.spec is not None and located.source is not None and located.source.sha256 is None


def _ledger(located: Located) -> Ledger:
    """Read the ledger; an empty one for what comes with the package, which needs none."""
    folder = cache_folder()
    bundled = located.spec is not None and is_bundled(located.spec)
    return Ledger(folder) if bundled else Ledger.read(folder)


def _known_wrong(located: Located) -> bool:
    """Whether a file differs from what it should be, as far as that is known without hashing it."""
    ledger = _ledger(located)
    seen = ledger.remembered(located.path)
    return seen is not None and bool(difference(located, seen.sha256, ledger))


def difference(located: Located, sha256: str, ledger: Ledger) -> str:
    """Say how a hash differs from the published or the pinned one, and what to do; empty where it does not."""
    path, spec, source = located.path, located.spec, located.source
    if spec is None or source is None:
        return ""
    again = f"remove it and fetch it again: `napari-dinobloom weights download {spec.name}`"
    repin = f"`napari-dinobloom weights verify --repin {spec.name}`"
    found = f"{path}: its sha256 is {sha256}, but"
    if source.agrees(sha256) is False:
        known = source.sha256 or f"{source.sha256_prefix}..."
        if source.url:
            return f"{found} {spec.name} is published as {known}. The file is damaged or another one; {again}."
        if is_bundled(spec):
            return f"{found} that of the package is {known}. Install napari-dinobloom again."
        return f"{found} it was {known} when it was imported as {spec.name}. If you changed it on purpose: {repin}."
    pin = ledger.pins.get(ledger.key(path))
    if pin is None or pin.sha256 == sha256 or source.sha256 is not None:
        return ""
    return (
        f"{found} it was {pin.sha256} when it was first seen here ({pin.at}). If you replaced it on purpose: {repin}; "
        f"else {again}."
    )


def check_terms(spec: EncoderSpec) -> None:
    """Raise LicenceError where the weights stand under terms that were not accepted on this machine."""
    name = _owner(spec).name
    if not spec.terms or (ledger := Ledger.read(cache_folder())).has_accepted(name, spec.terms):
        return
    raise LicenceError(
        f"{spec.terms.rstrip('.')}. Your acceptance of these terms is kept in {ledger.folder}.",
        f"Accept with `napari-dinobloom weights download {name} --accept-licence`, or in Python with "
        f"napari_dinobloom.encoders.library.accept({name!r}).",
        lambda: accept(name),
    )


def accept(name: str | Path) -> None:
    """Take down that you accept the terms of an encoder's weights; nothing to do for free ones and for files.

    Parameters
    ----------
    name : str or Path
        As for `load_encoder`.

    Raises
    ------
    EncoderError
        Unknown name, or the cache folder cannot be written.
    """
    if is_path(name):
        return
    spec, folder = _owner(entry(str(name))), cache_folder()
    if not spec.terms or Ledger.read(folder).has_accepted(spec.name, spec.terms):
        return
    try:
        with Ledger.change(folder) as ledger:
            ledger.accept(spec.name, spec.terms)
    except OSError as error:
        raise EncoderError(
            f"{folder}: your acceptance cannot be kept ({error.strerror or error}). Make the folder writable, "
            f"or choose another with the environment variable {CACHE_VARIABLE}."
        ) from error


def _owner(spec: EncoderSpec) -> EncoderSpec:
    """The published encoder whose terms an entry has: of an imported copy the original, else the entry itself."""
    known = (source.sha256 for source in spec.sources if source.sha256)
    return spec if is_published(spec.name) else next(filter(None, map(published_as, known)), spec)


def _spec_of(imported: Imported) -> EncoderSpec:
    """Make the entry of an imported checkpoint; a copy of a published file keeps the terms of that."""
    rules: dict[str, PositionRule] = {"hub": "hub", "training": "training", "timm": "timm"}
    twin = published_as(imported.sha256)
    return spec_of(
        ARCHITECTURES.get(imported.architecture) or Network(imported.architecture),
        imported.name,
        like=imported.like or None,
        licence=twin.licence if twin else "as you know it",
        terms=twin.terms if twin else "",
        sources=(WeightSource("", imported.file, sha256=imported.sha256),),
        positions=rules.get(imported.positions),
        note=f"Imported on this machine, {imported.at}.",
    )


def _from_card(path: Path, source: WeightSource) -> WeightSource:
    """Add the hash that the package's model card states for a bundled file."""
    card = path.with_suffix(".json")
    try:
        stated = json.loads(card.read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise EncoderError(f"{card}: the model card with the sha256 is missing or damaged. Install again.") from error
    return replace(source, sha256=str(stated))


def _not_here(spec: EncoderSpec) -> str:
    if not spec.sources[0].url:
        if is_bundled(spec):
            return f"The weights of {spec.name!r} are missing from the package. Install napari-dinobloom again."
        path = cache_folder() / spec.sources[0].file
        return f"{path}: this file, imported as {spec.name!r}, is gone. Put it back, or import another one."
    offers = "\n".join(f"  {source.url}  ->  {source.file}" for source in spec.sources)
    fetch = f"`napari-dinobloom weights download {spec.name}`"
    return (
        f"The weights of {spec.name!r} are not on this machine. Fetch them with {fetch}, with `--from FILE` where "
        f"you carried the file here; or put one of these files, under the name on the right, into {cache_folder()} "
        f"(the environment variable {CACHE_VARIABLE} chooses another folder), or pass the path of the file:\n{offers}"
    )
