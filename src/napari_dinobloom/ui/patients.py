"""The patients of a viewer's study: their known groups, what a model predicts, and which cells that rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.utils.notifications import show_warning

from napari_dinobloom.errors import DinoBloomError, StudyError
from napari_dinobloom.explore.cell_attention import attention_of
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline.patient_groups import groups_of, keep_groups
from napari_dinobloom.predict.mil.bags import FEW
from napari_dinobloom.progress import Progress, Steps
from napari_dinobloom.ui import workers
from napari_dinobloom.ui.correction import why_closed
from napari_dinobloom.ui.jobs import refresh_cells, start_job
from napari_dinobloom.ui.lookup import Lookup
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text
from napari_dinobloom.ui.torch_loading import leave_triton_out

if TYPE_CHECKING:
    from napari_dinobloom.pipeline.patient_bags import Seen
    from napari_dinobloom.pipeline.patients import PatientResult

LEAST = 3
"""Patients in a group below which nothing is trained; as `predict.mil.validation` has it, which would load torch."""


class Cohort:
    """What is known and predicted of the patients of a session's study; one for each session, see `cohort_of`.

    Parameters
    ----------
    session : Session
        Its study is read, and its groups are written.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._study: Study | None = None
        self._groups: dict[str, str] = {}
        self._unread = ""
        self._result: PatientResult | None = None
        self._seen: Seen | None = None
        self._outdated: tuple[Path, bool] | None = None
        self.looked_up = Lookup(self._look)
        self.looked_up.found.connect(self._on_looked)
        session.events.job.connect(self._on_job)
        session.events.study.connect(self._forget)
        session.events.groups_revision.connect(self._forget)

    def _on_job(self, job: object) -> None:
        """A job has ended, which may have left another result."""
        if job is None:
            self._forget()

    def _forget(self, _event: object = None) -> None:
        """Have all read anew when it is asked for."""
        self._study, self._groups, self._unread, self._result = None, {}, "", None

    def _read(self) -> None:
        """Read groups and result of the study that is open, once; what cannot be read is said."""
        study = self._session.study
        if study is None or study is self._study:
            return
        self._study = study
        self._read_groups(study)
        if self._unread:
            show_warning(self._unread)
        self._read_result(study)

    def _read_groups(self, study: Study) -> None:
        """Read the groups, or keep in mind why they cannot be read."""
        try:
            self._groups, self._unread = groups_of(study), ""
        except DinoBloomError as error:
            self._groups, self._unread = {}, text("patients.why.groups_unread", problem=error)

    def _read_result(self, study: Study) -> None:
        """Read what was trained or applied last."""
        from napari_dinobloom.pipeline.patients import patient_result

        try:
            self._result = patient_result(study)
        except DinoBloomError as error:
            self._result = None
            show_warning(str(error))

    @property
    def groups(self) -> dict[str, str]:
        """Known group of each patient that has one, also of those without a cell in the study."""
        self._read()
        return dict(self._groups)

    @property
    def result(self) -> PatientResult | None:
        """What was trained or applied last."""
        self._read()
        return self._result

    @property
    def outdated(self) -> bool:
        """Whether the result was made with other embeddings or cells than the study has now, as `look` found last."""
        result = self.result
        return result is not None and self._outdated == (result.model, True)

    def look(self) -> None:
        """Find out in a second thread what `outdated` says, which may mean to read all embeddings once.

        Whoever listens to `looked_up.found` hears of it.
        """
        result, study = self.result, self._session.study
        self.looked_up.ask(None if study is None or result is None else (study, result))

    def _look(self, asked: tuple[Study, PatientResult]) -> tuple[Path, bool]:
        """Model of a result, and whether that is outdated; in the second thread."""
        from napari_dinobloom.pipeline.patient_bags import Seen
        from napari_dinobloom.pipeline.patients import fits

        study, result = asked
        try:
            if self._seen is None or not self._seen.holds(study):
                self._seen = Seen.of(study)
        except StudyError:  # not embedded any more
            return result.model, True
        return result.model, not fits(study, result, self._seen)

    def _on_looked(self, found: tuple[Path, bool]) -> None:
        """Keep what was found."""
        self._outdated = found

    def cells(self) -> pd.Series[int]:
        """Cells of each patient that count, sorted by patient."""
        study = self._session.study
        if study is None:
            return pd.Series(dtype=int)
        obs = study.cells.obs
        deleted, excluded, gone = (obs[name].to_numpy(bool) for name in ("deleted", "excluded", "gone"))
        living = ~(deleted | excluded | gone) & (obs["duplicate_of"].to_numpy() == "")
        found: pd.Series[int] = obs["patient"].iloc[np.flatnonzero(living)].value_counts().sort_index()
        return found.drop("", errors="ignore")

    def table(self) -> pd.DataFrame:
        """One row a patient: ``patient cells group predicted probability how``; empty text and NaN where unknown."""
        cells, groups, result = self.cells(), self.groups, self.result
        frame = pd.DataFrame({"patient": list(cells.index.astype(str)), "cells": cells.to_numpy(int)})
        frame["group"] = [groups.get(patient, "") for patient in frame["patient"]]
        known = None if result is None else result.table.set_index(result.table["patient"].astype(str))
        rows = [known.loc[one] if known is not None and one in known.index else None for one in frame["patient"]]
        frame["predicted"] = ["" if row is None else str(row["predicted_group"] or "") for row in rows]
        frame["probability"] = [
            float("nan") if row is None else float(row.get(f"p:{row['predicted_group']}", np.nan)) for row in rows
        ]
        frame["how"] = ["" if row is None else ("out_of_fold" if row["out_of_fold"] else "applied") for row in rows]
        return frame

    def probabilities(self, patient: str) -> pd.DataFrame:
        """Probability of each group for one patient, ``model`` and ``mean`` (of mean pooling), by group."""
        result = self.result
        nothing = pd.DataFrame(columns=["model", "mean"], dtype=float)
        if result is None:
            return nothing
        rows = result.table[result.table["patient"].astype(str) == patient]
        if rows.empty:
            return nothing
        row = rows.iloc[0]
        figures = {name: [row.get(f"p:{name}", np.nan), row.get(f"mean:{name}", np.nan)] for name in result.classes}
        return pd.DataFrame.from_dict(figures, orient="index", columns=["model", "mean"]).astype(float)

    def trained_on(self) -> dict[str, str]:
        """Known groups of the patients that have cells."""
        there = set(self.cells().index.astype(str))
        return {patient: group for patient, group in self.groups.items() if patient in there}

    def few(self) -> dict[str, int]:
        """Patients in each group, if a group has fewer than `FEW`; else nothing."""
        counts = Counter(self.trained_on().values())
        return dict(sorted(counts.items())) if counts and min(counts.values()) < FEW else {}

    def why_closed(self) -> str:
        """Why nothing can be changed now, in words; empty when it can."""
        study = self._session.study
        if study is None:
            return text("patients.why.no_study")
        if why := why_closed(self._session):
            return why
        self._read()
        if self._unread:
            self._read_groups(study)  # it may have been repaired meanwhile
        if self._unread:
            return self._unread
        return "" if study.cells.n_obs else text("patients.why.no_cells")

    def why_not_train(self) -> str:
        """Why no model can be trained now, in words; empty when it can."""
        if why := self.why_closed():
            return why
        counts = Counter(self.trained_on().values())
        if not counts:
            return text("patients.why.no_groups")
        if len(counts) == 1:
            return text("patients.why.one_group")
        n, group = min((count, one) for one, count in counts.items())
        return text("patients.why.too_few", group=group, n=n, least=LEAST) if n < LEAST else ""

    def put(self, groups: Mapping[str, str]) -> bool:
        """Give patients a known group, an empty one for none; kept in the study at once. Whether it was done."""
        study = self._session.study
        if study is not None and not why_closed(self._session):
            self._read()
            self._read_groups(study)  # never write over what another program wrote there
        why = self.why_closed()
        if study is None or why:
            show_warning(text("patients.read_only", why=why))
            return False
        try:
            keep_groups(study, self._groups | dict(groups), who=self._session.reader or None)
        except DinoBloomError as error:
            show_warning(str(error))
            return False
        self._session.groups_revision += 1
        return True

    def train(self, **options: Any) -> workers.StepsWorker | None:
        """Train on the patients with a known group, in a second thread; None where another job is under way."""
        groups = self.trained_on()
        return self._start(text("job.patients"), lambda study: _iter_train(study, groups, options))

    def apply(self, model: Path) -> workers.StepsWorker | None:
        """Predict all patients by a model file, in a second thread; None where another job is under way."""
        from napari_dinobloom.pipeline.patients import iter_apply_patients

        return self._start(text("job.apply_patients"), lambda study: iter_apply_patients(study, model))

    def _start(self, title: str, steps: Callable[[Study], Steps[Any]]) -> workers.StepsWorker | None:
        session = self._session
        return start_job(
            session, title, steps, lambda _: None, done=text("patients.done"), ended=lambda: refresh_cells(session)
        )

    def attended(self, patient: str, group: str, count: int, *, top: bool = True) -> list[str]:
        """Cells of a patient that the model looked at most, or least, for a group: the first one most, or least.

        Cells that took no part are left out, and so are those deleted or excluded since.
        """
        study, result = self._session.study, self.result
        if study is None or result is None:
            return []
        attention = attention_of(study.cells, result.model.name)
        if attention is None or group not in attention:
            return []
        obs, values = study.cells.obs, attention[group].to_numpy(np.float64)
        there = (obs["patient"].astype(str) == patient) & ~obs["deleted"] & ~obs["excluded"] & np.isfinite(values)
        rows = np.flatnonzero(there.to_numpy(bool))
        order = np.argsort(-values[rows] if top else values[rows], kind="stable")
        return [str(cell) for cell in obs.index[rows[order[:count]]]]


def _iter_train(study: Study, groups: Mapping[str, str], options: Mapping[str, Any]) -> Steps[PatientResult]:
    """Train, in the process of a window."""
    from napari_dinobloom.pipeline.patients import iter_train_patients

    yield Progress(0, 0, "")
    leave_triton_out()
    return (yield from iter_train_patients(study, groups, **options))


def cohort_of(session: Session) -> Cohort:
    """Return the one `Cohort` of a session, made on first use."""
    found: Cohort = session.part("cohort", lambda: Cohort(session))
    return found
