"""Image layers as smears."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image
from npe2 import PluginManager

from napari_dinobloom.errors import ImageError, StudyError
from napari_dinobloom.io.smear import read_smear
from napari_dinobloom.progress import drain
from napari_dinobloom.ui.images import (
    TAG,
    iter_inputs,
    pixel_size_um,
    rgb8,
    safe_name,
    smear_image,
    why_unusable,
)

pytestmark = pytest.mark.gui


@pytest.fixture
def opened(smear_file) -> Image:
    """The painted file as napari's own reader opens it."""
    PluginManager.instance().discover()
    (layer,) = ViewerModel().open(smear_file, plugin="napari")
    return layer


def rgba(smear: np.ndarray, opacity: int = 255) -> np.ndarray:
    return np.dstack([smear, np.full(smear.shape[:2], opacity, np.uint8)])


@pytest.mark.parametrize("kind", ["rgb", "rgba", "float", "uint16", "stack", "lazy", "multiscale"])
def test_colour_images_of_all_kinds_are_usable_and_give_the_same_pixels(smear, kind):
    data = {
        "rgb": smear,
        "rgba": rgba(smear),
        "float": smear.astype(np.float32) / 255,
        "uint16": smear.astype(np.uint16) * 257,
        "stack": np.stack([np.zeros_like(smear), smear]),
        "lazy": da.from_array(smear, chunks=(32, 32, 3)),
        "multiscale": [smear, smear[::2, ::2], smear[::4, ::4]],
    }[kind]
    layer = Image(data, rgb=True, multiscale=kind == "multiscale", name="x")
    assert why_unusable(layer) == ""
    image = smear_image(layer)
    assert image.planes == (2 if kind == "stack" else 1)
    np.testing.assert_array_equal(image.rgb(image.planes - 1), smear)


def test_transparent_parts_lie_on_white(smear):
    assert (rgb8(rgba(smear, 0)) == 255).all()
    half = rgb8(rgba(smear, 128)).astype(int)
    assert np.abs(half - (smear.astype(int) * 128 + 255 * 127) / 255).max() <= 1


@pytest.mark.parametrize(
    ("data", "kwargs", "part"),
    [
        (np.zeros((40, 40), np.uint8), {}, "is grey"),
        (np.zeros((3, 40, 40), np.uint8), {}, "separate planes"),
        (np.zeros((5, 40, 40), np.uint8), {}, "is grey"),
        (np.zeros((2, 2, 40, 40, 3), np.uint8), {"rgb": True}, "4 dimensions"),
        (np.zeros((40, 40, 3), np.int16), {"rgb": True}, "int16"),
    ],
)
def test_images_that_cannot_be_used_are_refused_with_the_reason(data, kwargs, part):
    layer = Image(data, name="my layer", **kwargs)
    why = why_unusable(layer)
    assert part in why
    assert "my layer" in why


def test_floats_beyond_one_are_refused_by_the_rule_of_the_files(smear):
    layer = Image(smear.astype(np.float32), rgb=True, name="bright")
    with pytest.raises(ImageError, match="bright"):
        smear_image(layer).rgb()


@pytest.mark.parametrize(
    ("scale", "units", "expected"),
    [
        ((0.1, 0.1), ("um", "um"), 0.1),
        ((100, 100), ("nm", "nm"), 0.1),
        ((0.1, 0.1), ("pixel", "pixel"), None),
        ((0.1, 0.2), ("um", "um"), None),
        ((1.0, 1.0), None, None),
    ],
)
def test_pixel_size_only_from_a_unit_of_length_and_square_pixels(smear, scale, units, expected):
    layer = Image(smear, rgb=True, scale=scale, units=units)
    assert pixel_size_um(layer) == (None if expected is None else pytest.approx(expected))


def test_pixel_size_of_a_stack_ignores_the_other_axes(smear):
    layer = Image(np.stack([smear] * 2), rgb=True, scale=(3, 0.2, 0.2), units=("pixel", "um", "um"))
    assert pixel_size_um(layer) == pytest.approx(0.2)


def test_a_file_as_it_is_goes_in_by_its_path(opened, smear_file, tmp_path):
    files = drain(iter_inputs(smear_image(opened), tmp_path / "s.dinobloom"))
    assert files == [smear_file]
    assert not (tmp_path / "s.dinobloom").exists()


def test_a_layer_that_was_changed_is_written_into_the_study(opened, tmp_path):
    layer = opened
    layer.data = 255 - layer.data
    folder = tmp_path / "s.dinobloom"
    (path,) = drain(iter_inputs(smear_image(layer), folder))
    assert path.parent == folder / "fields"
    np.testing.assert_array_equal(np.asarray(read_smear(path).image), layer.data)
    assert drain(iter_inputs(smear_image(layer), folder)) == [path], "the same pixels are written once"


def test_two_layers_of_one_name_do_not_overwrite_each_other(smear, tmp_path):
    folder = tmp_path / "s.dinobloom"
    paths = [
        drain(iter_inputs(smear_image(Image(pixels, rgb=True, name="smear")), folder))[0]
        for pixels in (smear, 255 - smear)
    ]
    assert len(set(paths)) == 2
    np.testing.assert_array_equal(np.asarray(read_smear(paths[0]).image), smear)


def test_a_stack_gives_one_file_for_each_plane(smear, tmp_path):
    stack = np.stack([smear, 255 - smear])
    files = drain(iter_inputs(smear_image(Image(stack, rgb=True, name="stack")), tmp_path / "s.dinobloom"))
    assert [path.stem for path in files] == ["stack-0001", "stack-0002"]
    for path, plane in zip(files, stack, strict=True):
        np.testing.assert_array_equal(np.asarray(read_smear(path).image), plane)


def test_the_pixel_size_of_the_layer_stands_in_the_file(smear, tmp_path):
    layer = Image(smear, rgb=True, name="a", scale=(0.25, 0.25), units=("um", "um"))
    (path,) = drain(iter_inputs(smear_image(layer), tmp_path / "s.dinobloom"))
    assert read_smear(path).pixel_size_um == pytest.approx(0.25, rel=1e-3)


def test_a_folder_that_is_no_study_is_left_alone(smear, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("dear")
    with pytest.raises(StudyError):
        drain(iter_inputs(smear_image(Image(smear, rgb=True)), tmp_path / "thesis"))
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


def test_layers_of_a_study_go_in_by_the_study_s_own_files(make_study):
    study = make_study(0, 5)
    data = np.stack([np.asarray(study.read_field(record.id).image) for record in study.fields])
    fields = tuple(record.id for record in study.fields)
    layer = Image(data, rgb=True, metadata={TAG: {"study": str(study.path), "fields": fields}})
    image = smear_image(layer)
    assert image.default_folder() == study.path
    assert drain(iter_inputs(image, study.path)) == [study.locate(record) for record in study.fields]


def test_default_folder_is_beside_the_file_or_at_home(opened, smear, smear_file):
    assert smear_image(opened).default_folder() == smear_file.with_name("field.dinobloom")
    assert smear_image(Image(smear, rgb=True, name="a/b")).default_folder() == Path.home() / "a_b.dinobloom"


def test_default_folder_is_at_home_when_the_place_of_the_file_cannot_be_written(opened, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    assert smear_image(opened).default_folder().parent == Path.home()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("smear [1]", "smear_1"), ("../../etc", "etc"), ("", "smear"), ("ä" * 3, "smear"), ("a" * 200, "a" * 80)],
)
def test_safe_names(name, expected):
    assert safe_name(name).strip("_") == expected
