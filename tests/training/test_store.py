"""From pictures to a store and back: bytes as Pillow makes them, bad files listed, a killed run goes on."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_dinobloom.encoders.splits import held_out
from napari_dinobloom.errors import InputError, StudyError
from napari_dinobloom.training import prepare as command
from napari_dinobloom.training import shards
from napari_dinobloom.training.evaluation import read_set
from napari_dinobloom.training.manifest import Row, read_manifest, write_manifest
from napari_dinobloom.training.prepare import iter_prepare, prepare
from napari_dinobloom.training.shards import PrepareConfig
from napari_dinobloom.training.store import BYTES, Store, verify

THREE = PrepareConfig(shard_bytes=3 * BYTES)


def _picture(path: Path, seed: int, shape: tuple[int, int] = (60, 45)) -> Path:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)
    Image.fromarray(coarse).resize(shape, Image.Resampling.BICUBIC).save(path, quality=95)
    return path


def _rows(folder: Path, count: int) -> list[Row]:
    """Pictures of two data sets in turn, with classes."""
    return [
        Row(_picture(folder / f"{i}.jpg", i, (40 + 30 * i, 300 - 20 * i)), "ab"[i % 2], f"class {i % 3}", split="test")
        for i in range(count)
    ]


def _pillow(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.LANCZOS))


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_raw_pictures_are_those_of_the_reference_in_any_order(tmp_path: Path) -> None:
    rows = _rows(tmp_path, 7)
    store = prepare(rows, tmp_path / "store", THREE).store
    assert (store.names, store.sizes, len(store)) == (["a", "b"], [4, 3], 7)
    assert [shard["bytes"] // BYTES for shard in store.about["shards"]] == [3, 3, 1]
    order = [0, 2, 4, 6, 1, 3, 5]  # a data set's rows lie together
    asked = np.array([6, 0, 3, 3, 5])
    np.testing.assert_array_equal(store.read(asked), [_pillow(rows[order[i]].path) for i in asked])
    assert [store.classes[i] for i in store.labels] == [rows[i].label for i in order]
    digests = [hashlib.sha256(rows[i].path.read_bytes()).digest() for i in order]
    assert [bytes(one) for one in store.sha256] == digests
    assert read_manifest(tmp_path / "store" / "pictures.csv") == [rows[i] for i in order]
    assert store.read(np.array([], np.int64)).shape == (0, 224, 224, 3)
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.read(asked), store.read(asked))
    for row in (-1, 7):
        with pytest.raises(IndexError):
            store.read(np.array([row]))


def test_jpeg_pictures_are_those_that_pillow_writes(tmp_path: Path) -> None:
    rows = _rows(tmp_path, 5)
    prepare(rows, tmp_path / "store", PrepareConfig(format="jpeg", shard_bytes=2 * BYTES), workers=3)
    expected = []
    for i in (0, 2, 4, 1, 3):
        out = io.BytesIO()
        Image.fromarray(_pillow(rows[i].path)).save(out, "JPEG", quality=85)
        expected.append(np.asarray(Image.open(out)))
    for threads in (1, 2):
        np.testing.assert_array_equal(Store.open(tmp_path / "store", threads).read(np.arange(5)), expected)


def test_files_that_cannot_be_used_are_listed(tmp_path: Path) -> None:
    rows = _rows(tmp_path, 4)
    (tmp_path / "twin.jpg").write_bytes(rows[1].path.read_bytes())
    (tmp_path / "cut.jpg").write_bytes(rows[2].path.read_bytes()[:-900])
    (tmp_path / "text.jpg").write_text("no picture", encoding="utf-8")
    Image.new("RGB", (1, 1), "red").save(tmp_path / "pixel.png")
    Image.new("L", (50, 50), 90).save(tmp_path / "grey.png")
    bad = ["gone.jpg", "cut.jpg", "text.jpg", "pixel.png", "grey.png"]
    given = [Row(tmp_path / name, "a") for name in bad[:3]] + rows + [Row(tmp_path / name, "b") for name in bad[3:]]
    made = prepare([*given, Row(tmp_path / "twin.jpg", "c"), rows[0]], tmp_path / "store", THREE)
    assert len(made.store) == 4
    with (tmp_path / "store" / "unreadable.csv").open(newline="", encoding="utf-8") as handle:
        lines = {Path(line["file"]).name: line["reason"] for line in csv.DictReader(handle)}
    assert set(lines) == {*bad, "twin.jpg", "0.jpg"}
    assert "no such file" in lines["gone.jpg"]
    assert "1 x 1 pixels" in lines["pixel.png"]
    assert "greyscale" in lines["grey.png"]
    assert lines["twin.jpg"].endswith("1.jpg")
    assert len(made.left_out) == 7
    np.testing.assert_array_equal(made.store.read(np.array([0])), [_pillow(rows[0].path)])


@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, kind: str) -> None:
    rows = _rows(tmp_path, 8)
    config = PrepareConfig(format=kind, shard_bytes=3 * BYTES)  # type: ignore[arg-type]
    prepare(rows, tmp_path / "whole", config, workers=3)
    steps = iter_prepare(rows, tmp_path / "store", config, workers=1)
    while not (tmp_path / "store" / "shard-00001.json").exists():
        next(steps)
    steps.close()
    before = (tmp_path / "store" / "shard-00000.json").stat().st_mtime_ns
    assert not (tmp_path / "store" / "index.safetensors").exists()
    with pytest.raises(InputError, match="no finished store"):
        Store.open(tmp_path / "store")
    prepare(rows, tmp_path / "store", config, workers=2)
    assert _bytes(tmp_path / "store") == _bytes(tmp_path / "whole")
    assert (tmp_path / "store" / "shard-00000.json").stat().st_mtime_ns == before


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_command_goes_on(tmp_path: Path) -> None:
    rows = _rows(tmp_path, 8)
    write_manifest(tmp_path / "list.csv", rows)
    code = (
        "import sys, time; from napari_dinobloom.training import prepare, shards\n"
        "old = shards.make\ndef make(row, config):\n    time.sleep(0.2); return old(row, config)\n"
        "shards.make = make; shards.BYTES; from napari_dinobloom.training.shards import PrepareConfig as C\n"
        "from napari_dinobloom.training.manifest import read_manifest; from pathlib import Path\n"
        f"prepare.prepare(read_manifest({str(tmp_path / 'list.csv')!r}), Path({str(tmp_path / 'store')!r}), "
        "C(shard_bytes=3 * shards.BYTES), workers=1)"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not (tmp_path / "store" / "shard-00000.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "store" / "index.safetensors").exists()
    prepare(rows, tmp_path / "store", THREE)
    prepare(rows, tmp_path / "whole", THREE)
    assert _bytes(tmp_path / "store") == _bytes(tmp_path / "whole")


def test_a_store_of_other_settings_is_not_touched(tmp_path: Path) -> None:
    rows = _rows(tmp_path, 4)
    prepare(rows, tmp_path / "store", THREE)
    before = _bytes(tmp_path / "store")
    for given, config in ((rows[:3], THREE), (rows, PrepareConfig(kernel="bicubic", shard_bytes=3 * BYTES))):
        with pytest.raises(InputError, match="other pictures or settings"):
            prepare(given, tmp_path / "store", config)
    assert _bytes(tmp_path / "store") == before


def test_a_full_disk_leaves_finished_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _rows(tmp_path, 5)
    real = shards.encode
    calls = iter(range(100))

    def encode(picture: np.ndarray, config: PrepareConfig) -> bytes:
        if next(calls) == 4:
            raise OSError(28, "No space left on device")
        return real(picture, config)

    monkeypatch.setattr(shards, "encode", encode)
    with pytest.raises(StudyError, match="disk, or your quota on it, is full"):
        prepare(rows, tmp_path / "store", THREE, workers=1)
    left = {path.name for path in (tmp_path / "store").iterdir()}
    assert left == {"shard-00000.json", "shard-00000.raw"}


def test_damage_is_found(tmp_path: Path) -> None:
    prepare(_rows(tmp_path, 5), tmp_path / "store", THREE)
    assert verify(tmp_path / "store") == []
    path = tmp_path / "store" / "shard-00001.raw"
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.write_bytes(data)
    (problem,) = verify(tmp_path / "store")
    assert "shard-00001.raw: has changed" in problem
    path.write_bytes(data[:-1])
    with pytest.raises(InputError, match=r"shard-00001\.raw: is missing or not"):
        Store.open(tmp_path / "store")


def test_what_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No picture is given"):
        prepare([], tmp_path / "store")
    with pytest.raises(InputError, match=r"x\.png: there is no such file, nor are 1 others"):
        prepare([Row(tmp_path / "x.png", "a"), Row(tmp_path / "y.png", "a")], tmp_path / "store")
    assert not (tmp_path / "store").exists()
    for wrong in ({"quality": 0}, {"shard_bytes": 10}, {"format": "png"}, {"kernel": "nearest"}):
        with pytest.raises(InputError):
            PrepareConfig(**wrong)  # type: ignore[arg-type]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = _rows(tmp_path, 4)
    write_manifest(tmp_path / "list.csv", [*rows, Row(tmp_path / "gone.png", "b", split="test")])
    store, listed = str(tmp_path / "store"), ["--manifest", str(tmp_path / "list.csv")]
    assert command.main([store, *listed]) == 2
    assert "--split train: no picture has it" in capsys.readouterr().err
    assert command.main([store, *listed, "--split", "test", "--format", "jpeg"]) == 1
    said = capsys.readouterr().err
    assert "a: 2 pictures" in said
    assert "left out, 1: there is no such file" in said
    assert command.main([store, "--verify"]) == 0
    assert command.main([store, "--dataset", "bmc"]) == 2


def test_pictures_that_are_asked_about_are_not_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [_picture(tmp_path / f"{i}.png", i).name for i in range(20)]
    assert [i for i, file in enumerate(files) if held_out(file)] == [7, 8, 13, 16]
    for twin, kept in ((3, 7), (5, 13)):
        (tmp_path / files[twin]).write_bytes((tmp_path / files[kept]).read_bytes())
    table = tmp_path / "labels.csv"
    lines = [f"{file},{'ab'[i % 2]},{'test' if i == 13 else 'train'}" for i, file in enumerate(files)]
    table.write_text("\n".join(["file,cell_type,split", *lines]), encoding="utf-8")
    asked = ["--manifest", str(table)]
    assert command.main([str(tmp_path / "apart"), *asked, "--keep-apart"]) == 1  # the twins are listed
    assert "kept apart, 3: not in the store" in capsys.readouterr().err  # one more is no picture of this split
    apart = Store.open(tmp_path / "apart")
    stored = {Path(row.path).name for row in read_manifest(tmp_path / "apart" / "pictures.csv")}
    assert stored == {file for i, file in enumerate(files) if i not in (3, 5, 7, 8, 13, 16)}
    assert "13.png, which is kept apart" in (tmp_path / "apart" / "unreadable.csv").read_text(encoding="utf-8")
    assert read_set(table, batch=8, trained=apart.sha256).kept.sum() == 3  # 13 is for reporting
    command.main([str(tmp_path / "all"), *asked])
    with pytest.raises(InputError, match=r"labels\.csv: 3 of 3 .* such as .*7\.png.*prepare --keep-apart"):
        read_set(table, batch=20, trained=Store.open(tmp_path / "all").sha256)
    assert command.main([str(tmp_path / "all"), *asked, "--keep-apart"]) == 2  # another store


@pytest.mark.real_data
def test_fields_are_cut_into_cells(tmp_path: Path, real_data: Path) -> None:
    fields = [Row(real_data / "bccd" / "images" / f"BloodImage_0000{i}.jpg", "bccd") for i in (0, 3)]
    cut = prepare(fields, tmp_path / "cut", PrepareConfig(cut_fields=("bccd",))).store
    whole = prepare(fields, tmp_path / "whole").store
    assert (len(cut), len(whole)) == (2, 2)  # one whole white cell in each
    red = cut.read(np.arange(2))[..., 0].astype(float)
    assert (red[:, 62:162, 62:162].mean((1, 2)) + 10 < red.mean((1, 2))).all()  # a cell stands in the middle
    np.testing.assert_array_equal(whole.read(np.array([1]))[0], _pillow(fields[1].path))
