"""Readers against each other: labels out of the journal, and kappa against other implementations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from typer.testing import CliRunner

from napari_dinobloom.cli import app
from napari_dinobloom.errors import DinoBloomError, StudyError
from napari_dinobloom.io.fields import FieldRecord
from napari_dinobloom.io.study import Study
from napari_dinobloom.io.tables import read_csv
from napari_dinobloom.report.agreement import (
    PREDICTION,
    Z95,
    agreement,
    agreements,
    differing,
    labels_by_reader,
    readings,
    standing,
)

IDS = [f"a:{number:05d}" for number in range(1, 7)]


@pytest.fixture
def study(tmp_path):
    """Six cells that the classifier named, the last one not."""
    study = Study.create(tmp_path / "s.dinobloom")
    study.update(fields=[FieldRecord("a", "a.png", "study", "0" * 64, 10, 10, slide="s", patient="p")])
    obs = pd.DataFrame({"cell_id": IDS, "field": "a", "predicted": "neutrophil", "abstained": [False] * 5 + [True]})
    study.save_cells(AnnData(np.zeros((6, 2), np.float32), obs=obs.set_index("cell_id", drop=False)))
    yield study
    study.close()


def spread(table):
    """Labels of two readers from a table of counts."""
    first = [f"c{i}" for i, row in enumerate(table) for count in row for _ in range(count)]
    second = [f"c{j}" for row in table for j, count in enumerate(row) for _ in range(count)]
    return first, second


def numeric_error(table):
    """Standard error of kappa by the delta method with a numeric gradient: no formula of the module is used."""

    def kappa(p):
        p = p / p.sum()
        expected = p.sum(1) @ p.sum(0)
        return (np.trace(p) - expected) / (1 - expected)

    p = np.array(table, float) / np.sum(table)
    gradient = np.zeros_like(p)
    for at in np.ndindex(*p.shape):
        step = np.zeros_like(p)
        step[at] = 1e-6
        gradient[at] = (kappa(p + step) - kappa(p - step)) / 2e-6
    variance = ((p * gradient**2).sum() - (p * gradient).sum() ** 2) / np.sum(table)
    return np.sqrt(variance)


def test_the_published_example():
    """Two raters, 100 patients: table 18.1 of Fleiss, Levin and Paik (2003) gives 0.68, error 0.087."""
    found = agreement(*spread([[75, 1, 4], [5, 4, 1], [0, 0, 10]]))
    assert found.n == 100
    assert found.percent == pytest.approx(89)
    assert found.expected == pytest.approx(66)
    assert found.kappa == pytest.approx(0.6765, abs=1e-4)
    assert (found.high - found.low) / 2 / Z95 == pytest.approx(0.087, abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=2, max_size=80))
def test_kappa_is_that_of_scikit_learn(pairs):
    first, second = zip(*pairs, strict=True)
    found = agreement(first, second)
    if len({*first, *second}) == 1:
        assert np.isnan(found.kappa)
        assert np.isnan(found.low)
    else:
        assert found.kappa == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
        assert found.low <= found.kappa <= found.high
    assert found.percent == pytest.approx(100 * np.mean([one == other for one, other in pairs]))
    assert found.confusion.to_numpy().sum() == len(pairs)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(1, 30), min_size=3, max_size=3), min_size=3, max_size=3))
def test_the_interval_is_that_of_the_delta_method(table):
    found = agreement(*spread(table))
    error = numeric_error(table)
    assert found.low == pytest.approx(max(found.kappa - Z95 * error, -1), abs=1e-5)
    assert found.high == pytest.approx(min(found.kappa + Z95 * error, 1), abs=1e-5)


def test_only_cells_that_both_named_count():
    found = agreement(["blast", "", "monocyte", "blast"], ["blast", "blast", "", "monocyte"])
    assert found.n == 2
    assert found.percent == 50
    assert list(found.confusion.index) == ["monocyte", "blast"], "in the order of a differential"
    assert found.confusion.loc["blast", "monocyte"] == 1
    nothing = agreement(["", ""], ["blast", ""])
    assert nothing.n == 0
    assert np.isnan([nothing.percent, nothing.kappa, nothing.low, nothing.high]).all()
    with pytest.raises(DinoBloomError, match="one for each cell"):
        agreement(["a"], ["a", "b"])


def test_each_reader_keeps_the_last_label(study):
    study.label(IDS[:3], "blast", who="Ada")
    study.label(IDS[1:4], "monocyte", who="Ben")
    study.label(IDS[2], "lymphocyte", who="Ada")
    study.label(IDS[3], "", who="Ben")
    labels = labels_by_reader(study)
    assert list(labels.columns) == ["Ada", "Ben"]
    assert labels["Ada"].to_dict() == dict(zip(IDS[:3], ["blast", "blast", "lymphocyte"], strict=True))
    assert labels["Ben"].to_dict() == dict(zip(IDS[:3], ["", "monocyte", "monocyte"], strict=True))
    assert study.cells.obs.loc[IDS[1], ["label", "label_by"]].tolist() == ["monocyte", "Ben"]
    assert list(differing(labels, "Ada", "Ben").index) == IDS[1:3]


def test_what_was_undone_was_never_said(study):
    study.label(IDS[0], "blast", who="Ada")
    study.label(IDS[0], "monocyte", who="Ben")
    study.undo()
    assert labels_by_reader(study).to_dict() == {"Ada": {IDS[0]: "blast"}}
    study.redo()
    assert labels_by_reader(study).loc[IDS[0]].tolist() == ["blast", "monocyte"]
    study.undo()
    study.undo()
    assert labels_by_reader(study).shape == (0, 0)
    assert standing(study.acts) == []


def test_several_values_and_the_review_are_one_act(study):
    study.label(IDS[:2], ["blast", "monocyte"], who="Ada", reviewed=True)
    study.set_review(IDS[2], who="Ben")
    found = readings(study)
    assert found.labels["Ada"].tolist() == ["blast", "monocyte", ""]
    assert found.reviewed["Ada"].tolist() == [True, True, False]
    assert found.reviewed["Ben"].tolist() == [False, False, True]
    assert list(labels_by_reader(study).columns) == ["Ada"], "who only reviewed has given no label"
    study.undo()
    study.undo()
    assert not study.cells.obs["reviewed"].any()
    assert not study.can_undo
    study.redo()
    assert study.cells.obs["label"].tolist()[:3] == ["blast", "monocyte", ""]
    assert study.cells.obs["reviewed"].tolist()[:3] == [True, True, False]
    with pytest.raises(StudyError, match="another number of values"):
        study.label(IDS[:2], ["blast"])
    with pytest.raises(StudyError, match="reader"):
        study.label(IDS[:2], "blast", who="A\nB")
    assert labels_by_reader(study).loc[IDS[0], "Ada"] == "blast", "nothing has changed"


def test_the_classifier_beside_readers(study):
    study.label([IDS[0], IDS[5]], "neutrophil", who="Ada")
    study.label(IDS[1], "blast", who="Ada")
    labels = labels_by_reader(study, prediction=True)
    assert labels[PREDICTION].tolist() == ["neutrophil", "neutrophil", ""], "it did not name the last one"
    (row,) = agreements(labels).to_dict("records")
    assert (row["first"], row["second"], row["n"], row["percent"]) == ("Ada", PREDICTION, 2, 50)


def test_deleted_cells_are_left_out(study):
    study.label(IDS[:2], "blast", who="Ada")
    study.delete(IDS[0])
    assert list(labels_by_reader(study).index) == IDS[1:2]
    assert labels_by_reader(Study.open(study.path, read_only=True)).equals(labels_by_reader(study)), "from the disk"


def test_the_command_gives_the_same_numbers(study, tmp_path):
    runner, folder = CliRunner(), str(study.path)
    nobody = runner.invoke(app, ["agreement", folder])
    assert nobody.exit_code == 2
    assert "nobody has named a cell" in " ".join(nobody.output.split())
    study.label(IDS[:4], ["blast", "blast", "monocyte", "neutrophil"], who="Ada")
    study.label(IDS[:4], ["blast", "monocyte", "monocyte", "neutrophil"], who="=Ben")
    done = runner.invoke(app, ["agreement", folder, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    labels = labels_by_reader(study, prediction=True)
    pd.testing.assert_frame_equal(read_csv(tmp_path / "out" / "agreement.csv"), agreements(labels))
    kappa = agreement(labels["Ada"], labels["=Ben"]).kappa
    assert kappa == pytest.approx(cohen_kappa_score(labels["Ada"], labels["=Ben"]))
    assert f"{kappa:.3f}" in done.output
    cells = read_csv(tmp_path / "out" / "readers.csv")
    assert cells["cell_id"].tolist() == IDS[:4]
    assert cells["differ"].tolist() == [True, True, True, False], "the classifier counts as one who says something"
    assert cells["=Ben"].tolist() == ["blast", "monocyte", "monocyte", "neutrophil"]
