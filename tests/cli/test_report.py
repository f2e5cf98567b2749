"""`report` and `export` with pages and pseudonyms, as a person types them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from named import EMPTY, PATIENTS, named_study, spoken
from typer.testing import CliRunner, Result

from napari_dinobloom.cli import app
from napari_dinobloom.io.pseudonyms import read_pseudonyms
from napari_dinobloom.io.study import Study
from napari_dinobloom.io.tables import read_csv
from napari_dinobloom.pipeline.driver import Outcome
from napari_dinobloom.pipeline.settings import resolve


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study whose steps are all done."""
    path = tmp_path / "s.dinobloom"
    named_study(path).close()

    def done(inputs: Any, out: Path, **asked: Any) -> Iterator[Any]:
        with Study.open(out, read_only=True) as opened:
            return Outcome(opened, resolve(opened.settings, {}), [("Annabel.txt", "is no picture")])
        yield

    monkeypatch.setattr("napari_dinobloom.pipeline.driver.iter_outcome", done)
    return path


def _do(*words: object, code: int = 0) -> Result:
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == code, done.output + done.stderr
    return done


def test_pages_are_asked_for_by_name(study: Path) -> None:
    assert not (study / "reports").exists()
    said = _do("report", study, "--per-patient", code=1).output  # 1: an input was left out
    assert len(list((study / "reports").iterdir())) == len(PATIENTS) + 1
    assert str(study / "reports") in said
    _do("report", study, "--cohort", code=1)
    assert (study / "reports" / "cohort.html").is_file()
    assert not (study / "reports-pseudonymous").exists()


def test_pseudonyms_go_to_a_folder_of_their_own(study: Path) -> None:
    _do("report", study, "--pseudonyms", code=1)
    folder = study / "reports-pseudonymous"
    assert [path.name for path in folder.iterdir()] == ["report.html"]
    _do("report", study, "--per-patient", "--cohort", "--pseudonyms", code=1)
    assert len(list(folder.iterdir())) == len(PATIENTS) + 3
    assert not (study / "reports").exists()


def test_an_export_under_pseudonyms_holds_no_name(study: Path, tmp_path: Path) -> None:
    plain, told = tmp_path / "plain", tmp_path / "told"
    _do("export", study, "-o", plain, "--geojson")
    _do("export", study, "-o", told, "--geojson", "--pseudonyms")
    with Study.open(study, read_only=True) as opened:
        words = spoken(opened)
    texts = {path.name: path.read_text(encoding="utf-8") + path.name for path in told.iterdir()}
    assert len(texts) == 3 + len(PATIENTS) + 1
    assert [(name, word) for name, text in texts.items() for word in words if word in text] == []
    assert any(word in path.read_text(encoding="utf-8") for path in plain.iterdir() for word in words)
    names, real, under = read_pseudonyms(study), read_csv(plain / "cells.csv"), read_csv(told / "cells.csv")
    assert list(under["cell_id"]) == sorted(names.cell(cell) for cell in real["cell_id"])
    joined = under.set_index("cell_id").loc[[names.cell(cell) for cell in real["cell_id"]]]
    for column in ("predicted", "label", "distance", "umap_1", "y0"):
        assert (joined[column].to_numpy() == real[column].to_numpy()).all()
    assert set(under["patient"]) == {names.of("patients", name) for name in PATIENTS}
    assert names.of("patients", EMPTY) not in set(under["patient"])
