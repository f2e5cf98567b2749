"""Stain normalisation and adaptation in a study: own embeddings, own keys, and back again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_dinobloom.cells.stain_transfer import estimate, reference, transfer
from napari_dinobloom.cli import app
from napari_dinobloom.encoders.encoder import load_encoder
from napari_dinobloom.errors import AtlasError, InputError
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline import adapting, classify, embed, own_reference
from napari_dinobloom.pipeline.adapting import embeddings_of, iter_choose_for
from napari_dinobloom.pipeline.classify import explain, find_atlas, larger_than_platelets, sources_of
from napari_dinobloom.pipeline.crops import open_crops
from napari_dinobloom.pipeline.driver import iter_outcome, step_states
from napari_dinobloom.pipeline.embedded import read_embeddings, stored_encoders
from napari_dinobloom.pipeline.own_reference import iter_extend, labelled
from napari_dinobloom.pipeline.settings import RunSettings, resolve
from napari_dinobloom.pipeline.stains import iter_find_stains
from napari_dinobloom.predict.adaptation import Choice, moved
from napari_dinobloom.predict.atlas import Atlas
from napari_dinobloom.progress import drain


def _run(study: Study, until: str, **asked: Any) -> None:
    drain(iter_outcome([], study, until=until, **asked))


def test_stained_embeddings_are_those_of_recoloured_crops_and_stand_beside(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Study.open(copied) as study:
        plain = np.asarray(study.cells.X).copy()
        _run(study, "embed", stain="macenko")
        X = np.asarray(study.cells.X)
        slide = study.cells.obs["slide"].to_numpy(str)
        crops, expected = np.asarray(open_crops(study)[:]), np.empty_like(X)
        with load_encoder("starter", "cpu") as encoder:
            for name in np.unique(slide):
                own = crops[slide == name]
                expected[slide == name] = encoder.embed(transfer(own, "macenko", estimate(own)))
        np.testing.assert_allclose(X, expected, atol=1e-4)
        assert np.abs(X - plain).max() > 0.01

        stored = {one.stain: one for one in stored_encoders(study)}
        assert set(stored) == {"", "macenko"}
        assert stored["macenko"].active
        assert not stored[""].active
        np.testing.assert_array_equal(read_embeddings(study, stored["macenko"]), X)
        np.testing.assert_array_equal(read_embeddings(study, stored[""]), plain)

        monkeypatch.setattr(embed, "_fill", lambda *a: _nothing_missing(*a))
        _run(study, "embed", stain="")
        np.testing.assert_array_equal(np.asarray(study.cells.X), plain)
        _run(study, "embed", stain="macenko")
        np.testing.assert_array_equal(np.asarray(study.cells.X), X)


def _nothing_missing(vectors: Any, encoder: Any, crops: Any, keys: Any, stains: Any) -> Any:
    assert not len(vectors.missing(keys)), "it was embedded before"
    yield from ()


def test_keys_follow_the_stain_of_the_own_slide_only(copied: Path) -> None:
    with Study.open(copied, read_only=True) as study:
        found = drain(iter_find_stains(study, "reinhard"))
    keys = np.arange(len(found.slide)).astype(np.uint64)
    plain = found.keys(keys)
    assert found.names == ("anna", "bert")
    assert len(np.unique(plain)) == len(keys)
    assert not (plain == keys).any()
    changed = adapting.replace(found, stains=(None, found.stains[1])).keys(keys)
    assert ((changed != plain) == (found.slide == 0)).all()
    assert (adapting.replace(found, method="macenko").keys(keys) != plain).all()
    assert adapting.replace(found, stains=(None, found.stains[1])).unknown() == ["anna"]


def test_moved_cells_are_named_and_explained_as_they_were_moved(copied: Path) -> None:
    with Study.open(copied) as study:
        before = study.cells.obs["distance"].to_numpy(float).copy()
        atlas = find_atlas(resolve(study.settings, {}))
        assert atlas is not None
        _run(study, "classify", adapt="slide")
        X, slide = np.asarray(study.cells.X), study.cells.obs["slide"].to_numpy(str)
        np.testing.assert_allclose(embeddings_of(study.cells), moved(X, slide, atlas), atol=1e-6)
        after = study.cells.obs["distance"].to_numpy(float)
        assert np.abs(after - before).max() > 0.01
        last = explain(study, atlas).groupby("cell_id", sort=False)["distance"].max()
        living = ~study.cells.obs["deleted"].to_numpy(bool)
        np.testing.assert_allclose(last.reindex(study.cells.obs_names[living]), after[living], rtol=1e-5)
    with Study.open(copied) as study:  # from the disk, and back
        assert np.abs(embeddings_of(study.cells) - np.asarray(study.cells.X)).max() > 0.01
        _run(study, "classify", adapt="")
        np.testing.assert_array_equal(study.cells.obs["distance"].to_numpy(float), before)
        np.testing.assert_array_equal(embeddings_of(study.cells), np.asarray(study.cells.X))


def test_the_command_line_asks_the_rule_and_does_what_it_picks(
    copied: Path, smears: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Study.open(copied, read_only=True) as study:
        found = drain(iter_choose_for(study))
        n = study.cells.n_obs
    assert found.option in ("none", "restandardise", "reinhard", "macenko")
    assert bool(found.shorter) == (n >= 20)

    def chosen(study: Study, **asked: Any) -> Any:
        yield from ()
        return Choice("reinhard", "It was told to.", {})

    monkeypatch.setattr(adapting, "iter_choose_for", chosen)
    said = CliRunner().invoke(app, ["classify", str(copied), str(smears), "--adapt", "auto"])
    assert said.exit_code == 0, said.output
    assert "Adaptation: reinhard. It was told to." in said.output
    with Study.open(copied, read_only=True) as study:
        assert (study.settings["stain"], study.settings["adapt"]) == ("reinhard", "")
        assert study.cells.uns["dinobloom"]["stain"] == "reinhard"


def test_a_cell_that_is_deleted_moves_no_stain(copied: Path) -> None:
    with Study.open(copied) as study:
        _run(study, "embed", stain="macenko")
        cells = study.cells.obs_names[~study.cells.obs["deleted"].to_numpy(bool)].tolist()
        study.label(cells[1:], ["blast" if i % 2 else "monocyte" for i in range(len(cells) - 1)])
        before = drain(iter_find_stains(study, "macenko"))
        study.delete([cells[0], cells[3]])
        _run(study, "embed")
        assert drain(iter_find_stains(study, "macenko")).stains == before.stains
        found = labelled(study)
        assert len(found.cell_ids) == len(cells) - 2
        assert found.weights.stain == "macenko"


def test_what_is_made_of_recoloured_cells_says_so(copied: Path, smears: Path) -> None:
    with Study.open(copied) as study:
        study.remember_root("r1", smears)
        _run(study, "embed", stain="reinhard")
        cells = study.cells.obs_names.tolist()
        study.label(cells, ["blast" if i % 2 else "monocyte" for i in range(len(cells))])
        assert Atlas.load(drain(iter_extend(study, None, "own"))).info["stain"] == "reinhard"
        assert Atlas.load(drain(iter_extend(study, "starter-context", "more"))).info["stain"] == "reinhard"
        _run(study, "classify", atlas="own")
        with pytest.raises(AtlasError, match="recoloured by reinhard, but those of the cells are as they are"):
            _run(study, "classify", stain="")
        assert study.settings["stain"] == "reinhard", "nothing was done"
        with pytest.raises(AtlasError, match="--adapt reinhard"):
            drain(iter_choose_for(study))
        _run(study, "classify", stain="", atlas="auto")
        with pytest.raises(AtlasError, match="recoloured by reinhard"):
            drain(iter_extend(study, "own", "own"))


def test_cells_that_were_moved_make_no_reference(copied: Path) -> None:
    with Study.open(copied) as study:
        cells = study.cells.obs_names.tolist()
        study.label(cells, ["blast" if i % 2 else "monocyte" for i in range(len(cells))])
        _run(study, "classify", adapt="slide")
        with pytest.raises(InputError, match="--adapt none"):
            labelled(study)
        _run(study, "classify", adapt="")
        assert len(labelled(study).y)


def test_deleted_cells_have_no_say_in_the_shifts(copied: Path) -> None:
    with Study.open(copied) as study:
        _run(study, "classify", adapt="slide")
        first = embeddings_of(study.cells)
        living = ~study.cells.obs["deleted"].to_numpy(bool)
        bert = study.cells.obs["slide"].to_numpy(str) == "bert"
        study.delete(study.cells.obs_names[np.flatnonzero(living & ~bert)[:1]].tolist())
        assert {state.name: state.state for state in step_states(study)}["classify"] == "stale"
        _run(study, "classify")
        second = embeddings_of(study.cells)
        np.testing.assert_array_equal(second[bert], first[bert])
        assert np.abs(second[~bert] - first[~bert]).max() > 1e-3
        study.delete(study.cells.obs_names[~bert].tolist())
        _run(study, "classify")
        X = np.asarray(study.cells.X)
        np.testing.assert_array_equal(embeddings_of(study.cells)[~bert], X[~bert])


def test_another_reference_stain_embeds_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {one: RunSettings(stain=one, computes="auto auto = cpu float32") for one in ("", "macenko")}
    before = {one: embed.step_key("0", said) for one, said in settings.items()}
    other = replace(reference(), light=(1.0, 2.0, 3.0))
    monkeypatch.setattr("napari_dinobloom.cells.stain_transfer.reference", lambda: other)
    after = {one: embed.step_key("0", said) for one, said in settings.items()}
    assert before[""] == after[""]
    assert before["macenko"] != after["macenko"]


def test_recolouring_is_asked_about_only_where_it_leads_to_the_reference(copied: Path) -> None:
    with Study.open(copied, read_only=True) as study:
        bundled = Atlas.bundled("starter", "context")
        own = replace(bundled, info={name: value for name, value in bundled.info.items() if name != "stain"})
        settings = resolve(study.settings, {})
        assert set(drain(adapting.iter_choose(study, settings, own)).shorter) <= {"restandardise"}
        with pytest.raises(AtlasError, match="other crops"):
            drain(iter_choose_for(study, atlas="starter-published"))


def test_the_next_cells_to_name_are_those_that_were_named_so(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    lead = own_reference._lead

    def watched(classifier: Any, X: Any, source: Any, large: Any) -> Any:
        asked.append((X, large))
        return lead(classifier, X, source, large)

    monkeypatch.setattr(own_reference, "_lead", watched)
    with Study.open(copied) as study:
        _run(study, "classify", adapt="slide")
        own_reference.next_to_label(study, 3)
        rows = np.flatnonzero(~study.cells.obs["deleted"].to_numpy(bool))
        X, large = asked[0]
        np.testing.assert_array_equal(X, embeddings_of(study.cells, rows))
        assert np.abs(X - np.asarray(study.cells.X)[rows]).max() > 0.01
        np.testing.assert_array_equal(large, larger_than_platelets(study.cells.obs.iloc[rows]))
        atlas = find_atlas(resolve(study.settings, {}))
        assert atlas is not None
        source = sources_of(study, study.cells.obs.iloc[rows])
        shares = np.sort(atlas.without("platelet").predict_proba(X[large], np.array(source)[large].tolist()), axis=1)
        near = ~atlas.without("platelet").classify(X[large], np.array(source)[large].tolist())["unlike"].to_numpy(bool)
        found = lead(atlas, X, source, large)[large]
        np.testing.assert_allclose(found, np.where(near, shares[:, -1] - shares[:, -2], 0), atol=1e-6)


def test_a_run_that_is_stopped_while_it_names_leaves_the_table_as_it_was(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classify, "TOGETHER", 3)
    with Study.open(copied) as study:
        settings = resolve(study.settings, {"adapt": "slide"})
        obs, notes = study.cells.obs.copy(), dict(study.cells.uns["dinobloom"])
        steps = classify.iter_classify_study(study, settings, find_atlas(settings))
        for _ in range(2):  # shifts are fitted, and the first cells are named by them
            next(steps)
        steps.close()
        assert study.cells.obs.equals(obs)
        assert set(study.cells.uns["dinobloom"]) == set(notes)
        assert not adapting.is_moved(study.cells.uns["dinobloom"])


def test_neighbours_are_written_some_cells_at_a_time(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Study.open(copied, read_only=True) as study:
        whole = classify.write_neighbours(study, tmp_path / "whole.csv").read_bytes()
        monkeypatch.setattr(classify, "TOGETHER", 3)
        asked, explain = [], classify.explain
        monkeypatch.setattr(classify, "explain", lambda *a: asked.append(len(a[2])) or explain(*a))
        assert classify.write_neighbours(study, tmp_path / "parts.csv").read_bytes() == whole
    assert max(asked) == 3
