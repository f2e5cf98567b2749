"""Embeddings of a data set: kept, gone on with after a kill, and nothing lost to a file that cannot be read."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from painted_sets import MeanColour, paint

from napari_dinobloom.cells.crop import CropPolicy, resize_picture
from napari_dinobloom.errors import InputError
from napari_dinobloom.io.smear import read_pixels
from napari_dinobloom.predict import pictures as picturing
from napari_dinobloom.predict.protocols.cohort import Cohort, iter_embed_cohort
from napari_dinobloom.predict.protocols.layouts import LabelledFiles, read_layout
from napari_dinobloom.progress import drain

POLICY = CropPolicy(kind="published", size=16)

KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from painted_sets import MeanColour
from napari_dinobloom.cells.crop import CropPolicy
from napari_dinobloom.predict.protocols.cohort import iter_embed_cohort
from napari_dinobloom.predict.protocols.layouts import read_layout
policy = CropPolicy(kind="published", size=16)
for report in iter_embed_cohort(read_layout(sys.argv[1]), MeanColour(), policy, Path(sys.argv[2])):
    if report.step == "embed" and report.done > 320:
        print("past a block", flush=True)
        time.sleep(60)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("set")
    for i in range(600):
        paint(root / "ab"[i % 2] / f"{i}.png", i, 20 * (i % 2))
    return root


def embedded(files: LabelledFiles, cache: Path, encoder: MeanColour | None = None, **options: object) -> Cohort:
    return drain(iter_embed_cohort(files, encoder or MeanColour(), POLICY, cache, **options))


def test_a_killed_run_goes_on_and_gives_the_same(folder: Path, tmp_path: Path) -> None:
    whole = embedded(read_layout(folder), tmp_path / "whole")
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", KILLED, str(folder), str(cache), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "past a block\n"
        process.kill()
    (torn,) = [path for path in cache.iterdir() if path.name.startswith("mean-colour")]
    assert len(list(torn.glob("*.safetensors"))) == 1
    for name, age in (("old", 90_000), ("new", 60)):  # the new one may be of a run beside this one
        part = torn / f".{name}.safetensors.part-1234"
        part.write_bytes(b"half")
        os.utime(part, (time.time() - age,) * 2)
    encoder = MeanColour()
    again = embedded(read_layout(folder), cache, encoder)
    assert encoder.seen == 600 - 256
    np.testing.assert_array_equal(again.X, whole.X)
    np.testing.assert_array_equal(again.prints, whole.prints)
    assert again.hash == whole.hash
    assert [path.name for path in torn.glob(".*part*")] == [".new.safetensors.part-1234"]
    rest = MeanColour()
    embedded(read_layout(folder), cache, rest)
    assert rest.seen == 0


def test_embeddings_are_those_of_the_encoder(folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    files = read_layout(folder)
    found = embedded(files, tmp_path)
    for row in (0, 255, 256, 599):
        with Image.open(files.paths[row]) as picture:
            crop = np.asarray(picture.resize((16, 16), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(found.X[row], MeanColour().embed(crop[None])[0])


def test_other_ways_are_kept_apart(folder: Path, tmp_path: Path) -> None:
    few = read_layout(folder).keep(slice(0, 8))
    first = embedded(few, tmp_path)
    for change in ({"key": "mean-colour-bf16"}, {"sha256": "cd" * 32}):
        encoder = MeanColour()
        for name, value in change.items():
            setattr(encoder, name, value)
        embedded(few, tmp_path, encoder)
        assert encoder.seen == 8
    other = drain(
        iter_embed_cohort(few, MeanColour(), CropPolicy(kind="published", size=16, interpolation="bicubic"), tmp_path)
    )
    assert np.abs(other.X - first.X).max() > 0


def test_a_renamed_picture_is_not_computed_again(folder: Path, tmp_path: Path) -> None:
    few = read_layout(folder).keep(slice(0, 8))
    first = embedded(few, tmp_path / "cache")
    for i, path in enumerate(few.paths):
        place = tmp_path / "moved" / "ab"[i % 2] / f"{9 - i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    encoder = MeanColour()
    moved = embedded(read_layout(tmp_path / "moved"), tmp_path / "cache", encoder)
    assert encoder.seen == 0
    assert sorted(moved.X[:, 0]) == sorted(first.X[:, 0])
    assert moved.hash != first.hash


def test_unreadable_pictures_are_named_before_any_is_embedded(tmp_path: Path) -> None:
    for i in range(6):
        paint(tmp_path / "set" / "ab"[i % 2] / f"{i}.png", i)
    for name in ("a/broken.png", "b/empty.png"):
        (tmp_path / "set" / name).write_bytes(b"" if "empty" in name else b"\x89PNG nothing")
    files, encoder = read_layout(tmp_path / "set"), MeanColour()
    with pytest.raises(InputError, match=r"(?s)2 of 8 pictures.*broken\.png.*empty\.png.*--skip-unreadable"):
        embedded(files, tmp_path / "cache", encoder)
    assert encoder.seen == 0
    found = embedded(files, tmp_path / "cache", encoder, skip_unreadable=True)
    assert len(found.X) == len(found.files.table) == 6
    assert [text.split(":")[0].rsplit("/", 1)[1] for text in found.unreadable] == ["broken.png", "empty.png"]
    broken = (tmp_path / "set" / "a" / "broken.png").read_bytes()
    (tmp_path / "set" / "b" / "same.png").write_bytes(broken)
    found = embedded(read_layout(tmp_path / "set"), tmp_path / "cache", encoder, skip_unreadable=True)
    assert len(found.X) == 6
    assert [text.split(":")[0].rsplit("/", 1)[1] for text in found.unreadable] == [
        "broken.png",
        "empty.png",
        "same.png",
    ]


def test_an_embedding_that_is_not_finite_is_told(tmp_path: Path) -> None:
    for i in range(4):
        paint(tmp_path / "set" / "ab"[i % 2] / f"{i}.png", i)
    encoder = MeanColour()
    encoder.embed = lambda crops: np.full((len(crops), 48), np.nan, np.float32)  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"0\.png and 3 more: the embedding by mean colour is not finite"):
        embedded(read_layout(tmp_path / "set"), tmp_path / "cache", encoder)


def test_a_run_that_is_stopped_keeps_what_it_computed(folder: Path, tmp_path: Path) -> None:
    steps = iter_embed_cohort(read_layout(folder), MeanColour(), POLICY, tmp_path)
    start = time.monotonic()
    next(report for report in steps if report.step == "embed" and report.done >= 128)
    steps.close()
    assert time.monotonic() - start < 30
    encoder = MeanColour()
    embedded(read_layout(folder), tmp_path, encoder)
    assert encoder.seen <= 600 - 128


def test_context_crops_are_matched_to_their_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures with equal bytes are embedded once and stand in two rows."""
    for i in range(5):
        paint(tmp_path / "set" / "ab"[i % 2] / f"{i}.png", i)
    (tmp_path / "set" / "a" / "again.png").write_bytes((tmp_path / "set" / "a" / "2.png").read_bytes())
    policy = CropPolicy(kind="context", size=16)
    monkeypatch.setattr(picturing, "_look", lambda path, _: picturing._Look(sha256(path.read_bytes()).hexdigest()[:16]))
    monkeypatch.setattr(picturing, "_crop", lambda path, *_: (resize_picture(read_pixels(path), policy), False))
    encoder = MeanColour()
    files = read_layout(tmp_path / "set")
    found = drain(iter_embed_cohort(files, encoder, policy, tmp_path / "cache"))
    assert encoder.seen == 5
    expected = MeanColour().embed(np.stack([resize_picture(read_pixels(path), policy) for path in files.paths]))
    np.testing.assert_array_equal(found.X, expected)
    assert files.table["file"].tolist()[3:] == ["a/again.png", "b/1.png", "b/3.png"]
    np.testing.assert_array_equal(found.X[3], found.X[1])
