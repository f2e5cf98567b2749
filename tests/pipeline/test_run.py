"""The whole way on generated smears: what it makes, what it does again, what it leaves alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from napari_dinobloom.errors import AtlasError, EncoderError, InputError, StudyError
from napari_dinobloom.io.study import Study
from napari_dinobloom.io.tables import NOTE, read_csv
from napari_dinobloom.pipeline import STEPS, RunSettings, run
from napari_dinobloom.pipeline.driver import Outcome, iter_outcome, step_states
from napari_dinobloom.progress import Progress, drain

Draw = Callable[..., Path]
Tables = Callable[[Path], dict[str, str]]


def again(inputs: object, path: Path, **settings: object) -> Outcome:
    """Run and close; what the run did."""
    outcome = drain(iter_outcome(inputs, path, **settings))  # type: ignore[arg-type]
    outcome.study.close()
    return outcome


def test_every_step_leaves_its_result(finished: Path) -> None:
    with Study.open(finished, read_only=True) as study:
        cells = study.cells
        assert set(study.steps) == set(STEPS) - {"read"}
        assert cells.n_obs > 8, "the generated fields hold four white cells each"
        assert cells.X.shape == (cells.n_obs, 192)
        assert np.isfinite(cells.obsm["X_umap"]).all()
        assert set(cells.obs["slide"]) == {"anna", "bert"}
        assert set(cells.obs["predicted"]) != {""}
        for record in study.fields:
            drawn = study.labels(record.id)
            ids = [f"{record.id}:{n:05d}" for n in np.unique(drawn)[1:]]
            assert ids == cells.obs_names[cells.obs["field"] == record.id].tolist()
    assert (finished / "report.html").stat().st_size > 10_000
    for name in ("cells", "differential", "summary"):
        text = (finished / "tables" / f"{name}.csv").read_text(encoding="utf-8")
        assert NOTE in text.splitlines()[0]
    counts = read_csv(finished / "tables" / "differential.csv")
    shares = counts[(counts["level"] == "slide") & counts["in_denominator"]].groupby("slide")["percent"].sum()
    assert shares.round(6).eq(100).all()


def test_a_second_run_does_nothing(smears: Path, copied: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in copied.rglob("*") if p.is_file()}
    assert again(smears, copied).seconds == {}
    assert {p: p.stat().st_mtime_ns for p in copied.rglob("*") if p.is_file()} == before


def test_the_same_inputs_give_the_same_tables(smears: Path, finished: Path, tmp_path: Path, tables: Tables) -> None:
    run([smears / "bert", str(smears / "anna" / "*.png")], tmp_path / "x.dinobloom", slide_from="folder").close()
    one, two = tables(finished), tables(tmp_path / "x.dinobloom")
    assert one["differential.csv"] == two["differential.csv"]
    assert one["X"] == two["X"]


def test_a_new_field_is_all_that_is_segmented(smears: Path, copied: Path, tmp_path: Path, draw: Draw) -> None:
    with Study.open(copied, read_only=True) as study:
        old = study.cells.obs_names.tolist()
    masks = {p.name: p.stat().st_mtime_ns for p in (copied / "masks").iterdir()}
    draw(tmp_path / "carl" / "new.png", seed=77)
    outcome = again([smears, tmp_path / "carl"], copied)
    assert set(outcome.seconds) == set(STEPS)
    kept = {p.name: p.stat().st_mtime_ns for p in (copied / "masks").iterdir() if p.name != "new.npz"}
    assert kept == masks
    with Study.open(copied, read_only=True) as study:
        assert study.cells.obs_names.tolist()[: len(old)] == old
        assert "carl" in set(study.cells.obs["patient"])


def test_what_people_said_survives_and_counts(smears: Path, copied: Path) -> None:
    with Study.open(copied) as study:
        cell = study.cells.obs_names[0]
        study.label(cell, "blast")
    outcome = again(smears, copied)
    assert set(outcome.seconds) == {"read", "differential", "report"}
    counts = read_csv(copied / "tables" / "differential.csv")
    assert counts.loc[counts["class"] == "blast", "n"].max() == 1
    with Study.open(copied, read_only=True) as study:
        assert study.cells.obs.loc[cell, "label"] == "blast"


def test_another_specimen_only_counts_anew(smears: Path, copied: Path) -> None:
    assert set(again(smears, copied, specimen="marrow").seconds) == {"read", "differential", "report"}
    assert again(smears, copied).seconds == {}, "the study remembers that it is marrow"
    with Study.open(copied, read_only=True) as study:
        assert study.specimen == "marrow"


def test_another_scheme_only_counts_anew(smears: Path, copied: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("{title: Ours, classes: {granulocytes: {members: [neutrophil_segmented, neutrophil_band]}}}")
    assert set(again(smears, copied, scheme=mine).seconds) == {"read", "differential", "report"}
    assert again(smears, copied).seconds == {}, "the study remembers its scheme"
    counts = read_csv(copied / "tables" / "differential.csv")
    assert {"granulocytes"} <= set(counts["class"])
    assert "neutrophil_segmented" not in set(counts["class"])
    report = (copied / "report.html").read_text(encoding="utf-8")
    assert "Counted in the lines of the scheme <bdi>Ours</bdi>" in report
    assert str(tmp_path) not in report, "no place on this machine"
    mine.write_text("{title: Ours, classes: {lymphocyte: {title: Lymphocytes of any kind}}}")
    assert again(smears, copied).seconds == {}, "its own copy"
    assert set(again(smears, copied, scheme=mine).seconds) == {"read", "differential", "report"}
    with Study.open(copied) as study:
        assert study.settings["scheme"] == "schemes/mine.yaml"
        assert [path.name for path in (copied / "schemes").iterdir()] == ["mine.yaml"]
        assert {state.state for state in step_states(study, scheme="schemes/mine.yaml")} == {"done"}, "as remembered"
    assert "Lymphocytes of any kind" in (copied / "report.html").read_text(encoding="utf-8")
    again(smears, copied, scheme="none", count="reviewed")
    counts = read_csv(copied / "tables" / "differential.csv")
    assert (counts["counted"] == 0).all(), "nobody has reviewed a cell"
    assert "Only cells that a person has reviewed" in (copied / "report.html").read_text(encoding="utf-8")


def test_a_scheme_that_went_away_stops_no_step_but_the_count(smears: Path, copied: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("{title: Ours, classes: [lymphocyte]}")
    again(smears, copied, scheme=mine, until="segment")
    mine.unlink()
    assert set(again(smears, copied).seconds) == {"read", "differential", "report"}, "the study has a copy"
    (copied / "schemes" / "mine.yaml").unlink()
    assert again(smears, copied, until="embed").seconds == {}
    with Study.open(copied) as study:
        assert [state.state for state in step_states(study)] == ["done"] * 6 + ["stale"] * 2
    with pytest.raises(InputError, match="--scheme none"):
        again(smears, copied)
    with pytest.raises(InputError, match=r"other\.yaml"):
        again(smears, copied, until="segment", scheme=tmp_path / "other.yaml")
    assert set(again(smears, copied, scheme="none").seconds) == {"read", "differential", "report"}


def test_a_changed_picture_keeps_its_field_and_numbers_are_not_used_again(
    copied: Path, tmp_path: Path, draw: Draw
) -> None:
    path = draw(tmp_path / "slide" / "one.png", seed=5)
    study_path = tmp_path / "s.dinobloom"
    again(path, study_path)
    with Study.open(study_path, read_only=True) as study:
        old = set(study.cells.obs_names)
    draw(path, seed=6)
    again(path, study_path)
    with Study.open(study_path, read_only=True) as study:
        obs = study.cells.obs
        assert [record.id for record in study.fields] == ["one"]
        assert old <= set(obs.index)
        drawn = {f"one:{n:05d}" for n in np.unique(study.labels("one"))[1:]}
        assert set(obs.index[~obs["deleted"]]) == drawn


def test_a_lost_cell_table_is_made_again_with_the_same_numbers(
    smears: Path, finished: Path, copied: Path, tables: Tables
) -> None:
    (copied / "cells.h5ad").unlink()
    again(smears, copied)
    assert tables(copied) == tables(finished)


def test_pictures_of_one_name_and_of_the_same_bytes(smears: Path, tmp_path: Path) -> None:
    for slide, source in (("a", "anna/field0.png"), ("b", "anna/field1.png"), ("c", "anna/field0.png")):
        (tmp_path / slide).mkdir()
        shutil.copy(smears / source, tmp_path / slide / "same.png")
    outcome = again([tmp_path / s for s in "abc"], tmp_path / "s.dinobloom")
    status = [(r.id, r.status, r.problem) for r in outcome.study.fields]
    assert status == [("same", "ok", ""), ("same-2", "ok", ""), ("same-3", "same_as", "same")]
    assert set(outcome.study.cells.obs["field"]) == {"same", "same-2"}


def test_single_cell_pictures_are_taken_whole(smears: Path, tmp_path: Path) -> None:
    outcome = again(smears, tmp_path / "s.dinobloom", cells=True)
    obs = outcome.study.cells.obs
    assert obs.index.tolist() == [f"field{i}:00001" for i in range(5)]
    assert (obs[["y0", "x0", "y1", "x1"]].to_numpy() == [0, 0, 300, 360]).all()


def test_stopping_at_a_step_and_going_on(smears: Path, finished: Path, tmp_path: Path, tables: Tables) -> None:
    path = tmp_path / "s.dinobloom"
    assert set(again(smears, path, until="segment").seconds) == {"read", "segment"}
    assert not (path / "crops.zarr").exists()
    for step in STEPS[2:]:
        again([], path, until=step)
    assert tables(path)["differential.csv"] == tables(finished)["differential.csv"]
    assert tables(path)["X_umap"] == tables(finished)["X_umap"]


def test_progress_names_its_step_and_reaches_its_end(smears: Path, tmp_path: Path) -> None:
    steps, seen = iter_outcome(smears, tmp_path / "s.dinobloom"), []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            end.value.study.close()
            break
    assert all(isinstance(report, Progress) and 0 <= report.done <= report.total for report in seen)
    order = list(dict.fromkeys(report.step for report in seen))
    assert order == list(STEPS)
    for name in STEPS:
        last = [report for report in seen if report.step == name][-1]
        assert last.done == last.total


def test_closing_the_generator_frees_the_study(smears: Path, finished: Path, tmp_path: Path, tables: Tables) -> None:
    path = tmp_path / "s.dinobloom"
    steps = iter_outcome(smears, path)
    for report in steps:
        if report.step == "segment" and report.done == 2:
            break
    steps.close()
    assert not Study.open(path, read_only=True).steps
    again(smears, path)
    assert tables(path) == tables(finished)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"encoder": "DinoBloom-S"}, EncoderError, "not on this machine"),
        ({"encoder": "DinoBlom-S"}, EncoderError, "DinoBloom-S"),
        ({"atlas": "nowhere.safetensors"}, AtlasError, "nowhere.safetensors"),
        ({"slide_from": "(a)(b)"}, InputError, "2 groups"),
        ({"pixel_size_um": 40.0}, InputError, "0.01 to 5"),
        ({"specimen": "urine"}, InputError, "blood or marrow"),
        ({"scheme": "fivepart"}, InputError, "five-part"),
        ({"scheme": "gone.yaml"}, InputError, "cannot be read as a counting scheme"),
        ({"count": "some"}, InputError, "all or reviewed"),
        ({"pixle_size_um": 0.1}, InputError, "pixel_size_um"),
        ({"until": "lunch"}, InputError, "segment"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(
    smears: Path, tmp_path: Path, settings: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        run(smears, tmp_path / "s.dinobloom", **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_study_is_left_alone(smears: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StudyError, match="thesis"):
        run(smears, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_cell_from_an_atlas_picture_does_not_vote_for_itself(smears: Path, tmp_path: Path) -> None:
    from napari_dinobloom.encoders.encoder import load_encoder
    from napari_dinobloom.pipeline.crops import policy_of
    from napari_dinobloom.pipeline.settings import RunSettings
    from napari_dinobloom.predict.atlas_build import build_atlas
    from napari_dinobloom.predict.pictures import LabelledPicture

    pictures = [LabelledPicture(p, p.parent.name, False) for p in sorted(smears.rglob("*.png"))]
    policy = policy_of(RunSettings(cells=True))
    atlas = build_atlas(pictures, load_encoder("starter"), policy, name="tiny", k=1)
    atlas.save(tmp_path / "tiny.safetensors")
    study = again(smears, tmp_path / "s.dinobloom", cells=True, atlas=str(tmp_path / "tiny.safetensors")).study
    assert (study.cells.obs["distance"] > 1e-3).all(), "the nearest is another picture, not the cell itself"


def test_states_of_the_steps_are_what_a_run_would_do(copied: Path):
    with Study.open(copied) as study:
        assert [state.state for state in step_states(study)] == ["done"] * len(STEPS)
        study.exclude(str(study.cells.obs_names[0]))
        states = {state.name: state.state for state in step_states(study)}
        assert [name for name, state in states.items() if state == "done"] == list(STEPS[:6])
        assert states["differential"] == states["report"] == "stale"
        assert [s.state for s in step_states(study, fov_um=30)] == ["done"] * 2 + ["stale"] * 6
        seconds = drain(iter_outcome([], study)).seconds
        assert set(seconds) == {"read", "differential", "report"}
        assert {state.state for state in step_states(study)} == {"done"}
        study.forget_steps(["report"])
        assert step_states(study)[-1].state == "missing"
        unknown = step_states(study, encoder="DinoBloom-B")
        assert [state.state for state in unknown] == ["done"] + ["unknown"] * 7
        assert "weights download" in unknown[-1].why


def test_retry_tries_again_what_was_set_aside(smears: Path, copied: Path) -> None:
    from typer.testing import CliRunner

    from napari_dinobloom.cli import app
    from napari_dinobloom.pipeline import read

    lost, bad = "field4", smears / "anna" / "field1.png"
    with Study.open(copied) as study:
        study.update(fields=[read.failed(r, StudyError("its workers ended"), bad) if r.id == lost else r
                             for r in study.fields])  # fmt: skip
        found = read.find([smears], RunSettings())
        assert [one.message for one in drain(read.iter_read(study, found))] == ["its workers ended"]
    done = CliRunner().invoke(app, ["run", str(smears / "anna"), "-o", str(copied), "--retry"])
    assert done.exit_code == 0, done.output
    with Study.open(copied, read_only=True) as study:
        assert (study.field(lost).status, study.field(lost).slide) == ("ok", "bert")
        assert set(study.steps) == set(STEPS) - {"read"}


def test_what_cannot_be_read_still_is_set_aside_again(smears: Path, copied: Path, tmp_path: Path) -> None:
    from napari_dinobloom.pipeline import read

    torn = tmp_path / "torn.png"
    torn.write_bytes(b"\x89PNG nothing")
    with Study.open(copied) as study:
        drain(read.iter_read(study, read.find([torn], RunSettings())))
        before = study.field("torn")
        again = read.set_aside(study, read.find([smears], RunSettings()))
        assert [one.name for one in drain(read.iter_read(study, again, retry=True))] == [str(torn)]
        assert study.field("torn") == before
        torn.unlink()
        assert "torn" in read.set_aside(study, read.find([smears], RunSettings())).problems[0].message
