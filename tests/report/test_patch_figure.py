from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_dinobloom.report.patch_figure import PictureRow, draw_patches, write_tiles


@pytest.fixture
def rows() -> list[PictureRow]:
    """Two rows, of three pictures and of one; each crop has a colour of its own, each patch too."""
    random = np.random.default_rng(0)
    colours = random.integers(1, 256, (4, 2, 2, 3)).astype(np.float32) / 255
    crops = np.empty((4, 28, 28, 3), np.uint8)
    crops[...] = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [15, 25, 35]])[:, None, None]
    return [PictureRow("Lymphocyte", crops[:3], colours[:3]), PictureRow("$x_{", crops[3:], colours[3:])]


def test_every_crop_stands_beside_its_colours_pixel_for_pixel(rows: list[PictureRow], tmp_path: Path) -> None:
    picture = np.asarray(Image.open(draw_patches(rows, "50 % of $this$", tmp_path / "figure.png")).convert("RGB"))
    corners = []
    for row in rows:
        for crop, colours in zip(row.crops, row.colours, strict=True):
            y, x = np.nonzero((picture == crop[0, 0]).all(axis=2))
            assert len(y) == 28 * 28
            corners.append((int(y.min()), int(x.min())))
            beside = picture[y.min() : y.min() + 28, x.max() + 1 : x.max() + 29]
            expected = np.rint(colours * 255).astype(np.uint8).repeat(14, axis=0).repeat(14, axis=1)
            np.testing.assert_array_equal(beside, expected)
    assert corners[0][0] == corners[1][0] == corners[2][0] < corners[3][0]
    assert corners[0][1] == corners[3][1] < corners[1][1] < corners[2][1]
    title, name = picture[: corners[0][0] - 2], picture[corners[0][0] : corners[0][0] + 28, : corners[0][1] - 2]
    assert (title < 100).any()
    assert (name < 100).any()
    assert (picture[:, 0] == 255).all(), "text reaches the edge"


@pytest.mark.parametrize("ending", ["pdf", "svg", "jpg"])
def test_other_formats(rows: list[PictureRow], tmp_path: Path, ending: str) -> None:
    start = {"pdf": b"%PDF", "svg": b"<?xml", "jpg": b"\xff\xd8"}[ending]
    assert draw_patches(rows, "title", tmp_path / f"figure.{ending}").read_bytes().startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [f"figure.{ending}"]


def test_tiles_show_crop_colours_and_both(rows: list[PictureRow], tmp_path: Path) -> None:
    paths = write_tiles([rows[0], PictureRow("../../evil: a/b", rows[1].crops, rows[1].colours)], tmp_path / "tiles")
    names = ["001-Lymphocyte-1.png", "002-Lymphocyte-2.png", "003-Lymphocyte-3.png", "004-evil-a-b-1.png"]
    assert [path.relative_to(tmp_path / "tiles").as_posix() for path in paths] == names
    tile = np.asarray(Image.open(paths[1]))
    assert tile.shape == (28, 84, 3)
    np.testing.assert_array_equal(tile[:, :28], rows[0].crops[1])
    np.testing.assert_allclose(tile[:, 56:], (tile[:, :28].astype(float) + tile[:, 28:56]) / 2, atol=0.51)


def test_nothing_to_draw_is_refused(rows: list[PictureRow], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no picture"):
        draw_patches([PictureRow("none", rows[0].crops[:0], rows[0].colours[:0])], "title", tmp_path / "figure.png")
