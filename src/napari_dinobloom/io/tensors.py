"""The one file format of what was learned from cells: safetensors with one JSON document in the header. No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.io.atomic import replacing

_KEY = "napari-dinobloom"


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], kind: str, about: Mapping[str, Any]) -> Path:
    """Replace `path` by a safetensors file of `tensors` with `about` as JSON, whole or not at all.

    The same content gives the same bytes: the header holds one key, and the JSON is sorted.
    """
    from safetensors.numpy import save_file

    document = json.dumps({"kind": kind, **about}, sort_keys=True, ensure_ascii=False, allow_nan=False)
    ordered = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    with replacing(path) as part:
        part.touch()
        mode = part.stat().st_mode  # what the user's umask gives; safetensors would keep the file to its writer
        save_file(ordered, part, metadata={_KEY: document})
        part.chmod(mode)
    return path


def read_tensors(
    path: Path, kind: str, dtypes: Mapping[str, str], error: type[DinoBloomError] = DinoBloomError
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Parameters
    ----------
    path : Path
        The file.
    kind : str
        What it must say that it is.
    dtypes : mapping of str to str
        Every tensor it must hold, and its numpy dtype.
    error : type
        What to raise.

    Returns
    -------
    tensors : dict of str to array
        One array for each name in `dtypes`.
    about : dict
        The JSON document, without ``kind``.

    Raises
    ------
    DinoBloomError
        Of type `error`, if the file is missing, broken, of another kind, or holds other tensors or dtypes.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise error(f"{path}: there is no such file")
    try:
        with safe_open(path, framework="numpy") as handle:
            document = json.loads((handle.metadata() or {}).get(_KEY, "null"))
            found = _checked(path, document, kind, set(handle.keys()), set(dtypes), error)
            tensors = {name: handle.get_tensor(name) for name in dtypes}
    except (SafetensorError, OSError, ValueError, TypeError, RecursionError) as reason:
        raise error(f"{path}: not a readable safetensors file of kind {kind!r} ({reason})") from reason
    for name, dtype in dtypes.items():
        if tensors[name].dtype != np.dtype(dtype):
            raise error(
                f"{path}: {name} is {tensors[name].dtype}, not {dtype}; the file was changed or is from elsewhere"
            )
    return tensors, found


def read_kind(path: Path, error: type[DinoBloomError] = DinoBloomError) -> str:
    """Say what a file that `write_tensors` wrote is; empty for another safetensors file.

    Raises
    ------
    DinoBloomError
        Of type `error`, if the file is missing or no safetensors file.
    """
    document = _document(path, error, "")
    return str(document.get("kind", "")) if isinstance(document, dict) else ""


def read_header(path: Path, kind: str, error: type[DinoBloomError] = DinoBloomError) -> dict[str, Any]:
    """Read the JSON document of what `write_tensors` wrote, without ``kind``, and no tensor.

    Raises
    ------
    DinoBloomError
        Of type `error`, if the file is missing, broken or of another kind.
    """
    return _checked(path, _document(path, error, f" of kind {kind!r}"), kind, set(), set(), error)


def _document(path: Path, error: type[DinoBloomError], what: str) -> Any:
    """The JSON document in a file's header; None if it has none."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise error(f"{path}: there is no such file")
    try:
        with safe_open(path, framework="numpy") as handle:
            return json.loads((handle.metadata() or {}).get(_KEY, "null"))
    except (SafetensorError, OSError, ValueError, RecursionError) as reason:
        raise error(f"{path}: not a readable safetensors file{what} ({reason})") from reason


def _checked(
    path: Path, document: Any, kind: str, names: set[str], wanted: set[str], error: type[DinoBloomError]
) -> dict[str, Any]:
    """Return the header's document without its kind after comparing kind and tensor names."""
    if not isinstance(document, dict) or document.get("kind") != kind:
        is_kind = document.get("kind") if isinstance(document, dict) else None
        raise error(f"{path}: a file of kind {kind!r} is needed, this is {is_kind or 'another file'!r}")
    if names != wanted:
        raise error(f"{path}: holds {sorted(names)} where {sorted(wanted)} are needed; the file was changed")
    return {key: value for key, value in document.items() if key != "kind"}
