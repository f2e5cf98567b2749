"""The reader against the arrays that its files were made of, and everything that is no stained smear."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from napari_dinobloom.errors import ImageError
from napari_dinobloom.io import lazy
from napari_dinobloom.io.pixels import cmyk_to_rgb, on_white, to_uint8
from napari_dinobloom.io.smear import check_smear, read_smear, write_picture

from .pictures import save, save_tiff, stained

RGB = stained()


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "tiff"])
def test_lossless_formats_give_the_very_pixels(tmp_path: Path, ending: str) -> None:
    smear = read_smear(save(tmp_path / f"a.{ending}", RGB))
    assert smear.image.shape == RGB.shape
    assert smear.image.dtype == np.uint8
    assert (smear.name, smear.pixel_size_um) == ("a", None)
    np.testing.assert_array_equal(smear.load(), RGB)


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_equals_pillow(tmp_path: Path, progressive: bool) -> None:
    path = save(tmp_path / "a.jpg", RGB, quality=90, progressive=progressive)
    np.testing.assert_array_equal(read_smear(path).load(), np.asarray(Image.open(path)))


def test_only_the_header_is_read_before_the_pixels_are_asked_for(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RGB)
    path.write_bytes(path.read_bytes()[:-200])
    smear = read_smear(path)
    assert smear.image.shape == RGB.shape
    with pytest.raises(ImageError, match=r"a\.png.*damaged.*Copy"):
        smear.image.compute()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"planarconfig": "separate"},
        {"tile": (16, 16)},
        {"tile": (32, 16), "compression": "zlib", "predictor": 2},
        {"rowsperstrip": 7, "compression": "zlib"},
        {"planarconfig": "separate", "tile": (16, 16), "compression": "zlib"},
        {"byteorder": ">", "bigtiff": True},
    ],
)
@pytest.mark.parametrize("chunk", [16, 2048])
def test_tiff_layouts_give_the_very_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], chunk: int
) -> None:
    monkeypatch.setattr(lazy, "CHUNK", chunk)
    pixels = np.moveaxis(RGB, -1, 0) if options.get("planarconfig") == "separate" else RGB
    smear = read_smear(save_tiff(tmp_path / "a.tif", pixels, **options))
    np.testing.assert_array_equal(smear.load(), RGB)
    np.testing.assert_array_equal(np.asarray(smear.image[5:31, 40:]), RGB[5:31, 40:])


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", "tiff_adobe_deflate"])
def test_tiff_compressions_that_only_pillow_knows(tmp_path: Path, compression: str) -> None:
    path = save(tmp_path / "a.tif", RGB, compression=compression)
    np.testing.assert_array_equal(read_smear(path).load(), np.asarray(Image.open(path)))


def test_a_pyramid_gives_its_full_resolution(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(RGB, photometric="rgb", subifds=2, tile=(16, 16), metadata={"axes": "YXS"})
        for step in (2, 4):
            file.write(RGB[::step, ::step], photometric="rgb", subfiletype=1, tile=(16, 16))
    smear = read_smear(path)
    assert smear.name == "a"
    np.testing.assert_array_equal(smear.load(), RGB)


def test_ome_planes_and_physical_size(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "CYX", "PhysicalSizeX": 120.0, "PhysicalSizeXUnit": "nm",
                "PhysicalSizeY": 120.0, "PhysicalSizeYUnit": "nm"}  # fmt: skip
    tifffile.imwrite(path, np.moveaxis(RGB, -1, 0), photometric="minisblack", metadata=metadata)
    smear = read_smear(path)
    assert smear.pixel_size_um == pytest.approx(0.12)
    np.testing.assert_array_equal(smear.load(), RGB)


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((40_000.0, 40_000.0), "CENTIMETER", 0.25),
        ((101_600.0, 101_600.0), "INCH", 0.25),
        ((40_000.0, 30_000.0), "CENTIMETER", None),
        ((72.0, 72.0), "INCH", None),
        ((1.0, 1.0), "NONE", None),
    ],
)
def test_resolution_tags_are_believed_only_for_a_microscope(
    tmp_path: Path, resolution: tuple[float, float], unit: str, expected: float | None
) -> None:
    path = save_tiff(tmp_path / "a.tif", RGB, resolution=resolution, resolutionunit=unit)
    found = read_smear(path).pixel_size_um
    assert found == (pytest.approx(expected, rel=1e-4) if expected else None)


def test_rgba_palette_and_cmyk_as_pillow_composes_them(tmp_path: Path) -> None:
    alpha = np.linspace(0, 255, RGB.shape[0] * RGB.shape[1]).reshape(RGB.shape[:2]).astype(np.uint8)
    rgba = np.dstack([RGB, alpha])
    path = tmp_path / "rgba.png"
    Image.fromarray(rgba).save(path)
    expected = RGB * (alpha[..., None] / 255) + 255 * (1 - alpha[..., None] / 255)
    assert np.abs(read_smear(path).load() - expected).max() <= 1
    tiffed = save_tiff(tmp_path / "rgba.tif", rgba, extrasamples=["unassalpha"])
    assert np.abs(read_smear(tiffed).load() - expected).max() <= 0.51

    palette = Image.fromarray(RGB).quantize(32)
    palette.save(tmp_path / "p.png")
    palette.save(tmp_path / "p.tif")
    for name in ("p.png", "p.tif"):
        np.testing.assert_array_equal(read_smear(tmp_path / name).load(), np.asarray(palette.convert("RGB")))

    cmyk = Image.fromarray(RGB).convert("CMYK")
    cmyk.save(tmp_path / "c.jpg", quality=100)
    cmyk.save(tmp_path / "c.tif")
    np.testing.assert_array_equal(read_smear(tmp_path / "c.tif").load(), RGB)
    assert np.abs(read_smear(tmp_path / "c.jpg").load().astype(int) - RGB).mean() < 3


def test_sixteen_bits_keep_the_high_byte_whatever_the_brightest_pixel(tmp_path: Path) -> None:
    wide = RGB.astype(np.uint16) * 257
    np.testing.assert_array_equal(read_smear(save_tiff(tmp_path / "a.tif", wide)).load(), RGB)
    dim = wide // 2
    np.testing.assert_array_equal(read_smear(save_tiff(tmp_path / "b.tif", dim)).load(), RGB // 2)


def test_twelve_bits_are_taken_as_such_only_where_the_file_says_so(tmp_path: Path) -> None:
    twelve = RGB.astype(np.uint16) << 4
    said = save_tiff(tmp_path / "said.tif", twelve, extratags=[(281, "H", 3, (4095, 4095, 4095), True)])
    np.testing.assert_array_equal(read_smear(said).load(), RGB)
    silent = save_tiff(tmp_path / "silent.tif", twelve)
    with pytest.raises(ImageError, match=r"silent\.tif.*black.*12.*8-bit RGB"):
        read_smear(silent).load()


def test_sixteen_bit_png_keeps_the_high_byte(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in RGB.astype(np.uint16) * 257)

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", RGB.shape[1], RGB.shape[0], 16, 2, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
    )
    np.testing.assert_array_equal(read_smear(path).load(), RGB)


def test_floating_point_lies_in_zero_to_one(tmp_path: Path) -> None:
    path = save_tiff(tmp_path / "a.tif", (RGB / 255).astype(np.float32))
    np.testing.assert_array_equal(read_smear(path).load(), RGB)
    np.testing.assert_array_equal(
        read_smear(save_tiff(tmp_path / "n.tif", (RGB / 255).astype(np.float32), photometric=None)).load(), RGB
    )
    for name, values in (("big", RGB.astype(np.float32)), ("nan", np.where(RGB > 200, np.nan, 0.5))):
        path = save_tiff(tmp_path / f"{name}.tif", values.astype(np.float32))
        with pytest.raises(ImageError, match=rf"{name}\.tif.*floating point.*8-bit RGB"):
            read_smear(path).load()


def _grey(folder: Path) -> list[Path]:
    grey = RGB[..., 0]
    paths = [save(folder / f"{mode}.png", RGB, mode) for mode in ("L", "LA", "1")]
    paths += [save(folder / "L.jpg", RGB, "L"), save(folder / "L.bmp", RGB, "L")]
    paths += [save_tiff(folder / "g8.tif", grey, photometric="minisblack")]
    paths += [save_tiff(folder / "g16.tif", grey.astype(np.uint16), photometric="minisblack")]
    paths += [
        save_tiff(folder / "two.ome.tif", np.stack([grey, grey]), photometric="minisblack", metadata={"axes": "CYX"})
    ]
    Image.fromarray(grey.astype(np.uint16)).save(folder / "g16.png")
    return [*paths, folder / "g16.png"]


def test_greyscale_is_refused_with_the_reason(tmp_path: Path) -> None:
    for path in _grey(tmp_path):
        with pytest.raises(ImageError, match="colour of the stain") as caught:
            read_smear(path)
        assert path.name in str(caught.value)


def test_grey_disguised_as_rgb_is_refused_and_an_empty_field_is_not(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.repeat(RGB[..., :1], 3, axis=-1))
    with pytest.raises(ImageError, match="has no colour"):
        check_smear(path)
    check_smear(save(tmp_path / "white.png", np.full_like(RGB, 244)))


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("empty.png", b"", r"empty\.png: is empty \(0 bytes\)"),
        ("text.jpg", b"not a picture at all", r"text\.jpg: is not a PNG, JPEG, TIFF or BMP"),
        ("table.csv", b"a,b\n1,2\n", r"table\.csv: is not a PNG"),
        ("head.png", b"\x89PNG\r\n\x1a\n", r"head\.png: is damaged"),
        ("head.jpg", b"\xff\xd8\xff\xe0", r"head\.jpg: is damaged"),
        ("head.tif", b"II*\x00", r"head\.tif: is damaged"),
        ("head2.tif", b"II*\x00\x08\x00\x00\x00\x01\x00", r"head2\.tif: is damaged"),
        ("head.bmp", b"BM123456", r"head\.bmp: is damaged"),
        ("short", b"B", "is not a PNG"),
        ("gif.gif", b"GIF89a\x01\x00\x01\x00\x00\x00\x00", "is not a PNG"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path: Path, name: str, content: bytes, match: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ImageError, match=match):
        read_smear(path)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="there is no such file"):
        read_smear(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder"):
        read_smear(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a matter of Unix")
def test_a_pipe_does_not_hang_the_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="not a regular file"):
        read_smear(tmp_path / "pipe.png")


@pytest.mark.parametrize("options", [{"format": "PNG"}, {"format": "JPEG"}, {"format": "JPEG", "progressive": True},
                                     {"format": "BMP"}, {"format": "TIFF"},
                                     {"format": "TIFF", "compression": "tiff_lzw"}])  # fmt: skip
def test_a_file_cut_anywhere_is_an_error_or_whole_but_never_half(tmp_path: Path, options: dict[str, object]) -> None:
    whole = save(tmp_path / "whole", stained(96, 96), **options)
    data, expected = whole.read_bytes(), read_smear(whole).load()
    path = tmp_path / "cut"
    for length in np.linspace(1, len(data) - 1, 23).astype(int):
        path.write_bytes(data[:length])
        try:
            found = read_smear(path).load()
        except ImageError:
            continue
        np.testing.assert_array_equal(found, expected)  # only what follows the pixels was cut off
        assert length > len(data) - 400


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_cut_jpeg_with_an_end_mark_is_no_half_grey_picture(tmp_path: Path, part: float) -> None:
    path = save(tmp_path / "a.jpg", stained(200, 200))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)] + b"\xff\xd9")
    with pytest.raises(ImageError, match=r"a\.jpg: is damaged.*lower part is missing"):
        read_smear(path).load()


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16), "compression": "zlib"}])
def test_a_cut_tiff_is_found_out_by_its_header(tmp_path: Path, options: dict[str, object]) -> None:
    path = save_tiff(tmp_path / "a.tif", RGB, **options)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ImageError, match=r"a\.tif.*not copied to its end"):
        read_smear(path)


def test_damaged_tiles_are_an_image_error(tmp_path: Path) -> None:
    path = save_tiff(tmp_path / "a.tif", RGB, tile=(16, 16), compression="zlib")
    data = bytearray(path.read_bytes())
    data[-400:] = os.urandom(400)
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"a\.tif: is damaged"):
        read_smear(path).load()


def test_truncated_pictures_stay_errors_when_another_library_wants_them_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path = save(tmp_path / "a.jpg", stained(200, 200))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ImageError, match="not copied to its end"):
        read_smear(path).load()


def _bomb_png(path: Path, side: int) -> Path:
    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1_000_000, 9)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", data) + part(b"IEND", b""))
    return path


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"bomb\.png: claims 60000 x 60000 pixels, more than the limit"):
        read_smear(_bomb_png(tmp_path / "bomb.png", 60_000))
    assert read_smear(_bomb_png(tmp_path / "b.png", 60_000), max_pixels=10**10).image.shape == (60_000, 60_000, 3)
    with pytest.raises(ImageError, match="more than the limit of 1,000"):
        read_smear(save(tmp_path / "a.png", RGB), max_pixels=1000)


def test_pictures_between_pillows_limit_and_ours_are_read_without_a_warning(tmp_path: Path) -> None:
    assert read_smear(_bomb_png(tmp_path / "a.png", 15_000)).image.shape == (15_000, 15_000, 3)


def test_too_small_to_show_a_cell(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is 3 x 2 pixels"):
        read_smear(save(tmp_path / "a.png", RGB[:2, :3]))


def test_a_stack_is_no_smear(tmp_path: Path) -> None:
    path = save_tiff(tmp_path / "a.tif", np.stack([RGB, RGB]))
    with pytest.raises(ImageError, match=r"several pictures.*Save each"):
        read_smear(path)


def test_a_file_that_changes_after_opening_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RGB)
    smear = read_smear(path)
    save(path, stained(20, 30))
    with pytest.raises(ImageError, match="has changed"):
        smear.load()


def test_regions_and_threads_give_the_same_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "CHUNK", 16)
    smear = read_smear(save_tiff(tmp_path / "a.tif", RGB, tile=(16, 16), compression="zlib"))
    assert isinstance(smear.image, da.Array)
    assert smear.image.chunks[0] == (16, 16, 16)
    for scheduler in ("threads", "synchronous"):
        with dask.config.set(scheduler=scheduler):
            np.testing.assert_array_equal(smear.image.compute(), RGB)


def test_opening_many_files_leaves_none_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for ending in ("png", "tif", "jpg", "bmp"):
        path = save(tmp_path / f"a.{ending}", RGB)
        smears = [read_smear(path) for _ in range(20)]
        smears[0].load()
    after = len(os.listdir("/proc/self/fd")) if before else 0
    assert after <= before + 2


@settings(deadline=None)
@given(st.integers(9, 16), st.lists(st.integers(0, 255), min_size=1, max_size=20))
def test_declared_bits_give_the_high_byte(bits: int, values: list[int]) -> None:
    small = np.array(values, np.uint16)
    low = (1 << (bits - 8)) - 1
    np.testing.assert_array_equal(to_uint8((small << (bits - 8)) | low, "x", bits), small)


@settings(deadline=None)
@given(st.lists(st.integers(0, 255), min_size=4, max_size=4))
def test_compositing_and_inks_against_exact_arithmetic(values: list[int]) -> None:
    four = np.array([values], np.uint8)
    a = values[3] / 255
    white = [c * a + 255 * (1 - a) for c in values[:3]]
    assert np.abs(on_white(four)[0] - white).max() <= 0.5 + 1e-9
    ink = [255 - min(255.0, c + values[3] - c * values[3] / 255) for c in values[:3]]
    assert np.abs(cmyk_to_rgb(four)[0] - ink).max() <= 0.5 + 1e-9


def test_a_kept_picture_comes_back_with_its_pixel_size(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", RGB, 0.25)
    smear = read_smear(tmp_path / "a.png")
    np.testing.assert_array_equal(smear.load(), RGB)
    assert smear.pixel_size_um == pytest.approx(0.25, rel=1e-4)
    with pytest.raises(ImageError, match="expected pixels"):
        write_picture(tmp_path / "b.png", RGB[..., 0])


def test_the_reader_needs_neither_torch_nor_qt(tmp_path: Path) -> None:
    code = (
        "import sys; from napari_dinobloom.io.smear import read_smear; from napari_dinobloom.io.study import Study; "
        "bad = {'torch', 'napari', 'qtpy', 'anndata', 'skimage', 'matplotlib'} & set(sys.modules); "
        "sys.exit(repr(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.real_data
def test_real_fields_equal_pillow(real_data: Path) -> None:
    for path in sorted((real_data / "bccd" / "images").glob("*.jpg"))[:3]:
        with Image.open(path) as picture:
            np.testing.assert_array_equal(read_smear(path).load(), np.asarray(picture))
