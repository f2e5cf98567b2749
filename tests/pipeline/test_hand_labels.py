"""Classes that come from a table, by the command and in Python; and exports of label images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from tifffile import imread
from typer.testing import CliRunner, Result

from napari_dinobloom.cli import app
from napari_dinobloom.errors import InputError, StudyError
from napari_dinobloom.io.celltable import complete
from napari_dinobloom.io.fields import FieldRecord
from napari_dinobloom.io.masks import FieldMasks
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline.hand_labels import name_cells, read_labels, take_labels

CELLS = [f"f:{number:05d}" for number in (1, 2, 3)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A study of three cells in one field."""
    labels = np.zeros((20, 40), np.int32)
    for number, x in enumerate((2, 14, 26), start=1):
        labels[4:12, x : x + 8] = number
    with Study.create(tmp_path / "s.dinobloom") as study:
        study.update(fields=[FieldRecord("f", "f.png", "study", "0" * 64, 20, 40, slide="s", patient="p")])
        study.save_masks("f", FieldMasks.from_labels(labels, labels), "{}", "key")
        obs = complete(pd.DataFrame({"cell_id": CELLS, "field": "f", "slide": "s", "patient": "p"}))
        obs["predicted"] = "lymphocyte"
        study.save_cells(AnnData(X=np.zeros((3, 2), np.float32), obs=obs))
    return tmp_path / "s.dinobloom"


def _label(study: Path, table: Path, *words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["label", str(study), str(table), *words])
    assert done.exit_code == code, done.output + done.stderr
    return done


def test_a_table_names_cells_in_one_act_that_undo_takes_back(path: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    pd.DataFrame({"cell_id": CELLS, "label": ["blast", "", " Sézary cell "]}).to_csv(table, index=False)
    assert "2 cells have another class" in _label(path, table, "--reader", "Ada").output
    assert "0 cells have another class" in _label(path, table).output
    with Study.open(path) as study:
        obs = study.cells.obs
        assert obs["label"].tolist() == ["blast", "", "Sézary cell"]
        assert obs["label_by"].tolist() == ["Ada", "", "Ada"]
        assert obs["reviewed"].tolist() == [True, False, True]
        assert len(study.acts) == 1
        colour = study.palette["Sézary cell"]
        assert list(study.palette.values()).count(colour) == 1
        study.undo()
        assert study.cells.obs["label"].eq("").all()


def test_an_exported_table_can_be_taken_back(path: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", str(path), "-o", str(tmp_path / "out"), "--labels"])
    assert done.exit_code == 0, done.output
    with Study.open(path, read_only=True) as study:
        np.testing.assert_array_equal(imread(tmp_path / "out" / "f-cells.tif"), study.labels("f"))
    assert len(read_labels(tmp_path / "out" / "cells.csv")) == 0, "nobody has named a cell yet"
    with Study.open(path) as study:
        assert take_labels(study, tmp_path / "out" / "cells.csv") == 0
        assert study.acts == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cell,label\nf:00001,blast\n", "has no column 'cell_id'"),
        ("cell_id,class\nf:00001,blast\n", "has no column 'label'"),
        ("cell_id,label\nf:00001,blast\nf:00001,monocyte\n", "names the cell 'f:00001' twice"),
        ("cell_id,label\nf:00009,blast\n", "has no cell 'f:00009'"),
    ],
)
def test_a_wrong_table_changes_nothing(path: Path, tmp_path: Path, content: str, message: str) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(content, encoding="utf-8")
    assert message in " ".join(_label(path, table, code=2).stderr.split())
    with Study.open(path) as study:
        with pytest.raises(InputError, match=message):
            take_labels(study, table)
        assert study.acts == ()


def test_a_class_and_its_colour_come_both_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Study.open(path) as study:
        before = dict(study.palette)
        with pytest.raises(StudyError, match="has no cell"):
            name_cells(study, ["f:00009"], "Sézary cell")
        assert study.palette == before

        def full(**_: object) -> None:
            raise StudyError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(study, "update", full)
            with pytest.raises(StudyError, match="full"):
                name_cells(study, CELLS[:1], "Sézary cell")
        assert (study.acts, study.palette) == ((), before)


def test_a_cell_that_gets_no_class_of_several_is_not_reviewed(path: Path) -> None:
    with Study.open(path) as study:
        name_cells(study, CELLS[:2], ["blast", ""])
        assert study.cells.obs["reviewed"].tolist() == [True, False, False]
        name_cells(study, CELLS[:1], [""])
        assert study.cells.obs["reviewed"].tolist() == [False, False, False]
        study.undo()
        assert study.cells.obs["reviewed"].tolist() == [True, False, False]
