"""The page of one patient: differential, cells to look at, map, predicted group, review and what all of it rests on.

It is made to be printed on A4 and signed. One file that opens offline, as the report of the study.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED
from napari_dinobloom.errors import InputError
from napari_dinobloom.report.cohort import Cohort
from napari_dinobloom.report.counting import flag, text
from napari_dinobloom.report.figures import map_figure
from napari_dinobloom.report.flagged import flags, limit_of
from napari_dinobloom.report.gallery import Portrait, iter_galleries, portraits
from napari_dinobloom.report.legend import Legend
from napari_dinobloom.report.page import facts, own_script, write_page

SHOWN = 16
"""Cells of each class on the page: two lines on paper."""
ATTENDED = 8
"""Cells with the highest attention on the page, and as many with the lowest."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A person who named cells of the patient: how many names stand, and the day of the last."""

    name: str
    named: int
    last: str


@dataclass(frozen=True, slots=True)
class Review:
    """How much of a patient people have looked at: `seen` of `total` cells, `against` of them not as predicted."""

    seen: int
    total: int
    against: int
    readers: tuple[Reader, ...]


def write_patient_page(cohort: Cohort, patient: str, path: str | Path) -> Path:
    """Write the page of a patient, whole or not at all.

    Parameters
    ----------
    cohort : Cohort
        The study.
    patient : str
        One of `Cohort.patients`.
    path : path
        The file; replaced if it exists.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        If the study has no such patient.
    StudyError
        If the file cannot be written; what stood there before is then untouched.
    """
    if patient not in cohort.patients:
        raise InputError(f"{cohort.data.name}: has no patient {patient[:100]!r}. Name one of the study's.")
    return write_page(Path(path), "patient.html.j2", _context(cohort, patient))


def _context(cohort: Cohort, patient: str) -> dict[str, object]:
    """What the template draws."""
    data, legend = cohort.data, cohort.legend
    mine = cohort.cells["patient"] == patient
    cells = cohort.cells[mine]
    whole, slides = cohort.groups_of(patient)
    fields = [record for record in data.fields if record.patient == patient]
    placed = data.coordinates[cohort.cells["row"].to_numpy(dtype=int)]
    top, bottom = _attended(cohort, patient)
    return {
        "data": data,
        "legend": legend,
        "patient": patient,
        "tiles": _tiles(fields, cells),
        "cautions": cohort.cautions_of(patient),
        "whole": whole,
        "slides": slides,
        "notes": _notes(data.differential, patient, legend),
        "flags": flags(cells, data.obs, limit_of(data.atlas), cohort.crops, legend),
        "map": map_figure(placed, cohort.cells["shown"], legend, among=mine.to_numpy(bool)),
        "galleries": iter_galleries(cells, cohort.crops, legend, most=SHOWN),
        "gallery_size": SHOWN,
        "model": cohort.model,
        "prediction": None if cohort.model is None else cohort.model.predictions.get(patient),
        "given": cohort.given.get(patient, ""),
        "top": top,
        "bottom": bottom,
        "review": review_of(cells, data.obs),
        "fields": fields,
        "facts": [*facts([("Hashes", cohort.hashes)]), *data.facts(brief=True)],
        **own_script(),
    }


def review_of(cells: pd.DataFrame, obs: pd.DataFrame) -> Review:
    """Say how much of `cells` (as `sightings` gives them, rows of `obs`) people have looked at."""
    own = obs.iloc[cells["row"].to_numpy(dtype=int)]
    label, predicted = text(own, "label"), text(own, "predicted")
    named = label != ""
    against = named & (predicted != "") & ~flag(own, "abstained") & (label != predicted)
    who, when = text(own, "label_by")[named], text(own, "label_at")[named]
    people = pd.DataFrame({"who": who, "when": when}).groupby("who")["when"].agg(["size", "max"])
    readers = tuple(Reader(str(name), int(row["size"]), str(row["max"])[:10]) for name, row in people.iterrows())
    seen = cells["by_hand"] | cells["reviewed"]
    return Review(int(seen.sum()), len(cells), int(against.sum()), readers)


def _tiles(fields: Sequence[object], cells: pd.DataFrame) -> list[tuple[str, int]]:
    """The numbers that stand first."""
    counted = cells[cells["reason"] == ""]
    used = [record for record in fields if getattr(record, "status", "") != "failed"]
    return [
        ("Slides", len({getattr(record, "slide", "") for record in used})),
        ("Fields", len(used)),
        ("Cells found", len(cells)),
        ("Cells counted", len(counted)),
        ("Unclassified", int((counted["shown"] == UNCLASSIFIED).sum())),
    ]


def _notes(differential: pd.DataFrame, patient: str, legend: Legend) -> list[str]:
    """Notes of the patient's differential, each once; of which lines where not of all."""
    own = differential[(differential["level"] == "patient") & (differential["patient"] == patient)]
    lines: dict[str, list[str]] = {}
    for name, said in zip(own["class"].astype(str), own["note"].astype(str), strict=True):
        for note in filter(None, said.split("; ")):
            lines.setdefault(note, []).append(legend[name].title)
    return [note if len(of) == len(own) else f"{', '.join(of)}: {note}" for note, of in sorted(lines.items())]


def _attended(cohort: Cohort, patient: str) -> tuple[list[Portrait], list[Portrait]]:
    """The cells that the prediction rests on most, and least, without an overlap."""
    ranked = cohort.attention_of(patient)
    n = len(ranked)
    some = min(ATTENDED, n // 2)
    ends = ranked.iloc[:some], ranked.iloc[n - some :]
    ranks = range(1, some + 1), range(n - some + 1, n + 1)
    return tuple(  # type: ignore[return-value]
        portraits(
            rows,
            cohort.crops,
            cohort.legend,
            [f"rank {rank} of {n:,}, {value:.2f}" for rank, value in zip(order, rows["attention"], strict=True)],
        )
        for rows, order in zip(ends, ranks, strict=True)
    )
