"""Groups of the patients of a study: trained, written, read again, applied to others, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from grouped import GROUPS, make_study

from napari_dinobloom.errors import InputError, StudyError
from napari_dinobloom.explore.cell_attention import attention_of, keeping_attention
from napari_dinobloom.explore.gate_axes import axes_table
from napari_dinobloom.io.study import Study
from napari_dinobloom.io.tables import read_csv
from napari_dinobloom.io.vectors import Vectors
from napari_dinobloom.pipeline import patients
from napari_dinobloom.pipeline.patient_bags import Seen, collect, made_of
from napari_dinobloom.pipeline.patient_groups import keep_groups
from napari_dinobloom.pipeline.patients import (
    fits,
    iter_apply_patients,
    iter_train_patients,
    patient_result,
    with_cells,
)
from napari_dinobloom.predict.mil import model as model_of_patients
from napari_dinobloom.progress import drain

QUICK = {"device": "cpu", "hidden": 4, "attention": 2, "members": 2, "steps": 10, "epochs": 4}
TRAIN = {"repeats": 1, "permutations": 1, "folds": 3, **QUICK}


@pytest.fixture(autouse=True, scope="module")
def half() -> Iterator[None]:
    """Half of each prediction is attention's, so that there is some to show."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_of_patients, "SHARES", (0.5,))
        yield


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
    study, result = trained
    with Study.open(study.path, read_only=True) as again:
        frame, obs = attention_of(again.cells, result.model.name), again.cells.obs
        assert attention_of(again.cells, "patients-00000000.safetensors") is None, "of another model"
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


def test_a_study_without_a_usable_cell_has_no_bag(tmp_path: Path) -> None:
    with make_study(tmp_path / "s.dinobloom") as study:
        study.exclude(list(study.cells.obs_names))
        bags = collect(study)
        assert (bags.names, bags.rows, bags.X, bags.sources) == ([], [], [], [])
        with pytest.raises(InputError, match="no patient with a group is left"):
            drain(iter_train_patients(study, GROUPS, **TRAIN))


def test_what_is_kept_of_embeddings_spares_reading_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with make_study(tmp_path / "s.dinobloom") as study:
        study.cells.X[3] = np.nan
        study.save_cells(study.cells)
        seen, expected = Seen.of(study), made_of(study)
        with monkeypatch.context() as patch:
            patch.setattr(Vectors, "__getitem__", lambda *_: pytest.fail("was read"))
            assert seen.holds(study)
            assert made_of(study, seen) == expected
        study.exclude([study.cells.obs_names[0]])
        assert made_of(study, seen) == made_of(study) != expected
        assert seen.holds(study), "an act changes no embedding"
        study.cells.X = study.cells.X.copy()
        assert not seen.holds(study)


def test_a_result_holds_only_for_the_cells_it_was_made_of(tmp_path: Path) -> None:
    with make_study(tmp_path / "s.dinobloom") as study:
        drain(iter_train_patients(study, GROUPS, **TRAIN))
        result = patient_result(study)
        assert result.recommended in ("gated", "mean pooling")
        assert fits(study, result)
        study.label([study.cells.obs_names[0]], "blast")
        assert fits(study, result), "what a cell is called is of no concern"
        study.exclude([study.cells.obs_names[0]])
        assert not fits(study, result)
        study.undo()
        assert fits(study, result)
        before = dict(study.cells.uns["dinobloom"])
        study.cells.uns["dinobloom"] = before | {"stain": "reinhard"}
        assert not fits(study, result)
        study.cells.uns["dinobloom"] = before
        study.cells.X[5] += 1e-3
        assert not fits(study, result), "embedded anew"
        study.cells.uns["dinobloom"] = {}
        assert not fits(study, result)


def test_a_model_is_applied_and_knows_its_training_patients(trained, tmp_path: Path) -> None:
    _, result = trained
    with make_study(tmp_path / "new.dinobloom", first=40, count=4) as new:
        found = drain(iter_apply_patients(new, result.model))
        assert not found.table["out_of_fold"].any()
        assert found.notes[0] == "These scores are of the 20 patients the model was trained on, not of this study."
        assert found.notes[1:] == result.notes
        pd.testing.assert_frame_equal(found.scores, result.scores)
    with make_study(tmp_path / "same.dinobloom") as same:
        keep_groups(same, GROUPS)
        found = drain(iter_apply_patients(same, result.model))
        assert found.table["group"].tolist() == [*GROUPS.values(), "", ""], "those of the study"
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
        assert attention_of(study.cells, back.model.name) is None, "that of the second model is none of the first"
        (study.path / "models" / "patients.json").write_text("{")
        with pytest.raises(StudyError, match="damaged"):
            patient_result(study)


def test_patients_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with make_study(tmp_path / "s.dinobloom") as study:
        with pytest.raises(InputError, match=r"no patient with a group is left.*'p99'"):
            drain(iter_train_patients(study, {"p99": "ill"}, **TRAIN))
        with pytest.raises(InputError, match="'ill'"):
            drain(iter_train_patients(study, {"p01": "ill", "p03": "ill"}, **TRAIN))
        study.exclude([cell for cell, one in study.cells.obs["patient"].items() if one == "p03"])
        names = collect(study).names
        used, note = with_cells(study, names, GROUPS | {"p0x": "ill"})
        assert used == {patient: group for patient, group in GROUPS.items() if patient != "p03"}
        assert note.startswith("Left out, without a cell that can be used")
        assert "'p03', 'p0x'; did you mean 'p" in note
        assert with_cells(study, names, used) == (used, "")
        study.cells.uns["dinobloom"] = {}
        with pytest.raises(StudyError, match="not embedded"):
            drain(iter_train_patients(study, GROUPS, **TRAIN))


def test_a_model_of_no_attention_shows_none_and_left_out_patients_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_of_patients, "SHARES", (0.0,))
    groups = {patient: {"=well": "well", "ill": "ill / relapse"}[group] for patient, group in GROUPS.items()}
    with make_study(tmp_path / "s.dinobloom") as study:
        result = drain(iter_train_patients(study, groups | {"p77": "well"}, **TRAIN | {"permutations": 0}))
        assert "'p77'" in result.notes[0]
        assert "mean pooling alone (share of attention 0 %)" in result.notes[-1]
    with Study.open(tmp_path / "s.dinobloom", read_only=True) as again:
        frame = attention_of(again.cells, result.model.name)
        assert list(frame.columns) == ["ill / relapse", "well"], "a name that HDF5 takes for a path"
        assert frame.isna().all(axis=None)
        assert "attention_ill / relapse" in axes_table(again.cells)


def test_a_picture_shared_with_a_training_patient_gives_nobody_their_prediction(trained, tmp_path: Path) -> None:
    study, result = trained
    with make_study(tmp_path / "new.dinobloom", first=40, count=2) as new:
        new.cells.X[3] = study.cells.X[30]  # one cell of p02 stands under p40
        new.save_cells(new.cells)
        found = drain(iter_apply_patients(new, result.model))
    assert not found.table["out_of_fold"].any()
    assert any("share a picture" in note and "'p40'" in note and "'p41'" not in note for note in found.notes)


def test_attention_that_cannot_be_kept_leaves_the_earlier_one(tmp_path: Path) -> None:
    with make_study(tmp_path / "s.dinobloom", count=1) as study:
        values = np.linspace(0, 1, 12, dtype=np.float32)[:, None]
        with keeping_attention(study.cells, values, ["ill"], "a"):
            pass
        with pytest.raises(OSError, match="full"), keeping_attention(study.cells, 1 - values, ["well"], "b"):
            raise OSError("full")
        np.testing.assert_array_equal(attention_of(study.cells, "a")["ill"], values[:, 0])
