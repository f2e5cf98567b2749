"""What the gallery shows and in which order, without a window."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dinobloom.ui.gallery.choice import Choice, Sorting, sort_keys
from napari_dinobloom.ui.gallery.class_keys import class_keys, keep_class_keys
from napari_dinobloom.ui.gallery.sheet import read_sheet


@pytest.fixture
def study(make_study):
    """Twelve cells in four fields; three classes by the classifier, which did not name the last cell."""
    study = make_study(0, 1, 2, 3)
    study.cells.obs.loc[study.cells.obs_names[-1], "abstained"] = True
    return study


def cells(study, rows):
    return study.cells.obs_names[rows].tolist()


def test_a_label_goes_before_the_prediction(study):
    ids = study.cells.obs_names
    study.label(ids[0], "blast", who="Ada", reviewed=True)
    study.exclude(ids[1])
    study.delete(ids[2])
    sheet = read_sheet(study)
    assert [sheet.name(row) for row in (0, 1, 2, 11)] == ["blast", "lymphocyte", "monocyte", "unclassified"]
    assert sheet.by_hand.tolist() == [True] + [False] * 11
    assert sheet.reviewed.tolist() == [True] + [False] * 11
    assert sheet.excluded[1]
    assert not sheet.living[2]
    assert sheet.predicted[11] == "", "what it was unsure of is nothing to confirm"
    assert "named by hand, Ada" in sheet.line(0)
    assert "reviewed" in sheet.line(0)
    assert "confidence" not in sheet.line(0)
    assert "excluded" in sheet.line(1)
    living = np.flatnonzero(sheet.living)
    tally = {"neutrophil": (3, 0), "lymphocyte": (4, 0), "monocyte": (2, 0), "blast": (1, 1), "unclassified": (1, 0)}
    assert sheet.tally(living) == tally


def test_choices(study):
    ids = study.cells.obs_names
    study.label(ids[0], "blast", reviewed=True)
    study.set_review(ids[1])
    study.exclude(ids[3])
    study.delete(ids[2])
    sheet = read_sheet(study)
    gate = np.arange(12) % 2 == 0

    def of(*choice, **more):
        return Choice(*choice).rows(sheet, **more).tolist()

    assert of("all") == [0, 1, *range(3, 12)]
    assert of("unreviewed") == list(range(3, 12))
    assert of("by_hand") == [0]
    assert of("excluded") == [3]
    assert of("unnamed") == [11]
    assert of("class", "monocyte") == [5, 8], "neither the deleted nor the unsure one"
    assert of("class", "no such class") == []
    assert of("gate", gate=gate) == [0, 4, 6, 8, 10]
    assert of("gate") == []
    assert of("selection", selected=(ids[4], "f:00099", ids[2], ids[0])) == [0, 4]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.floats(0, 3, width=32), st.just(float("nan"))), min_size=1, max_size=20), st.booleans())
def test_orders_against_plain_sorting(values, turned):
    measured = np.array(values, np.float32)
    table = SimpleNamespace(measures={"confidence": measured, "size": measured})
    rows = np.arange(len(values))
    for key, falling in (("confidence", False), ("size", True)):
        known = [row for row in rows if np.isfinite(values[row])]
        known.sort(key=lambda row, falling=falling: values[row] * (-1 if falling != turned else 1))
        expected = [*known, *(row for row in rows if not np.isfinite(values[row]))]
        assert Sorting(key, turned).order(table, rows).tolist() == expected


def test_by_class_the_sure_ones_come_first(study):
    study.cells.obs["confidence"] = np.linspace(0.2, 0.9, 12, dtype=np.float32)
    sheet = read_sheet(study)
    assert Sorting("class").order(sheet, np.arange(12)).tolist() == [9, 6, 3, 0, 10, 7, 4, 1, 8, 5, 2, 11]
    assert Sorting("slide").order(sheet, np.arange(12)).tolist() == list(range(12))


def test_attention_is_offered_where_there_is_some(study):
    assert "attention" not in sort_keys(read_sheet(study))
    study.cells.obs["attention_blast"] = np.linspace(0, 1, 12)
    study.cells.obsm["attention"] = np.tile(np.arange(12.0)[:, None], 2)
    sheet = read_sheet(study)
    assert {"attention_blast", "attention 1", "attention 2"} <= set(sort_keys(sheet))
    assert Sorting("attention_blast").order(sheet, np.arange(12)).tolist() == list(range(11, -1, -1))


def test_a_blinded_reader_sees_only_own_labels(study):
    ids = study.cells.obs_names
    study.label(ids[:3], "blast", who="Ada", reviewed=True)
    study.label(ids[2], "eosinophil", who="Ben", reviewed=True)
    study.set_review(ids[4], who="Ben")
    own = read_sheet(study, "Ben", blind=True)
    assert [own.name(row) for row in range(3)] == ["neutrophil", "lymphocyte", "eosinophil"]
    assert own.reviewed.nonzero()[0].tolist() == [2, 4]
    assert set(own.author) == {"", "Ben"}
    other = read_sheet(study, "Ada", blind=True)
    assert other.name(2) == "blast", "Ada's label, though Ben's is the last"
    assert read_sheet(study, "Cleo", blind=True).by_hand.sum() == 0
    assert read_sheet(study, "Ben").name(0) == "blast"


def test_the_list_of_classes_is_kept_for_a_study(study):
    sheet = read_sheet(study)
    names = class_keys(study, sheet)
    assert names[:3] == ["neutrophil", "lymphocyte", "monocyte"]
    assert len(names) == 9
    assert "unclassified" not in names
    keep_class_keys(study, ["monocyte", "my own class"])
    assert class_keys(study, sheet) == ["monocyte", "my own class"]
