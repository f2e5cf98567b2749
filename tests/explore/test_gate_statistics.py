"""Statistics of gates against counting by hand with pandas, and against the report's own functions."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from napari_dinobloom.explore import gate_statistics
from napari_dinobloom.explore.gate_axes import axes_table
from napari_dinobloom.explore.gate_statistics import GateStatistics, GateTables, classes_of
from napari_dinobloom.explore.gate_tree import GateTree
from napari_dinobloom.explore.gates import GateError, RangeGate, RectangleGate
from napari_dinobloom.explore.proportions import wilson
from napari_dinobloom.report.counting import counting

XY = ("umap_1", "umap_2")


@pytest.fixture(scope="module")
def cells() -> pd.DataFrame:
    random = np.random.default_rng(0)
    n = 3000
    table = pd.DataFrame(random.normal(size=(n, 2)).astype(np.float32), columns=list(XY))
    table["patient"] = random.choice(["p1", "p2", "p3"], n)
    table["slide"] = random.choice(["s1", "s2"], n)  # slides of one name of several patients
    table.loc[table["patient"] == "p3", "slide"] = "s9"
    table["predicted"] = random.choice(["blast", "lymphocyte", "monocyte", ""], n)
    table["abstained"] = random.random(n) < 0.1
    table["label"] = np.where(random.random(n) < 0.05, "basophil", "")
    table["deleted"] = random.random(n) < 0.05
    table["area_px"] = random.integers(100, 600, n)
    table["nc_ratio"] = np.where(random.random(n) < 0.2, np.nan, random.random(n))
    return table


@pytest.fixture(scope="module")
def tree() -> GateTree:
    tree = GateTree()
    tree.add(RectangleGate(name="right", axes=XY, range_min=(0, None), range_max=(None, None)))
    tree.add(RangeGate(name="large", axes=("area_px",), range_min=350), parent="g1")
    tree.add(RangeGate(name="none", axes=("area_px",), range_min=1000))
    tree.add(RangeGate(name="below none", axes=("area_px",), range_min=1), parent="g3")
    return tree


@pytest.fixture(scope="module")
def found(cells: pd.DataFrame, tree: GateTree) -> GateTables:
    return gate_statistics.gate_statistics(tree, cells)


def groups(cells: pd.DataFrame) -> dict[tuple[str, str, str], np.ndarray]:
    everything = {("all", "", ""): np.ones(len(cells), dtype=bool)}
    for patient in cells["patient"].unique():
        mine = (cells["patient"] == patient).to_numpy()
        everything["patient", patient, ""] = mine
        for slide in cells.loc[mine, "slide"].unique():
            everything["slide", patient, slide] = mine & (cells["slide"] == slide).to_numpy()
    return everything


def test_counts_and_intervals_are_those_of_counting_by_hand(
    cells: pd.DataFrame, tree: GateTree, found: GateTables
) -> None:
    masks, kept = tree.masks(cells), ~cells["deleted"].to_numpy()
    where = groups(cells)
    assert len(found.counts) == len(where) * 4 == 9 * 4
    for row in found.counts.itertuples():
        here = where[row.level, row.patient, row.slide] & kept
        parent = tree[row.key].parent
        n, of = (masks[row.key] & here).sum(), (here if not parent else masks[parent] & here).sum()
        assert (row.n, row.parent_n, row.all_n) == (n, of, here.sum())
        assert row.gate == tree.path(row.key)
        low, high = wilson(n, of)
        expected = [100 * n / of if of else np.nan, 100 * low, 100 * high]
        np.testing.assert_allclose([row.percent_of_parent, row.parent_low, row.parent_high], expected, rtol=1e-14)
        low, high = wilson(n, here.sum())
        np.testing.assert_array_equal([row.all_low, row.all_high], [100 * low, 100 * high])
    assert found.counts.query("key == 'g4'")["percent_of_parent"].isna().all()


def test_composition_and_means_are_those_of_pandas(cells: pd.DataFrame, tree: GateTree, found: GateTables) -> None:
    masks = tree.masks(cells)
    kept = cells.assign(name=classes_of(cells), g1=masks["g1"], g2=masks["g2"])[~cells["deleted"]]
    for key in ("g1", "g2"):
        inside = kept[kept[key]]
        slides = found.classes.query("key == @key and level == 'slide'").set_index(["patient", "slide", "class"])["n"]
        by_hand = inside.groupby(["patient", "slide", "name"]).size()
        assert slides.sort_index().to_dict() == by_hand.to_dict()
        means = found.means.query("key == @key and level == 'patient'")
        assert set(means["measurement"]) == {"area_px", "nc_ratio"}
        for name, part in means.groupby("measurement"):
            expected = inside.groupby("patient")[name].agg(["mean", "count"])
            np.testing.assert_allclose(part["mean"], expected["mean"], rtol=1e-12)
            assert part["n"].tolist() == expected["count"].tolist()
    empty = found.means.query("key == 'g3'")
    assert (empty["n"] == 0).all()
    assert empty["mean"].isna().all()


def test_shares_of_classes_add_up_and_no_empty_class_is_listed(found: GateTables) -> None:
    total = found.classes.groupby(["key", "level", "patient", "slide"])["percent"].sum()
    np.testing.assert_allclose(total, 100)
    assert (found.classes["n"] > 0).all()
    assert "unclassified" in set(found.classes["class"])


def test_classes_are_those_of_the_report(cells: pd.DataFrame) -> None:
    assert classes_of(cells).tolist() == counting(cells)["class"].tolist()


def test_only_changed_populations_are_counted_again(
    cells: pd.DataFrame, tree: GateTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    plain = GateStatistics._tally

    def spy(self: GateStatistics, mask: np.ndarray) -> object:
        counted.append(int(mask.sum()))
        return plain(self, mask)

    monkeypatch.setattr(GateStatistics, "_tally", spy)
    other = GateTree.from_dict(tree.to_dict())
    statistics = GateStatistics(cells)
    statistics.tables(other)
    assert len(counted) == 1 + 4
    other.change("g2", RangeGate(name="larger", axes=("area_px",), range_min=400))
    other.hide("g1")
    again = statistics.tables(other)
    assert len(counted) == 1 + 4 + 1
    fresh = gate_statistics.gate_statistics(GateTree.from_dict(other.to_dict()), cells)
    for name in ("counts", "classes", "means"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(fresh, name))


def test_who_counts_can_be_said(cells: pd.DataFrame, tree: GateTree) -> None:
    counted = (cells["patient"] == "p1").to_numpy()
    row = gate_statistics.gate_statistics(tree, cells, counted=counted).counts.iloc[0]
    assert (row["n"], row["all_n"]) == ((tree.masks(cells)["g1"] & counted).sum(), counted.sum())
    with pytest.raises(GateError, match="3000 cells"):
        GateStatistics(cells, counted=counted[1:])
    with pytest.raises(GateError, match="'arera'"):
        GateStatistics(cells, measurements=["arera"])
    with pytest.raises(GateError, match="'label' holds no numbers"):
        GateStatistics(cells, measurements=["label"])
    with pytest.raises(GateError, match="no gate"):
        GateStatistics(cells).tables(GateTree())


def test_the_table_for_gates_has_the_map_and_its_hash() -> None:
    at = np.arange(8, dtype=np.float32).reshape(4, 2)
    adata = anndata.AnnData(
        np.zeros((4, 3), np.float32), obs=pd.DataFrame({"area_px": [1, 2, 3, 4]}, index=list("abcd"))
    )
    adata.obsm["X_umap"], adata.obsm["X_umap:12345678"], adata.obsm["spatial"] = at, at + 9, at + 1
    adata.uns["dinobloom"] = {"projection": {"hash": "ab" * 32}}
    table = axes_table(adata)
    assert list(table.columns) == ["area_px", "umap_1", "umap_2"]
    np.testing.assert_array_equal(table[["umap_1", "umap_2"]], at)
    tree = GateTree("cd" * 32)
    tree.add(RectangleGate(name="r", axes=XY, range_min=(0, 0), range_max=(3, 3)))
    with pytest.raises(GateError, match="map abababab"):
        tree.masks(table)
    mine = GateTree("ab" * 32)
    mine.replay(mine.add(RectangleGate(name="r", axes=XY, range_min=(0, 0), range_max=(3, 3))))
    assert mine.masks(table)["g1"].tolist() == [True, True, False, False]
