"""Fetching weights: sources in their order, tokens, terms, mirrors, files that were carried here, damage."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from webserver import PROXIES, Web, serve

from napari_dinobloom.encoders import fetch as module
from napari_dinobloom.encoders import registry
from napari_dinobloom.encoders.encoder import load_encoder
from napari_dinobloom.encoders.fetch import fetch, iter_fetch, iter_fetch_all
from napari_dinobloom.encoders.inventory import holdings, repin
from napari_dinobloom.encoders.ledger import Ledger
from napari_dinobloom.encoders.library import identify
from napari_dinobloom.encoders.spec import EncoderSpec, WeightSource, vit_spec
from napari_dinobloom.errors import DinoBloomError, DownloadError, EncoderError, LicenceError, StudyError
from napari_dinobloom.io import download, lock
from napari_dinobloom.progress import drain

State = dict[str, torch.Tensor]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAPARI_DINOBLOOM_CACHE", str(tmp_path / "cache"))
    for name in (*PROXIES, download.OFFLINE_VARIABLE, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.utils._auth._get_token_from_file_refreshed", lambda: None, raising=False)
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    return tmp_path / "cache"


@pytest.fixture
def weights(toy_state: State) -> bytes:
    file = io.BytesIO()
    torch.save(toy_state, file)
    return file.getvalue()


@pytest.fixture
def web(cache: Path, weights: bytes) -> Iterator[Web]:
    with serve(Web({"toy.pth": weights, "toy.bin": weights})) as web:
        yield web


def _sum(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _publish(
    monkeypatch: pytest.MonkeyPatch, *sources: WeightSource, terms: str = "", gated: bool = False
) -> EncoderSpec:
    from dataclasses import replace

    spec = replace(vit_spec("Toy", "toy", licence="none", sources=sources, terms=terms), gated=gated)
    monkeypatch.setitem(registry.REGISTRY, "Toy", spec)
    return spec


def test_a_fetched_encoder_is_loaded_by_its_name(
    web: Web, cache: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(monkeypatch, WeightSource(f"{web.url}/toy.pth?download=1", "Toy.pth", sha256=_sum(weights)))
    with pytest.raises(EncoderError, match="weights download Toy"):
        load_encoder("Toy")
    assert fetch("toy") == cache / "Toy.pth"
    assert load_encoder("Toy", device="cpu").sha256 == _sum(weights)
    assert sorted(path.name for path in cache.glob("[!.]*")) == ["Toy.pth", "weights.json"]
    assert fetch("toy") == cache / "Toy.pth"
    assert len(web.requests) == 1, "what is here is not fetched again"


def test_a_source_with_a_known_hash_goes_first_and_the_next_one_is_tried(
    web: Web, cache: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(
        monkeypatch,
        WeightSource(f"{web.url}/toy.pth", "Toy.pth"),
        WeightSource(f"{web.url}/gone.bin", "gone.bin", sha256=_sum(weights)),
        WeightSource(f"{web.url}/toy.bin", "Toy.bin", sha256=_sum(weights)),
    )
    assert fetch("Toy") == cache / "Toy.bin"
    assert [name for name, _ in web.requests] == ["gone.bin", "toy.bin"]
    web.files.clear()
    shutil.rmtree(cache)
    with pytest.raises(EncoderError) as caught:
        fetch("Toy")
    for name in ("toy.pth", "gone.bin", "toy.bin"):
        assert f"{web.url}/{name}: the server answers 404" in str(caught.value)
    assert "--from FILE" in str(caught.value)


def test_what_nobody_published_a_hash_for_is_read_before_it_is_pinned(
    web: Web, cache: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(monkeypatch, WeightSource(f"{web.url}/toy.pth", "Toy.pth"))
    web.files["toy.pth"] = b"not found, sorry"
    with pytest.raises(EncoderError, match=r"toy\.pth is not the file expected: Toy\.pth: neither a safetensors"):
        fetch("Toy")
    assert not (cache / "Toy.pth").exists()
    web.files["toy.pth"] = weights
    fetch("Toy")
    assert {one.state for one in holdings() if one.spec.name == "Toy"} == {"unverified"}
    assert Ledger.read(cache).pins["Toy.pth"].sha256 == _sum(weights)


def test_another_file_behind_the_address_is_refused_until_it_is_wanted(
    web: Web, cache: Path, weights: bytes, toy_state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(monkeypatch, WeightSource(f"{web.url}/toy.pth", "Toy.pth"))
    fetch("Toy").unlink()
    file = io.BytesIO()
    torch.save({key: value + 1 for key, value in toy_state.items()}, file)
    web.files["toy.pth"] = file.getvalue()
    with pytest.raises(EncoderError, match=rf"not the file expected.*It was {_sum(weights)}.*verify --repin Toy"):
        fetch("Toy")
    assert repin("Toy") == ""
    fetch("Toy")
    assert identify("Toy") == _sum(file.getvalue())


def test_a_damaged_file_is_fetched_again(
    web: Web, cache: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(monkeypatch, WeightSource(f"{web.url}/toy.pth", "Toy.pth", sha256=_sum(weights)))
    fetch("Toy").write_bytes(weights[:-1])
    with pytest.raises(EncoderError, match="damaged"):
        load_encoder("Toy")
    assert fetch("Toy").read_bytes() == weights


def test_rubbish_that_lies_there_is_fetched_again(
    web: Web, cache: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(monkeypatch, WeightSource(f"{web.url}/toy.pth", "Toy.pth"))
    cache.mkdir()
    (cache / "Toy.pth").write_bytes(b"<html>login</html>")
    assert fetch("Toy").read_bytes() == weights
    (cache / "weights.json").unlink()
    fetch("Toy")
    assert len(web.requests) == 1, "what can be read is right where nothing is known"
    assert Ledger.read(cache).pins["Toy.pth"].sha256 == _sum(weights)


def test_a_file_has_no_name_before_it_was_read(web: Web, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _publish(monkeypatch, WeightSource(f"{web.url}/toy.pth", "Toy.pth"))
    web.files["toy.pth"] = b"not weights"
    steps = iter_fetch("Toy")
    assert next(report for report in steps if report.message == "reading Toy.pth")
    steps.close()
    assert not (cache / "Toy.pth").exists()
    with pytest.raises(EncoderError, match="neither a safetensors"):
        fetch("Toy")
    assert Ledger.read(cache).pins == {}


def test_a_carried_file_that_cannot_be_read_replaces_no_good_one(
    web: Web, cache: Path, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(monkeypatch, WeightSource(f"{web.url}/toy.pth", "Toy.pth"))
    cache.mkdir()
    (cache / "Toy.pth").write_bytes(weights)
    junk = tmp_path / "Toy.pth"
    junk.write_bytes(b"junk")
    with pytest.raises(EncoderError, match=r"is not Toy\.pth of Toy as it is known: Toy\.pth: neither"):
        fetch("Toy", source=junk)
    assert (cache / "Toy.pth").read_bytes() == weights
    assert sorted(path.name for path in cache.glob("[!.]*")) == ["Toy.pth"]


def test_a_damaged_file_whose_source_is_down_is_replaced_by_that_of_another(
    web: Web, cache: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = _sum(weights)
    _publish(
        monkeypatch,
        WeightSource(f"{web.url}/toy.pth", "Toy.pth", sha256=known),
        WeightSource(f"{web.url}/toy.bin", "Toy.bin", sha256=known),
    )
    cache.mkdir()
    (cache / "Toy.pth").write_bytes(weights[:-1])
    assert fetch("Toy") == cache / "Toy.pth", "mended in its place"
    (cache / "Toy.pth").write_bytes(weights[:-1])
    del web.files["toy.pth"]
    assert fetch("Toy") == cache / "Toy.bin"
    assert not (cache / "Toy.pth").exists()
    assert load_encoder("Toy", device="cpu").sha256 == known
    (cache / "Toy.pth").write_bytes(b"rubbish")
    web.requests.clear()
    assert fetch("Toy") == cache / "Toy.bin"
    assert (web.requests, (cache / "Toy.pth").exists()) == ([], False)


def test_a_damaged_ledger_is_said_before_anything_is_fetched(
    web: Web, cache: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(monkeypatch, WeightSource(f"{web.url}/toy.pth", "Toy.pth", sha256=_sum(weights)))
    cache.mkdir()
    (cache / "weights.json").write_text("{")
    for here in (False, True):
        if here:
            (cache / "Toy.pth").write_bytes(weights)
        with pytest.raises(EncoderError, match=r"weights\.json: damaged"):
            fetch("Toy")
    assert web.requests == []


def test_the_smaller_of_two_known_files_is_fetched(
    web: Web, cache: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = _sum(weights)
    _publish(
        monkeypatch,
        WeightSource(f"{web.url}/toy.pth", "Toy.pth", size=2_000_000, sha256=known),
        WeightSource(f"{web.url}/toy.bin", "Toy.bin", size=1_000_000, sha256=known),
    )
    assert fetch("Toy") == cache / "Toy.bin"
    assert [name for name, _ in web.requests] == ["toy.bin"]


def test_a_source_without_room_leaves_the_others(
    web: Web, cache: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(
        monkeypatch,
        WeightSource(f"{web.url}/toy.pth", "Toy.pth", size=2_000_000),
        WeightSource(f"{web.url}/toy.bin", "Toy.bin", size=1_000_000),
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 0, 1_500_000))
    assert fetch("Toy") == cache / "Toy.bin"


def test_a_file_of_another_encoder_is_not_kept(web: Web, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = WeightSource(f"{web.url}/toy.pth", "Toy.pth")
    monkeypatch.setitem(registry.REGISTRY, "Toy", vit_spec("Toy", "S", licence="none", sources=(source,)))
    with pytest.raises(EncoderError, match="holds architecture toy, but Toy is S"):
        fetch("Toy")
    assert not (cache / "Toy.pth").exists()


def test_the_first_digits_of_a_hash_are_compared(
    web: Web, cache: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(monkeypatch, WeightSource(f"{web.url}/toy.pth", "Toy.pth", sha256_prefix="12345678"))
    with pytest.raises(EncoderError, match=r"its sha256 is .*12345678\.\.\. is published"):
        fetch("Toy")
    _publish(monkeypatch, WeightSource(f"{web.url}/toy.pth", "Toy.pth", sha256_prefix=_sum(weights)[:8]))
    assert fetch("Toy").read_bytes() == weights


# Terms and tokens


def test_terms_come_before_any_byte(web: Web, cache: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    source = WeightSource(f"{web.url}/toy.pth", "Toy.pth", sha256=_sum(weights))
    _publish(monkeypatch, source, terms="Not for sale.")
    with pytest.raises(LicenceError, match="Not for sale"):
        fetch("Toy")
    assert web.requests == []
    fetch("Toy", accept_licence=True)
    assert load_encoder("Toy", device="cpu").name == "Toy"


@pytest.mark.parametrize("how", ["argument", "variable"])
@pytest.mark.parametrize("gated", [True, False], ids=["gated", "refused without"])
def test_a_token_goes_to_hugging_face_or_its_mirror_only(
    web: Web, cache: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch, how: str, gated: bool
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{web.url}/")
    if how == "variable":
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
    given = "hf_secret" if how == "argument" else None
    with serve(Web({})) as other:
        _publish(
            monkeypatch,
            WeightSource(f"{other.url}/toy.pth", "Toy.pth", sha256=_sum(weights)),
            WeightSource("https://huggingface.co/lab/toy/resolve/main/toy.bin", "Toy.bin"),
            gated=gated,
        )
        web.token = "hf_secret"
        assert fetch("Toy", token=given) == cache / "Toy.bin"
        assert other.asked("Authorization") == [None]
    known_from_the_start = gated or how == "argument"
    assert web.asked("Authorization") == ([] if known_from_the_start else [None]) + ["Bearer hf_secret"]


@pytest.mark.parametrize(("token", "advice"), [(None, "settings/tokens"), ("hf_old", "Your token has no access")])
def test_a_closed_door_comes_with_the_way_in(
    web: Web, cache: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, advice: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", web.url)
    web.token = "hf_new"
    _publish(monkeypatch, WeightSource("https://huggingface.co/lab/toy/resolve/main/toy.bin", "Toy.bin"), gated=True)
    with pytest.raises(EncoderError, match=rf"answers 401.*{advice}") as caught:
        fetch("Toy", token=token)
    assert "https://huggingface.co/lab/toy" in str(caught.value)


# Without the outer world


def test_a_mirror_of_one_s_own_gets_no_token_that_was_not_given_for_it(
    web: Web, cache: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    web.files["Toy.bin"] = weights
    _publish(monkeypatch, WeightSource("https://huggingface.co/lab/toy/resolve/main/toy.bin", "Toy.bin"), gated=True)
    assert fetch("Toy", base_url=f"{web.url}/mirror/").read_bytes() == weights
    assert web.asked("Authorization") == [None]


def test_offline_says_what_to_carry_and_where_to(
    web: Web, cache: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(monkeypatch, WeightSource(f"{web.url}/toy.pth?download=1", "Toy.pth", sha256=_sum(weights)))
    monkeypatch.setenv(download.OFFLINE_VARIABLE, "1")
    with pytest.raises(EncoderError) as caught:
        fetch("Toy")
    for words in (f"{web.url}/toy.pth?download=1  ->  Toy.pth", str(cache), "--from FILE", download.OFFLINE_VARIABLE):
        assert words in str(caught.value)
    assert web.requests == []


@pytest.mark.parametrize("name", ["renamed (1)", "Toy.pth", "toy.pth"])
@pytest.mark.parametrize("known", [True, False])
def test_a_carried_file_is_put_in_its_place(
    web: Web, cache: Path, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, known: bool
) -> None:
    monkeypatch.setenv(download.OFFLINE_VARIABLE, "1")
    _publish(
        monkeypatch,
        WeightSource(f"{web.url}/other.bin", "Other.bin"),
        WeightSource(f"{web.url}/toy.pth?download=1", "Toy.pth", sha256=_sum(weights) if known else None),
    )
    carried = tmp_path / name
    carried.write_bytes(weights)
    if name.startswith("renamed") and not known:
        with pytest.raises(EncoderError, match=r"neither its sha256 .* nor its name.*Other\.bin, Toy\.pth"):
            fetch("Toy", source=carried)
        return
    assert fetch("Toy", source=carried) == cache / "Toy.pth"
    assert identify("Toy") == _sum(weights)
    assert carried.exists()
    assert fetch("Toy", source=cache / "Toy.pth") == cache / "Toy.pth", "it is in its place already"


def test_a_carried_file_that_is_not_the_published_one(
    web: Web, cache: Path, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(monkeypatch, WeightSource(f"{web.url}/toy.pth", "Toy.pth", sha256=_sum(weights)))
    carried = tmp_path / "Toy.pth"
    carried.write_bytes(weights[:-1])
    with pytest.raises(EncoderError, match=r"is not Toy\.pth of Toy as it is known: its SHA-256"):
        fetch("Toy", source=carried)
    assert not (cache / "Toy.pth").exists()
    with pytest.raises(EncoderError, match="no such file"):
        fetch("Toy", source=tmp_path / "nowhere")


def test_a_page_for_people_is_not_fetched(
    web: Web, cache: Path, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(monkeypatch, WeightSource("https://example.org/page", "Toy.pth", sha256=_sum(weights), manual=True))
    with pytest.raises(EncoderError, match=r"(?s)example\.org/page is a page for people.*Toy\.pth.*--from FILE"):
        fetch("Toy")
    (tmp_path / "download").write_bytes(weights)
    assert fetch("Toy", source=tmp_path / "download") == cache / "Toy.pth"


def test_a_host_that_does_not_answer_is_not_asked_for_its_other_files(
    cache: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    asked: list[str] = []

    def silent(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        raise TimeoutError("timed out")

    places = ("a.org/1", "a.org/2", "b.org/3")
    _publish(monkeypatch, *(WeightSource(f"https://{place}", f"{place[-1]}.bin") for place in places))
    monkeypatch.setattr(socket, "getaddrinfo", silent)
    with pytest.raises(EncoderError, match=r"(?s)a\.org/1 cannot be reached.*b\.org/3 cannot be reached"):
        fetch("Toy")
    assert asked == ["a.org"] * download.ATTEMPTS + ["b.org"] * download.ATTEMPTS


# The folder


def test_a_full_disk_is_said_before_anything_is_fetched(web: Web, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _publish(monkeypatch, WeightSource(f"{web.url}/toy.pth", "Toy.pth", size=5_000_000_000))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**10, 10**10, 10**9))
    with pytest.raises(EncoderError, match=r"Toy\.pth needs 5\.00 GB, 1\.00 GB are free.*NAPARI_DINOBLOOM_CACHE"):
        fetch("Toy")
    assert web.requests == []


def test_a_disk_that_fills_is_said_with_its_folder(web: Web, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _publish(monkeypatch, WeightSource(f"{web.url}/toy.pth", "Toy.pth"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 10))
    with pytest.raises(StudyError, match=r"cache: the disk.*is full"):
        fetch("Toy")


def test_two_processes_do_not_write_into_one_file(
    web: Web, cache: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(monkeypatch, WeightSource(f"{web.url}/toy.pth", "Toy.pth", sha256=_sum(weights)))
    cache.mkdir()
    held = lock.acquire(cache)
    assert isinstance(held, lock.Lock)
    with pytest.raises(EncoderError, match=r"process \d+ on .* is fetching weights"):
        fetch("Toy")
    held.release()
    steps = iter_fetch("Toy")
    next(steps)
    steps.close()
    assert fetch("Toy").read_bytes() == weights, "a cancelled fetch leaves no lock, and its part is taken up"


def test_all_sources_are_fetched_for_a_mirror(
    web: Web, cache: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = (
        WeightSource(f"{web.url}/toy.pth", "Toy.pth"),
        WeightSource(f"{web.url}/toy.bin", "Toy.bin", sha256=_sum(weights)),
    )
    _publish(monkeypatch, *sources)
    assert drain(iter_fetch_all("Toy")) == [cache / "Toy.bin", cache / "Toy.pth"]
    drain(iter_fetch_all("Toy"))
    assert len(web.requests) == 2
    del web.files["toy.pth"]
    (cache / "Toy.pth").unlink()
    with pytest.raises(EncoderError, match="404"):
        drain(iter_fetch_all("Toy"))


@pytest.mark.parametrize("name", ["starter", "Toi"])
def test_what_cannot_be_fetched(cache: Path, name: str) -> None:
    with pytest.raises(DinoBloomError, match=r"nothing to fetch|No encoder is called"):
        fetch(name)


def test_published_addresses_are_of_the_web() -> None:
    for spec in registry.REGISTRY.values():
        for source in spec.sources:
            assert not source.url or source.url.startswith("https://"), source
            assert module._address(source, None) == source.url
    assert issubclass(DownloadError, DinoBloomError)
