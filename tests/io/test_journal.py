"""The journal against a plain list of states as oracle, and every way in which its file can be torn."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io import journal
from napari_dinobloom.io.celltable import complete
from napari_dinobloom.io.journal import EDITABLE, Journal, apply

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
        ({"op": "merge"}, "does not know.*Update"),
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
