"""Studies: made, opened, refused, killed, full, moved; the table and its human acts survive all of it."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from napari_dinobloom.errors import StudyError, StudyHeldError
from napari_dinobloom.io import lock
from napari_dinobloom.io.celltable import COLUMNS, cell_id
from napari_dinobloom.io.fields import FieldRecord, make_id
from napari_dinobloom.io.fingerprint import sha256_of
from napari_dinobloom.io.masks import FieldMasks
from napari_dinobloom.io.study import Study

from .pictures import save, stained

unix = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of Unix")


def _pictures(folder: Path, n: int = 2) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return [save(folder / f"f{i}.png", stained(seed=i)) for i in range(n)]


def _study(path: Path, images: Path, n: int = 2) -> Study:
    """A study with `n` fields, open for writing."""
    study = Study.create(path)
    root = study.add_root(images)
    fields = [
        FieldRecord(f"f{i}", picture.name, root, sha256_of(picture), 48, 64, 0.2, "S1", "P1")
        for i, picture in enumerate(_pictures(images, n))
    ]
    study.update(fields=fields)
    return study


def _cells(n: int = 5, dimensions: int = 3, seed: int = 0) -> AnnData:
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame({"cell_id": [cell_id("f0", i + 1) for i in range(n)], "field": "f0", "slide": "S1"})
    obs["area_px"] = rng.integers(1, 999, n)
    obs["confidence"] = rng.random(n)
    obs.index = pd.Index(obs["cell_id"].to_numpy())
    return AnnData(rng.random((n, dimensions), dtype=np.float32), obs=obs)


@pytest.fixture
def study(tmp_path: Path) -> Any:
    with _study(tmp_path / "s.dinobloom", tmp_path / "images") as opened:
        yield opened


# Making and opening


def test_a_study_comes_back_as_it_was_closed(study: Study) -> None:
    study.update(palette={"monocyte": "#E69f00"}, settings={"k": 20, "nested": {"a": [1, None]}}, specimen="marrow")
    study.finish_step("segment", "abc", [study.path / "study.json"])
    study.close()
    with Study.open(study.path) as again:
        assert (again.id, again.name, again.specimen, again.fields) == (study.id, "s", "marrow", study.fields)
        assert (again.palette, again.settings) == (study.palette, {"k": 20, "nested": {"a": [1, None]}})
        assert again.steps["segment"].outputs == ("study.json",)
        assert not again.read_only


def test_study_json_names_no_place_of_this_machine(study: Study, tmp_path: Path) -> None:
    assert str(tmp_path) not in (study.path / "study.json").read_text()


def test_an_empty_folder_is_fine_and_a_full_one_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    Study.create(tmp_path / "empty").close()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").write_text("x")
    for call in (Study.create, Study.open_or_create):
        with pytest.raises(StudyError, match=r"mine: exists and is not a study.*thesis\.doc.*Choose"):
            call(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.doc"]
    with pytest.raises(StudyError, match="is a file"):
        Study.create(tmp_path / "mine" / "thesis.doc")
    with pytest.raises(StudyError, match="holds a study already"):
        Study.create(tmp_path / "empty")
    with pytest.raises(StudyError, match="is not a study"):
        Study.open(tmp_path / "mine")
    with pytest.raises(StudyError, match="there is no such study"):
        Study.open(tmp_path / "none")


def test_a_folder_in_which_making_a_study_was_killed_can_be_used(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / ".lock").write_text(json.dumps({"host": lock._host(), "pid": 2**22 + 1, "since": "", "started": 0.0,
                                              "token": "a" * 32}))  # fmt: skip
    (folder / ".study.json.part-0123").write_text("{")
    with Study.open_or_create(folder) as study:
        assert not study.read_only
    assert sorted(path.name for path in folder.iterdir()) == ["study.json"]


def test_a_second_opener_reads_only_and_knows_who_writes(study: Study) -> None:
    study.save_cells(_cells())
    with Study.open(study.path) as second:
        assert second.read_only
        assert second.held_by is not None
        assert second.cells.n_obs == 5
        for act in (lambda: second.label("f0:00001", "x"), second.undo, lambda: second.update(name="x"),
                    lambda: second.save_cells(_cells()), lambda: second.finish_step("a", "b")):  # fmt: skip
            with pytest.raises(StudyHeldError, match=r"process \d+ on .* has it open for writing"):
                act()
        study.label("f0:00001", "monocyte")
        second.reload()
        assert second.cells.obs["label"].iloc[0] == "monocyte"
    assert not study.read_only


def test_read_only_on_request_takes_no_lock(study: Study) -> None:
    study.close()
    reader = Study.open(study.path, read_only=True)
    with Study.open(study.path) as writer:
        assert not writer.read_only
    with pytest.raises(StudyError, match="opened read-only"):
        reader.exclude("f0:00001")
    with pytest.raises(StudyError, match="was closed"):
        study.update(name="x")


def test_a_folder_that_may_not_be_written_opens_read_only_and_says_so_before_work(
    study: Study, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    study.close()

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(lock, "acquire", refuse)
    opened = Study.open(study.path)
    assert opened.read_only
    assert opened.held_by is None
    with pytest.raises(StudyError, match="may not be written"):
        opened.ensure_writable()
    with pytest.raises(StudyError, match=r"new: may not be written.*Make the folder writable"):
        Study.create(tmp_path / "new")


# What a stranger's study may not hold


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"file": "/etc/passwd"}, "is absolute"),
        ({"file": "../x.png"}, "leaves its folder"),
        ({"file": "a/../../x.png"}, "leaves its folder"),
        ({"file": "C:/x.png"}, "is absolute"),
        ({"file": "\\\\server\\x.png"}, "holds a backslash"),
        ({"file": "a//b.png"}, "empty or"),
        ({"file": "./a.png"}, "'.' part"),
        ({"file": "a\u0000.png"}, "control character"),
        ({"file": "\ud800.png"}, "not valid Unicode"),
        ({"file": ""}, "empty"),
        ({"file": 7}, "must be text"),
        ({"id": "../x"}, "not a field id"),
        ({"id": "con"}, "not a field id"),
        ({"id": "x" * 81}, "not a field id"),
        ({"id": "F1"}, "given twice"),
        ({"root": "/"}, "root is '/'"),
        ({"root": "r0"}, "root is"),
        ({"height": -1}, "height is"),
        ({"height": "9"}, "height is"),
        ({"pixel_size_um": 0}, "pixel_size_um is"),
        ({"pixel_size_um": True}, "pixel_size_um is"),
        ({"sha256": "x"}, "sha256 is"),
        ({"status": "good"}, "status is"),
        ({"slide": "a\nb"}, "slide"),
        ({"patient": ["x"]}, "patient"),
        ({"colour": 1}, "unknown key 'colour'"),
    ],
)
def test_a_field_of_a_stranger_is_checked(study: Study, change: dict[str, object], match: str) -> None:
    study.close()
    path = study.path / "study.json"
    content = json.loads(path.read_text())
    content["fields"][0].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(StudyError, match=match) as caught:
        Study.open(study.path)
    assert "study.json" in str(caught.value)
    assert not (study.path / ".lock").exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"schema": 2}, "newer version.*pip install -U"),
        ({"schema": 0}, "never existed"),
        ({"schema": "1"}, "no 'schema'"),
        ({"id": "../../x"}, "not a uuid"),
        ({"steps": {"a": {"key": "k", "outputs": ["../x"]}}}, "leaves its folder"),
        ({"steps": {"a": "k"}}, "expected an object"),
        ({"palette": {"x": "url(javascript:1)"}}, "expected '#rrggbb'"),
        ({"roots": {"r1": "a/b"}}, "bare folder name"),
        ({"roots": {"../": "a"}}, "is not r1"),
        ({"specimen": "urine"}, "expected 'blood' or 'marrow'"),
        ({"fields": {}}, "must be a list"),
        ({"settings": []}, "must be an object"),
        ({"plugin": "x"}, "unknown key 'plugin'"),
    ],
)
def test_a_manifest_of_a_stranger_is_checked(study: Study, change: dict[str, object], match: str) -> None:
    study.close()
    path = study.path / "study.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(StudyError, match=match):
        Study.open(study.path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\udcff"])
def test_a_damaged_manifest_is_told(study: Study, text: str) -> None:
    study.close()
    (study.path / "study.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(StudyError, match=r"study\.json: is (damaged|not the manifest)"):
        Study.open(study.path)


@unix
@pytest.mark.parametrize(
    "name", ["cells.h5ad", "edits.jsonl", "study.json", "masks", "crops.zarr", "masks/f0.npz", "models/a/b"]
)
def test_links_inside_a_study_are_refused(study: Study, tmp_path: Path, name: str) -> None:
    study.close()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("{}")
    place = study.path / name
    place.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(outside if "." not in place.name else outside / "secret")
    with pytest.raises(StudyError, match="is a link"):
        Study.open(study.path)
    assert [path.name for path in outside.iterdir()] == ["secret"]


@unix
def test_a_link_put_in_after_opening_is_refused_too(study: Study, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    (study.path / "edits.jsonl").symlink_to(tmp_path / "secret")
    with pytest.raises(StudyError, match="is a link"):
        study.cells  # noqa: B018
    (study.path / "masks").symlink_to(tmp_path)
    with pytest.raises(StudyError, match="is a link"):
        study.masks("f0")


def test_the_study_folder_itself_may_be_reached_by_a_link(study: Study, tmp_path: Path) -> None:
    study.close()
    (tmp_path / "link").symlink_to(study.path)
    with Study.open(tmp_path / "link") as again:
        assert again.path == study.path


@pytest.mark.parametrize(
    "kind", ["external link", "external data", "soft link", "huge", "text", "cut", "no ids", "twice"]
)
def test_a_strangers_or_damaged_table_is_refused_with_the_remedy(study: Study, tmp_path: Path, kind: str) -> None:
    import h5py

    study.save_cells(_cells())
    study.close()
    path = study.path / "cells.h5ad"
    if kind == "text":
        path.write_text("not HDF5")
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:3000])
    else:
        with h5py.File(path, "r+") as file:
            if kind == "external link":
                file["uns/leak"] = h5py.ExternalLink("/etc/passwd", "/")
            elif kind == "soft link":
                file["uns/leak"] = h5py.SoftLink("/X")
            elif kind == "external data":
                file.create_dataset("uns/leak", (8,), "u1", external=[(str(tmp_path / "raw"), 0, 8)])
            elif kind == "huge":
                file.create_dataset("uns/leak", (1 << 40,), "u1", chunks=(1 << 20,))
            elif kind == "no ids":
                del file["obs/cell_id"]
                file["obs"].attrs["column-order"] = [n for n in file["obs"].attrs["column-order"] if n != "cell_id"]
            else:
                file["obs/cell_id"][1] = "f0:00001"
    with (
        Study.open(study.path) as opened,
        pytest.raises(StudyError, match=r"cells\.h5ad.*Delete cells\.h5ad and run again"),
    ):
        opened.cells  # noqa: B018


# Images


def test_fields_are_found_read_and_told_when_gone(study: Study, tmp_path: Path) -> None:
    np.testing.assert_array_equal(study.read_field("f1").load(), stained(seed=1))
    (tmp_path / "images" / "f1.png").unlink()
    with pytest.raises(StudyError, match=r"f1\.png: the image of field 'f1' is gone.*remember_root"):
        study.locate("f1")
    with pytest.raises(StudyError, match="has no field 'f9'"):
        study.read_field("f9")


def test_a_moved_folder_is_recognised_by_its_pictures(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_DINOBLOOM_HOME", str(tmp_path / "another machine"))
    study.close()
    moved = tmp_path / "moved" / "pics"
    shutil.copytree(tmp_path / "images", moved)
    shutil.rmtree(tmp_path / "images")
    strange = tmp_path / "strange"
    strange.mkdir()
    for i in range(2):
        save(strange / f"f{i}.png", stained(seed=i + 50))
    with Study.open(study.path) as again:
        with pytest.raises(StudyError, match=r"the folder 'images' .* is not known on this machine.*Run again"):
            again.locate("f0")
        assert again.add_root(strange) == "r2"
        assert again.add_root(moved) == "r1"
        assert again.locate("f0") == moved / "f0.png"
        assert again.add_root(moved) == "r1"
    with Study.open(study.path, read_only=True) as third:
        assert third.locate("f0") == moved / "f0.png"


def test_a_user_without_a_writable_home_can_work(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NAPARI_DINOBLOOM_HOME", str(tmp_path / "file" / "home"))
    root = study.add_root(_pictures(tmp_path / "more")[0].parent)
    study.update(fields=[*study.fields, FieldRecord("g", "f0.png", root)])
    assert study.locate("g") == tmp_path / "more" / "f0.png"


def test_pictures_from_memory_are_kept_in_the_study(study: Study) -> None:
    first = study.keep_picture("../Bild ä:1", stained(seed=1), 0.2)
    assert first == study.path / "fields" / "_Bild_a_1.png"
    assert study.keep_picture("../Bild ä:1", stained(seed=1)) == first
    other = study.keep_picture("../Bild ä:1", stained(seed=2))
    assert other.name == "_Bild_a_1-2.png"
    study.update(fields=[FieldRecord("k", "fields/_Bild_a_1.png", "study")])
    assert study.locate("k") == first
    assert study.read_field("k").pixel_size_um == pytest.approx(0.2, rel=1e-4)
    assert study.add_root(study.path) == "study"


@pytest.mark.parametrize(
    ("name", "taken", "expected"),
    [
        ("Blut Probe 7", [], "Blut_Probe_7"),
        ("a", ["A", "a-2"], "a-3"),
        ("…", [], "field"),
        ("CON", [], "field_CON"),
        ("-rf", [], "rf"),
        (".hidden", [], "hidden"),
        ("x" * 99, ["x" * 80], "x" * 78 + "-2"),
        ("=cmd()", [], "_cmd_"),
        ("Zelle_é", [], "Zelle_e"),
    ],
)
def test_field_ids_are_portable(name: str, taken: list[str], expected: str) -> None:
    assert make_id(name, taken) == expected


# Steps and masks


def test_a_step_is_done_with_its_key_and_while_its_outputs_are_there(study: Study) -> None:
    (study.path / "report.html").write_text("x")
    study.finish_step("report", "key", ["report.html"])
    assert study.step_done("report", "key")
    assert not study.step_done("report", "other")
    assert not study.step_done("map", "key")
    (study.path / "report.html").unlink()
    assert not study.step_done("report", "key")
    with pytest.raises(StudyError, match="leaves its folder"):
        study.finish_step("x", "k", ["../x"])
    with pytest.raises(StudyError, match="cannot be stored as JSON"):
        study.update(settings={"x": float("nan")})
    with pytest.raises(StudyError, match="'colour' cannot be set"):
        study.update(colour=1)
    assert "x" not in study.steps


def test_masks_are_drawn_in_the_size_of_the_field(study: Study) -> None:
    labels = np.zeros((48, 64), np.int32)
    labels[3:9, 4:20], labels[40:, 60:] = 1, 2
    nuclei = np.where(labels == 1, labels, 0)
    study.save_masks("f0", FieldMasks.from_labels(labels, nuclei), "{}", "k")
    np.testing.assert_array_equal(study.labels("f0"), labels)
    np.testing.assert_array_equal(study.nuclei("f0"), nuclei)
    with pytest.raises(StudyError, match=r"f1\.npz: there are no masks"):
        study.masks("f1")


# The table


def test_every_column_comes_back_with_its_dtype_and_value(study: Study) -> None:
    adata = _cells(7)
    rng = np.random.default_rng(1)
    for name, kind in COLUMNS.items():
        if kind == "str" and name not in ("cell_id", "field"):
            adata.obs[name] = ["", "=1+1", "<b>", "ü", "a,b", "0", "None"]
        elif kind == "float32":
            adata.obs[name] = np.array([np.nan, *rng.random(6)], np.float32)
        elif kind == "bool":
            adata.obs[name] = rng.random(7) > 0.5
        elif kind == "int32":
            adata.obs[name] = rng.integers(0, 2**31 - 1, 7).astype(np.int32)
    adata.obs["gate:blasts"] = rng.random(7) > 0.5
    adata.obsm["X_umap"] = rng.random((7, 2), dtype=np.float32)
    adata.uns["dinobloom"] = {"encoder": "starter", "settings": json.dumps([{"a": 1}])}
    study.save_cells(adata)
    expected = study.cells.obs.copy()
    study.reload()
    found = study.cells
    pd.testing.assert_frame_equal(found.obs, expected)
    assert list(found.obs.columns) == [*COLUMNS, "gate:blasts"]
    assert all(found.obs[name].dtype == (object if kind == "str" else kind) for name, kind in COLUMNS.items())
    assert found.obs_names.tolist() == found.obs["cell_id"].tolist()
    np.testing.assert_array_equal(found.X, adata.X)
    np.testing.assert_array_equal(found.obsm["X_umap"], adata.obsm["X_umap"])
    assert found.uns["dinobloom"]["settings"] == '[{"a": 1}]'
    assert found.uns["dinobloom"]["schema"] == 1


def test_a_table_rewritten_by_scanpy_is_still_ours(study: Study) -> None:
    study.save_cells(_cells(40, 6))
    study.close()
    path = study.path / "cells.h5ad"
    adata = anndata.read_h5ad(path)
    adata.obs["group"] = pd.Categorical(np.where(adata.obs["area_px"] > 300, "big", "small"))
    adata.write_h5ad(path)  # as scanpy does: all text becomes categories
    with Study.open(study.path) as again:
        assert again.next_number("f0") == 41
        assert again.cells.obs["field"].dtype == object
        assert isinstance(again.cells.obs["group"].dtype, pd.CategoricalDtype)
        again.save_cells(again.cells)


def test_without_cells_the_table_is_empty_and_complete(study: Study) -> None:
    assert study.cells.n_obs == 0
    assert list(study.cells.obs.columns) == list(COLUMNS)
    study.save_cells(study.cells)
    study.reload()
    assert study.cells.n_obs == 0


def test_numbers_are_never_given_twice(study: Study) -> None:
    assert study.next_number("f0") == 1
    study.save_cells(_cells(5))
    study.save_cells(_cells(2))
    assert study.next_number("f0") == 6
    study.close()
    with Study.open(study.path) as again:
        assert (again.next_number("f0"), again.next_number("f1")) == (6, 1)
    adata = _cells(3)
    adata.obs["cell_id"] = ["f0:00001", "f0:00001", "f0:2"]
    with Study.open(study.path) as again, pytest.raises(StudyError, match="'f0:00001' twice"):
        again.save_cells(adata)


def test_a_part_of_a_table_can_be_saved(study: Study) -> None:
    whole = _cells(5)
    study.save_cells(whole[whole.obs["area_px"] > 0])
    assert study.cells.n_obs == 5
    assert not study.cells.is_view


# Human acts


def test_acts_are_undone_and_redone_over_sessions(study: Study) -> None:
    study.save_cells(_cells())
    study.label(["f0:00001", "f0:00002"], "monocyte")
    study.label("f0:00002", "lymphocyte")
    study.exclude(["f0:00003"])
    by, at = study.cells.obs.loc["f0:00002", ["label_by", "label_at"]]
    assert by
    assert at.endswith("+00:00")
    study.undo()
    study.undo()
    study.close()
    with Study.open(study.path) as again:
        assert again.cells.obs["label"].tolist() == ["monocyte", "monocyte", "", "", ""]
        assert not again.cells.obs["excluded"].any()
        again.redo()
        assert again.cells.obs.loc["f0:00002", ["label", "label_by", "label_at"]].tolist() == ["lymphocyte", by, at]
        again.redo()
        assert again.cells.obs["excluded"].tolist() == [False, False, True, False, False]
        assert again.redo() is None
        again.label("f0:00001", "")
        assert again.cells.obs.loc["f0:00001", ["label", "label_by", "label_at"]].tolist() == ["", "", ""]
        for _ in range(4):
            again.undo()
        assert again.undo() is None
        assert (again.cells.obs["label"] == "").all()


def test_a_study_says_whether_there_is_an_act_to_undo_or_redo(study: Study) -> None:
    study.save_cells(_cells())
    states = [(study.can_undo, study.can_redo)]
    exclude, delete = partial(study.exclude, "f0:00001"), partial(study.delete, "f0:00002")
    for act in (exclude, study.undo, study.redo, study.undo, delete):
        act()
        states.append((study.can_undo, study.can_redo))
    assert states == [(False, False), (True, False), (False, True), (True, False), (False, True), (True, False)]


def test_acts_outlive_a_table_that_is_computed_again(study: Study) -> None:
    study.save_cells(_cells(5))
    study.label("f0:00004", "basophil")
    study.set_review("f0:00001")
    study.delete("f0:00002")
    study.save_cells(_cells(3, seed=9))
    assert study.orphans == ["f0:00004"]
    assert study.cells.obs["reviewed"].tolist() == [True, False, False]
    study.save_cells(_cells(5, seed=9))
    assert study.orphans == []
    assert study.cells.obs["label"].tolist() == ["", "", "", "basophil", ""]
    assert study.cells.obs["deleted"].tolist() == [False, True, False, False, False]


def test_unknown_cells_and_labels_that_are_no_text_are_refused_before_anything_is_written(study: Study) -> None:
    study.save_cells(_cells())
    with pytest.raises(StudyError, match=r"has no cell 'f0:00099' \(1 unknown"):
        study.label(["f0:00001", "f0:00099"], "x")
    with pytest.raises(StudyError, match="label"):
        study.label("f0:00001", "a\nb")
    assert study.label([], "x") is None
    assert not (study.path / "edits.jsonl").exists()


# Kills and full disks


WORK = """
import sys, numpy as np, pandas as pd
from anndata import AnnData
from napari_dinobloom.io.celltable import cell_id
from napari_dinobloom.io.study import Study
study = Study.open(sys.argv[1])
assert not study.read_only, study.held_by
print("open", flush=True)
turn = 0
while True:
    turn += 1
    study.label(cell_id("f0", turn % 5 + 1), f"t{turn}")
    print(turn, flush=True)
    adata = study.cells.copy()
    adata.X = np.full((5, 3), turn, np.float32)
    study.save_cells(adata)
    study.finish_step("step", str(turn), ["cells.h5ad"])
"""


@unix
def test_kill_9_at_random_moments_loses_no_act_and_leaves_a_study_that_opens(study: Study) -> None:
    study.save_cells(_cells())
    study.close()
    chance = random.Random(0)
    written = 0
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WORK, str(study.path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            while not process.stdout.readline():  # at least one act
                pass
            time.sleep(chance.uniform(0, 0.25))
            process.send_signal(signal.SIGKILL)
            said = process.stdout.read().split()
            written += 1 + len(said)
        with Study.open(study.path) as again:
            assert not again.read_only
            values = np.unique(again.cells.X)
            assert len(values) in (1, 15)
            assert len(again._acts().entries) in (written, written + 1)
            written = len(again._acts().entries)
            last = again._acts().entries[-1]
            assert again.cells.obs.loc[last.cells[0], "label"] == last.new["label"]
        assert sorted(p.name for p in study.path.iterdir()) == ["cells.h5ad", "edits.jsonl", "study.json"]


FULL = """
import resource, sys, numpy as np
from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.study import Study
study = Study.open(sys.argv[1])
adata = study.cells.copy()
adata.obsm["big"] = np.random.default_rng(0).random((5, 200_000))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
for call in (lambda: study.save_cells(adata), lambda: study.update(name="x" * 900, settings={"x": "y" * 3_000_000}),
             lambda: study.label([*study.cells.obs_names], "ü" * 900)):
    try:
        call()
    except StudyError as error:
        print(error)
    else:
        print("written")
"""


@unix
def test_a_file_that_the_disk_does_not_take_is_told_and_nothing_is_lost(study: Study) -> None:
    study.save_cells(_cells())
    study.label("f0:00001", "monocyte")
    study.close()
    before = {path.name: path.read_bytes() for path in study.path.iterdir()}
    limit = len(before["edits.jsonl"]) + 300
    shown = subprocess.run(
        [sys.executable, "-c", FULL, str(study.path), str(max(limit, 2000))],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = shown.stdout.splitlines()
    assert shown.returncode == 0, shown.stderr
    assert len(lines) == 3
    for line, name in zip(lines, ("cells.h5ad", "study.json"), strict=False):
        assert name in line
        assert "is full" in line
        assert "Free some space" in line
    after = {path.name: path.read_bytes() for path in study.path.iterdir() if path.name != ".lock"}
    assert {**after, "edits.jsonl": b""} == {**before, "edits.jsonl": b""}
    with Study.open(study.path) as again:
        assert again.cells.obs["label"].iloc[0] in ("monocyte", "ü" * 900)
    assert not list(study.path.glob(".*"))


def test_a_new_row_stands_in_no_gate_and_gates_stay_truth_values() -> None:
    from napari_dinobloom.io.celltable import grown

    adata = _cells()
    adata.obsm["gates"] = np.ones((adata.n_obs, 2), bool)
    rows = adata.obs.iloc[:1].assign(cell_id="f0:00099")
    more = grown(adata, rows)
    assert more.obsm["gates"].dtype == bool
    assert more.obsm["gates"].all(axis=1).tolist() == [True] * adata.n_obs + [False]
