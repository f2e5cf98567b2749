"""The page of a patient says what the study says, to whoever prints it, whatever the patient is called."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from named import EMPTY, HOSTILE, LIMIT, PATIENTS, PER_PATIENT, READER, named_study

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline.patient_reports import gather
from napari_dinobloom.pipeline.settings import resolve
from napari_dinobloom.report.cohort import Cohort, PatientModel, Prediction, Share
from napari_dinobloom.report.flagged import flags
from napari_dinobloom.report.html import tiles
from napari_dinobloom.report.patient_page import ATTENDED, review_of, write_patient_page
from napari_dinobloom.report.sightings import sightings

from .test_html import Page

ANNA = PATIENTS[0]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with named_study(tmp_path_factory.mktemp("pages") / "s.dinobloom") as opened:
        yield opened


@pytest.fixture(scope="module")
def cohort(study: Study) -> Cohort:
    found = gather(study, study, resolve(study.settings, {}))
    data = replace(found.data, atlas={"name": "tiny", "classes": ["blast"], "distance_limit": LIMIT})
    rng = np.random.default_rng(3)
    attention = pd.DataFrame({"AML": rng.random(len(found.data.obs)), "none": 0.0})
    attention.loc[2, "AML"] = np.nan
    shares = (Share("AML", 0.81, 0.7), Share("none", 0.19, None))
    predictions = {patient: Prediction("AML", shares, patient == ANNA) for patient in PATIENTS}
    model = PatientModel(predictions=predictions, scores=pd.DataFrame(), attention=attention, notes=["Few patients."])
    return replace(found, data=data, model=model, given={ANNA: "none"})


def _page(cohort: Cohort, patient: str, folder: Path) -> Page:
    return Page(write_patient_page(cohort, patient, folder / "page.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return _page(cohort, ANNA, tmp_path_factory.mktemp("anna"))


def test_nothing_is_fetched_and_every_link_leads_somewhere(page: Page) -> None:
    places = [value or "" for _, attrs in page.tags for name, value in attrs.items() if name in ("href", "src")]
    assert all(place.startswith(("#", "data:")) for place in places)
    assert "default-src 'none'" in str(page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"])
    ids = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    links = {str(attrs["href"])[1:] for tag, attrs in page.tags if tag in ("a", "use") and attrs.get("href")}
    assert len(ids) == len(set(ids))
    assert links <= set(ids)


def test_the_numbers_are_those_of_the_differential(cohort: Cohort, page: Page) -> None:
    lines = cohort.data.differential
    own = lines[(lines["patient"] == ANNA) & (lines["level"] == "patient") & lines["in_denominator"] & (lines["n"] > 0)]
    assert own["n"].sum() == own["counted"].iloc[0] == PER_PATIENT
    for line in own.to_dict("records"):
        for low, high in (("low", "high"), ("simultaneous_low", "simultaneous_high")):
            assert f"{line[low]:.1f}–{line[high]:.1f}" in page.text
    for note in str(own["note"].iloc[0]).split("; "):
        assert note in page.text


def test_it_can_be_signed_and_says_what_it_rests_on(study: Study, cohort: Cohort, page: Page) -> None:
    for words in ("Name", "Date", "Signature", READER, cohort.hashes["Cell table, cells.h5ad"], "0" * 64):
        assert words in page.texts
    (record,) = [record for record in study.fields if record.patient == ANNA]
    assert record.sha256 in page.texts
    assert page.text.lower().count("research use, not for diagnosis") >= 3
    assert "2 of 8 cells were looked at by a person; 1 of them named otherwise than predicted" in page.text


def test_only_this_patient_is_named(page: Page) -> None:
    for other in (*PATIENTS[1:5], EMPTY):
        assert other not in page.text


def test_the_predicted_group_comes_with_its_cells_and_its_limits(cohort: Cohort, page: Page, tmp_path: Path) -> None:
    assert "probability 0.81" in page.text
    assert "without this patient" in page.text
    assert "The group given by a person is none ." in page.text
    assert "diagnos" not in page.text.lower().replace("not for diagnosis", "")
    ranked = cohort.attention_of(ANNA)
    assert len(ranked) == PER_PATIENT - 1  # one took no part
    assert ranked["attention"].is_monotonic_decreasing
    shown = re.findall(r"rank (\d) of 7, (\d\.\d\d)", page.text)
    assert [int(rank) for rank, _ in shown] == [1, 2, 3, 5, 6, 7]
    values = ranked["attention"].to_numpy()[[0, 1, 2, 4, 5, 6]]
    assert [value for _, value in shown] == [f"{value:.2f}" for value in values]
    assert ATTENDED > 3
    assert "made from other patients" in _page(cohort, HOSTILE, tmp_path).text


def test_cells_to_look_at_have_their_reason(cohort: Cohort) -> None:
    obs, legend = cohort.data.obs, cohort.legend
    cells = sightings(obs, "blood")
    own = cells[cells["patient"] == ANNA]
    found = {flag.title: flag for flag in flags(own, obs, LIMIT, None, legend)}
    ids = {title: [cell.cell_id[-1] for cell in flag.portraits] for title, flag in found.items()}
    assert ids["Of a class that must not be missed"] == ["3", "7"]  # a blast, and an abstained one nearest to a blast
    assert ids["Named otherwise by a person"] == ["1"]
    assert ids["Unlike the reference"] == ["6"]
    assert ids["Low confidence"] == ["7"]
    assert found["Named otherwise by a person"].portraits[0].note == "predicted neutrophil, segmented"
    assert "distance 9.00" in found["Unlike the reference"].portraits[0].note
    few = flags(cells, obs, float("nan"), None, legend, most=3)
    assert [(flag.total, len(flag.portraits)) for flag in few if flag.title.startswith("Of a class")] == [(12, 3)]
    assert "Unlike the reference" not in {flag.title for flag in few}


@pytest.mark.parametrize("name", ["faggot_cell", "bilobed_promyelocyte", "hairy_cell", "immature_lymphocyte"])
def test_rare_cells_that_only_some_atlases_name_are_looked_at(cohort: Cohort, name: str) -> None:
    obs = cohort.data.obs.assign(predicted=name, abstained=False, label="")
    legend = replace(cohort.data, obs=obs).legend(cells := sightings(obs, "blood"))
    assert flags(cells, obs, LIMIT, None, legend)[0].title == "Of a class that must not be missed"


def test_a_scheme_its_rule_and_its_strangers_are_told(study: Study, cohort: Cohort, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "title: Ours\nclasses:\n  lymphocyte: {count: per 100, title: Small round ones}\n  neutrophil_segmented:\n"
        "  smudge_cell: {count: denominator}\n  monocyte: {count: excluded}\n"
    )
    chosen = resolve(study.settings, {"scheme": str(path), "count": "reviewed"})
    study.label([study.cells.obs_names[2]], "blast", who=READER)
    try:
        text = _page(gather(study, study, chosen), ANNA, tmp_path).text
    finally:
        study.undo()
    for words in (
        "scheme Ours",
        "outside the denominator: Small round ones",
        "Left out by the scheme: Monocyte",
        "Only cells that a person has reviewed or labelled are counted.",
        "Blast: not in the scheme.",
        "Note: reviewed cells only.",
    ):
        assert re.sub(r"\W+", " ", words) in re.sub(r"\W+", " ", text), words
    assert "White blood cells count." in _page(cohort, ANNA, tmp_path).text


def test_what_the_validation_recommends_stands_beside_the_group(cohort: Cohort, tmp_path: Path) -> None:
    shares = (Share("AML", 0.81, 0.3), Share("none", 0.19, 0.7))
    model = replace(cohort.model, predictions={ANNA: Prediction("AML", shares, True)}, recommended="mean pooling")
    text = _page(replace(cohort, model=model), ANNA, tmp_path).text
    assert "Mean pooling, which the validation recommends instead, says none" in text
    assert "probability 0.70" in text
    same = replace(model, predictions={ANNA: Prediction("AML", (Share("AML", 0.8, 0.9),), True)})
    assert "recommends instead, says the same" in _page(replace(cohort, model=same), ANNA, tmp_path).text
    assert "recommends" not in _page(replace(cohort, model=replace(model, recommended="gated")), ANNA, tmp_path).text


def test_deleted_cells_are_neither_found_nor_drawn(tmp_path: Path) -> None:
    with named_study(tmp_path / "s.dinobloom", crops=False) as study:
        before = _page(gather(study, study, resolve(study.settings, {})), PATIENTS[1], tmp_path)
        ground = before.all("image")[0]["href"]
        mine = study.cells.obs_names[(study.cells.obs["patient"] == ANNA).to_numpy()]
        study.delete(list(mine[2:]))
        cohort = gather(study, study, resolve(study.settings, {}))
        assert dict(tiles(cohort.data))["Cells found"] == PER_PATIENT * (len(PATIENTS) - 1) + 2 == len(cohort.cells)
        assert _page(cohort, PATIENTS[1], tmp_path).all("image")[0]["href"] != ground


def test_a_marrow_without_an_erythroid_cell_has_a_least_ratio(study: Study, tmp_path: Path) -> None:
    cohort = gather(study, study, resolve(study.settings, {"specimen": "marrow"}))
    row = cohort.data.summary.set_index(["patient", "level"]).loc[(ANNA, "patient")]
    text = _page(cohort, ANNA, tmp_path).text
    assert row["me_ratio"] == float("inf")
    assert "no erythroid cell counted; at least" in text
    assert f"{row['me_low']:.1f} : 1" in text
    assert not re.search(r"\binf\b", text)


def test_review_counts_readers_and_disagreements(cohort: Cohort) -> None:
    review = review_of(cohort.cells[cohort.cells["patient"] == ANNA], cohort.data.obs)
    assert (review.seen, review.total, review.against) == (2, PER_PATIENT, 1)
    assert [(reader.name, reader.named) for reader in review.readers] == [(READER, 2)]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", review.readers[0].last)


def test_the_map_has_this_patient_over_the_others(cohort: Cohort, page: Page) -> None:
    assert len(page.all("image")) == 1
    dots = "".join(str(path["d"]) for path in page.all("path") if path.get("class", "").startswith("dots"))
    assert dots.count("M") == PER_PATIENT


@pytest.mark.parametrize("patient", [HOSTILE, PATIENTS[1], PATIENTS[3], PATIENTS[4]])
def test_names_stay_text(cohort: Cohort, patient: str, tmp_path: Path) -> None:
    page = _page(cohort, patient, tmp_path)
    assert len(page.all("script")) == 1
    assert re.sub(r"\s+", " ", patient) in page.text


def test_a_patient_without_a_cell_has_a_page(cohort: Cohort, tmp_path: Path) -> None:
    page = _page(cohort, EMPTY, tmp_path)
    for words in ("No cell was counted.", "There are no cells.", "No map", "0 of 0 cells", "Signature"):
        assert words in page.text
    assert "Predicted group" not in page.text


def test_without_crops_map_and_model_the_rest_is_there(tmp_path: Path) -> None:
    with named_study(tmp_path / "bare.dinobloom", crops=False, mapped=False, patients=PATIENTS[:1]) as study:
        cohort = gather(study, study, resolve(study.settings, {}))
    page = _page(cohort, ANNA, tmp_path)
    for words in ("no crop kept", "No map", "Differential", "Signature"):
        assert words in page.text
    assert "Predicted group" not in page.text
    assert page.all("img") == []
    with pytest.raises(InputError, match="no patient 'Somebody'"):
        write_patient_page(cohort, "Somebody", tmp_path / "else.html")
    assert not (tmp_path / "else.html").exists()
