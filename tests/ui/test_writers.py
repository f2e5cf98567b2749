"""Layers saved by napari's own Save, read back and compared with what the Report window exports; cell pictures."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tifffile
from napari.components import ViewerModel
from napari.plugins import _initialize_plugins
from napari.utils.notifications import notification_manager

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.annotations import read_annotations
from napari_dinobloom.io.smear import write_picture
from napari_dinobloom.io.tables import read_csv
from napari_dinobloom.pipeline.exports import export
from napari_dinobloom.pipeline.settings import resolve
from napari_dinobloom.ui.cell_pictures import GREY, LARGEST, get_reader
from napari_dinobloom.ui.images import why_unusable
from napari_dinobloom.ui.reader import layers_of, read_study
from napari_dinobloom.ui.texts import text

pytestmark = pytest.mark.gui

OURS = "napari-dinobloom"


@pytest.fixture(autouse=True)
def npe2_knows_us():
    """napari's Save and Open ask npe2, which only a viewer with a window wakes."""
    _initialize_plugins()


def viewer_of(layers) -> ViewerModel:
    viewer = ViewerModel()
    for datum in layers:
        viewer._add_layer_from_data(*datum)
    return viewer


@pytest.fixture
def stack(make_study):
    """A study of two fields of a known pixel size, some of it changed by hand, and its layers as one stack."""
    study = make_study(0, 5)
    kind = type(study.fields[0])
    study.update(fields=[kind(**(one.to_dict() | {"pixel_size_um": 0.25})) for one in study.fields])
    cells = list(study.cells.obs.index)
    study.label(cells[0], "blast")
    study.exclude(cells[4])
    study.delete(cells[5])
    viewer = viewer_of(layers_of(study, study.fields))
    return SimpleNamespace(study=study, viewer=viewer, cells=viewer.layers[1], image=viewer.layers[0])


def saved(viewer, layer, path) -> list[str]:
    viewer.layers.selection = {layer}
    return viewer.layers.save(path, selected=True, plugin=OURS)


def test_a_cell_layer_is_saved_with_the_numbers_of_its_cells(stack, tmp_path) -> None:
    (file,) = saved(stack.viewer, stack.cells, str(tmp_path / "cells.tif"))
    with tifffile.TiffFile(file) as tiff:
        found, tags = tiff.asarray(), tiff.pages[0].tags
        size = tags["XResolution"].value[0] / tags["XResolution"].value[1]
        assert (tags["ResolutionUnit"].value, tags["Compression"].value) == (3, 8)
    assert size == pytest.approx(1e4 / 0.25)
    assert found.dtype == np.int32
    for plane, record in zip(found, stack.study.fields, strict=True):
        np.testing.assert_array_equal(plane, stack.study.labels(record.id))
    exported = export(stack.study, resolve(stack.study.settings, {}), tmp_path / "export", ["labels"])
    for plane, path in zip(found, exported, strict=True):
        with tifffile.TiffFile(path) as tiff:
            np.testing.assert_array_equal(plane, tiff.asarray())
            assert tiff.pages[0].tags["XResolution"].value == tags["XResolution"].value


def test_a_labels_layer_of_the_user_is_saved_as_it_is(tmp_path) -> None:
    viewer, drawn = ViewerModel(), np.arange(2048 * 3, dtype=np.uint16).reshape(3, 2048)
    layer = viewer.add_labels(drawn, scale=(0.5, 0.5), units=("um", "um"))
    (file,) = saved(viewer, layer, str(tmp_path / "mine.tiff"))
    with tifffile.TiffFile(file) as tiff:
        np.testing.assert_array_equal(tiff.asarray(), drawn.astype(np.int32))
        assert tiff.pages[0].tags["YResolution"].value[0] / tiff.pages[0].tags["YResolution"].value[1] == 2e4
    large = viewer.add_labels(np.full((2, 2), 2**31, np.uint32))
    with pytest.raises(InputError, match="2147483648"):
        saved(viewer, large, str(tmp_path / "large.tif"))
    four = viewer.add_labels(np.zeros((2, 2, 2, 2), np.uint8))
    with pytest.raises(InputError, match="4 dimensions"):
        saved(viewer, four, str(tmp_path / "four.tif"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.tiff"]
    for ending in ("csv", "geojson"):
        with pytest.raises(InputError, match="no cells of a study"):
            saved(viewer, layer, str(tmp_path / f"mine.{ending}"))


def test_the_table_and_outlines_of_a_layer_are_those_of_the_export(stack, tmp_path) -> None:
    (table,) = saved(stack.viewer, stack.cells, str(tmp_path / "cells.csv"))
    files = saved(stack.viewer, stack.cells, str(tmp_path / "cells.geojson"))
    settings = resolve(stack.study.settings, {})
    exported = {path.name: path for path in export(stack.study, settings, tmp_path / "all", ["tables", "outlines"])}
    pd.testing.assert_frame_equal(read_csv(tmp_path / "cells.csv"), read_csv(exported["cells.csv"]))
    assert table.endswith("cells.csv")
    names = [record.id for record in stack.study.fields]
    assert [path.rpartition("-")[2] for path in files] == [f"{name}.geojson" for name in names]
    for file, name in zip(files, names, strict=True):
        with open(file, "rb") as mine:
            assert mine.read() == exported[f"{name}.geojson"].read_bytes()
    (tmp_path / f"cells-{names[0]}.geojson").rename(tmp_path / "kept.geojson")
    with pytest.raises(InputError, match=f"cells-{names[1]}.geojson” is there already"):
        saved(stack.viewer, stack.cells, str(tmp_path / "cells.geojson"))
    assert not (tmp_path / f"cells-{names[0]}.geojson").exists(), "all or none"
    record = stack.study.fields[0]
    marks = read_annotations(tmp_path / "kept.geojson", (record.height, record.width))
    assert marks.cells[0].name == "blast"


def test_the_table_of_one_field_holds_its_cells_only(make_study, tmp_path) -> None:
    study = make_study(0, 5)
    viewer = viewer_of(layers_of(study, study.fields[1:]))
    saved(viewer, viewer.layers[1], str(tmp_path / "one.csv"))
    (outlines,) = saved(viewer, viewer.layers[1], str(tmp_path / "one.geojson"))
    assert set(read_csv(tmp_path / "one.csv")["field"]) == {study.fields[1].id}
    with open(outlines, encoding="utf-8") as file:
        assert len(json.load(file)["features"]) == 3


def pictures(folder, *names):
    for at, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.full((90 + at, 100, 3), (200, 60 + 20 * at, 180), np.uint8)
        write_picture(path, image)
    return folder


def test_a_folder_of_cell_pictures_is_a_stack_with_names_and_classes(tmp_path) -> None:
    from napari_dinobloom.cells.crop import CropPolicy, resize_picture
    from napari_dinobloom.io.smear import read_pixels

    folder = pictures(tmp_path / "set", "blast/a.png", "blast/b.png", "monocyte/c.png")
    viewer = ViewerModel()
    image, captions = viewer.open(str(folder), plugin=OURS)
    assert (image.data.shape, image.rgb) == ((3, 224, 224, 3), True)
    assert captions.features["class"].tolist() == ["blast", "blast", "monocyte"]
    assert captions.features["name"].tolist() == ["a.png", "b.png", "c.png"]
    assert captions.features["file"].tolist() == ["blast/a.png", "blast/b.png", "monocyte/c.png"]
    viewer.dims.set_point(0, 2)
    assert captions._view_text.tolist() == ["monocyte  c.png"], "the caption of the picture that is shown"
    wanted = resize_picture(read_pixels(folder / "monocyte" / "c.png"), CropPolicy(kind="published"))
    np.testing.assert_array_equal(np.asarray(image.data[2]), wanted)
    assert why_unusable(image) == text("image.pictures", name="set")


def test_a_picture_that_cannot_be_read_is_grey_and_said(tmp_path) -> None:
    folder = pictures(tmp_path / "set", "a.png", "b.png")
    (folder / "b.png").write_bytes(b"no picture")
    read = get_reader(str(folder))
    assert read is not None
    (stack, _, _), (_, meta, _) = read(str(folder))
    assert np.asarray(stack[0]).std() > 0
    assert (np.asarray(stack[1]) == GREY).all()
    assert "b.png" in notification_manager.records[-1].message
    assert meta["features"]["class"].tolist() == ["", ""]


def test_fields_studies_and_empty_folders_are_no_cell_pictures(tmp_path, make_study) -> None:
    study = make_study()
    assert get_reader(str(study.path)) is None
    assert get_reader(str(tmp_path / "nowhere")) is None
    assert read_study(str(study.path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image"):
        ViewerModel().open(str(tmp_path / "empty"), plugin=OURS)
    (tmp_path / "fields").mkdir()
    write_picture(tmp_path / "fields" / "a.png", np.full((50, LARGEST + 1, 3), (200, 60, 180), np.uint8))
    with pytest.raises(InputError, match="is a field"):
        ViewerModel().open(str(tmp_path / "fields"), plugin=OURS)
