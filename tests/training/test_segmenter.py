"""The segmenter's recipe: crops and their targets fit each other, the loss knows the truth, a short training runs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_dinobloom.cells.network import OFFSET_PX, SegmentationNet, empty_network, load_network, save_network
from napari_dinobloom.training.segmenter import SegmenterConfig, average, loss_of, train
from napari_dinobloom.training.smear_crops import make_crop
from napari_dinobloom.training.smears import SUBSTANCES, Field, even_fields, paint_field


@pytest.fixture(scope="module")
def levels():
    field = paint_field(3)
    return [field, field.halved()]


def test_one_seed_paints_one_field(levels):
    again = paint_field(3)
    assert np.array_equal(again.amounts, levels[0].amounts)
    assert np.array_equal(again.labels, levels[0].labels)
    assert again.amounts.shape[2] == len(SUBSTANCES)
    assert again.labels.max() > 5


def test_half_the_resolution_has_the_same_cells_at_the_same_places(levels):
    fine, coarse = levels
    present = np.unique(fine.labels)[1:]
    assert np.allclose((coarse.centres[present] + 0.5) * 2 - 0.5, fine.centres[present])
    for number in present[:6]:
        ys, xs = np.nonzero(coarse.labels == number)
        assert (ys.mean(), xs.mean()) == pytest.approx(coarse.centres[number].tolist(), abs=0.5)
        assert len(ys) * 4 == pytest.approx((fine.labels == number).sum(), rel=0.05)


@pytest.mark.parametrize("seed", range(6))
def test_every_pixel_of_a_cell_points_to_its_middle_however_the_crop_is_turned(levels, seed):
    crop = make_crop(levels, replace(SegmenterConfig(), zoom=(0.9, 1.1), alone=0.0), np.random.default_rng(seed))
    heat, offset = crop["heat"][0].numpy(), crop["offset"].numpy() * OFFSET_PX / 2
    inside = crop["masks"][0].numpy()[::2, ::2] > 0
    ys, xs = np.nonzero(inside & (np.abs(offset).sum(axis=0) > 0))
    place = np.rint(np.stack([ys + offset[0, ys, xs], xs + offset[1, ys, xs]])).astype(int)
    seen = ((place >= 0) & (place < 128)).all(axis=0)
    assert seen.sum() > 100
    assert heat[tuple(place[:, seen])].min() > 0.85


def test_nuclei_lie_in_cells_and_the_crop_shows_them_darker(levels):
    config = replace(SegmenterConfig(), zoom=(0.9, 1.1))
    darker = []
    for seed in range(12):
        crop = make_crop(levels, config, np.random.default_rng(100 + seed))
        cell, nucleus = crop["masks"].numpy() > 0
        assert cell[nucleus].all()
        green = crop["absorbance"][1].numpy()
        background = (crop["inside"][0].numpy() > 0) & ~cell
        if nucleus.sum() > 50:
            darker.append(np.median(green[nucleus]) > np.median(green[background]))
    assert len(darker) > 8
    assert all(darker)


def test_the_truth_has_less_loss_than_anything_else(levels):
    crop = make_crop(levels, SegmenterConfig(), np.random.default_rng(5))
    batch = {name: value[None] for name, value in crop.items()}
    share = batch["heat"].clamp(1e-4, 1 - 1e-4)
    middle = torch.log(share / (1 - share))
    masks = torch.where(batch["masks"] > 0, 12.0, -12.0)
    coarse = torch.cat([middle, batch["offset"], torch.where(batch["flags"] > 0, 12.0, -12.0)], dim=1)
    best = loss_of(masks, coarse, batch)
    for name, changed in (("masks", -masks), ("dice", -masks)):
        assert loss_of(changed, coarse, batch)[name] > best[name] + 0.1
    assert loss_of(masks, coarse + 0.5, batch)["offset"] > best["offset"] + 0.1
    assert loss_of(masks, coarse + 0.5, batch)["heat"] > best["heat"]
    assert float(best["masks"] + best["dice"] + best["offset"]) < 0.01


def test_folding_and_writing_change_nothing_that_matters(tmp_path):
    torch.manual_seed(1)
    net = SegmentationNet().train()
    for _ in range(3):
        net(torch.randn(2, 3, 64, 64))
    net.eval()
    save_network(net, tmp_path / "net.safetensors", {})
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        wanted, found = net(x), load_network(tmp_path / "net.safetensors")(x)
    for a, b in zip(wanted, found, strict=True):
        assert torch.allclose(a, b, atol=0.02 * float(a.abs().max()))
    assert wanted[0].shape == (1, 2, 64, 96)
    assert wanted[1].shape == (1, 6, 32, 48)
    assert sum(p.numel() for p in empty_network().parameters()) < 600_000


@pytest.mark.slow
def test_a_short_training_writes_weights_that_load(tmp_path):
    config = SegmenterConfig(steps=3, batch=2, painted=2, real=0.0, side=96)
    path = train(config, tmp_path, tmp_path / "out", jobs=1)
    load_network(path)
    about = json.loads((tmp_path / "out" / "segmenter.json").read_text(encoding="utf-8"))
    assert (about["step"], about["config"]["painted"]) == (3, 2)


def test_the_average_of_two_networks_lies_between_them(tmp_path):
    nets = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        nets.append(SegmentationNet())
        save_network(nets[-1], tmp_path / f"{seed}.safetensors", {})
        (tmp_path / f"{seed}.json").write_text("{}", encoding="utf-8")
    path = average(tmp_path / "1.safetensors", tmp_path / "2.safetensors", tmp_path / "out")
    a, b, mean = (load_network(p).head.weight for p in (tmp_path / "1.safetensors", tmp_path / "2.safetensors", path))
    assert torch.allclose(mean, (a + b) / 2, atol=1e-3)
    assert not torch.allclose(a, b, atol=1e-2)


@pytest.mark.real_data
def test_only_even_fields_are_learned_from(real_data):
    numbers = [int(path.stem[-5:]) for path in even_fields(real_data)]
    assert len(numbers) == 182
    assert not any(number % 2 for number in numbers)


def test_a_field_without_cells_stays_whole():
    empty = Field(
        np.zeros((40, 50, 7), np.uint8), np.zeros((40, 50), np.int16), np.zeros((40, 50), bool),
        np.zeros((1, 2), np.float32), np.zeros((40, 50), np.uint8), 0.25,
    )  # fmt: skip
    assert empty.around_one_cell(np.random.default_rng(0)) is empty
