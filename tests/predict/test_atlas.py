"""The atlas file: round trip, tampering, and refusal of what it was not made for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from napari_dinobloom.cells.crop import CropPolicy
from napari_dinobloom.encoders.encoder import load_encoder
from napari_dinobloom.errors import AtlasError
from napari_dinobloom.predict.atlas import Atlas

POLICY = CropPolicy()


def source(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def make(n: int = 240, noise: float = 0.8) -> Atlas:
    rng = np.random.default_rng(1)
    centres = 2 * rng.normal(size=(3, 8))
    y = np.arange(n) % 3
    return Atlas.from_embeddings(
        centres[y] + noise * rng.normal(size=(n, 8)),
        np.array(["monocyte", "eosinophil", "lymphocyte"])[y].tolist(),
        [source(str(i)) for i in range(n)],
        rng.random(n) < 0.2,
        name="test",
        encoder="starter",
        encoder_sha256="ab" * 32,
        policy=POLICY.to_dict(),
        policy_hash=POLICY.hash,
        info={"licence": "CC BY 4.0"},
    )


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return make()


@pytest.fixture
def saved(atlas: Atlas, tmp_path: Path) -> Path:
    return atlas.save(tmp_path / "atlas.safetensors")


def test_a_saved_atlas_is_the_same(atlas: Atlas, saved: Path) -> None:
    again = Atlas.load(saved)
    for name in ("X", "y", "source", "held_out", "confusion"):
        assert np.array_equal(getattr(again, name), getattr(atlas, name)), name
    for name in (
        "name",
        "encoder",
        "encoder_sha256",
        "policy",
        "policy_hash",
        "classes",
        "threshold",
        "k",
        "info",
        "hash",
    ):
        assert getattr(again, name) == getattr(atlas, name), name
    assert again.distance_limit == atlas.distance_limit
    queries = np.random.default_rng(2).normal(size=(30, 8))
    assert again.classify(queries).equals(atlas.classify(queries))


def test_the_same_cells_give_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    assert make().save(tmp_path / "other.safetensors").read_bytes() == saved.read_bytes()


def test_confusion_counts_the_held_out_cells(atlas: Atlas) -> None:
    table = atlas.confusion_table()
    assert table.to_numpy().sum() == atlas.held_out.sum()
    held = np.unique(atlas.y[atlas.held_out], return_counts=True)
    assert dict(zip(*held, strict=True)) == table.sum(axis=1).to_dict()
    assert table.columns.tolist() == ["eosinophil", "lymphocyte", "monocyte", "unclassified"]


def test_a_cell_never_votes_for_itself(atlas: Atlas) -> None:
    alone = atlas.classify(atlas.X, atlas.source.tolist())
    own = atlas.source.tolist()
    nearest = [atlas.explain(atlas.X, given).groupby("cell")["distance"].min() for given in (None, own)]
    assert (nearest[0] < 1e-6).all()
    assert (nearest[1] > 1e-3).all()
    shares = atlas.classifier().predict_proba(atlas.X, own)
    wide = atlas.X.astype(np.float64)
    d = np.sqrt(((wide[:, None] - wide[None]) ** 2).sum(axis=2))
    np.fill_diagonal(d, np.inf)
    for row in range(0, 240, 13):
        names, votes = np.unique(atlas.y[np.argsort(d[row], kind="stable")[:20]], return_counts=True)
        assert shares[row].max() == pytest.approx(votes.max() / 20)
        assert alone["predicted"][row] in names[votes == votes.max()]


def test_unsure_and_far_cells_are_told(atlas: Atlas) -> None:
    far = atlas.classify(np.full((1, 8), 100.0))
    assert far["unlike"].tolist() == [True]
    found = atlas.classify(atlas.X, atlas.source.tolist())
    assert (found["abstained"] == (found["confidence"] < atlas.threshold - 1e-6)).all()
    assert (found["unlike"] == (found["distance"] > atlas.distance_limit)).all()


def test_no_cell_gives_an_empty_table(atlas: Atlas) -> None:
    found = atlas.classify(np.zeros((0, 8)))
    assert found.columns.tolist() == ["predicted", "confidence", "abstained", "distance", "unlike"]
    assert len(found) == 0


def test_an_atlas_belongs_to_one_encoder_and_one_policy(atlas: Atlas) -> None:
    own = SimpleNamespace(name="starter", sha256="ab" * 32)
    atlas.check(own, POLICY)
    with pytest.raises(AtlasError, match=r"belongs to encoder 'starter'.*'DinoBloom-B' with weights cdcdcdcdcdcd"):
        atlas.check(SimpleNamespace(name="DinoBloom-B", sha256="cd" * 32), POLICY)
    for other, said in (
        (CropPolicy(fov_um=30.0), "fov_um 30.0 is not 25.0"),
        (CropPolicy(kind="published"), "kind 'published' is not 'context'"),
        (CropPolicy(interpolation="bicubic"), "interpolation 'bicubic' is not 'bilinear'"),
        (CropPolicy(size=112), "size 112 is not 224"),
    ):
        with pytest.raises(AtlasError, match=said):
            atlas.check(own, other)


def test_changed_content_is_noticed(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-3] ^= 1  # inside the last tensor
    saved.write_bytes(content)
    with pytest.raises(AtlasError, match=str(saved)):
        Atlas.load(saved)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("threshold", 0.9, "hash"),
        ("encoder_sha256", "cd" * 32, "hash"),
        ("threshold", 7, "out of range"),
        ("k", 0, "out of range"),
        ("k", 1001, "out of range"),
        ("distance_limit", float("inf"), "out of range"),
        ("distance_limit", float("nan"), "out of range"),
        ("info", {"temperature": 0.0}, "temperature '0.0' in the header is out of range"),
        ("info", {"temperature": float("nan")}, "temperature"),
        ("info", {"temperature": "1"}, "temperature"),
        ("info", {"temperature": True}, "temperature"),
        ("info", {"stain": "Erika"}, "stain"),
        ("info", {"parts": [{"hash": "ab"}]}, "parts in the header's 'info'"),
        ("info", {"parts": {"hash": "ab", "cells": 1}}, "parts in the header's 'info'"),
        ("classes", ["a"], "shape"),
        ("classes", ["lymphocyte", "eosinophil", "monocyte"], "sorted"),
        ("policy", "context", "policy"),
        ("schema", 99, "schema"),
        ("kind", "linear-probe", "linear-probe"),
    ],
)
def test_a_changed_header_is_noticed(saved: Path, key: str, value: object, message: str) -> None:
    def change(about: dict, tensors: dict) -> None:
        about[key] = value

    rewrite(saved, change)
    with pytest.raises(AtlasError, match=message) as error:
        Atlas.load(saved)
    assert str(saved) in str(error.value)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("X", lambda x: x[:-1]),
        ("X", lambda x: x.astype(np.float32)),
        ("X", lambda x: np.where(np.arange(len(x))[:, None] == 3, np.float16(np.nan), x)),
        ("y", lambda y: y + 1),
        ("source", lambda s: s[:, :4]),
        ("held_out", lambda h: h + 1),
        ("confusion", lambda c: -c),
    ],
)
def test_parts_that_do_not_fit_are_refused(saved: Path, name: str, change) -> None:
    def apply(about: dict, tensors: dict) -> None:
        tensors[name] = np.ascontiguousarray(change(tensors[name]))

    rewrite(saved, apply)
    with pytest.raises(AtlasError) as error:
        Atlas.load(saved)
    assert str(saved) in str(error.value)


def rewrite(path: Path, change) -> None:
    """Write the file again after `change(about, tensors)`."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as handle:
        about = json.loads(handle.metadata()["napari-dinobloom"])
    tensors = load_file(path)
    change(about, tensors)
    save_file(tensors, path, metadata={"napari-dinobloom": json.dumps(about)})


@pytest.mark.parametrize("content", [b"", b"not an atlas", b"\xff" * 100])
def test_a_file_that_is_no_atlas_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(AtlasError, match=r"x\.safetensors"):
        Atlas.load(path)
    with pytest.raises(AtlasError, match="no such file"):
        Atlas.load(tmp_path / "nothing.safetensors")


def test_a_truncated_atlas_is_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(AtlasError, match=str(saved)):
        Atlas.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": ["a"] * 4}, "two classes"),
        ({"y": ["a", "b", "unclassified", "b"]}, "Cell 2 has the class 'unclassified'"),
        ({"y": ["a", "b"]}, "labels of shape"),
        ({"source": ["x"] * 4}, "Cell 0 has the source 'x'"),
        ({"X": np.full((4, 2), np.inf)}, "NaN or infinity"),
        ({"X": np.full((4, 2), 1e6)}, "NaN or infinity"),  # beyond float16
        ({"X": np.zeros((0, 2)), "y": [], "source": [], "held_out": []}, "there is none"),
    ],
)
def test_cells_that_make_no_atlas_are_refused(change: dict, message: str) -> None:
    good = {"X": np.eye(4, 2), "y": ["a", "b", "a", "b"], "source": [source(c) for c in "pqrs"], "held_out": [True] * 4}
    about = {"name": "t", "encoder": "e", "encoder_sha256": "0", "policy": {}, "policy_hash": "0"}
    with pytest.raises(AtlasError, match=message):
        Atlas.from_embeddings(**{**good, **change}, **about)


def test_an_atlas_that_is_not_bundled_is_named() -> None:
    with pytest.raises(AtlasError, match="DinoBloom-B"):
        Atlas.bundled("DinoBloom-B", POLICY)


@pytest.mark.parametrize("own", ["", "macenko", "reference"])
def test_recoloured_cells_meet_an_atlas_of_the_same_or_of_the_reference(own: str) -> None:
    atlas = replace(make(), info={"stain": own} if own else {})
    for stain in ("", "macenko", "reinhard"):
        cells = SimpleNamespace(name="starter", sha256="ab" * 32, stain=stain)
        if own in (stain, "reference"):
            atlas.check(cells, POLICY)
        else:
            with pytest.raises(AtlasError, match=rf"--adapt {own or 'none'}"):
                atlas.check(cells, POLICY)


def test_classes_that_the_atlas_cannot_name_are_told(atlas: Atlas) -> None:
    assert atlas.unnamed() == ["blast", "atypical_lymphocyte", "plasma_cell"]


@pytest.mark.parametrize("kind", ["context", "published"])
def test_the_bundled_atlas_fits_the_bundled_encoder_and_the_default_crops(kind: str) -> None:
    atlas = Atlas.bundled("starter", kind)
    encoder = load_encoder("starter", device="cpu")
    atlas.check(encoder, CropPolicy(kind=kind))
    assert atlas.X.shape[1] == encoder.dim
    assert len(atlas.classes) == 11
    assert 0 < atlas.held_out.sum() < len(atlas)
