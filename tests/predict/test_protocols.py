"""Both protocols against hand computations and scikit-learn called directly."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_recall_fscore_support
from sklearn.neighbors import KNeighborsClassifier

from napari_dinobloom.errors import InputError
from napari_dinobloom.predict.evaluation import class_scores, count_table, table_scores
from napari_dinobloom.predict.mil.model import AttentionMIL
from napari_dinobloom.predict.protocols import bags, copies, fits
from napari_dinobloom.predict.protocols.cohort import Cohort
from napari_dinobloom.predict.protocols.copies import (
    AGREEING,
    ALIKE,
    agreement,
    detail,
    fingerprint,
    iter_find_copies,
)
from napari_dinobloom.predict.protocols.folds import paper_plan, strict_plan
from napari_dinobloom.predict.protocols.intervals import intervals
from napari_dinobloom.predict.protocols.layouts import COLUMNS, LabelledFiles, Layout
from napari_dinobloom.predict.protocols.methods import reference_classifier
from napari_dinobloom.predict.protocols.protocol import iter_evaluate
from napari_dinobloom.predict.protocols.published import compare, published_figures
from napari_dinobloom.predict.protocols.result import Evaluation, write_evaluation
from napari_dinobloom.predict.protocols.seen import cautions
from napari_dinobloom.progress import Progress, Steps, drain


def files_of(labels: list[str], split: object = "", patient: object = "", layout: Layout = "folders") -> LabelledFiles:
    table = pd.DataFrame({"file": [f"{i:04d}.png" for i in range(len(labels))], "label": labels}, dtype=object)
    table["split"], table["patient"] = split, patient
    return LabelledFiles(Path("set"), layout, table[COLUMNS].astype(object))


def cohort_of(files: LabelledFiles, seed: int = 0, apart: float = 1.2) -> Cohort:
    """Embeddings that tell the classes about as well as real ones do."""
    random = np.random.default_rng(seed)
    names, code = np.unique(files.table["label"].to_numpy(str), return_inverse=True)
    centres = apart * random.normal(size=(len(names), 12))
    X = (centres[code] + random.normal(size=(len(code), 12))).astype(np.float32)
    prints = random.normal(size=(len(code), 576)).astype(np.float32)
    prints -= prints.mean(axis=1, keepdims=True)
    return Cohort(files, X, prints / np.linalg.norm(prints, axis=1, keepdims=True), "hash", ())


LABELS = ["a"] * 61 + ["b"] * 43 + ["c"] * 25 + ["d"] * 9


def test_folds_of_the_paper_are_those_drawn_by_hand() -> None:
    """scikit-learn deals the sorted classes out like cards, then takes each class's pictures in their order."""
    plan = paper_plan(files_of(["a"] * 7 + ["b"] * 5))
    # dealt: a a a a a | a a b b b | b b; so folds have 3 3 2 2 2 pictures, of a: 2 2 1 1 1, of b: 1 1 1 1 1
    tests = [[0, 1, 7], [2, 3, 8], [4, 9], [5, 10], [6, 11]]
    assert [fold.test.tolist() for fold in plan.reported] == tests
    for fold in plan.reported:
        assert sorted([*fold.train, *fold.test]) == list(range(12))
    assert plan.orders == []


def test_a_fixed_split_is_taken_as_it_is() -> None:
    plan = paper_plan(files_of(["a", "b", "a", "b"], split=["train", "train", "test", "train"]))
    assert [(fold.train.tolist(), fold.test.tolist()) for fold in plan.reported] == [([0, 1, 3], [2])]


def test_bmc_without_its_lists_is_drawn_as_the_reference_drew() -> None:
    plan = paper_plan(files_of(["a"] * 50 + ["b"] * 25, layout="bmc"))
    assert len(plan.reported[0].test) == 15
    assert (plan.reported[0].test < 50).sum() == 10
    assert "another one" in plan.notes[0]


def test_patients_stay_whole_in_the_strict_protocol() -> None:
    labels = ["a", "b"] * 60
    patient = [f"p{i // 6}" if i < 100 else "" for i in range(120)]
    plan = strict_plan(files_of(labels, patient=patient), 6)
    assert plan.reported is plan.orders[0]
    assert len(plan.orders) == 6
    owner = np.array(patient)
    for draw in plan.orders:
        assert sorted(np.concatenate([fold.test for fold in draw])) == list(range(120))
        for fold in draw:
            assert not set(owner[fold.train]) & set(owner[fold.test]) - {""}
    first = {tuple(draw[0].test) for draw in plan.orders}
    assert len(first) == 6


def test_a_patient_on_both_sides_of_a_fixed_split_is_not_trained_on() -> None:
    labels = ["a", "b"] * 40
    split = ["train"] * 60 + ["test"] * 20
    patient = [f"p{i // 2}" for i in range(78)] + ["p0", "p0"]
    plan = strict_plan(files_of(labels, split, patient), 4)
    (fold,) = plan.reported
    assert fold.test.tolist() == list(range(60, 80))
    assert fold.train.tolist() == list(range(2, 60))
    assert plan.notes == ("2 training pictures of patients who are asked about are left out.",)
    for draw in plan.orders:
        assert draw[0].test.tolist() == fold.test.tolist()
        assert set(draw[0].train) < set(fold.train)


def test_the_classifiers_are_those_of_the_reference() -> None:
    assert pytest.approx(42.24) == reference_classifier("linear probe", 384, 11).C
    assert pytest.approx(322.56) == reference_classifier("linear probe", 1536, 21).C
    assert reference_classifier("linear probe", 8, 2).max_iter == 1000
    for method, k in (("1-NN", 1), ("20-NN", 20)):
        model = reference_classifier(method, 8, 2)
        assert (model.n_neighbors, model.weights, model.metric, model.p) == (k, "uniform", "minkowski", 2)


def test_the_paper_protocol_gives_the_labels_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of(LABELS)
    cohort = cohort_of(files)
    kinds = []
    ask = fits.guess

    def watched(method: str, *arrays: np.ndarray) -> object:
        kinds.extend(array.dtype for array in (arrays[0], arrays[2]))
        return ask(method, *arrays)

    monkeypatch.setattr(fits, "guess", watched)
    found = drain(iter_evaluate(cohort, "paper"))
    assert set(kinds) == {np.dtype(np.float64)}
    X, y = cohort.X.astype(np.float64), np.array(LABELS)
    models = {
        "1-NN": KNeighborsClassifier(1),
        "20-NN": KNeighborsClassifier(20),
        "linear probe": LogisticRegression(C=12 * 4 / 100, max_iter=1000),
    }
    by_metric = found.metrics.set_index(["method", "metric"])
    for name, model in models.items():
        f1, balanced = [], []
        for fold in paper_plan(files).reported:
            said = model.fit(X[fold.train], y[fold.train]).predict(X[fold.test])
            assert found.predictions.loc[fold.test, name].tolist() == said.tolist()
            f1.append(f1_score(y[fold.test], said, average="weighted"))
            balanced.append(balanced_accuracy_score(y[fold.test], said))
        row = by_metric.loc[(name, "weighted_f1")]
        assert row["value"] == pytest.approx(np.mean(f1))
        assert (row["sd"], row["runs"]) == (pytest.approx(np.std(f1)), 5)
        assert (row["lowest"], row["highest"]) == pytest.approx((min(f1), max(f1)))
        assert by_metric.loc[(name, "balanced_accuracy"), "value"] == pytest.approx(np.mean(balanced))
        assert row["low"] < row["value"] < row["high"]
        assert found.confusion[name].to_numpy().sum() == len(LABELS)


def test_scores_by_hand() -> None:
    #            a  b  c       3 of a, 2 of b, 1 of c
    table = np.array([[2, 1, 0], [0, 2, 0], [1, 0, 0]])
    found = table_scores(table)
    # precision 2/3 2/3 0, recall 2/3 1 0, f1 2/3 4/5 0
    assert found["weighted_f1"] == pytest.approx((3 * 2 / 3 + 2 * 4 / 5 + 0) / 6)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found["accuracy"] == pytest.approx(4 / 6)
    without = table_scores(table, np.array([True, True, False]))
    assert without["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)


def test_class_scores_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(3)
    truth, said = random.choice(list("abc"), 90), random.choice(list("abcd"), 90)
    table = class_scores(count_table(truth, said, list("abcd")), list("abcd"))
    theirs = precision_recall_fscore_support(truth, said, labels=list("abcd"), zero_division=0)
    np.testing.assert_allclose(table[["precision", "recall", "f1", "support"]].to_numpy().T, theirs)


def test_intervals_over_pictures_are_those_of_a_naive_loop() -> None:
    random = np.random.default_rng(1)
    truth = random.choice(list("abc"), 240, p=[0.6, 0.3, 0.1])
    said = np.where(random.random(240) < 0.75, truth, random.choice(list("abc"), 240))
    low, high = intervals([count_table(truth, said, list("abc"))[None]], table_scores, resamples=4000)["weighted_f1"]
    naive = []
    for _ in range(400):
        rows = random.integers(0, 240, 240)
        naive.append(f1_score(truth[rows], said[rows], average="weighted"))
    np.testing.assert_allclose([low, high], np.quantile(naive, [0.025, 0.975]), atol=0.02)


def test_intervals_over_patients_are_exactly_those_of_a_naive_loop() -> None:
    random = np.random.default_rng(2)
    owner, truth = random.integers(0, 9, 150), random.choice(list("ab"), 150)
    said = np.where(random.random(150) < 0.5 + owner / 20, truth, random.choice(list("ab"), 150))
    units = np.stack([count_table(truth[owner == p], said[owner == p], list("ab")) for p in range(9)])
    found = intervals([units], table_scores, resamples=300, seed=5)
    naive = []
    for weights in np.random.default_rng(5).multinomial(9, np.full(9, 1 / 9), size=300):
        rows = np.concatenate([np.flatnonzero(owner == p) for p in np.repeat(np.arange(9), weights)])
        naive.append(balanced_accuracy_score(truth[rows], said[rows]))
    assert found["balanced_accuracy"] == pytest.approx(tuple(np.quantile(naive, [0.025, 0.975])))


def drawn(cohort: Cohort, folder: Path, **pictures: list[int]) -> Cohort:
    """The same, with pictures on the disk for some rows; those of one name are copies, one of them smaller."""
    for seed, rows in enumerate(pictures.values()):
        spots = np.random.default_rng(seed).integers(0, 255, (20, 20, 3), np.uint8).repeat(9, axis=0).repeat(9, axis=1)
        for number, row in enumerate(rows):
            picture = Image.fromarray(spots).resize((180 - 60 * number,) * 2)
            picture.save(folder / cohort.files.table["file"].iloc[row])
    return replace(cohort, files=replace(cohort.files, root=folder))


def test_the_strict_protocol_leaves_copies_out(tmp_path: Path) -> None:
    files = files_of(LABELS)
    cohort = drawn(cohort_of(files), tmp_path, one=[2, 5], two=[3, 70])
    cohort.prints[5] = cohort.prints[2]  # both of class a: the first stays
    cohort.prints[70] = cohort.prints[3]  # of a and b: neither stays
    found = drain(iter_evaluate(cohort, "strict", orders=3))
    assert found.copies.to_dict("records") == [
        {"file": "0003.png", "label": "a", "copy_of": "0070.png", "why": "two classes"},
        {"file": "0005.png", "label": "a", "copy_of": "0002.png", "why": "copy"},
        {"file": "0070.png", "label": "b", "copy_of": "0003.png", "why": "two classes"},
    ]
    assert len(found.predictions) == len(LABELS) - 3
    assert "3 pictures are left out because they are there twice, 2 of them under two classes." in found.notes
    assert "balanced_accuracy_20 leaves out classes under 20 pictures: d." in found.notes
    row = found.metrics.set_index(["method", "metric"]).loc[("linear probe", "weighted_f1")]
    y, said = found.predictions["label"], found.predictions["linear probe"]
    assert row["value"] == pytest.approx(f1_score(y, said, average="weighted"))
    assert row["runs"] == 3
    assert row["lowest"] <= row["value"] <= row["highest"]
    common = found.metrics.set_index(["method", "metric"]).loc[("linear probe", "balanced_accuracy_20"), "value"]
    kept = y != "d"
    assert common == pytest.approx(np.mean([(said == y)[kept & (y == name)].mean() for name in "abc"]))


def test_the_copy_that_is_asked_about_stays(tmp_path: Path) -> None:
    files = files_of(["a", "b"] * 40, split=["train"] * 60 + ["test"] * 20)
    cohort = drawn(cohort_of(files), tmp_path, one=[4, 62])
    cohort.prints[4] = cohort.prints[62]
    found = drain(iter_evaluate(cohort, "strict", orders=2))
    assert found.copies["file"].tolist() == ["0004.png"]
    assert len(found.predictions) == 20


def test_different_cells_that_look_alike_from_afar_stay(tmp_path: Path) -> None:
    """A dark nucleus on pale ground: coarse grey values agree, detail does not."""
    y, x = np.mgrid[:120, :120]
    nucleus = 220 - 150 * np.exp(-((x - 60) ** 2 + (y - 60) ** 2) / 900)
    files, prints = files_of(["a"] * 6 + ["b"] * 6), []
    for row in range(12):
        texture = np.random.default_rng(row).normal(0, 12, (40, 40, 3)).repeat(3, axis=0).repeat(3, axis=1)
        picture = np.clip(nucleus[..., None] + texture, 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / files.table["file"].iloc[row])
        prints.append(fingerprint(picture))
    alike = np.stack(prints) @ np.stack(prints).T
    assert alike.min() > ALIKE
    found = drain(iter_find_copies(replace(files, root=tmp_path), np.stack(prints)))
    assert found.kept.all()


def test_copies_do_not_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a copy of its neighbour alone: every second one stays; of two classes only the pair itself goes."""
    files = files_of(["a"] * 6 + ["b"] * 2)
    pairs = [(0, 1), (1, 2), (2, 3), (5, 6)]

    def found(_: object, __: object) -> Steps[list[tuple[int, int]]]:
        yield Progress(0, 1)
        return pairs

    monkeypatch.setattr(copies, "_iter_pairs", found)
    table = drain(iter_find_copies(files, np.zeros((8, 576), np.float32))).table
    assert table.to_numpy().tolist() == [
        ["0001.png", "a", "0000.png", "copy"],
        ["0003.png", "a", "0002.png", "copy"],
        ["0005.png", "a", "0006.png", "two classes"],
        ["0006.png", "b", "0005.png", "two classes"],
    ]


@pytest.mark.parametrize("change", ["smaller", "compressed", "brighter"])
def test_the_detail_of_a_copy_agrees_and_of_another_does_not(change: str) -> None:
    random = np.random.default_rng(0)
    one, other = random.integers(0, 255, (2, 40, 40, 3), np.uint8).repeat(5, axis=1).repeat(5, axis=2)
    file = io.BytesIO()
    Image.fromarray(one).save(file, "JPEG", quality=40)
    changed = {
        "smaller": Image.fromarray(one).resize((80, 80)),
        "compressed": Image.open(file),
        "brighter": Image.fromarray(np.clip(one * 1.15, 0, 255).astype(np.uint8)),
    }[change]
    assert agreement(detail(one), detail(np.asarray(changed))) > AGREEING
    assert agreement(detail(one), detail(other)) < 0.3
    bare = detail(np.full((30, 30, 3), 7, np.uint8))
    assert agreement(bare, bare) == 1
    assert agreement(bare, detail(one)) == 0


def test_a_fingerprint_knows_a_copy_and_no_other() -> None:
    random = np.random.default_rng(0)
    one, other = random.integers(0, 255, (2, 20, 16, 3), np.uint8).repeat(3, axis=1).repeat(4, axis=2)
    brighter = np.clip(one * 1.1, 0, 255).astype(np.uint8)
    assert fingerprint(one) @ fingerprint(brighter) > 0.97
    assert fingerprint(one) @ fingerprint(np.repeat(np.repeat(one, 2, 0), 2, 1)) > 0.999
    assert abs(fingerprint(one) @ fingerprint(other)) < 0.3
    assert not fingerprint(np.full((30, 30, 3), 7, np.uint8)).any()


def test_a_second_run_gives_the_same(tmp_path: Path) -> None:
    cohort = cohort_of(files_of(LABELS))
    for name in "xy":
        write_evaluation(drain(iter_evaluate(cohort, "strict", orders=2)), tmp_path / name, {"data": {"hash": "h"}})
    for file in ("metrics.csv", "per_class.csv", "predictions.csv", "run.json"):
        assert (tmp_path / "x" / file).read_bytes() == (tmp_path / "y" / file).read_bytes()


def test_a_stopped_run_goes_on_with_the_next_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort, asked, ask = cohort_of(files_of(LABELS)), [], fits.guess

    def counted(*arguments: object) -> object:
        asked.append(arguments[0])
        return ask(*arguments)

    monkeypatch.setattr(fits, "guess", counted)
    whole = drain(iter_evaluate(cohort, "paper"))
    assert len(asked) == 15
    steps = iter_evaluate(cohort, "paper", cache=tmp_path)
    next(report for report in steps if report.done == 7)
    steps.close()
    kept = sorted((tmp_path / "fits").iterdir())
    assert len(kept) == 7
    kept[0].write_bytes(kept[0].read_bytes()[:40])
    asked.clear()
    again = drain(iter_evaluate(cohort, "paper", cache=tmp_path))
    assert len(asked) == 15 - 6
    pd.testing.assert_frame_equal(again.metrics, whole.metrics)
    assert again.notes == whole.notes
    other = cohort_of(files_of(LABELS), seed=1)
    asked.clear()
    drain(iter_evaluate(other, "paper", cache=tmp_path))
    assert len(asked) == 15


def test_sets_that_are_too_small_are_told() -> None:
    with pytest.raises(InputError, match="cannot be divided in 5 folds"):
        drain(iter_evaluate(cohort_of(files_of(["a", "b", "a"])), "paper"))
    single = cohort_of(files_of(["a", "a", "b"], split=["train", "train", "test"]))
    with pytest.raises(InputError, match="one class to train on"):
        drain(iter_evaluate(single, "paper"))
    few = drain(iter_evaluate(cohort_of(files_of(["a", "b"] * 8)), "paper"))
    assert list(few.confusion) == ["1-NN", "linear probe"]
    assert any(note.startswith("20-NN is left out") for note in few.notes)


def measured(**values: float) -> Evaluation:
    rows = [{"method": "1-NN", "metric": metric, "value": value} for metric, value in values.items()]
    blank = pd.DataFrame()
    return Evaluation("paper", ("a", "b"), pd.DataFrame(rows), blank, {}, blank, blank, ())


def test_published_figures_stand_beside_measured_ones() -> None:
    known = published_figures()
    assert len(known) == 4 * (3 * 2 + 2 + 2 * 3) + 3 * 4
    found = compare(measured(weighted_f1=0.87, accuracy=0.9), "acevedo", "DinoBloom-B")
    assert found.iloc[0]["DinoBloom-B"] == 87.4
    assert found.iloc[0]["difference"] == pytest.approx(-0.4)
    assert np.isnan(found.iloc[1]["difference"])
    other = compare(measured(weighted_f1=0.5), "bmc", "starter")
    assert list(other.columns) == ["method", "metric", "measured", *(f"DinoBloom-{s}" for s in "SBLG")]
    assert compare(measured(weighted_f1=0.5), "bmc", "DINOv2-g")["DINOv2-G"][0] == 41.0
    with pytest.raises(InputError, match="no figures"):
        compare(measured(weighted_f1=0.5), "folders", "starter")


def test_an_encoder_that_saw_the_pictures_is_told() -> None:
    (text,) = cautions("starter", "acevedo", [f"basophil/BA_{i}.jpg" for i in range(200)])
    assert "no external validation" in text
    assert cautions("starter", "folders", ["x/other.png"]) == []
    assert cautions("DinoBloom-S", "acevedo", ["BA_1.jpg"]) == []
    assert "without labels" in cautions("DinoBloom-S", "bmc", ["BLA_1.jpg"])[0]


def test_patients_are_judged_by_the_attention_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bags, "MODELS", 2)
    random = np.random.default_rng(0)
    patient = np.repeat([f"p{i:02d}" for i in range(24)], 6)
    label = np.where(np.char.replace(patient, "p", "").astype(int) % 2, "NPM1", "control")
    split = np.where(patient < "p16", "train", "test")
    files = files_of(label.tolist(), split, patient, "hehr")
    learned: list[set[str]] = []

    class Watched(AttentionMIL):
        def __init__(self, preset: str, *, seed: int) -> None:
            assert preset == "paper"
            super().__init__(preset, seed=seed, epochs=12)

        def iter_fit(self, cells: list[np.ndarray], y: np.ndarray, *, names: list[str]) -> object:  # type: ignore[override]
            learned.append(set(names))
            assert sum(map(len, cells)) == 96
            return super().iter_fit(cells, y, names=names)

    monkeypatch.setattr(bags, "AttentionMIL", Watched)
    cohort = cohort_of(files)
    X = ((label == "NPM1")[:, None] * 2 + random.normal(size=(len(label), 12))).astype(np.float32)
    found = drain(iter_evaluate(Cohort(files, X, cohort.prints, "hash", ()), "paper"))
    assert learned == [{f"p{i:02d}" for i in range(16)}] * 2
    assert found.predictions["patient"].tolist() == [f"p{i:02d}" for i in range(16, 24)]
    assert list(found.confusion) == ["ABMIL"]
    row = found.metrics.set_index("metric").loc["weighted_f1"]
    assert row["runs"] == 2
    assert row["value"] > 0.8
    assert row["low"] <= row["value"] <= row["high"]
    first = f1_score(found.predictions["label"], found.predictions["ABMIL"], average="weighted")
    assert row["lowest"] - 1e-9 <= first <= row["highest"] + 1e-9
