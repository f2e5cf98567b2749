"""The table of data sets: layouts of the public archives, splits, and the ones at hand for real."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.datasets import DATASETS
from napari_dinobloom.training.datasets import read_dataset
from napari_dinobloom.training.manifest import Row

LAYOUTS = [
    ("bmc", "BM_cytomorphology_data/ABE/1-28/ABE_00001.jpg", "ABE", ""),
    ("hehr", "data/NPM1/ABC12/image_0.tif", "NPM1", "ABC12"),
    ("matek", "AML-Cytomorphology_LMU/NGS/NGS_7366.tiff", "NGS", ""),
    ("acevedo", "PBC_dataset_normal_DIB/neutrophil/BNE_1234.jpg", "neutrophil_band", ""),
    ("acevedo", "ig/IG_12.jpg", "IG", ""),
    ("raabin", "Train/Lymphocyte/95-8-8-2_29_1.jpg", "Lymphocyte", "95-8-8-2"),
    ("lisc", "LISC Database/Main Dataset/Baso/49.bmp", "basophil", ""),
    ("chula", "Chula-RBC-12-Dataset/Dataset/141.jpg", "", ""),
    ("sslseg", "Dataset 1/001.bmp", "", ""),
    ("bccd", "BCCD/JPEGImages/BloodImage_00000.jpg", "", ""),
    ("aslan", "images/image-1.png", "", ""),
]


def _touch(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()


def _count(rows: list[Row]) -> Counter[tuple[str, str]]:
    return Counter((row.label, row.split) for row in rows)


@pytest.mark.parametrize(("name", "file", "label", "patient"), LAYOUTS)
def test_a_layout(tmp_path: Path, name: str, file: str, label: str, patient: str) -> None:
    _touch(tmp_path, file, "Dataset 1/001.png", "README.jpg", "masks/x_mask.png")
    (row,) = read_dataset(name, tmp_path)
    assert (row.path, row.dataset, row.label, row.patient) == (tmp_path / file, name, label, patient)
    assert row.name == file
    assert read_dataset(name, (tmp_path / file).parent)[0].path == row.path


def test_hehr_is_split_by_patient_within_each_class(tmp_path: Path) -> None:
    files = [
        f"{label}/{label[0]}{p:02}/image_{i}.tif" for label in ("NPM1", "control") for p in range(20) for i in range(3)
    ]
    _touch(tmp_path / "a", *files)
    rows = read_dataset("hehr", tmp_path / "a")
    assert _count(rows) == {
        ("NPM1", "train"): 48,
        ("NPM1", "test"): 12,
        ("control", "train"): 48,
        ("control", "test"): 12,
    }
    assert all(len({row.split for row in rows if row.patient == p}) == 1 for p in {row.patient for row in rows})
    _touch(tmp_path / "b", *reversed(files))
    assert [r.split for r in read_dataset("hehr", tmp_path / "b")] == [r.split for r in rows]


def test_bmc_is_split_by_picture_unless_its_folders_say(tmp_path: Path) -> None:
    _touch(tmp_path / "a", *(f"{c}/1-100/{c}_{i:05}.jpg" for c, n in (("NGS", 100), ("LYI", 4)) for i in range(n)))
    rows = read_dataset("bmc", tmp_path / "a")
    assert _count(rows) == {("NGS", "train"): 80, ("NGS", "test"): 20, ("LYI", "train"): 3, ("LYI", "test"): 1}
    assert [row.split for row in rows if row.label == "NGS"] != sorted(row.split for row in rows if row.label == "NGS")
    _touch(tmp_path / "b", "test/NGS/NGS_1.jpg", "train/NGS/NGS_2.jpg", "train/NGS/NGS_3.jpg")
    assert [row.split for row in read_dataset("bmc", tmp_path / "b")] == ["test", "train", "train"]


def test_raabin_trains_on_its_train_folder(tmp_path: Path) -> None:
    _touch(tmp_path, "Train/Basophil/95-5-1_1_1.jpg", "TestA/Basophil/95-5-1_1_2.jpg")
    assert _count(read_dataset("raabin", tmp_path)) == {("Basophil", "train"): 1, ("Basophil", "test"): 1}


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nearest is 'raabin'"):
        read_dataset("raabbin", tmp_path)
    with pytest.raises(InputError, match="not released"):
        read_dataset("la", tmp_path)
    with pytest.raises(InputError, match="no picture laid out as data set 'bmc'"):
        read_dataset("bmc", tmp_path)
    assert len(DATASETS) == 13


@pytest.mark.real_data
def test_the_ones_at_hand(real_data: Path) -> None:
    rows = read_dataset("acevedo", real_data / "pbc")
    with (real_data / "pbc.csv").open(newline="", encoding="utf-8") as handle:
        known = {str((real_data / line["file"]).resolve()): line["cell_type"] for line in csv.DictReader(handle)}
    assert {str(row.path): row.label for row in rows} == known
    assert {row.split for row in rows} == {"test"}
    assert len(read_dataset("bccd", real_data / "bccd")) == 364
    assert len(read_dataset("sslseg", real_data / "sslseg")) == 400
    assert {name for name, data in DATASETS.items() if data.verified} == {"acevedo", "bccd", "sslseg"}
