"""The journal against a plain list of states as oracle, and every way in which its file can be torn."""

from __future__ import annotations

import base64
import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io import journal
from napari_dinobloom.io.celltable import complete
from napari_dinobloom.io.journal import EDITABLE, Journal, apply
from napari_dinobloom.io.shapes import Shape, parse_shape
from napari_dinobloom.io.study import Study

CELLS = [f"f:{number:05d}" for number in range(1, 7)]


def _table() -> pd.DataFrame:
    return complete(pd.DataFrame({"cell_id": CELLS}))


def _state(obs: pd.DataFrame) -> list[tuple[object, ...]]:
    return [tuple(row) for row in obs[["label", "excluded", "reviewed"]].itertuples(index=False)]


some_cells = st.lists(st.sampled_from(CELLS), min_size=1, unique=True)
acts_strategy = st.lists(
    st.one_of(
        st.tuples(st.just("label"), some_cells, st.sampled_from(["", "monocyte", 'x"\\,\u2028ü', "=1"])),
        st.tuples(st.just("excluded"), some_cells, st.booleans()),
        st.tuples(st.just("reviewed"), some_cells, st.booleans()),
        st.sampled_from(["undo", "redo", "reopen"]),
    ),
    max_size=15,
)


@settings(max_examples=40, deadline=None)
@given(acts_strategy)
def test_replay_undo_and_redo_against_a_list_of_states(
    tmp_path_factory: pytest.TempPathFactory, acts: list[object]
) -> None:
    path = tmp_path_factory.mktemp("journal") / "edits.jsonl"
    written, obs = Journal.read(path), _table()
    past, future = [_state(obs)], []
    for act in acts:
        if act == "reopen":
            written = Journal.read(path)
        elif act in ("undo", "redo"):
            target = written.to_undo() if act == "undo" else written.to_redo()
            assert (target is None) == (len(past) == 1 if act == "undo" else not future)
            if target is not None:
                apply([written.invert(str(act), target)], obs)
                if act == "undo":
                    future.append(past.pop())
                else:
                    past.append(future.pop())
        else:
            column, cells, value = act  # type: ignore[misc]
            kind = {"label": "label", "excluded": "exclude", "reviewed": "review"}[column]
            rows = obs.index.get_indexer(pd.Index(cells))
            old = {column: obs[column].to_numpy()[rows].tolist()}
            apply([written.append(kind, cells, old, {column: [value] * len(cells)})], obs)
            past.append(_state(obs))
            future.clear()
        assert _state(obs) == past[-1]
    fresh = _table()
    entries = Journal.read(path).entries
    assert entries == written.entries
    apply(entries, fresh)
    assert _state(fresh) == past[-1]
    apply(entries, fresh)  # a table that holds all acts already comes to no harm
    assert _state(fresh) == past[-1]


def _written(path: Path, n: int = 3) -> list[journal.Entry]:
    acts = Journal.read(path)
    for i in range(n):
        acts.append("label", [CELLS[i]], {"label": [""]}, {"label": [f"ü{i}"]})
    return acts.entries


def test_a_last_line_torn_anywhere_is_dropped_and_the_next_one_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "edits.jsonl"
    entries = _written(path)
    data = path.read_bytes()
    start = data[:-1].rindex(b"\n") + 1
    for cut in range(start, len(data)):
        path.write_bytes(data[:cut])
        acts = Journal.read(path)
        assert acts.entries == entries[:2]
        acts.append("label", [CELLS[0]], {"label": [""]}, {"label": ["after"]})
        assert [entry.new["label"] for entry in Journal.read(path).entries] == ["ü0", "ü1", "after"]
    path.write_bytes(data[:start] + b"\0" * 40 + b"\n")  # a power cut can keep the length and lose the bytes
    assert Journal.read(path).entries == entries[:2]


def test_reading_alone_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "edits.jsonl"
    _written(path)
    torn = path.read_bytes()[:-5]
    path.write_bytes(torn)
    Journal.read(path)
    assert path.read_bytes() == torn


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "edits.jsonl"
    _written(path)
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1][:10]
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(StudyError, match=r"edits\.jsonl, line 2: is damaged.*Move this line"):
        Journal.read(path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"op": "dance"}, "does not know.*Update"),
        ({"cells": "f:00001"}, "names no cells"),
        ({"cells": []}, "names no cells"),
        ({"new": {"area_px": 1}, "old": {"area_px": 2}}, "which no act may change"),
        ({"new": {"label": 1}}, "wrong type"),
        ({"new": {"label": ["a", "b"]}}, "wrong type or number"),
        ({"new": {"excluded": True}}, "other columns"),
        ({"new": {"label": "a\nb"}}, "label"),
        ({"seq": "1"}, "number that is none"),
        ({"who": None}, "who"),
    ],
)
def test_a_strangers_line_is_checked(tmp_path: Path, change: dict[str, object], match: str) -> None:
    path = tmp_path / "edits.jsonl"
    _written(path, 2)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(lines[0]), **change}), lines[1], ""]))
    with pytest.raises(StudyError, match=match):
        Journal.read(path)


def test_a_failed_write_leaves_file_and_memory_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "edits.jsonl"
    _written(path)
    acts = Journal.read(path)
    before, entries = path.read_bytes(), list(acts.entries)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StudyError, match=r"edits\.jsonl: the disk.*is full.*Free some space"):
            acts.append("label", [CELLS[0]], {"label": [""]}, {"label": ["lost"]})
    assert path.read_bytes() == before
    assert acts.entries == entries
    acts.append("label", [CELLS[0]], {"label": [""]}, {"label": ["kept"]})
    assert len(Journal.read(path).entries) == 4


def test_two_writers_do_not_overwrite_each_other(tmp_path: Path) -> None:
    path = tmp_path / "edits.jsonl"
    _written(path)
    one, other = Journal.read(path), Journal.read(path)
    one.append("label", [CELLS[0]], {"label": [""]}, {"label": ["x"]})
    with pytest.raises(StudyError, match="another process has written"):
        other.append("label", [CELLS[0]], {"label": [""]}, {"label": ["y"]})
    assert len(Journal.read(path).entries) == 4


def test_who_is_known_even_where_the_system_knows_no_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(journal.getpass, "getuser", nobody)
    assert journal.user() == "unknown"


def test_unknown_cells_are_listed_and_the_known_ones_set() -> None:
    obs = _table()
    entry = journal.Entry(1, "label", ("gone:00001", CELLS[1]), {"label": ""}, {"label": ["a", "b"]}, "me", "now")
    assert apply([entry], obs) == ["gone:00001"]
    assert obs["label"].tolist() == ["", "b", "", "", "", ""]
    assert {name: obs[name].dtype.kind for name in EDITABLE} == {
        name: "O" if kind is str else "b" for name, kind in EDITABLE.items()
    }


# Outlines


def _shape(height: int = 3, width: int = 5, place: int = 2, **measures: object) -> Shape:
    rng = np.random.default_rng(height * width)
    cell = rng.random((height, width)) < 0.7
    cell[0, 0] = True
    return Shape.of(
        (place, place, place + height, place + width), cell, cell & (rng.random(cell.shape) < 0.5), measures
    )


def _reshaped(path: Path) -> list[journal.Entry]:
    """An act on three cells: one deleted, one changed, one made; and its undo and redo."""
    acts = Journal.read(path)
    before, after, made = _shape(area_px=9, nc_ratio=0.25), _shape(4, 4, quality="ok"), _shape(9, 9, focus=np.nan)
    acts.append(
        "repaint",
        CELLS[:3],
        {"deleted": [False, False, True]},
        {"deleted": [True, False, False]},
        old_shapes={CELLS[1]: before},
        new_shapes={CELLS[1]: after, CELLS[2]: made},
    )
    first = acts.to_undo()
    assert first is not None
    undone = acts.invert("undo", first)
    acts.invert("redo", undone)
    return acts.entries


def test_outlines_come_back_and_undo_turns_them_round(tmp_path: Path) -> None:
    path = tmp_path / "edits.jsonl"
    done, undone, redone = entries = _reshaped(path)
    again = Journal.read(path)
    assert again.entries == entries
    assert (undone.old_shapes, undone.new_shapes) == (done.new_shapes, done.old_shapes)
    assert (redone.old_shapes, redone.new_shapes) == (done.old_shapes, done.new_shapes)
    assert again.shapes == dict(done.new_shapes)
    assert again.deleted == {CELLS[0]: True, CELLS[1]: False, CELLS[2]: False}
    assert again.unmade == set()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]))
    after_undo = Journal.read(path)
    assert after_undo.shapes[CELLS[1]] == done.old_shapes[CELLS[1]]
    assert after_undo.deleted == {CELLS[0]: False, CELLS[1]: False, CELLS[2]: True}
    assert after_undo.unmade == {CELLS[2]}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.integers(0, 10**6))
def test_bitmaps_and_measures_come_back_from_json(height: int, width: int, seed: int, place: int) -> None:
    rng = np.random.default_rng(seed)
    cell, nucleus = rng.random((2, height, width)) < 0.5
    cell[rng.integers(height), rng.integers(width)] = True
    measures = {"area_px": int(cell.sum()), "focus": float("nan"), "nc_ratio": rng.random(), "touches_border": True,
                "quality": "ü", "pixel_size_um": 0.1, "slide": "not a measure"}  # fmt: skip
    shape = Shape.of((place, 3, place + height, 3 + width), cell, nucleus, measures)
    found = parse_shape(json.loads(json.dumps(shape.to_json())))
    assert found == shape
    for one, other in zip(found.bitmaps(), (cell, nucleus), strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.measures["focus"] is None
    assert found.measures["nc_ratio"] == pytest.approx(measures["nc_ratio"], rel=1e-6)
    assert "slide" not in found.measures


def test_a_cell_is_a_few_hundred_bytes(tmp_path: Path) -> None:
    rows, columns = np.mgrid[-60:60, -60:60]
    disc, core = rows**2 + columns**2 < 59**2, rows**2 + (columns - 5) ** 2 < 35**2
    assert len(json.dumps(Shape.of((0, 0, 120, 120), disc, core, {}).to_json())) < 700


def _bomb() -> str:
    return base64.b64encode(zlib.compress(bytes(50_000_000), 9)).decode()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"box": [0, 0, 3]}, "four whole numbers"),
        ({"box": [0, 0, 3.0, 5]}, "four whole numbers"),
        ({"box": [True, 0, 3, 5]}, "four whole numbers"),
        ({"box": [5, 0, 3, 5]}, "empty, outside"),
        ({"box": [-1, 0, 2, 5]}, "empty, outside"),
        ({"box": [0, 0, 2**31, 5]}, "empty, outside"),
        ({"box": [0, 0, 2**20, 2**20]}, "too large"),
        ({"box": [0, 0, 30, 50]}, "do not fill its box"),
        ({"box": [0, 0, 1, 1]}, "do not fill its box"),
        ({"bits": 7}, "damaged"),
        ({"bits": "not base64"}, "damaged"),
        ({"bits": "AAAA"}, "damaged"),
        ({"bits": base64.b64encode(zlib.compress(bytes(4))).decode()}, "without a pixel"),
        ({"bits": base64.b64encode(zlib.compress(bytes(4)) + b"more").decode()}, "do not fill"),
        ({"bits": _bomb()}, "do not fill its box"),
        ({"measures": []}, "without measures"),
        ({"measures": {"label": "blast"}}, "'label', which this version does not know"),
        ({"measures": {"area_px": 1.5}}, "area_px is '1.5'"),
        ({"measures": {"area_px": 2**40}}, "area_px is"),
        ({"measures": {"touches_border": 1}}, "touches_border is"),
        ({"measures": {"focus": float("nan")}}, "focus is"),
        ({"measures": {"quality": "a\nb"}}, "quality"),
        ({"measures": {"pixel_size_um": 0}}, "pixel_size_um is 0"),
        ({"colour": 1}, "shape that is none"),
    ],
)
def test_a_strangers_outline_is_checked(tmp_path: Path, change: dict[str, Any], match: str) -> None:
    path = tmp_path / "edits.jsonl"
    _reshaped(path)
    lines = path.read_text().splitlines()
    raw = json.loads(lines[0])
    raw["shapes"]["old"][CELLS[1]].update(change)
    path.write_text("\n".join([json.dumps(raw), *lines[1:], ""]))
    with pytest.raises(StudyError, match=rf"edits\.jsonl, line 1: .*{match}"):
        Journal.read(path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"shapes": []}, "without 'old' and 'new'"),
        ({"shapes": {"new": {}}}, "without 'old' and 'new'"),
        ({"shapes": {"old": {}, "new": {"f:00099": _shape().to_json()}}}, "that it does not name"),
        ({"shapes": {"old": {}, "new": {CELLS[0]: None}}}, "shape that is none"),
        ({"op": "label"}, "does not change"),
        ({"old": {"label": ""}, "new": {"label": ""}}, "does not change"),
        ({"cells": ["../x", *CELLS[:2]], "shapes": {"old": {}, "new": {"../x": _shape().to_json()}}}, "not a cell id"),
    ],
)
def test_a_strangers_act_on_outlines_is_checked(tmp_path: Path, change: dict[str, object], match: str) -> None:
    path = tmp_path / "edits.jsonl"
    _reshaped(path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(lines[0]), **change}), *lines[1:], ""]))
    with pytest.raises(StudyError, match=match):
        Journal.read(path)


def test_acts_on_columns_are_written_as_they_always_were(tmp_path: Path) -> None:
    path = tmp_path / "edits.jsonl"
    _written(path, 1)
    assert set(json.loads(path.read_text())) == {"seq", "op", "cells", "old", "new", "who", "when"}
    sides = '"old":{"deleted":false},"new":{"deleted":true}'
    old = '{"seq":1,"op":"delete","cells":["f:00001"],' + sides + ',"who":"me","when":"x"}'
    path.write_text(old + "\n")
    (entry,) = Journal.read(path).entries
    assert entry.to_line() == old + "\n"
    path.write_text(old.replace('delete"', 'merge"', 1) + "\n" + old + "\n")
    with pytest.raises(StudyError, match="line 1: lacks its shapes"):
        Journal.read(path)


@pytest.mark.parametrize(("change", "why"), [({"undoes": 2}, "not one before it"), ({}, "which act it undoes")])
def test_an_undo_of_itself_or_of_nothing_is_refused(tmp_path: Path, change: dict[str, int], why: str) -> None:
    written = Journal.read(tmp_path / "edits.jsonl")
    written.invert("undo", written.append("label", CELLS[:1], {"label": [""]}, {"label": ["blast"]}))
    first, second = (json.loads(line) for line in written.path.read_text(encoding="utf-8").splitlines())
    del second["undoes"]
    written.path.write_text("".join(json.dumps(line) + "\n" for line in (first, second | change, first)))
    with pytest.raises(StudyError, match=why):
        Journal.read(written.path)


def test_an_undo_whose_act_was_taken_out_can_be_done_again(tmp_path: Path) -> None:
    with Study.create(tmp_path / "s.dinobloom") as study:
        study.save_cells(AnnData(obs=_table()))
        study.label(CELLS[0], "blast")
        study.undo()
        file = study.path / "edits.jsonl"
        file.write_bytes(file.read_bytes().split(b"\n", 1)[1])
        study.reload()
        assert (study.can_undo, study.can_redo, study.to_undo, study.to_redo) == (False, True, None, None)
        study.redo()
        assert study.cells.obs["label"].iloc[0] == "blast"
        assert (study.can_undo, study.can_redo, study.to_undo) == (True, False, None)
