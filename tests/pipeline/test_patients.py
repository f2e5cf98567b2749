"""Groups of the patients of a study: trained, written, read again, applied to others, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from grouped import GROUPS, make_study

from napari_dinobloom.errors import InputError, StudyError
from napari_dinobloom.io.study import Study
from napari_dinobloom.io.tables import read_csv
from napari_dinobloom.pipeline import patients
from napari_dinobloom.pipeline.patients import iter_apply_patients, iter_train_patients, patient_result
from napari_dinobloom.progress import drain

QUICK = {"device": "cpu", "hidden": 4, "attention": 2, "members": 2, "steps": 10, "epochs": 4}
TRAIN = {"repeats": 1, "permutations": 1, "folds": 3, **QUICK}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """A study whose first 20 patients have a group, and what training on them gave; three cells take no part."""
    study = make_study(tmp_path_factory.mktemp("trained") / "s.dinobloom")
    study.delete(["f:00001"])
    study.exclude(["f:00002"])
    study.cells.X[2] = np.nan
    study.save_cells(study.cells)
    result = drain(iter_train_patients(study, GROUPS, **TRAIN))
    yield study, result
    study.close()


def test_all_patients_are_predicted_and_those_of_training_out_of_fold(trained) -> None:
    _, result = trained
    table = result.table
    assert result.classes == ("=well", "ill")
    assert table["patient"].tolist() == [f"p{row:02d}" for row in range(22)]
    assert table["cells"].tolist() == [9] + [12] * 21
    assert table["out_of_fold"].tolist() == [True] * 20 + [False] * 2
    assert table["group"].tolist() == [*GROUPS.values(), "", ""]
    assert list(table.columns[5:]) == ["p:=well", "p:ill", "mean:=well", "mean:ill"]
    np.testing.assert_allclose(table[["p:=well", "p:ill"]].sum(1), 1, atol=1e-5)
    assert (table["predicted_group"] == np.where(table["p:ill"] > table["p:=well"], "ill", "=well")).all()
    assert result.model.is_file()


def test_attention_lies_in_the_cell_table(trained) -> None:
    study, _ = trained
    with Study.open(study.path, read_only=True) as again:
        frame, obs = again.cells.obsm["attention"], again.cells.obs
        assert list(frame.columns) == ["=well", "ill"]
        assert {str(dtype) for dtype in frame.dtypes} == {"float32"}
        assert np.flatnonzero(frame["ill"].isna()).tolist() == [0, 1, 2], "deleted, excluded, not embedded"
        each = frame["ill"].groupby(obs["patient"])
        np.testing.assert_array_equal(each.min(), 0)
        np.testing.assert_array_equal(each.max(), 1)


def test_the_result_is_read_again_as_it_was(trained) -> None:
    study, result = trained
    back = patient_result(study)
    pd.testing.assert_frame_equal(back.table, result.table)
    pd.testing.assert_frame_equal(back.scores, result.scores)
    assert (back.classes, back.notes, back.model) == (result.classes, result.notes, result.model)
    written = read_csv(study.path / "tables" / "patients.csv")
    np.testing.assert_allclose(written["p:ill"], result.table["p:ill"], rtol=1e-12)
    assert "'=well" in (study.path / "tables" / "patients.csv").read_text(encoding="utf-8"), "no formula"


def test_a_model_is_applied_and_knows_its_training_patients(trained, tmp_path: Path) -> None:
    _, result = trained
    with make_study(tmp_path / "new.dinobloom", first=40, count=4) as new:
        found = drain(iter_apply_patients(new, result.model))
        assert not found.table["out_of_fold"].any()
        assert found.notes == result.notes
        pd.testing.assert_frame_equal(found.scores, result.scores)
    with make_study(tmp_path / "same.dinobloom") as same:
        found = drain(iter_apply_patients(same, result.model))
        assert found.table["out_of_fold"].tolist() == [True] * 20 + [False] * 2
        shown = ["p:=well", "p:ill", "mean:=well", "mean:ill"]
        np.testing.assert_allclose(found.table[shown], result.table[shown], atol=1e-6)
    with (
        make_study(tmp_path / "other.dinobloom", encoder="cd" * 32) as other,
        pytest.raises(InputError, match="encoder_sha256"),
    ):
        drain(iter_apply_patients(other, result.model))


def test_a_kill_before_the_end_leaves_the_earlier_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with make_study(tmp_path / "s.dinobloom") as study:
        assert patient_result(study) is None
        first = drain(iter_train_patients(study, GROUPS, **TRAIN))

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(patients, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            drain(iter_train_patients(study, GROUPS, **TRAIN, seed=1))
        back = patient_result(study)
        assert back.model == first.model
        assert back.model.is_file()
        (study.path / "models" / "patients.json").write_text("{")
        with pytest.raises(StudyError, match="damaged"):
            patient_result(study)


def test_patients_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with make_study(tmp_path / "s.dinobloom") as study:
        with pytest.raises(InputError, match="no patient 'p99'"):
            drain(iter_train_patients(study, {"p99": "ill"}, **TRAIN))
        with pytest.raises(InputError, match="'ill'"):
            drain(iter_train_patients(study, {"p01": "ill", "p03": "ill"}, **TRAIN))
        study.exclude([cell for cell, one in study.cells.obs["patient"].items() if one == "p03"])
        with pytest.raises(InputError, match="'p03' has no cell"):
            drain(iter_train_patients(study, GROUPS, **TRAIN))
        study.cells.uns["dinobloom"] = {}
        with pytest.raises(StudyError, match="not embedded"):
            drain(iter_train_patients(study, GROUPS, **TRAIN))
