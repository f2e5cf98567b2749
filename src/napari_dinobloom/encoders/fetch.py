"""Bring the weights of a published encoder onto this machine, from the network or from a file that was carried here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from napari_dinobloom.encoders import library
from napari_dinobloom.encoders.build import read_as, read_weights
from napari_dinobloom.encoders.ledger import Ledger, Seen
from napari_dinobloom.encoders.library import Located
from napari_dinobloom.encoders.spec import EncoderSpec, WeightSource
from napari_dinobloom.errors import DownloadError, EncoderError
from napari_dinobloom.io.atomic import disk_errors
from napari_dinobloom.io.download import OFFLINE_VARIABLE, iter_download, offline
from napari_dinobloom.io.lock import Holder, acquire
from napari_dinobloom.io.part import Unwanted, iter_copy, iter_hash, part_of
from napari_dinobloom.progress import Steps, drain

HUGGING_FACE = "https://huggingface.co"
"""Host of models; the environment variable HF_ENDPOINT names a mirror, as it does for huggingface_hub."""

DENIED = (401, 403)


def fetch(
    name: str,
    *,
    source: str | Path | None = None,
    accept_licence: bool = False,
    token: str | None = None,
    base_url: str | None = None,
) -> Path:
    """Put the weights of an encoder into the cache folder, checked; nothing is done where they are there.

    Parameters
    ----------
    name : str
        A registry name, or "timm:" and the name of a model of timm.
    source : str or Path, optional
        A published file that was carried here; it is copied, and nothing is downloaded.
    accept_licence : bool, default: False
        You accept the terms of the weights, where there are any; this is kept with your name.
    token : str, optional
        Your token at Hugging Face for gated weights; else HF_TOKEN, or that of ``hf auth login``.
    base_url : str, optional
        A folder on a server of your own in which the files lie under the names of the cache folder.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    LicenceError
        The terms are not accepted.
    EncoderError
        Unknown name; no source could be reached, or all gave another file; the message has each address.
    StudyError
        The cache folder is full or cannot be written.
    """
    return drain(iter_fetch(name, source=source, accept_licence=accept_licence, token=token, base_url=base_url))


def iter_fetch(
    name: str,
    *,
    source: str | Path | None = None,
    accept_licence: bool = False,
    token: str | None = None,
    base_url: str | None = None,
) -> Steps[Path]:
    """Fetch as `fetch` does, with progress in bytes."""
    spec = _allowed(name, accept_licence)
    if source is not None:
        with _alone(library.cache_folder()):
            return (yield from _iter_place(spec, Path(source).expanduser()))
    wrong: list[Located] = []
    right = None
    for located in _here(spec):
        if _sound(located):
            right = located.path
            break
        wrong.append(located)
    if right is not None and not wrong:
        return right
    with _alone(library.cache_folder()):
        path = right or (yield from _iter_try(spec, wrong, token, base_url))
        for located in wrong:
            if located.path != path:  # else loading might take it
                located.path.unlink(missing_ok=True)
    return path


def _iter_try(spec: EncoderSpec, wrong: list[Located], token: str | None, base_url: str | None) -> Steps[Path]:
    """Fetch one of an encoder's files: in the place of a wrong one if that can be had, else the most trusted."""
    failures: list[str] = []
    silent: set[str] = set()
    for located in [*wrong, *(other for other in _by_trust(spec) if other not in wrong)]:
        host = urlsplit(_address(_named(located)[1], base_url)).netloc
        if host in silent:  # a firewall that swallows what is sent costs minutes each time
            continue
        try:
            return (yield from _iter_bring(located, token, base_url))
        except DownloadError as error:
            failures.append(_advised(located, error, token))
            silent |= {host} if error.unreachable else set()
    raise EncoderError(_all_failed(spec, failures))


def iter_fetch_all(
    name: str, *, accept_licence: bool = False, token: str | None = None, base_url: str | None = None
) -> Steps[list[Path]]:
    """Fetch the files of every source of an encoder, for a mirror or to compare them.

    Parameters
    ----------
    name, accept_licence, token, base_url
        As in `fetch`.

    Yields
    ------
    Progress
        In bytes of the file that is coming.

    Returns
    -------
    list of Path

    Raises
    ------
    EncoderError
        As `fetch`, if any source fails; what was fetched before stays.
    """
    spec = _allowed(name, accept_licence)
    paths = []
    with _alone(library.cache_folder()):
        for located in _by_trust(spec):
            if not (located.path.is_file() and _sound(located)):
                try:
                    yield from _iter_bring(located, token, base_url)
                except DownloadError as error:
                    raise EncoderError(_all_failed(spec, [_advised(located, error, token)])) from error
            paths.append(located.path)
    return paths


def _allowed(name: str, accept_licence: bool) -> EncoderSpec:
    """Give the entry of an encoder whose weights can be fetched and whose terms are accepted."""
    Ledger.read(library.cache_folder())  # a damaged one is said before anything is fetched
    spec = library.entry(name)
    if not any(source.url for source in spec.sources):
        raise EncoderError(f"The weights of {spec.name!r} come with the package or were imported: nothing to fetch.")
    if accept_licence:
        library.accept(spec.name)
    library.check_terms(spec)
    return spec


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from fetching into the same folder, and name it where it cannot be written."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = acquire(folder)
        if isinstance(lock, Holder):
            raise EncoderError(f"{folder}: {lock} is fetching weights. Wait until it has finished, then run again.")
        try:
            yield
        finally:
            lock.release()


def _here(spec: EncoderSpec) -> list[Located]:
    """Files of an encoder that are on this machine."""
    return [located for located in library.places(spec) if located.path.is_file()]


def _sound(located: Located) -> bool:
    """Whether a file that is here is the right one: by its hash, or where none is known by reading it."""
    seen, ledger = library.hashed(located), Ledger.read(library.cache_folder())
    if library.difference(located, seen.sha256, ledger):
        return False
    if library.is_vouched(located, seen.sha256, ledger):
        return True
    try:
        read_weights(located)
    except EncoderError:
        return False
    return True


def _by_trust(spec: EncoderSpec) -> list[Located]:
    """Files of an encoder that can be fetched: those with a published hash first, the smaller before the larger."""

    def rank(located: Located) -> tuple[bool, float]:
        source = _named(located)[1]
        return source.sha256 is None, (source.size or float("inf")) if source.sha256 else 0.0

    return sorted((place for place in library.places(spec) if place.source and place.source.url), key=rank)


def _iter_bring(located: Located, token: str | None, base_url: str | None) -> Steps[Path]:
    """Download one file and check it."""
    spec, source = _named(located)
    if source.manual and not base_url:
        raise DownloadError(f"{source.url} is a page for people: fetch {source.file} there with a browser")
    _need_room(located.path, source)
    url = _address(source, base_url)
    at_home = source.url.startswith(f"{HUGGING_FACE}/") and not base_url
    given = token if base_url else _token(token) if at_home and (spec.gated or token) else None
    expected, entrance = _expected(located), _Entrance(located)
    try:
        yield from iter_download(url, located.path, sha256=expected, token=given, check=entrance.look)
    except DownloadError as error:
        later = _token(token) if at_home and given is None and error.status in DENIED else None
        if later is None:
            raise
        yield from iter_download(url, located.path, sha256=expected, token=later, check=entrance.look)
    entrance.note()
    return located.path


def _iter_place(spec: EncoderSpec, carried: Path) -> Steps[Path]:
    """Copy a file that was carried here to its place, after a look at what it is."""
    if not carried.is_file():
        raise EncoderError(f"{carried}: there is no such file. Give the file that you carried here.")
    located = yield from _iter_recognise(spec, carried)
    if not (located.path.exists() and located.path.samefile(carried)):
        _, source = _named(located)
        _need_room(located.path, source, carried.stat().st_size)
        entrance = _Entrance(located)
        try:
            yield from iter_copy(carried, located.path, sha256=_expected(located), check=entrance.look)
        except Unwanted as error:
            raise EncoderError(
                f"{carried} is not {source.file} of {spec.name} as it is known: {error}. Carry it here again from "
                f"{source.url}"
            ) from error
        entrance.note()
    else:
        read_weights(located)
    return located.path


def _iter_recognise(spec: EncoderSpec, carried: Path) -> Steps[Located]:
    """Tell which of an encoder's files a file is: by its hash, else by its name."""
    places = [located for located in library.places(spec) if located.source and located.source.url]
    try:
        sha256 = yield from iter_hash(carried)
    except OSError as error:
        raise EncoderError(f"{carried}: cannot be read ({error.strerror or error}). Carry it here again.") from error
    for located in places:
        if _named(located)[1].agrees(sha256):
            return located
    for located in places:
        source = _named(located)[1]
        published = PurePosixPath(unquote(urlsplit(source.url).path)).name
        if carried.name in (source.file, published):
            return located
    names = ", ".join(_named(located)[1].file for located in places)
    raise EncoderError(
        f"{carried}: neither its sha256 ({sha256}) nor its name is that of a file of {spec.name}. If it is one, give "
        f"it its name: {names}. If it is your own checkpoint: `napari-dinobloom weights import FILE --name NAME`."
    )


class _Entrance:
    """The look at a file before it gets its name, and what is taken down of it afterwards."""

    def __init__(self, located: Located) -> None:
        self.located = located
        self._seen: Seen | None = None

    def look(self, part: Path, sha256: str) -> None:
        """Raise Unwanted for another file than the published one; one of which no hash is published is read."""
        _, source = _named(self.located)
        agrees = source.agrees(sha256)
        if agrees is False:
            known = source.sha256 or f"{source.sha256_prefix}..."
            raise Unwanted(f"its sha256 is {sha256}, and {known} is published")
        if agrees is None:
            try:
                read_as(self.located, part)
            except EncoderError as error:
                raise Unwanted(str(error).replace(str(part), source.file).rstrip(".")) from error
        self._seen = Seen.of(part.stat(), sha256)

    def note(self) -> None:
        """Take the hash down, now that the file has its name."""
        if self._seen is not None:
            with Ledger.change(library.cache_folder()) as ledger:
                library.note(self.located, self._seen, ledger)


def _expected(located: Located) -> str | None:
    """Hash that a file has to have: the published one, else the one that was seen first."""
    source = _named(located)[1]
    if source.sha256 is not None:
        return source.sha256
    ledger = Ledger.read(library.cache_folder())
    pin = ledger.pins.get(ledger.key(located.path))
    return None if pin is None else pin.sha256


def _address(source: WeightSource, base_url: str | None) -> str:
    """Where a file is fetched: where it is published, or at a mirror."""
    if base_url:
        return f"{base_url.rstrip('/')}/{source.file}"
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    if endpoint and source.url.startswith(f"{HUGGING_FACE}/"):
        return endpoint + source.url.removeprefix(HUGGING_FACE)
    return source.url


def _token(given: str | None) -> str | None:
    """The user's token at Hugging Face, where there is one."""
    if given:
        return given
    from huggingface_hub import get_token

    token: str | None = get_token()
    return token


def _need_room(target: Path, source: WeightSource, size: int | None = None) -> None:
    """Raise DownloadError where a file does not fit on the disk, as far as its size is known."""
    part = part_of(target)
    need = (size or source.size or 0) - (part.stat().st_size if part.exists() else 0)
    free = shutil.disk_usage(target.parent).free
    if need > free:
        raise DownloadError(
            f"{target.parent}: {source.file} needs {need / 1e9:.2f} GB, {free / 1e9:.2f} GB are free. Free some space, "
            f"or choose another folder with the environment variable {library.CACHE_VARIABLE}"
        )


def _named(located: Located) -> tuple[EncoderSpec, WeightSource]:
    """Entry and source of a published file."""
    if located.spec is None or located.source is None:
        raise TypeError("a published file has an entry and a source")
    return located.spec, located.source


def _advised(located: Located, error: DownloadError, token: str | None) -> str:
    """Add to an error what to do about it."""
    spec, source = _named(located)
    if error.status in DENIED and source.url.startswith(HUGGING_FACE):
        page = "/".join(source.url.split("/")[:5])
        if _token(token) is None:
            return (
                f"{error}. Ask for access at {page} if it is restricted, make a token at "
                f"{HUGGING_FACE}/settings/tokens, and set HF_TOKEN to it or run `hf auth login`."
            )
        return f"{error}. Your token has no access: ask for it at {page} with the account that the token belongs to."
    pinned = _expected(located) if source.sha256 is None else None
    if pinned is not None and "not the file expected" in str(error):
        return (
            f"{error}. It was {pinned} when it was first seen here; if the publisher changed it: remove the file and "
            f"run `napari-dinobloom weights verify --repin {spec.name}`, then fetch again."
        )
    return f"{error}."


def _all_failed(spec: EncoderSpec, failures: list[str]) -> str:
    """Say that no source gave the weights, and how to do without the network."""
    folder = library.cache_folder()
    carry = f"`napari-dinobloom weights download {spec.name} --from FILE`"
    if offline():
        offers = "\n".join(f"  {s.url}  ->  {s.file}" for s in spec.sources if s.url)
        return (
            f"The network is switched off here ({OFFLINE_VARIABLE}). Fetch one of these files on another machine, "
            f"carry it here and run {carry}, or put it under the name on the right into {folder}:\n{offers}"
        )
    listed = "\n".join(f"  {failure}" for failure in failures)
    return (
        f"The weights of {spec.name!r} could not be fetched:\n{listed}\nBehind a proxy, set HTTPS_PROXY. What has "
        f"arrived is kept, and the same command goes on from there. Or fetch the file on another machine and run "
        f"{carry}."
    )
