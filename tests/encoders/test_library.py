"""Which file a name stands for, what is remembered of it, what was accepted, and what a user adds."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from napari_dinobloom.encoders import inventory, library, registry
from napari_dinobloom.encoders.encoder import load_encoder
from napari_dinobloom.encoders.inventory import holdings, import_checkpoint, iter_verify, repin
from napari_dinobloom.encoders.ledger import Ledger
from napari_dinobloom.encoders.library import accept, checked_hash, identify, locate
from napari_dinobloom.encoders.spec import WeightSource, vit_spec
from napari_dinobloom.errors import EncoderError, LicenceError
from napari_dinobloom.progress import drain

State = dict[str, torch.Tensor]

ONE, TWO = (hashlib.sha256(text).hexdigest() for text in (b"one", b"two"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("NAPARI_DINOBLOOM_CACHE", str(folder))
    return folder


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch, toy_state: State) -> None:
    """Known: a published hash. Open: none. Bound: terms. Short: eight digits."""
    for name, sha256, terms in (("Known", ONE, ""), ("Open", None, ""), ("Bound", None, "For research only.")):
        source = WeightSource(f"https://example.org/{name}.pth", f"{name}.pth", None, sha256)
        spec = vit_spec(name, "toy", licence="none", sources=(source,), terms=terms)
        monkeypatch.setitem(registry.REGISTRY, name, spec)
    short = WeightSource("https://example.org/s.pth", "Short.pth", sha256_prefix=ONE[:8])
    monkeypatch.setitem(registry.REGISTRY, "Short", vit_spec("Short", "toy", licence="none", sources=(short,)))


@pytest.fixture
def own(tmp_path: Path, toy_state: State) -> Path:
    path = tmp_path / "trained.safetensors"
    save_file(toy_state, path)
    return path


def _state(name: str) -> str:
    return next(one.state for one in holdings() if one.spec.name == name)


# What is remembered


def test_a_hash_is_computed_once_as_long_as_the_file_stays(
    cache: Path, published: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    plain = library.sha256_of
    monkeypatch.setattr(library, "sha256_of", lambda path: hashed.append(path) or plain(path))
    (cache / "Open.pth").write_bytes(b"one")
    assert [identify("Open"), identify("open"), identify("OPEN")] == [ONE] * 3
    assert len(hashed) == 1
    os.utime(cache / "Open.pth", ns=(1, 1))
    assert identify("Open") == ONE
    assert len(hashed) == 2, "its time has changed"


@pytest.mark.parametrize("keep_time", [True, False])
def test_the_first_hash_is_pinned_and_another_file_is_refused(cache: Path, published: None, keep_time: bool) -> None:
    path = cache / "Open.pth"
    path.write_bytes(b"one")
    assert _state("Open") == "unchecked"
    assert identify("Open") == ONE
    assert _state("Open") == "unverified"
    stat = path.stat()
    path.rename(cache / "old")  # keeps the old file's number in use
    path.write_bytes(b"two")
    if keep_time:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    for look in (lambda: identify("Open"), lambda: checked_hash(locate("Open"))):
        with pytest.raises(EncoderError, match=rf"sha256 is {TWO}, but it was {ONE} .*verify --repin Open"):
            look()
    found = drain(iter_verify("Open"))
    assert [(one.state, one.sha256) for one in found] == [("wrong", TWO)]
    assert repin("open") == TWO == identify("Open")
    assert _state("Open") == "unverified"


def test_a_pin_outlives_the_file_and_can_be_dropped(cache: Path, published: None) -> None:
    (cache / "Open.pth").write_bytes(b"one")
    identify("Open")
    (cache / "Open.pth").unlink()
    assert _state("Open") == "absent"
    assert repin("Open") == ""
    (cache / "Open.pth").write_bytes(b"two")
    assert identify("Open") == TWO


def test_a_published_hash_needs_no_pin_and_cannot_be_repinned(cache: Path, published: None) -> None:
    (cache / "Known.pth").write_bytes(b"one")
    assert checked_hash(locate("Known")) == ONE
    assert _state("Known") == "verified"
    assert Ledger.read(cache).pins == {}
    (cache / "Known.pth").write_bytes(b"two!")
    with pytest.raises(EncoderError, match=f"is published as {ONE}"):
        checked_hash(locate("Known"))
    with pytest.raises(EncoderError, match="is published"):
        repin("Known")
    (cache / "Short.pth").write_bytes(b"one")
    assert checked_hash(locate("Short")) == ONE
    assert _state("Short") == "verified"
    (cache / "Short.pth").write_bytes(b"two!")
    with pytest.raises(EncoderError, match=rf"published as {ONE[:8]}\.\.\."):
        checked_hash(locate("Short"))


def test_a_read_only_cache_can_be_used(cache: Path, published: None, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "Open.pth").write_bytes(b"one")

    def refuse(self: Ledger) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Ledger, "write", refuse)
    assert identify("Open") == ONE
    with pytest.raises(EncoderError, match=r"cannot be kept \(Permission denied\)"):
        accept("Bound")


def test_files_elsewhere_are_remembered_only_if_they_are_large(
    cache: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identify(own)
    assert Ledger.read(cache).seen == {}
    monkeypatch.setattr("napari_dinobloom.encoders.ledger.REMEMBERED_FROM", 1)
    identify(own)
    assert Ledger.read(cache).remembered(own) == hashlib.sha256(own.read_bytes()).hexdigest()
    assert Ledger.read(cache).pins == {}, "your own file may change"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"version": 1}',
        '{"version": "x", "seen": {}, "pins": {}, "accepted": {}, "imports": {}}',
        '{"version": 1, "seen": {}, "pins": {}, "accepted": {"a": {"terms": 3, "by": "", "at": ""}}, "imports": {}}',
        '{"version": 1, "seen": {}, "pins": {"a": {"sha256": ""}}, "accepted": {}, "imports": {}}',
        '{"version": 1, "seen": [], "pins": {}, "accepted": {}, "imports": {}}',
    ],
)
def test_a_damaged_ledger_is_named(cache: Path, text: str) -> None:
    (cache / "weights.json").write_text(text)
    with pytest.raises(EncoderError, match=r"weights\.json: damaged or unreadable"):
        holdings()
    assert load_encoder("starter", device="cpu").dim == 192, "what comes with the package needs no ledger"


def test_loading_what_needs_no_record_writes_none(cache: Path, own: Path) -> None:
    load_encoder("starter", device="cpu")
    load_encoder(own, device="cpu")
    drain(iter_verify())
    assert list(cache.iterdir()) == []


def test_a_ledger_of_the_future_is_not_overwritten(cache: Path) -> None:
    (cache / "weights.json").write_text('{"version": 2}')
    with pytest.raises(EncoderError, match="Upgrade"):
        holdings()
    with pytest.raises(EncoderError, match="Upgrade"):
        accept("Phikon")


# Terms


def test_terms_are_asked_for_once_before_loading_and_kept_with_the_name(cache: Path, published: None) -> None:
    with pytest.raises(EncoderError, match="not on this machine") as absent:
        locate("Bound")
    assert not isinstance(absent.value, LicenceError)
    (cache / "Bound.pth").write_bytes(b"one")
    with pytest.raises(LicenceError, match="For research only") as caught:
        identify("Bound")
    assert "weights download Bound --accept-licence" in str(caught.value)
    accept("bound")
    assert identify("Bound") == ONE
    kept = json.loads((cache / "weights.json").read_text(encoding="utf-8"))["accepted"]["Bound"]
    assert kept["terms"] == "For research only."
    assert kept["by"]
    assert kept["at"].startswith("20")


def test_changed_terms_are_asked_for_again(cache: Path, published: None, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "Bound.pth").write_bytes(b"one")
    accept("Bound")
    source = registry.REGISTRY["Bound"].sources
    stricter = vit_spec("Bound", "toy", licence="none", sources=source, terms="For nobody.")
    monkeypatch.setitem(registry.REGISTRY, "Bound", stricter)
    with pytest.raises(LicenceError, match="For nobody"):
        locate("Bound")


def test_accepting_a_segmenter_accepts_no_encoder(cache: Path, published: None) -> None:
    from napari_dinobloom.pipeline.settings import resolve

    (cache / "Bound.pth").write_bytes(b"one")
    resolve({}, {"encoder": "Bound", "accept_licence": True})
    with pytest.raises(LicenceError) as caught:
        identify("Bound")
    assert caught.value.accept is not None
    caught.value.accept()
    assert identify("Bound") == ONE


# Your own checkpoints


@pytest.mark.parametrize("copy", [True, False])
def test_an_imported_checkpoint_is_loaded_by_its_name(
    cache: Path, own: Path, toy_crops: np.ndarray, copy: bool
) -> None:
    located = import_checkpoint(own, "My-encoder.1", copy=copy)
    assert (located.path.parent == cache) is copy
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
    (cache / "mine.safetensors").write_bytes(b"precious")
    with pytest.raises(EncoderError, match=r"mine\.safetensors is there already and another file"):
        import_checkpoint(own, "mine", copy=True)
    assert (cache / "mine.safetensors").read_bytes() == b"precious"


# All of them


def test_the_list_has_every_encoder_and_verify_every_file(cache: Path, published: None, own: Path) -> None:
    import_checkpoint(own, "mine", copy=True)
    (cache / "Known.pth").write_bytes(b"two")
    (cache / "Open.pth").write_bytes(b"one")
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
    checked_hash(locate("Known"))
    stat = path.stat()
    with open(path, "r+b") as handle:  # damage that leaves size, time and number alone
        handle.write(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert checked_hash(locate("Known")) == ONE
    assert [one.state for one in drain(iter_verify("Known"))] == ["wrong"]
    with pytest.raises(EncoderError, match="damaged"):
        checked_hash(locate("Known"))


def test_a_model_of_timm_that_was_fetched_is_listed_too(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = WeightSource("https://example.org/m.safetensors", "some_model.safetensors")
    model = vit_spec("timm:some_model", "S", licence="MIT", sources=(source,))
    monkeypatch.setattr(registry, "_timm", lambda name: model)
    (cache / "some_model.safetensors").write_bytes(b"one")
    assert identify("timm:some_model") == ONE
    assert _state("timm:some_model") == "unverified"
    assert "timm:some_model" in [one.spec.name for one in drain(iter_verify())]
    (cache / "some_model.safetensors").unlink()
    assert "timm:some_model" not in [one.spec.name for one in holdings()]


def test_states_are_explained() -> None:
    from napari_dinobloom.weights_cli import STATES

    assert set(STATES) == set(inventory.State.__args__)
