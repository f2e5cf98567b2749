"""Scores against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier

from napari_dinobloom.predict.evaluation import evaluate_embeddings, scores


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.choice(list("abcd"), 80, p=[0.6, 0.2, 0.15, 0.05])
    given = np.where(rng.random(80) < 0.6, truth, rng.choice(list("abcd"), 80))
    found = scores(truth, given)
    assert found["weighted_f1"] == pytest.approx(f1_score(truth, given, average="weighted"))
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, given))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, given))


def test_a_name_that_is_no_class_counts_as_wrong() -> None:
    found = scores(["a", "a", "b"], ["a", "unclassified", "b"])
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["weighted_f1"] == pytest.approx((2 * 2 / 3 + 1) / 3)


def test_the_table_is_that_of_the_reference_protocol() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 240)
    X = 1.2 * rng.normal(size=(3, 10))[y] + rng.normal(size=(240, 10))
    names = np.array(["a", "b", "c"])[y]
    table = evaluate_embeddings(X[:160], names[:160], X[160:], names[160:])
    assert table.index.tolist() == ["1-NN", "20-NN", "linear probe"]
    models = [KNeighborsClassifier(1), KNeighborsClassifier(20), LogisticRegression(C=10 * 3 / 100, max_iter=1000)]
    for row, model in zip(table.index, models, strict=True):
        predicted = model.fit(X[:160], names[:160]).predict(X[160:])
        theirs = f1_score(names[160:], predicted, average="weighted")
        # scikit-learn breaks ties of 20 votes by name, we by distance: a cell or two may differ
        assert table.loc[row, "weighted_f1"] == pytest.approx(theirs, abs=0.03 if row == "20-NN" else 1e-9)
