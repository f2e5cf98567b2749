"""The scripts in examples/ run, one after the other, and do what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[1] / "examples"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _size(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as image:
        return image.size


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="module")
def study(folder: Path) -> Path:
    path: Path = _load("count_smears").main(folder)
    return path


def test_every_example_is_run_here() -> None:
    names = {"count_smears", "cluster_with_scanpy", "embed_one_image", "overlay_a_field"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == names


def test_count_smears(study: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (study / "report.html").stat().st_size > 10_000
    _load("count_smears").main(folder)
    printed = capsys.readouterr().out
    assert "percent" in printed
    assert str(study / "report.html") in printed


def test_cluster_with_scanpy(study: Path, tmp_path: Path) -> None:
    picture = tmp_path / "clusters.png"
    table = _load("cluster_with_scanpy").main(study, picture)
    assert table.to_numpy().sum() > 0
    assert _size(picture)[0] > 300


def test_embed_one_image(study: Path, folder: Path, tmp_path: Path) -> None:
    image = sorted((folder / "sample" / "images").glob("*.png"))[0]
    picture = tmp_path / "inside.png"
    embeddings = _load("embed_one_image").main(image, picture)
    assert embeddings.dtype == np.float32
    assert np.isfinite(embeddings).all()
    assert _size(picture) == (2 * 224, 224 * min(8, len(embeddings)))


def test_overlay_a_field(study: Path, folder: Path, tmp_path: Path) -> None:
    first, second = sorted((folder / "sample" / "images").glob("*.png"))[:2]
    main = _load("overlay_a_field").main
    overlay = main(first, tmp_path / "first.png", tmp_path / "basis.safetensors")
    assert (overlay[..., 3] > 0).mean() > 0.005
    assert _size(tmp_path / "first.png") == overlay.shape[1::-1]
    kept = (tmp_path / "basis.safetensors").read_bytes()
    main(second, tmp_path / "second.png", tmp_path / "basis.safetensors")
    assert (tmp_path / "basis.safetensors").read_bytes() == kept
