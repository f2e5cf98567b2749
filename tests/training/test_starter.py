"""The recipe of the bundled encoder, at the size of a toy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from napari_dinobloom.encoders.build import load_backbone
from napari_dinobloom.training.starter import (
    CentralTokens,
    Guidance,
    StarterConfig,
    build_vit,
    main,
    starting_weights,
)
from napari_dinobloom.training.starter_guide import WIDTHS, GuideConfig, guide_accuracy, train_guide
from napari_dinobloom.training.starter_pictures import Pictures


def _labelled(folder: Path, count: int = 40) -> Path:
    random = np.random.default_rng(0)
    lines = ["file,cell_type,split"]
    for i in range(count):
        Image.fromarray(random.integers(0, 255, (363, 360, 3), np.uint8)).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{'ab'[i % 2]},train")
    table = folder / "cells.csv"
    table.write_text("\n".join(lines), encoding="utf-8")
    return table


def test_tokens_near_the_middle_are_kept_more_often() -> None:
    part = CentralTokens(64, 4.5, torch.Generator().manual_seed(0))
    tokens = torch.arange(257.0).expand(200, 257).unsqueeze(2)
    kept = part(tokens).squeeze(2)
    assert kept.shape == (200, 65)
    assert torch.equal(kept[:, 0], torch.zeros(200))
    counts = torch.bincount(kept[:, 1:].flatten().long() - 1, minlength=256).view(16, 16)
    assert all(len(set(row.tolist())) == 65 for row in kept)
    assert 0 < counts[0, 0] < counts[3, 3] < counts[7:9, 7:9].min() <= 200
    assert torch.equal(part.eval()(tokens), tokens)


def test_patch_tokens_predict_what_the_guide_has_at_their_places() -> None:
    torch.manual_seed(0)
    model = build_vit()
    setattr(model, "patch_drop", dropping := CentralTokens(64, 4.5, torch.Generator().manual_seed(0)))  # noqa: B010
    guidance = Guidance(model, (1, 2))
    model(torch.rand(2, 3, 224, 224))
    assert dropping.chosen is not None
    # Features that are the same everywhere are predicted by a bias alone, wherever the kept tokens lie.
    middle = torch.arange(WIDTHS[1]).float()[None, :, None, None].expand(2, -1, 16, 16)
    coarse = torch.arange(WIDTHS[2]).float()[None, :, None, None].expand(2, -1, 8, 8)
    with torch.no_grad():
        for outward, width in zip(guidance.outward, WIDTHS[1:], strict=True):
            outward.weight.zero_()
            outward.bias.copy_(torch.nn.functional.layer_norm(torch.arange(width).float(), (width,)))
    assert guidance((middle, coarse), dropping.chosen).item() < 1e-9
    model(torch.rand(2, 3, 224, 224))
    turned = middle.clone()
    turned[:, :, 8, 8] = turned[:, :, 8, 8].flip(1)  # one place differs: it counts where its token was kept
    lost = guidance((turned, coarse), dropping.chosen).item()
    kept = (dropping.chosen == 8 * 16 + 8).any(dim=1)
    assert (lost > 1e-4) == bool(kept.any())


def test_a_guide_learns_what_colour_tells() -> None:
    images = torch.full((40, 3, 360, 360), 200, dtype=torch.uint8)
    images[::2, 0] = 60
    pictures = Pictures(images, torch.tensor([0, 1] * 20), ["a", "b"])
    guide, report = train_guide(pictures, pictures, GuideConfig(steps=16, batch=8, lr=0.05))
    assert report["guide_accuracy"] == 1.0
    assert guide_accuracy(guide, pictures) == 1.0
    middle, coarse, scores = guide.eval()(torch.rand(2, 3, 128, 128))
    assert (middle.shape, coarse.shape, scores.shape) == ((2, 96, 16, 16), (2, 192, 8, 8), (2, 2))


def test_it_starts_the_same_each_time(tmp_path: Path) -> None:
    main(["start", str(tmp_path / "start.safetensors")])
    written, again = load_file(tmp_path / "start.safetensors"), starting_weights(0)
    assert all(torch.equal(written[name], again[name]) for name in again)
    assert not torch.equal(starting_weights(1)["patch_embed.proj.weight"], again["patch_embed.proj.weight"])


def test_the_finish_begins_with_given_weights_and_writes_an_encoder(tmp_path: Path) -> None:
    table, start, out = _labelled(tmp_path), tmp_path / "start.safetensors", tmp_path / "out"
    main(["start", str(start)])
    short = ["--steps", "2", "--batch", "4", "--guide-steps", "2"]
    main(["finish", "--csv", str(table), "--start", str(start), "--out", str(out), *short])
    card = json.loads((out / "starter.json").read_text(encoding="utf-8"))
    loaded = load_backbone(out / "starter.safetensors")
    assert loaded.sha256 == card["sha256"]
    assert card["start"] == load_backbone(start).sha256
    assert (card["recipe"]["steps"], card["recipe"]["batch"], card["classes"]) == (2, 4, ["a", "b"])
    moved = loaded.backbone.state_dict()["norm.bias"].abs().max()
    assert 0 < float(moved) < 0.01


def test_a_recipe_that_cannot_work_is_refused() -> None:
    with pytest.raises(ValueError, match="steps"):
        StarterConfig(steps=0)
