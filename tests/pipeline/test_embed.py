"""Embeddings in a study: what is computed again, what is kept, what stands beside it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from napari_dinobloom.cli import app
from napari_dinobloom.console import summarise
from napari_dinobloom.encoders.encoder import load_encoder
from napari_dinobloom.encoders.library import locate
from napari_dinobloom.errors import AtlasError, EncoderError, InputError, StudyError
from napari_dinobloom.io import embeddings
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline import classify, edits, embed
from napari_dinobloom.pipeline.crops import open_crops
from napari_dinobloom.pipeline.driver import Outcome, iter_outcome
from napari_dinobloom.pipeline.embedded import read_embeddings, stored_encoders
from napari_dinobloom.progress import Progress, Steps, drain

Draw = Callable[..., Path]
FIELD = "field0"


class Spy:
    """An encoder that counts the pictures it is asked to embed."""

    def __init__(self, encoder: Any, counts: list[int]) -> None:
        self._encoder, self._counts = encoder, counts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def __enter__(self) -> Spy:
        return self

    def __exit__(self, *_: object) -> None:
        self._encoder.__exit__(None, None, None)

    def iter_embed_to(self, crops: Any, store: Any) -> Steps[None]:
        """Count, and do it."""
        self._counts.append(crops.shape[0])
        return self._encoder.iter_embed_to(crops, store)


class Slow(Spy):
    """One that tells after every second picture how far it is, so that it can be stopped."""

    def iter_embed_to(self, crops: Any, store: Any) -> Steps[None]:
        """Count, and do it."""
        for start in range(0, crops.shape[0], 2):
            part = np.asarray(crops[start : start + 2])
            store[start : start + len(part)] = self._encoder.embed(part)
            self._counts.append(len(part))
            yield Progress(start + len(part), crops.shape[0])


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of pictures of each call of an encoder in the pipeline."""
    calls: list[int] = []
    load = embed.load
    monkeypatch.setattr(embed, "load", lambda settings: Spy(load(settings), calls))
    return calls


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The same for a slow encoder that embeds two at once, and blocks of four rows."""
    calls: list[int] = []
    load = embed.load
    monkeypatch.setattr(embed, "load", lambda settings: Slow(load(settings), calls))
    monkeypatch.setattr(embeddings, "BLOCK", 4)
    return calls


@pytest.fixture(scope="module")
def embedded(smears: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that is embedded and nothing more; do not change it."""
    path = tmp_path_factory.mktemp("embedded") / "study.dinobloom"
    again(smears, path)
    return path


@pytest.fixture
def copied(embedded: Path, smears: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change and that knows where its images lie."""
    path = tmp_path / "copy.dinobloom"
    shutil.copytree(embedded, path)
    with Study.open(path, read_only=True) as study:
        study.remember_root("r1", smears)
    return path


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another encoder: the starter's weights, a little changed."""
    from safetensors.numpy import load_file, save_file

    state = load_file(locate("starter").path)
    path = tmp_path_factory.mktemp("weights") / "other.safetensors"
    save_file({name: values * np.float32(1.01) for name, values in state.items()}, path)
    return path


def again(inputs: object, path: Path, **settings: object) -> Outcome:
    """Run up to the embeddings and close; what the run did."""
    outcome = drain(iter_outcome(inputs, path, **{"until": "embed", **settings}))  # type: ignore[arg-type]
    outcome.study.close()
    return outcome


def vectors(path: Path) -> np.ndarray:
    """``X`` of a study."""
    with Study.open(path, read_only=True) as study:
        return np.asarray(study.cells.X)


def pictures(path: Path) -> np.ndarray:
    """Crops of a study."""
    with Study.open(path, read_only=True) as study:
        return np.asarray(open_crops(study)[:])


def ids(study: Study, field: str = FIELD) -> list[str]:
    """Cells of a field."""
    return study.cells.obs.index[study.cells.obs["field"] == field].tolist()


def grow(study: Study, cell: str, *, rows: int = 3) -> None:
    """Paint some rows of pixels below a cell."""
    labels = study.labels(FIELD)
    y, x = np.nonzero(labels == int(cell.rpartition(":")[2]))
    labels[y.max() : y.max() + 1 + rows, int(np.median(x))] = int(cell.rpartition(":")[2])
    assert edits.repaint(study, FIELD, labels) == [cell]


def computed(step: Callable[[], Any], counts: list[int]) -> int:
    """Number of pictures that are embedded meanwhile."""
    counts.clear()
    step()
    return sum(counts)


def redo(path: Path) -> None:
    """Take the embedding for not done."""
    with Study.open(path) as study:
        study.forget_steps(["embed"])


# What is computed again


def test_one_changed_cell_is_all_that_is_embedded_again(smears: Path, copied: Path, counts: list[int]) -> None:
    old = vectors(copied)
    with Study.open(copied) as study:
        cell = ids(study)[1]
        row = study.cells.obs_names.get_loc(cell)
        grow(study, cell)
    assert computed(lambda: again(smears, copied), counts) == 1
    assert counts == [1]
    new, others = vectors(copied), np.arange(len(old)) != row
    np.testing.assert_array_equal(new[others], old[others])
    np.testing.assert_array_equal(new[row], load_encoder("starter", "cpu").embed(pictures(copied)[row : row + 1])[0])
    assert (new[row] != old[row]).any()
    assert computed(lambda: again(smears, copied), counts) == 0


def test_cells_before_and_after_are_not(
    smears: Path, copied: Path, tmp_path: Path, draw: Draw, counts: list[int]
) -> None:
    """New cells of a new field; then all rows of the table in another order."""
    old = vectors(copied)
    draw(tmp_path / "carl" / "new.png", seed=77)
    made = computed(lambda: again([smears, tmp_path / "carl"], copied), counts)
    assert 0 < made == len(vectors(copied)) - len(old)
    np.testing.assert_array_equal(vectors(copied)[: len(old)], old)
    with Study.open(copied, read_only=True) as study:
        known = dict(zip(study.cells.obs_names, np.asarray(study.cells.X), strict=True))
    (copied / "cells.h5ad").unlink()
    shutil.rmtree(copied / "crops.zarr")
    with Study.open(copied) as study:
        study.update(fields=study.fields[::-1])
    assert computed(lambda: again([], copied), counts) == 0
    with Study.open(copied, read_only=True) as study:
        assert list(study.cells.obs_names) != list(known), "the table begins with another field now"
        np.testing.assert_array_equal(study.cells.X, [known[cell] for cell in study.cells.obs_names])


def test_cells_whose_neighbours_changed_are(smears: Path, copied: Path, counts: list[int]) -> None:
    again(smears, copied, mask_neighbours=True)
    old, before = vectors(copied), pictures(copied)
    with Study.open(copied) as study:
        grow(study, ids(study)[0], rows=6)
    made = computed(lambda: again(smears, copied), counts)
    changed = (pictures(copied) != before).any(axis=(1, 2, 3))
    assert changed.sum() >= 1
    assert changed.sum() <= made < len(old)
    np.testing.assert_array_equal(vectors(copied)[~changed], old[~changed])
    rows = np.flatnonzero(changed)
    np.testing.assert_array_equal(
        vectors(copied)[rows], load_encoder("starter", "cpu").embed(pictures(copied)[rows]), "no crop has an old key"
    )


def test_other_crops_are_embedded_and_the_old_ones_swept(smears: Path, copied: Path, counts: list[int]) -> None:
    n = len(vectors(copied))
    assert computed(lambda: again(smears, copied, fov_um=30.0), counts) == n
    with Study.open(copied, read_only=True) as study:
        assert [one.n for one in stored_encoders(study)] == [n]


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_that_ended_early_goes_on_where_it_was(
    smears: Path, copied: Path, slow: list[int], monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """After ten cells: one that is stopped keeps all, one that is killed the two blocks of four that were whole."""
    whole = vectors(copied)
    shutil.rmtree(copied / "embeddings")
    redo(copied)
    steps = iter_outcome(smears, copied, until="embed")
    next(report for report in steps if report.step == "embed" and report.done == 10)
    with monkeypatch.context() as patch:
        if killed:
            patch.setattr(embeddings.Sink, "close", lambda self: None)
        steps.close()
    assert sum(slow) == 10
    assert computed(lambda: again(smears, copied), slow) == len(whole) - (8 if killed else 10)
    np.testing.assert_array_equal(vectors(copied), whole)


def test_a_torn_block_is_computed_again(smears: Path, copied: Path, counts: list[int]) -> None:
    whole = vectors(copied)
    (block,) = (copied / "embeddings").rglob("*.safetensors")
    block.write_bytes(block.read_bytes()[:-1])
    redo(copied)
    assert computed(lambda: again(smears, copied), counts) == len(whole)
    np.testing.assert_array_equal(vectors(copied), whole)
    redo(copied)
    assert computed(lambda: again(smears, copied), counts) == 0


def test_some_rows_of_the_store_are_an_array_of_their_own(embedded: Path) -> None:
    with Study.open(embedded, read_only=True) as study:
        whole, rows = pictures(embedded), np.array([0, 1, 2, 5, 11, 12])
        some = embed.Picked(open_crops(study), rows)
        assert (some.shape, some.dtype, len(some)) == ((6, 224, 224, 3), np.uint8, 6)
        for part in (slice(0, 3), slice(2, 6), slice(4, 99), slice(6, 9)):
            np.testing.assert_array_equal(some[part], whole[rows][part])


# What stands beside it


def test_encoders_stand_side_by_side(smears: Path, copied: Path, other: Path, counts: list[int]) -> None:
    first = vectors(copied)
    n = len(first)
    assert computed(lambda: again(smears, copied, encoder=str(other)), counts) == n
    second = vectors(copied)
    assert np.abs(second - first).max() > 0.01
    with Study.open(copied, read_only=True) as study:
        ours, theirs = sorted(stored_encoders(study), key=lambda one: one.name, reverse=True)
        assert (ours.name, ours.dim, ours.n, ours.precision, ours.device) == ("starter", 192, n, "float32", "cpu")
        assert (theirs.name, ours.active, theirs.active) == ("other", False, True)
        assert ours.pooling == theirs.pooling == "class"
        assert ours.when.startswith("20")
        for which in ("starter", ours, ours.key, ours.folder):
            np.testing.assert_array_equal(read_embeddings(study, which, missing="refuse"), first)
        np.testing.assert_array_equal(read_embeddings(study, ours, rows=np.array([3, 1])), first[[3, 1]])
        np.testing.assert_array_equal(read_embeddings(study, "other"), second)
        with pytest.raises(StudyError, match=r"none of the stored embeddings are called 'startr'.*starter-"):
            read_embeddings(study, "startr")
    assert computed(lambda: again(smears, copied, encoder="starter"), counts) == 0
    np.testing.assert_array_equal(vectors(copied), first)
    assert [one.active for one in stored(copied)] == [False, True]


def test_the_summary_tells_no_names_of_an_encoder_before_and_why_there_are_none(
    smears: Path, copied: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summarise(again(smears, copied, until="report"))
    assert "out of date" not in capsys.readouterr().out
    summarise(again(smears, copied, encoder=str(other), until="embed"))
    told = capsys.readouterr().out
    assert "names" in told
    assert "unclassified" not in told
    assert "(out of date)" in told.replace("\n", "")
    summarise(again(smears, copied, encoder=str(other), until="report"))
    told = capsys.readouterr()
    assert "no atlas belongs to the encoder other" in told.err
    assert "unclassified" in told.out
    assert "out of date" not in told.out


def stored(path: Path) -> list[embedded.StoredEncoder]:
    """What a study says of its embeddings."""
    with Study.open(path, read_only=True) as study:
        return stored_encoders(study)


def test_embeddings_follow_the_rows_of_the_table(smears: Path, copied: Path, other: Path) -> None:
    """The cell that changed since has none of the encoder that was not asked again, and all others have theirs."""
    old = vectors(copied)
    with Study.open(copied) as study:
        cell = ids(study)[1]
        row = study.cells.obs_names.get_loc(cell)
        grow(study, cell)
        assert np.isnan(read_embeddings(study, "starter")[row]).all(), "known before the crop is cut again"
    again(smears, copied, encoder=str(other))
    with Study.open(copied, read_only=True) as study:
        found = read_embeddings(study, "starter")
        assert np.isnan(found[row]).all()
        np.testing.assert_array_equal(np.delete(found, row, 0), np.delete(old, row, 0))
        np.testing.assert_array_equal(read_embeddings(study, "other", missing="refuse"), study.cells.X)
        with pytest.raises(StudyError, match=f"1 of {len(old)} cells have no embedding of starter.*--encoder starter"):
            read_embeddings(study, "starter", missing="refuse")


def test_number_formats_do_not_clash(smears: Path, copied: Path, counts: list[int]) -> None:
    exact = vectors(copied)
    assert computed(lambda: again(smears, copied, precision="bf16"), counts) == len(exact)
    half = vectors(copied)
    assert 0 < np.abs(half - exact).max() < 0.5
    assert {(one.precision, one.active) for one in stored(copied)} == {("float32", False), ("bf16", True)}
    assert len({one.folder for one in stored(copied)}) == 1
    with Study.open(copied, read_only=True) as study, pytest.raises(StudyError, match="2 of the stored embeddings"):
        read_embeddings(study, "starter")
    assert computed(lambda: again(smears, copied, precision="float32"), counts) == 0
    np.testing.assert_array_equal(vectors(copied), exact)


def test_class_and_mean_token_are_no_match_for_an_atlas_of_class_tokens(
    smears: Path, copied: Path, counts: list[int]
) -> None:
    exact = vectors(copied)
    with pytest.raises(AtlasError, match=r"built with pooling 'class', but .*'class\+mean' was taken"):
        again(smears, copied, pooling="class+mean", until="classify")
    assert counts == [], "refused before any work"
    assert computed(lambda: again(smears, copied, pooling="class+mean"), counts) == len(exact)
    both = vectors(copied)
    assert both.shape == (len(exact), 2 * exact.shape[1])
    np.testing.assert_allclose(both[:, : exact.shape[1]], exact, atol=1e-5)
    with Study.open(copied, read_only=True) as study:
        assert study.cells.uns["dinobloom"]["pooling"] == "class+mean"
    assert computed(lambda: again(smears, copied, pooling="class"), counts) == 0
    np.testing.assert_array_equal(vectors(copied), exact)


def test_the_table_says_what_made_its_embeddings(embedded: Path) -> None:
    encoder = load_encoder("starter", "cpu")
    with Study.open(embedded, read_only=True) as study:
        said = study.cells.uns["dinobloom"]
    expected = {"encoder": "starter", "encoder_sha256": encoder.sha256, "encoder_key": encoder.key}
    expected |= {"pooling": "class", "precision": "float32", "device": "cpu"}
    assert {name: said[name] for name in expected} == expected
    assert json.loads(said["preprocessing"]) == {
        "input_size": 224,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bilinear",
        "positions": None,
    }


# Settings


def test_what_computes_counts_and_not_how_it_was_asked_for(smears: Path, copied: Path, counts: list[int]) -> None:
    """The step is not even done again: its key holds what decides the numbers."""
    same: list[dict[str, object]] = [
        {"device": "cpu"},
        {"device": "cpu,cpu"},
        {"precision": "float32"},
        {"max_memory_gib": 3.0},
        {"pooling": "class"},
        {"device": "auto", "precision": "auto"},
    ]
    for asked in same:
        assert again(smears, copied, **asked).seconds == {}, asked
    with Study.open(copied, read_only=True) as study:
        assert {name: study.settings[name] for name in ("max_memory_gib", "pooling", "device")} == {
            "max_memory_gib": 3.0,
            "pooling": "class",
            "device": "auto",
        }
    assert counts == []


def test_a_study_from_a_machine_with_other_devices(smears: Path, copied: Path, counts: list[int]) -> None:
    """It is finished as it is; once something has to be embedded, all is by what is here."""
    n = len(vectors(copied))
    with Study.open(copied) as study:
        study.update(settings=study.settings | {"computes": "auto auto = cuda bf16"})
        study.forget_steps(["embed"])
    assert computed(lambda: again(smears, copied), counts) == 0, "those of the CPU are there"
    with Study.open(copied, read_only=True) as study:
        assert study.settings["computes"] == "auto auto = cpu float32"
    assert again(smears, copied).seconds == {}
    assert len(vectors(copied)) == n


def test_nothing_to_do_is_said_without_loading_torch(smears: Path, copied: Path) -> None:
    code = (
        "import sys; from napari_dinobloom.pipeline.driver import iter_outcome; "
        "from napari_dinobloom.progress import drain; "
        f"found = drain(iter_outcome({str(smears)!r}, {str(copied)!r}, until='embed')); "
        "assert found.seconds == {}, found.seconds; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"device": "gpu"}, InputError, "device is 'gpu'; use auto, cpu"),
        ({"device": "auto,cpu"}, InputError, "use auto, cpu"),
        ({"device": "cpu,mps"}, EncoderError, "mps"),
        ({"precision": "half"}, InputError, "auto or float32 or bf16"),
        ({"pooling": "mean"}, InputError, r"use own or class or class\+mean"),
        ({"max_memory_gib": 0.01}, InputError, "0.25 or more, or 0 for no limit"),
    ],
)
def test_what_cannot_compute_is_refused_before_anything_is_written(
    smears: Path, tmp_path: Path, asked: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        again(smears, tmp_path / "s.dinobloom", **asked)
    assert list(tmp_path.iterdir()) == []


def test_undefined_embeddings_end_the_step(smears: Path, copied: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = {name: value.float() for name, value in load_file(locate("starter").path).items()}
    state["norm.weight"].fill_(3e38)
    save_file(state, tmp_path / "overflows.safetensors")
    asked = {"until": "embed", "encoder": str(tmp_path / "overflows.safetensors"), "atlas": "none"}
    for _ in range(2):  # the second run does not take them for done either
        with pytest.raises(
            EncoderError, match=r"undefined numbers for \d+ of \d+ cells in float32, the first is field0"
        ):
            drain(iter_outcome(smears, copied, **asked))


def test_a_card_that_is_not_there_is_told_before_the_first_step(
    smears: Path, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Study.open(copied) as study:
        study.update(settings=study.settings | {"device": "cuda", "computes": "cuda auto = cuda bf16"})
    worked: list[str] = []
    with pytest.raises(EncoderError, match="'cuda' is not available"):
        worked += [report.step for report in iter_outcome(smears, copied, until="embed", fov_um=30.0) if report.total]
    assert set(worked) <= {"read"}


def test_the_command_line(smears: Path, copied: Path, other: Path, counts: list[int]) -> None:
    line = ["embed", str(copied), "--encoder", str(other), "--devices", "cpu", "--max-memory", "4"]
    done = CliRunner().invoke(app, [*line, "--precision", "float32", "--pooling", "class"])
    assert done.exit_code == 0, done.output
    assert sum(counts) == len(vectors(copied))
    with Study.open(copied, read_only=True) as study:
        said = study.settings
    expected = {"device": "cpu", "max_memory_gib": 4.0, "precision": "float32", "pooling": "class"}
    assert {name: said[name] for name in expected} == expected
    shown = CliRunner().invoke(app, ["embed", str(copied), "--list"])
    assert shown.exit_code == 0, shown.output
    n = len(vectors(copied))
    for one, line in zip(stored(copied), shown.output.splitlines(), strict=True):
        star = "*" if one.name == "other" else " "
        assert line == f"{star} {one.folder}  {n} x 192  float32 on cpu, class  {one.when}  {one.key}"


def test_a_whole_run_with_embeddings_on_the_disk_gives_the_same(
    smears: Path, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_dinobloom.io.vectors.LAZY", 0)
    monkeypatch.setattr(classify, "TOGETHER", 5)
    (copied / "cells.h5ad").unlink()
    again([smears], copied, until="classify")
    here = tmp_path / "here.dinobloom"
    shutil.copytree(copied, here)
    (here / "cells.h5ad").unlink()
    with monkeypatch.context() as small:
        small.setattr("napari_dinobloom.io.vectors.LAZY", 1 << 30)
        small.setattr(classify, "TOGETHER", 1 << 14)
        again([smears], here, until="classify")
        with Study.open(here, read_only=True) as study:
            wanted = study.cells
            assert isinstance(wanted.X, np.ndarray)
    with Study.open(copied, read_only=True) as study:
        found = study.cells
        assert not isinstance(found.X, np.ndarray)
        assert np.array_equal(np.asarray(found.X), wanted.X)
        assert np.array_equal(found.obsm["X_umap"], wanted.obsm["X_umap"], equal_nan=True)
        pd.testing.assert_frame_equal(found.obs, wanted.obs)


def test_embeddings_kept_in_bf16_are_a_set_of_their_own(smears: Path, copied: Path, counts: list[int]) -> None:
    with Study.open(copied, read_only=True) as study:
        before = np.asarray(study.cells.X)
    again([smears], copied, embeddings="bf16")
    with Study.open(copied, read_only=True) as study:
        assert np.array_equal(study.cells.X, embeddings.widened(embeddings.halved(before)))
        assert study.cells.uns["dinobloom"]["embeddings"] == "bf16"
        assert {one.n for one in stored_encoders(study)} == {len(before)}
        assert len(stored_encoders(study)) == 2
    assert counts == [len(before)]
    again([smears], copied, embeddings="float32")
    with Study.open(copied, read_only=True) as study:
        assert np.array_equal(study.cells.X, before)
    assert counts == [len(before)]  # the others are still there


def test_embeddings_that_stay_on_the_disk_are_checked_where_they_are_read() -> None:
    values = np.ones((6, 3), np.float32)
    values[4, 1] = np.inf
    found = embeddings.Embedded(lambda rows: values[rows], np.arange(6), (6, 3))
    checked = embed.Checked(found, pd.Index([f"f:0000{i}" for i in range(6)]), "toy", "float16")
    assert np.array_equal(checked[0:4], values[:4])
    with pytest.raises(EncoderError, match=r"undefined numbers for 1 of 3 cells in float16, the first is f:00004"):
        checked[3:6, 0:3]
