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
from napari_dinobloom.encoders.ledger import Imported, Ledger
from napari_dinobloom.encoders.registry import REGISTRY, find, spec_of
from napari_dinobloom.encoders.spec import EncoderSpec, PositionRule, WeightSource
from napari_dinobloom.errors import EncoderError, LicenceError
from napari_dinobloom.io.roots import sha256_of

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
        A registry name, the name of an imported checkpoint, or the path of a file of weights.

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
    path = Path(name).expanduser()
    if isinstance(name, Path) or path.suffix in FILE_ENDINGS or path.is_file():
        if not path.is_file():
            raise EncoderError(f"{path}: there is no such file. Give the path of a file of weights.")
        return Located(path)
    spec = entry(str(name))
    for located in places(spec):
        if located.path.is_file():
            check_terms(spec)
            return located
    raise EncoderError(_not_here(spec))


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
        raise EncoderError(f"{error} Imported on this machine: {own}." if own else str(error)) from None


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
        Unknown name, or the file is not there or not the one that was first seen.
    LicenceError
        As for `locate`.
    """
    located = locate(name)
    known = located.source.sha256 if located.source is not None else None
    return known if known is not None else checked_hash(located)


def checked_hash(located: Located) -> str:
    """Compute the sha256 of a file, or remember it where the file has not changed, and compare it.

    The first hash of a file for which none is published is pinned: the file counts as unverified, and as the
    same file only as long as its hash stays.

    Parameters
    ----------
    located : Located
        What `locate` found.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    EncoderError
        The hash is not the published or the pinned one. The message names both, and the remedy.
    """
    folder = cache_folder()
    bundled = located.spec is not None and is_bundled(located.spec)
    remembered = None if bundled else Ledger.read(folder).remembered(located.path)
    sha256 = remembered or sha256_of(located.path)
    ledger = Ledger(folder) if bundled else Ledger.read(folder)  # again: hashing takes a while
    wrong = difference(located, sha256, ledger)
    if wrong:
        raise EncoderError(wrong)
    if note(located, sha256, ledger):
        with suppress(OSError):  # a cache folder that many share may be read-only
            ledger.write()
    return sha256


def note(located: Located, sha256: str, ledger: Ledger) -> bool:
    """Take a hash down in `ledger`, which the caller writes; return whether there was something to take down."""
    new = ledger.remember(located.path, sha256)
    spec, source = located.spec, located.source
    if spec is None or source is None or source.sha256 is not None or ledger.key(located.path) in ledger.pins:
        return new
    ledger.pin(located.path, sha256, spec.name)
    return True


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
    if not spec.terms or (ledger := Ledger.read(cache_folder())).has_accepted(spec.name, spec.terms):
        return
    raise LicenceError(
        f"{spec.terms.rstrip('.')}. Your acceptance of these terms is kept in {ledger.folder}.",
        f"Accept with `napari-dinobloom weights download {spec.name} --accept-licence`, or in Python with "
        f"napari_dinobloom.encoders.library.accept({spec.name!r}).",
        lambda: accept(spec.name),
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
    path = Path(name).expanduser()
    if isinstance(name, Path) or path.suffix in FILE_ENDINGS or path.is_file():
        return
    spec, ledger = entry(str(name)), Ledger.read(cache_folder())
    if not spec.terms or ledger.has_accepted(spec.name, spec.terms):
        return
    ledger.accept(spec.name, spec.terms)
    try:
        ledger.write()
    except OSError as error:
        raise EncoderError(
            f"{ledger.folder}: your acceptance cannot be kept ({error.strerror or error}). Make the folder writable, "
            f"or choose another with the environment variable {CACHE_VARIABLE}."
        ) from error


def _spec_of(imported: Imported) -> EncoderSpec:
    """Make the entry of an imported checkpoint."""
    rules: dict[str, PositionRule] = {"hub": "hub", "training": "training", "timm": "timm"}
    return spec_of(
        ARCHITECTURES.get(imported.architecture) or Network(imported.architecture),
        imported.name,
        licence="as you know it",
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
