"""What the command line shows: one bar per step, a summary table, errors without a traceback."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Column, Table
from rich.text import Text

from napari_dinobloom.errors import DinoBloomError, LicenceError
from napari_dinobloom.progress import Steps
from napari_dinobloom.words import number_of

if TYPE_CHECKING:
    import pandas as pd

    from napari_dinobloom.pipeline.driver import Outcome
    from napari_dinobloom.pipeline.embedded import StoredEncoder

T = TypeVar("T")

DONE, SOME_FAILED, NOTHING = 0, 1, 2
"""Exit codes: all done, some inputs failed, nothing done."""

NOTES_SHOWN = 12
"""Fields whose notes are printed after a run."""

console = Console(soft_wrap=True)
errors = Console(stderr=True, soft_wrap=True)


class RateColumn(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        """Return the rate of one step."""
        speed = task.finished_speed or task.speed
        return Text("" if not speed else f"{speed:,.1f}/s", style="progress.data.speed")


def watch(steps: Steps[T]) -> T:
    """Run an ``iter_*`` generator to its end with one progress bar per step; return its result."""
    columns = (
        TextColumn("{task.description:<13}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[message]}"),
    )
    tasks: dict[str, int] = {}
    with Bars(*columns, console=errors) as bars:
        while True:
            try:
                report = next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
            name = report.step or "working"
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=report.total or None, message="")
            nothing = report.total == 0
            bars.update(
                tasks[name],  # type: ignore[arg-type]
                completed=1 if nothing else report.done,
                total=1 if nothing else report.total,
                message=escape(report.message[:60]),
            )


def hear(name: str) -> None:
    """Print from now on what the loggers of this name say, above the bars."""
    from rich.logging import RichHandler

    logger = logging.getLogger(name)
    if not logger.handlers:
        logger.addHandler(RichHandler(console=errors, show_time=False, show_level=False, show_path=False))
    logger.setLevel(logging.INFO)
    logger.propagate = False


def accepting(attempt: Callable[[bool], T], accepted: bool = False) -> T:
    """Try something whose parts may stand under terms, and again for each of them that is accepted.

    Parameters
    ----------
    attempt : callable
        What is tried; told whether terms were accepted that nobody but the attempt itself keeps.
    accepted : bool
        Whether the user accepts all terms beforehand; else each is put to them, where there is a terminal.

    Raises
    ------
    LicenceError
        Terms were not accepted.
    """
    import typer

    said_yes = accepted
    while True:
        try:
            return attempt(said_yes)
        except LicenceError as error:
            if not (accepted or (sys.stdin.isatty() and typer.confirm(f"{error.question} Do you accept?"))):
                raise
            if error.accept is not None:
                error.accept()
            elif said_yes:  # it was told so already
                raise
            else:
                said_yes = True


@contextmanager
def mendable() -> Iterator[None]:
    """Turn errors that a user can mend into one message and exit code 2; Ctrl-C says how to go on."""
    import typer

    try:
        yield
    except DinoBloomError as error:
        errors.print(f"[bold red]Error:[/] {escape(str(error))}")
        raise typer.Exit(NOTHING) from error
    except KeyboardInterrupt as error:
        errors.print("Stopped. What was finished is kept; the same command goes on from there.")
        raise typer.Exit(130) from error


def summarise(outcome: Outcome) -> int:
    """Print what a run did and where everything is; return the exit code."""
    from napari_dinobloom.pipeline.driver import step_states

    study = outcome.study
    late = {step.name for step in step_states(study) if step.state in {"stale", "missing"}}
    problem_table(outcome.problems)
    same = [record for record in study.fields if record.status == "same_as"]
    for record in same:
        errors.print(f"[yellow]{escape(record.file)}[/] is the same picture as {record.problem}; counted once.")
    noted = [record for record in study.fields if record.status == "ok" and record.problem]
    for record in noted[:NOTES_SHOWN]:
        errors.print(f"[yellow]{escape(record.file)}[/]: {escape(record.problem)}")
    if len(noted) > NOTES_SHOWN:
        errors.print(f"{len(noted) - NOTES_SHOWN} more fields have notes; see the report.")
    if not outcome.seconds:
        console.print(f"Nothing to do: {escape(str(study.path))} is up to date.")
    table = Table("", Column(overflow="fold"), show_header=False, box=None, pad_edge=False)
    obs = study.cells.obs
    if lost := study.orphans:
        named = ", ".join(lost[:5]) + (", ..." if len(lost) > 5 else "")
        errors.print(f"[yellow]{len(lost)}[/] cells with acts by hand are no longer found: {escape(named)}. "
                     "They are not counted; what was said of them is kept.")  # fmt: skip
    living = obs[~obs["deleted"].to_numpy(bool)]
    fields = [record for record in study.fields if record.status == "ok"]
    slides = {record.slide for record in fields}
    patients = {record.patient for record in fields}
    table.add_row(
        "Fields", f"{len(fields)} on {number_of(len(slides), 'slide')} of {number_of(len(patients), 'patient')}"
    )
    table.add_row("Cells", f"{len(living)} found")
    if "classify" not in late:
        _add_names(table, outcome, living)
    elif (living["predicted_by"] != "").any():
        table.add_row("  names", "out of date: name the cells again")
    for title, place in (("Report", "report.html"), ("Tables", "tables"), ("Cell table", "cells.h5ad")):
        if (study.path / place).exists():
            old = " (out of date)" if "report" in late and title != "Cell table" else ""
            table.add_row(title, escape(str(study.path / place)) + old)
    if outcome.seconds:
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in outcome.seconds.items())
        table.add_row("Seconds", parts)
    console.print(table)
    console.print("Research use, not for diagnosis")
    return SOME_FAILED if outcome.problems else DONE


def _add_names(table: Table, outcome: Outcome, living: pd.DataFrame) -> None:
    """Add how many cells have which name; say why where none has, or where they are unlike the atlas."""
    from napari_dinobloom.pipeline.results import scheme_of
    from napari_dinobloom.predict.novelty import FAR_SHARE, slide_warning
    from napari_dinobloom.report.counting import counting

    named = living.loc[~living["abstained"].to_numpy(bool) & (living["predicted"] != ""), "predicted"]
    for name, n in named.value_counts().items():
        table.add_row(f"  {name}", f"{n}")
    if len(living) > len(named):
        table.add_row("  unclassified", f"{len(living) - len(named)}")
    notes = dict(outcome.study.cells.uns.get("dinobloom", {}))
    if len(living) and outcome.settings.atlas != "none" and not (living["predicted_by"] != "").any():
        errors.print(
            f"[yellow]No cell has a name[/], as no atlas belongs to the encoder {escape(str(notes['encoder']))}. Name "
            "one with --atlas, or make one: napari-dinobloom atlas build LABELLED.csv --encoder ENCODER."
        )
    limit = float(notes.get("distance_limit", math.inf))
    far = int((living["distance"] > limit).sum())
    if far > FAR_SHARE * len(living):
        table.add_row("  of them", f"{far} unlike the atlas: another stain or scanner; see the report")
    asked, scheme = outcome.settings, scheme_of(outcome.settings.scheme, outcome.study.path)
    reasons = counting(living, specimen=asked.specimen, scheme=scheme, cells=asked.count)["reason"]
    if (reasons != "").any():
        table.add_row("  counted", f"{(reasons == '').sum()}; why the others are not, the report says")
    for warning in slide_warning(living["distance"], living["slide"].to_numpy(str), limit)[:NOTES_SHOWN]:
        errors.print(f"[yellow]{escape(warning)}[/]")


def problem_table(problems: Sequence[tuple[str, str]]) -> None:
    """Print inputs that could not be used and why."""
    for name, message in problems:
        shown = message if message.startswith(name) else f"{name}: {message}"
        errors.print(f"[yellow]Left out:[/] {escape(shown)}")


def tell_stored(stored: Sequence[StoredEncoder]) -> None:
    """Print the embeddings that a study holds, a line each; those of the cell table have a star."""
    for one in stored:
        how = f"{one.precision} on {one.device}, {one.pooling}" + (f", {one.stain} stain" if one.stain else "")
        tell(f"{'*' if one.active else ' '} {one.folder}  {one.n} x {one.dim}  {how}  {one.when}  {one.key}")
    if not stored:
        tell("No cell is embedded yet.")


def tell(path: Path | str) -> None:
    """Print where something was written."""
    console.print(escape(str(path)))
    sys.stdout.flush()
