"""The sample study: made once, with map, gates and predictions; left alone afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_dinobloom.explore import suggest
from napari_dinobloom.explore.gates import RectangleGate
from napari_dinobloom.explore.study_gates import StudyGates
from napari_dinobloom.io.generate import COMPOSITION
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline import sample_study
from napari_dinobloom.progress import Progress


@pytest.mark.slow
def test_it_is_ready_and_stays_as_people_left_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_study, "PATIENTS", {"anna": COMPOSITION, "bert": sample_study.MANY_LYMPHOCYTES})
    monkeypatch.setattr(sample_study, "FIELDS", 1)
    monkeypatch.setattr(sample_study, "CELLS", 5)

    def everything(table, axes, *, min_cluster_size):  # a dozen cells are no cluster
        yield Progress(0, 1)
        low, high = (tuple(float(v) for v in (table[list(axes)].agg(end))) for end in ("min", "max"))
        of = table.attrs["projection"]
        return [RectangleGate(name="all", axes=axes, range_min=low, range_max=[v + 1 for v in high], projection=of)]

    monkeypatch.setattr(suggest, "iter_suggest_gates", everything)
    path = sample_study.sample_study(tmp_path)
    with Study.open(path) as study:
        cells = study.cells
        assert set(cells.obs["patient"]) == {"anna", "bert"}
        assert set(cells.obs["predicted"]) != {""}
        assert np.isfinite(cells.obsm["X_umap"]).all()
        assert [count for count, *_ in StudyGates(study).totals().values()] == [cells.n_obs]
        assert (path / "report.html").is_file()
        study.label(str(cells.obs_names[0]), "blast")
        assert sample_study.sample_study(tmp_path) == path, "also while it is open"
        acts = (path / "edits.jsonl").read_bytes()
    assert sample_study.sample_study(tmp_path) == path
    assert (path / "edits.jsonl").read_bytes() == acts


def test_one_that_was_made_once_is_never_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_study, "_iter_smears", lambda _images: pytest.fail("it is made again"))
    study = Study.create(tmp_path / sample_study.STUDY)  # without gates and report: people took them away
    (study.path / sample_study.MADE).touch()
    assert sample_study.sample_study(tmp_path) == study.path
    study.close()
