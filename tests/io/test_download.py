"""The downloader, against a server on this machine that breaks off, forgets ranges, redirects and changes its files."""

from __future__ import annotations

import errno
import hashlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from webserver import PROXIES, Web, proxy, serve

from napari_dinobloom.errors import DownloadError
from napari_dinobloom.io import download, part
from napari_dinobloom.io.download import iter_download
from napari_dinobloom.io.part import Unwanted, iter_copy, iter_hash, part_of
from napari_dinobloom.progress import drain

BODY = bytes((i * i + i // 7) % 251 for i in range(200_000))
SUM = hashlib.sha256(BODY).hexdigest()
OTHER = bytes(reversed(BODY))


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    for name in (*PROXIES, download.OFFLINE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    with serve(Web({"w.bin": BODY}, etags={"w.bin": '"one"'})) as web:
        yield web


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "w.bin"


def _get(web: Web, target: Path, **checks: object) -> str:
    return drain(iter_download(f"{web.url}/w.bin", target, **checks))


def _interrupt(web: Web, target: Path, **checks: object) -> int:
    """Begin a download and stop it, as a killed process would; gives the bytes that stay."""
    steps = iter_download(f"{web.url}/w.bin", target, **checks)
    next(steps)
    steps.close()
    assert not target.exists()
    return part_of(target).stat().st_size


def _left(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def test_a_file_arrives_with_its_hash_and_reports(web: Web, target: Path) -> None:
    steps, reports = iter_download(f"{web.url}/w.bin?download=1", target), []
    while True:
        try:
            reports.append(next(steps))
        except StopIteration as end:
            found = end.value
            break
    assert found == SUM
    assert target.read_bytes() == BODY
    assert _left(target) == ["w.bin"]
    assert (reports[-1].done, reports[-1].total) == (len(BODY), len(BODY))
    assert web.asked("User-Agent")[0].startswith("napari-dinobloom/")


def test_an_interrupted_download_goes_on_with_the_same_version(web: Web, target: Path) -> None:
    have = _interrupt(web, target)
    assert 0 < have < len(BODY)
    assert _get(web, target) == SUM
    assert web.asked("Range") == [None, f"bytes={have}-"]
    assert web.asked("If-Range") == [None, '"one"']
    assert target.read_bytes() == BODY
    assert _left(target) == ["w.bin"]


def test_a_broken_connection_is_taken_up_at_once_and_as_often_as_it_brings_something(web: Web, target: Path) -> None:
    web.cut_after = [30_000] * 5
    assert _get(web, target) == SUM
    assert web.asked("Range") == [None, *(f"bytes={n * 30_000}-" for n in range(1, 6))]


def test_a_server_that_breaks_off_at_the_same_place_is_given_up(web: Web, target: Path) -> None:
    web.ranges, web.cut_after = False, [30_000] * 9
    with pytest.raises(DownloadError, match="cannot be reached: the connection ended after 30000 of 200000 bytes"):
        _get(web, target)
    assert len(web.requests) == download.ATTEMPTS
    assert part_of(target).stat().st_size == 30_000, "what has arrived is kept"


@pytest.mark.parametrize("mark", ["etags", "dates"])
@pytest.mark.parametrize("obeys", [True, False], ids=["obeys If-Range", "ignores If-Range"])
def test_another_version_is_never_joined_to_the_old_one(web: Web, target: Path, mark: str, obeys: bool) -> None:
    web.etags.clear()
    getattr(web, mark)["w.bin"] = '"one"' if mark == "etags" else "Wed, 21 Oct 2015 07:28:00 GMT"
    _interrupt(web, target)
    web.files["w.bin"], web.obeys_if_range = OTHER, obeys
    getattr(web, mark)["w.bin"] = '"two"' if mark == "etags" else "Thu, 22 Oct 2015 07:28:00 GMT"
    assert _get(web, target) == hashlib.sha256(OTHER).hexdigest()
    assert target.read_bytes() == OTHER


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_mark_only_a_known_hash_lets_a_part_go_on(web: Web, target: Path, etag: str | None) -> None:
    web.etags = {"w.bin": etag} if etag else {}
    _interrupt(web, target)
    web.files["w.bin"] = OTHER
    assert _get(web, target) == hashlib.sha256(OTHER).hexdigest()
    assert web.asked("Range") == [None, None]
    target.unlink()
    have = _interrupt(web, target, sha256=hashlib.sha256(OTHER).hexdigest())
    _get(web, target, sha256=hashlib.sha256(OTHER).hexdigest().upper())
    assert web.asked("Range")[-1] == f"bytes={have}-"


def test_a_spoilt_part_is_thrown_away_once(web: Web, target: Path) -> None:
    part_of(target).write_bytes(b"x" * 1000)
    assert _get(web, target, sha256=SUM) == SUM
    assert web.asked("Range") == ["bytes=1000-", None]


@pytest.mark.parametrize("length", [len(BODY), len(BODY) + 5])
def test_a_part_that_lacks_nothing_or_is_too_long(web: Web, target: Path, length: int) -> None:
    part_of(target).write_bytes((BODY + b"12345")[:length])
    assert _get(web, target, sha256=SUM) == SUM
    asked = 1 if length == len(BODY) else 2
    assert len(web.requests) == asked, "a whole part is not fetched again"
    assert target.read_bytes() == BODY


@pytest.mark.parametrize(
    ("checks", "why"),
    [
        ({"sha256": "0" * 64}, "its SHA-256 is "),
        ({"size": 199_999}, "200000 bytes instead of 199999"),
        ({"size": 200_001}, "200000 bytes instead of 200001"),
    ],
)
def test_a_wrong_file_is_refused_and_not_fetched_twice(
    web: Web, target: Path, checks: dict[str, object], why: str
) -> None:
    target.write_bytes(b"the good old file")
    with pytest.raises(DownloadError, match=f"w.bin is not the file expected: .*{why}"):
        _get(web, target, **checks)
    assert len(web.requests) == 1
    assert _left(target) == ["w.bin"]
    assert target.read_bytes() == b"the good old file"


def test_more_than_the_size_is_not_read_where_the_server_does_not_say_it(web: Web, target: Path) -> None:
    web.tells_length = False
    with pytest.raises(DownloadError, match="larger than 1000 bytes"):
        _get(web, target, size=1000)
    assert _get(web, target) == SUM


def test_a_login_page_is_no_file(web: Web, target: Path) -> None:
    web.content_type = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match=r"web page.*login page"):
        _get(web, target)


@pytest.mark.parametrize("known", [True, False], ids=["hash known", "by its mark"])
def test_a_login_page_in_the_middle_leaves_what_has_arrived(web: Web, target: Path, known: bool) -> None:
    checks = {"sha256": SUM} if known else {}
    have = _interrupt(web, target, **checks)
    web.content_type = "text/html"
    with pytest.raises(DownloadError, match="login page"):
        _get(web, target, **checks)
    assert part_of(target).stat().st_size == have
    web.content_type = "application/octet-stream"
    assert _get(web, target, **checks) == SUM
    assert web.asked("Range") == [None, f"bytes={have}-", f"bytes={have}-"]


def test_an_answer_of_another_size_leaves_what_has_arrived(web: Web, target: Path) -> None:
    checks = {"sha256": SUM, "size": len(BODY)}
    have = _interrupt(web, target, **checks)
    web.files["w.bin"], web.ranges = b"blocked by your network", False
    with pytest.raises(DownloadError, match="23 bytes instead of 200000"):
        _get(web, target, **checks)
    assert part_of(target).stat().st_size == have


@pytest.mark.parametrize("how", ["fetched", "copied"])
def test_a_file_is_looked_at_before_it_gets_its_name(web: Web, target: Path, tmp_path: Path, how: str) -> None:
    looked: list[tuple[bytes, str]] = []

    def refuse(path: Path, sha256: str) -> None:
        looked.append((path.read_bytes(), sha256))
        raise Unwanted("it is no picture")

    target.write_bytes(b"good")
    carried = tmp_path / "usb.bin"
    carried.write_bytes(BODY)
    if how == "fetched":
        with pytest.raises(DownloadError, match="not the file expected: it is no picture"):
            _get(web, target, check=refuse)
    else:
        with pytest.raises(Unwanted, match="it is no picture"):
            drain(iter_copy(carried, target, check=refuse))
    assert looked == [(BODY, SUM)]
    assert target.read_bytes() == b"good"
    assert _left(target) == ["usb.bin", "w.bin"]
    if how == "fetched":
        _get(web, target, check=lambda path, sha256: looked.append((path.read_bytes(), sha256)))
    else:
        drain(iter_copy(carried, target, check=lambda path, sha256: looked.append((path.read_bytes(), sha256))))
    assert looked[-1] == (BODY, SUM)
    assert target.read_bytes() == BODY


def test_a_busy_server_is_waited_for_as_long_as_it_asks(
    web: Web, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    clock = [0.0]

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    web.failures = [(429, {"Retry-After": "59"}), (503, {})]
    assert _get(web, target) == SUM
    assert sum(waited) == pytest.approx(59)
    assert max(waited) <= 1, "the job can be cancelled while it waits"


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_not_asked_for_again(web: Web, target: Path, status: int) -> None:
    web.failures = [(status, {})]
    with pytest.raises(DownloadError, match=f"the server answers {status}") as caught:
        _get(web, target)
    assert caught.value.status == status
    assert len(web.requests) == 1


def test_a_server_that_says_nothing_is_given_up(web: Web, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(download, "TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/w.bin"
        with pytest.raises(DownloadError, match=r"cannot be reached: .*timed out"):
            drain(iter_download(url, target))


def test_the_token_stays_with_its_host(web: Web, target: Path) -> None:
    web.token, web.files["near.bin"] = "secret", BODY
    web.moved["w.bin"] = f"{web.url}/near.bin"
    assert _get(web, target, token="secret") == SUM
    assert web.asked("Authorization") == ["Bearer secret"] * 2, "renamed, on the same host"
    target.unlink()
    with serve(Web({"far.bin": BODY}, etags={"far.bin": '"one"'})) as elsewhere:
        web.moved["w.bin"] = f"{elsewhere.url}/far.bin"
        have = _interrupt(web, target, token="secret")
        assert _get(web, target, token="secret") == SUM
        assert elsewhere.asked("Authorization") == [None, None]
        assert elsewhere.asked("Range") == [None, f"bytes={have}-"], "a download goes on behind a redirect too"


def test_encryption_is_not_given_up_by_a_redirect() -> None:
    import urllib.error
    import urllib.request
    from email.message import Message

    request = urllib.request.Request("https://example.org/w.bin")
    with pytest.raises(urllib.error.URLError, match="not encrypted"):
        download._Redirects().redirect_request(request, None, 302, "", Message(), "http://example.org/w.bin")


def test_the_proxy_of_the_environment_is_used(web: Web, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    with proxy(seen) as address:
        monkeypatch.setenv("http_proxy", address)
        assert _get(web, target) == SUM
        assert seen == [f"{web.url}/w.bin"]
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert _get(web, target) == SUM
    assert len(seen) == 1


def test_the_network_can_be_switched_off(web: Web, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(download.OFFLINE_VARIABLE, "1")
    with pytest.raises(DownloadError) as caught:
        _get(web, target)
    for word in (download.OFFLINE_VARIABLE, f"{web.url}/w.bin", "w.bin", str(target.parent)):
        assert word in str(caught.value)
    assert web.requests == []
    monkeypatch.setenv(download.OFFLINE_VARIABLE, "0")
    assert _get(web, target) == SUM


@pytest.mark.parametrize("url", ["w.bin", "file:///etc/hostname", "ftp://example.org/w.bin"])
def test_only_addresses_of_the_web_are_fetched(url: str, target: Path) -> None:
    with pytest.raises(DownloadError, match="is no address"):
        drain(iter_download(url, target))


def test_a_disk_without_room_is_found_before_and_the_part_kept_when_it_fills(
    web: Web, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have = _interrupt(web, target)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    with pytest.raises(OSError, match="MB are needed") as caught:
        _get(web, target)
    assert caught.value.errno == errno.ENOSPC
    assert part_of(target).stat().st_size == have
    monkeypatch.undo()
    assert _get(web, target) == SUM


def test_what_arrived_before_the_disk_was_full_is_taken_up(
    web: Web, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = part.Part.take

    def fill(self: part.Part, block: bytes, handle: IO[bytes]) -> None:
        if self.have > 100_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(self, block, handle)

    with monkeypatch.context() as full:
        full.setattr(part.Part, "take", fill)
        with pytest.raises(OSError, match="No space left"):
            _get(web, target)
    have = part_of(target).stat().st_size
    assert have > 100_000
    assert _get(web, target) == SUM
    assert web.asked("Range") == [None, f"bytes={have}-"]


def test_a_carried_file_is_copied_with_the_same_checks(tmp_path: Path, target: Path) -> None:
    carried = tmp_path / "usb.bin"
    carried.write_bytes(BODY)
    part_of(target).write_bytes(b"left over")
    assert drain(iter_copy(carried, target, size=len(BODY), sha256=SUM)) == SUM == drain(iter_hash(target))
    assert carried.exists()
    target.write_bytes(b"good")
    with pytest.raises(Unwanted, match="its SHA-256 is"):
        drain(iter_copy(carried, target, sha256="1" * 64))
    assert target.read_bytes() == b"good"
    assert _left(target) == ["usb.bin", "w.bin"]


def test_an_empty_file(web: Web, target: Path) -> None:
    web.files["w.bin"] = b""
    assert _get(web, target) == hashlib.sha256(b"").hexdigest()
    assert target.read_bytes() == b""


def test_reports_are_not_more_than_a_screen_can_show(web: Web, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "REPORT_S", 3600.0)
    assert len(list(iter_download(f"{web.url}/w.bin", target))) == 2, "the first and the last"
