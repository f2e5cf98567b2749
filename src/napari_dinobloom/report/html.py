"""The report: one HTML file that opens offline, with every cell, number and caution of a study.

The file holds no address but ``data:`` ones and those into itself, and forbids others by its own content security
policy. Text from files and people passes jinja2's escaping. Fields are written as they are made, so that memory does
not grow with the study.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

import pandas as pd

from napari_dinobloom.progress import Progress, Steps, drain
from napari_dinobloom.report.budget import Budget
from napari_dinobloom.report.counting import REASONS
from napari_dinobloom.report.fields import FieldView, iter_fields
from napari_dinobloom.report.figures import map_figure
from napari_dinobloom.report.gallery import SHOWN, Crops, iter_galleries
from napari_dinobloom.report.legend import Entry, Legend
from napari_dinobloom.report.overview import cautions, groups
from napari_dinobloom.report.page import environment, own_script, page_file
from napari_dinobloom.report.reported import ReportedStudy, ReportInput, Said
from napari_dinobloom.report.sightings import REASON_WORDS

VERSION = 2
"""Raised when the same study would give another report."""

MAX_BYTES = 56_000_000
"""What a report is to stay under, with some room left below 60 MB."""
_BYTES_PER_CELL = 600
_BYTES_PER_FIELD = 900
_FIXED_BYTES = 4_000_000


def write_report(study: ReportedStudy, path: str | Path, *, crops: Crops | None = None, **said: Unpack[Said]) -> Path:
    """Write the report of a study as one HTML file and return its path; parameters as for `iter_write_report`."""
    return drain(iter_write_report(study, path, crops=crops, **said))


def iter_write_report(
    study: ReportedStudy, path: str | Path, *, crops: Crops | None = None, **said: Unpack[Said]
) -> Steps[Path]:
    """Write the report of a study as one HTML file, whole or not at all.

    Parameters
    ----------
    study : ReportedStudy
        The study.
    path : path
        The file; replaced if it exists.
    crops : Crops, optional
        Pictures of all cells by row of the cell table; without them the galleries say that none were kept.
    **said
        What `Said` lists; ``differential`` and ``summary`` are needed.

    Yields
    ------
    Progress
        After each field.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    StudyError
        If the file cannot be written (full disk, read-only folder); what stood at `path` before is then untouched.
    """
    data = ReportInput.of(study, **said)
    return (yield from _iter_write(data, study, crops, Path(path)))


def _iter_write(data: ReportInput, study: ReportedStudy, crops: Crops | None, path: Path) -> Steps[Path]:
    """Render `data` into `path`, one field at a time."""
    cells = data.sightings()
    legend = data.legend(cells)
    total = len(data.fields)
    spare = MAX_BYTES - _FIXED_BYTES - _BYTES_PER_CELL * len(cells) - _BYTES_PER_FIELD * total
    budget = Budget(bytes_left=spare, fields_left=total)
    shown: list[str] = []

    def fields() -> Iterator[FieldView]:
        for view in iter_fields(study, cells, legend, budget):
            yield view
            shown.append(view.field_id)

    page = environment().get_template("report.html.j2")
    context = _context(data, cells, legend)
    yield Progress(0, total, "report")
    told = 0
    pages = page.generate(**context, galleries=iter_galleries(cells, crops, legend), fields=fields())
    with page_file(path) as handle:
        for text in pages:
            handle.write(text)
            if len(shown) > told:
                told = len(shown)
                yield Progress(told, total, f"field {shown[-1]}")
    return path


def _context(data: ReportInput, cells: pd.DataFrame, legend: Legend) -> dict[str, object]:
    """What the template draws, apart from galleries and fields."""
    found = groups(data.differential, data.summary, legend)
    patients = [g for g in found if g.level == "patient"]
    slides = [g for g in found if g.level == "slide"]
    placed = data.coordinates[cells["row"].to_numpy(dtype=int)]
    return {
        "data": data,
        "legend": legend,
        "tiles": tiles(data),
        "reasons": _reasons(data.summary),
        "cautions": cautions(cells, found, data.fields, data.problems, data.atlas, data.obs),
        "patients": patients,
        "slides": slides,
        "slides_of": {g.patient: [s for s in slides if s.patient == g.patient] for g in patients},
        "counted_entries": counted_entries(data, legend),
        "shown_entries": [e for e in legend.entries if e.name in set(cells["shown"])],
        "map": map_figure(placed, cells["shown"], legend),
        "gallery_size": SHOWN,
        "facts": data.facts(),
        **own_script(),
    }


def counted_entries(data: ReportInput, legend: Legend) -> list[Entry]:
    """Lines of the differential that some patient has, in the order of the legend."""
    lines = data.differential
    counted = set(lines.loc[(lines["n"] > 0) & lines["in_denominator"].astype(bool), "class"])
    return [entry for entry in legend.entries if entry.name in counted]


def tiles(data: ReportInput) -> list[tuple[str, int]]:
    """The numbers that stand first; a cell that a person deleted was none."""
    summary = data.summary[data.summary["level"] == "patient"]
    used = [f for f in data.fields if f.status != "failed"]
    return [
        ("Patients", len({f.patient for f in used})),
        ("Slides", len({(f.patient, f.slide) for f in used})),
        ("Fields", len(used)),
        ("Cells found", int((summary["cells"] - summary["deleted"]).sum())),
        ("Cells counted", int(summary["counted"].sum())),
        ("Unclassified", int(summary["unclassified"].sum())),
    ]


def _reasons(summary: pd.DataFrame) -> list[tuple[str, int]]:
    """How many cells are outside the count, by reason."""
    rows = summary[summary["level"] == "patient"]
    found = [(REASON_WORDS.get(reason, reason), int(rows[reason].sum())) for reason in REASONS if reason in rows]
    return [(reason, n) for reason, n in found if n]
