from __future__ import annotations

import numpy as np
import pytest

from napari_dinobloom.encoders.similarity import patch_similarity


def test_every_patch_is_compared_with_the_chosen_one() -> None:
    tokens = np.random.default_rng(0).normal(size=(3, 4, 5, 7)).astype(np.float32)
    found = patch_similarity(tokens, 1, 3, 2)
    assert (found.shape, found.dtype) == ((3, 4, 5), np.float32)
    apart = tokens.astype(np.float64) - tokens.astype(np.float64).mean(axis=(1, 2), keepdims=True)
    one = apart[1, 3, 2]
    for place in np.ndindex(3, 4, 5):
        other = apart[place]
        assert found[place] == pytest.approx(one @ other / np.sqrt((one @ one) * (other @ other)), abs=1e-6)


def test_same_opposite_and_mean_tokens() -> None:
    tokens = np.zeros((1, 1, 5, 3), np.float32)
    tokens[0, 0, :4] = [[1e-3, 2e-3, 2e-3], [100, 200, 200], [-100, -200, -200], [-1e-3, -2e-3, -2e-3]]
    np.testing.assert_allclose(patch_similarity(tokens, 0, 0, 1)[0, 0], [1, 1, -1, -1, 0], atol=1e-6)
    assert (patch_similarity(tokens, 0, 0, 4) == 0).all()


def test_what_all_tokens_of_a_picture_share_does_not_count() -> None:
    tokens = np.random.default_rng(1).normal(size=(3, 4, 4, 8)).astype(np.float32)
    shared = 50 * np.random.default_rng(2).normal(size=(3, 1, 1, 8)).astype(np.float32)
    np.testing.assert_allclose(patch_similarity(tokens + shared, 0, 1, 2), patch_similarity(tokens, 0, 1, 2), atol=1e-4)


@pytest.mark.parametrize("place", [(2, 0, 0), (0, 4, 0), (0, 0, 5), (-1, 0, 0)])
def test_a_patch_that_is_not_there_is_refused(place: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="There is no patch"):
        patch_similarity(np.ones((2, 4, 5, 3), np.float32), *place)


def test_tokens_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="must be"):
        patch_similarity(np.ones((4, 5, 3), np.float32), 0, 0, 0)
