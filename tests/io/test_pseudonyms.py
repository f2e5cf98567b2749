"""Pseudonyms stay with their names, are never shared, and let nothing through."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from named import EMPTY, LIMIT, PATIENTS, READER, named_study

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.pseudonyms import FILE, FORMS, PseudonymousStudy, Pseudonyms, pseudonyms_of, read_pseudonyms
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline.results import encoder_facts


@pytest.fixture
def study(tmp_path: Path) -> Any:
    with named_study(tmp_path / "Quimby study.dinobloom") as opened:
        yield opened


def test_names_keep_their_numbers_and_new_names_get_new_ones(study: Study) -> None:
    first = pseudonyms_of(study)
    assert set(first.names["patients"]) == {*PATIENTS, EMPTY}
    assert sorted(first.names["patients"].values()) == [f"P{i:03d}" for i in range(1, len(PATIENTS) + 2)]
    assert set(first.names["people"]) == {READER}
    assert pseudonyms_of(study) == first == read_pseudonyms(study.path)
    later = first.grown({"patients": ["Newcomer", PATIENTS[0]]})
    assert later.of("patients", "Newcomer") == f"P{len(PATIENTS) + 2:03d}"
    assert all(later.of("patients", name) == first.of("patients", name) for name in PATIENTS)


def test_numbers_do_not_follow_the_alphabet() -> None:
    names = [f"patient {i:03d}" for i in range(200)]
    empty = Pseudonyms({kind: {} for kind in FORMS})
    numbers = empty.grown({"patients": names}).names["patients"]
    given = [numbers[name] for name in names]
    assert sorted(given) == [f"P{i:03d}" for i in range(1, 201)]
    assert given != sorted(given)


def test_a_study_that_may_not_be_written_is_not_told_under_numbers_that_nobody_keeps(study: Study) -> None:
    with Study.open(study.path, read_only=True) as reading:
        with pytest.raises(StudyError):
            PseudonymousStudy(reading)
        assert not (study.path / FILE).exists()
        known = pseudonyms_of(study)
        assert PseudonymousStudy(reading).pseudonyms == known


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"schema": 2}',
        '{"schema": 1, "patients": {"a": "P001"}}',
        json.dumps({"schema": 1, **{kind: {} for kind in FORMS}, "patients": {"a": "P001", "b": "P001"}}),
        json.dumps({"schema": 1, **{kind: {} for kind in FORMS}, "patients": {"a": "../../P001"}}),
        json.dumps({"schema": 1, **{kind: {} for kind in FORMS}, "fields": {"a": "<b>"}}),
    ],
)
def test_a_table_that_cannot_be_trusted_is_refused_and_kept(study: Study, content: str) -> None:
    (study.path / FILE).write_text(content, encoding="utf-8")
    with pytest.raises(StudyError, match=r"pseudonyms\.json.*backup"):
        pseudonyms_of(study)
    assert (study.path / FILE).read_text(encoding="utf-8") == content


def test_what_is_told_is_the_study_row_for_row_without_its_names(study: Study) -> None:
    told = PseudonymousStudy(study)
    names, cells, real = told.pseudonyms, told.cells.obs, study.cells.obs
    assert list(cells["patient"]) == [names.of("patients", name) for name in real["patient"]]
    assert list(cells.index) == [names.cell(name) for name in real.index]
    assert set(cells["label_by"]) == {"", names.of("people", READER)}
    for column in ("predicted", "label", "confidence", "distance", "reviewed", "y0", "x1"):
        assert (cells[column].to_numpy() == real[column].to_numpy()).all()
    assert told.cells.uns["dinobloom"]["distance_limit"] == LIMIT
    assert "gates" not in told.cells.uns["dinobloom"]
    for record in told.fields:
        mine = {alias: name for name, alias in names.names["fields"].items()}[record.id]
        assert record.sha256 == study.field(mine).sha256
        assert record.file == f"{record.id}.png"
        assert (told.read_field(record.id).image == study.read_field(mine).image).all()
    said = str([told.name, told.fields, told.cells.obs.to_dict(), told.cells.uns])
    assert not re.search("quimby|neil|xavier|wolfe|小明|secretary|voidberg", said, re.IGNORECASE)


def test_the_encoder_is_told_in_full(study: Study) -> None:
    cells = study.cells
    told = ("pooling", "stain", "preprocessing", "precision", "device")
    cells.uns["dinobloom"] |= {name: f"the {name}" for name in told}
    study.save_cells(cells)
    facts = encoder_facts(study)
    assert [facts[name] for name in told] == [f"the {name}" for name in told]
    assert encoder_facts(PseudonymousStudy(study)) == facts


def test_an_image_that_is_lost_is_not_named(study: Study) -> None:
    told = PseudonymousStudy(study)
    for record in study.fields:
        study.locate(record).unlink()
    with pytest.raises(StudyError) as caught:
        told.read_field(told.fields[0].id)
    assert "Smear" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_patients_in_a_sentence_of_ours_are_replaced_where_they_are_quoted() -> None:
    hard = ["Ann", "Ann Lee", "O'Neil", 'O\'Neil "Jr"', "a\nb", "95", "2"]
    wanted: dict[Any, list[str]] = {"patients": hard, "slides": hard, "fields": ["Ann", "95"]}
    known = Pseudonyms({kind: {} for kind in FORMS}).grown(wanted)
    told = ", ".join(repr(known.of("patients", name)) for name in hard)
    assert (
        known.in_text(f"2 share ({', '.join(map(repr, hard))}), 95 % each; Ann.")
        == f"2 share ({told}), 95 % each; Ann."
    )
    assert known.in_text("The group 'AML' has 2, 'Ann' too.", ["AML"]).startswith("The group 'AML' has 2, 'P")
    assert known.in_text("The group 'AML' has 2.") == "", "it may be somebody"
    assert known.in_text("'O\\'Xavier \"Jr\"' and 'Ann' share pictures.") == ""
