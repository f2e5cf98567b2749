"""Colours of patch tokens against scikit-learn, on made-up tokens and on those of real cells."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from PIL import Image
from safetensors.numpy import load_file, save_file
from skimage.filters import threshold_otsu
from sklearn.decomposition import PCA

from napari_dinobloom.encoders.encoder import load_encoder
from napari_dinobloom.encoders.foreground import otsu_threshold
from napari_dinobloom.encoders.patches import PatchBasis, patch_pca
from napari_dinobloom.encoders.principal import principal_axes
from napari_dinobloom.errors import EncoderError

STARTER = SimpleNamespace(name="starter", sha256="ab" * 32)


@pytest.fixture
def tokens() -> np.ndarray:
    """Twenty cells whose patches vary along a few directions of falling strength."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(6, 24)) * np.array([9, 6, 4, 2, 1, 0.5])[:, None]
    return (random.normal(size=(20, 8, 8, 6)) @ mixing + 3).astype(np.float32)


@pytest.fixture(scope="module")
def real(real_data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Patch tokens of ten real cells by the bundled encoder, and which of their patches are cell by hand."""
    names = ["d1/001", "d1/050", "d1/100", "d1/150", "d1/200", "d1/290", "d2/001", "d2/030", "d2/060", "d2/090"]
    folder = real_data / "sslseg"
    paths = [folder / f"{name}.png" for name in names]
    crops = np.stack([np.asarray(Image.open(path).convert("RGB").resize((224, 224))) for path in paths])
    masks = [np.asarray(Image.open(path.with_name(f"{path.stem}_mask.png"))) > 0 for path in paths]
    shares = [np.asarray(Image.fromarray(mask).convert("L").resize((16, 16), Image.Resampling.BOX)) for mask in masks]
    return load_encoder("starter", device="cpu").patch_tokens(crops), np.stack(shares) > 127


def _scaled(scores: np.ndarray) -> np.ndarray:
    low, high = np.percentile(scores, (1, 99), axis=0)
    return np.clip((scores - low) / (high - low), 0, 1)


def _same(one: PatchBasis, other: PatchBasis) -> None:
    for name in PatchBasis.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


# One PCA over all patches


def test_colours_are_those_of_scikit_learns_pca(tokens: np.ndarray) -> None:
    scores = PCA(3, svd_solver="full").fit_transform(tokens.reshape(-1, 24).astype(np.float64))
    found = patch_pca(tokens)
    assert (found.shape, found.dtype) == ((20, 8, 8, 3), np.float32)
    np.testing.assert_allclose(found.reshape(-1, 3), _scaled(scores), atol=1e-4)


@pytest.mark.real_data
def test_axes_and_scores_of_real_cells_are_scikit_learns(real: tuple[np.ndarray, np.ndarray]) -> None:
    rows = real[0].reshape(-1, real[0].shape[-1])
    theirs = PCA(3, svd_solver="full").fit(rows.astype(np.float64))
    basis = PatchBasis.fit(real[0])
    np.testing.assert_allclose(basis.axes, theirs.components_, atol=1e-4)
    np.testing.assert_allclose((rows - basis.mean) @ basis.axes.T, theirs.transform(rows), atol=1e-4)
    np.testing.assert_allclose(basis.explained, theirs.explained_variance_ratio_, rtol=1e-6)
    np.testing.assert_allclose(patch_pca(real[0]).reshape(-1, 3), _scaled(theirs.transform(rows)), atol=1e-4)


def test_the_sign_does_not_depend_on_the_order_of_cells(tokens: np.ndarray) -> None:
    order = np.random.default_rng(1).permutation(20)
    np.testing.assert_allclose(patch_pca(tokens[order]), patch_pca(tokens)[order], atol=1e-5)
    np.testing.assert_array_equal(patch_pca(tokens), patch_pca(tokens.copy()))


def test_axes_are_orthonormal_with_positive_largest_loading(tokens: np.ndarray) -> None:
    _, axes, explained = principal_axes([tokens.reshape(-1, 24).astype(np.float64)], 3)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-10)
    assert (axes[np.arange(3), np.abs(axes).argmax(1)] > 0).all()
    assert (np.diff(explained) < 0).all()


def test_a_mean_far_from_zero_costs_no_digits() -> None:
    rows = np.random.default_rng(0).normal(size=(500, 5)) * [5, 4, 3, 2, 1]
    mean, axes, _ = principal_axes(np.split(rows + 1e6, 10), 3)
    np.testing.assert_allclose(mean, rows.mean(axis=0) + 1e6, rtol=1e-14)
    np.testing.assert_allclose(axes, PCA(3, svd_solver="full").fit(rows).components_, atol=1e-7)


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
        ({"tokens": np.zeros((2, 4, 4, 8)), "foreground": np.ones((3, 4, 4), bool)}, "foreground has shape"),
        ({"tokens": np.zeros((2, 4, 4, 8)), "foreground": np.zeros((2, 4, 3), bool)}, "foreground has shape"),
        ({"tokens": np.zeros((2, 4, 4, 8)), "foreground": "middle"}, "use otsu, centre"),
        ({"tokens": np.full((1, 4, 4, 8), np.inf)}, "infinite"),
        ({"tokens": np.full((1, 4, 4, 8), np.nan), "foreground": "centre"}, "infinite"),
        ({"tokens": np.zeros((1, 4, 4, 8)), "percentiles": (99, 1)}, "increasing"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        patch_pca(**arguments)


# More tokens than fit into memory


@pytest.mark.parametrize("foreground", [None, "otsu", "centre"])
def test_the_cut_into_batches_does_not_change_a_bit(tokens: np.ndarray, foreground: str | None, tmp_path: Path) -> None:
    whole = PatchBasis.fit(tokens, foreground=foreground)
    ways: list[object] = [
        [tokens[:1], tokens[1:13], tokens[13:]],
        lambda: iter(np.split(tokens, 10)),
        zarr.create_array(tmp_path / "tokens.zarr", data=tokens, chunks=(3, 8, 8, 24)),
    ]
    for way in ways:
        _same(PatchBasis.fit(way, foreground=foreground), whole)


def test_a_stream_needs_the_memory_of_a_batch() -> None:
    cells, batch = 240, 10

    def batches() -> Iterator[np.ndarray]:
        random = np.random.default_rng(0)
        for _ in range(cells // batch):
            yield random.standard_normal((batch, 16, 16, 128), dtype=np.float32)

    tracemalloc.start()
    basis = PatchBasis.fit(batches, foreground="centre")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert basis.cells == cells
    assert peak < 12e6 < 0.5 * cells * 256 * 128 * 4


def test_batches_that_end_with_the_first_pass_are_refused(tokens: np.ndarray) -> None:
    with pytest.raises(ValueError, match="once only"):
        PatchBasis.fit(iter([tokens]))
    with pytest.raises(ValueError, match=r"must be \(n, 8, 8, 24\); got shape \(2, 8, 8, 3\)"):
        PatchBasis.fit([tokens, tokens[:2, ..., :3]])
    spent = iter([tokens])
    with pytest.raises(ValueError, match="20 cells at first, then 0"):
        PatchBasis.fit(lambda: spent)
    with pytest.raises(ValueError, match="no patch to fit"):
        PatchBasis.fit([])


# A basis that is kept


def test_the_colours_of_a_cell_do_not_depend_on_the_others(tokens: np.ndarray) -> None:
    basis = PatchBasis.fit(tokens[:7], foreground="centre")
    together = basis.apply(tokens)
    for i in (0, 6, 7, 19):
        np.testing.assert_array_equal(basis.apply(tokens[i : i + 1])[0], together[i])
    np.testing.assert_array_equal(basis.apply(tokens[::-1]), together[::-1])
    assert (together > 0).any()


def test_fit_and_apply_are_patch_pca(tokens: np.ndarray) -> None:
    for foreground in (None, "otsu", np.random.default_rng(0).random((20, 8, 8)) < 0.5):
        mask = foreground if isinstance(foreground, np.ndarray) else None
        basis = PatchBasis.fit(tokens, foreground=foreground, percentiles=(5, 80))
        found = patch_pca(tokens, foreground=foreground, percentiles=(5, 80))
        np.testing.assert_array_equal(basis.apply(tokens, foreground=mask), found)


def test_a_basis_comes_back_from_its_file(tokens: np.ndarray, tmp_path: Path) -> None:
    basis = PatchBasis.fit(tokens, encoder=STARTER, foreground="centre")
    _same(PatchBasis.load(basis.save(tmp_path / "basis.safetensors")), basis)
    assert (basis.encoder, basis.encoder_sha256, basis.cells) == ("starter", STARTER.sha256, 20)


def test_tokens_of_another_encoder_are_refused(tokens: np.ndarray) -> None:
    basis = PatchBasis.fit(tokens, encoder=STARTER)
    with pytest.raises(EncoderError, match=r"come from DinoBloom-S with weights cdcdcdcdcdcd, but .* starter"):
        basis.apply(tokens, encoder=SimpleNamespace(name="DinoBloom-S", sha256="cd" * 32))
    with pytest.raises(EncoderError, match=r"have 5 dimensions, .* with 24"):
        basis.apply(tokens[..., :5])
    np.testing.assert_array_equal(basis.apply(tokens, encoder=STARTER), basis.apply(tokens))
    replace(basis, encoder_sha256="").apply(tokens, encoder=SimpleNamespace(name="x", sha256="y"))


def _changed(file: Path, change: Callable[[dict], object], **header: str) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata=header or {"napari-dinobloom": '{"kind": "patch-basis", "schema": 1}'})


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:200]), "not a readable"),
        (lambda file: file.unlink(), "no such file"),
        (lambda file: _changed(file, lambda t: None, x="y"), "another file"),
        (lambda file: _changed(file, lambda t: None), "encoder, encoder_sha256, cells, patches cannot be right"),
        (lambda file: _changed(file, lambda t: t.pop("low")), "holds"),
        (lambda file: _changed(file, lambda t: t.update(axes=t["axes"][:2].copy())), "axes"),
        (lambda file: _changed(file, lambda t: t.update(mean=t["mean"] * np.nan)), "mean"),
    ],
)
def test_a_file_that_is_no_basis_is_refused(
    tokens: np.ndarray, tmp_path: Path, spoil: Callable[[Path], object], words: str
) -> None:
    file = PatchBasis.fit(tokens).save(tmp_path / "basis.safetensors")
    spoil(file)
    with pytest.raises(EncoderError, match=words):
        PatchBasis.load(file)


# Foreground by a rule


def _discs(*, offset: float, sign: float) -> tuple[np.ndarray, np.ndarray]:
    """Cells as discs of different size around the middle, on pictures that differ as a whole by `offset`."""
    random = np.random.default_rng(3)
    y, x = np.mgrid[:16, :16] - 7.5
    disc = np.hypot(y, x) < np.array([3, 4, 5, 4, 3, 5])[:, None, None]
    tokens = random.normal(size=(6, 16, 16, 12), scale=0.2)
    tokens[..., 4] += sign * 3 * disc
    tokens[..., 7] += offset * np.array([0, 1, 0, 1, 1, 0])[:, None, None]
    return tokens.astype(np.float32), disc


def test_otsu_is_the_best_of_all_cuts_and_near_that_of_a_histogram() -> None:
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(0, 1, 60), random.normal(4, 1.5, 40)])
    ordered = np.sort(values)

    def between(i: int) -> float:
        low, high = ordered[:i], ordered[i:]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    best = max(range(1, 100), key=between)
    found = otsu_threshold(values)
    assert found == pytest.approx((ordered[best - 1] + ordered[best]) / 2, abs=1e-12)
    assert otsu_threshold(-values) == pytest.approx(-found, abs=1e-12)
    many = np.concatenate([random.normal(0, 1, 6000), random.normal(4, 1.5, 4000)])
    assert otsu_threshold(many) == pytest.approx(threshold_otsu(many), abs=2 * np.ptp(many) / 256)


@pytest.mark.parametrize("rule", ["otsu", "centre"])
@pytest.mark.parametrize("sign", [1, -1])
def test_both_rules_find_what_lies_in_the_middle(rule: str, sign: float) -> None:
    tokens, disc = _discs(offset=0, sign=sign)
    found = patch_pca(tokens, foreground=rule)
    scores = PCA(3, svd_solver="full").fit_transform(tokens[disc].astype(np.float64))
    assert (found[~disc] == 0).all()
    np.testing.assert_allclose(found[disc], _scaled(scores), atol=1e-4)


def test_the_centre_rule_also_where_whole_pictures_differ_more_than_cell_and_background() -> None:
    tokens, disc = _discs(offset=12, sign=1)
    np.testing.assert_array_equal(PatchBasis.fit(tokens, foreground="centre").apply(tokens).any(axis=3), disc)
    found = patch_pca(tokens, foreground="otsu").any(axis=3)  # the first component is another one: as it is written
    assert (found.all(axis=(1, 2)) | ~found.any(axis=(1, 2))).mean() > 0.5


def test_a_saved_rule_finds_the_foreground_of_other_cells(tmp_path: Path) -> None:
    tokens, disc = _discs(offset=0, sign=1)
    basis = PatchBasis.load(PatchBasis.fit(tokens[:4], foreground="otsu").save(tmp_path / "basis.safetensors"))
    assert basis.has_foreground
    np.testing.assert_array_equal(basis.apply(tokens[4:]).any(axis=3), disc[4:])


@pytest.mark.real_data
def test_the_centre_rule_finds_real_cells(real: tuple[np.ndarray, np.ndarray]) -> None:
    found = patch_pca(real[0], foreground="centre").any(axis=3)
    assert (found & real[1]).sum() / (found | real[1]).sum() > 0.7
