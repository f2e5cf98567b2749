"""Data sets as they were published: found, told apart, and what is wrong with them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from painted_sets import paint

from napari_dinobloom.errors import InputError
from napari_dinobloom.predict.protocols.layouts import read_layout


def touch(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def rows(root: Path, *arguments: object, **options: object) -> list[tuple[str, ...]]:
    return list(read_layout(root, *arguments, **options).table.itertuples(index=False, name=None))


def test_acevedo_has_eleven_classes_in_eight_folders(tmp_path: Path) -> None:
    names = {
        "basophil": ["BA"],
        "eosinophil": ["EO"],
        "erythroblast": ["ERB"],
        "ig": ["IG", "MMY", "MY", "PMY"],
        "lymphocyte": ["LY"],
        "monocyte": ["MO"],
        "neutrophil": ["BNE", "NEUTROPHIL", "SNE"],
        "platelet": ["PLATELET"],
    }
    for folder, prefixes in names.items():
        touch(tmp_path, *(f"{folder}/{prefix}_{i}.jpg" for prefix in prefixes for i in (2, 10)))
    found = read_layout(tmp_path)
    assert found.layout == "acevedo"
    assert " ".join(sorted(found.table["label"].unique())) == "BA BNE EO ERB LY MMY MO MY PLATELET PMY SNE"
    assert not found.fixed
    assert found.table["file"].tolist() == sorted(found.table["file"])
    assert found.table["file"][0] == "basophil/BA_10.jpg"  # as text: 10 before 2, on every file system
    assert found.notes[0].startswith("4 pictures are not laid out as 'acevedo'")
    assert "4 of them begin with IG or NEUTROPHIL" in found.notes[1]
    as_folders = read_layout(tmp_path, "folders")
    assert as_folders.table["label"].nunique() == 8
    assert len(as_folders.table) == 26


def test_the_order_does_not_depend_on_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *(f"a/BA_{i}.jpg" for i in range(5)), *(f"b/EO_{i}.jpg" for i in range(5)))
    expected = rows(tmp_path)
    walk = __import__("os").walk

    def backwards(*arguments: object, **options: object) -> object:
        for place, folders, files in walk(*arguments, **options):
            folders.reverse()
            yield place, folders, files[::-1]

    monkeypatch.setattr("os.walk", backwards)
    assert rows(tmp_path) == expected


def test_bmc_by_the_lists_of_the_paper(tmp_path: Path) -> None:
    touch(tmp_path, "BM/ABE/ABE_00001.jpg", "BM/BLA/1-2/BLA_00001.jpg", "BM/BLA/1-2/BLA_00002.jpg", "BM/EOS/EOS_1.jpg")
    (tmp_path / "splits").mkdir()
    place = "/lustre/groups/someone/BM_cytomorphology_data"
    (tmp_path / "splits" / "bm_train.csv").write_text(
        f"Image Path,Label\n{place}/BLA/1-2/BLA_00001.jpg,BLA\n{place}/ABE/ABE_00001.jpg,ABE\n"
    )
    (tmp_path / "splits" / "bm_test.csv").write_text(f"Image Path,Label\n{place}/BLA/1-2/BLA_00002.jpg,BLA\n")
    found = read_layout(tmp_path)
    assert (found.layout, found.fixed) == ("bmc", True)
    assert rows(tmp_path) == [
        ("BM/ABE/ABE_00001.jpg", "ABE", "train", ""),
        ("BM/BLA/1-2/BLA_00001.jpg", "BLA", "train", ""),
        ("BM/BLA/1-2/BLA_00002.jpg", "BLA", "test", ""),
    ]
    shutil.move(tmp_path / "splits", tmp_path.parent / f"{tmp_path.name}-lists")
    assert rows(tmp_path, lists=tmp_path.parent / f"{tmp_path.name}-lists") == list(
        found.table.itertuples(index=False, name=None)
    )
    assert {row[2] for row in rows(tmp_path)} == {""}  # class folders alone fix no split


def test_lists_of_bmc_that_do_not_fit_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "x/BLA/BLA_1.jpg", "y/BLA/BLA_1.jpg", "x/ABE/ABE_1.jpg")
    (tmp_path / "bm_test.csv").write_text("Image Path,Label\n/a/ABE/ABE_1.jpg,ABE\n")
    train = tmp_path / "bm_train.csv"
    for text, message in [
        ("Path,Label\n/a/BLA_1.jpg,BLA\n", "no column 'Image Path'"),
        ("Image Path,Label\n/a/BLA_9.jpg,BLA\n", r"1 pictures of the lists.*bm_train.csv row 2: /a/BLA_9.jpg.*TCIA"),
        ("Image Path,Label\n/a/BLA/BLA_1.jpg,BLA\n", "row 2: .* could be"),
        ("Image Path,Label\n/x/ABE/ABE_1.jpg,\n", "row 2 has no Label"),
        ("Image Path,Label\n/x/ABE/ABE_1.jpg,ABE\n", "row 2 names 'x/ABE/ABE_1.jpg' again"),
    ]:
        train.write_text(text)
        with pytest.raises(InputError, match=message):
            read_layout(tmp_path)
    train.write_text("Image Path,Label\n/a/y/BLA/BLA_1.jpg,BLA\n")
    assert [row[0] for row in rows(tmp_path)] == ["x/ABE/ABE_1.jpg", "y/BLA/BLA_1.jpg"]


def test_hehr_has_patients(tmp_path: Path) -> None:
    touch(tmp_path, "train/NPM1/P1/image_0.tif", "test/control/P2/image_0.tif", "test/control/P2/image_1.tif")
    assert rows(tmp_path) == [
        ("test/control/P2/image_0.tif", "control", "test", "P2"),
        ("test/control/P2/image_1.tif", "control", "test", "P2"),
        ("train/NPM1/P1/image_0.tif", "NPM1", "train", "P1"),
    ]
    touch(tmp_path, "train/control/P1/image_0.tif")
    with pytest.raises(InputError, match="patient 'P1' lies below NPM1 and control"):
        read_layout(tmp_path)


def test_class_folders_below_train_and_test(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/2.png", "test/b/x/2.png")
    found = read_layout(tmp_path)
    assert (found.layout, found.fixed) == ("folders", True)
    assert rows(tmp_path)[1] == ("test/b/x/2.png", "b", "test", "")
    touch(tmp_path, "val/a/3.png")
    assert [row for row in rows(tmp_path) if row[0].startswith("val")] == []
    assert read_layout(tmp_path).notes == ("1 pictures are not laid out as 'folders' and are left out.",)
    shutil.rmtree(tmp_path / "test")
    assert {row[1] for row in rows(tmp_path / "train")} == {"a", "b"}


def test_a_table(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a.png", "c.png")
    table = tmp_path / "set.csv"
    table.write_text("file,cell_type,split,patient\nb.png,x,train,p\na.png,y,test,\nc.png,y,validation,q\n")
    assert rows(table) == [("a.png", "y", "test", ""), ("b.png", "x", "train", "p")]
    assert read_layout(table).notes == ("1 rows with the split 'validation' are left out.",)
    table.write_text("file,cell_type\nb.png,x\na.png,y\n")
    assert rows(table) == [("a.png", "y", "", ""), ("b.png", "x", "", "")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,x\n", "no column 'cell_type'; it has file, label"),
        ("file,cell_type\nnothing.png,x\n", "row 2 names 'nothing.png'"),
        ("file,cell_type\na.png,\n", "row 2 has no file or no cell_type"),
        ("file,cell_type\na.png,x\na.png,y\n", "row 3 names 'a.png' again"),
        ("file,cell_type,split\na.png,x,train\n", "no row has the split 'test'"),
        ("file,cell_type\n", "no row names a picture"),
        ("file,cell_type\na.png,x\n", "has 1 class"),
        ("", "cannot be read as a CSV"),
    ],
)
def test_a_table_that_cannot_be_used_is_told(tmp_path: Path, text: str, message: str) -> None:
    paint(tmp_path / "a.png", 0)
    (tmp_path / "set.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_layout(tmp_path / "set.csv")


def test_what_cannot_be_found_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_layout(tmp_path / "nothing")
    with pytest.raises(InputError, match="holds no pictures"):
        read_layout(tmp_path)
    touch(tmp_path, "a/x.png", "b/y.png")
    with pytest.raises(InputError, match=r"not known\. Use auto, acevedo"):
        read_layout(tmp_path, "pbc")
    with pytest.raises(InputError, match=r"laid out as 'hehr' \(data/NPM1"):
        read_layout(tmp_path, "hehr")
    with pytest.raises(InputError, match="needs a CSV"):
        read_layout(tmp_path, "table")
    with pytest.raises(InputError, match=r"no bm_train.csv and bm_test.csv"):
        read_layout(tmp_path, lists=tmp_path)
