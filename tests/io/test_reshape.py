"""Cells that people add, merge, split and repaint, against label images as oracle; over sessions, kills and reruns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.celltable import cell_id, complete, grown
from napari_dinobloom.io.fields import FieldRecord
from napari_dinobloom.io.masks import FieldMasks, draw
from napari_dinobloom.io.shapes import Shape
from napari_dinobloom.io.study import Study

H, W = 30, 48

Image = NDArray[np.int32]


def _start() -> Image:
    """Six square cells."""
    labels = np.zeros((H, W), np.int32)
    for number in range(1, 7):
        y, x = 2 + 14 * ((number - 1) // 3), 2 + 16 * ((number - 1) % 3)
        labels[y : y + 10, x : x + 10] = number
    return labels


def _nuclei(labels: Image) -> Image:
    return np.where(np.indices(labels.shape).sum(axis=0) % 3 > 0, labels, 0).astype(np.int32)


def _shape(mask: NDArray[np.bool_]) -> Shape:
    masks = FieldMasks.from_labels(mask.astype(np.int32), _nuclei(mask.astype(np.int32)))
    measures = {"area_px": int(mask.sum()), "quality": "ok", "focus": np.nan, "pixel_size_um": 0.5, "scale_from": "x"}
    return Shape.of(masks.boxes[0], masks.cells[0], masks.nuclei[0], measures)


def _table(labels: Image) -> anndata.AnnData:
    masks = FieldMasks.from_labels(labels, labels)
    obs = pd.DataFrame({"cell_id": [cell_id("f", n) for n in masks.numbers.tolist()], "field": "f", "slide": "S"})
    obs[["y0", "x0", "y1", "x1"]] = masks.boxes
    obs["y"], obs["x"] = masks.boxes[:, [0, 2]].mean(axis=1), masks.boxes[:, [1, 3]].mean(axis=1)
    obs["area_px"] = [int(cell.sum()) for cell in masks.cells]
    obs["pixel_size_um"], obs["scale_from"] = np.float32(0.2), "file"
    obs["gate:a"], obs["cluster"] = True, pd.Categorical(["1"] * len(obs))
    adata = anndata.AnnData(np.ones((len(obs), 3), np.float32), obs=complete(obs))
    adata.obsm["spatial"] = adata.obs[["x", "y"]].to_numpy(np.float32)
    return adata


def _study(path: Path) -> Study:
    study = Study.create(path)
    study.update(fields=[FieldRecord("f", "f.png", "r1", "", H, W, 0.2, "S", "P")])
    labels = _start()
    study.save_masks("f", FieldMasks.from_labels(labels, _nuclei(labels)), "{}", "k")
    study.save_cells(_table(labels))
    return study


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    with _study(tmp_path / "s.dinobloom") as opened:
        yield opened


def _state(study: Study) -> tuple[list[object], list[object], dict[str, tuple[object, ...]]]:
    """All that a study says of its cells: both drawings, and of each row what follows from its outline and acts."""
    obs = study.cells.obs
    columns = ["y0", "x0", "y1", "x1", "area_px", "label", "deleted", "slide", "patient"]
    rows = {str(cell): tuple(row) for cell, row in zip(obs.index, obs[columns].to_numpy(object), strict=True)}
    return study.labels("f").tolist(), study.nuclei("f").tolist(), rows


# Against brute force


@dataclass
class Oracle:
    """Label images and labels by hand; a list of states for undo."""

    labels: Image = field(default_factory=_start)
    said: dict[int, str] = field(default_factory=dict)
    past: list[tuple[Image, dict[int, str]]] = field(default_factory=list)
    future: list[tuple[Image, dict[int, str]]] = field(default_factory=list)

    def living(self) -> list[int]:
        return [int(n) for n in np.unique(self.labels) if n]

    def act(self, labels: Image, said: dict[int, str]) -> None:
        self.past.append((self.labels, self.said))
        self.labels, self.said = labels, said
        self.future.clear()

    def turn(self, back: bool) -> None:
        source, target = (self.past, self.future) if back else (self.future, self.past)
        if source:
            target.append((self.labels, self.said))
            self.labels, self.said = source.pop()


def _do(study: Study, oracle: Oracle, what: str, pick: int, other: int) -> None:
    """One random act on study and oracle alike."""
    living, labels = oracle.living(), oracle.labels.copy()
    new = study.next_number("f")
    if what == "undo" or what == "redo":
        getattr(study, what)()
        oracle.turn(what == "undo")
        return
    if what == "add":
        free = np.argwhere(labels == 0)
        y, x = free[pick % len(free)]
        spot = np.zeros(labels.shape, bool)
        spot[y : y + 1 + other % 6, x : x + 1 + other % 5] = True
        spot &= labels == 0
        study.reshape("add", {cell_id("f", new): _shape(spot)})
        labels[spot] = new
        oracle.act(labels, oracle.said)
        return
    if not living:
        return
    one, two = living[pick % len(living)], living[other % len(living)]
    ids = [cell_id("f", one), cell_id("f", two)]
    if what == "label":
        study.label(ids[0], f"class {other % 3}")
        oracle.act(labels, {**oracle.said, one: f"class {other % 3}"})
    elif what == "delete":
        study.delete(ids[0])
        labels[labels == one] = 0
        oracle.act(labels, oracle.said)
    elif what == "merge" and one != two:
        both = np.isin(labels, (one, two))
        study.reshape("merge", {cell_id("f", new): _shape(both)}, delete=ids, inherit={cell_id("f", new): ids[0]})
        labels[both] = new
        oracle.act(labels, {**oracle.said, new: oracle.said.get(one, "")})
    elif what == "split" and (labels == one).sum() > 1:
        rows = np.flatnonzero(labels.ravel() == one)
        cut = 1 + other % (len(rows) - 1)
        halves = [np.isin(np.arange(labels.size), part).reshape(labels.shape) for part in (rows[:cut], rows[cut:])]
        made = {cell_id("f", new + i): _shape(half) for i, half in enumerate(halves)}
        study.reshape("split", made, delete=ids[:1], inherit=dict.fromkeys(made, ids[0]))
        labels[halves[0]], labels[halves[1]] = new, new + 1
        word = oracle.said.get(one, "")
        oracle.act(labels, {**oracle.said, new: word, new + 1: word})
    elif what == "repaint":
        mask = (labels == one) | ((np.roll(labels, 1 + other % 3, axis=1) == one) & (labels == 0))
        study.reshape("repaint", {ids[0]: _shape(mask)})
        labels[mask] = one
        oracle.act(labels, oracle.said)


ACTS = ("add", "merge", "split", "repaint", "delete", "label", "undo", "undo", "redo")
acts = st.lists(
    st.tuples(st.sampled_from([*ACTS, "reopen", "save"]), st.integers(0, 999), st.integers(0, 999)), max_size=14
)


@settings(max_examples=40, deadline=None)
@given(acts)
def test_any_acts_in_any_order_against_label_images(
    tmp_path_factory: pytest.TempPathFactory, chosen: list[tuple[str, int, int]]
) -> None:
    study, oracle = _study(tmp_path_factory.mktemp("acts") / "s"), Oracle()
    given_out = 6
    for what, pick, other in chosen:
        if what == "reopen":
            study.close()
            study = Study.open(study.path)
        elif what == "save":
            study.save_cells(study.cells)
        else:
            _do(study, oracle, what, pick, other)
        np.testing.assert_array_equal(study.labels("f"), oracle.labels)
        obs = study.cells.obs
        living = obs[~obs["deleted"]]
        assert sorted(living.index) == [cell_id("f", n) for n in oracle.living()]
        assert living["area_px"].to_dict() == {
            cell_id("f", n): int((oracle.labels == n).sum()) for n in oracle.living()
        }
        assert living["label"].to_dict() == {cell_id("f", n): oracle.said.get(n, "") for n in oracle.living()}
        assert obs.index.is_unique
        assert study.next_number("f") > given_out - 1
        given_out = study.next_number("f")
    study.close()


# Rows


def test_a_made_cell_is_appended_with_its_place_and_its_slides_scale(study: Study) -> None:
    before = study.cells
    mask = np.zeros((H, W), bool)
    mask[26:29, 40:47] = True
    study.reshape("add", {"f:00007": _shape(mask)})
    row = study.cells.obs.loc["f:00007"]
    assert study.cells.obs_names.tolist() == [cell_id("f", n) for n in range(1, 8)]
    assert row[["field", "slide", "patient", "scale_from", "quality"]].tolist() == ["f", "S", "P", "file", "ok"]
    assert row[["y0", "x0", "y1", "x1", "y", "x", "area_px"]].tolist() == [26, 40, 29, 47, 27.5, 43.5, 21]
    assert row["pixel_size_um"] == np.float32(0.2), "the slide's scale, not the one it was measured at"
    assert np.isnan(row["focus"])
    assert not row["gate:a"]
    assert pd.isna(row["cluster"])
    assert np.isnan(study.cells.X[6]).all()
    np.testing.assert_array_equal(study.cells.obsm["spatial"][6], [43.5, 27.5])
    pd.testing.assert_frame_equal(study.cells.obs.iloc[:6], before.obs)
    assert {name: study.cells.obs[name].dtype for name in before.obs} == before.obs.dtypes.to_dict()
    study.save_cells(study.cells)
    study.reload()
    assert study.cells.n_obs == 7, "the saved table holds it: it is not appended once more"


def test_growing_keeps_types_and_graphs() -> None:
    from scipy.sparse import csr_matrix

    adata = _table(_start())
    adata.obsm["X_umap"] = np.ones((6, 2), np.float32)
    adata.obsp["distances"] = csr_matrix(np.eye(6, dtype=np.float32))
    adata.uns["dinobloom"] = {"encoder": "starter"}
    whole = grown(adata, pd.DataFrame({"cell_id": ["f:00008", "f:00007"], "x": [1.0, 2.0], "y": [3.0, 4.0]}))
    assert whole.obs_names.tolist()[-2:] == ["f:00008", "f:00007"]
    assert whole.obs_names.dtype == whole.obs["label"].dtype == object
    assert (whole.X.dtype, whole.obsm["X_umap"].dtype, whole.obs["y0"].dtype) == (np.float32, np.float32, np.int32)
    np.testing.assert_array_equal(np.isnan(whole.obsm["X_umap"]).all(axis=1), [False] * 6 + [True] * 2)
    np.testing.assert_array_equal(whole.obsm["spatial"][-2:], [[1, 3], [2, 4]])
    np.testing.assert_array_equal(whole.obsp["distances"].toarray(), np.diag([1.0] * 6 + [0.0] * 2))
    assert whole.uns == {"dinobloom": {"encoder": "starter"}}
    assert whole.var_names.tolist() == adata.var_names.tolist()


def test_numbers_of_cells_made_by_hand_are_not_given_again(study: Study) -> None:
    spot = np.zeros((H, W), bool)
    spot[28, 3] = True
    study.reshape("add", {"f:00009": _shape(spot)})
    study.undo()
    assert study.next_number("f") == 10
    for cell, match in (("f:00009", "f:00009', or it is deleted"), ("f:00008", "was given before; 10 is free")):
        with pytest.raises(StudyError, match=match):
            study.reshape("add", {cell: _shape(spot)})
    study.reload()
    assert study.next_number("f") == 10
    (study.path / "cells.h5ad").unlink()
    study.reload()
    assert study.next_number("f") == 10


def test_wrong_acts_are_refused_before_anything_is_written(study: Study) -> None:
    spot = np.zeros((H, W), bool)
    spot[28, 3] = True
    study.delete("f:00001")
    before = (study.path / "edits.jsonl").read_bytes()
    wide = Shape.of((0, 0, 1, W + 1), np.ones((1, W + 1), bool), np.zeros((1, W + 1), bool), {})
    for act in (
        lambda: study.reshape("merge", {"f:00007": _shape(spot)}, delete=["f:00001", "f:00002"]),
        lambda: study.reshape("repaint", {"f:00001": _shape(spot)}),
        lambda: study.reshape("add", {"f:00006": _shape(spot), "g:00001": _shape(spot)}),
        lambda: study.reshape("add", {"g:00001": _shape(spot)}),
        lambda: study.reshape("add", {"f:00007": wide}),
    ):
        with pytest.raises(StudyError):
            act()
    assert (study.path / "edits.jsonl").read_bytes() == before
    assert study.cells.n_obs == 6


def test_deleted_cells_are_not_drawn_and_drawn_ones_lie_on_top(study: Study) -> None:
    labels = _start()
    study.delete(["f:00002"])
    expected = np.where(labels == 2, 0, labels)
    np.testing.assert_array_equal(study.labels("f"), expected)
    np.testing.assert_array_equal(study.nuclei("f"), _nuclei(expected))
    over = np.zeros((H, W), bool)
    over[2:12, 2:30] = True  # over cell 1, the last of the file's cells drawn or not
    study.reshape("repaint", {"f:00004": _shape(over)})
    assert set(study.labels("f")[over]) == {4}
    assert len(study.masks("f")) == 5


# Sessions, kills, reruns


def _act(study: Study, kind: str) -> None:
    labels = study.labels("f")
    new = study.next_number("f")
    if kind == "merge":
        study.label(["f:00001", "f:00002"], "blast")
        study.reshape("merge", {cell_id("f", new): _shape(np.isin(labels, (1, 2)))}, delete=["f:00001", "f:00002"],
                      inherit={cell_id("f", new): "f:00001"})  # fmt: skip
    elif kind == "repaint":
        spot = np.zeros((H, W), bool)
        spot[14:16, 3:9] = True
        study.reshape("repaint", {"f:00003": _shape(spot), cell_id("f", new): _shape(labels == 5)}, delete=["f:00005"])
    else:
        _act(study, "repaint")
        study.undo()


@pytest.mark.parametrize("kind", ["merge", "repaint", "undo"])
def test_a_line_torn_at_any_byte_leaves_the_state_before_or_after(study: Study, kind: str) -> None:
    _act(study, kind)
    study.close()
    path = study.path / "edits.jsonl"
    data = path.read_bytes()
    start = data[:-1].rfind(b"\n") + 1

    def reopened() -> tuple[object, ...]:
        with Study.open(study.path) as again:
            return _state(again)

    after = reopened()
    path.write_bytes(data[:start])
    before = reopened()
    assert before[:2] != after[:2]
    for cut in range(start, len(data)):
        path.write_bytes(data[:cut])
        with Study.open(study.path, read_only=True) as again:
            if cut % 23 and cut != len(data) - 1:  # the journal alone decides; the whole state is compared for some
                assert len(again._acts().entries) == data[:start].count(b"\n")
            else:
                assert _state(again) == before
    path.write_bytes(data)
    assert reopened() == after


def test_a_table_without_the_acts_and_one_with_them_replay_to_the_same(study: Study) -> None:
    plain = (study.path / "cells.h5ad").read_bytes()
    _act(study, "merge")
    _act(study, "repaint")
    expected = _state(study)
    study.save_cells(study.cells)
    study.reload()
    assert _state(study) == expected
    (study.path / "cells.h5ad").write_bytes(plain)
    study.reload()
    assert _state(study) == expected
    study.save_cells(_table(_start()))  # a step that started before the acts ends after them
    assert _state(study) == expected
    while study.undo():
        pass
    rows = _state(study)[2]
    assert [cell for cell, row in rows.items() if not row[6]] == [cell_id("f", n) for n in range(1, 7)]
    assert rows["f:00003"][:5] == (2, 34, 12, 44, 100)
    np.testing.assert_array_equal(study.labels("f"), _start())


def test_a_journal_from_before_outlines_opens(study: Study) -> None:
    study.label("f:00001", "blast")
    study.delete("f:00002")
    study.undo()
    for line in (study.path / "edits.jsonl").read_text().splitlines():
        assert "shapes" not in json.loads(line)
    study.reload()
    assert study.cells.obs["label"].tolist() == ["blast", *[""] * 5]
    np.testing.assert_array_equal(study.labels("f"), _start())


def test_cells_of_a_field_that_the_study_does_not_have_are_orphans(study: Study) -> None:
    spot = np.zeros((H, W), bool)
    spot[28, 3] = True
    study.reshape("add", {"f:00007": _shape(spot)})
    path = study.path / "edits.jsonl"
    path.write_text(path.read_text().replace("f:00007", "gone:00007"))
    study.reload()
    assert study.cells.n_obs == 6
    assert study.orphans == ["gone:00007"]
    np.testing.assert_array_equal(study.labels("f"), _start())


def test_cells_with_a_hand_label_that_are_found_no_more_are_orphans(study: Study) -> None:
    study.label(["f:00001", "f:00002"], "blast")
    adata = study.cells.copy()
    adata.obs["gone"] = [True, False, True, False, False, False]
    study.save_cells(adata)
    assert study.orphans == ["f:00001"]
    study.delete("f:00001", False)
    assert study.cells.obs["deleted"].tolist() == [True, False, True, False, False, False]
    assert study.cells.obs["label"].tolist()[:2] == ["blast", "blast"]


def test_outlines_of_cells_as_they_are_now(study: Study) -> None:
    shapes = study.shapes(["f:00003", "f:00001"])
    assert list(shapes) == ["f:00003", "f:00001"]
    masks = FieldMasks.from_labels(_start(), _nuclei(_start()))
    assert shapes["f:00003"].box == tuple(masks.boxes[2].tolist())
    np.testing.assert_array_equal(shapes["f:00003"].bitmaps()[1], masks.nuclei[2])
    assert shapes["f:00003"].measures["area_px"] == 100
    with pytest.raises(StudyError, match="has no cell 'f:00099'"):
        study.shapes(["f:00099"])
    assert draw(study.masks("f"), (H, W)).tolist() == _start().tolist()
