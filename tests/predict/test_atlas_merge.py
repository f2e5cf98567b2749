"""Atlases put together: what is kept once, what is refused, and that no name comes along."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from references import make, source

from napari_dinobloom.errors import AtlasError
from napari_dinobloom.predict.atlas import Atlas
from napari_dinobloom.predict.atlas_merge import Part, combine, merge, same_cells
from napari_dinobloom.predict.thumbnails import Thumbnails


def test_cells_of_both_are_kept_and_one_that_is_in_both_once(tmp_path: Path) -> None:
    one, other = make(), make(150, seed=2)
    merged = merge([one, other, one], name="both")
    assert len(merged) == 390
    assert np.array_equal(merged.X, np.vstack([one.X, other.X]))
    assert np.array_equal(merged.held_out, np.concatenate([one.held_out, other.held_out]))
    assert Atlas.load(merged.save(tmp_path / "m.safetensors")).hash == merged.hash
    assert merged.hash != one.hash


def test_a_cell_with_two_classes_is_refused_and_both_atlases_are_named() -> None:
    one, other = make(name="left"), make(name="right")
    parts = [Part.of(one), Part.of(other)]
    parts[1].y[5] = "blast"
    with pytest.raises(
        AtlasError, match=rf"picture {one.source[5]}\) is 'lymphocyte' in 'left' and 'blast' in 'right'"
    ):
        combine(parts, name="x")
    newer = combine(parts, name="x", twice="last")
    assert len(newer) == 240
    assert newer.y[newer.source == one.source[5]].tolist() == ["blast"]


def test_cells_of_one_picture_are_told_apart_by_their_place() -> None:
    place = np.array([[10, 10], [13, 14], [10, 90], [10, 10], [np.nan, np.nan], [np.nan, np.nan]], np.float32)
    pictures = np.array(["a", "a", "a", "b", "c", "c"])
    assert same_cells(pictures, place).tolist() == [[0, 1], [4, 5]]
    full = np.column_stack([np.arange(240), np.arange(240)]).astype(np.float32) * 20
    one, other = make(per_picture=4, place=full), make(per_picture=4, place=full + 2)
    assert len(merge([one, other], name="x")) == 240
    assert len(merge([one, make(per_picture=4, place=full + 7)], name="x")) == 480
    assert np.array_equal(merge([one, other], name="x").place, full)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_sha256": "cd" * 32}, "encoder is .*abababababab' and .*cdcdcdcdcdcd'|encoder is"),
        ({"policy": {"kind": "published"}, "policy_hash": "0"}, "crop policy is"),
        ({"info": {"pooling": "class+mean"}}, "pooling is class and class.mean"),
    ],
)
def test_what_was_made_otherwise_is_refused(change: dict, message: str) -> None:
    with pytest.raises(AtlasError, match=message):
        merge([make(), make(150, seed=2, name="other", **change)], name="x")


def test_stains_that_differ_make_no_atlas_but_the_reference_meets_all() -> None:
    plain, other = make(), make(150, seed=2, name="other")
    ours = make(90, seed=3, name="ours", info={"stain": "reference"})
    macenko = make(60, seed=4, name="theirs", info={"stain": "macenko"})
    reinhard = make(60, seed=5, name="last", info={"stain": "reinhard"})
    assert merge([ours, ours], name="x").info["stain"] == "reference"
    assert merge([ours, macenko], name="x").info["stain"] == "macenko"
    assert "stain" not in merge([ours, plain], name="x").info
    assert "stain" not in merge([plain, other], name="x").info
    with pytest.raises(AtlasError, match=r"'test' and 'theirs' .* recoloured by none and macenko"):
        merge([plain, macenko], name="x")
    with pytest.raises(AtlasError, match="'theirs' and 'last'"):
        merge([ours, macenko, reinhard], name="x")
    with pytest.raises(AtlasError, match="'theirs' and 'other'"):
        merge([macenko, ours, other], name="x")


def test_no_name_comes_along() -> None:
    secret = "Erika Mustermann"
    about = {"origin": secret, "patients": [secret], "note": secret, "segmenter": "learned", "parts": []}
    one = make(name=secret, info=about)
    other = make(150, seed=2, name=f"{secret} 2", info=about)
    merged = merge([one, other], name="both", origin="ours")
    assert secret not in json.dumps([merged.facts(), merged.name])
    assert merged.info["parts"] == [{"hash": one.hash, "cells": 240}, {"hash": other.hash, "cells": 150}]
    assert (merged.info["segmenter"], merged.info["origin"]) == ("learned", "ours")
    assert [part["cells"] for part in merge([merged, one], name="x").info["parts"]] == [240, 150, 390, 240]


def test_the_packages_atlas_keeps_its_licence_however_often_it_is_extended() -> None:
    ours = Atlas.bundled("starter", "published")
    rows = np.arange(0, len(ours), 400)
    part = Part.of(ours)
    few = Part(**{what: getattr(part, what) for what in Part.__dataclass_fields__} | {
        "X": ours.X[rows] + 0.01, "y": ours.y[rows], "source": np.array([source(str(r)) for r in rows]),
        "held_out": ours.held_out[rows], "place": part.place[rows], "info": {}, "hash": ""})  # fmt: skip
    info = _info_only([part, few])
    assert "CC BY 4.0" in info["origin"]


def _info_only(parts: list[Part]) -> dict:
    from napari_dinobloom.predict.atlas_merge import _info

    first = _info(parts, np.concatenate([part.y for part in parts]), "")
    again = Part(**{what: getattr(parts[1], what) for what in Part.__dataclass_fields__} | {"info": first})
    return _info([again, parts[1]], parts[1].y, "")


def test_thumbnails_come_along() -> None:
    one, other = make(thumbnails=Thumbnails.pack([b"a"] * 240)), make(150, seed=2)
    merged = merge([other, one], name="x")
    assert merged.thumbnails is not None
    assert merged.thumbnails.files() == [b""] * 150 + [b"a"] * 240
