"""Counts by hand: reading, Rümke's limits against the exact binomial, differences against published intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, chi2_contingency

from napari_dinobloom.errors import InputError
from napari_dinobloom.report.count_comparison import biases, compare, overall, rumke_limits, unclassified_note
from napari_dinobloom.report.differential import differential
from napari_dinobloom.report.manual_count import read_manual
from napari_dinobloom.report.schemes import load_scheme


def counted(**n: int) -> pd.DataFrame:
    """Differential of one slide with so many cells of each class."""
    names = [name for name, count in n.items() for _ in range(count)]
    cells = pd.DataFrame({"label": names, "patient": "p1", "slide": "s1"}, index=[f"f:{i}" for i in range(len(names))])
    return differential(cells)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "manual.csv"
    path.write_text(text, encoding="utf-8")
    return path


def by_hand(tmp_path: Path, **n: int) -> pd.DataFrame:
    rows = "".join(f"p1,{name},{count}\n" for name, count in n.items())
    return read_manual(written(tmp_path, "patient,class,n\n" + rows))


# The table for 100 cells as textbooks print it after Rümke: limits in whole percent, rounded outward.
RUMKE_100 = {
    0: (0, 4), 1: (0, 6), 2: (0, 8), 3: (0, 9), 4: (1, 10), 5: (1, 12), 6: (2, 13), 7: (2, 14), 8: (3, 16),
    9: (4, 17), 10: (4, 18), 15: (8, 24), 20: (12, 30), 25: (16, 35), 30: (21, 40), 40: (30, 51), 50: (39, 61),
}  # fmt: skip


def test_the_limits_are_rumkes() -> None:
    for n, (low, high) in RUMKE_100.items():
        found = [float(v) for v in rumke_limits(n, 100)]
        assert (np.floor(100 * found[0]), np.ceil(100 * found[1])) == (low, high)


@pytest.mark.parametrize("total", [1, 7, 200])
def test_the_limits_are_those_of_scipy(total: int) -> None:
    n = np.arange(total + 1)
    exact = [binomtest(int(k), total).proportion_ci(0.95, method="exact") for k in n]
    np.testing.assert_allclose(np.stack(rumke_limits(n, total), axis=1), [(e.low, e.high) for e in exact], atol=1e-12)


def test_a_count_by_hand_is_read(tmp_path: Path) -> None:
    text = """# counted by Anna
patient,Slide,class,n,remark
p1,s1,Neutrophil  Segmented,60,"a, b"
p1,s1,lymphocyte,30,
p1,s1,"Eosinophil",10,
p1,s1,smudge_cell,7,
"""
    found = read_manual(written(tmp_path, text))
    assert found.to_dict("list") == {
        "patient": ["p1"] * 4,
        "slide": ["s1"] * 4,
        "class": ["neutrophil_segmented", "lymphocyte", "eosinophil", "smudge_cell"],
        "n": [60, 30, 10, 7],
        "counted": [100] * 4,
        "percent": [60, 30, 10, 7],
        "in_denominator": [True, True, True, False],
    }


def test_percentages_become_cells(tmp_path: Path) -> None:
    text = "\ufeffpatient;class;percent;counted\np1;lymphocyte;62,5;200\np1;monocyte;37,5;200\np1;erythroblast;2;200\n"
    found = read_manual(written(tmp_path, text))
    assert found["n"].tolist() == [125, 75, 4]
    assert found["counted"].tolist() == [200] * 3


def test_percentages_may_miss_100_by_their_rounding(tmp_path: Path) -> None:
    rows = "p,lymphocyte,33,300\np,monocyte,33,300\np,eosinophil,33,300\n"
    assert read_manual(written(tmp_path, "patient,class,percent,counted\n" + rows))["n"].tolist() == [99] * 3


def test_codes_and_classes_are_put_together_by_a_scheme(tmp_path: Path) -> None:
    path = written(tmp_path, "patient,class,n\np1,NGS,50\np1,NGB,10\np1,lyt,40\np1,KSC,3\n")
    assert read_manual(path, scheme=load_scheme("matek"))["class"].tolist() == [
        "neutrophil_segmented", "neutrophil_band", "lymphocyte", "smudge_cell",
    ]  # fmt: skip
    path = written(tmp_path, "patient,class,n\np1,neutrophil_segmented,50\np1,Neutrophil band,10\np1,lymphocyte,40\n")
    found = read_manual(path, scheme=load_scheme("five-part"))
    assert found[["class", "n"]].to_numpy().tolist() == [["neutrophil", 60], ["lymphocyte", 40]]


N, P = "patient,class,n\n", "patient,class,percent,counted\n"
BAD = {
    "": "holds no count",
    N: "holds no count",
    "patient,klasse,n\np,lymphocyte,1\n": "missing: class",
    "patient,class\np,lymphocyte\n": "missing: percent, counted",
    "patient,class,n,percent\np,lymphocyte,1,1\n": "either n or percent",
    "patient,class,n,n\np,lymphocyte,1,1\n": "once each",
    N + "p,lymphocyte,\n": "row 2: n is ''",
    N + "p,lymphocyte,nan\n": "row 2: n is 'nan'",
    N + "p,lymphocyte,inf\n": "row 2: n is 'inf'",
    N + "p,monocyte,3\np,lymphocyte,-1\n": "row 3: n is '-1'",
    N + "p,lymphocyte,2.5\n": "whole number",
    N + "p,lymphocyte,many\n": "'many'",
    N + "p,lymphocyte,0\n": "no cell of the denominator",
    N + "p,lymphocte,3\n": "row 2: 'lymphocte' is no class; did you mean 'lymphocyte'",
    N + "p,qqq,3\n": r"row 2: 'qqq' is no class\.",
    N + "p,lymphocyte,3\np,Lymphocyte,4\n": "row 3 gives lymphocyte of patient p again",
    N + "p,lymphocyte,3\np,platelet,4\n": "row 3: platelet is no part",
    N + "p,lymphocyte,3,4\n": "row 2 has 4 values, the head 3",
    P + "p,lymphocyte,60,100\np,monocyte,30,100\n": r"add up to 90, which rounding \(up to 1\)",
    P + "p,lymphocyte,60.0,100\np,monocyte,41.0,100\n": "add up to 101",
    P + "p,lymphocyte,nan,100\n": "percent is 'nan'",
    P + "p,lymphocyte,60,100\np,monocyte,40,200\n": "counted differs",
    P + "p,lymphocyte,100,\n": "counted is ''",
    "patient,class,n,counted\np,lymphocyte,3,4\n": "add up to 3, but counted says 4",
}


@pytest.mark.parametrize(("text", "message"), BAD.items(), ids=range(len(BAD)))
def test_a_count_that_makes_no_sense_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_manual(written(tmp_path, text))
    assert "manual.csv" in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_manual(tmp_path / "gone.csv")
    (tmp_path / "latin.csv").write_bytes("patient,class,n\nMüller,lymphocyte,1\n".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_manual(tmp_path / "latin.csv")


def test_a_comparison_by_hand(tmp_path: Path) -> None:
    found = compare(
        counted(lymphocyte=600, eosinophil=100, monocyte=300, smudge_cell=50),
        by_hand(tmp_path, lymphocyte=55, eosinophil=3, monocyte=41, basophil=1),
    ).set_index("class")
    assert found.index.tolist() == ["eosinophil", "lymphocyte", "monocyte", "basophil"], "no smudge cell by hand"
    assert (found["counted"] == 1000).all()
    assert (found["manual_counted"] == 100).all()
    row = found.loc["eosinophil"]
    assert (row["rumke_low"], row["rumke_high"]) == RUMKE_100[3]
    assert (row["percent"], row["manual_percent"], row["bias"]) == pytest.approx((10, 3, 7))
    assert found["inside"].to_dict() == {"eosinophil": False, "lymphocyte": True, "monocyte": False, "basophil": True}
    # one basophil in 100 by hand allows for none in the study, as in the printed table
    assert (found.loc["basophil", ["n", "manual_n"]] == [0, 1]).all()


def test_the_interval_of_a_difference_is_newcombes(tmp_path: Path) -> None:
    # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10: 56/70 - 48/80 and 9/10 - 3/10
    found = compare(counted(lymphocyte=56, monocyte=14), by_hand(tmp_path, lymphocyte=48, monocyte=32))
    row = found.set_index("class").loc["lymphocyte"]
    assert (row["bias_low"], row["bias_high"]) == pytest.approx((5.24, 33.39), abs=0.005)
    assert row["differs"]
    found = compare(counted(lymphocyte=9, monocyte=1), by_hand(tmp_path, lymphocyte=3, monocyte=7))
    row = found.set_index("class").loc["lymphocyte"]
    assert (row["bias_low"], row["bias_high"]) == pytest.approx((17.05, 80.90), abs=0.005)


def test_cells_beside_the_denominator_are_compared_per_100(tmp_path: Path) -> None:
    found = compare(counted(lymphocyte=200, smudge_cell=100), by_hand(tmp_path, lymphocyte=100, smudge_cell=20))
    row = found.set_index("class").loc["smudge_cell"]
    assert (row["percent"], row["manual_percent"], row["counted"]) == pytest.approx((50, 20, 200))
    exact = binomtest(20, 120).proportion_ci(0.95, method="exact")
    low, high = (100 * p / (1 - p) for p in (exact.low, exact.high))
    assert (row["rumke_low"], row["rumke_high"]) == (np.floor(low), np.ceil(high))
    assert not row["in_denominator"]
    assert row["differs"]


def test_limits_hold_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    p = 0.07
    n, hand = rng.binomial(400, p, 200), rng.binomial(100, p, 200)
    within = differs = 0
    for one, other in zip(n.tolist(), hand.tolist(), strict=True):
        mine = counted_once(one, 400)
        theirs = pd.DataFrame(
            {"patient": "p", "slide": "", "class": ["monocyte", "lymphocyte"], "n": [other, 100 - other],
             "counted": 100, "percent": [other, 100 - other], "in_denominator": True}
        )  # fmt: skip
        row = compare(mine, theirs).set_index("class").loc["monocyte"]
        within += row["inside"]
        differs += row["differs"]
    assert differs / 200 < 0.09
    assert within / 200 > 0.90


def counted_once(n: int, total: int) -> pd.DataFrame:
    """What `compare` reads of a differential with two classes."""
    return pd.DataFrame(
        {"level": "patient", "patient": "p", "slide": "", "class": ["monocyte", "lymphocyte"], "n": [n, total - n],
         "counted": total, "in_denominator": True}
    )  # fmt: skip


def test_a_slide_is_compared_with_its_slide_and_a_patient_with_all(tmp_path: Path) -> None:
    cells = pd.DataFrame(
        {"label": ["lymphocyte"] * 6 + ["monocyte"] * 4, "patient": "p1", "slide": ["a"] * 5 + ["b"] * 5},
        index=[f"f:{i}" for i in range(10)],
    )
    text = "patient,slide,class,n\np1,b,lymphocyte,1\np1,b,monocyte,9\np1,,lymphocyte,50\np1,,monocyte,50\n"
    found = compare(differential(cells), read_manual(written(tmp_path, text)))
    seen = found.loc[found["class"] == "monocyte", ["level", "slide", "n", "counted"]]
    assert seen.to_numpy().tolist() == [["slide", "b", 4, 5], ["patient", "", 4, 10]]


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    mine = counted(lymphocyte=10, neutrophil_segmented=5)
    with pytest.raises(InputError, match="no patient 'p11'; did you mean 'p1'"):
        compare(mine, read_manual(written(tmp_path, N + "p11,lymphocyte,3\n")))
    with pytest.raises(InputError, match=r"no slide 'zz'\."):
        compare(mine, read_manual(written(tmp_path, "patient,slide,class,n\np1,zz,lymphocyte,3\n")))
    with pytest.raises(InputError, match=r"neutrophil_segmented, the other count neutrophil.*--scheme five-part"):
        compare(mine, by_hand(tmp_path, lymphocyte=5, neutrophil=3))
    with pytest.raises(InputError, match="manual count has metamyelocyte and myelocyte, the other count immature"):
        compare(counted(immature_granulocyte=4), by_hand(tmp_path, myelocyte=5, metamyelocyte=3))
    with pytest.raises(InputError, match="counted no cell"):
        compare(counted(smudge_cell=4), by_hand(tmp_path, lymphocyte=5))


def test_a_count_as_a_whole(tmp_path: Path) -> None:
    mine = counted(lymphocyte=300, monocyte=150, eosinophil=50, smudge_cell=9)
    found = overall(compare(mine, by_hand(tmp_path, lymphocyte=110, monocyte=70, eosinophil=20, smudge_cell=20)))
    row = found.iloc[0]
    expected = chi2_contingency([[300, 150, 50], [110, 70, 20]], correction=False)
    assert row["chi2"] == pytest.approx(expected.statistic)
    assert row["p"] == pytest.approx(expected.pvalue, abs=0.02)
    assert (row["lines"], row["outside"], row["differing"]) == (4, 1, 1), "only the smudge cells differ"
    far = overall(compare(mine, by_hand(tmp_path, lymphocyte=20, monocyte=20, eosinophil=60))).iloc[0]
    assert far["p"] == pytest.approx(1e-4)
    alone = overall(compare(counted(lymphocyte=9), by_hand(tmp_path, lymphocyte=5))).iloc[0]
    assert (alone["chi2"], alone["p"]) == (0, 1)


def test_the_bias_of_a_class_over_counts() -> None:
    compared = pd.DataFrame(
        {"level": "patient", "patient": [*"abcda"], "slide": "", "class": ["monocyte"] * 4 + ["smudge_cell"],
         "bias": [1.0, 3.0, -1.0, 1.0, 2.0], "inside": [True, True, False, True, True],
         "in_denominator": [True] * 4 + [False]}
    )  # fmt: skip
    found = biases(compared).set_index("class")
    sd = np.sqrt(8 / 3)
    monocyte = found.loc["monocyte", ["counts", "bias", "sd", "agree_low", "agree_high", "inside"]].astype(float)
    np.testing.assert_allclose(monocyte, [4, 1, sd, 1 - 1.959964 * sd, 1 + 1.959964 * sd, 0.75], rtol=1e-6)
    assert found.loc["smudge_cell", "counts"] == 1, "beside the denominator only what was counted by hand"
    assert np.isnan(found.loc["smudge_cell", "sd"])


def test_a_count_in_which_neither_saw_a_class_agrees(tmp_path: Path) -> None:
    mine = counted(lymphocyte=90, basophil=10)
    other = counted(lymphocyte=100).assign(patient="p2")
    text = "patient,class,n\np1,lymphocyte,96\np1,basophil,4\np2,lymphocyte,100\n"
    found = biases(compare(pd.concat([mine, other]), read_manual(written(tmp_path, text)))).set_index("class")
    assert (found.loc[["lymphocyte", "basophil"], "counts"] == 2).all()
    assert found.loc["basophil", "bias"] == pytest.approx(3)
    assert found["bias"].sum() == pytest.approx(0), "what one class has more, the others have less"
    assert found.loc["basophil", "inside"] == 1


def test_cells_that_nobody_named_are_said_to_bias_the_comparison(tmp_path: Path) -> None:
    manual = by_hand(tmp_path, lymphocyte=100)
    assert unclassified_note(compare(counted(lymphocyte=100), manual)) == ""
    found = compare(counted(lymphocyte=90, unclassified=10), manual)
    assert "10.0 % of the study's cells are unclassified and make every class look smaller" in unclassified_note(found)
