"""Where the weights of an encoder lie on this machine, and which file a name stands for."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from napari_dinobloom.encoders.checkpoint import file_hash
from napari_dinobloom.encoders.registry import EncoderSpec, WeightSource, find
from napari_dinobloom.errors import EncoderError

CACHE_VARIABLE = "NAPARI_DINOBLOOM_CACHE"


@dataclass(frozen=True, slots=True)
class Located:
    """The file that a name stands for.

    Attributes
    ----------
    path : Path
        The file of weights.
    spec : EncoderSpec or None
        Registry entry; None for a file given by path.
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
    import pooch

    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else Path(pooch.os_cache("napari-dinobloom"))


def locate(name: str | Path) -> Located:
    """Find the file of an encoder, and its registry entry where it was asked for by name.

    Parameters
    ----------
    name : str or Path
        A registry name or the path of a file of weights.

    Returns
    -------
    Located

    Raises
    ------
    EncoderError
        Unknown name, or the file is not there: the message says where it is published and where to put it.
    """
    path = Path(name).expanduser()
    if isinstance(name, Path) or path.suffix in {".pth", ".pt", ".bin", ".safetensors"} or path.is_file():
        if not path.is_file():
            raise EncoderError(f"{path}: there is no such file. Give the path of a file of weights.")
        return Located(path)
    spec = find(str(name))
    for source in spec.sources:
        found = _bundled(source) if not source.url else cache_folder() / source.file
        if found.is_file():
            return Located(found, spec, source if source.url else _pinned(found, source))
    raise EncoderError(_not_here(spec))


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
        Unknown name, or the file is not there.
    """
    located = locate(name)
    known = located.source.sha256 if located.source is not None else None
    return known if known is not None else file_hash(located.path)


def _bundled(source: WeightSource) -> Path:
    return Path(str(resources.files("napari_dinobloom") / "weights" / source.file))


def _pinned(path: Path, source: WeightSource) -> WeightSource:
    """Add the hash that the package's model card states for a bundled file."""
    card = path.with_suffix(".json")
    try:
        stated = json.loads(card.read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise EncoderError(f"{card}: the model card with the sha256 is missing or damaged. Install again.") from error
    return replace(source, sha256=str(stated))


def _not_here(spec: EncoderSpec) -> str:
    places = [source for source in spec.sources if source.url]
    if not places:
        return f"The weights of {spec.name!r} are missing from the package. Install napari-dinobloom again."
    offers = "\n".join(f"  {source.url}  ->  {source.file}" for source in places)
    return (
        f"The weights of {spec.name!r} are not on this machine. Put one of these files, under the name on the "
        f"right, into {cache_folder()} (the environment variable {CACHE_VARIABLE} chooses another folder), "
        f"or pass the path of the file:\n{offers}"
    )
