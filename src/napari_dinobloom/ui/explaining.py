"""What the reference of a study says of one cell, and where it gives no name; for the second thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_dinobloom.errors import AtlasError, DinoBloomError
from napari_dinobloom.io.study import Study
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text

if TYPE_CHECKING:
    from napari_dinobloom.pipeline.evidence import Evidence
    from napari_dinobloom.predict.classifier import CellClassifier


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A question: a cell of a study, or without one the limits of a reference.

    Attributes
    ----------
    study : Study
        Open.
    settings : dict
        Settings of a run that differ from those of the study, such as `atlas`.
    cell : str
        Id of the cell; empty for the limits alone.
    """

    study: Study
    settings: Mapping[str, Any]
    cell: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a reference says.

    Attributes
    ----------
    threshold, distance_limit : float
        Share below which, and distance beyond which a cell gets no name.
    evidence : Evidence or None
        Of the cell, if one was asked for.
    problem : str
        Why there is no answer, in words; empty when there is.
    """

    threshold: float = float("nan")
    distance_limit: float = float("nan")
    evidence: Evidence | None = None
    problem: str = ""


class Explainer:
    """Answers questions on the references of a session's study; keeps the reference that was used last.

    Parameters
    ----------
    session : Session
        When one of its jobs ends, references are read anew: their files may have changed.
    """

    def __init__(self, session: Session) -> None:
        self._kept: dict[str, CellClassifier] = {}
        session.events.job.connect(self._forget)

    def _forget(self, _event: object = None) -> None:
        self._kept = {}

    def answer(self, asked: Asked) -> Answer:
        """Answer a question; may be called in a second thread."""
        try:
            classifier = self._classifier(asked)
            found = None
            if asked.cell:
                from napari_dinobloom.pipeline.evidence import evidence

                found = evidence(asked.study, asked.cell, classifier)
        except DinoBloomError as error:
            return Answer(problem=str(error))
        return Answer(classifier.threshold, classifier.distance_limit, found)

    def _classifier(self, asked: Asked) -> CellClassifier:
        """The reference that a run with these settings would use."""
        from napari_dinobloom.pipeline.classify import find_atlas
        from napari_dinobloom.pipeline.settings import resolve

        settings = resolve(asked.study.settings, asked.settings)
        key = repr(sorted(settings.to_dict().items()))
        kept = self._kept.get(key)
        if kept is None:
            kept = find_atlas(settings)
            if kept is None:
                raise AtlasError(text("classify.why.no_reference"))
            self._kept = {key: kept}  # one: an atlas may be large
        return kept


def explainer_of(session: Session) -> Explainer:
    """Return the one `Explainer` of a session, made on first use."""
    found: Explainer = session.part("explainer", lambda: Explainer(session))
    return found
