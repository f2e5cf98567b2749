"""Pages and program say the same (names, labels, messages, keys, formats), and pictures are there and used."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import ModuleType

import pytest

import napari_dinobloom as nd

DOCS = Path(__file__).parents[2] / "docs"
PACKAGE = Path(nd.__file__).parent
PAGES = sorted(DOCS.rglob("*.md"))
LARGEST = 200_000
"""Bytes of a picture of the tutorial."""


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def section(page: str, title: str) -> str:
    """Text below a heading of the second level."""
    return re.split(r"^## ", page.split(f"\n## {title}\n")[1], flags=re.MULTILINE)[0]


def first_column(text: str) -> list[str]:
    """First cells of the rows of tables, without their heads."""
    rows = [row.strip().strip("|").split("|")[0].strip() for row in text.splitlines() if row.strip().startswith("|")]
    return [row for at, row in enumerate(rows) if "---" not in row and "---" not in (*rows, "")[at + 1]]


# Names


def test_the_python_page_lists_every_public_name_once() -> None:
    listed = re.findall(r"^::: napari_dinobloom\.(\S+)", read("reference/python.md"), re.MULTILINE)
    assert sorted(name for name in listed if "." not in name) == sorted(set(nd.__all__) - {"__version__"})
    assert len(listed) == len(set(listed))


def test_kinds_of_files_are_those_that_are_written() -> None:
    page = section(read("file-formats.md"), "What was learned: safetensors with a kind")
    text = "\n".join(path.read_text(encoding="utf-8") for path in (PACKAGE / "predict").rglob("*.py"))
    text += "".join((PACKAGE / place).read_text("utf-8") for place in ("explore/projection.py", "encoders/patches.py"))
    written = set(re.findall(r'^_?KIND = "([\w-]+)"', text, re.MULTILINE)) - {"fit"}  # a cache, no file of a user's
    assert {kind.strip("`") for kind in first_column(page)} == written


# Words


def shown() -> set[str]:
    """Labels of the windows, without their trailing dots, and names in napari's menus."""
    from napari_dinobloom.ui.texts import TEXTS

    manifest = (PACKAGE / "napari.yaml").read_text(encoding="utf-8")
    labels = {value.rstrip("…") for key, value in TEXTS.items() if not key.endswith(".tip")}
    return labels | set(re.findall(r"display_name: (.+)", manifest))


@pytest.mark.parametrize("name", ["tutorial.md", "how-to/correct-a-segmentation.md", "how-to/own-atlas.md"])
def test_what_pages_tell_to_press_is_there(name: str) -> None:
    known = shown()
    for bold in re.findall(r"\*\*(.+?)\*\*", read(name)):
        *menu, label = bold.rstrip("….").split(" > ")
        assert set(menu) <= {"Plugins", "DinoBloom", "File", "Open Sample"}, bold
        assert label in known or bold in OTHER_BOLD or len(label) == 1, bold


OTHER_BOLD = {
    "Enter",
    "Expect",
    "File > Open Sample > DinoBloom",
    "Research use, not for diagnosis.",
    "click a cell",
    "pixel size",
    "your",
}
"""In bold, and no label of ours."""


# Messages


def messages() -> set[str]:
    """Every text in the package, with … for what is filled in."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(_plain(re.sub(r"\{[^{}]*\}", "…", node.value)))
            elif isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                found.add(_plain("".join(map(str, parts))))
    return found


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_messages_of_the_troubleshooting_page_are_those_of_the_program() -> None:
    page, known = read("troubleshooting.md"), messages()
    foreign = {"operator torchvision::nms does not exist", "napari", "weights list"}
    spans = [(part, one) for part in page.split("\n\n") for one in part.split("`")[1::2]]
    quoted = {_plain(one) for part, one in spans if part.startswith("### ") or "…" in one}
    assert len(quoted) > 20
    for one in sorted(quoted - foreign):
        assert any(one in message for message in known), one


def test_system_packages_of_the_troubleshooting_page_are_those_that_doctor_looks_for() -> None:
    from napari_dinobloom.doctor import SYSTEM_NEEDS

    (line,) = re.findall(r"apt-get install -y (lib.+)", read("troubleshooting.md"))
    assert set(line.split()) == {need.package for need in SYSTEM_NEEDS if not need.tests_only}


# Keys


def keys(title: str) -> set[str]:
    """Keys that the page lists below a heading."""
    listed = {key.strip() for cell in first_column(section(read("shortcuts.md"), title)) for key in cell.split(",")}
    return {"Delete" if key == "Del" else "Escape" if key == "Esc" else key for key in listed}


@pytest.mark.gui
def test_keys_are_those_of_the_windows() -> None:
    from qtpy.QtGui import QKeySequence

    from napari_dinobloom.ui.gallery.view import LETTERS
    from napari_dinobloom.ui.map.hand import KEYS
    from napari_dinobloom.ui.widgets import correction_panel, gate_tree_view

    standard = {"delete": "Delete", "undo": "Ctrl+Z", "redo": "Ctrl+Shift+Z", "leave": "Escape"}

    def named(table: dict[str, QKeySequence | QKeySequence.StandardKey]) -> set[str]:
        return {standard[what] if what in standard else QKeySequence(key).toString() for what, key in table.items()}

    assert keys("Map") - {*"F"} == {
        *KEYS, "Enter", "Return", "Home", "Delete", "Backspace", "Ctrl+Z", "Ctrl+Y", "Ctrl+Shift+Z",
    }  # fmt: skip
    assert keys("List of gates") == {*named(gate_tree_view.KEYS), "F2"}
    letters = {"Enter" if key in "\r\n" else key.upper() for key in LETTERS}
    assert keys("Gallery") == {*letters, "1 to 9", "0", "Ctrl+A", "Ctrl+Z", "Ctrl+Shift+Z"}
    assert keys("Tools of Segment and crop") == named(correction_panel.KEYS)


# Pictures and links


def test_every_picture_is_there_used_and_described() -> None:
    used = set()
    for paper in [*PAGES, DOCS.parent / "README.md"]:
        for said, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", paper.read_text(encoding="utf-8")):
            assert said, f"{paper.name}: {target} has no description"
            used.add((paper.parent / target).resolve())
    assert used == {path.resolve() for path in (DOCS / "images").iterdir()}


def test_links_lead_somewhere() -> None:
    made = {DOCS / "reference" / "command-line.md"}  # by docs/hooks.py
    for paper in [*PAGES, DOCS.parent / "README.md", DOCS.parent / "CHANGELOG.md"]:
        for target in re.findall(r"\]\(([^)#\s]+)", paper.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                place = (paper.parent / target).resolve()
                assert place.exists() or place in made, f"{paper.name}: {target}"


def test_pictures_of_the_tutorial_are_small() -> None:
    pictures = list((DOCS / "images").glob("tutorial-*.png"))
    assert len(pictures) == 10
    assert max(path.stat().st_size for path in pictures) < LARGEST


def test_links_to_files_of_the_repository_lead_into_the_site(hooks: ModuleType) -> None:
    outside = hooks.outside
    assert outside("training.md", "../src/napari_dinobloom/x.md") == "src/napari_dinobloom/x.md"
    assert outside("how-to/run.md", "../crops.md") == ""
    assert outside("how-to/run.md", "../../examples/a.py") == "examples/a.py"


def test_what_a_browser_would_fetch_from_elsewhere_is_found(hooks: ModuleType) -> None:
    found = hooks.FOREIGN.findall
    assert found('<script src="https://cdn.example.org/a.js">') == ["https://cdn.example.org/a.js"]
    assert found("<link rel=stylesheet href=//fonts.example.org/f.css>") == ["//fonts.example.org/f.css"]
    assert not found('<script src="assets/a.js"></script><a href="https://example.org">there</a>')
