"""A server of files on this machine that can also misbehave, and a proxy; for the tests of what fetches."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROXIES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")


@dataclass
class Web:
    """What the server has, does wrong, and was asked.

    Attributes
    ----------
    files, etags, dates, moved : dict
        By name: bytes, ETag, Last-Modified, and addresses that a name is redirected to.
    requests : list of (name, headers)
        All that was asked for.
    cut_after : list of int
        Bytes after which the next answers break off.
    failures : list of (status, headers)
        What the next answers are instead.
    ranges, obeys_if_range, tells_length : bool
        Which parts of HTTP it knows.
    token : str
        What "Authorization: Bearer" has to say; empty for nothing.
    content_type : str
        Sent with every file.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    dates: dict[str, str] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    url: str = ""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)
    failures: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    ranges: bool = True
    obeys_if_range: bool = True
    tells_length: bool = True
    token: str = ""
    content_type: str = "application/octet-stream"

    def asked(self, header: str) -> list[str | None]:
        """What each request said in a header."""
        return [headers.get(header) for _, headers in self.requests]


def _handler(web: Web) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Keep the test's output quiet."""

        def do_GET(self) -> None:
            name = self.path.partition("?")[0].rsplit("/", 1)[-1]
            web.requests.append((name, dict(self.headers)))
            if web.failures:
                self._say(*web.failures.pop(0))
            elif name in web.moved:
                self._say(302, {"Location": web.moved[name]})
            elif web.token and self.headers.get("Authorization") != f"Bearer {web.token}":
                self._say(401, {})
            elif name not in web.files:
                self._say(404, {})
            else:
                self._send(name)

        def _say(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for field_, value in headers.items():
                self.send_header(field_, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, name: str) -> None:
            body, start = web.files[name], self._start(name)
            if start >= len(body) > 0 and start:
                self._say(416, {"Content-Range": f"bytes */{len(body)}"})
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            for title, table in (("ETag", web.etags), ("Last-Modified", web.dates)):
                if name in table:
                    self.send_header(title, table[name])
            if web.tells_length:
                self.send_header("Content-Length", str(len(body) - start))
            self.send_header("Content-Type", web.content_type)
            self.end_headers()
            stop = start + web.cut_after.pop(0) if web.cut_after else len(body)
            self.wfile.write(body[start:stop])

        def _start(self, name: str) -> int:
            asked, mark = self.headers.get("Range"), self.headers.get("If-Range")
            if asked is None or not web.ranges:
                return 0
            if web.obeys_if_range and mark is not None and mark not in (web.etags.get(name), web.dates.get(name)):
                return 0
            return int(asked.removeprefix("bytes=").removesuffix("-"))

    return Handler


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@contextmanager
def serve(web: Web) -> Iterator[Web]:
    """Run a server for a test."""
    with _serving(_handler(web)) as url:
        web.url = url
        yield web


@contextmanager
def proxy(seen: list[str]) -> Iterator[str]:
    """Run a proxy for plain HTTP, which takes down what it passes on; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Keep the test's output quiet."""

        def do_GET(self) -> None:
            seen.append(self.path)
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with direct.open(self.path, timeout=5) as answer:
                body = answer.read()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with _serving(Handler) as url:
        yield url
