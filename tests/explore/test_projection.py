from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from napari_dinobloom.explore.placing import weights
from napari_dinobloom.explore.projection import Projection, ProjectionError, projection_hash
from napari_dinobloom.explore.restandardise import Restandardise
from napari_dinobloom.io.tensors import write_tensors


def made(count: int = 400, dim: int = 24, kind: str = "umap", **more: object) -> Projection:
    """A map whose spots are two of the embedding's numbers, which placing has to find."""
    random = np.random.default_rng(0)
    x = random.normal(size=(count, dim)).astype(np.float32)
    names = [f"f:{i:05d}" for i in range(count)]
    params = {"n_neighbors": 15, "metric": "euclidean", "seed": 1}
    return Projection.of(kind, params, names, x, np.ascontiguousarray(x[:, :2]), **more)  # type: ignore[arg-type]


def oracle(x: np.ndarray, projection: Projection, k: int = 15) -> np.ndarray:
    """One cell at a time, with Python's own numbers."""
    found = []
    for row in x.astype(np.float64):
        squares = [(float(np.square(row - one).sum()), i) for i, one in enumerate(projection.reference)]
        near = [(math.sqrt(d), i) for d, i in sorted(squares)[: k + 1]]
        edge = near[-1][0]
        zero = [i for d, i in near[:k] if d == 0]
        raw = dict.fromkeys(zero, 1.0) or {i: 1 / d - 1 / edge for d, i in near[:k]}
        total = sum(raw.values())
        cells = [(share / total, *map(float, projection.coordinates[i])) for i, share in raw.items()]
        at = mean([share for share, _, _ in cells], cells)
        for _ in range(30):
            at = mean([share / max(math.dist(at, (x, y)), 1e-9) for share, x, y in cells], cells)
        reach, scale = 0.0, 0.0
        for distance, share in sorted((math.dist(at, (x, y)), share) for share, x, y in cells):
            reach += share
            if reach >= 0.5:
                scale = distance + 1e-9
                break
        for _ in range(20):
            at = mean([share / (1 + (math.dist(at, (x, y)) / scale) ** 2) ** 2 for share, x, y in cells], cells)
        found.append(at)
    return np.array(found)


def mean(pull: list[float], cells: list[tuple[float, float, float]]) -> tuple[float, float]:
    """Weighted mean of the places of (share, x, y)."""
    total = sum(pull)
    one = sum(w * x for w, (_, x, _) in zip(pull, cells, strict=True)) / total
    other = sum(w * y for w, (_, _, y) in zip(pull, cells, strict=True)) / total
    return one, other


def test_placing_agrees_with_a_cell_at_a_time() -> None:
    projection = made()
    x = np.random.default_rng(1).normal(size=(40, 24)).astype(np.float32)
    np.testing.assert_allclose(projection.place(x), oracle(x, projection), atol=1e-5)


def test_a_fitted_cell_lands_on_its_own_spot_and_one_beside_it_nearby() -> None:
    projection = made()
    np.testing.assert_array_equal(projection.place(projection.reference), projection.coordinates)
    moved = projection.reference + np.float32(1e-3)
    assert np.abs(projection.place(moved) - projection.coordinates).max() < 0.01


def test_a_cells_spot_is_its_own_alone() -> None:
    """Alone, with 10,000 others, in another order, in other chunks and with other numbers of threads: the same bits."""
    import torch

    from napari_dinobloom.explore import neighbours

    projection = made(700)
    x = np.random.default_rng(2).normal(size=(10_050, 24)).astype(np.float32)
    whole = projection.place(x)
    some = np.r_[0:20, 5000:5020, 10_040:10_050]
    for row in some[::5]:
        np.testing.assert_array_equal(projection.place(x[row : row + 1]), whole[row : row + 1])
    order = np.random.default_rng(3).permutation(len(x))
    np.testing.assert_array_equal(projection.place(x[order]), whole[order])
    threads, chunk = torch.get_num_threads(), neighbours.CHUNK_BYTES
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        neighbours.CHUNK_BYTES = 4 * 700 * 33
        np.testing.assert_array_equal(projection.place(x[:500]), whole[:500])
    finally:
        torch.set_num_threads(threads)
        neighbours.CHUNK_BYTES = chunk


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 100, width=32), min_size=2, max_size=9))
def test_weights_sum_to_one_fall_with_distance_and_end_at_the_edge(values: list[float]) -> None:
    rising = np.sort(np.array(values, np.float32))
    shares = weights(rising[None, :-1], rising[-1:])[0]
    assert shares.sum() == pytest.approx(1)
    assert (np.diff(shares) <= 1e-12).all()
    if rising[0] == 0:
        assert (shares[rising[:-1] > 0] == 0).all()
    elif rising[0] < rising[-1]:
        assert (shares[rising[:-1] == rising[-1]] == 0).all()


def test_a_cell_between_two_islands_lies_on_one_and_not_in_the_void() -> None:
    random = np.random.default_rng(6)
    x = random.normal(size=(40, 8)).astype(np.float32)
    spots = np.where(np.arange(40)[:, None] % 2, 10, -10) + random.normal(size=(40, 2)) * 0.3
    projection = Projection.of("umap", {"n_neighbors": 15}, [str(i) for i in range(40)], x, spots.astype(np.float32))
    placed = projection.place(random.normal(size=(200, 8)) * 0.3)
    gap = np.abs(np.abs(placed) - 10).max(1)
    assert (gap < 1.5).mean() > 0.97


def test_few_fitted_cells_all_take_part() -> None:
    projection = made(3)
    near = projection.place(projection.reference.mean(0, keepdims=True))
    assert (near >= projection.coordinates.min(0)).all()
    assert (near <= projection.coordinates.max(0)).all()
    np.testing.assert_array_equal(made(1).place(np.ones((2, 24))), np.tile(made(1).coordinates, (2, 1)))


def test_undefined_embeddings_have_no_spot_and_an_empty_map_places_nothing() -> None:
    projection = made()
    x = projection.reference[:3].copy()
    x[1, 5] = np.nan
    found = projection.place(x)
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[[0, 2]], projection.coordinates[[0, 2]])
    empty = made(0)
    assert empty.place(np.zeros((0, 24))).shape == (0, 2)
    with pytest.raises(ProjectionError, match="holds no cell"):
        empty.place(np.zeros((1, 24)))


def test_the_hash_covers_embeddings_names_parameters_seed_and_spots() -> None:
    x, names, spots = np.zeros((2, 3), np.float32), ["a:1", "a:2"], np.zeros((2, 2), np.float32)
    params = {"seed": 1, "n_neighbors": 15}
    moved = x.copy()
    moved[1, 2] = 1e-30
    variants = [
        (x, names, params, spots),
        (moved, names, params, spots),
        (x.reshape(3, 2)[:2], names, params, spots),
        (x, ["a:1", "a:3"], params, spots),
        (x, ["a", ":1a:2"], params, spots),
        (x, names, params | {"seed": 2}, spots),
        (x, names, params | {"n_neighbors": 14}, spots),
        (x, names, params, spots + np.float32(1e-6)),
    ]
    hashes = [projection_hash(*variant) for variant in variants]
    assert len(set(hashes)) == len(variants)
    assert all(len(value) == 64 for value in hashes)
    assert projection_hash(x.copy(), list(names), dict(reversed(params.items())), spots) == hashes[0]


def standards() -> Restandardise:
    random = np.random.default_rng(4)
    return Restandardise.fit(random.normal(size=(300, 24)), ["a", "b"] * 150)


@pytest.mark.parametrize("kind", ["umap", "pca", "given", "restandardised", "empty"])
def test_saved_and_loaded_it_places_to_the_same_bits(kind: str, tmp_path: Path) -> None:
    axes = (np.arange(24.0), np.linspace(0, 1, 48).reshape(2, 24))
    projection = {
        "umap": lambda: made(about={"encoder": "starter"}),
        "pca": lambda: made(kind="pca", principal=axes),
        "given": lambda: made(kind="given"),
        "restandardised": lambda: made(standards=standards()),
        "empty": lambda: made(0, kind="pca", principal=axes),
    }[kind]()
    path = projection.save(tmp_path / "map.safetensors")
    again = Projection.load(path)
    for field in dataclasses.fields(Projection):
        if field.name != "standards":
            np.testing.assert_equal(getattr(again, field.name), getattr(projection, field.name))
    x = np.random.default_rng(5).normal(size=(9 if kind != "empty" else 0, 24)).astype(np.float32)
    groups = ["a", "b", "a"] * 3 if kind == "restandardised" else None
    np.testing.assert_array_equal(again.place(x, groups), projection.place(x, groups))
    assert Projection.peek(path)["hash"] == projection.hash
    assert again.save(tmp_path / "copy.safetensors").read_bytes() == path.read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_others_may_read_a_saved_map(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    path = write_tensors(tmp_path / "map.safetensors", {"X": np.zeros(3)}, "projection", {})
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_changed_or_torn_file_is_refused(tmp_path: Path) -> None:
    path = made(standards=standards()).save(tmp_path / "map.safetensors")
    whole = path.read_bytes()
    for place in (len(whole) - 3, len(whole) // 2, len(whole) // 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ProjectionError, match=r"map\.safetensors"):
            Projection.load(path)
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ProjectionError, match=r"map\.safetensors"):
            Projection.load(path)
    with pytest.raises(ProjectionError, match="no such file"):
        Projection.load(tmp_path / "none.safetensors")


FORGED = [
    ("schema", 99, "not known"),
    ("projection", "tsne", "fit together"),
    ("params", {"n_neighbors": -1}, "fit together"),
    ("params", {"n_neighbors": 10**9}, "fit together"),
    ("params", [1], "fit together"),
    ("cells", 0, "fit together"),
    ("groups", {"names": ["a"] * 5, "prior": 1, "taken": 0}, "fit together"),
    ("groups", {"names": 5}, "fit together"),
    ("hash", "0" * 64, "another map"),
]


@pytest.mark.parametrize(("key", "value", "words"), FORGED)
def test_a_forged_header_with_a_right_checksum_is_refused(key: str, value: object, words: str, tmp_path: Path) -> None:
    from napari_dinobloom.explore.projection import KIND, _content

    path = made(standards=standards()).save(tmp_path / "map.safetensors")
    tensors = load_file(path)
    header = Projection.peek(path)
    header.pop("content")
    header[key] = value
    write_tensors(path, tensors, KIND, {**header, "content": _content(tensors, header)})
    with pytest.raises(ProjectionError, match=words):
        Projection.load(path)


def test_another_programs_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.safetensors"
    save_file({"X": np.zeros(3)}, path, metadata={"napari-dinobloom": json.dumps({"kind": "reference-atlas"})})
    with pytest.raises(ProjectionError, match="'projection' is needed"):
        Projection.load(path)
    with pytest.raises(ProjectionError, match="'projection' is needed"):
        Projection.peek(path)


def test_a_header_that_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.safetensors"
    save_file({"x": np.zeros(1, np.float32)}, path, metadata={"napari-dinobloom": "[" * 200_000})
    with pytest.raises(ProjectionError, match="not a readable"):
        Projection.peek(path)
    with pytest.raises(ProjectionError, match="not a readable"):
        Projection.load(path)
