from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from napari_dinobloom.encoders.patches import patch_pca, principal_axes


@pytest.fixture
def tokens() -> np.ndarray:
    """Twenty cells whose patches vary along a few directions of falling strength."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(6, 24)) * np.array([9, 6, 4, 2, 1, 0.5])[:, None]
    return (random.normal(size=(20, 8, 8, 6)) @ mixing + 3).astype(np.float32)


def _scaled(scores: np.ndarray) -> np.ndarray:
    low, high = np.percentile(scores, (1, 99), axis=0)
    return np.clip((scores - low) / (high - low), 0, 1)


def test_colours_are_those_of_scikit_learns_pca(tokens: np.ndarray) -> None:
    scores = PCA(3, svd_solver="full").fit_transform(tokens.reshape(-1, 24).astype(np.float64))
    found = patch_pca(tokens)
    assert (found.shape, found.dtype) == ((20, 8, 8, 3), np.float32)
    np.testing.assert_allclose(found.reshape(-1, 3), _scaled(scores), atol=1e-4)


def test_the_sign_does_not_depend_on_the_order_of_cells(tokens: np.ndarray) -> None:
    order = np.random.default_rng(1).permutation(20)
    np.testing.assert_allclose(patch_pca(tokens[order]), patch_pca(tokens)[order], atol=1e-5)
    np.testing.assert_array_equal(patch_pca(tokens), patch_pca(tokens.copy()))


def test_axes_are_orthonormal_with_positive_largest_loading(tokens: np.ndarray) -> None:
    _, axes = principal_axes(tokens.reshape(-1, 24), 3)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-10)
    assert (axes[np.arange(3), np.abs(axes).argmax(1)] > 0).all()


def test_only_the_foreground_counts_and_the_rest_is_black(tokens: np.ndarray) -> None:
    mask = np.random.default_rng(2).random((20, 8, 8)) < 0.4
    spoilt = tokens.copy()
    spoilt[~mask] = np.nan
    found = patch_pca(spoilt, foreground=mask)
    scores = PCA(3, svd_solver="full").fit_transform(tokens[mask].astype(np.float64))
    np.testing.assert_allclose(found[mask], _scaled(scores), atol=1e-4)
    assert (found[~mask] == 0).all()
    assert (patch_pca(tokens, foreground=np.zeros_like(mask)) == 0).all()


def test_tokens_without_spread_are_grey_and_none_give_none() -> None:
    assert (patch_pca(np.ones((2, 4, 4, 8), np.float32)) == 0.5).all()
    assert patch_pca(np.zeros((0, 16, 16, 8), np.float32)).shape == (0, 16, 16, 3)
    line = np.zeros((1, 4, 4, 8), np.float32)
    line[..., 2] = np.arange(16).reshape(4, 4)
    found = patch_pca(line)
    assert (found[..., 1:] == 0.5).all()
    assert found[0, 3, 3, 0] == 1
    assert found[0, 0, 0, 0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tokens": np.zeros((2, 4, 8))}, "must be"),
        ({"tokens": np.zeros((2, 4, 4, 8)), "foreground": np.ones((2, 4, 3), bool)}, "foreground has shape"),
        ({"tokens": np.full((1, 4, 4, 8), np.inf)}, "infinite"),
        ({"tokens": np.zeros((1, 4, 4, 8)), "percentiles": (99, 1)}, "increasing"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        patch_pca(**arguments)
