"""Acts on gates in the journal: one order with acts on cells, undo and redo across both, and lines that are checked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from anndata import AnnData

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.celltable import complete
from napari_dinobloom.io.journal import Journal
from napari_dinobloom.io.study import Study

MAP, OTHER = "ab" * 32, "cd" * 32
CELLS = ["f:00001", "f:00002"]
NODE = {"gate": {"type": "RangeGate", "name": "größer"}, "place": 0}


def act(old: dict[str, Any], new: dict[str, Any], projection: str = MAP) -> dict[str, Any]:
    return {"op": "gate", "projection": projection, "old": old, "new": new}


ADD, MOVE = act({"g1": None}, {"g1": NODE}), act({"g1": NODE}, {"g1": {**NODE, "place": 3}})


@pytest.fixture
def study(tmp_path: Path):
    with Study.create(tmp_path / "s.dinobloom") as study:
        study.save_cells(AnnData(obs=complete(pd.DataFrame({"cell_id": CELLS}))))
        yield study


def test_acts_on_cells_and_gates_are_undone_in_their_common_order(study: Study) -> None:
    study.label(CELLS[0], "blast")
    study.record_gate(ADD)
    study.exclude(CELLS[1])
    study.record_gate(MOVE)
    assert study.gate_acts(MAP) == [ADD, MOVE]
    assert study.gate_acts(OTHER) == []
    version = study.cells_version
    undone = study.undo()
    assert undone is not None
    assert (undone.cells, undone.projection, undone.undoes) == ((), MAP, 4)
    assert study.cells_version == version, "an act on gates leaves the cells alone"
    assert study.cells.obs["excluded"].tolist() == [False, True]
    assert study.undo() is not None
    assert study.cells_version == version + 1
    assert study.cells.obs["excluded"].tolist() == [False, False]
    study.undo()
    assert study.gate_acts(MAP) == [ADD, MOVE, act(MOVE["new"], MOVE["old"]), act(ADD["new"], ADD["old"])]
    assert study.cells.obs["label"].tolist() == ["blast", ""]
    study.redo()
    assert study.gate_acts(MAP)[-1] == ADD
    study.redo()
    assert study.cells.obs["excluded"].tolist() == [False, True]
    study.record_gate(act({"g2": None}, {"g2": NODE}, OTHER))
    assert not study.can_redo, "a new act on a gate ends what could be done again, on cells too"
    assert study.gate_projections == (MAP, OTHER)
    assert [entry.seq for entry in study.gate_entries(MAP, after=4)] == [5, 7, 8]


def test_a_later_session_goes_on_where_this_one_ended(study: Study) -> None:
    study.record_gate(ADD)
    study.label(CELLS[0], "blast")
    study.undo()
    path = study.path
    study.close()
    with Study.open(path) as again:
        assert again.gate_acts(MAP) == [ADD]
        again.undo()
        assert again.gate_acts(MAP) == [ADD, act(ADD["new"], ADD["old"])]
        assert not again.can_undo
        again.redo()
        again.redo()
        assert again.cells.obs["label"].tolist() == ["blast", ""]
    lines = [json.loads(line) for line in (path / "edits.jsonl").read_text().splitlines()]
    assert list(lines[0]) == ["seq", "op", "projection", "old", "new", "who", "when"]
    assert lines[0] | {"who": "", "when": ""} == {**ADD, "seq": 1, "who": "", "when": ""}
    assert (lines[3]["op"], lines[3]["undoes"], lines[3]["new"]) == ("undo", 1, {"g1": None})


def test_nothing_is_kept_where_the_disk_refuses(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    study.record_gate(ADD)
    before = (study.path / "edits.jsonl").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StudyError, match=r"is full.*Free some space"):
            study.record_gate(MOVE)
    assert study.gate_acts(MAP) == [ADD]
    assert (study.path / "edits.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"op": "label"}, "no act of a gate tree"),
        ({"old": None}, "no act of a gate tree"),
        ({"new": {"g1": {"gate": object()}}}, "not JSON serializable"),
        ({"new": {"g2": None}}, "name other gates"),
        ({"projection": None}, "projection"),
        ({"old": {}, "new": {}}, "names no gates"),
    ],
)
def test_what_is_no_act_is_not_written(study: Study, wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(StudyError, match=match):
        study.record_gate({**ADD, **wrong})
    assert not (study.path / "edits.jsonl").exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"projection": 7}, "projection"),
        ({"projection": "a\nb"}, "projection"),
        ({"cells": CELLS}, "gates and cells at once"),
        ({"shapes": {"old": {}, "new": {}}}, "gates and cells at once"),
        ({"new": []}, "names no gates"),
        ({"new": {"g1": 3}}, "'g1', which is none"),
        ({"new": {"__class__": {}}}, "'__class__', which is none"),
        ({"new": {"g2": {}}}, "name other gates"),
        ({"op": "label"}, "names no cells"),
        ({"op": "undo", "undoes": "1"}, "number that is none"),
    ],
)
def test_a_strangers_line_is_checked(tmp_path: Path, change: dict[str, Any], match: str) -> None:
    path = tmp_path / "edits.jsonl"
    Journal.read(path).append_gates("gate", MAP, ADD["old"], ADD["new"])
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}) + "\n{}\n")
    with pytest.raises(StudyError, match=rf"edits\.jsonl, line 1: .*{match}"):
        Journal.read(path)
