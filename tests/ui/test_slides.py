"""Whole slides in napari: levels, cells drawn where they are looked at, the quality map over the picture."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from painted import CENTRES, HEIGHT, WIDTH
from test_picking import click

from napari_dinobloom.cells import segment as segmentation
from napari_dinobloom.cells.monolayer import QualityMap
from napari_dinobloom.io import lazy, lazylabels
from napari_dinobloom.io.generate_slide import KINDS, TILE, GeneratedSlide, wedge, write_slide
from napari_dinobloom.pipeline import quality
from napari_dinobloom.progress import drain
from napari_dinobloom.ui import layers, redraw
from napari_dinobloom.ui.images import iter_inputs, smear_image, why_unusable
from napari_dinobloom.ui.picking import Picker
from napari_dinobloom.ui.reader import get_reader
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.slides import get_slide_reader, show_quality

pytestmark = pytest.mark.gui

SIDE = 16


@pytest.fixture
def slide_study(make_study, monkeypatch):
    """A study whose painted field counts as a whole slide, with a quality map."""
    study = make_study()
    monkeypatch.setattr(segmentation, "IN_MEMORY", 1000)
    monkeypatch.setattr(layers, "IN_MEMORY", 1000)
    monkeypatch.setattr(lazy, "SCREEN", 40)
    monkeypatch.setattr(lazylabels, "SCREEN", 40)
    grades = np.zeros((HEIGHT // SIDE, WIDTH // SIDE), np.uint8)
    grades[1:3, 2:5] = 1
    blank = np.full(grades.shape, np.nan, np.float32)
    path = study.path / "masks" / quality.FOLDER / f"{study.fields[0].id}.npz"
    quality._save(path, QualityMap(grades, float(SIDE), 0.25, blank, blank, blank), "key")
    return study


@pytest.fixture
def viewer(slide_study):
    model = ViewerModel()
    for datum in get_reader(str(slide_study.path))(str(slide_study.path)):
        model._add_layer_from_data(*datum)
    return model


def test_a_slide_of_a_study_opens_in_levels_with_its_cells(viewer, slide_study, smear):
    image, found, cells = viewer.layers
    assert image.multiscale
    assert cells.multiscale
    assert why_unusable(image) == ""
    np.testing.assert_array_equal(np.asarray(image.data[0]), smear)
    assert [level.shape for level in cells.data] == [level.shape[:2] for level in image.data]
    assert np.array_equal(np.asarray(cells.data[0]), slide_study.labels(slide_study.fields[0].id))
    half = np.array([[-1.0], [1.0]]) / 2  # extents are those of middles of pixels
    np.testing.assert_allclose(found.extent.world + SIDE * half, image.extent.world + half)


def test_a_cell_of_a_slide_is_clicked_deleted_and_comes_back(viewer, slide_study):
    image, _, cells = viewer.layers
    session = Session()
    picker = Picker(viewer, session)
    for number, centre in enumerate(CENTRES, start=1):
        click(viewer, image.data_to_world(centre))
        assert session.focus == cells.features["cell_id"].iloc[number - 1]
        assert session.focus in picker.line()
    slide_study.delete([session.focus])
    redraw.update(cells, slide_study)
    assert int(cells.data[0][CENTRES[2]].compute()) == 0
    slide_study.undo()
    redraw.update(cells, slide_study)
    assert int(cells.data[0][CENTRES[2]].compute()) == 3
    picker.detach()


def test_cells_found_again_take_the_place_of_those_shown(viewer, slide_study):
    image, _, cells = viewer.layers
    field = slide_study.fields[0].id
    for layer in viewer.layers[1:]:
        layers.outlined(layer)
    assert [layer.contour for layer in viewer.layers[1:]] == [0, 1]
    assert layers.show(viewer, image, layers.cell_layer(slide_study, [field], name="a", stack=False)) is cells
    show_quality(viewer, image, slide_study, field)
    assert [layer.name for layer in viewer.layers].count(viewer.layers[1].name) == 1
    assert len(viewer.layers) == 3
    assert viewer.layers[1].data.shape == (HEIGHT // SIDE, WIDTH // SIDE)


def test_files_of_slides_open_in_micrometres(tmp_path, monkeypatch):
    patches = tuple((np.full((TILE, TILE, 3), 60 * number, np.uint8),) for number in range(len(KINDS)))
    path = write_slide(tmp_path / "a.svs", GeneratedSlide(wedge(2, 2, (0, 0, 2, 2)), patches, 0.25))
    ((data, meta, kind),) = get_slide_reader(str(path))(str(path))
    assert kind == "image"
    assert [level.shape for level in data] == [(1024, 1024, 3), (256, 256, 3), (64, 64, 3)]
    assert meta["scale"] == (0.25, 0.25)
    assert get_slide_reader([str(path), "a.png"]) is None
    assert get_slide_reader(str(tmp_path)) is None

    from napari.layers import Image

    layer = Image(data, **meta)
    layer._source = layer.source.copy(update={"path": str(path)})
    monkeypatch.setattr("napari_dinobloom.ui.images.IN_MEMORY", 1000)
    assert drain(iter_inputs(smear_image(layer), tmp_path / "a.dinobloom")) == [path]  # goes in by its path
    assert not (tmp_path / "a.dinobloom").exists()
