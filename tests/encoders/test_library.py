"""Which file a name stands for, what is remembered of it, what was accepted, and what a user adds."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch

from napari_dinobloom.encoders import inventory, ledger, library, registry
from napari_dinobloom.encoders.build import load_backbone
from napari_dinobloom.encoders.encoder import load_encoder
from napari_dinobloom.encoders.imports import import_checkpoint
from napari_dinobloom.encoders.inventory import holdings, iter_verify, repin
from napari_dinobloom.encoders.ledger import Ledger
from napari_dinobloom.encoders.library import Located, accept, checked, identify, locate
from napari_dinobloom.encoders.spec import WeightSource, vit_spec
from napari_dinobloom.errors import EncoderError, LicenceError
from napari_dinobloom.progress import drain

State = dict[str, torch.Tensor]

ONE, TWO = (hashlib.sha256(text).hexdigest() for text in (b"one", b"two"))


def _sum(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _state(name: str) -> str:
    return next(one.state for one in holdings() if one.spec.name == name)


def test_a_hash_is_computed_once_as_long_as_the_file_stays(
    cache: Path, published: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    plain = library.iter_seen
    monkeypatch.setattr(library, "iter_seen", lambda path: hashed.append(path) or plain(path))
    (cache / "Open.pth").write_bytes(b"one")
    assert [identify("Open"), identify("open"), identify("OPEN")] == [ONE] * 3
    assert len(hashed) == 1
    os.utime(cache / "Open.pth", ns=(1, 1))
    assert identify("Open") == ONE
    assert len(hashed) == 2, "its time has changed"


@pytest.mark.parametrize("keep_time", [True, False])
def test_the_first_hash_is_pinned_and_another_file_is_refused(
    cache: Path, published: None, files: tuple[bytes, bytes], keep_time: bool
) -> None:
    path, (one, two) = cache / "Open.pth", map(_sum, files)
    path.write_bytes(files[0])
    assert _state("Open") == "unchecked"
    assert load_backbone("Open").sha256 == one
    assert _state("Open") == "unverified"
    stat = path.stat()
    path.rename(cache / "old")  # keeps the old file's number in use
    path.write_bytes(files[1])
    if keep_time:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    for look in (identify, load_backbone):
        with pytest.raises(EncoderError, match=rf"sha256 is {two}, but it was {one} .*verify --repin Open"):
            look("Open")
    found = drain(iter_verify("Open"))
    assert [(held.state, held.sha256) for held in found] == [("wrong", two)]
    assert repin("open") == two == identify("Open")
    assert _state("Open") == "unverified"


def test_a_pin_outlives_the_file_and_can_be_dropped(cache: Path, published: None, files: tuple[bytes, bytes]) -> None:
    path = cache / "Open.pth"
    path.write_bytes(files[0])
    load_backbone("Open")
    path.unlink()
    assert _state("Open") == "absent"
    path.write_bytes(files[1])
    with pytest.raises(EncoderError, match="first seen here"):
        load_backbone("Open")
    path.unlink()
    assert repin("Open") == ""
    path.write_bytes(files[1])
    assert load_backbone("Open").sha256 == _sum(files[1])


def test_only_what_was_read_as_weights_is_pinned(cache: Path, published: None, files: tuple[bytes, bytes]) -> None:
    path = cache / "Open.pth"
    for rubbish in (files[0][:-100], b"<html>login</html>"):
        path.write_bytes(rubbish)
        assert identify("Open") == _sum(rubbish)
        assert _state("Open") == "unchecked", "hashed, but not read"
        with pytest.raises(EncoderError, match=r"Open\.pth: (truncated|neither)"):
            load_backbone("Open")
        for look in (lambda: repin("Open"), lambda: load_backbone("Open")):
            with pytest.raises(EncoderError, match=r"Open\.pth: (truncated|neither)"):
                look()
        [held] = drain(iter_verify("Open"))
        assert held.state == "wrong"
        assert "Open.pth: " in held.problem
        assert Ledger.read(cache).pins == {}
    path.write_bytes(files[0])
    assert [held.state for held in drain(iter_verify("Open"))] == ["unverified"]
    assert Ledger.read(cache).pins["Open.pth"].sha256 == _sum(files[0])


def test_a_hash_is_never_filed_under_another_file(
    cache: Path, published: None, files: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cache / "Known.pth"
    path.write_bytes(b"one")
    plain = ledger.iter_hash_open

    def replaced(handle, name):
        found = yield from plain(handle, name)
        (cache / "new").write_bytes(b"two")
        os.replace(cache / "new", path)
        return found

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(ledger, "iter_hash_open", replaced)
        checked(locate("Known"))
    assert _state("Known") == "unchecked"
    with pytest.raises(EncoderError, match="is published as"):
        checked(locate("Known"))


def test_a_file_that_is_written_to_while_it_is_hashed_is_hashed_again(
    cache: Path, published: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, writes = cache / "Known.pth", iter([b"one"])
    path.write_bytes(b"two")
    plain = ledger.iter_hash_open

    def written_to(handle, name):
        found = yield from plain(handle, name)
        for content in writes:
            path.write_bytes(content)
            os.utime(path, ns=(1, 1))
        return found

    monkeypatch.setattr(ledger, "iter_hash_open", written_to)
    assert checked(locate("Known")).sha256 == ONE

    def growing(handle, name):
        found = yield from plain(handle, name)
        with open(path, "ab") as more:
            more.write(b"!")
        return found

    monkeypatch.setattr(ledger, "iter_hash_open", growing)
    path.write_bytes(b"x")
    with pytest.raises(EncoderError, match=r"Known\.pth: is being written to"):
        checked(locate("Known"))


def test_a_file_replaced_while_it_is_read_is_neither_loaded_nor_pinned(
    cache: Path, published: None, files: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_dinobloom.encoders import build

    path = cache / "Open.pth"
    path.write_bytes(files[0])
    plain = build.read_checkpoint

    def replaced(path_, expected=None):
        (cache / "new").write_bytes(files[1])
        os.replace(cache / "new", path)
        return plain(path_, expected)

    monkeypatch.setattr(build, "read_checkpoint", replaced)
    with pytest.raises(EncoderError, match=r"Open\.pth: was replaced while it was read"):
        load_backbone("Open")
    assert Ledger.read(cache).pins == {}


def test_a_file_that_may_not_be_read_is_named(
    cache: Path, published: None, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "Open.pth").write_bytes(b"one")

    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(ledger, "open", refuse, raising=False)
    looks = (lambda: identify("Open"), lambda: drain(iter_verify("Open")), lambda: import_checkpoint(own, "mine"))
    for look in looks:
        with pytest.raises(
            EncoderError, match=r"(Open\.pth|trained\.safetensors): cannot be read \(Permission denied\)"
        ):
            look()


def test_a_published_hash_needs_no_pin_and_cannot_be_repinned(cache: Path, published: None) -> None:
    (cache / "Known.pth").write_bytes(b"one")
    assert checked(locate("Known")).sha256 == ONE
    assert _state("Known") == "verified"
    assert Ledger.read(cache).pins == {}
    (cache / "Known.pth").write_bytes(b"two!")
    with pytest.raises(EncoderError, match=f"is published as {ONE}"):
        checked(locate("Known"))
    with pytest.raises(EncoderError, match="is published"):
        repin("Known")
    (cache / "Short.pth").write_bytes(b"one")
    assert checked(locate("Short")).sha256 == ONE
    assert _state("Short") == "verified"
    (cache / "Short.pth").write_bytes(b"two!")
    with pytest.raises(EncoderError, match=rf"published as {ONE[:8]}\.\.\."):
        checked(locate("Short"))
    with pytest.raises(EncoderError, match=rf"published as {ONE[:8]}\.\.\."):
        repin("Short")


def test_changes_of_the_ledger_wait_for_each_other(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def take_down(number: int) -> None:
        path = cache / f"{number}.bin"
        path.write_bytes(b"%d" % number)
        checked(Located(path))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take_down, range(40)))
    assert len(Ledger.read(cache).seen) == 40
    monkeypatch.setattr(ledger, "PATIENCE_S", 0.05)
    with Ledger.change(cache), pytest.raises(EncoderError, match=r"weights\.json: process \d+ .* is changing it"):
        accept("Phikon")


def test_what_others_take_down_during_a_repin_stays(
    cache: Path, own: Path, toy_state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_checkpoint(own, "one")
    plain = inventory.iter_seen

    def slow(path: Path):
        seen = yield from plain(path)
        monkeypatch.setattr(inventory, "iter_seen", plain)
        accept("Phikon")
        import_checkpoint(own, "two")
        return seen

    monkeypatch.setattr(inventory, "iter_seen", slow)
    repin("one")
    known = Ledger.read(cache)
    assert (set(known.imports), set(known.accepted)) == ({"one", "two"}, {"Phikon"})


def test_an_earlier_ledger_without_the_newest_field_is_read(cache: Path, own: Path) -> None:
    import_checkpoint(own, "mine")
    raw = json.loads((cache / "weights.json").read_text())
    del raw["imports"]["mine"]["like"]
    (cache / "weights.json").write_text(json.dumps(raw))
    assert locate("mine").path == own


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
    assert Ledger.read(cache).remembered(own).sha256 == _sum(own.read_bytes())
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


def test_a_copy_of_a_published_file_keeps_its_terms(
    cache: Path, own: Path, published: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = WeightSource("https://example.org/b.pth", "Bound2.pth", sha256=_sum(own.read_bytes()))
    bound = vit_spec("Bound2", "toy", licence="Own licence", sources=(source,), terms="Ask first.")
    monkeypatch.setitem(registry.REGISTRY, "Bound2", bound)
    looks = (identify, load_backbone, lambda path: import_checkpoint(path, "mine", copy=True))
    for look in looks:
        with pytest.raises(LicenceError, match="Ask first") as caught:
            look(own)
        assert "weights download Bound2" in str(caught.value)
    caught.value.accept()
    assert (load_backbone(own).spec.licence, load_backbone(own).spec.terms) == ("Own licence", "Ask first.")
    import_checkpoint(own, "mine")
    assert load_backbone("mine").spec.licence == "Own licence"
    with Ledger.change(cache) as known:
        known.accepted.clear()
    with pytest.raises(LicenceError, match="weights download Bound2"):
        locate("mine")
    accept("mine")
    assert locate("mine").path == own


def test_accepting_a_segmenter_accepts_no_encoder(cache: Path, published: None) -> None:
    from napari_dinobloom.pipeline.settings import resolve

    (cache / "Bound.pth").write_bytes(b"one")
    resolve({}, {"encoder": "Bound", "accept_licence": True})
    with pytest.raises(LicenceError) as caught:
        identify("Bound")
    assert caught.value.accept is not None
    caught.value.accept()
    assert identify("Bound") == ONE


# Which file a name stands for


def test_a_file_of_the_current_folder_is_no_encoder_by_its_name(
    cache: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("starter", "mine", "notes"):
        (tmp_path / name).write_bytes(own.read_bytes())
    import_checkpoint(own, "mine")
    assert locate("starter").path != tmp_path / "starter"
    assert load_encoder("starter", device="cpu").dim == 192
    assert locate("mine").path == own
    with pytest.raises(EncoderError, match=rf"For the file of this name here, write \.{os.sep}notes"):
        locate("notes")
    for path in (Path("notes"), f".{os.sep}notes", str(tmp_path / "notes"), "trained.safetensors"):
        assert locate(path).path.samefile(own if "trained" in str(path) else tmp_path / "notes")


def test_a_file_that_is_known_to_be_wrong_is_not_taken_where_a_right_one_is(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tuple(WeightSource(f"https://x/{name}", name, sha256=ONE) for name in ("a.pth", "b.pth"))
    monkeypatch.setitem(registry.REGISTRY, "Two", vit_spec("Two", "S", licence="none", sources=sources))
    (cache / "a.pth").write_bytes(b"two")
    (cache / "b.pth").write_bytes(b"one")
    assert locate("Two").path == cache / "a.pth", "nobody has looked yet"
    with pytest.raises(EncoderError, match="published as"):
        checked(locate("Two"))
    assert locate("Two").path == cache / "b.pth"
    assert _state("Two") == "unchecked"
    assert checked(locate("Two")).sha256 == ONE
    assert _state("Two") == "verified"
