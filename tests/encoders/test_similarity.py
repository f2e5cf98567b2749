from __future__ import annotations

import numpy as np
import pytest

from napari_dinobloom.encoders.similarity import patch_similarity


def test_every_patch_is_compared_with_the_chosen_one() -> None:
    tokens = np.random.default_rng(0).normal(size=(3, 4, 5, 7)).astype(np.float32)
    found = patch_similarity(tokens, 1, 3, 2)
    assert (found.shape, found.dtype) == ((3, 4, 5), np.float32)
    one = tokens[1, 3, 2].astype(np.float64)
    for place in np.ndindex(3, 4, 5):
        other = tokens[place].astype(np.float64)
        assert found[place] == pytest.approx(one @ other / np.sqrt((one @ one) * (other @ other)), abs=1e-6)


def test_same_opposite_and_empty_tokens() -> None:
    tokens = np.zeros((1, 1, 4, 3), np.float32)
    tokens[0, 0, :3] = [[1e-3, 2e-3, 2e-3], [100, 200, 200], [-1, -2, -2]]
    np.testing.assert_allclose(patch_similarity(tokens, 0, 0, 0)[0, 0], [1, 1, -1, 0], atol=1e-6)
    assert np.abs(patch_similarity(tokens, 0, 0, 1)).max() <= 1
    assert (patch_similarity(tokens, 0, 0, 3) == 0).all()


@pytest.mark.parametrize("place", [(2, 0, 0), (0, 4, 0), (0, 0, 5), (-1, 0, 0)])
def test_a_patch_that_is_not_there_is_refused(place: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="There is no patch"):
        patch_similarity(np.ones((2, 4, 5, 3), np.float32), *place)


def test_tokens_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="must be"):
        patch_similarity(np.ones((4, 5, 3), np.float32), 0, 0, 0)
