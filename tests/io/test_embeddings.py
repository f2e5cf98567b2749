"""Embeddings on the disk: found by the key of their crop, in whatever order and in whichever block."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io import embeddings
from napari_dinobloom.io.embeddings import EmbeddingSet, Sink, keys_of, read_blocks

ABOUT = {"key": "a" * 16, "encoder": "toy"}
DIM = 3


def vectors(keys: np.ndarray) -> np.ndarray:
    """An embedding that tells its key."""
    return (keys[:, None] * np.array([1.0, 0.5, -1.0])).astype(np.float32)


def some(*numbers: int) -> np.ndarray:
    """Keys of crops."""
    return np.array(numbers, np.uint64)


def opened(folder: Path, about: dict[str, str] = ABOUT) -> EmbeddingSet:
    """The set as another process sees it."""
    return EmbeddingSet(folder, about, DIM)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Blocks of 8 rows."""
    monkeypatch.setattr(embeddings, "BLOCK", 8)
    return 8


def test_a_set_is_a_dictionary(tmp_path: Path, small_blocks: int) -> None:
    """Random writing, looking up and tidying, against a dictionary of what must be there."""
    rng = np.random.default_rng(0)
    known: dict[int, np.ndarray] = {}
    for _ in range(40):
        vault = opened(tmp_path)
        table = rng.integers(0, 60, rng.integers(1, 50)).astype(np.uint64)
        rows = vault.missing(table)
        first = [i for i, key in enumerate(table.tolist()) if key not in known and key not in table[:i].tolist()]
        assert rows.tolist() == first
        sink, values = Sink(vault, table[rows]), vectors(table[rows])
        start = 0
        while start < len(rows):
            stop = min(start + int(rng.integers(1, 12)), len(rows))
            sink[start:stop] = values[start:stop]
            start = stop
        sink.close()
        known |= {int(key): vectors(some(key))[0] for key in table}
        asked = rng.integers(0, 80, 30).astype(np.uint64)
        expected = np.array([known.get(int(key), np.full(DIM, np.nan, np.float32)) for key in asked])
        for view in (vault, opened(tmp_path)):
            np.testing.assert_array_equal(view.read(asked), expected)
        if rng.random() < 0.5:
            vault.tidy(table)
            np.testing.assert_array_equal(vault.read(table), vectors(table))
            known = {int(key): vectors(some(key))[0] for block in read_blocks(tmp_path)[0] for key in block.crops}
            assert set(table.tolist()) <= set(known)
            assert len(list(tmp_path.iterdir())) <= 2 * len(np.unique(table)) / small_blocks + 1


def test_blocks_are_on_the_disk_as_soon_as_they_are_whole_in_any_order(tmp_path: Path, small_blocks: int) -> None:
    keys = np.arange(20, dtype=np.uint64)
    sink = Sink(opened(tmp_path), keys)
    assert sink.shape == (20, DIM)
    sink[16:20] = vectors(keys[16:20])
    assert opened(tmp_path).missing(keys).tolist() == list(range(16))
    sink[5:12] = vectors(keys[5:12])
    assert opened(tmp_path).missing(keys).tolist() == list(range(16)), "neither block is whole"
    sink[0:5] = vectors(keys[0:5])
    assert opened(tmp_path).missing(keys).tolist() == list(range(8, 16))
    sink.close()
    assert opened(tmp_path).missing(keys).tolist() == [12, 13, 14, 15]
    np.testing.assert_array_equal(opened(tmp_path).read(keys[:12]), vectors(keys[:12]))


def test_what_is_not_finite_is_not_kept(tmp_path: Path, small_blocks: int) -> None:
    keys = np.arange(10, dtype=np.uint64)
    values = vectors(keys)
    values[3, 1], values[9] = np.inf, np.nan
    sink = Sink(opened(tmp_path), keys)
    sink[0:9] = values[0:9]
    sink[9:10] = values[9:10]
    sink.close()
    assert opened(tmp_path).missing(keys).tolist() == [3, 9]
    np.testing.assert_array_equal(opened(tmp_path).read(keys)[[2, 4, 8]], values[[2, 4, 8]])


def test_torn_and_foreign_files_are_not_read_and_go(tmp_path: Path) -> None:
    vault = opened(tmp_path)
    for keys in (some(1, 2), some(3, 4)):
        vault.append(keys, vectors(keys))
    first, second = sorted(tmp_path.iterdir())
    first.write_bytes(first.read_bytes()[:-5])
    save_file({"X": np.zeros((2, DIM), np.float32)}, tmp_path / "000000.safetensors", {"key": "0" * 16})
    save_file({"X": np.zeros((2, DIM), np.float32), "crops": some(1)}, tmp_path / "wrong.safetensors", dict(ABOUT))
    (tmp_path / f".{first.name}.part-12345678").write_bytes(b"torn")
    again = opened(tmp_path)
    assert again.missing(some(1, 2, 3, 4)).tolist() == [0, 1]
    again.tidy(some(3, 4))
    assert list(tmp_path.iterdir()) == [second]


def test_what_cannot_be_opened_today_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors

    mine = opened(tmp_path)
    mine.append(some(1, 2), vectors(some(1, 2)))
    real = safetensors.safe_open

    def away(path: object, **options: object) -> object:
        raise OSError("too many open files")

    monkeypatch.setattr(safetensors, "safe_open", away)
    opened(tmp_path).tidy(some(3))
    monkeypatch.setattr(safetensors, "safe_open", real)
    np.testing.assert_array_equal(opened(tmp_path).read(some(1, 2)), vectors(some(1, 2)))


def test_sets_in_one_folder_leave_each_other_alone(tmp_path: Path) -> None:
    ours, theirs = opened(tmp_path), opened(tmp_path, ABOUT | {"key": "b" * 16})
    ours.append(some(1, 2), vectors(some(1, 2)))
    theirs.append(some(1), 7 + vectors(some(1)))
    theirs.tidy(some(1))
    opened(tmp_path).tidy(some(2))
    np.testing.assert_array_equal(opened(tmp_path).read(some(1)), vectors(some(1)))
    np.testing.assert_array_equal(opened(tmp_path, ABOUT | {"key": "b" * 16}).read(some(1)), 7 + vectors(some(1)))
    assert [block.about["encoder"] for block in read_blocks(tmp_path)[0]] == ["toy", "toy"]


def test_two_runs_that_fill_one_folder_keep_their_own(tmp_path: Path) -> None:
    one, other = opened(tmp_path), opened(tmp_path)
    one.append(some(1), vectors(some(1)))
    other.append(some(2), vectors(some(2)))
    np.testing.assert_array_equal(one.read(some(1)), vectors(some(1)))
    np.testing.assert_array_equal(opened(tmp_path).read(some(1, 2)), vectors(some(1, 2)))


def test_a_block_that_is_lost_while_open_is_told(tmp_path: Path) -> None:
    vault = opened(tmp_path)
    vault.append(some(1), vectors(some(1)))
    next(tmp_path.iterdir()).unlink()
    with pytest.raises(StudyError, match=r"-000000-\w{8}\.safetensors: cannot be read any more.*Run again"):
        vault.read(some(1))


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    vault = opened(tmp_path / "not there")
    assert vault.missing(some(3, 3, 1)).tolist() == [0, 2]
    assert np.isnan(vault.read(some(3, 1))).all()
    assert vault.read(some()).shape == (0, DIM)
    vault.tidy(some())
    assert not (tmp_path / "not there").exists()


def test_keys_are_hexadecimal_digits() -> None:
    assert keys_of(["00000000000000ff", "f" * 16]).tolist() == [255, 2**64 - 1]
    for wrong in (["no key"], ["f" * 17], [None], ["-1"]):
        with pytest.raises(ValueError, match=r"key|base 16"):
            keys_of(wrong)  # type: ignore[arg-type]


def test_bf16_is_that_of_torch_and_comes_back(tmp_path: Path) -> None:
    import torch

    x = np.random.default_rng(0).standard_normal((300, 8), dtype=np.float32) * 10
    x[0, :4] = (0.0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8)  # halves go to the even one
    wanted = torch.from_numpy(x).bfloat16().float().numpy()
    keys = np.arange(300, dtype=np.uint64)
    EmbeddingSet(tmp_path, {"key": "k", "embeddings": "bf16"}, 8).append(keys, x)
    again = EmbeddingSet(tmp_path, {"key": "k"}, 8)
    assert np.array_equal(again.read(keys[::-1]), wanted[::-1])
    (path,) = tmp_path.glob("*.safetensors")
    assert path.stat().st_size < x.nbytes // 2 + keys.nbytes + 1000


def test_only_blocks_that_hold_a_wanted_row_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = opened(tmp_path)
    for start in range(0, 400, 10):
        keys = np.arange(start, start + 10).astype(np.uint64)
        stored.append(keys, vectors(keys))
    wanted = some(399, 7, 401, 250, 251, 7)
    rows = stored.rows(wanted)
    read = []
    load = embeddings.Block.load
    monkeypatch.setattr(embeddings.Block, "load", lambda block: read.append(int(block.crops[0])) or load(block))
    searched = []
    search = np.searchsorted
    monkeypatch.setattr(np, "searchsorted", lambda *a, **k: searched.append(1) or search(*a, **k))
    found = rows[:]
    assert sorted(read) == [0, 250, 390]
    assert len(searched) < 10, "not once for each of 40 blocks"
    np.testing.assert_array_equal(found[[0, 1, 3, 4, 5]], vectors(wanted[[0, 1, 3, 4, 5]]))
    assert np.isnan(found[2]).all()


def test_what_is_packed_lies_in_the_order_of_the_cells(tmp_path: Path, small_blocks: int) -> None:
    stored = opened(tmp_path)
    cells = np.random.default_rng(0).permutation(30).astype(np.uint64)
    for start in range(0, 30, 3):  # thin ones
        stored.append(np.sort(cells)[start : start + 3], vectors(np.sort(cells)[start : start + 3]))
    stored.tidy(cells)
    blocks = read_blocks(tmp_path)[0]
    assert [block.crops.tolist() for block in blocks] == [cells[at : at + 8].tolist() for at in range(0, 30, 8)]
    np.testing.assert_array_equal(opened(tmp_path).read(cells), vectors(cells))
