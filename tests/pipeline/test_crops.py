"""The crop step: what lies in ``crops.zarr``, what is cut again, and what a stop in between leaves behind."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from PIL import Image

from napari_dinobloom.cells.crop import Cutter, crop
from napari_dinobloom.errors import AtlasError, ImageError, InputError, StudyError
from napari_dinobloom.io import crops as store
from napari_dinobloom.io.crops import BLACK, BYTES_EACH, KEYS, ROWS, CropFiles
from napari_dinobloom.io.fields import FieldRecord
from napari_dinobloom.io.masks import FieldMasks
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline import crops, run
from napari_dinobloom.pipeline.crops import FILE, iter_crop_study, open_crops, policy_of, read_crop, stored_keys
from napari_dinobloom.pipeline.settings import RunSettings, resolve
from napari_dinobloom.progress import drain

COUNT = 150
FIELDS = {"one": (400, 500), "two": (300, 350)}


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    """Two fields with 75 cells each, their rows in turn."""
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    with Study.create(tmp_path / "s.dinobloom") as made:
        root, records, parts = made.add_root(tmp_path / "in"), [], []
        for name, (height, width) in FIELDS.items():
            Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(
                tmp_path / "in" / f"{name}.png"
            )
            records.append(FieldRecord(id=name, file=f"{name}.png", root=root, sha256="0" * 64, height=height,
                                       width=width, slide=name, patient=name))  # fmt: skip
            y, x = rng.integers(0, height - 20, COUNT // 2), rng.integers(0, width - 20, COUNT // 2)
            part = pd.DataFrame({"y0": y, "x0": x, "y1": y + 20, "x1": x + 18, "field": name, "slide": name})
            parts.append(part.assign(cell_id=[f"{name}:{n:05d}" for n in range(1, len(part) + 1)], patient=name))
        made.update(fields=records)
        table = pd.concat(parts).sort_values("x0", kind="stable").assign(pixel_size_um=0.2, area_px=360, quality="ok")
        table = table.assign(y=table.y0 + 10.0, x=table.x0 + 9.0, deleted=False).set_index("cell_id", drop=False)
        adata = AnnData(obs=table)
        adata.obsm["spatial"] = table[["x", "y"]].to_numpy(np.float32)
        made.save_cells(adata)
        for name in FIELDS:
            boxes = table.loc[table["field"] == name, ["y0", "x0", "y1", "x1"]].to_numpy(np.int32)
            numbers = [int(text[-5:]) for text in table.index[table["field"] == name]]
            full = [np.ones((20, 18), bool)] * len(boxes)
            made.save_masks(name, FieldMasks(boxes, np.asarray(numbers, np.int32), full, full), "{}", "key")
        yield made


def expected(study: Study, settings: RunSettings) -> np.ndarray:
    """Crops as the public function cuts them, each field by itself."""
    obs, policy = study.cells.obs, policy_of(settings)
    found = np.empty((len(obs), 224, 224, 3), np.uint8)
    for field in FIELDS:
        rows = np.flatnonzero(obs["field"] == field)
        masks = study.masks(field) if policy.neighbours == "mask" else None
        found[rows] = crop(study.read_field(field).load(), obs.iloc[rows], policy=policy, masks=masks)
    return found


def change(study: Study, row: int, **values: object) -> None:
    """Change one row of the cell table."""
    adata = study.cells
    for name, value in values.items():
        adata.obs.loc[adata.obs.index[row], name] = value
    study.save_cells(adata)


@pytest.fixture
def cut_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every crop that is cut."""
    seen: list[int] = []
    real = Cutter.cut
    monkeypatch.setattr(Cutter, "cut", lambda self, row, out: seen.append(row) or real(self, row, out))
    return seen


@pytest.mark.parametrize(
    "settings",
    [
        RunSettings(),
        RunSettings(interpolation="lanczos"),
        RunSettings(fov_diameters=2.0),
        RunSettings(mask_neighbours=True),
        RunSettings(cells=True),
    ],
    ids=["default", "lanczos", "diameters", "masked", "whole"],
)
def test_the_store_holds_what_the_public_function_cuts_row_for_row(study: Study, settings: RunSettings) -> None:
    drain(iter_crop_study(study, settings))
    stored = open_crops(study)
    assert stored.shape == (COUNT, 224, 224, 3)
    assert np.array_equal(stored[...], expected(study, settings))
    assert len(set(stored_keys(study).tolist())) == COUNT


def test_fast_and_slow_code_fill_the_same_store(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    drain(iter_crop_study(study, RunSettings()))
    slow = open_crops(study)[...]
    monkeypatch.setattr(crops, "MANY", 1)
    drain(iter_crop_study(study, RunSettings(interpolation="bicubic")))
    drain(iter_crop_study(study, RunSettings()))
    assert np.array_equal(open_crops(study)[...], slow)


def test_only_rows_that_changed_are_cut_again(study: Study, cut_rows: list[int]) -> None:
    drain(iter_crop_study(study, RunSettings()))
    assert len(cut_rows) == COUNT
    change(study, ROWS + 5, y0=7, y1=27)
    drain(iter_crop_study(study, RunSettings()))
    assert len(cut_rows) == COUNT + 1
    drain(iter_crop_study(study, RunSettings(interpolation="bicubic")))
    assert len(cut_rows) == 2 * COUNT + 1
    change(study, 3, y0=9, y1=29)
    drain(iter_crop_study(study, RunSettings(interpolation="bicubic")))
    assert len(cut_rows) == 2 * COUNT + 2
    assert np.array_equal(open_crops(study)[...], expected(study, RunSettings(interpolation="bicubic")))


def test_a_file_that_is_not_whole_is_cut_again(
    study: Study, cut_rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "CHUNKS", 1)
    drain(iter_crop_study(study, RunSettings()))
    before = open_crops(study)[...]
    files = CropFiles.of(study.path / FILE)
    files.path(1).write_bytes(b"torn")
    files.path(0).unlink()
    drain(iter_crop_study(study, RunSettings()))
    assert len(cut_rows) == COUNT + 2 * ROWS
    assert np.array_equal(open_crops(study)[...], before)


def as_before(study: Study) -> None:
    """Put the store into the layout of earlier versions: a file for each chunk of 64, keys in the attributes."""
    import zarr

    pictures, keys = open_crops(study)[...], stored_keys(study)
    shutil.rmtree(study.path / FILE)
    array = zarr.create_array(
        study.path / FILE, shape=pictures.shape, chunks=(ROWS, 224, 224, 3), dtype="uint8", compressors=None
    )
    array[...] = pictures
    array.attrs["rows"] = [f"{key:016x}" for key in keys.tolist()]


def test_a_store_of_before_is_read_and_becomes_shards_when_a_cell_changes(study: Study, cut_rows: list[int]) -> None:
    drain(iter_crop_study(study, RunSettings()))
    pictures, keys = open_crops(study)[...], stored_keys(study)
    as_before(study)
    assert len(list((study.path / FILE).rglob("0"))) > 3
    assert np.array_equal(stored_keys(study), keys)
    assert np.array_equal(np.stack([read_crop(study, row) for row in range(COUNT)]), pictures)
    change(study, 70, y0=9, y1=29)
    drain(iter_crop_study(study, RunSettings()))
    assert len(cut_rows) == COUNT + 1
    assert sorted(path.name for path in (study.path / FILE).iterdir()) == ["c.0.0.0.0", KEYS, "zarr.json"]
    assert np.array_equal(open_crops(study)[...], expected(study, RunSettings()))
    assert (stored_keys(study) != keys).nonzero()[0].tolist() == [70]


def test_files_are_few_and_every_picture_is_read_at_its_place(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHUNKS", 2)
    drain(iter_crop_study(study, RunSettings()))
    pictures = expected(study, RunSettings())
    assert (
        len([path for path in (study.path / FILE).rglob("*") if path.is_file()]) == 2 + 2
    )  # pictures, keys, zarr.json
    for row in np.random.default_rng(0).permutation(COUNT).tolist():
        assert read_crop(study, row).tobytes() == pictures[row].tobytes()
    assert not read_crop(study, COUNT).any()
    stored = open_crops(study)
    assert (stored.shards[0], stored.chunks[0]) == (2 * ROWS, ROWS)
    assert np.array_equal(stored.oindex[[0, 63, 64, 127, 128, COUNT - 1]], pictures[[0, 63, 64, 127, 128, COUNT - 1]])
    assert CropFiles.of(study.path / FILE).path(1).stat().st_size < (ROWS + 1) * BYTES_EACH, "no room for rows to come"


def test_files_without_a_change_are_linked_and_new_rows_go_behind(
    study: Study, cut_rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "CHUNKS", 1)
    whole = study.cells
    study.save_cells(whole[: COUNT - 30].copy())
    drain(iter_crop_study(study, RunSettings()))
    before = CropFiles.of(study.path / FILE)
    kept = before.path(0).stat().st_ino
    study.save_cells(whole)
    drain(iter_crop_study(study, RunSettings()))
    assert len(cut_rows) == COUNT
    assert CropFiles.of(study.path / FILE).path(0).stat().st_ino == kept
    assert np.array_equal(open_crops(study)[...], expected(study, RunSettings()))


def test_a_kill_between_the_files_and_the_keys_leaves_the_old_store(study: Study) -> None:
    drain(iter_crop_study(study, RunSettings()))
    before, keys = open_crops(study)[...], stored_keys(study)
    program = (
        "import os, sys, numpy\n"
        "from napari_dinobloom.io.study import Study\n"
        "from napari_dinobloom.pipeline.crops import iter_crop_study\n"
        "from napari_dinobloom.pipeline.settings import RunSettings\n"
        "from napari_dinobloom.progress import drain\n"
        "numpy.save = lambda *a, **k: os.kill(os.getpid(), 9)\n"
        "drain(iter_crop_study(Study.open(sys.argv[1]), RunSettings(interpolation='bicubic')))\n"
    )
    path = study.path
    study.close()
    killed = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert killed.returncode != 0
    assert len(list(path.glob(".crops.zarr*"))) == 1
    with Study.open(path) as again:
        assert np.array_equal(stored_keys(again), keys)
        assert np.array_equal(open_crops(again)[...], before)
        drain(iter_crop_study(again, RunSettings(interpolation="bicubic")))
        assert np.array_equal(open_crops(again)[...], expected(again, RunSettings(interpolation="bicubic")))
    assert not list(path.glob(".crops.zarr*"))


@pytest.mark.parametrize("damage", ["keys", "description", "compressed"])
def test_a_store_that_cannot_be_used_is_said_and_cut_again(study: Study, cut_rows: list[int], damage: str) -> None:
    drain(iter_crop_study(study, RunSettings()))
    place = study.path / FILE
    if damage == "keys":
        np.save(place / KEYS, np.zeros(3))
    elif damage == "description":
        (place / "zarr.json").write_text("[]", encoding="utf-8")
    else:
        import zarr

        shutil.rmtree(place)
        zarr.create_array(place, shape=(COUNT, 224, 224, 3), chunks=(ROWS, 224, 224, 3), dtype="uint8")
    with pytest.raises(StudyError, match=r"crops\.zarr: .*run"):
        stored_keys(study)
    drain(iter_crop_study(study, RunSettings()))
    assert len(cut_rows) == 2 * COUNT
    assert np.array_equal(open_crops(study)[...], expected(study, RunSettings()))


def test_a_repainted_neighbour_is_cut_again_only_where_it_counts(study: Study, cut_rows: list[int]) -> None:
    masked = RunSettings(mask_neighbours=True)
    drain(iter_crop_study(study, masked))
    before = stored_keys(study)
    masks = study.masks("one")
    smaller = masks.cells[3].copy()
    smaller[:5] = False
    cells = [smaller if i == 3 else cell for i, cell in enumerate(masks.cells)]
    study.save_masks("one", replace(masks, cells=cells), "{}", "other")
    drain(iter_crop_study(study, masked))
    assert np.array_equal(open_crops(study)[...], expected(study, masked))
    obs = study.cells.obs
    changed = before != stored_keys(study)
    there = obs.loc[f"one:{masks.numbers[3]:05d}"]
    near = (obs["field"] == "one") & (np.hypot(obs["y"] - there["y"], obs["x"] - there["x"]) < 60)
    assert changed[near.to_numpy()].all()
    assert not changed[(obs["field"] == "two").to_numpy()].any()
    assert 0 < changed.sum() < 75
    plain = len(cut_rows)
    drain(iter_crop_study(study, RunSettings()))
    study.save_masks("one", masks, "{}", "key")
    drain(iter_crop_study(study, RunSettings()))
    assert len(cut_rows) == plain + COUNT, "crops that keep neighbours do not rest on masks"


def test_a_stop_leaves_the_old_store(study: Study) -> None:
    drain(iter_crop_study(study, RunSettings()))
    before = open_crops(study)[...]
    steps = iter_crop_study(study, RunSettings(interpolation="bicubic"))
    assert any(report.done > 0 for report in steps)
    steps.close()
    assert np.array_equal(open_crops(study)[...], before)
    assert not list(study.path.glob(".crops.zarr*"))


def test_a_full_disk_leaves_the_old_store(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    drain(iter_crop_study(study, RunSettings()))
    before = open_crops(study)[...]
    real, left = CropFiles.write, [2]

    def write(*arguments: object) -> None:
        left[0] -= 1
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(CropFiles, "write", write)
    with pytest.raises(StudyError, match=r"crops\.zarr: the disk.*full"):
        drain(iter_crop_study(study, RunSettings(interpolation="bicubic")))
    assert np.array_equal(open_crops(study)[...], before)
    assert not list(study.path.glob(".crops.zarr*"))


def test_a_damaged_picture_is_named(study: Study) -> None:
    path = study.locate("two")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=r"two\.png"):
        drain(iter_crop_study(study, RunSettings()))
    assert not (study.path / "crops.zarr").exists()


def test_deleted_cells_of_a_lost_field_are_black_and_the_rest_goes_on(study: Study) -> None:
    path = study.locate("two")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    adata = study.cells
    lost = (adata.obs["field"] == "two").to_numpy()
    adata.obs["deleted"] = lost
    study.save_cells(adata)
    reports = list(iter_crop_study(study, RunSettings()))
    assert reports[-1].done == reports[-1].total == COUNT
    stored = open_crops(study)[...]
    assert not stored[lost].any()
    assert stored[~lost].any(axis=(1, 2, 3)).all()
    keys = stored_keys(study)
    assert set(keys[lost].tolist()) == {BLACK}, "no key says of a black crop that it shows the field"
    assert BLACK not in keys[~lost]
    path.write_bytes(whole)
    drain(iter_crop_study(study, RunSettings()))
    np.testing.assert_array_equal(open_crops(study)[...], expected(study, RunSettings()))


def test_a_tiled_picture_on_the_disk_gives_the_same_crops(study: Study) -> None:
    import tifffile

    drain(iter_crop_study(study, RunSettings()))
    before = open_crops(study)[...]
    path = study.locate("one")
    pixels = np.asarray(Image.open(path))
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb", compression="zlib")
    drain(iter_crop_study(study, RunSettings(interpolation="bicubic")))
    drain(iter_crop_study(study, RunSettings()))
    assert np.array_equal(open_crops(study)[...], before)


def test_crops_that_the_atlas_does_not_know_are_refused_before_the_work(smears: Path, tmp_path: Path) -> None:
    for other in ({"fov_um": 30.0}, {"fov_diameters": 2.0}, {"interpolation": "lanczos"}, {"mask_neighbours": True}):
        with pytest.raises(AtlasError, match=r"other crops.*atlas none"):
            run(smears, tmp_path / "s.dinobloom", **other)
    assert list(tmp_path.iterdir()) == []


def test_a_field_of_view_is_said_one_way() -> None:
    assert resolve({"fov_diameters": 2.0}, {}).fov_diameters == 2.0
    assert resolve({"fov_diameters": 2.0}, {"fov_um": 30.0}).fov_diameters is None
    assert resolve({"fov_um": 30.0}, {"fov_diameters": 2.0}).fov_diameters == 2.0
    with pytest.raises(InputError, match="fov_um or fov_diameters"):
        resolve({}, {"fov_um": 30.0, "fov_diameters": 2.0})
    for wrong in ({"fov_diameters": 99.0}, {"interpolation": "nearest"}, {"cells": True, "mask_neighbours": True}):
        with pytest.raises(InputError):
            resolve({}, wrong)


@pytest.mark.parametrize("command", ["run", "crop"])
def test_the_command_line_hands_every_way_of_cropping_on(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from napari_dinobloom.cli import app
    from napari_dinobloom.pipeline import driver

    seen: dict[str, object] = {}

    def iter_outcome(inputs: object, out: object, **asked: object) -> None:
        seen.update(asked)
        raise InputError("enough")

    monkeypatch.setattr(driver, "iter_outcome", iter_outcome)
    where = ["in", "-o", "s.dinobloom"] if command == "run" else ["s.dinobloom"]
    options = ["--fov-diameters", "2.5", "--interpolation", "lanczos", "--mask-neighbours"]
    assert CliRunner().invoke(app, [command, *where, *options]).exit_code == 2
    assert (seen["fov_diameters"], seen["interpolation"], seen["mask_neighbours"]) == (2.5, "lanczos", True)
    assert seen["fov_um"] is None
    assert CliRunner().invoke(app, [command, *where, "--keep-neighbours", "--fov-um", "30"]).exit_code == 2
    assert (seen["fov_um"], seen["mask_neighbours"], seen["interpolation"]) == (30.0, False, None)


def test_deleting_a_cell_asks_for_new_crops_where_cells_are_the_ruler(smears: Path, tmp_path: Path) -> None:
    from napari_dinobloom.pipeline import driver

    path = tmp_path / "ruler.dinobloom"
    asked = {"until": "crop", "fov_diameters": 2.0, "pixel_size_um": 0.12}
    drain(driver.iter_outcome(smears, path, **asked))
    with Study.open(path) as study:
        study.delete(study.cells.obs_names[0])
    assert "crop" in drain(driver.iter_outcome([], path, until="crop")).seconds
