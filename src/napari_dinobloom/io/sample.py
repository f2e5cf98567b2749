"""The real sample: ten smear fields of the BCCD set, fetched once, checked and kept with their licence.

The fields lie in the public repository https://github.com/Shenggan/BCCD_Dataset (MIT licence) and are taken at one
pinned commit; sizes and SHA-256 sums stand below, so that a changed or torn file is never taken for the real one. An
interrupted download goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.io.atomic import write_text
from napari_dinobloom.io.locations import home
from napari_dinobloom.progress import Progress, Steps, drain

COMMIT = "d272fb14cdff6e473fafeeeba32aba5f560e9e43"
"""Commit of Shenggan/BCCD_Dataset that the sums below belong to."""

BASE_URL = f"https://raw.githubusercontent.com/Shenggan/BCCD_Dataset/{COMMIT}/BCCD/JPEGImages"

ATTEMPTS = 3
"""Tries a file gets before a network error is reported."""

PAUSE_S = 1.0
"""Seconds before the second try; the third waits twice as long."""

TIMEOUT_S = 30.0
"""Seconds without a byte after which a connection counts as lost."""

BLOCK = 1 << 14
"""Bytes read between two reports of progress."""


@dataclass(frozen=True, slots=True)
class SampleFile:
    """One picture of the sample: its name, its size in bytes and its SHA-256 as 64 hex digits."""

    name: str
    size: int
    sha256: str


FIELDS: tuple[SampleFile, ...] = (
    SampleFile("BloodImage_00000.jpg", 23302, "e1dcc488889acba247a895df7be839e514850030217b4025048619f664fd4cb3"),
    SampleFile("BloodImage_00008.jpg", 22822, "41c10341e68981da9a596348f50a359fb5d1af5909dfddd5b922d0b061bbe7fa"),
    SampleFile("BloodImage_00009.jpg", 23474, "734527f21c96fd1a78e5a4bf6b0505c01e0c2e0eecd3a7f663369d3ad868257b"),
    SampleFile("BloodImage_00010.jpg", 23711, "814dad6947309a9ada5383ab622c6f548302c91be9db436d1f2a6030088cedca"),
    SampleFile("BloodImage_00015.jpg", 20988, "f04ce854d8dfa6d5fe765a6d2acdcf831dc0cb8b012bb65845d81bfc748dd961"),
    SampleFile("BloodImage_00020.jpg", 20662, "9a451f4c73509cb3f4412cb57a2065a6b85f2759b84be5d662a419c316f59504"),
    SampleFile("BloodImage_00034.jpg", 20097, "ea24f192384e453df82bbfc0178366b598bf495482ec131855c16f1debe0a974"),
    SampleFile("BloodImage_00037.jpg", 21627, "07d03c016d409f76d1a230ef4c28e25fb35d51e203aa245f30eec20d4f9ee9f5"),
    SampleFile("BloodImage_00040.jpg", 19328, "4aca6afce265c06dead7de07e3ca636629b15e4012343f6423495546f0170b37"),
    SampleFile("BloodImage_00043.jpg", 20886, "9923062f901872e92ffc2d1444a9af467878cfe776216576f15d9c982b69a0f2"),
)
"""Fields with neutrophils, eosinophils, basophils, lymphocytes and monocytes, some with two cells."""

LICENCE = f"""\
The pictures in the folder images are taken unchanged from the BCCD Dataset,
https://github.com/Shenggan/BCCD_Dataset, commit {COMMIT},
which thanks cosmicad and akshaylamba for the original data. Its licence:

MIT License

Copyright (c) 2017 shenggan

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""

GO_ON = (
    "Without a network: `napari-dinobloom sample -o FOLDER` draws a sample on this machine, or give a copy of the BCCD "
    "pictures with `napari-dinobloom sample --real --from FOLDER`."
)


class _Unwanted(Exception):
    """What arrived is not the file that was asked for; a fresh start may help."""


def real_folder() -> Path:
    """Where the sample lies if no other folder is named: in the user's own data folder of this package."""
    return home() / "samples" / "bccd"


def fetch_real(
    folder: str | Path | None = None, *, source: str | Path | None = None, base_url: str = BASE_URL
) -> list[Path]:
    """Put the ten real fields into ``folder/images`` and their licence beside it.

    Files that are there already with the right sum are kept; a part of a file is completed.

    Parameters
    ----------
    folder : str or Path, optional
        Where to put the sample, made if it does not exist; by default `real_folder`.
    source : str or Path, optional
        A folder on this machine that holds the pictures (the pictures themselves, or a clone of the repository);
        nothing is downloaded then.
    base_url : str
        Address below which the pictures lie, for a mirror.

    Returns
    -------
    list of Path
        The ten pictures, 640 x 480 JPEG, in the order of `FIELDS`.

    Raises
    ------
    DinoBloomError
        The network or the server fails, a sum is wrong, `source` lacks a picture, or `folder` cannot be written.
        Pictures that arrived before stay; calling again goes on from there.
    """
    return drain(iter_fetch_real(folder, source=source, base_url=base_url))


def iter_fetch_real(
    folder: str | Path | None = None, *, source: str | Path | None = None, base_url: str = BASE_URL
) -> Steps[list[Path]]:
    """Twin of `fetch_real` that reports progress in bytes of all ten pictures."""
    place = real_folder() if folder is None else Path(folder)
    images = place / "images"
    total = sum(field.size for field in FIELDS)
    done = 0
    with _local_errors(images):
        images.mkdir(parents=True, exist_ok=True)
        write_text(place / "LICENSE-BCCD.txt", LICENCE)
    for field in FIELDS:
        target = images / field.name
        if not _is(target, field):
            # The part keeps its name, so that the next call can go on with it.
            part = target.with_name(f".{field.name}.download")
            for size in _bring(field, part, source, base_url):
                yield Progress(done + size, total, field.name)
            with _local_errors(images):
                os.replace(part, target)
        done += field.size
        yield Progress(done, total, field.name)
    return [images / field.name for field in FIELDS]


def _bring(field: SampleFile, part: Path, source: str | Path | None, base_url: str) -> Iterator[int]:
    """Fill `part` with the checked bytes of `field`; yields how many bytes are there."""
    if source is None:
        yield from _download(field, part, f"{base_url.rstrip('/')}/{field.name}")
        return
    found = _find(field, Path(source))
    with _local_errors(part.parent):
        shutil.copyfile(found, part)
    try:
        _check(part, field)
    except _Unwanted as error:
        part.unlink(missing_ok=True)
        raise DinoBloomError(f"{found} is not the BCCD picture {field.name}: {error}. Use an unchanged copy.") from None
    yield field.size


def _find(field: SampleFile, source: Path) -> Path:
    """Picture of `field` in a folder of pictures or in a clone of the repository."""
    places = [source / below / field.name for below in (".", "images", "JPEGImages", "BCCD/JPEGImages")]
    for place in places:
        if place.is_file():
            return place
    raise DinoBloomError(f"No {field.name} in {source}. Give a folder that holds the BCCD pictures, or a clone of it.")


def _download(field: SampleFile, part: Path, url: str) -> Iterator[int]:
    """Download `url` into `part` with resume; after a failed try, wait and go on from what has arrived."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            yield from _receive(field, part, url)
            _check(part, field)
            return
        except _Unwanted as error:
            part.unlink(missing_ok=True)
            failure = f"{url} is not the file expected: {error}"
        except urllib.error.HTTPError as error:
            failure = f"{url}: the server answers {error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 429):
                break
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            failure = f"{url} cannot be reached: {getattr(error, 'reason', None) or error!r}"
            if isinstance(getattr(error, "reason", None), socket.gaierror):
                break
        if attempt < ATTEMPTS:
            time.sleep(PAUSE_S * attempt)
    raise DinoBloomError(f"{failure}. {GO_ON}")


def _receive(field: SampleFile, part: Path, url: str) -> Iterator[int]:
    """Append to `part` what it lacks of `url`; yields its size after each block."""
    have = part.stat().st_size if part.exists() else 0
    if have >= field.size:
        return
    headers = {"User-Agent": "napari-dinobloom", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        starts_at = f"bytes {have}-"
        goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(starts_at)
        have = have if goes_on else 0
        while block := answer.read(BLOCK):
            have += len(block)
            if have > field.size:
                raise _Unwanted(f"it is larger than {field.size} bytes")
            with _local_errors(part.parent), open(part, "ab" if have > len(block) else "wb") as handle:
                handle.write(block)
            yield have
    if have < field.size:
        raise ConnectionError(f"the connection ended after {have} of {field.size} bytes")


def _check(path: Path, field: SampleFile) -> None:
    """Raise `_Unwanted` unless `path` has the size and sum of `field`."""
    size = path.stat().st_size
    if size != field.size:
        raise _Unwanted(f"{size} bytes instead of {field.size}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != field.sha256:
        raise _Unwanted(f"its SHA-256 is {found[:16]}..., not {field.sha256[:16]}...")


def _is(path: Path, field: SampleFile) -> bool:
    """Whether `path` is already the picture of `field`."""
    try:
        _check(path, field)
    except (OSError, _Unwanted):
        return False
    return True


@contextmanager
def _local_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk or a read-only folder into a message that names it."""
    try:
        yield
    except OSError as error:
        raise DinoBloomError(
            f"Cannot write the sample to {folder}: {error.strerror or error}. Choose another folder with `-o`."
        ) from error
