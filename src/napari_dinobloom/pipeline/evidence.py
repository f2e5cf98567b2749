"""Why one cell has its name: what the table says of it, how the reference votes, and which reference cells are near."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.errors import StudyError

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.predict.classifier import CellClassifier

NEAR = ("rank", "class", "source", "distance", "row")
"""Columns of `Evidence.near`."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What is known of the name of one cell.

    Attributes
    ----------
    cell : str
        Its id.
    predicted : str
        Class by the classifier, also where it abstained; empty where the cell was never classified.
    confidence : float
        Vote share or probability of that class, 0 to 1.
    abstained : bool
        Whether the cell stays without a name.
    distance : float
        To the reference, as the classifier measures it.
    named_by : str
        Name and first digits of the hash of the reference that named it.
    label, label_by : str
        Class given by hand and by whom; empty for none.
    shares : Series
        Vote share or probability of each class by the reference of now, the largest first, float; classes without any
        are left out.
    near : DataFrame
        Nearest reference cells, those that vote of an atlas: ``rank class source distance row``, the nearest first.
    pictures : tuple
        For each row of `near` its picture, (96, 96, 3) uint8, or None.
    threshold, distance_limit : float
        Below and beyond which the reference of now gives no name.
    reference : str
        Name and first digits of the hash of the reference of now; another than `named_by` where it was changed since.
    """

    cell: str
    predicted: str
    confidence: float
    abstained: bool
    distance: float
    named_by: str
    label: str
    label_by: str
    shares: pd.Series[float]
    near: pd.DataFrame
    pictures: tuple[NDArray[np.uint8] | None, ...]
    threshold: float
    distance_limit: float
    reference: str

    @property
    def unlike(self) -> bool:
        """Whether the cell is farther from the reference than the limit."""
        return bool(self.distance > self.distance_limit)


def evidence(study: Study, cell: str, classifier: CellClassifier) -> Evidence:
    """Collect what is known of the name of one cell.

    Parameters
    ----------
    study : Study
        Open; its table holds embeddings.
    cell : str
        Id of the cell.
    classifier : CellClassifier
        The reference of now; for a cell that is too large for a platelet its platelets have no vote, as in the run.

    Returns
    -------
    Evidence
        ``shares`` and ``near`` are those of a run with this reference on the table as it is.

    Raises
    ------
    StudyError
        The study has no such cell.
    AtlasError
        The embeddings of the study are those of another encoder or of other crops, or not finite.
    """
    from napari_dinobloom.pipeline.adapting import embeddings_of
    from napari_dinobloom.pipeline.classify import PLATELET, explain, larger_than_platelets, sources_of
    from napari_dinobloom.pipeline.settings import resolve

    adata, settings = study.cells, resolve(study.settings, {})
    row = int(adata.obs.index.get_indexer([cell])[0])
    if row < 0:
        raise StudyError(f"{study.path}: has no cell {cell[:100]!r}. Choose another cell.")
    near = explain(study, classifier, np.array([row]))[list(NEAR)]
    obs, voter = adata.obs.iloc[[row]], classifier
    if not settings.cells and PLATELET in classifier.classes and larger_than_platelets(obs)[0]:
        voter = classifier.without(PLATELET)
    found = voter.predict_proba(embeddings_of(adata, np.array([row])), sources_of(study, obs))[0]
    shares = pd.Series(found.astype(float), index=list(classifier.classes))
    one = obs.iloc[0]
    return Evidence(
        cell=cell,
        predicted=str(one["predicted"]),
        confidence=float(one["confidence"]),
        abstained=bool(one["abstained"]),
        distance=float(one["distance"]),
        named_by=str(one["predicted_by"]),
        label=str(one["label"]),
        label_by=str(one["label_by"]),
        shares=shares[shares > 0].sort_values(ascending=False, kind="stable"),
        near=near,
        pictures=tuple(classifier.thumbnail(int(at)) for at in near["row"]),
        threshold=float(classifier.threshold),
        distance_limit=float(classifier.distance_limit),
        reference=f"{classifier.name}-{classifier.hash[:8]}",
    )
