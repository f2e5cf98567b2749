"""How unlike its reference a cell is, and a slide."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from napari_dinobloom.predict.abstention import calibrate
from napari_dinobloom.predict.atlas import Atlas
from napari_dinobloom.predict.novelty import DOUBT, FAR_SHARE, by_slide, kth, novelty, slide_warning


def test_the_farthest_eligible_neighbour_counts() -> None:
    distances = np.array([[1, 2, 3], [1, np.inf, np.inf], [np.inf, np.inf, np.inf]], np.float32)
    assert kth(distances).tolist() == [3, 1, np.inf]
    assert kth(np.zeros((0, 3))).shape == (0,)


def test_novelty_is_distance_in_units_of_the_limit() -> None:
    assert novelty([1.0, 4.0, np.inf], 2.0).tolist() == [0.5, 2.0, np.inf]
    assert np.isnan(novelty([np.nan], 2.0)).all()
    with pytest.raises(ValueError, match="must be positive"):
        novelty([1.0], 0.0)


def _reference() -> Atlas:
    random = np.random.default_rng(0)
    X = np.concatenate([random.normal(size=(150, 8)), random.normal(size=(150, 8)) + 6])
    y = ["a"] * 150 + ["b"] * 150
    source = [f"{i:016x}" for i in range(300)]
    about = {"encoder": "e", "encoder_sha256": "0" * 64, "policy": {}, "policy_hash": "h"}
    return Atlas.from_embeddings(X, y, source, np.arange(300) % 4 == 0, name="small", k=10, **about)


def test_the_limit_is_that_of_the_kth_neighbour_of_held_out_cells() -> None:
    atlas = _reference()
    asked = np.flatnonzero(atlas.held_out)
    apart = np.linalg.norm(atlas.X[asked][:, None].astype(float) - atlas.X[None].astype(float), axis=2)
    apart[np.arange(len(asked)), asked] = np.inf
    far = np.sort(apart, axis=1)[:, 9]
    found = calibrate(atlas.X, atlas.y, atlas.source, atlas.held_out, k=10)
    assert found.distance_limit == pytest.approx(
        np.quantile(far, 0.99, method="higher"), rel=1e-5
    )  # all are named rightly here
    named = atlas.classify(atlas.X[asked], atlas.source[asked].tolist())
    np.testing.assert_allclose(named["distance"], far, rtol=1e-5)
    assert named["unlike"].tolist() == (named["distance"] > atlas.distance_limit).tolist()


def test_one_stray_reference_cell_makes_nothing_known() -> None:
    atlas = _reference()
    stray = np.full((1, 8), 30.0, np.float32)
    X = np.concatenate([atlas.X, stray])
    y, source = [*atlas.y.tolist(), "b"], [*atlas.source.tolist(), "f" * 16]
    about = {"encoder": "e", "encoder_sha256": "0" * 64, "policy": {}, "policy_hash": "h"}
    with_stray = Atlas.from_embeddings(X, y, source, np.zeros(301, bool), name="stray", k=10, **about)
    assert with_stray.classify(stray + 0.1)["unlike"].tolist() == [True]


def test_a_slide_is_unlike_only_beyond_doubt() -> None:
    distance = np.r_[np.full(8, 3.0), np.full(32, 1.0), np.full(3, 3.0), np.full(97, 1.0), np.full(10, 3.0), np.nan]
    slides = ["far"] * 40 + ["near"] * 100 + ["short"] * 11
    found = {one.slide: one for one in by_slide(distance, slides, 2.0)}
    assert (found["far"].far, found["far"].cells) == (8, 40)
    assert found["short"].cells == 10  # the cell without a distance is passed over
    assert not any(one.unlike for one in found.values()), "8 of 40 may be chance, 10 of 10 are too few to tell"
    # The bound is the share under which as many far cells come up once in a hundred slides.
    assert binom.sf(7, 40, found["far"].least) == pytest.approx(DOUBT, rel=1e-6)
    many = slide_warning(np.r_[np.full(12, 3.0), np.full(28, 1.0)], ["s"] * 40, 2.0)
    assert len(many) == 1
    assert "s: this stain is unlike the reference. 12 of 40 cells (30%; at least" in many[0]
    assert binom.sf(11, 40, FAR_SHARE) < DOUBT
