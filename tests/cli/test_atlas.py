"""The commands of `napari-dinobloom atlas`, as a person types them."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from references import make
from typer.testing import CliRunner

from napari_dinobloom.cli import app
from napari_dinobloom.predict.atlas import Atlas
from napari_dinobloom.predict.atlas_merge import merge
from napari_dinobloom.predict.probe import Probe
from napari_dinobloom.predict.probe_training import train_probe
from napari_dinobloom.predict.shelf import own_folder


def do(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["atlas", *map(str, words)])
    assert done.exit_code == code, done.output + done.stderr
    return done.output if code == 0 else " ".join(done.stderr.split())


@pytest.fixture
def atlases(tmp_path: Path) -> tuple[Path, Path]:
    own_folder().mkdir(parents=True)
    return make().save(own_folder() / "mine.safetensors"), make(150, seed=2).save(tmp_path / "b.safetensors")


def test_list_and_info(atlases: tuple[Path, Path]) -> None:
    shown = do("list")
    assert "starter-context: atlas, 7594 cells, 11 classes, starter 1b25e462" in shown
    assert f"mine: atlas, 240 cells, 3 classes, starter abababab, crops a7c7fb70, {make().hash[:8]}" in shown
    assert str(own_folder()) in shown
    assert json.loads(do("info", "mine"))["hash"] == make().hash
    assert json.loads(do("info", "starter-context"))["cells"] == 7594
    assert json.loads(do("info", atlases[1]))["cells"] == 150
    assert "There is no atlas or probe 'yours' on the shelf" in do("info", "yours", code=2)


def test_merge_is_that_of_python(atlases: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "both.safetensors"
    assert str(out) in do("merge", "mine", atlases[1], "-o", out)
    assert Atlas.load(out).hash == merge([Atlas.load(path) for path in atlases], name="both").hash
    assert "their encoder is" in do("merge", "mine", "starter-context", "-o", out, code=2)
    assert "two or more" in do("merge", "mine", "-o", out, code=2)


def test_probe_is_that_of_python(atlases: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    do("probe", "mine", "-o", out, "--C", "0.5")
    assert Probe.load(out).hash == train_probe(make(), name="p", C=0.5).hash
    assert json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))["C"] == 0.5
    assert json.loads(do("info", out))["temperature"] == Probe.load(out).temperature
    assert "--C -1.0" in do("probe", "mine", "-o", out, "--C", "-1", code=2)
    assert "needed, this is" in do("probe", out, "-o", tmp_path / "q.safetensors", code=2)


def test_pictures_make_an_atlas_with_thumbnails(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for kind in ("a", "b"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for i in range(3):
            picture = random.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / "set" / kind / f"{i}.png")
    out = tmp_path / "set.safetensors"
    do("build", tmp_path / "set", "-o", out, "--crops", "published", "--thumbnails", "--k", 1, "--device", "cpu")
    atlas = Atlas.load(out)
    assert (len(atlas), atlas.k) == (6, 1)
    assert atlas.held_out.all(), "the starter never saw them"
    first = atlas.thumbnail(0)
    assert first is not None
    expected = Image.open(tmp_path / "set" / "a" / "0.png").resize((224, 224), Image.Resampling.BILINEAR)
    small = np.asarray(expected.resize((96, 96), Image.Resampling.BILINEAR), int)
    assert np.abs(first.astype(int) - small).mean() < 12


@pytest.mark.parametrize("command", ["build", "probe", "merge"])
def test_a_file_that_could_not_be_written_is_refused_before_anything_is_read(command: str, tmp_path: Path) -> None:
    (tmp_path / "d.safetensors").mkdir()
    broken = ["no-such-atlas", "nor-this"] if command == "merge" else [tmp_path / "nothing"]
    for out, said in (("x.bin", "must end in .safetensors; write x.safetensors"),
                      ("no/x.safetensors", "there is no such folder"), ("d.safetensors", "is a folder")):  # fmt: skip
        assert said in do(command, *broken, "-o", tmp_path / out, code=2).replace("\n", "")


def test_a_disk_that_fails_is_said(atlases: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    assert "is full" in do("merge", "mine", atlases[1], "-o", tmp_path / "x.safetensors", code=2)
