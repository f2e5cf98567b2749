"""The cell layer: numbers in the pixels, classes in the colours, rows in the features."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels
from napari.utils.colormaps import CyclicLabelColormap, DirectLabelColormap
from painted import CENTRES, CLASSES, HEIGHT, WIDTH

from napari_dinobloom.cells.taxonomy import describe
from napari_dinobloom.ui import layers
from napari_dinobloom.ui.cell_rows import cell_rows
from napari_dinobloom.ui.images import TAG, tag

pytestmark = pytest.mark.gui


def rgb_of(name: str) -> np.ndarray:
    colour = describe(name).colour
    return np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])


def place(viewer: ViewerModel, study, fields, image, *, stack=False) -> Labels:
    built = layers.cell_layer(study, fields, name=image.name, stack=stack)
    return layers.show(viewer, image, built)


def test_numbers_features_and_colours_agree_with_the_table(make_study):
    study = make_study()
    (field,) = [record.id for record in study.fields]
    data, meta, kind = layers.cell_layer(study, [field], name="smear", stack=False)
    assert kind == "labels"
    assert data.dtype == np.uint16
    np.testing.assert_array_equal(data, study.labels(field))
    layer = Labels(data, **meta)
    obs = study.cells.obs
    assert list(layer.features["cell_id"]) == list(obs.index)
    for number, ((y, x), name) in enumerate(zip(CENTRES, CLASSES, strict=True), start=1):
        assert data[y, x] == number
        found = layers.info(layer, number)
        assert found is not None
        assert (found.cell_id, found.name, found.not_counted) == (f"{field}:{number:05d}", name, "")
        assert found.confidence == pytest.approx(obs["confidence"].iloc[number - 1])
        np.testing.assert_allclose(layer.colormap.map(number)[:3], rgb_of(name), atol=1e-6)
        assert layers.value_of(layer, found.cell_id) == number
    assert layer.colormap.map(0)[3] == 0
    assert layers.info(layer, 99) is None
    assert layers.value_of(layer, "nobody:00001") == 0


def test_a_person_s_word_a_doubt_and_a_deletion_show(make_study):
    study = make_study()
    ids = list(study.cells.obs.index)
    study.label(ids[0], "blast")
    study.delete(ids[1])
    study.cells.obs.loc[ids[2], "abstained"] = True
    data, meta, _ = layers.cell_layer(study, [study.fields[0].id], name="smear", stack=False)
    layer = Labels(data, **meta)
    assert list(layer.features["class"]) == ["blast", "unclassified"]
    first = layers.info(layer, 1)
    assert first is not None
    assert first.author
    assert "by hand" in first.line()
    assert layer.colormap.map(2)[3] == 0, "a deleted cell is not drawn"


def test_a_cell_is_said_not_to_count_as_the_study_counts(make_study):
    study = make_study()
    study.set_review(study.cells.obs_names[1])
    study.update(settings=study.settings | {"count": "reviewed"})
    found = cell_rows(study, [study.fields[0].id])
    assert list(found.features["not_counted"]) == ["unreviewed", "", "unreviewed"]


def test_the_palette_of_the_study_rules(make_study):
    study = make_study()
    study.update(palette={"neutrophil": "#ff0000"})
    _, meta, _ = layers.cell_layer(study, [study.fields[0].id], name="smear", stack=False)
    np.testing.assert_allclose(meta["colormap"].map(1), [1, 0, 0, 1])


def test_a_stack_has_unique_values_and_is_lazy(make_study):
    study = make_study(0, 5)
    fields = [record.id for record in study.fields]
    data, meta, _ = layers.cell_layer(study, ["", *fields], name="smears", stack=True)
    assert data.shape == (3, HEIGHT, WIDTH)
    assert not isinstance(data, np.ndarray)
    drawn = np.asarray(data)
    assert drawn[0].max() == 0
    assert sorted(set(drawn[1].ravel())) == [0, 1, 2, 3]
    assert sorted(set(drawn[2].ravel())) == [0, 4, 5, 6]
    assert list(meta["features"]["index"]) == [1, 2, 3, 4, 5, 6]


def test_one_field_twice_in_a_stack(make_study):
    study = make_study()
    field = study.fields[0].id
    data, meta, _ = layers.cell_layer(study, [field, field], name="twice", stack=True)
    np.testing.assert_array_equal(data[0], data[1])
    assert list(meta["features"]["index"]) == [1, 2, 3]


def test_a_field_without_cells(make_study):
    study = make_study()
    study.save_cells(study.cells[:0].copy())
    data, meta, _ = layers.cell_layer(study, [study.fields[0].id], name="empty", stack=False)
    layer = Labels(data, **meta)
    assert len(layer.features) == 0
    assert layers.outline_width(layer) == 1


@pytest.mark.parametrize("multiscale", [False, True])
def test_the_cells_lie_where_the_image_lies(make_study, smear, multiscale):
    study = make_study()
    viewer = ViewerModel()
    data = [smear, smear[::2, ::2]] if multiscale else smear
    image = viewer.add_image(
        data, rgb=True, multiscale=multiscale, scale=(0.1, 0.1), translate=(5, 7), units=("um", "um"), rotate=10
    )
    layer = place(viewer, study, [study.fields[0].id], image)
    assert viewer.layers.selection.active is image, "the image stays active"
    assert layer.units == image.units
    for corner in ((0, 0), (HEIGHT - 1, WIDTH - 1), CENTRES[0]):
        np.testing.assert_allclose(layer.data_to_world(corner), image.data_to_world(corner), atol=1e-9)
    assert not layer.editable


def test_an_affine_is_carried_too(make_study, smear):
    study, viewer = make_study(), ViewerModel()
    affine = np.array([[1, 0.2, 3], [0, 2, 4], [0, 0, 1.0]])
    image = viewer.add_image(smear, rgb=True, affine=affine)
    layer = place(viewer, study, [study.fields[0].id], image)
    np.testing.assert_allclose(layer.data_to_world((10, 20)), image.data_to_world((10, 20)))


def test_a_second_showing_takes_over_our_layer_and_leaves_the_user_s_alone(make_study, smear):
    study, viewer = make_study(), ViewerModel()
    field = study.fields[0].id
    image = viewer.add_image(smear, rgb=True, name="Cells of smear")
    own = viewer.add_labels(np.ones((HEIGHT, WIDTH), np.uint8), name="Cells of Cells of smear")
    viewer.layers.selection.active = image
    first = place(viewer, study, [field], image)
    first.opacity = 0.3
    first.name = "renamed by me"
    study.label(study.cells.obs.index[0], "blast")
    second = place(viewer, study, [field], image)
    assert second is first
    assert (first.opacity, first.name, first.features["class"].iloc[0]) == (0.3, "renamed by me", "blast")
    assert len(viewer.layers) == 3
    assert own.name == "Cells of Cells of smear"
    assert (own.data == 1).all()
    assert TAG not in own.metadata
    assert image.name == "Cells of smear"


def test_recolour_changes_the_table_and_no_pixel(make_study, smear):
    study, viewer = make_study(), ViewerModel()
    layer = place(viewer, study, [study.fields[0].id], viewer.add_image(smear, rgb=True))
    before = layer.data
    layers.recolour(layer, ["blast", "blast", "monocyte"], {"blast": "#00ff00"})
    assert layer.data is before
    np.testing.assert_allclose(layer.colormap.map(2), [0, 1, 0, 1])
    np.testing.assert_allclose(layer.colormap.map(3)[:3], rgb_of("monocyte"), atol=1e-6)


def test_many_cells_keep_their_colours():
    values = np.arange(1, 5001)
    names = np.random.default_rng(1).choice(CLASSES, size=5000)
    colormap = layers.lookup(values, names, {})
    assert isinstance(colormap, CyclicLabelColormap)
    expected = np.array([rgb_of(name) for name in names])
    np.testing.assert_allclose(colormap.map(values.astype(np.uint16))[:, :3], expected, atol=1e-6)


def test_beyond_the_limit_of_the_table_colours_are_still_right():
    values = np.array([1, 65_536, 70_000])
    colormap = layers.lookup(values, CLASSES, {})
    assert isinstance(colormap, DirectLabelColormap)
    for value, name in zip(values, CLASSES, strict=True):
        np.testing.assert_allclose(colormap.map(value)[:3], rgb_of(name), atol=1e-6)


def test_find_goes_by_the_tag(make_study, smear):
    study, viewer = make_study(), ViewerModel()
    layer = place(viewer, study, [study.fields[0].id], viewer.add_image(smear, rgb=True))
    layer.name = "anything"
    assert layers.find(viewer.layers, "cells", str(study.path)) is layer
    assert layers.find(viewer.layers, "cells", "elsewhere") is None
    assert tag(viewer.layers[0]) == {}
