"""Tables: the round trip, and what a spreadsheet may not execute."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dinobloom.errors import InputError, StudyError
from napari_dinobloom.io.tables import NOTE, defuse, read_csv, restore, write_csv

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''=1", "－1+1"]


def _cells(path: Path) -> list[list[str]]:
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if not line.startswith("#")]
    return list(csv.reader("\n".join(lines).splitlines(keepends=True)))


def test_round_trip_of_every_kind_of_column(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "class": ["neutrophil", "", "=HYPERLINK(1)", 'a#b, "c"', "<b>Ö</b>", "-5"],
            "n": [1, -2, 3, 0, 5, 6],
            "percent": [-0.1, np.nan, 1 / 3, 1e-300, 100.0, -1e6],
            "reviewed": [True, False, True, False, True, True],
        }
    )
    write_csv(tmp_path / "t.csv", table)
    pd.testing.assert_frame_equal(read_csv(tmp_path / "t.csv"), table)


def test_the_sentence_stands_on_top_and_pandas_reads_the_rest(tmp_path: Path) -> None:
    write_csv(tmp_path / "a" / "t.csv", pd.DataFrame({"x": ["#1"]}), comments=("counting error\nonly",))
    text = (tmp_path / "a" / "t.csv").read_text()
    assert text.splitlines()[:2] == [f"# {NOTE}", "# counting error only"]
    assert pd.read_csv(tmp_path / "a" / "t.csv", comment="#")["x"].tolist() == ["#1"]
    write_csv(tmp_path / "b.csv", pd.DataFrame({"x": [1]}), False)
    assert (tmp_path / "b.csv").read_text() == '"x"\n1\n'


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_begins_like_a_formula(tmp_path: Path, text: str) -> None:
    write_csv(tmp_path / "t.csv", pd.DataFrame({text: [text], "kind": pd.Categorical([text])}))
    raw = (tmp_path / "t.csv").read_text(encoding="utf-8")
    assert f'"{text}"' not in raw.replace('""', '"') or text.startswith("'")
    assert all(value[0] == "'" for value in (defuse(text),))
    assert read_csv(tmp_path / "t.csv")["kind"].tolist() == [text]
    assert read_csv(tmp_path / "t.csv").columns[0] == text


def test_negative_numbers_are_never_damaged(tmp_path: Path) -> None:
    table = pd.DataFrame({"number": [-1.5, -2.0], "whole": [-1, -2], "text": ["-3.5", "+4e-2"]}, dtype=object)
    write_csv(tmp_path / "t.csv", table)
    assert _cells(tmp_path / "t.csv")[1:] == [["-1.5", "-1", "-3.5"], ["-2.0", "-2", "+4e-2"]]


@settings(deadline=None)
@given(st.text(max_size=20))
def test_defusing_is_undone_and_leaves_nothing_to_execute(text: str) -> None:
    safe = defuse(text)
    assert restore(safe) == text
    assert safe[:1] not in ("=", "@", "\t", "\r")
    if safe[:1] in ("+", "-"):
        float(safe)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="could not be written"):
        write_csv(tmp_path / "file" / "t.csv", pd.DataFrame({"x": [1]}))
    with pytest.raises(InputError, match=r"none\.csv: there is no such file"):
        read_csv(tmp_path / "none.csv")


def test_parts_of_a_long_table_give_the_same_file(tmp_path: Path) -> None:
    table = pd.DataFrame({"name": ["=a", "b", "c"], "x": [0.1, np.nan, 3.0]})
    write_csv(tmp_path / "whole.csv", table, comments=("note",))
    write_csv(tmp_path / "parts.csv", (table[at : at + 1] for at in range(3)), comments=("note",))
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
