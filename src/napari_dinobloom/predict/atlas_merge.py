"""Atlases made of parts: other atlases, and the cells that people named in studies.

A cell that stands in two parts is kept once. It is the same cell when it comes from the same picture and, where parts
know the place of their cells, from the same spot. What is taken over from `info` is on a list of facts that cannot hold
the name of a patient; of the parts only hashes are kept, not their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells.stain_transfer import METHODS
from napari_dinobloom.errors import AtlasError
from napari_dinobloom.io.tensors import read_header
from napari_dinobloom.predict.atlas import Atlas
from napari_dinobloom.predict.atlas_file import KIND
from napari_dinobloom.predict.classifier import REFERENCE_STAIN
from napari_dinobloom.predict.knn import Metric, Weights
from napari_dinobloom.predict.shelf import shelf
from napari_dinobloom.predict.thumbnails import Thumbnails, joined

SAME_PX = 5.0
"""Cells of one picture whose centres lie no farther apart are one cell that was outlined twice."""

_EQUAL = ("crop_version", "segment_version", "segmenter", "pooling")
"""Facts that are kept where all parts agree on them."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Labelled cells that become part of an atlas; the arrays are those of `Atlas`.

    Attributes
    ----------
    name : str
        What errors call it; goes into no file.
    place : (n, 2) array of float32
        As in `Atlas`; all NaN where nobody knows.
    hash : str
        Of the atlas it comes from; empty for none.
    """

    name: str
    X: NDArray[np.float32]
    y: NDArray[np.str_]
    source: NDArray[np.str_]
    held_out: NDArray[np.bool_]
    place: NDArray[np.float32]
    thumbnails: Thumbnails | None
    encoder: str
    encoder_sha256: str
    policy: Mapping[str, Any]
    policy_hash: str
    info: Mapping[str, Any]
    hash: str = ""

    @classmethod
    def of(cls, atlas: Atlas) -> Part:
        """All cells of an atlas."""
        arrays = {what: getattr(atlas, what) for what in ("X", "y", "source", "held_out", "thumbnails")}
        facts = ("name", "encoder", "encoder_sha256", "policy", "policy_hash", "info", "hash")
        place = np.full((len(atlas), 2), np.nan, np.float32) if atlas.place is None else atlas.place
        return cls(**arrays, place=place, **{what: getattr(atlas, what) for what in facts})


def merge(atlases: Sequence[Atlas], *, name: str, origin: str = "") -> Atlas:
    """Make one atlas of several, whose votes are counted as the first one's are; see `combine`."""
    first = atlases[0]
    votes: dict[str, Any] = {"k": first.k, "metric": first.metric, "weights": first.weights}
    return combine([Part.of(atlas) for atlas in atlases], name=name, origin=origin, **votes)


def combine(
    parts: Sequence[Part],
    *,
    name: str,
    k: int = 20,
    metric: Metric = "euclidean",
    weights: Weights = "uniform",
    origin: str = "",
    twice: Literal["refuse", "last"] = "refuse",
) -> Atlas:
    """Make one atlas of parts.

    Parameters
    ----------
    parts : sequence of Part
        Of one encoder, pooling, crop policy and stain normalisation.
    name : str
        Name of the new one, for people.
    k, metric, weights
        As for `KnnClassifier`.
    origin : str
        Data sets, citations and licences. Where the package's own atlas is a part, its origin is kept beside it.
    twice : {"refuse", "last"}
        What to do with a cell that two parts give different classes: refuse, or take the later part's word.

    Returns
    -------
    Atlas
        Threshold, distance limit and confusion are those of the new whole.

    Raises
    ------
    AtlasError
        If encoder, pooling, crops or stain differ, or a cell has two classes (both parts are named); or as
        `Atlas.from_embeddings`.
    """
    first = parts[0]
    for other in parts[1:]:
        _check_alike(first, other)
    told = [part for part in parts if part.info.get("stain") != REFERENCE_STAIN]
    for other in told[1:]:
        _check_same_stain(told[0], other)
    y, source, place, X, held_out = (
        np.concatenate([getattr(part, what) for part in parts]) for what in ("y", "source", "place", "X", "held_out")
    )
    keep = _kept(parts, y, source, place, twice)
    pictures = joined([(len(part.y), part.thumbnails) for part in parts])
    return Atlas.from_embeddings(
        X[keep],
        y[keep].tolist(),
        source[keep].tolist(),
        held_out[keep],
        name=name,
        encoder=first.encoder,
        encoder_sha256=first.encoder_sha256,
        policy=first.policy,
        policy_hash=first.policy_hash,
        k=k,
        metric=metric,
        weights=weights,
        place=place[keep],
        thumbnails=None if pictures is None else pictures.take(np.flatnonzero(keep)),
        info=_info(parts, y[keep], origin),
    )


def _check_alike(one: Part, other: Part) -> None:
    """Raise AtlasError unless two parts have one encoder, pooling and crop policy."""
    facts = {
        "encoder": [f"{part.encoder} {part.encoder_sha256[:12]}" for part in (one, other)],
        "pooling": [part.info.get("pooling", "class") for part in (one, other)],
        "crop policy": [dict(part.policy) for part in (one, other)],
    }
    for what, (own, its) in facts.items():
        if own != its:
            raise AtlasError(
                f"{one.name!r} and {other.name!r} cannot make one atlas: their {what} is {own} and {its}. "
                "Build or embed one of them again with the other's"
            )


def _check_same_stain(one: Part, other: Part) -> None:
    """Raise AtlasError if crops of one part were recoloured and those of the other were not, or otherwise."""
    own, its = (part.info.get("stain", "") or "none" for part in (one, other))
    if own != its:
        raise AtlasError(
            f"{one.name!r} and {other.name!r} cannot make one atlas: their crops were recoloured by {own} and {its}. "
            "Embed the study again as the other was (`embed --stain`), or leave one out"
        )


def _kept(
    parts: Sequence[Part], y: NDArray[np.str_], source: NDArray[np.str_], place: NDArray[np.float32], twice: str
) -> NDArray[np.bool_]:
    """Rows that stay: of a cell that is there several times the first, or the last where that has the say."""
    part = np.repeat(np.arange(len(parts)), [len(one.y) for one in parts])
    pairs = same_cells(source, place)
    pairs = pairs[part[pairs[:, 0]] != part[pairs[:, 1]]]
    contrary = pairs[y[pairs[:, 0]] != y[pairs[:, 1]]]
    if len(contrary) and twice == "refuse":
        one, other = contrary[0].tolist()
        raise AtlasError(
            f"The same cell (picture {source[one]}) is {str(y[one])!r} in {parts[part[one]].name!r} and "
            f"{str(y[other])!r} in {parts[part[other]].name!r} ({len(contrary)} such cells): name it alike in both, "
            "or leave it out of one"
        )
    keep = np.ones(len(y), dtype=bool)
    keep[pairs[:, 1 if twice == "refuse" else 0]] = False
    return keep


def same_cells(source: NDArray[np.str_], place: NDArray[np.float32]) -> NDArray[np.intp]:
    """Pairs of rows that are one cell, (pairs, 2), the earlier row first.

    Parameters
    ----------
    source : (n,) array of str
        Picture of each row.
    place : (n, 2) array of float32
        y and x in the picture, pixels; NaN where the cell is the picture.
    """
    from scipy.spatial import cKDTree

    _, code = np.unique(source, return_inverse=True)
    whole = np.isnan(place[:, 0]) | np.isnan(place[:, 1])
    spot = np.where(whole[:, None], 0.0, place.astype(np.float64))
    # Whole pictures and every picture's cells lie on layers of their own, far apart from each other.
    points = np.column_stack([spot, 1e3 * SAME_PX * (2 * code + whole)])
    pairs: NDArray[np.intp] = cKDTree(points).query_pairs(SAME_PX, output_type="ndarray").astype(np.intp)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _info(parts: Sequence[Part], y: NDArray[np.str_], origin: str) -> dict[str, Any]:
    """Facts of the new atlas, none of which can hold a name."""
    names, n = np.unique(y, return_counts=True)
    about: dict[str, Any] = {"cells": {one: {"n": m} for one, m in zip(names.tolist(), n.tolist(), strict=True)}}
    for key in _EQUAL:
        if all(key in part.info for part in parts) and len({str(part.info[key]) for part in parts}) == 1:
            about[key] = parts[0].info[key]
    stains = {str(part.info.get("stain", "")) for part in parts}
    stain = "".join(stains - {REFERENCE_STAIN} if len(stains) > 1 else stains)
    about |= {"stain": stain} if stain in (REFERENCE_STAIN, *METHODS) else {}
    made_of: list[dict[str, Any]] = []
    for part in parts:
        earlier = part.info.get("parts", [])
        made_of += [{"hash": str(one["hash"])[:64], "cells": int(one["cells"])} for one in earlier]
        made_of += [{"hash": part.hash, "cells": len(part.y)}] if part.hash else []
    about |= {"parts": made_of} if made_of else {}
    ours = [one for one in _published_origins() if any(one in str(part.info.get("origin", "")) for part in parts)]
    kept = "; ".join(dict.fromkeys(filter(None, [origin, *ours])))
    return about | ({"origin": kept} if kept else {})


def _published_origins() -> list[str]:
    """Origins of the package's own atlases, whose licence wants them to be named."""
    bundled = [read_header(one.path, KIND, AtlasError) for one in shelf() if one.bundled]
    return list(dict.fromkeys(str(about["info"]["origin"]) for about in bundled if "origin" in about["info"]))
