"""The maps of a study: which is in use, when it is kept as it is, and what happens to its cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from napari_dinobloom.errors import InputError, StudyError
from napari_dinobloom.explore.gate_tree import GateTree, inverse
from napari_dinobloom.explore.gates import RangeGate
from napari_dinobloom.explore.projection import Projection, ProjectionError
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline import chart, map_changes, maps
from napari_dinobloom.pipeline.driver import Outcome, iter_outcome
from napari_dinobloom.pipeline.map_changes import iter_refit, iter_use
from napari_dinobloom.pipeline.settings import resolve
from napari_dinobloom.progress import drain

Draw = Callable[..., Path]


def again(inputs: object, path: Path, **settings: object) -> Outcome:
    """Run and close; what the run did."""
    outcome = drain(iter_outcome(inputs, path, **settings))  # type: ignore[arg-type]
    outcome.study.close()
    return outcome


def look(path: Path) -> tuple[pd.DataFrame, str]:
    """Coordinates by cell on the map in use, and its hash."""
    with Study.open(path, read_only=True) as study:
        cells = study.cells
        at = pd.DataFrame(np.asarray(cells.obsm["X_umap"]), index=cells.obs_names.to_numpy())
        return at[~cells.obs["deleted"].to_numpy(bool)], cells.uns["dinobloom"]["projection"]["hash"]


def gate(path: Path) -> dict:
    """Draw a gate on the map in use; the act."""
    with Study.open(path) as study:
        act = GateTree(maps.active_hash(study)).add(RangeGate(name="right", axes=("umap_1",), range_min=0.0))
        study.record_gate(act)
    return act


def test_a_run_leaves_one_map_in_use_that_its_file_gives_back(finished: Path) -> None:
    at, key = look(finished)
    with Study.open(finished, read_only=True) as study:
        (one,) = maps.stored_maps(study)
        assert (one.hash, one.active, one.frozen, one.gates, one.kind) == (key, True, False, 0, "umap")
        projection = maps.read_map(study, key[:5])
    np.testing.assert_array_equal(at.loc[list(projection.cell_ids)], projection.coordinates)
    assert len(projection) == len(at)
    assert projection.about["encoder"] == "starter"


def test_a_map_with_gates_is_kept_and_new_cells_are_placed(
    smears: Path, copied: Path, tmp_path: Path, draw: Draw
) -> None:
    before, key = look(copied)
    gate(copied)
    assert "map" not in again(smears, copied).seconds, "a gate alone moves no cell"
    draw(tmp_path / "carl" / "new.png", seed=77)
    outcome = again([smears, tmp_path / "carl"], copied)
    assert "map" in outcome.seconds
    after, still = look(copied)
    assert still == key
    pd.testing.assert_frame_equal(after.loc[before.index], before)
    assert len(after) > len(before)
    assert np.isfinite(after.to_numpy()).all()
    with pytest.raises(InputError, match="--refit"):
        again(smears, copied, min_dist=0.5)
    with Study.open(copied, read_only=True) as study:
        assert study.settings["min_dist"] == 0.1


def test_a_map_without_gates_follows_the_cells(smears: Path, copied: Path, tmp_path: Path, draw: Draw) -> None:
    _, key = look(copied)
    draw(tmp_path / "carl" / "new.png", seed=77)
    again([smears, tmp_path / "carl"], copied)
    after, other = look(copied)
    assert other != key
    with Study.open(copied, read_only=True) as study:
        (one,) = maps.stored_maps(study)
        assert (one.hash, one.cells) == (other, len(after))
    assert again([smears, tmp_path / "carl"], copied).seconds == {}


def test_refitting_makes_a_new_map_and_using_the_old_one_brings_it_back(smears: Path, copied: Path) -> None:
    before, old = look(copied)
    gate(copied)
    with Study.open(copied) as study:
        new = drain(iter_refit(study, min_dist=0.6, seed=7))
        assert new.hash != old
        np.testing.assert_array_equal(study.cells.obsm[f"X_umap:{old[:8]}"], before.to_numpy())
        assert (maps.gates_on(study, old), maps.gates_on(study, new.hash)) == (1, 0)
        assert [one.active for one in maps.stored_maps(study)] == [True, False]
        assert study.settings["min_dist"] == 0.6
        assert drain(iter_refit(study)).hash == new.hash, "the same cells and settings give the same map"
    assert "map" not in again(smears, copied).seconds
    with Study.open(copied) as study:
        drain(iter_use(study, old[:6]))
        assert f"X_umap:{new.hash[:8]}" in study.cells.obsm
        assert f"X_umap:{old[:8]}" not in study.cells.obsm
    after, key = look(copied)
    assert key == old
    pd.testing.assert_frame_equal(after, before)
    assert "map" not in again(smears, copied).seconds


def test_a_gate_that_was_taken_back_frees_the_map_but_its_file_stays(
    smears: Path, copied: Path, tmp_path: Path, draw: Draw
) -> None:
    _, old = look(copied)
    act = gate(copied)
    with Study.open(copied) as study:
        assert maps.is_frozen(study, old)
        study.record_gate(inverse(act))
        assert not maps.is_frozen(study, old)
    draw(tmp_path / "carl" / "new.png", seed=77)
    again([smears, tmp_path / "carl"], copied)
    with Study.open(copied, read_only=True) as study:
        assert {one.hash == old for one in maps.stored_maps(study)} == {True, False}, "redo would need it"


def test_another_cohorts_map_is_used_and_kept_as_it_is(smears: Path, copied: Path, tmp_path: Path, draw: Draw) -> None:
    with Study.open(copied, read_only=True) as study:
        own = maps.read_map(study, maps.active_hash(study))
    cohort = Projection.of(
        "umap", own.params, [f"other:{i}" for i in range(len(own))], own.reference, own.coordinates, about=own.about
    )
    file = cohort.save(tmp_path / "cohort.safetensors")
    with Study.open(copied) as study:
        drain(iter_use(study, file))
        np.testing.assert_array_equal(study.cells.obsm["X_umap"], own.coordinates)
        assert maps.is_frozen(study, cohort.hash)
    draw(tmp_path / "carl" / "new.png", seed=77)
    again([smears, tmp_path / "carl"], copied)
    after, key = look(copied)
    assert key == cohort.hash
    assert np.isfinite(after.to_numpy()).all()


def test_a_map_of_another_encoder_changes_nothing(copied: Path, tmp_path: Path) -> None:
    before, key = look(copied)
    about = {"encoder": "other", "encoder_sha256": "f" * 64}
    x = np.random.default_rng(0).normal(size=(20, 192)).astype(np.float32)
    other = Projection.of("umap", {}, [f"o:{i}" for i in range(20)], x, x[:, :2].copy(), about=about)
    file = other.save(tmp_path / "other.safetensors")
    with Study.open(copied) as study, pytest.raises(ProjectionError, match="belongs to other"):
        drain(iter_use(study, file))
    after, still = look(copied)
    assert still == key
    pd.testing.assert_frame_equal(after, before)


def test_a_full_disk_leaves_table_and_map_as_they_were(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, key = look(copied)
    with Study.open(copied) as study:

        def full(*_: object) -> None:
            raise StudyError("the disk is full")

        monkeypatch.setattr(study, "save_cells", full)
        with pytest.raises(StudyError, match="full"):
            drain(iter_refit(study, map_method="pca"))
        np.testing.assert_array_equal(study.cells.obsm["X_umap"], before.to_numpy())
        assert study.cells.uns["dinobloom"]["projection"]["hash"] == key
        assert maps.active_hash(study) == key
        assert "distances" in study.cells.obsp


def test_coordinates_of_ones_own(copied: Path, tmp_path: Path) -> None:
    before, _ = look(copied)
    table = pd.DataFrame({"cell_id": before.index[:-1], "tsne_1": range(len(before) - 1), "tsne_2": 0.5})
    table.to_csv(tmp_path / "tsne.csv", index=False)
    with Study.open(copied) as study:
        projection = drain(iter_refit(study, coordinates=tmp_path / "tsne.csv"))
        assert (projection.kind, maps.is_frozen(study, projection.hash)) == ("given", True)
        at = np.asarray(study.cells.obsm["X_umap"])
        np.testing.assert_array_equal(at[:-1], table[["tsne_1", "tsne_2"]])
        assert np.isfinite(at).all()
        table.assign(cell_id="x:00001").to_csv(tmp_path / "wrong.csv", index=False)
        with pytest.raises(InputError, match="is not in the study"):
            drain(iter_refit(study, coordinates=tmp_path / "wrong.csv"))


def test_what_is_damaged_is_named(copied: Path) -> None:
    with Study.open(copied) as study:
        with pytest.raises(StudyError, match="none of its maps"):
            drain(iter_use(study, "ffffffffffff"))
        (copied / "projections" / "active.json").write_text('{"active": 3}')
        with pytest.raises(StudyError, match=r"active\.json: is damaged"):
            maps.active_hash(study)


def test_the_command_line_lists_refits_and_switches_back(copied: Path) -> None:
    from napari_dinobloom.cli import app

    _, old = look(copied)
    tool = CliRunner()
    done = tool.invoke(app, ["map", str(copied), "--refit", "--method", "pca"])
    assert done.exit_code == 0, done.output
    _, new = look(copied)
    assert new != old
    listed = tool.invoke(app, ["map", str(copied), "--list"]).output.splitlines()
    assert [line.split()[:2] for line in listed] == [["*", new[:8]], [old[:8], "umap"]]
    assert tool.invoke(app, ["map", str(copied), "--use", old[:8]]).exit_code == 0
    assert look(copied)[1] == old
    assert tool.invoke(app, ["map", str(copied), "--use", old, "--refit"]).exit_code == 2
    assert tool.invoke(app, ["map", str(copied), "--use", old, "--seed", "3"]).exit_code == 2


@pytest.mark.parametrize("place", ["save_cells", "write_state"])
def test_what_a_kill_leaves_of_a_change_is_mended_by_the_next_run(
    smears: Path, copied: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    before, old = look(copied)
    gate(copied)

    def killed(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with Study.open(copied) as study, monkeypatch.context() as patch:
        patch.setattr(*((study, place) if place == "save_cells" else (map_changes, place)), killed)
        with pytest.raises(KeyboardInterrupt):
            drain(iter_refit(study, min_dist=0.6))
        np.testing.assert_array_equal(study.cells.obsm["X_umap"], before.to_numpy())
    assert "map" in again(smears, copied).seconds, "the step was begun and not finished"
    after, key = look(copied)
    assert key == old, "the map with the gate is the one in use"
    pd.testing.assert_frame_equal(after, before)


def test_without_active_json_the_map_of_the_table_stays_in_use(smears: Path, copied: Path) -> None:
    _, key = look(copied)
    gate(copied)
    (copied / maps.FOLDER / maps.STATE).unlink()
    again(smears, copied)
    assert look(copied)[1] == key


def test_a_frozen_map_whose_file_is_gone_is_said_and_not_replaced(smears: Path, copied: Path) -> None:
    _, key = look(copied)
    gate(copied)
    with Study.open(copied, read_only=True) as study:
        maps.map_path(study, key).unlink()
    with pytest.raises(StudyError, match="Put the file back"):
        again(smears, copied)


def test_settings_that_a_frozen_map_has_already_are_no_change(smears: Path, copied: Path) -> None:
    gate(copied)
    again(smears, copied, map_method="umap", seed=42)
    with pytest.raises(InputError, match="map_method"):
        again(smears, copied, map_method="pca")


def test_a_run_that_breaks_off_after_its_map_leaves_the_table_as_it_was(
    smears: Path, copied: Path, tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = look(copied)
    with Study.open(copied) as study:
        study.forget_steps(["map"])
        with monkeypatch.context() as patch:
            patch.setattr(chart, "find_duplicates", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            patch.setattr("napari_dinobloom.pipeline.map_changes.map_settings", lambda s: {"method": "pca"})
            with pytest.raises(KeyboardInterrupt):
                drain(chart.iter_map_study(study, resolve(study.settings, {})))
        np.testing.assert_array_equal(study.cells.obsm["X_umap"], before.to_numpy())
