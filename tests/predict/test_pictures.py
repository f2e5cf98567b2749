"""Labelled pictures: how they are found, cropped, and made an atlas."""

from __future__ import annotations

import csv
import hashlib
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from napari_dinobloom.cells.crop import CropPolicy
from napari_dinobloom.errors import AtlasError
from napari_dinobloom.predict import pictures as picturing
from napari_dinobloom.predict.atlas import Atlas
from napari_dinobloom.predict.atlas_build import build_atlas, iter_build_atlas
from napari_dinobloom.predict.pictures import central_cell, iter_embed_pictures, read_labelled
from napari_dinobloom.progress import drain

SIDE = 240
ENCODER = SimpleNamespace(
    name="mean colour",
    sha256="cd" * 32,
    embed=lambda crops: crops.reshape(len(crops), -1, 3).mean(axis=1).astype(np.float32),
)


def draw(path: Path, colour: tuple[int, int, int] | None, seed: int) -> None:
    """A picture of red cells at 0.1 um, with a round nucleus of `colour` near its middle, or none."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    picture = np.full((SIDE, SIDE, 3), (244, 236, 228), np.float64)
    for cy, cx in ((45, 45), (45, 195), (195, 45), (195, 195)):
        picture[np.hypot(y - cy, x - cx) < 37] = (214, 170, 168)
    if colour is not None:
        cy, cx = rng.integers(115, 126, 2)
        picture[np.hypot(y - cy, x - cx) < 46] = (196, 178, 214)
        picture[np.hypot(y - cy, x - cx) < 34] = colour
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders and a CSV that names the same pictures."""
    root = tmp_path_factory.mktemp("set")
    rows = []
    for label, colour in (("lymphocyte", (90, 50, 140)), ("monocyte", (120, 60, 120)), ("platelet", None)):
        for i in range(4):
            draw(root / label / f"{i}.png", colour, 10 * i + len(label))
            rows.append({"file": f"{label}/{i}.png", "cell_type": label, "split": "test" if i == 3 else "train"})
    with (root / "set.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, ["file", "cell_type", "split"])
        writer.writeheader()
        writer.writerows(rows)
    return root


def test_a_table_and_class_folders_name_the_same_pictures(folder: Path) -> None:
    of_table, of_folder = read_labelled(folder / "set.csv"), read_labelled(folder)
    assert of_table == of_folder
    assert [p.label for p in of_table] == ["lymphocyte"] * 4 + ["monocyte"] * 4 + ["platelet"] * 4
    assert all(p.held_out for p in of_table)


def test_a_split_and_a_rule_choose(folder: Path) -> None:
    train = read_labelled(folder / "set.csv", split="train", held_out=lambda file: file.endswith("0.png"))
    assert len(train) == 9
    assert [p.held_out for p in train] == [True, False, False] * 3
    assert not any(p.held_out for p in read_labelled(folder, held_out=False))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,x\n", "'cell_type' is missing"),
        ("file,cell_type\nnothing.png,x\n", "row 2 names 'nothing.png'"),
        ("file,cell_type\nlymphocyte/0.png,\n", "row 2 has no file or no cell_type"),
        ("file,cell_type\n", "no labelled picture"),
        ("", "no labelled picture"),
    ],
)
def test_a_table_that_cannot_be_used_is_told(folder: Path, text: str, message: str) -> None:
    path = folder / "bad.csv"
    path.write_text(text)
    with pytest.raises(AtlasError, match=message):
        read_labelled(path)
    path.unlink()


def test_a_missing_split_and_an_empty_folder_are_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match="no row has the split 'validation'"):
        read_labelled(folder / "set.csv", split="validation")
    with pytest.raises(AtlasError, match="has no splits"):
        read_labelled(folder, split="train")
    with pytest.raises(AtlasError, match="no labelled picture"):
        read_labelled(tmp_path)
    with pytest.raises(AtlasError, match="cannot be read"):
        read_labelled(tmp_path / "nothing.csv")


def test_the_central_cell_is_the_one_nearest_to_the_middle() -> None:
    table = pd.DataFrame({"y0": [0, 40, 45], "x0": [0, 40, 30], "y1": [20, 70, 55], "x1": [20, 70, 50]})
    assert central_cell(table, 100, 100) == 1
    assert central_cell(table.iloc[:1], 100, 100) is None
    assert central_cell(table.iloc[:0], 100, 100) is None


@pytest.mark.parametrize("kind", ["published", "context"])
def test_an_atlas_of_pictures(folder: Path, tmp_path: Path, kind: str) -> None:
    policy = CropPolicy(kind=kind)
    pictures = read_labelled(folder, held_out=lambda file: file.endswith("3.png"))
    atlas = build_atlas(pictures, ENCODER, policy, name="drawn", k=3, info={"licence": "none"})
    assert atlas.classes == ("lymphocyte", "monocyte", "platelet")
    assert atlas.policy_hash == policy.hash
    assert atlas.encoder_sha256 == ENCODER.sha256
    files = [hashlib.sha256(p.path.read_bytes()).hexdigest()[:16] for p in pictures]
    assert atlas.source.tolist() == files
    assert np.trace(atlas.confusion) == 3
    assert atlas.info["cells"]["platelet"]["n"] == 4
    assert atlas.info["cells"]["platelet"]["held_out"] == 1
    centred = {name: about["centred"] for name, about in atlas.info["cells"].items()}
    assert centred == {"lymphocyte": 0, "monocyte": 0, "platelet": 4 if kind == "context" else 0}
    if kind == "context":
        assert atlas.info["pixel_size_um"] == pytest.approx(0.1, rel=0.08)
    again = build_atlas(pictures, ENCODER, policy, name="drawn", k=3, workers=1, info={"licence": "none"})
    assert again.hash == atlas.hash
    assert Atlas.load(atlas.save(tmp_path / "drawn.safetensors")).hash == atlas.hash


def test_building_tells_how_far_it_is(folder: Path) -> None:
    pictures = read_labelled(folder)
    steps = iter_build_atlas(pictures, ENCODER, CropPolicy(kind="published"), name="drawn", k=3)
    seen = [progress.done for progress in steps]
    assert seen == sorted(seen)
    assert seen[-1] == 2 * len(pictures)


def test_pictures_that_cannot_be_read_are_named_before_any_work(folder: Path, tmp_path: Path) -> None:
    for label in ("a", "b"):
        draw(tmp_path / label / "good.png", None, len(label))
        (tmp_path / label / f"broken-{label}.png").write_bytes(b"\x89PNG nothing")
    refuses = SimpleNamespace(name="x", sha256="x", embed=lambda crops: pytest.fail("embedded"))
    with pytest.raises(AtlasError, match=r"2 of 4 pictures.*broken-a\.png.*broken-b\.png"):
        build_atlas(read_labelled(tmp_path), refuses, CropPolicy(kind="published"), name="x")


def test_the_same_picture_twice_counts_once_and_must_agree(folder: Path, tmp_path: Path) -> None:
    for label, name, seed in (("a", "one", 1), ("b", "one", 2), ("b", "three", 3)):
        draw(tmp_path / label / f"{name}.png", (90, 50, 140), seed)
    copy = tmp_path / "a" / "two.png"
    copy.write_bytes((tmp_path / "a" / "one.png").read_bytes())
    policy = CropPolicy(kind="published")
    atlas = drain(iter_build_atlas(read_labelled(tmp_path), ENCODER, policy, name="x", k=1))
    assert len(atlas) == 3
    assert atlas.info["same_picture_twice"] == 1
    copy.write_bytes((tmp_path / "b" / "one.png").read_bytes())
    with pytest.raises(AtlasError, match="same picture, but their classes"):
        build_atlas(read_labelled(tmp_path), ENCODER, policy, name="x", k=1)


def test_the_next_pictures_are_cropped_while_these_are_embedded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call of the encoder does not return before a picture of the second is being cropped."""
    policy, found = CropPolicy(kind="published"), read_labelled(folder)
    expected = drain(iter_embed_pictures(found, ENCODER, policy))
    monkeypatch.setattr(picturing, "CHUNK", 5)
    begun, sizes, crop, second = [], [], picturing._crop, threading.Event()

    def note(*arguments: object) -> object:
        begun.append(arguments[0])
        if len(begun) > 5:
            second.set()
        return crop(*arguments)

    def embed(crops: np.ndarray) -> np.ndarray:
        assert second.wait(20)
        sizes.append(len(crops))
        return ENCODER.embed(crops)

    monkeypatch.setattr(picturing, "_crop", note)
    encoder = SimpleNamespace(name="x", sha256="x", embed=embed)
    embedded = drain(iter_embed_pictures(found, encoder, policy, workers=3))
    assert sizes == [5, 5, 2]
    np.testing.assert_array_equal(embedded.X, expected.X)
    assert embedded.y.tolist() == expected.y.tolist()


def test_whoever_stops_does_not_wait_for_the_next_pictures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picturing, "CHUNK", 5)
    begun: list[object] = []

    def crop(*arguments: object) -> object:
        begun.append(arguments[0])
        time.sleep(0.25 if len(begun) > 5 else 0)
        return np.zeros((224, 224, 3), np.uint8), False

    monkeypatch.setattr(picturing, "_crop", crop)
    steps = iter_embed_pictures(read_labelled(folder), ENCODER, CropPolicy(kind="published"), workers=1)
    next(report for report in steps if report.message.startswith("segmenting"))
    steps.close()
    assert len(begun) < 10


def test_an_atlas_belongs_to_one_pooling(folder: Path, tmp_path: Path) -> None:
    policy = CropPolicy(kind="published")
    both = SimpleNamespace(**vars(ENCODER), pooling="class+mean")
    plain, doubled = (build_atlas(read_labelled(folder), encoder, policy, name="x", k=3) for encoder in (ENCODER, both))
    doubled = Atlas.load(doubled.save(tmp_path / "x.safetensors"))
    plain.check(ENCODER, policy)
    doubled.check(both, policy)
    for atlas, other in ((plain, both), (doubled, ENCODER)):
        with pytest.raises(AtlasError, match=r"was built with pooling 'class.*' was taken: use the atlas"):
            atlas.check(other, policy)
