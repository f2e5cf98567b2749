"""The figure of patches from each kind of input, by the bundled encoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from napari_dinobloom import load_encoder, patch_pca
from napari_dinobloom.cells.crop import CropPolicy, resize_picture
from napari_dinobloom.cli import app
from napari_dinobloom.encoders.patches import PatchBasis
from napari_dinobloom.errors import AtlasError, EncoderError, InputError
from napari_dinobloom.io.generate import generate_smear
from napari_dinobloom.pipeline.crops import open_crops
from napari_dinobloom.pipeline.patches import PatchFigure, iter_patch_figure
from napari_dinobloom.progress import drain


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two classes, with three and with one picture."""
    folder = tmp_path_factory.mktemp("classes")
    for name, seeds in (("monocyte", (0, 1, 2)), ("eosinophil", (3,))):
        (folder / name).mkdir()
        for seed in seeds:
            image = generate_smear(seed, height=120, width=140, n_white=1, pixel_size_um=0.2).image
            Image.fromarray(np.asarray(image)).save(folder / name / f"{seed}.png")
    return folder


def _tiles(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.iterdir())}


def _draw(tmp_path: Path, *inputs: Path, **asked: object) -> dict[str, np.ndarray]:
    figure = PatchFigure(inputs=inputs, out=tmp_path / "f.png", tiles=tmp_path / "tiles", device="cpu", **asked)
    paths = drain(iter_patch_figure(figure))
    assert paths[0].stat().st_size > 1000
    return _tiles(tmp_path / "tiles")


def test_the_command_gives_the_numbers_of_the_library(classes: Path, tmp_path: Path) -> None:
    words = ["--per-class", "2", "--foreground", "centre", "--device", "cpu", "--tiles", str(tmp_path / "tiles")]
    done = CliRunner().invoke(app, ["patches", str(classes), "-o", str(tmp_path / "f.png"), *words])
    assert done.exit_code == 0, done.output
    assert str(tmp_path / "f.png") in done.stdout.replace("\n", "")
    files = ["eosinophil/3.png", "monocyte/0.png", "monocyte/2.png"]
    crops = np.stack([resize_picture(np.asarray(Image.open(classes / f)), CropPolicy(kind="published")) for f in files])
    colours = patch_pca(load_encoder("starter", device="cpu").patch_tokens(crops), foreground="centre")
    tiles = _tiles(tmp_path / "tiles")
    assert list(tiles) == ["001-Eosinophil-1.png", "002-Monocyte-1.png", "003-Monocyte-2.png"]
    for tile, crop, rgb in zip(tiles.values(), crops, colours, strict=True):
        np.testing.assert_array_equal(tile[:, :224], crop)
        np.testing.assert_array_equal(tile[7::14, 224 + 7 : 448 : 14], np.rint(rgb * 255).astype(np.uint8))


def test_a_saved_basis_gives_a_cell_the_same_colours_in_another_figure(classes: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    both = _draw(tmp_path / "one", classes, foreground="otsu", save_basis=tmp_path / "b.safetensors")
    alone = _draw(tmp_path / "two", classes / "eosinophil", basis=tmp_path / "b.safetensors")
    np.testing.assert_array_equal(alone["001-eosinophil-1.png"], both["001-Eosinophil-1.png"])


def test_a_basis_of_another_encoder_is_refused_before_pictures_are_read(classes: Path, tmp_path: Path) -> None:
    _draw(tmp_path, classes, save_basis=tmp_path / "b.safetensors")
    replace(PatchBasis.load(tmp_path / "b.safetensors"), encoder_sha256="0" * 64).save(tmp_path / "b.safetensors")
    asked = PatchFigure(inputs=["no such folder"], out=tmp_path / "f.png", basis=tmp_path / "b.safetensors")
    with pytest.raises(EncoderError, match="come from starter"):
        drain(iter_patch_figure(asked))


def test_rows_are_classes_of_each_input_or_inputs(classes: Path, tmp_path: Path) -> None:
    images = classes / "monocyte"
    assert list(_draw(tmp_path, classes, images)) == [
        f"001-{classes.name}-Eosinophil-1.png".replace("_", "-"),
        *(f"00{i + 1}-{classes.name}-Monocyte-{i}.png".replace("_", "-") for i in (1, 2, 3)),
        *(f"00{i + 4}-monocyte-{i}.png" for i in (1, 2, 3)),
    ]
    (tmp_path / "other").mkdir()
    names = list(_draw(tmp_path / "other", classes, images, rows="dataset", per_class=1))
    assert names == [f"001-{classes.name}-1.png", "002-monocyte-1.png"]


def test_cells_are_found_in_fields(smears: Path, tmp_path: Path) -> None:
    tiles = _draw(tmp_path, smears / "anna", crops="context", per_class=3)
    assert list(tiles) == ["001-anna-1.png", "002-anna-2.png", "003-anna-3.png"]
    for tile in tiles.values():
        rim = np.concatenate([tile[:10, :224, 1], tile[-10:, :224, 1]])
        assert tile[98:126, 98:126, 1].mean() < np.median(rim) - 30, "a stained cell lies in the middle"


def test_a_study_shows_its_own_crops_by_class(finished: Path, tmp_path: Path) -> None:
    from napari_dinobloom.io.study import Study

    tiles = _draw(tmp_path, finished, per_class=2)
    with Study.open(finished, read_only=True) as study:
        crops = np.asarray(open_crops(study)[:])
    assert len(tiles) > 1
    for tile in tiles.values():
        assert (crops == tile[None, :, :224]).all(axis=(1, 2, 3)).any()


def test_what_cannot_be_done_is_said_before_anything_is_computed(classes: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.png"
    for asked, words in (
        ({"out": tmp_path / "f.gif"}, "ends in .png"),
        ({"out": tmp_path / "no" / "f.png"}, "is not there"),
        ({"out": out, "save_basis": tmp_path / "no" / "b"}, "is not there"),
        ({"out": out, "basis": out, "foreground": "otsu"}, "leave the other out"),
        ({"out": out, "per_class": 0}, "at least 1"),
    ):
        with pytest.raises(InputError, match=words):
            PatchFigure(inputs=[classes], **asked)
    with pytest.raises(EncoderError, match="No encoder is called"):
        drain(iter_patch_figure(PatchFigure(inputs=[classes], out=out, encoder="no such")))
    with pytest.raises((AtlasError, InputError)):
        drain(iter_patch_figure(PatchFigure(inputs=[tmp_path / "no.csv"], out=out)))
    assert not out.exists()
