"""The command `evaluate`, as a person types it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from painted_sets import MeanColour, paint
from typer.main import get_command
from typer.testing import CliRunner, Result

from napari_dinobloom.cells.crop import CropPolicy
from napari_dinobloom.cli import app
from napari_dinobloom.cli import evaluate as command
from napari_dinobloom.io.tables import read_csv
from napari_dinobloom.predict.protocols.cohort import iter_embed_cohort
from napari_dinobloom.predict.protocols.layouts import read_layout
from napari_dinobloom.predict.protocols.protocol import iter_evaluate
from napari_dinobloom.progress import drain


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> MeanColour:
    """What the command loads."""
    one = MeanColour()
    monkeypatch.setattr(command, "load", lambda name, device, precision, accept: one)
    monkeypatch.setenv("COLUMNS", "200")
    return one


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Acevedo's folders: three classes that differ a little in colour, 30 pictures each."""
    root = tmp_path_factory.mktemp("pbc")
    for shift, (folder, prefix) in enumerate([("basophil", "BA"), ("ig", "MMY"), ("ig", "PMY")]):
        for i in range(30):
            paint(root / folder / f"{prefix}_{i}.jpg", 100 * shift + i, 25 * shift)
    return root


def say(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_the_protocol_of_the_paper(archive: Path, encoder: MeanColour, tmp_path: Path) -> None:
    result = say(archive, "--table", "paper", "-o", tmp_path / "out", "--cache", tmp_path / "cache")
    assert result.exit_code == 0, result.output
    assert "90 pictures of 3 classes, read as acevedo" in result.output
    assert "DinoBloom-G" in result.output
    assert "arXiv:2404.05022" in result.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"metrics.csv", "per_class.csv", "predictions.csv", "run.json", "confusion.png", "confusion.svg"}
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["crops"]["interpolation"] == "bicubic"
    assert run["encoder"]["sha256"] == encoder.sha256
    assert run["data"]["pictures"] == run["asked"] == 90
    metrics = read_csv(tmp_path / "out" / "metrics.csv")
    policy = CropPolicy(kind="published", size=16, interpolation="bicubic")
    cohort = drain(iter_embed_cohort(read_layout(archive), MeanColour(), policy, tmp_path / "cache"))
    pd.testing.assert_frame_equal(metrics, drain(iter_evaluate(cohort, "paper")).metrics)
    value = metrics.set_index(["method", "metric"]).loc[("1-NN", "weighted_f1"), "value"]
    assert f"{100 * value:.1f} ±" in result.output


def test_a_second_run_embeds_nothing(archive: Path, encoder: MeanColour, tmp_path: Path) -> None:
    first = say(archive, "--protocol", "strict", "--orders", 2, "--cache", tmp_path)
    assert encoder.seen == 90
    second = say(archive, "--protocol", "strict", "--orders", 2, "--cache", tmp_path)
    assert encoder.seen == 90
    assert first.stdout == second.stdout
    assert "over draws" in second.output


def test_a_table_with_a_split(archive: Path, encoder: MeanColour, tmp_path: Path) -> None:
    table = archive / "set.csv"
    rows = [(path.relative_to(archive).as_posix(), path.name.split("_")[0]) for path in sorted(archive.rglob("*.jpg"))]
    split = ["test" if i % 5 == 0 else "train" for i in range(len(rows))]
    pd.DataFrame(rows, columns=["file", "cell_type"]).assign(split=split).to_csv(table, index=False)
    result = say(table, "--cache", tmp_path, "-o", tmp_path / "out")
    table.unlink()
    assert result.exit_code == 0, result.output
    assert "read as table" in result.output
    said = read_csv(tmp_path / "out" / "predictions.csv")
    assert len(said) == 18
    assert "±" not in result.output  # one run has no spread


def test_bad_input_is_told_before_an_encoder_is_loaded(archive: Path, tmp_path: Path, encoder: MeanColour) -> None:
    (tmp_path / "file").write_text("")
    for arguments, message in [
        ((tmp_path / "nothing",), "no such file"),
        ((archive, "-o", tmp_path / "file"), "is a file. Name a folder"),
        ((archive, "--layout", "folders", "--table", "paper"), "no figures for layout 'folders'"),
        ((archive, "--layout", "hehr"), "laid out as 'hehr'"),
    ]:
        result = say(*arguments)
        assert result.exit_code == 2
        assert message in " ".join(result.output.split())
    assert encoder.seen == 0


def test_pictures_that_cannot_be_read_are_listed(encoder: MeanColour, tmp_path: Path) -> None:
    for i in range(60):
        paint(tmp_path / "set" / "ab"[i % 2] / f"{i}.png", i, 40 * (i % 2))
    (tmp_path / "set" / "a" / "broken.png").write_bytes(b"\x89PNG nothing")
    refused = say(tmp_path / "set", "--cache", tmp_path / "cache")
    assert refused.exit_code == 2
    assert "--skip-unreadable" in refused.output
    assert encoder.seen == 0
    result = say(tmp_path / "set", "--skip-unreadable", "-o", tmp_path / "out", "--cache", tmp_path / "cache")
    assert result.exit_code == 0, result.output
    assert "1 pictures cannot be read and are left out." in result.output
    (unreadable,) = json.loads((tmp_path / "out" / "run.json").read_text())["data"]["unreadable"]
    assert "broken.png" in unreadable


def test_the_starter_on_its_own_pictures_is_told(
    archive: Path, encoder: MeanColour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "name", "starter", raising=False)
    result = say(archive, "--cache", tmp_path)
    assert "no external validation" in " ".join(result.output.split())


def test_the_page_names_only_options_that_there_are() -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluate.md").read_text(encoding="utf-8")
    named = set(re.findall(r"--[a-z]+(?:-[a-z]+)*", page))
    known = {option for parameter in get_command(app).commands["evaluate"].params for option in parameter.opts}  # type: ignore[attr-defined]
    assert len(named) > 6
    assert named <= known
