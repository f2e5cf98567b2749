"""Last steps: the differential with its tables, and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.cells.segmenter import NAMES, licence_of
from napari_dinobloom.errors import DinoBloomError, InputError, StudyError
from napari_dinobloom.io.annotations.geojson import write_geojson
from napari_dinobloom.io.atomic import disk_errors, write_text
from napari_dinobloom.io.celltable import cell_id
from napari_dinobloom.io.fields import make_id
from napari_dinobloom.io.pseudonyms import UNTOLD, PseudonymousStudy
from napari_dinobloom.io.tables import write_csv
from napari_dinobloom.io.trust import inside
from napari_dinobloom.pipeline.crops import CropReader, open_crops, policy_of
from napari_dinobloom.pipeline.settings import RunSettings
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_dinobloom.io.fields import FieldRecord
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.predict.classifier import CellClassifier
    from napari_dinobloom.report.schemes import Scheme

TABLES = ("tables/cells.csv", "tables/differential.csv", "tables/summary.csv")
NOTES = {
    "differential.csv": (
        "low and high: 95 %, Wilson, counting error only; simultaneous: 95 % for all classes at once, Goodman.",
    )
}
OUTLINED = ("area_px", "nucleus_area_px", "nc_ratio", "solidity", "circularity", "lobes", "focus", "confidence")
"""Columns of the cell table that go into QuPath's measurements."""
REPORT = "report.html"
SCHEMES, SCHEME_FILES = "schemes", (".yaml", ".yml")
"""Folder of the study for counting schemes that were chosen, and how their files end."""
OWN_SCHEME = "a scheme of this laboratory"
"""What a scheme that a person wrote is called under pseudonyms."""
LICENCES = (
    ("napari-dinobloom and the starter encoder", "Apache-2.0"),
    (
        "Reference cells: PBC, Acevedo et al. 2020, doi:10.17632/snkd93bnjr.1",
        "CC BY 4.0, changed: cut, resized, embedded",
    ),
)


def iter_count(study: Study, settings: RunSettings) -> Steps[list[Path]]:
    """Compute differential and summary and write the tables of a study."""
    yield Progress(0, 1, "differential")
    paths = write_tables(study, settings, study.path / "tables")
    yield Progress(1, 1, "differential")
    return paths


def write_tables(study: Study | PseudonymousStudy, settings: RunSettings, folder: Path) -> list[Path]:
    """Write ``cells.csv``, ``differential.csv`` and ``summary.csv`` of a study as it is now into `folder`."""
    counts, totals = count(study, settings)
    cells = cell_table(study)
    if isinstance(study, PseudonymousStudy):
        cells = cells.sort_values("cell_id")  # the order of the study follows the names of its files
    tables = {"cells.csv": cells, "differential.csv": counts, "summary.csv": totals}
    for name, table in tables.items():
        write_csv(folder / name, table, comments=NOTES.get(name, ()))
    return [folder / name for name in tables]


def cell_table(study: Study | PseudonymousStudy) -> pd.DataFrame:
    """The cell table as other programs get it: all of ``obs``, and the place on the map; a copy."""
    cells: pd.DataFrame = study.cells.obs.copy()
    if "X_umap" in study.cells.obsm:
        cells[["umap_1", "umap_2"]] = study.cells.obsm["X_umap"]
    return cells


def write_outlines(study: Study | PseudonymousStudy, folder: Path) -> list[Path]:
    """Write the cells of each field as ``FIELD.geojson`` for QuPath, as `write_field_outlines`."""
    fields = [record for record in study.fields if record.status == "ok"]
    rows, none = study.cells.obs.groupby("field", sort=False).indices, np.zeros(0, np.intp)
    return [
        write_field_outlines(study, record, folder / f"{record.id}.geojson", rows.get(record.id, none))
        for record in fields
    ]


def write_field_outlines(
    study: Study | PseudonymousStudy, record: FieldRecord, path: Path, rows_of: NDArray[np.intp] | None = None
) -> Path:
    """Write the cells of one field for QuPath; deleted and excluded ones are left out.

    The class is the hand label, else the machine's where it did not abstain. `rows_of`: the field's rows of the cell
    table, where the caller has looked for those of all fields at once.
    """
    obs = study.cells.obs
    here = obs.iloc[np.flatnonzero(obs["field"] == record.id) if rows_of is None else rows_of]
    shown = here[~(here["deleted"].to_numpy(bool) | here["excluded"].to_numpy(bool))]
    named = shown["predicted"].where(~shown["abstained"].to_numpy(bool), "")
    kinds = shown["label"].where(shown["label"] != "", named)
    measures = shown[list(OUTLINED)].astype(float).to_dict("index")
    masks = study.masks(record.id)
    ids = [cell_id(record.id, int(number)) for number in masks.numbers]
    rows = [row for row, cell in enumerate(ids) if cell in shown.index]
    kept = [ids[row] for row in rows]
    write_geojson(
        path,
        masks.take(rows),
        names=kept,
        classes=[str(kinds[cell]) for cell in kept],
        colours=study.palette,
        measurements=[{str(key): value for key, value in measures[cell].items()} for cell in kept],
    )
    return path


def count(study: Study | PseudonymousStudy, settings: RunSettings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Differential and summary of a study as it is now."""
    return count_cells(study.cells, settings, study.path)


def count_cells(
    cells: AnnData, settings: RunSettings, folder: Path, *, by: Sequence[str] = ("patient", "slide")
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Differential and summary of a cell table, counted as a run of the study in `folder` with such settings does."""
    from napari_dinobloom.report.differential import differential, summary

    scheme = scheme_of(settings.scheme, folder)
    return (
        differential(cells, specimen=settings.specimen, by=by, scheme=scheme, cells=settings.count),
        summary(cells, specimen=settings.specimen, by=by, scheme=scheme, cells=settings.count),
    )


def scheme_of(name: str, folder: Path) -> Scheme | None:
    """The counting scheme that the settings of the study in `folder` name, None where each class is a line.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    from napari_dinobloom.report.schemes import load_scheme

    if name == "none":
        return None
    if Path(name).suffix.lower() not in SCHEME_FILES:
        return load_scheme(name)
    try:
        return load_scheme(name if Path(name).is_absolute() else inside(folder, name))
    except DinoBloomError as error:
        raise InputError(f"{error} Choose another scheme, or none: --scheme none.") from error


def keep_scheme(study: Study, settings: RunSettings) -> None:
    """Copy a scheme that lies elsewhere into the study, so that it is there as long as the study is."""
    path = Path(settings.scheme)
    if not path.is_absolute() or not path.is_file():
        return
    name = f"{SCHEMES}/{make_id(path.stem, ())}.yaml"
    kept = inside(study.path, name)
    if path != kept.resolve():
        with disk_errors(kept):
            kept.parent.mkdir(exist_ok=True)
            write_text(kept, path.read_text(encoding="utf-8"))
    settings.scheme = name


def iter_report_study(
    study: Study, settings: RunSettings, atlas: CellClassifier | None, problems: Sequence[tuple[str, str]] = ()
) -> Steps[Path]:
    """Write ``report.html``."""
    from napari_dinobloom.report.html import iter_write_report

    said = what_is_said(study, settings, atlas, problems)
    path: Path = yield from iter_write_report(study, study.path / REPORT, crops=crops_of(study), **said)
    return path


def what_is_said(
    study: Study | PseudonymousStudy,
    settings: RunSettings,
    atlas: CellClassifier | None,
    problems: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    """Numbers and facts of a study for its reports: what `ReportInput.of` takes beside the study.

    Of a study under pseudonyms nothing is said that was typed or named by a person: paths, notes, the licence's holder.
    """
    counts, totals = count(study, settings)
    said = {
        "differential": counts,
        "summary": totals,
        "specimen": settings.specimen,
        "atlas_info": atlas_facts(atlas),
        "encoder_info": encoder_facts(study),
        "settings": _shown_settings(settings),
        "versions": versions(),
        "licences": _licences(settings),
        "problems": problems,
        "scheme": scheme_of(settings.scheme, study.path),
        "selection": settings.count,
    }
    return said | _without_names(said) if isinstance(study, PseudonymousStudy) else said


def _without_names(said: dict[str, Any]) -> dict[str, Any]:
    """Those of the facts that may quote a person or a path, without it."""
    from napari_dinobloom.report.schemes import scheme_names

    scheme: Scheme | None = said["scheme"]
    if scheme is not None and said["settings"]["scheme"] not in scheme_names():
        scheme = replace(scheme, name="own", title=OWN_SCHEME, source="")
    settled = ("auto", "none", "folder", "file", "slide", "", *NAMES)
    typed = ("slide_from", "patient_from", "segmenter", "atlas", "encoder", "accepted_licence", "scheme")
    return {
        "atlas_info": {key: value for key, value in said["atlas_info"].items() if key != "info"},
        "settings": {key: value for key, value in said["settings"].items() if key not in typed or value in settled},
        "licences": LICENCES,
        "scheme": scheme,
        "problems": [(f"input {number}", UNTOLD) for number in range(1, len(said["problems"]) + 1)],
    }


def crops_of(study: Study) -> CropReader | None:
    """The crops of a study, None where there are none to read."""
    try:
        return CropReader(study, open_crops(study).shape)
    except StudyError:
        return None


def _shown_settings(settings: RunSettings) -> dict[str, object]:
    """Settings as the report prints them: of files the name without its place on this machine."""
    from napari_dinobloom.encoders.library import is_path
    from napari_dinobloom.predict.shelf import is_file

    shown = settings.to_dict() | {"crops": policy_of(settings).to_dict()}
    del shown["computes"]  # it stands with the encoder
    if settings.segmenter not in NAMES:
        shown["segmenter"] = f"labels:{Path(settings.segmenter).name}"
    shown["scheme"] = Path(settings.scheme).name
    for name, test in (("encoder", is_path), ("atlas", is_file)):
        if test(str(shown[name])):
            shown[name] = Path(str(shown[name])).name
    return shown


def _licences(settings: RunSettings) -> list[tuple[str, str]]:
    """What is used and under which terms, that of the segmenter with who accepted it and when."""
    accepted = settings.accepted_licence if licence_of(settings.segmenter) and not settings.cells else ""
    return [*LICENCES, *([(f"Segmenter {settings.segmenter}", accepted)] if accepted else [])]


def atlas_facts(atlas: CellClassifier | None) -> dict[str, object]:
    """What the report says of the atlas or the probe."""
    return {} if atlas is None else atlas.facts()


def encoder_facts(study: Study | PseudonymousStudy) -> dict[str, object]:
    """What the report says of the encoder."""
    from napari_dinobloom.encoders.registry import REGISTRY

    notes = dict(study.cells.uns.get("dinobloom", {}))
    facts: dict[str, object] = {"name": str(notes.get("encoder", "")), "sha256": str(notes.get("encoder_sha256", ""))}
    facts |= {name: str(notes.get(name, "")) for name in ("pooling", "stain", "preprocessing", "precision", "device")}
    spec = REGISTRY.get(str(notes.get("encoder", "")))
    if spec is not None:
        facts |= {k: v for k, v in asdict(spec).items() if k in ("dim", "patch_size", "input_size", "licence")}
    return facts


def versions() -> dict[str, str]:
    """Versions of what computed the numbers."""
    names = ("napari-dinobloom", "torch", "numpy", "scipy", "scikit-image", "umap-learn", "anndata", "pillow")
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
