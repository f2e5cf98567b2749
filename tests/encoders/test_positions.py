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


@pytest.mark.parametrize("rule", ["hub", "training", "timm"])
@pytest.mark.parametrize("grid", [14, 16])
def test_no_grid_loses_a_row(grid: int, rule: str) -> None:
    for side in range(1, 129):
        assert resample_positions(torch.zeros(1, 1 + side * side, 1), grid, rule).shape == (1, 1 + grid * grid, 1)


@pytest.mark.parametrize("side", [37, 24, 10])
def test_timms_rule_is_timms(side: int) -> None:
    from timm.layers import resample_abs_pos_embed

    pos = torch.randn(1, 1 + side * side, 24, generator=torch.Generator().manual_seed(1))
    theirs = resample_abs_pos_embed(pos, [16, 16], num_prefix_tokens=1)
    torch.testing.assert_close(resample_positions(pos, 16, "timm"), theirs, atol=1e-6, rtol=0)


def test_the_rules_differ_as_much_as_is_said_of_them() -> None:
    pos = torch.randn(1, 1370, 64, generator=torch.Generator().manual_seed(2))
    training, hub, timm = (resample_positions(pos, 16, rule) for rule in ("training", "hub", "timm"))
    assert 0.5 < (hub - training).abs().max() < 2
    assert 1.5 < (timm - training).abs().max() < 4
    assert all(torch.equal(moved[:, 0], pos[:, 0]) for moved in (training, hub, timm))
