"""The probe of a study: its numbers, its file, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from references import POLICY, make
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from napari_dinobloom.cells.crop import CropPolicy
from napari_dinobloom.errors import AtlasError
from napari_dinobloom.predict import probe_training
from napari_dinobloom.predict.abstention import choose_threshold, cross_table
from napari_dinobloom.predict.atlas import Atlas
from napari_dinobloom.predict.calibration import Temperature
from napari_dinobloom.predict.probe import Probe
from napari_dinobloom.predict.probe_training import train_probe

QUERIES = 2 * np.random.default_rng(3).normal(size=(40, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return make(600, 2.5, per_picture=3)


@pytest.fixture(scope="module")
def probe(atlas: Atlas) -> Probe:
    return train_probe(atlas, name="p")


def test_weights_are_those_of_scikit_learn_at_the_probes_temperature(atlas: Atlas, probe: Probe) -> None:
    theirs = LogisticRegression(C=8 * 3 / 100, max_iter=1000).fit(atlas.X.astype(np.float64), atlas.y)
    logits = theirs.decision_function(QUERIES.astype(np.float64)) / probe.temperature
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probe.predict_proba(QUERIES), expected, atol=1e-4)
    found = probe.classify(QUERIES)
    assert found["predicted"].tolist() == theirs.predict(QUERIES).tolist()
    assert (found["abstained"] == (expected.max(axis=1) < probe.threshold - 1e-5)).all()
    assert probe.classify(np.full((1, 8), 99.0))["unlike"].tolist() == [True]


def test_temperature_threshold_and_confusion_come_from_cells_it_did_not_learn(atlas: Atlas, probe: Probe) -> None:
    asked = np.flatnonzero(atlas.held_out)
    p = np.zeros((len(asked), 3), np.float32)
    splits = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    for _, fold in splits.split(asked, atlas.y[asked], atlas.source[asked]):
        others = ~np.isin(atlas.source, atlas.source[asked[fold]])
        model = LogisticRegression(C=0.24, max_iter=1000).fit(atlas.X[others].astype(np.float64), atlas.y[others])
        p[fold] = model.predict_proba(atlas.X[asked[fold]].astype(np.float64))
    temperature = Temperature.fit(p, np.searchsorted(probe.classes, atlas.y[asked]), floor=0.0)
    assert probe.temperature == pytest.approx(temperature.value, rel=1e-3)
    p = temperature.apply(p)
    named = np.asarray(probe.classes)[p.argmax(axis=1)]
    threshold, _, _ = choose_threshold(p.max(axis=1), named == atlas.y[asked], atlas.y[asked])
    assert probe.threshold == pytest.approx(threshold, abs=1e-3)
    far = probe.classify(atlas.X[asked], atlas.source[asked].tolist())["unlike"]
    named = np.where((p.max(axis=1) < probe.threshold - 1e-6) | far, "unclassified", named)
    table = cross_table(atlas.y[asked], named, np.asarray(probe.classes))
    assert np.abs(table.to_numpy() - probe.confusion).sum() <= 2  # a probability at the threshold may round
    assert probe.confusion.sum() == len(asked)


def test_a_saved_probe_is_the_same_and_can_be_read_by_people(probe: Probe, tmp_path: Path) -> None:
    again = Probe.load(probe.save(tmp_path / "p.safetensors"))
    assert again.classify(QUERIES).equals(probe.classify(QUERIES))
    assert again.explain(QUERIES).equals(probe.explain(QUERIES))
    assert again.facts() == probe.facts()
    told = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert told["classes"] == list(probe.classes)
    assert told["C"] == 0.24
    assert told["info"]["calibration"] == "five folds"
    first = (tmp_path / "p.safetensors").read_bytes()
    assert again.save(tmp_path / "q.safetensors").read_bytes() == first


def test_another_encoder_is_refused(probe: Probe) -> None:
    own = SimpleNamespace(name="starter", sha256="ab" * 32)
    probe.check(own, POLICY)
    with pytest.raises(AtlasError, match="Probe 'p' belongs to encoder 'starter'"):
        probe.check(SimpleNamespace(name="B", sha256="cd" * 32), POLICY)
    with pytest.raises(AtlasError, match="other crops"):
        probe.check(own, CropPolicy(fov_um=30.0))
    with pytest.raises(AtlasError, match="5 numbers, the probe was trained on 8"):
        probe.classify(np.zeros((1, 5)))
    with pytest.raises(AtlasError, match="first in row 1"):
        probe.classify([[0.0] * 8, [np.nan] * 8])


def test_a_class_can_be_left_out(probe: Probe) -> None:
    p, left = probe.predict_proba(QUERIES), probe.without("lymphocyte").predict_proba(QUERIES)
    at = probe.classes.index("lymphocyte")
    assert (left[:, at] == 0).all()
    rest = np.delete(p, at, axis=1)
    np.testing.assert_allclose(np.delete(left, at, axis=1), rest / rest.sum(axis=1, keepdims=True), rtol=1e-4)
    assert "lymphocyte" not in set(probe.without("lymphocyte").explain(QUERIES)["class"])
    assert len(probe.classify(np.zeros((0, 8)))) == 0


def test_it_holds_some_cells_of_each_class(monkeypatch: pytest.MonkeyPatch, atlas: Atlas) -> None:
    monkeypatch.setattr(probe_training, "KEPT", 30)
    few = train_probe(atlas, name="p")
    assert np.unique(few.y, return_counts=True)[1].tolist() == [30, 30, 30]
    assert few.cells == 600
    near = few.explain(few.X[:3], few.source[:3].tolist())
    assert (near["source"].to_numpy() != few.source[:3][near["cell"]]).all()


def test_a_class_of_one_cell_is_trained_on_and_named_as_not_measured() -> None:
    base = make(60, 0.5)
    atlas = Atlas.from_embeddings(
        np.vstack([base.X, np.full((1, 8), 9.0)]), [*base.y, "blast"], [*base.source, "f" * 16], [True] * 61,
        name="t", encoder="e", encoder_sha256="0", policy={}, policy_hash="0")  # fmt: skip
    probe = train_probe(atlas, name="p")
    assert probe.info["unmeasured"] == ["blast"]
    assert probe.confusion_table().loc["blast"].sum() == 0
    assert probe.classify(np.full((1, 8), 9.0))["predicted"].tolist() == ["blast"]


@pytest.mark.parametrize("held", ["one class of one picture", "one cell of each class", "one picture"])
def test_however_few_held_out_cells_can_be_asked_it_is_measured(held: str) -> None:
    base = make(90, 0.5)
    y, rows = base.y.copy(), np.arange(90)
    source = base.source.copy()
    source[:6] = source[0]
    if held == "one class of one picture":
        y[:6] = "blast"
    kept = {"one cell of each class": np.isin(rows, [6, 7, 8])}.get(held, rows < 6)
    atlas = Atlas.from_embeddings(
        base.X, y.tolist(), source.tolist(), kept,
        name="t", encoder="e", encoder_sha256="0", policy={}, policy_hash="0", info={"stain": "reinhard"})  # fmt: skip
    probe = train_probe(atlas, name="p")
    assert probe.info["stain"] == "reinhard"
    asked = {"one class of one picture": 84, "one cell of each class": 3, "one picture": 6}[held]
    assert probe.confusion.sum() == atlas.confusion.sum() == asked
    assert 0.5 < probe.info["accuracy"] <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, t: a.update(threshold=2.0), "out of range"),
        (lambda a, t: a.update(threshold=0.01), "hash"),
        (lambda a, t: a.update(distance_limit=float("inf")), "out of range"),
        (lambda a, t: a["info"].update(parts=3), "parts"),
        (lambda a, t: a.update(schema=9), "schema 9"),
        (lambda a, t: a.update(classes="abc"), "classes"),
        (lambda a, t: t.update(coef=t["coef"][:2]), "shape"),
        (lambda a, t: t["coef"].fill(np.nan), "NaN"),
        (lambda a, t: t["y"].fill(9), "out of range"),
    ],
)
def test_a_changed_file_is_refused(probe: Probe, tmp_path: Path, change, message: str) -> None:
    path = probe.save(tmp_path / "p.safetensors")
    with safe_open(path, framework="numpy") as handle:
        about = json.loads(handle.metadata()["napari-dinobloom"])
    tensors = load_file(path)
    change(about, tensors)
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path,
              metadata={"napari-dinobloom": json.dumps(about)})  # fmt: skip
    with pytest.raises(AtlasError, match=message) as error:
        Probe.load(path)
    assert str(path) in str(error.value)
