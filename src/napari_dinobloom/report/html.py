"""The report: one HTML file that opens offline, with every cell, number and caution of a study.

The file holds no address but ``data:`` ones and those into itself, and forbids others by its own content security
policy. Text from files and people passes jinja2's escaping. Fields are written as they are made, so that memory does
not grow with the study.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED
from napari_dinobloom.io.atomic import disk_errors, replacing
from napari_dinobloom.progress import Progress, Steps, drain
from napari_dinobloom.report.budget import Budget
from napari_dinobloom.report.counting import REASONS, Specimen
from napari_dinobloom.report.fields import Fields, FieldView, iter_fields
from napari_dinobloom.report.figures import map_figure
from napari_dinobloom.report.gallery import SHOWN, Crops, iter_galleries
from napari_dinobloom.report.legend import Legend
from napari_dinobloom.report.overview import cautions, groups
from napari_dinobloom.report.sightings import REASON_WORDS, sightings

if TYPE_CHECKING:
    from anndata import AnnData
    from jinja2 import Environment

    from napari_dinobloom.io.study import FieldRecord

VERSION = 1
"""Raised when the same study would give another report."""

MAX_BYTES = 56_000_000
"""What a report is to stay under, with some room left below 60 MB."""
_BYTES_PER_CELL = 600
_BYTES_PER_FIELD = 900
_FIXED_BYTES = 4_000_000
_PACKAGES = ("napari-dinobloom", "torch", "timm", "numpy", "scikit-image", "umap-learn", "anndata")


class ReportedStudy(Fields, Protocol):
    """What a report reads of a study: its fields, cells and colours."""

    @property
    def name(self) -> str:
        """Name for people."""

    @property
    def specimen(self) -> Specimen:
        """What was smeared."""

    @property
    def cells(self) -> AnnData:
        """The cell table."""

    @property
    def palette(self) -> Mapping[str, str]:
        """Colour of each class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInput:
    """Everything a report says, without the pictures.

    Attributes
    ----------
    name : str
        Name of the study.
    specimen : {"blood", "marrow"}
        What was smeared.
    fields : sequence of FieldRecord
        All fields, failed ones included.
    obs : DataFrame
        The study's cell table, indexed by cell_id.
    coordinates : array, (n, 2), float
        Place of each cell on the map, NaN where it has none.
    palette : mapping of str to str
        Colour of each class.
    differential, summary : DataFrame
        As the functions of these names in `report.differential` return them.
    atlas, encoder, settings, versions : mapping
        What stands in the chapter on method; ``classes`` and ``distance_limit`` of the atlas are also judged.
    licences : sequence of (str, str)
        What is used, and under which terms.
    problems : sequence of (str, str)
        Inputs that never became a field, and why.
    created : str
        When, for readers.
    """

    name: str
    specimen: Specimen
    fields: Sequence[FieldRecord]
    obs: pd.DataFrame
    coordinates: npt.NDArray[np.float64]
    palette: Mapping[str, str]
    differential: pd.DataFrame
    summary: pd.DataFrame
    atlas: Mapping[str, object] = field(default_factory=dict)
    encoder: Mapping[str, object] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    licences: Sequence[tuple[str, str]] = ()
    problems: Sequence[tuple[str, str]] = ()
    created: str = ""


def write_report(
    study: ReportedStudy,
    path: str | Path,
    *,
    differential: pd.DataFrame,
    summary: pd.DataFrame,
    specimen: Specimen | None = None,
    crops: Crops | None = None,
    atlas_info: Mapping[str, object] | None = None,
    encoder_info: Mapping[str, object] | None = None,
    settings: Mapping[str, object] | None = None,
    versions: Mapping[str, str] | None = None,
    licences: Sequence[tuple[str, str]] = (),
    problems: Sequence[tuple[str, str]] = (),
    created: str | None = None,
) -> Path:
    """Write the report of a study as one HTML file and return its path; parameters as for `iter_write_report`."""
    return drain(
        iter_write_report(
            study,
            path,
            differential=differential,
            summary=summary,
            specimen=specimen,
            crops=crops,
            atlas_info=atlas_info,
            encoder_info=encoder_info,
            settings=settings,
            versions=versions,
            licences=licences,
            problems=problems,
            created=created,
        )
    )


def iter_write_report(
    study: ReportedStudy,
    path: str | Path,
    *,
    differential: pd.DataFrame,
    summary: pd.DataFrame,
    specimen: Specimen | None = None,
    crops: Crops | None = None,
    atlas_info: Mapping[str, object] | None = None,
    encoder_info: Mapping[str, object] | None = None,
    settings: Mapping[str, object] | None = None,
    versions: Mapping[str, str] | None = None,
    licences: Sequence[tuple[str, str]] = (),
    problems: Sequence[tuple[str, str]] = (),
    created: str | None = None,
) -> Steps[Path]:
    """Write the report of a study as one HTML file, whole or not at all.

    Parameters
    ----------
    study : ReportedStudy
        The study.
    path : path
        The file; replaced if it exists.
    differential, summary : DataFrame
        As the functions of these names in `report.differential` return them.
    specimen : {"blood", "marrow"}, optional
        What was counted; by default what the study says.
    crops : Crops, optional
        Pictures of all cells by row of the cell table; without them the galleries say that none were kept.
    atlas_info, encoder_info, settings : mapping, optional
        For the chapter on method; nested mappings are spread out. ``classes`` (sequence of str) and ``distance_limit``
        (float) of the atlas decide on cautions.
    versions : mapping of str to str, optional
        By default those of the installed packages that make numbers.
    licences, problems : sequence of (str, str)
        What is used and its terms; inputs that never became a field and why.
    created : str, optional
        By default now, in UTC.

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
    adata = study.cells
    data = ReportInput(
        name=study.name,
        specimen=specimen or study.specimen,
        fields=study.fields,
        obs=pd.DataFrame(adata.obs),
        coordinates=_coordinates(adata),
        palette=study.palette,
        differential=differential,
        summary=summary,
        atlas=atlas_info or {},
        encoder=encoder_info or {},
        settings=settings or {},
        versions=versions if versions is not None else _versions(),
        licences=licences,
        problems=problems,
        created=created or datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    return (yield from _iter_write(data, study, crops, Path(path)))


def _iter_write(data: ReportInput, study: ReportedStudy, crops: Crops | None, path: Path) -> Steps[Path]:
    """Render `data` into `path`, one field at a time."""
    cells = sightings(data.obs, data.specimen)
    legend = _legend(data, cells)
    total = len(data.fields)
    spare = MAX_BYTES - _FIXED_BYTES - _BYTES_PER_CELL * len(cells) - _BYTES_PER_FIELD * total
    budget = Budget(bytes_left=spare, fields_left=total)
    shown: list[str] = []

    def fields() -> Iterator[FieldView]:
        for view in iter_fields(study, cells, legend, budget):
            yield view
            shown.append(view.field_id)

    page = _environment().get_template("report.html.j2")
    context = _context(data, cells, legend)
    yield Progress(0, total, "report")
    told = 0
    pages = page.generate(**context, galleries=iter_galleries(cells, crops, legend), fields=fields())
    with (
        disk_errors(path),
        replacing(path) as part,
        open(part, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as handle,
    ):
        for text in pages:
            handle.write(text)
            if len(shown) > told:
                told = len(shown)
                yield Progress(told, total, f"field {shown[-1]}")
    return path


def _coordinates(adata: AnnData) -> npt.NDArray[np.float64]:
    """Place of each cell on the active map, NaN where there is none."""
    if "X_umap" not in adata.obsm:
        return np.full((adata.n_obs, 2), np.nan)
    return np.asarray(adata.obsm["X_umap"], dtype=np.float64)[:, :2]


def _context(data: ReportInput, cells: pd.DataFrame, legend: Legend) -> dict[str, object]:
    """What the template draws, apart from galleries and fields."""
    found = groups(data.differential, data.summary, legend)
    patients = [g for g in found if g.level == "patient"]
    slides = [g for g in found if g.level == "slide"]
    counted = set(cells.loc[cells["reason"] == "", "shown"])
    script = _environment().get_template("script.js").render()
    placed = data.coordinates[cells["row"].to_numpy(dtype=int)]
    return {
        "data": data,
        "legend": legend,
        "tiles": _tiles(data),
        "reasons": _reasons(data.summary),
        "cautions": cautions(cells, found, data.fields, data.problems, data.atlas, data.obs),
        "patients": patients,
        "slides": slides,
        "slides_of": {g.patient: [s for s in slides if s.patient == g.patient] for g in patients},
        "counted_entries": [e for e in legend.entries if e.name in counted],
        "shown_entries": [e for e in legend.entries if e.name in set(cells["shown"])],
        "map": map_figure(placed, cells["shown"], legend),
        "gallery_size": SHOWN,
        "facts": _facts(data),
        "script": _safe(script),
        "script_hash": "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def _safe(script: str) -> object:
    """Mark our own script as not to be escaped."""
    from markupsafe import Markup

    return Markup(script)


def _environment() -> Environment:
    """The templates of this room, with escaping on for every one of them."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("napari_dinobloom.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _legend(data: ReportInput, cells: pd.DataFrame) -> Legend:
    """All classes that any part of the report names."""
    named = set(cells["shown"]) | set(cells["nearest"]) | set(data.differential["class"]) | {UNCLASSIFIED}
    return Legend(named - {""}, data.palette)


def _tiles(data: ReportInput) -> list[tuple[str, int]]:
    """The numbers that stand first."""
    summary = data.summary[data.summary["level"] == "patient"]
    used = [f for f in data.fields if f.status != "failed"]
    return [
        ("Patients", len({f.patient for f in used})),
        ("Slides", len({(f.patient, f.slide) for f in used})),
        ("Fields", len(used)),
        ("Cells found", int(summary["cells"].sum())),
        ("Cells counted", int(summary["counted"].sum())),
        ("Unclassified", int(summary["unclassified"].sum())),
    ]


def _reasons(summary: pd.DataFrame) -> list[tuple[str, int]]:
    """How many cells are outside the count, by reason."""
    rows = summary[summary["level"] == "patient"]
    found = [(REASON_WORDS.get(reason, reason), int(rows[reason].sum())) for reason in REASONS if reason in rows]
    return [(reason, n) for reason, n in found if n]


def _facts(data: ReportInput) -> list[tuple[str, list[tuple[str, str]]]]:
    """The chapter on method: title and rows of each table, empty ones left out."""
    chapters: list[tuple[str, list[tuple[str, str]]]] = [
        ("Encoder", list(_spread(data.encoder))),
        ("Reference atlas", list(_spread(data.atlas))),
        ("Settings", list(_spread(data.settings))),
        ("Versions", list(_spread(data.versions))),
        ("Licences", [(str(what), str(terms)) for what, terms in data.licences]),
    ]
    return [(title, rows) for title, rows in chapters if rows]


def _spread(values: Mapping[str, object], above: str = "") -> Iterator[tuple[str, str]]:
    """Rows of a nested mapping: "crop · fov_um", "25.0"."""
    for key, value in values.items():
        label = f"{above} · {key}" if above else str(key)
        if isinstance(value, Mapping):
            yield from _spread(value, label)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield label, ", ".join(str(item) for item in value)
        elif isinstance(value, float):
            yield label, f"{value:.6g}"
        else:
            yield label, "–" if value is None or value == "" else str(value)


def _versions() -> dict[str, str]:
    """Versions of the installed packages that make numbers."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
