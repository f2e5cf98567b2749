"""Last steps: the differential with its tables, and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from napari_dinobloom.cells.segmenter import NAMES, licence_of
from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.annotations.geojson import write_geojson
from napari_dinobloom.io.celltable import cell_id
from napari_dinobloom.io.tables import write_csv
from napari_dinobloom.pipeline.crops import open_crops, policy_of
from napari_dinobloom.pipeline.settings import RunSettings
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.predict.atlas import Atlas

TABLES = ("tables/cells.csv", "tables/differential.csv", "tables/summary.csv")
NOTES = {"differential.csv": ("low and high: 95 %, Wilson, counting error only.",)}
OUTLINED = ("area_px", "nucleus_area_px", "nc_ratio", "solidity", "circularity", "lobes", "focus", "confidence")
"""Columns of the cell table that go into QuPath's measurements."""
REPORT = "report.html"
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


def write_tables(study: Study, settings: RunSettings, folder: Path) -> list[Path]:
    """Write ``cells.csv``, ``differential.csv`` and ``summary.csv`` of a study as it is now into `folder`."""
    counts, totals = count(study, settings)
    cells = study.cells.obs.copy()
    if "X_umap" in study.cells.obsm:
        cells[["umap_1", "umap_2"]] = study.cells.obsm["X_umap"]
    tables = {"cells.csv": cells, "differential.csv": counts, "summary.csv": totals}
    for name, table in tables.items():
        write_csv(folder / name, table, comments=NOTES.get(name, ()))
    return [folder / name for name in tables]


def write_outlines(study: Study, folder: Path) -> list[Path]:
    """Write the cells of each field as ``FIELD.geojson`` for QuPath; deleted and excluded ones are left out.

    The class is the hand label, else the machine's where it did not abstain.
    """
    obs = study.cells.obs
    shown = obs[~(obs["deleted"].to_numpy(bool) | obs["excluded"].to_numpy(bool))]
    named = shown["predicted"].where(~shown["abstained"].to_numpy(bool), "")
    kinds = shown["label"].where(shown["label"] != "", named)
    measures = shown[list(OUTLINED)].astype(float).to_dict("index")
    paths = []
    for record in (record for record in study.fields if record.status == "ok"):
        masks = study.masks(record.id)
        ids = [cell_id(record.id, int(number)) for number in masks.numbers]
        rows = [row for row, cell in enumerate(ids) if cell in shown.index]
        kept = [ids[row] for row in rows]
        paths.append(folder / f"{record.id}.geojson")
        write_geojson(
            paths[-1],
            masks.take(rows),
            names=kept,
            classes=[str(kinds[cell]) for cell in kept],
            colours=study.palette,
            measurements=[{str(key): value for key, value in measures[cell].items()} for cell in kept],
        )
    return paths


def count(study: Study, settings: RunSettings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Differential and summary of a study as it is now."""
    from napari_dinobloom.report.differential import differential, summary

    return differential(study.cells, specimen=settings.specimen), summary(study.cells, specimen=settings.specimen)


def iter_report_study(
    study: Study, settings: RunSettings, atlas: Atlas | None, problems: Sequence[tuple[str, str]] = ()
) -> Steps[Path]:
    """Write ``report.html``."""
    from napari_dinobloom.report.html import iter_write_report

    counts, totals = count(study, settings)
    try:
        crops = open_crops(study)
    except StudyError:
        crops = None
    path: Path = yield from iter_write_report(
        study,
        study.path / REPORT,
        differential=counts,
        summary=totals,
        specimen=settings.specimen,
        crops=crops,
        atlas_info=atlas_facts(atlas),
        encoder_info=encoder_facts(study),
        settings=_shown_settings(settings),
        versions=versions(),
        licences=_licences(settings),
        problems=problems,
    )
    return path


def _shown_settings(settings: RunSettings) -> dict[str, object]:
    """Settings as the report prints them: of brought cells the name without its place on this machine."""
    shown = settings.to_dict() | {"crops": policy_of(settings).to_dict()}
    del shown["computes"]  # it stands with the encoder
    if settings.segmenter not in NAMES:
        shown["segmenter"] = f"labels:{Path(settings.segmenter).name}"
    return shown


def _licences(settings: RunSettings) -> list[tuple[str, str]]:
    """What is used and under which terms, that of the segmenter with who accepted it and when."""
    accepted = settings.accepted_licence if licence_of(settings.segmenter) and not settings.cells else ""
    return [*LICENCES, *([(f"Segmenter {settings.segmenter}", accepted)] if accepted else [])]


def atlas_facts(atlas: Atlas | None) -> dict[str, object]:
    """What the report says of the atlas."""
    if atlas is None:
        return {}
    return {
        "name": atlas.name,
        "hash": atlas.hash,
        "cells": len(atlas),
        "classes": list(atlas.classes),
        "k": atlas.k,
        "threshold": round(atlas.threshold, 4),
        "distance_limit": round(atlas.distance_limit, 4),
        "encoder": atlas.encoder,
        "encoder_sha256": atlas.encoder_sha256,
        "crops": dict(atlas.policy),
        "info": dict(atlas.info),
    }


def encoder_facts(study: Study) -> dict[str, object]:
    """What the report says of the encoder."""
    from napari_dinobloom.encoders.registry import REGISTRY

    notes = dict(study.cells.uns.get("dinobloom", {}))
    facts: dict[str, object] = {"name": str(notes.get("encoder", "")), "sha256": str(notes.get("encoder_sha256", ""))}
    facts |= {name: str(notes.get(name, "")) for name in ("pooling", "preprocessing", "precision", "device")}
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
