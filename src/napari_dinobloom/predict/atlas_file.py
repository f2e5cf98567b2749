"""The file of an atlas: one safetensors file, its header one JSON document, stamped with a sha256 over both.

Schema 1 has the tensors ``X`` (n, D) float16, ``y`` (n,) int16, ``source`` (n, 8) uint8, ``held_out`` (n,) uint8 and
``confusion`` (classes, classes + 1) int64. Schema 2 adds what not every atlas has: ``metric`` and ``weights`` in the
header, the tensors ``place`` (n, 2) float32, ``thumbnails`` (bytes,) uint8 and ``thumbnail_ends`` (n,) int64, and in
the header under ``parts`` which of these are there. An atlas that needs none of this is written as schema 1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells.stain_transfer import METHODS
from napari_dinobloom.errors import AtlasError
from napari_dinobloom.io.tensors import read_header, read_tensors, write_tensors
from napari_dinobloom.predict.atlas import Atlas, check_rows
from napari_dinobloom.predict.classifier import REFERENCE_STAIN
from napari_dinobloom.predict.knn import finite_rows
from napari_dinobloom.predict.thumbnails import Thumbnails

KIND = "reference-atlas"
SCHEMAS = (1, 2)
MOST_VOTES = 1000
_DTYPES = {"X": "float16", "y": "int16", "source": "uint8", "held_out": "uint8", "confusion": "int64"}
_PARTS = {
    "place": {"place": "float32"},
    "thumbnails": {"thumbnails": "uint8", "thumbnail_ends": "int64"},
}
_HEADER: dict[str, type | tuple[type, ...]] = {
    "schema": int,
    "name": str,
    "encoder": str,
    "encoder_sha256": str,
    "policy": dict,
    "policy_hash": str,
    "classes": list,
    "threshold": (int, float),
    "distance_limit": (int, float),
    "k": int,
    "info": dict,
    "hash": str,
}
_HEADER_2: dict[str, type | tuple[type, ...]] = {"metric": str, "weights": str, "parts": list}


def write_atlas(atlas: Atlas, path: Path) -> Path:
    """Write an atlas, whole or not at all, and return its path."""
    return write_tensors(path, _tensors(atlas), KIND, {**_header(atlas), "hash": atlas.hash})


def read_atlas(path: Path) -> Atlas:
    """Read and validate an atlas; AtlasError as `Atlas.load` says."""
    about = check_header(path, read_header(path, KIND, AtlasError))
    dtypes = dict(_DTYPES)
    for part in about.get("parts", []):
        dtypes |= _PARTS[part]
    tensors, again = read_tensors(path, KIND, dtypes, AtlasError)
    try:
        atlas = _assemble(tensors, check_header(path, again))
    except AtlasError as error:
        raise AtlasError(f"{path}: {error}") from error
    if digest(atlas) != atlas.hash:
        raise AtlasError(f"{path}: the content does not agree with the atlas' hash; get or build the file again")
    return atlas


def check_header(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Return a header in which every entry is of its type; AtlasError names the first that is not."""
    if about.get("schema") not in SCHEMAS:
        raise AtlasError(
            f"{path}: atlas schema {about.get('schema')!r}, but this version reads {' and '.join(map(str, SCHEMAS))}; "
            "build it again"
        )
    for key, kind in (_HEADER if about["schema"] == 1 else _HEADER | _HEADER_2).items():
        if not isinstance(about.get(key), kind):
            raise AtlasError(f"{path}: the header's {key!r} is {about.get(key)!r}; build the atlas again")
    if any(not isinstance(part, str) or part not in _PARTS for part in about.get("parts", [])):
        raise AtlasError(f"{path}: the header's 'parts' are {about['parts']!r}; build the atlas again")
    return about


def count_cells(path: Path) -> int:
    """Number of reference cells in a file, read from its header alone; AtlasError if it cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as handle:
            return int(handle.get_slice("y").get_shape()[0])
    except (SafetensorError, OSError, ValueError, IndexError) as error:
        raise AtlasError(f"{path}: not a readable atlas ({error}); get or build the file again") from error


def digest(atlas: Atlas) -> str:
    """sha256 over header and arrays."""
    found = hashlib.sha256(json.dumps(_header(atlas), sort_keys=True, allow_nan=False).encode())
    for name, array in sorted(_tensors(atlas).items()):
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _parts(atlas: Atlas) -> list[str]:
    """What an atlas has that not every one does."""
    return [part for part in _PARTS if getattr(atlas, part) is not None]


def _tensors(atlas: Atlas) -> dict[str, NDArray[Any]]:
    """The arrays as they are stored."""
    digits = np.frombuffer(bytes.fromhex("".join(atlas.source.tolist())), dtype=np.uint8)
    tensors: dict[str, NDArray[Any]] = {
        "X": atlas.X.astype(np.float16),
        "y": np.searchsorted(np.asarray(atlas.classes), atlas.y).astype(np.int16),
        "source": digits.reshape(len(atlas), 8),
        "held_out": atlas.held_out.astype(np.uint8),
        "confusion": atlas.confusion,
    }
    if atlas.place is not None:
        tensors["place"] = atlas.place
    if atlas.thumbnails is not None:
        tensors |= {"thumbnails": atlas.thumbnails.data, "thumbnail_ends": atlas.thumbnails.ends}
    return tensors


def _header(atlas: Atlas) -> dict[str, Any]:
    """The document in the file's header, without the hash."""
    parts = _parts(atlas)
    own_way = (atlas.metric, atlas.weights) != ("euclidean", "uniform")
    more = {"metric": atlas.metric, "weights": atlas.weights, "parts": parts} if parts or own_way else {}
    return {
        "schema": 2 if more else 1,
        "name": atlas.name,
        "encoder": atlas.encoder,
        "encoder_sha256": atlas.encoder_sha256,
        "policy": dict(atlas.policy),
        "policy_hash": atlas.policy_hash,
        "classes": list(atlas.classes),
        "threshold": atlas.threshold,
        "distance_limit": atlas.distance_limit,
        "k": atlas.k,
        "info": dict(atlas.info),
        **more,
    }


def _assemble(tensors: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> Atlas:
    """Make an atlas of the parts of a file, or raise AtlasError."""
    _check_fit(tensors, about)
    classes, n = about["classes"], len(tensors["y"])
    digits = tensors["source"].tobytes().hex()
    has_pictures = "thumbnails" in tensors
    atlas = Atlas(
        X=tensors["X"].astype(np.float32),
        y=np.asarray(classes, dtype=str)[tensors["y"].astype(np.int64)],
        source=np.array([digits[i : i + 16] for i in range(0, 16 * n, 16)], dtype=str),
        held_out=tensors["held_out"].astype(bool),
        confusion=tensors["confusion"],
        classes=tuple(classes),
        place=tensors.get("place"),
        thumbnails=Thumbnails(tensors["thumbnails"], tensors["thumbnail_ends"]) if has_pictures else None,
        metric=about.get("metric", "euclidean"),
        weights=about.get("weights", "uniform"),
        **{key: about[key] for key in _HEADER if key not in ("schema", "classes")},
    )
    finite_rows(atlas.X, "atlas")
    check_rows(atlas)
    return atlas


def check_info(info: Mapping[str, Any]) -> None:
    """Raise AtlasError where what an atlas or a probe says of how it was made cannot be used."""
    if info.get("stain", "") not in ("", REFERENCE_STAIN, *METHODS):
        raise AtlasError(f"the stain {str(info['stain'])[:40]!r} in the header is not known")
    parts = info.get("parts", [])
    if not isinstance(parts, list) or not all(
        isinstance(part, dict) and isinstance(part.get("hash"), str) and type(part.get("cells")) is int
        for part in parts
    ):
        raise AtlasError("the parts in the header's 'info' are no list of hashes and numbers of cells")


def _check_fit(tensors: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
    """Raise AtlasError where the parts of a file do not fit together."""
    classes = about["classes"]
    n, c = len(tensors["y"]), len(classes)
    shapes = {"y": (n,), "source": (n, 8), "held_out": (n,), "confusion": (c, c + 1), "place": (n, 2)}
    for name, shape in shapes.items():
        if name in tensors and tensors[name].shape != shape:
            raise AtlasError(f"{name} has shape {tensors[name].shape} where {shape} is needed")
    if tensors["X"].ndim != 2 or len(tensors["X"]) != n:
        raise AtlasError(f"X has shape {tensors['X'].shape}, but there are {n} labels")
    if not all(isinstance(name, str) for name in classes) or classes != sorted(set(classes)):
        raise AtlasError("the classes in the header are not sorted, distinct names")
    codes = tensors["y"].astype(np.int64)
    if np.any((codes < 0) | (codes >= c)) or len(np.unique(codes)) != c:
        raise AtlasError("the labels and the classes in the header do not agree")
    if np.any(tensors["confusion"] < 0) or np.any(tensors["held_out"] > 1):
        raise AtlasError("the confusion has negative counts or the held-out flags are not 0 and 1")
    if (
        not 0 <= about["threshold"] <= 1
        or not 0 < about["distance_limit"] < np.inf
        or not 1 <= about["k"] <= MOST_VOTES
    ):
        raise AtlasError("threshold, distance limit or k in the header are out of range")
    temperature = about["info"].get("temperature", 1.0)
    if type(temperature) not in (int, float) or not 0 < temperature < 1e6:
        raise AtlasError(f"the temperature {str(temperature)[:40]!r} in the header is out of range")
    check_info(about["info"])
    if about.get("metric", "cosine") not in ("euclidean", "cosine"):
        raise AtlasError(f"the metric {about['metric']!r} in the header is not known")
    if about.get("weights", "uniform") not in ("uniform", "distance"):
        raise AtlasError(f"the weights {about['weights']!r} in the header are not known")
