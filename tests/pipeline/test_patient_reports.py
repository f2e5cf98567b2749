"""Pages on request: whole or not at all, one for each patient whatever the name, and no name under pseudonyms."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from named import EMPTY, HOSTILE, LONG, PATIENTS, named_study, spoken

from napari_dinobloom.errors import InputError, StudyError
from napari_dinobloom.io.pseudonyms import FILE, PseudonymousStudy, read_pseudonyms
from napari_dinobloom.io.study import Study
from napari_dinobloom.io.trust import is_id
from napari_dinobloom.pipeline import patient_reports as module
from napari_dinobloom.pipeline.patient_bags import made_of
from napari_dinobloom.pipeline.patient_groups import keep_groups
from napari_dinobloom.pipeline.patient_reports import file_names, iter_patient_reports, patient_reports
from napari_dinobloom.pipeline.patients import OUTDATED, PatientResult
from napari_dinobloom.pipeline.settings import resolve
from napari_dinobloom.progress import drain

EVERYBODY = (*PATIENTS, EMPTY)


@pytest.fixture
def study(tmp_path: Path) -> Any:
    with named_study(tmp_path / "Quimby study.dinobloom") as opened:
        yield opened


@given(st.lists(st.text(min_size=1, max_size=60), unique=True, max_size=8))
@settings(max_examples=60, deadline=None)
def test_file_names_are_safe_apart_and_do_not_depend_on_others(names: list[str]) -> None:
    found = file_names(names)
    assert len({file.casefold() for file in found.values()}) == len(names)
    assert all(is_id(file) and file.casefold() != "cohort.html" for file in found.values())
    for name in names:
        twins = [other for other in names if other.casefold() == name.casefold()]
        assert len(twins) > 1 or file_names([name])[name] == found[name]


def test_hard_names_have_files_that_a_person_knows() -> None:
    found = file_names([*EVERYBODY, "P7", "cohort"])
    assert found["P7"] == "P7.html"
    assert found["cohort"].startswith("cohort-")
    assert found["王小明"].startswith("patient-")
    assert found[PATIENTS[0]].startswith("Annabel_Quimby-")
    assert len(found[LONG]) < 110


def test_every_patient_has_a_page_and_the_cohort_links_to_them(study: Study) -> None:
    steps = iter_patient_reports(study)
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            made = end.value
            break
    assert made.problems == ()
    assert [path.name for path in made.paths] == [*file_names(sorted(EVERYBODY)).values(), "cohort.html"]
    assert {path.parent for path in made.paths} == {study.path / "reports"}
    assert (seen[-1].done, seen[-1].total) == (len(EVERYBODY) + 1, len(EVERYBODY) + 1)
    assert max(path.stat().st_size for path in made.paths) < 15e6
    cohort = made.paths[-1].read_text(encoding="utf-8")
    assert all(f'href="{path.name}"' in cohort for path in made.paths[:-1])
    made.paths[0].unlink()
    (alone,) = patient_reports(study, per_patient=False).paths
    again = alone.read_text(encoding="utf-8")
    assert [f'href="{path.name}"' in again for path in made.paths[:2]] == [False, True]


def test_what_goes_wrong_with_one_patient_costs_no_other_theirs(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_dinobloom.report import patient_page

    def context(cohort: Any, patient: str, real: Any = patient_page._context) -> dict[str, object]:
        if patient == HOSTILE:
            raise ZeroDivisionError("no such number")
        return real(cohort, patient)

    monkeypatch.setattr(patient_page, "_context", context)
    made = patient_reports(study)
    assert made.problems == ((HOSTILE, "no such number"),)
    assert len(made.paths) == len(EVERYBODY)
    assert sorted(path.name for path in made.paths) == sorted(path.name for path in (study.path / "reports").iterdir())
    assert file_names(EVERYBODY)[HOSTILE] not in made.paths[-1].read_text(encoding="utf-8")


def test_a_page_that_was_cancelled_or_failed_leaves_the_old_one(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = study.path / "reports"
    folder.mkdir()
    file = file_names(EVERYBODY)[PATIENTS[0]]
    (folder / file).write_text("old", encoding="utf-8")
    steps = iter_patient_reports(study)
    next(steps)
    steps.close()
    assert [path.read_text(encoding="utf-8") for path in folder.iterdir()] == ["old"]
    monkeypatch.setattr("napari_dinobloom.io.atomic.os.replace", _full)
    made = patient_reports(study, cohort=False)
    assert {patient for patient, _ in made.problems} == set(EVERYBODY)
    assert "full" in made.problems[0][1]
    assert [path.read_text(encoding="utf-8") for path in folder.iterdir()] == ["old"]


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def _words_in(folder: Path, words: set[str]) -> list[tuple[str, str]]:
    """Which of some words, whatever their case, stand in which file of a folder or its name; pictures are left out."""
    found = []
    for path in sorted(folder.rglob("*")):
        text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", path.read_text(encoding="utf-8")) + path.name
        found += [(path.name, word) for word in words if re.search(rf"(?i)(?<![a-z]){re.escape(word)}(?![a-z])", text)]
    return found


def _result(study: Study) -> PatientResult:
    patients = [*sorted(PATIENTS), "Zelda Foreign"]
    table = pd.DataFrame({"patient": patients, "cells": 8, "group": "AML", "predicted_group": "AML"})
    table["out_of_fold"] = True
    for column in ("p:AML", "p:none", "mean:AML", "mean:none"):
        table[column] = 0.5
    notes = (
        f"2 patients share pictures with others ({PATIENTS[0]!r}, {PATIENTS[1]!r}): see there.",
        "1 patient shares pictures with others ('Zelda Foreign').",
        "The group 'AML' has 6 patients.",
    )
    scores = pd.DataFrame({"model": ["gated"], "auc": [0.5]})
    file = study.path / "models" / "m.safetensors"
    return PatientResult(("AML", "none"), table, scores, notes, file, "gated", made_of(study))


def test_under_pseudonyms_no_name_gets_out(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_dinobloom.pipeline.patients.patient_result", _result)
    keep_groups(study, dict.fromkeys((*PATIENTS, "Zelda Foreign"), "AML"))
    (study.path / "schemes").mkdir()
    (study.path / "schemes" / "Quimby.yaml").write_text("{title: Quimby ward, classes: [lymphocyte]}")
    study.update(settings=study.settings | {"scheme": "schemes/Quimby.yaml"})
    study.cells.obsm["attention"] = pd.DataFrame(
        np.random.default_rng(0).random((study.cells.n_obs, 2)), index=study.cells.obs_names, columns=["AML", "none"]
    )
    problems = [(str(tmp_path / "Annabel Quimby.txt"), "Annabel Quimby.txt: is no picture.")]
    made = patient_reports(study, pseudonyms=True, problems=problems)
    whole = patient_reports(study, per_patient=False, cohort=False, pseudonyms=True, problems=problems)
    folder = study.path / "reports-pseudonymous"
    assert made.problems == ()
    assert {path.parent for path in (*made.paths, *whole.paths)} == {folder}
    assert len(list(folder.iterdir())) == len(EVERYBODY) + 2
    names = read_pseudonyms(study.path)
    assert {path.stem for path in made.paths[:-1]} == {names.of("patients", name) for name in EVERYBODY}
    words = spoken(study) | {"Foreign", "Zelda", str(tmp_path), "alert"}
    assert len(words) > 20
    assert _words_in(folder, words) == []
    patient_reports(study)
    assert {"Annabel", "Secretary", "alert"} <= {word for _, word in _words_in(study.path / "reports", words)}
    text = (folder / f"{names.of('patients', PATIENTS[0])}.html").read_text(encoding="utf-8")
    assert names.of("people", "Dr. Secretary") in text
    assert "scheme <bdi>a scheme of this laboratory</bdi>" in text
    assert "The group &#39;AML&#39; has 6 patients." in text
    assert f"({names.of('patients', PATIENTS[0])!r}" in text.replace("&#39;", "'")
    assert FILE not in [path.name for path in folder.iterdir()]
    assert json.loads((study.path / FILE).read_text(encoding="utf-8"))["patients"] == dict(names.names["patients"])


def test_a_slide_called_as_its_patient_and_strangers_change_nothing(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_dinobloom.pipeline.patients.patient_result", _result)
    study.update(fields=[replace(record, slide=record.patient) for record in study.fields])
    study.cells.obs["slide"] = study.cells.obs["patient"]
    study.save_cells(study.cells)
    keep_groups(study, {PATIENTS[0]: "none", "Zelda Foreign": "AML"})
    told = PseudonymousStudy(study)
    cohort = module.gather(study, told, resolve(study.settings, {}))
    names = told.pseudonyms.names["patients"]
    assert cohort.given == {names[PATIENTS[0]]: "none"}
    assert set(cohort.model.predictions) == {names[patient] for patient in PATIENTS}
    shared = f"2 patients share pictures with others ({names[PATIENTS[0]]!r}, {names[PATIENTS[1]]!r}): see there."
    assert list(cohort.model.notes) == [shared, "The group 'AML' has 6 patients."]


def test_a_prediction_that_does_not_hold_any_more_is_left_out_and_said(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = _result(study)
    monkeypatch.setattr("napari_dinobloom.pipeline.patients.patient_result", lambda _: result)
    pages = [path.read_text(encoding="utf-8") for path in patient_reports(study).paths]
    assert all("Predicted group" in page for page in (pages[0], pages[-1]))
    study.exclude([study.cells.obs_names[3]])
    for path in patient_reports(study).paths:
        page = path.read_text(encoding="utf-8")
        assert "<h2>Predicted group" not in page
        assert 'id="group"' not in page
        assert 'id="model"' not in page
        assert OUTDATED in page


def test_numbers_are_the_same_under_pseudonyms(study: Study) -> None:
    chosen, told = resolve(study.settings, {}), PseudonymousStudy(study)
    real, under = (module.gather(study, one, chosen) for one in (study, told))
    for patient in EVERYBODY:
        mine = [real.groups_of(patient)[0], under.groups_of(told.pseudonyms.of("patients", patient))[0]]
        counts = [
            one and [(count.entry.name, count.n, count.low, count.corrected) for count in one.counts] for one in mine
        ]
        assert counts[0] == counts[1]
    assert (real.data.coordinates == under.data.coordinates).all()


def test_what_cannot_be_done_is_said_before_anything_is_written(study: Study) -> None:
    with pytest.raises(InputError, match="no page was asked for"):
        drain(iter_patient_reports(study, per_patient=False, cohort=False))
    (study.path / FILE).write_text("{", encoding="utf-8")
    with pytest.raises(StudyError, match="pseudonyms"):
        patient_reports(study, pseudonyms=True)
    assert not (study.path / "reports").exists()
    assert not (study.path / "reports-pseudonymous").exists()
