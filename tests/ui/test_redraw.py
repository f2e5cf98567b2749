"""A cell layer after acts: equal to one that is built anew, and drawn only where something changed."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from painted import CENTRES

from napari_dinobloom.pipeline import edits
from napari_dinobloom.ui import cell_rows, layers, redraw
from napari_dinobloom.ui.images import tag

pytestmark = pytest.mark.gui

SPOT = (90, 120)
"""A pixel far from all cells."""


def shown(study, smear, *, stack=False):
    viewer = ViewerModel()
    image = viewer.add_image(np.stack([smear] * len(study.fields)) if stack else smear, rgb=True)
    fields = [record.id for record in study.fields]
    return layers.show(viewer, image, layers.cell_layer(study, fields, name="smear", stack=stack))


def assert_fresh(layer, study):
    """The layer is what it would be if it were built now."""
    data, meta, _ = layers.cell_layer(study, tag(layer)["fields"], name="", stack=layer.ndim == 3)
    np.testing.assert_array_equal(np.asarray(layer.data), np.asarray(data))
    assert layer.features.equals(meta["features"])
    values = meta["features"]["index"].to_numpy(layer.dtype)
    np.testing.assert_allclose(layer.colormap.map(values), meta["colormap"].map(values))
    (mark,) = meta["metadata"].values()
    np.testing.assert_array_equal(tag(layer)["boxes"], mark["boxes"])


def test_after_each_act_the_layer_is_as_if_built_anew(make_study, smear):
    study = make_study()
    layer = shown(study, smear)
    pixels = layer.data
    field, cells = study.fields[0].id, list(study.cells.obs.index)
    y, x = CENTRES[1]
    acts = (
        lambda: edits.add_at(study, field, 20, 90),
        lambda: edits.split(study, cells[1], [(y - 20, x), (y + 20, x + 1)]),
        lambda: edits.merge(study, [f"{field}:00005", f"{field}:00006"]),
        lambda: study.exclude(cells[0]),
        lambda: study.label(cells[2], "blast"),
        lambda: study.delete([cells[0], cells[2]]),
        *[study.undo] * 6,
        *[study.redo] * 6,
    )
    for act in acts:
        act()
        redraw.update(layer, study)
        assert_fresh(layer, study)
    assert layer.data is pixels, "the array is the same one"


def test_only_the_window_of_what_changed_is_drawn(make_study, smear):
    study = make_study()
    layer = shown(study, smear)
    layer.data[SPOT] = 77
    edits.add_at(study, study.fields[0].id, 20, 90)
    redraw.update(layer, study)
    assert layer.data[SPOT] == 77
    assert layer.data[20, 90] == 4


def test_pixels_that_change_within_a_box_are_told_by_the_act(make_study, smear):
    study = make_study()
    layer = shown(study, smear)
    field = study.fields[0].id
    labels = study.labels(field)
    y, x = CENTRES[0]
    labels[y : y + 3, x : x + 3] = 0
    touched = edits.repaint(study, field, labels)
    redraw.update(layer, study, touched)
    assert layer.data[y, x] == 0
    assert_fresh(layer, study)


def test_a_number_that_does_not_fit_the_pixels_makes_them_wider(make_study, smear, monkeypatch):
    study = make_study()
    layer = shown(study, smear)
    assert layer.dtype == np.uint16
    for module in (layers, cell_rows):
        monkeypatch.setattr(module, "LOOKUP_LIMIT", 4)
    edits.add_at(study, study.fields[0].id, 20, 90)
    redraw.update(layer, study)
    assert layer.dtype == np.int32
    assert not layer.editable
    assert_fresh(layer, study)


def test_in_a_stack_numbers_of_later_planes_move(make_study, smear):
    study = make_study(0, 20)
    layer = shown(study, smear, stack=True)
    edits.add_at(study, study.fields[0].id, 20, 90)
    redraw.update(layer, study)
    assert np.asarray(layer.data)[0, 20, 90] == 4
    assert set(np.unique(np.asarray(layer.data)[1])) == {0, 5, 6, 7}
    assert_fresh(layer, study)


def test_cells_without_a_class_have_a_colour_of_their_own_and_excluded_ones_little(make_study, smear):
    study = make_study()
    edits.add_at(study, study.fields[0].id, 20, 90)
    study.exclude(study.cells.obs.index[0])
    layer = shown(study, smear)
    unseen = [int(layers.UNSEEN[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    np.testing.assert_allclose(layer.colormap.map(np.uint16(4)), [*unseen, 1], atol=1e-6)
    assert layer.colormap.map(np.uint16(1))[3] == pytest.approx(layers.FADED)
    assert layer.colormap.map(np.uint16(2))[3] == 1
