"""Attention MIL: what it computes against a plain loop, what it learns and refuses, and that a file gives it back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from grouped import by_composition, by_key_cells
from sklearn.metrics import roc_auc_score

import napari_dinobloom as nd
from napari_dinobloom.errors import InputError
from napari_dinobloom.predict.mil import model as module
from napari_dinobloom.predict.mil.attention import Attention, deletion
from napari_dinobloom.predict.mil.presets import preset_of

SMALL = {"device": "cpu", "hidden": 8, "attention": 4, "members": 3, "steps": 40}


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    grown = np.exp(x - x.max(axis, keepdims=True))
    return grown / grown.sum(axis, keepdims=True)


@pytest.fixture(scope="module")
def fitted() -> tuple[nd.AttentionMIL, list[np.ndarray], np.ndarray]:
    bags, y = by_composition(classes=3, patients=30)
    return nd.AttentionMIL(**SMALL).fit(bags, y), bags, y


def test_gated_attention_is_that_of_the_paper_written_out(fitted) -> None:
    model, bags, _ = fitted
    w = model._weights
    for bag in bags[:3]:
        found = []
        for m in range(3):
            h = np.maximum((bag - model._centre) / model._spread @ w["embed"][m] + w["embed_bias"][m], 0)
            scores = (np.tanh(h @ w["attend"][m]) / (1 + np.exp(-h @ w["gate"][m]))) @ w["score"][m]
            pooled = softmax(scores, 0).T @ h
            logits = (pooled * w["by_attention"][m]).sum(1) + h.mean(0) @ w["by_mean"][m].T + w["bias"][m, 0]
            found.append((softmax(logits, 0), scores))
        alone = np.mean([one for one, _ in found], 0)
        mean = model.pooling_.predict_proba(bag.mean(0, keepdims=True))[0]
        expected = model.share_ * alone + (1 - model.share_) * mean
        np.testing.assert_allclose(model.proba([bag])["attention alone"][0], alone, atol=1e-5)
        np.testing.assert_allclose(model.predict_proba([bag])[0], expected, atol=1e-5)
        np.testing.assert_allclose(model.attention([bag])[0].scores, np.mean([s for _, s in found], 0), atol=1e-5)


def test_the_paper_s_network_written_out_and_its_best_weights_are_kept() -> None:
    bags, y = by_composition()
    model = nd.AttentionMIL("paper", device="cpu", epochs=15).fit(bags, y)
    w, bag = model._weights, bags[0]
    scores = np.tanh(bag @ w["attend"] + w["attend_bias"]) @ w["score"] + w["score_bias"]
    pooled = softmax(scores, 0).T @ bag
    hidden = np.maximum(np.einsum("kd,kdh->kh", pooled, w["first"]) + w["first_bias"], 0)
    logits = (hidden * w["last"]).sum(1) + w["last_bias"]
    np.testing.assert_allclose(model.predict_proba([bag])[0], softmax(logits, 0), atol=1e-5)
    assert (model.predict(bags) == y).mean() > 0.9
    longer = nd.AttentionMIL("paper", device="cpu", epochs=25, patience=25).fit(bags, y)
    again = nd.AttentionMIL("paper", device="cpu", epochs=longer.epochs_, patience=25).fit(bags, y)
    for name, value in again._weights.items():
        np.testing.assert_array_equal(value, longer._weights[name], err_msg="weights of the best epoch")


def test_key_cells_are_found_where_mean_pooling_sees_nothing() -> None:
    bags, y, _ = by_key_cells(60)
    new, truth, keys = by_key_cells(60, seed=1)
    model = nd.AttentionMIL(device="cpu", hidden=16, attention=8, steps=400).fit(bags, y)
    assert model.classes_.tolist() == ["with", "without"]
    shares = model.proba(new)
    assert roc_auc_score(truth == "with", shares["gated"][:, 0]) > 0.95
    assert roc_auc_score(truth == "with", shares["mean pooling"][:, 0]) < 0.9
    attention = model.attention(new)
    ranks = np.concatenate([one.rank[key, 0] for one, key in zip(attention, keys, strict=True)])
    assert np.mean(ranks <= 5) > 0.9
    checked = deletion(model.predict_proba, new[1::2], attention[1::2], count=5)
    assert checked["top"].mean() > 5 * checked["random"].mean()


def test_the_seed_decides_and_other_patients_do_not(fitted) -> None:
    model, bags, y = fitted
    shares = model.proba(bags)["attention alone"]
    np.testing.assert_array_equal(nd.AttentionMIL(**SMALL).fit(bags, y).proba(bags)["attention alone"], shares)
    other = nd.AttentionMIL(seed=1, **SMALL).fit(bags, y)
    assert not np.array_equal(other.proba(bags)["attention alone"], shares)
    alone = np.concatenate([model.proba([bag])["attention alone"] for bag in bags])
    np.testing.assert_array_equal(alone, shares)
    np.testing.assert_allclose(model.predict_proba(bags).sum(1), 1, atol=1e-5)


def test_chunks_do_not_change_a_prediction_and_bags_may_be_of_one_or_many_cells(fitted, monkeypatch) -> None:
    model, bags, _ = fitted
    many = np.concatenate(bags * 30)
    whole, attention = model.proba([many, many[:1]])["attention alone"], model.attention([many])[0]
    monkeypatch.setattr(module, "CHUNK", 100)
    np.testing.assert_allclose(model.proba([many, many[:1]])["attention alone"], whole, atol=1e-5)
    np.testing.assert_allclose(model.attention([many])[0].scores, attention.scores, atol=1e-5)
    assert model.attention([many[:1]])[0].scaled.tolist() == [[1, 1, 1]]


def test_a_saved_model_is_the_same_and_a_changed_file_is_refused(fitted, tmp_path: Path) -> None:
    model, bags, _ = fitted
    model.remember(bags[:2], [{"a"}, {"b"}], np.full((2, 2, 3), 0.25, "f4"))
    model.about = {"encoder": "starter"}
    path = model.save(tmp_path / "m.safetensors")
    back = nd.AttentionMIL.load(path, device="cpu")
    np.testing.assert_array_equal(back.predict_proba(bags), model.predict_proba(bags))
    assert back.about == {"encoder": "starter"}
    assert back.trained_on_.find(bags[:3], [set(), {"b"}, set()])[0].tolist() == [0, 1, -1]
    assert back.save(tmp_path / "n.safetensors").read_bytes() == path.read_bytes()
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'hidden\\": 8', b'hidden\\": 9'))
    with pytest.raises(InputError, match=r"m\.safetensors"):
        nd.AttentionMIL.load(path)
    nd.LinearProbe().fit(np.eye(3), ["a", "b", "c"]).save(path)
    with pytest.raises(InputError, match="attention-mil"):
        nd.AttentionMIL.load(path)
    with pytest.raises(InputError, match="not trained"):
        nd.AttentionMIL().save(path)


def test_bad_input_is_refused(fitted) -> None:
    model, bags, _ = fitted
    with pytest.raises(InputError, match="have 7 numbers, 8 are needed"):
        model.predict_proba([bags[0][:, :7]])
    with pytest.raises(InputError, match="no cell"):
        model.attention([bags[0][:0]])
    with pytest.raises(InputError, match="no preset 'deep'"):
        nd.AttentionMIL("deep")
    with pytest.raises(InputError, match="no setting 'depth'"):
        preset_of("gated", depth=3)
    with pytest.warns(UserWarning, match="g0 has 2, g1 has 2"):
        small = nd.AttentionMIL(**SMALL).fit(*by_composition(4))
    assert np.isfinite(small.predict_proba(bags)).all(), "two patients of each group are the least"


def test_rank_and_scale_of_attention() -> None:
    one = Attention(np.array([[0.5, 1], [2, 1], [-1, 1], [2, 1]], "f4"))
    assert one.rank[:, 0].tolist() == [3, 1, 4, 2]
    np.testing.assert_allclose(one.scaled[:, 0], [0.5, 1, 0, 1])
    assert one.scaled[:, 1].tolist() == [1, 1, 1, 1]
    np.testing.assert_allclose(one.weights.sum(0), 1, rtol=1e-6)
    assert (one.top(2, 0).tolist(), one.bottom(2, 0).tolist()) == ([1, 3], [2, 0])
