"""The commands of `napari-dinobloom weights`, as a person types them."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner, Result
from webserver import PROXIES, Web, serve

from napari_dinobloom import console
from napari_dinobloom.cli import app
from napari_dinobloom.encoders import architecture, registry
from napari_dinobloom.encoders.architecture import Architecture
from napari_dinobloom.encoders.encoder import load_encoder
from napari_dinobloom.encoders.spec import WeightSource, vit_spec
from napari_dinobloom.errors import InputError
from napari_dinobloom.io import download

TOY = Architecture("toy", 32, 2, 2, 64)


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> bytes:
    monkeypatch.setitem(architecture.ARCHITECTURES, "toy", TOY)
    file = io.BytesIO()
    torch.save({key: torch.ones(shape) for key, shape in TOY.shapes().items()}, file)
    return file.getvalue()


@pytest.fixture
def web(weights: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A server with the weights of Toy (hash published) and Bound (terms, no hash)."""
    for name in (*PROXIES, download.OFFLINE_VARIABLE, "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    with serve(Web({"toy.pth": weights, "bound.pth": weights})) as web:
        toy = WeightSource(f"{web.url}/toy.pth", "Toy.pth", len(weights), hashlib.sha256(weights).hexdigest())
        bound = WeightSource(f"{web.url}/bound.pth", "Bound.pth")
        for spec in (
            vit_spec("Toy", "toy", licence="MIT", sources=(toy,)),
            vit_spec("Bound", "toy", licence="own", sources=(bound,), terms="Not for sale."),
        ):
            monkeypatch.setitem(registry.REGISTRY, spec.name, spec)
        yield web


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAPARI_DINOBLOOM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _do(*words: object) -> Result:
    return CliRunner().invoke(app, ["weights", *map(str, words)])


def _row(name: str) -> list[str]:
    lines = _do("list").stdout.splitlines()
    line = next(line for line in lines if line.split()[0] == name)
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_the_list_says_what_is_here(web: Web, cache: Path) -> None:
    done = _do("list")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *registry.REGISTRY]
    assert len({line.index(word) for line, word in zip(lines, ["D", "192", "384"], strict=False)}) == 1, "in columns"
    assert "not here" in _row("Toy")
    assert "terms" in _row("Bound")
    assert _do("download", "Toy").exit_code == 0
    assert "here, as published" in _row("Toy")
    assert "in the package" in _row("starter")


def test_download_prints_the_file_and_path_finds_it(web: Web, cache: Path) -> None:
    missing = _do("path", "Toy")
    assert (missing.exit_code, "weights download Toy" in missing.stderr) == (2, True)
    for command in (("download", "toy"), ("path", "Toy")):
        done = _do(*command)
        assert (done.exit_code, done.stdout.strip()) == (0, str(cache / "Toy.pth"))


def test_terms_are_accepted_by_an_option_or_at_the_terminal(
    web: Web, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = _do("download", "Bound")
    assert refused.exit_code == 2
    assert "Not for sale" in refused.stderr
    assert "--accept-licence" in refused.stderr
    assert web.requests == []
    asked: list[str] = []

    def confirm(question: str) -> bool:
        asked.append(question)
        return len(asked) == 2

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(console, "sys", type("sys", (), {"stdin": Terminal(), "stdout": sys.stdout}))
    monkeypatch.setattr(typer, "confirm", confirm)
    assert _do("download", "Bound").exit_code == 2, "no is no"
    assert _do("download", "Bound").exit_code == 0
    assert _do("download", "Bound").exit_code == 0
    assert len(asked) == 2, "asked until it is accepted, then never again"
    assert "here, unverified" in _row("Bound")
    monkeypatch.setattr(console, "sys", sys)
    assert load_encoder("Bound", device="cpu").name == "Bound"


def test_accepting_in_the_call(web: Web, cache: Path) -> None:
    assert _do("download", "Bound", "--accept-licence").exit_code == 0


def test_a_run_asks_for_each_of_its_terms(
    web: Web, cache: Path, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    from napari_dinobloom.pipeline import driver

    cache.mkdir()
    (cache / "Bound.pth").write_bytes(weights)
    Image.new("RGB", (64, 64), "white").save(tmp_path / "smear.png")
    study = tmp_path / "s.dinobloom"
    words = ["run", str(tmp_path / "smear.png"), "-o", str(study), "--encoder", "Bound"]
    refused = CliRunner().invoke(app, words)
    assert (refused.exit_code, "Not for sale" in refused.stderr) == (2, True)
    assert not study.exists(), "asked before anything is done"
    asked: list[str] = []
    monkeypatch.setattr(console, "sys", type("sys", (), {"stdin": type("tty", (), {"isatty": lambda self: True})()}))
    monkeypatch.setattr(typer, "confirm", lambda question: asked.append(question) or True)
    monkeypatch.setattr("napari_dinobloom.cells.cellpose.check_installed", lambda: None)
    monkeypatch.setattr(driver, "_check_one_opens", lambda found: (_ for _ in ()).throw(InputError("so far")))
    done = CliRunner().invoke(app, [*words, "--segmenter", "cellpose"])
    assert (done.exit_code, "so far" in done.stderr) == (2, True)
    assert ["CC BY-NC" in asked[0], "Not for sale" in asked[1], len(asked)] == [True, True, 2]


def test_one_option_accepts_all_terms_of_a_run(
    web: Web, cache: Path, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    from napari_dinobloom.pipeline import driver

    cache.mkdir()
    (cache / "Bound.pth").write_bytes(weights)
    Image.new("RGB", (64, 64), "white").save(tmp_path / "smear.png")
    monkeypatch.setattr(driver, "_check_one_opens", lambda found: (_ for _ in ()).throw(InputError("so far")))
    words = ["run", str(tmp_path / "smear.png"), "-o", str(tmp_path / "s.dinobloom"), "--encoder", "Bound"]
    assert "so far" in CliRunner().invoke(app, [*words, "--accept-licence"]).stderr


WITH_ENCODER = [
    ["atlas", "build", "table.csv", "-o", "a.safetensors"],
    ["patches", "table.csv", "-o", "a.png"],
]


@pytest.mark.parametrize("words", WITH_ENCODER, ids=lambda words: words[0])
def test_commands_that_take_an_encoder_ask_for_its_terms_too(
    web: Web, cache: Path, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cache.mkdir()
    (cache / "Bound.pth").write_bytes(weights)
    asked = [*words, "--encoder", "Bound", "--device", "cpu"]
    refused = CliRunner().invoke(app, asked)
    assert (refused.exit_code, "Not for sale" in refused.stderr) == (2, True)
    gone = CliRunner().invoke(app, [*asked, "--accept-licence"])
    assert (gone.exit_code, "Not for sale" in gone.stderr, "table.csv" in gone.stderr) == (2, False, True)


@pytest.mark.parametrize("words", WITH_ENCODER, ids=lambda words: words[0])
def test_commands_that_take_an_encoder_take_device_and_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded: list[tuple[str, ...]] = []

    def load(*asked: str) -> None:
        loaded.append(asked)
        raise InputError("so far")

    monkeypatch.setattr("napari_dinobloom.encoders.encoder.load_encoder", load)
    CliRunner().invoke(app, words)
    CliRunner().invoke(app, [*words, "--encoder", "x", "--devices", "0,1", "--precision", "bf16"])
    assert loaded == [("starter", "auto", "auto"), ("x", "0,1", "bf16")]


def test_evaluate_reads_the_table_and_then_asks_for_the_terms_of_the_encoder(
    web: Web, cache: Path, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    cache.mkdir()
    (cache / "Bound.pth").write_bytes(weights)
    words = ["evaluate", "table.csv", "--encoder", "Bound", "--device", "cpu"]
    assert "table.csv" in CliRunner().invoke(app, words).stderr
    lines = ["file,cell_type,split"]
    for number, (kind, split) in enumerate([("a", "train"), ("b", "train"), ("a", "test"), ("b", "test")]):
        Image.new("RGB", (32, 32), (40 * number, 90, 90)).save(f"{number}.png")
        lines.append(f"{number}.png,{kind},{split}")
    Path("table.csv").write_text("\n".join(lines), encoding="utf-8")
    refused = CliRunner().invoke(app, words)
    assert (refused.exit_code, "Not for sale" in refused.stderr) == (2, True)
    loaded: list[tuple[str, ...]] = []

    def load(*asked: str) -> None:
        loaded.append(asked)
        raise InputError("so far")

    monkeypatch.setattr("napari_dinobloom.encoders.encoder.load_encoder", load)
    CliRunner().invoke(app, ["evaluate", "table.csv"])
    CliRunner().invoke(app, ["evaluate", "table.csv", "--encoder", "x", "--devices", "0,1", "--precision", "bf16"])
    assert loaded == [("starter", "auto", "float32"), ("x", "0,1", "bf16")]


def test_a_carried_file_and_a_mirror(web: Web, cache: Path, weights: bytes, tmp_path: Path) -> None:
    carried = tmp_path / "download(1)"
    carried.write_bytes(weights)
    assert _do("download", "Toy", "--from", carried).stdout.strip() == str(cache / "Toy.pth")
    assert web.requests == []
    (cache / "Toy.pth").unlink()
    web.files["Toy.pth"] = weights
    assert _do("download", "Toy", "--all-sources", "--base-url", web.url).stdout.strip() == str(cache / "Toy.pth")
    both = _do("download", "Toy", "--from", carried, "--all-sources")
    assert (both.exit_code, "--from takes one file" in both.stderr) == (2, True)


def test_verify_ends_with_1_where_a_file_is_wrong(web: Web, cache: Path, weights: bytes) -> None:
    assert _do("verify").exit_code == 0
    _do("download", "Toy")
    _do("download", "Bound", "--accept-licence")
    good = _do("verify")
    assert good.exit_code == 0
    assert f"Toy: here, as published, sha256 {hashlib.sha256(weights).hexdigest()}" in good.stdout
    (cache / "Bound.pth").write_bytes(weights + b"!")
    wrong = _do("verify")
    assert wrong.exit_code == 1
    assert "Bound: here, WRONG" in wrong.stdout
    assert "verify --repin Bound" in wrong.stdout
    assert _do("verify", "Toy").exit_code == 0
    assert "Bound" in _do("verify", "--repin", "Bound").stdout
    assert _do("verify", "Bound").exit_code == 0
    both = _do("verify", "Toy", "--repin", "Bound")
    assert (both.exit_code, "leave Toy out" in both.stderr) == (2, True)


def test_import_makes_a_name(web: Web, cache: Path, weights: bytes, tmp_path: Path) -> None:
    own = tmp_path / "teacher_checkpoint.pth"
    own.write_bytes(weights)
    done = _do("import", own, "--name", "our-lab")
    assert (done.exit_code, done.stdout.strip()) == (0, f"our-lab: {own}")
    assert "here, your own" in _row("our-lab")
    assert load_encoder("our-lab", device="cpu").dim == 32
    alike = _do("import", own, "--name", "alike", "--like", "Toy")
    assert (alike.exit_code, alike.stdout.strip()) == (0, f"alike: {own}")
    other = _do("import", own, "--name", "other", "--like", "DinoBloom-S")
    assert (other.exit_code, "DinoBloom-S is S" in other.stderr) == (2, True)
    taken = _do("import", own, "--name", "toy")
    assert (taken.exit_code, "published encoder" in taken.stderr) == (2, True)
    assert (
        _do("import", own, "--name", "copied", "--copy").stdout.strip() == f"copied: {cache / 'imports' / 'copied.pth'}"
    )
