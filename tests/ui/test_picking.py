"""Clicks and the outline of the selected cell."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from matplotlib.path import Path as Polygon
from napari.components import ViewerModel
from napari.utils._proxies import ReadOnlyWrapper
from napari.utils.interactions import mouse_move_callbacks, mouse_press_callbacks, mouse_release_callbacks
from painted import CENTRES, HEIGHT, WIDTH

from napari_dinobloom.ui import layers, redraw
from napari_dinobloom.ui.images import tag
from napari_dinobloom.ui.picking import Picker
from napari_dinobloom.ui.session import Session

pytestmark = pytest.mark.gui

PLACES = {
    "plain": {},
    "scaled": {"scale": (0.1, 0.1), "units": ("um", "um")},
    "moved": {"scale": (2, 2), "translate": (100, -50)},
    "turned": {"rotate": 30, "scale": (0.5, 0.5)},
}


@dataclass
class Mouse:
    """A mouse event as the canvas hands it to callbacks."""

    position: tuple[float, ...]
    type: str = "mouse_press"
    pos: tuple[float, float] = (100.0, 100.0)
    button: int = 1
    view_direction: np.ndarray | None = None
    dims_displayed: list[int] = field(default_factory=lambda: [0, 1])
    handled: bool = False
    is_dragging: bool = True
    modifiers: tuple[str, ...] = ()


def click(viewer, position, *, drag=0.0, button=1, modifiers=()):
    """Press, move by `drag` canvas pixels, release."""
    ndim = len(position)
    shown = {"dims_displayed": [ndim - 2, ndim - 1], "button": button, "modifiers": modifiers}
    mouse_press_callbacks(viewer, ReadOnlyWrapper(Mouse(position, **shown), exceptions=("handled",)))
    mouse_move_callbacks(viewer, Mouse(position, "mouse_move", (100 + drag, 100), **shown))
    mouse_release_callbacks(viewer, Mouse(position, "mouse_release", (100 + drag, 100), **shown))


@pytest.fixture
def scene(make_study, smear, request):
    """Viewer, image, cell layer, session and picker of one field placed as asked for."""
    study, viewer, session = make_study(), ViewerModel(), Session()
    image = viewer.add_image(smear, rgb=True, **getattr(request, "param", {}))
    cells = layers.show(viewer, image, layers.cell_layer(study, [study.fields[0].id], name="smear", stack=False))
    return viewer, image, cells, session, Picker(viewer, session)


@pytest.mark.parametrize("scene", PLACES.values(), ids=PLACES.keys(), indirect=True)
def test_a_click_selects_the_cell_under_it_wherever_the_image_lies(scene):
    viewer, image, cells, session, picker = scene
    for number, centre in enumerate(CENTRES, start=1):
        click(viewer, image.data_to_world(centre))
        assert session.focus == cells.features["cell_id"].iloc[number - 1]
        assert session.focus in picker.line()
    click(viewer, image.data_to_world((2, 2)))
    assert session.selected == ()
    assert picker.line() == ""


@pytest.mark.parametrize("scene", PLACES.values(), ids=PLACES.keys(), indirect=True)
def test_the_outline_lies_around_the_cell(scene):
    viewer, image, cells, session, _ = scene
    session.select(cells.features["cell_id"].iloc[1])
    (shape,) = [layer for layer in viewer.layers if tag(layer).get("role") == "selected"]
    corners = np.array([shape.data_to_world(corner) for corner in shape.data[0]])
    polygon = Polygon(corners)
    inside = np.array([image.data_to_world(point) for point in np.argwhere(cells.data == 2)])
    others = np.array([image.data_to_world(point) for point in np.argwhere((cells.data != 2) & (cells.data > 0))])
    assert polygon.contains_points(inside).all()
    assert not polygon.contains_points(others).any()
    session.select()
    assert not len(shape.data)


def test_only_one_outline_and_the_active_layer_stays(scene):
    viewer, image, cells, session, _ = scene
    viewer.layers.selection.active = image
    for cell_id in cells.features["cell_id"]:
        session.select(cell_id)
    assert len(viewer.layers) == 3
    assert viewer.layers.selection.active is image


def test_drags_other_buttons_and_tools_are_left_alone(scene):
    viewer, image, _, session, _ = scene
    centre = image.data_to_world(CENTRES[0])
    click(viewer, centre, drag=30)
    assert session.focus == ""
    click(viewer, centre, button=2)
    assert session.focus == ""
    own = viewer.add_labels(np.zeros((HEIGHT, WIDTH), np.uint8))
    own.mode = "paint"
    click(viewer, centre)
    assert session.focus == ""
    own.mode = "pan_zoom"
    click(viewer, centre, drag=2)
    assert session.focus != ""


def test_a_hidden_layer_is_not_clicked(scene):
    viewer, image, cells, session, _ = scene
    cells.visible = False
    click(viewer, image.data_to_world(CENTRES[0]))
    assert session.focus == ""


def test_in_a_stack_the_plane_counts(make_study, smear):
    study, viewer, session = make_study(0, 20), ViewerModel(), Session()
    Picker(viewer, session)
    fields = [record.id for record in study.fields]
    image = viewer.add_image(np.stack([smear, np.roll(smear, 20, axis=1)]), rgb=True, scale=(1, 0.5, 0.5))
    layers.show(viewer, image, layers.cell_layer(study, fields, name="smears", stack=True))
    for plane, shift in enumerate((0, 20)):
        viewer.dims.set_point(0, plane)
        y, x = CENTRES[0]
        click(viewer, image.data_to_world((plane, y, x + shift)))
        assert session.focus == f"{fields[plane]}:00001"
        (shape,) = [layer for layer in viewer.layers if tag(layer).get("role") == "selected"]
        assert set(shape.data[0][:, 0]) == {plane}


def test_detach_leaves_nothing_behind(scene):
    viewer, image, cells, session, picker = scene
    session.select(cells.features["cell_id"].iloc[0])
    picker.detach()
    assert list(viewer.layers) == [image, cells]
    click(viewer, image.data_to_world(CENTRES[0]))
    session.select(cells.features["cell_id"].iloc[1])
    assert list(viewer.layers) == [image, cells]


def test_shift_adds_to_the_selection_and_takes_out_of_it(scene):
    viewer, image, cells, session, _ = scene
    first, second, _ = cells.features["cell_id"]
    one, other = (image.data_to_world(centre) for centre in CENTRES[:2])
    click(viewer, one)
    click(viewer, other, modifiers=("Shift",))
    assert session.selected == (first, second)
    (shapes,) = [layer for layer in viewer.layers if tag(layer).get("role") == "selected"]
    assert len(shapes.data) == 2
    click(viewer, image.data_to_world((2, 2)), modifiers=("Shift",))
    assert session.selected == (first, second), "a slip beside all cells loses nothing"
    click(viewer, one, modifiers=("Shift",))
    assert session.selected == (second,)
    assert session.focus == second


def test_two_windows_share_one_picker(make_study, smear):
    study, viewer, session = make_study(), ViewerModel(), Session()
    one, other = Picker.of(viewer, session), Picker.of(viewer, session)
    image = viewer.add_image(smear, rgb=True)
    cells = layers.show(viewer, image, layers.cell_layer(study, [study.fields[0].id], name="smear", stack=False))
    click(viewer, image.data_to_world(CENTRES[0]), modifiers=("Shift",))
    assert session.selected == (cells.features["cell_id"].iloc[0],), "not selected by one and taken out by the other"
    one.detach()
    click(viewer, image.data_to_world(CENTRES[1]))
    assert session.selected == (cells.features["cell_id"].iloc[1],)
    other.detach()
    click(viewer, image.data_to_world(CENTRES[2]))
    assert session.selected == (cells.features["cell_id"].iloc[1],)
    assert Picker.of(viewer, session) is not one


def test_a_plane_without_cells_has_no_outline(make_study):
    study, viewer, session = make_study(0, 5), ViewerModel(), Session()
    fields = [study.fields[0].id, "", study.fields[1].id]
    data, meta, _ = layers.cell_layer(study, fields, name="cells", stack=True)
    layers.outlined(viewer.add_labels(data, **meta))
    picker = Picker(viewer, session)
    viewer.dims.set_point(0, 0)
    session.select(f"{fields[0]}:00001")
    (shapes,) = [layer for layer in viewer.layers if tag(layer).get("role") == "selected"]
    counted = []
    for plane in (0, 1, 2, 0):
        viewer.dims.set_point(0, plane)
        counted.append(len(shapes.data))
    assert counted == [1, 0, 0, 1]
    picker.detach()


def test_outlines_are_drawn_again_only_where_a_cell_may_lie_elsewhere(make_study, smear):
    study, viewer, session = make_study(), ViewerModel(), Session()
    image = viewer.add_image(smear, rgb=True)
    field = study.fields[0].id
    cells = layers.show(viewer, image, layers.cell_layer(study, [field], name="smear", stack=False))
    picker = Picker(viewer, session)
    session.select(f"{field}:00001", f"{field}:00002")
    (shapes,) = (layer for layer in viewer.layers if tag(layer).get("role") == "selected")
    drawn = []
    shapes.events.set_data.connect(lambda: drawn.append(len(shapes.data)))
    study.label([f"{field}:00001"], "blast")
    redraw.update(cells, study)
    session.revision += 1
    assert not drawn, "its class is no outline"
    redraw.update(cells, study, [f"{field}:00001"])
    session.revision += 1
    assert drawn[-1:] == [2]
    study.delete([f"{field}:00001"])
    redraw.update(cells, study)
    session.revision += 1
    assert drawn[-1] == 1
    picker.detach()
