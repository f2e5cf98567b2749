"""The real sample: ten smear fields of the BCCD set, fetched once, checked and kept with their licence.

The fields lie in the public repository https://github.com/Shenggan/BCCD_Dataset (MIT licence) and are taken at one
pinned commit; sizes and SHA-256 sums stand below, so that a changed or torn file is never taken for the real one. An
interrupted download goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from napari_dinobloom.errors import DinoBloomError, DownloadError
from napari_dinobloom.io.atomic import write_text
from napari_dinobloom.io.download import iter_download
from napari_dinobloom.io.locations import home
from napari_dinobloom.io.part import Unwanted, iter_copy, iter_hash
from napari_dinobloom.progress import Progress, Steps, drain

COMMIT = "d272fb14cdff6e473fafeeeba32aba5f560e9e43"
"""Commit of Shenggan/BCCD_Dataset that the sums below belong to."""

BASE_URL = f"https://raw.githubusercontent.com/Shenggan/BCCD_Dataset/{COMMIT}/BCCD/JPEGImages"


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
        with _local_errors(images):
            if not _is(target, field):
                for report in _bring(field, target, source, base_url):
                    yield Progress(done + report.done, total, field.name)
        done += field.size
        yield Progress(done, total, field.name)
    return [images / field.name for field in FIELDS]


def _bring(field: SampleFile, target: Path, source: str | Path | None, base_url: str) -> Steps[str]:
    """Put the checked bytes of `field` to `target`."""
    if source is None:
        url = f"{base_url.rstrip('/')}/{field.name}"
        try:
            return (yield from iter_download(url, target, size=field.size, sha256=field.sha256))
        except DownloadError as error:
            raise DownloadError(f"{error}. {GO_ON}", error.status) from error
    found = _find(field, Path(source))
    try:
        return (yield from iter_copy(found, target, size=field.size, sha256=field.sha256))
    except Unwanted as error:
        raise DinoBloomError(f"{found} is not the BCCD picture {field.name}: {error}. Use an unchanged copy.") from None


def _find(field: SampleFile, source: Path) -> Path:
    """Picture of `field` in a folder of pictures or in a clone of the repository."""
    places = [source / below / field.name for below in (".", "images", "JPEGImages", "BCCD/JPEGImages")]
    for place in places:
        if place.is_file():
            return place
    raise DinoBloomError(f"No {field.name} in {source}. Give a folder that holds the BCCD pictures, or a clone of it.")


def _is(path: Path, field: SampleFile) -> bool:
    """Whether `path` is already the picture of `field`."""
    return path.is_file() and path.stat().st_size == field.size and drain(iter_hash(path)) == field.sha256


@contextmanager
def _local_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk or a read-only folder into a message that names it."""
    try:
        yield
    except OSError as error:
        raise DinoBloomError(
            f"Cannot write the sample to {folder}: {error.strerror or error}. Choose another folder with `-o`."
        ) from error
