"""Stain normalisation and adaptation in a study: own embeddings, own keys, and back again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_dinobloom.cells.stain_transfer import estimate, transfer
from napari_dinobloom.cli import app
from napari_dinobloom.encoders.encoder import load_encoder
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline import adapting, embed
from napari_dinobloom.pipeline.adapting import embeddings_of, iter_choose_for
from napari_dinobloom.pipeline.classify import explain, find_atlas
from napari_dinobloom.pipeline.crops import open_crops
from napari_dinobloom.pipeline.driver import iter_outcome
from napari_dinobloom.pipeline.embed import read_embeddings, stored_encoders
from napari_dinobloom.pipeline.settings import resolve
from napari_dinobloom.pipeline.stains import iter_find_stains
from napari_dinobloom.predict.adaptation import Choice, moved
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
