"""Gates as objects: Boolean ones, their JSON form, and what they say when something is wrong."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

import napari_dinobloom as nd
from napari_dinobloom.explore.gates import (
    BooleanGate,
    EllipseGate,
    Gate,
    GateError,
    PolygonGate,
    QuadrantGate,
    RangeGate,
    RectangleGate,
)

XY = ("umap_1", "umap_2")
SMALL = RangeGate(name="small", axes=("area_px",), range_max=300)
LEFT = RectangleGate(name="left", axes=XY, range_min=(None, None), range_max=(0.1, None))
GATES: list[Gate] = [
    SMALL,
    LEFT,
    PolygonGate(name="blasts", axes=XY, vertices=np.array([[0.1, 0.2], [1 / 3, 4], [5, 1e-9]]), projection="ab12"),
    EllipseGate(name="Größe", axes=XY, center=(0.1, 2), half_axes=(1 / 7, 3), angle=33.3),
    QuadrantGate(name="q", axes=XY, dividers=(0.1, 0.2), quadrant="-+"),
    BooleanGate(
        name="both", bool_type="and", gate_refs=[SMALL, BooleanGate(name="n", bool_type="not", gate_refs=[LEFT])]
    ),
    BooleanGate(name="either", bool_type="or", gate_refs=["g1", LEFT]),
]


@pytest.fixture
def cells() -> pd.DataFrame:
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(500, 2)).astype(np.float32), columns=list(XY))
    table["area_px"] = random.integers(100, 600, 500)
    table.loc[:20, "umap_1"] = np.nan
    table["label"] = "blast"
    return table


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: type(gate).__name__ + gate.name)
def test_a_gate_comes_back_from_json_bit_for_bit(gate: Gate) -> None:
    text = json.dumps(gate.to_dict(), allow_nan=False)
    again = Gate.from_dict(json.loads(text))
    assert again == gate
    assert type(again) is type(gate)
    assert hash(again) == hash(gate)
    assert type(gate).from_dict(json.loads(text)) == gate


def test_boolean_gates_join_masks(cells: pd.DataFrame) -> None:
    small, left = SMALL.apply(cells), LEFT.apply(cells)
    assert 0 < (small & left).sum() < small.sum()

    def joined(kind: Any, *gates: Gate) -> np.ndarray:
        return BooleanGate(name="b", bool_type=kind, gate_refs=gates).apply(cells)

    np.testing.assert_array_equal(joined("and", SMALL, LEFT), small & left)
    np.testing.assert_array_equal(joined("or", SMALL, LEFT), small | left)
    np.testing.assert_array_equal(joined("not", SMALL), ~small)


def test_what_has_no_place_on_the_map_is_not_beside_a_gate_either(cells: pd.DataFrame) -> None:
    outside = BooleanGate(name="not left", bool_type="not", gate_refs=[LEFT])
    np.testing.assert_array_equal(outside.apply(cells), cells["umap_1"] > 0.1)
    nested = BooleanGate(
        name="not either", bool_type="not", gate_refs=[BooleanGate(name="e", bool_type="or", gate_refs=[LEFT, SMALL])]
    )
    np.testing.assert_array_equal(nested.apply(cells), (cells["umap_1"] > 0.1) & (cells["area_px"] > 300))
    assert nested.axes == (*XY, "area_px")


def test_columns_of_any_number_type_are_read_and_unknown_values_are_outside() -> None:
    table = pd.DataFrame(
        {
            "area_px": pd.array([100, None, 500], dtype="Int64"),
            "lobes": np.array([1, 2, 3], np.int32),
            "touches_border": [True, False, True],
        }
    )
    assert SMALL.apply(table).tolist() == [True, False, False]
    assert RangeGate(name="l", axes=("lobes",), range_min=2).apply(table).tolist() == [False, True, True]
    assert RangeGate(name="b", axes=("touches_border",), range_min=1).apply(table).tolist() == [True, False, True]


def test_a_missing_or_textual_column_is_named_with_the_remedy(cells: pd.DataFrame) -> None:
    with pytest.raises(GateError, match=r"'small'.*no column 'area_pixels'; did you mean 'area_px'\?"):
        RangeGate(name="small", axes=("area_pixels",), range_min=0).apply(cells)
    with pytest.raises(GateError, match=r"'label' holds no numbers .*measurement"):
        RangeGate(name="small", axes=("label",), range_min=0).apply(cells)
    with pytest.raises(GateError, match=r"'either' names the gate with the key 'g1'.*GateTree"):
        GATES[-1].apply(cells)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "Polygone"}, "none of BooleanGate"),
        ({"version": 2}, "version 2 is not known.*pip install -U"),
        ({"version": True}, "version True"),
        ({"axis": XY}, "'axis' is not known; did you mean 'axes'"),
        ({"vertices": [[0, 0], [1, "a"], [2, 3]]}, "'blasts'.*pairs of numbers"),
        ({"vertices": [[0, 0], [1, None], [2, 3]]}, "vertex 1"),
        ({"vertices": [[0, 0], [1, 1e200], [2, 3]]}, "vertex 1"),
        ({"vertices": [[0, 0, 0], [1, 1, 1], [2, 3, 1]]}, r"\(3, 3\)"),
        ({"axes": ["umap_1", "umap_1"]}, "two different columns"),
        ({"axes": "umap_1"}, "two different columns"),
        ({"projection": 7}, "hash of a map"),
    ],
)
def test_a_damaged_polygon_is_refused_with_its_name(change: dict[str, Any], message: str) -> None:
    raw = {**GATES[2].to_dict(), **change}
    with pytest.raises(GateError, match=message) as caught:
        Gate.from_dict(raw)
    assert "blasts" in str(caught.value)


def test_missing_keys_wrong_kinds_and_no_objects_are_refused() -> None:
    raw = GATES[2].to_dict()
    del raw["vertices"]
    with pytest.raises(GateError, match=r"'blasts'.*vertices"):
        Gate.from_dict(raw)
    with pytest.raises(GateError, match=r"'blasts'.*none of RangeGate"):
        RangeGate.from_dict(GATES[2].to_dict())
    with pytest.raises(GateError, match="JSON object"):
        Gate.from_dict([])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "   ", "a/b", "a\nb", "x" * 101, None])
def test_names_that_paths_and_people_cannot_hold_are_refused(name: Any) -> None:
    with pytest.raises(GateError, match=r"Use another sign|printable"):
        RangeGate(name=name, axes=("area_px",), range_min=1)


def test_regions_that_cannot_be_are_refused() -> None:
    with pytest.raises(GateError, match="Swap"):
        RectangleGate(name="r", axes=XY, range_min=(1, 0), range_max=(0, 1))
    with pytest.raises(GateError, match="no bound"):
        RangeGate(name="r", axes=("area_px",))
    with pytest.raises(GateError, match="above 0"):
        EllipseGate(name="e", axes=XY, center=(0, 0), half_axes=(1, 0))
    with pytest.raises(GateError, match="quadrant"):
        QuadrantGate(name="q", axes=XY, dividers=(0, 0), quadrant="+")  # type: ignore[arg-type]
    with pytest.raises(GateError, match="exactly one gate"):
        BooleanGate(name="n", bool_type="not", gate_refs=[SMALL, LEFT])
    with pytest.raises(GateError, match="two gates or more"):
        BooleanGate(name="n", bool_type="and", gate_refs=[SMALL])


@pytest.mark.parametrize("depth", [51, 400])
def test_a_file_with_gates_within_gates_without_end_is_refused(depth: int) -> None:
    raw = SMALL.to_dict()
    for _ in range(depth):
        raw = {"type": "BooleanGate", "version": 1, "name": "deep", "bool_type": "not", "gate_refs": [raw]}
    with pytest.raises(GateError, match=r"'deep'.*within each other"):
        Gate.from_dict(raw)


def test_gates_are_public_names() -> None:
    for gate in GATES:
        assert getattr(nd, type(gate).__name__) is type(gate)
