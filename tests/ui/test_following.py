"""The image follows the session: camera, colours, outlines, the open study."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel
from painted import CENTRES

from napari_dinobloom.explore.gates import RangeGate
from napari_dinobloom.ui import layers
from napari_dinobloom.ui.cell_rows import cell_rows
from napari_dinobloom.ui.following import Follower
from napari_dinobloom.ui.gating import gating_of
from napari_dinobloom.ui.images import tag
from napari_dinobloom.ui.picking import Picker
from napari_dinobloom.ui.session import Session

pytestmark = pytest.mark.gui


@pytest.fixture
def scene(make_study, smear, qapp):
    """A viewer with the cells of one field, which lies scaled and moved, and its session."""
    study, viewer, session = make_study(), ViewerModel(), Session()
    session.show(study)
    image = viewer.add_image(smear, rgb=True, scale=(0.5, 0.5), translate=(7, -3))
    cells = layers.show(viewer, image, layers.cell_layer(study, [study.fields[0].id], name="smear", stack=False))
    picker, follower = Picker.of(viewer, session), Follower.of(viewer, session)
    ids = list(study.cells.obs.index)
    yield SimpleNamespace(**{k: v for k, v in locals().items() if k not in ("make_study", "qapp")})
    follower.detach()
    picker.detach()
    session.close_study()


def _world(scene, at: int) -> np.ndarray:
    y, x = CENTRES[at]
    return np.array([y * 0.5 + 7, x * 0.5 - 3])


def test_the_camera_goes_to_a_cell_that_is_out_of_sight_and_keeps_its_zoom(scene) -> None:
    camera = scene.viewer.scene.camera
    camera.center, camera.zoom = (0, 500, 500), 8.0
    scene.session.select(scene.ids[1])
    assert np.allclose(camera.center[-2:], _world(scene, 1), atol=0.6)
    assert camera.zoom == 8.0


def test_the_camera_stays_where_the_cell_is_in_sight(scene) -> None:
    camera = scene.viewer.scene.camera
    before = (0, *(_world(scene, 0) + 5))
    camera.center, camera.zoom = before, 4.0
    scene.session.select(scene.ids[0])
    assert tuple(camera.center) == pytest.approx(before)


def test_the_outline_of_a_cell_in_focus_flashes(scene, qtbot) -> None:
    scene.session.select(scene.ids[0])
    (outlines,) = [layer for layer in scene.viewer.layers if tag(layer).get("role") == "selected"]
    seen: list[float] = []
    outlines.events.opacity.connect(lambda _e: seen.append(outlines.opacity))
    qtbot.waitUntil(lambda: len(seen) >= 5, timeout=3000)
    assert min(seen) < 0.2
    qtbot.waitUntil(lambda: outlines.opacity == 0.9, timeout=3000)


def test_gated_cells_have_the_colour_of_their_gate(scene) -> None:
    gating = gating_of(scene.session)
    obs = scene.study.cells.obs
    key = gating.add(RangeGate(name="right", axes=("x0",), range_min=60.0))
    scene.session.colour_by = "gate"
    features = scene.cells.features
    colours = {row["cell_id"]: scene.cells.colormap.colors[row["index"]] for _, row in features.iterrows()}
    wanted = [int(gating.tree[key].colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    for cell, colour in colours.items():
        assert np.allclose(colour[:3], wanted, atol=0.01) == (obs.at[cell, "x0"] >= 60)
    gating.recolour(key, "#123456")
    inside = next(cell for cell in colours if obs.at[cell, "x0"] >= 60)
    value = int(features.loc[features["cell_id"] == inside, "index"].iloc[0])
    assert np.allclose(scene.cells.colormap.colors[value][:3], np.array([0x12, 0x34, 0x56]) / 255, atol=0.01)
    scene.session.colour_by = "class"
    rows = cell_rows(scene.study, [scene.study.fields[0].id], scene.study.specimen)
    plain = layers.lookup(rows.features["index"].to_numpy(), rows.names, scene.study.palette)
    assert np.allclose(scene.cells.colormap.colors, plain.colors)


def test_a_cell_whose_field_is_not_shown_is_opened(make_study, qapp) -> None:
    study, viewer, session = make_study(), ViewerModel(), Session()
    session.show(study)
    picker, follower = Picker.of(viewer, session), Follower.of(viewer, session)
    cell = str(study.cells.obs.index[2])
    follower.open_cell(cell)
    roles = sorted(tag(layer).get("role") for layer in viewer.layers)
    assert roles == ["cells", "image", "selected"]
    assert session.selected == (cell,)
    assert layers.shown(viewer.layers, cell) is not None
    assert next(layer for layer in viewer.layers if tag(layer).get("role") == "cells").contour > 0
    follower.detach()
    picker.detach()
    session.close_study()


def test_the_study_of_layers_that_are_dropped_in_is_opened(make_study, qtbot) -> None:
    from napari_dinobloom.ui.reader import read_study

    study = make_study()
    path = study.path
    study.close()
    viewer, session = ViewerModel(), Session()
    follower = Follower.of(viewer, session)
    for data, meta, kind in read_study(str(path)):
        getattr(viewer, f"add_{kind}")(data, **meta)
    qtbot.waitUntil(lambda: session.study is not None and session.job is None, timeout=10_000)
    assert session.study is not None
    assert session.study.path == path
    assert not session.study.read_only
    follower.detach()
    session.close_study()


def test_a_study_whose_opening_is_cancelled_gives_its_lock_back(make_study) -> None:
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.ui.opening import iter_open

    study = make_study()
    path = study.path
    study.close()
    steps = iter_open(path)
    next(steps)
    next(steps)  # the table is read; now it is cancelled
    steps.close()
    with Study.open(path) as again:
        assert not again.read_only


def test_another_study_shows_all_its_cells(make_study) -> None:
    session = Session()
    session.show(make_study(name="one"))
    gating = gating_of(session)
    session.population = gating.add(RangeGate(name="right", axes=("x0",), range_min=60.0))
    session.show(make_study(name="two"))
    assert session.population == ""
    session.close_study()
