"""A study's named cells: an atlas extended, a probe trained, the next cells to name; and what is said on the way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from napari_dinobloom.cli import app
from napari_dinobloom.encoders.library import locate
from napari_dinobloom.errors import AtlasError, InputError
from napari_dinobloom.io.fingerprint import MARK
from napari_dinobloom.io.study import Study
from napari_dinobloom.io.tables import read_csv
from napari_dinobloom.pipeline import own_reference, results
from napari_dinobloom.pipeline.classify import explain, find_atlas, sources_of
from napari_dinobloom.pipeline.driver import iter_outcome
from napari_dinobloom.pipeline.own_reference import (
    iter_atlas_of,
    iter_extend,
    iter_train_probe,
    labelled,
    next_to_label,
)
from napari_dinobloom.pipeline.settings import RunSettings, resolve
from napari_dinobloom.predict.atlas import Atlas
from napari_dinobloom.predict.probe import Probe
from napari_dinobloom.predict.shelf import place_of, shelf
from napari_dinobloom.progress import drain


@pytest.fixture
def copied(copied: Path, smears: Path) -> Path:
    """A copy of the finished study that knows where its images lie."""
    with Study.open(copied, read_only=True) as study:
        study.remember_root("r1", smears)
    return copied


@pytest.fixture
def study(copied: Path) -> Iterator[Study]:
    """All but two cells named: blasts and monocytes on every field."""
    with Study.open(copied) as opened:
        cells = opened.cells.obs.index[~opened.cells.obs["deleted"]].tolist()
        opened.label(cells[2:], ["blast" if i % 2 else "monocyte" for i in range(len(cells) - 2)])
        yield opened


def test_named_cells_are_taken_as_they_are(study: Study) -> None:
    obs = study.cells.obs
    named = obs.index[obs["label"] != ""].tolist()
    study.exclude(named[0])
    study.delete(named[1])
    study.label(named[2], "unclassified")
    cells = labelled(study)
    assert list(cells.cell_ids) == named[3:]
    rows = obs.index.get_indexer(named[3:])
    np.testing.assert_array_equal(cells.X, np.asarray(study.cells.X)[rows])
    assert cells.source.tolist() == [study.field(cell.rpartition(":")[0]).sha256[:16] for cell in named[3:]]
    np.testing.assert_array_equal(cells.place, obs.loc[named[3:], ["y", "x"]])


def test_cells_of_a_large_slide_make_an_atlas_too(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its fingerprint the digits count, not the mark that it was sampled."""
    X = labelled(study).X
    monkeypatch.setattr(own_reference, "read_embeddings", lambda *_, **__: X)
    digits = [f"{number:064x}"[::-1] for number in range(1, len(study.fields) + 1)]
    study.update(fields=[replace(f, sha256=MARK + d) for f, d in zip(study.fields, digits, strict=True)])
    atlas = drain(iter_atlas_of([study], name="large"))
    assert len(atlas.hash) == 64
    assert set(atlas.source) <= {d[:16] for d in digits}
    assert len(set(atlas.source)) > 1


def test_a_cell_that_changed_since_it_was_embedded_is_refused(study: Study) -> None:
    cell = labelled(study).cell_ids[0]
    field, number = cell.split(":")
    image = study.labels(field)
    ys, xs = np.nonzero(image == int(number))
    image[ys[: len(ys) // 3], xs[: len(xs) // 3]] = 0
    from napari_dinobloom.pipeline import edits

    edits.repaint(study, field, image)
    with pytest.raises(InputError, match=rf"1 of .* named cells are not embedded as they are now.*{cell}"):
        labelled(study)


def test_an_atlas_is_extended_and_says_what_the_study_says_now(study: Study) -> None:
    before = Atlas.bundled("starter", "context")
    path = drain(iter_extend(study, "starter-context", "mine", thumbnails=True))
    mine, cells = Atlas.load(path), labelled(study)
    assert path == place_of("mine")
    assert len(mine) == len(before) + len(cells.y)
    assert np.array_equal(mine.X[: len(before)], before.X)
    np.testing.assert_allclose(mine.X[len(before) :], cells.X, rtol=1e-3, atol=1e-4)
    assert mine.held_out[len(before) :].all()
    assert set(mine.classes) == {*before.classes, "blast"}
    assert mine.thumbnail(0) is None
    shown = mine.thumbnail(len(mine) - 1)
    assert shown is not None
    assert shown.shape == (96, 96, 3)
    study.label(cells.cell_ids[0], "basophil")
    again = Atlas.load(drain(iter_extend(study, "mine", "mine")))
    assert len(again) == len(mine)
    assert again.y[again.source == cells.source[0]].tolist().count("basophil") == 1
    with pytest.raises(AtlasError, match="'mine' is on the shelf already"):
        drain(iter_extend(study, "starter-context", "mine"))
    with pytest.raises(AtlasError, match="comes with the package"):
        drain(iter_extend(study, None, "starter-context"))
    told = json.dumps(again.facts())
    assert not any(word in told for word in ("anna", "bert", "field0", "copy"))
    assert "CC BY 4.0" in again.info["origin"]


def test_a_cell_never_meets_those_of_its_own_picture(study: Study) -> None:
    path = drain(iter_extend(study, None, "own"))
    drain(iter_outcome([], study, until="classify", atlas="own", knn_k=3))
    table = explain(study, find_atlas(resolve(study.settings, {})))
    own = dict(zip(study.cells.obs.index, sources_of(study, study.cells.obs), strict=True))
    assert (table["source"] != table["cell_id"].map(own)).all()
    assert table.groupby("cell_id").size().max() == 3
    assert Atlas.load(path).k == 20


def test_another_encoders_atlas_is_refused(study: Study) -> None:
    with pytest.raises(AtlasError, match="other crops"):
        drain(iter_extend(study, "starter-published", "mine"))


def test_a_probe_names_the_study(study: Study) -> None:
    path = drain(iter_train_probe(study, "two"))
    assert path.with_suffix(".json").is_file()
    drain(iter_outcome([], study, until="classify", atlas="two"))
    probe = Probe.load(path)
    obs = study.cells.obs
    assert set(obs["predicted"]) <= {"blast", "monocyte"}
    assert (obs["predicted_by"] == f"two-{probe.hash[:8]}").all()
    expected = probe.predict_proba(np.asarray(study.cells.X)).max(axis=1)
    np.testing.assert_allclose(obs["confidence"].to_numpy(), expected, rtol=1e-6)
    with pytest.raises(AtlasError, match="--k 0 --metric own --weights own"):
        find_atlas(RunSettings(atlas="two", knn_k=5))
    drain(iter_extend(study, None, "an-atlas"))
    with pytest.raises(AtlasError, match="'an-atlas' is an atlas"):
        drain(iter_train_probe(study, "an-atlas"))


def test_a_study_named_by_a_probe_says_what_a_new_atlas_begins_with(study: Study) -> None:
    drain(iter_train_probe(study, "two"))
    drain(iter_outcome([], study, until="classify", atlas="two"))
    path = study.path
    study.close()
    refused = CliRunner().invoke(app, ["atlas", "extend", "new", str(path)])
    assert refused.exit_code == 2
    assert "--from" in refused.stderr
    assert not place_of("new").exists()
    assert CliRunner().invoke(app, ["atlas", "extend", "new", str(path), "--from", "none"]).exit_code == 0


def test_files_are_found_from_another_folder(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drain(iter_extend(study, None, "own"))
    shutil.copy(place_of("own"), tmp_path / "file.safetensors")
    shutil.copy(locate("starter").path, tmp_path / "encoder.safetensors")
    monkeypatch.chdir(tmp_path)
    told = resolve({}, {"encoder": "encoder.safetensors", "atlas": Path("file.safetensors")})
    assert (told.encoder, told.atlas) == (str(tmp_path / "encoder.safetensors"), str(tmp_path / "file.safetensors"))
    drain(iter_outcome([], study, until="classify", atlas=Path("file.safetensors")))
    monkeypatch.chdir(tmp_path.parent)
    assert drain(iter_outcome([], study, until="classify")).seconds == {}
    shown = results._shown_settings(told)
    assert (shown["encoder"], shown["atlas"]) == ("encoder.safetensors", "file.safetensors"), "no place on this machine"
    assert resolve({"atlas": "auto"}, {"atlas": "own", "encoder": "starter"}).atlas == "own"


def test_what_cannot_be_learned_from_is_refused(copied: Path) -> None:
    with Study.open(copied) as study:
        with pytest.raises(InputError, match="nobody has named a cell"):
            drain(iter_train_probe(study, "x"))
        cells = study.cells.obs.index.tolist()
        study.label(cells[:1], "blast")
        with pytest.raises(AtlasError, match="two classes"):
            drain(iter_train_probe(study, "x"))
        assert len(Atlas.load(drain(iter_extend(study, "starter-context", "one")))) == 7595
        first = [cell for cell in cells if cell.startswith("field0:")]
        study.label(first, ["blast" if i % 2 else "monocyte" for i in range(len(first))])
        with pytest.raises(AtlasError, match="second picture"):
            drain(iter_train_probe(study, "x"))


def test_the_next_cells_are_unsure_unlike_each_other_and_not_named(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Study.open(copied) as study:
        obs = study.cells.obs
        first = next_to_label(study, 4)
        assert len(set(first)) == 4
        assert first == next_to_label(study, 4)
        study.label(first[0], "blast")
        study.exclude(first[1])
        study.delete(first[2])
        study.set_review(first[3])
        assert not set(first) & set(next_to_label(study, len(obs)))
        assert next_to_label(study, 0) == []
        left = obs.index[(obs["label"] == "") & ~obs["excluded"] & ~obs["deleted"] & ~obs["reviewed"]]
        assert sorted(next_to_label(study, len(obs))) == sorted(left)
        looked, spread = [], own_reference._spread
        monkeypatch.setattr(own_reference, "_spread", lambda X, *a: looked.append(len(X)) or spread(X, *a))
        monkeypatch.setattr(own_reference, "find_atlas", lambda _: None)
        monkeypatch.setattr(own_reference, "TOGETHER", 5)
        assert len(next_to_label(study, 2)) == 2
        assert looked == [5], "not all embeddings are read where no atlas says which are unsure"


def test_the_farthest_from_all_chosen_and_named_comes_next() -> None:
    X = np.array([[0.0], [0.1], [5.0], [9.0], [9.1]], np.float32)
    assert own_reference._spread(X, np.zeros((0, 1), np.float32), 3) == [0, 4, 2]
    assert own_reference._spread(X, np.array([[9.0]], np.float32), 3) == [0, 2, 4]
    assert own_reference._spread(X[:1], X, 5) == [0]


def test_several_studies_make_an_atlas_and_contrary_ones_do_not(study: Study, tmp_path: Path) -> None:
    study.close()
    shutil.copytree(study.path, tmp_path / "twin.dinobloom")
    with Study.open(tmp_path / "twin.dinobloom") as twin:
        both = drain(iter_atlas_of([study, twin], name="both", k=3))
        assert len(both) == len(labelled(study).y)
        assert both.k == 3
        twin.label(labelled(twin).cell_ids[0], "basophil")
        with pytest.raises(AtlasError, match=r"'monocyte' in 'copy.dinobloom' and 'basophil' in 'twin.dinobloom'"):
            drain(iter_atlas_of([study, twin], name="both"))


def test_the_command_line_does_the_same(study: Study, tmp_path: Path) -> None:
    path, cells = study.path, labelled(study)
    expected = Atlas.load(drain(iter_extend(study, "starter-context", "here")))
    study.close()

    def do(*words: object, code: int = 0) -> str:
        done = CliRunner().invoke(app, list(map(str, words)))
        assert done.exit_code == code, done.output + done.stderr
        return done.output + done.stderr

    do("atlas", "extend", "there", path)
    assert np.array_equal(Atlas.load(place_of("there")).X, expected.X)
    do("atlas", "build", path, "-o", tmp_path / "own.safetensors", "--k", 5, "--weights", "distance", "--thumbnails")
    own = Atlas.load(tmp_path / "own.safetensors")
    assert (len(own), own.k, own.weights) == (len(cells.y), 5, "distance")
    assert own.thumbnail(0) is not None
    assert [one.name for one in shelf()][2:] == ["here", "there"]
    neighbours = tmp_path / "n.csv"
    votes = ("--atlas", tmp_path / "own.safetensors", "--k", 2, "--metric", "cosine")
    do("classify", path, *votes, "--neighbours", neighbours)
    table = read_csv(neighbours)
    assert table.columns.tolist() == ["cell_id", "rank", "class", "source", "distance"]
    with Study.open(path, read_only=True) as opened:
        found = find_atlas(resolve(opened.settings, {}))
        assert isinstance(found, Atlas)
        assert (found.k, found.metric) == (2, "cosine")
        shown = explain(opened, found).drop(columns="row")
        text = {"source": str, "class": str}
        pd.testing.assert_frame_equal(table.astype(text), shown.astype(text), check_dtype=False, rtol=1e-5)
    assert "is no study" in do("atlas", "build", path, tmp_path, "-o", tmp_path / "x.safetensors", code=2)
