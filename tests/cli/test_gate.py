"""The commands of `napari-dinobloom gate`, as a person types them: the same numbers as in Python."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from gated import OTHER, gated_study
from typer.testing import CliRunner, Result

from napari_dinobloom.cli import app
from napari_dinobloom.explore.gate_comparison import compare_groups
from napari_dinobloom.explore.study_gates import StudyGates
from napari_dinobloom.io.study import Study


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "s.dinobloom"
    gated_study(path).close()
    return path


def _do(*words: object, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["gate", *map(str, words)])
    assert done.exit_code == code, done.output + done.stderr
    return done


@pytest.fixture
def gated(study: Path) -> Path:
    """right (g1) > large (g2)."""
    _do("add", study, "--name", "right", "--type", "rectangle", "--axes", "umap_1,umap_2", "--range-min", "0,",
        "--range-max", ",", "--seen", "p0")  # fmt: skip
    _do(
        "add", study, "--name", "large", "--type", "range", "--axes", "area_px", "--range-min", 400, "--parent", "right"
    )
    return study


SHAPES = {
    "polygon": ("--axes", "umap_1, umap_2", "--vertices", "0,-9 9,-9 9,9 0,9"),
    "ellipse": ("--axes", "umap_1,umap_2", "--center", "3,0", "--half-axes", "2,1", "--angle", "30"),
    "quadrant": ("--axes", "umap_1,umap_2", "--dividers", "0,0", "--quadrant", "+-"),
    "range": ("--axes", "area_px", "--range-max", "300"),
    "not": ("--of", "right"),
    "or": ("--of", "right", "--of", "right/large"),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_every_shape_can_be_typed_and_read_from_json(gated: Path, kind: str, tmp_path: Path) -> None:
    assert _do("add", gated, "--name", "x", "--type", kind, *SHAPES[kind]).output.strip() == "g3"
    with Study.open(gated) as opened:
        gates = StudyGates(opened)
        gate, mask = gates.tree["g3"].gate, gates.masks()["g3"]
        assert 0 < mask.sum() < len(mask)
    (tmp_path / "gate.json").write_text(json.dumps(gate.renamed("y").to_dict()))
    _do("add", gated, "--json", tmp_path / "gate.json")
    with Study.open(gated, read_only=True) as opened:
        np.testing.assert_array_equal(StudyGates(opened).masks()["g4"], mask)


def test_list_rename_and_delete(gated: Path) -> None:
    _do("rename", gated, "right/large", "huge")
    shown = _do("list", gated).output
    with Study.open(gated, read_only=True) as opened:
        gates = StudyGates(opened)
        for key, mask in gates.masks().items():
            (line,) = [line.split() for line in shown.splitlines() if line.split()[:1] == [key]]
            assert line[1:3] == [gates.tree.path(key), str(mask.sum())]
        assert gates.tree["g1"].seen == ("p0",)
        assert gates.tree["g2"].seen is None
    assert "2 gates deleted" in _do("delete", gated, "g1").output
    assert "No gate yet" in _do("list", gated).output


def test_stats_and_comparison_are_those_of_python(gated: Path, tmp_path: Path) -> None:
    _do("stats", gated, "--out", tmp_path / "stats.csv")
    groups = {f"p{i}": "ab"[i % 2] for i in range(8)}
    pd.DataFrame({"patient": groups.keys(), "group": groups.values()}).to_csv(tmp_path / "groups.csv", index=False)
    _do("compare", gated, "--groups", tmp_path / "groups.csv", "--of", "all", "--out", tmp_path / "c.csv")
    with Study.open(gated, read_only=True) as opened:
        gates = StudyGates(opened)
        tables = gates.statistics()
        assert tables is not None
        expected = compare_groups(tables.counts, gates.tree, groups, of="all")
    text = {"patient": str, "slide": str}
    found = pd.read_csv(tmp_path / "stats.csv", comment="#", dtype=text, keep_default_na=False, na_values=["nan"])
    pd.testing.assert_frame_equal(found, tables.counts, check_dtype=False, rtol=1e-12)
    compared = pd.read_csv(tmp_path / "c.csv", comment="#", keep_default_na=False)
    pd.testing.assert_frame_equal(compared, expected, check_dtype=False, rtol=1e-12)
    shown = _do("compare", gated, "--groups", tmp_path / "groups.csv").output
    assert "Exploratory" in shown
    assert "a: a, b: b." in shown


def test_groups_that_cannot_be_are_refused(gated: Path, tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    for content, message in (
        ("patient,grp\np0,a\n", "has no column 'group'; did you mean 'grp'"),
        ("patient,group\np0,a\np0,b\n", "patient 'p0' is in the groups 'a' and 'b'. Keep one"),
        ("patient,group\np0,a\n", "two groups of patients, not 1"),
        ("patient,group\np0,a\nP1,b\n", "no patient 'P1'"),
    ):
        path.write_text(content)
        assert message in " ".join(_do("compare", gated, "--groups", path, code=2).stderr.split())


def test_suggestions_are_one_act(study: Path) -> None:
    assert len(_do("suggest", study).output.splitlines()) == 2
    with Study.open(study) as opened:
        gates = StudyGates(opened)
        assert len(gates.tree) == 2
        assert gates.tree["g1"].seen == gates.patients
        opened.undo()
        assert len(gates.tree) == 0


def test_exports_and_import(gated: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / f"gates.{name}" for name in ("json", "fcs", "h5ad")}
    given = [word for name, path in files.items() for word in (f"--{name}", path)]
    _do("export", gated, "--csv", tmp_path / "csv", *given)
    with Study.open(gated, read_only=True) as opened:
        gates = StudyGates(opened)
        tree, masks = gates.tree.to_dict(), gates.masks()
    assert json.loads(files["json"].read_text())["tree"] == tree
    assert files["fcs"].read_bytes().startswith(b"FCS3.1")
    table = anndata.read_h5ad(files["h5ad"])
    np.testing.assert_array_equal(table.obsm["gates"]["right > large"], masks["g2"])
    assert (tmp_path / "csv" / "gates-counts.csv").exists()
    assert "Nothing to write" in _do("export", gated, code=2).stderr
    assert "2 gates taken over" in _do("import", gated, files["json"], "--parent", "right").output
    with Study.open(gated, read_only=True) as opened:
        assert StudyGates(opened).tree.path("g4") == "right/right/large"
    files["json"].write_text("[]")
    assert "must be a JSON object" in " ".join(_do("import", gated, files["json"], code=2).stderr.split())


def test_copies_go_to_the_same_map_only(gated: Path, tmp_path: Path) -> None:
    for name, options in (("same", {}), ("other", {"projection": OTHER})):
        gated_study(tmp_path / f"{name}.dinobloom", **options).close()
    assert "1 gate copied" in _do("copy", gated, tmp_path / "same.dinobloom", "--gate", "right/large").output
    refused = _do("copy", gated, tmp_path / "other.dinobloom", code=2).stderr
    assert "belongs to map cdcdcdcd" in " ".join(refused.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("delete", "rihgt"), "no gate 'rihgt'; did you mean 'right'?"),
        (("add", "--name", "x"), "needs --name and --type"),
        (("add", "--name", "x", "--type", "range", "--axes", "area", "--range-min", "1"), "no column 'area'"),
        (("add", "--name", "x", "--type", "range", "--axes", "area_px", "--range-min", "one"), "--range-min 'one'"),
        (("add", "--name", "right", "--type", "not", "--of", "right"), "another gate beside it has this name"),
        (("add", "--json", "nothing.json"), "cannot be read as JSON"),
        (("rename", "right", "a/b"), "separates the names of a path"),
        (("suggest", "--axes", "umap_1,umap_3"), "no column 'umap_3'"),
    ],
)
def test_mistakes_are_said_and_change_nothing(gated: Path, words: tuple[str, ...], message: str) -> None:
    before = (gated / "edits.jsonl").read_bytes()
    command, *rest = words
    assert message in " ".join(_do(command, gated, *rest, code=2).stderr.split())
    assert (gated / "edits.jsonl").read_bytes() == before


def test_a_study_without_gates_says_what_to_do(study: Path) -> None:
    for command in ("stats", "export"):
        words = ("--csv", study.parent) if command == "export" else ()
        assert "has no gate. Draw one" in " ".join(_do(command, study, *words, code=2).stderr.split())
