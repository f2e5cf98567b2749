"""Known groups of patients: acts of the journal with their inverse, beside a table that other programs write."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from anndata import AnnData

from napari_dinobloom.errors import InputError, StudyError
from napari_dinobloom.io import groups
from napari_dinobloom.io.celltable import complete
from napari_dinobloom.io.groups import read_groups
from napari_dinobloom.io.journal import Journal
from napari_dinobloom.io.study import EDITS, Study
from napari_dinobloom.io.tables import read_typed

CELL = "f:00001"


@pytest.fixture
def study(tmp_path: Path):
    with Study.create(tmp_path / "s.dinobloom") as study:
        study.save_cells(AnnData(obs=complete(pd.DataFrame({"cell_id": [CELL]}))))
        yield study


def test_groups_are_undone_in_one_order_with_acts_on_cells(study: Study) -> None:
    entry = study.record_groups({"p1": "ill", "p2": "well"}, who="anna")
    assert entry is not None
    assert (entry.op, entry.cells, entry.patients, entry.who) == ("group", (), ("p1", "p2"), "anna")
    study.label(CELL, "blast")
    study.record_groups({"p1": "", "p2": "well"})
    assert study.groups() == read_groups(study.path / groups.FILE) == {"p2": "well"}
    assert study.record_groups({"p2": "well"}) is None, "what changes nothing is no act"
    version = study.cells_version
    undone = study.undo()
    assert undone is not None
    assert (undone.patients, undone.undoes) == (("p1",), 3)
    assert study.groups() == read_groups(study.path / groups.FILE) == {"p1": "ill", "p2": "well"}
    assert study.cells_version == version, "the cells are left alone"
    assert study.to_undo is not None
    assert study.to_undo.op == "label"
    study.undo()
    study.undo()
    assert study.groups() == {}
    assert study.to_redo is not None
    assert study.to_redo.patients == ("p1", "p2"), "what would be done again is told as it was first done"
    study.redo()
    path = study.path
    study.close()
    with Study.open(path) as again:
        assert again.groups() == {"p1": "ill", "p2": "well"}
        assert again.cells.obs["label"].tolist() == [""]
        again.redo()
        again.redo()
        assert again.groups() == {"p2": "well"}
        assert again.cells.obs["label"].tolist() == ["blast"]


def test_an_act_that_a_crash_kept_from_the_table_is_replayed(study: Study) -> None:
    study.record_groups({"p1": "ill"})
    table = (study.path / groups.FILE).read_bytes()
    study.record_groups({"p2": "well"})
    study.undo()
    study.redo()
    (study.path / groups.FILE).write_bytes(table)  # as if killed between the line and the table
    assert study.groups() == {"p1": "ill", "p2": "well"}
    (study.path / groups.FILE).unlink()
    assert study.groups() == {"p1": "ill", "p2": "well"}


def test_a_table_of_another_program_counts_and_an_undo_changes_only_its_patients(study: Study) -> None:
    study.record_groups({"p1": "ill"})
    (study.path / groups.FILE).write_text("patient,group\np1,other\np3,well\n", encoding="utf-8")
    assert study.groups() == {"p1": "other", "p3": "well"}
    study.record_groups({"p2": "ill"})
    assert study.groups() == {"p1": "other", "p2": "ill", "p3": "well"}
    study.undo()
    assert study.groups() == {"p1": "other", "p3": "well"}
    study.undo()
    assert study.groups() == read_groups(study.path / groups.FILE) == {"p3": "well"}


def test_nothing_is_written_where_the_table_cannot_be_read(study: Study) -> None:
    study.record_groups({"p1": "ill"})
    lines = (study.path / EDITS).read_bytes()
    (study.path / groups.FILE).write_text("patient;group\np1;ill\n", encoding="utf-8")
    with pytest.raises(InputError, match="no column 'patient'"):
        study.record_groups({"p2": "ill"})
    with pytest.raises(InputError, match="no column 'patient'"):
        study.undo()
    assert (study.path / EDITS).read_bytes() == lines
    (study.path / groups.FILE).unlink()
    with pytest.raises(StudyError, match="control character"):
        study.record_groups({"p\n2": "ill"})
    assert (study.path / EDITS).read_bytes() == lines


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"patients": []}, "names no patients"),
        ({"patients": ["p1", "p1"]}, "twice"),
        ({"cells": [CELL]}, "groups and cells"),
        ({"new": {"label": "blast"}}, "no act may change"),
        ({"new": {"group": True}}, "wrong type"),
        ({"new": {"group": ["a", "b"]}}, "wrong type or number"),
    ],
)
def test_a_line_that_is_no_act_on_groups_is_refused(study: Study, change: dict[str, object], why: str) -> None:
    study.record_groups({"p1": "ill"})
    line = json.loads((study.path / EDITS).read_text(encoding="utf-8"))
    path = study.path / "other.jsonl"
    path.write_text(json.dumps(line | change) + "\n{}\n", encoding="utf-8")
    with pytest.raises(StudyError, match=why):
        Journal.read(path)


def test_over_a_table_of_another_program_no_act_is_lost(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    study.record_groups({"p1": "ill"})
    table = "patient,group\np1,other\n"
    (study.path / groups.FILE).write_text(table, encoding="utf-8")
    lines, write, room = (study.path / EDITS).read_bytes(), groups.write_csv, [0]

    def full(*args: object, **words: object) -> None:
        if not room[0]:
            raise StudyError("the disk is full")
        room[0] -= 1
        write(*args, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(groups, "write_csv", full)
    for act in (lambda: study.record_groups({"p1": "well"}), study.undo):
        with pytest.raises(StudyError, match="full"):
            act()
    assert (study.path / EDITS).read_bytes() == lines, "an act that the table cannot take is refused"
    assert (study.path / groups.FILE).read_text(encoding="utf-8") == table
    room[0] = 1  # full between the two writes
    study.record_groups({"p1": "well"})
    path = study.path
    study.close()
    with Study.open(path) as again:
        assert again.groups() == {"p1": "well"}
        again.undo()
        assert again.groups() == {"p1": "other"}


def test_other_columns_of_the_table_stay(study: Study) -> None:
    (study.path / groups.FILE).write_text("patient,age,group\np1,70,ill\np2,61,\n", encoding="utf-8")
    study.record_groups({"p1": "", "p3": "well"})
    table = read_typed(study.path / groups.FILE, "patient", "group", "age")
    assert table.to_numpy().tolist() == [["p1", "", "70"], ["p2", "", "61"], ["p3", "well", ""]]
    assert study.groups() == {"p3": "well"}
