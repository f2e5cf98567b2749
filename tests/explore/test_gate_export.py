"""What is written can be read back: CSV, JSON and FCS."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from napari_dinobloom.explore.gate_export import write_fcs, write_gate_csv, write_gate_json
from napari_dinobloom.explore.gate_statistics import GateTables, gate_statistics
from napari_dinobloom.explore.gate_tree import GateTree
from napari_dinobloom.explore.gates import GateError, RangeGate, RectangleGate
from napari_dinobloom.io.tables import read_csv

XY = ("umap_1", "umap_2")


@pytest.fixture
def cells() -> pd.DataFrame:
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(200, 2)).astype(np.float32), columns=list(XY))
    table["area_px"] = random.integers(100, 600, 200).astype(np.int32)
    table["patient"], table["slide"] = "=cmd()", "s/1, #2"
    table["predicted"] = random.choice(["blast", "monocyte"], 200)
    table["reviewed"] = random.random(200) < 0.5
    table.loc[3, "umap_1"] = np.nan
    return table


@pytest.fixture
def tree() -> GateTree:
    tree = GateTree()
    tree.add(RectangleGate(name="right, upper", axes=XY, range_min=(0, 0), range_max=(None, None)))
    tree.add(RangeGate(name="empty", axes=("area_px",), range_min=9999), parent="g1")
    return tree


@pytest.fixture
def tables(cells: pd.DataFrame, tree: GateTree) -> GateTables:
    return gate_statistics(tree, cells)


def test_csv_comes_back_and_runs_no_formula(tables: GateTables, tmp_path: Path) -> None:
    paths = write_gate_csv(tmp_path, tables)
    assert [path.name for path in paths] == ["gates-counts.csv", "gates-classes.csv", "gates-means.csv"]
    for path, table in zip(paths, (tables.counts, tables.classes, tables.means), strict=True):
        pd.testing.assert_frame_equal(read_csv(path), table, check_dtype=False)
        assert path.read_text(encoding="utf-8").startswith("# Research use, not for diagnosis")
    text = paths[0].read_text(encoding="utf-8")
    assert "'=cmd()" in text
    assert "Wilson" in text.splitlines()[1]


def test_json_comes_back_with_the_tree(tables: GateTables, tree: GateTree, tmp_path: Path) -> None:
    write_gate_json(tmp_path / "gates.json", tables, tree)
    raw = json.loads((tmp_path / "gates.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert GateTree.from_dict(raw["tree"]).to_dict() == tree.to_dict()
    for name in ("counts", "classes", "means"):
        table = getattr(tables, name)
        found = pd.DataFrame(raw[name], columns=list(table.columns))
        pd.testing.assert_frame_equal(found, table, check_dtype=False, check_exact=True)
    assert raw["means"][-1]["mean"] is None


def test_fcs_comes_back_through_flowio(cells: pd.DataFrame, tree: GateTree, tmp_path: Path) -> None:
    import flowio

    channels = write_fcs(tmp_path / "cells.fcs", cells, gates=tree)
    expected = ("umap_1", "umap_2", "area_px", "reviewed", "gate:right upper", "gate:right upper/empty")
    assert channels == expected
    data = flowio.FlowData(str(tmp_path / "cells.fcs"))
    assert data.version == "3.1"
    assert tuple(data.pnn_labels) == expected
    found = data.as_array(preprocess=False)
    masks = tree.masks(cells)
    for i, name in enumerate(("umap_1", "umap_2", "area_px", "reviewed")):
        np.testing.assert_array_equal(found[:, i], cells[name].to_numpy(np.float32))
    np.testing.assert_array_equal(found[:, 4], masks["g1"])
    np.testing.assert_array_equal(found[:, 5], masks["g2"])
    assert float(data.text["p3r"]) == cells["area_px"].max()


def test_what_fcs_cannot_hold_is_refused_and_leaves_no_file(cells: pd.DataFrame, tmp_path: Path) -> None:
    cells["far"] = np.inf
    for columns, message in ((["far"], "3.4e38"), (["predicted"], "no numbers"), ([], "nothing to write")):
        with pytest.raises(GateError, match=message):
            write_fcs(tmp_path / "cells.fcs", cells, columns=columns)
    with pytest.raises(GateError, match="Two channels"):
        write_fcs(tmp_path / "cells.fcs", cells, columns=["area_px", "area_px"])
    assert not list(tmp_path.iterdir())


def test_without_flowio_the_remedy_is_named(
    cells: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flowio", None)
    with pytest.raises(GateError, match=r"pip install 'napari-dinobloom\[fcs\]'"):
        write_fcs(tmp_path / "cells.fcs", cells)
