from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dinobloom.explore import neighbours
from napari_dinobloom.explore.neighbours import Search, exact_neighbours, iter_neighbours
from napari_dinobloom.progress import drain


def oracle(query, reference, k, metric="euclidean", forbidden=None) -> tuple[np.ndarray, np.ndarray]:
    """Every pair in float64, one at a time, sorted by distance, then row."""
    query, reference = query.astype(np.float64), reference.astype(np.float64)
    if metric == "cosine":
        query = query / np.sqrt(np.square(query).sum(1, keepdims=True))
        reference = reference / np.sqrt(np.square(reference).sum(1, keepdims=True))
    indices = np.full((len(query), k), -1, np.int64)
    distances = np.full((len(query), k), np.inf, np.float32)
    for i, one in enumerate(query):
        squares = np.square(one - reference).sum(1)
        pairs = sorted((d, j) for j, d in enumerate(squares) if forbidden is None or not forbidden[i, j])[:k]
        for slot, (d, j) in enumerate(pairs):
            indices[i, slot], distances[i, slot] = j, d / 2 if metric == "cosine" else np.sqrt(d)
    return indices, distances


def agree(found: tuple[np.ndarray, np.ndarray], wanted: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1])
    assert found[0].dtype == np.int64
    assert found[1].dtype == np.float32


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 7, 60])
def test_equal_to_every_pair_in_float64(metric: str, k: int) -> None:
    random = np.random.default_rng(0)
    reference = (random.normal(size=(400, 33)) + 40).astype(np.float32)
    query = (random.normal(size=(50, 33)) + 40).astype(np.float32)
    agree(exact_neighbours(query, reference, k, metric=metric), oracle(query, reference, k, metric))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_ties_and_copies_are_ordered_by_row(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 60))
    numbers = st.lists(st.integers(-1, 1), min_size=2 * rows, max_size=2 * rows)
    table = np.array(data.draw(numbers), np.float32).reshape(rows, 2) * 1000
    k = data.draw(st.integers(1, 10))
    groups = np.array(data.draw(st.lists(st.integers(0, 2), min_size=rows, max_size=rows)))
    apart = groups[:, None] == groups[None, :]
    agree(exact_neighbours(table, table, k), oracle(table, table, k))
    agree(exact_neighbours(table, table, k, exclude_self=True), oracle(table, table, k, forbidden=np.eye(rows) > 0))
    agree(exact_neighbours(table, table, k, groups=(groups, groups)), oracle(table, table, k, forbidden=apart))


def test_distances_that_float32_cannot_tell_apart() -> None:
    """A far-away cloud whose neighbours differ by less than float32 sums can see."""
    random = np.random.default_rng(1)
    reference = (np.full((300, 64), 1.0) + random.integers(0, 3, (300, 64)) * 2.0**-22).astype(np.float32)
    reference[0] = -1000
    agree(exact_neighbours(reference, reference, 5), oracle(reference, reference, 5))


def test_a_hundred_copies_of_a_cell() -> None:
    table = np.vstack([np.zeros((3, 4)), np.ones((100, 4)), np.zeros((2, 4))]).astype(np.float32)
    found, distances = exact_neighbours(table, table, 4)
    assert found[50].tolist() == [3, 4, 5, 6]
    assert found[104].tolist() == [0, 1, 2, 103]
    assert (distances == 0).all()
    assert exact_neighbours(table, table, 4, exclude_self=True)[0][3].tolist() == [4, 5, 6, 7]


def test_a_row_is_at_distance_zero_of_itself_and_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    table = (random.normal(size=(300, 40)) * 30).astype(np.float32)
    whole = exact_neighbours(table, table, 6, metric="cosine")
    assert (whole[0][:, 0] == np.arange(300)).all()
    assert (whole[1][:, 0] == 0).all()
    monkeypatch.setattr(neighbours, "CHUNK_BYTES", 4 * 300 * 7)
    reports = list(iter_neighbours(table, table, 6, metric="cosine"))
    assert [report.done for report in reports] == [0, *range(7, 300, 7), 300]
    agree(exact_neighbours(table, table, 6, metric="cosine"), whole)
    agree(exact_neighbours(table[120:121], table, 6, metric="cosine"), (whole[0][120:121], whole[1][120:121]))


def test_lowered_matrix_precision_of_torch_changes_nothing() -> None:
    random = np.random.default_rng(3)
    table = (random.normal(size=(500, 64)) + 10).astype(np.float32)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        agree(exact_neighbours(table[:40], table, 5), oracle(table[:40], table, 5))
    finally:
        torch.set_float32_matmul_precision(before)


def test_too_few_rows_leave_empty_places() -> None:
    table = np.array([[0.0], [1.0], [3.0]], np.float32)
    found, distances = exact_neighbours(table, table, 4, exclude_self=True)
    assert found.tolist() == [[1, 2, -1, -1], [0, 2, -1, -1], [1, 0, -1, -1]]
    assert np.isinf(distances[:, 2:]).all()
    assert exact_neighbours(table, np.zeros((0, 1)), 2)[0].tolist() == [[-1, -1]] * 3
    assert exact_neighbours(np.zeros((0, 1)), table, 2)[0].shape == (0, 2)
    words = (np.array(["a", "b", ""]), np.array(["a", "a", "b"]))
    assert exact_neighbours(table, table, 3, groups=words)[0].tolist() == [[2, -1, -1], [1, 0, -1], [2, 1, 0]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": 0}, "k=0"),
        ({"query": np.zeros((2, 3))}, "3 columns, reference 2"),
        ({"query": np.zeros(2)}, "query must be a table"),
        ({"reference": np.array([[0, 0], [0, np.nan]])}, "reference row 1"),
        ({"query": np.array([[0.0, 0.0]]), "metric": "cosine"}, "query row 0 is all zeros"),
        ({"metric": "manhattan"}, "unknown"),
        ({"query": np.ones((2, 2)), "exclude_self": True}, "exclude_self needs one table"),
        ({"groups": ([1], [1, 2])}, "groups have shapes"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, words: str) -> None:
    arguments = {"query": np.ones((1, 2)), "reference": np.ones((3, 2)), "k": 1} | change
    with pytest.raises(ValueError, match=words):
        exact_neighbours(**arguments)


def test_nearly_parallel_rows_are_told_apart_by_the_cosine() -> None:
    random = np.random.default_rng(4)
    reference = (np.array([3.0, 4.0, 5.0]) + 1e-4 * random.normal(size=(4000, 3))).astype(np.float32)
    agree(
        exact_neighbours(reference[:60], reference, 5, metric="cosine"), oracle(reference[:60], reference, 5, "cosine")
    )


def test_a_table_is_prepared_once_for_many_queries() -> None:
    table = np.random.default_rng(5).normal(size=(300, 9)).astype(np.float32)
    search = Search(table)
    for k, groups in ((3, None), (7, (np.arange(300) % 5, np.arange(300) % 5))):
        agree(drain(search.iter_nearest(table, k, groups=groups)), exact_neighbours(table, table, k, groups=groups))
