"""Pictures in an atlas: round trip, and bytes that are none."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from references import make
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from napari_dinobloom.errors import AtlasError
from napari_dinobloom.predict.atlas import Atlas
from napari_dinobloom.predict.thumbnails import LARGEST, Thumbnails, encoded, joined


def crops(n: int) -> np.ndarray:
    flat = np.random.default_rng(0).integers(0, 255, (n, 1, 1, 3), dtype=np.uint8)
    return np.broadcast_to(flat, (n, 224, 224, 3))


def test_pictures_are_small_and_come_back(tmp_path: Path) -> None:
    pictures = crops(240)
    atlas = make(thumbnails=Thumbnails.pack([*encoded(pictures[:239]), b""]))
    again = Atlas.load(atlas.save(tmp_path / "a.safetensors"))
    assert again.hash == atlas.hash
    for row in (0, 7, 238, -2):
        shown = again.thumbnail(row)
        assert shown is not None
        assert shown.shape == (96, 96, 3)
        assert np.abs(shown.astype(int) - pictures[row, 0, 0]).max() <= 4
    assert again.thumbnail(239) is again.thumbnail(-1) is None
    with pytest.raises(IndexError):
        again.thumbnail(240)
    assert make().thumbnail(3) is None
    left = again.without("monocyte")
    assert np.array_equal(left.thumbnail(5), again.thumbnail(int(left.rows(np.array([5]))[0])))


def test_parts_are_joined_in_order() -> None:
    one = Thumbnails.pack([b"ab", b"", b"c"])
    whole = joined([(3, one), (2, None), (1, Thumbnails.pack([b"x"]))])
    assert whole is not None
    assert whole.files() == [b"ab", b"", b"c", b"", b"", b"x"]
    assert whole.take(np.array([5, 0])).files() == [b"x", b"ab"]
    assert joined([(3, None)]) is None
    assert Thumbnails.pack([]).files() == []


def png(size: tuple[int, int], mode: str) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"nonsense", b"\x89PNG\r\n\x1a\n", png((95, 96), "RGB"), png((96, 96), "L"), png((20000, 20000), "1"),
     png((96, 96), "RGB")[:60], encoded(crops(1))[0][:300].replace(b"\xff\xdb", b"\xff\xff")],
)  # fmt: skip
def test_bytes_that_are_no_picture_are_refused(content: bytes) -> None:
    with pytest.raises(AtlasError, match="thumbnail of cell 1"):
        Thumbnails.pack([b"", content]).picture(1)


@pytest.mark.parametrize(
    ("ends", "size", "message"),
    [([3, 2, 5], 5, "do not fit"), ([1, 2], 5, "do not fit"), ([-1, 5], 5, "do not fit"),
     ([LARGEST + 1], LARGEST + 1, "larger")],
)  # fmt: skip
def test_ends_that_do_not_fit_are_refused(ends: list[int], size: int, message: str) -> None:
    with pytest.raises(AtlasError, match=message):
        Thumbnails(np.zeros(size, np.uint8), np.array(ends, np.int64))


def test_a_file_with_pictures_for_other_cells_is_refused(tmp_path: Path) -> None:
    path = make(thumbnails=Thumbnails.pack([b"x"] * 240)).save(tmp_path / "a.safetensors")
    with safe_open(path, framework="numpy") as handle:
        about = json.loads(handle.metadata()["napari-dinobloom"])
    tensors = load_file(path)
    tensors["thumbnails"], tensors["thumbnail_ends"] = tensors["thumbnails"][:-1], tensors["thumbnail_ends"][:-1]
    save_file(tensors, path, metadata={"napari-dinobloom": json.dumps(about)})
    with pytest.raises(AtlasError, match="thumbnails"):
        Atlas.load(path)
    for parts in (["thumbnails", "virus"], [["thumbnails"]]):
        save_file(tensors, path, metadata={"napari-dinobloom": json.dumps(about | {"parts": parts})})
        with pytest.raises(AtlasError, match="parts"):
            Atlas.load(path)
