"""What names cells: the one face of atlas and probe that everything else knows, and the reading of either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_dinobloom.errors import AtlasError

REFERENCE_STAIN = "reference"
"""``info["stain"]`` of cells whose own stain is what stain normalisation brings others to: they meet either kind."""

if TYPE_CHECKING:
    from napari_dinobloom.cells.crop import CropPolicy


class HasWeights(Protocol):
    """What tells one encoder from another."""

    @property
    def name(self) -> str:
        """Name of the encoder."""

    @property
    def sha256(self) -> str:
        """Hash of its weights."""


class Made(Protocol):
    """What was made of the embeddings of one encoder and one crop policy."""

    @property
    def name(self) -> str:
        """Name for people."""

    @property
    def encoder(self) -> str:
        """Name of the encoder."""

    @property
    def encoder_sha256(self) -> str:
        """Hash of its weights."""

    @property
    def policy(self) -> Mapping[str, Any]:
        """Crop policy, as `CropPolicy.to_dict` gives it."""

    @property
    def policy_hash(self) -> str:
        """Its hash."""

    @property
    def info(self) -> Mapping[str, Any]:
        """How it came to be; ``pooling`` where that is not "class", ``stain`` where crops were recoloured first."""


class CellClassifier(Made, Protocol):
    """What a study needs of the thing that names its cells: an `Atlas` or a `Probe`."""

    @property
    def hash(self) -> str:
        """sha256 over all of it."""

    @property
    def X(self) -> NDArray[np.float32]:
        """Embeddings of the reference cells that it holds, (n, D)."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes that it can name, in sorted order."""

    @property
    def threshold(self) -> float:
        """Confidence below which a cell is left unclassified."""

    @property
    def distance_limit(self) -> float:
        """Distance to the k-th nearest reference cell beyond which a cell is unlike the reference."""

    def check(self, encoder: HasWeights, policy: CropPolicy) -> None:
        """Refuse cells that another encoder or other crops have made; AtlasError."""

    def classify(self, X: ArrayLike, source: Sequence[str] | None = None) -> pd.DataFrame:
        """Name cells: ``predicted confidence abstained distance unlike``, one row a cell."""

    def predict_proba(self, X: ArrayLike, source: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Share or probability of each class, (m, classes)."""

    def explain(self, X: ArrayLike, source: Sequence[str] | None = None) -> pd.DataFrame:
        """Nearest reference cells: ``cell rank class source distance row``, one row a cell and neighbour."""

    def thumbnail(self, row: int) -> NDArray[np.uint8] | None:
        """Picture of a reference cell, (96, 96, 3) uint8, where there is one."""

    def without(self, name: str) -> CellClassifier:
        """The same without one class, to name cells that cannot be of it."""

    def rows(self, rows: NDArray[np.integer]) -> NDArray[np.intp]:
        """Rows of the whole reference, where this is one `without` a class; else the same."""

    def confusion_table(self) -> pd.DataFrame:
        """Held-out cells by true class (rows) and given name (columns, ``unclassified`` last)."""

    def facts(self) -> dict[str, object]:
        """What a report says of it."""


def check_made(made: Made, encoder: HasWeights, policy: CropPolicy, *, what: str) -> None:
    """Refuse cells that another encoder or other crops have made.

    Parameters
    ----------
    made : Atlas or Probe
        What is to name the cells.
    encoder : Encoder, or anything with its ``name``, ``sha256`` and, where that is not "class", ``pooling``
        What embedded the cells; ``stain``, how their crops were recoloured first, if they were.
    policy : CropPolicy
        How they were cropped.
    what : str
        ``atlas`` or ``probe``.

    Raises
    ------
    AtlasError
        If the encoder's weights, what was taken of its output, the crop policy, or how crops were recoloured are not
        those of `made`.
    """
    title = f"{what.capitalize()} {made.name!r}"
    remedy = (
        f"use the {what} that was built with them, build one with `napari-dinobloom atlas build`, "
        "or go without names (atlas none)"
    )
    if encoder.sha256 != made.encoder_sha256:
        raise AtlasError(
            f"{title} belongs to encoder {made.encoder!r} with weights {made.encoder_sha256[:12]}, "
            f"but the cells come from {encoder.name!r} with weights {encoder.sha256[:12]}: {remedy}"
        )
    pooling, own_pooling = getattr(encoder, "pooling", "class"), made.info.get("pooling", "class")
    if pooling != own_pooling:
        raise AtlasError(
            f"{title} was built with pooling {own_pooling!r}, but of the cells' encoder {pooling!r} was taken: {remedy}"
        )
    if policy.hash != made.policy_hash:
        theirs, own = policy.to_dict(), dict(made.policy)
        differ = [f"{key} {theirs.get(key)!r} is not {own[key]!r}" for key in own if theirs.get(key) != own[key]]
        raise AtlasError(f"{title} was built from other crops ({', '.join(differ) or 'another policy'}): {remedy}")
    stain, own_stain = getattr(encoder, "stain", ""), str(made.info.get("stain", ""))
    if own_stain not in (stain, REFERENCE_STAIN):
        said = [f"recoloured by {one}" if one else "as they are" for one in (own_stain, stain)]
        raise AtlasError(
            f"{title} was built from crops {said[0]}, but those of the cells are {said[1]}: classify with "
            f"`--adapt {own_stain or 'none'}`, or {remedy}"
        )


def load_classifier(path: str | Path) -> CellClassifier:
    """Read an atlas or a probe, whichever the file is.

    Raises
    ------
    AtlasError
        If the file is missing or neither.
    """
    from napari_dinobloom.io.tensors import read_kind
    from napari_dinobloom.predict.atlas import Atlas
    from napari_dinobloom.predict.probe import KIND, Probe

    return Probe.load(path) if read_kind(Path(path), AtlasError) == KIND else Atlas.load(path)
