"""Correction by hand on a finished run: what is measured, what is done again, what a new segmentation leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from napari_dinobloom.cells import measures
from napari_dinobloom.cells.scale import Scale
from napari_dinobloom.console import summarise
from napari_dinobloom.errors import DinoBloomError, InputError, StudyError
from napari_dinobloom.io.celltable import MEASURES, cell_id
from napari_dinobloom.io.masks import FieldMasks, joined, load_masks
from napari_dinobloom.io.study import Study
from napari_dinobloom.io.tables import read_csv
from napari_dinobloom.pipeline import edits, segment
from napari_dinobloom.pipeline.crops import open_crops
from napari_dinobloom.pipeline.driver import Outcome, iter_outcome
from napari_dinobloom.pipeline.table import load_cells, rebuilt, settled
from napari_dinobloom.progress import drain

FIELD = "field0"


def again(inputs: object, path: Path, **settings: object) -> Outcome:
    """Run and close; what the run did."""
    outcome = drain(iter_outcome(inputs, path, **settings))  # type: ignore[arg-type]
    outcome.study.close()
    return outcome


@pytest.fixture
def copied(copied: Path, smears: Path) -> Path:
    """A copy of the finished study that knows where its images lie."""
    with Study.open(copied, read_only=True) as study:
        study.remember_root("r1", smears)
    return copied


@pytest.fixture
def study(copied: Path) -> Iterator[Study]:
    with Study.open(copied) as opened:
        yield opened


def _ids(study: Study, field: str = FIELD) -> list[str]:
    """Living cells of a field."""
    obs = study.cells.obs
    return obs.index[(obs["field"] == field) & ~obs["deleted"]].tolist()


def _area(labels: NDArray[np.int32], cell: str) -> int:
    return int((labels == int(cell.rpartition(":")[2])).sum())


def _across(study: Study, cell: str) -> list[tuple[float, float]]:
    """A line from above to below the middle of a cell."""
    row = study.cells.obs.loc[cell]
    return [(row["y0"] - 3.0, row["x"]), (row["y1"] + 3.0, row["x"])]


def _free_point(study: Study, distance: int = 25) -> tuple[int, int]:
    """The point of the field that is farthest from all cells."""
    from scipy.ndimage import distance_transform_edt

    far = distance_transform_edt(np.pad(study.labels(FIELD) == 0, 1))[1:-1, 1:-1]
    assert far.max() > distance
    y, x = np.unravel_index(far.argmax(), far.shape)
    return int(y), int(x)


def _measured(study: Study, cell: str) -> dict[str, Any]:
    """What measuring the study's own label images gives for a cell."""
    number = int(cell.rpartition(":")[2])
    masks = FieldMasks.from_labels(study.labels(FIELD), study.nuclei(FIELD), numbers=[number])
    row = study.cells.obs.loc[cell]
    scale = Scale(float(row["pixel_size_um"]), row["scale_from"])
    return measures.measure_masks(study.read_field(FIELD).load(), masks, scale).iloc[0].to_dict()


def _check_row(study: Study, cell: str, *, light: float = 1e-5) -> None:
    """The row of a cell says what its drawn outline measures; `light`: tolerance of what rests on the light."""
    row, expected = study.cells.obs.loc[cell], _measured(study, cell)
    for name in ("y0", "x0", "y1", "x1", *MEASURES):
        if isinstance(expected[name], float):
            rtol = light if name == "stain_strength" else 1e-5
            np.testing.assert_allclose(row[name], expected[name], rtol=rtol, err_msg=name)
        else:
            assert row[name] == expected[name], name


# The acts


def test_a_cell_is_added_by_a_click_and_kept_off_its_neighbours(study: Study) -> None:
    before, ids = study.labels(FIELD), _ids(study)
    number = study.next_number(FIELD)
    y, x = _free_point(study)
    cell = edits.add_at(study, FIELD, y, x)
    assert cell == cell_id(FIELD, number)
    after = study.labels(FIELD)
    assert after[y, x] == number
    np.testing.assert_array_equal(after[before > 0], before[before > 0])
    _check_row(study, cell)
    assert _ids(study) == [*ids, cell]
    with pytest.raises(InputError, match=f"{cell} is there already"):
        edits.add_at(study, FIELD, y, x)
    with pytest.raises(InputError, match="outside the field"):
        edits.add_at(study, FIELD, -2, 5)


def test_a_cell_is_added_by_a_box(study: Study) -> None:
    y, x = _free_point(study)
    cell = edits.add_box(study, FIELD, (y - 15, x - 12, y + 15, x + 12))
    row = study.cells.obs.loc[cell]
    assert y - 16 <= row["y0"] < row["y1"] <= y + 16
    assert x - 13 <= row["x0"] < row["x1"] <= x + 13
    _check_row(study, cell)
    for box in ((5, 5, 5, 9), (-9, -9, -2, -2), (y - 3, x - 3, y + 3, x + 3)):
        with pytest.raises(InputError, match=r"empty or lies outside|no room"):
            edits.add_box(study, FIELD, box)


def test_cells_are_merged_and_take_the_label_on_which_they_agree(study: Study) -> None:
    first, second, *_ = _ids(study)
    labels, nuclei = study.labels(FIELD), study.nuclei(FIELD)
    study.label([first, second], "blast")
    cell = edits.merge(study, [second, first])
    after = study.labels(FIELD)
    union = np.isin(labels, [int(one.rpartition(":")[2]) for one in (first, second)])
    assert (after[union] == after.max()).all()
    np.testing.assert_array_equal(study.nuclei(FIELD) > 0, (nuclei > 0) & (after > 0))
    obs = study.cells.obs
    assert obs.loc[[first, second, cell], "deleted"].tolist() == [True, True, False]
    assert obs.at[cell, "label"] == "blast"
    assert obs.at[cell, "label_by"] != ""
    _check_row(study, cell)
    study.undo()
    np.testing.assert_array_equal(study.labels(FIELD), labels)
    study.label(first, "monocyte")
    cell = edits.merge(study, [first, second])
    assert study.cells.obs.at[cell, "label"] == "", "they disagree"


def test_a_cell_is_split_and_its_parts_inherit(study: Study) -> None:
    cell = _ids(study)[0]
    labels, nuclei = study.labels(FIELD), study.nuclei(FIELD)
    number = int(cell.rpartition(":")[2])
    study.label(cell, "blast")
    larger, smaller = edits.split(study, cell, _across(study, cell))
    after = study.labels(FIELD)
    assert _area(after, larger) >= _area(after, smaller) > 0
    assert _area(after, larger) + _area(after, smaller) == (labels == number).sum()
    np.testing.assert_array_equal((after > 0), (labels > 0))
    np.testing.assert_array_equal(study.nuclei(FIELD) > 0, nuclei > 0)
    assert study.cells.obs.loc[[cell, larger, smaller], "deleted"].tolist() == [True, False, False]
    assert study.cells.obs.loc[[larger, smaller], "label"].tolist() == ["blast", "blast"]
    for part in (larger, smaller):
        _check_row(study, part)
    with pytest.raises(StudyError, match="deleted"):
        edits.split(study, cell, _across(study, cell))


def test_one_act_takes_over_all_that_was_painted(study: Study) -> None:
    shrunk, gone, *_ = _ids(study)
    labels, nuclei = study.labels(FIELD), study.nuclei(FIELD)
    one, other = (int(cell.rpartition(":")[2]) for cell in (shrunk, gone))
    painted = labels.copy()
    middle = int(study.cells.obs.at[shrunk, "x"])
    painted[:, middle:][labels[:, middle:] == one] = 900
    painted[labels == other] = 0
    entries = (
        len((study.path / "edits.jsonl").read_bytes().splitlines()) if (study.path / "edits.jsonl").exists() else 0
    )
    number = study.next_number(FIELD)
    assert edits.repaint(study, FIELD, painted) == [shrunk, cell_id(FIELD, number)]
    assert len((study.path / "edits.jsonl").read_bytes().splitlines()) == entries + 1
    painted[painted == 900] = number
    np.testing.assert_array_equal(study.labels(FIELD), painted)
    expected = np.where((nuclei > 0) & np.isin(painted, (one, number)), painted, 0)
    np.testing.assert_array_equal(np.where(np.isin(painted, (one, number)), study.nuclei(FIELD), 0), expected)
    assert study.cells.obs.at[gone, "deleted"]
    for cell in (shrunk, cell_id(FIELD, number)):
        _check_row(study, cell)
    assert edits.repaint(study, FIELD, painted) == []
    study.undo()
    np.testing.assert_array_equal(study.labels(FIELD), labels)
    np.testing.assert_array_equal(study.nuclei(FIELD), nuclei)


def test_a_nucleus_can_be_painted_alone(study: Study) -> None:
    cell = _ids(study)[0]
    labels, nuclei = study.labels(FIELD), study.nuclei(FIELD)
    number = int(cell.rpartition(":")[2])
    painted = np.where(nuclei == number, 0, nuclei)
    ys, xs = np.nonzero(labels == number)
    painted[ys[:30], xs[:30]] = number
    assert edits.repaint(study, FIELD, labels, painted) == [cell]
    np.testing.assert_array_equal(study.nuclei(FIELD) == number, painted == number)
    np.testing.assert_array_equal(study.labels(FIELD), labels)
    assert study.cells.obs.at[cell, "nucleus_area_px"] == 30


def test_a_part_of_the_field_can_be_painted_alone(study: Study) -> None:
    cell = _ids(study)[0]
    labels, number = study.labels(FIELD), int(cell.rpartition(":")[2])
    y0, x0, y1, x1 = study.cells.obs.loc[cell, ["y0", "x0", "y1", "x1"]]
    box = (int(y0) + 3, int(x0) + 3, min(int(y1) + 9, 300), min(int(x1) + 9, 360))
    part = labels[box[0] : box[2], box[1] : box[3]].copy()
    part[:4, :4] = 0
    ground = np.argwhere(part == 0)[-12:]
    part[tuple(ground.T)] = 777
    other = int(_ids(study)[-1].rpartition(":")[2])
    part[tuple(np.argwhere(part == 0)[-5:].T)] = other  # a cell that may lie elsewhere keeps its pixels there
    new = study.next_number(FIELD)
    expected = labels.copy()
    expected[box[0] : box[2], box[1] : box[3]] = np.where(part == 777, new, part)
    changed = edits.repaint(study, FIELD, part, box=box)
    np.testing.assert_array_equal(study.labels(FIELD), expected)
    assert {cell, cell_id(FIELD, other), cell_id(FIELD, new)} <= set(changed)
    assert _area(expected, cell) != (labels == number).sum()
    for one in changed:
        _check_row(study, one)
    with pytest.raises(InputError, match="leaves the field field0"):
        edits.repaint(study, FIELD, part, box=(0, 0, 301, 20))
    with pytest.raises(InputError, match="give"):
        edits.repaint(study, FIELD, part, box=(0, 0, 20, 20))


@pytest.mark.parametrize(
    ("act", "match"),
    [
        (lambda s, ids: edits.merge(s, ids[:1]), "at least two"),
        (lambda s, ids: edits.merge(s, [ids[0], ids[0]]), "at least two"),
        (lambda s, ids: edits.merge(s, [ids[0], _ids(s, "field1")[0]]), "lie in the fields field0, field1"),
        (lambda s, ids: edits.merge(s, [ids[0], "field0:99999"]), "has no cell"),
        (lambda s, ids: edits.split(s, ids[0], [(0, 0), (0, 1)]), "does not part"),
        (lambda s, ids: edits.repaint(s, FIELD, np.zeros((3, 3), int)), r"\(3, 3\)"),
        (lambda s, ids: edits.repaint(s, FIELD, np.zeros((300, 360))), "whole numbers"),
        (lambda s, ids: edits.repaint(s, FIELD, np.full((300, 360), -1)), "-1"),
        (lambda s, ids: edits.add_at(s, "nowhere", 3, 3), "no field 'nowhere'"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(
    study: Study, act: Callable[[Study, list[str]], object], match: str
) -> None:
    with pytest.raises(DinoBloomError, match=match):
        act(study, _ids(study))
    assert not (study.path / "edits.jsonl").exists()


def test_a_large_picture_is_read_around_the_cell_only(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "WHOLE_PX", 0)
    monkeypatch.setattr(edits, "AROUND_UM", 2.0)
    cell = _ids(study)[-1]
    for part in edits.split(study, cell, _across(study, cell)):
        _check_row(study, part, light=0.02)
    y, x = _free_point(study)
    made = edits.add_box(study, FIELD, (y - 15, x - 12, y + 15, x + 12))
    assert y - 16 <= study.cells.obs.at[made, "y0"] < y
    _check_row(study, made, light=0.02)


# Later steps


def test_only_what_changed_is_cut_and_embedded_again_and_the_count_follows(
    smears: Path, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Study.open(copied) as study:
        n = study.cells.n_obs
        cell = _ids(study)[0]
        old_crops, old = np.asarray(open_crops(study)[:]), np.asarray(study.cells.X)
        parts = edits.split(study, cell, _across(study, cell))
        study.label(list(parts), "blast")
    monkeypatch.setattr(segment, "_segmented", None)  # the segmentation is not asked
    outcome = again(smears, copied)
    assert set(outcome.seconds) == {"read", "crop", "embed", "map", "classify", "differential", "report"}
    with Study.open(copied, read_only=True) as study:
        crops, cells = np.asarray(open_crops(study)[:]), study.cells
        assert cells.n_obs == n + 2
        np.testing.assert_array_equal(crops[:n], old_crops)
        assert crops[n:].any(axis=(1, 2, 3)).all()
        np.testing.assert_allclose(cells.X[:n], old, atol=1e-5)
        assert np.isfinite(cells.X).all()
        assert np.isfinite(cells.obsm["X_umap"][~cells.obs["deleted"]]).all()
        assert (cells.obs.loc[list(parts), "predicted"] != "").all()
    counts = read_csv(copied / "tables" / "differential.csv")
    assert counts.loc[counts["class"] == "blast", "n"].max() == 2
    assert again(smears, copied).seconds == {}


def test_undoing_all_gives_the_counts_of_the_undisturbed_run(
    smears: Path, finished: Path, copied: Path, tables: Callable[[Path], dict[str, str]]
) -> None:
    with Study.open(copied) as study:
        first, second, *_ = _ids(study)
        y, x = _free_point(study)
        edits.add_at(study, FIELD, y, x)
        edits.merge(study, [first, second])
    again(smears, copied)
    with Study.open(copied) as study:
        while study.undo():
            pass
        masks = study.labels(FIELD)
    again(smears, copied)
    assert tables(copied)["differential.csv"] == tables(finished)["differential.csv"]
    with Study.open(finished, read_only=True) as untouched, Study.open(copied, read_only=True) as study:
        np.testing.assert_array_equal(masks, untouched.labels(FIELD))
        old, new = untouched.cells.obs, study.cells.obs
        names = ["y0", "x0", "y1", "x1", *MEASURES, "label", "deleted", "predicted", "pixel_size_um"]
        pd.testing.assert_frame_equal(new[names].iloc[: len(old)], old[names])
        assert new["deleted"].iloc[len(old) :].all(), "rows of cells that were made stay, deleted"


def test_a_lost_cell_table_comes_back_with_what_people_drew(smears: Path, copied: Path) -> None:
    with Study.open(copied) as study:
        cell = _ids(study)[0]
        parts = edits.split(study, cell, _across(study, cell))
        study.label(parts[0], "blast")
    again(smears, copied)
    with Study.open(copied, read_only=True) as study:
        before, labels = study.cells.obs.copy(), study.labels(FIELD)
    (copied / "cells.h5ad").unlink()
    again(smears, copied)
    with Study.open(copied, read_only=True) as study:
        pd.testing.assert_frame_equal(study.cells.obs, before)
        np.testing.assert_array_equal(study.labels(FIELD), labels)


# Segmenting again


def _found_again(study: Study, masks: FieldMasks, table: pd.DataFrame) -> None:
    """Store these cells as a new segmentation of the field and rebuild the table."""
    record = study.field(FIELD)
    _, text, key = load_masks(study.masks_path(FIELD))
    scale = load_cells(study, record).scale
    settled_masks, settled_table = settled(study, record, masks, table)
    named = {"pixel_size_um": scale.pixel_size_um, "source": scale.source, "red": scale.red_cells}
    text = settled_table.assign(**{f"scale_{k}": v for k, v in named.items()}).to_json(orient="table", index=False)
    study.save_masks(FIELD, settled_masks, text, key)
    study.save_cells(rebuilt(study, segment.usable(study)))


def _machine(study: Study) -> tuple[FieldMasks, pd.DataFrame]:
    """What the segmentation found in the finished run, with other numbers and in another order."""
    cells = load_cells(study, study.field(FIELD))
    order = np.arange(len(cells.masks))[::-1]
    found = replace(cells.masks.take(order.tolist()), numbers=np.arange(1, len(order) + 1, dtype=np.int32) + 50)
    return found, cells.table.iloc[order].reset_index(drop=True)


def test_what_people_did_outlives_a_new_segmentation(study: Study) -> None:
    found = _machine(study)
    merged_1, merged_2, repainted, deleted, *_ = _ids(study)
    labels = study.labels(FIELD)
    merged = edits.merge(study, [merged_1, merged_2])
    painted = study.labels(FIELD)
    number = int(repainted.rpartition(":")[2])
    painted[(painted == 0) & (np.roll(labels == number, 4, axis=0))] = number
    assert edits.repaint(study, FIELD, painted) == [repainted]
    study.delete(deleted)
    y, x = _free_point(study, 15)
    added = edits.add_at(study, FIELD, y, x)
    study.label(repainted, "blast")
    drawn, obs = study.labels(FIELD), study.cells.obs.copy()
    _found_again(study, *found)
    np.testing.assert_array_equal(study.labels(FIELD), drawn)
    pd.testing.assert_frame_equal(study.cells.obs, obs)
    assert {merged, repainted, added} <= set(_ids(study))
    while study.undo():
        pass
    np.testing.assert_array_equal(study.labels(FIELD), labels)


def test_a_deleted_cell_does_not_come_back_though_it_was_missed_once(study: Study) -> None:
    masks, table = _machine(study)
    cell = _ids(study)[0]
    study.delete(cell)
    drawn = study.labels(FIELD)
    keep = [i for i in range(len(masks)) if i != len(masks) - 1]
    _found_again(study, masks.take(keep), table.iloc[keep])
    np.testing.assert_array_equal(study.labels(FIELD), drawn)
    _found_again(study, masks, table)
    np.testing.assert_array_equal(study.labels(FIELD), drawn)
    assert study.cells.obs.index[study.cells.obs["field"] == FIELD].is_unique
    study.undo()
    assert cell in _ids(study)


def test_an_addition_that_was_taken_back_says_nothing_of_the_place(study: Study) -> None:
    masks, table = _machine(study)
    y, x = _free_point(study)
    added = edits.add_at(study, FIELD, y, x)
    (shape,) = study.shapes([added]).values()
    study.undo()
    cell, nucleus = shape.bitmaps()
    there = FieldMasks(np.asarray([shape.box], np.int32), np.asarray([999], np.int32), [cell], [nucleus])
    number = study.next_number(FIELD)
    _found_again(study, joined(masks, there), pd.concat([table, table.iloc[:1]], ignore_index=True))
    assert study.labels(FIELD)[y, x] == number, "a new cell, not the one that was taken back"
    assert study.cells.obs.at[added, "deleted"]


def test_a_found_cell_under_drawn_ones_is_the_same_stuff(study: Study) -> None:
    _, table = _machine(study)
    cell = _ids(study)[0]
    larger, smaller = edits.split(study, cell, _across(study, cell))
    n = len(_ids(study))
    shape = study.hand_shapes()[smaller]
    half, core = shape.bitmaps()
    thin = half.copy()
    thin[::2] = False  # less than half of the part, and nothing else: no match by overlap
    there = FieldMasks(np.asarray([shape.box], np.int32), np.asarray([999], np.int32), [thin], [core & thin])
    _found_again(study, there, table.iloc[:1])
    assert {larger, smaller} <= set(_ids(study))
    assert len(_ids(study)) == 2 < n
    assert study.cells.obs.loc[study.cells.obs["field"] == FIELD, "gone"].sum() == n - 2


def test_hand_labels_of_cells_that_are_not_found_again_are_listed_and_kept(
    study: Study, smears: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks, table = _machine(study)
    lost, other, *_ = _ids(study)
    study.label([lost, other], "blast")
    keep = list(range(len(masks) - 1))
    _found_again(study, masks.take(keep), table.iloc[keep])
    assert study.orphans == [lost]
    assert study.cells.obs.loc[lost, ["label", "deleted", "gone"]].tolist() == ["blast", True, True]
    study.close()
    outcome = again(smears, study.path)
    assert set(outcome.seconds) == {"read", "differential", "report"}
    assert outcome.study.orphans == [lost]
    summarise(outcome)
    assert f"no longer found: {lost}" in capsys.readouterr().err
    report = (study.path / "report.html").read_text(encoding="utf-8")
    assert "1 cell named by a person and not found again" in report
    assert lost in report


def test_a_cell_that_was_undeleted_and_is_not_found_again_stays_gone(study: Study) -> None:
    masks, table = _machine(study)
    cell = _ids(study)[0]
    study.delete(cell)
    study.undo()
    keep = list(range(len(masks) - 1))
    _found_again(study, masks.take(keep), table.iloc[keep])
    assert cell not in _ids(study)
    study.reload()
    assert cell not in _ids(study)


def test_cells_whose_masks_were_lost_keep_their_ids_by_their_boxes(study: Study) -> None:
    masks, table = _machine(study)
    cell, hidden, *_ = ids = _ids(study)
    parts = edits.split(study, cell, _across(study, cell))
    study.delete(hidden)
    labels = study.labels(FIELD)
    study.masks_path(FIELD).unlink()
    found, _ = settled(study, study.field(FIELD), masks, table)
    assert sorted(cell_id(FIELD, n) for n in found.numbers.tolist()) == sorted(ids)
    study.save_masks(FIELD, found, "{}", "k")
    np.testing.assert_array_equal(study.labels(FIELD), labels)
    assert set(parts) <= set(_ids(study))


def test_a_cell_keeps_its_number_from_an_overlap_of_one_half_on(study: Study) -> None:
    masks, table = _machine(study)
    last = len(masks) - 1
    cell = _ids(study)[0]
    pixels = np.flatnonzero(masks.cells[last].ravel())
    for share, kept in ((0.55, True), (0.45, False)):
        part = np.zeros(masks.cells[last].size, bool)
        part[pixels[: round(share * len(pixels))]] = True
        smaller = part.reshape(masks.cells[last].shape)
        one = FieldMasks(masks.boxes[last:], masks.numbers[last:], [smaller], [smaller])
        found, _ = settled(study, study.field(FIELD), one, table.iloc[last:])
        assert (cell_id(FIELD, int(found.numbers[0])) == cell) is kept


def test_the_pipeline_numbers_what_it_finds_as_described(smears: Path, copied: Path) -> None:
    with Study.open(copied) as study:
        cell, other, *_ = _ids(study)
        parts = edits.split(study, cell, _across(study, cell))
        study.delete(other)
        labels = study.labels(FIELD)
        size = float(study.cells.obs["pixel_size_um"].iloc[0])
    outcome = again(smears, copied, pixel_size_um=round(size * 1.02, 4))  # other settings: everything is found again
    assert "segment" in outcome.seconds
    with Study.open(copied, read_only=True) as study:
        living = _ids(study)
        assert set(parts) <= set(living)
        assert not {cell, other} & set(living)
        after = study.labels(FIELD)
        for part in parts:
            assert _area(after, part) == _area(labels, part)
