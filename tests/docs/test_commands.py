"""Command lines in the README and the docs name commands, options and tox environments that exist."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAPERS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CALL = re.compile(r"(?:^ *(?:\$ )?|`)(?:\S+/)?napari-dinobloom ([^`#\n]+)", re.MULTILINE)
"""A call at the beginning of a line of code, or in code within a sentence."""


def code(text: str) -> str:
    """Lines of code of a page, and what stands in backticks in its sentences, a line each."""
    lines, fenced = [], False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            lines.append(line)
        else:
            lines += re.findall(r"`[^`]+`?", line)
    return "\n".join(lines)


def calls(paper: Path) -> list[list[str]]:
    """Words of every call of the command in a page."""
    return [call.split() for call in CALL.findall(code(paper.read_text(encoding="utf-8")))]


@pytest.fixture(scope="module")
def main() -> Any:
    import typer

    from napari_dinobloom.cli import app

    return typer.main.get_command(app)


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: str(paper.relative_to(ROOT)))
def test_commands_and_options_exist(paper: Path, main: Any) -> None:
    for words in calls(paper):
        if words[0] == "COMMAND":
            continue
        command, rest = main, list(words)
        while rest and hasattr(command, "commands"):
            assert rest[0] in command.commands, " ".join(words)
            command = command.commands[rest.pop(0)]
        known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        asked = {word.split("=")[0].strip("[],.") for word in rest if word.startswith(("-", "[-"))}
        assert asked <= {*known, "--help"}, " ".join(words)


def test_calls_are_found_in_indented_fenced_and_running_text() -> None:
    page = (
        "Say `napari-dinobloom map X --list`.\n\n    a/napari-dinobloom doctor\n\n```bash\nnapari-dinobloom run x\n```"
    )
    assert [words[0] for words in (call.split() for call in CALL.findall(code(page)))] == ["map", "doctor", "run"]
    assert sum(len(calls(paper)) for paper in PAPERS) > 100


def test_tox_environments_exist() -> None:
    environments = re.findall(r"^\[testenv:([\w-]+)\]", (ROOT / "tox.ini").read_text(encoding="utf-8"), re.MULTILINE)
    for paper in PAPERS:
        assert set(re.findall(r"tox run -e ([\w-]+)", paper.read_text(encoding="utf-8"))) <= set(environments)


def test_the_page_of_the_command_line_is_made_by_the_program(main: Any, hooks: ModuleType) -> None:
    page = hooks.command_page()
    for name, command in main.commands.items():
        for one in getattr(command, "commands", {"": command}):
            assert f"`napari-dinobloom {f'{name} {one}'.strip()}`" in page
    assert "**Commands**" not in page  # each has a heading with its whole text


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = re.search(r"```python\n(.+?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    from typer.testing import CliRunner

    from napari_dinobloom.cli import app

    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["sample", "-o", "sample", "--fields", "1"]).exit_code == 0
    found: dict[str, Any] = {}
    exec(compile(block[1], "README.md", "exec"), found)
    assert len(found["crops"]) == len(found["cells"].table) == len(found["x"]) > 0
    assert found["colours"].shape == (len(found["crops"]), 16, 16, 3)
    assert len(found["study"].cells) > 0
    found["study"].close()
