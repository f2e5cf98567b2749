from pathlib import Path

import pytest

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.annotations.matching import key_of_text, match_files, match_keys

ENDINGS = (".xml", ".png")


def _touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def _images(folder: Path, *names: str) -> dict[str, Path]:
    _touch(folder, *names)
    return {name: folder / name for name in names}


def test_a_file_is_found_by_name_and_by_folder_where_names_repeat(tmp_path):
    images = _images(tmp_path / "images", "anna/f0.png", "bert/f0.png", "bert/f1.ome.tif", "bert/f2.png")
    marks = _touch(tmp_path / "marks", "anna/f0.xml", "bert/f0_mask.png", "f1.xml", "other.xml", "classes.txt")
    found = match_files(marks, images, ENDINGS)
    assert found == {
        "anna/f0.png": marks / "anna/f0.xml",
        "bert/f0.png": marks / "bert/f0_mask.png",
        "bert/f1.ome.tif": marks / "f1.xml",
        "bert/f2.png": None,
    }


def test_marks_beside_the_images(tmp_path):
    images = _images(tmp_path, "a.png", "b.png")
    _touch(tmp_path, "a_mask.png", "b.xml")
    assert match_files(tmp_path, images, ENDINGS) == {"a.png": tmp_path / "a_mask.png", "b.png": tmp_path / "b.xml"}


def test_label_images_that_this_program_exported_are_found(tmp_path):
    images = _images(tmp_path / "images", "a.png")
    marks = _touch(tmp_path / "tables", "a-cells.png")
    assert match_files(marks, images, ENDINGS) == {"a.png": marks / "a-cells.png"}


def test_one_file_goes_with_the_only_image_whatever_its_name(tmp_path):
    images = _images(tmp_path, "smear.png", "second.png")
    marks = _touch(tmp_path, "second_labels.png") / "second_labels.png"
    assert match_files(marks, {"smear.png": images["smear.png"]}, ENDINGS) == {"smear.png": marks}
    assert match_files(marks, images, ENDINGS) == {"smear.png": None, "second.png": marks}


def test_what_is_not_clear_is_an_error_that_names_both(tmp_path):
    images = _images(tmp_path / "images", "anna/f0.png", "bert/f0.png")
    with pytest.raises(InputError, match=r"fits both .*anna.* and .*bert"):
        match_files(_touch(tmp_path / "marks", "f0.xml"), images, ENDINGS)
    twice = _touch(tmp_path / "twice", "anna/f0.xml", "anna/f0.png")
    with pytest.raises(InputError, match=r"f0\.png and f0\.xml"):
        match_files(twice, images, ENDINGS)
    with pytest.raises(InputError, match="nothing for any of the 2 images"):
        match_files(_touch(tmp_path / "none", "g.xml"), images, ENDINGS)
    with pytest.raises(InputError, match="no such file"):
        match_files(tmp_path / "absent", images, ENDINGS)


def test_tables_name_images_with_any_slash_and_with_or_without_ending():
    keys = [key_of_text(name) for name in ("anna\\f0.png", "/bert/f0", "f1.ome.tif")]
    assert keys == ["anna/f0", "bert/f0", "f1"]
    images = {
        "1": Path("/d/anna/f0.png"),
        "2": Path("/d/bert/f0.png"),
        "3": Path("/d/f1.ome.tif"),
        "4": Path("/d/f2.png"),
    }
    assert match_keys(Path("t.csv"), keys, images) == {"1": "anna/f0", "2": "bert/f0", "3": "f1", "4": None}
