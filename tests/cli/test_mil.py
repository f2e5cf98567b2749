"""The commands of `napari-dinobloom mil`, as a person types them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from grouped import GROUPS, make_study
from PIL import Image
from typer.testing import CliRunner, Result

from napari_dinobloom.cli import app
from napari_dinobloom.explore.cell_attention import attention_of
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline.patient_groups import groups_of
from napari_dinobloom.pipeline.patients import patient_result

QUICK = ("--repeats", 1, "--permutations", 0, "--folds", 3, "--device", "cpu")


def do(*words: object, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["mil", *map(str, words)])
    assert done.exit_code == code, done.output + done.stderr
    return done


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network, few steps, and half of a prediction by attention."""
    from napari_dinobloom.predict.mil import model, presets

    monkeypatch.setattr(model, "SHARES", (0.5,))

    small = presets.Preset(name="gated", hidden=4, attention=2, members=2, steps=6, epochs=3)
    monkeypatch.setitem(presets.PRESETS, "gated", small)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Eight patients of two diagnoses with three pictures each."""
    random, rows = np.random.default_rng(0), []
    for patient in range(8):
        for number in range(3):
            name = f"c{patient}_{number}.png"
            colour = np.array([200, 110 + 70 * (patient % 2), 160]) + random.integers(-9, 9, 3)
            picture = np.clip(colour + random.normal(size=(40, 40, 3)) * 12, 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(tmp_path / name)
            rows.append({"file": name, "patient": f"p{patient}", "diagnosis": ["well", "ill_x"][patient % 2]})
    pd.DataFrame(rows).to_csv(tmp_path / "bags.csv", index=False)
    return tmp_path / "bags.csv"


def test_a_study_is_trained_on_shown_and_another_predicted(tmp_path: Path) -> None:
    path, other = tmp_path / "s.dinobloom", tmp_path / "o.dinobloom"
    make_study(path).close()
    make_study(other, first=40, count=3).close()
    groups = tmp_path / "groups.csv"
    pd.DataFrame({"patient": GROUPS.keys(), "group": GROUPS.values()}).to_csv(groups, index=False)
    done = do("train", path, "--groups", groups, *QUICK)
    assert "out of fold" in done.output
    assert "not for diagnosis" in done.output
    shown = do("show", path, "--patient", "p03", "--cells", 2).output
    with Study.open(path, read_only=True) as study:
        assert groups_of(study) == GROUPS, "kept in the study"
        result = patient_result(study)
        group = result.table.set_index("patient").at["p03", "predicted_group"]
        attention = attention_of(study.cells, result.model.name)[group]
        attention = attention[(study.cells.obs["patient"] == "p03").to_numpy()]
        assert all(cell in shown for cell in attention.nlargest(2).index)
        assert all(cell in shown for cell in attention.nsmallest(2).index)
    do("predict", other, "--model", result.model)
    with Study.open(other, read_only=True) as study:
        assert patient_result(study).table["patient"].tolist() == ["p40", "p41", "p42"]
    assert "train or apply again" not in " ".join(do("show", path).stderr.split())
    with Study.open(path) as study:
        study.exclude([study.cells.obs_names[0]])
    assert "train or apply again" in " ".join(do("show", path).stderr.split())
    assert "no prediction of patient 'p99'" in do("show", path, "--patient", "p99", code=2).stderr


def test_few_patients_need_to_be_accepted_and_pictures_will_do(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    refused = do("train", table, "-o", out, *QUICK, code=2)
    assert "ill_x has 4, well has 4" in refused.stderr
    assert "--few" in refused.stderr
    assert not out.exists()
    do("train", table, "-o", out, "--few", *QUICK)
    found = pd.read_csv(tmp_path / "m_patients.csv", comment="#")
    assert found["patient"].tolist() == [f"p{row}" for row in range(8)]
    assert found["out_of_fold"].all()
    assert out.is_file()
    assert (tmp_path / "m_scores.csv").is_file()
    table.rename(tmp_path / "x_patients.csv")
    again = do("train", tmp_path / "x_patients.csv", "-o", tmp_path / "x.safetensors", "--few", *QUICK, code=2)
    assert "is the table of pictures and would be written over" in again.stderr.replace("\n", " ")


def test_a_patient_with_two_groups_or_in_two_pools_is_refused(table: Path, tmp_path: Path) -> None:
    rows, out = pd.read_csv(table), tmp_path / "m.safetensors"
    rows.loc[4, "diagnosis"] = "well"
    rows.to_csv(tmp_path / "two.csv", index=False)
    assert "row 6: patient 'p1' has the diagnosis 'ill_x' already" in do(
        "train", tmp_path / "two.csv", "-o", out, "--few", *QUICK, code=2
    ).stderr.replace("\n", " ")
    rows.loc[4, "diagnosis"] = "ill_x"
    rows.assign(pool=np.arange(len(rows)) % 2).to_csv(tmp_path / "pools.csv", index=False)
    refused = do("train", tmp_path / "pools.csv", "-o", out, "--few", *QUICK, code=2).stderr.replace("\n", " ")
    assert "has the pool '" in refused
    assert "--out" in do("train", table, "--few", code=2).stderr


def test_nothing_to_show_and_no_groups(tmp_path: Path) -> None:
    make_study(tmp_path / "s.dinobloom", count=3).close()
    assert "nothing is predicted yet" in do("show", tmp_path / "s.dinobloom", code=2).stderr.replace("\n", " ")
    assert "no patient has a group" in do("train", tmp_path / "s.dinobloom", code=2).stderr.replace("\n", " ")
