"""The real sample is fetched from a server on this machine, which can also misbehave."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.io import download, sample
from napari_dinobloom.io.sample import SampleFile, fetch_real, iter_fetch_real

CONTENTS = {f"field_{i}.jpg": bytes((i * 37 + j * j) % 251 for j in range(50_000 + i)) for i in range(3)}


@dataclass
class Server:
    """A server of files that can cut an answer short, refuse ranges or fail for a while."""

    files: dict[str, bytes]
    url: str = ""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    ranges: bool = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server(dict(CONTENTS))

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Keep the test's output quiet."""

        def do_GET(self) -> None:
            name = self.path.rsplit("/", 1)[-1]
            asked = self.headers.get("Range")
            state.requests.append((name, asked))
            if state.failures:
                self.send_error(state.failures.pop(0))
                return
            if name not in state.files:
                self.send_error(404)
                return
            body = state.files[name]
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and state.ranges else 0
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            stop = start + state.cut_after.pop(0) if state.cut_after else len(body)
            self.wfile.write(body[start:stop])

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    fields = tuple(SampleFile(n, len(b), hashlib.sha256(b).hexdigest()) for n, b in CONTENTS.items())
    monkeypatch.setattr(sample, "FIELDS", fields)
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{httpd.server_port}/base/"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield state
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def _holds_all(paths: list[Path]) -> bool:
    return {p.name: p.read_bytes() for p in paths} == CONTENTS


def test_all_fields_arrive_whole_with_their_licence(server: Server, tmp_path: Path) -> None:
    steps = list(iter_fetch_real(tmp_path / "sample", base_url=server.url))
    total = sum(map(len, CONTENTS.values()))
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert (done[-1], steps[-1].total) == (total, total)
    assert len(steps) > len(CONTENTS), "progress is reported inside a file too"
    images = tmp_path / "sample" / "images"
    assert _holds_all(sorted(images.iterdir()))
    licence = (tmp_path / "sample" / "LICENSE-BCCD.txt").read_text(encoding="utf-8")
    assert "MIT License" in licence
    assert sample.COMMIT in licence


def test_without_a_folder_the_user_s_own_is_taken(server: Server) -> None:
    assert _holds_all(fetch_real(base_url=server.url))
    assert sorted((sample.real_folder() / "images").glob("*.jpg"))


def test_a_second_call_asks_for_nothing(server: Server, tmp_path: Path) -> None:
    first = fetch_real(tmp_path, base_url=server.url)
    asked = len(server.requests)
    assert fetch_real(tmp_path, base_url=server.url) == first
    assert len(server.requests) == asked


def test_a_lost_connection_is_taken_up_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.cut_after = [20_000]
    assert _holds_all(fetch_real(tmp_path, base_url=server.url))
    assert server.requests[:2] == [("field_0.jpg", None), ("field_0.jpg", "bytes=20000-")]


def test_an_interrupted_call_is_resumed_by_the_next(server: Server, tmp_path: Path) -> None:
    steps = iter_fetch_real(tmp_path, base_url=server.url)
    arrived = next(steps).done
    steps.close()
    assert 0 < arrived < len(CONTENTS["field_0.jpg"])
    assert not (tmp_path / "images" / "field_0.jpg").exists(), "a part never carries the picture's name"
    assert _holds_all(fetch_real(tmp_path, base_url=server.url))
    assert ("field_0.jpg", f"bytes={arrived}-") in server.requests


def test_a_server_without_ranges_is_read_from_the_start(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.cut_after = [20_000]
    assert _holds_all(fetch_real(tmp_path, base_url=server.url))


def test_a_spoilt_part_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / ".field_0.jpg.download").write_bytes(b"x" * 10_000)
    assert _holds_all(fetch_real(tmp_path, base_url=server.url))


def test_a_changed_picture_is_replaced(server: Server, tmp_path: Path) -> None:
    fetch_real(tmp_path, base_url=server.url)
    (tmp_path / "images" / "field_1.jpg").write_bytes(b"edited")
    assert _holds_all(fetch_real(tmp_path, base_url=server.url))


def test_a_passing_failure_of_the_server_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.failures = [503, 429]
    assert _holds_all(fetch_real(tmp_path, base_url=server.url))


@pytest.mark.parametrize("wrong", [b"y" * 50_001, b"y" * 60_000], ids=["same size", "too large"])
def test_a_wrong_file_is_refused(server: Server, tmp_path: Path, wrong: bytes) -> None:
    server.files["field_1.jpg"] = wrong
    with pytest.raises(DinoBloomError, match=r"field_1\.jpg is not the file expected"):
        fetch_real(tmp_path, base_url=server.url)
    assert [p.name for p in (tmp_path / "images").iterdir()] == ["field_0.jpg"]


def test_a_missing_file_names_address_and_way_out(server: Server, tmp_path: Path) -> None:
    del server.files["field_2.jpg"]
    with pytest.raises(DinoBloomError, match=r"field_2\.jpg.*404.*napari-dinobloom sample -o"):
        fetch_real(tmp_path, base_url=server.url)
    assert [name for name, _ in server.requests].count("field_2.jpg") == 1, "a missing file is not asked for again"


def test_without_a_network_the_way_out_is_said(server: Server, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(DinoBloomError, match=r"cannot be reached.*--from FOLDER"):
        fetch_real(tmp_path, base_url=closed)


def test_an_unknown_host_is_not_tried_again(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def no_name(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    with pytest.raises(DinoBloomError, match="name resolution"):
        fetch_real(tmp_path, base_url="http://pictures.invalid")
    assert asked == ["pictures.invalid"]


@pytest.mark.parametrize("below", ["", "images", "BCCD/JPEGImages"])
def test_a_local_copy_needs_no_network(server: Server, tmp_path: Path, below: str) -> None:
    copy = tmp_path / "copy" / below
    copy.mkdir(parents=True)
    for name, body in CONTENTS.items():
        (copy / name).write_bytes(body)
    assert _holds_all(fetch_real(tmp_path / "out", source=tmp_path / "copy", base_url="http://unused.invalid"))
    assert server.requests == []


def test_an_incomplete_or_edited_local_copy_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DinoBloomError, match=r"No field_0\.jpg in"):
        fetch_real(tmp_path / "out", source=tmp_path)
    (tmp_path / "field_0.jpg").write_bytes(b"edited")
    with pytest.raises(DinoBloomError, match=r"not the BCCD picture field_0\.jpg: 6 bytes"):
        fetch_real(tmp_path / "out", source=tmp_path)


def test_a_folder_that_cannot_be_made_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DinoBloomError, match=r"Cannot write the sample to .*file.*-o"):
        fetch_real(tmp_path / "file", base_url=server.url)


@pytest.mark.real_data
def test_the_sums_are_those_of_the_real_pictures(real_data: Path, tmp_path: Path) -> None:
    fetched = fetch_real(tmp_path, source=real_data / "bccd")
    assert len(fetched) == 10
    for path in fetched:
        assert path.read_bytes() == (real_data / "bccd" / "images" / path.name).read_bytes()
