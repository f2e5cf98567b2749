"""A study as the pages of its patients read it: gathered and counted once for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from napari_dinobloom.report.counting import text
from napari_dinobloom.report.gallery import Crops
from napari_dinobloom.report.legend import Legend
from napari_dinobloom.report.overview import Caution, Group, cautions, groups
from napari_dinobloom.report.reported import ReportInput


@dataclass(frozen=True, slots=True)
class Share:
    """Probability of one group for a patient, by the attention model and by mean pooling; None where unknown."""

    group: str
    attention: float | None
    mean: float | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """The predicted group of a patient.

    Attributes
    ----------
    predicted : str
        Group of the highest probability.
    shares : tuple of Share
        Probability of every group.
    out_of_fold : bool
        Whether this patient was used in training, and the models that say so were made without.
    """

    predicted: str
    shares: tuple[Share, ...]
    out_of_fold: bool

    @property
    def probability(self) -> float | None:
        """That of the predicted group."""
        return next((share.attention for share in self.shares if share.group == self.predicted), None)

    @property
    def by_mean(self) -> Share | None:
        """The group that mean pooling says, with its probability."""
        known = [share for share in self.shares if share.mean is not None]
        return max(known, key=lambda share: share.mean or 0.0, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientModel:
    """What a model of patients says of a study.

    Attributes
    ----------
    predictions : mapping
        Patient to `Prediction`; patients that took no part are not there.
    scores : DataFrame
        How good the model and its baselines are, one a row; as `pipeline.patients` gives it.
    attention : DataFrame or None
        Row for row as the cell table, a column a group: 0 to 1 within the patient, NaN for a cell that took no part.
    notes : sequence of str
        What is to be known of the model, in words.
    recommended : str
        The model of `scores` that the validation recommends.
    """

    predictions: Mapping[str, Prediction]
    scores: pd.DataFrame
    attention: pd.DataFrame | None = None
    notes: Sequence[str] = ()
    recommended: str = ""

    @property
    def pooling_recommended(self) -> bool:
        """Whether mean pooling, and not the attention model whose group stands first, is to be used."""
        from napari_dinobloom.predict.mil.model import MEAN

        return self.recommended == MEAN


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cohort:
    """What all pages of one study share; make it with `Cohort.of`.

    Attributes
    ----------
    data : ReportInput
        Everything that is said.
    cells : DataFrame
        As `sightings` gives them.
    legend : Legend
        Classes of all patients, so that colours are the same on all pages.
    groups : tuple of Group
        The differential of every patient and slide.
    crops : Crops or None
        Pictures by row of the cell table.
    hashes : mapping of str to str
        What the numbers rest on, by name.
    model : PatientModel or None
        What a model of patients says.
    given : mapping of str to str
        Group of each patient, where somebody gave it.
    warnings : mapping
        Patient to sentences on slides that are unlike the reference, as `predict.novelty.slide_warning` gives them.
    outdated : str
        Why predicted groups are left out; empty where they are not.
    """

    data: ReportInput
    cells: pd.DataFrame
    legend: Legend
    groups: tuple[Group, ...]
    crops: Crops | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    model: PatientModel | None = None
    given: Mapping[str, str] = field(default_factory=dict)
    warnings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    outdated: str = ""

    @classmethod
    def of(
        cls,
        data: ReportInput,
        *,
        crops: Crops | None = None,
        hashes: Mapping[str, str] | None = None,
        model: PatientModel | None = None,
        given: Mapping[str, str] | None = None,
        warnings: Mapping[str, Sequence[str]] | None = None,
        outdated: str = "",
    ) -> Cohort:
        """Count and sort what a study says."""
        cells = data.sightings()
        legend = data.legend(cells)
        found = groups(data.differential, data.summary, legend)
        return cls(
            data=data,
            cells=cells,
            legend=legend,
            groups=tuple(found),
            crops=crops,
            hashes=hashes or {},
            model=model,
            given=given or {},
            warnings=warnings or {},
            outdated=outdated,
        )

    @property
    def patients(self) -> list[str]:
        """Everybody with a field that is used or a cell, sorted."""
        used = {record.patient for record in self.data.fields if record.status != "failed"}
        return sorted(used | set(self.cells["patient"]))

    def groups_of(self, patient: str) -> tuple[Group | None, list[Group]]:
        """The differential of a patient, None where no cell was found, and of the patient's slides."""
        own = [group for group in self.groups if group.patient == patient]
        whole = next((group for group in own if group.level == "patient"), None)
        return whole, [group for group in own if group.level == "slide"]

    def cautions_of(self, patient: str) -> list[Caution]:
        """What is to be known before the numbers of a patient are read."""
        data, unlike = self.data, self.warnings.get(patient, ())
        # what is said slide by slide is not said once more of the patient
        atlas = {key: value for key, value in data.atlas.items() if not (unlike and key == "distance_limit")}
        found = cautions(
            self.cells[self.cells["patient"] == patient],
            [group for group in self.groups if group.patient == patient],
            [record for record in data.fields if record.patient == patient],
            (),
            atlas,
            data.obs[text(data.obs, "patient") == patient],
        )
        strange = [Caution("warning", "Unlike the reference", words, short="unlike the reference") for words in unlike]
        return [*strange, *self.left_out(), *found]

    def left_out(self) -> list[Caution]:
        """Say that predicted groups are missing, where they do not hold any more."""
        return [Caution("warning", "No predicted group", self.outdated)] if self.outdated else []

    def attention_of(self, patient: str) -> pd.DataFrame:
        """The patient's cells that took part in the prediction, by their ``attention`` for the predicted group.

        The highest come first; there is no row where there is no prediction.
        """
        prediction = None if self.model is None else self.model.predictions.get(patient)
        table = None if self.model is None else self.model.attention
        if prediction is None or table is None or prediction.predicted not in table:
            return self.cells.iloc[:0].assign(attention=[])
        own = self.cells[self.cells["patient"] == patient]
        values = table[prediction.predicted].to_numpy(dtype=np.float64)[own["row"].to_numpy(dtype=int)]
        ranked: pd.DataFrame = own.assign(attention=values)[np.isfinite(values)]
        return ranked.sort_values("attention", ascending=False, kind="stable")
