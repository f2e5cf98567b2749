"""k-NN against scikit-learn, and the rule that a cell never votes for itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from napari_dinobloom.errors import AtlasError
from napari_dinobloom.predict.knn import KnnClassifier


@pytest.fixture(scope="module")
def cells() -> tuple[NDArray[np.float32], NDArray[np.str_], NDArray[np.float32]]:
    """Overlapping clusters of four classes, and queries."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 12))
    y = rng.integers(0, 4, 300)
    X = (centres[y] + 1.5 * rng.normal(size=(300, 12))).astype(np.float32)
    return X, np.array(["a", "b", "c", "d"])[y], rng.normal(size=(80, 12)).astype(np.float32)


@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_probabilities_are_those_of_scikit_learn(cells, k, weights, metric) -> None:
    X, y, queries = cells
    theirs = KNeighborsClassifier(k, metric=metric, weights=weights, algorithm="brute").fit(X.astype(np.float64), y)
    ours = KnnClassifier(k=k, metric=metric, weights=weights).fit(X, y)
    expected = theirs.predict_proba(queries.astype(np.float64))
    np.testing.assert_allclose(ours.predict_proba(queries), expected, atol=1e-5)
    leading = np.sort(expected, axis=1)
    clear = leading[:, -1] - leading[:, -2] > 1e-6
    assert clear.sum() > 40
    assert np.array_equal(ours.predict(queries)[clear], theirs.predict(queries.astype(np.float64))[clear])


def test_rows_at_distance_zero_outvote_all_others() -> None:
    X = [[0.0], [0.0], [0.0], [0.1], [0.1]]
    model = KnnClassifier(k=5, weights="distance").fit(X, ["a", "a", "b", "b", "b"])
    np.testing.assert_allclose(model.predict_proba([[0.0]]), [[2 / 3, 1 / 3]], rtol=1e-6)


def test_a_tie_goes_to_the_nearer_class_then_to_the_first() -> None:
    model = KnnClassifier(k=4).fit([[-2.0], [-3.0], [1.0], [3.0]], ["a", "a", "b", "b"])
    assert model.predict([[0.0]]).tolist() == ["b"]  # 1 + 1/3 against 1/2 + 1/3
    model = KnnClassifier(k=2).fit([[-1.0], [1.0]], ["b", "a"])
    assert model.predict([[0.0]]).tolist() == ["a"]


@pytest.mark.parametrize("pictures", [300, 40, 3])
def test_no_row_of_the_same_source_votes(cells, pictures) -> None:
    X, y, _ = cells
    source = np.array([f"p{i % pictures}" for i in range(len(X))])
    indices, distances = KnnClassifier(k=20).fit(X, y, source.tolist()).kneighbors(X, source.tolist())
    wide = X.astype(np.float64)
    for row in range(0, len(X), 17):
        d = np.sqrt(((wide - wide[row]) ** 2).sum(axis=1))
        d[source == source[row]] = np.inf
        expected = np.lexsort((np.arange(len(d)), d))[:20]
        assert np.array_equal(indices[row], expected)
        np.testing.assert_allclose(distances[row], d[expected], rtol=1e-6)


def test_an_unknown_source_excludes_nothing(cells) -> None:
    X, y, _ = cells
    model = KnnClassifier(k=3).fit(X, y, [""] * len(X))
    assert np.array_equal(model.kneighbors(X[:5], [""] * 5)[0][:, 0], np.arange(5))


def test_a_query_without_an_eligible_reference_is_unclassified() -> None:
    model = KnnClassifier(k=3).fit([[0.0], [1.0]], ["a", "b"], ["p", "p"])
    indices, distances = model.kneighbors([[0.0], [0.0]], ["p", "q"])
    assert indices.tolist() == [[-1, -1, -1], [0, 1, -1]]
    assert np.isinf(distances[0]).all()
    assert model.predict([[0.0], [0.0]], ["p", "q"]).tolist() == ["unclassified", "a"]
    assert model.predict_proba([[0.0]], ["p"]).sum() == 0


def test_a_saved_classifier_predicts_the_same(cells, tmp_path: Path) -> None:
    X, y, queries = cells
    model = KnnClassifier(k=7, weights="distance").fit(X, y, [f"s{i}" for i in range(len(X))])
    again = KnnClassifier.load(model.save(tmp_path / "knn.safetensors"))
    assert np.array_equal(again.predict_proba(queries), model.predict_proba(queries))
    assert np.array_equal(again.predict_proba(X, [f"s{i}" for i in range(300)]), model.predict_proba(X, model._source))
    first = (tmp_path / "knn.safetensors").read_bytes()
    assert again.save(tmp_path / "again.safetensors").read_bytes() == first


def test_no_query_gives_no_row(cells) -> None:
    X, y, _ = cells
    model = KnnClassifier().fit(X, y)
    assert model.predict_proba(X[:0]).shape == (0, 4)
    assert model.predict(X[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.zeros((0, 3)), [], "no cell"),
        ([[0.0, np.nan], [1.0, 1.0]], ["a", "b"], "first in row 0"),
        ([[0.0], [1.0]], ["a"], r"shape \(1,\)"),
        ([0.0, 1.0], ["a", "b"], "must be an array of shape"),
    ],
)
def test_a_reference_that_makes_no_sense_is_refused(X, y, message) -> None:
    with pytest.raises(AtlasError, match=message):
        KnnClassifier().fit(X, y)


def test_embeddings_of_another_dimension_are_refused(cells) -> None:
    X, y, _ = cells
    with pytest.raises(AtlasError, match="embeddings of 5 numbers, the reference of 12"):
        KnnClassifier().fit(X, y).predict(np.zeros((1, 5)))


@pytest.mark.parametrize("settings", [{"k": 0}, {"metric": "manhattan"}, {"weights": "rank"}])
def test_unknown_settings_are_refused(settings) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        KnnClassifier(**settings)
