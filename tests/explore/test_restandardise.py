from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from napari_dinobloom.explore.mixing import inverse_simpson, mixing
from napari_dinobloom.explore.restandardise import Restandardise
from napari_dinobloom.explore.slide_shifts import LEAST_PRIOR, taken_by_chance, taken_share

POPULATIONS = 4


def slides(
    counts: np.ndarray, shift: float = 0.0, seed: int = 0, spread: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings, slide and population of cells; `counts` is (slides, populations), each slide moved at random."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(counts.shape[1], 16)) * 4
    moves = random.normal(size=(len(counts), 16)) * shift
    slide = np.repeat(np.arange(len(counts)), counts.sum(1))
    kind = np.concatenate([np.repeat(np.arange(counts.shape[1]), row) for row in counts])
    noise = random.normal(size=(len(slide), 16))
    if spread is not None:
        noise *= spread[slide][:, None]
    return (centres[kind] + moves[slide] + noise).astype(np.float32), slide, kind


def mixed(slides_count: int = 6, cells: int = 200, seed: int = 3) -> np.ndarray:
    """Cells of each population on each slide, in very different shares."""
    shares = np.random.default_rng(seed).dirichlet(np.ones(POPULATIONS), slides_count)
    return np.maximum((shares * cells).astype(int), 8)


def least_squares(x: np.ndarray, slide: np.ndarray, kind: np.ndarray, prior: float) -> np.ndarray:
    """Shifts of slides by one dense ridge regression on dummy columns, with the populations known."""
    dummies = np.hstack([kind[:, None] == np.arange(kind.max() + 1), slide[:, None] == np.arange(slide.max() + 1)])
    penalty = np.diag([0.0] * (kind.max() + 1) + [prior] * (slide.max() + 1))
    design = dummies.astype(np.float64)
    return np.linalg.solve(design.T @ design + penalty, design.T @ x.astype(np.float64))[kind.max() + 1 :]


def test_shifts_are_those_of_a_regression_on_populations_and_slides() -> None:
    x, slide, kind = slides(mixed(), shift=1.0)
    model = Restandardise.fit(x, slide.tolist(), clusters=POPULATIONS)
    np.testing.assert_allclose(model.shift, least_squares(x, slide, kind, model.prior), atol=1e-4)
    assert model.prior >= LEAST_PRIOR
    assert model.cells.tolist() == np.bincount(slide).tolist()


def test_a_stain_is_taken_out_and_composition_stays() -> None:
    counts = mixed()
    x, slide, kind = slides(counts, shift=1.5)
    bare, _, _ = slides(counts)
    model = Restandardise.fit(x, slide.tolist())
    after = model.transform(x, slide.tolist())
    before = mixing(x[kind == 0], slide[kind == 0].tolist(), k=10)
    assert before.share < 0.2
    assert mixing(after[kind == 0], slide[kind == 0].tolist(), k=10).share > 0.7
    wanted = np.stack([bare[slide == i].mean(0) for i in range(len(counts))])
    found = np.stack([after[slide == i].mean(0) for i in range(len(counts))])
    apart = np.linalg.norm((wanted - wanted.mean(0)) - (found - found.mean(0)))
    assert apart < 0.2 * np.linalg.norm(wanted - wanted.mean(0))
    assert model.concerns() == []


def test_without_a_stain_next_to_nothing_happens() -> None:
    x, slide, _ = slides(mixed())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = Restandardise.fit(x, slide.tolist())
    assert np.abs(model.transform(x, slide.tolist()) - x).max() < 0.5, "cells lie 4 apart, and are 1 wide"
    assert np.abs(model.shift).mean() < 0.05


def test_a_second_time_changes_little() -> None:
    x, slide, _ = slides(mixed(), shift=1.5)
    once = Restandardise.fit(x, slide.tolist()).transform(x, slide.tolist())
    twice = Restandardise.fit(once, slide.tolist()).transform(once, slide.tolist())
    assert np.abs(twice - once).mean() < 0.1 * np.abs(once - x).mean()


def test_spreads_within_populations_are_matched() -> None:
    spread = np.array([0.5, 1.0, 2.0, 1.0, 0.7, 1.4])
    x, slide, kind = slides(mixed(cells=600), spread=spread)
    after = Restandardise.fit(x, slide.tolist(), clusters=POPULATIONS).transform(x, slide.tolist())

    def within(table: np.ndarray) -> np.ndarray:
        rest = table.copy()
        for one in np.unique(slide):
            for other in np.unique(kind):
                rows = (slide == one) & (kind == other)
                rest[rows] -= table[rows].mean(0)
        return np.array([rest[slide == one].std() for one in np.unique(slide)])

    assert np.ptp(np.log(within(after))) < 0.4 * np.ptp(np.log(within(x)))


def test_small_slides_hardly_move() -> None:
    counts = np.full((5, POPULATIONS), 60)
    counts[4] = [1, 0, 1, 0]
    x, slide, _ = slides(counts, shift=1.5)
    model = Restandardise.fit(x, slide.tolist())
    length = np.linalg.norm(model.shift, axis=1)
    assert length[4] < 0.35 * length[:4].mean()


def test_each_cell_moves_by_its_own_slide_alone_and_order_is_nothing() -> None:
    x, slide, _ = slides(mixed(), shift=1.0)
    model = Restandardise.fit(x, slide.tolist())
    whole = model.transform(x, slide.tolist())
    order = np.random.default_rng(0).permutation(len(x))
    np.testing.assert_array_equal(model.transform(x[order], slide[order].tolist()), whole[order])
    np.testing.assert_array_equal(model.transform(x[7:8], [slide[7]]), whole[7:8])
    again = Restandardise.fit(x, slide.tolist())
    np.testing.assert_array_equal(again.shift, model.shift)
    np.testing.assert_array_equal(again.scale, model.scale)


def test_a_new_slide_is_added_and_the_others_stay() -> None:
    x, slide, _ = slides(mixed(), shift=1.5)
    first = slide < 5
    model = Restandardise.fit(x[first], slide[first].tolist())
    wider = model.with_groups(x, slide.tolist())
    assert wider.groups == ("0", "1", "2", "3", "4", "5")
    np.testing.assert_array_equal(wider.shift[:5], model.shift)
    whole = Restandardise.fit(x, slide.tolist())
    apart = wider.shift[5] - wider.shift[:5].mean(0) - (whole.shift[5] - whole.shift[:5].mean(0))
    assert np.linalg.norm(apart) < 0.3 * np.linalg.norm(whole.shift[5])
    assert model.with_groups(x[first], slide[first].tolist()) is model
    with pytest.raises(ValueError, match="'5' is not known"):
        model.transform(x, slide.tolist())


def test_slides_with_populations_of_their_own_are_warned_of() -> None:
    counts = np.array([[200, 0, 0, 0], [0, 200, 0, 0], [0, 0, 200, 0]])
    x, slide, _ = slides(counts)
    with pytest.warns(UserWarning, match="hold populations that no other group holds"):
        Restandardise.fit(x, slide.tolist())


def test_the_share_of_composition_taken_is_one_for_equal_means_and_zero_for_a_shift_across() -> None:
    cells = np.array([10.0, 30.0, 20.0])
    composition = np.array([[0.0, 1], [2, 0], [1, 5]])
    own = composition - (composition * cells[:, None]).sum(0) / cells.sum()
    assert taken_share(own, composition, cells) == pytest.approx(1)
    assert taken_share(0.3 * own, composition, cells) == pytest.approx(0.3)
    assert taken_share(np.ones((3, 2)) * 9, composition, cells) == pytest.approx(0)
    assert taken_share(own, np.ones((3, 2)), cells) == 0


def test_shifts_along_composition_are_warned_of() -> None:
    x, slide, _ = slides(mixed())
    model = Restandardise.fit(x, slide.tolist())
    assert model.concerns() == []
    (said,) = replace(model, taken=0.25, chance=0.1).concerns()
    assert "takes away 25 %" in said
    assert replace(model, taken=0.25, chance=0.4).concerns() == [], "of few slides chance may make as much"


def test_equal_means_are_found_out_and_stains_are_not() -> None:
    """Of twelve slides the shifts of equal means lie far beyond chance, those of a stain within it in most cases."""
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.ones(POPULATIONS), 12)
    centres = random.normal(size=(POPULATIONS, 16)) * 4
    composition, cells = shares @ centres, np.full(12, 100.0)
    own = composition - composition.mean(0)
    assert taken_share(own, composition, cells) > 2 * taken_by_chance(own, composition, cells)
    stains = [random.normal(size=(12, 16)) * 3 for _ in range(60)]
    above = [taken_share(one, composition, cells) > taken_by_chance(one, composition, cells) for one in stains]
    assert np.mean(above) < 0.2


@pytest.mark.parametrize(
    ("x", "groups", "words"),
    [
        (np.zeros((3, 2)), ["a", "b"], "2 groups"),
        (np.zeros(3), ["a"] * 3, "needed"),
        (np.zeros((0, 2)), [], "needed"),
        (np.array([[np.nan, 0]]), ["a"], "undefined"),
    ],
)
def test_what_does_not_fit_is_refused(x: np.ndarray, groups: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Restandardise.fit(x, groups)


def test_inverse_simpson_by_hand() -> None:
    codes = np.array([[0, 0, 0, 0], [0, 1, 2, 3], [5, 5, 1, 5], [2, 2, 3, 3]])
    np.testing.assert_allclose(inverse_simpson(codes), [1, 4, 1 / (0.75**2 + 0.25**2), 2])


def test_mixing_is_nothing_for_slides_apart_and_one_by_chance() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(600, 5))
    slide = np.arange(600) % 3
    assert mixing(x, slide.tolist()).share == pytest.approx(1, abs=0.06)
    apart = mixing(x + slide[:, None] * 100, slide.tolist())
    assert apart.share == pytest.approx(0, abs=1e-9)
    assert apart.lisi == pytest.approx(1)
    assert np.isnan(mixing(x, ["one"] * 600).share)
    with pytest.raises(ValueError, match="599 groups"):
        mixing(x, ["a"] * 599)
