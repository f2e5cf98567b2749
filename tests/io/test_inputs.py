"""Inputs of every kind, and grouping against the path itself as oracle."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dinobloom.errors import DinoBloomError, InputError
from napari_dinobloom.io.inputs import Grouping, Source, find_images


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three slides of two patients, with what lies about in real folders."""
    for name in ("P1/S1/a.png", "P1/S1/b.JPG", "P1/S2/a.png", "P2/S3/c.ome.tif", "P2/S3/notes.txt", "P2/S3/._c.png",
                 ".cache/x.png", "old.dinobloom/study.json", "old.dinobloom/fields/y.png"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def _files(found: list[Source]) -> list[str]:
    return [source.file for source in found]


def test_a_folder_gives_its_pictures_below_it_sorted(tree: Path) -> None:
    found = find_images([tree])
    assert _files(found.files) == ["P1/S1/a.png", "P1/S1/b.JPG", "P1/S2/a.png", "P2/S3/c.ome.tif"]
    assert {source.root for source in found.files} == {tree}
    assert found.problems == []


def test_order_and_repetition_of_inputs_do_not_matter(tree: Path) -> None:
    inputs = [tree / "P1", tree / "P2", str(tree / "P1" / "S1" / "*.png"), tree / "P1" / "S1" / "a.png"]
    forward, backward = (find_images(order).files for order in (inputs, inputs[::-1]))
    assert [source.path for source in forward] == [source.path for source in backward]
    assert len(forward) == 4


def test_globs_are_rooted_where_their_wildcards_begin(tree: Path) -> None:
    found = find_images([str(tree / "*" / "S*" / "a.png")])
    assert _files(found.files) == ["P1/S1/a.png", "P1/S2/a.png"]
    assert _files(find_images([str(tree / "P1" / "**" / "*.png")]).files) == ["S1/a.png", "S2/a.png"]
    assert _files(find_images([str(tree / "P?")]).files)[0] == "P1/S1/a.png"


def test_a_file_whose_name_looks_like_a_glob_is_the_file(tree: Path) -> None:
    path = tree / "P1" / "S1" / "x[1].png"
    path.write_bytes(b"x")
    assert _files(find_images([path]).files) == ["x[1].png"]


def test_a_named_file_is_taken_whatever_its_ending(tree: Path) -> None:
    assert _files(find_images([tree / "P2" / "S3" / "notes.txt"]).files) == ["notes.txt"]


def test_each_input_without_pictures_is_a_problem_and_the_others_go_through(tree: Path) -> None:
    (tree / "empty").mkdir()
    found = find_images([tree / "empty", tree / "none.png", str(tree / "*.bmp"), tree / "old.dinobloom", tree / "P1"])
    assert len(found.files) == 3
    text = {Path(problem.name).name: problem.message for problem in found.problems}
    assert "holds no images" in text["empty"]
    assert "no such file" in text["none.png"]
    assert "matches no images" in text["*.bmp"]
    assert "is a study" in text["old.dinobloom"]


@pytest.mark.skipif(os.name == "nt", reason="Windows allows no such names")
def test_names_that_a_study_cannot_store_are_problems(tree: Path) -> None:
    for name in (b"back\\slash.png", b"new\nline.png", b"latin\xe9.png"):
        with open(os.path.join(os.fsencode(tree), b"P1", name), "wb") as handle:
            handle.write(b"x")
    found = find_images([tree / "P1"])
    assert len(found.files) == 3
    assert len(found.problems) == 3
    assert all("Rename it" in problem.message and "\n" not in problem.name for problem in found.problems)
    [problem.name.encode() for problem in found.problems]


def test_links_to_pictures_count_once_and_links_to_folders_are_not_followed(tree: Path) -> None:
    (tree / "P1" / "S1" / "z.png").symlink_to(tree / "P1" / "S1" / "a.png")
    (tree / "P1" / "loop").symlink_to(tree)
    assert len(find_images([tree]).files) == 4


names = st.text(st.characters(categories=["L", "N"], include_characters=" -_.()"), min_size=1, max_size=8).filter(
    lambda text: text.strip(". ") == text
)


@settings(deadline=None, max_examples=40)
@given(st.lists(names, min_size=3, max_size=5))
def test_grouping_by_folder_is_the_folder(parts: list[str]) -> None:
    root = Path("/data")
    source = Source(root.joinpath(*parts), root, "/".join(parts))
    assert Grouping.parse("folder").group(source) == parts[-2]
    assert Grouping.parse("folder:2").group(source) == parts[-3]
    assert Grouping.parse("file").group(source) == source.file
    assert Grouping.parse(re.escape(parts[0]) + "/([^/]+)/").group(source) == parts[1].strip()


def _source(file: str) -> Source:
    root = Path("/data/run")
    return Source(root / PurePosixPath(file), root, file)


def test_a_named_group_and_an_ordinary_one() -> None:
    assert Grouping.parse(r"(?P<slide>S\d+)_").group(_source("x/S12_a.png")) == "S12"
    assert Grouping.parse(r"(S\d+)_").group(_source("x/S12_a.png")) == "S12"


def test_a_file_above_which_no_folder_lies_takes_the_folder_of_the_disk() -> None:
    assert Grouping.parse("folder:2").group(_source("a.png")) == "data"
    with pytest.raises(InputError, match="no folder 9 above it"):
        Grouping.parse("folder:9").group(_source("a.png"))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_names_files_by_path_or_name(tmp_path: Path, delimiter: str) -> None:
    rows = [["file", "patient", "slide"], ["P1/a.png", "Müller", "S1"], ["b.png", "Nguyễn", "S2"]]
    table = tmp_path / "map.csv"
    table.write_text("\ufeff" + "\n".join(delimiter.join(row) for row in rows), encoding="utf-8")
    patients = Grouping.parse(str(table), "patient").groups([_source("P1/a.png"), _source("P9/b.png")])
    assert patients == ["Müller", "Nguyễn"]
    assert Grouping.parse(str(table), "slide").group(_source("P1/a.png")) == "S1"


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("", "is empty"),
        ("folder:0", "0 groups"),
        ("(", "not a regular expression"),
        ("abc", "has 0 groups"),
        ("(a)(b)", "has 2 groups"),
        ("none.csv", "cannot be read"),
    ],
)
def test_wrong_rules_are_refused_before_any_work(spec: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        Grouping.parse(spec)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("name,slide\na,b\n", "'file' and 'slide' are needed"),
        ("file,slide\n", "no rows"),
        ("file,slide\na.png,\n", "row 2: 'file' or 'slide' is empty"),
        ("file,slide\na.png,S1\na.png,S2\n", "row 3: 'a.png' is 'S2' here and 'S1' above"),
        ("", "are needed"),
    ],
)
def test_wrong_csv_files_are_refused_by_row(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "map.csv").write_text(text)
    with pytest.raises(InputError, match=match):
        Grouping.parse(str(tmp_path / "map.csv"))


def test_files_that_no_rule_fits_are_counted_and_three_named() -> None:
    sources = [_source(f"f{i}.png") for i in range(5)] + [_source("S1_x.png")]
    with pytest.raises(InputError, match=r"5 file\(s\) without a slide") as caught:
        Grouping.parse("(S[0-9]+)_").groups(sources)
    assert str(caught.value).count("\n") == 3


def test_a_group_that_cannot_be_a_name_is_refused() -> None:
    with pytest.raises(DinoBloomError):
        Grouping.parse("(?s)^(.*)$").group(_source("x" * 2000))
