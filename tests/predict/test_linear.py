"""The linear probe against scikit-learn, and its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.predict.linear import LinearProbe


def cells(classes: int, n: int = 200, d: int = 6):
    rng = np.random.default_rng(classes)
    y = np.arange(n) % classes
    X = rng.normal(size=(classes, d))[y] + rng.normal(size=(n, d))
    return X.astype(np.float32), np.array(["a", "b", "c", "d"])[y]


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_probabilities_are_those_of_scikit_learn(classes: int) -> None:
    X, y = cells(classes)
    probe = LinearProbe().fit(X, y)
    np.testing.assert_allclose(probe.C_, 6 * classes / 100)
    theirs = LogisticRegression(C=6 * classes / 100, max_iter=1000).fit(X.astype(np.float64), y)
    np.testing.assert_allclose(probe.predict_proba(X), theirs.predict_proba(X.astype(np.float64)), atol=1e-5)
    assert np.array_equal(probe.predict(X), theirs.predict(X.astype(np.float64)))
    assert probe.converged_


def test_the_strength_is_that_of_the_reference_code() -> None:
    # dinobloom.md 3.1: 384 numbers, 11 classes: C = 42.24
    rng = np.random.default_rng(0)
    y = np.repeat([f"c{i:02d}" for i in range(11)], 3)
    probe = LinearProbe(max_iter=1).fit(rng.normal(size=(33, 384)), y)
    np.testing.assert_allclose(probe.C_, 42.24)
    assert not probe.converged_


@pytest.mark.parametrize("classes", [2, 4])
def test_a_saved_probe_predicts_the_same(tmp_path: Path, classes: int) -> None:
    X, y = cells(classes)
    probe = LinearProbe(C=0.5).fit(X, y)
    again = LinearProbe.load(probe.save(tmp_path / "probe.safetensors"))
    assert np.array_equal(again.predict_proba(X), probe.predict_proba(X))
    assert np.array_equal(again.predict(X), probe.predict(X))
    assert (again.C, again.C_, again.converged_) == (0.5, 0.5, True)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ([[0.0], [1.0]], ["a", "a"], "two classes"),
        ([[0.0], [np.nan]], ["a", "b"], "row 1"),
        ([[0.0], [1.0]], ["a"], "shape"),
        ([0.0, 1.0], ["a", "b"], "shape"),
    ],
)
def test_cells_that_cannot_be_fitted_are_refused(X, y, message: str) -> None:
    with pytest.raises(DinoBloomError, match=message):
        LinearProbe().fit(X, y)


def test_another_dimension_and_another_file_are_refused(tmp_path: Path) -> None:
    X, y = cells(3)
    probe = LinearProbe().fit(X, y)
    with pytest.raises(DinoBloomError, match="2 numbers, the probe was fitted on 6"):
        probe.predict(np.zeros((1, 2)))
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(DinoBloomError, match=r"x\.safetensors"):
        LinearProbe.load(path)
    probe.coef_ = probe.coef_[:2]
    with pytest.raises(DinoBloomError, match="do not fit"):
        LinearProbe.load(probe.save(path))


@pytest.mark.parametrize("settings", [{"C": 0.0}, {"max_iter": 0}])
def test_settings_that_mean_nothing_are_refused(settings) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        LinearProbe(**settings)
