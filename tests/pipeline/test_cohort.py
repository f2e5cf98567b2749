"""New patients on a reference cohort's map, from a table of pictures to a figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from napari_dinobloom.cli import app
from napari_dinobloom.errors import InputError
from napari_dinobloom.explore.projection import Projection
from napari_dinobloom.pipeline.cohort import CohortFigure, iter_draw, read_table, split
from napari_dinobloom.progress import drain


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Eight patients of two diagnoses with three pictures each; p7 shares one with p1."""
    random = np.random.default_rng(0)
    rows = []
    for patient in range(8):
        for number in range(3):
            name = f"c{patient}_{number}.png"
            colour = np.array([200, 120 + 60 * (patient % 2), 160]) + random.integers(-30, 30, 3)
            picture = np.clip(colour + random.normal(size=(40, 40, 3)) * 12, 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(tmp_path / name)
            rows.append({"file": name, "patient": f"p{patient}", "diagnosis": ["well", "ill_x"][patient % 2]})
    rows.append({"file": "c7_0.png", "patient": "p1", "diagnosis": "ill_x"})
    pd.DataFrame(rows).to_csv(tmp_path / "bags.csv", index=False)
    return tmp_path / "bags.csv"


def test_new_patients_share_no_picture_with_the_cohort(table: Path) -> None:
    cohort, new = split(read_table(table), ())
    assert list(dict.fromkeys(new["patient"])) == ["p6", "p7"]
    assert sorted(set(cohort["patient"])) == ["p0", "p2", "p3", "p4", "p5"]
    cohort, new = split(read_table(table), ("p2", "p0"))
    assert list(dict.fromkeys(new["patient"])) == ["p2", "p0"]
    with pytest.raises(InputError, match="no patient 'nobody'"):
        split(read_table(table), ("nobody",))


def test_white_space_around_names_makes_no_other_patient(table: Path) -> None:
    table.write_text(table.read_text().replace("p6,", " p6 ,").replace("diagnosis", "diagnosis "))
    assert set(read_table(table)["patient"]) == {f"p{row}" for row in range(8)}


def test_one_command_draws_the_figure_and_an_earlier_map_gives_the_same(table: Path, tmp_path: Path) -> None:
    out, kept = tmp_path / "fig.png", tmp_path / "map.safetensors"
    done = CliRunner().invoke(app, ["cohort", str(table), "-o", str(out), "--save-map", str(kept), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    with Image.open(out) as picture:
        drawn = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0xD4, 0xD4, 0xD4)):
        assert (np.abs(drawn.astype(int) - colour).max(1) < 3).sum() > 20, "both diagnoses and the grey cohort show"
    projection = Projection.load(kept)
    assert len(projection) == 15
    again = tmp_path / "again.png"
    done = CliRunner().invoke(app, ["cohort", str(table), "-o", str(again), "--on", str(kept), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert again.read_bytes() == out.read_bytes()


def test_colours_may_mean_classes(table: Path, tmp_path: Path) -> None:
    cohort, new = split(read_table(table), ())
    random = np.random.default_rng(0)
    vectors = {file: random.normal(size=192).astype(np.float32) for file in {*cohort["file"], *new["file"]}}
    facts = {"encoder": "starter", "encoder_sha256": "0" * 64, "pooling": "class"}
    asked = CohortFigure(table=table, out=tmp_path / "fig.svg", colour="class")
    (path,) = drain(iter_draw(asked, cohort, new, vectors, facts))
    assert "p6: well, 3 cells" in path.read_text(encoding="utf-8")


def test_what_is_missing_is_named(table: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(table)
    rows.drop(columns="diagnosis").to_csv(tmp_path / "no.csv", index=False)
    with pytest.raises(InputError, match="diagnosis"):
        read_table(tmp_path / "no.csv")
    rows.assign(file="gone.png").to_csv(tmp_path / "gone.csv", index=False)
    with pytest.raises(InputError, match="row 2"):
        read_table(tmp_path / "gone.csv")
    with pytest.raises(InputError, match="ends in"):
        CohortFigure(table=table, out=tmp_path / "fig.doc")
    with pytest.raises(InputError, match="is not there"):
        CohortFigure(table=table, out=tmp_path / "none" / "fig.png")
