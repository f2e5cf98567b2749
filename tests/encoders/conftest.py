"""A toy encoder that loads in no time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_dinobloom.encoders import architecture
from napari_dinobloom.encoders.architecture import Architecture

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
