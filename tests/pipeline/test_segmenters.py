"""The segmenter as a setting of a run: names, licences, and cells that go out to QuPath."""

import getpass
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_dinobloom.cells.cellpose import LICENCE
from napari_dinobloom.cli import app
from napari_dinobloom.errors import InputError, LicenceError
from napari_dinobloom.io.annotations import read_annotations
from napari_dinobloom.io.annotations.geojson import write_geojson
from napari_dinobloom.io.annotations.polygons import fill
from napari_dinobloom.io.generate import generate_smear
from napari_dinobloom.io.masks import FieldMasks
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline import run
from napari_dinobloom.pipeline.results import iter_report_study
from napari_dinobloom.pipeline.settings import resolve
from napari_dinobloom.progress import drain


@pytest.fixture
def cellpose(tmp_path, monkeypatch):
    """An installed package `cellpose`, as far as anybody asks."""
    (tmp_path / "site" / "cellpose").mkdir(parents=True)
    (tmp_path / "site" / "cellpose" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")


def test_a_licence_is_accepted_once_by_somebody_at_some_time():
    with pytest.raises(LicenceError, match="non-commercial"):
        resolve({}, {"segmenter": "cellpose"})
    accepted = resolve({}, {"segmenter": "cellpose", "accept_licence": True})
    assert accepted.accepted_licence.startswith(f"{LICENCE}; accepted by {getpass.getuser()} at 20")
    again = resolve(accepted.to_dict(), {"segmenter": None})
    assert again.accepted_licence == accepted.accepted_licence
    other = resolve(accepted.to_dict(), {"segmenter": "learned"})
    assert resolve(other.to_dict(), {"segmenter": "cellpose"}).accepted_licence == accepted.accepted_licence
    with pytest.raises(LicenceError):  # terms that are not those of today
        resolve({"segmenter": "cellpose", "accepted_licence": "CC BY 4.0; accepted by me at 2026"}, {})


def test_accepting_is_no_setting_and_nothing_to_accept_stores_nothing():
    settings = resolve({}, {"accept_licence": True})
    assert settings.accepted_licence == ""
    assert "accept_licence" not in settings.to_dict()


def test_the_report_prints_who_accepted_which_licence(copied, tmp_path):
    with Study.open(copied) as study:
        settings = resolve(study.settings, {"segmenter": "cellpose", "accept_licence": True})
        page = drain(iter_report_study(study, settings, None)).read_text(encoding="utf-8")
        assert f'<th scope="row">Segmenter cellpose</th><td>{LICENCE}; accepted by {getpass.getuser()}' in page
        labels = resolve(settings.to_dict(), {"segmenter": str(tmp_path / "secret" / "boxes.csv")})
        page = drain(iter_report_study(study, labels, None)).read_text(encoding="utf-8")
        assert "Segmenter cellpose" not in page
        assert "labels:boxes.csv" in page
        assert "secret" not in page


def test_what_cannot_run_is_refused_before_a_study_is_made(smears, tmp_path, monkeypatch):
    out = tmp_path / "new.dinobloom"
    with pytest.raises(LicenceError):
        run(smears, out, segmenter="cellpose")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install"):
        run(smears, out, segmenter="cellpose", accept_licence=True)
    with pytest.raises(InputError, match="absent: there is no such file or folder"):
        run(smears, out, segmenter=str(tmp_path / "absent"))
    assert not out.exists()


def test_an_open_study_refuses_too(copied, tmp_path):
    with Study.open(copied) as study:
        before = dict(study.settings)
        with pytest.raises(InputError, match="there is no such file or folder"):
            run([], study, segmenter=str(tmp_path / "absent"))
        assert study.settings == before


def test_the_command_line_says_how_to_accept_and_that_two_segmenters_are_one_too_many(smears, tmp_path, cellpose):
    out = str(tmp_path / "new.dinobloom")
    asked = CliRunner().invoke(app, ["segment", str(smears), "-o", out, "--segmenter", "cellpose"])
    assert asked.exit_code == 2
    assert "--accept-licence" in asked.output
    both = CliRunner().invoke(app, ["run", str(smears), "-o", out, "--segmenter", "learned", "--labels", str(tmp_path)])
    assert both.exit_code == 2
    assert "exclude each other" in both.output
    assert not Path(out).exists()


def test_cells_go_to_qupath_and_come_back(copied, tmp_path):
    with Study.open(copied) as study:
        first, second, third = study.cells.obs_names[:3]
        study.label(first, "blast")
        study.exclude(second)
        study.delete(third)
    result = CliRunner().invoke(app, ["export", str(copied), "--out", str(tmp_path / "out"), "--geojson"])
    assert result.exit_code == 0
    with Study.open(copied, read_only=True) as study:
        obs, seen = study.cells.obs, []
        for record in study.fields:
            marks = read_annotations(tmp_path / "out" / f"{record.id}.geojson", (record.height, record.width))
            assert marks.problems == ()
            masks = study.masks(record.id)
            ids = [f"{record.id}:{number:05d}" for number in masks.numbers]
            kept = [row for row, cell in enumerate(ids) if cell not in (second, third)]
            assert len(kept) == len(marks.cells)
            for row, mark in zip(kept, marks.cells, strict=True):
                box = tuple(masks.boxes[row].tolist())
                assert np.array_equal(fill(mark.cell, box), masks.cells[row])
                assert np.array_equal(fill(mark.nucleus, box), masks.nuclei[row])
                cell = obs.loc[ids[row]]
                assert mark.name == ("blast" if ids[row] == first else "" if cell["abstained"] else cell["predicted"])
                seen.append(ids[row])
        assert first in seen
        assert len(seen) == len(obs) - 2


@pytest.fixture
def brought(smears, tmp_path):
    """Folder with the true cells of every field of `smears`, each of a class of its own."""
    for i in range(5):
        smear = generate_smear(i, height=300, width=360, n_white=4, pixel_size_um=0.12)
        masks = FieldMasks.from_labels(smear.labels, smear.nuclei)
        (tmp_path / "brought").mkdir(exist_ok=True)
        write_geojson(
            tmp_path / "brought" / f"field{i}.geojson",
            masks,
            names=[f"{i}:{n}" for n in masks.numbers],
            classes=[f"class {i}-{n}" for n in masks.numbers],
            colours={},
            measurements=[{}] * len(masks),
        )
    return tmp_path / "brought"


def test_brought_cells_become_the_cells_of_the_table(smears, brought, tmp_path):
    with run(smears, tmp_path / "b.dinobloom", until="segment", segmenter=str(brought)) as study:
        obs = study.cells.obs
        for i in range(5):
            truth = generate_smear(i, height=300, width=360, n_white=4, pixel_size_um=0.12)
            rows = obs[obs["field"] == f"field{i}"]
            drawn = study.labels(f"field{i}")
            assert np.array_equal(drawn > 0, truth.labels > 0)
            assert np.array_equal(study.nuclei(f"field{i}") > 0, truth.nuclei > 0)
            for cell, kind in zip(rows["cell_id"], rows["brought_class"], strict=True):
                (label,) = np.unique(truth.labels[drawn == int(cell[-5:])])
                assert kind == f"class {i}-{label}"
        assert (obs["label"] == "").all()
        assert (obs["nucleus_area_px"] > 0).all()
        before = obs.copy()
    (brought / "field0.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    with run([], tmp_path / "b.dinobloom", until="segment") as study:
        after = study.cells.obs
        gone = after["field"] == "field0"
        assert after.index.equals(before.index)
        assert (after["deleted"] == gone).all()
        assert after.loc[~gone, "brought_class"].equals(before.loc[~gone, "brought_class"])


def test_a_file_full_of_bad_entries_is_noted_and_the_study_stays_readable(smears, brought, tmp_path):
    bad = "\n".join(f"{n},{n},{n},{n + 9}" for n in range(300))
    (brought / "field1.geojson").unlink()
    (brought / "field1.csv").write_text(f"x0,y0,x1,y1\n{bad}\n")
    out = tmp_path / "b.dinobloom"
    ran = CliRunner().invoke(app, ["segment", str(smears), "--out", str(out), "--labels", str(brought)])
    assert ran.exit_code == 0
    assert "field1.csv, line 2: the box is 0 x 9 pixels" in ran.output
    assert "(300 notes in all)" in ran.output
    with Study.open(out, read_only=True) as study:
        assert "field1" not in set(study.cells.obs["field"])
        assert study.field("field1").status == "ok"


def test_what_was_found_in_a_picture_that_is_gone_stays(draw, brought, tmp_path):
    for i in range(2):
        draw(tmp_path / "s" / "anna" / f"field{i}.png", i)
    with run(tmp_path / "s", tmp_path / "b.dinobloom", until="segment", segmenter=str(brought)) as study:
        before = study.cells.obs.copy()
    (tmp_path / "s" / "anna" / "field0.png").unlink()
    with run([], tmp_path / "b.dinobloom", until="segment") as study:
        assert study.cells.obs.equals(before)
        assert [record.status for record in study.fields] == ["ok", "ok"]


def test_yes_on_the_command_line_accepts_the_licence_and_runs(smears, tmp_path, cellpose, monkeypatch):
    asked = []

    def outcome(inputs, out, **settings):
        asked.append(settings)
        if not settings["accept_licence"]:
            raise LicenceError("Terms.", "Accept them.")
        raise InputError("as far as this test goes")
        yield

    monkeypatch.setattr("napari_dinobloom.pipeline.driver.iter_outcome", outcome)
    monkeypatch.setattr("typer.confirm", lambda question: True)
    monkeypatch.setattr("napari_dinobloom.console.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    out = str(tmp_path / "new.dinobloom")
    result = CliRunner().invoke(app, ["segment", str(smears), "-o", out, "--segmenter", "cellpose"])
    assert "as far as this test goes" in result.output
    assert [settings["accept_licence"] for settings in asked] == [None, True]


def test_a_note_is_no_problem_and_outlasts_a_stop(smears, brought, tmp_path, monkeypatch):
    from napari_dinobloom.pipeline import driver, segment

    (brought / "field3.geojson").unlink()
    out = tmp_path / "notes.dinobloom"
    stored = segment._store
    done = []

    def store(study, record, *rest):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(record.id)
        stored(study, record, *rest)

    monkeypatch.setattr(segment, "_store", store)
    asked = {"until": "segment", "segmenter": str(brought)}
    with pytest.raises(KeyboardInterrupt):
        drain(driver.iter_outcome(smears, out, **asked))
    monkeypatch.setattr(segment, "_store", stored)
    for _ in range(2):
        outcome = drain(driver.iter_outcome(smears, out, **asked))
        assert outcome.problems == []
        with Study.open(out, read_only=True) as study:
            noted = [record.id for record in study.fields if record.problem]
            assert noted == [record.id for record in study.fields if record.file.endswith("field3.png")]
            assert all(record.status == "ok" for record in study.fields)


def test_the_note_of_a_field_without_marks_comes_and_goes_with_them(smears, brought, tmp_path):
    from napari_dinobloom.pipeline import driver

    (brought / "field3.geojson").unlink()
    out = tmp_path / "turns.dinobloom"
    for segmenter, wanted in (("learned", 0), (str(brought), 1), ("learned", 0)):
        drain(driver.iter_outcome(smears, out, until="segment", segmenter=segmenter))
        with Study.open(out, read_only=True) as study:
            assert sum(bool(record.problem) for record in study.fields) == wanted


def test_marks_inside_a_study_move_with_it(smears, brought, tmp_path):
    from napari_dinobloom.pipeline import driver

    first = tmp_path / "first.dinobloom"
    Study.create(first).close()
    shutil.copytree(brought, first / "brought")
    drain(driver.iter_outcome(smears, first, until="segment", segmenter="brought"))
    second = first.rename(tmp_path / "second.dinobloom")
    outcome = drain(driver.iter_outcome([], second, until="segment"))
    assert outcome.seconds == {}
    assert (outcome.study.cells.obs["brought_class"] != "").all()


def test_tiles_that_a_kill_left_behind_are_swept(smears, copied):
    from napari_dinobloom.pipeline import driver, segment

    with Study.open(copied, read_only=True) as study:
        left = segment._scratch(study, study.fields[0])
        masks = study.masks_path(study.fields[1].id)
    left.mkdir()
    masks.unlink()  # something to do
    with Study.open(copied) as study:
        study.forget_steps(["segment"])
    drain(driver.iter_outcome(smears, copied, until="segment"))
    assert not left.exists()
