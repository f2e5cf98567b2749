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
from napari_dinobloom.training.starter import CentralTokens, StarterConfig, main, starting_weights


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


def test_it_starts_the_same_each_time(tmp_path: Path) -> None:
    main(["start", str(tmp_path / "start.safetensors")])
    written, again = load_file(tmp_path / "start.safetensors"), starting_weights(0)
    assert all(torch.equal(written[name], again[name]) for name in again)
    assert not torch.equal(starting_weights(1)["patch_embed.proj.weight"], again["patch_embed.proj.weight"])


def test_the_finish_begins_with_given_weights_and_writes_an_encoder(tmp_path: Path) -> None:
    table, start, out = _labelled(tmp_path), tmp_path / "start.safetensors", tmp_path / "out"
    main(["start", str(start)])
    main(["finish", "--csv", str(table), "--start", str(start), "--out", str(out), "--steps", "2", "--batch", "4"])
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
