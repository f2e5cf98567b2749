"""A toy encoder that loads in no time, and an empty folder of weights."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from napari_dinobloom.encoders import architecture, registry
from napari_dinobloom.encoders.architecture import Architecture
from napari_dinobloom.encoders.spec import WeightSource, vit_spec

TOY = Architecture("toy", 32, 2, 2, 64)


@pytest.fixture
def toy_state(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Random weights of a toy vision transformer, which the registry of architectures knows for one test."""
    monkeypatch.setitem(architecture.ARCHITECTURES, "toy", TOY)
    random = torch.Generator().manual_seed(0)
    return {key: torch.randn(shape, generator=random) * 0.2 for key, shape in TOY.shapes().items()}


@pytest.fixture(scope="session")
def toy_crops() -> np.ndarray:
    """Eleven pictures of 224 px, smooth enough to differ in more than noise."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (11, 16, 16, 3), np.uint8)
    return coarse.repeat(14, axis=1).repeat(14, axis=2)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("NAPARI_DINOBLOOM_CACHE", str(folder))
    return folder


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch, toy_state: dict[str, torch.Tensor]) -> None:
    """Known: the published hash of b"one". Open: none. Bound: terms. Short: its eight digits."""
    one = hashlib.sha256(b"one").hexdigest()
    for name, sha256, terms in (("Known", one, ""), ("Open", None, ""), ("Bound", None, "For research only.")):
        source = WeightSource(f"https://example.org/{name}.pth", f"{name}.pth", None, sha256)
        spec = vit_spec(name, "toy", licence="none", sources=(source,), terms=terms)
        monkeypatch.setitem(registry.REGISTRY, name, spec)
    short = WeightSource("https://example.org/s.pth", "Short.pth", sha256_prefix=one[:8])
    monkeypatch.setitem(registry.REGISTRY, "Short", vit_spec("Short", "toy", licence="none", sources=(short,)))


@pytest.fixture
def own(tmp_path: Path, toy_state: dict[str, torch.Tensor]) -> Path:
    path = tmp_path / "trained.safetensors"
    save_file(toy_state, path)
    return path


@pytest.fixture
def files(toy_state: dict[str, torch.Tensor]) -> tuple[bytes, bytes]:
    """Two files of weights that the toy network reads."""
    bodies = []
    for shift in (0, 1):
        file = io.BytesIO()
        torch.save({key: value + shift for key, value in toy_state.items()}, file)
        bodies.append(file.getvalue())
    return bodies[0], bodies[1]
