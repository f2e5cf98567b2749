"""The page of a cohort: a line for each patient, links to pages that are there, and scores beside their baselines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from named import EMPTY, HOSTILE, PATIENTS, PER_PATIENT, named_study

from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline.patient_reports import file_names, gather
from napari_dinobloom.pipeline.settings import resolve
from napari_dinobloom.report.cohort import Cohort, PatientModel, Prediction, Share
from napari_dinobloom.report.cohort_page import write_cohort_page

from .test_html import Page

SCORES = pd.DataFrame(
    {
        "model": ["gated", "mean pooling", "groups shuffled"],
        "weighted_f1": [0.8123, 0.7, 0.41],
        "weighted_f1_low": [0.5, 0.4, 0.2],
        "weighted_f1_high": [0.95, 0.9, np.nan],
        "auc": [0.9, np.nan, 0.5],
        "patients": [6, 6, 6],
    }
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with named_study(tmp_path_factory.mktemp("cohort") / "s.dinobloom") as opened:
        yield opened


@pytest.fixture(scope="module")
def cohort(study: Study) -> Cohort:
    found = gather(study, study, resolve(study.settings, {}))
    shares = (Share("AML", 0.25, 0.4), Share(HOSTILE, 0.75, 0.6))
    predictions = {patient: Prediction(HOSTILE, shares, i == 0) for i, patient in enumerate(PATIENTS)}
    model = PatientModel(predictions=predictions, scores=SCORES, notes=["Use mean pooling."])
    return replace(found, model=model, given=dict.fromkeys(PATIENTS[:3], "AML"))


def _page(cohort: Cohort, folder: Path, **options: Any) -> Page:
    return Page(write_cohort_page(cohort, folder / "cohort.html", **options).read_text(encoding="utf-8"))


def test_links_lead_to_the_pages_of_patients_and_nowhere_else(cohort: Cohort, tmp_path: Path) -> None:
    pages = file_names(PATIENTS)
    page = _page(cohort, tmp_path, pages=pages)
    ids = {attrs["id"] for _, attrs in page.tags if attrs.get("id")}
    places = {str(a["href"]) for _, a in page.tags if a.get("href")} | {
        str(a["src"]) for _, a in page.tags if a.get("src")
    }
    inside = {place[1:] for place in places if place.startswith("#")}
    assert inside <= ids
    assert {place for place in places if not place.startswith(("#", "data:"))} == set(pages.values())
    assert len(page.all("script")) == 1
    assert all(name.strip() in page.text for name in (*PATIENTS[:3], PATIENTS[4], EMPTY))
    assert not [a for a in _page(cohort, tmp_path).all("a") if not str(a["href"]).startswith("#")]


def test_a_line_says_what_the_differential_says(cohort: Cohort, tmp_path: Path) -> None:
    page = _page(cohort, tmp_path)
    lines = cohort.data.differential
    own = lines[(lines["patient"] == PATIENTS[1]) & (lines["level"] == "patient") & (lines["class"] != "unclassified")]
    top = own.sort_values("n", ascending=False, kind="stable").head(3)
    for percent in top["percent"]:
        assert f"{percent:.1f}" in page.text
    assert page.text.count(f"of {PER_PATIENT}") >= len(PATIENTS)
    assert "fewer than 100 cells" in page.text
    assert page.text.count("out of fold") == 1
    assert page.text.count("not used in training") == len(PATIENTS) - 1
    assert "recommended" not in page.text
    pooled = _page(replace(cohort, model=replace(cohort.model, recommended="mean pooling")), tmp_path)
    assert "recommended" not in pooled.text, "it says the same"
    shares = (Share("AML", 0.25, 0.6), Share(HOSTILE, 0.75, 0.4))
    model = replace(
        cohort.model, recommended="mean pooling", predictions={PATIENTS[0]: Prediction(HOSTILE, shares, True)}
    )
    assert "mean pooling, recommended: AML 0.60" in _page(replace(cohort, model=model), tmp_path).text
    assert page.text.count("0.75") == len(PATIENTS)


def test_scores_have_their_intervals_baseline_and_control(cohort: Cohort, tmp_path: Path) -> None:
    page = _page(cohort, tmp_path)
    for words in (
        "0.81 (0.50–0.95)",
        "0.41",
        "mean pooling",
        "groups shuffled",
        "Weighted F1",
        "AUC",
        "Use mean pooling.",
    ):
        assert words in page.texts
    assert "0.41 (" not in page.text
    assert "nan" not in page.texts


def test_the_map_is_coloured_by_group_and_by_patient(cohort: Cohort, tmp_path: Path) -> None:
    page = _page(cohort, tmp_path)
    for words in ("Groups", "not known"):
        assert words in page.text
    labels = [svg.get("aria-label") for svg in page.all("svg")]
    assert {"Map of all cells, coloured by groups", "Map of all cells, coloured by patients"} <= set(labels)
    dots = "".join(str(path["d"]) for path in page.all("path") if path.get("class", "").startswith("dots"))
    assert dots.count("M") == 2 * len(cohort.cells)


def test_without_model_map_and_groups_the_rest_is_there(tmp_path: Path) -> None:
    with named_study(tmp_path / "one.dinobloom", crops=False, mapped=False, patients=PATIENTS[:1]) as study:
        page = _page(gather(study, study, resolve(study.settings, {})), tmp_path)
    for words in (PATIENTS[0], EMPTY, "No map", "Differentials"):
        assert words in page.text
    for words in ("Predicted group", "Given group", "Patient model"):
        assert words not in page.text
