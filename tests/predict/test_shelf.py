"""The shelf: what is on it, and which file a name means."""

from __future__ import annotations

from pathlib import Path

import pytest
from references import make

from napari_dinobloom.errors import AtlasError
from napari_dinobloom.predict.atlas import Atlas
from napari_dinobloom.predict.classifier import load_classifier
from napari_dinobloom.predict.probe import Probe
from napari_dinobloom.predict.probe_training import train_probe
from napari_dinobloom.predict.shelf import find, look_at, own_folder, place_of, shelf


@pytest.fixture
def mine() -> Path:
    own_folder().mkdir(parents=True)
    make().save(place_of("mine"))
    train_probe(make(), name="p").save(place_of("a-probe"))
    (own_folder() / "torn.safetensors").write_bytes(b"x")
    return own_folder()


def test_bundled_ones_come_first_and_headers_say_what_files_hold(mine: Path) -> None:
    found = shelf()
    assert [one.name for one in found] == ["starter-context", "starter-published", "a-probe", "mine", "torn"]
    assert [one.kind for one in found[:4]] == ["atlas", "atlas", "probe", "atlas"]
    for one in found[:4]:
        loaded = load_classifier(one.path)
        assert isinstance(loaded, Probe if one.kind == "probe" else Atlas)
        assert (one.classes, one.hash, one.policy_hash) == (loaded.classes, loaded.hash, loaded.policy_hash)
        assert one.cells == loaded.facts()["cells"]
        assert (one.encoder_sha256, one.pooling) == (loaded.encoder_sha256, "class")
    assert "torn.safetensors" in found[4].problem
    assert [one.bundled for one in found] == [True, True, False, False, False]
    assert look_at(place_of("mine")) == found[3]


def test_names_and_files_are_found(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find("mine") == place_of("mine") == mine / "mine.safetensors"
    assert find("starter-context").name == "atlas-starter-context.safetensors"
    path = make().save(tmp_path / "x.safetensors")
    assert find(path) == find(str(path)) == path
    monkeypatch.chdir(tmp_path)
    assert find("x.safetensors") == Path("x.safetensors")
    (tmp_path / "nobody").write_text("")
    with pytest.raises(AtlasError, match=r"starter-context, starter-published, a-probe, mine, torn.*\./nobody"):
        find("nobody")
    with pytest.raises(AtlasError, match="no such file"):
        find("y.safetensors")


@pytest.mark.parametrize("name", ["../x", "a/b", "", "con", "starter-context"])
def test_names_that_cannot_be_given_are_refused(name: str) -> None:
    with pytest.raises(AtlasError, match="name"):
        place_of(name)


def test_the_page_on_atlases_runs_and_names_commands_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    import re
    import shlex

    import typer

    from napari_dinobloom.cli import app

    page = (Path(__file__).parents[2] / "docs" / "atlas.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", page, re.S) for line in block.splitlines()]
    assert len(lines) > 10
    for line in lines:
        words, command = shlex.split(line, comments=True)[1:], typer.main.get_command(app)
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        command.make_parser(command.make_context("x", list(words), resilient_parsing=True)).parse_args(list(words))
    for code in re.findall(r"```python\n(.*?)```", page, re.S):
        exec(code, {})
    assert "confidence" in capsys.readouterr().out
