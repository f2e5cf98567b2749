"""Manifests: what is read, how paths resolve, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_dinobloom.errors import InputError
from napari_dinobloom.training.manifest import Row, read_manifest, write_manifest


def _csv(folder: Path, text: str) -> Path:
    path = folder / "list.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_with_all_columns(tmp_path: Path) -> None:
    path = _csv(tmp_path, 'file,dataset,class,patient,split\nsub/../a.png,bmc,ABE,007,test\n"/x/b, c.png",raabin,,,\n')
    assert read_manifest(path) == [
        Row(tmp_path / "a.png", "bmc", "ABE", "007", "test"),
        Row(Path("/x/b, c.png"), "raabin", "", "", "train"),
    ]


def test_a_row_keeps_the_spelling_of_its_file(tmp_path: Path) -> None:
    spelt = ["sub/../a.png", "./b.png", str(tmp_path / "c.png")]
    assert [
        row.name for row in read_manifest(_csv(tmp_path, "class,file\n" + "".join(f"x,{s}\n" for s in spelt)))
    ] == spelt
    (tmp_path / "list.txt").write_text("\n".join(spelt), encoding="utf-8")
    assert [row.name for row in read_manifest(tmp_path / "list.txt")] == spelt


def test_other_tables_of_the_project_are_manifests(tmp_path: Path) -> None:
    path = _csv(tmp_path, "﻿# note\nmask,cell_type,file\nm.png,NA,a.png\n")
    assert read_manifest(path) == [Row(tmp_path / "a.png", "list", "NA")]


def test_lists_of_the_reference(tmp_path: Path) -> None:
    (tmp_path / "raabin_train.txt").write_text("/data/r 1.jpg\r\n\n/data/r2.jpg\n", encoding="utf-8")
    (tmp_path / "bm_train.txt").write_text("b.jpg", encoding="utf-8")
    rows = read_manifest(tmp_path)
    assert [(row.path, row.dataset) for row in rows] == [
        (tmp_path / "b.jpg", "bm_train"),
        (Path("/data/r 1.jpg"), "raabin_train"),
        (Path("/data/r2.jpg"), "raabin_train"),
    ]
    assert read_manifest(tmp_path / "bm_train.txt") == rows[:1]


def test_round_trip_with_hostile_text(tmp_path: Path) -> None:
    rows = [Row(tmp_path / "=a, #b.png", "-d", '+"c"', "00012", "test"), Row(Path("/other/é.png"), "x")]
    write_manifest(tmp_path / "out.csv", rows)
    assert read_manifest(tmp_path / "out.csv") == rows
    assert str(tmp_path) not in (tmp_path / "out.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,patinet\na.png,1\n", "'patinet' is not known; the nearest is 'patient'"),
        ("path\na.png\n", "no column 'file'"),
        ("file,file\na,b\n", "twice"),
        ("# x\nfile,class\n,ABE\n", "line 3: names no file"),
        ("file,class\na.png,b,c\n", "line 2: has 3 cells"),
        ("file\n", "names no picture"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_manifest(_csv(tmp_path, text))


def test_no_file_and_no_list(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv: there is no such file"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(InputError, match="no list of pictures"):
        read_manifest(tmp_path)
