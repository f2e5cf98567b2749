"""Counting schemes: the published classes and their codes, how they map onto each other, and files that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_dinobloom.cells.taxonomy import BY_NAME, describe
from napari_dinobloom.errors import InputError
from napari_dinobloom.report.counting import PER_100, class_reason
from napari_dinobloom.report.schemes import MOST_BYTES, Scheme, load_scheme, scheme_names, translate

CODES = {
    "pbc": "BA BNE EO ERB LY MMY MO MY PLATELET PMY SNE",
    "matek": "BAS EBO EOS KSC LYA LYT MMZ MOB MON MYB MYO NGB NGS PMB PMO",
    "bmc": "ABE ART BAS BLA EBO EOS FGC HAC KSC LYI LYT MMZ MON MYB NGB NGS NIF OTH PEB PLM PMO",
}


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "codes"), CODES.items())
def test_the_published_classes_are_there_with_their_codes(name: str, codes: str) -> None:
    scheme = load_scheme(name)
    assert sorted(line.code for line in scheme.classes) == codes.split()
    for line in scheme.classes:
        assert line.name in BY_NAME
        assert scheme.read(line.code) == scheme.read(line.title) == scheme.read(line.name.upper()) == line.name


def test_schemes_are_named() -> None:
    assert scheme_names() == ["five-part", *CODES]
    assert all(load_scheme(name).title and load_scheme(name).source for name in scheme_names())


def test_no_two_classes_of_a_scheme_share_a_colour() -> None:
    for name in scheme_names():
        colours = [describe(line.name).colour for line in load_scheme(name).classes]
        assert len(set(colours)) == len(colours)


@pytest.mark.parametrize(
    ("label", "source", "target", "line"),
    [
        ("MYO", "matek", "bmc", "blast"),
        ("PMB", "matek", "bmc", "promyelocyte"),
        ("MYB", "bmc", "matek", "myelocyte"),  # and not myeloblast
        ("NIF", "bmc", "pbc", "unclassified"),
        ("SNE", "pbc", "matek", "neutrophil_segmented"),
        ("Band neutrophil", "pbc", "five-part", None),
        ("BNE", "pbc", "five-part", "neutrophil"),
        ("BLA", "bmc", "five-part", "blast"),  # no part of it: keeps its name
        ("PEB", "bmc", "five-part", "erythroblast"),
    ],
)
def test_schemes_map_onto_each_other(label: str, source: str, target: str, line: str | None) -> None:
    if line is None:
        with pytest.raises(InputError, match="no class of the scheme pbc"):
            translate(label, load_scheme(source), load_scheme(target))
    else:
        assert translate(label, load_scheme(source), load_scheme(target)) == line


@pytest.mark.parametrize(
    ("name", "specimen", "reason"),
    [
        ("neutrophil_band", "blood", ""),
        ("erythroblast", "blood", PER_100),
        ("proerythroblast", "marrow", PER_100),  # the scheme says so, whatever the specimen
        ("smudge_cell", "blood", PER_100),
        ("platelet", "blood", "platelet"),  # not in the scheme: the rule of the specimen
        ("blast", "blood", ""),
    ],
)
def test_where_classes_stand_in_the_five_part_scheme(name: str, specimen: str, reason: str) -> None:
    assert class_reason(name, specimen, load_scheme("five-part")) == reason


def test_a_scheme_of_ones_own(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        title: Haematology, third floor
        own: [megakaryocyte]
        classes:
          granulocytes: {title: All granulocytes, members: [neutrophil_segmented, neutrophil_band, eosinophil]}
          cll: {members: [lymphocyte, smudge_cell], count: denominator}
          megakaryocyte: {count: per 100}
          erythroblast:
          monocyte: {count: excluded}
        """,
    )
    scheme = load_scheme(path)
    assert (scheme.name, scheme.title) == ("mine", "Haematology, third floor")
    assert [line.name for line in scheme.classes] == [
        "granulocytes",
        "cll",
        "megakaryocyte",
        "erythroblast",
        "monocyte",
    ]
    assert scheme.named("eosinophil") == "granulocytes"
    assert scheme.classes[0].title == "All granulocytes"
    assert scheme.line("blast") is None
    reasons = {name: class_reason(name, "marrow", scheme) for name in ("smudge_cell", "megakaryocyte", "erythroblast")}
    assert reasons == {"smudge_cell": "", "megakaryocyte": PER_100, "erythroblast": ""}
    assert class_reason("monocyte", "blood", scheme) == "left out"
    # a person's label with the name of a line belongs to it
    assert scheme.named("granulocytes") == "granulocytes"
    assert class_reason("granulocytes", "blood", scheme) == ""


def test_the_example_of_the_documentation_is_a_scheme(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "differential.md").read_text(encoding="utf-8")
    scheme = load_scheme(written(tmp_path, page.partition("```yaml\n")[2].partition("```")[0]))
    assert scheme.title == "Haematology, third floor"
    assert scheme.named("smudge_cell") == "cll_cell"
    assert class_reason("basophil", "blood", scheme) == "left out"


def test_a_list_of_classes_is_enough(tmp_path: Path) -> None:
    scheme = load_scheme(written(tmp_path, "classes: [lymphocyte, monocyte]"))
    assert [line.name for line in scheme.classes] == ["lymphocyte", "monocyte"]


def test_a_line_counts_as_its_members_also_under_its_own_name(tmp_path: Path) -> None:
    scheme = load_scheme(written(tmp_path, "classes: {red: {members: [erythroblast, proerythroblast]}}"))
    assert class_reason("red", "blood", scheme) == class_reason("erythroblast", "blood", scheme) == PER_100
    assert class_reason("red", "marrow", scheme) == ""


BAD = {
    "": "stands where keys are expected",
    "classes:": "has no classes",
    "classes: []": "has no classes",
    "classes: {}": "has no classes",
    "clases: [lymphocyte]": "'clases' is no key; did you mean 'classes'",
    "classes: {lymphocte: }": "'lymphocte' is no class; did you mean 'lymphocyte'",
    "classes: {mine: {members: [lymphocyte, monocte]}}": "class mine: 'monocte' is no class; did you mean 'monocyte'",
    "classes: {granulocytes: }": "'granulocytes' is no class",
    "classes: {lymphocyte: {member: [monocyte]}}": "'member' is no key; did you mean 'members'",
    "classes: {lymphocyte: {count: per100}}": "count is 'per100'.*did you mean 'per 100'",
    "classes: {lymphocyte: {members: monocyte}}": "'monocyte' is no list",
    "classes: {a: {members: [lymphocyte]}, b: {members: [lymphocyte]}}": "'lymphocyte' stands in 'a' and in 'b'",
    "classes: {mononuclear: {members: [lymphocyte, monocyte]}, lymphocyte: }": "stands in 'mononuclear' and in 'lympho",
    "classes: {a: {members: [lymphocyte, lymphocyte]}}": "twice",
    "classes: {lymphocyte: , lymphocyte: }": "line 1 gives the key 'lymphocyte' again",
    "classes: [lymphocyte, lymphocyte]": "names 'lymphocyte' twice",
    "classes: {a: {members: [lymphocyte, erythroblast]}}": "count differently.*say where",
    "classes: {a: {members: [lymphocyte, smudge_cell]}}": "count differently",
    "classes: {platelet: {count: denominator}}": "cannot be in the denominator",
    "classes: {unclassified: {count: excluded}}": "stays in the denominator",
    "classes: {other: {members: [basophil, unclassified]}}": "a line of its own",
    "classes: {no: }": "'False' is no name",
    "classes: {lymphocyte: {title: 3}}": "title: '3' is no name",
    f"classes: {{lymphocyte: {{title: {'x' * 61}}}}}": "longer than 60",
    "classes: {lymphocyte": "cannot be read as a counting scheme",
    "classes: &a [lymphocyte]\nown: *a": r"reference \(\*a\)",
    "classes: " + "[" * 9 + "]" * 9: "deeper than 6 levels",
    "classes: !!python/object/apply:os.system ['true']": "cannot be read",
    "classes: [" + ", ".join(f"c{i}" for i in range(70)) + "]": "at most 60",
}


@pytest.mark.parametrize(("text", "message"), BAD.items(), ids=range(len(BAD)))
def test_a_file_that_is_no_scheme_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_scheme(written(tmp_path, text))
    assert "mine" in str(caught.value), "the file is named"


def test_a_file_that_is_not_there_too_large_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="five-part"):
        load_scheme("fivepart")
    with pytest.raises(InputError, match=r"use five-part, pbc, matek, bmc or a \.yaml file"):
        load_scheme("zzz")
    with pytest.raises(InputError, match=r"gone\.yaml: cannot be read"):
        load_scheme(tmp_path / "gone.yaml")
    with pytest.raises(InputError, match="at most"):
        load_scheme(written(tmp_path, "#" * (MOST_BYTES + 1)))
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        load_scheme(tmp_path / "bytes.yaml")


def test_two_schemes_that_do_the_same_have_the_same_facts(tmp_path: Path) -> None:
    one = load_scheme(written(tmp_path, "classes: [lymphocyte]"))
    two = load_scheme(written(tmp_path, "{title: Other, classes: {lymphocyte: }}"))
    assert isinstance(one, Scheme)
    assert one.facts() == two.facts()
    assert one.facts() != load_scheme(written(tmp_path, "classes: [monocyte]")).facts()
