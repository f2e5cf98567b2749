"""A study's own reference: cells that people named extend an atlas, train a probe, and say which to name next.

What was embedded is taken as it is; nothing is embedded anew. A cell counts as named when it has a hand label and is
neither deleted nor excluded; ``unclassified`` is no name. No name of a patient, slide or file goes into what is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED
from napari_dinobloom.errors import AtlasError, InputError, StudyError
from napari_dinobloom.io.vectors import Vectors
from napari_dinobloom.pipeline.adapting import embeddings_of, is_moved
from napari_dinobloom.pipeline.classify import (
    PLATELET,
    TOGETHER,
    Weights,
    check_study,
    find_atlas,
    larger_than_platelets,
    name_cells,
    sources_of,
    weights_of,
)
from napari_dinobloom.pipeline.crops import policy_of, read_crop
from napari_dinobloom.pipeline.embedded import read_embeddings
from napari_dinobloom.pipeline.settings import resolve
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.cells.crop import CropPolicy
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.predict.atlas import Atlas
    from napari_dinobloom.predict.atlas_merge import Part
    from napari_dinobloom.predict.classifier import CellClassifier
    from napari_dinobloom.predict.thumbnails import Thumbnails

POOL = 10
"""So many times the cells that are asked for are looked at for diversity (beta of Zhdanov 2019)."""

BLOCK = 1024
"""Named cells from which distances are computed at once."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledCells:
    """The cells of a study that people named.

    Attributes
    ----------
    cell_ids : tuple of str
        Their ids.
    X : (n, D) array of float32
        Their embeddings, by the encoder of the cell table.
    y : (n,) array of str
        Hand labels.
    source : (n,) array of str
        First 16 hexadecimal digits of the sha256 of the field's file: cells of one picture never vote on each other.
    place : (n, 2) array of float32
        y and x of the centre, pixels of the field; NaN where each picture is one cell.
    weights : Weights
        The encoder, what was taken of its output, and how crops were recoloured first.
    policy : CropPolicy
        How the cells were cropped.
    """

    cell_ids: tuple[str, ...]
    X: NDArray[np.float32]
    y: NDArray[np.str_]
    source: NDArray[np.str_]
    place: NDArray[np.float32]
    weights: Weights
    policy: CropPolicy


def labelled(study: Study) -> LabelledCells:
    """Collect the cells of a study that people named.

    Parameters
    ----------
    study : Study
        May be open for reading only.

    Raises
    ------
    InputError
        If no cell is named, or a named one has no embedding yet or changed since it was embedded; or the cells were
        moved towards a reference (`RunSettings.adapt`): where they then lie means nothing without it.
    """
    obs, settings = study.cells.obs, resolve(study.settings, {})
    rows = np.flatnonzero(_named(obs))
    if not len(rows):
        raise InputError(f"{study.path}: nobody has named a cell by hand yet. Name some in the Gallery window.")
    notes = dict(study.cells.uns.get("dinobloom", {}))
    if "encoder_key" not in notes:
        raise InputError(f"{study.path}: its cells are not embedded yet; run `napari-dinobloom embed` first.")
    if is_moved(notes):
        raise InputError(
            f"{study.path}: its cells were moved towards the reference before they were named (adapt), so that they "
            f"can be no reference themselves. Run `napari-dinobloom classify {study.path.name} --adapt none` first."
        )
    X = read_embeddings(study, str(notes["encoder_key"]), rows=rows)
    lost = np.flatnonzero(~np.isfinite(X).all(axis=1))
    if len(lost):
        raise InputError(
            f"{study.path}: {len(lost)} of {len(rows)} named cells are not embedded as they are now, the first is "
            f"{obs.index[rows[lost[0]]]}. Run `napari-dinobloom embed {study.path.name}` first."
        )
    named = obs.iloc[rows]
    place = named[["y", "x"]].to_numpy(np.float32)
    return LabelledCells(
        cell_ids=tuple(named.index),
        X=X,
        y=named["label"].to_numpy(str),
        source=np.asarray(sources_of(study, named), dtype=str),
        place=np.full_like(place, np.nan) if settings.cells else place,
        weights=weights_of(notes),
        policy=policy_of(settings),
    )


def iter_atlas_of(studies: Sequence[Study], *, name: str, thumbnails: bool = False, **more: Any) -> Steps[Atlas]:
    """Make an atlas of the named cells of studies.

    Parameters
    ----------
    studies : sequence of Study
        Of one encoder and one crop policy.
    name : str
        Name for people.
    thumbnails : bool
        Whether the atlas carries small pictures of its cells.
    **more
        ``k metric weights`` as for `KnnClassifier`, and ``origin`` (str), the citation and licence.

    Yields
    ------
    Progress

    Returns
    -------
    Atlas
        All cells are held out: the encoder never saw them. A picture that stands in two studies gives each cell once.

    Raises
    ------
    InputError, AtlasError
        As for `labelled`; or encoder, pooling or crops differ, there are fewer than two classes, or a cell that stands
        in two studies has two classes.
    """
    from napari_dinobloom.predict.atlas_merge import combine

    parts = []
    for number, study in enumerate(studies):
        yield Progress(number, len(studies) + 1, "reading named cells")
        parts.append(_part(study, thumbnails))
    yield Progress(len(studies), len(studies) + 1, "choosing the threshold on held-out cells")
    atlas = combine(parts, name=name, **more)
    yield Progress(len(studies) + 1, len(studies) + 1, "choosing the threshold on held-out cells")
    return atlas


def iter_extend(study: Study, atlas: str | Path | Atlas | None, name: str, *, thumbnails: bool = False) -> Steps[Path]:
    """Extend an atlas by the named cells of a study and put it on the shelf.

    Parameters
    ----------
    study : Study
        May be open for reading only.
    atlas : Atlas, name, path or None
        What is extended; None makes an atlas of the study's cells alone.
    name : str
        Name on the shelf. The user's atlas of that name is replaced only when it is the one that is extended.
    thumbnails : bool
        Whether the new cells get small pictures.

    Yields
    ------
    Progress

    Returns
    -------
    Path
        The file. A cell that the atlas has already is there once, with the name it has in the study now.

    Raises
    ------
    InputError, AtlasError
        As for `labelled`; or the atlas is none, belongs to another encoder or other crops, or the name is taken.
    """
    from napari_dinobloom.predict.atlas import Atlas
    from napari_dinobloom.predict.atlas_merge import Part, combine
    from napari_dinobloom.predict.shelf import find, place_of

    target = place_of(name)
    base = atlas if isinstance(atlas, Atlas) or atlas is None else Atlas.load(find(atlas))
    if target.exists() and (base is None or Atlas.load(target).hash != base.hash):
        raise AtlasError(f"{name!r} is on the shelf already: extend that one, or choose another name")
    if base is None:
        return _shelved((yield from iter_atlas_of([study], name=name, thumbnails=thumbnails)), target)
    check_study(study, base, resolve(study.settings, {}))
    yield Progress(0, 1, "reading named cells")
    own = _part(study, thumbnails)
    yield Progress(0, 1, "choosing the threshold on held-out cells")
    votes: dict[str, Any] = {"k": base.k, "metric": base.metric, "weights": base.weights}
    made = combine([Part.of(base), own], name=name, twice="last", **votes)
    yield Progress(1, 1, "choosing the threshold on held-out cells")
    return _shelved(made, target)


def iter_train_probe(study: Study, name: str) -> Steps[Path]:
    """Train a linear probe on the named cells of a study and put it on the shelf.

    Parameters
    ----------
    study : Study
        May be open for reading only.
    name : str
        Name on the shelf; the user's probe of that name is replaced.

    Yields
    ------
    Progress

    Returns
    -------
    Path
        The file; beside it, for people, the same name with ``.json``.

    Raises
    ------
    InputError, AtlasError
        As for `labelled`; or there are fewer than two classes, or an atlas has the name.
    """
    from napari_dinobloom.predict.probe_training import iter_train_probe as iter_train
    from napari_dinobloom.predict.shelf import look_at, place_of

    target = place_of(name)
    if target.exists() and look_at(target).kind != "probe":
        raise AtlasError(f"{name!r} is an atlas on the shelf: choose another name for the probe")
    reference = yield from iter_atlas_of([study], name=name)
    probe = yield from iter_train(reference, name=name)
    return _shelved(probe, target)


def next_to_label(study: Study, n: int) -> list[str]:
    """Choose the cells whose names would teach most: unsure ones that are unlike each other.

    Parameters
    ----------
    study : Study
        May be open for reading only; its cells are embedded.
    n : int
        Cells to choose.

    Returns
    -------
    list of str
        Up to `n` cell ids, the first the most unsure; never one that is named, reviewed, excluded or deleted.

    Raises
    ------
    AtlasError
        If the cells are not embedded, or by another encoder than that of the study's atlas.

    Notes
    -----
    Margin sampling (Scheffer, Decomain and Wrobel 2001): a cell is the less sure, the less its first class leads; one
    beyond the atlas' distance limit is not sure at all. Of the ``10 n`` least sure ones (Zhdanov 2019,
    arXiv:1901.05954) the farthest from all that were named or chosen comes next (k-center greedy; Sener and Savarese
    2018, arXiv:1708.00489). Where no atlas names the cells all are equally unsure, and of more than 16,384 so many are
    looked at, spread evenly over the table. The same table gives the same cells.
    """
    settings = resolve(study.settings, {})
    obs, adata = study.cells.obs, study.cells
    named = (obs["label"] != "").to_numpy(bool)
    taken = np.column_stack([obs[what].to_numpy(bool) for what in ("deleted", "excluded", "reviewed")]).any(axis=1)
    embedded = Vectors.of(adata).finite() if adata.X is not None and adata.n_vars else np.zeros(len(obs), bool)
    rows = np.flatnonzero(~named & ~taken & embedded)
    if n < 1 or not len(rows):
        return []
    classifier = find_atlas(settings)
    sure: NDArray[np.floating] = np.zeros(len(rows))
    if classifier is not None:
        check_study(study, classifier, settings)
        parts = []
        for start in range(0, len(rows), TOGETHER):
            some = rows[start : start + TOGETHER]
            large = larger_than_platelets(obs.iloc[some]) & (not settings.cells)
            parts.append(_lead(classifier, embeddings_of(adata, some), sources_of(study, obs.iloc[some]), large))
        sure = np.concatenate(parts)
    if classifier is not None:
        order = np.argsort(sure, kind="stable")[: POOL * n]
    else:
        most = min(len(rows), max(TOGETHER, n))
        order = np.arange(most) * len(rows) // most
    known = embeddings_of(adata, np.flatnonzero(named & embedded & ~obs["deleted"].to_numpy(bool)))
    return [str(obs.index[row]) for row in rows[order][_spread(embeddings_of(adata, rows[order]), known, n)]]


def _lead(
    classifier: CellClassifier, X: NDArray[np.float32], source: list[str], large: NDArray[np.bool_]
) -> NDArray[np.floating]:
    """By how much the first class of each cell leads, as `name_cells` names it; 0 for one unlike the reference."""
    shares = classifier.predict_proba(X, source)
    if large.any() and PLATELET in classifier.classes:
        rows = np.flatnonzero(large)
        shares[rows] = classifier.without(PLATELET).predict_proba(X[rows], [source[row] for row in rows])
    shares = np.sort(shares, axis=1)
    unlike = name_cells(classifier, X, source, large)["unlike"].to_numpy(bool)
    lead: NDArray[np.floating] = np.where(unlike, 0.0, shares[:, -1] - shares[:, -2])
    return lead


def _spread(X: NDArray[np.float32], known: NDArray[np.float32], n: int) -> list[int]:
    """Rows by k-center greedy: first row 0, then always the one farthest from all chosen and known rows."""
    from scipy.spatial.distance import cdist

    chosen, nearest = [0], cdist(X, X[:1])[:, 0]
    for start in range(0, len(known), BLOCK):
        nearest = np.minimum(nearest, cdist(X, known[start : start + BLOCK]).min(axis=1))
    while len(chosen) < min(n, len(X)):
        nearest[chosen] = -1.0
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, cdist(X, X[chosen[-1:]])[:, 0])
    return chosen


def _named(obs: pd.DataFrame) -> NDArray[np.bool_]:
    """Cells that people named and that count."""
    label = obs["label"].to_numpy(str)
    counts = ~obs["deleted"].to_numpy(bool) & ~obs["excluded"].to_numpy(bool)
    usable: NDArray[np.bool_] = (label != "") & (label != UNCLASSIFIED) & counts
    return usable


def _part(study: Study, thumbnails: bool) -> Part:
    """The named cells of a study as part of an atlas; what is said of them holds no name of a patient or file."""
    from napari_dinobloom.cells import crop
    from napari_dinobloom.predict.atlas_merge import Part

    cells = labelled(study)
    made = {"pooling": cells.weights.pooling} if cells.weights.pooling != "class" else {}
    made |= {"stain": cells.weights.stain} if cells.weights.stain else {}
    return Part(
        name=study.path.name,
        X=cells.X,
        y=cells.y,
        source=cells.source,
        held_out=np.ones(len(cells.y), bool),
        place=cells.place,
        thumbnails=_pictures(study, cells) if thumbnails else None,
        encoder=cells.weights.name,
        encoder_sha256=cells.weights.sha256,
        policy=cells.policy.to_dict(),
        policy_hash=cells.policy.hash,
        info={"crop_version": crop.VERSION, **made},
    )


def _pictures(study: Study, cells: LabelledCells) -> Thumbnails:
    """Small pictures of named cells, from the crops of their study."""
    from napari_dinobloom.predict.thumbnails import Thumbnails, encoded

    rows = study.cells.obs.index.get_indexer(list(cells.cell_ids)).tolist()
    try:
        return Thumbnails.pack(encoded(read_crop(study, row) for row in rows))
    except StudyError as error:
        raise InputError(f"{error} Or leave the pictures out.") from error


def _shelved(made: Any, target: Path) -> Path:
    """Save an atlas or a probe to its place on the shelf."""
    from napari_dinobloom.io.atomic import disk_errors

    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        path: Path = made.save(target)
    return path
