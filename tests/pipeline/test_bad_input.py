"""Inputs that no one wants: each is reported by name with a remedy, the others go through, the exit code says so."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline.driver import iter_outcome
from napari_dinobloom.progress import drain

COMMAND = [sys.executable, "-m", "napari_dinobloom"]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=240, check=False, encoding="utf-8"
    )


def _truncated(path: Path, good: Path) -> None:
    Image.open(good).save(path.with_suffix(".jpg"), quality=95)
    data = path.with_suffix(".jpg").read_bytes()
    path.with_suffix(".jpg").write_bytes(data[: len(data) // 2])


def _grey(path: Path, good: Path) -> None:
    Image.open(good).convert("L").save(path)


BAD: dict[str, Callable[[Path, Path], None]] = {
    "empty": lambda path, good: path.write_bytes(b"") and None,
    "text": lambda path, good: path.write_text("not a picture") and None,
    "truncated": _truncated,
    "grey": _grey,
    "black": lambda path, good: Image.new("RGB", (64, 64)).save(path),
}

ODD: dict[str, Callable[[Image.Image], Image.Image]] = {
    "rgba": lambda picture: picture.convert("RGBA"),
    "cmyk": lambda picture: picture.convert("CMYK"),
    "palette": lambda picture: picture.quantize(256),
}


def test_bad_pictures_are_named_and_the_good_ones_go_through(smears: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    good = smears / "anna" / "field0.png"
    shutil.copy(good, folder / "good.png")
    for name, make in BAD.items():
        make(folder / f"{name}.png", good)
    done = command("run", folder, tmp_path / "nowhere", "-o", tmp_path / "s.dinobloom")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    for name in (*BAD, "nowhere"):
        assert name in done.stderr
    with Study.open(tmp_path / "s.dinobloom", read_only=True) as study:
        assert [r.id for r in study.fields if r.status == "ok"] == ["good"]
        assert study.cells.n_obs > 0
    report = (tmp_path / "s.dinobloom" / "report.html").read_text(encoding="utf-8")
    assert "truncated.jpg" in report
    assert command("run", folder, tmp_path / "nowhere", "-o", tmp_path / "s.dinobloom").returncode == 1


def test_odd_pictures_give_the_same_cells(smears: Path, tmp_path: Path) -> None:
    from napari_dinobloom.pipeline import run

    good = Image.open(smears / "anna" / "field0.png")
    boxes = {}
    for name, convert in {"plain": lambda p: p, **ODD}.items():
        folder = tmp_path / name
        folder.mkdir()
        convert(good).save(folder / f"x.{'tif' if name == 'cmyk' else 'png'}")
        study = run(folder, tmp_path / f"{name}.dinobloom", until="segment")
        boxes[name] = study.cells.obs[["y0", "x0", "y1", "x1"]].to_numpy()
        study.close()
    for name, found in boxes.items():
        assert len(found) == len(boxes["plain"]), name
        assert np.abs(found - boxes["plain"]).max() <= 6, name


def test_nothing_usable_is_exit_code_2_and_no_study(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    done = command("run", tmp_path / "in", "-o", tmp_path / "s.dinobloom")
    assert done.returncode == 2
    assert "holds no images" in done.stderr
    (tmp_path / "in" / "x.png").write_bytes(b"")
    done = command("run", tmp_path / "in", "-o", tmp_path / "s.dinobloom")
    assert done.returncode == 2
    assert "x.png" in done.stderr
    assert not (tmp_path / "s.dinobloom").exists()


def test_a_field_without_a_cell_is_a_result(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    blank = np.clip(rng.normal((235, 225, 215), 3, (200, 240, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(blank).save(tmp_path / "blank.png")
    done = command("run", tmp_path / "blank.png", "-o", tmp_path / "s.dinobloom")
    assert done.returncode == 0, done.stderr
    assert "0 found" in done.stdout
    assert (tmp_path / "s.dinobloom" / "report.html").exists()


def test_a_study_that_another_process_holds(copied: Path, smears: Path) -> None:
    with Study.open(copied):
        done = command("run", smears, "-o", copied)
    assert done.returncode == 2
    assert "open for writing" in done.stderr


def test_a_place_that_cannot_be_written(smears: Path) -> None:
    done = command("run", smears, "-o", "/proc/s.dinobloom")
    assert done.returncode == 2
    assert "/proc" in done.stderr
    assert "Traceback" not in done.stderr


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
from napari_dinobloom.cli import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX; runs on CI's Linux")
def test_a_disk_that_is_full_loses_nothing(smears: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.dinobloom"
    done = subprocess.run(
        [sys.executable, "-c", FULL, "run", str(smears), "-o", str(path)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert str(path) in done.stderr
    Study.open(path, read_only=True)
    done = command("run", smears, "-o", path)
    assert done.returncode == 0, done.stderr


def test_a_folder_that_is_no_study_is_told_from_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a study \(it holds no study\.json\)"):
        drain(iter_outcome([], tmp_path))
    with pytest.raises(InputError, match="absent: there is no such study"):
        drain(iter_outcome([], tmp_path / "absent"))
