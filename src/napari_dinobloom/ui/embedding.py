"""The jobs of the Embed window, and what it has to know: which encoders are here, and what a study holds of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from napari_dinobloom.encoders.spec import EncoderSpec
from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.io.study import Study
from napari_dinobloom.ui import study_job, workers
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text


@dataclass(frozen=True, slots=True)
class Choice:
    """An encoder that can be chosen.

    Attributes
    ----------
    name : str
        Name in the registry, of an import, or the path of a file of weights.
    state : str
        As in `napari_dinobloom.encoders.inventory`; "file" for a file given by path.
    spec : EncoderSpec or None
        Its entry; None for a file.
    accepted : bool
        Whether its terms, where it has some, were accepted on this machine.
    problem : str
        What is wrong with its file; empty where nothing is.
    """

    name: str
    state: str
    spec: EncoderSpec | None = None
    accepted: bool = True
    problem: str = ""

    @property
    def here(self) -> bool:
        """Whether its weights are on this machine."""
        return self.state != "absent"

    @property
    def has_size(self) -> int:
        """Bytes of the download, as far as they are known; 0 if not."""
        sizes = [source.size for source in self.spec.sources if source.size] if self.spec is not None else []
        return sizes[0] if sizes else 0

    @property
    def by_hand(self) -> bool:
        """Whether no program can fetch it: the file has to be carried here from a page for people."""
        return self.spec is not None and all(source.manual or not source.url for source in self.spec.sources)


def choices(files: tuple[str, ...] = ()) -> list[Choice]:
    """List the encoders of the registry, imported ones and `files`; nothing is hashed or loaded.

    Raises
    ------
    EncoderError
        The ledger of the cache folder is damaged.
    """
    from napari_dinobloom.encoders.inventory import holdings
    from napari_dinobloom.encoders.library import check_terms

    found = []
    for held in holdings():
        try:
            check_terms(held.spec)
            accepted = True
        except DinoBloomError:
            accepted = False
        found.append(Choice(held.spec.name, held.state, held.spec, accepted, held.problem))
    return [*found, *(Choice(file, "file" if Path(file).is_file() else "absent") for file in files)]


def why_not(session: Session, choice: Choice | None, accepted: bool) -> str:
    """Why the cells cannot be embedded by an encoder now, in words; empty when they can."""
    if why := study_job.why_not(session):
        return why
    study = session.study
    if study is not None and not any(record.status == "ok" for record in study.fields):
        return text("embed.why.no_fields")
    if choice is None:
        return text("embed.why.no_encoder")
    if not choice.here:
        return text("embed.why.absent" if choice.spec is not None else "embed.why.gone", name=choice.name)
    if not choice.accepted and not accepted:
        return text("embed.why.terms")
    return choice.problem


def why_not_fetch(session: Session, choice: Choice | None, accepted: bool) -> str:
    """Why the weights of an encoder cannot be downloaded now, in words; empty when they can."""
    from napari_dinobloom.io.download import offline

    if session.job is not None:
        return text("run.why.busy", job=session.job.title)
    if choice is None or choice.spec is None:
        return text("embed.why.file") if choice is None or choice.here else text("embed.why.gone", name=choice.name)
    if choice.here and not choice.problem:
        return text("embed.why.here")
    if choice.by_hand:
        return text("embed.why.by_hand", url=choice.spec.sources[0].url)
    if offline():
        return text("embed.why.offline")
    return "" if choice.accepted or accepted else text("embed.why.terms")


def start_embed(session: Session, choice: Choice, **asked: Any) -> workers.StepsWorker | None:
    """Embed all cells of the open study, with the steps before it where they are missing.

    Parameters
    ----------
    session : Session
        Its revisions grow when the job ends, whatever came of it.
    choice : Choice
        The encoder; its terms are taken for accepted.
    **asked
        Settings of the run, such as ``device``.

    Returns
    -------
    StepsWorker or None
        None when another job is under way, which is said, or no study is open.
    """
    from napari_dinobloom.encoders.library import accept
    from napari_dinobloom.pipeline.driver import iter_outcome

    if not choice.accepted:
        accept(choice.name)

    steps = partial(_outcome_of, iter_outcome, {"encoder": choice.name, **asked})
    return study_job.start_until(session, text("job.embed"), steps, done=text("embed.done"))


def start_fetch(session: Session, choice: Choice, then: Callable[[], object]) -> workers.StepsWorker | None:
    """Download the weights of an encoder, whose terms are taken for accepted; `then` is called when they are here."""
    from napari_dinobloom.encoders.fetch import iter_fetch

    def end(outcome: workers.Outcome[Path]) -> None:
        if outcome.result is not None:
            session.message = text("embed.fetched", name=choice.name)
        elif outcome.error is not None:
            session.message = text("status.failed", message=outcome.error)
        else:
            session.message = text("embed.fetch_stopped")
        then()

    title = text("job.fetch", name=choice.name)
    return workers.start(session, title, iter_fetch, choice.name, accept_licence=True, on_end=end)


def _outcome_of(iter_outcome: Callable[..., Any], asked: dict[str, Any], study: Study) -> Any:
    return iter_outcome([], study, until="embed", **asked)
