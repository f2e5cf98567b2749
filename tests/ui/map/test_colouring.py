"""Colours of cells on the map."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from napari_dinobloom.explore.gate_tree import GateTree
from napari_dinobloom.explore.gates import BooleanGate, RangeGate
from napari_dinobloom.ui.map import colouring
from napari_dinobloom.ui.map.ink import DARK, LIGHT

pytestmark = pytest.mark.gui


def _table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "predicted": ["neutrophil", "neutrophil", "monocyte", "monocyte"],
            "abstained": [False, False, False, True],
            "label": ["", "lymphocyte", "", ""],
            "slide": ["a", "b", "b", "b"],
            "area_px": [1.0, 2.0, np.nan, 4.0],
        }
    )


def test_classes_are_those_of_people_first_and_counted() -> None:
    found = colouring.by_class(_table(), {"monocyte": "#010203"})
    names = {entry.key: entry.count for entry in found.entries}
    assert names == {"neutrophil": 1, "lymphocyte": 1, "monocyte": 1, "unclassified": 1}
    by_cell = [found.entries[code].key for code in found.codes]
    assert by_cell == ["neutrophil", "lymphocyte", "monocyte", "unclassified"]
    assert colouring.hexed(found.table[found.codes[2]]) == "#010203"


def test_names_are_in_the_order_of_their_frequency() -> None:
    found = colouring.by_name(_table(), "slide")
    assert [(entry.key, entry.count) for entry in found.entries] == [("b", 3), ("a", 1)]
    assert found.codes.tolist() == [1, 0, 0, 0]


def test_rare_names_share_a_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colouring, "MOST_CATEGORIES", 2)
    found = colouring.by_name(pd.DataFrame({"slide": list("aaabbcd")}), "slide")
    assert [entry.count for entry in found.entries] == [3, 2, 2]
    assert found.codes.tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_switched_off_categories_are_invisible() -> None:
    found = colouring.by_name(_table(), "slide")
    assert found.seen(frozenset({"b"})).tolist() == [True, False, False, False]
    assert found.table[:, 3].tolist() == [1.0, 1.0]


def test_only_some_cells_are_counted() -> None:
    found = colouring.by_name(_table(), "slide").counted_among(np.array([True, True, False, False]))
    assert [(entry.key, entry.count) for entry in found.entries] == [("b", 1), ("a", 1)]
    assert colouring.by_density(np.zeros((4, 2), np.float32)).counted_among(np.ones(4, bool)).entries == ()


def test_dark_categories_are_made_lighter_on_a_dark_background_and_scales_are_not() -> None:
    found = colouring.by_class(_table(), {"monocyte": "#332288", "lymphocyte": "#e69f00"})
    dark, light = found.recoloured(DARK.seen), found.recoloured(LIGHT.seen)
    shown = {entry.key: entry.colour for entry in dark.entries}
    assert (shown["monocyte"], shown["lymphocyte"]) == ("#8f85be", "#e69f00")
    assert [colouring.hexed(row) for row in dark.table] == [entry.colour for entry in dark.entries]
    assert light.entries == found.entries
    scale = colouring.by_value(np.arange(4.0))
    assert scale.recoloured(DARK.seen) is scale


def test_gates_colour_their_own_cells_the_lowest_first() -> None:
    tree = GateTree()
    one = next(iter(tree.add(RangeGate(name="one", axes=("area_px",), range_min=1, range_max=4))["new"]))
    two = next(iter(tree.add(RangeGate(name="two", axes=("area_px",), range_min=2), parent=one)["new"]))
    off = next(iter(tree.add(RangeGate(name="off", axes=("area_px",), range_min=0))["new"]))
    tree.hide(off)
    both = next(iter(tree.add(BooleanGate(name="all", bool_type="or", gate_refs=[one, off]))["new"]))
    table = _table()
    found = colouring.by_gate(tree, tree.masks(table), len(table))
    assert [entry.key for entry in found.entries] == ["", one, two, both]
    assert found.codes.tolist() == [1, 2, 0, 2]
    assert [entry.count for entry in found.entries] == [1, 1, 2, 0]
    assert colouring.hexed(found.table[1]) == tree[one].colour


def test_a_scale_lies_between_percentiles_and_leaves_unknown_cells_grey() -> None:
    values = np.append(np.arange(1001.0), np.nan)
    found = colouring.by_value(values)
    assert found.limits == (10.0, 990.0)
    assert found.codes[[0, 10, 500, 990, 1000]].tolist() == [0, 0, 128, 255, 255]
    assert colouring.hexed(found.table[found.codes[-1]]) == colouring.OUTSIDE


@pytest.mark.parametrize("values", [np.array([]), np.array([np.nan]), np.array([3.0, 3.0])])
def test_a_scale_without_a_range_does_no_harm(values: np.ndarray) -> None:
    found = colouring.by_value(values)
    assert len(found.codes) == len(values)


def test_density_grows_where_cells_lie_close() -> None:
    random = np.random.default_rng(0)
    places = np.vstack([random.normal(0, 0.1, (500, 2)), random.uniform(5, 9, (50, 2)), [[np.nan, 0]]])
    codes = colouring.by_density(places.astype(np.float32)).codes
    assert codes[:500].mean() > codes[500:550].max() / 2 > codes[500:550].mean() / 2
    assert codes[-1] == colouring.STEPS


def test_what_cannot_be_shown_is_coloured_by_class() -> None:
    table = _table()
    by_class = colouring.by_class(table, {})
    for by in ("class", "gate", "nothing"):
        assert np.array_equal(colouring.coloured(by, table, {}, None, {}).codes, by_class.codes)
