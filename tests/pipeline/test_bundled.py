"""The encoder and the atlases that come with the package belong together, and to the code that makes crops."""

from __future__ import annotations

import hashlib
import json
from importlib import resources

import pytest

from napari_dinobloom.cells import crop, segment
from napari_dinobloom.cells.learned import LearnedSegmenter
from napari_dinobloom.encoders.library import identify
from napari_dinobloom.pipeline.crops import policy_of
from napari_dinobloom.pipeline.settings import RunSettings
from napari_dinobloom.predict.atlas import Atlas

WEIGHTS = resources.files("napari_dinobloom") / "weights"
REBUILD = "Build it again: benchmarks/build_atlases.py"


def test_the_card_states_the_hash_of_the_encoder() -> None:
    stated = json.loads((WEIGHTS / "starter.json").read_text(encoding="utf-8"))["sha256"]
    assert hashlib.sha256((WEIGHTS / "starter.safetensors").read_bytes()).hexdigest() == stated == identify("starter")


@pytest.mark.parametrize("cells", [False, True])
def test_an_atlas_belongs_to_its_encoder_and_crops(cells: bool) -> None:
    policy = policy_of(RunSettings(cells=cells))
    atlas = Atlas.bundled("starter", policy)
    assert atlas.encoder_sha256 == identify("starter"), REBUILD
    assert atlas.policy_hash == policy.hash, REBUILD
    assert atlas.info["crop_version"] == crop.VERSION, REBUILD
    if not cells:
        assert atlas.info["segment_version"] == segment.VERSION, REBUILD
        assert atlas.info["segmenter"] == LearnedSegmenter().key, REBUILD


def test_an_atlas_says_where_it_is_from_and_holds_all_classes() -> None:
    for kind in ("context", "published"):
        atlas = Atlas.bundled("starter", kind)
        assert "CC BY 4.0" in str(atlas.info["origin"])
        assert len(atlas.classes) == 11
        assert atlas.held_out.sum() > 1000
        assert atlas.unnamed() == ["blast", "atypical_lymphocyte", "plasma_cell"]
