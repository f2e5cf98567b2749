"""Comparison of groups of patients against scipy, enumeration by hand and simulation."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from napari_dinobloom.errors import InputError
from napari_dinobloom.explore.gate_comparison import (
    benjamini_hochberg,
    cliffs_delta,
    compare_groups,
    holm,
    permutation_test,
)
from napari_dinobloom.explore.gate_statistics import gate_statistics
from napari_dinobloom.explore.gate_tree import GateTree
from napari_dinobloom.explore.gates import BooleanGate, GateError, RangeGate
from napari_dinobloom.io.groups import read_groups


def range_gate(name: str, low: float) -> RangeGate:
    return RangeGate(name=name, axes=("area_px",), range_min=low)


@pytest.fixture
def tree() -> GateTree:
    tree = GateTree()
    tree.add(range_gate("large", 0), seen=["reference"])
    tree.add(range_gate("huge", 1), parent="g1", seen=[])
    tree.add(range_gate("looked at", 0.5), seen=["p1"])
    tree.add(range_gate("not noted", -1))
    tree.add(BooleanGate(name="not looked", bool_type="not", gate_refs=["g3"]), seen=[])
    return tree


def cohort(sizes: dict[str, int]) -> pd.DataFrame:
    random = np.random.default_rng(0)
    parts = [
        pd.DataFrame({"patient": name, "slide": name, "area_px": random.normal(i % 2, 1, n)})
        for i, (name, n) in enumerate(sizes.items())
    ]
    return pd.concat(parts, ignore_index=True)


GROUPS = {f"p{i}": "ab"[i % 2] for i in range(8)}


@pytest.mark.parametrize("second", [[0, 1, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 0, 1, 0]])
def test_the_exact_p_is_that_of_scipy_and_of_all_orders(second: list[int]) -> None:
    values, b = np.random.default_rng(1).random(7), np.array(second, dtype=bool)

    def difference(x: np.ndarray, y: np.ndarray) -> float:
        return abs(float(np.mean(x) - np.mean(y)))

    p, exact = permutation_test(values, b)
    assert exact
    by_hand = [difference(values[list(o)][b], values[list(o)][~b]) for o in permutations(range(7))]
    assert p == pytest.approx(np.mean(np.array(by_hand) >= difference(values[b], values[~b]) - 1e-12))
    peer = stats.permutation_test((values[b], values[~b]), difference, alternative="greater", n_resamples=np.inf)
    assert p == pytest.approx(peer.pvalue)


def test_ties_and_equal_groups_give_one() -> None:
    assert permutation_test([0.1] * 6, [1, 1, 1, 0, 0, 0]) == (1.0, True)
    assert np.isnan(permutation_test([0.1, 0.2], [1, 1])[0])


def test_the_random_p_is_seeded_near_the_exact_one_and_never_zero() -> None:
    random = np.random.default_rng(2)
    values, b = random.normal(size=24), np.arange(24) < 12
    values[b] += 0.9
    p, exact = permutation_test(values, b, permutations=4000, seed=1)
    assert not exact
    assert p == permutation_test(values, b, permutations=4000, seed=1)[0]
    t = stats.ttest_ind(values[b], values[~b]).pvalue
    assert p == pytest.approx(t, abs=4 * np.sqrt(t / 4000))
    assert permutation_test(values + 100 * b, b, permutations=99)[0] == 1 / 100


def test_p_is_uniform_where_nothing_differs() -> None:
    random = np.random.default_rng(3)
    p = np.array([permutation_test(random.normal(size=8), np.arange(8) < 4)[0] for _ in range(400)])
    for alpha in (0.1, 0.5):
        assert abs((p <= alpha).mean() - alpha) < 4 * np.sqrt(alpha * (1 - alpha) / 400)


def test_cliffs_delta_is_that_of_mann_whitney_and_its_interval_covers() -> None:
    random = np.random.default_rng(4)
    a, b = random.integers(0, 5, 12), random.integers(1, 6, 9)
    u = stats.mannwhitneyu(b, a).statistic
    delta, low, high = cliffs_delta(a, b)
    assert delta == pytest.approx(2 * u / (12 * 9) - 1)
    assert low < delta < high
    flipped = cliffs_delta(b, a)
    np.testing.assert_allclose(flipped, (-delta, -high, -low))
    truth = 2 * stats.norm.cdf(1 / np.sqrt(2)) - 1  # of normals one apart
    hits = 0
    for _ in range(300):
        _, low, high = cliffs_delta(random.normal(0, 1, 15), random.normal(1, 1, 15))
        hits += low <= truth <= high
    assert 0.90 <= hits / 300 <= 0.995


def test_groups_are_read_without_white_space_and_only_lines_that_begin_so_are_comments(tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    path.write_text('# note, "with, quotes\npatient , group\nP#4,ill\n p5 , well \n"#6",ill\np7\n#p8,ill\n')
    assert read_groups(path) == {"P#4": "ill", "p5": "well", "#6": "ill"}
    path.write_text("patient,group\np1,ill\n p1,well\n")
    with pytest.raises(InputError, match="'p1' is in the groups 'ill' and 'well'"):
        read_groups(path)


def test_groups_that_do_not_overlap_have_an_interval_that_ends_at_one() -> None:
    delta, low, high = cliffs_delta(np.arange(8), np.arange(10, 18))
    assert (delta, high) == (1.0, 1.0)
    assert low == pytest.approx((8 - 1.959963984540054**2) / (8 + 1.959963984540054**2))
    assert cliffs_delta(np.arange(10, 18), np.arange(8)) == (-1.0, -1.0, -low)
    assert all(np.isnan(cliffs_delta([1], [2, 3])))


def test_adjusted_p_values_are_those_of_scipy_and_of_the_definition() -> None:
    p = np.array([0.01, 0.04, 0.03, np.nan, 0.005, 0.9, 0.04])
    given = ~np.isnan(p)
    np.testing.assert_allclose(benjamini_hochberg(p)[given], stats.false_discovery_control(p[given]))
    assert np.isnan(benjamini_hochberg(p)[3])
    assert np.isnan(holm(p)[3])
    # by hand: 6 x 0.005, 5 x 0.01, 4 x 0.03, then 3 x 0.04 is as large, 2 x 0.04 may not be smaller, 0.9
    np.testing.assert_allclose(holm(p)[given], [0.05, 0.12, 0.12, 0.03, 0.9, 0.12])
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]


def test_the_patient_is_the_unit(tree: GateTree) -> None:
    """Ten times the cells of each patient change no p-value: cells are not pooled."""
    cells = cohort({f"p{i}": 40 + 20 * i for i in range(8)})
    few = compare_groups(gate_statistics(tree, cells).counts, tree, GROUPS)
    many = compare_groups(gate_statistics(tree, pd.concat([cells] * 10, ignore_index=True)).counts, tree, GROUPS)
    pd.testing.assert_frame_equal(few, many)
    row = few.set_index("key").loc["g1"]
    shares = cells.assign(inside=cells["area_px"] >= 0).groupby("patient")["inside"].mean() * 100
    second = np.array([GROUPS[name] == "b" for name in shares.index])
    assert row["p"] == permutation_test(shares, second)[0]
    assert row["difference"] == pytest.approx(shares[second].mean() - shares[~second].mean())
    assert row["median_a"] == pytest.approx(shares[~second].median())
    assert (row["patients_a"], row["patients_b"], row["exact"]) == (4, 4, True)
    assert row["difference"] > 0 < row["delta"]
    np.testing.assert_allclose(few["p_bh"], benjamini_hochberg(few["p"]))
    assert (few["p_holm"] >= few["p_bh"]).all()


def test_gates_made_while_looking_at_these_patients_are_exploratory(tree: GateTree) -> None:
    tree.add(range_gate("below", 2), parent="g3", seen=[])
    counts = gate_statistics(tree, cohort({f"p{i}": 30 for i in range(8)})).counts
    found = compare_groups(counts, tree, GROUPS).set_index("gate")["exploratory"]
    assert found.to_dict() == {
        "large": False,
        "large/huge": False,
        "looked at": True,
        "looked at/below": True,
        "not noted": True,
        "not looked": True,
    }
    rest = {name: group for name, group in GROUPS.items() if name != "p1"}
    assert not compare_groups(counts, tree, rest).set_index("gate")["exploratory"]["looked at"]


def test_few_patients_and_empty_parents_are_said(tree: GateTree) -> None:
    cells = cohort({"p0": 50, "p1": 50, "p2": 50, "p3": 50})
    cells.loc[cells["patient"] == "p3", "area_px"] = -0.5  # no large cell, so no share of huge ones
    groups = {name: GROUPS[name] for name in ("p0", "p1", "p2", "p3")}
    notes = compare_groups(gate_statistics(tree, cells).counts, tree, groups).set_index("key")
    assert "least possible is 0.333" in notes.loc["g1", "note"]
    assert "fewer than 6 patients" in notes.loc["g1", "note"]
    assert "left out: 1" in notes.loc["g2", "note"]
    assert (notes.loc["g2", "patients_a"], notes.loc["g2", "patients_b"]) == (2, 1)
    assert np.isnan(notes.loc["g2", "delta"])
    of_all = compare_groups(gate_statistics(tree, cells).counts, tree, groups, of="all").set_index("key")
    assert of_all.loc["g2", "patients_b"] == 2


def test_comparisons_that_make_no_sense_are_refused(tree: GateTree) -> None:
    counts = gate_statistics(tree, cohort({f"p{i}": 30 for i in range(8)})).counts
    with pytest.raises(GateError, match="two groups of patients, not 1"):
        compare_groups(counts, tree, {"p0": "a", "p1": "a"})
    with pytest.raises(GateError, match=r"no patient 'p11'.*did you mean 'p1'"):
        compare_groups(counts, tree, {"p0": "a", "p11": "b"})
    with pytest.raises(GateError, match="'of' is"):
        compare_groups(counts, tree, GROUPS, of="cells")  # type: ignore[arg-type]
