from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch

from napari_dinobloom.encoders.positions import resample_positions


@pytest.mark.real_data
@pytest.mark.parametrize("rule", ["hub", "training"])
def test_rules_give_the_published_numbers(conformance: tuple[ModuleType, dict[str, np.ndarray]], rule: str) -> None:
    made, golden = conformance
    pos = torch.from_numpy(made.draw("pos37", (1, 1370, 64)))
    found = resample_positions(pos, 16, rule)[0, [0, 1, 100, 256]].numpy()
    np.testing.assert_allclose(found, golden[f"pos/{rule}"], atol=1e-5)


def test_the_same_grid_stays_as_it_is_under_the_training_rule() -> None:
    pos = torch.randn(1, 17, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(resample_positions(pos, 4, "training"), pos)
