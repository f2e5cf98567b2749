"""Fetch one file over HTTP, whole and checked, and go on where an earlier try broke off.

The server's mark of a file's version is its ETag or else its Last-Modified (RFC 9110, section 8.8). Proxies come from
the environment (``HTTPS_PROXY``, ``NO_PROXY``), certificates from ``SSL_CERT_FILE``.
"""

from __future__ import annotations

import errno
import http.client
import os
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.client import HTTPMessage
from importlib import metadata
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from napari_dinobloom.errors import DownloadError
from napari_dinobloom.io.part import Check, Clock, Part, Unwanted
from napari_dinobloom.progress import Progress, Steps

OFFLINE_VARIABLE = "NAPARI_DINOBLOOM_OFFLINE"
"""Set to anything but "" and "0", it forbids every use of the network."""

ATTEMPTS = 3
"""Tries in a row that bring no byte before a network error is reported."""

PAUSE_S = 1.0
"""Seconds before the second try; the third waits twice as long."""

LONGEST_PAUSE_S = 120.0
"""Seconds that a busy server may ask for at most (Retry-After); Zenodo asks for up to a minute."""

TIMEOUT_S = 30.0
"""Seconds without a byte after which a connection counts as lost."""

BLOCK = 1 << 15
"""Bytes read from a connection in one go."""

CERTIFICATES = (
    "Where a firewall opens encrypted connections, set SSL_CERT_FILE to the file of your institution's certificates."
)


class _Lost(Exception):
    """The connection failed; `hopeless` where another try would fail the same way."""

    def __init__(self, error: Exception) -> None:
        reason = getattr(error, "reason", None) or error
        refused = isinstance(reason, ssl.SSLCertVerificationError)
        super().__init__(f"{reason}. {CERTIFICATES}" if refused else str(reason) or repr(reason))
        self.hopeless = refused or isinstance(reason, socket.gaierror)


def offline() -> bool:
    """Whether the environment forbids the network (`OFFLINE_VARIABLE`)."""
    return os.environ.get(OFFLINE_VARIABLE, "") not in ("", "0")


def iter_download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    token: str | None = None,
    check: Check | None = None,
) -> Steps[str]:
    """Fetch `url` to `target`, going on with what an earlier call left, and check it before it gets its name.

    Parameters
    ----------
    url : str
        An ``http`` or ``https`` address; redirects are followed.
    target : Path
        Where the file is put; its folder exists. A file of this name is replaced.
    size : int, optional
        Bytes that the file has, if known exactly.
    sha256 : str, optional
        64 hexadecimal digits that the file must have.
    token : str, optional
        Sent as a bearer token to the host of `url` and to no other host.
    check : callable, optional
        Looks at the file before it gets its name.

    Yields
    ------
    Progress
        In bytes; the total is 0 as long as nobody knows it.

    Returns
    -------
    str
        SHA-256 of the file that arrived.

    Raises
    ------
    DownloadError
        The network or the server fails, the network is switched off, or another file arrives. Its `status` is the
        answer of the server, where there was one. What has arrived stays, unless its own bytes are wrong.
    OSError
        The disk is full or may not be written.
    """
    _allow(url, target)
    part, tries = Part(target, size, sha256), 0
    yield from part.iter_take_up()
    left = part.have
    while True:
        before, wait = part.have, 0.0
        try:
            yield from _receive(part, url, token)
            if check is not None:
                yield part.looking()
            part.settle(check)
            yield part.progress()
            return part.sha256
        except Unwanted as error:
            joined, failure = part.joined, DownloadError(f"{url} is not the file expected: {error}")
            part.clear()
            if not joined:  # no older part is to blame
                raise failure from None
        except urllib.error.HTTPError as error:
            failure, wait = _refusal(url, error), _wait(error.headers)
            error.close()
            if error.code == 416:  # the part has the length of the file, or more
                part.end(error.headers.get("Content-Range", "").removeprefix("bytes */"))
            elif error.code < 500 and error.code not in (408, 425, 429):
                raise failure from None
        except _Lost as error:
            failure = DownloadError(f"{url} cannot be reached: {error}", unreachable=part.have == left)
            if error.hopeless:
                raise failure from error
        tries = 1 if part.have > before else tries + 1
        if tries >= ATTEMPTS:
            raise failure
        yield from _pause(max(PAUSE_S * tries, wait), part.have, part.total)


def _receive(part: Part, url: str, token: str | None) -> Iterator[Progress]:
    """Append to `part` what it lacks of `url`."""
    if part.complete:
        return
    with _open(url, part, token) as answer:
        total = _total(answer, part) or 0
        _check_answer(url, answer, part.size, total)  # before anything of the part is given up for it
        if part.have and _goes_on(answer, part):
            part.joined = True
        elif part.have:
            part.clear()
            if answer.status == 206:
                raise _Lost(ConnectionError("another version of the file lies there now"))
        part.total = total
        _need_room(part)
        part.begin(_version(answer.headers) or part.version)
        clock = Clock()
        with open(part.path, "ab" if part.have else "wb") as handle:
            while block := _read(answer):
                part.take(block, handle)
                if clock.due():
                    handle.flush()
                    yield part.progress()
    if part.have < part.total:
        raise _Lost(ConnectionError(f"the connection ended after {part.have} of {part.total} bytes"))


def _open(url: str, part: Part, token: str | None) -> http.client.HTTPResponse:
    """Ask for `url` from the first byte that `part` lacks."""
    headers = {"User-Agent": f"napari-dinobloom/{_own_version()}", "Accept-Encoding": "identity"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if part.have:
        headers["Range"] = f"bytes={part.have}-"
        if part.version:
            headers["If-Range"] = part.version.partition(": ")[2]
    opener = urllib.request.build_opener(_Redirects())
    with _network():
        answer: http.client.HTTPResponse = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    return answer


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects; the token stays with the host it was meant for, and encryption is never given up."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if old.scheme == "https" and new.scheme != "https":
            raise urllib.error.URLError(f"it is redirected to {new.scheme}://{new.hostname}, which is not encrypted")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and (old.scheme, old.netloc) != (new.scheme, new.netloc):
            request.remove_header("Authorization")
        return request


@contextmanager
def _network() -> Iterator[None]:
    """Tell errors of the network from those of the disk."""
    try:
        yield
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise _Lost(error) from error


def _read(answer: http.client.HTTPResponse) -> bytes:
    with _network():
        return answer.read1(BLOCK)


def _check_answer(url: str, answer: http.client.HTTPResponse, size: int | None, total: int) -> None:
    """Raise DownloadError where an answer says itself that it is not the file."""
    if answer.headers.get_content_type() == "text/html":
        raise DownloadError(
            f"{url}: a web page came in place of the file, perhaps the login page of a network or a proxy"
        )
    if size is not None and total not in (0, size):
        raise DownloadError(f"{url} is not the file expected: {total} bytes instead of {size}")


def _goes_on(answer: http.client.HTTPResponse, part: Part) -> bool:
    """Whether the answer brings the bytes behind those of `part`, of the same version."""
    if answer.status != 206 or not answer.headers.get("Content-Range", "").startswith(f"bytes {part.have}-"):
        return False
    field, _, mark = part.version.partition(": ")
    return not field or answer.headers.get(field, mark) == mark


def _version(headers: Message) -> str:
    """The server's mark of the version, as ``field: value``; a weak ETag says nothing about single bytes."""
    tag, date = headers.get("ETag", ""), headers.get("Last-Modified", "")
    if tag and not tag.startswith("W/"):
        return f"ETag: {tag}"
    return f"Last-Modified: {date}" if date else ""


def _total(answer: http.client.HTTPResponse, part: Part) -> int | None:
    """Bytes of the whole file, where the server says so."""
    ranged = answer.headers.get("Content-Range", "").rpartition("/")[2]
    if answer.status == 206:
        return int(ranged) if ranged.isdigit() else None
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else part.size


def _need_room(part: Part) -> None:
    """Raise OSError (ENOSPC) where the rest of the file does not fit on the disk."""
    free = shutil.disk_usage(part.path.parent).free
    if part.total - part.have > free:
        need = (part.total - part.have) / 1e6
        raise OSError(errno.ENOSPC, f"{need:,.0f} MB are needed, {free / 1e6:,.0f} MB are free", str(part.path))


def _allow(url: str, target: Path) -> None:
    """Raise DownloadError where the network is forbidden or `url` is no address of it."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"{url!r} is no address: it must begin with https:// or http://")
    if offline():
        raise DownloadError(
            f"The network is switched off here ({OFFLINE_VARIABLE}). Fetch {url} on another machine and put it as "
            f"{target.name} into {target.parent}"
        )


def _refusal(url: str, error: urllib.error.HTTPError) -> DownloadError:
    return DownloadError(f"{url}: the server answers {error.code} {error.reason}", status=error.code)


def _wait(headers: Message) -> float:
    """Seconds that a busy server asks for."""
    asked = headers.get("Retry-After", "")
    return min(float(asked), LONGEST_PAUSE_S) if asked.isdigit() else 0.0


def _pause(seconds: float, done: int, total: int) -> Iterator[Progress]:
    """Wait, in steps in which the job can be cancelled."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        yield Progress(done, total, f"trying again in {left:.0f} s")
        time.sleep(min(left, 1.0))


def _own_version() -> str:
    try:
        return metadata.version("napari-dinobloom")
    except metadata.PackageNotFoundError:
        return "0"
