"""Whole slides against the arrays that their files were made of: Aperio TIFF, OME-TIFF with SubIFDs, OME-Zarr."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image

from napari_dinobloom.errors import ImageError
from napari_dinobloom.io import fingerprint, slides, tiff
from napari_dinobloom.io.fingerprint import MARK, fingerprint_of, sha256_of
from napari_dinobloom.io.generate_slide import KINDS, TILE, GeneratedSlide, wedge, write_slide
from napari_dinobloom.io.inputs import find_images
from napari_dinobloom.io.lazylabels import lazy_labels
from napari_dinobloom.io.masks import FieldMasks, draw
from napari_dinobloom.io.smear import Smear, read_smear

from .pictures import stained

RGB = stained(200, 320)


def slide_of_patches(rows: int = 4, columns: int = 5) -> GeneratedSlide:
    """A slide whose patches are coloured noise, which is painted faster than cells."""
    patches = tuple((stained(TILE, TILE, seed=number),) for number in range(len(KINDS)))
    return GeneratedSlide(wedge(rows, columns, (1, 0, 3, 5)), patches, 0.25)


def pixels_of(slide: GeneratedSlide, factor: int = 1) -> NDArray[np.uint8]:
    rows, columns = slide.layout.shape
    whole = np.block([[[slide.tile(row, column)] for column in range(columns)] for row in range(rows)])
    height, width = whole.shape[0] // factor, whole.shape[1] // factor
    return whole.reshape(height, factor, width, factor, 3).mean(axis=(1, 3)).round().astype(np.uint8)


def halved(pixels: NDArray[Any], factor: int) -> NDArray[Any]:
    return np.ascontiguousarray(pixels[::factor, ::factor])


def check_levels(smear: Smear, levels: list[NDArray[np.uint8]], pixel_size_um: float | None) -> None:
    assert smear.levels[0] is smear.image
    assert [level.shape for level in smear.levels] == [level.shape for level in levels]
    for found, wanted in zip(smear.levels, levels, strict=True):
        np.testing.assert_array_equal(np.asarray(found), wanted)
    assert smear.pixel_size_um == (None if pixel_size_um is None else pytest.approx(pixel_size_um))


@pytest.mark.parametrize("ending", ["svs", "tif"])
def test_an_aperio_slide_gives_its_pixels_at_every_level(tmp_path: Path, ending: str) -> None:
    """By OpenSlide and, under the other name, by tifffile."""
    slide = slide_of_patches()
    smear = read_smear(write_slide(tmp_path / f"a.{ending}", slide))
    check_levels(smear, [pixels_of(slide, factor) for factor in (1, 4, 16)], 0.25)
    part = (slice(700, 1300), slice(1500, 2300))
    np.testing.assert_array_equal(np.asarray(smear.image[part]), pixels_of(slide)[part])


def test_without_openslide_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_slide(tmp_path / "a.svs", slide_of_patches())
    monkeypatch.setattr(slides, "installed", lambda: False)
    with pytest.raises(ImageError, match=r"a\.svs: .*OpenSlide.*napari-dinobloom\[wsi\]"):
        read_smear(path)


@pytest.mark.parametrize("content", [b"not a slide at all", b"II*\0" + bytes(60)])
def test_a_slide_that_is_none_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.ndpi").write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.ndpi: "):
        read_smear(tmp_path / "a.ndpi")


def test_a_damaged_region_is_an_error_of_that_region_only(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.svs", slide_of_patches(8, 8))
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        place, count = page.dataoffsets[13], page.databytecounts[13]
    with path.open("r+b") as handle:
        handle.seek(place)
        handle.write(b"\xff" * count)
    smear = read_smear(path)
    with pytest.raises(ImageError, match=r"a\.svs: is damaged"):
        np.asarray(smear.image[512:1024, 2560:3072])
    np.testing.assert_array_equal(np.asarray(smear.image[2048:, :1024])[0, 0], stained(TILE, TILE, seed=0)[0, 0])


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "JPEG", quality=95, subsampling=0)
    return target.getvalue()


def test_jpeg_tiles_go_through_openslide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pyramid in JPEG tiles, as scanners' exports have it; within the loss of JPEG."""
    monkeypatch.setitem(tifffile.TIFF.COMPRESSORS._codecs, 7, lambda data, **_: data)  # tiles come encoded
    smooth = np.asarray(Image.fromarray(stained(8, 8)).resize((512, 512), Image.Resampling.BICUBIC))
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for factor in (1, 2):
            level = halved(smooth, factor)
            tiles = [
                jpeg(level[y : y + 256, x : x + 256])
                for y in range(0, len(level), 256)
                for x in range(0, len(level), 256)
            ]
            file.write(
                iter(tiles), shape=level.shape, dtype=np.uint8, tile=(256, 256), photometric="ycbcr",
                compression="jpeg", subsampling=(1, 1), metadata=None, subfiletype=int(factor > 1),
            )  # fmt: skip
    smear = read_smear(tmp_path / "a.tif")
    assert [level.shape for level in smear.levels] == [(512, 512, 3), (256, 256, 3)]
    assert np.abs(np.asarray(smear.image).astype(int) - smooth).max() < 12
    monkeypatch.setattr(tiff, "DIRECT_PIXELS", 1000)
    monkeypatch.setattr(slides, "open_slide", lambda path, limit: ((smear.image,), 0.3))
    monkeypatch.setattr(tiff, "_pixel_size", lambda file, page: 25_400 / 72)
    assert read_smear(tmp_path / "a.tif").pixel_size_um == 0.3  # the scanner's, not a placeholder
    monkeypatch.setattr(slides, "installed", lambda: False)
    whole = np.asarray(read_smear(tmp_path / "a.tif").image)  # by Pillow
    assert np.abs(whole.astype(int) - smooth).max() < 12
    monkeypatch.setattr(tiff, "MAX_PIXELS", 1000)
    with pytest.raises(ImageError, match=r"compressed with JPEG.*\[wsi\]"):
        read_smear(tmp_path / "a.tif")


def test_bounds_move_the_origin_to_the_scanned_area() -> None:
    """As QuPath shows a slide; bounds beyond the picture are cut, broken ones not believed."""
    named = dict(zip(("x", "y", "width", "height"), ("30", "20", "100", "500"), strict=True))
    properties = {f"openslide.bounds-{name}": value for name, value in named.items()}
    assert slides._bounds(SimpleNamespace(dimensions=(200, 300), properties=properties)) == (30, 20, 100, 280)
    properties["openslide.bounds-x"] = "many"
    assert slides._bounds(SimpleNamespace(dimensions=(200, 300), properties=properties)) == (0, 0, 200, 300)


def test_regions_of_a_slide_with_bounds_are_asked_for_beyond_the_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Slide:
        def read_region(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
            asked.append((corner, level, size))
            return Image.new("RGBA", size, (10, 20, 30, 0))

    monkeypatch.setattr(slides, "_handle", lambda path, stamp: Slide())
    pixels = slides._read(slides._Level("a", (0, 0), 1, 30, 20, 4.0), 8, 16, 100, 110)
    assert asked == [((430, 52), 1, (10, 8))]
    assert (pixels == 255).all()  # what was not scanned is white
    assert pixels.shape == (8, 10, 3)


def test_an_ome_tiff_with_subifds_has_levels(tmp_path: Path) -> None:
    levels = [RGB, halved(RGB, 2), halved(RGB, 4)]
    options: dict[str, Any] = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"}
    about = {"axes": "YXS", "PhysicalSizeX": 0.3, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.3}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        file.write(RGB, subifds=2, metadata=about, **options)
        for level in levels[1:]:
            file.write(level, subfiletype=1, **options)
    smear = read_smear(tmp_path / "a.ome.tif")
    check_levels(smear, levels, 0.3)
    assert smear.name == "a"


@pytest.mark.parametrize("fault", ["unknown", "cut"])
def test_a_coarse_level_that_cannot_be_read_is_left_out(tmp_path: Path, fault: str) -> None:
    options: dict[str, Any] = {"photometric": "rgb", "tile": (64, 64), "metadata": None}
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(RGB, subifds=2, compression="zlib", **options)
        file.write(halved(RGB, 2), subfiletype=1, compression="zlib", **options)
        file.write(halved(RGB, 4), subfiletype=1, compression="zlib", **options)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        page = file.series[0].levels[2].keyframe
        tag = page.tags[259 if fault == "unknown" else 325]
        assert tag.count == 1 if fault == "unknown" else tag.count > 1
    with (tmp_path / "a.tif").open("r+b") as handle:
        handle.seek(tag.valueoffset)
        handle.write((34712 if fault == "unknown" else 1 << 30).to_bytes(2 if fault == "unknown" else 4, "little"))
    check_levels(read_smear(tmp_path / "a.tif"), [RGB, halved(RGB, 2)], None)


def write_omezarr(
    folder: Path, levels: list[NDArray[Any]], axes: str, version: str, scale: float = 0.2, unit: str = "micrometer"
) -> Path:
    """An OME-Zarr picture, its levels (Y, X, C) put into the order of `axes`."""
    group = zarr.create_group(folder, zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for number, level in enumerate(levels):
        order = ["yxc".index(axis) for axis in axes if axis in "yxc"]
        values = level.transpose(order)[tuple(slice(None) if axis in "yxc" else None for axis in axes)]
        chunks = tuple(50 if axis in "yx" else 1 for axis in axes)
        group.create_array(str(number), data=values, chunks=chunks)
        factor = [scale * levels[0].shape[0] / level.shape[0] if axis in "yx" else 1.0 for axis in axes]
        datasets.append({"path": str(number), "coordinateTransformations": [{"type": "scale", "scale": factor}]})
    kinds = {"c": "channel", "t": "time"}
    about = {
        "version": version,
        "axes": [
            {"name": a, "type": kinds.get(a, "space")} | ({"unit": unit} if a in "zyx" else {}) for a in axes
        ],
        "datasets": datasets,
    }  # fmt: skip
    group.attrs.update({"multiscales": [about]} if version == "0.4" else {"ome": {"multiscales": [about]}})
    return folder


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["cyx", "yxc", "tczyx"])
def test_omezarr_gives_its_pixels_at_every_level(tmp_path: Path, axes: str, version: str) -> None:
    levels = [RGB, halved(RGB, 2), halved(RGB, 4)]
    smear = read_smear(write_omezarr(tmp_path / "a.ome.zarr", levels, axes, version))
    check_levels(smear, levels, 0.2)
    np.testing.assert_array_equal(np.asarray(smear.image[31:77, 11:300]), RGB[31:77, 11:300])
    assert smear.name == "a"


def test_omezarr_units_depth_and_opacity(tmp_path: Path) -> None:
    rgba = np.dstack([RGB.astype(np.uint16) << 8, np.full(RGB.shape[:2], 65535, np.uint16)])
    smear = read_smear(write_omezarr(tmp_path / "a.zarr", [rgba], "cyx", "0.5", 0.00025, "millimeter"))
    check_levels(smear, [RGB], 0.25)


def test_omezarr_that_is_no_picture_says_what_it_is(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "plain.zarr")
    plate = zarr.create_group(tmp_path / "plate.zarr")
    plate.attrs["ome"] = {"plate": {}}
    write_omezarr(tmp_path / "grey.zarr", [RGB[..., :1]], "cyx", "0.5")
    stack = write_omezarr(tmp_path / "out.zarr", [RGB], "cyx", "0.5")
    group = zarr.open_group(stack)
    about = dict(group.attrs["ome"])
    about["multiscales"][0]["datasets"][0]["path"] = "../grey.zarr/0"
    group.attrs["ome"] = about
    for name, words in {"plain": "no multiscales", "plate": "plate", "grey": "no colour", "out": "outside"}.items():
        with pytest.raises(ImageError, match=rf"{name}\.zarr: .*{words}"):
            read_smear(tmp_path / f"{name}.zarr")


def test_an_omezarr_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    folder = write_omezarr(tmp_path / "a.zarr", [RGB, halved(RGB, 2)], "cyx", "0.5")
    shutil.rmtree(folder / "0")
    zarr.create_array(folder / "0", shape=(3, 140_000, 140_000), chunks=(3, 140_000, 140_000), dtype="u1")
    with pytest.raises(ImageError, match=r"a\.zarr: .*3 x 140000 x 140000"):
        read_smear(folder)
    shutil.rmtree(folder / "0")
    zarr.create_array(folder / "0", shape=(3, 5000, 1_000_000), chunks=(3, 1, 1_000_000), dtype="u1")
    with pytest.raises(ImageError, match="3 x 1 x 1000000"):  # read together with its neighbours
        read_smear(folder)
    folder = write_omezarr(tmp_path / "b.zarr", [RGB, halved(RGB, 2)], "cyx", "0.5")
    shutil.rmtree(folder / "1")
    zarr.create_array(folder / "1", shape=(3, 7, 10**12), chunks=(3, 7, 2048), dtype="u1")
    with pytest.raises(ImageError, match=r"b\.zarr: .*1000000000000 x 7"):
        read_smear(folder)


def test_a_link_out_of_an_omezarr_is_not_followed(tmp_path: Path) -> None:
    other = write_omezarr(tmp_path / "other.zarr", [RGB], "cyx", "0.5")
    folder = write_omezarr(tmp_path / "a.zarr", [RGB], "cyx", "0.5")
    shutil.rmtree(folder / "0")
    try:
        (folder / "0").symlink_to(other / "0", target_is_directory=True)
    except OSError:  # Windows gives the right to few: there a link is no danger either
        return
    with pytest.raises(ImageError, match="outside"):
        read_smear(folder)


def test_a_missing_chunk_file_reads_as_zero_and_a_broken_one_is_an_error(tmp_path: Path) -> None:
    folder = write_omezarr(tmp_path / "a.zarr", [RGB], "yxc", "0.5")
    chunk = next(path for path in sorted((folder / "0").rglob("*")) if path.is_file() and path.name != "zarr.json")
    chunk.write_bytes(b"broken")
    with pytest.raises(ImageError, match=r"a\.zarr: is damaged"):
        read_smear(folder).load()


def test_slides_in_a_folder_are_one_input_each(tmp_path: Path) -> None:
    write_omezarr(tmp_path / "b.ome.zarr", [RGB], "yxc", "0.5")
    shutil.copytree(tmp_path / "b.ome.zarr", tmp_path / "deep" / "c.zarr")
    zarr.create_array(tmp_path / "not.zarr" / "inner", shape=(3,), dtype="u1")  # no picture: not descended into
    for name in ("a.svs", "m.mrxs", "m/Data0000.dat", "v.vms", "v-1.jpg", "v-2.jpg", "other.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "v.vms").write_text("[Virtual Microscope Specimen]\nImageFile=v-1.jpg\nMapFile=v-2.jpg\n")
    found = [source.file for source in find_images([tmp_path]).files]
    assert found == ["a.svs", "b.ome.zarr", "deep/c.zarr", "m.mrxs", "other.jpg", "v.vms"]
    one = find_images([tmp_path / "b.ome.zarr"]).files
    assert [(source.root, source.file) for source in one] == [(tmp_path, "b.ome.zarr")]
    assert [source.file for source in find_images([str(tmp_path / "*.zarr")]).files] == ["b.ome.zarr"]
    assert [source.file for source in find_images([str(tmp_path / "*.jpg")]).files] == ["other.jpg"]


def test_small_files_are_hashed_whole_and_large_ones_by_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "a.tif"
    path.write_bytes(rng.bytes(5 << 20))
    assert fingerprint_of(path) == sha256_of(path)
    monkeypatch.setattr(fingerprint, "WHOLE_BYTES", 1 << 20)
    first = fingerprint_of(path)
    assert first.startswith(MARK)
    assert fingerprint_of(path.rename(tmp_path / "b.tif")) == first
    content = bytearray((tmp_path / "b.tif").read_bytes())
    for place in (5, len(content) - 5, (1 << 20) + 100):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert fingerprint_of(path) != first
    path.write_bytes(content + b"x")
    assert fingerprint_of(path) != first


def test_the_fingerprint_of_a_slide_covers_what_lies_beside_it(tmp_path: Path) -> None:
    folder = write_omezarr(tmp_path / "a.zarr", [RGB], "yxc", "0.5")
    (tmp_path / "m").mkdir()
    (tmp_path / "m.mrxs").write_bytes(b"x")
    (tmp_path / "m" / "Data0000.dat").write_bytes(b"y" * 100)
    before = fingerprint_of(folder), fingerprint_of(tmp_path / "m.mrxs")
    shutil.copytree(folder, tmp_path / "copy.zarr")
    assert fingerprint_of(tmp_path / "copy.zarr") == before[0]
    for trace in (".DS_Store", "._zarr.json", "0/Thumbs.db", "0/desktop.ini"):
        (folder / trace).write_bytes(b"left by a file browser")
    (tmp_path / "m" / ".DS_Store").write_bytes(b"left by a file browser")
    assert (fingerprint_of(folder), fingerprint_of(tmp_path / "m.mrxs")) == before
    for chunk in sorted(path for path in (folder / "0" / "c").rglob("*") if path.name.isdigit() and path.is_file()):
        content = chunk.read_bytes()
        chunk.write_bytes(bytes(len(content)))
        assert fingerprint_of(folder) != before[0]
        chunk.write_bytes(content)
    (folder / "zarr.json").write_text((folder / "zarr.json").read_text() + " ")
    (tmp_path / "m" / "Data0000.dat").write_bytes(b"z" * 100)
    assert fingerprint_of(folder) != before[0]
    assert fingerprint_of(tmp_path / "m.mrxs") != before[1]


def test_the_metadata_of_a_large_omezarr_are_hashed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version, name in (("0.4", ".zattrs"), ("0.5", "zarr.json")):
        folder = write_omezarr(tmp_path / version / "a.zarr", [RGB], "yxc", version)
        monkeypatch.setattr(fingerprint, "WHOLE_BYTES", 100)
        monkeypatch.setattr(fingerprint, "BLOCKS", 1)  # of the chunks only the first is seen
        before = fingerprint_of(folder)
        assert before.startswith(MARK)
        text = (folder / name).read_text()
        assert "0.2" in text
        (folder / name).write_text(text.replace("0.2", "0.3"))
        assert fingerprint_of(folder) != before


def test_labels_drawn_where_looked_at_are_those_drawn_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    boxes, cells = [], []
    for _ in range(60):
        size = rng.integers(1, 40, 2)
        corner = rng.integers(0, (300 - size[0], 500 - size[1]))
        boxes.append([*corner, *(corner + size)])
        cells.append(rng.random(size) < 0.7)
    masks = FieldMasks.numbered(boxes, cells, cells)
    whole = draw(masks, (300, 500))
    monkeypatch.setattr("napari_dinobloom.io.lazylabels.SCREEN", 50)
    monkeypatch.setattr("napari_dinobloom.io.lazylabels.CHUNK", 64)
    levels = lazy_labels(masks, (300, 500), np.uint16)
    assert len(levels) == 3
    for level, step in zip(levels, (1, 4, 16), strict=True):
        assert level.dtype == np.uint16
        np.testing.assert_array_equal(np.asarray(level), whole[::step, ::step])
