"""Another way to vote: the threshold follows, the choice is remembered, old files and hashes stay."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from references import make
from safetensors.numpy import save_file
from sklearn.neighbors import KNeighborsClassifier

from napari_dinobloom.encoders.library import cache_folder
from napari_dinobloom.errors import AtlasError
from napari_dinobloom.io.tensors import read_header
from napari_dinobloom.predict import atlas_choice
from napari_dinobloom.predict.abstention import calibrate
from napari_dinobloom.predict.atlas import Atlas


def first_version(path: Path) -> tuple[str, np.ndarray]:
    """A file as the first version wrote it: no temperature, the limit one of the nearest cell."""
    X = np.array([[0, 0], [0, 1], [5, 0], [5, 1]], np.float16)
    tensors = {
        "X": X,
        "confusion": np.array([[2, 0, 0], [0, 1, 1]]),
        "held_out": np.ones(4, np.uint8),
        "source": np.arange(32, dtype=np.uint8).reshape(4, 8),
        "y": np.array([0, 0, 1, 1], np.int16),
    }
    about = {
        "schema": 1, "name": "old", "encoder": "e", "encoder_sha256": "0", "policy": {}, "policy_hash": "0",
        "classes": ["a", "b"], "threshold": 0.6, "distance_limit": 1.5, "k": 2, "info": {"accuracy": 1.0},
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, array in tensors.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode() + array.tobytes())
    document = {"kind": "reference-atlas", **about, "hash": digest.hexdigest()}
    save_file(tensors, path, metadata={"napari-dinobloom": json.dumps(document)})
    return digest.hexdigest(), X.astype(np.float32)


def test_a_file_of_the_first_version_is_read_as_it_was(tmp_path: Path) -> None:
    stamp, X = first_version(tmp_path / "old.safetensors")
    old = Atlas.load(tmp_path / "old.safetensors")
    assert (old.hash, old.metric, old.weights, old.thumbnails, old.place) == (stamp, "euclidean", "uniform", None, None)
    found = old.classify(X + 0.25)
    assert found["predicted"].tolist() == ["a", "a", "b", "b"]
    assert found["confidence"].tolist() == [1.0] * 4
    np.testing.assert_allclose(found["distance"], np.hypot(0.25, 0.25), rtol=1e-6)
    again = Atlas.load(old.save(tmp_path / "again.safetensors"))
    assert again.hash == stamp
    assert old.using() is old


@pytest.mark.parametrize("kind", ["context", "published"])
def test_what_comes_with_the_package_needs_no_second_schema(kind: str) -> None:
    atlas = Atlas.bundled("starter", kind)
    assert (atlas.metric, atlas.weights, atlas.k) == ("euclidean", "uniform", 20)
    assert atlas.thumbnails is atlas.place is None
    assert atlas.info["stain"] == "reference", "recoloured cells meet it"


def test_votes_of_a_choice_are_those_of_scikit_learn_and_its_threshold_is_its_own() -> None:
    atlas = make(noise=3.0)
    queries = 3 * np.random.default_rng(4).normal(size=(50, 8)).astype(np.float32)
    chosen = atlas.using(k=9, metric="cosine", weights="distance")
    theirs = KNeighborsClassifier(9, metric="cosine", weights="distance", algorithm="brute").fit(atlas.X, atlas.y)
    np.testing.assert_allclose(chosen.classifier().predict_proba(queries), theirs.predict_proba(queries), atol=1e-4)
    found = calibrate(atlas.X, atlas.y, atlas.source, atlas.held_out, k=9, metric="cosine", weights="distance")
    assert (chosen.threshold, chosen.distance_limit) == (found.threshold, found.distance_limit)
    assert np.array_equal(chosen.confusion, found.confusion)
    assert chosen.hash != atlas.hash
    assert (chosen.k, atlas.k) == (9, 20)


def test_a_choice_is_calibrated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    atlas = make()
    first = atlas.using(metric="cosine")

    def never(*_args: object, **_more: object) -> None:
        raise AssertionError("calibrated again")

    monkeypatch.setattr(atlas_choice, "calibrate", never)
    assert make().using(metric="cosine").hash == first.hash
    (path,) = (cache_folder() / "choices").iterdir()
    for broken in ("{}", "not json", json.dumps(json.loads(path.read_text()) | {"threshold": 7})):
        path.write_text(broken)
        with pytest.raises(AssertionError, match="again"):
            make().using(metric="cosine")


def test_a_choice_that_means_nothing_is_refused() -> None:
    with pytest.raises(AtlasError, match="manhattan"):
        make().using(metric="manhattan")  # type: ignore[arg-type]
    with pytest.raises(AtlasError, match="k is -1"):
        make().using(k=-1)


def test_a_choice_is_kept_in_the_file(tmp_path: Path) -> None:
    plain, chosen = make(), make(metric="cosine", weights="distance")
    assert read_header(plain.save(tmp_path / "a.safetensors"), "reference-atlas")["schema"] == 1
    path = chosen.save(tmp_path / "b.safetensors")
    assert read_header(path, "reference-atlas")["schema"] == 2
    again = Atlas.load(path)
    assert (again.metric, again.weights, again.hash) == ("cosine", "distance", chosen.hash)


def test_a_class_of_one_cell_votes_and_moves_no_threshold() -> None:
    base = make()
    y = [*base.y.tolist(), "blast"]
    X = np.vstack([base.X, np.full((1, 8), 9.0)])
    about = {"encoder": "e", "encoder_sha256": "0", "policy": {}, "policy_hash": "0", "k": 1}
    sources, held = [*base.source.tolist(), "f" * 16], np.ones(len(y), bool)
    atlas = Atlas.from_embeddings(X, y, sources, held, name="t", **about)
    without = Atlas.from_embeddings(X[:-1], y[:-1], sources[:-1], held[:-1], name="t", **about)
    assert atlas.info["unmeasured"] == ["blast"]
    assert atlas.threshold == without.threshold
    assert atlas.confusion_table().loc["blast"].sum() == 0
    assert atlas.classify(np.full((1, 8), 9.1))["predicted"].tolist() == ["blast"]
    with pytest.raises(AtlasError, match="one picture only"):
        Atlas.from_embeddings(X[:4], y[:4], ["a" * 16] * 4, held[:4], name="t", **about)


def test_explain_gives_the_cells_that_vote() -> None:
    atlas = make(per_picture=4)
    some = np.arange(0, 240, 31)
    table = atlas.explain(atlas.X[some], atlas.source[some].tolist())
    assert table.columns.tolist() == ["cell", "rank", "class", "source", "distance", "row"]
    for cell, row in enumerate(some):
        near = table[table["cell"] == cell]
        d = np.sqrt(((atlas.X.astype(float) - atlas.X[row].astype(float)) ** 2).sum(axis=1))
        d[atlas.source == atlas.source[row]] = np.inf
        expected = np.argsort(d, kind="stable")[:20]
        assert near["row"].tolist() == expected.tolist()
        assert near["rank"].tolist() == list(range(1, 21))
        np.testing.assert_allclose(near["distance"], d[expected], rtol=1e-6)
        assert near["class"].tolist() == atlas.y[expected].tolist()
        assert (near["source"] != atlas.source[row]).all()
    left = atlas.without("monocyte")
    part = left.explain(atlas.X[some])
    assert "monocyte" not in set(part["class"])
    assert (atlas.y[left.rows(part["row"].to_numpy())] == part["class"]).all()
    assert left.predict_proba(atlas.X[some]).shape == (len(some), 3)
