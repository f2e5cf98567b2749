"""`report --scheme`, `count` and `compare-count` on a study whose cells were named by two readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from typer.testing import CliRunner

from napari_dinobloom.cli import app
from napari_dinobloom.io.fields import FieldRecord
from napari_dinobloom.io.study import Study
from napari_dinobloom.io.tables import read_csv
from napari_dinobloom.pipeline.results import count
from napari_dinobloom.pipeline.settings import resolve

NAMES = ["neutrophil_segmented"] * 50 + ["neutrophil_band"] * 10 + ["lymphocyte"] * 38 + ["smudge_cell"] * 2


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred named cells of one slide; Anna calls two a blast, Bert one a monocyte and one reviewed."""
    path = tmp_path_factory.mktemp("count") / "s.dinobloom"
    ids = [f"a:{number:05d}" for number in range(1, 101)]
    with Study.create(path) as made:
        made.update(fields=[FieldRecord("a", "a.png", "study", "0" * 64, 10, 10, slide="s", patient="p")])
        obs = pd.DataFrame(
            {"cell_id": ids, "field": "a", "slide": "s", "patient": "p", "predicted": NAMES, "abstained": False}
        )
        made.save_cells(AnnData(np.zeros((100, 2), np.float32), obs=obs.set_index("cell_id", drop=False)))
        made.label(ids[:2], "blast", who="anna")
        made.label(ids[60], "monocyte", who="bert")
        made.set_review(ids[70], who="bert")
    return path


def said(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def refused(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 2, result.output
    return " ".join((result.output + (result.stderr or "")).split())


def counts(table: pd.DataFrame) -> dict[str, int]:
    return {str(name): int(n) for name, n in zip(table["class"], table["n"], strict=True) if n}


def at_slide(path: Path) -> pd.DataFrame:
    table = read_csv(path)
    return table[table["level"] == "slide"]


def test_the_differential_as_it_is_now(study: Path, tmp_path: Path) -> None:
    before = sorted((file, file.stat().st_mtime_ns) for file in study.rglob("*") if file.is_file())
    output = said("count", study, "-o", tmp_path / "d.csv")
    assert "neutrophil_band" in output
    table = at_slide(tmp_path / "d.csv")
    assert counts(table) == {
        "neutrophil_segmented": 48, "neutrophil_band": 10, "lymphocyte": 37, "monocyte": 1, "blast": 2,
        "smudge_cell": 2,
    }  # fmt: skip
    assert sorted((file, file.stat().st_mtime_ns) for file in study.rglob("*") if file.is_file()) == before


def test_the_command_gives_the_numbers_of_the_library(study: Path, tmp_path: Path) -> None:
    said("count", study, "--scheme", "five-part", "-o", tmp_path / "d.csv")
    with Study.open(study, read_only=True) as opened:
        found, _ = count(opened, resolve(opened.settings, {"scheme": "five-part"}))
    pd.testing.assert_frame_equal(read_csv(tmp_path / "d.csv"), found, check_dtype=False)


def test_a_scheme_and_reviewed_cells(study: Path, tmp_path: Path) -> None:
    output = said("count", study, "--scheme", "five-part", "--count", "reviewed", "-o", tmp_path / "d.csv")
    table = at_slide(tmp_path / "d.csv")
    assert counts(table) == {"lymphocyte": 1, "monocyte": 1, "blast": 2}
    assert table["note"].str.contains("reviewed cells only").all()
    assert output.count("reviewed cells only") == 1, "what holds for all lines is said once"
    assert output.count("not in the scheme") == 2, "the blast's lines of patient and slide"
    assert table.loc[table["class"] == "blast", "note"].str.contains("not in the scheme").all()


def test_one_reader(study: Path, tmp_path: Path) -> None:
    said("count", study, "--reader", "bert", "-o", tmp_path / "d.csv")
    assert counts(at_slide(tmp_path / "d.csv")) == {
        "neutrophil_segmented": 50, "neutrophil_band": 10, "lymphocyte": 37, "monocyte": 1, "smudge_cell": 2,
    }  # fmt: skip
    said("count", study, "--reader", "anna", "--count", "reviewed", "-o", tmp_path / "d.csv")
    assert counts(at_slide(tmp_path / "d.csv")) == {"blast": 2}
    assert "readers are anna, bert" in refused("count", study, "--reader", "carl")


def test_a_count_by_hand(study: Path, tmp_path: Path) -> None:
    manual = tmp_path / "manual.csv"
    manual.write_text("patient,class,n\np,neutrophil,58\np,lymphocyte,40\np,monocyte,2\np,smudge cell,30\n")
    output = said("compare-count", study, manual, "--scheme", "five-part", "-o", tmp_path / "c.csv")
    assert "chi2" in output
    assert "unclassified" not in output
    table = read_csv(tmp_path / "c.csv").set_index("class")
    assert table.loc["neutrophil", ["n", "counted", "manual_n", "manual_counted"]].tolist() == [58, 98, 58, 100]
    assert table["inside"].to_dict() == {
        "neutrophil": True, "lymphocyte": True, "monocyte": True, "smudge_cell": False, "blast": True,
    }  # fmt: skip
    assert "--scheme five-part" in refused("compare-count", study, manual)
    manual.write_text("patient,class,n\np,neutrophl,58\n")
    assert "row 2: 'neutrophl' is no class; did you mean 'neutrophil'" in refused("compare-count", study, manual)


def test_schemes_that_are_none_are_refused(study: Path, tmp_path: Path) -> None:
    assert "did you mean 'five-part'" in refused("count", study, "--scheme", "fivepart")
    mine = tmp_path / "mine.yaml"
    mine.write_text("classes: {lymphocte: }")
    assert "did you mean 'lymphocyte'" in refused("count", study, "--scheme", mine)
