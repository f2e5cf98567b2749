"""The list of encoders, verifying and repinning their files, and the checkpoints that a user adds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from napari_dinobloom.encoders import architecture, imports, inventory, library, registry
from napari_dinobloom.encoders.build import load_backbone
from napari_dinobloom.encoders.encoder import load_encoder
from napari_dinobloom.encoders.imports import import_checkpoint
from napari_dinobloom.encoders.inventory import holdings, iter_verify, repin
from napari_dinobloom.encoders.library import checked, identify, locate
from napari_dinobloom.encoders.spec import WeightSource, vit_spec
from napari_dinobloom.errors import EncoderError
from napari_dinobloom.progress import drain

State = dict[str, torch.Tensor]


def _state(name: str) -> str:
    return next(one.state for one in holdings() if one.spec.name == name)


@pytest.mark.parametrize("copy", [True, False])
def test_an_imported_checkpoint_is_loaded_by_its_name(
    cache: Path, own: Path, toy_crops: np.ndarray, copy: bool
) -> None:
    located = import_checkpoint(own, "My-encoder.1", copy=copy)
    assert (located.path.parent == cache / "imports") is copy
    expected = load_encoder(own, device="cpu").embed(toy_crops[:1])
    if copy:
        own.unlink()
    mine = load_encoder("my-ENCODER.1", device="cpu")
    assert (mine.name, mine.sha256) == ("My-encoder.1", identify("My-encoder.1"))
    np.testing.assert_array_equal(mine.embed(toy_crops[:1]), expected)
    assert _state("My-encoder.1") == "imported"
    with pytest.raises(EncoderError, match=r"Imported on this machine: My-encoder\.1"):
        load_encoder("My encoder")


def test_an_import_that_changed_or_went_away_is_said(cache: Path, own: Path, toy_state: State) -> None:
    import_checkpoint(own, "mine")
    import_checkpoint(own, "mine")
    first = identify("mine")
    toy_state["norm.bias"] += 1
    save_file(toy_state, own)
    with pytest.raises(EncoderError, match=rf"but it was {first} when it was imported as mine.*--repin mine"):
        load_encoder("mine")
    with pytest.raises(EncoderError, match=r"'mine' is already the name"):
        import_checkpoint(own, "Mine")
    assert repin("mine") == identify("mine") != first
    assert load_encoder("mine", device="cpu").sha256 != first
    own.unlink()
    with pytest.raises(EncoderError, match=r"trained\.safetensors: this file, imported as 'mine', is gone"):
        load_encoder("mine")


def test_a_name_stands_for_one_meaning(cache: Path, own: Path, toy_state: State) -> None:
    import_checkpoint(own, "fits", positions="hub")
    assert locate("fits").spec.positions is None, "the grid fits: no rule"
    import_checkpoint(own, "fits", positions="timm")
    save_file(toy_state | {"pos_embed": torch.randn(1, 1370, 32)}, own)
    import_checkpoint(own, "wide", positions="hub")
    import_checkpoint(own, "wide", positions="hub")
    with pytest.raises(EncoderError, match=r"'wide' is already the name of .*positions hub"):
        import_checkpoint(own, "wide", positions="timm")
    assert load_backbone("wide").positions == "hub"


def test_two_names_of_one_file_are_both_verified(cache: Path, own: Path, toy_state: State) -> None:
    import_checkpoint(own, "aaa")
    import_checkpoint(own, "bbb")
    toy_state["norm.bias"] += 1
    save_file(toy_state, own)
    repin("bbb")
    hashed = list(iter_verify())[-1].total
    found = {one.spec.name: one.state for one in drain(iter_verify())}
    assert (found["aaa"], found["bbb"]) == ("wrong", "imported")
    starter = next(library.places(registry.find("starter"))).path
    assert hashed == own.stat().st_size + starter.stat().st_size, "each file once"


def test_an_import_is_hashed_once(cache: Path, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    plain = imports.iter_seen
    monkeypatch.setattr(imports, "iter_seen", lambda path: hashed.append(path) or plain(path))
    import_checkpoint(own, "mine", copy=True)
    assert hashed == [own]


def test_an_import_takes_no_published_file_s_place(cache: Path, published: None, files: tuple[bytes, bytes]) -> None:
    own = cache.parent / "Open.pth"
    own.write_bytes(files[1])
    located = import_checkpoint(own, "OPEN.1", copy=True)
    assert located.path == cache / "imports" / "OPEN.1.pth"
    with pytest.raises(EncoderError, match="not on this machine"):
        locate("Open")
    (cache / "Open.pth").write_bytes(files[0])
    with pytest.raises(EncoderError, match=r"Open\.pth: this is the place of the file of Open"):
        import_checkpoint(cache / "Open.pth", "mine")


def test_a_network_whose_encoders_differ_is_prepared_as_the_one_it_is_like(
    cache: Path, own: Path, toy_state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    monkeypatch.setitem(registry.SEEN_DIFFERENTLY, "toy", "ViT-Toy/14")
    arch = architecture.ARCHITECTURES["toy"]
    grey = replace(vit_spec("Grey", "toy", licence="none", terms="Its own."), mean=(0.5,) * 3, interpolation="bicubic")
    for name in ("Grey", "Greyer"):
        monkeypatch.setitem(registry.REGISTRY, name, replace(grey, name=name))
    for look in (load_backbone, lambda path: import_checkpoint(path, "mine")):
        with pytest.raises(EncoderError, match=r"trained.*ViT-Toy/14.*weights import FILE .*--like"):
            look(own)
    with pytest.raises(EncoderError, match=r"holds architecture toy, DinoBloom-S is S"):
        import_checkpoint(own, "mine", like="DinoBloom-S")
    with pytest.raises(EncoderError, match="Did you mean 'Phikon'"):
        import_checkpoint(own, "mine", like="Phikn")
    import_checkpoint(own, "mine", like="grey")
    spec = load_backbone("mine").spec
    assert (spec.name, spec.architecture, spec.mean, spec.interpolation) == ("mine", arch, (0.5,) * 3, "bicubic")
    assert spec.terms == "", "it is not that encoder's file"
    with pytest.raises(EncoderError, match=r"'mine' is already the name of .*pictures as Grey"):
        import_checkpoint(own, "mine", like="Greyer")


@pytest.mark.parametrize("name", ["starter", "DINOBLOOM-b", "a/b", "../x", "x.pth", "", "-x", "ä", "a" * 65])
def test_names_that_cannot_be(cache: Path, own: Path, name: str) -> None:
    with pytest.raises(EncoderError, match=r"cannot be the name|name of a published encoder"):
        import_checkpoint(own, name)
    assert list(cache.iterdir()) == []


def test_what_cannot_be_loaded_is_not_imported(cache: Path, own: Path, toy_state: State) -> None:
    own.write_bytes(own.read_bytes()[:-5])
    with pytest.raises(EncoderError, match="truncated"):
        import_checkpoint(own, "mine")
    save_file(toy_state | {"pos_embed": torch.randn(1, 1370, 32)}, own)
    with pytest.raises(EncoderError, match=r"37 x 37 patches, 16 x 16 are used here \(224 px\).*--positions hub"):
        import_checkpoint(own, "mine")
    assert list(cache.iterdir()) == []
    import_checkpoint(own, "mine", positions="training")
    assert load_encoder("mine", device="cpu").spec.positions == "training"


def test_a_copy_never_replaces_another_file(cache: Path, own: Path) -> None:
    place = cache / "imports" / "mine.safetensors"
    place.parent.mkdir()
    place.write_bytes(b"precious")
    with pytest.raises(EncoderError, match=r"mine\.safetensors is there already and another file"):
        import_checkpoint(own, "mine", copy=True)
    assert place.read_bytes() == b"precious"
    place.write_bytes(own.read_bytes())
    assert import_checkpoint(own, "mine", copy=True).path == place


def test_the_list_has_every_encoder_and_verify_every_file(
    cache: Path, published: None, own: Path, files: tuple[bytes, bytes]
) -> None:
    import_checkpoint(own, "mine", copy=True)
    (cache / "Known.pth").write_bytes(b"two")
    (cache / "Open.pth").write_bytes(files[0])
    names = [one.spec.name for one in holdings()]
    assert names == [*registry.REGISTRY, "mine"]
    states = {one.spec.name: one.state for one in holdings()}
    assert states["starter"] == "bundled"
    assert states["DinoBloom-G"] == "absent"
    assert states["Known"] == states["Open"] == "unchecked"
    steps = list(iter_verify())
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert steps[-1].done == steps[-1].total
    found = {one.spec.name: one for one in drain(iter_verify())}
    assert {name: one.state for name, one in found.items()} == {
        "starter": "bundled",
        "Known": "wrong",
        "Open": "unverified",
        "mine": "imported",
    }
    assert [name for name, one in found.items() if one.problem] == ["Known"]
    with pytest.raises(EncoderError, match="not on this machine"):
        drain(iter_verify("DinoBloom-G"))


def test_verify_hashes_whatever_is_remembered(cache: Path, published: None) -> None:
    path = cache / "Known.pth"
    path.write_bytes(b"one")
    right = checked(locate("Known")).sha256
    stat = path.stat()
    with open(path, "r+b") as handle:  # damage that leaves size, time and number alone
        handle.write(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert checked(locate("Known")).sha256 == right, "remembered"
    assert [one.state for one in drain(iter_verify("Known"))] == ["wrong"]
    with pytest.raises(EncoderError, match="damaged"):
        checked(locate("Known"))


def test_a_model_of_timm_that_was_fetched_is_listed_too(
    cache: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = WeightSource("https://example.org/m.safetensors", "some_model.safetensors")
    model = vit_spec("timm:some_model", "toy", licence="MIT", sources=(source,))
    monkeypatch.setattr(registry, "_timm", lambda name: model)
    own.rename(cache / "some_model.safetensors")
    assert load_backbone("timm:some_model").sha256 == identify("timm:some_model")
    assert _state("timm:some_model") == "unverified"
    assert "timm:some_model" in [one.spec.name for one in drain(iter_verify())]
    (cache / "some_model.safetensors").unlink()
    assert "timm:some_model" not in [one.spec.name for one in holdings()]


def test_states_are_explained() -> None:
    from napari_dinobloom.cli.weights import STATES

    assert set(STATES) == set(inventory.State.__args__)
