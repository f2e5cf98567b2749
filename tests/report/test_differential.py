"""The differential against counts by hand, and rules that hold for every table of cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dinobloom.cells.taxonomy import describe
from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.report.counting import PER_100, REASONS, counting, text
from napari_dinobloom.report.differential import TITLES, differential, summary
from napari_dinobloom.report.quantify import goodman, pack_confusion, ratio_interval, unpack_confusion, wilson
from napari_dinobloom.report.schemes import load_scheme

NAMED = [
    "neutrophil_segmented",
    "lymphocyte",
    "monocyte",
    "erythroblast",
    "platelet",
    "smudge_cell",
    "artefact",
    "myelocyte",
]
CONFUSION = pd.DataFrame(
    np.eye(8, dtype=int) * 90 + 1, index=sorted(NAMED), columns=sorted(NAMED)
).assign(unclassified=3)  # fmt: skip


def table(*groups: tuple[int, dict[str, Any]]) -> pd.DataFrame:
    """Cells: so many of each kind, with these columns; the others as a study has them."""
    usual = {
        "slide": "s1", "patient": "p1", "predicted": "lymphocyte", "confidence": 1.0, "abstained": False, "label": "",
        "touches_border": False, "quality": "ok", "duplicate_of": "", "reviewed": False, "excluded": False,
        "deleted": False,
    }  # fmt: skip
    rows = [{**usual, **columns} for n, columns in groups for _ in range(n)]
    return pd.DataFrame(rows, index=[f"f:{i:05d}" for i in range(1, len(rows) + 1)], columns=list(usual))


def line(found: pd.DataFrame, name: str, level: str = "slide") -> pd.Series:
    rows = found[(found["class"] == name) & (found["level"] == level)]
    assert len(rows) == 1
    return rows.iloc[0]


BLOOD = table(
    (60, {"predicted": "neutrophil_segmented"}),
    (30, {"predicted": "lymphocyte"}),
    (5, {"predicted": "monocyte", "abstained": True}),
    (5, {"predicted": ""}),
    (8, {"predicted": "erythroblast"}),
    (4, {"predicted": "smudge_cell"}),
    (50, {"predicted": "platelet"}),
    (3, {"predicted": "artefact"}),
    (7, {"touches_border": True}),
    (2, {"quality": "blurred"}),
    (1, {"excluded": True}),
    (1, {"deleted": True, "excluded": True}),
)


@pytest.mark.parametrize("dtype", [None, "object", "string", "category"])  # None: what pandas makes of it, by version
def test_missing_text_is_no_text_whatever_its_dtype(dtype: str | None) -> None:
    table = pd.DataFrame({"label": pd.Series(["monocyte", None], dtype=dtype)})
    assert text(table, "label").tolist() == ["monocyte", ""]


def test_a_blood_count_by_hand() -> None:
    found = differential(BLOOD)
    assert found.columns.tolist() == list(TITLES)
    assert found["class"].iloc[:5].tolist() == [
        "neutrophil_segmented",
        "lymphocyte",
        "erythroblast",
        "smudge_cell",
        "unclassified",
    ]
    assert (found["counted"] == 100).all()
    for name, n in (("neutrophil_segmented", 60), ("lymphocyte", 30), ("unclassified", 10)):
        row = line(found, name)
        low, high = wilson(n, 100)
        assert (row["n"], row["percent"], row["low"], row["high"]) == pytest.approx((n, n, 100 * low, 100 * high))
        assert row["in_denominator"]
        assert np.isnan(row["per_100_wbc"])
    for name, n in (("erythroblast", 8), ("smudge_cell", 4)):
        row = line(found, name)
        assert row["n"] == n
        assert row["per_100_wbc"] == pytest.approx(n)
        assert row["per_100_low"] == pytest.approx(100 * ratio_interval(n, 100)[1])
        assert not row["in_denominator"]
        assert np.isnan([row["percent"], row["low"], row["high"]]).all()
    assert not {"platelet", "artefact", "monocyte"} & set(found["class"])


def test_a_summary_by_hand() -> None:
    row = summary(BLOOD, by=("slide",)).iloc[0]
    expected = {
        "cells": 176, "counted": 100, "unclassified": 10, "labelled": 0, "deleted": 1, "excluded": 1, "duplicate": 0,
        "border": 7, "unreadable": 2, "platelet": 50, "artefact": 3, PER_100: 12,
    }  # fmt: skip
    assert {key: row[key] for key in expected} == expected
    assert row["erythroblasts_per_100"] == pytest.approx(8)
    assert row["smudge_per_100"] == pytest.approx(4)
    assert np.isnan(row["me_ratio"])
    assert row["note"] == "fewer than 200 cells"


def test_a_marrow_count_by_hand() -> None:
    cells = table(
        (30, {"predicted": "myelocyte"}),
        (20, {"predicted": "neutrophil_segmented"}),
        (10, {"predicted": "monocyte"}),
        (10, {"predicted": "lymphocyte"}),
        (5, {"label": "blast"}),
        (20, {"predicted": "erythroblast"}),
        (5, {"abstained": True}),
        (9, {"predicted": "platelet"}),
    )
    found, row = differential(cells, specimen="marrow"), summary(cells, specimen="marrow").iloc[0]
    assert line(found, "erythroblast")["percent"] == pytest.approx(20)
    assert line(found, "erythroblast")["in_denominator"]
    assert line(found, "blast")["percent"] == pytest.approx(5)
    # myelocytes, neutrophils and monocytes; neither lymphocytes nor blasts
    assert (row["myeloid"], row["erythroid"]) == (60, 20)
    assert (row["me_ratio"], row["me_low"], row["me_high"]) == pytest.approx(ratio_interval(60, 20))
    assert row["counted"] == 100
    assert np.isnan(row["erythroblasts_per_100"])


def test_a_label_goes_before_the_prediction() -> None:
    cells = table(
        (9, {}),
        (1, {"label": "blast", "abstained": True}),
        (1, {"label": "platelet"}),
        (1, {"predicted": "platelet", "label": "lymphocyte"}),
    )
    found = differential(cells, by=("slide",))
    assert dict(zip(found["class"], found["n"], strict=True)) == {"lymphocyte": 10, "blast": 1, "unclassified": 0}


def test_a_person_who_has_seen_a_cell_decides_over_border_and_sharpness() -> None:
    cells = table(
        (1, {"touches_border": True, "reviewed": True}),
        (1, {"quality": "blurred", "label": "lymphocyte"}),
        (1, {"touches_border": True, "reviewed": True, "excluded": True}),
        (1, {"touches_border": True}),
    )
    assert counting(cells)["reason"].tolist() == ["", "", "excluded", "border"]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({}, {}, ["", "duplicate"]),
        ({"touches_border": True}, {}, ["border", ""]),  # the whole picture of the cell counts
        ({"quality": "blurred"}, {}, ["unreadable", ""]),
        ({}, {"touches_border": True}, ["", "border"]),
        ({"touches_border": True}, {"touches_border": True}, ["border", "border"]),
        ({}, {"label": "blast"}, ["duplicate", ""]),
        ({"excluded": True}, {}, ["excluded", "duplicate"]),  # the person meant the cell, not its picture
        ({"deleted": True}, {}, ["deleted", "duplicate"]),
        ({}, {"excluded": True}, ["", "excluded"]),
    ],
)
def test_of_two_pictures_of_a_cell_one_counts(first: dict, second: dict, expected: list[str]) -> None:
    cells = table((1, first), (1, {**second, "duplicate_of": "f:00001"}), (1, {}))
    assert counting(cells)["reason"].tolist() == [*expected, ""]
    assert counting(cells.iloc[::-1])["reason"].tolist()[::-1] == [*expected, ""]


def test_chains_rings_and_dead_links_of_duplicates_end() -> None:
    cells = table(
        (1, {}), (1, {"duplicate_of": "f:00001"}), (1, {"duplicate_of": "f:00002"}), (1, {"duplicate_of": "gone:1"})
    )
    assert counting(cells)["reason"].tolist() == ["", "duplicate", "duplicate", ""]
    ring = table((1, {"duplicate_of": "f:00002"}), (1, {"duplicate_of": "f:00001"}), (1, {"duplicate_of": "f:00003"}))
    assert counting(ring)["reason"].tolist() == ["", "duplicate", ""]


def test_slides_of_one_name_under_two_patients_stay_apart() -> None:
    places = {("p1", "a"): 10, ("p1", "b"): 20, ("p2", "a"): 40}
    cells = table(*((n, {"patient": patient, "slide": slide}) for (patient, slide), n in places.items()))
    found = differential(cells)
    lymphocytes = found[found["class"] == "lymphocyte"]
    assert lymphocytes[["level", "patient", "slide", "n"]].to_numpy().tolist() == [
        ["patient", "p1", "", 30],
        ["slide", "p1", "a", 10],
        ["slide", "p1", "b", 20],
        ["patient", "p2", "", 40],
        ["slide", "p2", "a", 40],
    ]
    assert set(differential(cells, by=("patient",))["level"]) == {"patient"}


@pytest.mark.parametrize(("n", "few"), [(0, 100), (1, 100), (99, 100), (100, 200), (199, 200), (200, 0)])
def test_a_short_count_is_noted(n: int, few: int) -> None:
    cells = table((n, {}), (5, {"predicted": "platelet"}))
    note = f"fewer than {few} cells" if few else ""
    assert (differential(cells)["note"] == note).all()
    assert (summary(cells)["note"] == note).all()


def test_intervals_for_all_classes_at_once_stand_beside_those_for_one() -> None:
    found = differential(BLOOD, by=("slide",))
    inside = found[found["in_denominator"]]
    # neutrophils, lymphocytes, unclassified: three categories, whatever stands beside the denominator
    assert inside["n"].tolist() == [60, 30, 10]
    low, high = goodman([60, 30, 10])
    np.testing.assert_allclose(inside["simultaneous_low"], 100 * low)
    np.testing.assert_allclose(inside["simultaneous_high"], 100 * high)
    assert (inside["simultaneous_low"] < inside["low"]).all()
    assert (inside["high"] < inside["simultaneous_high"]).all()
    assert found.loc[~found["in_denominator"], ["simultaneous_low", "simultaneous_high"]].isna().all(axis=None)


SEEN = table(
    (3, {"predicted": "lymphocyte", "reviewed": True}),
    (2, {"predicted": "lymphocyte", "label": "blast"}),
    (1, {"predicted": "smudge_cell", "reviewed": True}),
    (1, {"predicted": "monocyte", "abstained": True, "reviewed": True}),
    (40, {"predicted": "monocyte"}),
    (4, {"predicted": "platelet"}),
)


def test_reviewed_cells_alone_can_be_counted_and_are_not_corrected() -> None:
    found, row = differential(SEEN, cells="reviewed", by=("slide",)), summary(SEEN, cells="reviewed").iloc[0]
    counts = dict(zip(found["class"], found["n"], strict=True))
    assert counts == {"lymphocyte": 3, "blast": 2, "smudge_cell": 1, "unclassified": 1}
    assert (found["counted"] == 6).all()
    assert (found["note"] == "fewer than 100 cells; reviewed cells only").all()
    assert (row["counted"], row["unreviewed"], row["platelet"]) == (6, 44, 0)
    assert row["note"] == "fewer than 100 cells; reviewed cells only"
    # with a confusion, too: what a person has looked at needs no correction
    assert differential(SEEN, cells="reviewed", confusion=CONFUSION)["corrected"].isna().all()


def test_of_two_pictures_the_reviewed_one_counts() -> None:
    cells = table((1, {}), (1, {"reviewed": True, "duplicate_of": "f:00001"}))
    assert counting(cells, cells="reviewed")["reason"].tolist() == ["unreviewed", ""]
    assert counting(cells)["reason"].tolist() == ["", "duplicate"]


def test_a_scheme_puts_classes_together_and_hides_none() -> None:
    cells = table(
        (50, {"predicted": "neutrophil_segmented"}),
        (10, {"predicted": "neutrophil_band"}),
        (2, {"label": "neutrophil"}),
        (30, {"predicted": "lymphocyte"}),
        (3, {"label": "blast"}),
        (5, {"predicted": "monocyte", "abstained": True}),
        (4, {"predicted": "erythroblast"}),
        (1, {"label": "proerythroblast"}),
        (9, {"predicted": "platelet"}),
    )
    found = differential(cells, by=("slide",), scheme=load_scheme("five-part"))
    rows = found.set_index("class")
    assert found["class"].tolist() == [
        "neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil", "erythroblast", "smudge_cell", "blast",
        "unclassified",
    ]  # fmt: skip
    assert rows["n"].tolist() == [62, 30, 0, 0, 0, 5, 0, 3, 5]
    assert (rows["counted"] == 100).all()
    assert rows.loc["neutrophil", "percent"] == pytest.approx(62)
    assert rows.loc["erythroblast", "per_100_wbc"] == pytest.approx(5)
    # the blast is no part of the scheme: it counts, has its own line and says so
    assert rows.loc["blast", "percent"] == pytest.approx(3)
    assert rows.loc["blast", "note"] == "fewer than 200 cells; not in the scheme"
    assert (rows["note"].drop("blast") == "fewer than 200 cells").all()
    # seven lines share the denominator
    np.testing.assert_allclose(rows.loc["blast", "simultaneous_high"], 100 * goodman([62, 30, 0, 0, 0, 3, 5])[1][5])


def test_a_line_is_corrected_as_the_sum_of_its_classes() -> None:
    confusion = CONFUSION.rename(index={"myelocyte": "neutrophil_band"}, columns={"myelocyte": "neutrophil_band"})
    cells = table((60, {"predicted": "neutrophil_segmented"}), (40, {"predicted": "neutrophil_band"}), (9, {}))
    plain = differential(cells, by=("slide",), confusion=confusion).set_index("class")
    found = differential(cells, by=("slide",), confusion=confusion, scheme=load_scheme("five-part")).set_index("class")
    both = plain.loc[["neutrophil_segmented", "neutrophil_band"]]
    assert found.loc["neutrophil", "corrected"] == pytest.approx(both["corrected"].sum())
    inside = found[found["in_denominator"]]
    assert inside["corrected"].sum() == pytest.approx(100)
    # the two are mistaken for each other, which the sum does not feel
    assert (found["corrected_high"] - found["corrected_low"])["neutrophil"] < (
        both["corrected_high"] - both["corrected_low"]
    ).sum()


def test_a_scheme_of_the_same_classes_changes_no_number() -> None:
    cells = table(*[(3 + 5 * i, {"predicted": name}) for i, name in enumerate(NAMED)])
    plain = differential(cells, confusion=CONFUSION).set_index(["level", "class"])
    found = differential(cells, confusion=CONFUSION, scheme=load_scheme("matek")).set_index(["level", "class"])
    same = ["n", "counted", "percent", "low", "high", "corrected", "corrected_low", "corrected_high", "per_100_wbc"]
    pd.testing.assert_frame_equal(found.loc[plain.index, same], plain[same])
    assert (found.loc[found.index.difference(plain.index), "n"] == 0).all()


def test_what_a_scheme_leaves_out_is_counted_as_such(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("classes: {lymphocyte: , monocyte: {count: excluded}, platelet: {count: per 100}}")
    scheme = load_scheme(path)
    cells = table((60, {}), (30, {"predicted": "monocyte"}), (20, {"predicted": "platelet"}))
    found, row = differential(cells, by=("slide",), scheme=scheme), summary(cells, scheme=scheme).iloc[0]
    assert found["class"].tolist() == ["lymphocyte", "platelet", "unclassified"]
    assert line(found, "lymphocyte")["percent"] == 100
    assert line(found, "platelet")["per_100_wbc"] == pytest.approx(100 * 20 / 60)
    assert (row["counted"], row["left out"], row["platelet"], row["per 100"]) == (60, 30, 0, 20)
    assert row["erythroblasts_per_100"] == 0, "platelets per 100 are no erythroblasts"


@pytest.mark.parametrize(
    ("place", "specimen", "erythroblasts"),
    [("", "blood", 10), ("", "marrow", np.nan), ("per 100", "marrow", 10), ("denominator", "blood", np.nan),
     ("excluded", "blood", np.nan)],
)  # fmt: skip
def test_ratios_are_given_of_what_stands_beside_the_denominator(tmp_path, place, specimen, erythroblasts) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "classes: {lymphocyte: , erythroblast: {members: [proerythroblast, erythroblast], count: PLACE}}".replace(
            ", count: PLACE", f", count: {place}" if place else ""
        )
    )
    cells = table((50, {}), (3, {"label": "proerythroblast"}), (2, {"label": "erythroblast"}))
    found = summary(cells, specimen=specimen, scheme=load_scheme(path)).iloc[0]
    np.testing.assert_allclose(found["erythroblasts_per_100"], erythroblasts)
    assert np.isnan(found["erythroblasts_per_100_low"]) == np.isnan(erythroblasts)
    assert found["smudge_per_100"] == 0


def test_a_blast_of_known_lineage_is_myeloid_in_the_ratio() -> None:
    cells = table((30, {"label": "myeloblast"}), (5, {"label": "blast"}), (10, {"predicted": "erythroblast"}))
    assert summary(cells, specimen="marrow").iloc[0]["me_ratio"] == pytest.approx(3)


def test_no_cell_gives_empty_tables_of_the_same_form() -> None:
    full, none = differential(BLOOD, confusion=CONFUSION), differential(BLOOD.iloc[:0], confusion=CONFUSION)
    assert len(none) == 0
    assert none.dtypes.to_dict() == full.dtypes.to_dict()
    assert summary(BLOOD.iloc[:0]).columns.tolist() == summary(BLOOD).columns.tolist()
    assert len(differential(pd.DataFrame())) == 0


def test_only_platelets_leave_nothing_to_count() -> None:
    found = differential(table((5, {"predicted": "platelet"})), confusion=CONFUSION)
    assert (found["n"] == 0).all()
    assert (found["counted"] == 0).all()
    assert found["percent"].isna().all()
    assert np.isnan(summary(table((5, {"predicted": "platelet"})))["smudge_per_100"]).all()


def test_corrected_lines_stand_beside_the_counted_ones() -> None:
    found = differential(BLOOD, by=("slide",), confusion=CONFUSION)
    inside = found[found["in_denominator"]]
    assert inside["corrected"].sum() == pytest.approx(100)
    assert (inside["corrected_low"] <= inside["corrected"]).all()
    assert (inside["corrected"] <= inside["corrected_high"]).all()
    # abstained cells are shared out among the classes
    assert line(found, "unclassified")["corrected"] == 0
    assert line(found, "neutrophil_segmented")["corrected"] > 60
    # every class that the atlas can name has a line, seen or not
    assert line(found, "myelocyte")["n"] == 0
    assert found.loc[~found["in_denominator"], "corrected"].isna().all()


def test_counts_by_hand_are_not_corrected() -> None:
    cells = table((60, {"label": "lymphocyte"}), (40, {"label": "blast"}))
    found = differential(cells, by=("slide",), confusion=CONFUSION)
    inside = found[found["in_denominator"]]
    np.testing.assert_allclose(inside["corrected"], inside["percent"])
    np.testing.assert_allclose(line(found, "blast")["corrected_low"], 31, atol=3)


def test_the_confusion_travels_with_the_cells() -> None:
    cells = AnnData(obs=BLOOD.copy())
    assert differential(cells)["corrected"].isna().all()
    cells.uns["dinobloom"] = {"confusion": pack_confusion(CONFUSION)}
    assert differential(cells).equals(differential(BLOOD, confusion=CONFUSION))
    assert unpack_confusion(pack_confusion(CONFUSION)).equals(CONFUSION)
    cells.uns["dinobloom"] = {"confusion": "{}"}
    with pytest.raises(DinoBloomError, match="cannot be read"):
        differential(cells)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"specimen": "urine"}, "'urine'"),
        ({"cells": "some"}, "'some'"),
        ({"by": ("field",)}, "'field'"),
        ({"by": "slide"}, "'slide'"),
        ({"by": ()}, "one or both"),
        ({"confusion": CONFUSION.drop(index="lymphocyte", columns="lymphocyte")}, "'lymphocyte'"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, message: str) -> None:
    with pytest.raises(DinoBloomError, match=message):
        differential(BLOOD, **options)
    with pytest.raises(DinoBloomError, match="classify them"):
        differential(BLOOD.drop(columns=["predicted", "label"]))


CELL = st.fixed_dictionaries(
    {
        "predicted": st.sampled_from([*NAMED, ""]),
        "label": st.sampled_from(["", "", "", "blast", "platelet", "unclassified"]),
        "slide": st.sampled_from(["s1", "s2"]),
        "patient": st.sampled_from(["p1", "p2"]),
        "quality": st.sampled_from(["ok", "ok", "", "blurred"]),
        "duplicate_of": st.sampled_from(["", "", "", "f:00001", "f:00003"]),
        **{name: st.booleans() for name in ("abstained", "touches_border", "reviewed", "excluded", "deleted")},
    }
)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(CELL, min_size=1, max_size=40),
    st.sampled_from(["blood", "marrow"]),
    st.sampled_from(["", "five-part", "bmc"]),
    st.sampled_from(["all", "reviewed"]),
    st.randoms(use_true_random=False),
)
def test_rules_for_every_table(rows: list[dict], specimen: str, scheme: str, chosen: str, random) -> None:
    cells = table(*[(1, row) for row in rows])
    asked = {"specimen": specimen, "scheme": load_scheme(scheme) if scheme else None, "cells": chosen}
    found, totals = differential(cells, **asked), summary(cells, **asked)
    inside = found[found["in_denominator"]]
    places = ["level", "patient", "slide"]
    assert {describe(name).group for name in inside["class"]} <= {"leucocyte", "erythroid", "unknown"}
    assert specimen == "marrow" or "erythroblast" not in set(inside["class"])
    assert (inside.groupby(places)["n"].sum() == inside.groupby(places)["counted"].first()).all()
    percent = inside.groupby(places)["percent"].sum(min_count=1).dropna()
    np.testing.assert_allclose(percent, 100)
    some = inside.dropna(subset="percent")
    assert ((some["low"] <= some["percent"] + 1e-9) & (some["percent"] <= some["high"] + 1e-9)).all()
    assert (some["simultaneous_low"] <= some["low"] + 1e-9).all()
    assert (some["high"] <= some["simultaneous_high"] + 1e-9).all()
    assert (totals[["counted", *REASONS]].sum(axis=1) == totals["cells"]).all()
    assert totals[totals["level"] == "slide"]["cells"].sum() == len(cells)
    assert totals[totals["level"] == "patient"]["cells"].sum() == len(cells)

    order = list(range(len(cells)))
    random.shuffle(order)
    assert differential(cells.iloc[order], **asked).equals(found)
    platelets = table((7, {"predicted": "platelet"}), (3, {"predicted": "artefact"})).set_axis(
        [f"x:{i}" for i in range(10)]
    )
    more = differential(pd.concat([cells, platelets]), **asked)
    here = more.merge(found[[*places, "class"]], on=[*places, "class"])
    assert here[["n", "counted", "percent"]].equals(found[["n", "counted", "percent"]])
