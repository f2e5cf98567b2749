"""A table of a laboratory's own class colours: read, or refused before a study is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.colours import VARIABLE, read_colours
from napari_dinobloom.io.study import Study


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("class;colour\nblast;#123456\n", "no column 'class'"),
        ("class,color\nblast,#123456\n", "did you mean 'color'"),
        ("class,colour\nblast,red\n", "'red' is not #rrggbb"),
        ("class,colour\n,#123456\n", "is not a name"),
    ],
)
def test_a_table_that_cannot_be_used_leaves_no_study(tmp_path: Path, monkeypatch, content: str, why: str) -> None:
    table = tmp_path / "colours.csv"
    table.write_text(content, encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(table))
    with pytest.raises(InputError, match=why) as error:
        Study.create(tmp_path / "s.dinobloom")
    assert "preferences" in str(error.value)
    assert not (tmp_path / "s.dinobloom").exists()


def test_a_study_keeps_the_colours_with_which_it_began(tmp_path: Path, monkeypatch) -> None:
    table = tmp_path / "colours.csv"
    table.write_text("\ufeffclass,colour\n blast ,#ABCDEF\n", encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(table))
    assert read_colours(table) == {"blast": "#abcdef"}
    with Study.create(tmp_path / "s.dinobloom"):
        pass
    monkeypatch.delenv(VARIABLE)
    with Study.open(tmp_path / "s.dinobloom") as again:
        assert again.palette == {"blast": "#abcdef"}
    with pytest.raises(InputError, match="there is no such file"):
        read_colours(tmp_path / "nowhere.csv")
