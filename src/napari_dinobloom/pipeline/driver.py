"""Runs the steps in order, leaves out those whose result is there, and keeps a record of each run."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_dinobloom.cells.segmenter import NAMES, check_segmenter
from napari_dinobloom.errors import DinoBloomError, ImageError, InputError
from napari_dinobloom.io.atomic import disk_errors, write_text
from napari_dinobloom.pipeline import classify, read, segment
from napari_dinobloom.pipeline.cluster.options import ClusterOptions
from napari_dinobloom.pipeline.settings import STEPS, RunSettings, digest, resolve
from napari_dinobloom.pipeline.workers import Threads, Workers
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.predict.classifier import CellClassifier

TABLE = "cells.h5ad"


@dataclass(slots=True)
class Outcome:
    """What a run did."""

    study: Study
    settings: RunSettings
    problems: list[tuple[str, str]] = field(default_factory=list)
    """(input, what was wrong and what to do)."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time of each step that did something."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its key, the files that must be there, and how to do it."""

    name: str
    key: str
    outputs: tuple[str, ...]
    work: Callable[[], Steps[Any]]


def iter_outcome(
    inputs: str | Path | Sequence[str | Path],
    out: str | Path | Study,
    *,
    until: str = "report",
    retry: bool = False,
    **asked: Any,
) -> Steps[Outcome]:
    """Do what `napari_dinobloom.pipeline.run` says; returns an `Outcome`."""
    from napari_dinobloom.pipeline import results

    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    if until not in STEPS:
        raise InputError(f"{until!r} is no step of a run; steps are {', '.join(STEPS)}.")
    cluster, asked = ClusterOptions.take(asked)
    here = cluster is None or cluster.local
    with ExitStack() as ends:
        workers = ends.enter_context(_workers(cluster))
        study, settings, found, ours = _prepare(given, out, asked, until, here=here)
        if ours:
            ends.callback(study.close)
        workers.begin(study.path)
        if retry:
            found = read.set_aside(study, found)
        outcome = Outcome(study, settings, [(p.name, p.message) for p in found.problems])
        atlas = classify.find_atlas(settings)
        results.keep_scheme(study, settings)
        _remember(study, settings)
        started = time.perf_counter()
        reading = yield from _named("read", read.iter_read(study, found, retry=retry))
        outcome.problems += [(p.name, p.message) for p in reading]
        if not segment.usable(study):
            raise InputError(_nothing(outcome.problems))
        reading_took = time.perf_counter() - started
        yield from _steps(outcome, atlas, STEPS[1 : STEPS.index(until) + 1], workers, here=here)
        if outcome.seconds:
            outcome.seconds = {"read": reading_took, **outcome.seconds}
            _record(outcome)
    return outcome


def _workers(cluster: ClusterOptions | None) -> AbstractContextManager[Workers]:
    """Who does the parallel parts: threads of this process, or those that were asked for."""
    if cluster is None:
        return nullcontext(Threads())
    from napari_dinobloom.pipeline.cluster.spread import Spread

    return Spread(cluster)


@dataclass(frozen=True, slots=True)
class StepState:
    """How far a study is with one step.

    Attributes
    ----------
    name : str
        One of `STEPS`.
    state : {"done", "stale", "missing", "unknown"}
        ``stale``: it was done, but with something that has changed since; ``missing``: never done, or not with the
        step before; ``unknown``: what it needs cannot be looked up.
    why : str
        Why it is not known, and what to do; else empty.
    """

    name: str
    state: Literal["done", "stale", "missing", "unknown"]
    why: str = ""


def step_states(study: Study, **asked: Any) -> tuple[StepState, ...]:
    """Say which steps `iter_outcome` would do now if no picture came, and do none of them.

    Parameters
    ----------
    study : Study
        May be open for reading only.
    **asked
        Settings, as for `iter_outcome`.

    Returns
    -------
    tuple of StepState
        In the order of `STEPS`. After the first one that is not done none is, as each rests on the one before.
    """
    known = study.steps
    if not segment.usable(study):
        return tuple(StepState(name, "stale" if name in known else "missing") for name in STEPS)
    try:
        settings = resolve(study.settings, asked)
        atlas = classify.find_atlas(settings)
        keys = _keys(study, settings, atlas, _last_problems(study), segment.step_key(study, settings))
    except DinoBloomError as error:
        return (StepState("read", "done"), *(StepState(name, "unknown", str(error)) for name in STEPS[1:]))
    states = [StepState("read", "done")]
    for name in STEPS[1:]:
        done = states[-1].state == "done" and study.step_done(name, keys[name])
        states.append(StepState(name, "done" if done else "stale" if name in known else "missing"))
    return tuple(states)


def _last_problems(study: Study) -> list[tuple[str, str]]:
    """Inputs that the last run could not use, as its record and so its report has them; none where there is none."""
    records = sorted((study.path / "runs").glob("*.json"))
    try:
        problems = json.loads(records[-1].read_text(encoding="utf-8"))["problems"] if records else []
        return [(str(name), str(message)) for name, message in problems]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # the report then counts as out of date, at worst


def _prepare(
    given: list[str | Path], out: str | Path | Study, asked: dict[str, Any], until: str, *, here: bool
) -> tuple[Study, RunSettings, read.Found, bool]:
    """Check all that can be checked before anything is written, then open or make the study."""
    from napari_dinobloom.io.manifest import NAME
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.pipeline import maps

    if isinstance(out, Study):
        settings = resolve(out.settings, asked)
        maps.check_asked(out, asked, settings)
        _check_method(out.path, settings, asked, until, here=here)
        return out, settings, read.find(given, settings), False
    path = Path(out).expanduser()
    if (path / NAME).exists():
        study = Study.open(path)
        try:
            study.ensure_writable()
            settings = resolve(study.settings, asked)
            maps.check_asked(study, asked, settings)
            _check_method(path, settings, asked, until, here=here)
            return study, settings, read.find(given, settings), True
        except BaseException:
            study.close()
            raise
    if not given:
        what = "is not a study (it holds no study.json)" if path.exists() else "there is no such study"
        raise InputError(f"{path}: {what}. Name the images to make it of, or an existing study.")
    settings = resolve({}, asked)
    found = read.find(given, settings)
    _check_method(path, settings, asked, until, here=here)
    _check_one_opens(found)
    return Study.create(path, specimen=settings.specimen), settings, found, True


def _check_method(path: Path, settings: RunSettings, asked: dict[str, Any], until: str, *, here: bool) -> None:
    """Refuse a segmenter, encoder, device, atlas or scheme that is not there or does not fit before work is done.

    `here`: it is this machine that computes; other machines know their devices best.
    """
    from napari_dinobloom.encoders.library import identify, is_path
    from napari_dinobloom.pipeline import results
    from napari_dinobloom.pipeline.crops import policy_of
    from napari_dinobloom.pipeline.embed import look_up_device, pooling_of

    weights = classify.Weights(settings.encoder, identify(settings.encoder), pooling_of(settings), settings.stain)
    if here and STEPS.index(until) >= STEPS.index("embed"):
        look_up_device(settings)
    if asked.get("encoder") and is_path(settings.encoder) and STEPS.index(until) >= STEPS.index("embed"):
        from napari_dinobloom.encoders.containers import read_tensors

        read_tensors(Path(settings.encoder))  # which maps the file: a torn one is said before cells are looked for
    atlas = classify.find_atlas(settings)
    if atlas is not None and STEPS.index(until) >= STEPS.index("classify"):
        atlas.check(weights, policy_of(settings))
    if asked.get("scheme") or STEPS.index(until) >= STEPS.index("differential"):
        results.scheme_of(settings.scheme, path)
    if not settings.cells:
        check_segmenter(settings.segmenter if settings.segmenter in NAMES else path / settings.segmenter)


def _check_one_opens(found: read.Found) -> None:
    """Raise InputError if none of the pictures has a readable header, so that no empty study is made."""
    from napari_dinobloom.io.smear import read_smear

    reasons = []
    for source in found.sources:
        try:
            read_smear(source.path)
        except ImageError as error:
            reasons.append((str(source.path), str(error)))
        else:
            return
    raise InputError(_nothing(reasons))


def _nothing(problems: Sequence[tuple[str, str]]) -> str:
    lines = [reason if name in reason else f"{name}: {reason}" for name, reason in problems[:20]]
    more = f"\n... and {len(problems) - 20} more" if len(problems) > 20 else ""
    return "No picture can be used, so nothing was done.\n" + "\n".join(lines) + more


def _remember(study: Study, settings: RunSettings) -> None:
    """Keep the settings of a run in its study."""
    if settings.to_dict() != study.settings or settings.specimen != study.specimen:
        study.update(settings=settings.to_dict(), specimen=settings.specimen)


def _named(name: str, steps: Steps[Any]) -> Steps[Any]:
    """Pass a step's progress on with the step's name in it."""
    while True:
        try:
            report = next(steps)
        except StopIteration as end:
            return end.value
        except GeneratorExit:
            steps.close()
            raise
        try:
            yield Progress(report.done, report.total, report.message, name)
        except GeneratorExit:
            steps.close()
            raise


def _steps(
    outcome: Outcome, atlas: CellClassifier | None, names: Sequence[str], workers: Workers, *, here: bool
) -> Steps[None]:
    """Do the steps that are missing or changed; after one that was done, all later ones."""
    from napari_dinobloom.pipeline.embed import check_device

    study = outcome.study
    redo = False
    found = segment.step_key(study, outcome.settings)
    for name in names:
        step = _step(name, outcome, atlas, found, workers)
        if not redo and study.step_done(name, step.key):
            yield Progress(0, 0, "nothing to do", name)
            continue
        if here and not redo and "embed" in names[names.index(name) :]:
            check_device(outcome.settings)
        redo = True
        study.forget_steps(STEPS[STEPS.index(name) :])
        started = time.perf_counter()
        result = yield from _named(name, step.work())
        if name == "segment":
            outcome.problems += result
            if not segment.usable(study):
                raise InputError(_nothing(outcome.problems))
            found = segment.step_key(study, outcome.settings)
            step = _step(name, outcome, atlas, found, workers)
        elif name == "embed":  # it knows by now what computed
            _remember(study, outcome.settings)
            step = _step(name, outcome, atlas, found, workers)
        elif name == "map":  # its key holds which one is in use
            step = _step(name, outcome, atlas, found, workers)
        outcome.seconds[name] = time.perf_counter() - started
        study.finish_step(name, step.key, step.outputs)
    return None


def _step(name: str, outcome: Outcome, atlas: CellClassifier | None, found: str, workers: Workers) -> Step:
    """Describe one step of a study: its key is made of the keys of the steps it rests on, `found` of the first."""
    from napari_dinobloom.pipeline import chart, crops, embed, results

    study, settings = outcome.study, outcome.settings
    keys = _keys(study, settings, atlas, outcome.problems, found)
    work: dict[str, tuple[tuple[str, ...], Callable[[], Steps[Any]]]] = {
        "segment": ((TABLE, "masks"), lambda: segment.iter_segment_study(study, settings, workers)),
        "crop": ((crops.FILE,), lambda: crops.iter_crop_study(study, settings, workers)),
        "embed": ((TABLE,), lambda: embed.iter_embed_study(study, settings, workers)),
        "map": ((TABLE,), lambda: chart.iter_map_study(study, settings)),
        "classify": ((TABLE,), lambda: classify.iter_classify_study(study, settings, atlas)),
        "differential": (results.TABLES, lambda: results.iter_count(study, settings)),
        "report": (
            (results.REPORT,),
            lambda: results.iter_report_study(study, settings, atlas, outcome.problems),
        ),
    }
    outputs, act = work[name]
    return Step(name, keys[name], outputs, act)


def _keys(
    study: Study, settings: RunSettings, atlas: CellClassifier | None, problems: Sequence[tuple[str, str]], found: str
) -> dict[str, str]:
    """Key of every step; `found` is that of the segmentation."""
    from napari_dinobloom.cells import crop as cropping
    from napari_dinobloom.explore import restandardise
    from napari_dinobloom.pipeline import embed, maps, results
    from napari_dinobloom.pipeline.crops import policy_of
    from napari_dinobloom.report import differential, html

    s = settings
    keys = {"segment": found}
    policy = policy_of(s)
    drawn: list[object] = [(cell, shape.key) for cell, shape in study.hand_shapes().items()]
    if policy.neighbours == "mask" or policy.fov_diameters is not None:  # a deleted cell counts in neither
        drawn += sorted(study.hand_deleted())
    keys["crop"] = digest(keys["segment"], policy.to_dict(), cropping.VERSION, *([drawn] if drawn else []))
    keys["embed"] = embed.step_key(keys["crop"], s)
    keys["map"] = maps.step_key(study, keys["embed"], s, maps.map_of(study, s))
    moving = [s.adapt, restandardise.VERSION, sorted(study.hand_deleted())] if s.adapt and atlas is not None else []
    keys["classify"] = digest(keys["map"], "" if atlas is None else atlas.hash, classify.VERSION, *moving)
    edits = study.path / "edits.jsonl"
    acts = hashlib.sha256(edits.read_bytes()).hexdigest() if edits.exists() else ""
    try:
        scheme = results.scheme_of(s.scheme, study.path)
        lines = [] if scheme is None else scheme.facts()
    except InputError as error:  # of no concern to earlier steps; the differential says it
        lines = [str(error)]
    keys["differential"] = digest(keys["classify"], s.specimen, lines, s.count, acts, differential.VERSION)
    failed = [(r.id, r.status, r.problem) for r in study.fields if r.problem]
    keys["report"] = digest(keys["differential"], failed, list(problems), html.VERSION)
    return keys


def _record(outcome: Outcome) -> None:
    """Write what this run did, when, with what and for how long, to ``runs/``."""
    from napari_dinobloom.pipeline.results import versions

    now = datetime.now(UTC)
    path = outcome.study.path / "runs" / f"{now:%Y%m%dT%H%M%S}-{os.getpid()}.json"
    about = {
        "finished": now.isoformat(timespec="seconds"),
        "seconds": {name: round(value, 2) for name, value in outcome.seconds.items()},
        "settings": outcome.settings.to_dict(),
        "problems": outcome.problems,
        "versions": versions(),
        "machine": {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()},
    }
    with disk_errors(path):
        path.parent.mkdir(exist_ok=True)
        write_text(path, json.dumps(about, indent=1, ensure_ascii=False) + "\n")
