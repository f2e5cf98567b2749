"""The map with real mouse and key events: what is drawn, gated, counted and selected is the same."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_dinobloom.explore.gates import EllipseGate, PolygonGate, QuadrantGate, RangeGate, RectangleGate

pytestmark = pytest.mark.gui

CONTROL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
AROUND = [(-3 + 3 * float(np.cos(t)), 3 * float(np.sin(t))) for t in np.linspace(0, 6.1, 24)]


def _only(shown):
    tree = shown.view.gating.tree
    (key,) = tree.keys
    return key, tree[key].gate


def _percent_inside(shown, x0, y0, x1, y1):
    xy = shown.study.cells.obsm["X_umap"]
    return ((xy >= (x0, y0)) & (xy <= (x1, y1))).all(axis=1)


def test_a_rectangle_is_gate_statistics_colours_and_label_at_once(make_map) -> None:
    shown = make_map()
    shown.mouse.key(Qt.Key.Key_R)
    assert shown.view.hand.tool == "rectangle"
    shown.mouse.drag((-6, -3), (-2, 0), (0, 3))
    key, gate = _only(shown)
    assert isinstance(gate, RectangleGate)
    assert np.allclose([*gate.range_min, *gate.range_max], (-6, -3, 0, 3), atol=2 * max(shown.view.canvas.pixel))
    inside = _percent_inside(shown, *gate.range_min, *gate.range_max)
    assert np.array_equal(shown.view.gating.masks()[key], inside)
    counts = shown.view.gating.tables().counts
    assert int(counts["n"].iloc[0]) == inside.sum()
    shown.session.colour_by = "gate"
    codes, table = shown.view.colours
    assert np.array_equal(codes == 1, inside)
    entry = shown.view.legend.list.item(1).text()
    assert entry.endswith(f"{inside.sum():,}")
    (shape,) = shown.view.gate_shapes()
    assert shape.label == f"Gate 1  {100 * inside.mean():.1f} %"
    drawn = shown.view.canvas.picture().reshape(-1, 3).astype(int)
    colour = (table[1, :3] * 255).round().astype(int)
    assert (np.abs(drawn - colour).max(axis=1) <= 3).sum() > 50  # discs and line on the screen


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (Qt.Key.Key_E, EllipseGate),
        (Qt.Key.Key_X, RangeGate),
        (Qt.Key.Key_Y, RangeGate),
        (Qt.Key.Key_L, PolygonGate),
    ],
)
def test_tools_that_are_dragged(make_map, key, kind) -> None:
    shown = make_map()
    shown.mouse.key(key)
    shown.mouse.drag(*(AROUND if key == Qt.Key.Key_L else [(-5, -2), (-3, 1), (-1, 2)]))
    made, gate = _only(shown)
    assert isinstance(gate, kind)
    assert 20 < shown.view.gating.masks()[made].sum() < 400
    assert np.array_equal(gate.apply(shown.view.table), shown.view.gating.masks()[made])


def test_a_polygon_is_clicked(make_map) -> None:
    shown = make_map()
    shown.mouse.key(Qt.Key.Key_P)
    for point in ((-5, -3), (-1, -3), (-1, 3)):
        shown.mouse.move(*point)
        shown.mouse.click(*point)
    shown.mouse.key(Qt.Key.Key_Return)
    _, gate = _only(shown)
    assert isinstance(gate, PolygonGate)
    assert len(gate.vertices) == 3


def test_a_polygon_is_dropped_by_escape(make_map) -> None:
    shown = make_map()
    shown.mouse.key(Qt.Key.Key_P)
    shown.mouse.click(-5, -3)
    shown.mouse.click(-1, -3)
    shown.mouse.key(Qt.Key.Key_Escape)
    assert len(shown.view.gating.tree) == 0
    assert shown.view.hand.tool == "polygon"
    shown.mouse.key(Qt.Key.Key_Escape)
    assert shown.view.hand.tool == ""


def test_a_click_makes_four_quadrants_in_one_act(make_map) -> None:
    shown = make_map()
    shown.mouse.key(Qt.Key.Key_Q)
    shown.mouse.click(0, 0)
    tree = shown.view.gating.tree
    assert len(tree) == 4
    assert all(isinstance(tree[key].gate, QuadrantGate) for key in tree.keys)
    assert sum(mask.astype(int) for mask in shown.view.gating.masks().values()).tolist() == [1] * 400
    shown.mouse.key(Qt.Key.Key_Z, CONTROL)
    assert len(shown.view.gating.tree) == 0
    shown.mouse.key(Qt.Key.Key_Z, CONTROL | SHIFT)
    assert len(shown.view.gating.tree) == 4


def test_the_count_is_said_while_a_gate_is_drawn(make_map) -> None:
    shown = make_map()
    shown.mouse.key(Qt.Key.Key_R)
    shown.mouse.drag((-8, -6), (0, 6), release=False)
    inside = int(_percent_inside(shown, *(-8, -6), *(0, 6)).sum())
    said = int(shown.view.status.text().split()[0])
    assert abs(said - inside) <= 2
    assert "of all cells" in shown.view.status.text()
    shown.mouse.drag((0, 6))


def test_a_corner_is_dragged(make_map) -> None:
    shown = make_map()
    shown.mouse.key(Qt.Key.Key_R)
    shown.mouse.drag((-5, -2), (-1, 2))
    key, before = _only(shown)
    shown.mouse.key(Qt.Key.Key_V)
    shown.mouse.drag((-1, 2), (0, 3), (1, 4))
    after = shown.view.gating.tree[key].gate
    assert np.allclose(after.range_max, (1, 4), atol=2 * max(shown.view.canvas.pixel))
    assert np.allclose(after.range_min, before.range_min, atol=1e-12)
    shown.mouse.key(Qt.Key.Key_Z, CONTROL)
    assert shown.view.gating.tree[key].gate == before


def test_a_locked_gate_stays_where_it_is(make_map) -> None:
    shown = make_map()
    shown.mouse.key(Qt.Key.Key_R)
    shown.mouse.drag((-5, -2), (-1, 2))
    key, before = _only(shown)
    shown.view.gating.lock(key)
    shown.mouse.key(Qt.Key.Key_V)
    shown.mouse.drag((-1, 2), (1, 4))
    assert shown.view.gating.tree[key].gate == before


def test_dragging_with_the_pointer_moves_the_map(make_map) -> None:
    shown = make_map()
    before = np.array(shown.view.canvas.in_view)
    shown.mouse.drag((0, 3), (1, 3), (2, 3))
    moved = np.array(shown.view.canvas.in_view) - before
    assert moved[0] < -0.9
    assert len(shown.view.gating.tree) == 0
    shown.mouse.key(Qt.Key.Key_F)
    assert np.allclose(shown.view.canvas.in_view, before, atol=0.05)


def test_a_click_selects_the_nearest_cell_and_shift_adds(make_map) -> None:
    shown = make_map()
    xy = shown.view.places
    shown.mouse.click(*map(float, xy[7]))
    assert shown.session.selected == ("f:00008",)
    assert shown.session.focus == "f:00008"
    shown.mouse.click(*map(float, xy[10]), shift=True)
    assert set(shown.session.selected) == {"f:00008", "f:00011"}
    shown.mouse.click(-3, 6)
    assert shown.session.selected == ()


def test_a_click_on_a_line_chooses_its_gate(make_map) -> None:
    shown = make_map()
    shown.view.gating.add(RectangleGate(name="a", axes=shown.session.axes, range_min=(-1, 4), range_max=(1, 6)))
    other = shown.view.gating.add(
        RectangleGate(name="b", axes=shown.session.axes, range_min=(-1, -6), range_max=(1, -4))
    )
    first = shown.view.gating.tree.keys[0]
    assert shown.session.gate == other
    shown.view.canvas.view.camera.rect = (-8, -8, 16, 16)
    shown.mouse.click(-1, 5)
    assert shown.session.gate == first


def test_the_lasso_selects_only_cells_in_sight(make_map) -> None:
    shown = make_map()
    shown.view.legend.list.item(0).setCheckState(Qt.CheckState.Unchecked)
    off = shown.view.legend.hidden
    shown.mouse.key(Qt.Key.Key_S)
    shown.mouse.drag((-8, -6), (8, -6), (8, 6), (-8, 6), (-8, -5.9))
    chosen = shown.study.cells.obs.loc[list(shown.session.selected), "predicted"]
    assert len(chosen) == 200
    assert not set(chosen) & set(off)
    assert "200" in shown.view.status.text()
    assert "switched off" in shown.view.status.text()


def test_hover_points_at_the_cell_everywhere(make_map) -> None:
    shown = make_map()
    shown.mouse.move(*map(float, shown.view.places[3]))
    assert shown.session.hover == "f:00004"
    shown.mouse.move(0, 8)
    assert shown.session.hover == ""


def test_a_double_click_opens_the_image_of_a_cell(make_map) -> None:
    shown = make_map()
    shown.mouse.double(*map(float, shown.view.places[5]))
    assert shown.opened == ["f:00006"]


def test_a_gate_is_put_below_the_population_that_is_shown(make_map) -> None:
    shown = make_map()
    shown.mouse.key(Qt.Key.Key_R)
    shown.mouse.drag((-8, -6), (0, 6))
    top = shown.session.gate
    shown.session.population = top
    assert np.array_equal(shown.view.drawable, shown.view.gating.masks()[top])
    assert set(shown.view.canvas.drawn_rows) == set(np.flatnonzero(shown.view.drawable))
    shown.mouse.drag((-4, -6), (8, 6))
    child = shown.session.gate
    tree = shown.view.gating.tree
    assert tree[child].parent == top
    shown.view.gating.delete(top)
    assert shown.session.population == ""
    assert len(shown.view.canvas.drawn_rows) == 400


def test_choosing_a_gate_restores_its_axes(make_map) -> None:
    shown = make_map()
    key = shown.view.gating.add(
        RectangleGate(name="large", axes=("area_px", "confidence"), range_min=(400, 0), range_max=(600, 1))
    )
    assert shown.session.axes == ("area_px", "confidence")
    assert shown.view.canvas.in_view[2] > 500
    shown.session.axes = ("umap_1", "umap_2")
    assert shown.view.gate_shapes() == []
    shown.session.gate = ""
    shown.session.gate = key
    assert shown.session.axes == ("area_px", "confidence")


def test_no_work_of_ours_is_done_while_the_map_is_moved(make_map, monkeypatch) -> None:
    shown = make_map()
    calls: list[str] = []
    for name in ("refresh_gates", "refresh_axes", "refresh_colours", "reload", "visible_rows"):
        monkeypatch.setattr(shown.view, name, lambda *_a, name=name, **_k: calls.append(name))
    monkeypatch.setattr(shown.view.canvas, "_fill", lambda **_k: calls.append("fill"))
    shown.mouse.drag((0, 3), (1, 3), (2, 3), (2, 4))
    assert calls == []


def test_above_the_limit_densities_are_drawn_and_gates_take_all(make_map, monkeypatch, qtbot) -> None:
    from napari_dinobloom.ui.map import canvas

    monkeypatch.setattr(canvas, "MOST_POINTS", 250)
    shown = make_map()
    assert len(shown.view.canvas.drawn_rows) == 0
    shown.mouse.key(Qt.Key.Key_R)
    shown.mouse.drag((-8, -6), (8, 6))
    assert shown.view.gating.masks()[shown.session.gate].sum() == 400
    shown.view.canvas.view.camera.rect = (-7, -5, 7, 10)
    qtbot.waitUntil(lambda: 0 < len(shown.view.canvas.drawn_rows) <= 250, timeout=3000)


def test_an_empty_session_says_what_to_do(make_map) -> None:
    shown = make_map()
    shown.session.close_study()
    assert shown.view.empty.isVisible()
    assert not shown.view.canvas.isVisible()


def test_axes_that_stood_in_for_a_map_go_when_it_comes(make_map) -> None:
    shown = make_map()
    cells = shown.study.cells
    spots = cells.obsm["X_umap"]
    del cells.obsm["X_umap"]
    shown.study.save_cells(cells)
    shown.session.revision += 1
    assert not {"umap_1", "umap_2"} & set(shown.session.axes)
    shown.study.cells.obsm["X_umap"] = spots
    shown.study.save_cells(shown.study.cells)
    shown.session.revision += 1
    assert shown.session.axes == ("umap_1", "umap_2")
    shown.session.axes = ("area_px", "confidence")  # chosen, not a stand-in
    shown.session.revision += 1
    assert shown.session.axes == ("area_px", "confidence")


def test_the_legend_counts_the_cells_that_are_shown_and_has_no_empty_room(make_map) -> None:
    shown = make_map()
    shown.view.gating.add(RectangleGate(name="a", axes=shown.session.axes, range_min=(-6, -3), range_max=(0, 3)))
    key = shown.view.gating.tree.keys[0]
    shown.session.population = key
    legend, inside = shown.view.legend, int(shown.view.gating.masks()[key].sum())
    lines = [legend.list.item(at).text() for at in range(legend.list.count())]
    assert sum(int(line.rpartition("  ")[2]) for line in lines) == inside
    assert legend.list.maximumHeight() < legend.list.sizeHintForRow(0) * (len(lines) + 1)
    assert legend.width() <= legend.maximumWidth()
    shown.session.colour_by = "area_px"
    strip = legend.scale.grab().toImage()
    assert strip.pixelColor(3, 3) != strip.pixelColor(60, 3)
