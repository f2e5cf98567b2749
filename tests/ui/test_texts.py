"""The texts of the interface: complete, used, and of one style."""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from napari_dinobloom import ui
from napari_dinobloom.pipeline.settings import STEPS
from napari_dinobloom.ui.texts import PARTS, TEXTS, measure_title, step_title, text, tip
from napari_dinobloom.words import number_of

SOURCES = sorted(Path(ui.__file__).parent.rglob("*.py"))


def _strings() -> Iterator[str]:
    """Every string literal of the room, and every constant beginning of an f-string, except in `texts` itself."""
    for path in SOURCES:
        if path.parent.name == "texts":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
                yield f"{node.values[0].value}*"


def _wanted(names: tuple[str, ...]) -> Iterator[str]:
    """First arguments of calls of `text` or `tip` that are plain strings."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    yield first.value
                if isinstance(first, ast.IfExp):
                    yield from (side.value for side in (first.body, first.orelse) if isinstance(side, ast.Constant))


def test_every_text_that_is_asked_for_exists():
    assert set(_wanted(("text",))) <= set(TEXTS)
    assert {f"{key}.tip" for key in _wanted(("tip",))} <= set(TEXTS)


def test_no_text_stands_in_two_modules():
    assert sum(len(part.TEXTS) for part in PARTS) == len(TEXTS)


def test_no_text_is_left_over():
    used = set(_strings())
    stems = ("step.", "measure.", *(key[:-1] for key in used if key.endswith("*") and len(key) > 4))
    left = [key for key in TEXTS if key.removesuffix(".tip") not in used and not key.startswith(stems)]
    assert left == []


@pytest.mark.parametrize("key", sorted(TEXTS))
def test_style(key: str):
    value = TEXTS[key]
    assert value == value.strip()
    assert "  " not in value
    assert "..." not in value, "use one character …"
    begin = value.lstrip("“")[0]
    lower_case_on_purpose = key.startswith(
        (
            "act.",
            "cell.",
            "cells.",
            "reason.",
            "run.pixel.",
            "result.n",
            "result.percent",
            "segment.unit.",
            "gates.of_all",
            "map.of_all",
            "classify.crops.",
            "classify.kind.",
            "classify.refused.",
        )
    )
    assert lower_case_on_purpose or begin in "{%" or not begin.isalpha() or begin.isupper()
    if key.endswith(".tip") or key.startswith(("error.", "run.why.", "image.")):
        assert value[-1] in ".}" or "--real" in value or value.endswith("{path}")


@pytest.mark.parametrize("key", sorted(key for key in TEXTS if key.endswith(".tip")))
def test_a_tooltip_belongs_to_a_label(key: str):
    assert key.removesuffix(".tip") in TEXTS
    assert tip(key.removesuffix(".tip")) == TEXTS[key]


@pytest.mark.parametrize("key", sorted(TEXTS))
def test_names_are_filled_in(key: str):
    names = {name for _, name, _, _ in string.Formatter().parse(TEXTS[key]) if name}
    filled = text(key, **dict.fromkeys(names, 7)) if names else text(key)
    assert "{" not in filled


@pytest.mark.parametrize(("n", "said"), [(0, "0 gates"), (1, "1 gate"), (2400, "2,400 gates")])
def test_numbers_stand_with_their_noun(n: int, said: str):
    assert text("act.gates", count=n) == number_of(n, "gate") == said
    assert text("act.group", patients=text("act.patients.many", count=1)) == "group of 1 patient"


def test_a_percent_sign_stays_with_its_number_and_out_of_names():
    assert text("cell.confidence", confidence=0.934) == "confidence 93\u00a0%"
    assert text("embed.fetched", name="a%20b") == "The weights of a%20b are here."


@pytest.mark.parametrize(
    ("column", "title"),
    [("umap_2", "UMAP 2"), ("area_px", "Cell area, px"), ("nucleus_red", "Nucleus red"), ("slide", "Slide")],
)
def test_columns_have_titles(column: str, title: str):
    assert measure_title(column) == title


def test_the_sentence_that_must_always_stand_there():
    assert text("disclaimer") == "Research use, not for diagnosis"


def test_every_step_of_the_pipeline_has_a_title():
    assert [step_title(step) for step in STEPS] == [TEXTS[f"step.{step}"] for step in STEPS]
    assert step_title("something new") == "something new"


def test_a_missing_name_is_an_error():
    with pytest.raises(KeyError):
        text("run.why.busy", wrong=1)
