from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from napari_dinobloom.encoders import encoder as module
from napari_dinobloom.encoders import registry
from napari_dinobloom.encoders.architecture import ARCHITECTURES
from napari_dinobloom.encoders.build import load_backbone
from napari_dinobloom.encoders.encoder import Encoder, load_encoder
from napari_dinobloom.encoders.library import identify
from napari_dinobloom.encoders.registry import WeightSource, vit_spec
from napari_dinobloom.errors import EncoderError

State = dict[str, torch.Tensor]


@pytest.fixture
def toy(tmp_path: Path, toy_state: State) -> Encoder:
    save_file(toy_state, tmp_path / "toy.safetensors")
    return load_encoder(tmp_path / "toy.safetensors", device="cpu")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """An encoder of the bundled one's size, where a matrix product is large enough to be cut up by the library."""
    random = torch.Generator().manual_seed(0)
    shapes = ARCHITECTURES["tiny"].shapes()
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    save_file({key: torch.randn(shape, generator=random) * 0.1 for key, shape in shapes.items()}, path)
    return load_encoder(path, device="cpu")


def test_an_embedding_is_the_class_token_of_the_normalised_picture(
    toy: Encoder, tmp_path: Path, toy_crops: np.ndarray
) -> None:
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = ((toy_crops / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    with torch.inference_mode():
        tokens = load_backbone(tmp_path / "toy.safetensors").backbone(torch.from_numpy(x)).numpy()
    embedded = toy.embed(toy_crops)
    assert (embedded.shape, embedded.dtype) == ((11, 32), np.float32)
    np.testing.assert_allclose(embedded, tokens[:, 0], atol=1e-4)
    patches = toy.patch_tokens(toy_crops)
    assert (patches.shape, patches.dtype) == ((11, 16, 16, 32), np.float32)
    np.testing.assert_allclose(patches.reshape(11, 256, 32), tokens[:, 1:], atol=1e-4)


def test_facts(toy: Encoder, tmp_path: Path) -> None:
    assert (toy.name, toy.dim, toy.patch_size, toy.device, toy.precision) == ("toy", 32, 14, "cpu", "float32")
    assert toy.sha256 == identify(tmp_path / "toy.safetensors")


def test_a_row_is_the_same_whatever_comes_with_it(tiny: Encoder, toy_crops: np.ndarray) -> None:
    crops = toy_crops[:6]
    whole = tiny.embed(crops)
    for row in (0, 2, 5):
        np.testing.assert_array_equal(tiny.embed(crops[row : row + 1])[0], whole[row])
    order = np.array([3, 0, 5, 1, 4, 2])
    np.testing.assert_array_equal(tiny.embed(crops[order]), whole[order])
    np.testing.assert_array_equal(tiny.patch_tokens(crops[order[:3]]), tiny.patch_tokens(crops)[order[:3]])


def test_progress_counts_pictures(toy: Encoder, toy_crops: np.ndarray) -> None:
    many = np.concatenate([toy_crops] * 4)
    reports = list(toy.iter_embed(many))
    assert [report.done for report in reports] == [0, 16, 32, 44]
    assert {report.total for report in reports} == {44}


def test_no_pictures_give_no_rows(toy: Encoder) -> None:
    assert toy.embed(np.zeros((0, 224, 224, 3), np.uint8)).shape == (0, 32)
    assert toy.patch_tokens(np.zeros((0, 224, 224, 3), np.uint8)).shape == (0, 16, 16, 32)


def test_other_sizes_are_resized_with_antialiasing(toy: Encoder, toy_crops: np.ndarray) -> None:
    from PIL import Image

    large = toy_crops[:2].repeat(2, axis=1).repeat(3, axis=2)
    small = np.stack([np.asarray(Image.fromarray(one).resize((224, 224), Image.Resampling.BILINEAR)) for one in large])
    ours, pillows = toy.embed(large), toy.embed(small)
    assert np.abs(ours - pillows).max() < 0.02 * np.abs(pillows).max()


@pytest.mark.parametrize(
    "crops",
    [np.zeros((224, 224, 3), np.uint8), np.zeros((1, 224, 224, 4), np.uint8), np.zeros((1, 8, 8, 3)), [[1]]],
    ids=["one", "rgba", "float", "list"],
)
def test_other_arrays_are_refused(toy: Encoder, crops: object) -> None:
    with pytest.raises(EncoderError, match="uint8 RGB; got shape"):
        toy.embed(crops)


def test_bf16_is_close(tmp_path: Path, toy: Encoder, toy_crops: np.ndarray) -> None:
    half = load_encoder(tmp_path / "toy.safetensors", device="cpu", precision="bf16")
    exact, near = toy.embed(toy_crops), half.embed(toy_crops)
    cosine = (exact * near).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(near, axis=1)
    assert half.precision == "bf16"
    assert cosine.min() > 0.999


def test_threads_are_left_alone(toy: Encoder, toy_crops: np.ndarray) -> None:
    before = torch.get_num_threads()
    toy.embed(toy_crops[:1])
    assert torch.get_num_threads() == before


def test_automatic_choices(tmp_path: Path, toy: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert load_encoder(tmp_path / "toy.safetensors").device == "cpu"
    for device, words in [("cuda", "not available"), ("abacus", "unknown")]:
        with pytest.raises(EncoderError, match=words):
            load_encoder(tmp_path / "toy.safetensors", device=device)
    with pytest.raises(EncoderError, match="Precision 'half' is unknown"):
        load_encoder(tmp_path / "toy.safetensors", precision="half")


def test_a_published_encoder_that_is_not_here_says_where_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_DINOBLOOM_CACHE", str(tmp_path / "cache"))
    with pytest.raises(EncoderError) as caught:
        load_encoder("DinoBloom-S")
    message = str(caught.value)
    assert "zenodo.org/records/10908163/files/DinoBloom-S.pth" in message
    assert "pytorch_model_s.bin" in message
    assert str(tmp_path / "cache") in message
    assert "NAPARI_DINOBLOOM_CACHE" in message
    assert not (tmp_path / "cache").exists()
    with pytest.raises(EncoderError, match="no such file"):
        load_encoder("nowhere/DinoBloom-S.pth")


def test_a_named_encoder_is_taken_from_the_cache_and_its_hash_checked(
    tmp_path: Path, toy_state: State, monkeypatch: pytest.MonkeyPatch, toy_crops: np.ndarray
) -> None:
    monkeypatch.setenv("NAPARI_DINOBLOOM_CACHE", str(tmp_path))
    torch.save({"teacher": {f"backbone.{key}": value for key, value in toy_state.items()}}, tmp_path / "Toy.pth")
    good = identify(tmp_path / "Toy.pth")
    for sha256 in (good, None):
        source = WeightSource("https://example.org/Toy.pth", "Toy.pth", None, sha256)
        monkeypatch.setitem(registry.REGISTRY, "Toy", vit_spec("Toy", "toy", licence="none", sources=(source,)))
        loaded = load_encoder("toy")
        assert (loaded.name, loaded.sha256) == ("Toy", good)
        np.testing.assert_array_equal(loaded.embed(toy_crops), load_encoder(tmp_path / "Toy.pth").embed(toy_crops))
    source = WeightSource("https://example.org/Toy.pth", "Toy.pth", None, "0" * 64)
    monkeypatch.setitem(registry.REGISTRY, "Toy", vit_spec("Toy", "toy", licence="none", sources=(source,)))
    with pytest.raises(EncoderError, match=f"sha256 is {good}.*{'0' * 64}"):
        load_encoder("Toy")
    monkeypatch.setitem(
        registry.REGISTRY, "Toy", vit_spec("Toy", "S", licence="none", sources=(WeightSource("https://x", "Toy.pth"),))
    )
    with pytest.raises(EncoderError, match="holds architecture toy, but Toy is S"):
        load_encoder("Toy")


def test_positions_of_another_grid_are_refused_unless_a_rule_is_named(
    tmp_path: Path, toy_state: State, toy_crops: np.ndarray
) -> None:
    path = tmp_path / "wide.safetensors"
    save_file(toy_state | {"pos_embed": torch.randn(1, 1370, 32)}, path)
    with pytest.raises(EncoderError, match=r"518 px pictures.*positions='hub'"):
        load_encoder(path)
    hub, training = (load_encoder(path, positions=rule).embed(toy_crops[:1]) for rule in ("hub", "training"))
    assert not np.array_equal(hub, training)


def test_the_bundled_encoder_has_the_hash_of_its_card() -> None:
    starter = load_encoder("starter", device="cpu")
    card = Path(module.__file__).parents[1] / "weights" / "starter.json"
    assert starter.sha256 == json.loads(card.read_text(encoding="utf-8"))["sha256"] == identify("starter")
    assert (starter.name, starter.dim, starter.spec.architecture.name) == ("starter", 192, "tiny")
